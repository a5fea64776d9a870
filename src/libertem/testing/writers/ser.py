"""Write SER files: a header, two arrays of offsets, elements with their tags.

Source: the fact sheet of the format (TIA, versions 0x0210 and 0x0220); made without looking at the reader.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = ["DATA_TYPES", "make_ser_element", "make_ser_header", "make_ser_tag", "write_ser"]

DATA_TYPES = {"u1": 1, "u2": 2, "u4": 3, "i1": 4, "i2": 5, "i4": 6, "f4": 7, "f8": 8, "c8": 9, "c16": 10}
TAG_TYPES = {"time": 0x4152, "position": 0x4142}
START_TIME = 1_500_000_000


def make_ser_header(
    dims: Sequence[int],
    valid: int,
    *,
    element_dims: int = 2,
    version: Literal[0x0210, 0x0220] = 0x0220,
    tags: Literal["time", "position"] = "time",
    total: int | None = None,
    gap: int = 0,
) -> bytes:
    """Everything before the offset arrays.

    Parameters
    ----------
    dims : sequence of int
        Sizes in the order of the file: the fast scan axis first.
    valid : int
        Elements that were written.
    element_dims : int
        1 for spectra, 2 for images.
    version : int
        0x0210 has 32 bit offsets, 0x0220 has 64 bit ones.
    tags : str
        What follows each element.
    total : int, optional
        Planned elements, if not the product of `dims`.
    gap : int
        Unused bytes between the last dimension and the offset arrays.
    """
    description, units = (b"Number", b"") if tags == "time" else (b"Position", b"meters")
    records = b"".join(
        struct.pack("<iddi", size, 0, 1, 0)
        + struct.pack("<i", len(description))
        + description
        + struct.pack("<i", len(units))
        + units
        for size in dims
    )
    offset_type = "I" if version == 0x0210 else "Q"
    table = 22 + struct.calcsize("<" + offset_type) + 4 + len(records) + gap
    total = int(np.prod(dims, dtype=np.int64)) if total is None else total
    kind = 0x4122 if element_dims == 2 else 0x4120
    start = struct.pack("<HHHIIii", 0x4949, 0x0197, version, kind, TAG_TYPES[tags], total, valid)
    return start + struct.pack(f"<{offset_type}i", table, len(dims)) + records + bytes(gap)


def make_ser_element(pixels: npt.NDArray[Any]) -> bytes:
    """An element: calibrations, type and size, then values; images from the bottom row to the top row."""
    calibration = struct.pack("<ddi", 0, 1e-10, 0) * pixels.ndim
    data_type = struct.pack("<H", DATA_TYPES[pixels.dtype.str[1:]])
    sizes = struct.pack(f"<{pixels.ndim}i", *reversed(pixels.shape))
    stored = pixels[::-1] if pixels.ndim == 2 else pixels
    values = np.ascontiguousarray(stored, dtype=pixels.dtype.newbyteorder("<"))
    return calibration + data_type + sizes + values.tobytes()


def make_ser_tag(number: int, tags: Literal["time", "position"], columns: int) -> bytes:
    """What follows element `number`: one second per element, one nanometre per scan position."""
    tag = struct.pack("<HHI", TAG_TYPES[tags], 0, START_TIME + number)
    if tags == "time":
        return tag
    row, column = divmod(number, columns)
    return tag + struct.pack("<dd", column * 1e-9, row * 1e-9)


def write_ser(
    path: Path,
    elements: npt.NDArray[Any] | Sequence[npt.NDArray[Any]],
    *,
    nav_shape: Sequence[int] | None = None,
    version: Literal[0x0210, 0x0220] = 0x0220,
    tags: Literal["time", "position"] = "time",
    order: Iterable[int] | None = None,
    gap: int = 0,
    header: bytes | None = None,
    trailing: bytes = b"",
) -> Path:
    """Store images (n, height, width) or spectra (n, length) as a SER file.

    Parameters
    ----------
    elements : array or sequence of arrays
        Those of a sequence may have different shapes and dtypes. Read one by one.
    nav_shape : sequence of int, optional
        Planned scan shape in C order, with room for all elements; by default as many as there are.
    order : iterable of int, optional
        In which order elements lie in the file; by default that of their numbers.
    gap : int
        Unused bytes before the first element.
    header : bytes, optional
        Replaces what comes before the offset arrays, which then start at its end.
    trailing : bytes
        What follows the last tag.
    """
    n = len(elements)
    dims = [n] if nav_shape is None else list(nav_shape)[::-1]
    total = int(np.prod(dims, dtype=np.int64))
    if header is None:
        header = make_ser_header(dims, n, element_dims=elements[0].ndim, version=version, tags=tags)
    offset_dtype = np.dtype("<u4" if version == 0x0210 else "<u8")
    data_offsets, tag_offsets = np.zeros((2, total), dtype=offset_dtype)
    position = len(header) + data_offsets.nbytes + tag_offsets.nbytes + gap
    order = list(range(n)) if order is None else list(order)
    for number in order:
        pixels = elements[number]
        data_offsets[number] = position
        position += 20 * pixels.ndim + 2 + 4 * pixels.ndim + pixels.nbytes
        tag_offsets[number] = position
        position += 8 if tags == "time" else 24
    # TIA leaves the place of the element that would have been next.
    data_offsets[n : n + 1] = position
    with path.open("wb") as file:
        file.write(header + data_offsets.tobytes() + tag_offsets.tobytes() + bytes(gap))
        for number in order:
            file.write(make_ser_element(elements[number]))
            file.write(make_ser_tag(number, tags, dims[0]))
        file.write(trailing)
    return path
