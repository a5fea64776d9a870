"""Sums and products of sparse frames, without making them dense.

All kernels take frames as the arrays of a CSR matrix: frame ``f`` has ``values[k]`` at pixel ``indices[k]``
for ``indptr[f] <= k < indptr[f + 1]``. They are native numbers, and `indices` have been checked: kernels
write and read where these say. Pixels may come in any order and more than once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.jit import jit

if TYPE_CHECKING:
    import numpy.typing as npt

    Pointers = npt.NDArray[np.int64]
    Indices = npt.NDArray[Any]
    Values = npt.NDArray[Any]

__all__ = [
    "MASKS_PER_GROUP",
    "VALUES_PER_FLUSH",
    "csr_dot_masks",
    "csr_sum_frames",
    "csr_sum_pixels",
    "interleave",
]

VALUES_PER_FLUSH = 2048
"""Products are added up in the precision of the masks for so many values, then in float64."""

MASKS_PER_GROUP = 4
"""Four float32 weights of a pixel are loaded at once."""


@jit
def csr_sum_frames(indices: Indices, values: Values, sums: npt.NDArray[Any]) -> None:
    """Add frames to `sums`, which has one element per pixel. All of the arrays belong to these frames."""
    total = sums.dtype.type
    for k in range(values.shape[0]):
        # Unsigned, because numba asks about each signed index whether it counts from the end.
        sums[np.uint64(indices[k])] += total(values[k])


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
def _dot_one(
    indptr: Pointers,
    indices: Indices,
    values: Values,
    masks: npt.NDArray[Any],
    out: npt.NDArray[np.float64],
    column: int,
) -> None:
    """Add the products of frames and one mask to a column of `out`."""
    real = masks.dtype.type
    mask = masks[:, 0]
    for f in range(indptr.shape[0] - 1):
        for low in range(indptr[f], indptr[f + 1], VALUES_PER_FLUSH):
            high = min(low + VALUES_PER_FLUSH, indptr[f + 1])
            v = values[low:high]
            c = indices[low:high]
            s = real(0)
            for k in range(v.shape[0]):
                s += real(v[k]) * mask[np.uint64(c[k])]
            out[f, column] += s


@jit
def _dot_four(
    indptr: Pointers,
    indices: Indices,
    values: Values,
    masks: npt.NDArray[Any],
    out: npt.NDArray[np.float64],
    column: int,
) -> None:
    """Add the products of frames and four masks to columns of `out`, as many as there are."""
    real = masks.dtype.type
    n = out.shape[1] - column
    for f in range(indptr.shape[0] - 1):
        for low in range(indptr[f], indptr[f + 1], VALUES_PER_FLUSH):
            high = min(low + VALUES_PER_FLUSH, indptr[f + 1])
            v = values[low:high]
            c = indices[low:high]
            s0, s1, s2, s3 = real(0), real(0), real(0), real(0)
            for k in range(v.shape[0]):
                x = real(v[k])
                p = np.uint64(c[k])
                s0 += x * masks[p, 0]
                s1 += x * masks[p, 1]
                s2 += x * masks[p, 2]
                s3 += x * masks[p, 3]
            out[f, column] += s0
            out[f, column + 1] += s1
            out[f, column + 2] += s2
            if n > 3:
                out[f, column + 3] += s3


def interleave(masks: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """Cut masks ``(masks, pixels)`` into the groups ``(pixels, 4 or 1)`` that kernels take.

    The weights of a pixel lie next to each other: columns of sparse frames are far apart, so that each
    costs a cache line. A rest of three is filled up with zeros, which costs less than three passes.
    """
    groups = []
    for first in range(0, masks.shape[0], MASKS_PER_GROUP):
        group = masks[first : first + MASKS_PER_GROUP]
        if group.shape[0] < MASKS_PER_GROUP - 1:
            groups += [np.ascontiguousarray(mask).reshape(-1, 1) for mask in group]
            continue
        filled = np.zeros((masks.shape[1], MASKS_PER_GROUP), dtype=masks.dtype)
        filled[:, : group.shape[0]] = group.T
        groups.append(filled)
    return groups


def csr_dot_masks(
    indptr: Pointers,
    indices: Indices,
    values: Values,
    groups: Sequence[npt.NDArray[Any]],
    out: npt.NDArray[np.float64],
) -> None:
    """Add the products of frames and masks to `out`, ``(frames, masks)``.

    `groups` are masks as from `interleave`, float32 or float64: products are formed and, for
    `VALUES_PER_FLUSH` values, added up in that precision.
    """
    column = 0
    for group in groups:
        kernel = _dot_four if group.shape[1] == MASKS_PER_GROUP else _dot_one
        kernel(indptr, indices, values, group, out, column)
        column += group.shape[1]
