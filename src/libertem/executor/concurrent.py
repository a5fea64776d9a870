"""Run tasks in threads of this process: the default on one machine.

Kernels release the GIL, so that threads use all cores without start-up time and without sending data.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, TypeVar

from libertem.exceptions import JobCancelledError
from libertem.executor.base import Environment, JobExecutor, make_canonical
from libertem.executor.local import LocalWorkerContext, local_worker_set, physical_cores

if TYPE_CHECKING:
    from libertem.common.protocols import TaskProtocol
    from libertem.common.scheduler import WorkerSet
    from libertem.common.taskcomm import TaskCommHandler

__all__ = ["ConcurrentJobExecutor"]

T = TypeVar("T")
V = TypeVar("V")

TASKS_PER_WORKER = 2
"""One that runs, and one that waits so that the worker need not."""


class ConcurrentJobExecutor(JobExecutor):
    """Runs tasks in a pool of threads.

    Parameters
    ----------
    client : concurrent.futures.Executor
        Pool of threads.
    is_local : bool
        Whether `close` shuts down the pool.
    main_process_gpu : bool or int, optional
        GPU for merging results on the main process.
    """

    def __init__(
        self,
        client: Executor,
        is_local: bool = False,
        main_process_gpu: bool | int | None = None,
    ) -> None:
        self.client = client
        self.is_local = is_local
        self._main_process_gpu = None if main_process_gpu is None else make_canonical(main_process_gpu)
        self._closed = False
        self._runs: dict[Any, threading.Event] = {}

    @classmethod
    def make_local(
        cls, n_threads: int | None = None, main_process_gpu: bool | int | None = None
    ) -> ConcurrentJobExecutor:
        """Executor with threads of its own, one per core by default."""
        n = physical_cores() if n_threads is None else n_threads
        pool = ThreadPoolExecutor(max_workers=n, thread_name_prefix="libertem-worker")
        return cls(client=pool, is_local=True, main_process_gpu=main_process_gpu)

    def _n_threads(self) -> int:
        n: int | None = getattr(self.client, "_max_workers", None)
        return physical_cores() if n is None else n

    def run_function(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a function in the pool and return its value."""
        return self.client.submit(fn, *args, **kwargs).result()

    def map(self, fn: Callable[[V], T], iterable: Iterable[V]) -> list[T]:
        """Call a function for each element, in all threads."""
        return list(self.client.map(fn, iterable))

    def run_each_host(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> dict[str, T]:
        """Call a function once."""
        return {"localhost": self.run_function(fn, *args, **kwargs)}

    def run_each_worker(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> dict[str, T]:
        """Call a function once: all threads are one worker."""
        return {"concurrent": self.run_function(fn, *args, **kwargs)}

    def run_tasks(
        self,
        tasks: Sequence[TaskProtocol],
        params_handle: Any,
        cancel_id: Any,
        task_comm_handler: TaskCommHandler,
    ) -> Iterator[tuple[Any, TaskProtocol]]:
        """Run tasks in threads; yields results as they are finished.

        Only a few tasks wait in the pool, so that unmerged results do not pile up.
        """
        stop = self._runs[cancel_id] = threading.Event()
        waiting = iter(tasks)
        running: dict[Future[Any], TaskProtocol] = {}
        try:
            while True:
                while len(running) < TASKS_PER_WORKER * self._n_threads() and not stop.is_set():
                    task = next(waiting, None)
                    if task is None:
                        break
                    env = Environment(
                        threads_per_worker=1,
                        worker_context=LocalWorkerContext(task_comm_handler),
                        cancelled=stop.is_set,
                        threaded_executor=True,
                    )
                    running[self.client.submit(task, params_handle, env)] = task
                if not running:
                    break
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    task = running.pop(future)
                    yield future.result(), task
            if stop.is_set():
                raise JobCancelledError("the run was cancelled")
        finally:
            # Tasks notice this between blocks; nothing of this run goes on after the generator ended.
            stop.set()
            for future in running:
                future.cancel()
            wait(running)
            self._runs.pop(cancel_id, None)

    def cancel(self, cancel_id: Any) -> None:
        """Give up the run with that id."""
        stop = self._runs.get(cancel_id)
        if stop is not None:
            stop.set()

    def get_available_workers(self) -> WorkerSet:
        """One worker with all threads."""
        return local_worker_set("concurrent", "localhost", self._n_threads())

    def close(self) -> None:
        """End the threads, if the pool belongs to this executor."""
        if self.is_local and not self._closed:
            self._closed = True
            for stop in list(self._runs.values()):
                stop.set()
            self.client.shutdown(wait=True)
