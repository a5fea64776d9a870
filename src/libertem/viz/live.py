"""The plots of a run: made from what `plots=` says, and fed while it goes on."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from libertem.udf.results import UDFResults
from libertem.udf.runner import UDFRunner
from libertem.viz.base import Live2DPlot, get_plottable_2D_channels

if TYPE_CHECKING:
    from libertem.io.dataset.base.dataset import DataSet
    from libertem.udf.contract import UDF

__all__ = ["follow", "make_plots"]


def make_plots(
    plots: Any, dataset: DataSet, udfs: Sequence[UDF], roi: Any, plot_class: Any
) -> list[tuple[int, Any]]:
    """Plots for a run, each with the number of the UDF that it shows.

    Parameters
    ----------
    plots : bool, list or None
        True: one plot for each result that can be shown. Plot objects: these. For each UDF a list of
        channels, see `libertem.viz.base.Live2DPlot`: plots of these.
    dataset, udfs, roi
        Of the run.
    plot_class : type
        Of plots that are made here. They are displayed.

    Raises
    ------
    ValueError
        If a channel does not exist, or a plot shows a UDF that is not part of the run.
    """
    if plots is None or plots is False or (plots is not True and not len(plots)):
        return []
    if plots is not True and all(hasattr(plot, "get_udf") for plot in plots):
        return [(_number_of(plot.get_udf(), udfs), plot) for plot in plots]
    initial = UDFRunner.dry_run(udfs, dataset, roi)
    channels = _all_channels(udfs, initial) if plots is True else [_checked(entry) for entry in plots]
    if len(channels) > len(udfs):
        raise ValueError(f"plots: found channels for {len(channels)} UDFs, but there are {len(udfs)}")
    made = []
    for i, (udf, of_udf) in enumerate(zip(udfs, channels, strict=False)):
        first = UDFResults((initial.buffers[i],), initial.damage)
        for channel in of_udf:
            plot = plot_class(dataset=dataset, udf=udf, roi=roi, channel=channel, udfresult=first)
            made.append((i, plot))
    for _, plot in made:
        plot.display()
    return made


def _number_of(udf: UDF, udfs: Sequence[UDF]) -> int:
    for i, candidate in enumerate(udfs):
        if candidate is udf:
            return i
    raise ValueError(
        f"plots: the plot of {type(udf).__name__} shows an instance that is not part of the run "
        "(give the same object to plot and run)"
    )


def _all_channels(udfs: Sequence[UDF], initial: UDFResults) -> list[list[str]]:
    channels = [get_plottable_2D_channels(buffers) for buffers in initial.buffers]
    for i, (udf, of_udf) in enumerate(zip(udfs, channels, strict=True)):
        if not of_udf:
            warnings.warn(
                f"No plottable channels found for UDF #{i}: {type(udf).__name__}, not plotting.",
                stacklevel=6,
            )
    return channels


def _checked(entry: Any) -> Sequence[Any]:
    """The channels of one UDF."""
    if entry is None:
        return []
    if isinstance(entry, str) or not isinstance(entry, Iterable):
        raise ValueError(
            f"plots: need plots, or for each UDF a list of channels, found {entry!r} "
            '(write plots=[["intensity"]] for the result of a single UDF)'
        )
    return list(entry)


def follow(results: Iterator[UDFResults], plots: Sequence[tuple[int, Live2DPlot]]) -> Iterator[UDFResults]:
    """Yield the results of a run, after plots have got them."""
    last: UDFResults | None = None
    try:
        for last in results:
            _feed(last, plots, force=False)
            yield last
        if last is not None:
            _feed(last, plots, force=True)
    finally:
        results.close()  # type: ignore[attr-defined]  # it is a generator


def _feed(results: UDFResults, plots: Sequence[tuple[int, Live2DPlot]], *, force: bool) -> None:
    for i, plot in plots:
        plot.new_data(results.buffers[i], results.damage.data, force=force)
