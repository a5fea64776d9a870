"""Arrays as small grey pictures, in PNG: what representations in notebooks show.

Without a colour map or an image library, because a representation has to be quick and must not fail.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["encode_png", "grey_image", "shrink"]

OUTLIERS = 1e-3
"""This part of the values, at either end, is not counted for the limits: hot pixels, mostly."""

DECADES = 4
"""What a logarithmic picture shows below its brightest pixel."""

_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""Of PNG, by the number of channels: grey, with alpha, RGB, with alpha."""


def encode_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Content of a PNG file (ISO/IEC 15948).

    Parameters
    ----------
    pixels : array of uint8
        ``(height, width, n)`` with n = 1 for grey, 2 for grey with alpha, 3 for RGB, 4 for RGB with alpha.
    """
    height, width, n_channels = pixels.shape
    # Each row begins with the number of its filter: 0, none.
    rows = np.zeros((height, 1 + width * n_channels), dtype=np.uint8)
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[n_channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def shrink(values: npt.NDArray[Any], longest_px: int) -> npt.NDArray[np.float64]:
    """Means over squares, so that no side is longer than that.

    Parameters
    ----------
    values : array
        ``(height, width)``, real numbers. What is not finite is left out of the means.
    longest_px : int
        For the result.
    """
    values = np.asarray(values, dtype=np.float64)
    step = -(-max(values.shape) // longest_px)
    if step <= 1:
        return values
    finite = np.isfinite(values)
    total, count = np.where(finite, values, 0.0), finite.astype(np.float64)
    for axis in (0, 1):
        starts = np.arange(0, values.shape[axis], step)
        total, count = (np.add.reduceat(array, starts, axis=axis) for array in (total, count))
    means = np.full(total.shape, np.nan)
    np.divide(total, count, out=means, where=count > 0)
    return means


def grey_image(
    values: npt.NDArray[Any], valid: npt.NDArray[np.bool_] | bool = True, *, logarithmic: bool = False
) -> npt.NDArray[np.uint8]:
    """Grey levels from the lowest to the highest value, outliers left out.

    Parameters
    ----------
    values : array
        ``(height, width)``; the modulus of complex numbers is shown.
    valid : array of bool, optional
        What is not valid, or not finite, becomes transparent.
    logarithmic : bool, optional
        Show four decades.

    Returns
    -------
    numpy.ndarray
        ``(height, width, 2)``, uint8: grey and alpha.
    """
    values = np.asarray(np.abs(values) if np.iscomplexobj(values) else values, dtype=np.float64)
    shown = np.isfinite(values) & valid
    image = np.zeros((*values.shape, 2), dtype=np.uint8)
    if not shown.any():
        return image
    low = float(np.quantile(values[shown], OUTLIERS, method="lower"))
    high = float(np.quantile(values[shown], 1 - OUTLIERS, method="higher"))
    if low == high:
        # Mostly one value: what differs from it is all there is to see.
        low, high = float(values[shown].min()), float(values[shown].max())
    values = np.where(shown, values, low)
    if logarithmic and high > 0:
        floor = max(low, high / 10**DECADES)
        if floor < high:
            values = np.log(np.maximum(values, floor))
            low, high = float(np.log(floor)), float(np.log(high))
    # Differences of the largest numbers would not be finite.
    values, low, high = values / 4, low / 4, high / 4
    span = high - low
    scaled = np.clip((values - low) / span, 0, 1) if span > 0 else np.full(values.shape, 0.5)
    image[..., 0] = np.rint(scaled * 255)
    image[..., 1] = np.where(shown, 255, 0)
    return image
