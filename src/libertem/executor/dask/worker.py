"""What runs on Dask workers."""

from __future__ import annotations

import pickle
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from distributed import get_worker

from libertem.common.backend import set_use_cpu, set_use_cuda
from libertem.common.taskcomm import WorkerContext, WorkerQueue
from libertem.exceptions import ExecutorError
from libertem.executor.base import Environment

__all__ = [
    "Finished",
    "MissingParameters",
    "call",
    "forget_parameters",
    "give_up",
    "patch_parameters",
    "receive_parameters",
    "run_tasks",
    "set_up_worker",
]

MAX_GIVEN_UP = 1000
"""Runs that a worker remembers as given up. Their last tasks end within the time of one block."""

_given_up: dict[str, None] = {}


def set_up_worker(resource: str, device: int) -> None:
    """Select the device of a worker process; called when it starts.

    Ctrl-C goes to all processes of a terminal, but it is the main process that decides what stops.
    """
    if resource == "CUDA":
        set_use_cuda(device)
    else:
        set_use_cpu(device)
    # Signals can be set in the main thread only; workers that are threads of the main process have another.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@dataclass(frozen=True)
class MissingParameters:
    """Result of a task on a worker that has not received the parameters of its run.

    The worker joined meanwhile, maybe in place of another one.
    """

    name: str
    """Of the worker."""
    address: str
    """Of the worker."""


class _Parameters:
    """Copy of a distributed object in one process, for all tasks of a run there."""

    def __init__(self, pickled: bytes) -> None:
        self._pickled: bytes | None = pickled
        self._value: Any = None
        self._n_patches = 0
        self._lock = threading.Lock()

    def get(self, patches: Sequence[Any]) -> Any:
        """The object with all `patches` since the beginning, each applied once."""
        with self._lock:
            # Not in the event loop of the worker, which receives it: this may load modules.
            if self._pickled is not None:
                self._value, self._pickled = pickle.loads(self._pickled), None
            for patch in patches[self._n_patches :]:
                self._value.patch(patch)
            self._n_patches = max(self._n_patches, len(patches))
            return self._value


_parameters: dict[str, _Parameters] = {}


def receive_parameters(key: str, pickled: bytes) -> None:
    """Keep parameters of a run."""
    _parameters.setdefault(key, _Parameters(pickled))


def patch_parameters(key: str, pickled_patches: bytes) -> None:
    """Bring parameters up to date, for tasks that wait on this worker."""
    if key in _parameters:
        _parameters[key].get(pickle.loads(pickled_patches))


def forget_parameters(key: str) -> None:
    """Drop parameters after the run."""
    _parameters.pop(key, None)


class DaskWorkerContext(WorkerContext):
    """Sends messages of a task to the main process, as events of the scheduler.

    Parameters
    ----------
    topic : str
        Of the executor, for the scheduler.
    run_id : str
        Tells the runs of the executor apart.
    """

    def __init__(self, topic: str, run_id: str) -> None:
        self._topic = topic
        self._run_id = run_id

    def get_worker_queue(self) -> WorkerQueue:
        """Not offered.

        Raises
        ------
        ExecutorError
            Always.
        """
        raise ExecutorError("live data cannot be sent to Dask workers (use the inline or pipelined executor)")

    def signal(self, ident: str, topic: str, msg_dict: dict[str, Any]) -> None:
        """Send a message to the subscribers of `topic`."""
        message = pickle.dumps((topic, {**msg_dict, "ident": ident}))
        get_worker().log_event(self._topic, {"run_id": self._run_id, "message": message})


@dataclass(frozen=True)
class Finished:
    """Results of some tasks of a run, and what they took."""

    results: list[Any]
    """In the order of the tasks."""
    seconds: float
    """All of them together."""
    n_bytes: int
    """Size of the arrays in all results."""


def run_tasks(
    pickled: bytes, key: str, pickled_patches: bytes, run_id: str, topic: str
) -> Finished | MissingParameters:
    """Carry out some tasks of a run, one after the other."""
    if key not in _parameters:
        worker = get_worker()
        return MissingParameters(str(worker.name), worker.address)
    begin = time.perf_counter()
    patches = pickle.loads(pickled_patches)
    env = Environment(
        threads_per_worker=1,
        worker_context=DaskWorkerContext(topic, run_id),
        cancelled=lambda: run_id in _given_up,
        # A worker may have several threads.
        threaded_executor=True,
    )
    results = []
    for task in pickle.loads(pickled):
        env.check_cancelled()
        # Each time: they may have been changed meanwhile.
        results.append(task(_parameters[key].get(patches), env))
    return Finished(results, time.perf_counter() - begin, sum(map(_array_bytes, results)))


def _array_bytes(result: Any) -> int:
    """Size of the arrays in the results of UDFs; 0 for anything else."""
    return sum(int(array.nbytes) for udf in getattr(result, "arrays", ()) for array in udf.values())


def give_up(run_id: str) -> None:
    """Let tasks of that run end early: nobody waits for their results any more."""
    _given_up[run_id] = None
    while len(_given_up) > MAX_GIVEN_UP:
        del _given_up[next(iter(_given_up))]


def call(pickled: bytes) -> Any:
    """Call a function."""
    fn, args, kwargs = pickle.loads(pickled)
    return fn(*args, **kwargs)
