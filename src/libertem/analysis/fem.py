"""Fluctuation electron microscopy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from libertem.analysis.base import AnalysisResultSet, BaseAnalysis, need_dims
from libertem.analysis.masks import given
from libertem.analysis.views import map_result
from libertem.udf.FEM import FEMUDF

if TYPE_CHECKING:
    from libertem.udf.results import UDFResultDict

__all__ = ["FEMAnalysis"]


class FEMAnalysis(BaseAnalysis):
    """Standard deviation of the pixels of a ring, for each frame: ``intensity``.

    Parameters
    ----------
    dataset : DataSet
        With two signal dimensions.
    parameters : dict
        ``ri``, ``ro``: radii. ``cx``, ``cy``: centre, by default that of the frame.
    """

    def get_parameters(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """With defaults."""
        need_dims(self.dataset, sig=2)
        height, width = self.dataset.shape.sig
        return {
            "cx": given(parameters, "cx", width / 2),
            "cy": given(parameters, "cy", height / 2),
            "ri": parameters["ri"],
            "ro": parameters["ro"],
        }

    def get_udf(self) -> FEMUDF:
        """Standard deviation over the ring."""
        p = self.parameters
        return FEMUDF(center=(p["cy"], p["cx"]), rad_in=p["ri"], rad_out=p["ro"])

    def get_udf_results(self, udf_results: UDFResultDict, roi: Any, damage: Any) -> AnalysisResultSet:
        """One map."""
        data, desc = udf_results["intensity"].data, "result from SD calculation over ring"
        return AnalysisResultSet([map_result(data, "intensity", "intensity", desc, damage)])
