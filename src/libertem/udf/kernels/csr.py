"""Sums and products of sparse frames, without making them dense.

All kernels take frames as the arrays of a CSR matrix: frame ``f`` has ``values[k]`` at pixel ``indices[k]``
for ``indptr[f] <= k < indptr[f + 1]``. They are native numbers, and `indices` have been checked: kernels
write and read where these say. Pixels may come in any order and more than once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from libertem.common.jit import jit
from libertem.udf.kernels.lanes import (
    add_rows_1,
    add_rows_2,
    add_rows_4,
    add_rows_8,
    add_rows_16,
    add_rows_32,
)

if TYPE_CHECKING:
    import numpy.typing as npt

    Pointers = npt.NDArray[np.int64]
    Indices = npt.NDArray[Any]
    Values = npt.NDArray[Any]

__all__ = [
    "VALUES_PER_FLUSH",
    "SparseMasks",
    "csr_dot_masks",
    "csr_dot_sparse_masks",
    "csr_sum_frames",
    "csr_sum_pixels",
    "make_sparse_masks",
    "mask_rows",
]

VALUES_PER_FLUSH = 2048
"""Products are added up in the precision of the masks for so many values, then in float64."""

DENSE_PART = 32
"""Frames that store more than one of so many pixels are added up four at a time: they share cache lines."""

MAX_LANES = 32
"""Masks that are multiplied with at once."""

LINE_BYTES = 64

SLAB_BYTES = 1 << 20
"""Weights of neighbouring pixels that stay in the second-level cache, while all frames are multiplied."""

MIN_VALUES_PER_SLAB = 20
"""Of a frame, on average. With fewer, going through the frames again and again costs more than it saves."""

MAX_ENTRIES = 8
"""Of one pixel in sparse masks, if all pixels get equally many."""

MAX_FILLING = 4
"""So many times as many entries as there are, or a quarter per pixel, may be filled in for that."""


@jit
def csr_sum_frames(indptr: Pointers, indices: Indices, values: Values, sums: npt.NDArray[Any]) -> None:
    """Add frames to `sums`, which has one element per pixel."""
    total = sums.dtype.type
    n = indptr.shape[0] - 1
    f = 0
    if (indptr[n] - indptr[0]) * DENSE_PART > n * sums.shape[0]:
        while f + 4 <= n:
            a, b, c, d = indptr[f], indptr[f + 1], indptr[f + 2], indptr[f + 3]
            common = min(min(b - a, c - b), min(d - c, indptr[f + 4] - d))
            for k in range(common):
                # Unsigned, because numba asks about each signed index whether it counts from the end.
                sums[np.uint64(indices[a + k])] += total(values[a + k])
                sums[np.uint64(indices[b + k])] += total(values[b + k])
                sums[np.uint64(indices[c + k])] += total(values[c + k])
                sums[np.uint64(indices[d + k])] += total(values[d + k])
            for g in range(f, f + 4):
                for k in range(indptr[g] + common, indptr[g + 1]):
                    sums[np.uint64(indices[k])] += total(values[k])
            f += 4
    v = values[indptr[f] : indptr[n]]
    c = indices[indptr[f] : indptr[n]]
    for k in range(v.shape[0]):
        sums[np.uint64(c[k])] += total(v[k])


@jit
def csr_sum_pixels(indptr: Pointers, values: Values, sums: npt.NDArray[Any]) -> None:
    """Add the sum over the pixels of each frame to `sums`, which has one element per frame."""
    total = sums.dtype.type
    for f in range(indptr.shape[0] - 1):
        v = values[indptr[f] : indptr[f + 1]]
        s = total(0)
        for k in range(v.shape[0]):
            s += total(v[k])
        sums[f] += s


@jit
def _dot_row(
    indices: Indices,
    values: Values,
    start: int,
    stop: int,
    masks: npt.NDArray[Any],
    lanes: npt.NDArray[Any],
    row: npt.NDArray[np.float64],
) -> None:
    """Add the products of some values and all masks to `row`. `lanes` is scratch."""
    column = 0
    while column < masks.shape[1]:
        left = masks.shape[1] - column
        if left >= 32:
            width = 32
            add_rows_32(indices, values, start, stop, masks, column, lanes)
        elif left >= 16:
            width = 16
            add_rows_16(indices, values, start, stop, masks, column, lanes)
        elif left >= 8:
            width = 8
            add_rows_8(indices, values, start, stop, masks, column, lanes)
        elif left >= 4:
            width = 4
            add_rows_4(indices, values, start, stop, masks, column, lanes)
        elif left >= 2:
            width = 2
            add_rows_2(indices, values, start, stop, masks, column, lanes)
        else:
            width = 1
            add_rows_1(indices, values, start, stop, masks, column, lanes)
        for m in range(min(width, row.shape[0] - column)):
            row[column + m] += lanes[m]
        column += width


@jit
def _dot_slabs(
    indptr: Pointers,
    indices: Indices,
    values: Values,
    masks: npt.NDArray[Any],
    slab_px: int,
    next_values: Pointers,
    lanes: npt.NDArray[Any],
    out: npt.NDArray[np.float64],
) -> None:
    """Multiply all frames with the weights of a slab of pixels after the other.

    `next_values` has the first value of each frame. Of a frame whose pixels do not come in order, some wait
    for a later slab.
    """
    n_px = masks.shape[0]
    for first_px in range(0, n_px, slab_px):
        last = first_px + slab_px >= n_px
        stop_px = np.uint64(first_px + slab_px)
        for f in range(out.shape[0]):
            start, end = next_values[f], indptr[f + 1]
            stop = start
            if last:
                stop = end
            else:
                while stop < end and np.uint64(indices[stop]) < stop_px:
                    stop += 1
                next_values[f] = stop
            for low in range(start, stop, VALUES_PER_FLUSH):
                _dot_row(indices, values, low, min(low + VALUES_PER_FLUSH, stop), masks, lanes, out[f])


def mask_rows(masks: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Masks ``(masks, pixels)`` as ``(pixels, columns)``, as `csr_dot_masks` takes them.

    The weights of a pixel lie next to each other, because the stored pixels of sparse frames are far apart,
    so that each costs a cache line. Columns of zeros fill rows up, so that few passes are needed and rows
    begin where vectors and cache lines do.
    """
    n_masks, n_px = masks.shape
    columns = n_masks
    if n_masks > 2:
        columns = -(-n_masks // 4) * 4
    if n_masks > MAX_LANES // 2:
        per_line = LINE_BYTES // masks.itemsize
        columns = -(-n_masks // per_line) * per_line
    n_bytes = n_px * columns * masks.itemsize
    memory = np.zeros(n_bytes + LINE_BYTES, dtype=np.uint8)
    skipped = -memory.ctypes.data % LINE_BYTES
    rows = memory[skipped : skipped + n_bytes].view(masks.dtype).reshape(n_px, columns)
    rows[:, :n_masks] = masks.T
    return rows


def csr_dot_masks(
    indptr: Pointers,
    indices: Indices,
    values: Values,
    rows: npt.NDArray[Any],
    out: npt.NDArray[np.float64],
) -> None:
    """Add the products of frames and masks to `out`, ``(frames, masks)``.

    `rows` are masks as from `mask_rows`, float32 or float64: products are formed and, for
    `VALUES_PER_FLUSH` values, added up in that precision.
    """
    n_frames, n_px = out.shape[0], rows.shape[0]
    row_bytes = rows.shape[1] * rows.itemsize
    per_px = max(1, int(indptr[-1] - indptr[0])) / (max(1, n_frames) * n_px)
    slab_px = max(SLAB_BYTES // row_bytes, int(MIN_VALUES_PER_SLAB / per_px), 1)
    lanes = np.empty(MAX_LANES, dtype=rows.dtype)
    # Contiguous, because machine code of our own reads them; they always are.
    indices, values = np.ascontiguousarray(indices), np.ascontiguousarray(values)
    _dot_slabs(indptr, indices, values, rows, min(slab_px, n_px), indptr[:-1].copy(), lanes, out)


class SparseMasks(NamedTuple):
    """Masks of which only the weights that are not zero are there, by pixel.

    Pixel ``p`` has the weights ``weights[k]`` of the masks ``masks[k]`` for ``ends[p] <= k < ends[p + 1]``.
    Where both arrays have two dimensions, these are the entries of row ``p``; mask number `n_masks` there
    stands for none.
    """

    ends: npt.NDArray[np.int64]
    masks: npt.NDArray[np.int32]
    weights: npt.NDArray[Any]
    n_masks: int


def make_sparse_masks(matrix: Any) -> SparseMasks:
    """Prepare masks for `csr_dot_sparse_masks`.

    Parameters
    ----------
    matrix : scipy.sparse.csr_matrix
        Of shape ``(pixels, masks)``, float32 or float64.
    """
    n_px, n_masks = matrix.shape
    ends = matrix.indptr.astype(np.int64)
    masks, weights = matrix.indices.astype(np.int32), matrix.data
    counts = np.diff(ends)
    most = int(counts.max(initial=0))
    if most > MAX_ENTRIES or most * n_px > MAX_FILLING * max(weights.size, n_px // 4):
        return SparseMasks(ends, masks, weights, n_masks)
    # Pixels with equally many entries need no question, which the processor would often answer wrong.
    px = np.repeat(np.arange(n_px), counts)
    place = np.arange(weights.size) - np.repeat(ends[:-1], counts)
    filled = np.full((n_px, most), n_masks, dtype=np.int32)
    filled[px, place] = masks
    filled_weights = np.zeros((n_px, most), dtype=weights.dtype)
    filled_weights[px, place] = weights
    return SparseMasks(ends, filled, filled_weights, n_masks)


@jit
def _dot_entries(
    indptr: Pointers,
    indices: Indices,
    values: Values,
    ends: npt.NDArray[np.int64],
    masks: npt.NDArray[np.int32],
    weights: npt.NDArray[Any],
    sums: npt.NDArray[np.float64],
    out: npt.NDArray[np.float64],
) -> None:
    """Add products with each entry of each pixel to `out`. `sums` is scratch."""
    real = weights.dtype.type
    for f in range(out.shape[0]):
        sums[:] = 0
        for k in range(indptr[f], indptr[f + 1]):
            px = np.uint64(indices[k])
            x = real(values[k])
            for e in range(ends[px], ends[px + np.uint64(1)]):
                sums[np.uint64(masks[e])] += x * weights[e]
        for m in range(out.shape[1]):
            out[f, m] += sums[m]


@jit
def _dot_filled(
    indptr: Pointers,
    indices: Indices,
    values: Values,
    masks: npt.NDArray[np.int32],
    weights: npt.NDArray[Any],
    sums: npt.NDArray[np.float64],
    out: npt.NDArray[np.float64],
) -> None:
    """The same for equally many entries. `sums` has one element more than there are masks."""
    real = weights.dtype.type
    for f in range(out.shape[0]):
        sums[:] = 0
        for k in range(indptr[f], indptr[f + 1]):
            px = np.uint64(indices[k])
            x = real(values[k])
            for e in range(masks.shape[1]):
                sums[np.uint64(masks[px, e])] += x * weights[px, e]
        for m in range(out.shape[1]):
            out[f, m] += sums[m]


def csr_dot_sparse_masks(
    indptr: Pointers, indices: Indices, values: Values, masks: SparseMasks, out: npt.NDArray[np.float64]
) -> None:
    """Add the products of frames and sparse masks to `out`, ``(frames, masks)``.

    Products are formed in the precision of the masks, and added up in float64.
    """
    sums = np.empty(masks.n_masks + 1)
    if masks.masks.ndim == 2:
        _dot_filled(indptr, indices, values, masks.masks, masks.weights, sums, out)
    else:
        _dot_entries(indptr, indices, values, masks.ends, masks.masks, masks.weights, sums, out)
