"""Processes that work on data while it arrives."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch as patched

import cloudpickle
import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libertem.api import Context
from libertem.common.executor import JobCancelledError, TaskCommHandler, WorkerQueueEmpty
from libertem.common.scheduler import Scheduler
from libertem.exceptions import ExecutorError, ResourceError, UDFRunCancelled
from libertem.executor import feed
from libertem.executor.feed import Memory, map_memory
from libertem.executor.pipelined import PipelinedExecutor
from libertem.executor.pipelined import executor as pipelined
from libertem.udf import UDF
from libertem.udf.stddev import StdDevUDF
from libertem.udf.sumsigudf import SumSigUDF

# Workers cannot import the modules of tests.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def executor() -> Iterator[PipelinedExecutor]:
    spec = PipelinedExecutor.make_spec(cpus=2, cudas=[])
    with PipelinedExecutor(spec=spec, early_setup=set_up_early) as made:
        assert isinstance(made, PipelinedExecutor)
        yield made


def set_up_early() -> None:
    os.environ["SET_UP_EARLY"] = "yes"


@pytest.fixture
def context(executor: PipelinedExecutor) -> Context:
    return Context(executor=executor)


class Calls(UDF):
    """Calls the function `f` with the UDF and the number of each frame, and keeps what it returns."""

    def get_result_buffers(self) -> dict[str, Any]:
        return {"n": self.buffer(kind="nav", dtype="float64")}

    def process_frame(self, frame: Any) -> None:
        self.results.n[:] = self.params.f(self, int(frame[0, 0]))


def assert_usable(context: Context, ds: Any) -> None:
    result = context.run_udf(dataset=ds, udf=SumSigUDF())["intensity"]
    np.testing.assert_array_equal(result.raw_data, 16 * np.arange(ds.shape.nav.size))


# --- specifications ---


def test_cuda_workers_come_first_and_names_are_unique() -> None:
    spec = PipelinedExecutor.make_spec(cpus=[3], cudas=[0, 0, 1], has_cupy=True)
    assert [entry["name"] for entry in spec] == ["cuda-0-0", "cuda-0-1", "cuda-1-0", "cpu-3"]
    assert spec[-1] == {
        "name": "cpu-3",
        "device_id": 3,
        "device_kind": "CPU",
        "worker_idx": 3,
        "has_cupy": True,
    }


def test_devices_can_be_counted() -> None:
    spec = PipelinedExecutor.make_spec(cpus=range(2), cudas=1)
    assert [entry["name"] for entry in spec] == ["cuda-0-0", "cpu-0", "cpu-1"]
    assert PipelinedExecutor.make_spec(cpus=0, cudas=[]) == []
    names = [entry["name"] for entry in PipelinedExecutor.make_spec(cpus=[0, 0], cudas=[])]
    assert len(set(names)) == 2


def test_workers_say_what_they_offer(executor: PipelinedExecutor) -> None:
    workers = executor.get_available_workers()
    assert workers.names() == ["cpu-0", "cpu-1"]
    assert workers.hosts() == {"localhost"}
    assert workers.example().resources == {"compute": 1, "CPU": 1, "ndarray": 1}
    assert Scheduler(workers).effective_worker_count() == 2


def test_all_devices_are_used_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "libertem.utils.devices.detect", lambda: {"cpus": [0], "cudas": [2], "has_cupy": False}
    )
    with PipelinedExecutor.make_local(pin_workers=False) as executor:
        assert executor.get_available_workers().names() == ["cuda-2-0", "cpu-0"]
        assert executor.run_each_worker(os.getenv, "LIBERTEM_USE_CUDA") == {
            "cuda-2-0": "2",
            "cpu-0": None,
        }
        assert executor.run_each_worker(os.getenv, "LIBERTEM_USE_CPU") == {
            "cuda-2-0": None,
            "cpu-0": "0",
        }


# --- functions ---


def test_functions_run_on_workers(executor: PipelinedExecutor) -> None:
    assert executor.run_function(divmod, 7, 2) == (3, 1)
    assert list(executor.map(lambda i: i * i, range(20))) == [i * i for i in range(20)]
    assert list(executor.map(abs, [])) == []
    assert executor.run_each_host(abs, -1) == {"localhost": 1}
    pids = executor.run_each_worker(os.getpid)
    assert list(pids) == ["cpu-0", "cpu-1"]
    assert len({*pids.values(), os.getpid()}) == 3
    with pytest.raises(ZeroDivisionError):
        executor.run_function(lambda: 1 / 0)
    with pytest.raises(ExecutorError, match="exit code 5"):
        executor.run_function(os._exit, 5)
    assert executor.run_function(abs, -1) == 1


def test_workers_are_set_up(executor: PipelinedExecutor) -> None:
    assert executor.run_function(os.getenv, "SET_UP_EARLY") == "yes"
    assert executor.run_function(os.getenv, "OMP_NUM_THREADS") == "1"


@pytest.mark.skipif(sys.platform != "linux", reason="pinning is a matter of Linux")
def test_workers_are_pinned_where_that_can_be() -> None:
    allowed = sorted(os.sched_getaffinity(0))
    spec = PipelinedExecutor.make_spec(cpus=[allowed[-1], 100_000], cudas=0)
    with PipelinedExecutor(spec=spec) as executor:
        one, other = executor.run_each_worker(os.sched_getaffinity, 0).values()
    assert one == {allowed[-1]}
    assert other == set(allowed)
    with PipelinedExecutor(spec=spec[:1], pin_workers=False) as executor:
        assert executor.run_function(os.sched_getaffinity, 0) == set(allowed)


# --- files ---


def test_results_come_in_the_order_of_partitions(context: Context, make_ds: Any) -> None:
    ds = make_ds(n_frames=12, num_partitions=12)
    n_merged = [int(step.damage.data.sum()) for step in context.run_udf_iter(dataset=ds, udf=[SumSigUDF()])]
    assert n_merged == list(range(1, 13))
    for step in context.run_udf_iter(dataset=ds, udf=SumSigUDF()):
        done = step.damage.data
        assert done[: done.sum()].all()
    assert_usable(context, ds)


def test_the_work_is_shared(context: Context, make_ds: Any) -> None:
    ds = make_ds(n_frames=12, num_partitions=12)
    pids = context.run_udf(dataset=ds, udf=Calls(f=lambda udf, i: os.getpid()))["n"].data
    assert len(set(pids)) == 2
    threads = context.run_udf(dataset=ds, udf=Calls(f=lambda udf, i: udf.meta.threads_per_worker))["n"].data
    assert set(threads) == {1}


def test_several_udfs_with_roi_and_parameters_that_change(context: Context, make_ds: Any) -> None:
    ds = make_ds(n_frames=40, num_partitions=40)
    roi = np.arange(40) % 3 > 0
    steps = context.run_udf_iter(
        dataset=ds, udf=[Calls(f=lambda udf, i: 1), StdDevUDF(), SumSigUDF()], roi=roi
    )
    next(steps)
    steps.update_parameters_experimental([{"f": lambda udf, i: 2}, {}, {}])
    *_, last = steps
    calls, std, sums = last.buffers
    assert set(calls["n"].raw_data) == {1, 2}
    assert calls["n"].raw_data[-1] == 2
    frames = np.arange(40)[roi]
    np.testing.assert_allclose(std["var"].data, np.var(frames), rtol=1e-6)
    np.testing.assert_array_equal(sums["intensity"].raw_data, 16 * frames)


class Special(Exception):
    """An exception of a user."""


def fail_at_four(udf: Any, i: int) -> int:
    if i == 4:
        raise Special("the line of the user")
    return i


def test_exceptions_keep_type_and_traceback(context: Context, make_ds: Any) -> None:
    ds = make_ds()
    with pytest.raises(Special) as caught:
        context.run_udf(dataset=ds, udf=Calls(f=fail_at_four))
    lines = "".join(traceback.format_tb(caught.tb))
    assert 'raise Special("the line of the user")' in lines
    assert_usable(context, ds)


def test_a_run_can_be_cancelled_or_left(context: Context, executor: Any, make_ds: Any) -> None:
    ds = make_ds(n_frames=40, num_partitions=40)

    def stop(udf: Any, i: int) -> int:
        if i == 5:
            raise JobCancelledError("enough")
        return i

    with pytest.raises(UDFRunCancelled, match=r"^UDF run cancelled after \d+ partitions$"):
        context.run_udf(dataset=ds, udf=Calls(f=stop))
    assert_usable(context, ds)
    for _ in context.run_udf_iter(dataset=ds, udf=SumSigUDF()):
        break
    assert_usable(context, ds)
    steps = context.run_udf_iter(dataset=ds, udf=SumSigUDF())
    next(steps)
    (cancel_id,) = executor._runs
    executor.cancel(cancel_id)
    with pytest.raises(UDFRunCancelled):
        list(steps)
    assert executor._runs == {}
    assert_usable(context, ds)
    executor.cancel("nothing")


def test_resources_that_nobody_offers(context: Context, make_ds: Any) -> None:
    class OnCuda(SumSigUDF):
        def get_backends(self) -> Any:
            return ("cuda",)

    with pytest.raises(ResourceError, match=r"no worker offers .*CUDA"):
        context.run_udf(dataset=make_ds(), udf=OnCuda())


@pytest.mark.skipif(sys.platform == "win32", reason="kills with a signal")
def test_partitions_of_a_killed_worker_are_repeated_once(
    context: Context, executor: Any, make_ds: Any, tmp_path: Path
) -> None:
    ds = make_ds(n_frames=12, num_partitions=12)
    marker = tmp_path / "died"

    def die_once(udf: Any, i: int) -> int:
        if i == 5 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return i

    def die(udf: Any, i: int) -> int:
        if i == 5:
            os._exit(7)
        return i

    result = context.run_udf(dataset=ds, udf=Calls(f=die_once))["n"]
    np.testing.assert_array_equal(result.data, np.arange(12))
    assert marker.exists()
    with pytest.raises(ExecutorError, match=r"as another one did before: .* ended with exit code 7"):
        context.run_udf(dataset=ds, udf=Calls(f=die))
    os.kill(executor.run_function(os.getpid), signal.SIGKILL)
    assert_usable(context, ds)


def test_workers_that_cannot_be_replaced_end_the_run(make_ds: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with PipelinedExecutor(spec=PipelinedExecutor.make_spec(cpus=1, cudas=0)) as executor:
        monkeypatch.setattr("libertem.executor.processes._BOOTSTRAP", "raise SystemExit(3)")
        with pytest.raises(ExecutorError, match=r"cannot be started again: .* exit code 3"):
            Context(executor=executor).run_udf(dataset=make_ds(), udf=Calls(f=lambda udf, i: os._exit(7)))


# --- start and end ---


def sleep_long() -> None:
    time.sleep(100)


def fail() -> None:
    raise Special("no such device")


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def test_workers_that_do_not_start_are_an_error_and_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    before = children()
    spec = PipelinedExecutor.make_spec(cpus=1, cudas=0)
    with (
        patched("libertem.executor.pipelined.executor.SLOW_START_SECONDS", 0.0),
        pytest.warns(UserWarning, match="take long to start") as caught,
        pytest.raises(RuntimeError, match=r"startup_timeout=0\.2"),
    ):
        PipelinedExecutor(spec=spec, startup_timeout=0.2, early_setup=sleep_long)
    assert [w.filename for w in caught] == [__file__]
    with pytest.raises(Special):
        PipelinedExecutor(spec=spec, early_setup=fail)
    monkeypatch.setattr("libertem.executor.processes._BOOTSTRAP", "raise SystemExit(3)")
    with pytest.raises(RuntimeError, match=r"startup_timeout.* exit code 3"):
        PipelinedExecutor(spec=spec)
    assert children() == before


def test_nothing_is_left_after_close(make_ds: Any, live: Any) -> None:
    me = psutil.Process()
    before, threads = children(), set(threading.enumerate())
    n_files = me.num_fds() if sys.platform != "win32" else me.num_handles()
    executor = PipelinedExecutor(spec=PipelinedExecutor.make_spec(cpus=1, cudas=0))
    context = Context(executor=executor)
    context.run_udf(dataset=live, udf=SumSigUDF())
    assert len(children() - before) == 1
    context.close()
    executor.close()
    assert children() == before
    assert set(threading.enumerate()) <= threads
    if sys.platform != "win32":
        assert me.num_fds() <= n_files
    with pytest.raises(ExecutorError, match="closed"):
        context.run_udf(dataset=make_ds(), udf=SumSigUDF())


def test_workers_that_do_not_notice_the_end_of_a_run_are_replaced(make_ds: Any, tmp_path: Path) -> None:
    marker = tmp_path / "begun"

    def f(udf: Any, i: int) -> int:
        if i == 3:
            marker.touch()
            time.sleep(100)
        while not marker.exists():
            pass
        if i == 0:
            raise Special("boom")
        return i

    spec = PipelinedExecutor.make_spec(cpus=2, cudas=0)
    with PipelinedExecutor(spec=spec, cleanup_timeout=0.1) as executor:
        context = Context(executor=executor)
        ds = make_ds()
        pids = executor.run_each_worker(os.getpid)
        with pytest.raises(Special):
            context.run_udf(dataset=ds, udf=Calls(f=f))
        assert_usable(context, ds)
        after = executor.run_each_worker(os.getpid)
    assert sum(pids[name] == after[name] for name in pids) == 1


# --- live data ---


def assert_live(context: Context, live: Any) -> None:
    live.handler.before_frame = lambda i: None
    live.log.clear()
    result = context.run_udf(dataset=live, udf=SumSigUDF())["intensity"]
    np.testing.assert_allclose(result.data, live.handler.frames.sum(axis=(1, 2)), rtol=1e-5)
    assert live.log == ["start", ("handle", 0), ("handle", 1), ("handle", 2), "done"]


def test_data_reaches_its_task(context: Context, live: Any) -> None:
    seen: list[int] = []
    live.handler.subscribe("seen", lambda topic, message: seen.append(message["frame"]))
    assert_live(context, live)
    assert sorted(seen) == list(range(9))


def test_workers_process_data_while_more_arrives(context: Context, live: Any) -> None:
    seen = [threading.Event() for _ in range(9)]
    live.handler.subscribe("seen", lambda topic, message: seen[message["frame"]].set())

    def wait(i: int) -> None:
        # Each frame is only sent after the one before has been processed.
        assert i == 0 or seen[i - 1].wait(60)

    live.handler.before_frame = wait
    result = context.run_udf(dataset=live, udf=SumSigUDF())["intensity"]
    np.testing.assert_allclose(result.data, live.handler.frames.sum(axis=(1, 2)), rtol=1e-5)


@pytest.mark.parametrize("memory_bytes", [1 << 12, 1 << 16])
def test_memory_may_be_smaller_than_the_data(live: Any, memory_bytes: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(pipelined, "MEMORY_BYTES", memory_bytes)
    with PipelinedExecutor(spec=PipelinedExecutor.make_spec(cpus=1, cudas=0)) as executor:
        context = Context(executor=executor)
        for _ in range(3):
            assert_live(context, live)
        (worker,) = executor._pool.workers
        assert worker.memory is not None
        assert worker.memory._holes == [(0, memory_bytes)]


def test_a_handler_can_cancel_the_run(context: Context, live: Any) -> None:
    def stop(i: int) -> None:
        if i == 4:
            raise JobCancelledError("the detector stopped")

    live.handler.before_frame = stop
    with pytest.raises(UDFRunCancelled, match=r"^UDF run cancelled after [01] partitions$"):
        context.run_udf(dataset=live, udf=SumSigUDF())
    assert live.log[-1] == "done"
    assert_live(context, live)


def test_an_error_of_a_handler_ends_the_run(context: Context, live: Any) -> None:
    def stop(i: int) -> None:
        if i == 4:
            raise Special("the cable")

    live.handler.before_frame = stop
    with pytest.raises(Special, match="the cable"):
        context.run_udf(dataset=live, udf=SumSigUDF())
    assert live.log[-1] == "done"
    assert_live(context, live)


class Fails(SumSigUDF):
    def process_tile(self, tile: Any) -> None:
        raise Special("boom")


def test_a_task_does_not_see_what_a_failed_one_left(context: Context, executor: Any, live: Any) -> None:
    for _ in range(3):
        with pytest.raises(Special, match="boom"):
            context.run_udf(dataset=live, udf=Fails())
        assert live.log[-1] == "done"
    assert_live(context, live)
    for worker in executor._pool.workers:
        assert worker.memory._holes == [(0, pipelined.MEMORY_BYTES)]


class Bored(SumSigUDF):
    """Ends before it has seen its data."""

    def process_tile(self, tile: Any) -> None:
        raise JobCancelledError("seen enough")


def test_a_task_that_ends_frees_a_handler_that_waits_for_memory(live: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(pipelined, "MEMORY_BYTES", 1 << 16)
    with PipelinedExecutor(spec=PipelinedExecutor.make_spec(cpus=1, cudas=0)) as executor:
        context = Context(executor=executor)
        with pytest.raises(UDFRunCancelled):
            context.run_udf(dataset=live, udf=Bored())
        assert_live(context, live)


@pytest.mark.skipif(sys.platform == "win32", reason="kills with a signal")
def test_a_killed_worker_frees_a_handler_that_waits_for_memory(live: Any, monkeypatch: Any) -> None:
    class Dies(SumSigUDF):
        def process_tile(self, tile: Any) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(pipelined, "MEMORY_BYTES", 1 << 16)
    with PipelinedExecutor(spec=PipelinedExecutor.make_spec(cpus=1, cudas=0)) as executor:
        context = Context(executor=executor)
        with pytest.raises(ExecutorError, match="exit code -9"):
            context.run_udf(dataset=live, udf=Dies())
        assert live.log[-1] == "done"
        assert_live(context, live)


def test_a_dry_run_does_not_start_the_acquisition(executor: Any, live: Any) -> None:
    executor.get_udf_runner().dry_run([SumSigUDF()], live, None)
    assert live.log == []


# --- memory ---


@given(st.lists(st.tuples(st.integers(1, 3000), st.integers(0, 5)), max_size=40))
def test_pieces_of_memory_do_not_overlap_and_come_back(steps: list[tuple[int, int]]) -> None:
    memory = Memory(1 << 13)
    pieces: dict[int, int] = {}

    def check(size: int) -> None:
        aligned = -(-size // feed.ALIGNMENT) * feed.ALIGNMENT
        if not any(space >= aligned for _, space in memory._holes):
            raise BufferError

    for size, victim in steps:
        try:
            start, view = memory.take(size, partial(check, size))
        except BufferError:
            for old in list(pieces)[:victim]:
                memory.release(old)
                del pieces[old]
            continue
        assert view.nbytes == size
        assert all(start + size <= begin or begin + n <= start for begin, n in pieces.items())
        pieces[start] = size
    for start in pieces:
        memory.release(start)
    assert memory._holes == [(0, 1 << 13)]
    memory.close()


@pytest.mark.skipif(sys.platform == "win32", reason="files are inherited otherwise")
def test_memory_is_seen_on_both_sides() -> None:
    memory = Memory(1 << 12)
    size, file = memory.place.split()
    other = map_memory(f"{size} {os.dup(int(file))}")
    start, view = memory.take(10, lambda: None)
    view[:] = b"0123456789"
    assert bytes(other[start : start + 10]) == b"0123456789"
    memory.close()
    with pytest.raises(JobCancelledError):
        memory.take(10, lambda: None)


def test_queues_have_two_ends(context: Context, live: Any) -> None:
    class Looks(TaskCommHandler):
        def handle_task(self, task: Any, queue: Any) -> None:
            for forbidden in (queue.get, queue.size):
                with pytest.raises(NotImplementedError):
                    forbidden()
            queue.close()
            live.handler.handle_task(task, queue)

    live_partition: Any = type(next(live.get_partitions()))

    class Reads(live_partition):  # type: ignore[misc]  # from the fixture
        def get_tiles(self, *args: Any, **kwargs: Any) -> Any:
            queue = self._context.get_worker_queue()
            for forbidden in (lambda: queue.put({}), lambda: queue.put_nocopy({}, 3)):
                with pytest.raises(NotImplementedError):
                    forbidden()
            yield from super().get_tiles(*args, **kwargs)
            assert queue.size() == 0
            # All data has been sent, so this does not wait for ever.
            with pytest.raises(WorkerQueueEmpty), queue.get():
                pass

    handler = Looks()
    live.get_task_comm_handler = lambda: handler  # type: ignore[method-assign]
    parts = [Reads(p.meta, p.slice, None, None) for p in live.get_partitions()]
    live.get_partitions = lambda: iter(parts)  # type: ignore[method-assign]
    result = context.run_udf(dataset=live, udf=SumSigUDF())["intensity"]
    np.testing.assert_allclose(result.data, live.handler.frames.sum(axis=(1, 2)), rtol=1e-5)


def test_no_warnings_are_left_to_users(context: Context, live: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_live(context, live)
    assert re.match(r"cpu-\d", context.executor.get_available_workers().example().name)
