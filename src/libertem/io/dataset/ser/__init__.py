"""Read SER files of TIA (ES Vision): image series, scans of diffraction patterns, spectra.

`header` and `elements` describe the layout, `dataset` reads it; `metadata` and `emi` tell about the
experiment.
"""

from __future__ import annotations

from libertem.io.dataset.ser.dataset import SERDataSet, SERDatasetParams, SERFacts
from libertem.io.dataset.ser.elements import ElementHeader, ElementTable, parse_element_header
from libertem.io.dataset.ser.header import Dimension, SERHeader, parse_header

__all__ = [
    "Dimension",
    "ElementHeader",
    "ElementTable",
    "SERDataSet",
    "SERDatasetParams",
    "SERFacts",
    "SERHeader",
    "parse_element_header",
    "parse_header",
]
