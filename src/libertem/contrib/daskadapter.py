"""Data sets as Dask arrays, for whoever wants to go on with Dask."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.arrays import for_backend, to_dense
from libertem.common.slice import Slice
from libertem.io.dataset.base import DataSet, Partition

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["make_dask_array"]


def make_dask_array(
    dataset: DataSet,
    dtype: npt.DTypeLike = "float32",
    roi: npt.NDArray[np.bool_] | None = None,
    array_backend: str | None = None,
) -> tuple[Any, dict[Any, Any]]:
    """Wrap a data set in a Dask array. Nothing is read until it is computed.

    Parameters
    ----------
    dataset : DataSet
        Initialized, as from `Context.load`.
    dtype : dtype
        Of the array.
    roi : array of bool, optional
        Only these frames, along a flat navigation axis.
    array_backend : str, optional
        Kind of array of the blocks; NumPy by default.

    Returns
    -------
    array : dask.array.Array
        ``dataset.shape``, or ``(frames, *sig)`` with a ROI; made from one block per partition. Blank scan
        positions are 0.
    workers : dict
        Names of the workers that hold the data, by key of the block; empty if any worker will do. To be
        passed as `workers` to the functions of a Dask client.

    Examples
    --------
    >>> from libertem.api import Context
    >>> ds = Context.make_with("inline").load("memory", data=np.ones((4, 6, 8, 8), dtype="uint16"))
    >>> array, workers = make_dask_array(ds)
    >>> array.shape, float(array.sum())
    ((4, 6, 8, 8), 1536.0)
    """
    # Untyped to the outside.
    da: Any = import_module("dask.array")
    delayed: Any = import_module("dask.delayed").delayed

    wanted = np.dtype(dtype)
    sig_shape = dataset.shape.sig.to_tuple()
    read = delayed(_read, pure=True)
    blocks, workers = [], {}
    for partition in dataset.get_partitions():
        n_frames = partition.get_frame_count(roi)
        if n_frames == 0:
            continue
        block = read(partition, n_frames, wanted, roi, array_backend)
        locations = partition.get_locations()
        if locations is not None:
            workers[block.key] = locations
        blocks.append(da.from_delayed(block, shape=(n_frames, *sig_shape), dtype=wanted))
    if not blocks:
        return da.zeros((0, *sig_shape), dtype=wanted), {}
    frames = da.concatenate(blocks)
    return (frames.reshape(tuple(dataset.shape)) if roi is None else frames), workers


def _read(
    partition: Partition,
    n_frames: int,
    dtype: np.dtype[Any],
    roi: npt.NDArray[np.bool_] | None,
    array_backend: str | None,
) -> Any:
    """All frames of a partition, with zeros where there are none."""
    tile = partition.get_macrotile(dest_dtype=dtype, roi=roi)
    data = to_dense(tile.data).reshape(tile.shape)
    if tile.shape[0] != n_frames:
        part: Slice = partition.slice.adjust_for_roi(roi)
        first = tile.tile_slice.origin[0] - part.origin[0]
        filled = np.zeros((n_frames, *tile.shape[1:]), dtype=dtype)
        filled[first : first + tile.shape[0]] = data
        data = filled
    # A copy: the memory of a tile may be a map of the file, or be used again.
    data = np.array(data)
    return data if array_backend is None else for_backend(data, array_backend)
