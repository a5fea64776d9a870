"""Virtual detectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from libertem.analysis.base import AnalysisResult, AnalysisResultSet, BaseAnalysis, need_dims
from libertem.analysis.views import complex_views, lin_view, map_result, views
from libertem.udf.masks import ApplyMasksUDF

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.udf.results import UDFResultDict

__all__ = ["MasksAnalysis", "MasksResultSet", "SingleMaskAnalysis", "SingleMaskResultSet"]


class MasksResultSet(AnalysisResultSet):
    """One result of navigation shape for each mask: ``mask_0``, ``mask_1``, and so on.

    For complex numbers these are the magnitude, and there are ``mask_0_log``, ``mask_0_real``,
    ``mask_0_imag``, ``mask_0_angle``, ``mask_0_complex``.
    """


class SingleMaskResultSet(AnalysisResultSet):
    """Sum under the mask: ``intensity``, and ``intensity_log``, the same on a logarithmic scale.

    For complex numbers these are the magnitude, and there are ``intensity_real``, ``intensity_imag``,
    ``intensity_angle`` and ``intensity_complex``.
    """


class MasksAnalysis(BaseAnalysis):
    """Sum of each frame under masks.

    Parameters
    ----------
    dataset : DataSet
        What to analyze.
    parameters : dict
        ``factories``: functions that return masks. Optional: ``use_sparse``, ``mask_count``, ``mask_dtype``,
        and ``dtype`` in which frames are read; see `libertem.udf.masks.ApplyMasksUDF`.
    """

    def get_parameters(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """As given."""
        names = ("use_sparse", "mask_count", "mask_dtype", "dtype")
        return {"factories": parameters["factories"], **{name: parameters.get(name) for name in names}}

    def get_udf(self) -> ApplyMasksUDF:
        """Apply the masks."""
        return ApplyMasksUDF(
            mask_factories=self.parameters["factories"],
            use_sparse=self.parameters["use_sparse"],
            mask_count=self.parameters["mask_count"],
            mask_dtype=self.parameters["mask_dtype"],
            preferred_dtype=self.parameters["dtype"],
        )

    def get_udf_results(self, udf_results: UDFResultDict, roi: Any, damage: Any) -> MasksResultSet:
        """One map per mask, or the views of complex numbers."""
        data = udf_results["intensity"].data
        found: list[AnalysisResult] = []
        for i in range(data.shape[-1]):
            key, title, desc = f"mask_{i}", f"mask {i}", f"integrated intensity for mask {i}"
            part = data[..., i]
            if part.dtype.kind == "c":
                found += complex_views(part, (key, f"{key}_log"), key, title, desc, damage)
            else:
                found.append(map_result(part, key, title, desc, damage))
        return MasksResultSet(found)


class SingleMaskAnalysis(BaseAnalysis):
    """Base of analyses with one mask, drawn from parameters. Needs two signal dimensions.

    The mask is float32, so that integers give float32 results.
    """

    what: ClassVar[str]
    """What the mask looks like, for descriptions."""

    def get_parameters(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the mask, and how it is applied."""
        need_dims(self.dataset, sig=2)
        return {
            **self.get_geometry(parameters),
            "use_sparse": parameters.get("use_sparse", False),
            "mask_count": 1,
            "mask_dtype": np.float32,
        }

    def get_geometry(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Position and size of the mask."""
        raise NotImplementedError

    def get_mask_factory(self) -> Callable[[], npt.NDArray[Any]]:
        """Function that draws the mask. Travels to workers."""
        raise NotImplementedError

    def get_udf(self) -> ApplyMasksUDF:
        """Apply the mask."""
        return ApplyMasksUDF(
            mask_factories=[self.get_mask_factory()],
            use_sparse=self.parameters["use_sparse"],
            mask_count=1,
            mask_dtype=np.float32,
        )

    def get_udf_results(self, udf_results: UDFResultDict, roi: Any, damage: Any) -> SingleMaskResultSet:
        """Linear and logarithmic view, or those of complex numbers."""
        desc = f"intensity of the integration over the selected {self.what}"
        return SingleMaskResultSet(
            views(udf_results["intensity"].data[..., 0], desc, damage, default=lin_view)
        )


def given(parameters: Mapping[str, Any], name: str, default: float) -> Any:
    """A parameter, or its default where it is missing or None."""
    value = parameters.get(name)
    return default if value is None else value
