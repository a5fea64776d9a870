"""Lazy results."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest

from libertem.api import Context
from libertem.executor.delayed import DelayedJobExecutor
from libertem.executor.inline import InlineJobExecutor
from libertem.udf import UDF
from libertem.udf.com import CoMUDF
from libertem.udf.masks import ApplyMasksUDF
from libertem.udf.raw import PickUDF
from libertem.udf.stddev import StdDevUDF
from libertem.udf.sum import SumUDF
from libertem.udf.sumsigudf import SumSigUDF

FRAMES = np.random.default_rng(5).random((4, 5, 6, 7)).astype(np.float32)
ROIS = [None, np.arange(20).reshape(4, 5) % 3 == 0, np.zeros((4, 5), dtype=bool)]


@pytest.fixture
def ctx() -> Iterator[Context]:
    with Context.make_with("delayed") as made:
        yield made


@pytest.fixture
def ds(ctx: Context) -> Any:
    return ctx.load("memory", data=FRAMES, sig_dims=2, num_partitions=3)


@pytest.fixture(autouse=True)
def few_threads() -> Iterator[None]:
    with dask.config.set(scheduler="threads", num_workers=2):
        yield


class Both(UDF):
    """Merges results of two kinds, and takes parameters that are cut like the frames."""

    def get_result_buffers(self) -> dict[str, Any]:
        return {
            "per_frame": self.buffer(kind="nav", extra_shape=(2,), dtype="float64"),
            "total": self.buffer(kind="sig", dtype="float64"),
            "merged_before": self.buffer(kind="single", dtype="int64"),
        }

    def process_frame(self, frame: Any) -> None:
        self.results.per_frame[:] = frame.sum(), self.params.weight[0]
        self.results.total += frame

    def merge(self, dest: Any, src: Any) -> None:
        dest.per_frame[:, 0] = src.per_frame[:, 0]
        dest.per_frame[:, 1] = self.params.weight
        dest.total += src.total
        dest.merged_before[:] += np.count_nonzero(self.meta.get_valid_nav_mask())

    def get_results(self) -> Any:
        return {
            "per_frame": self.results.per_frame,
            "total": self.results.total / 2,
            "merged_before": self.results.merged_before,
        }


def make_udfs() -> list[UDF]:
    weight = Both.aux_data(np.arange(20, dtype=np.float32), kind="nav")
    masks = [SumSigUDF(), ApplyMasksUDF(mask_factories=[lambda: np.ones((6, 7))]), CoMUDF(), PickUDF()]
    return [SumUDF(), StdDevUDF(), Both(weight=weight), *masks]


@pytest.mark.parametrize("roi", ROIS)
def test_results_equal_those_of_the_inline_executor(ctx: Context, ds: Any, roi: Any) -> None:
    with Context(executor=InlineJobExecutor()) as inline:
        expected = inline.run_udf(dataset=ds, udf=make_udfs(), roi=roi)
    for found, wanted in zip(ctx.run_udf(dataset=ds, udf=make_udfs(), roi=roi), expected, strict=True):
        assert list(found) == list(wanted)
        for name in wanted:
            for kind in ("data", "raw_data"):
                lazy, right = getattr(found[name], f"delayed_{kind}"), getattr(wanted[name], kind)
                assert isinstance(lazy, da.Array)
                assert (lazy.shape, lazy.dtype) == (right.shape, right.dtype)
                np.testing.assert_allclose(lazy.compute(), right, rtol=1e-6)
                assert type(getattr(found[name], kind)) is np.ndarray
                np.testing.assert_allclose(getattr(found[name], kind), right, rtol=1e-6)
            np.testing.assert_array_equal(found[name].valid_mask, wanted[name].valid_mask)
            np.testing.assert_array_equal(found[name].masked_data.mask, wanted[name].masked_data.mask)


class Calls(UDF):
    """Results per frame that need neither merging nor `get_results`."""

    def get_result_buffers(self) -> dict[str, Any]:
        return {"n": self.buffer(kind="nav", dtype="float64")}

    def process_frame(self, frame: Any) -> None:
        self.params.f(frame)
        self.results.n[:] = frame.sum()


def test_nothing_happens_before_somebody_computes(ctx: Context, ds: Any) -> None:
    seen: list[Any] = []
    result = ctx.run_udf(dataset=ds, udf=Calls(f=seen.append))["n"]
    assert result.delayed_data.shape == (4, 5)
    assert seen == []
    np.testing.assert_allclose(result.data, FRAMES.sum(axis=(2, 3)), rtol=1e-6)
    assert len(seen) == 20
    result.raw_data  # noqa: B018  # computed already
    assert len(seen) == 20


def test_only_those_partitions_are_read_that_are_needed(ctx: Context, ds: Any) -> None:
    seen: list[Any] = []
    result = ctx.run_udf(dataset=ds, udf=Calls(f=seen.append))["n"]
    first = result.delayed_raw_data[0].compute()
    np.testing.assert_allclose(first, FRAMES[0, 0].sum(), rtol=1e-6)
    assert len(seen) == 6


def test_all_udfs_of_a_run_are_computed_in_one_pass(ctx: Context, ds: Any) -> None:
    seen: list[Any] = []
    counted, total, _ = ctx.run_udf(dataset=ds, udf=[Calls(f=seen.append), SumUDF(), MergeAll()])
    np.testing.assert_allclose(total["intensity"].data, FRAMES.sum(axis=(0, 1)), rtol=1e-6)
    np.testing.assert_allclose(counted["n"].data, FRAMES.sum(axis=(2, 3)), rtol=1e-6)
    assert len(seen) == 20


def test_the_scheduler_of_the_caller_computes(ctx: Context, ds: Any) -> None:
    seen: set[str] = set()
    udf = Calls(f=lambda frame: seen.add(threading.current_thread().name))
    result = ctx.run_udf(dataset=ds, udf=udf)["n"]
    with dask.config.set(scheduler="synchronous"):
        np.testing.assert_allclose(result.data, FRAMES.sum(axis=(2, 3)), rtol=1e-6)
    assert seen == {threading.current_thread().name}


def test_tasks_use_one_thread_each(ctx: Context, ds: Any) -> None:
    class Threads(Calls):
        def process_frame(self, frame: Any) -> None:
            self.results.n[:] = self.meta.threads_per_worker

    assert set(ctx.run_udf(dataset=ds, udf=Threads(f=None))["n"].raw_data) == {1}


def test_errors_appear_when_somebody_computes(ctx: Context, ds: Any) -> None:
    def fail(frame: Any) -> None:
        raise ValueError("boom")

    result = ctx.run_udf(dataset=ds, udf=Calls(f=fail))["n"]
    with pytest.raises(ValueError, match="boom"):
        _ = result.data
    with pytest.raises(ValueError, match="boom"):
        result.delayed_data.compute()


class Writes(UDF):
    """Has no results that anybody could ask for."""

    def get_result_buffers(self) -> dict[str, Any]:
        return {"seen": self.buffer(kind="nav", use="private")} if self.params.with_private else {}

    def process_frame(self, frame: Any) -> None:
        self.params.sums.append(float(frame.sum()))


@pytest.mark.parametrize("with_private", [False, True])
def test_udfs_without_results_run_at_once_and_once(ctx: Context, ds: Any, with_private: bool) -> None:
    sums: list[float] = []
    udfs = [Writes(sums=sums, with_private=with_private), SumSigUDF()]
    *_, last = ctx.run_udf_iter(dataset=ds, udf=udfs)
    expected = FRAMES.sum(axis=(2, 3)).ravel()
    assert len(sums) == expected.size
    np.testing.assert_allclose(sorted(sums), sorted(expected), rtol=1e-5)
    np.testing.assert_allclose(last.buffers[1]["intensity"].raw_data, expected, rtol=1e-5)
    assert len(sums) == expected.size


def test_intermediate_results_show_each_partition(ctx: Context, ds: Any) -> None:
    steps = list(ctx.run_udf_iter(dataset=ds, udf=SumUDF()))
    assert len(steps) == 3
    for step, n in zip(steps, (6, 13, 20), strict=True):
        wanted = FRAMES.reshape(20, 6, 7)[:n].sum(axis=0)
        np.testing.assert_allclose(step.buffers[0]["intensity"].data, wanted, rtol=1e-6)


# --- merge_all ---


class MergeAll(UDF):
    def __init__(self, wrong: str = "") -> None:
        super().__init__(wrong=wrong)

    def get_result_buffers(self) -> dict[str, Any]:
        return {
            "n": self.buffer(kind="nav", dtype="float64"),
            "total": self.buffer(kind="sig", dtype="float64"),
            "left_out": self.buffer(kind="single", dtype="int64"),
        }

    def process_frame(self, frame: Any) -> None:
        self.results.n[:] = frame.sum()
        self.results.total += frame

    def merge(self, dest: Any, src: Any) -> None:
        raise AssertionError("merge_all comes first")

    def merge_all(self, ordered_results: Any) -> dict[str, Any]:
        origins = [part.origin[0] for part in ordered_results]
        assert origins == sorted(origins)
        assert all(isinstance(one.n, da.Array) for one in ordered_results.values())
        merged = {
            "n": da.concatenate([one.n for one in ordered_results.values()]),
            "total": da.stack([one.total for one in ordered_results.values()]).sum(axis=0),
        }
        if self.params.wrong == "name":
            merged["what"] = merged["n"]
        if self.params.wrong == "shape":
            merged["n"] = merged["n"][1:]
        if self.params.wrong == "dtype":
            merged["n"] = merged["n"].astype("float32")
        return merged


@pytest.mark.parametrize("roi", ROIS[:2])
def test_merge_all_sees_dask_arrays_in_order(ctx: Context, ds: Any, roi: Any) -> None:
    result = ctx.run_udf(dataset=ds, udf=MergeAll(), roi=roi)
    mask = np.ones((4, 5), dtype=bool) if roi is None else roi
    np.testing.assert_allclose(result["n"].raw_data, FRAMES[mask].sum(axis=(1, 2)), rtol=1e-6)
    np.testing.assert_allclose(result["total"].delayed_data.compute(), FRAMES[mask].sum(axis=0), rtol=1e-6)
    assert result["left_out"].data.tolist() == [0]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("name", "merge_all returned .*what.*not declare"),
        ("shape", r"\(19,\).*expected \(20,\)"),
        ("dtype", "float32"),
    ],
)
def test_merge_all_is_held_to_the_declaration(ctx: Context, ds: Any, wrong: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _ = ctx.run_udf(dataset=ds, udf=MergeAll(wrong))["n"]


# --- the executor ---


def test_functions_run_here_and_now() -> None:
    executor = DelayedJobExecutor()
    assert executor.run_function(lambda a, b=0: a + b, 1, b=2) == 3
    assert list(executor.map(abs, [-1, 2])) == [1, 2]
    assert executor.run_each_host(int) == {"localhost": 0}
    assert executor.run_each_worker(int) == {"delayed": 0}
    assert executor.get_available_workers().names() == ["delayed"]


def test_resources_can_be_asked_for() -> None:
    executor = DelayedJobExecutor()
    assert executor.get_resources_from_udfs(SumUDF()) == {"compute": 1, "ndarray": 1}
    both = executor.get_resources_from_udfs([SumUDF(), CoMUDF()], user_backends=("numpy",))
    assert both == {"compute": 1, "CPU": 1, "ndarray": 1}
