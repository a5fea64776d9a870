"""The header of SER files.

All numbers are little-endian. O is the type of offsets: u4 in version 0x0210, u8 in version 0x0220.

| offset 0x0210 | offset 0x0220 | type | meaning |
|--------------:|--------------:|------|---------|
|             0 |             0 | u2   | byte order, always 0x4949 |
|             2 |             2 | u2   | series id, always 0x0197 |
|             4 |             4 | u2   | version: 0x0210, or 0x0220 since TIA 4.7.3 |
|             6 |             6 | u4   | kind of elements: 0x4120 for 1D, 0x4122 for 2D |
|            10 |            10 | u4   | kind of tags: 0x4152 for time, 0x4142 for time and position |
|            14 |            14 | i4   | T, planned number of elements, the product of the dimension sizes |
|            18 |            18 | i4   | V, number of elements that were written |
|            22 |            22 | O    | where the offset arrays start |
|            26 |            30 | i4   | number of dimensions |
|            30 |            34 |      | dimensions, the fast scan axis first |

A dimension:

| type | meaning |
|------|---------|
| i4   | size |
| f8   | coordinate at the calibration element |
| f8   | step |
| i4   | calibration element |
| i4 + bytes | length and text of the description, ``Number`` or ``Position`` |
| i4 + bytes | length and text of the units, often empty |

The offset arrays of data and tags follow each other; both have T entries, of which the first V are valid.

Sources: "TIA Series Data (ESD) file format" (FEI), the page on TIA formats by C. Boothroyd, and files of both
versions.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from libertem.common.math import prod
from libertem.exceptions import HeaderError

__all__ = ["HEAD_BYTES", "Dimension", "SERHeader", "parse_header"]

HEAD_BYTES = 8192
"""The dimensions have to end here. Real headers have about 100 bytes."""

MAX_DIMENSIONS = 16
"""TIA has not been seen to write more than two."""

MAGIC = struct.pack("<HH", 0x4949, 0x0197)
FIXED = struct.Struct("<HHHIIii")
OFFSET_TYPES = {0x0210: "I", 0x0220: "Q"}
ELEMENT_DIMS = {0x4120: 1, 0x4122: 2}
TAGS = {0x4152: "time", 0x4142: "time and position"}


@dataclass(frozen=True)
class Dimension:
    """One axis of the scan or series."""

    size: int
    """Planned number of positions."""

    step: float
    """From one position to the next, in `units`."""

    description: str
    """``Number`` in a series, ``Position`` in a scan."""

    units: str
    """Empty if not given."""

    coordinate: float = 0.0
    """Of the calibration element, in `units`."""

    element: int = 0
    """Position that has this coordinate; need not be in the scan."""

    @property
    def start(self) -> float:
        """Coordinate of the first position, in `units`."""
        return self.coordinate - self.element * self.step


@dataclass(frozen=True)
class SERHeader:
    """The facts of a SER header."""

    version: int
    """0x0210 or 0x0220."""

    element_dims: int
    """2 for images, 1 for spectra."""

    tags: str
    """What the tags say; they are not used."""

    n_planned: int
    """Planned number of elements, which is the number of entries of the offset arrays."""

    n_valid: int
    """Number of elements that were written."""

    table_offset: int
    """Byte where the offset arrays start."""

    dimensions: tuple[Dimension, ...]
    """In the order of the file, the fast scan axis first."""

    header_stop: int
    """Byte behind the dimensions."""

    @property
    def offset_dtype(self) -> np.dtype[np.uint32] | np.dtype[np.uint64]:
        """Type of the entries of the offset arrays."""
        return np.dtype("<u4") if self.version == 0x0210 else np.dtype("<u8")

    @property
    def table_stop(self) -> int:
        """Byte behind the offset arrays."""
        return self.table_offset + 2 * self.n_planned * self.offset_dtype.itemsize

    @property
    def nav_shape(self) -> tuple[int, ...]:
        """Planned scan shape, slow axis first; empty if it contradicts the number of elements."""
        if not self.dimensions:
            return (self.n_valid,)
        sizes = tuple(dimension.size for dimension in reversed(self.dimensions))
        return sizes if min(sizes) > 0 and prod(sizes) == self.n_planned else ()


def parse_header(raw: bytes, *, path: str, file_size: int) -> SERHeader:
    """Turn the first bytes of a SER file into a `SERHeader`.

    Parameters
    ----------
    raw : bytes
        The first `HEAD_BYTES` of the file, or all there are.
    path : str
        Where `raw` came from. Named in errors, never opened.
    file_size : int
        Size of the whole file, which the offset arrays have to fit.

    Raises
    ------
    HeaderError
        If this is no SER file, of an unknown kind, or if its numbers contradict each other or the file size.
    """
    _check_magic(raw, path)
    cursor = _Cursor(raw, path)
    _, _, version, data_type, tag_type, n_planned, n_valid = cursor.take(FIXED.format)
    if version not in OFFSET_TYPES:
        raise _unknown("version", version, OFFSET_TYPES, path)
    if data_type not in ELEMENT_DIMS:
        raise _unknown("kind of elements (DataTypeID)", data_type, ELEMENT_DIMS, path)
    table_offset, n_dimensions = cursor.take(f"<{OFFSET_TYPES[version]}i")
    if not 0 <= n_dimensions <= MAX_DIMENSIONS:
        raise HeaderError(
            "no possible number of dimensions",
            path=path,
            found=n_dimensions,
            expected=f"0 to {MAX_DIMENSIONS}",
            hint="the header is damaged",
        )
    dimensions = tuple(_take_dimension(cursor) for _ in range(n_dimensions))
    header = SERHeader(
        version=version,
        element_dims=ELEMENT_DIMS[data_type],
        tags=TAGS.get(tag_type, f"unknown (0x{tag_type:04x})"),
        n_planned=n_planned,
        n_valid=n_valid,
        table_offset=table_offset,
        dimensions=dimensions,
        header_stop=cursor.position,
    )
    _check_table(header, file_size, path)
    return header


def _check_magic(raw: bytes, path: str) -> None:
    if raw[: len(MAGIC)] == MAGIC:
        return
    emi = path.lower().endswith(".emi")
    raise HeaderError(
        "not a SER file",
        path=path,
        found=repr(raw[: len(MAGIC)]),
        expected=repr(MAGIC),
        hint="open the .ser file beside it: it holds the frames"
        if emi
        else "name the type yourself if it is something else",
    )


def _unknown(what: str, found: int, known: Iterable[int], path: str) -> HeaderError:
    return HeaderError(
        f"unknown {what}",
        path=path,
        found=f"0x{found:04x}",
        expected=" or ".join(f"0x{code:04x}" for code in known),
        hint="the header is damaged, or of a version that cannot be read yet",
    )


def _check_table(header: SERHeader, file_size: int, path: str) -> None:
    if not 0 <= header.n_valid <= header.n_planned:
        raise HeaderError(
            "the numbers of elements contradict each other",
            path=path,
            found=f"{header.n_valid} valid of {header.n_planned} planned elements",
            hint="the header is damaged",
        )
    if not header.header_stop <= header.table_offset <= header.table_stop <= file_size:
        raise HeaderError(
            "the offset arrays do not fit the file",
            path=path,
            found=f"bytes {header.table_offset} to {header.table_stop} for {header.n_planned} elements",
            expected=f"a place between the end of the header at {header.header_stop} and that of the file at "
            f"{file_size}",
            hint="copy the file again: the transfer probably broke off",
        )


class _Cursor:
    """A place in the header."""

    def __init__(self, raw: bytes, path: str) -> None:
        self.position = 0
        self._raw = raw
        self._path = path

    def take(self, layout: str) -> tuple[int, ...]:
        """The next values."""
        return struct.unpack(layout, self._bytes(struct.calcsize(layout)))

    def take_text(self) -> str:
        """The next text, which follows its length."""
        (length,) = self.take("<i")
        return self._bytes(length).decode("latin-1")

    def _bytes(self, length: int) -> bytes:
        stop = self.position + length
        if length < 0 or stop > len(self._raw):
            raise HeaderError(
                "the file ends inside its header, or the header is too long",
                path=self._path,
                found=f"{len(self._raw)} bytes",
                expected=f"at least {stop} and at most {HEAD_BYTES}"
                if length >= 0
                else "lengths of 0 or more",
                hint="copy the file again: the transfer probably broke off",
            )
        found = self._raw[self.position : stop]
        self.position = stop
        return found


def _take_dimension(cursor: _Cursor) -> Dimension:
    size, coordinate, step, element = cursor.take("<iddi")
    description, units = cursor.take_text(), cursor.take_text()
    return Dimension(int(size), step, description, units, coordinate, int(element))
