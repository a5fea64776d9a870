"""Live plots in notebooks with bqplot."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.viz.base import Live2DPlot
from libertem.viz.images import robust_limits

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.dataset.base.dataset import DataSet
    from libertem.udf.contract import UDF
    from libertem.udf.results import UDFResults

__all__ = ["BQLive2DPlot"]


class BQLive2DPlot(Live2DPlot):
    """A live plot with bqplot, which is faster in notebooks than matplotlib.

    Needs the packages ``bqplot`` and ``bqplot-image-gl``.

    Parameters
    ----------
    dataset, udf, roi, channel, title, min_delta, udfresult
        See `libertem.viz.base.Live2DPlot`.

    Attributes
    ----------
    figure, image
        Figure of bqplot, and the image in it.
    """

    def __init__(
        self,
        dataset: DataSet,
        udf: UDF,
        roi: Any = None,
        channel: Any = None,
        title: str | None = None,
        min_delta: float = 1 / 60,
        udfresult: UDFResults | None = None,
    ) -> None:
        # By name, so that type checks pass without them.
        bqplot, bqplot_image_gl = import_module("bqplot"), import_module("bqplot_image_gl")
        super().__init__(dataset, udf, roi, channel, title, min_delta, udfresult)
        data = _numbers(self.data)
        height, width = data.shape
        x = bqplot.LinearScale(min=0, max=width, allow_padding=False)
        # Rows are counted from the top.
        y = bqplot.LinearScale(min=0, max=height, reverse=True, allow_padding=False)
        low, high = robust_limits(data)
        self._colors = bqplot.ColorScale(scheme="Greys", reverse=True, min=low, max=high)
        self.image = bqplot_image_gl.ImageGL(
            image=data, x=(0, width), y=(0, height), scales={"x": x, "y": y, "image": self._colors}
        )
        axes = [
            bqplot.Axis(scale=x, label="x", grid_lines="none"),
            bqplot.Axis(scale=y, label="y", side="left", grid_lines="none"),
        ]
        self.figure = bqplot.Figure(
            marks=[self.image],
            axes=axes,
            title=self.title,
            min_aspect_ratio=width / height,
            max_aspect_ratio=width / height,
        )

    def display(self) -> Any:
        """Show the figure in the current cell."""
        return import_module("IPython.display").display(self.figure)

    def update(self, damage: npt.NDArray[np.bool_], force: bool = False) -> None:
        """Send the image."""
        data = _numbers(self.data)
        self._colors.min, self._colors.max = robust_limits(data, damage)
        self.image.image = data


def _numbers(data: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Real numbers that a browser can take."""
    plain = np.ma.getdata(data)
    return np.asarray(np.abs(plain) if np.iscomplexobj(plain) else plain, dtype=np.float32)
