"""Talk to a Dask cluster without ever waiting for what cannot come any more."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import CancelledError
from concurrent.futures import Future as LocalFuture
from typing import Any

import cloudpickle
from distributed import KilledWorker
from distributed.comm.core import CommClosedError

from libertem.common.scheduler import Worker, WorkerSet
from libertem.exceptions import ExecutorError, ResourceError
from libertem.executor.dask.worker import call

__all__ = ["LOST_WORK", "Connection", "Watch", "as_worker_set", "has_resources"]

CHECK_SECONDS = 1.0
"""Without news for so long, somebody looks whether news can still come."""

PATIENCE_SECONDS = 60.0
"""A worker that died may be replaced, or a lost scheduler come back, within this time."""

LOST_WORK = KilledWorker, CancelledError, CommClosedError
"""What Dask raises if there will be no result: its worker died too often, or the scheduler is gone."""

_LOOPBACK = "127.0.0.1", "::1"

_log = logging.getLogger(__name__)


def has_resources(worker: Worker, wanted: Mapping[str, float]) -> bool:
    """Whether a worker offers all that is wanted."""
    return all(worker.resources.get(name, 0) >= amount for name, amount in wanted.items())


def _local_name(host: str) -> str:
    return "localhost" if host in _LOOPBACK else host


def as_worker_set(infos: Mapping[str, Mapping[str, Any]]) -> WorkerSet:
    """Workers of which the scheduler says `infos`."""
    return WorkerSet(
        Worker(
            name=name,
            host=_local_name(info["host"]),
            resources=dict(info.get("resources") or {}),
            nthreads=int(info["nthreads"]),
        )
        for name, info in infos.items()
    )


class Connection:
    """A Dask client, seen through the needs of an executor.

    Parameters
    ----------
    client : distributed.Client
        Connected, and synchronous.
    """

    def __init__(self, client: Any) -> None:
        self.client = client
        self.heal: Callable[[], None] = lambda: None
        """Called now and then: replaces what was lost, if it is up to this process."""

    @property
    def address(self) -> str:
        """Of the scheduler."""
        scheduler = self.client.scheduler
        return "?" if scheduler is None else str(scheduler.address)

    def is_up(self) -> bool:
        """Whether the scheduler can be asked."""
        return bool(self.client.status == "running")

    def require(self) -> None:
        """Wait until the scheduler can be asked.

        Raises
        ------
        ExecutorError
            If the client is closed, or the scheduler does not come back.
        """
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while not self.is_up():
            if self.client.status in ("closed", "closing"):
                raise ExecutorError(
                    f"not connected to the Dask scheduler at {self.address} any more "
                    "(make a new executor and a new context)"
                )
            if time.monotonic() > give_up_at:
                raise ExecutorError(
                    f"the Dask scheduler at {self.address} is gone and did not come back "
                    f"within {PATIENCE_SECONDS:.0f} s"
                )
            time.sleep(0.05)

    def workers(self) -> dict[str, dict[str, Any]]:
        """What the scheduler says about its workers, by name."""
        self.require()
        self.heal()
        try:
            found = self.client.scheduler_info(n_workers=-1)["workers"]
        except OSError as err:
            raise self.explain(err, "the list of workers") from err
        by_name = {str(info["name"]): {**info, "address": address} for address, info in found.items()}
        return dict(sorted(by_name.items()))

    def worker_set(self) -> WorkerSet:
        """All workers, by name."""
        return as_worker_set(self.workers())

    def _start(self, coroutine: Coroutine[Any, Any, Any]) -> LocalFuture[Any]:
        """Run a coroutine in the event loop of the client."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.client.loop.asyncio_loop)

    def broadcast(self, fn: Callable[..., Any], *args: Any, wait_s: float = 0, **options: Any) -> None:
        """Call a function on workers at once, also if they are busy. What becomes of it is not known.

        Parameters
        ----------
        fn, *args
            For each worker.
        wait_s : float
            Seconds to wait for them at most. One that does not answer must not keep the others.
        **options
            For `Client.run`.
        """
        if not self.is_up():
            return

        async def run() -> None:
            await self.client.run(fn, *args, on_error="ignore", **options)

        done = self._start(run())
        if not wait_s:
            return
        try:
            done.result(timeout=wait_s)
        # Late, or the cluster goes away meanwhile and has nobody left to tell.
        except (TimeoutError, OSError, RuntimeError) as err:
            _log.info("%s was not called on all workers: %r", fn.__name__, err)

    # --- results ---

    def fetch(self, future: Any) -> LocalFuture[Any]:
        """Start to wait for the result of a Dask future, or for those of a list, and to bring it here."""

        async def gather() -> Any:
            return await self.client.gather(future, asynchronous=True)

        return self._start(gather())

    def drop(self, futures: Sequence[Any]) -> None:
        """Take back Dask futures that may be waited for. Does not wait itself."""
        # A client that loses its connection, or is closed, drops everything by itself.
        if not self.is_up():
            return

        async def cancel() -> None:
            await self.client.cancel(futures, asynchronous=True)

        self._start(cancel())

    def call_on(
        self, calls: Sequence[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]], **where: Any
    ) -> list[Any]:
        """Call functions on workers, before the tasks that wait there; results in the same order.

        Parameters
        ----------
        calls : list of (function, args, kwargs)
        **where
            For `Client.submit`; ``workers`` may be a list with one name per call.
        """
        self.require()
        names = where.pop("workers", None)
        futures = []
        # Pickled here: an error is raised by this call, and Dask does not look for its own objects inside.
        for i, one in enumerate(calls):
            place = {} if names is None else {"workers": [names[i]]}
            pickled = cloudpickle.dumps(one)
            futures.append(self.client.submit(call, pickled, pure=False, priority=10, **place, **where))
        fetched = self.fetch(futures)
        watch = Watch(self, {}, names=names)
        try:
            while True:
                try:
                    results: list[Any] = fetched.result(timeout=CHECK_SECONDS)
                    return results
                except TimeoutError:
                    if fetched.done():
                        raise
                    watch.check()
        except LOST_WORK as err:
            raise self.explain(err, "a function") from err
        finally:
            self.drop(futures)

    def explain(self, err: BaseException, work: str) -> ExecutorError:
        """Turn an error of Dask about lost work into one that names who lost it."""
        if isinstance(err, KilledWorker):
            lost = err.last_worker
            n = err.allowed_failures + 1
            others = f", and so did {n - 1} before it" if n > 1 else ""
            return ExecutorError(
                f"worker {lost.name} ({lost.address}) died while it processed {work}{others} "
                "(a worker that needs more memory than its limit is ended, and so is one that crashes)"
            )
        state = "" if self.is_up() else f", the client is {self.client.status}"
        return ExecutorError(
            f"the Dask scheduler at {self.address} lost {work}{state} "
            "(it was restarted, or the connection to it broke)"
        )


class Watch:
    """Notices that nobody is left to do some work.

    Parameters
    ----------
    connection : Connection
        To the cluster.
    resources : dict
        What a worker has to offer.
    names : list of str, optional
        Only these workers are of use, and all of them are needed.
    """

    def __init__(
        self, connection: Connection, resources: Mapping[str, float], names: Sequence[str] | None = None
    ) -> None:
        self._connection = connection
        self._resources = resources
        self._names = names
        self._missing_since: float | None = None
        self._last_seen: dict[str, str] = {}

    def check(self) -> int:
        """Number of tasks that can go on at the same time.

        Raises
        ------
        ExecutorError
            If it has been none for too long.
        """
        infos = self._connection.workers()
        useful = [w for w in as_worker_set(infos) if has_resources(w, self._resources)]
        active = [w for w in useful if _can_work(infos[w.name])]
        if self._names is None:
            enough = bool(active)
        else:
            enough = set(self._names) <= {w.name for w in active}
        if enough:
            self._missing_since = None
        else:
            now = time.monotonic()
            self._missing_since = now if self._missing_since is None else self._missing_since
            if now - self._missing_since > PATIENCE_SECONDS:
                raise ExecutorError(self._complaint(infos, {w.name for w in useful}))
        self._last_seen.update({w.name: infos[w.name]["address"] for w in useful})
        return sum(w.nthreads for w in active)

    def _complaint(self, infos: Mapping[str, Mapping[str, Any]], useful: set[str]) -> str:
        found = [
            f"{name} ({address}) is gone" for name, address in self._last_seen.items() if name not in infos
        ]
        found += [f"{name} ({infos[name]['address']}) is {infos[name]['status']}" for name in sorted(useful)]
        wanted = ", ".join(self._resources) or "no special resources"
        return (
            f"no Dask worker is left for the work (needs {wanted}) since {PATIENCE_SECONDS:.0f} s: "
            f"{', '.join(found) or 'there was none'} (a worker that needs too much memory is paused or ended)"
        )

    def require(self) -> int:
        """Like `check`, but at the beginning, when nobody can have been lost yet.

        Raises
        ------
        ResourceError
            If no worker offers what is needed.
        """
        workers = self._connection.worker_set()
        if len(workers) and not any(has_resources(w, self._resources) for w in workers):
            offers = {w.name: dict(w.resources) for w in workers}
            raise ResourceError(
                f"no worker offers the resources {dict(self._resources)} that the UDFs need, found {offers}"
            )
        return self.check()


def _can_work(info: Mapping[str, Any]) -> bool:
    """Whether a worker can begin tasks, or is busy with one: it pauses when its memory is nearly full."""
    busy = (info.get("metrics") or {}).get("task_counts", {}).get("executing", 0)
    return info["status"] in ("running", "init") or bool(busy)
