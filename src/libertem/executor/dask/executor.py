"""Run tasks on a Dask cluster."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from distributed import Client

from libertem.common.scheduler import Scheduler, Worker, WorkerSet
from libertem.exceptions import ExecutorError, ResourceError
from libertem.executor.base import JobExecutor, make_canonical
from libertem.executor.dask.cluster import LocalCluster, cluster_spec
from libertem.executor.dask.connection import PATIENCE_SECONDS, Connection
from libertem.executor.dask.run import Handle, Run
from libertem.executor.dask.snooze import Snoozer
from libertem.utils.devices import detect

if TYPE_CHECKING:
    from libertem.common.protocols import TaskProtocol
    from libertem.common.taskcomm import TaskCommHandler

__all__ = ["DaskJobExecutor"]

T = TypeVar("T")
V = TypeVar("V")


class DaskJobExecutor(JobExecutor):
    """Runs tasks on the workers of a Dask cluster. Usually made by `make_local` or `connect`.

    Parameters
    ----------
    client : distributed.Client
        Connected to the cluster. Not closed with the executor, unless `is_local` is set.
    is_local : bool
        Whether `close` ends the client, and the cluster that it has started.
    lt_resources : bool, optional
        Whether workers declare what they offer (``compute``, ``CPU``, ``CUDA``, ``ndarray``), as those
        made by `cluster_spec` do. Found out by default.
    main_process_gpu : bool or int, optional
        GPU for merging results on the main process.
    """

    def __init__(
        self,
        client: Any,
        is_local: bool = False,
        lt_resources: bool | None = None,
        main_process_gpu: bool | int | None = None,
    ) -> None:
        self.client = client
        self.is_local = is_local
        self._main_process_gpu = None if main_process_gpu is None else make_canonical(main_process_gpu)
        self._connection = Connection(client)
        self._lt_resources = lt_resources
        self._cluster: LocalCluster | None = None
        self._snoozer = Snoozer(None, lambda: None, lambda: None)
        self._runs: dict[Any, Run] = {}
        self._topic = f"libertem-{uuid.uuid4().hex}"
        self._listens = False
        self._closed = False

    # --- making ---

    @classmethod
    def make_local(
        cls,
        spec: Mapping[str, Mapping[str, Any]] | None = None,
        cluster_kwargs: Mapping[str, Any] | None = None,
        client_kwargs: Mapping[str, Any] | None = None,
        preload: Iterable[str] | None = None,
        snooze_timeout: float | None = None,
        main_process_gpu: bool | int | None = None,
    ) -> DaskJobExecutor:
        """Start a cluster of worker processes on this machine.

        Parameters
        ----------
        spec : dict, optional
            From `cluster_spec`, possibly changed. By default one worker per core and per CUDA device.
        cluster_kwargs : dict, optional
            For `distributed.SpecCluster`.
        client_kwargs : dict, optional
            For `distributed.Client`. With ``set_as_default=True`` the client becomes the default of Dask, and
            it outlives the executor.
        preload : iterable of str, optional
            Modules, files or code that each worker runs when it starts; instead of `spec`.
        snooze_timeout : float, optional
            Seconds without work after which all workers but one end. The next use brings them back.
        main_process_gpu : bool or int, optional
            GPU for merging results on the main process.

        Raises
        ------
        ValueError
            If both `spec` and `preload` are given.
        """
        if spec is None:
            spec = cluster_spec(**detect(), preload=preload)
        elif preload is not None:
            raise ValueError(
                "preload is a part of spec: give it to cluster_spec() rather than together with spec"
            )
        options = {"set_as_default": False, **(client_kwargs or {})}
        cluster = LocalCluster(spec, **(cluster_kwargs or {}))
        try:
            client = _make_client(cluster, **options)
            _wait_for_workers(client, cluster.full_size)
            executor = cls(
                client=client,
                is_local=not options["set_as_default"],
                main_process_gpu=main_process_gpu,
            )
        except BaseException:
            cluster.close()
            raise
        executor._cluster = cluster
        executor._connection.heal = cluster.heal
        executor._snoozer = Snoozer(snooze_timeout, executor._fall_asleep, executor._wake_up)
        return executor

    @classmethod
    def connect(
        cls, scheduler_uri: str, *args: Any, client_kwargs: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> DaskJobExecutor:
        """Use a cluster that is there already. It goes on after the executor is closed.

        Parameters
        ----------
        scheduler_uri : str
            Address of the scheduler, like ``tcp://localhost:8786``.
        *args, **kwargs
            For the constructor.
        client_kwargs : dict, optional
            For `distributed.Client`, see `make_local`.
        """
        options = {"set_as_default": False, **(client_kwargs or {})}
        client = _make_client(scheduler_uri, **options)
        try:
            return cls(client, *args, **{"is_local": not options["set_as_default"], **kwargs})
        except BaseException:
            client.close()
            raise

    def _fall_asleep(self) -> None:
        assert self._cluster is not None
        self._cluster.resize(1)

    def _wake_up(self) -> None:
        assert self._cluster is not None
        self._cluster.resize(self._cluster.full_size)
        _wait_for_workers(self.client, self._cluster.full_size)

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        if self._closed:
            raise ExecutorError("the executor is closed (make a new one, and a new context)")
        with self._snoozer.awake():
            yield

    # --- functions ---

    def run_function(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a function on any worker and return its value."""
        with self._in_use():
            (result,) = self._connection.call_on([(fn, args, kwargs)])
        value: T = result
        return value

    def map(self, fn: Callable[[V], T], iterable: Iterable[V]) -> list[T]:
        """Call a function for each element, on all workers."""
        with self._in_use():
            return self._connection.call_on([(fn, (item,), {}) for item in iterable])

    def run_each_host(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> dict[str, T]:
        """Call a function on one worker of each host; results by host name."""
        with self._in_use():
            workers = [group.example() for group in self._connection.worker_set().group_by_host()]
            names = [worker.name for worker in workers]
            results = self._connection.call_on([(fn, args, kwargs)] * len(names), workers=names)
        return dict(zip([worker.host for worker in workers], results, strict=True))

    def run_each_worker(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> dict[str, T]:
        """Call a function on each worker, service workers included; results by worker name."""
        with self._in_use():
            names = self._connection.worker_set().names()
            results = self._connection.call_on([(fn, args, kwargs)] * len(names), workers=names)
        return dict(zip(names, results, strict=True))

    # --- workers ---

    @property
    def lt_resources(self) -> bool:
        """Whether workers declare what they offer, so that tasks may ask for it."""
        if self._lt_resources is None:
            workers = self._connection.worker_set()
            tagged = any(_is_tagged(worker) for worker in workers)
            # As long as there are no workers, nobody knows.
            if not workers:
                return tagged
            self._lt_resources = tagged
        return self._lt_resources

    def get_available_workers(self) -> WorkerSet:
        """All workers. One without resources is a service worker, unless no worker has any."""
        with self._in_use():
            return self._connection.worker_set()

    def get_resource_details(self) -> list[dict[str, Any]]:
        """Number of workers of each kind: ``{'host', 'cpu', 'cuda', 'service'}`` per host."""
        return [
            {
                "host": group.example().host,
                "cpu": len(group.has_cpu()),
                "cuda": len(group.has_cuda()),
                "service": len(group.filter(lambda worker: not worker.resources)),
            }
            for group in self.get_available_workers().group_by_host()
        ]

    def merging_workers(self) -> int:
        """Sending and merging one result per partition would keep the main process busy."""
        return Scheduler(self.get_available_workers()).effective_worker_count()

    # --- runs ---

    @contextmanager
    def scatter(self, obj: Any) -> Iterator[Handle]:
        """Distribute an object; the context manager gives a handle for `run_tasks`.

        It is sent once to each worker that computes, and to those that join later when they need it.
        """
        with self._in_use():
            handle = Handle(self._connection, obj)
            try:
                handle.send(self._computing_addresses())
                yield handle
            finally:
                handle.forget()

    def _computing_addresses(self) -> list[str]:
        infos = self._connection.workers().values()
        return [info["address"] for info in infos if info.get("resources") or not self.lt_resources]

    def scatter_update_patch(self, handle: Handle, patch: Any) -> None:
        """Call ``obj.patch(patch)`` on every copy of a distributed object."""
        handle.patch(patch)

    def run_tasks(
        self,
        tasks: Sequence[TaskProtocol],
        params_handle: Handle,
        cancel_id: Any,
        task_comm_handler: TaskCommHandler,
    ) -> Iterator[tuple[Any, TaskProtocol]]:
        """Run tasks on workers; yields results as they are finished.

        Raises
        ------
        ResourceError
            If no worker offers what the tasks need.
        ExecutorError
            If workers or the scheduler are lost, and nobody takes their place.
        """
        if not self.lt_resources and any("CUDA" in task.get_resources() for task in tasks):
            raise ResourceError("Requesting CUDA resource on a cluster without resource management.")
        with self._in_use():
            run = Run(
                self._connection,
                tasks,
                params_handle,
                task_comm_handler,
                topic=self._topic,
                tagged=self.lt_resources,
            )
            if task_comm_handler.subscriptions and not self._listens:
                self.client.subscribe_topic(self._topic, self._on_event)
                self._listens = True
            self._runs[cancel_id] = run
            try:
                yield from run
            finally:
                self._runs.pop(cancel_id, None)

    def _on_event(self, event: tuple[float, dict[str, Any]]) -> None:
        """A message from a task; runs in the thread of the client."""
        _, content = event
        for run in list(self._runs.values()):
            if run.id == content["run_id"]:
                run.on_message(content["message"])

    def cancel(self, cancel_id: Any) -> None:
        """Give up the run with that id."""
        run = self._runs.get(cancel_id)
        if run is not None:
            run.stop("the run was cancelled")

    def close(self) -> None:
        """End what was started: the client and, after `make_local`, the cluster. Runs are given up."""
        if self._closed:
            return
        self._closed = True
        for run in list(self._runs.values()):
            run.stop("the executor was closed")
        self._snoozer.close()
        if not self.is_local:
            if self._listens and self._connection.is_up():
                self.client.unsubscribe_topic(self._topic)
            return
        self.client.close()
        if self._cluster is not None:
            close: Any = self._cluster.close  # not typed
            close()


def _make_client(address: Any, **options: Any) -> Any:
    make: Any = Client  # not typed
    return make(address, **options)


def _wait_for_workers(client: Any, n_workers: int) -> None:
    try:
        client.wait_for_workers(n_workers, timeout=PATIENCE_SECONDS)
    except TimeoutError as err:
        raise ExecutorError(
            f"not all of the {n_workers} Dask workers have started within {PATIENCE_SECONDS:.0f} s "
            "(their log says why; a preload may have failed)"
        ) from err


def _is_tagged(worker: Worker) -> bool:
    resources = worker.resources
    computes = resources.get("compute", 0) > 0
    return computes and (
        (resources.get("CPU", 0) > 0 and resources.get("ndarray", 0) > 0) or resources.get("CUDA", 0) > 0
    )
