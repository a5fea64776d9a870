"""``ds.plot()``: look at a data set."""

from __future__ import annotations

import operator
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.udf.raw import PickUDF
from libertem.udf.sum import SumUDF
from libertem.udf.sumsigudf import SumSigUDF
from libertem.viz.figures import PlainFigure, Ruler, draw_frame, draw_map, row_height, rulers
from libertem.viz.images import real_values

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.dataset.base.dataset import DataSet

__all__ = ["check_extension", "plot", "scan_position", "scan_rulers", "signal_rulers"]


def plot(
    ctx: Any,
    dataset: DataSet,
    position: Any = None,
    *,
    path: str | os.PathLike[str] | None = None,
    log: bool = True,
    progress: Any = False,
) -> PlainFigure:
    """Draw the mean frame and the total intensity, or a single frame; see `DataSet.plot`.

    Raises
    ------
    IndexError
        If `position` has another number of coordinates than the scan, or lies outside of it.
    TypeError
        If `position` is not made of integers, or the pixels are no numbers.
    ValueError
        If matplotlib cannot write files of the type that `path` names.
    """
    nav_shape = dataset.shape.nav.to_tuple()
    if np.dtype(dataset.dtype).kind not in "biufc":
        raise TypeError(f"plot() draws numbers: found pixels of dtype {dataset.dtype}")
    if path is not None:
        check_extension(path)
    if position is not None:
        figure = _single(ctx, dataset, scan_position(position, nav_shape), log=log, progress=progress)
    else:
        figure = _overview(ctx, dataset, log=log, progress=progress)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def check_extension(path: str | os.PathLike[str]) -> None:
    """Before all data are read, rather than after that."""
    known = PlainFigure(1, 1).canvas.get_supported_filetypes()
    extension = os.path.splitext(os.fsdecode(path))[1][1:].lower()
    if extension not in known:
        raise ValueError(
            f"{os.fsdecode(path)}: cannot draw into such a file: found the extension {extension!r}, "
            f"expected one of {', '.join(sorted(known))} (use save() for the data themselves)"
        )


def scan_position(position: Any, nav_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Coordinates of a scan position, counted from the start.

    Parameters
    ----------
    position : int or sequence of int
        One coordinate for each axis of the scan; negative ones count from the end.
    nav_shape : tuple of int
        Of the scan.

    Raises
    ------
    IndexError
        If there is another number of coordinates, or the position lies outside of the scan.
    TypeError
        If a coordinate is no integer.
    """
    given = tuple(position) if np.iterable(position) else (position,)
    names = {1: "(x,)", 2: "(y, x)"}.get(len(nav_shape), f"{len(nav_shape)} numbers")
    if len(given) != len(nav_shape):
        raise IndexError(
            f"a scan position has {len(nav_shape)} coordinate{'s' if len(nav_shape) != 1 else ''}, {names}: "
            f"found {position!r} for a scan of {nav_shape}"
        )
    found = []
    for axis, (coordinate, n) in enumerate(zip(given, nav_shape, strict=True)):
        try:
            index = operator.index(coordinate)
        except TypeError:
            raise TypeError(f"coordinates of a scan position are integers, found {position!r}") from None
        if not -n <= index < n:
            raise IndexError(
                f"scan position {tuple(given)} lies outside of the scan: found {index} on axis {axis}, "
                f"expected 0 to {n - 1}"
            )
        found.append(index % n)
    return tuple(found)


def scan_rulers(dataset: DataSet) -> tuple[Ruler, ...]:
    """How to label axes of the scan."""
    nav = dataset.shape.nav.to_tuple()
    return rulers(dataset.axes[: len(nav)], nav, "scan")


def signal_rulers(dataset: DataSet) -> tuple[Ruler, ...]:
    """How to label axes of a frame."""
    sig = dataset.shape.sig.to_tuple()
    return rulers(dataset.axes[-len(sig) :], sig, "detector" if len(sig) == 2 else "channel")


def _single(
    ctx: Any, dataset: DataSet, position: tuple[int, ...], *, log: bool, progress: Any
) -> PlainFigure:
    frame_shape = dataset.shape.sig.to_tuple()
    roi = np.zeros(dataset.shape.nav.to_tuple(), dtype=bool)
    roi[position] = True
    picked = ctx.run_udf(dataset=dataset, udf=PickUDF(), roi=roi, progress=progress)
    frame = real_values(np.asarray(picked["intensity"].data)[0])
    figure = PlainFigure(6, row_height(6, [frame_shape]), _title(dataset))
    place = ", ".join(str(index) for index in position)
    # Noise of a detector that does not count lies two decades below its bright discs; counts have none.
    decades = 4 if np.dtype(dataset.dtype).kind in "biu" else 2
    draw_frame(
        figure.subplots(),
        f"frame at ({place})",
        frame,
        signal_rulers(dataset),
        decades=decades,
        log=log,
        label=_values(dataset),
    )
    return figure


def _overview(ctx: Any, dataset: DataSet, *, log: bool, progress: Any) -> PlainFigure:
    total, each = ctx.run_udf(dataset=dataset, udf=[SumUDF(), SumSigUDF()], progress=progress)
    n_frames, frame_shape = dataset.shape.nav.size, dataset.shape.sig.to_tuple()
    mean: npt.NDArray[Any] = real_values(np.asarray(total["intensity"].data)) / n_frames
    if n_frames == 1:
        figure = PlainFigure(6, row_height(6, [frame_shape]), _title(dataset))
        draw_frame(figure.subplots(), "frame", mean, signal_rulers(dataset), log=log, label=_values(dataset))
        return figure
    figure = PlainFigure(11.5, row_height(5.75, [frame_shape, dataset.shape.nav.to_tuple()]), _title(dataset))
    left, right = figure.subplots(1, 2)
    draw_frame(left, "mean frame", mean, signal_rulers(dataset), log=log, label=_values(dataset))
    intensity = real_values(np.asarray(each["intensity"].data))
    draw_map(right, "total intensity", intensity, scan_rulers(dataset), label=f"sum of {_values(dataset)}")
    return figure


def _title(dataset: DataSet) -> str:
    path = getattr(dataset, "_path", None)
    return os.path.basename(path) if isinstance(path, str) else ""


def _values(dataset: DataSet) -> str:
    return "modulus" if np.dtype(dataset.dtype).kind == "c" else "pixel values"
