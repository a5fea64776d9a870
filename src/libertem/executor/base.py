"""The contract of executors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from libertem.common.threading import guard_numba_threading_layer, set_num_threads
from libertem.exceptions import ExecutorSpecException, JobCancelledError, ResourceError

if TYPE_CHECKING:
    from libertem.common.protocols import TaskProtocol
    from libertem.common.scheduler import WorkerSet
    from libertem.common.taskcomm import TaskCommHandler, WorkerContext

__all__ = ["AsyncJobExecutor", "Environment", "JobExecutor", "ResourceError", "make_canonical"]

_one_at_a_time = threading.RLock()
"""For the rare machines on which numba aborts the process when two threads launch parallel kernels."""

T = TypeVar("T")
V = TypeVar("V")

_UDF_RUNNER = "libertem.udf.runner", "UDFRunner"
"""By name: executors do not know UDFs, but hand on the class that runs them."""


@dataclass
class Environment:
    """Where a task runs."""

    threads_per_worker: int | None
    """Threads that the code of a task may use; None for no limit."""
    worker_context: WorkerContext | None = None
    """Means to talk to the main process."""
    cancelled: Callable[[], bool] | None = None
    """Whether the run was given up meanwhile."""
    threaded_executor: bool = False
    """Whether other tasks run in threads of the same process."""
    report: Callable[[float], None] | None = None
    """Receives, after each tile or frame, how much of the partition is done, from 0 to 1."""

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Limit the thread pools of numerical libraries while code of users runs."""
        safe = not self.threaded_executor or guard_numba_threading_layer()
        with nullcontext() if safe else _one_at_a_time, set_num_threads(self.threads_per_worker):
            yield

    def check_cancelled(self) -> None:
        """End the task if its run was given up.

        Raises
        ------
        JobCancelledError
            If so. Nobody waits for the result any more.
        """
        if self.cancelled is not None and self.cancelled():
            raise JobCancelledError("the run was given up")


class JobExecutor:
    """Carries out tasks and functions, on one or many workers."""

    def run_function(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a function on any worker and return its value."""
        raise NotImplementedError

    def map(self, fn: Callable[[V], T], iterable: Iterable[V]) -> Iterable[T]:
        """Call a function for each element; results come in the order of the elements."""
        raise NotImplementedError

    def run_each_host(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> dict[str, T]:
        """Call a function once per host; results by host name."""
        raise NotImplementedError

    def run_each_worker(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> dict[str, T]:
        """Call a function once per worker; results by worker name."""
        raise NotImplementedError

    def run_tasks(
        self,
        tasks: Sequence[TaskProtocol],
        params_handle: Any,
        cancel_id: Any,
        task_comm_handler: TaskCommHandler,
    ) -> Iterator[tuple[Any, TaskProtocol]]:
        """Run tasks; yields ``(result, task)`` as they finish.

        Closing the generator gives up the rest of the run.
        """
        raise NotImplementedError

    def scatter(self, obj: Any) -> AbstractContextManager[Any]:
        """Distribute an object; the context manager gives a handle for `run_tasks`."""
        return nullcontext(obj)

    def scatter_update(self, handle: Any, obj: Any) -> None:
        """Replace a distributed object."""
        raise NotImplementedError

    def scatter_update_patch(self, handle: Any, patch: Any) -> None:
        """Call ``obj.patch(patch)`` on every copy of a distributed object."""
        handle.patch(patch)

    def get_available_workers(self) -> WorkerSet:
        """The workers with their names, hosts and resources."""
        raise NotImplementedError

    def merging_workers(self) -> int | None:
        """How many workers there are, if results should be merged on them as far as possible.

        None if sending results to the main process costs nothing.
        """
        return None

    def get_udf_runner(self) -> Any:
        """Class that runs UDFs with this executor."""
        module, name = _UDF_RUNNER
        return getattr(import_module(module), name)

    def cancel(self, cancel_id: Any) -> None:
        """Give up the run with that id."""

    def modify_buffer_type(self, buf: Any) -> Any:
        """Turn a result buffer into what this executor works with."""
        return buf

    def ensure_sync(self) -> JobExecutor:
        """The synchronous form of this executor."""
        return self

    def ensure_async(self, pool: Any = None) -> AsyncJobExecutor:
        """A form of this executor whose methods can be awaited."""
        return AsyncJobExecutor(self, pool)

    def close(self) -> None:
        """Release the workers. May be called twice."""

    def __enter__(self) -> JobExecutor:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class AsyncJobExecutor:
    """Methods of a synchronous executor as coroutines that run in a thread.

    Parameters
    ----------
    executor : JobExecutor
        Does the work.
    pool : concurrent.futures.Executor, optional
        Threads to use.
    """

    def __init__(self, executor: JobExecutor, pool: Any = None) -> None:
        self._executor = executor
        self._pool = pool

    async def _call(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        from libertem.common.async_utils import sync_to_async

        return await sync_to_async(fn, self._pool, *args, **kwargs)

    async def run_function(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a function on any worker and return its value."""
        return await self._call(self._executor.run_function, fn, *args, **kwargs)

    async def map(self, fn: Callable[[V], T], iterable: Iterable[V]) -> list[T]:
        """Call a function for each element; results come in the order of the elements."""
        return await self._call(lambda: list(self._executor.map(fn, iterable)))

    async def run_each_host(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> dict[str, T]:
        """Call a function once per host; results by host name."""
        return await self._call(self._executor.run_each_host, fn, *args, **kwargs)

    async def run_each_worker(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> dict[str, T]:
        """Call a function once per worker; results by worker name."""
        return await self._call(self._executor.run_each_worker, fn, *args, **kwargs)

    async def get_available_workers(self) -> WorkerSet:
        """The workers with their names, hosts and resources."""
        return await self._call(self._executor.get_available_workers)

    async def cancel(self, cancel_id: Any) -> None:
        """Give up the run with that id."""
        await self._call(self._executor.cancel, cancel_id)

    async def close(self) -> None:
        """Release the workers."""
        await self._call(self._executor.close)

    def get_udf_runner(self) -> Any:
        """Class that runs UDFs with this executor."""
        return self._executor.get_udf_runner()

    def ensure_sync(self) -> JobExecutor:
        """The synchronous form."""
        return self._executor

    def ensure_async(self, pool: Any = None) -> AsyncJobExecutor:
        """The executor itself."""
        return self


def make_canonical(main_gpu: bool | int | None) -> int | None:
    """Resolve what users say about a GPU for the main process to its id, or None.

    Parameters
    ----------
    main_gpu : bool, int or None
        True for any GPU, an int for a certain one, False for none; None for one if there is one.

    Raises
    ------
    ExecutorSpecException
        If the GPU or CuPy is missing.
    ValueError
        For anything else.
    """
    from libertem.utils.devices import detect

    if main_gpu is False:
        return None
    if main_gpu is not None and main_gpu is not True and not isinstance(main_gpu, int):
        raise ValueError(f"main_gpu has to be a bool, an int or None, found {main_gpu!r}")
    devices = detect()
    cudas = list(devices["cudas"]) if devices["has_cupy"] else []
    if main_gpu is None:
        return int(cudas[0]) if cudas else None
    if not cudas:
        raise ExecutorSpecException(
            "a GPU for the main process was asked for, but no GPU with CuPy was found"
        )
    if main_gpu is True:
        return int(cudas[0])
    if main_gpu not in cudas:
        raise ExecutorSpecException(f"GPU {main_gpu} was asked for, found {cudas}")
    return int(main_gpu)
