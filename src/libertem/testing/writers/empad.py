"""Write the pair of files that an EMPAD detector leaves behind.

|   byte in the raw file | content                                             |
|-----------------------:|-----------------------------------------------------|
|           66560 · i    | frame i: 128 rows of 128 float32, little-endian     |
|   66560 · i + 65536    | its footer: 2 rows of 128 float32, no image         |

The XML file beside it names the raw file and gives the scan as version 1.2.2 of the acquisition software
does: without ``type``, ``pix_x`` and ``pix_y``, with one block of scan parameters per mode.

Source: the fact sheet of the format; made without looking at the reader.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from libertem.common.math import prod

__all__ = ["SIG_SHAPE", "write_empad"]

SIG_SHAPE = (128, 128)
FOOTER_ROWS = 2
SOFTWARE_VERSION = "1.2.2"

# What instruments write there is not known. A value that no electron count has shows at once if it leaks.
FOOTER_VALUE = -9.0

# A fixed moment, so that the same frames always give the same bytes.
TIMESTAMP = datetime(2026, 1, 1, tzinfo=timezone.utc)


def write_empad(
    folder: Path,
    slabs: Iterable[npt.NDArray[Any]],
    nav_shape: tuple[int, int],
    *,
    name: str = "acquisition_1",
) -> Path:
    """Store a scan as an ``.xml`` and a ``.raw`` file.

    Parameters
    ----------
    folder : Path
        Where to put both files; made if it does not exist.
    slabs : iterable of numpy.ndarray
        The frames in scan order, any number at a time: arrays of shape (n, 128, 128).
    nav_shape : (int, int)
        Rows and columns of the scan.
    name : str
        Name of the XML file without extension.

    Returns
    -------
    Path
        The XML file. It is written last: where it exists, the raw file is complete.

    Raises
    ------
    ValueError
        If `slabs` do not hold exactly the frames of the scan.
    """
    folder.mkdir(parents=True, exist_ok=True)
    raw_path = folder / f"scan_x{nav_shape[1]}_y{nav_shape[0]}.raw"
    with raw_path.open("wb") as raw:
        n_frames = sum(_write_frames(raw, slab) for slab in slabs)
    if n_frames != prod(nav_shape):
        raw_path.unlink()
        raise ValueError(f"found {n_frames} frames, expected {prod(nav_shape)} for a scan of {nav_shape}")
    xml_path = folder / f"{name}.xml"
    ET.ElementTree(_describe(name, raw_path.name, nav_shape)).write(xml_path, encoding="utf-8")
    return xml_path


def _write_frames(raw: BinaryIO, frames: npt.NDArray[Any]) -> int:
    padded = np.full((len(frames), SIG_SHAPE[0] + FOOTER_ROWS, SIG_SHAPE[1]), FOOTER_VALUE, dtype="<f4")
    padded[:, : SIG_SHAPE[0]] = frames
    raw.write(padded.data)
    return len(frames)


def _describe(name: str, raw_name: str, nav_shape: tuple[int, int]) -> ET.Element:
    root = ET.Element("root", name=name)
    ET.SubElement(root, "timestamp", timestamp=f"{TIMESTAMP.timestamp()}", isoformat=TIMESTAMP.isoformat())
    ET.SubElement(root, "software_version").text = SOFTWARE_VERSION
    ET.SubElement(root, "raw_file", filename=raw_name)
    ET.SubElement(root, "exposure_time").text = "1"
    for mode in ("search", "acquire"):
        block = ET.SubElement(root, "scan_parameters", mode=mode)
        for key, value in (
            ("scan_center_y", 0.5),
            ("scan_resolution_x", nav_shape[1]),
            ("scan_size", 1.0),
            ("scan_resolution_y", nav_shape[0]),
            ("scan_center_x", 0.5),
        ):
            ET.SubElement(block, key).text = str(value)
    return root
