"""`Context`: load data sets and run UDFs over them."""

from __future__ import annotations

import atexit
import os
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from libertem.analysis.base import AnalysisResultSet, BaseAnalysis
from libertem.analysis.create import MakesAnalyses
from libertem.common.buffers import BufferWrapper
from libertem.common.progress import ProgressReporter
from libertem.executor.adaptive import AdaptiveJobExecutor
from libertem.executor.base import JobExecutor
from libertem.executor.by_name import Wishes, make_executor
from libertem.interact.tools import ContextTools
from libertem.io.corrections.corrset import CorrectionSet
from libertem.io.dataset.base.backends.contract import IOBackend
from libertem.io.dataset.base.dataset import DataSet
from libertem.io.dataset.registry import filetypes, load
from libertem.udf.auto import AutoUDF
from libertem.udf.contract import UDF
from libertem.udf.info import UDFInfo
from libertem.udf.record import export_npy
from libertem.udf.results import UDFResultDict, UDFResults
from libertem.udf.roi import as_roi
from libertem.viz.live import follow, make_plots
from libertem.viz.mpl import MPLLive2DPlot

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Context", "DataSet", "ResultAsyncGenerator", "ResultGenerator"]


class ResultGenerator(Iterator[UDFResults]):
    """Iterates over the intermediate results of a run.

    Parameters
    ----------
    runner : UDFRunner
        Does the work.
    results : iterator
        Its results; nothing happens before the first one is asked for.
    """

    def __init__(self, runner: Any, results: Iterator[UDFResults]) -> None:
        self._runner = runner
        self._results = results

    def __iter__(self) -> ResultGenerator:
        return self

    def __next__(self) -> UDFResults:
        return next(self._results)

    def close(self) -> None:
        """End the run early."""
        self._results.close()  # type: ignore[attr-defined]  # it is a generator

    def throw(self, exc: BaseException) -> UDFResults:
        """Raise an exception inside the run."""
        result: UDFResults = self._results.throw(exc)  # type: ignore[attr-defined]  # it is a generator
        return result

    def update_parameters_experimental(self, parameters: Sequence[Mapping[str, Any]]) -> None:
        """Change parameters; tasks that start later, `merge` and `get_results` see the new ones.

        Parameters
        ----------
        parameters : list of dict
            One per UDF; empty where nothing changes.
        """
        self._runner.update_parameters_experimental(parameters)


class ResultAsyncGenerator(AsyncIterator[UDFResults]):
    """Iterates over the intermediate results of a run from a coroutine.

    Parameters
    ----------
    results : ResultGenerator
        Or anything that can be iterated, closed, and passes on other attributes of one.
    """

    def __init__(self, results: Any) -> None:
        self._results = results

    def __aiter__(self) -> ResultAsyncGenerator:
        return self

    async def __anext__(self) -> UDFResults:
        done = object()
        result: Any = await _in_thread(next, self._results, done)
        if result is done:
            raise StopAsyncIteration
        return result  # type: ignore[no-any-return]  # comes from a foreign iterator

    async def aclose(self) -> None:
        """End the run early."""
        await _in_thread(self._results.close)

    async def athrow(self, exc: BaseException) -> UDFResults:
        """Raise an exception inside the run."""
        result: UDFResults = await _in_thread(self._results.throw, exc)
        return result

    async def update_parameters_experimental(self, parameters: Sequence[Mapping[str, Any]]) -> None:
        """Change parameters, see `ResultGenerator.update_parameters_experimental`."""
        await _in_thread(self._results.update_parameters_experimental, parameters)


async def _in_thread(fn: Callable[..., Any], *args: Any) -> Any:
    from libertem.common.async_utils import sync_to_async

    return await sync_to_async(fn, None, *args)


def _close_if_alive(ref: weakref.ref[Context]) -> None:
    context = ref()
    if context is not None:
        context.close()


class Context(MakesAnalyses):
    """Loads data sets, and runs UDFs and analyses over them.

    Parameters
    ----------
    executor : JobExecutor, optional
        Where to compute; on all cores of this machine by default.
    plot_class : type, optional
        Class for live plots, by default `libertem.viz.mpl.MPLLive2DPlot`.

    Examples
    --------
    >>> import numpy as np
    >>> from libertem.udf.sum import SumUDF
    >>> with Context() as ctx:
    ...     ds = ctx.load("memory", data=np.ones((4, 4, 8, 8), dtype=np.float32))
    ...     res = ctx.run_udf(dataset=ds, udf=SumUDF())
    >>> res["intensity"].data.shape
    (8, 8)
    """

    def __init__(self, executor: JobExecutor | None = None, plot_class: type | None = None) -> None:
        self.executor: JobExecutor = self._create_local_executor() if executor is None else executor
        self._plot_class = plot_class
        self._closed = False
        atexit.register(_close_if_alive, weakref.ref(self))

    @property
    def plot_class(self) -> Any:
        """Class for live plots that a run makes. Can be set."""
        return MPLLive2DPlot if self._plot_class is None else self._plot_class

    @plot_class.setter
    def plot_class(self, value: Any) -> None:
        self._plot_class = value

    def _create_local_executor(self) -> JobExecutor:
        """Executor of contexts that were not given one."""
        return AdaptiveJobExecutor.make_local()

    @classmethod
    def make_with(
        cls,
        executor_spec: str = "threads",
        *,
        cpus: int | Iterable[int] | None = None,
        gpus: int | Iterable[int] | None = None,
        plot_class: type | None = None,
        snooze_timeout: float | None = None,
        main_process_gpu: bool | int | None = None,
    ) -> Self:
        """Make a context with an executor given by name.

        Parameters
        ----------
        executor_spec : str
            ``'threads'`` of this process; ``'inline'``, or ``'synchronous'``, in the calling thread;
            ``'dask'`` worker processes on this machine; ``'dask-make-default'``, the same as the default of
            Dask, which stays open; ``'dask-integration'``, what Dask uses in this process; ``'delayed'``,
            with lazy results, which Dask computes when they are asked for; ``'pipelined'``, processes with a
            queue each, for live data.
        cpus : int or iterable of int, optional
            Number or ids of CPU workers, for threads and clusters.
        gpus : int or iterable of int, optional
            Number or ids of GPU workers, for clusters. An id may be repeated.
        plot_class : type, optional
            Class for live plots.
        snooze_timeout : float, optional
            Minutes without work after which a local cluster shrinks to one worker, until it is used again.
        main_process_gpu : bool or int, optional
            GPU for merging results.

        Raises
        ------
        ExecutorSpecException
            If there is no such executor, or it cannot be made like that.
        """
        executor = make_executor(executor_spec, Wishes(cpus, gpus, snooze_timeout, main_process_gpu))
        return cls(executor=executor, plot_class=plot_class)

    def load(
        self, filetype: Any, *args: Any, io_backend: IOBackend | str | None = None, **kwargs: Any
    ) -> DataSet:
        """Open a data set.

        Parameters
        ----------
        filetype : str or type
            One of {filetypes}, or "auto" to find out from the file; or a subclass of `DataSet`.
        *args
            For the data set.
        io_backend : IOBackend, optional
            How to read: an object from `libertem.io.dataset.base`, or ``'mmap'``, ``'buffered'``,
            ``'direct'``.
        **kwargs
            For the data set, see the documentation of the format.

        Returns
        -------
        DataSet
            Initialized and checked. Only headers have been read.

        Raises
        ------
        DataSetException
            If the file cannot be opened as this type, or its type is not recognized.
        """
        dataset: DataSet = load(
            filetype, *args, io_backend=io_backend, executor=self.executor, enable_async=False, **kwargs
        )
        dataset._interactive = ContextTools(self)
        return dataset

    def run_udf(
        self,
        dataset: DataSet,
        udf: UDF | Iterable[UDF],
        roi: Any = None,
        corrections: CorrectionSet | None = None,
        progress: bool | ProgressReporter = False,
        backends: str | Iterable[str] | None = None,
        plots: Any = None,
        sync: bool = True,
    ) -> Any:
        """Run one or several UDFs over a data set, in one pass.

        Parameters
        ----------
        dataset : DataSet
            From `load`.
        udf : UDF or iterable of UDF
            What to compute.
        roi : array of bool, optional
            Limits the run to some scan positions. A mask of navigation shape (dense or sparse), a position
            ``(y, x)``, or a list of ``((y, x), bool)``.
        corrections : CorrectionSet, optional
            Replaces the corrections that come with the data set; an empty one switches them off.
        progress : bool or ProgressReporter
            Show a progress bar.
        backends : str or iterable of str, optional
            Limits the kinds of arrays that UDFs receive.
        plots : bool or list, optional
            Live plots, which follow the run. True: of each result that is an image. Or for each UDF a list of
            channels: names of results, or names with a function of the data. Or plot objects, see
            `libertem.viz.base.Live2DPlot`.
        sync : bool
            If False, return an awaitable.

        Returns
        -------
        dict or tuple of dict
            Names with `BufferWrapper` objects; a tuple for several UDFs. Or an awaitable of the same.
        """
        arguments: dict[str, Any] = {
            "dataset": dataset,
            "udf": udf,
            "roi": roi,
            "corrections": corrections,
            "progress": progress,
            "backends": backends,
            "plots": plots,
        }
        if sync:
            return self._run_sync(**arguments, iterate=False)
        return self._run_async(**arguments)

    def run_udf_iter(
        self,
        dataset: DataSet,
        udf: UDF | Iterable[UDF],
        roi: Any = None,
        corrections: CorrectionSet | None = None,
        progress: bool | ProgressReporter = False,
        backends: str | Iterable[str] | None = None,
        plots: Any = None,
        sync: bool = True,
    ) -> Any:
        """Like `run_udf`, but iterate over intermediate results.

        Returns
        -------
        ResultGenerator or ResultAsyncGenerator
            Yields, after each merged partition, an object with `buffers` (one dict per UDF) and `damage`
            (which scan positions are included).
        """
        arguments: dict[str, Any] = {
            "dataset": dataset,
            "udf": udf,
            "roi": roi,
            "corrections": corrections,
            "progress": progress,
            "backends": backends,
            "plots": plots,
            "iterate": True,
        }
        if sync:
            return self._run_sync(**arguments)
        return ResultAsyncGenerator(self._run_sync(**arguments, copy_needed=True))

    async def _run_async(self, udf: Any, **arguments: Any) -> Any:
        udfs, single = _as_list(udf)
        last: UDFResults | None = None
        results = ResultAsyncGenerator(self._run_sync(udf=udfs, **arguments, iterate=True, copy_needed=True))
        async for result in results:
            last = result
        assert last is not None
        return last.buffers[0] if single else last.buffers

    def _run_sync(
        self,
        dataset: DataSet,
        udf: UDF | Iterable[UDF],
        roi: Any = None,
        corrections: CorrectionSet | None = None,
        progress: bool | ProgressReporter = False,
        backends: str | Iterable[str] | None = None,
        plots: Any = None,
        iterate: bool = False,
        copy_needed: bool = False,
    ) -> Any:
        """All runs go through here; subclasses override it."""
        udfs, single = _as_list(udf)
        live = self._make_plots(plots, dataset, udfs, roi)
        runner = self.executor.get_udf_runner()(udfs)
        arguments: dict[str, Any] = {
            "dataset": dataset,
            "executor": self.executor,
            "roi": roi,
            "progress": progress,
            "corrections": corrections,
            "backends": backends,
        }
        if not iterate and not live:
            result = runner.run_for_dataset(**arguments)
        else:
            results = runner.run_for_dataset_sync(**arguments, copy_needed=copy_needed)
            if live:
                results = follow(results, live)
            if iterate:
                return ResultGenerator(runner, results)
            (result,) = deque(results, maxlen=1)
        buffers: tuple[UDFResultDict, ...] = result.buffers
        return buffers[0] if single else buffers

    def _make_plots(self, plots: Any, dataset: DataSet, udfs: list[UDF], roi: Any) -> list[tuple[int, Any]]:
        """Plots of a run, with the numbers of the UDFs that they show."""
        if plots is None or plots is False:
            return []
        # The class of plots loads matplotlib only when a plot is displayed.
        return make_plots(plots, dataset, udfs, as_roi(roi, dataset.shape), self.plot_class)

    def map(
        self,
        dataset: DataSet,
        f: Callable[[Any], Any],
        roi: Any = None,
        progress: bool | ProgressReporter = False,
        corrections: CorrectionSet | None = None,
        backends: str | Iterable[str] | None = None,
    ) -> BufferWrapper:
        """Apply a function to each frame.

        Parameters
        ----------
        dataset : DataSet
            From `load`.
        f : callable
            Takes a frame; what it returns for a frame of ones decides shape and dtype of the result.
        roi, progress, corrections, backends
            As for `run_udf`.

        Returns
        -------
        BufferWrapper
            Kind ``'nav'``.
        """
        results = self.run_udf(
            dataset=dataset,
            udf=AutoUDF(f=f),
            roi=roi,
            progress=progress,
            corrections=corrections,
            backends=backends,
        )
        result: BufferWrapper = results["result"]
        return result

    def run(
        self,
        job: BaseAnalysis,
        roi: Any = None,
        progress: bool | ProgressReporter = False,
        corrections: CorrectionSet | None = None,
    ) -> AnalysisResultSet:
        """Run an analysis.

        Parameters
        ----------
        job : Analysis
            From a method ``create_*_analysis``, or made from a class in `libertem.analysis`.
        roi, progress, corrections
            As for `run_udf`. Without `roi`, that of the analysis is used.

        Returns
        -------
        AnalysisResultSet
            The results, as attributes: ``results.intensity.raw_data``.
        """
        if roi is None:
            roi = job.get_roi()
        results = self.run_udf(
            dataset=job.dataset, udf=job.get_udf(), roi=roi, progress=progress, corrections=corrections
        )
        damage = as_roi(roi, job.dataset.shape)
        return job.get_udf_results(results, roi, True if damage is None else damage)

    def display(self, dataset: DataSet, udf: UDF, roi: Any = None) -> UDFInfo:
        """Show in a notebook what a UDF will do and return. Nothing is read.

        Parameters
        ----------
        dataset : DataSet
            What it would be run over.
        udf : UDF
            The UDF.
        roi : optional
            As for `run_udf`.
        """
        return UDFInfo.of(udf, dataset, roi)

    def export_dataset(
        self,
        dataset: DataSet,
        *,
        path: str | os.PathLike[str],
        progress: bool | ProgressReporter = False,
        overwrite: bool = False,
    ) -> None:
        """Write a data set as NumPy file, in its shape and its native dtype.

        Parameters
        ----------
        dataset : DataSet
            What to write.
        path : str or path-like
            The file, ``*.npy``. All workers need to reach it.
        progress : bool or ProgressReporter, optional
            Show a progress bar.
        overwrite : bool, optional
            Replace an existing file.

        Raises
        ------
        ValueError
            If `path` does not end with ``.npy``.
        FileExistsError
            If there is such a file and it is not to be overwritten.
        """
        export_npy(self, dataset, path=path, progress=progress, overwrite=overwrite)

    def close(self) -> None:
        """Release the executor. May be called twice."""
        self._closed = True
        self.executor.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _as_list(udf: UDF | Iterable[UDF]) -> tuple[list[UDF], bool]:
    """UDFs as a list, and whether a single one was given."""
    if isinstance(udf, UDF) or not isinstance(udf, Iterable):
        return [udf], True
    return list(udf), False


if Context.load.__doc__ is not None:
    Context.load.__doc__ = Context.load.__doc__.replace("{filetypes}", ", ".join(filetypes))
