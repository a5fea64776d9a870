"""Sum all frames and show the Fourier transform of the sum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from libertem.analysis.base import AnalysisResultSet, need_dims
from libertem.analysis.fourier import cover_parameters, magnitude_of_fft
from libertem.analysis.sum import SumAnalysis
from libertem.analysis.views import map_result

if TYPE_CHECKING:
    from libertem.udf.results import UDFResultDict

__all__ = ["SumfftAnalysis"]


class SumfftAnalysis(SumAnalysis):
    """Magnitude of the Fourier transform of the sum of all frames: ``intensity``, float64.

    Parameters
    ----------
    dataset : DataSet
        With two signal dimensions.
    parameters : dict
        ``real_rad``, ``real_centerx``, ``real_centery``: disk that is set to 0 before.
    """

    def get_parameters(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The disk."""
        need_dims(self.dataset, sig=2)
        return cover_parameters(parameters)

    def get_udf_results(self, udf_results: UDFResultDict, roi: Any, damage: Any) -> AnalysisResultSet:  # type: ignore[override]  # another kind of result
        """One image, on a logarithmic scale."""
        data = magnitude_of_fft(udf_results["intensity"].data, self.parameters)
        desc = "fft of sum of all frames"
        return AnalysisResultSet([map_result(data, "intensity", "intensity", desc, logarithmic=True)])
