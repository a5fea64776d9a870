"""Runs whose results are lazy: everything that happens after the tasks becomes part of a Dask graph.

`UDF.merge` and `UDF.get_results` see NumPy arrays, as in other runs, but when somebody computes the results,
and where. Only `UDF.merge_all` sees Dask arrays.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dask.array
import dask.config
import numpy as np
from dask.base import compute
from dask.delayed import delayed

from libertem.common.buffers import BufferWrapper
from libertem.common.slice import Slice
from libertem.udf.contract import UDF
from libertem.udf.data import MergeAttrMapping, UDFData
from libertem.udf.results import UDFResultDict, UDFResults, UDFResultsLazy, collect_results
from libertem.udf.runner import UDFRunner, _Run
from libertem.udf.task import UDFTaskResult

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.common.progress import ProgressReporter
    from libertem.executor.base import JobExecutor

__all__ = ["DelayedBufferWrapper", "DelayedUDFRunner"]

MERGED_AT_ONCE = 8
"""Results that one step merges: each step copies what is merged, each result in it waits in memory."""

Arrays = dict[str, Any]

# Dask is not typed throughout.
da: Any = dask.array
compute_all: Any = compute


class _Blueprint:
    """A UDF of the main process without its buffers, and opaque to Dask; tasks make working copies of it."""

    def __init__(self, udf: UDF) -> None:
        self._udf = copy.copy(udf)
        self._udf.results = UDFData({})

    def make(self, arrays: Mapping[str, Any] | None, valid: npt.NDArray[np.bool_]) -> UDF:
        """A copy with `arrays` as content of its buffers, zeros by default; they are not copied."""
        udf = copy.copy(self._udf)
        udf.meta = copy.copy(udf.meta)
        udf.meta.set_valid_nav_mask(valid)
        buffers = udf.get_result_buffers()
        for name, buffer in buffers.items():
            buffer.set_shape_ds(udf.meta.dataset_shape, udf.meta.roi)
            if buffer.use == "result_only":
                continue
            if arrays is None:
                buffer.allocate()
            else:
                buffer.set_data(np.asarray(arrays[name]))
        udf.results = UDFData(buffers)
        return udf


class _Spans:
    """Which frames, on the compressed navigation axis, were merged in which order. Opaque to Dask."""

    def __init__(
        self, n_frames: int, before: Sequence[tuple[int, int]], now: Sequence[tuple[int, int]]
    ) -> None:
        self._n_frames = n_frames
        self._before = list(before)
        self.now = list(now)

    def valid(self) -> npt.NDArray[np.bool_]:
        """What was merged before."""
        mask = np.zeros(self._n_frames, dtype=bool)
        for start, stop in self._before:
            mask[start:stop] = True
        return mask


def _merge_step(
    blueprint: _Blueprint, idx: int, state: Arrays | None, results: Sequence[UDFTaskResult], spans: _Spans
) -> Arrays:
    """Merge results of UDF number `idx` into a copy of `state`."""
    valid = spans.valid()
    # Others may use `state` too, for an intermediate result.
    arrays = None if state is None else {name: np.array(array) for name, array in state.items()}
    udf = blueprint.make(arrays, valid)
    for result, (start, stop) in zip(results, spans.now, strict=True):
        udf._merge_frames(start, stop, result.merge_source(idx))
        valid[start:stop] = True
    return {name: buffer.raw_data for name, buffer in udf.results._buffers()}


def _pick(result: UDFTaskResult, idx: int, name: str) -> Any:
    return result.arrays[idx][name]


def _collect(blueprint: _Blueprint, state: Arrays | None, spans: _Spans) -> UDFResultDict:
    """Final results of a UDF."""
    valid = spans.valid()
    return collect_results(blueprint.make(state, valid), valid, copy_needed=False)


def _raw(results: UDFResultDict, name: str) -> Any:
    """Content in the declared shape, also if the UDF has supplied positions outside of the ROI."""
    buffer = results[name]
    raw = buffer.raw_data
    if raw.shape != buffer.shape:
        assert buffer._roi is not None
        return raw[buffer._roi]
    return raw


def _full(results: UDFResultDict, name: str) -> Any:
    return results[name].data


class _Outcome:
    """All results of a run; computed together when the first one is asked for, and kept."""

    def __init__(self, lazy: Sequence[Any]) -> None:
        self.lazy = list(lazy)
        self._computed: tuple[UDFResultDict, ...] | None = None

    def compute(self) -> tuple[UDFResultDict, ...]:
        """Computed results of all UDFs."""
        if self._computed is None:
            self._computed = compute_all(*self.lazy)
        return self._computed

    def get(self, idx: int) -> UDFResultDict:
        """Computed results of UDF number `idx`."""
        return self.compute()[idx]


class DelayedBufferWrapper(BufferWrapper):
    """A result that is computed when somebody asks for its content.

    Parameters
    ----------
    declared : BufferWrapper
        The declaration, with its shape set.
    outcome : object
        Where the content comes from.
    idx : int
        Number of the UDF.
    name : str
        Of the buffer.
    merged : dask array, optional
        The same as `outcome`, for results that need not pass through `UDF.get_results`.
    """

    def __init__(
        self, declared: BufferWrapper, outcome: _Outcome, idx: int, name: str, merged: Any = None
    ) -> None:
        super().__init__(declared.kind, declared.extra_shape, declared.dtype, declared.where, declared.use)
        self._ds_shape = declared._ds_shape
        self._roi = declared._roi
        self._shape = declared.shape
        self._outcome = outcome
        self._idx = idx
        self._name = name
        self._merged = merged

    @property
    def delayed_raw_data(self) -> Any:
        """Dask array with a flat navigation axis that holds only the ROI."""
        if self._merged is not None:
            return self._merged
        raw = delayed(_raw, pure=False)(self._outcome.lazy[self._idx], self._name)
        return da.from_delayed(raw, shape=self.shape, dtype=self.dtype)

    @property
    def delayed_data(self) -> Any:
        """Dask array in the shape of the data set."""
        if self.kind != "nav" or self._ds_shape is None:
            return self.delayed_raw_data
        shape = self._ds_shape.nav.to_tuple() + self.extra_shape
        if self._roi is None and self._merged is not None:
            return self._merged.reshape(shape)
        full = delayed(_full, pure=False)(self._outcome.lazy[self._idx], self._name)
        return da.from_delayed(full, shape=shape, dtype=self.dtype)

    def _computed(self) -> BufferWrapper:
        return self._outcome.get(self._idx)[self._name]

    @property
    def raw_data(self) -> npt.NDArray[Any]:
        """Content with a flat navigation axis that holds only the ROI; computed now."""
        return self._computed().raw_data

    @property
    def data(self) -> npt.NDArray[Any]:
        """Content in the shape of the data set; computed now."""
        return self._computed().data

    @property
    def valid_mask(self) -> npt.NDArray[np.bool_]:
        """Which elements of `data` come from processed frames; computed now."""
        return self._computed().valid_mask

    @property
    def _raw_valid(self) -> npt.NDArray[np.bool_]:
        return self._computed()._raw_valid


class _Merging:
    """Builds the part of the graph that merges the results of one UDF."""

    def __init__(self, udf: UDF, idx: int, n_frames: int) -> None:
        self._udf = udf
        self._idx = idx
        self._n_frames = n_frames
        self._blueprint = _Blueprint(udf)
        self._parts: list[tuple[Slice, Any]] = []
        self._state: Any = None
        self._n_in_state = 0
        self._whole = hasattr(udf, "merge_all") or _only_concatenates(udf)

    def add(self, part: Slice, result: Any) -> None:
        """Take the result of a task, not computed yet."""
        self._parts.append((part, result))

    def _spans(self, start: int, stop: int) -> _Spans:
        spans = [(part.origin[0], part.origin[0] + part.shape[0]) for part, _ in self._parts[:stop]]
        return _Spans(self._n_frames, spans[:start], spans[start:])

    def merged(self) -> Any:
        """What has been merged: one Dask array per buffer, or a lazy dict of arrays, or None for nothing."""
        if self._whole and self._parts:
            return self._merge_all()
        while self._n_in_state < len(self._parts):
            start, stop = self._n_in_state, min(self._n_in_state + MERGED_AT_ONCE, len(self._parts))
            results = [result for _, result in self._parts[start:stop]]
            step = delayed(_merge_step, pure=False)
            self._state = step(self._blueprint, self._idx, self._state, results, self._spans(start, stop))
            self._n_in_state = stop
        return self._state

    def _merge_all(self) -> Arrays:
        parts = sorted(self._parts, key=lambda part: part[0].origin[0])
        declared: dict[str, Any] = dict(self._udf.results._buffers())
        lazy = {part: MergeAttrMapping(self._arrays(part, result, declared)) for part, result in parts}
        # A run that is looked at half-way has only the first partitions.
        if hasattr(self._udf, "merge_all"):
            return _checked(self._udf.merge_all(ordered_results=lazy), declared)
        merged = {name: da.concatenate([getattr(one, name) for one in lazy.values()]) for name in declared}
        return {name: _padded(array, declared[name].shape) for name, array in merged.items()}

    def _arrays(self, part: Slice, result: Any, declared: Mapping[str, Any]) -> Arrays:
        pick = delayed(_pick, pure=False)
        arrays = {}
        for name, buffer in declared.items():
            shape = (part.shape[0], *buffer.extra_shape) if buffer.kind == "nav" else buffer.shape
            arrays[name] = da.from_delayed(pick(result, self._idx, name), shape=shape, dtype=buffer.dtype)
        return arrays

    def results(self) -> tuple[Any, Arrays]:
        """The final results, lazy, and the arrays in them that need no `UDF.get_results`."""
        merged = self.merged()
        spans = self._spans(len(self._parts), len(self._parts))
        # Fusing would copy tasks into the graph of this UDF, away from others that need them too.
        with dask.config.set({"optimization.fuse.active": False}):
            collected = delayed(_collect, pure=False)(self._blueprint, merged, spans)
        plain = isinstance(merged, dict) and type(self._udf).get_results is UDF.get_results
        return collected, merged if plain else {}


def _only_concatenates(udf: UDF) -> bool:
    kinds = {buffer.kind for _, buffer in udf.results._buffers()}
    return type(udf).merge is UDF.merge and "merge" not in vars(udf) and kinds == {"nav"}


def _padded(array: Any, shape: tuple[int, ...]) -> Any:
    missing = shape[0] - array.shape[0]
    if not missing:
        return array
    return da.concatenate([array, da.zeros((missing, *shape[1:]), dtype=array.dtype)])


def _checked(merged: Mapping[str, Any], declared: Mapping[str, Any]) -> Arrays:
    """What `merge_all` returned, with zeros for what it left out.

    Raises
    ------
    ValueError
        If it is not what `get_result_buffers` declares.
    """
    unknown = sorted(set(merged) - set(declared))
    if unknown:
        raise ValueError(f"merge_all returned {unknown}, which get_result_buffers does not declare")
    arrays = {}
    for name, buffer in declared.items():
        array = merged.get(name)
        if array is None:
            array = da.zeros(buffer.shape, dtype=buffer.dtype)
        if tuple(array.shape) != tuple(buffer.shape) or array.dtype != buffer.dtype:
            raise ValueError(
                f"merge_all returned '{name}' with shape {array.shape} and dtype {array.dtype}, "
                f"expected {buffer.shape} and {buffer.dtype}"
            )
        arrays[name] = array
    return arrays


def _has_results(udf: UDF) -> bool:
    return any(buffer.use != "private" for buffer in udf.get_result_buffers().values())


class DelayedUDFRunner(UDFRunner):
    """Runs UDFs with lazy results. Messages about progress are not sent: nothing happens yet.

    Except if there is a UDF without results, which writes a file, say: nobody could ask for it later. The run
    is then computed when it ends.
    """

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
        n_frames = run.damage.raw_data.shape[0]
        mergings = [_Merging(udf, i, n_frames) for i, udf in enumerate(self._udfs)]

        def results(*, is_complete: bool) -> UDFResults:
            found = [merging.results() for merging in mergings]
            outcome = _Outcome([lazy for lazy, _ in found])
            if is_complete and not all(_has_results(udf) for udf in self._udfs):
                outcome.compute()
            return UDFResultsLazy(
                lambda: tuple(_wrap(udf, outcome, i, found[i][1]) for i, udf in enumerate(self._udfs)),
                run.damage,
            )

        n_done = 0
        handler = run.dataset.get_task_comm_handler()
        with executor.scatter(run.params) as handle:
            for result, task in executor.run_tasks(run.tasks, handle, cancel_id, handler):
                part = task.get_partition().slice.adjust_for_roi(run.roi)
                run.damage.raw_data[part.origin[0] : part.origin[0] + part.shape[0]] = True
                for merging in mergings:
                    merging.add(part, result)
                n_done += 1
                if each_partition:
                    yield results(is_complete=n_done == len(run.tasks))
        if not each_partition or not run.tasks:
            yield results(is_complete=True)


def _wrap(udf: UDF, outcome: _Outcome, idx: int, merged: Arrays) -> dict[str, BufferWrapper]:
    buffers: dict[str, BufferWrapper] = {}
    for name, declared in udf.get_result_buffers().items():
        if declared.use == "private":
            continue
        declared.set_shape_ds(udf.meta.dataset_shape, udf.meta.roi)
        buffers[name] = DelayedBufferWrapper(declared, outcome, idx, name, merged.get(name))
    return buffers
