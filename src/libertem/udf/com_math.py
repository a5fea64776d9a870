"""Vector fields on a scan: how to correct, to judge and to differentiate them.

The functions take the two components as arrays ``(y, x)`` over the scan.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from libertem.common.transforms import flip_y as flip_y_matrix
from libertem.common.transforms import identity, rotate_deg
from libertem.masks import circular, gradient_x, gradient_y

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "GuessResult",
    "apply_correction",
    "center_shifts",
    "com_masks_factory",
    "com_masks_generic",
    "coordinate_check",
    "curl_2d",
    "divergence",
    "fit_plane",
    "guess_corrections",
    "magnitude",
    "plane",
]

MaskFactory: TypeAlias = "Callable[[], npt.NDArray[Any]]"
Component: TypeAlias = "npt.NDArray[Any]"
Region: TypeAlias = "npt.NDArray[np.bool_] | tuple[slice, ...]"

ANGLES = np.arange(360)
"""Scan rotations that are tried, in degrees."""


def com_masks_generic(detector_y: int, detector_x: int, base_mask_factory: MaskFactory) -> list[MaskFactory]:
    """Functions that return the three masks of a centre of mass: M, M · y and M · x.

    Parameters
    ----------
    detector_y, detector_x : int
        Shape of a frame.
    base_mask_factory : callable
        Returns M, which selects or weights pixels.
    """
    return [
        base_mask_factory,
        lambda: gradient_y(imageSizeX=detector_x, imageSizeY=detector_y) * base_mask_factory(),
        lambda: gradient_x(imageSizeX=detector_x, imageSizeY=detector_y) * base_mask_factory(),
    ]


def com_masks_factory(detector_y: int, detector_x: int, cy: float, cx: float, r: float) -> list[MaskFactory]:
    """Functions that return the masks of the centre of mass within a disk; see `com_masks_generic`."""
    return com_masks_generic(
        detector_y,
        detector_x,
        lambda: circular(centerX=cx, centerY=cy, imageSizeX=detector_x, imageSizeY=detector_y, radius=r),
    )


def center_shifts(
    img_sum: Component, img_y: Component, img_x: Component, ref_y: float, ref_x: float
) -> tuple[Component, Component]:
    """Centres of mass relative to a reference, from the sums over the three masks; 0 for empty frames."""
    filled = np.asarray(img_sum) != 0

    def shift(img: Component, ref: float) -> Component:
        out = np.zeros(filled.shape, dtype=np.result_type(img, img_sum, 1.0))
        np.divide(img, img_sum, out=out, where=filled)
        return np.subtract(out, ref, out=out, where=filled)

    return shift(img_y, ref_y), shift(img_x, ref_x)


def apply_correction(
    y_centers: Component, x_centers: Component, scan_rotation: float, flip_y: bool, forward: bool = True
) -> tuple[Component, Component]:
    """Turn detector coordinates into scan coordinates: first flip, then rotate.

    Parameters
    ----------
    y_centers, x_centers : array
        Components of the vectors.
    scan_rotation : float
        In degrees.
    flip_y : bool
        Change the sign of y first.
    forward : bool
        False for the way back.
    """
    matrix = rotate_deg(scan_rotation) @ (flip_y_matrix() if flip_y else identity())
    if not forward:
        # It is orthogonal.
        matrix = matrix.T
    y = matrix[0, 0] * y_centers + matrix[0, 1] * x_centers
    x = matrix[1, 0] * y_centers + matrix[1, 1] * x_centers
    return y, x


def divergence(y_centers: Component, x_centers: Component) -> Component:
    """Divergence of a vector field, for steps of one."""
    result: Component = np.gradient(y_centers, axis=0) + np.gradient(x_centers, axis=1)
    return result


def curl_2d(y_centers: Component, x_centers: Component) -> Component:
    """Curl of a vector field, for steps of one: change of y along x minus change of x along y."""
    result: Component = np.gradient(y_centers, axis=1) - np.gradient(x_centers, axis=0)
    return result


def magnitude(y_centers: Component, x_centers: Component) -> Component:
    """Length of each vector."""
    result: Component = np.hypot(np.abs(y_centers), np.abs(x_centers))
    return result


def coordinate_check(
    y_centers: Component, x_centers: Component, roi: Region | None = None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Root mean square of the curl that remains for each scan rotation of 0 to 359 degrees.

    Electrostatic fields have no curl, so that the right correction minimizes it.

    Parameters
    ----------
    y_centers, x_centers : array
        Components of the vectors.
    roi : array of bool or tuple of slice, optional
        Where to evaluate; by default everywhere but in the last row and column.

    Returns
    -------
    tuple of array
        360 values without, and 360 values with a flipped y axis.
    """
    region = _default_region() if roi is None else roi
    straight, flipped = (_rms_curls(sign * y_centers, x_centers, region) for sign in (1, -1))
    return straight, flipped


def _default_region() -> tuple[slice, ...]:
    return (slice(0, -1), slice(0, -1))


def _rms_curls(y: Component, x: Component, region: Region) -> npt.NDArray[np.float64]:
    # The curl of a rotated field is a mixture of two maps, so that 360 angles cost no more than one.
    own = curl_2d(y, x)[region]
    other = divergence(y, x)[region]
    valid = np.isfinite(own) & np.isfinite(other)
    if not valid.any():
        return np.full(ANGLES.shape, np.nan)
    own, other = own[valid], other[valid]
    own_square, other_square = (np.mean(np.abs(part) ** 2) for part in (own, other))
    product = np.mean((own * np.conj(other)).real)
    cos, sin = np.cos(np.radians(ANGLES)), np.sin(np.radians(ANGLES))
    squares = cos**2 * own_square + 2 * cos * sin * product + sin**2 * other_square
    rms: npt.NDArray[np.float64] = np.sqrt(np.maximum(squares, 0))
    return rms


class GuessResult(NamedTuple):
    """Corrections that make a field look like one of attractive centres without curl."""

    scan_rotation: int
    """In degrees, from -179 to 180."""
    flip_y: bool
    """Whether the y axis is flipped."""
    cy: float
    """Mean of the y component: what the centre should be shifted by."""
    cx: float
    """Mean of the x component."""


def guess_corrections(y_centers: Component, x_centers: Component, roi: Region | None = None) -> GuessResult:
    """Guess scan rotation, flipped y axis and centre from a measured field.

    The curl has to be as small as possible. That leaves two directions: between attractive centres, which
    are small, the divergence is strongly negative in few places rather than strongly positive.

    Parameters
    ----------
    y_centers, x_centers : array
        Shifts of the centre of mass, without corrections.
    roi : array of bool or tuple of slice, optional
        Where to look; by default everywhere but in the last row and column.
    """
    region = _default_region() if roi is None else roi
    straight, flipped = coordinate_check(y_centers, x_centers, roi=region)
    flip_y = bool(flipped.min() < straight.min())
    angle = int(np.argmin(flipped if flip_y else straight))
    div = divergence(*apply_correction(y_centers, x_centers, angle, flip_y))[region]
    div = div[np.isfinite(div)]
    limit = np.abs(div).max(initial=0)
    counts, _ = np.histogram(div, bins=5, range=(-limit, limit))
    if counts[0] < counts[-1]:
        angle += 180
    if angle > 180:
        angle -= 360
    cy, cx = (float(np.nanmean(part[region])) for part in (y_centers, x_centers))
    return GuessResult(scan_rotation=angle, flip_y=flip_y, cy=cy, cx=cx)


def fit_plane(values: Component, valid: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Offset, change per y step and change per x step of the plane closest to the valid values."""
    y, x = np.nonzero(valid)
    if len(y) == 0:
        return np.zeros(3)
    points = np.stack([np.ones(len(y)), y, x], axis=1)
    solution: npt.NDArray[Any] = np.linalg.lstsq(points, values[valid], rcond=None)[0]
    return solution


def plane(coefficients: npt.NDArray[Any], shape: tuple[int, ...]) -> Component:
    """The plane that `fit_plane` describes."""
    y, x = np.indices(shape, sparse=True)
    result: Component = coefficients[0] + coefficients[1] * y + coefficients[2] * x
    return result
