"""Functions that draw masks. See `libertem.masks` for the order of coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.arrays import to_dense
from libertem.masks.rings import StackEntries, distances, single_ring, squared_distance

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "background_subtraction",
    "balance",
    "circular",
    "gradient_x",
    "gradient_y",
    "polar_map",
    "radial_gradient",
    "radial_gradient_background_subtraction",
    "rectangular",
    "ring",
    "sparse_circular_multi_stack",
    "sparse_template_multi_stack",
]


def circular(
    centerX: float,
    centerY: float,
    imageSizeX: int,
    imageSizeY: int,
    radius: float,
    antialiased: bool = False,
) -> npt.NDArray[Any]:
    """A disk: all pixels whose distance from the centre is at most `radius`.

    Returns
    -------
    numpy.ndarray
        bool, or with `antialiased` float64 with values between 0 and 1 at the rim.

    Examples
    --------
    >>> circular(1, 1, 4, 3, radius=1).astype(int)
    array([[0, 1, 0, 0],
           [1, 1, 1, 0],
           [0, 1, 0, 0]])
    """
    if antialiased:
        return single_ring(centerX, centerY, imageSizeX, imageSizeY, radius, 0)
    return squared_distance(centerX, centerY, imageSizeX, imageSizeY) <= radius**2


def ring(
    centerX: float,
    centerY: float,
    imageSizeX: int,
    imageSizeY: int,
    radius: float,
    radius_inner: float,
    antialiased: bool = False,
) -> npt.NDArray[Any]:
    """A ring: the disk of `radius` without the disk of `radius_inner`. dtypes as for `circular`."""
    if antialiased:
        return single_ring(centerX, centerY, imageSizeX, imageSizeY, radius, radius_inner)
    squared = squared_distance(centerX, centerY, imageSizeX, imageSizeY)
    return np.asarray((squared <= radius**2) & ~(squared <= radius_inner**2))


def radial_gradient(
    centerX: float,
    centerY: float,
    imageSizeX: int,
    imageSizeY: int,
    radius: float,
    antialiased: bool = False,
) -> npt.NDArray[np.float64]:
    """A disk in which the value rises from 0 at the centre to 1 at `radius`; float64."""
    r = np.sqrt(squared_distance(centerX, centerY, imageSizeX, imageSizeY))
    if antialiased:
        return radial_gradient_background_subtraction(r, r0=radius, r_outer=0)
    result = np.zeros(r.shape)
    if radius > 0:
        np.divide(r, radius, out=result, where=r <= radius)
    return result


def radial_gradient_background_subtraction(
    r: npt.ArrayLike, r0: float, r_outer: float, delta: float = 1
) -> npt.NDArray[Any]:
    """A gradient up to `r0`, falling to -1 in a border of width `delta`, and -1 from there to `r_outer`.

    Parameters
    ----------
    r : array-like
        Distance from the centre, for example from `polar_map`.
    r0 : float
        Radius of the gradient.
    r_outer : float
        Outer radius of the ring of -1 around it.
    delta : float, optional
        Width of the border, in which the value falls linearly from 1 to -1.

    Returns
    -------
    numpy.ndarray
        Same shape and dtype as `r`.

    Examples
    --------
    >>> radial_gradient_background_subtraction([0, 1, 1.75, 2, 3, 4.], r0=2, r_outer=3)
    array([ 0. ,  0.5,  0.5,  0. , -1. ,  0. ])
    """
    r = np.asarray(r)
    half = delta / 2
    inside, border = r < r0 - half, (r >= r0 - half) & (r < r0 + half)
    result = np.zeros_like(r)
    result[inside] = r[inside] / r0
    result[border] = (r0 - r[border]) / half
    result[(r >= r0 + half) & (r <= r_outer)] = -1
    return result


def polar_map(
    centerX: float,
    centerY: float,
    imageSizeX: int,
    imageSizeY: int,
    stretchY: float = 1.0,
    angle: float = 0.0,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Distance from the centre and angle of each pixel, optionally in a rotated and stretched frame.

    Parameters
    ----------
    centerX, centerY, imageSizeX, imageSizeY
        See `libertem.masks`.
    stretchY : float, optional
        Length, in pixels, of one unit along the y axis after rotation.
    angle : float, optional
        Rotation in radian.

    Returns
    -------
    radius, angle : numpy.ndarray
        float64. The angle is ``atan2(dy, dx)``: 0 along x, growing towards y, 0 at the centre.
    """
    dy, dx = np.broadcast_arrays(*distances(centerX, centerY, imageSizeX, imageSizeY))
    if stretchY != 1.0 or angle != 0.0:
        cos, sin = math.cos(angle), math.sin(angle)
        dy, dx = (dy * cos - dx * sin) / stretchY, dy * sin + dx * cos
    radius = np.hypot(dy, dx)
    # The arctangent of signed zeros is not 0 everywhere.
    return radius, np.where(radius == 0, 0.0, np.arctan2(dy, dx))


def balance(template: npt.ArrayLike) -> npt.NDArray[Any]:
    """A copy in which the negative entries are scaled so that the total becomes 0.

    Integers become float64. Without negative entries there is nothing to scale.

    Examples
    --------
    >>> balance([[1, 2, -1], [0, -2, 3]])
    array([[ 1.,  2., -2.],
           [ 0., -4.,  3.]])
    """
    values = np.asarray(template)
    result = values.astype(values.dtype if values.dtype.kind == "f" else np.float64)
    negative = result < 0
    total_negative = result[negative].sum()
    if total_negative < 0:
        result[negative] *= result[result > 0].sum() / -total_negative
    return result


def background_subtraction(
    centerX: float,
    centerY: float,
    imageSizeX: int,
    imageSizeY: int,
    radius: float,
    radius_inner: float,
    antialiased: bool = False,
) -> npt.NDArray[np.float64]:
    """The disk of `radius_inner` minus the ring around it, scaled so that the total is 0; float64.

    If no pixel belongs to the ring, nothing is subtracted.
    """
    image = (centerX, centerY, imageSizeX, imageSizeY)
    disk = circular(*image, radius_inner, antialiased).astype(np.float64)
    background = ring(*image, radius, radius_inner, antialiased).astype(np.float64)
    total = background.sum()
    return disk - background * (disk.sum() / total) if total > 0 else disk


def rectangular(
    X: float, Y: float, Width: float, Height: float, imageSizeX: int, imageSizeY: int
) -> npt.NDArray[np.bool_]:
    """A rectangle between the corners (X, Y) and (X + Width, Y + Height), both included; bool.

    Extents may be negative; if one is 0, the mask is empty. Coordinates are truncated to integers.

    Examples
    --------
    >>> rectangular(3, 2, -2, 1, 5, 4).astype(int)
    array([[0, 0, 0, 0, 0],
           [0, 0, 0, 0, 0],
           [0, 1, 1, 1, 0],
           [0, 1, 1, 1, 0]])
    """
    result = np.zeros((imageSizeY, imageSizeX), dtype=np.bool_)
    if Width != 0 and Height != 0:
        x_first, x_last = sorted((int(X), int(X + Width)))
        y_first, y_last = sorted((int(Y), int(Y + Height)))
        # A negative stop would count from the end.
        result[max(0, y_first) : max(0, y_last + 1), max(0, x_first) : max(0, x_last + 1)] = True
    return result


def gradient_x(imageSizeX: int, imageSizeY: int, dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
    """The column index of each pixel."""
    return np.tile(np.arange(imageSizeX, dtype=dtype), (imageSizeY, 1))


def gradient_y(imageSizeX: int, imageSizeY: int, dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
    """The row index of each pixel."""
    return np.repeat(np.arange(imageSizeY, dtype=dtype)[:, np.newaxis], imageSizeX, axis=1)


def sparse_template_multi_stack(
    mask_index: Sequence[int] | npt.NDArray[Any],
    offsetX: Sequence[float] | npt.NDArray[Any],
    offsetY: Sequence[float] | npt.NDArray[Any],
    template: Any,
    imageSizeX: int,
    imageSizeY: int,
) -> Any:
    """Stamp a template at many places of a stack of masks.

    Parameters
    ----------
    mask_index : sequence of int
        For each stamp, the mask that receives it.
    offsetX, offsetY : sequence of int
        For each stamp, where the upper left corner of the template comes to lie.
    template : array
        Dense or sparse. Parts that leave the image are dropped, overlaps within a mask are added.
    imageSizeX, imageSizeY : int
        Size of the masks.

    Returns
    -------
    sparse.COO
        Shape ``(max(mask_index) + 1, imageSizeY, imageSizeX)``, dtype of the template.
    """
    template = to_dense(template)
    index, left, top = (
        np.asarray(part).astype(np.int64)[:, np.newaxis] for part in (mask_index, offsetX, offsetY)
    )
    template_y, template_x = np.nonzero(template)
    index, y, x, value = np.broadcast_arrays(
        index, top + template_y, left + template_x, template[template_y, template_x]
    )
    inside = (y >= 0) & (y < imageSizeY) & (x >= 0) & (x < imageSizeX)
    n_masks = int(np.max(mask_index)) + 1 if len(mask_index) else 0
    entries = StackEntries(index[inside], y[inside], x[inside], value[inside])
    return entries.to_coo((n_masks, int(imageSizeY), int(imageSizeX)), template.dtype)


def sparse_circular_multi_stack(
    mask_index: Sequence[int] | npt.NDArray[Any],
    centerX: Sequence[float] | npt.NDArray[Any],
    centerY: Sequence[float] | npt.NDArray[Any],
    imageSizeX: int,
    imageSizeY: int,
    radius: float,
) -> Any:
    """Like `sparse_template_multi_stack` with a bool disk; centres are truncated to integers."""
    reach = math.ceil(radius)
    size = 2 * reach + 1
    disk = circular(reach, reach, size, size, radius)
    left, top = (np.asarray(part).astype(np.int64) - reach for part in (centerX, centerY))
    return sparse_template_multi_stack(mask_index, left, top, disk, imageSizeX, imageSizeY)
