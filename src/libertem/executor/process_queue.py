"""A queue of messages between two processes of `multiprocessing`.

Made in one process and handed to another one when that is started. Each end has a thread that receives, so
that messages wait in the process that is to take them, and the end of a process is noticed by the other one.
Nothing lies in named shared memory or in files: what is left when a process dies goes with its connection.

| message | meaning                                                   |
|---------|-----------------------------------------------------------|
| hello   | the second process is there                               |
| data    | a message of the user: its header, perhaps a payload      |
| taken   | a message has been taken                                  |
| bye     | the sender has closed its end; none of its messages follow |
"""

from __future__ import annotations

import os
import pickle
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import context
from multiprocessing.util import Finalize
from typing import Any

from libertem.common.taskcomm import WorkerQueue, WorkerQueueEmpty
from libertem.exceptions import ExecutorError
from libertem.executor.channel import Channel, Packed

__all__ = ["SimpleMPWorkerQueue"]

_Message = tuple[bool, Packed]
"""Whether the payload is to arrive as bytes; the pickled header, and the payload if there is one."""

ENDED = "the other process has ended without closing the queue"


class SimpleMPWorkerQueue(WorkerQueue):
    """Unbounded queue between two processes: what one of them puts, the other one gets.

    Pass it as an argument to a process that `multiprocessing` starts with the method ``'spawn'`` or
    ``'forkserver'``; a process that was merely forked cannot use it. Until the second process is there, the
    first one gets what it has put itself. Any thread may put and get.

    Payloads that were `put` arrive as `bytes`; those of `put_nocopy` as a `memoryview`.

    Raises
    ------
    RuntimeError
        If it is pickled for anything but the start of a process, or for a second one.

    Examples
    --------
    >>> queue = SimpleMPWorkerQueue()
    >>> queue.put({"frame": 3}, b"pixels")
    >>> with queue.get() as (header, payload):
    ...     print(header, payload)
    {'frame': 3} b'pixels'
    >>> queue.close()
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._use(_End(ours, theirs))

    def _use(self, end: _End) -> None:
        self._end = end
        # The thread that receives knows the end, not the queue, so that this one can be collected. Some
        # processes of `multiprocessing` end without calling what `weakref.finalize` has registered.
        self._finalizer = Finalize(self, end.close, exitpriority=0)

    def __reduce__(self) -> tuple[Any, ...]:
        context.assert_spawning(self)
        return _connect, (self._end.hand_over(),)

    def put(self, header: Any, payload: Any = None) -> None:
        """Append a message.

        Parameters
        ----------
        header : object
            Anything that can be pickled.
        payload : bytes-like, optional
            Copied: it may change afterwards.

        Raises
        ------
        ExecutorError
            If the queue is closed, here or there, or if the other process has ended.
        """
        packed: list[Any] = [pickle.dumps(header)]
        if payload is not None:
            packed.append(payload if isinstance(payload, bytes) else memoryview(payload).tobytes())
        self._end.put((True, packed))

    @contextmanager
    def put_nocopy(self, header: Any, size: int) -> Iterator[memoryview]:
        """Context manager with a writable memoryview of `size` bytes; sent on exit, unless that is an error.

        Raises
        ------
        ExecutorError
            As for `put`.
        """
        self._end.check_open()
        payload = memoryview(bytearray(size))
        yield payload
        self._end.put((False, [pickle.dumps(header), payload]))

    @contextmanager
    def get(self, block: bool = True, timeout: float | None = None) -> Iterator[tuple[Any, Any]]:
        """Context manager with ``(header, payload)``; the payload is valid inside only.

        Parameters
        ----------
        block : bool
            Whether to wait for a message.
        timeout : float, optional
            How long to wait, in seconds.

        Raises
        ------
        WorkerQueueEmpty
            If there is no message (in time), or if the other process has closed the queue.
        ExecutorError
            If the queue was closed here, or if the other process has ended without closing it.
        """
        as_bytes, packed = self._end.take(block, timeout)
        payload = None
        if len(packed) == 2:
            payload = bytes(packed[1]) if as_bytes else memoryview(packed[1])
        yield pickle.loads(packed[0]), payload

    def close(self, drain: bool = True, force: bool = False) -> None:
        """Close this end. The other process can still take what was sent to it, and then close its own end.

        Parameters
        ----------
        drain : bool
            Drop messages that wait here, also those for a second process which has been started but is not
            there yet. Otherwise wait for it, and send them.
        force : bool
            Wait for nothing: messages that are being sent are cut off.
        """
        self._end.close(deliver=not drain, force=force)

    def size(self) -> int:
        """Number of messages that were put, here or there, and not taken so far, as far as is known here."""
        return self._end.size()


class _End:
    """One of the two ends of the queue.

    Parameters
    ----------
    ours : socket
        Of this end.
    theirs : socket or None
        For the process that is to have the other end; None if that one is there.
    """

    def __init__(self, ours: socket.socket, theirs: socket.socket | None) -> None:
        self._channel = Channel(ours)
        self._theirs = theirs
        self._handed_over = theirs is None
        self._connected = theirs is None
        # Waiting for this process; and for the other one, until it is there.
        self._arrived: deque[_Message] = deque()
        self._held_back: deque[_Message] = deque()
        self._n_sent = 0
        self._closed = ""
        self._other_gone = ""
        self._said_bye = False
        self._changed = threading.Condition()
        # Messages leave in the order of their calls.
        self._sending = threading.RLock()
        self._thread = threading.Thread(target=self._receive, name="libertem-queue", daemon=True)
        _ends.add(self)
        self._thread.start()

    def hand_over(self) -> socket.socket:
        """The socket for the other process."""
        with self._changed:
            if self._closed:
                raise RuntimeError(f"this queue cannot be sent to a process: {self._closed}")
            if self._handed_over or self._theirs is None:
                raise RuntimeError(
                    "this queue connects two processes already (make one for each process that you start)"
                )
            self._handed_over = True
            return self._theirs

    def greet(self) -> None:
        """Tell the first process that the second one is there."""
        self._try_to_send("hello")

    def check_open(self) -> None:
        """Raise if nothing can be put."""
        if self._closed or self._other_gone:
            raise ExecutorError(self._closed or self._other_gone)

    def put(self, message: _Message) -> None:
        """Send a message, or keep it until there is somebody to send it to."""
        with self._sending:
            with self._changed:
                self.check_open()
                if not self._connected:
                    self._held_back.append(message)
                    self._changed.notify_all()
                    return
            self._send(message)

    def _send(self, message: _Message) -> None:
        as_bytes, packed = message
        with self._changed:
            self._n_sent += 1
        try:
            self._channel.send(("data", as_bytes), packed)
        except OSError as err:
            # Whether the other end was closed is known when all that it has sent is here.
            if threading.current_thread() is not self._thread:
                self._thread.join()
            raise ExecutorError(self._closed or self._other_gone or ENDED) from err

    def take(self, block: bool, timeout: float | None) -> _Message:
        """The next message for this process."""
        end = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while True:
                if self._closed:
                    raise ExecutorError(self._closed)
                if self._arrived:
                    message = self._arrived.popleft()
                    break
                if self._held_back and not self._handed_over:
                    return self._held_back.popleft()
                if self._said_bye:
                    raise WorkerQueueEmpty(self._other_gone)
                if self._other_gone:
                    raise ExecutorError(self._other_gone)
                rest = None if end is None else end - time.monotonic()
                if not block or (rest is not None and rest <= 0):
                    raise WorkerQueueEmpty
                self._changed.wait(rest)
        self._try_to_send("taken")
        return message

    def size(self) -> int:
        """Number of messages on their way, in both directions."""
        with self._changed:
            return len(self._arrived) + len(self._held_back) + self._n_sent

    def close(self, *, deliver: bool = False, force: bool = False) -> None:
        """Close this end."""
        with self._changed:
            if deliver and not force and self._handed_over:
                self._changed.wait_for(lambda: not self._held_back or self._closed or self._other_gone)
            if self._closed:
                return
            self._closed = "the queue has been closed"
            self._arrived.clear()
            self._held_back.clear()
            self._n_sent = 0
            self._changed.notify_all()
        if not force:
            self._try_to_send("bye")
        self._channel.shutdown()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _try_to_send(self, kind: str) -> None:
        """Tell the other end something, if it is there."""
        try:
            self._channel.send((kind,))
        # It is not. That is noticed, and handled, where messages are received.
        except OSError:
            pass

    def _receive(self) -> None:
        try:
            while True:
                (kind, *rest), packed = self._channel.receive()
                self._note(kind, rest, packed)
        # The connection has ended, perhaps while messages that were held back went out.
        except (EOFError, ExecutorError):
            pass
        finally:
            with self._changed:
                self._other_gone = self._other_gone or ENDED
                self._n_sent = 0
                self._drop_theirs()
                self._changed.notify_all()
            self._channel.close()

    def _note(self, kind: str, rest: list[Any], packed: Packed) -> None:
        """Act on a message."""
        if kind == "hello":
            self._flush()
            return
        with self._changed:
            if kind == "data":
                self._arrived.append((rest[0], packed))
            elif kind == "taken":
                self._n_sent = max(self._n_sent - 1, 0)
            elif kind == "bye":
                self._other_gone = "the other process has closed the queue"
                self._said_bye = True
            self._changed.notify_all()

    def _flush(self) -> None:
        """Send what was held back for the other process, which is there now."""
        with self._sending:
            with self._changed:
                # From now on the end of the other process ends the connection.
                self._drop_theirs()
                self._connected = True
            while True:
                with self._changed:
                    if not self._held_back:
                        break
                    message = self._held_back.popleft()
                    if not self._held_back:
                        self._changed.notify_all()
                self._send(message)

    def _drop_theirs(self) -> None:
        if self._theirs is not None:
            self._theirs.close()
            self._theirs = None

    def leave(self) -> None:
        """Have nothing to do with the queue; in a process that was forked from one of the two."""
        self._closed = "this process was forked, and has no end of the queue (start it with 'spawn')"
        self._changed = threading.Condition()
        self._sending = threading.RLock()
        self._channel.leave()
        if self._theirs is not None:
            os.close(self._theirs.detach())
            self._theirs = None


_ends: weakref.WeakSet[_End] = weakref.WeakSet()


def _connect(sock: socket.socket) -> SimpleMPWorkerQueue:
    """The other end of a queue, in the process that has received it."""
    queue = SimpleMPWorkerQueue.__new__(SimpleMPWorkerQueue)
    end = _End(sock, None)
    queue._use(end)
    end.greet()
    return queue


def _leave_all() -> None:
    # Otherwise connections would outlive the processes that they belong to.
    for end in list(_ends):
        end.leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all)
