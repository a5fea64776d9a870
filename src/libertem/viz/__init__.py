"""Turn results into pictures, at the end of a run or while it goes on."""

from __future__ import annotations

from typing import Any

from libertem.viz.base import get_plottable_2D_channels
from libertem.viz.images import encode_image, make_cyclic_map, rgb_from_2dvector, visualize_simple

__all__ = ["encode_image", "get_plottable_2D_channels", "rgb_from_2dvector", "visualize_simple"]


def __getattr__(name: str) -> Any:
    # A colour map of matplotlib, which loads when first used.
    if name == "libertem_cyclic":
        return make_cyclic_map()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
