"""Write SEQ files as Norpix StreamPix does, and the sidecars of Direct Electron cameras.

Source: the fact sheet of the format; made without looking at the reader.
"""

from __future__ import annotations

import struct
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "make_seq_header",
    "write_seq",
    "write_seq_config",
    "write_seq_metadata",
    "write_seq_reference",
]

FIRST_SECOND = 1600000000
"""Time of the first frame; one more for each of the others."""

PAGE = 8192
"""Version 5 starts frames at multiples of that."""


def make_seq_header(
    sig_shape: tuple[int, int],
    dtype: npt.DTypeLike,
    n_frames: int,
    true_image_size: int,
    *,
    version: int = 5,
    description: bytes = "No Description".encode("utf-16-le"),
    patches: Mapping[int, bytes] | None = None,
) -> bytes:
    """The bytes before the first frame.

    Parameters
    ----------
    sig_shape, dtype
        Of the frames. The dtype is an unsigned integer.
    n_frames : int
        Becomes the field ``allocated_frames``.
    true_image_size : int
        Bytes from one frame to the next.
    version : int
        From 5 on the header is longer.
    description : bytes
        In UTF-16; may be followed by anything.
    patches : mapping, optional
        Bytes to overwrite, by offset.
    """
    height, width = sig_shape
    bits = 8 * np.dtype(dtype).itemsize
    header = bytearray(PAGE if version >= 5 else 1024)
    struct.pack_into("<I24sii", header, 0, 0xFEED, "Norpix seq".encode("utf-16-le"), version, 1024)
    header[36 : 36 + len(description)] = description
    sizes = (width, height, bits, bits, width * height * bits // 8)
    struct.pack_into("<9I", header, 548, *sizes, 100, n_frames, 0, true_image_size)
    struct.pack_into("<d", header, 584, 25.0)
    for offset, patch in (patches or {}).items():
        header[offset : offset + len(patch)] = patch
    return bytes(header)


def write_seq(
    path: Path,
    slabs: Iterable[npt.NDArray[Any]],
    *,
    version: int = 5,
    true_image_size: int | None = None,
    description: bytes = "No Description".encode("utf-16-le"),
    patches: Mapping[int, bytes] | None = None,
) -> Path:
    """Store frames with a time stamp and padding each.

    Parameters
    ----------
    slabs : iterable of numpy.ndarray
        The frames, any number at a time: arrays of shape (n, height, width) and the same unsigned dtype. At
        least one array, which may have no frames.
    version : int
        5, or 3 or 4 for the files of old software.
    true_image_size : int, optional
        Bytes from one frame to the next. By default pixels and time, rounded up to 8192 in version 5.
    description, patches
        As for `make_seq_header`.
    """
    arrays = iter(slabs)
    first = next(arrays)
    pixel_bytes = first.dtype.itemsize * first.shape[1] * first.shape[2]
    time_bytes = 8 if version >= 5 else 6
    if true_image_size is None:
        block = PAGE if version >= 5 else 1
        true_image_size = -(-(pixel_bytes + time_bytes) // block) * block
    n_frames = 0
    with path.open("wb") as file:
        file.write(bytes(PAGE if version >= 5 else 1024))
        for slab in chain([first], arrays):
            file.write(_frames(slab, n_frames, true_image_size, time_bytes).data)
            n_frames += slab.shape[0]
        file.seek(0)
        file.write(
            make_seq_header(
                (first.shape[1], first.shape[2]),
                first.dtype,
                n_frames,
                true_image_size,
                version=version,
                description=description,
                patches=patches,
            )
        )
    return path


def _frames(
    slab: npt.NDArray[Any], start: int, true_image_size: int, time_bytes: int
) -> npt.NDArray[np.uint8]:
    """Bytes ``(n, true_image_size)`` of frames with their times; those are cut off if there is no room."""
    n = slab.shape[0]
    little = np.ascontiguousarray(slab, dtype=slab.dtype.newbyteorder("<"))
    pixels = little.reshape(n, -1).view(np.uint8) if n else np.empty((0, 0), dtype=np.uint8)
    numbers = np.arange(start, start + n)
    times = np.zeros(n, dtype=[("s", "<u4"), ("ms", "<u2"), ("us", "<u2")])
    times["s"] = FIRST_SECOND + numbers
    times["ms"] = times["us"] = numbers % 1000
    footer = times.view(np.uint8).reshape(n, 8)[:, :time_bytes]
    out = np.zeros((n, true_image_size), dtype=np.uint8)
    n_pixel_bytes = pixels.shape[1]
    out[:, :n_pixel_bytes] = pixels
    room = max(0, min(time_bytes, true_image_size - n_pixel_bytes))
    out[:, n_pixel_bytes : n_pixel_bytes + room] = footer[:, :room]
    return out


def write_seq_reference(path: Path, image: npt.NDArray[Any]) -> Path:
    """Store a dark frame or gain map as Direct Electron does: an MRC file that claims 32766 images."""
    height, width = image.shape
    header = bytearray(1024)
    struct.pack_into("<4i", header, 0, width, height, 32766, 2)
    struct.pack_into("<3i", header, 28, width, height, 1)
    struct.pack_into("<3f", header, 52, 90, 90, 90)
    struct.pack_into("<3i", header, 64, 1, 2, 3)
    header[208:214] = b"MAP DA"
    path.write_bytes(bytes(header) + image.astype("<f4").tobytes())
    return path


def write_seq_metadata(
    path: Path,
    size: tuple[int, int],
    offset: tuple[int, int],
    binning: int = 1,
    *,
    rotation: int = 0,
    n_records: int = 2,
    bare: bool = False,
) -> Path:
    """Store the part of the sensor that was read out, once for each frame.

    Parameters
    ----------
    size, offset : (int, int)
        (y, x) in pixels of the sensor, before binning.
    binning : int
        Of the hardware.
    rotation : int
        In units of 90°.
    bare : bool
        Put the payload at byte 282, where software of 2020 had it.
    """
    payload = bytearray(208)
    struct.pack_into("<8i", payload, 0, 208, 16, size[1], size[0], offset[1], offset[0], binning, 12)
    struct.pack_into("<d2I", payload, 32, 86956.52, rotation, 2)
    payload[152:174] = b"2022-08-11 14:21:27.69"
    file_header = struct.pack("<4I", 1, 256, n_records, 224).ljust(256, b"\0")
    record = struct.pack("<4I", 224, 1, 8, 208) + bytes(payload)
    if bare:
        path.write_bytes(file_header.ljust(282, b"\0") + bytes(payload) * n_records)
    else:
        path.write_bytes(file_header + record * n_records)
    return path


def write_seq_config(
    path: Path,
    maps: Sequence[tuple[Mapping[str, object], Sequence[Mapping[str, object]]]],
    file_info: Mapping[str, object] | None = None,
) -> Path:
    """Store defects of the sensor.

    Parameters
    ----------
    maps : sequence
        For each map its attributes (``Rows``, ``Columns``, ``Binning``) and those of its defects.
    file_info : mapping, optional
        Names and values of ``FileInfo``; that element is left out without it.
    """
    root = ET.Element("Configuration")
    if maps:
        bad_pixels = ET.SubElement(root, "BadPixels")
        bad_pixels.append(ET.Comment(' <Defect Column="152" Row="109" /> '))
        for attributes, defects in maps:
            element = ET.SubElement(bad_pixels, "BadPixelMap", _texts(attributes))
            for defect in defects:
                ET.SubElement(element, "Defect", _texts(defect))
    if file_info is not None:
        info = ET.SubElement(root, "FileInfo")
        for name, value in file_info.items():
            ET.SubElement(info, name, Value=str(value))
    ET.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)
    return path


def _texts(attributes: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in attributes.items()}
