"""Products of frames and masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import types
from numba.extending import overload

from libertem.common.jit import jit
from libertem.io.kernels.values import stored

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["MASKS_PER_GROUP", "cut_spans", "dot_masks", "group_masks"]

PX_PER_FLUSH = 2048
"""Products are added up in the precision of the masks for so many pixels, then in float64."""

MASKS_PER_GROUP = 4
"""Eight sums, of two frames and four masks, or nine of three and three, fit 16 vector registers together
with what they are made of."""


def lowered(x: Any, dark: Any, i: Any) -> Any:
    """`x` less the dark frame, if there is one. Only for kernels: the compiler answers the question."""
    raise NotImplementedError("only to be called from compiled code")


@overload(lowered, inline="always")
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


@overload(cut, inline="always")
def _cut(dark: Any, first: Any, n: Any) -> Any:
    def nothing(dark: Any, first: Any, n: Any) -> Any:
        return None

    def part(dark: Any, first: Any, n: Any) -> Any:
        return dark[first : first + n]

    return nothing if isinstance(dark, types.NoneType) else part


@jit
def _dot_one(
    pixels: npt.NDArray[Any],
    starts: npt.NDArray[np.int64],
    spans: npt.NDArray[np.int64],
    swapped: bool,
    masks: npt.NDArray[Any],
    dark: npt.NDArray[Any] | None,
    first_px: int,
    out: npt.NDArray[np.float64],
    column: int,
) -> None:
    """Add the products of frames and one mask, ``(1, pixels)``, to a column of `out`."""
    real = masks.dtype.type
    n = starts.shape[0]
    for f in range(0, n, 4):
        # At the end the last frame stands in for those that are missing.
        f1, f2, f3 = min(f + 1, n - 1), min(f + 2, n - 1), min(f + 3, n - 1)
        for span in range(spans.shape[0]):
            p, m = spans[span, 0], spans[span, 1] - spans[span, 0]
            dk = cut(dark, first_px + p, m)
            w = masks[0, first_px + p : first_px + p + m]
            a = pixels[starts[f] + p : starts[f] + p + m]
            b = pixels[starts[f1] + p : starts[f1] + p + m]
            c = pixels[starts[f2] + p : starts[f2] + p + m]
            d = pixels[starts[f3] + p : starts[f3] + p + m]
            sa, sb, sc, sd = real(0), real(0), real(0), real(0)
            for i in range(m):
                sa += lowered(real(stored(a[i], swapped)), dk, i) * w[i]
                sb += lowered(real(stored(b[i], swapped)), dk, i) * w[i]
                sc += lowered(real(stored(c[i], swapped)), dk, i) * w[i]
                sd += lowered(real(stored(d[i], swapped)), dk, i) * w[i]
            out[f, column] += sa
            if f + 1 < n:
                out[f + 1, column] += sb
            if f + 2 < n:
                out[f + 2, column] += sc
            if f + 3 < n:
                out[f + 3, column] += sd


@jit
def _dot_four(
    pixels: npt.NDArray[Any],
    starts: npt.NDArray[np.int64],
    spans: npt.NDArray[np.int64],
    swapped: bool,
    masks: npt.NDArray[Any],
    dark: npt.NDArray[Any] | None,
    first_px: int,
    out: npt.NDArray[np.float64],
    column: int,
) -> None:
    """Add the products of frames and four masks to columns of `out`, as many as there are."""
    real = masks.dtype.type
    n = starts.shape[0]
    for span in range(spans.shape[0]):
        p, m = spans[span, 0], spans[span, 1] - spans[span, 0]
        dk = cut(dark, first_px + p, m)
        w0 = masks[0, first_px + p : first_px + p + m]
        w1 = masks[1, first_px + p : first_px + p + m]
        w2 = masks[2, first_px + p : first_px + p + m]
        w3 = masks[3, first_px + p : first_px + p + m]
        for f in range(0, n, 2):
            # At the end the last frame stands in for the one that is missing.
            f1 = min(f + 1, n - 1)
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
            _add_row(out, f, column, a0, a1, a2, a3)
            _add_row(out, f + 1, column, b0, b1, b2, b3)


@jit
def _dot_three(
    pixels: npt.NDArray[Any],
    starts: npt.NDArray[np.int64],
    spans: npt.NDArray[np.int64],
    swapped: bool,
    masks: npt.NDArray[Any],
    dark: npt.NDArray[Any] | None,
    first_px: int,
    out: npt.NDArray[np.float64],
    column: int,
) -> None:
    """Add the products of frames and three masks to columns of `out`, as many as there are."""
    real = masks.dtype.type
    n = starts.shape[0]
    for span in range(spans.shape[0]):
        p, m = spans[span, 0], spans[span, 1] - spans[span, 0]
        dk = cut(dark, first_px + p, m)
        w0 = masks[0, first_px + p : first_px + p + m]
        w1 = masks[1, first_px + p : first_px + p + m]
        w2 = masks[2, first_px + p : first_px + p + m]
        for f in range(0, n, 3):
            f1, f2 = min(f + 1, n - 1), min(f + 2, n - 1)
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
            _add_row(out, f, column, a0, a1, a2, real(0))
            _add_row(out, f + 1, column, b0, b1, b2, real(0))
            _add_row(out, f + 2, column, c0, c1, c2, real(0))


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


def cut_spans(n_px: int, left_out: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.int64]:
    """Ranges ``(n, 2)`` of pixels that kernels take at a time, with gaps where pixels are left out."""
    borders = np.append(np.arange(0, n_px, PX_PER_FLUSH, dtype=np.int64), n_px)
    if left_out is None or left_out.size == 0:
        return np.stack([borders[:-1], borders[1:]], axis=1)
    edges = np.unique(np.concatenate([borders, left_out, left_out + 1]))
    spans = np.stack([edges[:-1], edges[1:]], axis=1)
    return spans[~np.isin(spans[:, 0], left_out)]


def dot_masks(
    pixels: npt.NDArray[Any],
    starts: npt.NDArray[np.int64],
    spans: npt.NDArray[np.int64],
    swapped: bool,
    groups: Sequence[npt.NDArray[Any]],
    first_px: int,
    out: npt.NDArray[np.float64],
    dark: npt.NDArray[Any] | None = None,
) -> None:
    """Add the products of frames, less a dark frame, and masks to `out`, ``(frames, masks)``.

    `groups` are masks as from `group_masks`, float32 or float64: products are formed and, for
    `PX_PER_FLUSH` pixels, added up in that precision; `dark` has the same dtype. `spans` are ranges of
    pixels of the (parts of) frames, see `cut_spans`; `first_px` is the pixel of the masks that the first
    pixel of the (parts of) frames belongs to.
    """
    for i, group in enumerate(groups):
        kernel = _KERNELS[group.shape[0]]
        kernel(pixels, starts, spans, swapped, group, dark, first_px, out, i * MASKS_PER_GROUP)
