"""Synthetic frames for tests and examples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.math import prod
from libertem.utils.geometry import frame_peaks

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["cbed_frame", "exclude_pixels", "gradient_data", "hologram_frame"]


def cbed_frame(
    fy: int = 128,
    fx: int = 128,
    zero: npt.ArrayLike | None = None,
    a: npt.ArrayLike | None = None,
    b: npt.ArrayLike | None = None,
    indices: npt.ArrayLike | None = None,
    radius: float = 4,
    all_equal: bool = False,
    margin: float | None = None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any], npt.NDArray[Any]]:
    """A frame with disks at the nodes of a lattice, as in convergent-beam electron diffraction.

    Parameters
    ----------
    fy, fx : int, optional
        Size of the frame.
    zero, a, b : array-like, optional
        Origin and basis of the lattice, (y, x) each; by default the centre and an eighth of the frame.
    indices : array-like, optional
        Lattice indices to draw, see `libertem.utils.regularize_indices`; from -10 to 10 by default.
    radius : float, optional
        Radius of the disks.
    all_equal : bool, optional
        Give all disks the height 1, instead of a height that falls with the distance from `zero` and
        differs from disk to disk.
    margin : float, optional
        Distance of the nodes from the border, `radius` by default.

    Returns
    -------
    data : numpy.ndarray
        float32, shape ``(1, fy, fx)``.
    indices, peaks : numpy.ndarray
        Lattice indices and (y, x) of the disks, shape ``(n, 2)`` each.
    """
    zero = np.array((fy // 2, fx // 2)) if zero is None else np.asarray(zero)
    a = (fy // 8, 0) if a is None else a
    b = (0, fx // 8) if b is None else b
    candidates = np.mgrid[-10:11, -10:11] if indices is None else indices
    margin = radius if margin is None else margin
    found, peaks = frame_peaks(fy, fx, zero, a, b, margin, candidates)
    y, x = np.ogrid[:fy, :fx]
    data = np.zeros((1, fy, fx), dtype=np.float32)
    for number, (peak_y, peak_x) in enumerate(peaks):
        # Soft within one pixel of the rim, so that the centre can be found to a fraction of a pixel.
        disk = np.clip(radius + 0.5 - np.hypot(y - peak_y, x - peak_x), 0, 1)
        distance = math.hypot(peak_y - zero[0], peak_x - zero[1])
        height = 1.0 if all_equal else (1 + number) * math.exp(-2 * distance / max(fy, fx))
        data[0] += height * disk
    return data, found, peaks


def hologram_frame(
    amp: npt.NDArray[Any],
    phi: npt.NDArray[Any],
    counts: float = 1000.0,
    sampling: float = 5.0,
    visibility: float = 1.0,
    f_angle: float = 30.0,
    gaussian_noise: float | None = None,
    poisson_noise: float | None = None,
) -> npt.NDArray[np.float64]:
    """An off-axis electron hologram of a wave.

    Parameters
    ----------
    amp, phi : numpy.ndarray
        Amplitude and phase (radian) of the wave, both of the shape of the frame.
    counts : float, optional
        Mean intensity for an amplitude of 1.
    sampling : float, optional
        Distance of the fringes in pixels.
    visibility : float, optional
        Contrast of the fringes, from 0 to 1.
    f_angle : float, optional
        Direction in which the fringes follow each other, in degrees from y towards x.
    gaussian_noise : float, optional
        Blur the frame with a Gaussian of this standard deviation, in pixels.
    poisson_noise : float, optional
        Strength of counting noise: 1 replaces each value by a Poisson variable with that mean; other
        values scale its deviation.

    Returns
    -------
    numpy.ndarray
        float64.
    """
    if amp.shape != phi.shape:
        raise ValueError(f"amp and phi have to share one shape, found {amp.shape} and {phi.shape}")
    y, x = np.indices(amp.shape)
    angle = math.radians(f_angle)
    fringes = 2 * math.pi / sampling * (y * math.cos(angle) + x * math.sin(angle)) - phi
    frame = counts / 2 * (1 + amp**2 + 2 * visibility * amp * np.cos(fringes))
    if poisson_noise:
        noise = np.random.default_rng().poisson(np.maximum(frame, 0)) - frame
        frame = frame + poisson_noise * noise
    if gaussian_noise:
        from scipy.ndimage import gaussian_filter

        frame = gaussian_filter(frame, gaussian_noise)
    return np.asarray(frame, dtype=np.float64)


def gradient_data(nav_dims: Sequence[int], sig_dims: Sequence[int]) -> npt.NDArray[np.float32]:
    """Values rising from 5 to 30 over all pixels of a data set of the given shapes; float32."""
    shape = (*nav_dims, *sig_dims)
    return np.linspace(5, 30, num=prod(shape), dtype=np.float32).reshape(shape)


def exclude_pixels(
    sig_dims: Sequence[int], num_excluded: int | None, rng: np.random.Generator | None = None
) -> npt.NDArray[np.int64] | None:
    """Coordinates of random pixels, no two of which touch: each can be repaired from its neighbours.

    Parameters
    ----------
    sig_dims : sequence of int
        Shape of the signal.
    num_excluded : int or None
        How many.
    rng : numpy.random.Generator, optional
        Source of randomness.

    Returns
    -------
    numpy.ndarray or None
        Shape ``(len(sig_dims), num_excluded)``; None if there are none.

    Raises
    ------
    ValueError
        If no room was found for so many.
    """
    if not num_excluded:
        return None
    rng = np.random.default_rng() if rng is None else rng
    shape = tuple(sig_dims)
    chosen: list[npt.NDArray[Any]] = []
    for flat in rng.permutation(prod(shape)):
        position = np.array(np.unravel_index(flat, shape))
        if all(np.max(np.abs(position - other)) > 1 for other in chosen):
            chosen.append(position)
            if len(chosen) == num_excluded:
                return np.stack(chosen, axis=1).astype(np.int64)
    raise ValueError(f"{shape} has no room for {num_excluded} pixels that do not touch")
