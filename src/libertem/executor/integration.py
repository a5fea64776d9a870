"""Compute with whatever Dask uses in this process."""

from __future__ import annotations

from concurrent.futures import Executor
from typing import Any

import dask.base
import dask.config
import dask.local
import dask.threaded

from libertem.executor.base import JobExecutor
from libertem.executor.concurrent import ConcurrentJobExecutor
from libertem.executor.inline import InlineJobExecutor

__all__ = ["get_dask_integration_executor"]


def get_dask_integration_executor(main_process_gpu: bool | int | None = None) -> JobExecutor:
    """Executor that works with what Dask is set to use.

    * A default client: `DaskJobExecutor` on it. Closing leaves the client open.
    * ``threads`` or a pool: `ConcurrentJobExecutor` on the pool of Dask.
    * ``synchronous``: `InlineJobExecutor`.
    * ``processes``, or nothing: `ConcurrentJobExecutor` with threads of its own.

    A setting in the configuration of Dask takes precedence over a default client, as in Dask itself.

    Parameters
    ----------
    main_process_gpu : bool or int, optional
        GPU for merging results on the main process.
    """
    ask: Any = dask.base.get_scheduler  # not typed
    scheduler = ask()
    if scheduler is dask.local.get_sync:
        return InlineJobExecutor(main_process_gpu=main_process_gpu)
    chosen = dask.config.get("scheduler", None)
    pool = chosen if isinstance(chosen, Executor) else None
    if scheduler is dask.threaded.get:
        pool = _pool_of_dask()
    if pool is not None:
        return ConcurrentJobExecutor(client=pool, is_local=False, main_process_gpu=main_process_gpu)
    client = _client_behind(scheduler)
    if client is not None:
        from libertem.executor.dask import DaskJobExecutor

        return DaskJobExecutor(client=client, is_local=False, main_process_gpu=main_process_gpu)
    return ConcurrentJobExecutor.make_local(main_process_gpu=main_process_gpu)


def _pool_of_dask() -> Executor | None:
    """Threads that Dask computes with."""
    configured = dask.config.get("pool", None)
    if configured is not None:
        # Pools of `multiprocessing` cannot run tasks of this library.
        return configured if isinstance(configured, Executor) else None
    # Dask makes its pool when it is first used.
    dask.threaded.get({"first": (int,)}, "first")
    pool: Any = getattr(dask.threaded, "default_pool", None)
    return pool if isinstance(pool, Executor) else None


def _client_behind(scheduler: Any) -> Any:
    """The client whose method Dask computes with, if it is that of a cluster."""
    # Without one, there is no need to load `distributed`.
    owner = getattr(scheduler, "__self__", None)
    if owner is None:
        return None
    from distributed import Client

    return owner if isinstance(owner, Client) else None
