"""One run of the pipelined executor."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from libertem.common.scheduler import WorkerSet
from libertem.common.taskcomm import NoopCommHandler
from libertem.exceptions import ExecutorError, JobCancelledError, ResourceError
from libertem.executor.channel import unpack_exception
from libertem.executor.feed import TaskQueue
from libertem.executor.processes import Event, ProcessPool, WorkerProcess
from libertem.executor.tasks import ProcessTasks, describe_end

if TYPE_CHECKING:
    from libertem.common.protocols import TaskProtocol
    from libertem.common.taskcomm import TaskCommHandler

__all__ = ["CHECK_SECONDS", "PipelinedRun"]

_log = logging.getLogger(__name__)

TASKS_PER_WORKER = 2
"""One that runs, and one that waits so that the worker need not."""

MAX_TASKS_AHEAD = 4
"""Per worker: how far tasks may be ahead of the one whose result is next, so that results do not pile up."""

CHECK_SECONDS = 0.1
"""Between two looks at what may have happened."""


class PipelinedRun:
    """The tasks of one run; iterate over it for the results.

    Parameters
    ----------
    pool : ProcessPool
        The processes.
    workers : WorkerSet
        What they offer.
    tasks : iterable of task
        In the order of their results.
    params : object
        What all of them need.
    handler : TaskCommHandler
        Supplies data.
    """

    def __init__(
        self,
        pool: ProcessPool,
        workers: WorkerSet,
        tasks: Iterable[TaskProtocol],
        params: Any,
        handler: TaskCommHandler,
    ) -> None:
        self.params = params
        # With the place of their results.
        self._waiting = deque(enumerate(tasks))
        self._places: dict[int, int] = {}
        self._pool = pool
        self._resources = {worker.name: worker.resources for worker in workers}
        self._handler = handler
        # Data that has been forwarded is gone.
        self._may_repeat = isinstance(handler, NoopCommHandler)
        self._events: SimpleQueue[Event | BaseException] = SimpleQueue()
        self._queues: dict[int, TaskQueue] = {}
        self._results: dict[int, tuple[Any, TaskProtocol]] = {}
        self._next_place = 0
        self._n_failed_starts = 0
        # What ends the run, as soon as it is known: the handler may be busy with forwarding data.
        self._error: BaseException | None = None
        self.tasks = ProcessTasks(pool, params, handler, self.announce)

    def announce(self, event: Event | BaseException) -> None:
        """Something has happened; called in any thread."""
        if isinstance(event, BaseException):
            self._error = self._error or event
        elif event.kind in ("error", "unreadable", "failed"):
            self._error = self._error or unpack_exception(event.packed)
        elif event.kind == "died":
            lost = any(entry.worker is event.worker for entry in list(self.tasks.running.values()))
            if lost and not self._may_repeat and self._error is None:
                self._error = ExecutorError(f"a partition was not finished: {describe_end(event.worker)}")
        elif event.number is not None and event.number in self._queues:
            self._queues[event.number].ended = True
        self._events.put(event)

    def _check(self) -> None:
        if self._error is not None:
            raise JobCancelledError("the run has ended") from self._error

    def __iter__(self) -> Iterator[tuple[Any, TaskProtocol]]:
        while True:
            worker = self._find_worker() if self._waiting else None
            if worker is not None:
                self._start(*self._waiting.popleft(), worker)
            elif not self._waiting and not self.tasks:
                return
            # If something was started, only a look; else wait for a place, or a result.
            self._take_events(wait=worker is None)
            while self._next_place in self._results:
                answer = self._results.pop(self._next_place)
                self._next_place += 1
                yield answer

    def _find_worker(self) -> WorkerProcess | None:
        """Where the next task can go, if it may begin."""
        place, task = self._waiting[0]
        if place - self._next_place >= MAX_TASKS_AHEAD * len(self._pool):
            return None
        needed = task.get_resources()
        fitting = {
            name
            for name, offered in self._resources.items()
            if all(offered.get(resource, 0) >= n for resource, n in needed.items())
        }
        if not fitting:
            raise ResourceError(
                f"no worker offers {dict(needed)}, have {[dict(r) for r in self._resources.values()]}"
            )
        running = [entry.worker for entry in self.tasks.running.values()]
        free = [
            (running.count(worker), i, worker)
            for i, worker in enumerate(self._pool.workers)
            if worker.name in fitting and worker.ready and running.count(worker) < TASKS_PER_WORKER
        ]
        return min(free)[-1] if free else None

    def _start(self, place: int, task: TaskProtocol, worker: WorkerProcess) -> None:
        """Send a task, and all of its data."""
        assert worker.memory is not None
        number = self.tasks.next_number
        self._places[number] = place
        send = partial(self.tasks.send, worker, "data", number)
        queue = self._queues[number] = TaskQueue(worker.memory, send, self._check)
        self.tasks.submit(task, worker)
        try:
            self._handler.handle_task(task, queue)
        except JobCancelledError:
            # What has really happened is more interesting. The end of a worker takes a moment to be known.
            if not worker.alive:
                worker.join()
            if self._error is not None:
                raise self._error from None
            raise
        self.tasks.send(worker, "complete", number)

    def _take_events(self, *, wait: bool) -> None:
        try:
            event = self._events.get(timeout=CHECK_SECONDS) if wait else self._events.get_nowait()
        except Empty:
            return
        if isinstance(event, Event) and event.number is not None:
            task = self.tasks.take(event.number)
            self._queues.pop(event.number)
            if self._error is None:
                self._results[self._places[event.number]] = event.value(), task
        if self._error is not None:
            raise self._error
        if isinstance(event, Event) and event.kind == "died":
            self._repeat(event.worker)

    def _repeat(self, worker: WorkerProcess) -> None:
        """Replace a worker that has ended, and start its tasks over."""
        self._n_failed_starts += not worker.ready
        if self._n_failed_starts > len(self._pool):
            raise ExecutorError(f"worker processes cannot be started again: {describe_end(worker)}")
        for number, task in sorted(self.tasks.take_lost(worker).items(), reverse=True):
            self._queues.pop(number)
            self._waiting.appendleft((self._places[number], task))
        self._pool.start()

    def close(self, timeout: float) -> None:
        """Give up what is not finished, and replace workers that do not notice."""
        self.tasks.give_up()
        end = time.monotonic() + timeout
        busy = {number: entry.worker for number, entry in self.tasks.running.items()}
        while busy and time.monotonic() < end:
            try:
                event = self._events.get(timeout=CHECK_SECONDS)
            except Empty:
                event = None
            if isinstance(event, Event) and event.number is not None:
                busy.pop(event.number, None)
            busy = {number: worker for number, worker in busy.items() if worker.alive}
        for worker in busy.values():
            _log.warning("worker %s does not end its task, and is replaced", worker.name)
            worker.kill()
            worker.join()
        self.tasks.close()
