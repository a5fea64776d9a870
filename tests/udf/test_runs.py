"""Iterating over a run, ending it early, changing parameters, looking without running."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from libertem.common.buffers import BufferWrapper
from libertem.exceptions import JobCancelledError, UDFException, UDFRunCancelled
from libertem.udf import UDF
from libertem.udf.noop import NoOpUDF
from libertem.udf.raw import PickUDF
from libertem.udf.results import UDFResults
from libertem.udf.runner import UDFRunner
from libertem.udf.stddev import StdDevUDF
from libertem.udf.sum import SumUDF
from libertem.udf.sumsigudf import SumSigUDF

SUMS = [[120, 376, 632], [888, 1144, 1400]]


class Value(UDF):
    """Writes its parameter `v`; multiplies by `factor` in the end."""

    def get_result_buffers(self) -> dict[str, Any]:
        return {"v": self.buffer(kind="nav", dtype="int64")}

    def process_frame(self, frame: Any) -> None:
        self.results.v[:] = self.params.v

    def get_results(self) -> Any:
        return {"v": self.results.v * self.params.get("factor", 1)}


# --- iterating ---


def test_iteration_follows_the_worked_example(inline: Any, ds: Any) -> None:
    steps = inline.run_udf_iter(dataset=ds, udf=SumSigUDF())
    first = next(steps)
    assert isinstance(first.buffers, tuple)
    (buffers,) = first.buffers
    assert first.damage.data.tolist() == [[True] * 3, [False] * 3]
    assert buffers["intensity"].data.tolist() == [SUMS[0], [0, 0, 0]]
    assert buffers["intensity"].valid_mask.tolist() == first.damage.data.tolist()
    second = next(steps)
    assert second.damage.data.all()
    assert second.buffers[0]["intensity"].data.tolist() == SUMS
    with pytest.raises(StopIteration):
        next(steps)


def test_the_last_step_is_the_result(ctx: Any, ds: Any) -> None:
    *_, last = ctx.run_udf_iter(dataset=ds, udf=[SumSigUDF(), SumUDF()])
    assert last.buffers[0]["intensity"].data.tolist() == SUMS
    assert last.buffers[1]["intensity"].data[0].tolist() == [240, 246, 252, 258]
    assert isinstance(last.damage, BufferWrapper)
    assert (last.damage.kind, last.damage.dtype) == ("nav", np.dtype(bool))


def test_the_damage_is_updated_in_place(inline: Any, ds: Any) -> None:
    steps = inline.run_udf_iter(dataset=ds, udf=SumSigUDF())
    damage = next(steps).damage
    assert damage.raw_data.sum() == 3
    next(steps)
    assert damage.raw_data.sum() == 6


def test_buffers_are_live_views(inline: Any, ds: Any) -> None:
    steps = inline.run_udf_iter(dataset=ds, udf=Live())
    buffer = next(steps).buffers[0]["n"]
    assert buffer.raw_data.sum() == 3
    next(steps)
    assert buffer.raw_data.sum() == 6


class Live(UDF):
    def get_result_buffers(self) -> dict[str, Any]:
        return {"n": self.buffer(kind="nav", dtype="int64")}

    def process_frame(self, frame: Any) -> None:
        self.results.n[:] = 1


class CountingResults(Live):
    calls = 0

    def get_results(self) -> Any:
        self.calls += 1
        return super().get_results()


def test_results_are_computed_when_asked_for_and_only_once(inline: Any, ds: Any) -> None:
    udf = CountingResults()
    for i, step in enumerate(inline.run_udf_iter(dataset=ds, udf=udf)):
        assert udf.calls == i
        assert step.buffers is step.buffers
        assert udf.calls == i + 1


def test_results_that_nobody_asks_for_are_not_computed(inline: Any, ds: Any) -> None:
    udf = CountingResults()
    for _ in inline.run_udf_iter(dataset=ds, udf=udf):
        pass
    assert udf.calls == 0


def test_nothing_happens_before_the_first_step(inline: Any, ds: Any) -> None:
    class Eager(Live):
        def preprocess(self) -> None:
            raise AssertionError("started")

    steps = inline.run_udf_iter(dataset=ds, udf=Eager())
    with pytest.raises(AssertionError, match="started"):
        next(steps)


def test_an_empty_roi_yields_one_result(ctx: Any, ds: Any) -> None:
    roi = np.zeros((2, 3), dtype=bool)
    (step,) = ctx.run_udf_iter(dataset=ds, udf=SumSigUDF(), roi=roi)
    assert step.buffers[0]["intensity"].raw_data.shape == (0,)
    assert not step.damage.data.any()


def test_a_run_can_be_closed_early(ctx: Any, ds: Any) -> None:
    steps = ctx.run_udf_iter(dataset=ds, udf=SumSigUDF())
    next(steps)
    steps.close()
    with pytest.raises(StopIteration):
        next(steps)
    assert ctx.run_udf(dataset=ds, udf=SumSigUDF())["intensity"].data.tolist() == SUMS


def test_an_exception_can_be_thrown_into_a_run(ctx: Any, ds: Any) -> None:
    steps = ctx.run_udf_iter(dataset=ds, udf=SumSigUDF())
    next(steps)
    with pytest.raises(KeyError, match="from outside"):
        steps.throw(KeyError("from outside"))
    assert ctx.run_udf(dataset=ds, udf=SumSigUDF())["intensity"].data.tolist() == SUMS


# --- parameters ---


def test_parameters_follow_the_worked_example(inline: Any, ds: Any) -> None:
    steps = inline.run_udf_iter(dataset=ds, udf=Value(v=0))
    for i, step in enumerate(steps):
        steps.update_parameters_experimental([{"v": i + 1}])
        result = step.buffers[0]["v"].data
    assert result.tolist() == [[0] * 3, [1] * 3]


def test_parameters_reach_get_results_and_other_udfs_keep_theirs(inline: Any, ds: Any) -> None:
    udfs = [Value(v=1), Value(v=2)]
    steps = inline.run_udf_iter(dataset=ds, udf=udfs)
    next(steps)
    steps.update_parameters_experimental([{"factor": 10}, {}])
    first, second = next(steps).buffers
    assert first["v"].data.tolist() == [[10] * 3] * 2
    assert second["v"].data.tolist() == [[2] * 3] * 2
    assert udfs[0]._kwargs == {"v": 1, "factor": 10}
    assert udfs[1]._kwargs == {"v": 2}


def test_parameters_can_change_before_the_first_step(ctx: Any, ds: Any) -> None:
    steps = ctx.run_udf_iter(dataset=ds, udf=Value(v=0))
    steps.update_parameters_experimental([{"v": 5}])
    *_, last = steps
    assert last.buffers[0]["v"].data.tolist() == [[5] * 3] * 2


def test_one_dict_per_udf_is_needed(inline: Any, ds: Any) -> None:
    steps = inline.run_udf_iter(dataset=ds, udf=Value(v=0))
    with pytest.raises(ValueError, match="one dict per UDF, found 2 for 1"):
        steps.update_parameters_experimental([{}, {}])


# --- looking without running ---


class MustNotRead:
    """Stands for a data set whose partitions must not be touched."""

    def __init__(self, ds: Any) -> None:
        self._ds = ds

    def __getattr__(self, name: str) -> Any:
        assert name not in ("get_partitions", "get_task_comm_handler", "get_slices")
        return getattr(self._ds, name)


def test_a_dry_run_gives_initial_results_and_reads_nothing(inline: Any, ds: Any) -> None:
    runner = inline.executor.get_udf_runner()
    udfs = [SumSigUDF(), SumUDF(), StdDevUDF(), NoOpUDF()]
    result = runner.dry_run(udfs, MustNotRead(ds), None)
    assert isinstance(result, UDFResults)
    assert not result.damage.data.any()
    sumsig, sums, stddev, noop = result.buffers
    assert sumsig["intensity"].data.tolist() == [[0] * 3] * 2
    assert not sumsig["intensity"].valid_mask.any()
    assert sums["intensity"].data.shape == (4, 4)
    assert np.isnan(stddev["mean"].data).all()
    assert noop == {}


def test_a_dry_run_respects_the_roi(ds: Any) -> None:
    result = UDFRunner.dry_run([PickUDF(), SumSigUDF()], ds, roi=(1, 2))
    assert result.buffers[0]["intensity"].data.shape == (1, 4, 4)
    assert result.buffers[1]["intensity"].raw_data.shape == (1,)


def test_a_dry_run_leaves_the_udf_of_the_user_alone(inline: Any, ds: Any) -> None:
    udf = SumSigUDF()
    inline.run_udf(dataset=ds, udf=udf)
    before = udf.results
    UDFRunner.dry_run([udf], ds)
    assert udf.results is before


def test_inspecting_shows_declared_buffers_with_shapes(ds: Any) -> None:
    buffers = UDFRunner.inspect_udf(StdDevUDF(), ds)
    assert {name: (b.kind, b.shape, b.use) for name, b in buffers.items()} == {
        "varsum": ("sig", (4, 4), None),
        "num_frames": ("single", (1,), None),
        "sum": ("sig", (4, 4), None),
        "var": ("sig", (4, 4), "result_only"),
        "std": ("sig", (4, 4), "result_only"),
        "mean": ("sig", (4, 4), "result_only"),
    }
    assert UDFRunner.inspect_udf(SumSigUDF(), ds, roi=(0, 0))["intensity"].shape == (1,)


def test_results_can_be_made_by_callers() -> None:
    damage = BufferWrapper("nav", dtype=bool)
    results = UDFResults(buffers=[{"a": damage}], damage=damage)
    assert results.buffers == ({"a": damage},)
    assert results.damage is damage


def test_a_runner_can_be_used_directly(inline: Any, ds: Any) -> None:
    result = UDFRunner([SumSigUDF()], debug=True).run_for_dataset(ds, inline.executor)
    assert result.buffers[0]["intensity"].data.tolist() == SUMS
    dry = UDFRunner([SumSigUDF()]).run_for_dataset(ds, inline.executor, dry=True)
    assert not dry.damage.data.any()


# --- errors ---


def test_an_empty_list_of_udfs_is_an_error(ctx: Any, ds: Any) -> None:
    with pytest.raises(ValueError, match="empty list of UDFs - nothing to do!"):
        ctx.run_udf(dataset=ds, udf=[])


def test_any_iterable_of_udfs_gives_a_tuple(ctx: Any, ds: Any) -> None:
    for several in ([SumSigUDF()], (SumSigUDF(),), (udf for udf in [SumSigUDF()])):
        result = ctx.run_udf(dataset=ds, udf=several)
        assert isinstance(result, tuple)
        assert result[0]["intensity"].data.tolist() == SUMS


def test_a_roi_of_the_wrong_size_is_an_error(ctx: Any, ds: Any) -> None:
    with pytest.raises(ValueError, match=r"roi: incompatible shapes: \(2, 2\) \(roi\) vs \(2, 3\)"):
        ctx.run_udf(dataset=ds, udf=SumSigUDF(), roi=np.ones((2, 2), dtype=bool))


class Failing(Live):
    def get_result_buffers(self) -> dict[str, Any]:
        self.fail("get_result_buffers")
        return super().get_result_buffers()

    def fail(self, hook: str) -> None:
        if self.meta.array_backend is not None and hook == self.params.hook:
            raise LookupError(f"in {hook}")

    def get_task_data(self) -> dict[str, Any]:
        self.fail("get_task_data")
        return {}

    def preprocess(self) -> None:
        self.fail("preprocess")

    def process_frame(self, frame: Any) -> None:
        self.fail("process_frame")

    def postprocess(self) -> None:
        self.fail("postprocess")

    def cleanup(self) -> None:
        self.fail("cleanup")


@pytest.mark.parametrize(
    "hook", ["get_result_buffers", "get_task_data", "preprocess", "process_frame", "postprocess", "cleanup"]
)
def test_errors_in_hooks_on_workers_keep_their_type_and_message(ctx: Any, ds: Any, hook: str) -> None:
    with pytest.raises(LookupError, match=f"in {hook}"):
        ctx.run_udf(dataset=ds, udf=Failing(hook=hook))
    assert ctx.run_udf(dataset=ds, udf=SumSigUDF())["intensity"].data.tolist() == SUMS


@pytest.mark.parametrize("hook", ["merge", "get_results", "preprocess"])
def test_errors_in_hooks_on_the_main_process_arrive_too(ctx: Any, ds: Any, hook: str) -> None:
    def fail(self: Any, **kwargs: Any) -> None:
        if self.meta.array_backend is None:
            raise LookupError(f"in {hook}")

    cls = type("FailsOnMain", (Live,), {hook: fail})
    with pytest.raises(LookupError, match=f"in {hook}"):
        ctx.run_udf(dataset=ds, udf=cls())
    assert ctx.run_udf(dataset=ds, udf=SumSigUDF())["intensity"].data.tolist() == SUMS


def test_a_cancelled_job_says_how_far_it_came(inline: Any, ds: Any) -> None:
    class Dried(Live):
        def process_frame(self, frame: Any) -> None:
            if self.meta.coordinates[0, 0] == 1:
                raise JobCancelledError

    with pytest.raises(UDFRunCancelled, match=r"^UDF run cancelled after 1 partitions$"):
        inline.run_udf(dataset=ds, udf=Dried())


# --- blanks ---


@pytest.mark.parametrize("sync_offset", [-2, -4])
def test_blank_positions_are_not_delivered_but_valid(
    ctx: Any, make_ds: Any, data: Any, sync_offset: int
) -> None:
    ds = make_ds(data, sync_offset=sync_offset)
    sums, stddev, counted = ctx.run_udf(dataset=ds, udf=[SumSigUDF(), StdDevUDF(), Live()])
    n = 6 + sync_offset
    flat = np.zeros(6)
    flat[-n:] = np.array(SUMS).reshape(-1)[:n]
    np.testing.assert_array_equal(sums["intensity"].data, flat.reshape((2, 3)))
    assert sums["intensity"].valid_mask.all()
    assert stddev["num_frames"].data[0] == n
    assert counted["n"].raw_data.sum() == n
    np.testing.assert_allclose(
        stddev["mean"].data, data.reshape((6, 4, 4))[:n].mean(axis=0, dtype=np.float64)
    )


def test_partitions_with_blanks_are_an_error_for_those_who_need_all_frames(
    ctx: Any, make_ds: Any, data: Any
) -> None:
    class Whole(Live):
        def process_frame(self, frame: Any) -> None:
            raise AssertionError("not this one")

        def process_partition(self, partition: Any) -> None:
            self.results.n[:] = len(partition)

        def get_method(self) -> Any:
            return self.UDF_METHOD.PARTITION

    with pytest.raises(UDFException, match="2 scan positions of this one are blank"):
        ctx.run_udf(dataset=make_ds(data, sync_offset=-2), udf=Whole())
    # Partitions without any frame are not delivered, as always.
    result = ctx.run_udf(dataset=make_ds(data, sync_offset=-3), udf=Whole())["n"]
    assert result.data.tolist() == [[0] * 3, [3] * 3]
