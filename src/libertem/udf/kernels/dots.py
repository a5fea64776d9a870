"""Products of frames and masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.jit import jit
from libertem.io.kernels.values import stored

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["MASKS_PER_GROUP", "dot_masks"]

PX_PER_FLUSH = 2048
"""Products are added up in the precision of the masks for so many pixels, then in float64."""

MASKS_PER_GROUP = 4
"""Sixteen sums, of four frames and four masks, fit the vector registers."""


@jit
def _dot_one(
    pixels: npt.NDArray[Any],
    starts: npt.NDArray[np.int64],
    n_px: int,
    swapped: bool,
    mask: npt.NDArray[Any],
    out: npt.NDArray[np.float64],
) -> None:
    """Add the products of frames and one mask to `out`, one element per frame."""
    real = mask.dtype.type
    n = starts.shape[0]
    for f in range(0, n, 4):
        # At the end the last frame stands in for those that are missing.
        f1, f2, f3 = min(f + 1, n - 1), min(f + 2, n - 1), min(f + 3, n - 1)
        for p in range(0, n_px, PX_PER_FLUSH):
            m = min(PX_PER_FLUSH, n_px - p)
            w = mask[p : p + m]
            a = pixels[starts[f] + p : starts[f] + p + m]
            b = pixels[starts[f1] + p : starts[f1] + p + m]
            c = pixels[starts[f2] + p : starts[f2] + p + m]
            d = pixels[starts[f3] + p : starts[f3] + p + m]
            sa, sb, sc, sd = real(0), real(0), real(0), real(0)
            for i in range(m):
                sa += real(stored(a[i], swapped)) * w[i]
                sb += real(stored(b[i], swapped)) * w[i]
                sc += real(stored(c[i], swapped)) * w[i]
                sd += real(stored(d[i], swapped)) * w[i]
            out[f] += sa
            if f + 1 < n:
                out[f + 1] += sb
            if f + 2 < n:
                out[f + 2] += sc
            if f + 3 < n:
                out[f + 3] += sd


@jit
def _dot_four(
    pixels: npt.NDArray[Any],
    starts: npt.NDArray[np.int64],
    n_px: int,
    swapped: bool,
    masks: npt.NDArray[Any],
    out: npt.NDArray[np.float64],
) -> None:
    """Add the products of frames and four masks to `out`, ``(frames, 4)``."""
    real = masks.dtype.type
    n = starts.shape[0]
    for p in range(0, n_px, PX_PER_FLUSH):
        m = min(PX_PER_FLUSH, n_px - p)
        w0 = masks[0, p : p + m]
        w1 = masks[1, p : p + m]
        w2 = masks[2, p : p + m]
        w3 = masks[3, p : p + m]
        for f in range(0, n, 4):
            f1, f2, f3 = min(f + 1, n - 1), min(f + 2, n - 1), min(f + 3, n - 1)
            a = pixels[starts[f] + p : starts[f] + p + m]
            b = pixels[starts[f1] + p : starts[f1] + p + m]
            c = pixels[starts[f2] + p : starts[f2] + p + m]
            d = pixels[starts[f3] + p : starts[f3] + p + m]
            a0, a1, a2, a3 = real(0), real(0), real(0), real(0)
            b0, b1, b2, b3 = real(0), real(0), real(0), real(0)
            c0, c1, c2, c3 = real(0), real(0), real(0), real(0)
            d0, d1, d2, d3 = real(0), real(0), real(0), real(0)
            for i in range(m):
                x = real(stored(a[i], swapped))
                a0 += x * w0[i]
                a1 += x * w1[i]
                a2 += x * w2[i]
                a3 += x * w3[i]
                x = real(stored(b[i], swapped))
                b0 += x * w0[i]
                b1 += x * w1[i]
                b2 += x * w2[i]
                b3 += x * w3[i]
                x = real(stored(c[i], swapped))
                c0 += x * w0[i]
                c1 += x * w1[i]
                c2 += x * w2[i]
                c3 += x * w3[i]
                x = real(stored(d[i], swapped))
                d0 += x * w0[i]
                d1 += x * w1[i]
                d2 += x * w2[i]
                d3 += x * w3[i]
            _add_row(out, f, n, a0, a1, a2, a3)
            _add_row(out, f + 1, n, b0, b1, b2, b3)
            _add_row(out, f + 2, n, c0, c1, c2, c3)
            _add_row(out, f + 3, n, d0, d1, d2, d3)


@jit
def _add_row(out: npt.NDArray[np.float64], f: int, n: int, x0: Any, x1: Any, x2: Any, x3: Any) -> None:
    if f < n:
        out[f, 0] += x0
        out[f, 1] += x1
        out[f, 2] += x2
        out[f, 3] += x3


def dot_masks(
    pixels: npt.NDArray[Any],
    starts: npt.NDArray[np.int64],
    n_px: int,
    swapped: bool,
    masks: npt.NDArray[Any],
    out: npt.NDArray[np.float64],
) -> None:
    """Add the products of frames and masks to `out`, ``(frames, masks)``.

    `masks` is ``(masks, pixels)``, float32 or float64: products are formed and, for `PX_PER_FLUSH` pixels,
    added up in that precision. Groups of four masks are taken together; a rest of two or three is filled
    up with zeros, because a mask more costs less than another pass over the frames.
    """
    n_masks = masks.shape[0]
    for first in range(0, n_masks, MASKS_PER_GROUP):
        group = masks[first : first + MASKS_PER_GROUP]
        n = group.shape[0]
        if n == 1:
            column = np.zeros(starts.shape[0])
            _dot_one(pixels, starts, n_px, swapped, group[0], column)
            out[:, first] += column
            continue
        if n < MASKS_PER_GROUP:
            zeros = np.zeros((MASKS_PER_GROUP - n, masks.shape[1]), dtype=masks.dtype)
            group = np.concatenate([group, zeros])
        rows = np.zeros((starts.shape[0], MASKS_PER_GROUP))
        _dot_four(pixels, starts, n_px, swapped, np.ascontiguousarray(group), rows)
        out[:, first : first + n] += rows[:, :n]
