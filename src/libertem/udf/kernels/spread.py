"""Mean and spread of some pixels of each frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.jit import jit
from libertem.io.kernels.values import stored

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["spread"]


@jit
def spread(
    pixels: npt.NDArray[Any],
    starts: npt.NDArray[np.int64],
    segments: npt.NDArray[np.int64],
    swapped: bool | None,
    n_before: int,
    sums: npt.NDArray[np.float64],
    varsums: npt.NDArray[np.float64],
) -> None:
    """Add the pixels in `segments` to the sum and to the sum of squared deviations of each frame.

    Parameters
    ----------
    pixels, starts, swapped
        See `libertem.udf.kernels.sums`.
    segments : array of int64
        ``(n, 2)``: first pixel, and the one behind the last, counted from the start of each frame.
    n_before : int
        Number of pixels that `sums` and `varsums` hold already.
    sums, varsums : array of float64
        One element per frame.
    """
    n_px = 0
    for s in range(segments.shape[0]):
        n_px += segments[s, 1] - segments[s, 0]
    if n_px == 0:
        return
    weight = float(n_before) * float(n_px) / float(n_before + n_px)
    for f in range(starts.shape[0]):
        total = 0.0
        for s in range(segments.shape[0]):
            a = pixels[starts[f] + segments[s, 0] : starts[f] + segments[s, 1]]
            for i in range(a.shape[0]):
                total += np.float64(stored(a[i], swapped))
        # The second pass finds the pixels in the cache.
        mean = total / n_px
        squares = 0.0
        for s in range(segments.shape[0]):
            a = pixels[starts[f] + segments[s, 0] : starts[f] + segments[s, 1]]
            for i in range(a.shape[0]):
                deviation = np.float64(stored(a[i], swapped)) - mean
                squares += deviation * deviation
        if n_before > 0:
            delta = mean - sums[f] / n_before
            squares += delta * delta * weight
        sums[f] += total
        varsums[f] += squares
