"""Write MRC files: a header of 1024 bytes, an extended header, sections.

Source: the fact sheet of the format (MRC2014); made without looking at the reader.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = ["MODES", "make_mrc_header", "write_mrc"]

MODES = {"i1": 0, "i2": 1, "f4": 2, "c8": 4, "u2": 6, "f2": 12, "u1": 0}
STAMPS = {"<": b"\x44\x44\0\0", ">": b"\x11\x11\0\0"}


def make_mrc_header(
    shape: tuple[int, int, int],
    mode: int,
    *,
    byte_order: Literal["<", ">"] = "<",
    extended_bytes: int = 0,
    extended_type: bytes = b"",
    patches: Mapping[int, bytes] | None = None,
) -> bytes:
    """The first 1024 bytes.

    Parameters
    ----------
    shape : (int, int, int)
        Sections, rows, columns.
    mode : int
        Pixel type.
    byte_order : str
        ``"<"`` or ``">"``.
    extended_bytes, extended_type
        Size and four-letter type of the extended header.
    patches : mapping, optional
        Bytes to overwrite, by offset.
    """
    nz, ny, nx = shape
    header = bytearray(1024)

    def put(offset: int, kind: str, *values: Any) -> None:
        struct.pack_into(byte_order + kind, header, offset, *values)

    put(0, "4i", nx, ny, nz, mode)
    put(28, "3i", nx, ny, nz)
    put(40, "6f", nx, ny, nz, 90, 90, 90)
    put(64, "3i", 1, 2, 3)
    put(92, "i", extended_bytes)
    put(104, "4s", extended_type)
    put(108, "i", 20140)
    header[208:216] = b"MAP " + STAMPS[byte_order]
    put(216, "f", -1)
    for offset, patch in (patches or {}).items():
        header[offset : offset + len(patch)] = patch
    return bytes(header)


def write_mrc(
    path: Path,
    frames: npt.NDArray[Any],
    *,
    byte_order: Literal["<", ">"] = "<",
    extended: bytes = b"",
    extended_type: bytes = b"",
    patches: Mapping[int, bytes] | None = None,
) -> Path:
    """Store `frames` (n, height, width) in the mode of their dtype.

    Parameters
    ----------
    byte_order : str
        ``"<"`` or ``">"``, for header and pixels.
    extended, extended_type
        The extended header and its four-letter type.
    patches : mapping, optional
        Bytes of the header to overwrite, by offset.
    """
    n, height, width = frames.shape
    header = make_mrc_header(
        (n, height, width),
        MODES[frames.dtype.str[1:]],
        byte_order=byte_order,
        extended_bytes=len(extended),
        extended_type=extended_type,
        patches=patches,
    )
    pixels = np.ascontiguousarray(frames, dtype=frames.dtype.newbyteorder(byte_order))
    path.write_bytes(header + extended + pixels.tobytes())
    return path
