"""One run on a Dask cluster, seen from the main process."""

from __future__ import annotations

import pickle
import queue
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future as LocalFuture
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cloudpickle

from libertem.exceptions import ExecutorError, JobCancelledError
from libertem.executor.dask.connection import CHECK_SECONDS, LOST_WORK, Connection, Watch
from libertem.executor.dask.worker import (
    MissingParameters,
    forget_parameters,
    give_up,
    patch_parameters,
    receive_parameters,
    run_task,
)

if TYPE_CHECKING:
    from libertem.common.protocols import TaskProtocol
    from libertem.common.taskcomm import TaskCommHandler

__all__ = ["Handle", "Run"]

TASKS_PER_THREAD = 2
"""One that runs, and one that waits so that the worker need not."""

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
    """A task on its way."""

    task: TaskProtocol
    future: Any
    """Of Dask."""
    attempt: int


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
                    self._submit(self._waiting.popleft(), attempt=1)
                if not self._started:
                    return
                finished = self._next_finished()
                started = self._started.pop(finished)
                result = self._result(finished, started.task)
                started.future.release()
                if isinstance(result, MissingParameters):
                    self._repeat(started, result)
                else:
                    yield result, started.task
        finally:
            self._end()

    def _submit(self, task: TaskProtocol, attempt: int) -> None:
        try:
            self._start(task, attempt)
        except Exception as err:
            # Somebody has closed the client meanwhile.
            if self._stop_reason is not None:
                raise JobCancelledError(self._stop_reason) from err
            raise

    def _start(self, task: TaskProtocol, attempt: int) -> None:
        future = self._connection.client.submit(
            run_task,
            # Pickled here: an error is raised by this call, and Dask does not look inside.
            cloudpickle.dumps(task),
            self._handle.key,
            self._handle.pickled_patches,
            self.id,
            self._topic,
            key=f"libertem-task-{self.id}-{task.idx}-{attempt}",
            resources=dict(self._resources(task)) or None,
        )
        fetched = self._connection.fetch(future)
        self._started[fetched] = _Started(task, future, attempt)
        fetched.add_done_callback(self._events.put)

    def _repeat(self, started: _Started, missing: MissingParameters) -> None:
        """Give a worker what it lacks to begin a task, and let the task start again."""
        if started.attempt == MAX_ATTEMPTS:
            ident = started.task.get_partition().get_ident()
            raise ExecutorError(
                f"workers are restarted again and again, the last was {missing.name} ({missing.address}), "
                f"which was to process {ident} (a worker that needs more memory than its limit is ended)"
            )
        self._handle.send([missing.address])
        self._submit(started.task, started.attempt + 1)

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

    def _result(self, finished: LocalFuture[Any], task: TaskProtocol) -> Any:
        try:
            return finished.result()
        except LOST_WORK as err:
            if self._stop_reason is not None:
                raise JobCancelledError(self._stop_reason) from err
            raise self._connection.explain(err, task.get_partition().get_ident()) from err

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
