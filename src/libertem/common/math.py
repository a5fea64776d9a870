"""Exact integer arithmetic on shapes, and counting in dense and sparse arrays."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.arrays import to_dense, to_sparse

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["count_nonzero", "flat_nonzero", "make_2D_square", "prod"]


def prod(iterable: Iterable[Any]) -> int:
    """Product of integers as a Python int, so that it cannot overflow.

    Raises
    ------
    ValueError
        If an element is not an int, bool or NumPy integer.

    Examples
    --------
    >>> prod((2, 3, np.uint8(200)))
    1200
    >>> prod(())
    1
    """
    result = 1
    for item in iterable:
        if not isinstance(item, int | np.integer | np.bool_):
            raise ValueError(f"prod() takes integers only, found {item!r} ({type(item).__name__})")
        result *= int(item)
    return result


def count_nonzero(array: Any) -> int:
    """Number of non-zero elements of a dense or sparse array."""
    if isinstance(array, np.ndarray | list | tuple):
        return int(np.count_nonzero(array))
    if hasattr(array, "count_nonzero"):  # scipy.sparse
        return int(array.count_nonzero())
    if hasattr(array, "fill_value"):  # sparse
        coo = to_sparse(array)
        n_filled = coo.size - coo.nnz if coo.fill_value else 0
        return int(np.count_nonzero(coo.data) + n_filled)
    return int(array.astype(bool).sum())


def flat_nonzero(array: Any) -> npt.NDArray[np.int64]:
    """Flat C-order indices of the non-zero elements of a dense or sparse array, ascending."""
    return np.flatnonzero(to_dense(array)).astype(np.int64, copy=False)


def make_2D_square(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Turn a 1D shape with a square number of elements into a 2D square, leave others alone.

    Examples
    --------
    >>> make_2D_square((16,))
    (4, 4)
    >>> make_2D_square((17,))
    (17,)
    """
    if prod(shape) < 1:
        raise ValueError(f"shape {tuple(shape)} holds no elements")
    if len(shape) == 1:
        root = math.isqrt(int(shape[0]))
        if root * root == shape[0]:
            return (root, root)
    return tuple(shape)
