"""Values that replace excluded pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.jit import jit
from libertem.io.kernels.values import stored

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["mean_of_neighbours"]


@jit
def mean_of_neighbours(
    pixels: npt.NDArray[Any],
    starts: npt.NDArray[np.int64],
    first_px: int,
    swapped: bool | None,
    neighbours: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    dark: npt.NDArray[np.float64],
    gain: npt.NDArray[np.float64],
    out: npt.NDArray[np.float64],
) -> None:
    """Write the mean of the corrected neighbours of each pixel to `out`, ``(frames, pixels)``.

    The first ``counts[i]`` entries of ``neighbours[i]`` are flat indices in the frame; `first_px` is that of
    the pixel at `starts`. `dark` and `gain` are whole frames, or empty.
    """
    have_dark, have_gain = dark.shape[0] > 0, gain.shape[0] > 0
    for f in range(starts.shape[0]):
        start = starts[f] - first_px
        for i in range(counts.shape[0]):
            total = 0.0
            for k in range(counts[i]):
                p = neighbours[i, k]
                x = np.float64(stored(pixels[start + p], swapped))
                if have_dark:
                    x -= dark[p]
                if have_gain:
                    x *= gain[p]
                total += x
            out[f, i] = total / counts[i]
