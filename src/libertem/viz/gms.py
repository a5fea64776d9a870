"""Live plots in Digital Micrograph (GMS)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.viz.base import Live2DPlot

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.dataset.base.dataset import DataSet
    from libertem.udf.contract import UDF
    from libertem.udf.results import UDFResults

__all__ = ["GMSLive2DPlot"]


class GMSLive2DPlot(Live2DPlot):
    """A live plot in Digital Micrograph. Works only in the Python that is part of it.

    Parameters
    ----------
    dataset, udf, roi, channel, title, min_delta, udfresult
        See `libertem.viz.base.Live2DPlot`.
    """

    def __init__(
        self,
        dataset: DataSet,
        udf: UDF,
        roi: Any = None,
        channel: Any = None,
        title: str | None = None,
        min_delta: float = 0.2,
        udfresult: UDFResults | None = None,
    ) -> None:
        # Exists only there.
        digital_micrograph = import_module("DigitalMicrograph")
        super().__init__(dataset, udf, roi, channel, title, min_delta, udfresult)
        # It takes arrays over: they have to be its own.
        self._image = digital_micrograph.CreateImage(_numbers(self.data).copy())
        self._image.SetName(self.title)

    def display(self) -> None:
        """Open a window."""
        self._image.ShowImage()

    def update(self, damage: npt.NDArray[np.bool_], force: bool = False) -> None:
        """Copy the data into the image."""
        self._image.GetNumArray()[:] = _numbers(self.data)
        self._image.UpdateImage()


def _numbers(data: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Numbers without mask; what is not there yet is 0."""
    return np.asarray(np.nan_to_num(np.ma.getdata(data)))
