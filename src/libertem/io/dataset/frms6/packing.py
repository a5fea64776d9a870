"""How frames become images: folding of the two halves of the sensor, and repetition of binned rows.

A stored frame has `h` rows of `2 w` pixels: the upper half of the sensor on the left, the lower half on the
right, turned by 180°. With `b` rows of the sensor binned to one, row `y` of the image of `2 h b` rows and `w`
columns is, with ``k = y // b``,

| | |
|---|---|
| ``k < h``  | stored row `k`, columns 0 to ``w - 1`` |
| ``k >= h`` | stored row ``2 h - 1 - k``, columns ``2 w - 1`` down to `w` |

Pixels are neither divided by `b` nor changed otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from libertem.io.dataset.base.packing import Packing

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Folding", "fold_frame"]

S = TypeVar("S", bound=np.generic)


def fold_frame(raw: npt.NDArray[S], binning: int) -> npt.NDArray[S]:
    """Image from a stored frame of any dtype, with plain NumPy."""
    width = raw.shape[1] // 2
    image = np.concatenate([raw[:, :width], raw[::-1, : width - 1 : -1]])
    return np.repeat(image, binning, axis=0)


class Folding(Packing):
    """Stored frames with the halves of the sensor side by side, and binned rows.

    Parameters
    ----------
    raw_shape : (int, int)
        Rows and columns of a stored frame.
    binning : int
        How often each row is repeated.
    """

    def __init__(self, raw_shape: tuple[int, int], binning: int) -> None:
        rows, columns = raw_shape
        super().__init__(np.uint16, (2 * rows * binning, columns // 2), part_bytes=2 * rows * columns)
        self.half_rows = rows
        self.binning = binning

    @property
    def unit_px(self) -> int:
        """Pixels of an image that come from the same stored ones: a binned row, repeated."""
        return self.binning * self.frame_shape[1]

    def unpack(
        self,
        part: int,
        stored: npt.NDArray[np.uint8],
        starts: npt.NDArray[np.int64],
        first_row: int,
        out: npt.NDArray[Any],
    ) -> None:
        """Fold some rows of some frames."""
        from libertem.io.dataset.frms6.kernels import fold_rows

        fold_rows(stored, starts, first_row, self.half_rows, self.binning, out)
