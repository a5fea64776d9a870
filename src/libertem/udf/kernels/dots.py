"""Products of frames and masks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import types
from numba.extending import overload

from libertem.common.jit import jit
from libertem.io.kernels.prefetch import PREFETCH_BYTES, prefetch
from libertem.io.kernels.values import stored

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["MASKS_PER_GROUP", "cut_spans", "dot_masks", "group_masks"]

BYTES_PER_SPAN = PREFETCH_BYTES
"""Of one frame. Products of so many bytes of stored pixels are added up in the precision of the masks, then
in float64. Between two spans there is time to fetch one ahead."""

LONG_SPAN_BYTES = 4096
"""The same for one mask: so little is computed that the processor itself sees far enough ahead."""

CACHED_BYTES = 1 << 20
"""So many bytes of frames are multiplied with one group of masks after the other."""

MIN_FRAMES = 6
"""But at least so many frames."""

SPANS_PER_PASS = 32
"""Parts of four masks that stay in the second-level cache while all frames of a block are multiplied."""

SPANS_AHEAD = 6
"""How far ahead pixels are fetched."""

MASKS_PER_GROUP = 4
"""Eight sums, of two frames and four masks, or nine of three and three, fit 16 vector registers together
with what they are made of."""


def lowered(x: Any, dark: Any, i: Any) -> Any:
    """`x` less the dark frame, if there is one. Only for kernels: the compiler answers the question."""
    raise NotImplementedError("only to be called from compiled code")


@overload(lowered)
def _lowered(x: Any, dark: Any, i: Any) -> Any:
    # numba wants the same annotations as above.
    def same(x: Any, dark: Any, i: Any) -> Any:
        return x

    def less(x: Any, dark: Any, i: Any) -> Any:
        return x - dark[i]

    return same if isinstance(dark, types.NoneType) else less


def cut(dark: Any, first: Any, n: Any) -> Any:
    """A part of the dark frame, if there is one. Only for kernels."""
    raise NotImplementedError("only to be called from compiled code")


@overload(cut)
def _cut(dark: Any, first: Any, n: Any) -> Any:
    def nothing(dark: Any, first: Any, n: Any) -> Any:
        return None

    def part(dark: Any, first: Any, n: Any) -> Any:
        return dark[first : first + n]

    return nothing if isinstance(dark, types.NoneType) else part


@jit
def _fetch_ahead(
    pixels: npt.NDArray[Any],
    starts: npt.NDArray[np.int64],
    spans: npt.NDArray[np.int64],
    f: int,
    n_frames: int,
    s: int,
    first: int,
    last: int,
) -> None:
    """Fetch what will be needed `SPANS_AHEAD` spans after span `s` of the `n_frames` frames from `f` on."""
    ahead = s + SPANS_AHEAD
    if ahead >= last:
        f += n_frames
        if f >= starts.shape[0]:
            f = 0
        else:
            ahead += first - last
    p = spans[min(ahead, spans.shape[0] - 1), 0]
    stop = starts.shape[0] - 1
    prefetch(pixels, starts[min(f, stop)] + p)
    prefetch(pixels, starts[min(f + 1, stop)] + p)
    if n_frames == 3:
        prefetch(pixels, starts[min(f + 2, stop)] + p)


@jit
def _dot_one(
    pixels: npt.NDArray[Any],
    starts: npt.NDArray[np.int64],
    spans: npt.NDArray[np.int64],
    swapped: bool | None,
    masks: npt.NDArray[Any],
    dark: npt.NDArray[Any] | None,
    first_px: int,
    out: npt.NDArray[np.float64],
    column: int,
) -> None:
    """Add the products of frames and one mask, ``(1, pixels)``, to a column of `out`."""
    real = masks.dtype.type
    n = starts.shape[0]
    for first in range(0, spans.shape[0], SPANS_PER_PASS):
        last = min(spans.shape[0], first + SPANS_PER_PASS)
        for f in range(0, n, 4):
            # At the end the last frame stands in for those that are missing.
            f1 = min(f + 1, n - 1)
            f2 = min(f + 2, n - 1)
            f3 = min(f + 3, n - 1)
            sum_a0 = 0.0
            sum_b0 = 0.0
            sum_c0 = 0.0
            sum_d0 = 0.0
            for s in range(first, last):
                p, m = spans[s, 0], spans[s, 1] - spans[s, 0]
                w0 = masks[0, first_px + p : first_px + p + m]
                dk = cut(dark, first_px + p, m)
                a = pixels[starts[f] + p : starts[f] + p + m]
                b = pixels[starts[f1] + p : starts[f1] + p + m]
                c = pixels[starts[f2] + p : starts[f2] + p + m]
                d = pixels[starts[f3] + p : starts[f3] + p + m]
                a0 = real(0)
                b0 = real(0)
                c0 = real(0)
                d0 = real(0)
                for i in range(m):
                    x = lowered(real(stored(a[i], swapped)), dk, i)
                    a0 += x * w0[i]
                    x = lowered(real(stored(b[i], swapped)), dk, i)
                    b0 += x * w0[i]
                    x = lowered(real(stored(c[i], swapped)), dk, i)
                    c0 += x * w0[i]
                    x = lowered(real(stored(d[i], swapped)), dk, i)
                    d0 += x * w0[i]
                sum_a0 += a0
                sum_b0 += b0
                sum_c0 += c0
                sum_d0 += d0
            _add_row(out, f, column, sum_a0, 0.0, 0.0, 0.0)
            _add_row(out, f + 1, column, sum_b0, 0.0, 0.0, 0.0)
            _add_row(out, f + 2, column, sum_c0, 0.0, 0.0, 0.0)
            _add_row(out, f + 3, column, sum_d0, 0.0, 0.0, 0.0)


@jit
def _dot_four(
    pixels: npt.NDArray[Any],
    starts: npt.NDArray[np.int64],
    spans: npt.NDArray[np.int64],
    swapped: bool | None,
    masks: npt.NDArray[Any],
    dark: npt.NDArray[Any] | None,
    first_px: int,
    out: npt.NDArray[np.float64],
    column: int,
) -> None:
    """Add the products of frames and four masks to columns of `out`, as many as there are."""
    real = masks.dtype.type
    n = starts.shape[0]
    for first in range(0, spans.shape[0], SPANS_PER_PASS):
        last = min(spans.shape[0], first + SPANS_PER_PASS)
        for f in range(0, n, 2):
            # At the end the last frame stands in for those that are missing.
            f1 = min(f + 1, n - 1)
            sum_a0, sum_a1, sum_a2, sum_a3 = 0.0, 0.0, 0.0, 0.0
            sum_b0, sum_b1, sum_b2, sum_b3 = 0.0, 0.0, 0.0, 0.0
            for s in range(first, last):
                p, m = spans[s, 0], spans[s, 1] - spans[s, 0]
                _fetch_ahead(pixels, starts, spans, f, 2, s, first, last)
                w0 = masks[0, first_px + p : first_px + p + m]
                w1 = masks[1, first_px + p : first_px + p + m]
                w2 = masks[2, first_px + p : first_px + p + m]
                w3 = masks[3, first_px + p : first_px + p + m]
                dk = cut(dark, first_px + p, m)
                a = pixels[starts[f] + p : starts[f] + p + m]
                b = pixels[starts[f1] + p : starts[f1] + p + m]
                a0, a1, a2, a3 = real(0), real(0), real(0), real(0)
                b0, b1, b2, b3 = real(0), real(0), real(0), real(0)
                for i in range(m):
                    x = lowered(real(stored(a[i], swapped)), dk, i)
                    a0 += x * w0[i]
                    a1 += x * w1[i]
                    a2 += x * w2[i]
                    a3 += x * w3[i]
                    x = lowered(real(stored(b[i], swapped)), dk, i)
                    b0 += x * w0[i]
                    b1 += x * w1[i]
                    b2 += x * w2[i]
                    b3 += x * w3[i]
                sum_a0 += a0
                sum_a1 += a1
                sum_a2 += a2
                sum_a3 += a3
                sum_b0 += b0
                sum_b1 += b1
                sum_b2 += b2
                sum_b3 += b3
            _add_row(out, f, column, sum_a0, sum_a1, sum_a2, sum_a3)
            _add_row(out, f + 1, column, sum_b0, sum_b1, sum_b2, sum_b3)


@jit
def _dot_three(
    pixels: npt.NDArray[Any],
    starts: npt.NDArray[np.int64],
    spans: npt.NDArray[np.int64],
    swapped: bool | None,
    masks: npt.NDArray[Any],
    dark: npt.NDArray[Any] | None,
    first_px: int,
    out: npt.NDArray[np.float64],
    column: int,
) -> None:
    """Add the products of frames and three masks to columns of `out`, as many as there are."""
    real = masks.dtype.type
    n = starts.shape[0]
    for first in range(0, spans.shape[0], SPANS_PER_PASS):
        last = min(spans.shape[0], first + SPANS_PER_PASS)
        for f in range(0, n, 3):
            # At the end the last frame stands in for those that are missing.
            f1 = min(f + 1, n - 1)
            f2 = min(f + 2, n - 1)
            sum_a0, sum_a1, sum_a2 = 0.0, 0.0, 0.0
            sum_b0, sum_b1, sum_b2 = 0.0, 0.0, 0.0
            sum_c0, sum_c1, sum_c2 = 0.0, 0.0, 0.0
            for s in range(first, last):
                p, m = spans[s, 0], spans[s, 1] - spans[s, 0]
                _fetch_ahead(pixels, starts, spans, f, 3, s, first, last)
                w0 = masks[0, first_px + p : first_px + p + m]
                w1 = masks[1, first_px + p : first_px + p + m]
                w2 = masks[2, first_px + p : first_px + p + m]
                dk = cut(dark, first_px + p, m)
                a = pixels[starts[f] + p : starts[f] + p + m]
                b = pixels[starts[f1] + p : starts[f1] + p + m]
                c = pixels[starts[f2] + p : starts[f2] + p + m]
                a0, a1, a2 = real(0), real(0), real(0)
                b0, b1, b2 = real(0), real(0), real(0)
                c0, c1, c2 = real(0), real(0), real(0)
                for i in range(m):
                    x = lowered(real(stored(a[i], swapped)), dk, i)
                    a0 += x * w0[i]
                    a1 += x * w1[i]
                    a2 += x * w2[i]
                    x = lowered(real(stored(b[i], swapped)), dk, i)
                    b0 += x * w0[i]
                    b1 += x * w1[i]
                    b2 += x * w2[i]
                    x = lowered(real(stored(c[i], swapped)), dk, i)
                    c0 += x * w0[i]
                    c1 += x * w1[i]
                    c2 += x * w2[i]
                sum_a0 += a0
                sum_a1 += a1
                sum_a2 += a2
                sum_b0 += b0
                sum_b1 += b1
                sum_b2 += b2
                sum_c0 += c0
                sum_c1 += c1
                sum_c2 += c2
            _add_row(out, f, column, sum_a0, sum_a1, sum_a2, 0.0)
            _add_row(out, f + 1, column, sum_b0, sum_b1, sum_b2, 0.0)
            _add_row(out, f + 2, column, sum_c0, sum_c1, sum_c2, 0.0)


@jit
def _add_row(out: npt.NDArray[np.float64], f: int, column: int, x0: Any, x1: Any, x2: Any, x3: Any) -> None:
    if f >= out.shape[0]:
        return
    n = out.shape[1] - column
    out[f, column] += x0
    if n > 1:
        out[f, column + 1] += x1
    if n > 2:
        out[f, column + 2] += x2
    if n > 3:
        out[f, column + 3] += x3


_KERNELS = {1: _dot_one, 3: _dot_three, 4: _dot_four}


def group_masks(masks: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """Cut masks ``(masks, pixels)`` into the groups that kernels take: fours, and at the end three or one.

    A rest of two is filled up with zeros: a mask more costs less than another pass over the frames.
    """
    groups = []
    for first in range(0, masks.shape[0], MASKS_PER_GROUP):
        group = masks[first : first + MASKS_PER_GROUP]
        if group.shape[0] == 2:
            group = np.concatenate([group, np.zeros_like(group[:1])])
        groups.append(np.ascontiguousarray(group))
    return groups


def cut_spans(n_px: int, px_per_span: int, left_out: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Ranges ``(n, 2)`` of pixels that kernels take at a time, with gaps where pixels are left out."""
    borders = np.append(np.arange(0, n_px, px_per_span, dtype=np.int64), n_px)
    edges = np.unique(np.concatenate([borders, left_out, left_out + 1]))
    spans = np.stack([edges[:-1], edges[1:]], axis=1)
    return spans[~np.isin(spans[:, 0], left_out)]


@lru_cache(maxsize=64)
def _whole_spans(n_px: int, px_per_span: int) -> npt.NDArray[np.int64]:
    return cut_spans(n_px, px_per_span, np.empty(0, dtype=np.int64))


def dot_masks(
    pixels: npt.NDArray[Any],
    starts: npt.NDArray[np.int64],
    n_px: int,
    swapped: bool | None,
    groups: Sequence[npt.NDArray[Any]],
    first_px: int,
    out: npt.NDArray[np.float64],
    dark: npt.NDArray[Any] | None = None,
    left_out: npt.NDArray[np.int64] | None = None,
) -> None:
    """Add the products of frames, less a dark frame, and masks to `out`, ``(frames, masks)``.

    `groups` are masks as from `group_masks`, float32 or float64: products are formed and, for a few hundred
    pixels, added up in that precision; `dark` has the same dtype. `first_px` is the pixel of the masks that
    the first pixel of the (parts of) frames belongs to. Pixels of these parts can be `left_out`.
    """
    n = starts.shape[0]
    # The first group brings pixels into the cache, the others find them there.
    step = n if len(groups) == 1 else max(MIN_FRAMES, CACHED_BYTES // (n_px * pixels.itemsize))
    for first in range(0, n, step):
        frames, rows = starts[first : first + step], out[first : first + step]
        for i, group in enumerate(groups):
            px_per_span = (LONG_SPAN_BYTES if group.shape[0] == 1 else BYTES_PER_SPAN) // pixels.itemsize
            if left_out is None:
                spans = _whole_spans(n_px, px_per_span)
            else:
                spans = cut_spans(n_px, px_per_span, left_out)
            kernel = _KERNELS[group.shape[0]]
            kernel(pixels, frames, spans, swapped, group, dark, first_px, rows, i * MASKS_PER_GROUP)
