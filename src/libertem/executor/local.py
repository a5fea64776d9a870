"""What executors on one machine have in common."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from libertem.common.taskcomm import SimpleWorkerQueue, TaskCommHandler, WorkerContext, WorkerQueue

if TYPE_CHECKING:
    from libertem.common.scheduler import WorkerSet

__all__ = ["LocalWorkerContext", "level_of_caller", "local_worker_set", "physical_cores"]


class LocalWorkerContext(WorkerContext):
    """Talks to the main process, which is this one.

    Parameters
    ----------
    handler : TaskCommHandler
        Receives messages, in the thread that sends them.
    queue : WorkerQueue, optional
        Messages for the current task.
    """

    def __init__(self, handler: TaskCommHandler, queue: WorkerQueue | None = None) -> None:
        self._handler = handler
        self._queue = SimpleWorkerQueue() if queue is None else queue

    def get_worker_queue(self) -> WorkerQueue:
        """Queue with the messages for the current task."""
        return self._queue

    def signal(self, ident: str, topic: str, msg_dict: dict[str, Any]) -> None:
        """Hand a message to the subscribers of `topic`."""
        self._handler.publish(topic, {**msg_dict, "ident": ident})


def physical_cores() -> int:
    """How many cores this process may use."""
    from libertem.utils.devices import detect_cpus

    # Not `detect`: where there is a GPU, that loads CuPy.
    return len(detect_cpus())


def level_of_caller() -> int:
    """Where in the stack the code is that called the library, as `stacklevel` of a warning."""
    # 0 would be this function.
    level, frame = 0, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "libertem":
        level, frame = level + 1, frame.f_back
    return level


def local_worker_set(name: str, host: str, nthreads: int) -> WorkerSet:
    """One worker in this process."""
    from libertem.common.scheduler import Worker, WorkerSet

    resources = {"compute": 1, "CPU": 1}
    return WorkerSet([Worker(name=name, host=host, resources=resources, nthreads=nthreads)])
