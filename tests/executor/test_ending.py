"""Runs that end before they are finished: nothing of them is left, whatever was in the way."""

from __future__ import annotations

import gc
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
from libertem.exceptions import ExecutorError, UDFRunCancelled
from libertem.executor import moving
from libertem.executor.adaptive import AdaptiveJobExecutor
from libertem.executor.concurrent import ConcurrentJobExecutor
from libertem.executor.inline import InlineJobExecutor
from libertem.executor.pipelined import PipelinedExecutor
from libertem.udf import UDF

# Workers cannot import the modules of tests.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

N_FRAMES = 24


def make_pipelined() -> PipelinedExecutor:
    spec = PipelinedExecutor.make_spec(cpus=2, cudas=[])
    return PipelinedExecutor(spec=spec, cleanup_timeout=20.0)


MAKERS: dict[str, Callable[[], Any]] = {
    "threads": lambda: ConcurrentJobExecutor.make_local(2),
    "processes": lambda: AdaptiveJobExecutor.make_local(2),
    "pipelined": make_pipelined,
}


@pytest.fixture(params=MAKERS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Kinds of executors on this machine. The default one moves to its processes at once."""
    for name, value in (("MIN_SECONDS", 0.0), ("WATCH_SECONDS", 0.0), ("CHECK_SECONDS", 0.01)):
        monkeypatch.setattr(moving, name, value)
    monkeypatch.setattr(moving, "CROWDED", float("inf"))
    monkeypatch.setattr(moving, "DISTURBED", float("inf"))
    return str(request.param)


@pytest.fixture
def ds(tmp_path: Path) -> Any:
    np.repeat(np.arange(N_FRAMES, dtype=np.float32), 16).tofile(tmp_path / "frames.raw")
    return Context(executor=InlineJobExecutor()).load(
        "raw",
        path=str(tmp_path / "frames.raw"),
        dtype="f4",
        nav_shape=(N_FRAMES,),
        sig_shape=(4, 4),
        num_partitions=12,
    )


class Calls(UDF):
    """Calls `f` with the number of each frame."""

    def get_result_buffers(self) -> dict[str, Any]:
        return {"n": self.buffer(kind="nav", dtype="int64")}

    def process_frame(self, frame: Any) -> None:
        self.params.f(int(frame[0, 0]))
        self.results.n[:] = frame[0, 0]


class Gate:
    """A UDF that holds still until the test opens the gate, or forever."""

    def __init__(self, folder: Path, main_pid: int | None) -> None:
        self._started, self._open = folder / "started", folder / "open"
        self._main_pid = main_pid

    def __call__(self, n: int) -> None:
        if os.getpid() != self._main_pid:
            self._started.touch()
            wait_for(self._open.exists)
        else:
            # Until the run has moved to processes, however long they take to start.
            threading.Event().wait(1)

    def wait_for_udf(self) -> None:
        wait_for(self._started.exists)

    def open(self) -> None:
        self._open.touch()


def wait_for(happened: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(3000):
        if happened() or waiting.wait(0.01):
            return
    raise AssertionError("waited for too long")


@pytest.fixture
def gate(kind: str, tmp_path: Path) -> Iterator[Gate]:
    # Only threads of the main process are to be stopped there.
    made = Gate(tmp_path, None if kind == "threads" else os.getpid())
    yield made
    made.open()


def possessions() -> dict[str, Any]:
    """What this process has that should not grow."""
    gc.collect()
    process = psutil.Process()
    mapped = {entry.path for entry in process.memory_maps()} if hasattr(process, "memory_maps") else set()
    return {
        "children": {child.pid for child in process.children(recursive=True)},
        "threads": set(threading.enumerate()),
        "files": process.num_fds() if hasattr(process, "num_fds") else 0,
        "shared memory": {path for path in mapped if path.startswith(("/dev/shm/", "/memfd:"))},
    }


def assert_usable(context: Context, ds: Any) -> None:
    result = context.run_udf(dataset=ds, udf=Calls(f=abs))["n"]
    np.testing.assert_array_equal(result.data, np.arange(N_FRAMES))


@pytest.fixture
def nothing_left(kind: str, ds: Any) -> Iterator[None]:
    """Nothing is left when the test is over."""
    # What is opened once per process, whoever needs it first, is not counted.
    with Context(executor=MAKERS[kind]()) as context:
        assert_usable(context, ds)
    before = possessions()
    yield
    wait_for(lambda: possessions()["threads"] <= before["threads"])
    after = possessions()
    assert after.pop("files") <= before.pop("files")
    assert after == before


def test_close_ends_a_run(kind: str, ds: Any, gate: Gate, nothing_left: None) -> None:
    context = Context(executor=MAKERS[kind]())

    def close() -> None:
        gate.wait_for_udf()
        if kind == "threads":
            # Code of users cannot be interrupted in a thread.
            threading.Timer(0.05, gate.open).start()
        context.close()

    with ThreadPoolExecutor(1) as pool:
        closed = pool.submit(close)
        with pytest.raises(UDFRunCancelled, match=r"^UDF run cancelled after \d+ partitions$"):
            context.run_udf(dataset=ds, udf=Calls(f=gate))
        closed.result()
    with pytest.raises((ExecutorError, RuntimeError), match=r"closed|shutdown"):
        context.run_udf(dataset=ds, udf=Calls(f=gate))


def test_another_thread_can_cancel_a_run(kind: str, ds: Any, gate: Gate, nothing_left: None) -> None:
    with Context(executor=MAKERS[kind]()) as context:
        executor: Any = context.executor

        def cancel() -> None:
            gate.wait_for_udf()
            for cancel_id in list(executor._runs):
                executor.cancel(cancel_id)
            gate.open()

        with ThreadPoolExecutor(1) as pool:
            cancelled = pool.submit(cancel)
            with pytest.raises(UDFRunCancelled):
                context.run_udf(dataset=ds, udf=Calls(f=gate))
            cancelled.result()
        assert executor._runs == {}
        assert_usable(context, ds)


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_ctrl_c_ends_a_run(kind: str, ds: Any, gate: Gate, nothing_left: None) -> None:
    with Context(executor=MAKERS[kind]()) as context:

        def interrupt() -> None:
            gate.wait_for_udf()
            # To the thread that waits: a signal to the process may reach another one, which wakes nobody.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            gate.open()

        with ThreadPoolExecutor(1) as pool:
            pool.submit(interrupt)
            with pytest.raises(KeyboardInterrupt):
                context.run_udf(dataset=ds, udf=Calls(f=gate))
        assert_usable(context, ds)


@pytest.mark.skipif(sys.platform == "win32", reason="kills with a signal")
def test_a_killed_worker_is_replaced(kind: str, ds: Any, tmp_path: Path, nothing_left: None) -> None:
    if kind == "threads":
        pytest.skip("there is no other process")
    marker, main_pid = tmp_path / "died", os.getpid()

    def die_once(n: int) -> None:
        if os.getpid() == main_pid:
            threading.Event().wait(1)
        elif not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    with Context(executor=MAKERS[kind]()) as context:
        result = context.run_udf(dataset=ds, udf=Calls(f=die_once))["n"]
        np.testing.assert_array_equal(result.data, np.arange(N_FRAMES))
        assert marker.exists()
        assert_usable(context, ds)


def test_a_file_that_has_vanished_is_named(kind: str, ds: Any, tmp_path: Path, nothing_left: None) -> None:
    with Context(executor=MAKERS[kind]()) as context:
        file = tmp_path / "other.raw"
        file.write_bytes((tmp_path / "frames.raw").read_bytes())
        vanished = context.load("raw", path=str(file), dtype="f4", nav_shape=(N_FRAMES,), sig_shape=(4, 4))
        file.unlink()
        with pytest.raises(Exception, match=r"other\.raw"):
            context.run_udf(dataset=vanished, udf=Calls(f=abs))
        assert_usable(context, ds)
