"""From slices on the flat or compressed navigation axis back to scan positions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.arrays import to_dense
from libertem.common.math import flat_nonzero
from libertem.common.shape import Shape
from libertem.common.slice import Slice

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.common.protocols import PartitionProtocol

__all__ = ["_roi_to_nd_indices", "get_coordinates", "roi_for_partition"]


def get_coordinates(slice_: Slice, ds_shape: Shape, roi: Any = None) -> npt.NDArray[np.int64]:
    """Scan positions of the frames in a tile or partition.

    Parameters
    ----------
    slice_ : Slice
        Place in the data set, with a flat navigation axis that is compressed by the ROI.
    ds_shape : Shape
        Shape of the whole data set.
    roi : array of bool, optional
        Of navigation shape.

    Returns
    -------
    array of int64, shape ``(frames, nav_dims)``
    """
    start = slice_.origin[0]
    stop = start + slice_.shape[0]
    flat = np.arange(start, stop) if roi is None else flat_nonzero(roi)[start:stop]
    nav_shape = ds_shape.nav.to_tuple()
    if flat.size == 0:
        return np.zeros((0, len(nav_shape)), dtype=np.int64)
    return np.stack(np.unravel_index(flat, nav_shape), axis=1).astype(np.int64, copy=False)


def _roi_to_nd_indices(roi: npt.NDArray[np.bool_], part_slice: Slice) -> Iterator[tuple[int, ...]]:
    """Scan positions selected by `roi` inside `part_slice` (not flattened), in C order."""
    origin = part_slice.nav.origin
    inside = np.argwhere(part_slice.get(roi, nav_only=True))
    for index in (inside + np.array(origin, dtype=np.int64)).tolist():
        yield tuple(index)


def roi_for_partition(roi: Any, partition: PartitionProtocol) -> npt.NDArray[np.bool_]:
    """The flat part of `roi` that belongs to a partition."""
    start = partition.slice.origin[0]
    flat: npt.NDArray[np.bool_] = to_dense(roi).reshape(-1)
    return flat[start : start + partition.slice.shape[0]]
