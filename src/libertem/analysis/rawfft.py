"""Pick one frame and show its Fourier transform."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from libertem.analysis.base import need_dims
from libertem.analysis.fourier import cover_parameters, magnitude_of_fft
from libertem.analysis.raw import PickFrameAnalysis

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["PickFFTFrameAnalysis"]


class PickFFTFrameAnalysis(PickFrameAnalysis):
    """Magnitude of the Fourier transform of one frame, with the frequency 0 in the middle; float64.

    Parameters
    ----------
    dataset : DataSet
        With two signal dimensions.
    parameters : dict
        ``x``, ``y``, ``z`` as for `PickFrameAnalysis`. ``real_rad``, ``real_centerx``, ``real_centery``: disk
        that is set to 0 before.
    """

    def get_parameters(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Position, and the disk."""
        need_dims(self.dataset, sig=2)
        return {**super().get_parameters(parameters), **cover_parameters(parameters)}

    def _present(self, frame: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return magnitude_of_fft(frame, self.parameters)
