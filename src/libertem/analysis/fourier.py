"""Fourier transforms of frames, with a part of the frame covered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.masks import circular

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["cover_parameters", "magnitude_of_fft"]


def cover_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """``real_rad``, ``real_centerx``, ``real_centery``: None unless given."""
    return {name: parameters.get(name) for name in ("real_rad", "real_centerx", "real_centery")}


def magnitude_of_fft(frame: npt.NDArray[Any], parameters: Mapping[str, Any]) -> npt.NDArray[Any]:
    """Magnitude of the Fourier transform, with the frequency 0 in the middle.

    Parameters
    ----------
    frame : array
        Of two dimensions.
    parameters : dict
        With ``real_rad``, ``real_centerx`` and ``real_centery``: a disk that is set to 0 before, to cover the
        direct beam. Nothing is covered if one of them is None.
    """
    values = [parameters[name] for name in ("real_centerx", "real_centery", "real_rad")]
    if all(value is not None for value in values):
        center_x, center_y, radius = values
        height, width = frame.shape
        frame = np.where(circular(center_x, center_y, width, height, radius), 0, frame)
    # Numbers of any kind as float64 or complex128.
    return np.abs(np.fft.fftshift(np.fft.fft2(frame.astype(np.result_type(frame.dtype, np.float64)))))
