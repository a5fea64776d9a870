"""Compiled corrections of the pixels in a flat view of a tile.

Importing this module loads numba, so it is imported when pixels are corrected for the first time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from libertem.common.jit import jit

__all__ = ["dark_and_gain", "repair"]

_Index = npt.NDArray[np.int64]
_Pixels = npt.NDArray[Any]


@jit
def dark_and_gain(
    flat: _Pixels,
    frame_starts: _Index,
    run_starts: _Index,
    run_bounds: _Index,
    step: int,
    dark: _Pixels,
    gain: _Pixels,
) -> None:
    """Subtract `dark`, then multiply by `gain`, in the dtype of these two. One of them may be empty.

    Run ``r`` of a frame holds its pixels ``run_bounds[r]`` to ``run_bounds[r + 1]``; they lie `step` elements
    apart in `flat`, beginning at ``frame_starts[frame] + run_starts[r]``.
    """
    have_dark, have_gain = dark.shape[0] > 0, gain.shape[0] > 0
    # Unsigned, because the test for negative indices would keep the loops from being vectorized.
    gap = np.uint64(step)
    # Frames inside, so that the piece of both maps stays in the first-level cache for all of them.
    for r in range(run_starts.shape[0]):
        begin, n = np.uint64(run_bounds[r]), np.uint64(run_bounds[r + 1] - run_bounds[r])
        for frame in range(frame_starts.shape[0]):
            start = np.uint64(frame_starts[frame] + run_starts[r])
            if have_dark and have_gain:
                for i in range(n):
                    flat[start + i * gap] = (flat[start + i * gap] - dark[begin + i]) * gain[begin + i]
            elif have_dark:
                for i in range(n):
                    flat[start + i * gap] = flat[start + i * gap] - dark[begin + i]
            else:
                for i in range(n):
                    flat[start + i * gap] = flat[start + i * gap] * gain[begin + i]


@jit
def repair(
    flat: _Pixels,
    parts: int,
    frame_starts: _Index,
    excluded: _Index,
    neighbours: _Index,
    counts: _Index,
) -> None:
    """Replace excluded pixels by the mean of their neighbours; those without any keep their value.

    `flat` is real: a pixel is made of `parts` consecutive elements, 2 for complex numbers. Offsets count
    pixels; the first ``counts[i]`` entries of ``neighbours[i]`` belong to ``excluded[i]``.
    """
    for frame in range(frame_starts.shape[0]):
        start = frame_starts[frame]
        for i in range(excluded.shape[0]):
            if counts[i] == 0:
                continue
            for part in range(parts):
                total = 0.0
                for k in range(counts[i]):
                    total += flat[(start + neighbours[i, k]) * parts + part]
                flat[(start + excluded[i]) * parts + part] = total / counts[i]
