"""Standard deviation over all frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from libertem.analysis.base import AnalysisResultSet, BaseAnalysis
from libertem.analysis.views import log_view, views
from libertem.udf.stddev import StdDevUDF

if TYPE_CHECKING:
    from libertem.udf.results import UDFResultDict

__all__ = ["SDAnalysis", "SDResultSet"]


class SDResultSet(AnalysisResultSet):
    """Standard deviation of each pixel: ``intensity``, shown logarithmically, and ``intensity_lin``."""


class SDAnalysis(BaseAnalysis):
    """Standard deviation of each pixel over all frames, in float64."""

    def get_udf(self) -> StdDevUDF:
        """Mean, variance and standard deviation."""
        return StdDevUDF()

    def get_udf_results(self, udf_results: UDFResultDict, roi: Any, damage: Any) -> SDResultSet:
        """Linear and logarithmic view."""
        return SDResultSet(
            views(udf_results["std"].data, "Standard deviation of frames", True, default=log_view)
        )
