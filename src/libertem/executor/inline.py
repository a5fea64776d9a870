"""Run everything in the calling thread: for debugging, and for small data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from libertem.common.taskcomm import SimpleWorkerQueue
from libertem.executor.base import Environment, JobExecutor, make_canonical
from libertem.executor.local import LocalWorkerContext, local_worker_set, physical_cores

if TYPE_CHECKING:
    from libertem.common.protocols import TaskProtocol
    from libertem.common.scheduler import WorkerSet
    from libertem.common.taskcomm import TaskCommHandler

__all__ = ["InlineJobExecutor"]

T = TypeVar("T")
V = TypeVar("V")


class InlineJobExecutor(JobExecutor):
    """Runs partitions one after the other in the calling thread.

    Parameters
    ----------
    debug : bool
        Check that everything would survive the way to another process.
    inline_threads : int, optional
        Threads that numerical libraries may use in a task; all cores by default.
    main_process_gpu : bool or int, optional
        GPU for merging results on the main process.
    """

    def __init__(
        self,
        debug: bool = False,
        inline_threads: int | None = None,
        main_process_gpu: bool | int | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        self._debug = debug
        self._inline_threads = inline_threads
        self._main_process_gpu = None if main_process_gpu is None else make_canonical(main_process_gpu)

    def _checked(self, obj: T) -> T:
        if self._debug:
            _roundtrip(obj)
        return obj

    def run_function(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a function and return its value."""
        self._checked((fn, args, kwargs))
        return self._checked(fn(*args, **kwargs))

    def map(self, fn: Callable[[V], T], iterable: Iterable[V]) -> list[T]:
        """Call a function for each element."""
        return [self.run_function(fn, item) for item in iterable]

    def run_each_host(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> dict[str, T]:
        """Call a function once."""
        return {"localhost": self.run_function(fn, *args, **kwargs)}

    def run_each_worker(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> dict[str, T]:
        """Call a function once."""
        return {"inline": self.run_function(fn, *args, **kwargs)}

    def run_tasks(
        self,
        tasks: Sequence[TaskProtocol],
        params_handle: Any,
        cancel_id: Any,
        task_comm_handler: TaskCommHandler,
    ) -> Iterator[tuple[Any, TaskProtocol]]:
        """Run tasks in order. Data of live sources is forwarded completely before each of them."""
        threads = physical_cores() if self._inline_threads is None else self._inline_threads
        for task in tasks:
            queue = SimpleWorkerQueue()
            task_comm_handler.handle_task(task, queue)
            env = Environment(
                threads_per_worker=threads,
                worker_context=LocalWorkerContext(task_comm_handler, queue),
            )
            self._checked(params_handle)
            result = self._checked(self._checked(task)(params_handle, env))
            yield result, task

    def get_available_workers(self) -> WorkerSet:
        """One worker with one thread."""
        return local_worker_set("inline", "localhost", 1)


def _roundtrip(obj: Any) -> None:
    import cloudpickle

    cloudpickle.loads(cloudpickle.dumps(obj))
