"""The part of a run that happens on the main process: prepare, merge, collect."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.buffers import BufferWrapper
from libertem.common.math import flat_nonzero
from libertem.common.progress import ProgressReporter
from libertem.common.protocols import UDFMethod
from libertem.exceptions import ExecutorError, JobCancelledError, UDFException, UDFRunCancelled
from libertem.io.corrections.corrset import CorrectionSet
from libertem.io.dataset.base.dataset import DataSet
from libertem.io.dataset.base.negotiation import Negotiator
from libertem.udf.contract import UDF
from libertem.udf.data import UDFData
from libertem.udf.groups import TaskGroup, group_tasks
from libertem.udf.meta import UDFMeta
from libertem.udf.progress import PROGRESS_TOPIC, RunProgress, make_reporter
from libertem.udf.results import UDFResultDict, UDFResults, UDFResultsLazy, collect_results
from libertem.udf.roi import as_roi
from libertem.udf.shared import Shared
from libertem.udf.task import OneUDF, UDFParams, UDFTask, UDFTaskResult

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.executor.base import JobExecutor

__all__ = ["UDFRunner", "input_dtype"]


def input_dtype(
    udfs: Sequence[UDF], dtype: npt.DTypeLike, corrections: CorrectionSet | None
) -> np.dtype[Any]:
    """Dtype in which the UDFs of a run receive data of `dtype`, in native byte order."""
    wanted: list[Any] = [np.dtype(dtype)]
    if corrections is not None and corrections.have_corrections():
        wanted.append(np.dtype(np.float32))
    wanted += [np.dtype(udf.get_preferred_input_dtype()) for udf in udfs]
    return np.result_type(*wanted).newbyteorder("=")


@dataclass
class _Run:
    """State of one run on the main process."""

    dataset: DataSet
    roi: npt.NDArray[np.bool_] | None
    damage: BufferWrapper
    tasks: list[UDFTask] = field(default_factory=list)
    params: UDFParams | None = None


class UDFRunner:
    """Runs UDFs over a data set.

    Parameters
    ----------
    udfs : sequence of UDF
        All are served by one pass over the data.
    debug : bool
        Kept for compatibility; executors have their own debug modes.
    progress_reporter : ProgressReporter, optional
        Receives the progress if it is asked for with ``progress=True``.
    """

    def __init__(
        self,
        udfs: Iterable[UDF],
        debug: bool = False,
        progress_reporter: ProgressReporter | None = None,
    ) -> None:
        self._udfs = list(udfs)
        self._debug = debug
        self._progress_reporter = progress_reporter
        self._executor: JobExecutor | None = None
        self._params_handle: Any = None

    # --- looking without running ---

    @classmethod
    def inspect_udf(cls, udf: UDF, dataset: DataSet, roi: Any = None) -> dict[str, BufferWrapper]:
        """Declared buffers of a UDF with the shapes they will have."""
        udf = udf.copy()
        runner = cls([udf])
        mask = as_roi(roi, dataset.shape)
        runner._init_main(udf, dataset, mask, None, input_dtype([udf], dataset.dtype, None))
        return dict(udf.results.items())

    @classmethod
    def dry_run(cls, udfs: Iterable[UDF], dataset: DataSet, roi: Any = None) -> UDFResults:
        """Results as if nothing had been processed; reads nothing."""
        runner = cls([udf.copy() for udf in udfs])
        run = runner._prepare(dataset, roi, None, None, plan=False)
        return runner._results(run, copy_needed=False)

    # --- preparation ---

    def _init_main(
        self,
        udf: UDF,
        dataset: DataSet,
        roi: npt.NDArray[np.bool_] | None,
        corrections: CorrectionSet | None,
        dtype: np.dtype[Any],
    ) -> None:
        udf.meta = UDFMeta(
            dataset_shape=dataset.shape,
            dataset_dtype=dataset.dtype,
            input_dtype=dtype,
            roi=roi,
            corrections=corrections,
        )
        udf.params = UDFData(udf._kwargs)
        # What was made for an earlier run may not fit this data set.
        udf._shared = Shared()
        buffers = udf.get_result_buffers()
        for buffer in buffers.values():
            buffer.set_shape_ds(dataset.shape, roi)
            if buffer.use != "result_only":
                buffer.allocate()
        udf.results = UDFData(buffers)

    def _prepare(
        self, dataset: DataSet, roi: Any, corrections: CorrectionSet | None, backends: Any, *, plan: bool
    ) -> _Run:
        if not self._udfs:
            raise ValueError("empty list of UDFs - nothing to do!")
        mask = as_roi(roi, dataset.shape)
        if corrections is None:
            corrections = dataset.get_correction_data()
        if corrections.have_corrections() and not dataset.supports_correction():
            raise NotImplementedError(
                f"corrections not implemented for {type(dataset).__name__} (pass CorrectionSet() or none)"
            )
        dtype = input_dtype(self._udfs, dataset.dtype, corrections)
        for udf in self._udfs:
            self._init_main(udf, dataset, mask, corrections, dtype)
            _check_method(udf)
            # A dry run must not start anything: some UDFs create files or devices there.
            if plan and hasattr(udf, "preprocess"):
                everything = udf.params
                if mask is not None:
                    udf.params = everything._select_frames(flat_nonzero(mask))
                udf.preprocess()
                udf.params = everything
        damage = BufferWrapper(kind="nav", dtype=bool)
        damage.set_shape_ds(dataset.shape, mask)
        damage.allocate()
        damage.set_data(damage.raw_data, valid=True)
        run = _Run(dataset, mask, damage)
        if plan:
            self._plan(run, corrections, dtype, backends)
        return run

    def _plan(self, run: _Run, corrections: CorrectionSet, dtype: np.dtype[Any], backends: Any) -> None:
        dataset, roi = run.dataset, run.roi
        partitions = list(dataset.get_partitions())
        scheme = Negotiator().get_scheme(
            udfs=self._udfs,
            dataset=dataset,
            read_dtype=dtype,
            approx_partition_shape=partitions[0].shape,
            roi=roi,
            corrections=corrections,
        )
        run.params = UDFParams(
            udfs=[OneUDF(udf._kwargs) for udf in self._udfs],
            roi=roi,
            corrections=corrections,
            tiling_scheme=scheme,
            input_dtype=dtype,
            dataset_dtype=np.dtype(dataset.dtype),
        )
        for idx, partition in enumerate(partitions):
            partition.set_idx(idx)
            if roi is not None and partition.get_frame_count(roi) == 0:
                continue
            run.tasks.append(
                UDFTask(
                    partition=partition,
                    idx=idx,
                    udf_classes=[type(udf) for udf in self._udfs],
                    udf_backends=[udf.get_backends() for udf in self._udfs],
                    user_backends=backends,
                    progress=False,
                )
            )

    # --- running ---

    def run_for_dataset(
        self,
        dataset: DataSet,
        executor: JobExecutor,
        roi: Any = None,
        progress: bool | ProgressReporter = False,
        corrections: CorrectionSet | None = None,
        backends: Any = None,
        dry: bool = False,
    ) -> UDFResults:
        """Run to the end and return the results."""
        run = self._prepare(dataset, roi, corrections, backends, plan=not dry)
        steps = self._steps(run, executor, progress, None, copy_needed=False, each_partition=False)
        (results,) = deque(steps, maxlen=1)
        # Computed now: what goes wrong in `get_results` belongs to this call.
        return UDFResults(results.buffers, results.damage)

    def run_for_dataset_sync(
        self,
        dataset: DataSet,
        executor: JobExecutor,
        roi: Any = None,
        progress: bool | ProgressReporter = False,
        corrections: CorrectionSet | None = None,
        backends: Any = None,
        dry: bool = False,
        copy_needed: bool = False,
        cancel_id: Any = None,
    ) -> Iterator[UDFResults]:
        """Yield results after each merged partition, at least once.

        With a `cancel_id` the run can be given up through `JobExecutor.cancel`.
        """
        run = self._prepare(dataset, roi, corrections, backends, plan=not dry)
        yield from self._steps(
            run, executor, progress, cancel_id, copy_needed=copy_needed, each_partition=True
        )

    def _steps(
        self,
        run: _Run,
        executor: JobExecutor,
        progress: bool | ProgressReporter,
        cancel_id: Any,
        *,
        copy_needed: bool,
        each_partition: bool,
    ) -> Iterator[UDFResults]:
        """Results after each merge. If nobody looks at each partition, some may be merged on workers."""
        self._executor = executor
        cancel_id = uuid.uuid4().hex if cancel_id is None else cancel_id
        merged = 0
        try:
            for n_partitions in self._execute(run, executor, progress, cancel_id, each_partition):
                merged += n_partitions
                yield self._results(run, copy_needed=copy_needed)
        except JobCancelledError as err:
            raise UDFRunCancelled(f"UDF run cancelled after {merged} partitions") from err
        if merged != len(run.tasks):
            # Not a matter of users: better no result than one that lacks something.
            raise ExecutorError(f"the executor returned {merged} partitions, expected {len(run.tasks)}")
        if merged == 0:
            yield self._results(run, copy_needed=copy_needed)

    async def run_for_dataset_async(
        self, dataset: DataSet, executor: Any, cancel_id: Any, **kwargs: Any
    ) -> AsyncIterator[UDFResults]:
        """Like `run_for_dataset_sync`, stepping in a thread."""
        from libertem.common.async_utils import sync_to_async

        results = self.run_for_dataset_sync(
            dataset, executor.ensure_sync(), copy_needed=True, cancel_id=cancel_id, **kwargs
        )
        done = object()
        try:
            while (result := await sync_to_async(next, None, results, done)) is not done:
                yield result
        finally:
            await sync_to_async(results.close)  # type: ignore[attr-defined]  # it is a generator

    def _execute(
        self,
        run: _Run,
        executor: JobExecutor,
        progress: bool | ProgressReporter,
        cancel_id: Any,
        each_partition: bool,
    ) -> Iterator[int]:
        """Run all tasks; yields, after each merge, how many partitions are in it."""
        if not run.tasks:
            return
        handler = run.dataset.get_task_comm_handler()
        reporter = self._progress_reporter if progress is True else None
        reporter = make_reporter(progress) if reporter is None else reporter
        follower = None
        if reporter is not None:
            frames = {
                task.partition.get_ident(): task.partition.get_frame_count(run.roi) for task in run.tasks
            }
            follower = RunProgress(reporter, frames)
            handler.subscribe(PROGRESS_TOPIC, follower.on_message)
            for udf_task in run.tasks:
                udf_task.progress = True
        tasks: Sequence[UDFTask | TaskGroup] = run.tasks
        if not each_partition:
            tasks = group_tasks(self._udfs, run.tasks, executor.merging_workers)
        try:
            with executor.scatter(run.params) as handle:
                self._params_handle = handle
                handler.start()
                try:
                    results = executor.run_tasks(tasks, handle, cancel_id, handler)
                    try:
                        for result, task in results:
                            self._merge(run, result)
                            members = getattr(task, "members", [task])
                            if follower is not None:
                                for member in members:
                                    follower.finish(member.get_partition().get_ident())
                            yield len(members)
                    finally:
                        _close(results)
                finally:
                    handler.done()
        finally:
            self._params_handle = None
            if follower is not None:
                follower.end()

    def _merge(self, run: _Run, result: UDFTaskResult) -> None:
        start = result.part_slice.origin[0]
        stop = start + result.part_slice.shape[0]
        for i, udf in enumerate(self._udfs):
            udf.meta.set_valid_nav_mask(run.damage.raw_data)
            udf._merge_frames(start, stop, result.merge_source(i))
        run.damage.raw_data[start:stop] = True

    def _results(self, run: _Run, *, copy_needed: bool) -> UDFResults:
        valid = run.damage.raw_data

        def compute() -> tuple[UDFResultDict, ...]:
            return tuple(collect_results(udf, valid, copy_needed=copy_needed) for udf in self._udfs)

        return UDFResultsLazy(compute, run.damage)

    def update_parameters_experimental(self, changes: Sequence[Mapping[str, Any]]) -> None:
        """Change parameters of the UDFs during a run; tasks that start later see the new ones.

        Parameters
        ----------
        changes : list of dict
            One per UDF; empty where nothing changes.
        """
        if len(changes) != len(self._udfs):
            raise ValueError(f"need one dict per UDF, found {len(changes)} for {len(self._udfs)} UDFs")
        for udf, change in zip(self._udfs, changes, strict=True):
            # Also for the tasks of a run that has not begun, and for later runs of the same instance.
            udf._kwargs = {**udf._kwargs, **change}
            udf.params = UDFData(udf._kwargs)
            if change:
                udf._shared = Shared()
        if self._executor is not None and self._params_handle is not None:
            self._executor.scatter_update_patch(self._params_handle, changes)


def _check_method(udf: UDF) -> None:
    method = udf.get_method()
    if not isinstance(method, UDFMethod):
        raise UDFException("UDF.get_method() returned unrecognized value")
    name = f"process_{method.value}"
    if not hasattr(udf, name):
        raise UDFException(f"UDF declared method {method} but does not implement {name}")


def _close(results: Any) -> None:
    close = getattr(results, "close", None)
    if close is not None:
        close()
