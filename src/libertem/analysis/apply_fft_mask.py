"""Crystallinity: intensity of a ring in the Fourier transform of each frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from libertem.analysis.base import AnalysisResultSet, BaseAnalysis, need_dims
from libertem.analysis.fourier import cover_parameters
from libertem.analysis.views import map_result
from libertem.udf.crystallinity import CrystallinityUDF

if TYPE_CHECKING:
    from libertem.udf.results import UDFResultDict

__all__ = ["ApplyFFTMask"]


class ApplyFFTMask(BaseAnalysis):
    """Sum over a ring of the magnitude of the Fourier transform, for each frame: ``intensity``.

    Parameters
    ----------
    dataset : DataSet
        With two signal dimensions.
    parameters : dict
        ``rad_in``, ``rad_out``: radii in the Fourier transform. ``real_rad``, ``real_centerx``,
        ``real_centery``: disk of the frame that is set to 0 before, by default none.
    """

    def get_parameters(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """With defaults."""
        need_dims(self.dataset, sig=2)
        radii = {name: parameters[name] for name in ("rad_in", "rad_out")}
        return {**radii, **cover_parameters(parameters)}

    def get_udf(self) -> CrystallinityUDF:
        """Transform and add up."""
        p = self.parameters
        center = (p["real_centery"], p["real_centerx"])
        return CrystallinityUDF(
            rad_in=p["rad_in"],
            rad_out=p["rad_out"],
            real_center=None if None in center else center,
            real_rad=p["real_rad"],
        )

    def get_udf_results(self, udf_results: UDFResultDict, roi: Any, damage: Any) -> AnalysisResultSet:
        """One map."""
        data, desc = udf_results["intensity"].data, "result from integration over mask in Fourier space"
        return AnalysisResultSet([map_result(data, "intensity", "intensity", desc, damage)])
