"""Messages between the main process and the tasks of a run, for live data sources.

A data set may return its own `TaskCommHandler`; it then feeds each task through the queue of its worker.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from libertem.common.protocols import TaskProtocol

__all__ = [
    "NoopCommHandler",
    "SimpleWorkerQueue",
    "TaskCommHandler",
    "WorkerContext",
    "WorkerQueue",
    "WorkerQueueEmpty",
]


class WorkerQueueEmpty(Exception):
    """No message arrived in time."""


class WorkerQueue:
    """Queue of messages to one worker. Each is a dict (header) and optional bytes (payload)."""

    def put(self, header: Any, payload: Any = None) -> None:
        """Append a message; `payload` is bytes-like or None. It arrives as `bytes`: some receivers insist."""
        raise NotImplementedError

    def put_nocopy(self, header: Any, size: int) -> AbstractContextManager[memoryview]:
        """Context manager with a writable memoryview of `size` bytes; sent on exit."""
        raise NotImplementedError

    def get(
        self, block: bool = True, timeout: float | None = None
    ) -> AbstractContextManager[tuple[Any, Any]]:
        """Context manager with ``(header, payload)``; the payload is valid inside only.

        Raises
        ------
        WorkerQueueEmpty
            If there is no message (in time).
        """
        raise NotImplementedError

    def close(self, drain: bool = True, force: bool = False) -> None:
        """Release what the queue holds."""
        raise NotImplementedError

    def size(self) -> int:
        """Approximate number of waiting messages."""
        raise NotImplementedError


class SimpleWorkerQueue(WorkerQueue):
    """Unbounded queue within one process."""

    def __init__(self) -> None:
        self._queue: queue.Queue[tuple[Any, Any]] = queue.Queue()

    def put(self, header: Any, payload: Any = None) -> None:
        """Append a message. The payload is copied, unless it is `bytes` already, and arrives as `bytes`."""
        self._queue.put((header, None if payload is None else bytes(payload)))

    @contextmanager
    def put_nocopy(self, header: Any, size: int) -> Iterator[memoryview]:
        """Context manager with a writable memoryview of `size` bytes."""
        payload = memoryview(bytearray(size))
        yield payload
        self._queue.put((header, payload))

    @contextmanager
    def get(self, block: bool = True, timeout: float | None = None) -> Iterator[tuple[Any, Any]]:
        """Context manager with ``(header, payload)``."""
        try:
            header, payload = self._queue.get(block=block, timeout=timeout)
        except queue.Empty as err:
            raise WorkerQueueEmpty from err
        yield header, payload

    def close(self, drain: bool = True, force: bool = False) -> None:
        """Forget waiting messages if `drain` is set."""
        while drain:
            try:
                self._queue.get_nowait()
            except queue.Empty:
                return

    def size(self) -> int:
        """Number of waiting messages."""
        return self._queue.qsize()


class WorkerContext:
    """What a partition can use on the worker to talk to the main process."""

    def get_worker_queue(self) -> WorkerQueue:
        """Queue with the messages for the current task."""
        raise NotImplementedError

    def signal(self, ident: str, topic: str, msg_dict: dict[str, Any]) -> None:
        """Send a message to the subscribers of `topic` on the main process; `ident` is a reserved key."""
        raise NotImplementedError


class TaskCommHandler:
    """Feeds the tasks of a run with data and receives their messages.

    Subclasses need not call the constructor of this class.
    """

    def start(self) -> None:
        """Prepare for the first task of a run."""

    def done(self) -> None:
        """Clean up after the run, also after errors."""

    def handle_task(self, task: TaskProtocol, queue: WorkerQueue) -> None:
        """Forward all data of one task; called in task order on the main process."""
        raise NotImplementedError

    @property
    def subscriptions(self) -> dict[str, list[Callable[[str, dict[str, Any]], None]]]:
        """Callbacks per topic."""
        found: dict[str, list[Callable[[str, dict[str, Any]], None]]]
        found = self.__dict__.setdefault("_subscriptions", {})
        return found

    def subscribe(self, topic: str, callback: Callable[[str, dict[str, Any]], None]) -> None:
        """Call ``callback(topic, message)`` for messages that workers send."""
        self.subscriptions.setdefault(topic, []).append(callback)

    def publish(self, topic: str, message: dict[str, Any]) -> None:
        """Hand a message to the subscribers of a topic."""
        for callback in self.subscriptions.get(topic, []):
            callback(topic, message)

    def monitor(self, queue: WorkerQueue) -> None:
        """Pass on messages that wait in `queue`, without blocking."""
        while True:
            try:
                with queue.get(block=False) as ((topic, message), _):
                    self.publish(topic, message)
            except WorkerQueueEmpty:
                return


class NoopCommHandler(TaskCommHandler):
    """For data sets whose partitions read their data themselves."""

    def handle_task(self, task: TaskProtocol, queue: WorkerQueue) -> None:
        """Nothing to forward."""
