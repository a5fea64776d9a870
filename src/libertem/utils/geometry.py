"""Points in the plane: polar coordinates, rotation, and the nodes of a lattice inside a frame.

Points are arrays of shape ``(..., 2)`` that hold (y, x); angles are measured from x towards y.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "calc_coords",
    "frame_peaks",
    "make_cartesian",
    "make_polar",
    "regularize_indices",
    "rotate_deg",
    "rotate_rad",
    "within_frame",
]


def make_cartesian(polar: npt.ArrayLike) -> npt.NDArray[Any]:
    """Turn (radius, angle in radian) into (y, x), along the last axis."""
    r, phi = np.moveaxis(np.asarray(polar), -1, 0)
    return np.stack((r * np.sin(phi), r * np.cos(phi)), axis=-1)


def make_polar(cartesian: npt.ArrayLike) -> npt.NDArray[Any]:
    """Turn (y, x) into (radius, angle in radian), along the last axis."""
    y, x = np.moveaxis(np.asarray(cartesian), -1, 0)
    return np.stack((np.hypot(y, x), np.arctan2(y, x)), axis=-1)


def rotate_rad(y: Any, x: Any, radians: float) -> tuple[Any, Any]:
    """Rotate from x towards y: (y, x) = (0, 1) becomes (sin, cos). Numbers or arrays."""
    cos, sin = math.cos(radians), math.sin(radians)
    return y * cos + x * sin, x * cos - y * sin


def rotate_deg(y: Any, x: Any, degrees: float) -> tuple[Any, Any]:
    """Like `rotate_rad`, with an angle in degrees."""
    return rotate_rad(y, x, math.radians(degrees))


def regularize_indices(indices: npt.ArrayLike) -> npt.NDArray[Any]:
    """Turn lattice indices, either a list of pairs or the result of `numpy.mgrid`, into a list of pairs.

    Parameters
    ----------
    indices : array-like
        Shape ``(n, 2)`` or ``(2, n, m)``.

    Returns
    -------
    numpy.ndarray
        Shape ``(n, 2)`` or ``(n * m, 2)``; in the latter the first index varies fastest.

    Raises
    ------
    ValueError
        If the shape is neither.
    """
    indices = np.asarray(indices)
    if indices.ndim == 3 and indices.shape[0] == 2:
        return indices.T.reshape(-1, 2)
    if indices.ndim == 2 and indices.shape[1] == 2:
        return indices
    raise ValueError(f"indices have to have the shape (n, 2) or (2, n, m), found {indices.shape}")


def calc_coords(
    zero: npt.ArrayLike, a: npt.ArrayLike, b: npt.ArrayLike, indices: npt.ArrayLike
) -> npt.NDArray[Any]:
    """Points of the lattice with origin `zero` and basis `a`, `b` at the given pairs of indices."""
    return np.asarray(np.asarray(zero) + np.asarray(indices) @ np.array((a, b)))


def within_frame(peaks: npt.ArrayLike, r: float, fy: int, fx: int) -> npt.NDArray[np.bool_]:
    """Which points keep at least the distance `r` from the border of a frame of `fy` by `fx` pixels."""
    peaks = np.asarray(peaks)
    return np.asarray(np.all((peaks >= r) & (peaks < np.array((fy, fx)) - r), axis=-1))


def frame_peaks(
    fy: int,
    fx: int,
    zero: npt.ArrayLike,
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    r: float,
    indices: npt.ArrayLike,
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Select the nodes of a lattice that lie inside a frame, at least `r` from its border.

    Parameters
    ----------
    fy, fx : int
        Size of the frame.
    zero, a, b : array-like
        Origin and basis of the lattice, (y, x) each.
    r : float
        Margin.
    indices : array-like
        Candidates, see `regularize_indices`.

    Returns
    -------
    indices, peaks : numpy.ndarray
        Shape ``(n, 2)`` each: lattice indices, and (y, x) in the frame.
    """
    indices = regularize_indices(indices)
    peaks = calc_coords(zero, a, b, indices)
    inside = within_frame(peaks, r, fy, fx)
    return indices[inside], peaks[inside]
