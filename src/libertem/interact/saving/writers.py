"""Formats by extension."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from libertem.interact.saving.contract import Output, Writer
from libertem.interact.saving.flat import NPYWriter, RawWriter
from libertem.interact.saving.hdf5 import EMDWriter, HSpyWriter, NeXusWriter
from libertem.interact.saving.tiff import TIFFWriter
from libertem.interact.saving.zarr_store import ZarrWriter

__all__ = ["SUFFIXES", "make_writer"]

SUFFIXES: Mapping[str, type[Writer]] = {
    ".npy": NPYWriter,
    ".h5": NeXusWriter,
    ".hdf5": NeXusWriter,
    ".hspy": HSpyWriter,
    ".emd": EMDWriter,
    ".zarr": ZarrWriter,
    ".tif": TIFFWriter,
    ".tiff": TIFFWriter,
    ".raw": RawWriter,
    ".bin": RawWriter,
}
"""Which writer serves an extension."""


def make_writer(output: Output, target: str, options: Mapping[str, Any]) -> Writer:
    """Writer for a path.

    Raises
    ------
    ValueError
        If the extension is not known, or the format cannot hold the data.
    TypeError
        If the format does not have such an option.
    ImportError
        If it needs a package that is not installed.
    """
    suffix = os.path.splitext(target)[1].lower()
    if suffix not in SUFFIXES:
        raise ValueError(
            f"{target}: the extension says how to save: found {suffix or 'none'!r}, "
            f"expected one of {', '.join(SUFFIXES)}"
        )
    cls = SUFFIXES[suffix]
    unknown = sorted(set(options) - set(cls.options))
    if unknown:
        raise TypeError(
            f"saving as {suffix} has no option {', '.join(unknown)}: "
            f"expected {' or '.join(cls.options) or 'none'}"
        )
    return cls(output, **options)
