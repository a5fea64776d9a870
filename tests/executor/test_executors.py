"""What all executors promise."""

from __future__ import annotations

import asyncio
import gc
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from libertem.api import Context
from libertem.common.executor import JobCancelledError, JobExecutor
from libertem.common.progress import ProgressReporter
from libertem.exceptions import UDFRunCancelled
from libertem.udf import UDF
from libertem.udf.noop import NoOpUDF
from libertem.udf.sumsigudf import SumSigUDF


class Frames(UDF):
    """Calls the function `f` with the number of each frame, and keeps what it returns."""

    def get_result_buffers(self) -> dict[str, Any]:
        return {"n": self.buffer(kind="nav", dtype="float64")}

    def process_frame(self, frame: Any) -> None:
        self.results.n[:] = self.params.f(int(frame[0, 0]))


def assert_usable(executor: Any, ds: Any) -> None:
    result = Context(executor=executor).run_udf(dataset=ds, udf=SumSigUDF())["intensity"]
    np.testing.assert_array_equal(result.raw_data, 16 * np.arange(ds.shape.nav.size))


# --- functions ---


def add(a: int, b: int = 0) -> int:
    return a + b


def test_functions_run_on_a_worker(executor: Any) -> None:
    assert executor.run_function(add, 1, b=2) == 3
    assert executor.run_function(lambda: "lambda") == "lambda"


def test_map_keeps_the_order(executor: Any) -> None:
    assert list(executor.map(lambda i: i * i, range(20))) == [i * i for i in range(20)]


def test_functions_run_once_per_host_and_worker(executor: Any) -> None:
    assert executor.run_each_host(add, 1, b=2) == {"localhost": 3}
    names = executor.get_available_workers().names()
    assert executor.run_each_worker(add, 1, b=2) == dict.fromkeys(names, 3)


def test_errors_of_functions_arrive(executor: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        executor.run_function(lambda: 1 / 0)


def test_objects_are_distributed_and_changed(executor: Any) -> None:
    class Patched:
        value = 1

        def patch(self, change: int) -> None:
            self.value += change

    with executor.scatter(Patched()) as handle:
        executor.scatter_update_patch(handle, 5)
        assert handle.value == 6


def test_adapters_lead_to_each_other(executor: Any) -> None:
    assert isinstance(executor, JobExecutor)
    assert executor.ensure_sync() is executor
    asynchronous = executor.ensure_async()
    assert asynchronous.ensure_sync() is executor
    assert asynchronous.ensure_async() is asynchronous
    assert asynchronous.get_udf_runner() is executor.get_udf_runner()


def test_methods_can_be_awaited(executor: Any) -> None:
    async def main() -> None:
        with ThreadPoolExecutor(1) as pool:
            for asynchronous in (executor.ensure_async(), executor.ensure_async(pool)):
                assert await asynchronous.run_function(add, 1, b=2) == 3
                assert await asynchronous.map(abs, [-1, 2]) == [1, 2]
                assert await asynchronous.run_each_host(add, 1) == {"localhost": 1}
                workers = await asynchronous.get_available_workers()
                assert workers == executor.get_available_workers()
                assert await asynchronous.run_each_worker(add, 1) == dict.fromkeys(workers.names(), 1)
                await asynchronous.cancel("nothing")
            await asynchronous.close()

    asyncio.run(main())


def test_buffers_are_left_as_they_are(executor: Any) -> None:
    buffer = object()
    assert executor.modify_buffer_type(buffer) is buffer


# --- errors ---


class Special(Exception):
    """An exception of a user."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(number, text)
        self.number = number


def fail_at_four(i: int) -> int:
    if i == 4:
        raise Special(4, "the line of the user")
    return i


def test_exceptions_keep_type_content_and_traceback(executor: Any, make_ds: Any) -> None:
    ds = make_ds()
    with pytest.raises(Special) as caught:
        Context(executor=executor).run_udf(dataset=ds, udf=Frames(f=fail_at_four))
    assert caught.value.number == 4
    assert caught.value.args == (4, "the line of the user")
    lines = "".join(traceback.format_tb(caught.tb))
    assert 'raise Special(4, "the line of the user")' in lines
    assert "process_frame" in lines
    assert_usable(executor, ds)


def test_work_is_abandoned_after_an_error(executor: Any, make_ds: Any) -> None:
    seen: list[int] = []

    def f(i: int) -> int:
        seen.append(i)
        if i == 0:
            raise ValueError("boom 0")
        return i

    ds = make_ds(n_frames=60, num_partitions=60)
    with pytest.raises(ValueError, match="boom 0"):
        Context(executor=executor).run_udf(dataset=ds, udf=Frames(f=f))
    assert len(seen) < 60
    assert_usable(executor, ds)


# --- cancellation ---


def test_a_cancelled_partition_ends_the_run(executor: Any, make_ds: Any) -> None:
    def f(i: int) -> int:
        if i == 5:
            raise JobCancelledError("the source dried up")
        return i

    ds = make_ds(num_partitions=6)
    with pytest.raises(UDFRunCancelled, match=r"^UDF run cancelled after \d partitions$") as caught:
        Context(executor=executor).run_udf(dataset=ds, udf=Frames(f=f))
    assert isinstance(caught.value.__cause__, JobCancelledError)
    assert_usable(executor, ds)


def test_closing_an_iteration_stops_submitting_tasks(executor: Any, make_ds: Any) -> None:
    seen: list[int] = []
    ds = make_ds(n_frames=60, num_partitions=60)
    steps = Context(executor=executor).run_udf_iter(dataset=ds, udf=Frames(f=lambda i: seen.append(i) or i))
    next(steps)
    steps.close()
    n_seen = len(seen)
    assert n_seen < 60
    assert_usable(executor, ds)
    assert len(seen) == n_seen


def test_leaving_the_loop_stops_submitting_tasks(executor: Any, make_ds: Any) -> None:
    seen: list[int] = []
    ds = make_ds(n_frames=60, num_partitions=60)
    context = Context(executor=executor)
    for _ in context.run_udf_iter(dataset=ds, udf=Frames(f=lambda i: seen.append(i) or i)):
        break
    gc.collect()
    n_seen = len(seen)
    assert n_seen < 60
    assert_usable(executor, ds)
    assert len(seen) == n_seen


def test_cancelling_what_does_not_run_does_nothing(executor: Any, make_ds: Any) -> None:
    executor.cancel("nothing")
    assert_usable(executor, make_ds())


def test_runs_can_be_nested_with_other_udfs(executor: Any, make_ds: Any) -> None:
    ds = make_ds(num_partitions=3)
    sums = []
    for step in Context(executor=executor).run_udf_iter(dataset=ds, udf=SumSigUDF()):
        assert_usable(executor, ds)
        sums.append(step.buffers[0]["intensity"].raw_data.sum())
    assert sums[-1] == 16 * 15


# --- progress ---


class Recorder(ProgressReporter):
    def __init__(self) -> None:
        self.calls: list[Any] = []

    def start(self, state: Any) -> None:
        self.calls.append(("start", *state))

    def update(self, state: Any) -> None:
        self.calls.append(("update", *state))

    def end(self, state: Any) -> None:
        self.calls.append(("end", *state))


def test_progress_covers_the_run_once(executor: Any, make_ds: Any) -> None:
    reporter = Recorder()
    Context(executor=executor).run_udf(
        dataset=make_ds(num_partitions=3), udf=[SumSigUDF(), Frames(f=float)], progress=reporter
    )
    events = [call[0] for call in reporter.calls]
    assert events == ["start", *["update"] * (len(events) - 2), "end"]
    assert reporter.calls[0][1:6] == (0, 6, 0, 0, 3)
    assert reporter.calls[-1][1:6] == (6, 6, 3, 0, 3)
    assert len({call[6] for call in reporter.calls}) == 1
    for before, after in zip(reporter.calls, reporter.calls[1:], strict=False):
        assert after[1] >= before[1]
        assert after[3] >= before[3]
    for _, _, _, done, running, total, _ in reporter.calls:
        # What waits to be merged still counts as running.
        assert 0 <= running <= total - done


def test_progress_counts_only_the_roi(executor: Any, make_ds: Any) -> None:
    reporter = Recorder()
    ds = make_ds(num_partitions=3)
    Context(executor=executor).run_udf(dataset=ds, udf=SumSigUDF(), roi=np.arange(6) < 3, progress=reporter)
    assert reporter.calls[-1][1:6] == (3, 3, 2, 0, 2)


def test_progress_ends_after_errors_too(executor: Any, make_ds: Any) -> None:
    reporter = Recorder()
    with pytest.raises(Special):
        Context(executor=executor).run_udf(dataset=make_ds(), udf=Frames(f=fail_at_four), progress=reporter)
    assert reporter.calls[-1][0] == "end"
    assert [call[0] for call in reporter.calls].count("end") == 1


def test_a_progress_bar_can_be_shown(executor: Any, make_ds: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Context(executor=executor).run_udf(dataset=make_ds(), udf=NoOpUDF(), progress=True)
    assert "Partitions 2/2, Frames" in capsys.readouterr().err


# --- life cycle ---


def test_an_executor_can_be_closed_twice_and_used_with_with(executor: Any) -> None:
    with executor as entered:
        assert entered is executor
    executor.close()
    executor.close()


def test_the_runner_can_be_asked_for(executor: Any, make_ds: Any) -> None:
    result = executor.get_udf_runner().dry_run([SumSigUDF()], make_ds(), None)
    assert not result.damage.data.any()
