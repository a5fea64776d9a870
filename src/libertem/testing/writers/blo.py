"""Write blockfiles as the ASTAR and TopSPIN software of NanoMegas does.

| bytes | content |
|------:|---------|
|   240 | header |
|       | note, then zeros up to the offset of the bright field image |
| NX·NY | virtual bright field image, one byte per scan point, then zeros up to a multiple of 16 |
|       | frames: ``AA 55``, number of the frame as u4, pixels |

Source: the fact sheet of the format; made without looking at the reader.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from libertem.common.math import prod

__all__ = ["NOTE_8_BIT", "NOTE_16_BIT", "make_blo_header", "write_blo"]

CLASSIC, FORMAT_1_3 = 0x0102, 0x0103

NOTE_8_BIT = "Blo Bit Depth: 8 bits\r\n"
NOTE_16_BIT = "Blo Bit Depth: 16 bits\r\n"


def make_blo_header(
    nav_shape: tuple[int, int],
    dp_size: int,
    *,
    magic: int = CLASSIC,
    offsets: tuple[int, int] | None = None,
    byte_order: Literal["<", ">"] = "<",
    note: str = "",
    patches: Mapping[int, bytes] | None = None,
) -> bytes:
    """Everything before the bright field image.

    Parameters
    ----------
    nav_shape : (int, int)
        NY and NX.
    dp_size : int
        Height and width of the frames.
    magic : int
        Version of the format.
    offsets : (int, int), optional
        Where the bright field image and the frames start; the first is 4096 by default.
    byte_order : str
        ``"<"`` or ``">"``.
    note : str
        Text after the header.
    patches : mapping, optional
        Bytes to overwrite, by offset.
    """
    ny, nx = nav_shape
    image, frames = offsets or (4096, 4096 + ny * nx + -(ny * nx) % 16)
    header = bytearray(image)
    struct.pack_into("6s", header, 0, b"IMGBLO")
    struct.pack_into(f"{byte_order}H3I", header, 6, magic, image, frames, 131141)
    struct.pack_into(f"{byte_order}5H", header, 20, dp_size, 0, nx, ny, 0)
    struct.pack_into(f"{byte_order}2d", header, 30, 1.0, 1.0)
    struct.pack_into(f"{byte_order}IHI", header, 46, 200000, 100, 1800)
    struct.pack_into(f"{byte_order}d", header, 56, 43831.0)
    text = note.encode()
    header[240 : 240 + len(text)] = text
    for offset, patch in (patches or {}).items():
        header[offset : offset + len(patch)] = patch
    return bytes(header)


def write_blo(
    path: Path,
    slabs: Iterable[npt.NDArray[Any]],
    nav_shape: tuple[int, int],
    *,
    magic: int | None = None,
    byte_order: Literal["<", ">"] = "<",
    note: str | None = None,
    offsets: tuple[int, int] | None = None,
    patches: Mapping[int, bytes] | None = None,
) -> Path:
    """Store frames of 8 or 16 bit unsigned integers.

    Parameters
    ----------
    slabs : iterable of numpy.ndarray
        The frames in scan order, any number at a time: arrays (n, size, size), all of one dtype. Fewer or
        more of them than the scan has positions make a damaged file.
    nav_shape : (int, int)
        Rows and columns of the scan.
    magic : int, optional
        0x0102 for 8 bit, 0x0103 for 16 bit by default.
    byte_order : str
        Of header and pixels.
    note : str, optional
        Text after the header; by default that which belongs to magic and bit depth.
    offsets : (int, int), optional
        Where the bright field image and the frames start.
    patches : mapping, optional
        Bytes to overwrite before the bright field image, by offset.
    """
    slabs = iter(slabs)
    first = next(slabs)
    itemsize, dp_size = first.dtype.itemsize, first.shape[1]
    if magic is None:
        magic = CLASSIC if itemsize == 1 else FORMAT_1_3
    if note is None:
        note = "Precession angle : \r\n" if magic == CLASSIC else (NOTE_8_BIT, NOTE_16_BIT)[itemsize - 1]
    n = prod(nav_shape)
    offsets = offsets or (4096, 4096 + n + -n % 16)
    head = make_blo_header(
        nav_shape,
        dp_size,
        magic=magic,
        offsets=offsets,
        byte_order=byte_order,
        note=note,
        patches=patches,
    )
    number = 0
    with path.open("wb") as file:
        file.write(head)
        # The bright field image: no two neighbours are the same, and none is zero.
        file.write((np.arange(n) % 255 + 1).astype(np.uint8).tobytes() + bytes(offsets[1] - offsets[0] - n))
        for slab in itertools.chain([first], slabs):
            file.write(_records(slab, number, byte_order).data)
            number += len(slab)
    return path


def _records(slab: npt.NDArray[Any], first: int, byte_order: str) -> npt.NDArray[Any]:
    pixels = (f"{byte_order}u{slab.dtype.itemsize}", slab.shape[1:])
    record = np.dtype([("mark", "V2"), ("number", f"{byte_order}u4"), ("pixels", *pixels)])
    records = np.empty(len(slab), dtype=record)
    records["mark"] = np.void(b"\xaa\x55")
    records["number"] = np.arange(first, first + len(slab))
    records["pixels"] = slab
    return records
