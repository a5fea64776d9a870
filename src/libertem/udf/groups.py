"""Merge the results of several partitions on the worker that has made them.

The main process then receives a few results per worker, rather than one per partition. What a user wrote
never runs there: only merging that is marked `associative` here, and the default that copies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from libertem.common.shape import Shape
from libertem.common.slice import Slice
from libertem.udf.contract import UDF
from libertem.udf.data import UDFData
from libertem.udf.meta import UDFMeta
from libertem.udf.progress import PROGRESS_TOPIC
from libertem.udf.task import UDFParams, UDFTask, UDFTaskResult

if TYPE_CHECKING:
    from libertem.executor.base import Environment
    from libertem.io.dataset.base.partition import Partition

__all__ = ["TaskGroup", "associative", "group_tasks"]

F = TypeVar("F", bound=Callable[..., None])

SHARES = (4, 4, 2, 2, 1, 1, 1, 1)
"""Sizes of the groups of one worker, relative to each other; small ones last, to end together."""

FEW_SHARES = (3, 1)
"""The same if results are so large that they, rather than the last tasks, would be waited for."""

MAX_RESULT_BYTES = 4 << 30
"""Results of a run that the main process gets in groups of `SHARES`: some seconds, see docs/scaling.md."""

MAX_NAV_BYTES = 1 << 26
"""Results per frame are not merged but collected; a worker does not collect more than this."""


def associative(merge: F) -> F:
    """Mark a method `UDF.merge` of this library that gives the same result however partitions are grouped.

    It must use nothing but `dest` and `src`. A subclass that overrides the method loses the mark.
    """
    merge._is_associative = True  # type: ignore[attr-defined]  # that is the mark
    return merge


def _may_move(udf: UDF) -> bool:
    kinds = {buffer.kind for buffer in udf.get_result_buffers().values() if buffer.use != "result_only"}
    merge = type(udf).merge
    if "merge" in vars(udf):
        return False
    return getattr(merge, "_is_associative", False) or (merge is UDF.merge and kinds <= {"nav"})


def group_tasks(
    udfs: Sequence[UDF], tasks: Sequence[UDFTask], n_workers: Callable[[], int | None]
) -> Sequence[UDFTask | TaskGroup]:
    """Put tasks together whose results may be merged on workers.

    Parameters
    ----------
    udfs : sequence of UDF
        On the main process, with buffers for the whole data set.
    tasks : sequence of UDFTask
        In the order of their partitions.
    n_workers : callable
        How many of them; None if results stay as they are. Asked only if it matters.
    """
    buffers = [buffer for udf in udfs for _, buffer in udf.results._buffers()]
    if not any(buffer.kind != "nav" for buffer in buffers) or not all(_may_move(udf) for udf in udfs):
        return tasks
    workers = n_workers()
    if workers is None:
        return tasks
    nav_bytes = sum(buffer.raw_data.nbytes for buffer in buffers if buffer.kind == "nav")
    per_group = sum(buffer.raw_data.nbytes for buffer in buffers if buffer.kind != "nav")
    shares = SHARES if per_group * workers * len(SHARES) <= MAX_RESULT_BYTES else FEW_SHARES
    # More and smaller groups, if what they collect would be large.
    workers = max(1, workers, -(-nav_bytes * max(shares) // (MAX_NAV_BYTES * sum(shares))))
    return [
        TaskGroup(list(tasks[start:stop])) if stop - start > 1 else tasks[start]
        for start, stop in _cut(len(tasks), workers, shares)
    ]


def _cut(n_tasks: int, n_workers: int, shares: Sequence[int]) -> list[tuple[int, int]]:
    """Consecutive ranges that cover all tasks, none of them empty; a few per worker."""
    units = [share for share in shares for _ in range(n_workers)]
    ranges = []
    start = done = 0
    for unit in units:
        done += unit
        stop = n_tasks * done // sum(units)
        if stop > start:
            ranges.append((start, stop))
            start = stop
    return ranges


@dataclass
class TaskGroup:
    """Process consecutive partitions one after the other, and merge their results."""

    members: list[UDFTask]
    """In the order of their partitions."""

    idx: int = field(init=False)
    """Number of the first member."""

    def __post_init__(self) -> None:
        self.idx = self.members[0].idx

    def get_partition(self) -> Partition:
        """The first one."""
        return self.members[0].get_partition()

    def get_resources(self) -> Mapping[str, int]:
        """Resources that a worker has to offer."""
        return self.members[0].get_resources()

    def __call__(self, params: UDFParams, env: Environment) -> UDFTaskResult:
        """Process the partitions."""
        slices = [task.partition.slice.adjust_for_roi(params.roi) for task in self.members]
        start, n_frames = slices[0].origin[0], sum(part.shape[0] for part in slices)
        shape = Shape((n_frames, *slices[0].shape.sig), sig_dims=slices[0].shape.sig.dims)
        udfs = [self._make_udf(i, params, shape) for i in range(len(params.udfs))]
        for task, part in zip(self.members, slices, strict=True):
            result = task(params, env)
            first = part.origin[0] - start
            for i, udf in enumerate(udfs):
                udf._merge_frames(first, first + part.shape[0], result.merge_source(i))
            if task.progress and env.worker_context is not None:
                news = {"event": "frames", "frames": float(part.shape[0])}
                env.worker_context.signal(task.partition.get_ident(), PROGRESS_TOPIC, news)
        arrays = [{name: buffer.raw_data for name, buffer in udf.results._buffers()} for udf in udfs]
        return UDFTaskResult(arrays, Slice(slices[0].origin, shape))

    def _make_udf(self, i: int, params: UDFParams, shape: Shape) -> UDF:
        """A UDF as on the main process, with buffers for all members."""
        udf = self.members[0].udf_classes[i](**params.udfs[i].kwargs)
        udf.meta = UDFMeta(
            dataset_shape=self.get_partition().meta.shape,
            dataset_dtype=params.dataset_dtype,
            input_dtype=params.input_dtype,
            roi=params.roi,
            corrections=params.corrections,
        )
        buffers = udf.get_result_buffers()
        for buffer in buffers.values():
            buffer.set_shape_partition(shape)
            if buffer.use != "result_only":
                buffer.allocate()
        udf.results = UDFData(buffers)
        return udf
