"""Plots that follow a run: what they show, when, and which part of it is there already."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from libertem.udf.runner import UDFRunner
from libertem.viz.images import encode_image, make_cyclic_map, rgb_from_2dvector, visualize_simple

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.common.buffers import BufferWrapper
    from libertem.io.dataset.base.dataset import DataSet
    from libertem.udf.contract import UDF
    from libertem.udf.results import UDFResultDict, UDFResults

__all__ = [
    "Dummy2DPlot",
    "Live2DPlot",
    "encode_image",
    "get_plottable_2D_channels",
    "rgb_from_2dvector",
    "visualize_simple",
]

Damage: TypeAlias = "npt.NDArray[np.bool_] | bool"
Extractor: TypeAlias = "Callable[[UDFResultDict, Damage], tuple[npt.NDArray[Any], Damage]]"
Channel: TypeAlias = "str | tuple[str, Callable[[npt.NDArray[Any]], npt.NDArray[Any]]] | Extractor"


def __getattr__(name: str) -> Any:
    # A colour map of matplotlib, which loads when first used.
    if name == "libertem_cyclic":
        return make_cyclic_map()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def get_plottable_2D_channels(buffers: Mapping[str, BufferWrapper]) -> list[str]:
    """Names of results that can be shown as image: those with two dimensions longer than one."""
    return [
        name
        for name, buffer in buffers.items()
        if buffer.dtype.kind in "biufc" and np.squeeze(buffer.data).ndim == 2
    ]


class Live2DPlot:
    """Base class of plots that follow a run. A subclass gives `display` and `update`.

    Parameters
    ----------
    dataset : DataSet
        What the UDF is run over.
    udf : UDF
        The very instance that is run.
    roi : optional
        As for `libertem.api.Context.run_udf`.
    channel : str, tuple or callable, optional
        Name of a result; name and a function of its data; or a function ``(udf_results, damage) -> (data,
        damage)``. By default the first result that can be shown.
    title : str, optional
        By default made from the names of UDF and channel.
    min_delta : float, optional
        Least time between two updates, seconds.
    udfresult : UDFResults, optional
        What to show at first; by default the results of a run that has not begun.

    Attributes
    ----------
    data : array
        What is shown.
    last_update : float
        When that was, on the clock of `time.time`.

    Raises
    ------
    ValueError
        If `channel` cannot be shown, or nothing can.
    """

    def __init__(
        self,
        dataset: DataSet,
        udf: UDF,
        roi: Any = None,
        channel: Any = None,
        title: str | None = None,
        min_delta: float = 0,
        udfresult: UDFResults | None = None,
    ) -> None:
        if udfresult is None:
            udfresult = UDFRunner.dry_run([udf], dataset, roi)
        buffers, damage = udfresult.buffers[0], udfresult.damage.data
        self.udf = udf
        self.min_delta = min_delta
        self.last_update: float = 0
        self.channel: str | None = None
        self._extract: Extractor | None = None
        name = self._choose(channel, buffers)
        self.title = f"{type(udf).__name__}: {name}" if title is None else title
        self.data, _ = self.extract(buffers, damage)

    def _choose(self, channel: Channel | None, buffers: UDFResultDict) -> str:
        """Set what to show, and return how to call it."""
        if callable(channel):
            self._extract = channel
            return _name_of(channel)
        if isinstance(channel, tuple):
            self.channel, function = channel
            if self.channel not in buffers:
                raise ValueError(f"channel {self.channel} not found, have: {list(buffers)}")
            self._extract = _FunctionOfBuffer(self.channel, function)
            return f"{_name_of(function)}({self.channel})"
        plottable = get_plottable_2D_channels(buffers)
        if channel is None:
            if not plottable:
                raise ValueError(f"No plottable 2D channel found for {type(self.udf).__name__}")
            channel = plottable[0]
        elif channel not in plottable:
            raise ValueError(f"channel {channel} not found or not plottable, have: {plottable}")
        self.channel = channel
        return channel

    def get_udf(self) -> UDF:
        """The UDF that is shown."""
        return self.udf

    def extract(self, udf_results: UDFResultDict, damage: Damage) -> tuple[npt.NDArray[Any], Damage]:
        """What to show of the results of the UDF, and which of it is valid.

        Parameters
        ----------
        udf_results : dict
            Names with buffers.
        damage : array of bool
            Scan positions that have been merged.
        """
        if self._extract is not None:
            return self._extract(udf_results, damage)
        assert self.channel is not None
        buffer = udf_results[self.channel]
        return np.squeeze(buffer.masked_data), np.squeeze(buffer.valid_mask)

    def new_data(self, udf_results: UDFResultDict, damage: Damage, force: bool = False) -> None:
        """Take new results, unless the last ones are too recent.

        Parameters
        ----------
        udf_results : dict
            Names with buffers.
        damage : array of bool
            Scan positions that have been merged.
        force : bool, optional
            Take them in any case: they are the last ones.
        """
        now = time.time()
        if not force and now - self.last_update < self.min_delta:
            return
        self.data, valid = self.extract(udf_results, damage)
        shown = np.isfinite(np.ma.getdata(self.data))
        n_dims = max(np.ndim(valid), 2)
        if shown.ndim > n_dims:
            # Colours, for example.
            shown = shown.all(axis=tuple(range(n_dims, shown.ndim)))
        self.update(np.asarray(valid) & shown, force=force)
        self.last_update = now

    def update(self, damage: npt.NDArray[np.bool_], force: bool = False) -> None:
        """Show `data`.

        Parameters
        ----------
        damage : array of bool
            Which pixels are valid.
        force : bool, optional
            There is nothing to come.
        """
        raise NotImplementedError(f"{type(self).__name__} has to implement update")

    def display(self) -> Any:
        """Open the plot. Called once, before the run."""
        raise NotImplementedError(f"{type(self).__name__} has to implement display")


class _FunctionOfBuffer:
    """Applies a function to the data of a result."""

    def __init__(self, name: str, function: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> None:
        self._name = name
        self._function = function

    def __call__(self, udf_results: UDFResultDict, damage: Damage) -> tuple[npt.NDArray[Any], Damage]:
        buffer = udf_results[self._name]
        # Functions like the logarithm meet the zeros of what is still to come.
        with np.errstate(divide="ignore", invalid="ignore"):
            data = self._function(buffer.data)
        return data, damage if buffer.kind == "nav" else True


def _name_of(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)


class Dummy2DPlot(Live2DPlot):
    """A plot that shows nothing: for tests, and for machines without a screen."""

    def update(self, damage: npt.NDArray[np.bool_], force: bool = False) -> None:
        """Nothing."""

    def display(self) -> None:
        """Nothing."""
