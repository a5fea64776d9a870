"""Turn runs into Dask arrays, which whoever computes them evaluates with the scheduler of their choice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from dask.delayed import delayed

from libertem.executor.base import Environment, JobExecutor, make_canonical
from libertem.executor.local import local_worker_set, physical_cores

if TYPE_CHECKING:
    from libertem.common.protocols import TaskProtocol
    from libertem.common.scheduler import WorkerSet
    from libertem.common.taskcomm import TaskCommHandler

__all__ = ["DelayedJobExecutor"]

T = TypeVar("T")
V = TypeVar("V")

# By name: executors do not know UDFs.
_UDF_RUNNER = "libertem.udf.delayed", "DelayedUDFRunner"
_UDF_BACKENDS = "libertem.udf.backends"


class _Work:
    """A task as a function of the parameters of the run; opaque to Dask, which looks into data classes."""

    def __init__(self, task: TaskProtocol) -> None:
        self._task = task

    def __call__(self, params: _Value) -> Any:
        # The scheduler may use threads.
        return self._task(params.value, Environment(threads_per_worker=1, threaded_executor=True))


class _Value:
    """Any object, opaque to Dask."""

    def __init__(self, value: Any) -> None:
        self.value = value


class DelayedJobExecutor(JobExecutor):
    """Runs nothing at once: results are lazy Dask arrays.

    `Context.run_udf` returns immediately. Results have ``delayed_data`` and ``delayed_raw_data``, which are
    Dask arrays; ``data`` and ``raw_data`` compute all results of the run with the default scheduler of Dask,
    and keep them. Errors in UDFs appear then.

    Parameters
    ----------
    main_process_gpu : bool or int, optional
        Kept for compatibility; workers merge.
    """

    def __init__(self, main_process_gpu: bool | int | None = None) -> None:
        self._main_process_gpu = None if main_process_gpu is None else make_canonical(main_process_gpu)

    def run_function(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a function here and now, and return its value."""
        return fn(*args, **kwargs)

    def map(self, fn: Callable[[V], T], iterable: Iterable[V]) -> list[T]:
        """Call a function for each element."""
        return [fn(item) for item in iterable]

    def run_each_host(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> dict[str, T]:
        """Call a function once."""
        return {"localhost": fn(*args, **kwargs)}

    def run_each_worker(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> dict[str, T]:
        """Call a function once."""
        return {"delayed": fn(*args, **kwargs)}

    def get_available_workers(self) -> WorkerSet:
        """One worker for this machine: who will compute is not known yet."""
        return local_worker_set("delayed", "localhost", physical_cores())

    @contextmanager
    def scatter(self, obj: Any) -> Iterator[Any]:
        """Distribute an object; the context manager gives a handle for `run_tasks`."""
        yield delayed(_Value(obj), traverse=False)

    def run_tasks(
        self,
        tasks: Sequence[TaskProtocol],
        params_handle: Any,
        cancel_id: Any,
        task_comm_handler: TaskCommHandler,
    ) -> Iterator[tuple[Any, TaskProtocol]]:
        """Yields ``(result, task)`` in order, with results that are not computed yet."""
        for task in tasks:
            yield delayed(_Work(task), pure=False, traverse=False)(params_handle), task

    def get_udf_runner(self) -> Any:
        """Class that runs UDFs with this executor."""
        module, name = _UDF_RUNNER
        return getattr(import_module(module), name)

    def get_resources_from_udfs(self, udfs: Any, user_backends: Any = None) -> dict[str, int]:
        """Resources that workers need, for ``dask.compute(..., resources=...)``.

        Parameters
        ----------
        udfs : UDF or iterable of UDF
            To be run.
        user_backends : str or iterable of str, optional
            Limits the kinds of arrays, as in `Context.run_udf`.
        """
        several = udfs if isinstance(udfs, Iterable) else [udfs]
        backends = [udf.get_backends() for udf in several]
        return dict(import_module(_UDF_BACKENDS).get_resources_for_backends(backends, user_backends))
