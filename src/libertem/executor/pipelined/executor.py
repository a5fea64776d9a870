"""The executor with processes of its own, and how its workers are described."""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from libertem.common.scheduler import Worker, WorkerSet
from libertem.common.tracing import maybe_setup_tracing
from libertem.exceptions import ExecutorError, JobCancelledError
from libertem.executor.base import JobExecutor, make_canonical
from libertem.executor.channel import pack, unpack_exception
from libertem.executor.local import level_of_caller
from libertem.executor.pipelined.run import CHECK_SECONDS, PipelinedRun
from libertem.executor.processes import Event, ProcessPool, WorkerProcess, WorkerSpec
from libertem.executor.tasks import describe_end

if TYPE_CHECKING:
    from libertem.common.protocols import TaskProtocol
    from libertem.common.taskcomm import TaskCommHandler

__all__ = ["PipelinedExecutor"]

T = TypeVar("T")
V = TypeVar("V")

_log = logging.getLogger(__name__)

MEMORY_BYTES = 1 << 28
"""Live data that can wait for one worker. Memory that is never used is never taken."""

SLOW_START_SECONDS = 5.0
"""After this time users are told what they wait for."""


class PipelinedExecutor(JobExecutor):
    """Runs tasks in processes of its own, one per device. Not safe for calls from several threads.

    Parameters
    ----------
    spec : list of dict, optional
        The workers, see `make_spec`. By default one per CPU core and CUDA device.
    pin_workers : bool
        Whether workers stay on the CPU core with their id, where the operating system allows it.
    startup_timeout : float
        Seconds until all workers have to be there.
    cleanup_timeout : float
        Seconds that tasks of an abandoned run may take to end. Later their workers are replaced.
    early_setup : callable, optional
        Called in each worker before anything else.
    main_process_gpu : bool or int, optional
        GPU for merging results on the main process.

    Raises
    ------
    RuntimeError
        If workers do not start.
    """

    def __init__(
        self,
        spec: Sequence[Mapping[str, Any]] | None = None,
        pin_workers: bool = True,
        startup_timeout: float = 30.0,
        cleanup_timeout: float = 10.0,
        early_setup: Callable[[], Any] | None = None,
        main_process_gpu: bool | int | None = None,
    ) -> None:
        self._main_process_gpu = None if main_process_gpu is None else make_canonical(main_process_gpu)
        self._spec = _detected_spec() if spec is None else list(spec)
        self._startup_timeout = startup_timeout
        self._cleanup_timeout = cleanup_timeout
        self._workers = WorkerSet(_describe(entry) for entry in self._spec)
        self._pool = ProcessPool([_worker_spec(entry, pin_workers, early_setup) for entry in self._spec])
        self._runs: dict[Any, PipelinedRun] = {}
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    @classmethod
    def make_local(cls, main_process_gpu: bool | int | None = None, **kwargs: Any) -> PipelinedExecutor:
        """Executor with a worker per CPU core and CUDA device; `kwargs` go to the constructor."""
        return cls(spec=_detected_spec(), main_process_gpu=main_process_gpu, **kwargs)

    @classmethod
    def make_spec(
        cls, cpus: int | Iterable[int], cudas: int | Iterable[int], has_cupy: bool = False
    ) -> list[dict[str, Any]]:
        """Describe workers.

        Parameters
        ----------
        cpus : int or iterable of int
            Number or ids of CPU cores.
        cudas : int or iterable of int
            Number or ids of CUDA devices. An id that is repeated gets several workers.
        has_cupy : bool
            Whether CuPy works on the CUDA workers.

        Returns
        -------
        list of dict
            `name`, `device_id`, `device_kind` (``'CPU'`` or ``'CUDA'``), `worker_idx` and `has_cupy`;
            CUDA workers first.
        """
        devices = [("CUDA", i) for i in _ids(cudas)] + [("CPU", i) for i in _ids(cpus)]
        counts: dict[tuple[str, int], int] = {}
        spec = []
        for idx, (kind, device) in enumerate(devices):
            n_before = counts.get((kind, device), 0)
            counts[kind, device] = n_before + 1
            name = f"{kind.lower()}-{device}"
            if kind == "CUDA" or n_before:
                name = f"{name}-{n_before}"
            spec.append(
                {
                    "name": name,
                    "device_id": device,
                    "device_kind": kind,
                    "worker_idx": idx,
                    "has_cupy": has_cupy,
                }
            )
        return spec

    # --- start and end ---

    def _start(self) -> None:
        """Start the workers that are not there, and wait until all are ready."""
        if self._n_ready() == len(self._pool):
            return
        events: SimpleQueue[Event] = SimpleQueue()
        begin = time.monotonic()
        warned = False
        run_id = self._pool.connect(events.put)
        try:
            self._pool.start()
            while self._n_ready() < len(self._pool):
                try:
                    self._check_start(events.get(timeout=CHECK_SECONDS))
                except Empty:
                    pass
                waited = time.monotonic() - begin
                if waited > self._startup_timeout:
                    raise RuntimeError(
                        f"worker processes have not started within startup_timeout={self._startup_timeout} "
                        "seconds (pass a longer one to PipelinedExecutor if the machine is busy)"
                    )
                if waited > SLOW_START_SECONDS and not warned:
                    warned = True
                    warnings.warn(
                        "worker processes take long to start, still waiting",
                        UserWarning,
                        stacklevel=level_of_caller(),
                    )
        finally:
            self._pool.disconnect(run_id)

    def _n_ready(self) -> int:
        return sum(worker.ready for worker in self._pool.workers)

    def _check_start(self, event: Event) -> None:
        if event.kind == "failed":
            raise unpack_exception(event.packed)
        if event.kind == "died" and not event.worker.ready:
            raise RuntimeError(
                f"a worker process ended before it was ready, within startup_timeout={self._startup_timeout} "
                f"seconds: {describe_end(event.worker)}"
            )
        if event.kind == "died":
            # It was ready, and has ended just now.
            self._pool.start()

    def close(self) -> None:
        """End the workers. Runs are given up."""
        for run in list(self._runs.values()):
            run.announce(JobCancelledError("the executor was closed"))
        self._pool.close()

    # --- tasks ---

    def run_tasks(
        self,
        tasks: Sequence[TaskProtocol],
        params_handle: Any,
        cancel_id: Any,
        task_comm_handler: TaskCommHandler,
    ) -> Iterator[tuple[Any, TaskProtocol]]:
        """Run tasks; yields results in the order of `tasks`."""
        self._start()
        run = PipelinedRun(self._pool, self._workers, tasks, params_handle, task_comm_handler)
        self._runs[cancel_id] = run
        try:
            yield from run
        finally:
            self._runs.pop(cancel_id, None)
            run.close(self._cleanup_timeout)

    def scatter_update_patch(self, handle: Any, patch: Any) -> None:
        """Change parameters, also the copies in processes."""
        super().scatter_update_patch(handle, patch)
        for run in list(self._runs.values()):
            if run.params is handle:
                run.tasks.patch(handle, patch)

    def cancel(self, cancel_id: Any) -> None:
        """Give up the run with that id."""
        run = self._runs.get(cancel_id)
        if run is not None:
            run.announce(JobCancelledError("the run was cancelled"))

    # --- functions ---

    def run_function(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a function on any worker and return its value."""
        (result,) = self._call([(fn, args, kwargs)])
        return result  # type: ignore[no-any-return]  # what the function returns

    def map(self, fn: Callable[[V], T], iterable: Iterable[V]) -> list[T]:
        """Call a function for each element, on all workers."""
        return self._call([(fn, (item,), {}) for item in iterable])

    def run_each_host(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> dict[str, T]:
        """Call a function once: all workers are on this machine."""
        return {"localhost": self.run_function(fn, *args, **kwargs)}

    def run_each_worker(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> dict[str, T]:
        """Call a function on each worker; results by the names of the workers."""
        self._start()
        workers = self._pool.workers
        results = self._call([(fn, args, kwargs)] * len(workers), workers)
        return {worker.name: result for worker, result in zip(workers, results, strict=True)}

    def _call(self, calls: Sequence[Any], workers: Sequence[WorkerProcess] | None = None) -> list[Any]:
        """Carry out calls, each on the worker in the same place of `workers`, or in turn."""
        self._start()
        events: SimpleQueue[Event] = SimpleQueue()
        chosen = self._pool.workers if workers is None else workers
        run_id = self._pool.connect(events.put)
        results: dict[int, Any] = {}
        try:
            for number, call in enumerate(calls):
                worker = chosen[number % len(chosen)]
                worker.send(("call", run_id, number), pack(call))
            while len(results) < len(calls):
                try:
                    event = events.get(timeout=CHECK_SECONDS)
                except Empty:
                    continue
                if event.kind == "died":
                    raise ExecutorError(f"a function was not finished: {describe_end(event.worker)}")
                if event.number is not None:
                    results[event.number] = event.value()
        finally:
            self._pool.disconnect(run_id)
        return [results[number] for number in range(len(calls))]

    def get_available_workers(self) -> WorkerSet:
        """One worker per process."""
        return self._workers


# --- specifications ---


def _ids(devices: int | Iterable[int]) -> list[int]:
    return list(range(devices)) if isinstance(devices, int) else list(devices)


def _detected_spec() -> list[dict[str, Any]]:
    from libertem.utils.devices import detect

    found = detect()
    return PipelinedExecutor.make_spec(found["cpus"], found["cudas"], found["has_cupy"])


def _describe(entry: Mapping[str, Any]) -> Worker:
    resources = {"compute": 1, entry["device_kind"]: 1}
    if entry["device_kind"] == "CPU" or entry["has_cupy"]:
        resources["ndarray"] = 1
    return Worker(name=entry["name"], host="localhost", resources=resources, nthreads=1)


def _worker_spec(entry: Mapping[str, Any], pin: bool, early_setup: Callable[[], Any] | None) -> WorkerSpec:
    kind, device = entry["device_kind"], int(entry["device_id"])
    env = {"LIBERTEM_USE_CPU": None, "LIBERTEM_USE_CUDA": None, f"LIBERTEM_USE_{kind}": str(device)}
    return WorkerSpec(
        name=entry["name"],
        env=env,
        setup=partial(_set_up, entry["name"], device if pin and kind == "CPU" else None, early_setup),
        memory_bytes=MEMORY_BYTES,
    )


def _set_up(name: str, cpu: int | None, early_setup: Callable[[], Any] | None) -> None:
    """Prepare a worker; runs there."""
    if early_setup is not None:
        early_setup()
    # Linux only.
    if cpu is not None and sys.platform == "linux":
        try:
            os.sched_setaffinity(0, {cpu})
        # There is no such core, or it is not for this process.
        except OSError as err:
            _log.info("worker %s is not pinned to CPU %d: %s", name, cpu, err)
    maybe_setup_tracing(service_name="pipelined-worker", service_id=name)
