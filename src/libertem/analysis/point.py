"""Virtual detector: one pixel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.analysis.masks import SingleMaskAnalysis, given

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["PointMaskAnalysis"]


class PointMaskAnalysis(SingleMaskAnalysis):
    """One pixel of each frame.

    Parameters
    ----------
    dataset : DataSet
        With two signal dimensions, and at most two navigation dimensions.
    parameters : dict
        ``cx``, ``cy``: the pixel, truncated to integers; by default in the middle of the frame.
    """

    what = "point"

    def get_geometry(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """``cx``, ``cy``."""
        shape = self.dataset.shape
        if shape.nav.dims > 2:
            raise ValueError(
                f"incompatible dataset: need at most two navigation dimensions, found {shape.nav.to_tuple()}"
            )
        height, width = shape.sig
        x, y = int(given(parameters, "cx", width / 2)), int(given(parameters, "cy", height / 2))
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(f"the pixel x={x} y={y} is outside of frames of {width} by {height} pixels")
        return {"cx": x, "cy": y}

    def get_mask_factory(self) -> Callable[[], npt.NDArray[Any]]:
        """The pixel."""
        sig_shape = self.dataset.shape.sig.to_tuple()
        return partial(_single_pixel, sig_shape, (self.parameters["cy"], self.parameters["cx"]))


def _single_pixel(shape: tuple[int, ...], pixel: tuple[int, int]) -> npt.NDArray[np.bool_]:
    mask = np.zeros(shape, dtype=bool)
    mask[pixel] = True
    return mask
