"""Regions of interest in the form of parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from libertem.masks import circular, rectangular

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["get_roi"]


def get_roi(params: Mapping[str, Any], shape: Sequence[int]) -> npt.NDArray[np.bool_] | None:
    """Make a mask of scan positions from parameters.

    Parameters
    ----------
    params : dict
        With ``roi``: ``{"shape": "disk", "cx": x, "cy": y, "r": radius}``, or ``{"shape": "rect", "x": left,
        "y": top, "width": width, "height": height}``, see `libertem.masks.rectangular`.
    shape : sequence of int
        Navigation shape, (height, width).

    Returns
    -------
    numpy.ndarray or None
        bool; None if there is no ``roi``.

    Raises
    ------
    NotImplementedError
        If the form is not one of these.
    ValueError
        If the scan does not have two dimensions.
    """
    roi = params.get("roi")
    if not roi:
        return None
    if roi["shape"] not in ("disk", "rect"):
        raise NotImplementedError(f"unknown shape {roi['shape']!r}, expected 'disk' or 'rect'")
    if len(shape) != 2:
        raise ValueError(f"roi: a {roi['shape']} needs two navigation dimensions, found {tuple(shape)}")
    height, width = shape
    if roi["shape"] == "disk":
        return circular(roi["cx"], roi["cy"], width, height, roi["r"])
    return rectangular(roi["x"], roi["y"], roi["width"], roi["height"], width, height)
