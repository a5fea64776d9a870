"""Data for tasks in worker processes: memory that two processes share, and queues of messages in it.

Payloads lie in memory of the worker that both processes map; only where they lie goes through the
connection. The memory has no name in the file system and is gone with the last process that maps it.
"""

from __future__ import annotations

import mmap
import os
import pickle
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from queue import Empty, SimpleQueue
from typing import Any

from libertem.common.taskcomm import WorkerQueue, WorkerQueueEmpty
from libertem.exceptions import JobCancelledError
from libertem.executor.channel import Channel, Packed

__all__ = ["Inbox", "Memory", "TaskQueue", "map_memory"]

SMALL_BYTES = 1 << 15
"""Payloads up to this size go through the connection, which takes less time than asking for memory."""

ALIGNMENT = 64
"""Of payloads, in bytes: a cache line."""


class Memory:
    """Shared memory, seen from the main process, which hands it out.

    Parameters
    ----------
    n_bytes : int
        How much.
    """

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes = n_bytes
        self._file: int | None = None
        self._tag = ""
        if sys.platform == "win32":
            self._tag = f"libertem-{uuid.uuid4().hex}"
            self._map = mmap.mmap(-1, n_bytes, tagname=self._tag)
        else:
            self._file = _anonymous_file()
            os.ftruncate(self._file, n_bytes)
            self._map = mmap.mmap(self._file, n_bytes)
        self._view = memoryview(self._map)
        # First byte and size of each hole, in their order.
        self._holes = [(0, n_bytes)]
        self._taken: dict[int, int] = {}
        self._changed = threading.Condition()
        self._closed = False

    @property
    def files(self) -> tuple[int, ...]:
        """Files that the other process has to inherit."""
        return () if self._file is None else (self._file,)

    @property
    def place(self) -> str:
        """What `map_memory` needs in the other process."""
        return f"{self.n_bytes} {self._tag if self._file is None else self._file}"

    def started(self) -> None:
        """The other process has inherited what it needs."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def take(self, n_bytes: int, check: Callable[[], None]) -> tuple[int, memoryview]:
        """Get a piece; waits until there is one.

        Parameters
        ----------
        n_bytes : int
            At most `n_bytes` of the memory.
        check : callable
            Called while waiting; may raise.
        """
        size = -(-n_bytes // ALIGNMENT) * ALIGNMENT
        with self._changed:
            while True:
                check()
                if self._closed:
                    raise JobCancelledError("the worker process has ended")
                for i, (start, space) in enumerate(self._holes):
                    if space >= size:
                        self._holes[i : i + 1] = [(start + size, space - size)] if space > size else []
                        self._taken[start] = size
                        return start, self._view[start : start + n_bytes]
                self._changed.wait(0.1)

    def release(self, start: int) -> None:
        """Take back the piece that begins there."""
        with self._changed:
            holes = sorted([*self._holes, (start, self._taken.pop(start))])
            merged = holes[:1]
            for begin, size in holes[1:]:
                last, last_size = merged[-1]
                if begin == last + last_size:
                    merged[-1] = (last, last_size + size)
                else:
                    merged.append((begin, size))
            self._holes = merged
            self._changed.notify_all()

    def close(self) -> None:
        """The other process has ended. The memory goes with the last view of it."""
        self.started()
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("libertem")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def map_memory(place: str) -> memoryview:
    """The memory of `Memory.place`, in the process that has inherited it."""
    size, name = place.split(" ")
    if sys.platform == "win32":
        return memoryview(mmap.mmap(-1, int(size), tagname=name))
    mapped = mmap.mmap(int(name), int(size))
    os.close(int(name))
    return memoryview(mapped)


class TaskQueue(WorkerQueue):
    """Messages to one task, on the main process.

    Parameters
    ----------
    memory : Memory
        Of the worker that has the task.
    send : callable
        Takes the buffers of a message to the task.
    check : callable
        Raises if the run cannot go on.
    """

    def __init__(self, memory: Memory, send: Callable[[Packed], None], check: Callable[[], None]) -> None:
        self._memory = memory
        self._send = send
        self._check = check
        self.ended = False
        """Whether the task is over; what it has not read is dropped."""

    def put(self, header: Any, payload: Any = None) -> None:
        """Append a message. Waits while the memory of the worker is full.

        Raises
        ------
        JobCancelledError
            If the run cannot go on.
        """
        if payload is None:
            self._check()
            self._send([pickle.dumps((header, False, None))])
            return
        source = memoryview(payload).cast("B")
        with self._put(header, source.nbytes, as_bytes=True) as target:
            target[:] = source

    def put_nocopy(self, header: Any, size: int) -> AbstractContextManager[memoryview]:
        """Context manager with a writable memoryview of `size` bytes; sent on exit."""
        return self._put(header, size, as_bytes=False)

    @contextmanager
    def _put(self, header: Any, size: int, *, as_bytes: bool) -> Iterator[memoryview]:
        self._check()
        if self.ended or size <= SMALL_BYTES or size > self._memory.n_bytes:
            payload = bytearray(size)
            yield memoryview(payload)
            if not self.ended:
                self._send([pickle.dumps((header, as_bytes, None)), payload])
            return
        start, target = self._memory.take(size, self._check)
        try:
            yield target
        except BaseException:
            self._memory.release(start)
            raise
        self._send([pickle.dumps((header, as_bytes, (start, size)))])

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Not possible: only the task takes messages.

        Raises
        ------
        NotImplementedError
            Always.
        """
        raise NotImplementedError("only the task in the worker process takes messages out of its queue")

    def close(self, drain: bool = True, force: bool = False) -> None:
        """Nothing is held here."""

    def size(self) -> int:
        """Unknown: they are in another process.

        Raises
        ------
        NotImplementedError
            Always.
        """
        raise NotImplementedError("the messages are in the worker process")


class Inbox(WorkerQueue):
    """Messages to one task, in the process that has it.

    Parameters
    ----------
    memory : memoryview
        With the payloads.
    channel : Channel
        To the main process, which wants to know what can be used again.
    """

    def __init__(self, memory: memoryview, channel: Channel) -> None:
        self._memory = memory
        self._channel = channel
        self._messages: SimpleQueue[Packed | None] = SimpleQueue()
        self._complete = False
        self._given_up = False
        self._closed = False
        self._lock = threading.Lock()

    # --- for the thread that receives ---

    def append(self, packed: Packed) -> None:
        """A message has arrived."""
        with self._lock:
            if not self._closed:
                self._messages.put(packed)
                return
        self.drop(self._channel, packed)

    def complete(self) -> None:
        """No more messages will come."""
        self._complete = True
        self._messages.put(None)

    def give_up(self) -> None:
        """Nobody waits for the task any more."""
        self._given_up = True
        self._messages.put(None)

    # --- for the task ---

    def put(self, header: Any, payload: Any = None) -> None:
        """Not possible: only the main process sends messages.

        Raises
        ------
        NotImplementedError
            Always.
        """
        raise NotImplementedError("only the main process puts messages into the queue of a task")

    def put_nocopy(self, header: Any, size: int) -> Any:
        """Not possible, see `put`.

        Raises
        ------
        NotImplementedError
            Always.
        """
        self.put(header)

    @contextmanager
    def get(self, block: bool = True, timeout: float | None = None) -> Iterator[tuple[Any, Any]]:
        """Context manager with ``(header, payload)``; the payload is valid inside only.

        Raises
        ------
        WorkerQueueEmpty
            If there is no message (in time), or if no more will come.
        JobCancelledError
            If the run was given up.
        """
        packed = self._take(block, timeout)
        header, as_bytes, place = pickle.loads(packed[0])
        if place is None:
            payload = memoryview(packed[1]) if len(packed) == 2 else None
        else:
            start, size = place
            payload = self._memory[start : start + size]
        try:
            yield header, bytes(payload) if as_bytes and payload is not None else payload
        finally:
            if place is not None:
                self._channel.send(("free", place[0]))

    def _take(self, block: bool, timeout: float | None) -> Packed:
        if self._given_up:
            raise JobCancelledError("the run was given up")
        # At the end there is always something in the queue, so that nobody waits for what does not come.
        try:
            packed = self._messages.get(block=block, timeout=timeout)
        except Empty as err:
            raise WorkerQueueEmpty from err
        if packed is None:
            self._messages.put(None)
            if self._given_up:
                raise JobCancelledError("the run was given up")
            raise WorkerQueueEmpty
        return packed

    def close(self, drain: bool = True, force: bool = False) -> None:
        """Drop what has not been read and what will come, if `drain` is set."""
        with self._lock:
            self._closed = self._closed or drain
        while drain:
            try:
                packed = self._messages.get_nowait()
            except Empty:
                return
            if packed is not None:
                self.drop(self._channel, packed)

    @staticmethod
    def drop(channel: Channel, packed: Packed) -> None:
        """Give back the memory of a message that nobody reads."""
        _, _, place = pickle.loads(packed[0])
        if place is not None:
            channel.send(("free", place[0]))

    def size(self) -> int:
        """Number of waiting messages."""
        return self._messages.qsize() - (self._complete or self._given_up)
