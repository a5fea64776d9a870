"""`DataTile`: the unit of processing."""

from __future__ import annotations

from typing import Any

import numpy as np

from libertem.common.arrays import D2_BACKENDS, get_backend
from libertem.common.math import prod
from libertem.common.slice import Slice

__all__ = ["DataTile"]


class DataTile:
    """An array of frames, or parts of frames, that knows its place in the data set.

    Parameters
    ----------
    data : array
        Of the shape of `tile_slice`; 2D-only formats (scipy.sparse) have their signal axes flattened.
        The memory may be used again for the next tile, and must not be written to.
    tile_slice : Slice
        Place in the data set. The navigation axis is flat and compressed by the ROI.
    scheme_idx : int
        Index of the signal slice in the tiling scheme.

    Raises
    ------
    ValueError
        If the shape of `data` does not fit `tile_slice`.
    """

    __slots__ = ("_data", "scheme_idx", "tile_slice")

    def __init__(self, data: Any, tile_slice: Slice, scheme_idx: int) -> None:
        self._data = data.data if isinstance(data, DataTile) else data
        self.tile_slice = tile_slice
        self.scheme_idx = scheme_idx
        expected = tile_slice.shape.to_tuple()
        if self._data.shape == expected:
            return
        flat = (expected[0], prod(expected[1:]))
        if get_backend(self._data) not in D2_BACKENDS or tuple(self._data.shape) != flat:
            raise ValueError(f"Mismatching shape {tuple(self._data.shape)} of tile data, expected {expected}")

    @property
    def data(self) -> Any:
        """The array."""
        return self._data

    @property
    def flat_data(self) -> Any:
        """The array as ``(frames, pixels)``; a view for contiguous dense data."""
        shape = self.tile_slice.shape
        return self._data.reshape((shape[0], prod(shape.sig)))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tile, also where the array is flattened."""
        return self.tile_slice.shape.to_tuple()

    @property
    def size(self) -> int:
        """Number of pixels."""
        return self.tile_slice.shape.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the array."""
        dtype: np.dtype[Any] = np.dtype(self._data.dtype)
        return dtype

    @property
    def c_contiguous(self) -> bool | None:
        """Whether the array is C-contiguous; None for kinds of arrays that do not know."""
        flags = getattr(self._data, "flags", None)
        return None if flags is None else bool(flags.c_contiguous)

    def __repr__(self) -> str:
        return f"<DataTile {self.tile_slice!r} scheme_idx={self.scheme_idx}>"
