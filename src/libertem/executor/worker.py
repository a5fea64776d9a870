"""What happens in a worker process.

One thread receives messages, the main thread carries out tasks. So the main process can reach a worker
while it computes, to cancel a run or to end the process.

| message to the worker     | meaning                                                              |
|---------------------------|----------------------------------------------------------------------|
| ``setup``                 | call a function, or nothing; answered with ``ready`` or ``failed``   |
| ``params``, run           | what all tasks of a run need                                         |
| ``patch``, run            | change that, for tasks that start later                              |
| ``task``, run, number     | carry out a task                                                     |
| ``data``, run, number     | live data for a task, see `libertem.executor.feed`                   |
| ``complete``, run, number | all data of a task has been sent                                     |
| ``call``, run, number     | call a function                                                      |
| ``give_up``, run          | end the tasks of a run early: nobody waits for their results         |
| ``forget``, run           | release what belongs to a run, after its last task                   |
| ``stop``                  | end the process                                                      |

Each task and call has one answer: ``result``, ``error``, or ``unreadable`` if it did not even begin, because
unpickling it failed. Tasks may send a ``message`` meanwhile; ``free`` says that memory can be used again.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from libertem.common.backend import get_use_cuda
from libertem.common.taskcomm import WorkerContext, WorkerQueue
from libertem.exceptions import ExecutorError
from libertem.executor.base import Environment
from libertem.executor.channel import Channel, Packed, pack, pack_exception, unpack
from libertem.executor.feed import Inbox, map_memory

__all__ = ["Worker", "main"]


@dataclass
class _Run:
    """What a worker knows about a run."""

    packed: Packed | None = None
    """Parameters that have not been needed so far."""
    params: Any = None
    patches: list[Packed] = field(default_factory=list)
    """Changes that have not been applied so far."""
    given_up: bool = False

    def up_to_date(self) -> Any:
        """The parameters with all changes; unpacked here, since that may load modules."""
        if self.packed is not None:
            self.params, self.packed = unpack(self.packed), None
        while self.patches:
            self.params.patch(unpack(self.patches.pop(0)))
        return self.params


class ProcessWorkerContext(WorkerContext):
    """Talks to the main process through the channel of the worker.

    Parameters
    ----------
    channel : Channel
        To the main process.
    run_id : str
        Of the task.
    inbox : Inbox or None
        Live data for the task; None if the executor does not offer that.
    """

    def __init__(self, channel: Channel, run_id: str, inbox: Inbox | None) -> None:
        self._channel = channel
        self._run_id = run_id
        self._inbox = inbox

    def get_worker_queue(self) -> WorkerQueue:
        """Queue with the data for the task.

        Raises
        ------
        ExecutorError
            If the executor does not offer that.
        """
        if self._inbox is None:
            raise ExecutorError(
                "live data cannot be sent to this kind of worker (use the inline or pipelined executor)"
            )
        return self._inbox

    def signal(self, ident: str, topic: str, msg_dict: dict[str, Any]) -> None:
        """Send a message to the subscribers of `topic` on the main process."""
        self._channel.send(("message", self._run_id), pack((topic, {**msg_dict, "ident": ident})))


class Worker:
    """Receives messages and carries out tasks.

    Parameters
    ----------
    channel : Channel
        To the main process.
    memory : memoryview, optional
        For live data.
    """

    def __init__(self, channel: Channel, memory: memoryview | None = None) -> None:
        self._channel = channel
        self._memory = memory
        self._inboxes: dict[tuple[str, int], Inbox] = {}
        self._work: queue.SimpleQueue[tuple[tuple[Any, ...], Packed] | None] = queue.SimpleQueue()
        self._runs: dict[str, _Run] = {}
        self._busy = False

    def receive(self) -> None:
        """Take messages until the main process wants the worker to end, or has ended itself."""
        try:
            while True:
                header, packed = self._channel.receive()
                kind = header[0]
                if kind == "stop":
                    break
                if kind == "task" and self._memory is not None:
                    self._inboxes[header[1:]] = Inbox(self._memory, self._channel)
                if kind in ("setup", "task", "call", "forget"):
                    self._work.put((header, packed))
                elif kind in ("data", "complete"):
                    self._note_data(header, packed)
                else:
                    self._note(header, packed)
        # The main process is gone.
        except EOFError:
            pass
        if self._busy:
            # Nobody waits for the task that is going on.
            os._exit(1)
        self._work.put(None)

    def _note(self, header: tuple[Any, ...], packed: Packed) -> None:
        kind, run_id = header
        run = self._runs.setdefault(run_id, _Run())
        if kind == "params":
            run.packed = packed
        elif kind == "patch":
            run.patches.append(packed)
        elif kind == "give_up":
            run.given_up = True
            for (inbox_run, _), inbox in list(self._inboxes.items()):
                if inbox_run == run_id:
                    inbox.give_up()

    def _note_data(self, header: tuple[Any, ...], packed: Packed) -> None:
        kind, *key = header
        inbox = self._inboxes.get((key[0], key[1]))
        if inbox is None:
            # The task is over; it has failed, or did not want to know more.
            if kind == "data":
                Inbox.drop(self._channel, packed)
        elif kind == "data":
            inbox.append(packed)
        else:
            inbox.complete()

    def work(self) -> None:
        """Carry out tasks until the worker is to end."""
        while (item := self._work.get()) is not None:
            header, packed = item
            self._busy = True
            if header[0] == "forget":
                self._runs.pop(header[1], None)
            elif header[0] == "setup":
                self._set_up(packed)
            else:
                self._answer(header, packed)
            self._busy = False

    def _set_up(self, packed: Packed) -> None:
        try:
            _select_gpu()
            fn = unpack(packed)
            if fn is not None:
                fn()
        # Anything may go wrong there, and is raised in the main process.
        except BaseException as err:
            self._channel.send(("failed", None), pack_exception(err))
        else:
            self._channel.send(("ready", None))

    def _answer(self, header: tuple[Any, ...], packed: Packed) -> None:
        kind, run_id, number = header
        answer = "unreadable"
        try:
            if kind == "call":
                fn, args, kwargs = unpack(packed)
                answer = "error"
                result = pack(fn(*args, **kwargs))
            else:
                run = self._runs.setdefault(run_id, _Run())
                env = self._environment(run_id, run, self._inboxes.get((run_id, number)))
                env.check_cancelled()
                params = run.up_to_date()
                task: Callable[..., Any] = unpack(packed)
                answer = "error"
                result = pack(task(params, env))
            answer = "result"
        # Whatever code of users raises belongs to the main process; the worker lives on.
        except BaseException as err:
            result = pack_exception(err)
        inbox = self._inboxes.pop((run_id, number), None)
        if inbox is not None:
            inbox.close()
        self._channel.send((answer, run_id, number), result)

    def _environment(self, run_id: str, run: _Run, inbox: Inbox | None) -> Environment:
        return Environment(
            threads_per_worker=1,
            worker_context=ProcessWorkerContext(self._channel, run_id, inbox),
            cancelled=lambda: run.given_up,
        )


def _select_gpu() -> None:
    """CuPy computes on the device of this worker in this thread, which carries out all tasks."""
    from libertem.utils.devices import has_cupy

    device = get_use_cuda()
    if device is not None and has_cupy():
        import cupy

        cupy.cuda.Device(device).use()


def main(place: int | str, memory_place: str | None = None) -> None:
    """Be a worker until the main process does not need one any more.

    Parameters
    ----------
    place : int or str
        The socket: its number, or on Windows what the main process made of it for this process.
    memory_place : str, optional
        See `libertem.executor.feed.Memory.place`.
    """
    # Ctrl-C goes to all processes of a terminal, but it is the main process that decides what stops.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What tasks print should not wait for the end of the process, nor get lost with it.
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True)
    if sys.platform == "win32":
        sock = socket.fromshare(bytes.fromhex(str(place)))
    else:
        sock = socket.socket(fileno=int(place))
    worker = Worker(Channel(sock), None if memory_place is None else map_memory(memory_place))
    threading.Thread(target=worker.receive, name="libertem-receive", daemon=True).start()
    try:
        worker.work()
    # Answers cannot be sent any more.
    except OSError:
        os._exit(1)
