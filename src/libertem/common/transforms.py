"""Linear transformations of (y, x) coordinates, as 2 by 2 matrices that act on column vectors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["flip_x", "flip_y", "identity", "rotate", "rotate_deg", "scale", "scale_rotate_flip_y"]

Matrix = npt.NDArray[np.float64]

# Relative difference of the two scales, and cosine between the transformed axes. Far above what rounding
# of a float32 matrix leaves behind, far below what a scan shows.
_SCALE_TOLERANCE = 2e-5
_SHEAR_TOLERANCE = 5e-7


def identity() -> Matrix:
    """No change."""
    return np.eye(2)


def scale(factor: float) -> Matrix:
    """Scale both axes by `factor`."""
    return np.eye(2) * factor


def rotate(radians: float) -> Matrix:
    """Rotate: the y axis turns towards negative x for positive angles.

    Examples
    --------
    >>> (rotate(np.pi / 2) @ (1, 0)).round(3)
    array([ 0., -1.])
    """
    cos, sin = math.cos(radians), math.sin(radians)
    return np.array([[cos, sin], [-sin, cos]])


def rotate_deg(degrees: float) -> Matrix:
    """Like `rotate`, with the angle in degrees."""
    return rotate(math.radians(degrees))


def flip_y() -> Matrix:
    """Change the sign of y."""
    return np.diag((-1.0, 1.0))


def flip_x() -> Matrix:
    """Change the sign of x."""
    return np.diag((1.0, -1.0))


def scale_rotate_flip_y(mat: npt.NDArray[Any]) -> tuple[float, float, bool]:
    """Take a matrix apart into ``scale(factor) @ rotate(radians) @ flip_y()``.

    Returns
    -------
    tuple of float, float, bool
        The factor (positive), the angle in radians within ±π, and whether y is flipped.

    Raises
    ------
    ValueError
        If the matrix scales both axes differently or by zero, or shears them.
    """
    matrix = np.asarray(mat, dtype=np.float64)
    if matrix.shape != (2, 2):
        raise ValueError(f"expected a 2 by 2 matrix, found shape {matrix.shape}")
    (yy, yx), (xy, xx) = matrix.tolist()
    y_scale, x_scale = math.hypot(yy, xy), math.hypot(yx, xx)
    if not (0 < y_scale < math.inf and math.isclose(y_scale, x_scale, rel_tol=_SCALE_TOLERANCE)):
        raise ValueError(f"y scale {y_scale} and x scale {x_scale} are different, zero or not finite")
    cosine = (yy / y_scale) * (yx / x_scale) + (xy / y_scale) * (xx / x_scale)
    if abs(cosine) > _SHEAR_TOLERANCE:
        raise ValueError(f"contains shear: the cosine between the transformed axes is {cosine}")
    # The flip changes the sign of the first column only, so the second one shows the bare rotation.
    return y_scale, math.atan2(yx, xx), yy * xx < yx * xy
