"""Put decoded chunks that hold parts of frames into these."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.io.dataset.hdf5.filters import KERNELS

if TYPE_CHECKING:
    import numpy.typing as npt

    Ints = npt.NDArray[np.int64]

__all__ = ["RowCopier"]

SHORT_ROW_BYTES = 4096
"""NumPy copies rows of this size as fast as memory allows."""

MIN_ROWS = 16
"""Fewer rows are not worth a call of a compiled function."""


class RowCopier:
    """Copies chunks to their places in frames.

    Parameters
    ----------
    dtype : np.dtype
        Of the pixels.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._unit = np.dtype(f"u{min(dtype.itemsize, 8)}")
        self._per_px = dtype.itemsize // self._unit.itemsize
        self._starts: dict[tuple[Any, ...], tuple[Ints, Ints]] = {}

    def copy(self, chunk: npt.NDArray[Any], target: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
        """Copy a chunk.

        Parameters
        ----------
        chunk : array
            Contiguous.
        target : array
            A part of `out` for the beginning of the chunk along each axis.
        out : array
            Contiguous.
        """
        n = target.shape[-1]
        if n * target.itemsize > SHORT_ROW_BYTES or target.size < MIN_ROWS * n:
            target[...] = chunk[tuple(slice(extent) for extent in target.shape)]
            return
        key = (target.shape, target.strides)
        if key not in self._starts:
            self._starts[key] = (
                _row_starts(target.shape, chunk.strides, self._unit.itemsize),
                _row_starts(target.shape, target.strides, self._unit.itemsize),
            )
        src_starts, dst_starts = self._starts[key]
        base = (_address(target) - _address(out)) // self._unit.itemsize
        src, dst = chunk.reshape(-1).view(self._unit), out.reshape(-1).view(self._unit)
        # Loads numba, which other files do not need.
        kernels = import_module(KERNELS)
        kernels.copy_rows(src, src_starts, dst, base, dst_starts, n * self._per_px)


def _address(array: npt.NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


def _row_starts(shape: tuple[int, ...], strides: tuple[int, ...], item: int) -> Ints:
    """Where rows along the last axis begin, in items, for strides in bytes."""
    starts = np.zeros(1, dtype=np.int64)
    for extent, stride in zip(shape[:-1], strides[:-1], strict=True):
        starts = (starts[:, np.newaxis] + np.arange(extent) * (stride // item)).reshape(-1)
    return starts
