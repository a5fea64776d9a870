"""Sum of all frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.analysis.base import AnalysisResultSet, BaseAnalysis
from libertem.analysis.views import log_view, views
from libertem.udf.sum import SumUDF

if TYPE_CHECKING:
    from libertem.udf.results import UDFResultDict

__all__ = ["SumAnalysis", "SumResultSet"]


class SumResultSet(AnalysisResultSet):
    """Sum of all frames, of signal shape.

    ``intensity``, shown on a logarithmic scale, and ``intensity_lin``: the same numbers. For complex data
    these are the magnitude, and there are ``intensity_real``, ``intensity_imag``, ``intensity_angle`` and
    ``intensity_complex``.
    """


class SumAnalysis(BaseAnalysis):
    """Sum all frames.

    In float32, or in the dtype of the data set where that is float or complex.
    """

    def get_udf(self) -> SumUDF:
        """Add up."""
        dtype = np.dtype(self.dataset.dtype)
        return SumUDF(dtype=dtype if dtype.kind in "fc" else np.dtype(np.float32))

    def get_udf_results(self, udf_results: UDFResultDict, roi: Any, damage: Any) -> SumResultSet:
        """Linear and logarithmic view, or those of complex numbers."""
        data = udf_results["intensity"].data
        desc = "sum of all frames" if data.dtype.kind == "c" else "sum of frames"
        return SumResultSet(views(data, desc, True, default=log_view))
