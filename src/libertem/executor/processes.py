"""Worker processes on this machine, seen from the main process.

They are fresh interpreters, neither forked (which is unsafe in a process with threads) nor started by
`multiprocessing`, which would run the script of the user again: no ``if __name__ == "__main__"`` is needed,
and notebooks work. What they receive is pickled by `cloudpickle`.

A worker lives until its pool is closed or the main process ends, in whatever way: then its connection breaks.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import uuid
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import spawn
from typing import Any

from libertem.common.threading import num_threads_env
from libertem.exceptions import ExecutorError
from libertem.executor.channel import Channel, Packed, pack, unpack, unpack_exception
from libertem.executor.feed import Memory

__all__ = ["Event", "ProcessPool", "WorkerProcess", "WorkerSpec"]

_BOOTSTRAP = """
import json, sys
start = json.loads(sys.stdin.readline())
sys.path[:] = start["path"]
from libertem.executor.worker import main
main(start["socket"], start["memory"])
"""

END_SECONDS = 2.0
"""How long a worker that was told to end, or whose connection broke, may take before it is killed."""


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker should be like."""

    name: str
    """Unique in a pool."""
    env: Mapping[str, str | None] = field(default_factory=dict)
    """Environment variables that differ from those of the main process; None removes one."""
    setup: Callable[[], Any] | None = None
    """Called in the worker before anything else."""
    memory_bytes: int = 0
    """Shared with the main process, for live data."""


@dataclass(frozen=True)
class Event:
    """A message from a worker, or its end."""

    worker: WorkerProcess
    kind: str
    """See `libertem.executor.worker`; or ``'died'``."""
    number: int | None = None
    """Of the task or call that this answers."""
    packed: Packed = ()
    """What came with it."""

    def value(self) -> Any:
        """The result.

        Raises
        ------
        BaseException
            What the task or call has raised instead, with the traceback of the worker.
        """
        if self.kind == "result":
            return unpack(self.packed)
        raise unpack_exception(self.packed)


class WorkerProcess:
    """One process. `dispatch` is called, in a thread that waits for messages, with the run and the event."""

    def __init__(self, spec: WorkerSpec, dispatch: Callable[[str | None, Event], None]) -> None:
        self.name = spec.name
        self.ready = False
        """Whether the process has started up."""
        self.alive = True
        """Whether it can still be reached."""
        self._dispatch = dispatch
        self._known_runs: set[str] = set()
        self.memory = Memory(spec.memory_bytes) if spec.memory_bytes else None
        self._process, sock = _start(spec.env, self.memory)
        self._channel = Channel(sock)
        self._thread = threading.Thread(target=self._receive, name=f"libertem-{spec.name}", daemon=True)
        self._thread.start()
        self.send(("setup",), pack(spec.setup))

    def send(self, header: tuple[Any, ...], packed: Packed = ()) -> None:
        """Send a message. One that does not arrive is followed by the event ``'died'``."""
        try:
            self._channel.send(header, packed)
        except OSError:
            # The thread that receives notices it, too.
            self.alive = False

    def begin_run(self, run_id: str, packed_params: Packed) -> None:
        """Send the parameters of a run, unless the worker has them."""
        if run_id not in self._known_runs:
            self._known_runs.add(run_id)
            self.send(("params", run_id), packed_params)

    def patch_run(self, run_id: str, packed_patch: Packed) -> None:
        """Change parameters, if the worker has them."""
        if run_id in self._known_runs:
            self.send(("patch", run_id), packed_patch)

    def give_up_run(self, run_id: str) -> None:
        """Let tasks of a run end early."""
        if run_id in self._known_runs:
            self.send(("give_up", run_id))

    def end_run(self, run_id: str) -> None:
        """Give up tasks of a run that are not finished, and release its parameters."""
        self.give_up_run(run_id)
        if run_id in self._known_runs:
            self._known_runs.discard(run_id)
            self.send(("forget", run_id))

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """As told by the operating system; negative for a signal. None while the process runs."""
        return self._process.poll()

    def _receive(self) -> None:
        try:
            while True:
                header, packed = self._channel.receive()
                kind, run_id, number = header if len(header) == 3 else (*header, None)
                if kind == "free":
                    assert self.memory is not None
                    self.memory.release(run_id)
                    continue
                if kind == "ready":
                    self.ready = True
                self._dispatch(run_id, Event(self, kind, number, packed))
        except EOFError:
            pass
        finally:
            self.alive = False
            if self.memory is not None:
                self.memory.close()
            _end(self._process)
            self._channel.close()
            self._dispatch(None, Event(self, "died"))

    def stop(self) -> None:
        """Let the process end; a task that is going on is abandoned."""
        self.send(("stop",))

    def join(self) -> None:
        """Wait until the process has ended; it is killed if it takes long."""
        self._thread.join(END_SECONDS)
        if self._thread.is_alive():
            self.kill()
            self._thread.join()

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()


def _start(
    changes: Mapping[str, str | None], memory: Memory | None
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a process; returns the main process's end of the connection to it."""
    env = {**os.environ, **num_threads_env(1)}
    for name, value in changes.items():
        env.pop(name, None)
        if value is not None:
            env[name] = value
    ours, theirs = socket.socketpair()
    files = () if memory is None else memory.files
    try:
        with theirs:
            process = subprocess.Popen(
                # Not always `sys.executable`: programs that embed Python say here where it is.
                [os.fsdecode(spawn.get_executable()), "-c", _BOOTSTRAP],
                stdin=subprocess.PIPE,
                env=env,
                pass_fds=() if sys.platform == "win32" else (theirs.fileno(), *files),
            )
            place: int | str = theirs.fileno()
            if sys.platform == "win32":
                place = theirs.share(process.pid).hex()
            start = {
                "path": [str(entry) for entry in sys.path],
                "socket": place,
                "memory": None if memory is None else memory.place,
            }
            assert process.stdin is not None
            try:
                with process.stdin as stdin:
                    stdin.write(json.dumps(start).encode() + b"\n")
            # It has ended already, which is noticed on the connection.
            except OSError:
                pass
    except BaseException:
        ours.close()
        raise
    finally:
        if memory is not None:
            memory.started()
    return process, ours


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class ProcessPool:
    """Some workers that are started when first needed, and replaced if they die. Serves any number of runs.

    Parameters
    ----------
    specs : sequence of WorkerSpec
        One per worker.
    """

    def __init__(self, specs: Sequence[WorkerSpec]) -> None:
        self._specs = list(specs)
        self._workers: dict[str, WorkerProcess] = {}
        self._sinks: dict[str, Callable[[Event], None]] = {}
        self._lock = threading.Lock()
        self._closed = False
        # Does not know the pool, which would otherwise live for ever. Also called when the interpreter exits.
        self._finalizer = weakref.finalize(self, _stop_all, self._workers, os.getpid())

    def __len__(self) -> int:
        return len(self._specs)

    @property
    def workers(self) -> list[WorkerProcess]:
        """Those that can be reached."""
        return [worker for worker in list(self._workers.values()) if worker.alive]

    def start(self) -> None:
        """Start the workers that are not there; returns before they are ready.

        Raises
        ------
        OSError
            If the operating system refuses.
        """
        with self._lock:
            if self._closed:
                raise ExecutorError("the executor has been closed")
            for spec in self._specs:
                worker = self._workers.get(spec.name)
                if worker is None or not worker.alive:
                    self._workers[spec.name] = WorkerProcess(spec, _Dispatcher(self._sinks))

    def connect(self, sink: Callable[[Event], None]) -> str:
        """Begin a run: `sink` receives its events, and the end of workers, in any thread. Returns its id."""
        run_id = uuid.uuid4().hex
        self._sinks[run_id] = sink
        return run_id

    def disconnect(self, run_id: str) -> None:
        """End a run; tasks of it that are going on end soon, and their results are ignored."""
        self._sinks.pop(run_id, None)
        for worker in self.workers:
            worker.end_run(run_id)

    def close(self) -> None:
        """End all workers. May be called twice."""
        with self._lock:
            self._closed = True
        self._finalizer()


@dataclass(frozen=True)
class _Dispatcher:
    """Hands an event to the run that it belongs to; what belongs to none concerns all."""

    sinks: Mapping[str, Callable[[Event], None]]

    def __call__(self, run_id: str | None, event: Event) -> None:
        if run_id is None:
            for sink in list(self.sinks.values()):
                sink(event)
        elif run_id in self.sinks:
            self.sinks[run_id](event)


def _stop_all(workers: dict[str, WorkerProcess], pid: int) -> None:
    # A process that was forked from the main process does not own its workers.
    if os.getpid() != pid:
        return
    ending: Iterable[WorkerProcess] = list(workers.values())
    for worker in ending:
        worker.stop()
    for worker in ending:
        worker.join()
    workers.clear()
