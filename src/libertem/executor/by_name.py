"""Make executors by the names that `Context.make_with` knows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from libertem.exceptions import ExecutorSpecException
from libertem.executor.base import JobExecutor

__all__ = ["EXECUTORS", "Wishes", "make_executor"]

Workers = int | Iterable[int] | None


@dataclass(frozen=True)
class Wishes:
    """What the caller asks for, apart from the kind of executor."""

    cpus: Workers
    """Number or ids of CPU workers."""
    gpus: Workers
    """Number or ids of GPU workers."""
    snooze_minutes: float | None
    """When to dismiss workers that have nothing to do."""
    main_process_gpu: bool | int | None
    """GPU for merging results."""

    def ids(self) -> dict[str, Any]:
        """Devices as of `detect`, with what the caller wants instead.

        Raises
        ------
        ExecutorSpecException
            If GPUs are wanted and there are none, or if there would be no worker.
        """
        from libertem.utils.devices import detect

        found = detect()
        cpus, cudas = found["cpus"], found["cudas"]
        if self.cpus is not None:
            cpus = _ids(self.cpus)
        if self.gpus is not None:
            wanted = _ids(self.gpus)
            if wanted and not cudas:
                raise ExecutorSpecException("Cannot specify GPU workers as no GPUs detected")
            # A number is served by the devices in turn.
            cudas = wanted if isinstance(self.gpus, Iterable) else [cudas[i % len(cudas)] for i in wanted]
        if not cpus and not cudas:
            raise ExecutorSpecException("neither CPU nor GPU workers were asked for")
        return {"cpus": cpus, "cudas": cudas, "has_cupy": found["has_cupy"]}


def _ids(workers: int | Iterable[int]) -> list[int]:
    return [int(i) for i in workers] if isinstance(workers, Iterable) else list(range(workers))


# Imports below are late because most programs need one kind of executor, and Dask takes a second to load.


def _make_inline(wishes: Wishes) -> JobExecutor:
    from libertem.executor.inline import InlineJobExecutor

    return InlineJobExecutor(main_process_gpu=wishes.main_process_gpu)


def _make_threads(wishes: Wishes) -> JobExecutor:
    from libertem.executor.concurrent import ConcurrentJobExecutor

    n = None if wishes.cpus is None else len(_ids(wishes.cpus))
    return ConcurrentJobExecutor.make_local(n_threads=n, main_process_gpu=wishes.main_process_gpu)


def _make_dask(wishes: Wishes, *, set_as_default: bool = False) -> JobExecutor:
    from libertem.executor.dask import DaskJobExecutor, cluster_spec

    minutes = wishes.snooze_minutes
    return DaskJobExecutor.make_local(
        spec=cluster_spec(**wishes.ids()),
        client_kwargs={"set_as_default": set_as_default},
        snooze_timeout=None if minutes is None else 60 * minutes,
        main_process_gpu=wishes.main_process_gpu,
    )


def _make_default_dask(wishes: Wishes) -> JobExecutor:
    return _make_dask(wishes, set_as_default=True)


def _make_integrated(wishes: Wishes) -> JobExecutor:
    from libertem.executor.integration import get_dask_integration_executor

    return get_dask_integration_executor(main_process_gpu=wishes.main_process_gpu)


def _make_delayed(wishes: Wishes) -> JobExecutor:
    from libertem.executor.delayed import DelayedJobExecutor

    return DelayedJobExecutor(main_process_gpu=wishes.main_process_gpu)


def _make_pipelined(wishes: Wishes) -> JobExecutor:
    from libertem.executor.pipelined import PipelinedExecutor

    spec = PipelinedExecutor.make_spec(**wishes.ids())
    return PipelinedExecutor(spec=spec, main_process_gpu=wishes.main_process_gpu)


@dataclass(frozen=True)
class _Kind:
    """A kind of executor."""

    make: Callable[[Wishes], JobExecutor]
    takes: frozenset[str] = frozenset()
    """What the caller may choose: ``'CPU'`` workers, ``'GPU'`` workers, when to ``'snooze'``."""


_CLUSTER = frozenset({"CPU", "GPU", "snooze"})

_KINDS = {
    "inline": _Kind(_make_inline),
    "synchronous": _Kind(_make_inline),
    "threads": _Kind(_make_threads, takes=frozenset({"CPU"})),
    "dask": _Kind(_make_dask, takes=_CLUSTER),
    "dask-make-default": _Kind(_make_default_dask, takes=_CLUSTER),
    "dask-integration": _Kind(_make_integrated),
    "delayed": _Kind(_make_delayed),
    "pipelined": _Kind(_make_pipelined, takes=frozenset({"CPU", "GPU"})),
}

EXECUTORS = tuple(_KINDS)
"""Names of executors."""


def make_executor(name: str, wishes: Wishes) -> JobExecutor:
    """Make an executor.

    Parameters
    ----------
    name : str
        One of `EXECUTORS`, in upper or lower case.
    wishes : Wishes
        What else the caller asks for.

    Raises
    ------
    ExecutorSpecException
        If there is no such executor, or it cannot be made like that.
    """
    spec = name.lower()
    if spec not in _KINDS:
        raise ExecutorSpecException(f"unknown executor {name!r}, expected one of {', '.join(EXECUTORS)}")
    kind = _KINDS[spec]
    if wishes.snooze_minutes is not None and "snooze" not in kind.takes:
        raise ExecutorSpecException(f"Executor type {spec} cannot snooze, only clusters can")
    for device, wanted in (("CPU", wishes.cpus), ("GPU", wishes.gpus)):
        if wanted is not None and device not in kind.takes:
            raise ExecutorSpecException(
                f"Executor type {spec} does not support specifying {device} workers at this time"
            )
    return kind.make(wishes)
