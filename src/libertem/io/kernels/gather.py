"""Copy scattered pieces of a buffer next to each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from libertem.common.jit import jit

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["gather_rows"]


@jit
def gather_rows(
    source: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], out: npt.NDArray[np.uint8]
) -> None:
    """Copy ``source[s : s + out.shape[1]]`` into one row of `out` for each `s` in `starts`.

    Not checked: the caller owns the sizes.
    """
    n_bytes = out.shape[1]
    for row in range(starts.shape[0]):
        out[row, :] = source[starts[row] : starts[row] + n_bytes]
