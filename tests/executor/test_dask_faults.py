"""What can go wrong on a cluster: a run gives the right result or a clear error, and the next one works."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import psutil
import pytest

from libertem.api import Context
from libertem.exceptions import DataSetException, ExecutorError, UDFRunCancelled
from libertem.executor.dask import DaskJobExecutor, cluster_spec, connection
from libertem.executor.inline import InlineJobExecutor
from libertem.udf import UDF
from libertem.udf.sum import SumUDF

# Workers cannot import the modules of tests.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

N_FRAMES = 24
N_PARTITIONS = 12
MEMORY_LIMIT = 700_000_000


class Counted(UDF):
    """Calls `f` with the number of each frame. Counts frames, to notice those that are merged twice."""

    def __init__(self, f: Callable[[int], Any]) -> None:
        super().__init__(f=f)

    def get_result_buffers(self) -> dict[str, Any]:
        return {
            "n": self.buffer(kind="nav", dtype="int64"),
            "count": self.buffer(kind="single", dtype="int64"),
        }

    def process_frame(self, frame: Any) -> None:
        self.params.f(int(frame[0, 0]))
        self.results.n[:] = frame[0, 0]
        self.results.count[:] += 1

    def merge(self, dest: Any, src: Any) -> None:
        dest.n[:] = src.n
        dest.count[:] += src.count


def nothing(n: int) -> None:
    """For runs that work."""


@pytest.fixture(scope="module")
def executor() -> Iterator[DaskJobExecutor]:
    options = {"memory_limit": MEMORY_LIMIT}
    spec = cluster_spec(cpus=2, cudas=[], has_cupy=False, num_service=0, options=options)
    with DaskJobExecutor.make_local(spec=spec) as made:
        yield made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    np.repeat(np.arange(N_FRAMES, dtype=np.float32), 16).tofile(tmp_path / "frames.raw")
    return tmp_path / "frames.raw"


def load(ctx: Context, path: Any) -> Any:
    return ctx.load(
        "raw",
        path=str(path),
        dtype="f4",
        nav_shape=(N_FRAMES,),
        sig_shape=(4, 4),
        num_partitions=N_PARTITIONS,
    )


@pytest.fixture
def ds(path: Path) -> Any:
    return load(Context(executor=InlineJobExecutor()), path)


@pytest.fixture
def ctx(executor: DaskJobExecutor, ds: Any) -> Iterator[Context]:
    """A context that still works after the test, and of which nothing is left on workers."""
    context = Context(executor=executor)
    yield context
    assert_right(context.run_udf(dataset=ds, udf=Counted(nothing)))
    assert_right_sum(context.run_udf(dataset=ds, udf=SumUDF()))
    assert executor._runs == {}


def assert_right(result: Any) -> None:
    np.testing.assert_array_equal(result["n"].data, np.arange(N_FRAMES))
    assert result["count"].data.tolist() == [N_FRAMES]


def assert_right_sum(result: Any) -> None:
    np.testing.assert_array_equal(result["intensity"].data, np.full((4, 4), np.arange(N_FRAMES).sum()))


def wait_for_workers(ctx: Context) -> None:
    """Wait for those that take the place of others that were killed, also by an earlier test."""
    cluster: Any = ctx.executor._cluster  # type: ignore[attr-defined]  # of this executor
    waiting = threading.Event()
    for _ in range(1200):
        if len(ctx.executor.get_available_workers()) == len(cluster.workers) == 2 or waiting.wait(0.05):
            return
    raise AssertionError("a worker is missing")


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# --- workers ---


def test_a_worker_that_is_killed_is_replaced(ctx: Context, ds: Any, tmp_path: Path) -> None:
    flag = tmp_path / "killed"

    def die_once(n: int) -> None:
        if n == 9 and not flag.exists():
            flag.touch()
            kill_self()

    assert_right(ctx.run_udf(dataset=ds, udf=Counted(die_once)))
    assert flag.exists()


def test_a_worker_that_is_killed_while_it_merges_is_replaced(ctx: Context, ds: Any, tmp_path: Path) -> None:
    flag = tmp_path / "killed"

    class Sum(SumUDF):
        def process_tile(self, tile: Any) -> None:
            super().process_tile(tile)
            if self.meta.slice.origin[0] <= 9 < self.meta.slice.origin[0] + len(tile) and not flag.exists():
                flag.touch()
                kill_self()

    assert_right_sum(ctx.run_udf(dataset=ds, udf=Sum()))
    assert flag.exists()


def test_a_worker_may_be_killed_and_restarted_between_runs(ctx: Context, ds: Any) -> None:
    wait_for_workers(ctx)
    before = ctx.executor.run_each_worker(os.getpid)
    os.kill(before["default-cpu-0"], signal.SIGKILL)
    assert_right(ctx.run_udf(dataset=ds, udf=Counted(nothing)))
    wait_for_workers(ctx)
    after = ctx.executor.run_each_worker(os.getpid)
    assert after["default-cpu-0"] != before["default-cpu-0"]
    assert after["default-cpu-1"] == before["default-cpu-1"]


def test_a_worker_that_is_replaced_gets_changed_parameters(ctx: Context, ds: Any, tmp_path: Path) -> None:
    flag = tmp_path / "killed"

    def die_once(n: int) -> None:
        if not flag.exists():
            flag.touch()
            kill_self()

    class Scaled(Counted):
        def __init__(self, f: Any, factor: int = 0) -> None:
            UDF.__init__(self, f=f, factor=factor)

        def process_frame(self, frame: Any) -> None:
            self.params.f(int(frame[0, 0]))
            self.results.n[:] = self.params.factor

    steps = ctx.run_udf_iter(dataset=ds, udf=Scaled(nothing))
    next(steps)
    steps.update_parameters_experimental([{"factor": 5, "f": die_once}])
    for step in steps:
        last = step.buffers[0]["n"].data
    assert flag.exists()
    assert last[-1] == 5


def test_a_nanny_that_has_ended_is_replaced(ctx: Context, ds: Any) -> None:
    executor: Any = ctx.executor
    wait_for_workers(ctx)
    cluster = executor._cluster
    cluster.sync(cluster.workers["default-cpu-0"].close)
    assert_right(ctx.run_udf(dataset=ds, udf=Counted(nothing)))
    wait_for_workers(ctx)


@pytest.fixture
def no_second_try(executor: DaskJobExecutor) -> Iterator[None]:
    """The scheduler gives a task up after one worker has died with it, not after four."""
    assert executor._cluster is not None
    scheduler = executor._cluster.scheduler
    usual, scheduler.allowed_failures = scheduler.allowed_failures, 0
    yield
    scheduler.allowed_failures = usual


def test_a_task_that_kills_its_workers_ends_the_run(ctx: Context, ds: Any, no_second_try: None) -> None:
    with pytest.raises(ExecutorError, match=r"worker default-cpu-\d \(tcp://.*\) died .* part-\d"):
        ctx.run_udf(dataset=ds, udf=Counted(lambda n: kill_self() if n == 9 else None))


def test_a_task_that_kills_every_worker_it_meets_ends_the_run(ctx: Context, ds: Any) -> None:
    with pytest.raises(ExecutorError, match=r"default-cpu-\d \(tcp://.*\).* part-\d"):
        ctx.run_udf(dataset=ds, udf=Counted(lambda n: kill_self() if n == 9 else None))


def test_a_worker_over_its_memory_limit_is_named(ctx: Context, ds: Any, no_second_try: None) -> None:
    def fill_memory(n: int) -> None:
        if n == 9:
            hoard = bytearray(MEMORY_LIMIT)
            # Long enough to be noticed; ended from outside.
            threading.Event().wait(timeout=60)
            assert not hoard

    with pytest.raises(ExecutorError, match=r"worker default-cpu-\d .*more memory than its limit"):
        ctx.run_udf(dataset=ds, udf=Counted(fill_memory))


def hoard(share: float) -> None:
    """Let this process use a part of the memory that it may use; Dask pauses it above 80 %."""
    missing = int(share * MEMORY_LIMIT) - psutil.Process().memory_info().rss
    sys._hoard = b"x" * missing  # type: ignore[attr-defined]  # kept after the call


def let_go() -> None:
    sys.__dict__.pop("_hoard", None)


def wait_for_states(ctx: Context, *wanted: str) -> None:
    executor: Any = ctx.executor
    waiting = threading.Event()
    for _ in range(600):
        states = [info["status"] for info in executor._connection.workers().values()]
        if states == list(wanted) or waiting.wait(0.05):
            return
    raise AssertionError(f"found {states}")


def test_paused_workers_leave_the_work_to_others(
    ctx: Context, ds: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor: Any = ctx.executor
    wait_for_workers(ctx)
    wait_for_states(ctx, "running", "running")
    addresses = [info["address"] for info in executor._connection.workers().values()]
    try:
        executor.client.run(hoard, 0.88, workers=addresses[:1])
        wait_for_states(ctx, "paused", "running")
        assert_right(ctx.run_udf(dataset=ds, udf=Counted(nothing)))
        executor.client.run(hoard, 0.88, workers=addresses[1:])
        wait_for_states(ctx, "paused", "paused")
        monkeypatch.setattr(connection, "PATIENCE_SECONDS", 0.5)
        with pytest.raises(ExecutorError, match=r"default-cpu-0 \(tcp://.*\) is paused.*too much memory"):
            ctx.run_udf(dataset=ds, udf=Counted(nothing))
    finally:
        executor.client.run(let_go)
    wait_for_states(ctx, "running", "running")


# --- code of users ---


def fail_at_nine(n: int) -> None:
    if n == 9:
        raise ValueError("boom 9")


def test_an_error_on_one_partition_ends_the_run(ctx: Context, ds: Any) -> None:
    with pytest.raises(ValueError, match="boom 9") as caught:
        ctx.run_udf(dataset=ds, udf=Counted(fail_at_nine))
    names = [entry.name for entry in caught.traceback]
    assert "fail_at_nine" in names


class Special(Exception):
    """An exception of a user that cannot be pickled in the usual way."""

    def __init__(self, number: int, *, text: str) -> None:
        super().__init__(f"{text} {number}")
        self.lock = threading.Lock()


def test_an_error_that_cannot_travel_still_says_what_it_says(ctx: Context, ds: Any) -> None:
    def fail(n: int) -> None:
        raise Special(3, text="the reason is")

    with pytest.raises(Exception, match="the reason is 3"):
        ctx.run_udf(dataset=ds, udf=Counted(fail))


def test_a_udf_that_cannot_be_pickled_is_refused_at_once(ctx: Context, ds: Any) -> None:
    lock = threading.Lock()
    with pytest.raises(TypeError, match=r"cannot pickle '_thread\.lock' object"):
        ctx.run_udf(dataset=ds, udf=Counted(lambda n: lock))


def test_a_udf_whose_code_is_missing_on_workers_is_an_error(ctx: Context, ds: Any, tmp_path: Path) -> None:
    (tmp_path / "only_here.py").write_text("def f(n):\n    return n\n")
    sys.path.insert(0, str(tmp_path))
    try:
        import only_here  # type: ignore[import-not-found]  # made above

        with pytest.raises(ModuleNotFoundError, match="only_here"):
            ctx.run_udf(dataset=ds, udf=Counted(only_here.f))
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("only_here", None)


# --- files ---


def test_a_file_that_workers_do_not_have_is_named(
    ctx: Context, ds: Any, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_right(ctx.run_udf(dataset=ds, udf=Counted(nothing)))
    monkeypatch.chdir(path.parent)
    with pytest.raises(DataSetException, match=r"frames\.raw"):
        load(ctx, path.name)


def test_a_file_that_vanishes_before_the_run_is_named(ctx: Context, path: Path) -> None:
    other = path.with_name("other.raw")
    other.write_bytes(path.read_bytes())
    vanished = load(ctx, other)
    other.unlink()
    with pytest.raises((DataSetException, FileNotFoundError), match=r"other\.raw"):
        ctx.run_udf(dataset=vanished, udf=Counted(nothing))


# --- cancellation ---


class Gate:
    """Lets a UDF on a worker wait for the test, and the test for the UDF."""

    def __init__(self, folder: Path) -> None:
        self._started = folder / "started"
        self._open = folder / "open"

    def __call__(self, n: int) -> None:
        self._started.touch()
        self._wait_for(self._open)

    def wait_for_udf(self) -> None:
        self._wait_for(self._started)

    def open(self) -> None:
        self._open.touch()

    @staticmethod
    def _wait_for(path: Path) -> None:
        waiting = threading.Event()
        for _ in range(3000):
            if path.exists():
                return
            waiting.wait(0.01)
        raise AssertionError(f"{path} was not created")


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    made = Gate(tmp_path)
    yield made
    made.open()


def test_waiting_for_workers_that_never_come_has_an_end(
    ctx: Context, ds: Any, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor: Any = ctx.executor
    wait_for_workers(ctx)
    monkeypatch.setattr(connection, "PATIENCE_SECONDS", 0.5)
    gone = threading.Event()
    # As if the workers had died and nobody had restarted them.
    seen = executor._connection.workers
    monkeypatch.setattr(executor._connection, "workers", lambda: {} if gone.is_set() else seen())

    def lose_workers() -> None:
        gate.wait_for_udf()
        gone.set()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(lose_workers)
        with pytest.raises(
            ExecutorError, match=r"no Dask worker is left .*default-cpu-0 \(tcp://.*\) is gone"
        ):
            ctx.run_udf(dataset=ds, udf=Counted(gate))
    monkeypatch.undo()
    gate.open()


def test_a_run_can_be_cancelled_from_another_thread(ctx: Context, ds: Any, gate: Gate) -> None:
    executor: Any = ctx.executor

    def cancel() -> None:
        gate.wait_for_udf()
        for cancel_id in list(executor._runs):
            executor.cancel(cancel_id)

    with ThreadPoolExecutor(1) as pool:
        cancelled = pool.submit(cancel)
        with pytest.raises(UDFRunCancelled, match=r"^UDF run cancelled after 0 partitions$"):
            ctx.run_udf(dataset=ds, udf=Counted(gate))
        cancelled.result()
    gate.open()


def test_ctrl_c_ends_a_run(ctx: Context, ds: Any, gate: Gate) -> None:
    def interrupt() -> None:
        gate.wait_for_udf()
        # To the thread that waits: a signal to the process may reach another one, which wakes nobody.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            ctx.run_udf(dataset=ds, udf=Counted(gate))
    gate.open()


@pytest.mark.timing
def test_tasks_of_a_cancelled_run_end_between_tiles(
    ctx: Context, ds: Any, gate: Gate, tmp_path: Path
) -> None:
    log = tmp_path / "log"

    def note(n: int) -> None:
        gate(n)
        with log.open("a") as file:
            file.write(f"{n}\n")

    steps = ctx.run_udf_iter(dataset=ds, udf=Counted(note))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(next, steps)
        gate.wait_for_udf()
        for cancel_id in list(ctx.executor._runs):  # type: ignore[attr-defined]  # of this executor
            ctx.executor.cancel(cancel_id)
        with pytest.raises(UDFRunCancelled):
            first.result()
    gate.open()
    assert_right(ctx.run_udf(dataset=ds, udf=Counted(nothing)))
    # Those that had begun: one tile of two frames on each worker.
    assert not log.exists() or len(log.read_text().split()) <= 4
