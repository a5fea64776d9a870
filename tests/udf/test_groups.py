"""Partitions whose results are merged where they are made."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from libertem.api import Context
from libertem.executor.inline import InlineJobExecutor
from libertem.udf import UDF
from libertem.udf import groups as module
from libertem.udf.groups import FEW_SHARES, SHARES, TaskGroup, _cut
from libertem.udf.logsum import LogsumUDF
from libertem.udf.raw import PickUDF
from libertem.udf.stddev import StdDevUDF
from libertem.udf.sum import SumUDF
from libertem.udf.sumsigudf import SumSigUDF

FRAMES = np.random.default_rng(1).random((6, 10, 3, 4)).astype(np.float32)


class Merging(InlineJobExecutor):
    """Asks for merged results, and notes the tasks of the run."""

    def __init__(self, n_workers: int = 2) -> None:
        super().__init__(debug=True)
        self._n_workers = n_workers
        self.tasks: list[Any] = []

    def merging_workers(self) -> int:
        return self._n_workers

    def run_tasks(self, tasks: Any, *args: Any) -> Any:
        self.tasks = list(tasks)
        return super().run_tasks(tasks, *args)

    def sizes(self) -> list[int]:
        return [len(getattr(task, "members", [task])) for task in self.tasks]


def run(executor: Any, udfs: list[UDF], **kwargs: Any) -> Any:
    ctx = Context(executor=executor)
    ds = ctx.load("memory", data=FRAMES, sig_dims=2, num_partitions=60)
    return ctx.run_udf(dataset=ds, udf=udfs, **kwargs)


@given(st.integers(0, 500), st.integers(1, 20), st.sampled_from([SHARES, FEW_SHARES]))
def test_groups_cover_all_tasks_once_in_order(n_tasks: int, n_workers: int, shares: Any) -> None:
    ranges = _cut(n_tasks, n_workers, shares)
    assert [i for start, stop in ranges for i in range(start, stop)] == list(range(n_tasks))
    assert all(start < stop for start, stop in ranges)
    assert len(ranges) <= len(shares) * n_workers


def test_groups_become_smaller_towards_the_end() -> None:
    sizes = [stop - start for start, stop in _cut(320, 2, SHARES)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 40
    assert sizes[-1] == 10


ROIS = [
    None,
    np.arange(60).reshape(6, 10) % 7 == 0,
    np.arange(60).reshape(6, 10) < 5,
    np.zeros((6, 10), bool),
]


@pytest.mark.parametrize("roi", ROIS)
def test_grouping_changes_no_result(roi: Any) -> None:
    def udfs() -> list[UDF]:
        return [SumUDF(), StdDevUDF(), LogsumUDF(), SumSigUDF(), PickUDF()]

    executor = Merging()
    expected = run(InlineJobExecutor(), udfs(), roi=roi)
    for found, wanted in zip(run(executor, udfs(), roi=roi), expected, strict=True):
        for name in wanted:
            assert found[name].data.dtype == wanted[name].data.dtype
            np.testing.assert_allclose(found[name].data, wanted[name].data, rtol=1e-6)
            np.testing.assert_array_equal(found[name].valid_mask, wanted[name].valid_mask)
    assert len(executor.tasks) <= 16
    assert sum(executor.sizes()) == (60 if roi is None else np.count_nonzero(roi))


def test_large_results_come_in_few_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_RESULT_BYTES", 1 << 20)
    executor = Merging()
    run(executor, [SumUDF()])
    assert len(executor.tasks) == 16
    monkeypatch.setattr(module, "MAX_RESULT_BYTES", 1 << 7)
    found = run(executor, [SumUDF()])
    assert executor.sizes() == [22, 23, 7, 8]
    np.testing.assert_allclose(found[0]["intensity"].data, FRAMES.sum(axis=(0, 1)), rtol=1e-6)


def test_a_cluster_without_workers_yet_gets_all_tasks() -> None:
    executor = Merging(n_workers=0)
    run(executor, [SumUDF()])
    assert sum(executor.sizes()) == 60


def test_results_per_frame_are_not_piled_up(monkeypatch: pytest.MonkeyPatch) -> None:
    executor = Merging()
    run(executor, [SumSigUDF()])
    assert executor.sizes() == [1] * 60
    # One frame of PickUDF takes 48 bytes: at most 3 frames to a group.
    monkeypatch.setattr(module, "MAX_NAV_BYTES", 3 * 48)
    run(executor, [SumUDF(), PickUDF()])
    assert max(executor.sizes()) <= 3
    assert sum(executor.sizes()) == 60


class OwnMerge(SumUDF):
    def merge(self, dest: Any, src: Any) -> None:
        super().merge(dest=dest, src=src)


class OwnTiles(SumUDF):
    def process_tile(self, tile: Any) -> None:
        super().process_tile(2 * tile)


def test_a_merge_of_users_is_not_moved() -> None:
    executor = Merging()
    run(executor, [OwnMerge(), SumUDF()])
    assert executor.sizes() == [1] * 60
    patched = SumUDF()
    patched.merge = lambda dest, src: SumUDF.merge(patched, dest, src)  # type: ignore[method-assign]
    run(executor, [patched])
    assert executor.sizes() == [1] * 60


def test_a_subclass_that_keeps_merge_is_grouped() -> None:
    executor = Merging()
    (result,) = run(executor, [OwnTiles()])
    np.testing.assert_allclose(result["intensity"].data, 2 * FRAMES.sum(axis=(0, 1)), rtol=1e-5)
    assert isinstance(executor.tasks[0], TaskGroup)


def test_iterating_is_not_grouped() -> None:
    ctx = Context(executor=Merging())
    ds = ctx.load("memory", data=FRAMES, sig_dims=2, num_partitions=60)
    assert len(list(ctx.run_udf_iter(dataset=ds, udf=SumUDF()))) == 60


def test_progress_counts_partitions() -> None:
    from libertem.common.progress import ProgressReporter

    states: list[Any] = []

    class Recorder(ProgressReporter):
        def start(self, state: Any) -> None:
            states.append(state)

        update = end = start

    run(Merging(), [SumUDF()], progress=Recorder())
    assert tuple(states[-1])[:5] == (60, 60, 60, 0, 60)
    frames = [state.num_frames_complete for state in states]
    assert frames == sorted(frames)
    # Also within a group: its first partition is known before the group is merged.
    assert any(state.num_frames_complete > 0 and state.num_part_complete == 0 for state in states)
