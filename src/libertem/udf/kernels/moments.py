"""Sums and sums of squared deviations from the mean, for each pixel, in one stable pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.jit import jit
from libertem.io.kernels.values import stored

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["EXACT_FRAMES", "moments", "power_sums"]

PX_PER_STEP = 2048
"""Sums and deviations of so many pixels stay in the L1 cache."""


@jit
def moments(
    pixels: npt.NDArray[Any],
    starts: npt.NDArray[np.int64],
    n_px: int,
    swapped: bool,
    n_before: int,
    sums: npt.NDArray[np.float64],
    varsums: npt.NDArray[np.float64],
) -> None:
    """Add frames to `sums` and `varsums`, which hold those of `n_before` frames.

    Four frames are first combined among themselves in registers, about their own mean, and then with what
    is there (Chan et al., "Updating formulae and a pairwise algorithm for computing sample variances").
    """
    n = starts.shape[0]
    fours = n // 4 * 4
    for p in range(0, n_px, PX_PER_STEP):
        m = min(PX_PER_STEP, n_px - p)
        s = sums[p : p + m]
        v = varsums[p : p + m]
        for f in range(0, fours, 4):
            before = float(n_before + f)
            per_frame = 1.0 / before if before > 0 else 0.0
            weight = before * 4.0 / (before + 4.0)
            a = pixels[starts[f] + p : starts[f] + p + m]
            b = pixels[starts[f + 1] + p : starts[f + 1] + p + m]
            c = pixels[starts[f + 2] + p : starts[f + 2] + p + m]
            d = pixels[starts[f + 3] + p : starts[f + 3] + p + m]
            for i in range(m):
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
                delta = mean - s[i] * per_frame
                v[i] += ((w * w + x * x) + (y * y + z * z)) + delta * delta * weight
                s[i] += total
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
"""For so many 16 bit values ``n * sum(x**2) - sum(x)**2`` is an exact float64."""


@jit
def power_sums(
    pixels: npt.NDArray[Any],
    starts: npt.NDArray[np.int64],
    n_px: int,
    swapped: bool,
    n_before: int,
    lanes: npt.NDArray[Any],
    squares: npt.NDArray[np.float64],
    sums: npt.NDArray[np.float64],
    varsums: npt.NDArray[np.float64],
) -> None:
    """Like `moments`, for integers of up to 16 bits, in fewer steps.

    The plain formula is exact for `EXACT_FRAMES` frames, which are then combined with what is there.
    `lanes` (32 bit integers) and `squares` are scratch for a part of a frame.
    """
    lane = lanes.dtype.type
    step = lanes.shape[0]
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
                squares[i] = 0.0
            for f in range(low, fours, 4):
                a = pixels[starts[f] + p : starts[f] + p + m]
                b = pixels[starts[f + 1] + p : starts[f + 1] + p + m]
                c = pixels[starts[f + 2] + p : starts[f + 2] + p + m]
                d = pixels[starts[f + 3] + p : starts[f + 3] + p + m]
                for i in range(m):
                    w = stored(a[i], swapped)
                    x = stored(b[i], swapped)
                    y = stored(c[i], swapped)
                    z = stored(d[i], swapped)
                    lanes[i] += lane(w) + lane(x) + lane(y) + lane(z)
                    w, x, y, z = np.float64(w), np.float64(x), np.float64(y), np.float64(z)
                    squares[i] += (w * w + x * x) + (y * y + z * z)
            for f in range(fours, high):
                a = pixels[starts[f] + p : starts[f] + p + m]
                for i in range(m):
                    x = stored(a[i], swapped)
                    lanes[i] += lane(x)
                    squares[i] += np.float64(x) * np.float64(x)
            s = sums[p : p + m]
            v = varsums[p : p + m]
            for i in range(m):
                total = np.float64(lanes[i])
                delta = total * share - s[i] * per_frame
                v[i] += (frames * squares[i] - total * total) * share + delta * delta * weight
                s[i] += total
