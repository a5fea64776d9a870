"""The elements of SER files, and where they lie.

A 2D element, which is a frame. All numbers are little-endian:

| offset | type | meaning |
|-------:|------|---------|
|      0 | f8, f8, i4 | calibration of x |
|     20 | f8, f8, i4 | calibration of y |
|     40 | u2   | type of the values, see `DATA_TYPES` |
|     42 | i4   | X, number of columns |
|     46 | i4   | Y, number of rows |
|     50 |      | X · Y values row by row, **the bottom row first** |

A 1D element, which is a spectrum, has one calibration (20 bytes), the type (u2), the length (i4), the values.

A tag of 8 bytes (time) or 24 bytes (time and position) normally follows each element, so that elements have
equal distances. The format allows any place and order, and elements of different size and type. Here they
have to be alike, but may lie anywhere: runs of elements with equal distances are found from their offsets.

Sources: those of the header. The bottom row comes first in all files that could be compared with an export.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.math import prod
from libertem.exceptions import DataSetException, HeaderError
from libertem.io.dataset.base.backends.rawio import RawFile

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from libertem.io.dataset.ser.header import SERHeader

__all__ = [
    "ElementHeader",
    "ElementTable",
    "make_table",
    "parse_element_header",
    "read_calibrations",
    "read_element_header",
]

DATA_TYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("u1"),
    2: np.dtype("<u2"),
    3: np.dtype("<u4"),
    4: np.dtype("i1"),
    5: np.dtype("<i2"),
    6: np.dtype("<i4"),
    7: np.dtype("<f4"),
    8: np.dtype("<f8"),
    9: np.dtype("<c8"),
    10: np.dtype("<c16"),
}

CALIBRATION_BYTES = 20

MAX_CHECKS = 64
"""Headers of elements that are read when a file is opened. All others are checked when their pixels are."""


@dataclass(frozen=True)
class ElementHeader:
    """Type and shape of one element."""

    dtype: np.dtype[Any]
    """As stored, little-endian."""

    shape: tuple[int, ...]
    """(rows, columns) of an image, (length,) of a spectrum."""

    @property
    def shape_offset(self) -> int:
        """Bytes before type and sizes, which are the same in all elements of a data set."""
        return CALIBRATION_BYTES * len(self.shape)

    @property
    def header_bytes(self) -> int:
        """Bytes before the values."""
        return header_bytes(len(self.shape))

    @property
    def element_bytes(self) -> int:
        """Bytes of header and values."""
        return self.header_bytes + prod(self.shape) * self.dtype.itemsize

    def stored_shape(self) -> bytes:
        """Type and sizes as they stand in the header."""
        code = {dtype: code for code, dtype in DATA_TYPES.items()}[self.dtype.newbyteorder("<")]
        return struct.pack(f"<H{len(self.shape)}i", code, *reversed(self.shape))

    def __str__(self) -> str:
        return f"{self.shape} {self.dtype}"


@dataclass(frozen=True)
class ElementTable:
    """Where the elements lie."""

    element: ElementHeader
    """What they have in common."""

    count: int
    """Number of elements that are there in full."""

    stride: int
    """Bytes from one element to the next within a run."""

    runs: npt.NDArray[np.int64]
    """First element and its offset, for each run of elements with equal distances."""


def header_bytes(n_dims: int) -> int:
    """Bytes before the values of an element with that many dimensions."""
    return (CALIBRATION_BYTES + 4) * n_dims + 2


def parse_element_header(raw: bytes, n_dims: int, *, path: str, where: str) -> ElementHeader:
    """Turn the first bytes of an element into an `ElementHeader`.

    Parameters
    ----------
    raw : bytes
        ``header_bytes(n_dims)`` of them.
    n_dims : int
        1 for a spectrum, 2 for an image.
    path : str
        Where `raw` came from. Named in errors, never opened.
    where : str
        Which element, for errors.

    Raises
    ------
    HeaderError
        If the type is unknown or a size not positive.
    """
    code, *sizes = struct.unpack_from(f"<H{n_dims}i", raw, CALIBRATION_BYTES * n_dims)
    if code not in DATA_TYPES or min(sizes) < 1:
        raise HeaderError(
            f"{where} has no possible type or size",
            path=path,
            found=f"type {code}, size {' x '.join(map(str, sizes))}",
            expected=f"a type from {min(DATA_TYPES)} to {max(DATA_TYPES)}, positive sizes",
            hint="the file is damaged",
        )
    return ElementHeader(DATA_TYPES[code], tuple(reversed(sizes)))


def read_element_header(file: RawFile, number: int, offset: int, n_dims: int) -> ElementHeader:
    """Header of an element.

    Raises
    ------
    DataSetException
        If it is outside of the file or impossible.
    """
    where = f"element {number} at byte {offset}"
    if offset + header_bytes(n_dims) > file.size():
        raise HeaderError(
            f"{where} lies outside of the file",
            path=file.path,
            found=f"{file.size()} bytes",
            expected=f"at least {offset + header_bytes(n_dims)}",
            hint="copy the file again: the transfer probably broke off",
        )
    raw = np.empty(header_bytes(n_dims), dtype=np.uint8)
    file.read_into(raw, offset)
    return parse_element_header(raw.tobytes(), n_dims, path=file.path, where=where)


def read_calibrations(file: RawFile, offset: int, n_dims: int) -> list[dict[str, float]]:
    """Calibrations of the element at that byte, that of x first. Their units are not in the file.

    Raises
    ------
    DataSetException
        If the file ends before.
    """
    raw = np.empty(CALIBRATION_BYTES * n_dims, dtype=np.uint8)
    file.read_into(raw, offset)
    names = ("CalibrationOffset", "CalibrationDelta", "CalibrationElement")
    return [dict(zip(names, values, strict=True)) for values in struct.iter_unpack("<ddi", raw.data)]


def make_table(file: RawFile, header: SERHeader, *, thorough: bool = False) -> ElementTable:
    """Find the elements of a file with at least one valid element.

    Parameters
    ----------
    thorough : bool
        Look for differences in the headers of all elements, not only of some that are likely to differ.

    Raises
    ------
    DataSetException
        If they are not alike, overlap, or lie outside of the file in another way than by a cut at its end.
    """
    size = file.size()
    claimed = _read_offsets(file, header)
    first = read_element_header(file, 0, int(claimed[0]), header.element_dims)
    if first.element_bytes > size:
        raise _no_element(file, first)
    # Offsets beyond the file, which may not fit int64, become the size of the file.
    offsets = np.minimum(claimed, np.uint64(size)).astype(np.int64)
    apart = (offsets >= header.table_stop) | (offsets + first.element_bytes <= header.table_offset)
    apart &= offsets >= header.header_stop
    readable = np.flatnonzero(apart & (offsets + first.header_bytes <= size))
    look = _differing(file, first, offsets[readable]) if thorough else _samples(offsets[readable])
    _check_alike(file, first, ((int(i), int(offsets[i])) for i in readable[look]))
    whole = apart & (offsets + first.element_bytes <= size)
    count = len(whole) if whole.all() else int(np.argmin(whole))
    if whole[count:].any():
        raise _misplaced(file, header, count, int(claimed[count]))
    if count == 0:
        raise _no_element(file, first)
    _check_overlap(offsets[:count], first, file.path)
    stride, heads = _find_runs(offsets[:count], first.element_bytes)
    return ElementTable(first, count, stride, np.stack([heads, offsets[heads]], axis=1))


def _misplaced(file: RawFile, header: SERHeader, number: int, offset: int) -> DataSetException:
    return DataSetException(
        f"element {number} is not where the file says",
        path=file.path,
        found=f"byte {offset}",
        expected=f"all of it between the offset arrays, which end at {header.table_stop}, and the end of "
        f"the file at {file.size()}",
        hint="the offset array is damaged",
    )


def _no_element(file: RawFile, first: ElementHeader) -> DataSetException:
    return DataSetException(
        "the file contains no whole element",
        path=file.path,
        found=f"{file.size()} bytes",
        expected=f"{first.element_bytes} bytes for {first} behind header and offset arrays",
        hint="copy the file again: the transfer probably broke off",
    )


def _read_offsets(file: RawFile, header: SERHeader) -> npt.NDArray[np.uint64]:
    raw = np.empty(header.n_valid * header.offset_dtype.itemsize, dtype=np.uint8)
    file.read_into(raw, header.table_offset)
    return raw.view(header.offset_dtype).astype(np.uint64)


def _samples(offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Indices of elements that could be of another size than the first one, and some others."""
    n = offsets.shape[0]
    if n <= MAX_CHECKS:
        return np.arange(n)
    spread = np.linspace(0, n - 1, MAX_CHECKS // 2).astype(np.int64)
    # An element of another size has another distance to the next one.
    breaks = np.flatnonzero(np.diff(np.diff(offsets))) + 1
    return np.unique(np.concatenate([spread, breaks[: MAX_CHECKS // 2]]))


def _differing(file: RawFile, first: ElementHeader, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Indices of elements that differ from the first one."""
    expected = np.frombuffer(first.stored_shape(), dtype=np.uint8)
    places = offsets[:, np.newaxis] + (first.shape_offset + np.arange(expected.size))
    return np.flatnonzero((file.map()[places] != expected).any(axis=1))


def _check_alike(file: RawFile, first: ElementHeader, elements: Iterable[tuple[int, int]]) -> None:
    for number, offset in elements:
        other = read_element_header(file, number, offset, len(first.shape))
        if other != first:
            raise DataSetException(
                f"element {number} at byte {offset} differs from the first one",
                path=file.path,
                found=other,
                expected=f"{first}, as in all elements of a data set",
                hint="such a file has to be split by other software",
            )


def _check_overlap(offsets: npt.NDArray[np.int64], element: ElementHeader, path: str) -> None:
    if (np.diff(offsets) >= element.element_bytes).all():
        return
    order = np.argsort(offsets, kind="stable")
    distances = np.diff(offsets[order])
    if (distances >= element.element_bytes).all():
        return
    at = int(np.argmax(distances < element.element_bytes))
    raise DataSetException(
        f"elements {order[at]} and {order[at + 1]} overlap",
        path=path,
        found=f"a distance of {distances[at]} bytes from byte {offsets[order[at]]} on",
        expected=f"at least {element.element_bytes} for {element}",
        hint="the offset array is damaged",
    )


def _find_runs(offsets: npt.NDArray[np.int64], element_bytes: int) -> tuple[int, npt.NDArray[np.int64]]:
    """The most frequent distance of elements, and the first element of each run with that distance."""
    steps = np.diff(offsets)
    distances, counts = np.unique(steps[steps >= element_bytes], return_counts=True)
    stride = int(distances[np.argmax(counts)]) if distances.size else element_bytes
    return stride, np.concatenate([[0], np.flatnonzero(steps != stride) + 1])
