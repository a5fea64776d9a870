"""Pixels of SER elements: rows turned upside down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from libertem.common.jit import jit

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["copy_rows_upwards"]


@jit
def copy_rows_upwards(
    stored: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.int64],
    check_offset: int,
    check: npt.NDArray[np.uint8],
    height: int,
    first_row: int,
    out: npt.NDArray[np.uint8],
) -> int:
    """Copy rows of elements that are stored with the bottom row first.

    Parameters
    ----------
    stored, starts
        Bytes, and where each element starts in them.
    check_offset, check
        Bytes that all elements have there; the values follow directly.
    height : int
        Rows of an element.
    first_row : int
        Row, counted from the top, that becomes the first one of `out`.
    out : array of bytes
        ``(elements, rows, bytes per row)``.

    Returns
    -------
    int
        Index of the first element that has other bytes instead of `check`, or -1. It and all after it are
        not copied.
    """
    n_rows, row_bytes = out.shape[1], out.shape[2]
    for i in range(starts.shape[0]):
        shape = starts[i] + check_offset
        for k in range(check.shape[0]):
            if stored[shape + k] != check[k]:
                return i
        values = shape + check.shape[0]
        for row in range(n_rows):
            begin = values + (height - 1 - first_row - row) * row_bytes
            source, target = stored[begin : begin + row_bytes], out[i, row]
            # Not an assignment of slices, which numba makes five times slower.
            for k in range(row_bytes):
                target[k] = source[k]
    return -1
