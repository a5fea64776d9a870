"""One run on a Dask cluster, seen from the main process."""

from __future__ import annotations

import pickle
import queue
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future as LocalFuture
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cloudpickle

from libertem.exceptions import ExecutorError, JobCancelledError
from libertem.executor.dask.connection import CHECK_SECONDS, LOST_WORK, Connection, Watch
from libertem.executor.dask.worker import (
    Finished,
    MissingParameters,
    forget_parameters,
    give_up,
    patch_parameters,
    receive_parameters,
    run_tasks,
)

if TYPE_CHECKING:
    from libertem.common.protocols import TaskProtocol
    from libertem.common.taskcomm import TaskCommHandler

__all__ = ["Handle", "Run"]

TASKS_PER_THREAD = 2
"""One that runs, and one that waits so that the worker need not."""

BATCH_SECONDS = 0.1
"""Tasks that are shorter go together: each message costs scheduler and main process some milliseconds."""

BATCHES_LEFT = 4
"""As many batches per worker the rest of a run must allow, so that workers end together."""

MAX_BATCH_BYTES = 1 << 25
"""Results that may come together."""

WAIT_S = 10.0
"""For workers to receive something. One that gets a task first says so, and gets it again."""

MAX_ATTEMPTS = 5
"""Of a task whose worker had to be replaced each time."""


class Handle:
    """Parameters that have been sent to the workers.

    Parameters
    ----------
    connection : Connection
        To the cluster.
    value : object
        What all tasks of a run need.
    """

    def __init__(self, connection: Connection, value: Any) -> None:
        self.key = uuid.uuid4().hex
        self._connection = connection
        self._pickled = cloudpickle.dumps(value)
        self._patches: list[Any] = []
        self.pickled_patches = pickle.dumps([])

    def send(self, addresses: Iterable[str]) -> None:
        """Send the parameters to some workers. One that is not there any more is passed over."""
        where = list(addresses)
        self._connection.broadcast(receive_parameters, self.key, self._pickled, workers=where, wait_s=WAIT_S)

    def patch(self, patch: Any) -> None:
        """Change all copies, also for tasks that wait on a worker."""
        self._patches.append(patch)
        # Tasks that are submitted from now on bring all patches along, should a worker miss this.
        self.pickled_patches = cloudpickle.dumps(self._patches)
        self._connection.broadcast(patch_parameters, self.key, self.pickled_patches, wait_s=WAIT_S)

    def forget(self) -> None:
        """Release the copies."""
        self._connection.broadcast(forget_parameters, self.key)


@dataclass(frozen=True)
class _Started:
    """Tasks on their way."""

    tasks: Sequence[TaskProtocol]
    future: Any
    """Of Dask."""
    attempt: int

    def describe(self) -> str:
        """Which partitions."""
        names = [task.get_partition().get_ident() for task in (self.tasks[0], self.tasks[-1])]
        return names[0] if len(self.tasks) == 1 else f"{names[0]} to {names[1]}"


class _Pace:
    """Decides how many tasks go together, from what tasks have taken so far.

    All of it is forgotten soon: partitions of a run may differ.
    """

    def __init__(self) -> None:
        self._seconds: float | None = None
        self._n_bytes = 0.0

    def note(self, finished: Finished) -> None:
        """Some tasks have come back."""
        n = len(finished.results)
        seconds, n_bytes = finished.seconds / n, finished.n_bytes / n
        if self._seconds is not None:
            seconds, n_bytes = (seconds + self._seconds) / 2, (n_bytes + self._n_bytes) / 2
        self._seconds, self._n_bytes = seconds, n_bytes

    def batch_size(self, n_waiting: int, n_places: int) -> int:
        """How many of the waiting tasks to submit together."""
        if self._seconds is None:
            return 1
        limits = (
            BATCH_SECONDS / max(self._seconds, 1e-6),
            MAX_BATCH_BYTES / max(self._n_bytes, 1),
            n_waiting / (BATCHES_LEFT * max(1, n_places)),
        )
        return max(1, int(min(limits)))


class Run:
    """Submits the tasks of one run, few at a time, and collects their results.

    Every task has one result that is handed on once: if a worker dies, Dask repeats what was lost on another
    one, and tasks have no effect but their result.

    Parameters
    ----------
    connection : Connection
        To the cluster.
    tasks : iterable of task
        In the order in which they are submitted.
    handle : Handle
        What all of them need.
    handler : TaskCommHandler
        Receives messages of tasks, in the thread that iterates over the results.
    topic : str
        For messages.
    tagged : bool
        Whether workers declare what they offer.
    """

    def __init__(
        self,
        connection: Connection,
        tasks: Iterable[TaskProtocol],
        handle: Handle,
        handler: TaskCommHandler,
        *,
        topic: str,
        tagged: bool,
    ) -> None:
        self.id = uuid.uuid4().hex
        self._connection = connection
        self._waiting = deque(tasks)
        self._handle = handle
        self._handler = handler
        self._topic = topic
        self._tagged = tagged
        resources = self._resources(self._waiting[0]) if self._waiting else {}
        self._watch = Watch(connection, resources)
        self._n_places = 0
        self._pace = _Pace()
        self._started: dict[LocalFuture[Any], _Started] = {}
        # What happened: a result arrived, a message arrived, or (None) somebody wants the run to stop.
        self._events: queue.SimpleQueue[LocalFuture[Any] | bytes | None] = queue.SimpleQueue()
        self._stop_reason: str | None = None

    def _resources(self, task: TaskProtocol) -> Mapping[str, int]:
        return task.get_resources() if self._tagged else {}

    def __iter__(self) -> Iterator[tuple[Any, TaskProtocol]]:
        self._n_places = self._watch.require()
        try:
            while True:
                while self._waiting and len(self._started) < TASKS_PER_THREAD * max(1, self._n_places):
                    n = self._pace.batch_size(len(self._waiting), self._n_places)
                    self._submit([self._waiting.popleft() for _ in range(n)], attempt=1)
                if not self._started:
                    return
                finished = self._next_finished()
                started = self._started.pop(finished)
                result = self._result(finished, started)
                started.future.release()
                if isinstance(result, MissingParameters):
                    self._repeat(started, result)
                else:
                    self._pace.note(result)
                    yield from zip(result.results, started.tasks, strict=True)
        finally:
            self._end()

    def _submit(self, tasks: Sequence[TaskProtocol], attempt: int) -> None:
        try:
            self._start(tasks, attempt)
        except Exception as err:
            # Somebody has closed the client meanwhile.
            if self._stop_reason is not None:
                raise JobCancelledError(self._stop_reason) from err
            raise

    def _start(self, tasks: Sequence[TaskProtocol], attempt: int) -> None:
        future = self._connection.client.submit(
            run_tasks,
            # Pickled here: an error is raised by this call, and Dask does not look inside.
            cloudpickle.dumps(list(tasks)),
            self._handle.key,
            self._handle.pickled_patches,
            self.id,
            self._topic,
            key=f"libertem-task-{self.id}-{tasks[0].idx}-{attempt}",
            resources=dict(self._resources(tasks[0])) or None,
        )
        fetched = self._connection.fetch(future)
        self._started[fetched] = _Started(tasks, future, attempt)
        fetched.add_done_callback(self._events.put)

    def _repeat(self, started: _Started, missing: MissingParameters) -> None:
        """Give a worker what it lacks to begin, and let the tasks start again."""
        if started.attempt == MAX_ATTEMPTS:
            raise ExecutorError(
                f"workers are restarted again and again, the last was {missing.name} ({missing.address}), "
                f"which was to process {started.describe()} "
                "(a worker that needs more memory than its limit is ended)"
            )
        self._handle.send([missing.address])
        self._submit(started.tasks, started.attempt + 1)

    def _next_finished(self) -> LocalFuture[Any]:
        while True:
            if self._stop_reason is not None:
                raise JobCancelledError(self._stop_reason)
            try:
                event = self._events.get(timeout=CHECK_SECONDS)
            except queue.Empty:
                self._n_places = self._watch.check()
                continue
            if isinstance(event, bytes):
                self._handler.publish(*pickle.loads(event))
            elif event is not None:
                return event

    def _result(self, finished: LocalFuture[Any], started: _Started) -> Finished | MissingParameters:
        try:
            result: Finished | MissingParameters = finished.result()
            return result
        except LOST_WORK as err:
            if self._stop_reason is not None:
                raise JobCancelledError(self._stop_reason) from err
            raise self._connection.explain(err, started.describe()) from err

    def on_message(self, message: bytes) -> None:
        """A task has sent a message; may be called in any thread."""
        self._events.put(message)

    def stop(self, reason: str) -> None:
        """End the run; may be called in any thread."""
        self._stop_reason = reason
        self._events.put(None)

    def _end(self) -> None:
        """Take back what is not finished. Tasks that run notice it between blocks of frames."""
        started, self._started = self._started, {}
        self._waiting.clear()
        if started:
            self._connection.drop([one.future for one in started.values()])
            self._connection.broadcast(give_up, self.id)
