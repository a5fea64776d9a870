"""Draw maps, frames and vector fields into figures of matplotlib, with axes in the units of the file.

Everything is drawn into figures that pyplot does not know: they need no screen, are shown once in a notebook,
and are gone with the last reference to them.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.viz.images import robust_limits

try:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
except ImportError as err:
    raise ImportError(
        f"drawing needs matplotlib, which cannot be loaded: {err} (pip install matplotlib)"
    ) from err

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.dataset.base.metadata import Axis

__all__ = [
    "PlainFigure",
    "Ruler",
    "draw_deflection",
    "draw_frame",
    "draw_map",
    "outline",
    "row_height",
    "rulers",
]

FRAME_COLORS = "inferno"
MAP_COLORS = "gray"

LONGEST_SIDES = 8
"""Images that are longer than that, in units of their width, are stretched: nothing would be seen."""

SHARP_PX = 512
"""Pixels of images up to this size are drawn as squares."""

FEW_POINTS = 64
"""Curves of no more points show each of them."""

_PREFIXES = {-12: "p", -9: "n", -6: "\N{MICRO SIGN}", -3: "m", 0: "", 3: "k", 6: "M", 9: "G"}


class PlainFigure(Figure):
    """A figure that notebooks show by themselves, whether pyplot has been loaded or not."""

    def __init__(self, width: float, height: float, title: str = "") -> None:
        # Labels beside colour bars need more room than the default leaves.
        layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08, wspace=0.04)
        super().__init__(figsize=(width, height), layout=layout)
        if title:
            self.suptitle(title, fontsize="medium", color="0.35")

    def show(self, warn: bool = True) -> None:
        """Not without pyplot, which opens windows.

        Raises
        ------
        RuntimeError
            Always; tells what to do instead.
        """
        raise RuntimeError(
            "this figure has no window: save it with savefig(...) or plot(path=...), or write its name at "
            "the end of a notebook cell"
        )

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()


def row_height(width: float, shapes: Sequence[Sequence[int]]) -> float:
    """Height of a row of pictures in inches, so that images leave little empty.

    Parameters
    ----------
    width : float
        Of one picture, in inches, with labels and scale.
    shapes : sequence of shapes
        Of what is drawn; curves like to be nearly square.
    """
    ratios = [shape[0] / shape[1] if len(shape) == 2 and min(shape) > 1 else 0.85 for shape in shapes]
    # A quarter of the width is for labels and scale.
    return 0.95 + 0.72 * width * min(max(0.4, *ratios), 1.25)


@dataclass(frozen=True)
class Ruler:
    """How to label one axis of a picture."""

    label: str
    """Name and unit."""
    first: float
    """Position of element 0, in this unit."""
    step: float
    """From one element to the next, in this unit."""
    n: int
    """Number of elements."""
    is_counted: bool = False
    """Whether the unit is one element: then there is nothing between them."""

    @property
    def edges(self) -> tuple[float, float]:
        """Outer edges of the first and the last element."""
        return self.first - self.step / 2, self.first + (self.n - 0.5) * self.step

    def positions(self) -> npt.NDArray[Any]:
        """Of all elements."""
        return self.first + self.step * np.arange(self.n)


def rulers(axes: Sequence[Axis], shape: Sequence[int], what: str) -> tuple[Ruler, ...]:
    """Rulers for the axes of a scan or of a frame.

    Parameters
    ----------
    axes : sequence of Axis
        Not calibrated ones are labelled in elements.
    shape : sequence of int
        As many numbers.
    what : str
        Whose elements they are: ``"scan"``, ``"detector"``, or ``"channel"`` for frames that are no images.
    """
    ends = {
        axis.unit: max(
            max(abs(other.offset), abs(other.offset + other.step * (n - 1)))
            for other, n in zip(axes, shape, strict=True)
            if other.unit == axis.unit
        )
        for axis in axes
    }
    return tuple(_ruler(axis, n, what, ends[axis.unit]) for axis, n in zip(axes, shape, strict=True))


def _ruler(axis: Axis, n: int, what: str, largest: float) -> Ruler:
    if not axis.is_calibrated:
        labels = {
            "scan": f"scan {axis.name}",
            "detector": f"detector {axis.name.removeprefix('k')} (px)",
            "channel": "channel",
        }
        return Ruler(labels[what], 0.0, 1.0, n, is_counted=True)
    factor, unit = _shown_unit(axis.unit, largest)
    return Ruler(f"{axis.name} ({unit})", axis.offset / factor, axis.step / factor, n)


def _shown_unit(unit: str, largest: float) -> tuple[float, str]:
    """What numbers have to be divided by, and the unit with its prefix."""
    if unit == "1/m":
        return 1e9, "1/nm"
    if unit == "K" or not largest:
        return 1.0, unit
    # Axes that end at 900 or 2000 nm are both in nm: one unit for neighbours of a size.
    exponent = math.floor(math.log10(largest / 2) / 3 + 1e-9) * 3
    exponent = min(max(exponent, min(_PREFIXES)), max(_PREFIXES))
    return 10.0**exponent, f"{_PREFIXES[exponent]}{unit}"


def _show(axes: Any, image: npt.NDArray[Any], yx: Sequence[Ruler], **options: Any) -> Any:
    """An image whose pixels are square, unless it would be a thin line."""
    y, x = yx
    height, width = image.shape[:2]
    is_thin = max(height, width) > LONGEST_SIDES * min(height, width)
    shown = axes.imshow(
        image,
        extent=(*x.edges, *reversed(y.edges)),
        aspect="auto" if is_thin else abs(x.step / y.step),
        # Large ones are made smaller, where leaving pixels out would make patterns that are not there.
        interpolation="nearest" if max(height, width) <= SHARP_PX else "auto",
        **options,
    )
    axes.set(xlabel=x.label, ylabel=y.label)
    for axis, ruler in ((axes.xaxis, x), (axes.yaxis, y)):
        if ruler.is_counted:
            axis.get_major_locator().set_params(integer=True)
    return shown


def _add_colorbar(axes: Any, image: Any, label: str) -> None:
    # Beside the image, as high as it is, whatever its shape.
    axes.figure.colorbar(image, cax=axes.inset_axes((1.03, 0, 0.05, 1)), label=label)


def _as_curve(
    values: npt.NDArray[Any], along: Sequence[Ruler], whole: str
) -> tuple[npt.NDArray[Any], Ruler] | None:
    """Values and ruler of a curve; None for what is an image."""
    long = [ruler for ruler in along if ruler.n > 1]
    if len(along) == 2 and len(long) != 1:
        return None
    if len(long) == 1:
        return values.reshape(-1), long[0]
    shape = tuple(ruler.n for ruler in along)
    label = whole if len(shape) < 2 else f"{whole}, counted through {shape}"
    return values.reshape(-1), Ruler(label, 0.0, 1.0, values.size, is_counted=True)


def _draw_curve(axes: Any, values: npt.NDArray[Any], along: Ruler) -> None:
    axes.plot(along.positions(), values, marker="." if values.size <= FEW_POINTS else "", lw=1)
    axes.set_xlabel(along.label)
    axes.margins(x=0.01)
    if along.is_counted:
        axes.xaxis.get_major_locator().set_params(integer=True)


def draw_map(
    axes: Any, title: str, values: npt.NDArray[Any], along: Sequence[Ruler], *, label: str = ""
) -> None:
    """One number per scan position: an image if the scan has two axes, else a curve.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        To draw into.
    title, label : str
        Above, and beside the scale of the values.
    values : array
        Real numbers.
    along : sequence of Ruler
        One for each axis of `values`.
    """
    axes.set_title(title)
    curve = _as_curve(values, along, "scan position")
    if curve is not None:
        _draw_curve(axes, *curve)
        axes.set_ylabel(label)
        return
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, (0.5, 99.5)) if finite.size else (0.0, 1.0)
    if low == high:
        low, high = robust_limits(values)
    _add_colorbar(axes, _show(axes, values, along, cmap=MAP_COLORS, vmin=low, vmax=high), label)


def draw_frame(
    axes: Any,
    title: str,
    frame: npt.NDArray[Any],
    along: Sequence[Ruler],
    *,
    decades: float = 4,
    log: bool = True,
    label: str = "",
) -> None:
    """A frame: an image if it has two axes, else a curve.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        To draw into.
    title, label : str
        Above, and beside the scale of the values.
    frame : array
        Real numbers.
    along : sequence of Ruler
        One for each axis of `frame`.
    decades : float, optional
        What a logarithmic scale shows at most.
    log : bool, optional
        Logarithmic; linear in any case if no value is positive.
    """
    frame = np.where(np.isfinite(frame), frame, 0) if frame.dtype.kind == "f" else frame.astype(np.float64)
    positive = frame[frame > 0]
    curve = _as_curve(frame, along, "channel")
    # Curves show what lies below zero; images do not miss the noise there.
    log = log and positive.size > 0 and (curve is None or frame.min() >= 0)
    axes.set_title(f"{title} (logarithmic)" if log else title)
    if curve is not None:
        _draw_curve(axes, *curve)
        if log:
            axes.set_yscale("log", nonpositive="clip")
        axes.set_ylabel(label)
        return
    low, high = robust_limits(frame)
    if not log:
        _add_colorbar(axes, _show(axes, frame, along, cmap=FRAME_COLORS, vmin=low, vmax=high), label)
        return
    from matplotlib.colors import LogNorm

    # Below the least of all counts, so that one electron differs from none.
    least = float(positive.min())
    low = max(high / 10**decades, least / 2 if frame.min() <= 0 else least)
    shown = _show(
        axes, np.maximum(frame, low), along, cmap=FRAME_COLORS, norm=LogNorm(low, max(high, 2 * low))
    )
    _add_colorbar(axes, shown, label)


def draw_deflection(
    hue_axes: Any,
    magnitude_axes: Any,
    field: tuple[npt.NDArray[Any], npt.NDArray[Any]],
    along: Sequence[Ruler],
) -> None:
    """A field of vectors (y, x): direction and length as colour in one picture, the length in the other."""
    field_y, field_x = field
    magnitude = np.hypot(field_y, field_x)
    finite = magnitude[np.isfinite(magnitude)]
    limit = float(np.percentile(finite, 99.5)) if finite.size else 0.0
    limit = limit or 1.0
    hue_axes.set_title(f"centre of mass: direction, full colour at {limit:.2g} px")
    _show(hue_axes, _color_of(field_y, field_x, limit), along)
    wheel = hue_axes.inset_axes((0.84, 0.84, 0.15, 0.15))
    y, x = np.mgrid[-1:1:101j, -1:1:101j]
    disc = np.hypot(y, x) <= 1
    wheel.imshow(np.dstack([_color_of(y, x, 1.0), disc]))
    wheel.set_axis_off()
    magnitude_axes.set_title("centre of mass: deflection")
    shown = _show(magnitude_axes, magnitude, along, cmap=FRAME_COLORS, vmin=0, vmax=limit)
    _add_colorbar(magnitude_axes, shown, "px")


def _color_of(y: npt.NDArray[Any], x: npt.NDArray[Any], limit: float) -> npt.NDArray[Any]:
    """Red, green and blue: the hue is the direction, black is no deflection."""
    from matplotlib.colors import hsv_to_rgb

    hue = np.arctan2(y, x) / (2 * np.pi) % 1
    value = np.clip(np.hypot(y, x) / limit, 0, 1)
    hsv = np.stack([hue, np.ones_like(hue), value], axis=-1)
    return np.asarray(hsv_to_rgb(np.nan_to_num(hsv)))


def outline(
    axes: Any,
    along: Sequence[Ruler],
    center: tuple[float, float],
    circles: Sequence[tuple[str | None, str, float]],
) -> None:
    """Circles on a frame.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        With the frame.
    along : sequence of Ruler
        Of the frame.
    center : tuple of float
        (y, x), pixels.
    circles : sequence of tuple
        Name (None: not in the legend), colour, and radius in pixels.
    """
    from matplotlib.patches import Ellipse

    y, x = along
    place = (x.first + center[1] * x.step, y.first + center[0] * y.step)
    for name, color, radius in circles:
        width, height = 2 * radius * abs(x.step), 2 * radius * abs(y.step)
        axes.add_patch(Ellipse(place, width, height, fill=False, color=color, lw=1, label=name))
    axes.legend(loc="upper right", fontsize="small")
