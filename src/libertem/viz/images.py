"""Arrays to 8 bit images: scalars through a colour map, vectors on a colour wheel, PNG files."""

from __future__ import annotations

from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

__all__ = [
    "encode_image",
    "make_cyclic_map",
    "real_values",
    "rgb_from_2dvector",
    "robust_limits",
    "visualize_simple",
]

DEFAULT_COLORMAP = "gist_earth"

QUANTILE = 1e-3
"""This part of the data, at either end, may be outliers."""

OUTLIER_FACTOR = 10
"""An extreme value is an outlier if it is that many times further away than the quantile."""

# CIE 1976 L*u*v* of the colour wheel. The lightness is that of mid-grey; the chroma fits into sRGB.
WHEEL_LIGHTNESS = 53.6
WHEEL_CHROMA = 60.0

# CIE XYZ of the D65 white point, its u' and v', and the matrix to linear sRGB (IEC 61966-2-1).
WHITE_U, WHITE_V = 0.19784, 0.46834
XYZ_TO_RGB = np.array(
    [[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]],
)


def real_values(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """What can be drawn: the modulus of complex numbers, all others as they are."""
    return np.abs(values) if np.iscomplexobj(values) else values


def robust_limits(data: npt.NDArray[Any], valid: npt.NDArray[np.bool_] | bool = True) -> tuple[float, float]:
    """Lowest and highest value to show, without extreme outliers.

    Parameters
    ----------
    data : array
        Real numbers; what is not finite is left out.
    valid : array of bool, optional
        Which of them to consider.

    Returns
    -------
    tuple of float
        Never equal. For no data at all: 1 and the next number.
    """
    values = np.asarray(data)[np.broadcast_to(valid, np.shape(data)) & np.isfinite(data)].astype(np.float64)
    if not values.size:
        return 1.0, float(np.nextafter(1.0, 2.0))
    used = values[values != 0]
    lowest = highest = 0.0
    if used.size:
        # Values that occur: between data and an outlier lies nothing.
        lowest = float(np.quantile(used, QUANTILE, method="higher"))
        highest = float(np.quantile(used, 1 - QUANTILE, method="lower"))
    if used.size < values.size:
        lowest, highest = min(lowest, 0.0), max(highest, 0.0)
    span = highest - lowest
    least, most = float(values.min()), float(values.max())
    low = lowest if lowest - least > OUTLIER_FACTOR * span > 0 else least
    high = highest if most - highest > OUTLIER_FACTOR * span > 0 else most
    if low == high:
        low, high = float(np.nextafter(low, -np.inf)), float(np.nextafter(high, np.inf))
    return float(low), float(high)


def visualize_simple(
    result: npt.NDArray[Any],
    colormap: Any = None,
    logarithmic: bool = False,
    vmin: float | None = None,
    vmax: float | None = None,
    damage: npt.NDArray[np.bool_] | bool | None = None,
) -> npt.NDArray[np.uint8]:
    """Show numbers as colours.

    Parameters
    ----------
    result : array
        Real numbers, any shape.
    colormap : str or matplotlib colour map, optional
        ``gist_earth`` by default.
    logarithmic : bool, optional
        Show the logarithm of ``result - result.min() + 1``.
    vmin, vmax : float, optional
        First and last value of the map; by default found in the valid data, without extreme outliers.
    damage : array of bool or bool, optional
        Which elements are valid.

    Returns
    -------
    numpy.ndarray
        RGBA, uint8, ``(*result.shape, 4)``. Transparent where `result` is not finite.
    """
    from matplotlib import colormaps

    values = np.asarray(result).astype(np.float64)
    finite = np.isfinite(values)
    valid = np.broadcast_to(True if damage is None else damage, values.shape) & finite
    if logarithmic:
        lowest = values[valid].min() if valid.any() else 0.0
        # What is not valid may lie below the lowest valid value.
        values = np.log(np.maximum(values - lowest + 1, 1))
    low, high = robust_limits(values, valid)
    low, high = low if vmin is None else vmin, high if vmax is None else vmax
    if colormap is None or isinstance(colormap, str):
        colormap = colormaps[DEFAULT_COLORMAP if colormap is None else colormap]
    shown = np.ma.array((np.clip(values, low, high) - low) / (high - low), mask=~finite)
    return np.asarray(colormap(shown, bytes=True), dtype=np.uint8)


def rgb_from_2dvector(
    y: npt.NDArray[Any], x: npt.NDArray[Any], vmax: float | None = None
) -> npt.NDArray[np.uint8]:
    """Show vectors as colours: the direction is the hue, the length the saturation.

    All colours have the same lightness, so that no direction stands out.

    Parameters
    ----------
    y, x : array
        Components, of the same shape.
    vmax : float, optional
        Length that gets the full saturation; by default that of the longest vector.

    Returns
    -------
    numpy.ndarray
        RGB, uint8, ``(*shape, 3)``. Grey for no vector; black where it is not finite.
    """
    y, x = np.asarray(y, dtype=np.float64), np.asarray(x, dtype=np.float64)
    length = np.hypot(y, x)
    valid = np.isfinite(length)
    if vmax is None:
        vmax = float(length[valid].max(initial=0.0))
    scale = WHEEL_CHROMA / vmax if vmax > 0 else 0.0
    shorten = np.ones_like(length)
    np.divide(vmax, length, out=shorten, where=valid & (length > vmax))
    with np.errstate(invalid="ignore"):
        rgb = _luv_to_rgb(WHEEL_LIGHTNESS, x * scale * shorten, y * scale * shorten)
    rgb[~valid] = 0
    return np.asarray(np.rint(rgb * 255), dtype=np.uint8)


def _luv_to_rgb(
    lightness: float, u: npt.NDArray[np.float64], v: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """sRGB, 0 to 1, of a CIE L*u*v* colour with a lightness above 8 (D65)."""
    u_prime, v_prime = u / (13 * lightness) + WHITE_U, v / (13 * lightness) + WHITE_V
    big_y = ((lightness + 16) / 116) ** 3
    big_x = big_y * 9 * u_prime / (4 * v_prime)
    big_z = big_y * (12 - 3 * u_prime - 20 * v_prime) / (4 * v_prime)
    linear = np.clip(np.stack([big_x, np.full_like(u, big_y), big_z], axis=-1) @ XYZ_TO_RGB.T, 0, 1)
    return np.asarray(np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055))


def encode_image(result: npt.NDArray[np.uint8], save_kwargs: Mapping[str, Any] | None = None) -> BytesIO:
    """Write an image, RGB or RGBA, to a file in memory.

    Parameters
    ----------
    result : array of uint8
        ``(height, width, 3 or 4)``.
    save_kwargs : dict, optional
        For `PIL.Image.Image.save`; ``{"format": "png"}`` by default.

    Returns
    -------
    io.BytesIO
        At its beginning.
    """
    from PIL import Image

    options = {"format": "png"} if save_kwargs is None else dict(save_kwargs)
    image = Image.fromarray(np.ascontiguousarray(result))
    if str(options.get("format", "")).lower() in ("jpg", "jpeg"):
        # It has no transparency.
        image = image.convert("RGB")
        options["format"] = "jpeg"
    file = BytesIO()
    image.save(file, **options)
    file.seek(0)
    return file


@cache
def make_cyclic_map() -> Any:
    """The colours of `rgb_from_2dvector` for angles, as colour map of matplotlib."""
    from matplotlib.colors import ListedColormap

    angles = np.linspace(-np.pi, np.pi, 256, endpoint=False)
    return ListedColormap(rgb_from_2dvector(np.sin(angles), np.cos(angles)) / 255.0, name="libertem_cyclic")
