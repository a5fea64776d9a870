"""Pick one frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.analysis.base import AnalysisResultSet, BaseAnalysis
from libertem.analysis.views import log_view, views
from libertem.udf.raw import PickUDF

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.udf.results import UDFResultDict

__all__ = ["PickFrameAnalysis", "PickResultSet"]

AXES = "xyz"
"""Names of coordinates, the last axis of the scan first."""


class PickResultSet(AnalysisResultSet):
    """One frame, with the views of `libertem.analysis.sum.SumResultSet`."""


class PickFrameAnalysis(BaseAnalysis):
    """Load one frame, in the dtype of the data set.

    Parameters
    ----------
    dataset : DataSet
        With one to three navigation dimensions.
    parameters : dict
        ``x``, ``y``, ``z``: the scan position, as many coordinates as there are dimensions.
    """

    def get_parameters(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Those that were given."""
        return {axis: int(parameters[axis]) for axis in AXES if parameters.get(axis) is not None}

    def get_roi(self) -> npt.NDArray[np.bool_]:
        """The scan position.

        Raises
        ------
        ValueError
            If it has too few or too many coordinates, or lies outside of the scan.
        """
        position = self._position()
        nav_shape = self.dataset.shape.nav.to_tuple()
        if any(not 0 <= i < size for i, size in zip(position, nav_shape, strict=True)):
            raise ValueError(f"the scan position {position} is outside of the scan {nav_shape}")
        roi = np.zeros(nav_shape, dtype=bool)
        roi[position] = True
        return roi

    def _position(self) -> tuple[int, ...]:
        n_dims = self.dataset.shape.nav.dims
        if n_dims > len(AXES):
            raise ValueError(
                f"can only pick from one, two or three navigation dimensions, found {n_dims} "
                "(use PickUDF with a ROI)"
            )
        if any((axis in self.parameters) != (i < n_dims) for i, axis in enumerate(AXES)):
            needed = ", ".join(axis if i < n_dims else f"not {axis}" for i, axis in enumerate(AXES[:-1]))
            last = "z" if n_dims == len(AXES) else "not z"
            received = ", ".join(f"{axis}={self.parameters.get(axis)}" for axis in reversed(AXES))
            raise ValueError(f"Need {needed} and {last} to index {n_dims}D dataset, received {received}")
        return tuple(self.parameters[axis] for axis in reversed(AXES[:n_dims]))

    def get_udf(self) -> PickUDF:
        """Load."""
        return PickUDF()

    def get_udf_results(self, udf_results: UDFResultDict, roi: Any, damage: Any) -> PickResultSet:
        """Linear and logarithmic view, or those of complex numbers."""
        where = " ".join(f"{axis}={self.parameters[axis]}" for axis in AXES if axis in self.parameters)
        frame = self._present(_first_frame(udf_results))
        return PickResultSet(views(frame, f"the frame at {where}", True, default=log_view))

    def _present(self, frame: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What to show of the frame."""
        return frame


def _first_frame(udf_results: UDFResultDict) -> npt.NDArray[Any]:
    frames = udf_results["intensity"].data
    if not len(frames):
        raise ValueError("the ROI selects no frame to pick")
    frame: npt.NDArray[Any] = frames[0]
    return frame
