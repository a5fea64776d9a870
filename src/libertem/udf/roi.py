"""Regions of interest in all the forms that users may write."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.arrays import is_sparse, to_dense
from libertem.common.math import prod
from libertem.common.shape import Shape

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["as_roi"]


def as_roi(roi: Any, shape: Shape) -> npt.NDArray[np.bool_] | None:
    """Make a mask of navigation shape; always a copy, so that later changes have no effect.

    Parameters
    ----------
    roi : array, sparse array, tuple of int, or list of ``((coordinates), bool)``
        A mask; one position; or positions that get a truth value, with the opposite everywhere else.
    shape : Shape
        Of the data set.

    Raises
    ------
    ValueError
        If the mask does not have one element per scan position, or coordinates make no sense.
    """
    if roi is None:
        return None
    nav_shape = shape.nav.to_tuple()
    if isinstance(roi, list | tuple) and not _is_nested_mask(roi, nav_shape):
        return _from_coordinates(roi, nav_shape)
    mask = to_dense(roi) if is_sparse(roi) else np.asarray(roi)
    if mask.size != prod(nav_shape):
        raise ValueError(f"roi: incompatible shapes: {mask.shape} (roi) vs {nav_shape} (dataset)")
    if mask.dtype != np.dtype(bool):
        warnings.warn(
            f"ROI dtype is {mask.dtype}, expected bool. Attempting cast to bool.",
            UserWarning,
            stacklevel=4,
        )
    return np.array(mask, dtype=bool).reshape(nav_shape)


def _is_nested_mask(roi: list[Any] | tuple[Any, ...], nav_shape: tuple[int, ...]) -> bool:
    """Whether a list is a mask written out, rather than coordinates."""
    try:
        arr = np.asarray(roi)
    except ValueError:  # ragged: coordinates next to truth values
        return False
    return arr.dtype == np.dtype(bool) and arr.shape == nav_shape


def _from_coordinates(roi: list[Any] | tuple[Any, ...], nav_shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    truth = True
    if all(isinstance(entry, int | np.integer) for entry in roi):
        positions = [tuple(roi)] if roi else []
    else:
        truths = {bool(value) for _, value in roi}
        if len(truths) > 1:
            raise ValueError("roi: all positions need the same truth value, found True and False")
        truth = truths.pop()
        positions = [tuple(np.atleast_1d(coordinates).tolist()) for coordinates, _ in roi]
    mask = np.full(nav_shape, not truth)
    for position in positions:
        if len(position) != len(nav_shape):
            raise ValueError(f"roi: position {position} needs {len(nav_shape)} coordinates")
        try:
            mask[position] = truth
        except IndexError as err:
            raise ValueError(f"roi: position {position} is outside of {nav_shape}") from err
    return mask
