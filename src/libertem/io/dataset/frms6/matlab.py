"""Read a matrix from a MATLAB file, without trust in what the file says.

scipy reads such files, but takes the types of elements for valid: damaged ones end the process. Therefore the
structure of files of level 5 (MATLAB options ``-v6`` and ``-v7``) is checked before:

| offset | bytes | type | meaning |
|-------:|------:|------|---------|
|      0 |   124 | ascii | text; no byte of the first four is 0, unlike in files of level 4 |
|    126 |     2 | ascii | ``IM`` for little-endian, ``MI`` for big-endian numbers |
|    128 |       |       | elements: variables, each a matrix (14) or compressed with zlib (15) |

An element has a tag, type and number of bytes as u4, and data that are padded to 8 bytes. If the number of
bytes is at most 4, it can stand in the upper half of the type, and the data take the place of the number. The
data of a matrix are again elements: flags, extents, name, and numbers of any type.

Source: MathWorks, "MAT-File Format".
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from libertem.exceptions import DataSetException
from libertem.io.dataset.base.framefile import read_head

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["read_matrix"]

ELEMENTS_OFFSET = 128
BYTE_ORDERS = {b"IM": "<", b"MI": ">"}

INT8, INT32, UINT32, MATRIX, COMPRESSED = 1, 5, 6, 14, 15
NUMBERS = (1, 2, 3, 4, 5, 6, 7, 9, 12, 13)
"""Types of elements that hold numbers: integers of 1 to 8 bytes, floats and doubles."""
NUMBER_CLASSES = range(6, 16)
"""Classes of matrices of numbers: doubles, floats, and integers of 1 to 8 bytes."""


class _DamageError(ValueError):
    """The structure of the file is not what it should be."""


class _Element(NamedTuple):
    kind: int
    data: bytes


def read_matrix(path: str, name: str, max_bytes: int) -> npt.NDArray[np.float64]:
    """Matrix of real numbers in a MATLAB file.

    Parameters
    ----------
    path : str
        The file.
    name : str
        Name of the variable.
    max_bytes : int
        The file and its uncompressed variables may not be larger.

    Raises
    ------
    DataSetException
        If the file cannot be read, or has no such matrix.
    """
    # Optional, and slow to import.
    from scipy.io import loadmat

    raw = read_head(path, max_bytes).raw
    try:
        if 0 not in raw[:4]:
            _check_level_5(raw, name.encode(), max_bytes)
        content = loadmat(path, appendmat=False, variable_names=(name,))
    except Exception as err:  # damaged files raise anything
        raise DataSetException(
            "the MATLAB file of the gain map cannot be read",
            path=path,
            found=f"{type(err).__name__}: {err}",
            hint="save it with the option -v7",
        ) from err
    matrix = content.get(name)
    if not isinstance(matrix, np.ndarray) or matrix.dtype.kind not in "iuf":
        raise DataSetException(
            f"the MATLAB file has no matrix {name} of real numbers",
            path=path,
            found=getattr(matrix, "dtype", type(matrix).__name__),
        )
    return matrix.astype(np.float64)


def _check_level_5(raw: bytes, name: bytes, max_bytes: int) -> None:
    order = BYTE_ORDERS.get(raw[ELEMENTS_OFFSET - 2 : ELEMENTS_OFFSET])
    if order is None:
        raise _DamageError("no byte order in the header")
    for element in _elements(raw[ELEMENTS_OFFSET:], order):
        if element.kind == COMPRESSED:
            content = zlib.decompressobj().decompress(element.data, max_bytes)
            element = next(_elements(content, order), _Element(0, b""))
        if element.kind != MATRIX:
            raise _DamageError(f"a variable of type {element.kind}")
        _check_matrix(element.data, order, name)


def _check_matrix(data: bytes, order: str, name: bytes) -> None:
    parts = _elements(data, order)
    header = [next(parts, _Element(0, b"")) for _ in range(3)]
    flags = header[0].data
    if [part.kind for part in header] != [UINT32, INT32, INT8] or len(flags) != 8:
        raise _DamageError("a matrix without flags, extents or name")
    if header[2].data != name:
        return
    if struct.unpack(f"{order}2I", flags)[0] & 0xFF not in NUMBER_CLASSES:
        raise _DamageError("the variable does not consist of numbers")
    if not all(part.kind in NUMBERS for part in parts):
        raise _DamageError("an unknown type of numbers")


def _elements(data: bytes, order: str) -> Iterator[_Element]:
    """Elements that follow each other; padding is skipped."""
    at = 0
    while at + 8 <= len(data):
        kind, n_bytes = struct.unpack_from(f"{order}2I", data, at)
        start = at + 8
        is_small = kind > 0xFFFF
        if is_small:
            kind, n_bytes, start = kind & 0xFFFF, kind >> 16, at + 4
        stop = start + n_bytes
        if stop > len(data) or (is_small and n_bytes > 4):
            raise _DamageError("an element that is longer than the file")
        yield _Element(kind, data[start:stop])
        at = at + 8 if is_small else stop if kind == COMPRESSED else start + -(-n_bytes // 8) * 8
