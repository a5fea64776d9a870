"""Sums and sums of squared deviations from the mean, for each pixel, in one stable pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.jit import jit
from libertem.io.kernels.prefetch import PREFETCH_BYTES, prefetch
from libertem.io.kernels.values import stored

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["EXACT_FRAMES", "merge_moments", "moments", "power_sums", "scratch_for_squares"]

PX_PER_STEP = 2048
"""Sums and deviations of so many pixels stay in the L1 cache."""


TURNS_AHEAD = 4
"""How far ahead pixels are fetched, in pieces of `PREFETCH_BYTES`."""


@jit
def _fetch_ahead(
    pixels: npt.NDArray[Any], starts: npt.NDArray[np.int64], p: int, m: int, f: int, ahead: int
) -> None:
    """Fetch a piece of four frames, `ahead` pixels after `p`; behind pixel `m`, from the next four frames."""
    if ahead >= m:
        ahead -= m
        f += 4
    last = starts.shape[0] - 1
    prefetch(pixels, starts[min(f, last)] + p + ahead)
    prefetch(pixels, starts[min(f + 1, last)] + p + ahead)
    prefetch(pixels, starts[min(f + 2, last)] + p + ahead)
    prefetch(pixels, starts[min(f + 3, last)] + p + ahead)


@jit
def moments(
    pixels: npt.NDArray[Any],
    starts: npt.NDArray[np.int64],
    n_px: int,
    swapped: bool | None,
    n_before: int,
    sums: npt.NDArray[np.float64],
    varsums: npt.NDArray[np.float64],
) -> None:
    """Add frames to `sums` and `varsums`, which hold those of `n_before` frames.

    Four frames are first combined among themselves in registers, about their own mean, and then with what
    is there (Chan et al., "Updating formulae and a pairwise algorithm for computing sample variances").
    """
    n = starts.shape[0]
    px_per_turn = PREFETCH_BYTES // pixels.itemsize
    fours = n // 4 * 4
    for p in range(0, n_px, PX_PER_STEP):
        m = min(PX_PER_STEP, n_px - p)
        s = sums[p : p + m]
        v = varsums[p : p + m]
        for f in range(0, fours, 4):
            before = float(n_before + f)
            per_frame = 1.0 / before if before > 0 else 0.0
            weight = before * 4.0 / (before + 4.0)
            for q in range(0, m, px_per_turn):
                k = min(px_per_turn, m - q)
                _fetch_ahead(pixels, starts, p, m, f, q + TURNS_AHEAD * px_per_turn)
                a = pixels[starts[f] + p + q : starts[f] + p + q + k]
                b = pixels[starts[f + 1] + p + q : starts[f + 1] + p + q + k]
                c = pixels[starts[f + 2] + p + q : starts[f + 2] + p + q + k]
                d = pixels[starts[f + 3] + p + q : starts[f + 3] + p + q + k]
                sq = s[q : q + k]
                vq = v[q : q + k]
                for i in range(k):
                    w = np.float64(stored(a[i], swapped))
                    x = np.float64(stored(b[i], swapped))
                    y = np.float64(stored(c[i], swapped))
                    z = np.float64(stored(d[i], swapped))
                    total = (w + x) + (y + z)
                    mean = total * 0.25
                    w -= mean
                    x -= mean
                    y -= mean
                    z -= mean
                    delta = mean - sq[i] * per_frame
                    vq[i] += ((w * w + x * x) + (y * y + z * z)) + delta * delta * weight
                    sq[i] += total
        for f in range(fours, n):
            before = float(n_before + f)
            per_frame = 1.0 / before if before > 0 else 0.0
            weight = before / (before + 1.0)
            a = pixels[starts[f] + p : starts[f] + p + m]
            for i in range(m):
                w = np.float64(stored(a[i], swapped))
                delta = w - s[i] * per_frame
                v[i] += delta * delta * weight
                s[i] += w


EXACT_FRAMES = 512
"""For so many values of up to 16 bit ``n * sum(x**2) - sum(x)**2`` is an exact float64."""


def scratch_for_squares(stored: np.dtype[Any], n_px: int) -> npt.NDArray[Any]:
    """Scratch for sums of squares of `EXACT_FRAMES` stored values: integers where these fit 32 bit."""
    return np.empty(n_px, dtype=np.uint32 if stored.itemsize == 1 else np.float64)


@jit
def power_sums(
    pixels: npt.NDArray[Any],
    starts: npt.NDArray[np.int64],
    n_px: int,
    swapped: bool | None,
    n_before: int,
    lanes: npt.NDArray[Any],
    squares: npt.NDArray[Any],
    sums: npt.NDArray[np.float64],
    varsums: npt.NDArray[np.float64],
) -> None:
    """Like `moments`, for integers of up to 16 bits, in fewer steps.

    The plain formula is exact for `EXACT_FRAMES` frames, which are then combined with what is there.
    `lanes` and `squares` are scratch for a part of a frame, see `scratch_for_squares`.
    """
    lane = lanes.dtype.type
    square = squares.dtype.type
    step = lanes.shape[0]
    px_per_turn = PREFETCH_BYTES // pixels.itemsize
    n = starts.shape[0]
    for low in range(0, n, EXACT_FRAMES):
        high = min(n, low + EXACT_FRAMES)
        fours = low + (high - low) // 4 * 4
        frames = float(high - low)
        share = 1.0 / frames
        before = float(n_before + low)
        per_frame = 1.0 / before if before > 0 else 0.0
        weight = before * frames / (before + frames)
        for p in range(0, n_px, step):
            m = min(step, n_px - p)
            for i in range(m):
                lanes[i] = 0
                squares[i] = 0
            for f in range(low, fours, 4):
                for q in range(0, m, px_per_turn):
                    k = min(px_per_turn, m - q)
                    _fetch_ahead(pixels, starts, p, m, f, q + TURNS_AHEAD * px_per_turn)
                    a = pixels[starts[f] + p + q : starts[f] + p + q + k]
                    b = pixels[starts[f + 1] + p + q : starts[f + 1] + p + q + k]
                    c = pixels[starts[f + 2] + p + q : starts[f + 2] + p + q + k]
                    d = pixels[starts[f + 3] + p + q : starts[f + 3] + p + q + k]
                    la = lanes[q : q + k]
                    sq = squares[q : q + k]
                    for i in range(k):
                        w = stored(a[i], swapped)
                        x = stored(b[i], swapped)
                        y = stored(c[i], swapped)
                        z = stored(d[i], swapped)
                        la[i] += lane(w) + lane(x) + lane(y) + lane(z)
                        w, x, y, z = square(w), square(x), square(y), square(z)
                        sq[i] += (w * w + x * x) + (y * y + z * z)
            for f in range(fours, high):
                a = pixels[starts[f] + p : starts[f] + p + m]
                for i in range(m):
                    x = stored(a[i], swapped)
                    lanes[i] += lane(x)
                    squares[i] += square(x) * square(x)
            s = sums[p : p + m]
            v = varsums[p : p + m]
            for i in range(m):
                total = np.float64(lanes[i])
                delta = total * share - s[i] * per_frame
                v[i] += (frames * np.float64(squares[i]) - total * total) * share + delta * delta * weight
                s[i] += total


@jit
def merge_moments(
    n0: int,
    sums0: npt.NDArray[np.float64],
    varsums0: npt.NDArray[np.float64],
    n1: int,
    sums1: npt.NDArray[np.float64],
    varsums1: npt.NDArray[np.float64],
) -> None:
    """Add sums, and sums of squared deviations, of ``n1`` frames to those of ``n0`` frames, in place."""
    share0, share1 = 1.0 / n0, 1.0 / n1
    weight = n0 * (n1 / (n0 + n1))
    for i in range(sums0.shape[0]):
        delta = sums1[i] * share1 - sums0[i] * share0
        varsums0[i] += varsums1[i] + delta * delta * weight
        sums0[i] += sums1[i]
