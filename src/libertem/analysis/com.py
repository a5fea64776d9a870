"""Centre of mass: the field that deflects the beam."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.analysis.base import AnalysisResult, AnalysisResultSet, BaseAnalysis, need_dims
from libertem.analysis.masks import given
from libertem.analysis.views import map_result
from libertem.udf.accumulate import exact_dtype
from libertem.udf.com import CoMParams, CoMUDF
from libertem.udf.com_math import (
    GuessResult,
    apply_correction,
    center_shifts,
    com_masks_factory,
    com_masks_generic,
    coordinate_check,
    curl_2d,
    divergence,
    guess_corrections,
    magnitude,
)
from libertem.viz.images import rgb_from_2dvector

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.udf.results import UDFResultDict

__all__ = [
    "COMAnalysis",
    "COMResultSet",
    "GuessResult",
    "apply_correction",
    "center_shifts",
    "com_masks_factory",
    "com_masks_generic",
    "coordinate_check",
    "curl_2d",
    "divergence",
    "guess_corrections",
    "magnitude",
]

SIGNED_MAP = "RdBu"
"""Colour map for numbers with a sign."""


class COMResultSet(AnalysisResultSet):
    """Shift of the centre of mass at each scan position, and what follows from it.

    Of real data: ``field``, whose raw data is a tuple (x, y); ``magnitude``, ``divergence`` and ``curl`` of
    it; ``x`` and ``y``. There is neither divergence nor curl if the scan is only one position wide.

    Of complex data: ``x_real``, ``y_real``, ``x_imag``, ``y_imag``.
    """


class ShiftsUDF(CoMUDF):
    """`CoMUDF` for an analysis: full precision, and any size of scan."""

    def get_field_results(self, field_y: npt.NDArray[Any], field_x: npt.NDArray[Any]) -> dict[str, Any]:
        """Where there are no gradients, NaN."""
        if min(field_y.shape) >= 2:
            return super().get_field_results(field_y, field_x)
        unknown = np.full(field_y.shape, np.nan, dtype=field_y.dtype)
        return {"magnitude": magnitude(field_y, field_x), "divergence": unknown, "curl": unknown}

    def _fold(self, full: Any) -> Any:
        # In the precision of the sums instead of the documented dtype of the UDF.
        if not isinstance(full, np.ndarray):
            return full
        return full[self._selection()].astype(exact_dtype(self._result_dtype()))


class COMAnalysis(BaseAnalysis):
    """Centre of mass of each frame, relative to a reference position.

    Parameters
    ----------
    dataset : DataSet
        With two navigation and two signal dimensions.
    parameters : dict
        ``cx``, ``cy``: reference position, by default the centre of the frame. ``r``, ``ri``: radii of the
        ring around it in which pixels count; by default all. ``scan_rotation``, in degrees, and ``flip_y``:
        corrections, see `libertem.udf.com.CoMParams`.
    """

    def get_parameters(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """With defaults."""
        need_dims(self.dataset, nav=2, sig=2)
        height, width = self.dataset.shape.sig
        outer, inner = given(parameters, "r", math.inf), given(parameters, "ri", 0.0)
        if inner and inner >= outer:
            raise ValueError(f"the inner radius {inner} has to be less than the outer radius {outer}")
        return {
            "cx": given(parameters, "cx", width / 2),
            "cy": given(parameters, "cy", height / 2),
            "r": outer,
            "ri": inner,
            "scan_rotation": given(parameters, "scan_rotation", 0.0),
            "flip_y": bool(parameters.get("flip_y")),
        }

    def get_udf(self) -> CoMUDF:
        """Centre of mass."""
        return ShiftsUDF(CoMParams(**self.parameters_of_udf()))

    def parameters_of_udf(self) -> dict[str, Any]:
        """Without the ROI."""
        return {name: value for name, value in self.parameters.items() if name != "roi"}

    def get_udf_results(self, udf_results: UDFResultDict, roi: Any, damage: Any) -> COMResultSet:
        """The field and what follows from it."""
        y, x = udf_results["field_y"].data, udf_results["field_x"].data
        if y.dtype.kind == "c":
            return COMResultSet(_complex_components(y, x, damage))
        field = AnalysisResult(
            raw_data=(x, y),
            visualized=lambda: rgb_from_2dvector(y=y, x=x),
            key="field",
            title="field",
            desc="direction as hue, length as saturation",
            include_in_download=False,
        )
        found = [
            field,
            map_result(
                udf_results["magnitude"].data,
                "magnitude",
                "magnitude",
                "magnitude of the vector field",
                damage,
            ),
        ]
        if min(y.shape) >= 2:
            for name, desc in (("divergence", "vector field"), ("curl", "2D vector field")):
                data = udf_results[name].data
                found.append(
                    map_result(data, name, name, f"{name} of the {desc}", damage, colormap=SIGNED_MAP)
                )
        return COMResultSet([*found, _component("x", "x", x, damage), _component("y", "y", y, damage)])


def _component(axis: str, title: str, data: npt.NDArray[Any], damage: Any) -> AnalysisResult:
    key = title.replace(" [", "_").rstrip("]")
    return map_result(data, key, title, f"{axis} component of the center", damage, colormap=SIGNED_MAP)


def _complex_components(y: npt.NDArray[Any], x: npt.NDArray[Any], damage: Any) -> list[AnalysisResult]:
    return [
        _component("x", "x [real]", x.real, damage),
        _component("y", "y [real]", y.real, damage),
        _component("x", "x [imag]", x.imag, damage),
        _component("y", "y [imag]", y.imag, damage),
    ]
