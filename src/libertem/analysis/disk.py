"""Virtual detector: a disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from libertem.analysis.masks import SingleMaskAnalysis, given
from libertem.masks import circular

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["DiskMaskAnalysis"]

DEFAULT_RADIUS = 0.15
"""Of the shorter side of a frame."""


class DiskMaskAnalysis(SingleMaskAnalysis):
    """Sum of each frame over a disk: bright field.

    Parameters
    ----------
    dataset : DataSet
        With two signal dimensions.
    parameters : dict
        ``cx``, ``cy``: centre, by default that of the frame. ``r``: radius, by default 15 % of the shorter
        side. In pixels.
    """

    what = "disk"

    def get_geometry(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """``cx``, ``cy``, ``r``."""
        height, width = self.dataset.shape.sig
        return {
            "cx": given(parameters, "cx", width / 2),
            "cy": given(parameters, "cy", height / 2),
            "r": given(parameters, "r", min(height, width) * DEFAULT_RADIUS),
        }

    def get_mask_factory(self) -> Callable[[], npt.NDArray[Any]]:
        """The disk."""
        height, width = self.dataset.shape.sig
        p = self.parameters
        return partial(circular, p["cx"], p["cy"], width, height, p["r"])
