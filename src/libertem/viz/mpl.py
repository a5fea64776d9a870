"""Live plots with matplotlib."""

from __future__ import annotations

import warnings
from importlib import import_module
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

_WITHOUT_SCREEN = ("agg", "cairo", "pdf", "pgf", "ps", "svg", "template")


class MPLLive2DPlot(Live2DPlot):
    """A live plot with matplotlib, in a window or in a notebook.

    With the ``inline`` backend, the default of notebooks, the picture in the cell is replaced; backends such
    as ``widget`` show a figure that can be zoomed.

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
        self._in_cell: Any = None
        self._imshow_options = kwargs

    def display(self) -> None:
        """Open a figure."""
        import matplotlib as mpl

        # Asking settles on a backend, if that has not been done before.
        backend = mpl.get_backend().lower()
        if "inline" in backend:
            self._display_in_cell()
            return
        import matplotlib.pyplot as plt

        self.fig, self.axes = plt.subplots()
        self._draw_first()
        if backend not in _WITHOUT_SCREEN:
            plt.show(block=False)

    def _display_in_cell(self) -> None:
        """Show a picture that can be replaced. This backend would show it once, at the end of the cell."""
        from libertem.viz.figures import PlainFigure

        self.fig = PlainFigure(5.6, 4.6)
        self.axes = self.fig.subplots()
        self._draw_first()
        # By name, so that type checks pass without it.
        self._in_cell = import_module("IPython.display").display(self.fig, display_id=True)

    def _draw_first(self) -> None:
        self.im_obj = self.axes.imshow(real_values(self.data), **self._imshow_options)
        self.axes.set_title(self.title)

    def update(self, damage: npt.NDArray[np.bool_], force: bool = False) -> None:
        """Draw."""
        if self.im_obj is None:
            warnings.warn(
                "Plot is not displayed, not plotting. Call display() to display the plot.", stacklevel=3
            )
            return
        data = real_values(self.data)
        # As matplotlib sees it: a last axis of one element is no colour.
        values = data[..., 0] if data.ndim == 3 and data.shape[-1] == 1 else data
        if values.ndim == 2:
            self.im_obj.set_clim(*robust_limits(np.ma.getdata(values), damage))
        self.im_obj.set_data(data)
        if self._in_cell is not None:
            self._in_cell.update(self.fig)
            return
        if force:
            self.fig.canvas.draw()
        else:
            self.fig.canvas.draw_idle()
        self.fig.canvas.flush_events()
