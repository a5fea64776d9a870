"""A run that begins in threads and may move to processes."""

from __future__ import annotations

import glob
import statistics
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, wait
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Literal

from libertem.exceptions import ExecutorError, JobCancelledError
from libertem.executor.base import Environment
from libertem.executor.channel import pack, unpack_exception
from libertem.executor.local import LocalWorkerContext, level_of_caller
from libertem.executor.processes import Event, ProcessPool, WorkerProcess
from libertem.executor.tasks import ProcessTasks, describe_end

if TYPE_CHECKING:
    from libertem.common.protocols import TaskProtocol
    from libertem.common.taskcomm import TaskCommHandler

__all__ = ["MovingRun"]

CHECK_SECONDS = 0.02
"""Between two looks at a run."""

WATCH_SECONDS = 0.06
"""Time over which the use of the cores is measured."""

DISTURBED = 0.1
"""If threads stand in line for a core that long, as a part of the time, others use the cores as well."""

LONG_WAIT_SECONDS = 0.0005
"""A thread waits so long for the interpreter lock if others compute in Python: they keep it for up to 5 ms.
With NumPy in large operations it is 0.1 to 0.3 ms on a machine that is overloaded."""

N_PROBES = 5
"""How often that wait is measured."""

MIN_SECONDS = 0.5
"""A run that goes on for less stays in threads."""

CROWDED = 0.75
"""Threads that use a smaller part of their cores stand in each other's way."""

SEND_BYTES_PER_SECOND = 1e9
"""How fast data in memory reaches another process, cautiously."""


@dataclass
class _InThread:
    """A task in a thread."""

    task: TaskProtocol
    stop: threading.Event = field(default_factory=threading.Event)
    """Set if the task is to be started over somewhere else."""
    done: float = 0.0
    """Part of its partition, from 0 to 1."""

    def report(self, done: float) -> None:
        """The task has come further."""
        self.done = done


class ThreadTasks:
    """The tasks of a run that are in threads.

    Parameters
    ----------
    client : concurrent.futures.Executor
        Pool of threads.
    params : object
        What all tasks need.
    handler : TaskCommHandler
        Receives messages of tasks.
    stop : threading.Event
        Set if the run was given up.
    announce : callable
        Receives futures that are done, in any thread.
    """

    def __init__(
        self,
        client: Executor,
        params: Any,
        handler: TaskCommHandler,
        stop: threading.Event,
        announce: Callable[[Future[Any]], None],
    ) -> None:
        self._client = client
        self._params = params
        self._context = LocalWorkerContext(handler)
        self._stop = stop
        self._announce = announce
        self.running: dict[Future[Any], _InThread] = {}

    def __len__(self) -> int:
        return len(self.running)

    def submit(self, task: TaskProtocol) -> None:
        """Start a task."""
        entry = _InThread(task)
        env = Environment(
            threads_per_worker=1,
            worker_context=self._context,
            cancelled=lambda: entry.stop.is_set() or self._stop.is_set(),
            threaded_executor=True,
            report=entry.report,
        )
        future = self._client.submit(task, self._params, env)
        self.running[future] = entry
        future.add_done_callback(self._announce)

    def take(self, future: Future[Any]) -> tuple[Any, TaskProtocol, bool]:
        """Result of a task, the task, and whether it has to be started over instead."""
        entry = self.running.pop(future)
        if future.cancelled():
            return None, entry.task, True
        try:
            return future.result(), entry.task, False
        except JobCancelledError:
            if not entry.stop.is_set() or self._stop.is_set():
                raise
            return None, entry.task, True

    def call_back(self, entries: Sequence[_InThread]) -> None:
        """Let tasks end at their next tile, to be started over."""
        for future, entry in list(self.running.items()):
            if any(entry is one for one in entries):
                entry.stop.set()
                future.cancel()

    def close(self) -> None:
        """End all tasks, and wait until they have ended."""
        self._stop.set()
        for future in self.running:
            future.cancel()
        wait(self.running)


def _seconds_in_line(threads: str = "/proc/self/task/*") -> float:
    """How long threads of this process have been ready to run while others had the cores.

    Known on Linux, 0 elsewhere. By default of all threads; ``"/proc/thread-self"`` is the calling one.
    """
    nanoseconds = 0
    for path in glob.glob(f"{threads}/schedstat"):
        try:
            with open(path, encoding="ascii") as file:
                nanoseconds += int(file.read().split()[1])
        # The thread has ended meanwhile.
        except OSError:
            pass
    return nanoseconds / 1e9


class _Window:
    """Measures how well the threads of this process use their cores."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin again."""
        self._begin, self._cpu, self._in_line = time.perf_counter(), time.process_time(), _seconds_in_line()
        self._waits: list[float] = []

    def seconds(self) -> float:
        """Since the beginning."""
        return time.perf_counter() - self._begin

    def cores(self) -> float:
        """How many of them were used, in the mean since the beginning."""
        return (time.process_time() - self._cpu) / self.seconds()

    def is_disturbed(self) -> bool:
        """Whether other processes have had the cores for a part of the time."""
        return _seconds_in_line() - self._in_line > DISTURBED * self.seconds()

    @contextmanager
    def probe(self, pause: float) -> Iterator[None]:
        """Measure how long this thread waits for the interpreter lock after a pause of `pause` seconds."""
        begin, in_line = time.perf_counter(), _seconds_in_line("/proc/thread-self")
        try:
            yield
        # Nothing has ended the pause early.
        except Empty:
            late = time.perf_counter() - begin - pause
            self._waits.append(late - (_seconds_in_line("/proc/thread-self") - in_line))
            raise

    def is_crowded(self, n_threads: int) -> bool | None:
        """Whether threads stand in each other's way; None if that is not known yet."""
        if self.seconds() < WATCH_SECONDS:
            return None
        if self.cores() >= CROWDED * n_threads:
            return False
        if not self.is_disturbed():
            return True
        # Maybe others have the cores. How long the lock is kept tells Python code from compiled code.
        if len(self._waits) < N_PROBES:
            return None
        return statistics.median(self._waits) > LONG_WAIT_SECONDS


class MovingRun:
    """Runs tasks in threads or processes; iterate over it for the results.

    Parameters
    ----------
    tasks : iterable of task
        In the order in which they are started.
    params : object
        What all of them need.
    handler : TaskCommHandler
        Receives messages of tasks, in any thread.
    client : concurrent.futures.Executor
        Pool of threads.
    n_threads : int
        How many of them.
    pool : ProcessPool
        Processes.
    only_processes : bool
        Whether tasks cannot run in threads.
    expected_seconds : float
        How long threads would need, judging by earlier runs that have moved; 0 if that is not known.
    """

    def __init__(
        self,
        tasks: Iterable[TaskProtocol],
        params: Any,
        handler: TaskCommHandler,
        *,
        client: Executor,
        n_threads: int,
        pool: ProcessPool,
        only_processes: bool = False,
        expected_seconds: float = 0.0,
    ) -> None:
        self.seconds_in_threads: float | None = None
        """How long threads would need for all tasks, at most; 0 if processes were not faster.

        None if that was not found out.
        """
        self.params = params
        self.stop = threading.Event()
        """Set this to end the run."""
        self._waiting = deque(tasks)
        self._n_tasks = len(self._waiting)
        self._n_finished = 0
        self._handler = handler
        self._n_threads = n_threads
        self._pool = pool
        self._only_processes = only_processes
        self._expected_seconds = expected_seconds
        self._seconds_given_away = 0.0
        self._events: SimpleQueue[Future[Any] | Event | BaseException] = SimpleQueue()
        self._threads = ThreadTasks(client, params, handler, self.stop, self._events.put)
        self._processes: ProcessTasks | None = None
        self._n_failed_starts = 0
        self._begin = time.perf_counter()
        self._under_way = False
        self._window = _Window()
        # "moving": processes are starting up, and threads go on meanwhile. "settled": in threads for good.
        self._where: Literal["threads", "settled", "moving", "processes", "one thread"] = "threads"

    def __iter__(self) -> Iterator[tuple[Any, TaskProtocol]]:
        try:
            if self._only_processes:
                self._processes = ProcessTasks(self._pool, self.params, self._handler, self._events.put)
                self._where = "processes"
                self._pool.start()
            elif self._expected_seconds > MIN_SECONDS and self._is_pool_ready():
                self._begin_in_processes()
            begun_in_processes = self._where == "processes"
            while True:
                self._hand_out()
                if not (self._waiting or self._threads or self._processes):
                    break
                answer = self._next_answer()
                if answer is not None:
                    self._n_finished += 1
                    # Before the results are merged, which may take time.
                    self._hand_out()
                    given_away = time.perf_counter()
                    yield answer
                    self._seconds_given_away += time.perf_counter() - given_away
            if begun_in_processes and self._where == "processes":
                elapsed = time.perf_counter() - self._begin - self._seconds_given_away
                faster = elapsed < self._expected_seconds
                self.seconds_in_threads = (
                    min(self._expected_seconds, elapsed * len(self._pool)) if faster else 0.0
                )
        finally:
            self._threads.close()
            if self._processes is not None:
                self._processes.close()

    def patch(self, patch: Any) -> None:
        """The parameters have been changed."""
        if self._processes is not None:
            self._processes.patch(self.params, patch)

    def _hand_out(self) -> None:
        if self.stop.is_set():
            return
        if self._where == "processes":
            assert self._processes is not None
            while self._waiting and (worker := self._processes.find_place()) is not None:
                self._processes.submit(self._waiting.popleft(), worker)
        else:
            limit = 1 if self._where == "one thread" else self._n_threads
            while self._waiting and len(self._threads) < limit:
                self._threads.submit(self._waiting.popleft())

    def _next_answer(self) -> tuple[Any, TaskProtocol] | None:
        if self.stop.is_set():
            raise JobCancelledError("the run was cancelled")
        if self._where == "threads":
            self._consider_moving()
        try:
            with self._window.probe(CHECK_SECONDS) if self._where == "threads" else nullcontext():
                event = self._events.get(timeout=CHECK_SECONDS)
        except Empty:
            return None
        if isinstance(event, BaseException):
            raise event
        if isinstance(event, Event):
            return self._take_event(event)
        result, task, again = self._threads.take(event)
        if again:
            self._waiting.appendleft(task)
            return None
        return result, task

    def _take_event(self, event: Event) -> tuple[Any, TaskProtocol] | None:
        assert self._processes is not None
        if event.kind == "failed":
            raise unpack_exception(event.packed)
        if event.kind == "died":
            self._replace(event.worker)
        elif event.number is not None:
            task = self._processes.take(event.number)
            if event.kind != "unreadable" or self._only_processes:
                return event.value(), task
            self._waiting.appendleft(task)
            self._stay(f"a worker process could not read it: {unpack_exception(event.packed)!r}")
        if self._where == "moving" and any(worker.ready for worker in self._pool.workers):
            self._where = "processes"
            self._threads.call_back([e for e in self._threads.running.values() if e.done < 0.5])
        return None

    def _replace(self, worker: WorkerProcess) -> None:
        """A worker has ended without being asked to."""
        assert self._processes is not None
        self._waiting.extendleft(self._processes.take_lost(worker).values())
        self._n_failed_starts += not worker.ready
        if self._n_failed_starts > len(self._pool):
            if self._only_processes:
                raise ExecutorError(f"worker processes cannot be started: {describe_end(worker)}")
            self._stay(f"worker processes cannot be started: {describe_end(worker)}")
        elif self._where in ("moving", "processes"):
            self._pool.start()

    # --- moving ---

    def _is_pool_ready(self) -> bool:
        workers = self._pool.workers
        return len(workers) == len(self._pool) and all(worker.ready for worker in workers)

    def _begin_in_processes(self) -> None:
        """Spare a run that is like an earlier one to be watched, and its first tasks to be started twice."""
        gain = self._expected_seconds * (1 - 1 / len(self._pool))
        self._move(self._waiting[0], gain)
        if self._where == "moving":
            self._where = "processes"

    def _consider_moving(self) -> None:
        running = list(self._threads.running.values())
        elapsed = time.perf_counter() - self._begin
        if not self._under_way:
            # Compiling and loading of modules are over.
            self._under_way = (
                self._n_finished > 0 or all(entry.done > 0 for entry in running) or elapsed > MIN_SECONDS
            )
            self._window.restart()
            return
        if len(running) < 2:
            self._window.restart()
            return
        crowded = self._window.is_crowded(len(running))
        if crowded is None:
            return
        cores = self._window.cores()
        self._window.restart()
        if not crowded:
            return
        done = self._n_finished + sum(entry.done for entry in running)
        rest = elapsed * (self._n_tasks / done - 1) if done > 0 else elapsed
        if rest > MIN_SECONDS:
            self.seconds_in_threads = elapsed + rest
            self._move(running[0].task, gain=rest * (1 - cores / len(self._pool)))

    def _move(self, example: TaskProtocol, gain: float) -> None:
        """Start processes, unless data in memory would be longer on its way than they need less."""
        try:
            packed = pack(example)
            processes = ProcessTasks(self._pool, self.params, self._handler, self._events.put)
        # Code of users decides what can be pickled, and may fail in any way.
        except Exception as err:
            self._stay(f"it cannot be pickled: {err!r}")
            return
        self._processes = processes
        n_bytes = sum(memoryview(buffer).nbytes for buffer in packed) * (self._n_tasks - self._n_finished)
        if n_bytes / SEND_BYTES_PER_SECOND > gain:
            # Nothing to warn about: this is the best that can be done.
            self._where = "settled"
            return
        try:
            self._pool.start()
        except OSError as err:
            self._stay(f"worker processes cannot be started: {err}")
            return
        self._where = "moving"
        if any(worker.ready for worker in self._pool.workers):
            self._events.put(Event(self._pool.workers[0], "ready"))

    def _stay(self, reason: str) -> None:
        """Go on in one thread: more would only take turns."""
        if self._where == "one thread":
            return
        self._where = "one thread"
        self._threads.call_back(list(self._threads.running.values())[1:])
        warnings.warn(
            "Python code of a UDF runs in one thread instead of several worker processes, because "
            f"{reason} (define UDFs without references to locks, open files or the like)",
            UserWarning,
            stacklevel=level_of_caller(),
        )
