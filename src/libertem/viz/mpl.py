"""Live plots with matplotlib."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.viz.base import Live2DPlot
from libertem.viz.images import real_values, robust_limits

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.dataset.base.dataset import DataSet
    from libertem.udf.contract import UDF
    from libertem.udf.results import UDFResults

__all__ = ["MPLLive2DPlot"]


class MPLLive2DPlot(Live2DPlot):
    """A live plot with matplotlib. In notebooks it needs an interactive backend, such as ``widget``.

    Parameters
    ----------
    dataset, udf, roi, channel, title, min_delta, udfresult
        See `libertem.viz.base.Live2DPlot`.
    **kwargs
        For `matplotlib.axes.Axes.imshow`.

    Attributes
    ----------
    fig, axes, im_obj
        Figure, axes and image of matplotlib; None until `display` is called.
    """

    def __init__(
        self,
        dataset: DataSet,
        udf: UDF,
        roi: Any = None,
        channel: Any = None,
        title: str | None = None,
        min_delta: float = 0.5,
        udfresult: UDFResults | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(dataset, udf, roi, channel, title, min_delta, udfresult)
        self.fig: Any = None
        self.axes: Any = None
        self.im_obj: Any = None
        self._imshow_options = kwargs

    def display(self) -> None:
        """Open a figure."""
        import matplotlib as mpl
        import matplotlib.pyplot as plt

        self.fig, self.axes = plt.subplots()
        self.im_obj = self.axes.imshow(real_values(self.data), **self._imshow_options)
        self.axes.set_title(self.title)
        if mpl.get_backend().lower() not in ("agg", "cairo", "pdf", "pgf", "ps", "svg", "template"):
            plt.show(block=False)

    def update(self, damage: npt.NDArray[np.bool_], force: bool = False) -> None:
        """Draw."""
        if self.im_obj is None:
            warnings.warn(
                "Plot is not displayed, not plotting. Call display() to display the plot.", stacklevel=3
            )
            return
        data = real_values(self.data)
        if data.ndim == 2:
            self.im_obj.set_clim(*robust_limits(np.ma.getdata(data), damage))
        self.im_obj.set_data(data)
        if force:
            self.fig.canvas.draw()
        else:
            self.fig.canvas.draw_idle()
        self.fig.canvas.flush_events()
