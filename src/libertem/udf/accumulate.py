"""Accumulate exactly: which dtype holds sums, and how to add tiles of any array type to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.arrays import SPARSE_BACKENDS

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.udf.contract import UDF

__all__ = ["add_sum", "as_numbers", "exact_dtype", "lanes_for"]

_WIDEST = {"b": np.int64, "i": np.int64, "u": np.uint64, "f": np.float64, "c": np.complex128}

LANE_PX = 4096
"""Partial sums of so many pixels stay in the L1 cache."""


def exact_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Widest dtype of the same kind: sums in it do not depend on the order of summation."""
    found = np.dtype(dtype)
    return np.dtype(_WIDEST[found.kind]) if found.kind in _WIDEST else found


def lanes_for(stored: np.dtype[Any], total: np.dtype[Any]) -> npt.NDArray[Any]:
    """Scratch for partial sums of stored pixels, as narrow as exactness allows."""
    if stored.kind == "f" or (stored.itemsize > 4 and total.kind == "f"):
        return np.empty(LANE_PX, dtype=np.float64)
    signed = "i" if stored.kind == "i" else "u"
    return np.empty(LANE_PX, dtype=f"{signed}{4 if stored.itemsize <= 2 else 8}")


def as_numbers(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Pixels as kernels take them: booleans are bytes."""
    return pixels.view(np.uint8) if pixels.dtype.kind == "b" else pixels


def add_sum(udf: UDF, tile: Any, target: Any, axis: int) -> None:
    """Add the sum of a tile along frames (0) or pixels (1) to `target`."""
    if udf.meta.array_backend in SPARSE_BACKENDS:
        # 2D formats are flat already, others are made so: all of them can sum a 2D array.
        flat = tile.reshape((tile.shape[0], -1)) if tile.ndim > 2 else tile
        part = flat.sum(axis=axis, dtype=target.dtype)
    else:
        part = tile.reshape((tile.shape[0], -1)).sum(axis=axis, dtype=target.dtype)
    target += udf.forbuf(part, target)
