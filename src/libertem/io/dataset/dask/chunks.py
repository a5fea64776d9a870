"""Merge the chunks of an array until each can be a partition."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from libertem.common.math import prod

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Chunks", "adapt_array", "block_bytes", "contiguous_chunks", "merge_small", "merge_until_target"]

log = logging.getLogger(__name__)

Chunks: TypeAlias = tuple[tuple[int, ...], ...]
"""Lengths of the blocks along each axis."""


def merge_axes(chunks: Chunks, axes: Sequence[int]) -> Chunks:
    """One block along each of the axes given."""
    return tuple((sum(c),) if axis in axes else c for axis, c in enumerate(chunks))


def contiguous_chunks(chunks: Chunks, nav_dims: int) -> Chunks:
    """Merge blocks until each is a contiguous run on the flat navigation axis."""
    cut = next((axis for axis in range(nav_dims) if max(chunks[axis]) > 1), nav_dims)
    return merge_axes(chunks, range(cut + 1, nav_dims))


def merge_small(chunks: Chunks, itemsize: int, target: float, min_chunks: int = 0) -> Chunks:
    """Merge blocks, smallest and last axes first, until all have `target` bytes.

    Only axes of which the last ones have a single block each keep their blocks contiguous, see
    `contiguous_chunks`. Merging ends early with no more than `min_chunks` blocks.
    """
    if prod(sum(c) for c in chunks) * itemsize < target:
        return merge_axes(chunks, range(len(chunks)))
    while True:
        axis = max((axis for axis, c in enumerate(chunks) if len(c) > 1), default=None)
        n_before = prod(len(c) for c in chunks)
        if axis is None or n_before <= min_chunks or block_bytes(chunks, itemsize)[0] >= target:
            return chunks
        others = prod(min(c) for c in (*chunks[:axis], *chunks[axis + 1 :])) * itemsize
        # Blocks per position along this axis.
        rows = n_before // len(chunks[axis])
        lengths = np.array(chunks[axis])
        while lengths.size > 1 and lengths.size * rows > min_chunks and lengths.min() * others < target:
            lengths = _merge_pair(lengths)
        chunks = (*chunks[:axis], tuple(lengths.tolist()), *chunks[axis + 1 :])


def _merge_pair(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Merge one of the shortest blocks with its shorter neighbour."""
    shortest = np.flatnonzero(lengths == lengths.min())
    outside = int(lengths.sum()) + 1
    around = np.concatenate([[outside], lengths, [outside]])
    left, right = around[shortest], around[shortest + 2]
    neighbour = np.minimum(left, right)
    which = np.flatnonzero(neighbour == neighbour.min())[-1]
    first = shortest[which] - int(left[which] <= right[which])
    merged = np.delete(lengths, first + 1)
    merged[first] += lengths[first + 1]
    return merged


def block_bytes(chunks: Chunks, itemsize: int) -> tuple[int, int]:
    """Bytes of the smallest and of the largest block."""
    return prod(min(c) for c in chunks) * itemsize, prod(max(c) for c in chunks) * itemsize


def merge_until_target(array: Any, target: float, min_chunks: int = 0) -> tuple[Chunks, tuple[int, int]]:
    """Merge the chunks of an array until all have `target` bytes.

    Parameters
    ----------
    array : dask.array.Array
        The array, whose chunks along the last axes have been merged if they have to be contiguous.
    target : float
        Minimum size of a chunk in bytes.
    min_chunks : int
        Stop as soon as there are no more chunks than this.

    Returns
    -------
    chunks : tuple of tuple of int
        Lengths along each axis.
    sizes : (int, int)
        Bytes of the smallest and of the largest chunk.
    """
    chunks = merge_small(array.chunks, array.dtype.itemsize, target, min_chunks)
    return chunks, block_bytes(chunks, array.dtype.itemsize)


def adapt_array(array: Any, sig_dims: int, *, preserve_dimensions: bool, min_size: float) -> Any:
    """The array with other chunks, and possibly other navigation axes; see the docstring of the module."""
    nav_dims = array.ndim - sig_dims
    array = _rechunk(array, tuple(tuple(n for n in c if n) for c in array.chunks))
    whole = _rechunk(array, merge_axes(array.chunks, range(nav_dims, array.ndim)))
    _log_change("to merge chunks in signal dimensions", array, whole)
    if max(whole.numblocks[:nav_dims]) == 1:
        log.warning("Dask array is not chunked in navigation dimensions: there will be one partition")
        return whole
    if not preserve_dimensions:
        order = sorted(range(nav_dims), key=lambda axis: -whole.numblocks[axis])
        if order != list(range(nav_dims)):
            whole = whole.transpose((*order, *range(nav_dims, array.ndim)))
            log.warning("Re-ordered navigation dimensions to %s, shape is now %s", order, whole.shape)
    joined = _rechunk(whole, contiguous_chunks(whole.chunks, nav_dims))
    _log_change("to make partitions contiguous", whole, joined)
    large = _rechunk(joined, merge_until_target(joined, min_size)[0])
    _log_change("to increase the minimum partition size", joined, large)
    return large


def _rechunk(array: Any, chunks: Chunks) -> Any:
    import dask

    if chunks == array.chunks:
        return array
    # The other method needs a cluster, and tasks must not ask one.
    with dask.config.set({"array.rechunk.method": "tasks"}):
        return array.rechunk(chunks)


def _log_change(why: str, before: Any, after: Any) -> None:
    if after.chunks != before.chunks:
        small, large = (size / (1 << 20) for size in block_bytes(after.chunks, after.dtype.itemsize))
        log.warning(
            "Applying re-chunking %s: n_blocks %s => %s, now of %.4g to %.4g MiB",
            why,
            list(before.numblocks),
            list(after.numblocks),
            small,
            large,
        )
