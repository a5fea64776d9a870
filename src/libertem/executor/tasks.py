"""The tasks of one run that are in worker processes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from libertem.exceptions import ExecutorError
from libertem.executor.channel import Packed, pack, unpack
from libertem.executor.processes import Event, ProcessPool, WorkerProcess

if TYPE_CHECKING:
    from libertem.common.protocols import TaskProtocol
    from libertem.common.taskcomm import TaskCommHandler

__all__ = ["ProcessTasks", "describe_end"]

MAX_ATTEMPTS = 2
"""Of a task whose worker process ended."""


@dataclass(frozen=True)
class InProcess:
    """A task in a process."""

    task: TaskProtocol
    worker: WorkerProcess


class ProcessTasks:
    """The tasks of a run that are in worker processes.

    Parameters
    ----------
    pool : ProcessPool
        The workers.
    params : object
        What all tasks need.
    handler : TaskCommHandler
        Receives messages of tasks, in any thread.
    announce : callable
        Receives all other events, and exceptions of subscribers to messages, in any thread.
    """

    def __init__(
        self,
        pool: ProcessPool,
        params: Any,
        handler: TaskCommHandler,
        announce: Callable[[Event | BaseException], None],
    ) -> None:
        self._pool = pool
        self._packed_params = pack(params)
        self._handler = handler
        self._announce = announce
        self.next_number = 0
        """Of the task that is submitted next."""
        self._attempts: dict[int, int] = {}
        self._params_lock = threading.Lock()
        self.running: dict[int, InProcess] = {}
        self._run_id = pool.connect(self._on_event)

    def __len__(self) -> int:
        return len(self.running)

    def _on_event(self, event: Event) -> None:
        if event.kind != "message":
            self._announce(event)
            return
        try:
            topic, message = unpack(event.packed)
            self._handler.publish(topic, message)
        # Raised again in the thread that waits for results.
        except Exception as err:
            self._announce(err)

    def find_place(self) -> WorkerProcess | None:
        """A worker that has nothing to do for this run."""
        busy = {id(entry.worker) for entry in self.running.values()}
        for worker in self._pool.workers:
            if worker.ready and id(worker) not in busy:
                return worker
        return None

    def submit(self, task: TaskProtocol, worker: WorkerProcess) -> None:
        """Start a task on a worker."""
        packed = pack(task)
        number = self.next_number
        self.next_number += 1
        self.running[number] = InProcess(task, worker)
        self._attempts[task.idx] = self._attempts.get(task.idx, 0) + 1
        with self._params_lock:
            worker.begin_run(self._run_id, self._packed_params)
        worker.send(("task", self._run_id, number), packed)

    def take(self, number: int) -> TaskProtocol:
        """The task that an event answers."""
        return self.running.pop(number).task

    def take_lost(self, worker: WorkerProcess) -> dict[int, TaskProtocol]:
        """Tasks of a worker that has ended, by their numbers, to be started over.

        Raises
        ------
        ExecutorError
            If that happened to one of them before.
        """
        numbers = [number for number, entry in self.running.items() if entry.worker is worker]
        tasks = {number: self.take(number) for number in numbers}
        for task in tasks.values():
            if self._attempts[task.idx] >= MAX_ATTEMPTS:
                raise ExecutorError(
                    f"a worker process ended unexpectedly while it processed "
                    f"{task.get_partition().get_ident()}, as another one did before: {describe_end(worker)}"
                )
        return tasks

    def patch(self, params: Any, patch: Any) -> None:
        """Change the parameters on all workers; `params` are the changed ones."""
        packed_patch = pack(patch)
        with self._params_lock:
            self._packed_params = pack(params)
            for worker in self._pool.workers:
                worker.patch_run(self._run_id, packed_patch)

    def send(self, worker: WorkerProcess, kind: str, number: int, packed: Packed = ()) -> None:
        """Send something that belongs to a task."""
        worker.send((kind, self._run_id, number), packed)

    def give_up(self) -> None:
        """Let tasks that are not finished end early."""
        for worker in self._pool.workers:
            worker.give_up_run(self._run_id)

    def close(self) -> None:
        """Give up the tasks that are not finished; their answers are not received any more."""
        self._pool.disconnect(self._run_id)


def describe_end(worker: WorkerProcess) -> str:
    """How a process ended, in words."""
    code = worker.exit_code
    hint = " (maybe for lack of memory)" if code == -9 else ""
    return f"process {worker.pid} of worker {worker.name} ended with exit code {code}{hint}"
