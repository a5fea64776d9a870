"""The default executor: Python code moves to worker processes if a run is worth it."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from typing import Any

import cloudpickle
import numpy as np
import psutil
import pytest

from libertem.api import Context
from libertem.common.progress import ProgressReporter
from libertem.exceptions import ExecutorError, JobCancelledError, ResourceError, UDFRunCancelled
from libertem.executor import moving
from libertem.executor.adaptive import AdaptiveJobExecutor
from libertem.executor.channel import pack_exception, unpack_exception
from libertem.executor.inline import InlineJobExecutor
from libertem.executor.processes import Event, ProcessPool, WorkerSpec
from libertem.udf import UDF
from libertem.udf.sum import SumUDF
from libertem.udf.sumsigudf import SumSigUDF

# Workers cannot import the modules of tests.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

N_FRAMES = 400
MAIN_PID = os.getpid()


@pytest.fixture(scope="module")
def executor() -> Iterator[AdaptiveJobExecutor]:
    """Two workers, which are started once."""
    with AdaptiveJobExecutor.make_local(2) as made:
        assert isinstance(made, AdaptiveJobExecutor)
        yield made


@pytest.fixture
def context(executor: AdaptiveJobExecutor) -> Context:
    # What other tests have run says nothing about this one.
    executor._paces.clear()
    return Context(executor=executor)


@pytest.fixture(scope="module")
def frames() -> np.ndarray[Any, Any]:
    return np.random.default_rng(5).integers(0, 1000, (N_FRAMES, 8, 8)).astype(np.uint16)


@pytest.fixture(scope="module")
def path(frames: np.ndarray[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("data") / "frames.raw"
    frames.tofile(file)
    return str(file)


@pytest.fixture
def ds(path: str) -> Any:
    return Context(executor=InlineJobExecutor()).load(
        "raw", path=path, dtype="u2", nav_shape=(20, 20), sig_shape=(8, 8), num_partitions=8
    )


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run with Python code moves, as soon as that can be."""
    monkeypatch.setattr(moving, "MIN_SECONDS", 0.0)
    monkeypatch.setattr(moving, "WATCH_SECONDS", 0.0)
    monkeypatch.setattr(moving, "CHECK_SECONDS", 0.01)
    monkeypatch.setattr(moving, "CROWDED", float("inf"))
    monkeypatch.setattr(moving, "DISTURBED", float("inf"))


def dawdle(seconds: float) -> None:
    """Python code that holds the interpreter lock."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


class Slow(UDF):
    """Sums of frames, and the process in which each was made: slow in the main process, fast elsewhere.

    The function `f` is called with the sum of each frame.
    """

    def get_result_buffers(self) -> dict[str, Any]:
        return {
            "sum": self.buffer(kind="nav", dtype="float64"),
            "pid": self.buffer(kind="nav", dtype="int64"),
        }

    def process_frame(self, frame: Any) -> None:
        if os.getpid() == self.params.main_pid:
            dawdle(self.params.get("seconds", 0.02))
        self.results.sum[:] = frame.sum()
        self.results.pid[:] = os.getpid()
        f = self.params.get("f")
        if f is not None:
            f(self)


def slow(f: Any = None, **kwargs: Any) -> Slow:
    return Slow(main_pid=MAIN_PID, f=f, **kwargs)


def sums(frames: np.ndarray[Any, Any]) -> Any:
    return frames.sum(axis=(1, 2), dtype="float64")


def in_worker(udf: Any) -> bool:
    return os.getpid() != udf.params.main_pid


@pytest.fixture
def moved(eager: None, context: Context, ds: Any) -> Context:
    """A context whose workers are there, so that runs move at once."""
    context.run_udf(dataset=ds, udf=slow())
    while not all(worker.ready for worker in context.executor._pools["python"].workers):  # type: ignore[attr-defined]
        dawdle(0.001)
    return context


# --- where a run goes ---


def test_python_code_runs_in_several_processes(moved: Context, ds: Any, frames: Any) -> None:
    result = moved.run_udf(dataset=ds, udf=slow(lambda udf: dawdle(0.0005)))
    np.testing.assert_array_equal(result["sum"].raw_data, sums(frames))
    assert len(set(result["pid"].raw_data) - {MAIN_PID}) == 2


def test_runs_that_take_long_move_by_themselves(ds: Any, frames: Any) -> None:
    with AdaptiveJobExecutor.make_local(2) as executor:
        result = Context(executor=executor).run_udf(dataset=ds, udf=slow())
    np.testing.assert_array_equal(result["sum"].raw_data, sums(frames))
    assert set(result["pid"].raw_data) - {MAIN_PID}


def test_a_run_like_one_that_has_moved_begins_in_processes(
    moved: Context, ds: Any, frames: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "MIN_SECONDS", 3.0)
    monkeypatch.setattr(moving, "WATCH_SECONDS", 60.0)
    (kind,) = moved.executor._paces  # type: ignore[attr-defined]
    # Seconds per frame in threads. In processes it is fast.
    moved.executor._paces[kind] = 0.02  # type: ignore[attr-defined]
    result = moved.run_udf(dataset=ds, udf=slow())
    assert MAIN_PID not in result["pid"].raw_data
    np.testing.assert_array_equal(result["sum"].raw_data, sums(frames))
    # Now it is known that this one is fast, wherever it runs.
    assert set(moved.run_udf(dataset=ds, udf=slow(seconds=0.0001))["pid"].raw_data) == {MAIN_PID}


def test_how_long_a_run_takes_counts_the_frames_of_the_roi(
    moved: Context, ds: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "MIN_SECONDS", 0.5)
    monkeypatch.setattr(moving, "WATCH_SECONDS", 60.0)
    (kind,) = moved.executor._paces  # type: ignore[attr-defined]
    moved.executor._paces[kind] = 0.02  # type: ignore[attr-defined]
    roi = np.zeros((20, 20), dtype=bool)
    roi[::10, ::10] = True
    assert set(moved.run_udf(dataset=ds, udf=slow(), roi=roi)["pid"].raw_data) == {MAIN_PID}


def test_short_runs_stay_in_threads(ds: Any, frames: Any) -> None:
    with AdaptiveJobExecutor.make_local(2) as executor:
        result = Context(executor=executor).run_udf(dataset=ds, udf=slow(seconds=0.0001))
        np.testing.assert_array_equal(result["sum"].raw_data, sums(frames))
        assert set(result["pid"].raw_data) == {MAIN_PID}
        assert all(pool.workers == [] for pool in executor._pools.values())


def test_code_that_leaves_the_lock_alone_stays_in_threads(
    eager: None, context: Context, ds: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a machine with nothing else to do.
    monkeypatch.setattr(moving._Window, "is_crowded", lambda self, n: False)
    result = context.run_udf(dataset=ds, udf=slow(seconds=0.001))
    assert set(result["pid"].raw_data) == {MAIN_PID}


@pytest.mark.parametrize(("wait", "crowded"), [(0.0001, False), (0.006, True)])
def test_other_processes_do_not_make_threads_look_crowded(
    monkeypatch: pytest.MonkeyPatch, wait: float, crowded: bool
) -> None:
    now = [100.0]
    monkeypatch.setattr(moving.time, "perf_counter", lambda: now[0])
    # One core of two is used; threads stand in line for the other one.
    monkeypatch.setattr(moving.time, "process_time", lambda: now[0])
    monkeypatch.setattr(moving, "_seconds_in_line", lambda who="": 0.0 if "thread-self" in who else now[0])
    window = moving._Window()
    assert window.is_crowded(2) is None

    def pause() -> None:
        with window.probe(0.02):
            now[0] += 0.02 + wait
            raise Empty

    for _ in range(moving.N_PROBES):
        assert window.is_crowded(2) is None
        with pytest.raises(Empty):
            pause()
    assert window.is_crowded(2) is crowded
    monkeypatch.setattr(moving, "DISTURBED", 2.0)
    # If nobody else uses cores, it is the lock.
    assert window.is_crowded(2) is True


@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="this system does not tell")
def test_time_in_line_is_known() -> None:
    before = moving._seconds_in_line()
    dawdle(0.01)
    assert 0 <= moving._seconds_in_line() - before < 60


def test_processes_that_were_not_faster_are_not_used_at_once_again(
    moved: Context, ds: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "WATCH_SECONDS", 60.0)
    (kind,) = moved.executor._paces  # type: ignore[attr-defined]
    moved.executor._paces[kind] = 2.5e-6  # type: ignore[attr-defined]
    assert MAIN_PID not in moved.run_udf(dataset=ds, udf=slow())["pid"].raw_data
    assert moved.executor._paces[kind] == 0  # type: ignore[attr-defined]
    assert set(moved.run_udf(dataset=ds, udf=slow(seconds=0.0001))["pid"].raw_data) == {MAIN_PID}


@pytest.mark.parametrize("udfs", [[SumUDF()], [SumUDF(), SumSigUDF()]])
def test_compiled_udfs_are_not_even_watched(
    eager: None, context: Context, ds: Any, udfs: list[UDF], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving.MovingRun, "__init__", None)
    context.run_udf(dataset=ds, udf=udfs)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_there_is_nothing_to_gain_with_one_worker_or_one_partition(
    eager: None, path: str, n_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving.MovingRun, "__init__", None)
    with AdaptiveJobExecutor.make_local(n_threads) as executor:
        context = Context(executor=executor)
        ds = context.load("raw", path=path, dtype="u2", nav_shape=(9,), sig_shape=(8, 8), num_partitions=1)
        context.run_udf(dataset=ds, udf=slow(seconds=0))


def test_data_in_memory_moves_only_if_that_pays(
    moved: Context, frames: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ds = moved.load("memory", data=frames, sig_dims=2, num_partitions=8)
    result = moved.run_udf(dataset=ds, udf=slow())
    np.testing.assert_array_equal(result["sum"].raw_data, sums(frames))
    assert set(result["pid"].raw_data) - {MAIN_PID}
    monkeypatch.setattr(moving, "SEND_BYTES_PER_SECOND", 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = moved.run_udf(dataset=ds, udf=slow(seconds=0.001))
    assert set(result["pid"].raw_data) == {MAIN_PID}


def test_results_are_those_of_one_thread(moved: Context, ds: Any) -> None:
    def run(context: Context, **kwargs: Any) -> list[Any]:
        on_main = isinstance(context.executor, InlineJobExecutor)
        udfs = [slow(seconds=0 if on_main else 0.02), SumUDF(), SumSigUDF()]
        results = context.run_udf(dataset=ds, udf=udfs, **kwargs)
        return [results[0]["sum"].data, results[1]["intensity"].data, results[2]["intensity"].data]

    inline = Context(executor=InlineJobExecutor())
    roi = np.random.default_rng(1).random((20, 20)) < 0.3
    for kwargs in ({}, {"roi": roi}):
        for ours, theirs in zip(run(moved, **kwargs), run(inline, **kwargs), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_workers_limit_thread_pools_and_need_no_import_of_the_main_module(moved: Context, ds: Any) -> None:
    def look(udf: Any) -> None:
        if in_worker(udf):
            assert os.environ["OMP_NUM_THREADS"] == os.environ["NUMBA_NUM_THREADS"] == "1"
            assert udf.meta.threads_per_worker == 1
            assert getattr(sys.modules["__main__"], "__file__", None) is None

    moved.run_udf(dataset=ds, udf=slow(look))


# --- what cannot be sent ---


def test_what_cannot_be_pickled_stays_in_one_thread_with_a_warning(
    eager: None, context: Context, ds: Any, frames: Any
) -> None:
    lock = threading.Lock()
    running: set[int] = set()
    most: list[int] = []

    def count(udf: Any) -> None:
        with lock:
            running.add(threading.get_ident())
            most.append(len(running))
        dawdle(0.0005)
        with lock:
            running.discard(threading.get_ident())

    with pytest.warns(UserWarning, match="one thread instead of several .* cannot be pickled") as caught:
        result = context.run_udf(dataset=ds, udf=slow(count, seconds=0))
    assert [w.filename for w in caught] == [__file__]
    np.testing.assert_array_equal(result["sum"].raw_data, sums(frames))
    assert set(result["pid"].raw_data) == {MAIN_PID}
    assert set(most[-100:]) == {1}


class OnlyHere:
    """Cannot be unpickled in another process."""

    def __reduce__(self) -> Any:
        return (refuse, (MAIN_PID,))


def refuse(main_pid: int) -> Any:
    if os.getpid() != main_pid:
        raise RuntimeError("only there")
    return OnlyHere()


def test_what_a_worker_cannot_read_stays_in_one_thread_with_a_warning(
    eager: None, context: Context, ds: Any, frames: Any
) -> None:
    with pytest.warns(UserWarning, match=r"could not read it: RuntimeError\('only there'\)"):
        result = context.run_udf(dataset=ds, udf=slow(thing=OnlyHere(), seconds=0.005))
    np.testing.assert_array_equal(result["sum"].raw_data, sums(frames))


def test_processes_that_cannot_be_started_leave_one_thread_and_a_warning(
    eager: None, ds: Any, frames: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multiprocessing.spawn.get_executable", lambda: "/nowhere/python")
    with (
        AdaptiveJobExecutor.make_local(2) as executor,
        pytest.warns(UserWarning, match=r"cannot be started: .*No such file"),
    ):
        result = Context(executor=executor).run_udf(dataset=ds, udf=slow(seconds=0.001))
    np.testing.assert_array_equal(result["sum"].raw_data, sums(frames))


def test_processes_that_end_while_they_start_leave_one_thread_and_a_warning(
    eager: None, ds: Any, frames: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libertem.executor.processes._BOOTSTRAP", "raise SystemExit(3)")
    with (
        AdaptiveJobExecutor.make_local(2) as executor,
        pytest.warns(UserWarning, match=r"cannot be started: .* ended with exit code 3"),
    ):
        result = Context(executor=executor).run_udf(dataset=ds, udf=slow(seconds=0.005))
    np.testing.assert_array_equal(result["sum"].raw_data, sums(frames))


# --- errors ---


class Special(Exception):
    """An exception of a user."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(number, text)
        self.number = number


class Unsendable(Exception):
    def __reduce__(self) -> Any:
        raise TypeError("no way")


def test_exceptions_keep_type_content_and_traceback(moved: Context, ds: Any, frames: Any) -> None:
    def fail(udf: Any) -> None:
        if in_worker(udf):
            try:
                raise KeyError("the reason")
            except KeyError as err:
                raise Special(4, "the line of the user") from err

    with pytest.raises(Special) as caught:
        moved.run_udf(dataset=ds, udf=slow(fail))
    assert caught.value.number == 4
    assert isinstance(caught.value.__cause__, KeyError)
    lines = "".join(traceback.format_tb(caught.tb))
    assert 'raise Special(4, "the line of the user") from err' in lines
    assert "process_frame" in lines
    np.testing.assert_array_equal(moved.run_udf(dataset=ds, udf=slow())["sum"].raw_data, sums(frames))


def test_an_exception_that_cannot_be_sent_is_told_in_words(moved: Context, ds: Any) -> None:
    def fail(udf: Any) -> None:
        if in_worker(udf):
            raise Unsendable("what happened")

    with pytest.raises(ExecutorError, match=r"(?s)cannot be sent:.*Unsendable: what happened"):
        moved.run_udf(dataset=ds, udf=slow(fail))


def test_contexts_of_exceptions_are_sent_too() -> None:
    try:
        try:
            raise KeyError("first")
        finally:
            raise ValueError("second")
    except ValueError as err:
        sent = unpack_exception(pack_exception(err))
    assert isinstance(sent, ValueError)
    assert isinstance(sent.__context__, KeyError)
    assert sent.__cause__ is None


def die_once(marker: str) -> Any:
    def f(udf: Any) -> None:
        if in_worker(udf) and not os.path.exists(marker):
            Path(marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)

    return f


def die(udf: Any) -> None:
    if in_worker(udf):
        os._exit(7)


@pytest.mark.skipif(sys.platform == "win32", reason="kills with a signal")
def test_a_partition_is_repeated_if_its_process_was_killed(
    moved: Context, ds: Any, frames: Any, tmp_path: Path
) -> None:
    marker = str(tmp_path / "died")
    result = moved.run_udf(dataset=ds, udf=slow(die_once(marker)))
    np.testing.assert_array_equal(result["sum"].raw_data, sums(frames))
    assert os.path.exists(marker)


def test_a_partition_that_ends_processes_ends_the_run(moved: Context, ds: Any, frames: Any) -> None:
    with pytest.raises(ExecutorError, match=r"while it processed part-\d, .* ended with exit code 7"):
        moved.run_udf(dataset=ds, udf=slow(die))
    np.testing.assert_array_equal(moved.run_udf(dataset=ds, udf=slow())["sum"].raw_data, sums(frames))


# --- cancellation ---


def test_a_cancelled_partition_ends_the_run(moved: Context, ds: Any) -> None:
    def stop(udf: Any) -> None:
        if in_worker(udf):
            raise JobCancelledError("the source dried up")

    with pytest.raises(UDFRunCancelled, match=r"^UDF run cancelled after \d partitions$"):
        moved.run_udf(dataset=ds, udf=slow(stop))


def test_a_run_can_be_cancelled_while_it_is_in_processes(
    moved: Context, ds: Any, frames: Any, tmp_path: Path
) -> None:
    marker = tmp_path / "begun"

    def hang(udf: Any) -> None:
        if in_worker(udf):
            marker.touch()
            dawdle(0.05)

    def cancel() -> None:
        while not marker.exists():
            dawdle(0.001)
        for cancel_id in list(moved.executor._runs):  # type: ignore[attr-defined]
            moved.executor.cancel(cancel_id)

    canceller = threading.Thread(target=cancel)
    canceller.start()
    with pytest.raises(UDFRunCancelled):
        moved.run_udf(dataset=ds, udf=slow(hang))
    canceller.join()
    np.testing.assert_array_equal(moved.run_udf(dataset=ds, udf=slow())["sum"].raw_data, sums(frames))


def test_an_iteration_can_be_left_early(moved: Context, ds: Any, frames: Any) -> None:
    for _ in moved.run_udf_iter(dataset=ds, udf=slow()):
        break
    assert moved.executor._runs == moved.executor._moving == {}  # type: ignore[attr-defined]
    np.testing.assert_array_equal(moved.run_udf(dataset=ds, udf=slow())["sum"].raw_data, sums(frames))


# --- what else works ---


class Recorder(ProgressReporter):
    def __init__(self) -> None:
        self.calls: list[Any] = []

    def start(self, state: Any) -> None:
        self.calls.append(("start", *state))

    def update(self, state: Any) -> None:
        self.calls.append(("update", *state))

    def end(self, state: Any) -> None:
        self.calls.append(("end", *state))


def test_progress_is_reported_and_does_not_go_back(moved: Context, ds: Any) -> None:
    reporter = Recorder()
    moved.run_udf(dataset=ds, udf=slow(), progress=reporter)
    assert reporter.calls[0][:6] == ("start", 0, N_FRAMES, 0, 0, 8)
    assert reporter.calls[-1][:6] == ("end", N_FRAMES, N_FRAMES, 8, 0, 8)
    done = [call[1] for call in reporter.calls]
    assert done == sorted(done)


def test_an_error_of_a_listener_ends_the_run(moved: Context, ds: Any) -> None:
    class Broken(Recorder):
        def update(self, state: Any) -> None:
            raise OSError("no terminal")

    with pytest.raises(OSError, match="no terminal"):
        moved.run_udf(dataset=ds, udf=slow(), progress=Broken())


def test_parameters_can_be_changed(moved: Context, ds: Any) -> None:
    def wait(udf: Any) -> None:
        udf.results.sum[:] = udf.params.v
        if in_worker(udf):
            dawdle(0.001)

    steps = moved.run_udf_iter(dataset=ds, udf=slow(wait, v=1.0))
    next(steps)
    steps.update_parameters_experimental([{"v": 2.0}])
    *_, last = steps
    values = last.buffers[0]["sum"].raw_data.reshape((8, -1))
    assert set(values[:, 0]) == {1.0, 2.0}
    np.testing.assert_array_equal(values, np.repeat(values[:, :1], values.shape[1], axis=1))


def test_results_can_be_awaited(moved: Context, ds: Any, frames: Any) -> None:
    result = asyncio.run(moved.run_udf(dataset=ds, udf=slow(), sync=False))
    np.testing.assert_array_equal(result["sum"].raw_data, sums(frames))


def test_runs_can_be_nested_and_run_side_by_side(moved: Context, ds: Any, frames: Any) -> None:
    results = []

    def run() -> None:
        for step in moved.run_udf_iter(dataset=ds, udf=slow()):
            last = step
        results.append(last.buffers[0]["sum"].raw_data)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    steps = moved.run_udf_iter(dataset=ds, udf=slow())
    next(steps)
    run()
    *_, last = steps
    results.append(last.buffers[0]["sum"].raw_data)
    for thread in threads:
        thread.join()
    for result in results:
        np.testing.assert_array_equal(result, sums(frames))
    assert len(results) == 4


def test_a_closed_executor_has_no_processes_and_is_unusable(eager: None, ds: Any) -> None:
    me = psutil.Process()
    # What is opened once per process, whoever needs it first, is not counted.
    with Context(executor=AdaptiveJobExecutor.make_local(2)) as first:
        first.run_udf(dataset=ds, udf=slow())
    gc.collect()
    children = {child.pid for child in me.children()}
    threads = set(threading.enumerate())
    executor = AdaptiveJobExecutor.make_local(2)
    context = Context(executor=executor)
    n_files = me.num_fds() if sys.platform != "win32" else me.num_handles()
    context.run_udf(dataset=ds, udf=slow())
    assert len({child.pid for child in me.children()} - children) == 2
    context.close()
    context.close()
    assert {child.pid for child in me.children()} == children
    assert set(threading.enumerate()) <= threads
    if sys.platform != "win32":
        gc.collect()
        assert me.num_fds() <= n_files
    with pytest.raises((ExecutorError, RuntimeError), match=r"closed|shutdown"):
        context.run_udf(dataset=ds, udf=slow())


def run_script(script: str, path: str, **kwargs: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, script, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs
    )


SCRIPT = """
    import os, sys, time
    print("begin", flush=True)
    from libertem.api import Context
    from libertem.udf import UDF
    from libertem.executor.adaptive import AdaptiveJobExecutor

    class Mine(UDF):
        def get_result_buffers(self):
            return {"pid": self.buffer(kind="nav", dtype="int64")}

        def process_frame(self, frame):
            end = time.perf_counter() + (0.05 if os.getpid() == MAIN else SECONDS)
            while time.perf_counter() < end:
                pass
            self.results.pid[:] = os.getpid()

    MAIN, SECONDS = os.getpid(), 0.001
    context = Context(executor=AdaptiveJobExecutor.make_local(2))
    shapes = {"nav_shape": (400,), "sig_shape": (8, 8)}
    ds = context.load("raw", path=sys.argv[1], dtype="u2", num_partitions=8, **shapes)
    pids = set(context.run_udf(dataset=ds, udf=Mine())["pid"].data) - {MAIN}
    print(*pids, flush=True)
"""


def gone(pid: int) -> bool:
    """Wait until a process does not run any more."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        dawdle(0.01)
    return False


def test_scripts_need_no_guard_and_leave_no_processes(path: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    with run_script(str(script), path) as process:
        out, err = process.communicate(timeout=60)
    assert err == ""
    begin, pids = out.splitlines()
    assert begin == "begin"
    assert pids
    assert all(gone(int(pid)) for pid in pids.split())


@pytest.mark.skipif(sys.platform == "win32", reason="kills with a signal")
def test_workers_end_with_a_killed_main_process(path: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT) + "SECONDS = 100\ncontext.run_udf(dataset=ds, udf=Mine())\n")
    with run_script(str(script), path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        pids = process.stdout.readline().split()
        # Some time later its workers are busy.
        dawdle(0.5)
        process.kill()
        process.wait()
        assert all(gone(int(pid)) for pid in pids)


def test_nothing_is_loaded_or_started_before_it_is_needed(path: str) -> None:
    script = """
        import sys, threading
        from libertem.api import Context
        from libertem.udf.sum import SumUDF
        with Context() as context:
            ds = context.load("raw", path=sys.argv[1], dtype="u2", nav_shape=(400,), sig_shape=(8, 8))
            context.run_udf(dataset=ds, udf=SumUDF())
            assert context.executor._pools == {}
        loaded = {"cloudpickle", "multiprocessing", "subprocess", "tblib", "libertem.executor.processes"}
        print(*loaded & set(sys.modules) - before)
    """
    # numba loads some of them for purposes of its own.
    code = "import sys, numba, libertem.common.jit\nbefore = set(sys.modules)\n" + textwrap.dedent(script)
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# --- CUDA ---


class OnCuda(UDF):
    def get_backends(self) -> Any:
        return ("cuda",)

    def get_result_buffers(self) -> dict[str, Any]:
        return {"device": self.buffer(kind="nav", dtype="int64")}

    def process_frame(self, frame: Any) -> None:
        assert "LIBERTEM_USE_CPU" not in os.environ
        assert self.meta.device_class == "cuda"
        self.results.device[:] = int(os.environ["LIBERTEM_USE_CUDA"])


def test_cuda_udfs_run_in_one_process_per_device(ds: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("libertem.utils.devices.detect_cudas", lambda: [0, 3])
    with AdaptiveJobExecutor.make_local(1) as executor:
        result = Context(executor=executor).run_udf(dataset=ds, udf=OnCuda())["device"].raw_data
    assert set(result) <= {0, 3}
    assert result.shape == (N_FRAMES,)


def test_cuda_udfs_need_a_device(context: Context, ds: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("libertem.utils.devices.detect_cudas", list)
    with pytest.raises(ResourceError, match="CUDA devices only, but none was found"):
        context.run_udf(dataset=ds, udf=OnCuda())


# --- pools ---


def test_a_worker_can_be_set_up_and_fail_in_that() -> None:
    def fail() -> None:
        raise Special(1, "no such device")

    events: list[Event] = []
    arrived = threading.Event()

    def sink(event: Event) -> None:
        events.append(event)
        arrived.set()

    pool = ProcessPool([WorkerSpec("w", env={"MINE": "1"}, setup=fail)])
    pool.connect(sink)
    pool.start()
    assert arrived.wait(30)
    pool.close()
    assert events[0].kind == "failed"
    with pytest.raises(Special, match="no such device"):
        events[0].value()
    with pytest.raises(ExecutorError, match="closed"):
        pool.start()
