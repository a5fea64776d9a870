"""Sum of the pixels of each frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from libertem.analysis.base import AnalysisResultSet, BaseAnalysis
from libertem.analysis.views import complex_views, map_result
from libertem.udf.sumsigudf import SumSigUDF

if TYPE_CHECKING:
    from libertem.udf.results import UDFResultDict

__all__ = ["SumSigAnalysis"]


class SumSigAnalysis(BaseAnalysis):
    """Sum the pixels of each frame; the result is called ``intensity`` and has navigation shape.

    For complex data that is the magnitude, with the views of `libertem.analysis.sum.SumResultSet` beside it.
    """

    def get_udf(self) -> SumSigUDF:
        """Add up."""
        return SumSigUDF()

    def get_udf_results(self, udf_results: UDFResultDict, roi: Any, damage: Any) -> AnalysisResultSet:
        """One map, or views of complex numbers."""
        data, desc = udf_results["intensity"].data, "result from frame integration"
        if data.dtype.kind == "c":
            keys = ("intensity", "intensity_log")
            return AnalysisResultSet(complex_views(data, keys, "intensity", "intensity", desc, damage))
        return AnalysisResultSet([map_result(data, "intensity", "intensity", desc, damage)])
