"""Virtual detector: a ring."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from libertem.analysis.masks import SingleMaskAnalysis, given
from libertem.masks import ring

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["RingMaskAnalysis"]

DEFAULT_INNER = 0.8
"""Of the outer radius."""


class RingMaskAnalysis(SingleMaskAnalysis):
    """Sum of each frame over a ring: annular dark field.

    Parameters
    ----------
    dataset : DataSet
        With two signal dimensions.
    parameters : dict
        ``cx``, ``cy``: centre, by default that of the frame. ``ro``: outer radius, by default half of the
        shorter side. ``ri``: inner radius, by default 80 % of the outer. In pixels.
    """

    what = "ring"

    def get_geometry(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """``cx``, ``cy``, ``ri``, ``ro``."""
        height, width = self.dataset.shape.sig
        outer = given(parameters, "ro", min(height, width) / 2)
        return {
            "cx": given(parameters, "cx", width / 2),
            "cy": given(parameters, "cy", height / 2),
            "ri": given(parameters, "ri", outer * DEFAULT_INNER),
            "ro": outer,
        }

    def get_mask_factory(self) -> Callable[[], npt.NDArray[Any]]:
        """The ring."""
        height, width = self.dataset.shape.sig
        p = self.parameters
        return partial(ring, p["cx"], p["cy"], width, height, p["ro"], p["ri"])
