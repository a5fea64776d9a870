"""The compiled kernel that folds stored frames to images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from libertem.common.jit import jit

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["fold_rows"]


@jit
def fold_rows(
    stored: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.int64],
    first_row: int,
    half_rows: int,
    binning: int,
    out: npt.NDArray[np.uint16],
) -> None:
    """Write some rows of some frames, see `libertem.io.dataset.frms6.packing`.

    Parameters
    ----------
    stored : array of uint8
        1D. Pixels need not be aligned: processors that this library runs on load them from any address.
    starts : array of int64
        Index in `stored` of each frame.
    first_row : int
        Row of the image that goes to the first row of `out`.
    half_rows : int
        Stored rows of a frame.
    binning : int
        How often each row is repeated.
    out : array of uint16
        ``(n_frames, n_rows, width)``, C-contiguous.
    """
    n_frames, n_rows, width = out.shape
    flat = out.reshape(-1)
    for frame in range(n_frames):
        row = 0
        while row < n_rows:
            binned = (first_row + row) // binning
            stop = min((binned + 1) * binning - first_row, n_rows)
            # Rows as arrays of their own, with indices from 0 on: otherwise LLVM copies pixel by pixel.
            here = (frame * n_rows + row) * width
            line = flat[here : here + width]
            if binned < half_rows:
                start = starts[frame] + 4 * width * binned
                half = stored[start : start + 2 * width].view(np.uint16)
                for x in range(line.size):
                    line[x] = half[x]
            else:
                start = starts[frame] + 4 * width * (2 * half_rows - 1 - binned) + 2 * width
                half = stored[start : start + 2 * width].view(np.uint16)
                last = half.size - 1
                for x in range(line.size):
                    # Unsigned, or else numba asks each time whether the index counts from the end.
                    line[np.uint64(x)] = half[np.uint64(last - x)]
            for again in range(row + 1, stop):
                here = (frame * n_rows + again) * width
                copy = flat[here : here + width]
                for x in range(copy.size):
                    copy[x] = line[x]
            row = stop
