"""Sums over frames, and over the pixels of each frame.

All kernels of this package take frames where they lie: `pixels` is 1D memory, `starts` the index of the
first pixel of each frame (or of the same part of each frame), `swapped` is True if the stored byte order is
the other one, else None. Slices, not index arithmetic, reach the pixels: only then compilers use vector
registers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.jit import jit
from libertem.io.kernels.values import stored

if TYPE_CHECKING:
    import numpy.typing as npt

    Starts = npt.NDArray[np.int64]
    Pixels = npt.NDArray[Any]

__all__ = ["FRAMES_PER_FLUSH", "sum_frames", "sum_pixels"]

FRAMES_PER_FLUSH = 32768
"""So many 16 bit values fit a 32 bit lane, signed or not."""


@jit
def sum_frames(
    pixels: Pixels,
    starts: Starts,
    n_px: int,
    swapped: bool | None,
    lanes: npt.NDArray[Any],
    sums: npt.NDArray[Any],
) -> None:
    """Add frames to `sums`, eight at a time.

    `lanes` is scratch for a part of a frame that stays in the L1 cache; its dtype holds
    `FRAMES_PER_FLUSH` values. `sums` has one element per pixel.
    """
    lane = lanes.dtype.type
    total = sums.dtype.type
    step = lanes.shape[0]
    n = starts.shape[0]
    for low in range(0, n, FRAMES_PER_FLUSH):
        high = min(n, low + FRAMES_PER_FLUSH)
        eights = low + (high - low) // 8 * 8
        for p in range(0, n_px, step):
            m = min(step, n_px - p)
            for i in range(m):
                lanes[i] = 0
            for f in range(low, eights, 8):
                a = pixels[starts[f] + p : starts[f] + p + m]
                b = pixels[starts[f + 1] + p : starts[f + 1] + p + m]
                c = pixels[starts[f + 2] + p : starts[f + 2] + p + m]
                d = pixels[starts[f + 3] + p : starts[f + 3] + p + m]
                e = pixels[starts[f + 4] + p : starts[f + 4] + p + m]
                g = pixels[starts[f + 5] + p : starts[f + 5] + p + m]
                h = pixels[starts[f + 6] + p : starts[f + 6] + p + m]
                k = pixels[starts[f + 7] + p : starts[f + 7] + p + m]
                for i in range(m):
                    lanes[i] += (
                        lane(stored(a[i], swapped))
                        + lane(stored(b[i], swapped))
                        + lane(stored(c[i], swapped))
                        + lane(stored(d[i], swapped))
                        + lane(stored(e[i], swapped))
                        + lane(stored(g[i], swapped))
                        + lane(stored(h[i], swapped))
                        + lane(stored(k[i], swapped))
                    )
            for f in range(eights, high):
                a = pixels[starts[f] + p : starts[f] + p + m]
                for i in range(m):
                    lanes[i] += lane(stored(a[i], swapped))
            for i in range(m):
                sums[p + i] += total(lanes[i])


@jit
def sum_pixels(
    pixels: Pixels, starts: Starts, n_px: int, swapped: bool | None, sums: npt.NDArray[Any]
) -> None:
    """Add the sum over the pixels of each frame to `sums`, which has one element per frame."""
    total = sums.dtype.type
    for f in range(starts.shape[0]):
        a = pixels[starts[f] : starts[f] + n_px]
        s = total(0)
        for i in range(n_px):
            s += total(stored(a[i], swapped))
        sums[f] += s
