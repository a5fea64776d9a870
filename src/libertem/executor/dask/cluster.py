"""Specify and start local Dask clusters."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from distributed import Nanny, Scheduler, SpecCluster

from libertem.utils.devices import detect

__all__ = ["LocalCluster", "cluster_spec", "with_defaults"]

_THREADS = "MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"

# Preloads may be text, which is executed. `repr` puts names in quotes.
_SET_UP = "from libertem.executor.dask.worker import set_up_worker; set_up_worker({resource!r}, {device})"
_TRACE = (
    "from libertem.common.tracing import maybe_setup_tracing; "
    "maybe_setup_tracing(service_name={name!r}, service_id={ident!r})"
)
_LAST_PRELOAD = "libertem.preload"

_ENDED = "closed", "failed"
"""States of a nanny."""


def cluster_spec(
    cpus: int | Iterable[int],
    cudas: int | Iterable[int],
    has_cupy: bool,
    name: str = "default",
    num_service: int = 1,
    options: Mapping[str, Any] | None = None,
    preload: Iterable[str] | None = None,
) -> dict[str, dict[str, Any]]:
    """Describe the workers of a Dask cluster on one machine.

    Parameters
    ----------
    cpus : int or iterable of int
        Number or ids of CPU workers.
    cudas : int or iterable of int
        Number of CUDA workers or ids of their devices; an id may be repeated for several workers on it.
    has_cupy : bool
        Whether CuPy works on the CUDA workers.
    name : str
        Prefix of the names of workers.
    num_service : int
        Number of workers for short functions, which stay responsive during a run.
    options : dict, optional
        Further options for all workers, see `distributed.Nanny`.
    preload : iterable of str, optional
        Modules, files or code that each worker runs when it starts, before anything of this library.

    Returns
    -------
    dict
        Names with ``{'cls': distributed.Nanny, 'options': {...}}``. May be changed and given to
        `DaskJobExecutor.make_local`.

    Examples
    --------
    >>> spec = cluster_spec(cpus=2, cudas=[], has_cupy=False, preload=("numpy",))
    >>> list(spec)
    ['default-cpu-0', 'default-cpu-1', 'default-service-0']
    """
    cpu_ids, cuda_ids = _ids(cpus), _ids(cudas)
    if cuda_ids and not detect()["cudas"]:
        warnings.warn(
            f"CUDA workers were asked for (devices {cuda_ids}), but no CUDA device is visible here",
            RuntimeWarning,
            stacklevel=2,
        )
    spec: dict[str, dict[str, Any]] = {}

    def add(kind: str, ident: int, resources: dict[str, int]) -> None:
        worker = _unused_name(f"{name}-{kind}-{ident}", spec)
        device = [_SET_UP.format(resource=kind.upper(), device=ident)] if resources else []
        trace = _TRACE.format(name=worker, ident=str(ident))
        spec[worker] = {
            "cls": Nanny,
            "options": {
                "nthreads": 1,
                "silence_logs": logging.WARNING,
                **(options or {}),
                "resources": resources,
                "preload": (*(preload or ()), *device, trace, _LAST_PRELOAD),
            },
        }

    for i in cpu_ids:
        add("cpu", i, {"CPU": 1, "compute": 1, "ndarray": 1})
    for i in range(num_service):
        add("service", i, {})
    for i in cuda_ids:
        add("cuda", i, {"CUDA": 1, "compute": 1, **({"ndarray": 1} if has_cupy else {})})
    return spec


def _ids(number_or_ids: int | Iterable[int]) -> list[int]:
    if isinstance(number_or_ids, Iterable):
        return [int(i) for i in number_or_ids]
    return list(range(number_or_ids))


def _unused_name(name: str, used: Mapping[str, Any]) -> str:
    """`name`, or for the second worker of a device ``name-0``, for the third ``name-1``, and so on."""
    n, unused = 0, name
    while unused in used:
        unused, n = f"{name}-{n}", n + 1
    return unused


class LocalCluster(SpecCluster):
    """Workers on this machine, which may be dismissed for a while.

    Parameters
    ----------
    spec : dict
        Names of workers with their specification.
    **kwargs
        For `distributed.SpecCluster`.
    """

    def __init__(self, spec: Mapping[str, Mapping[str, Any]], **kwargs: Any) -> None:
        self._full_spec = {name: with_defaults(worker) for name, worker in spec.items()}
        options = {"host": "127.0.0.1", "port": 0, "dashboard_address": "127.0.0.1:0"}
        kwargs.setdefault("scheduler", {"cls": Scheduler, "options": options})
        kwargs.setdefault("silence_logs", logging.WARNING)
        start: Any = super().__init__  # not typed
        start(workers=dict(self._full_spec), **kwargs)

    def new_worker_spec(self) -> dict[str, Any]:
        """A worker that was dismissed; asked for while the cluster grows."""
        name = next(name for name in self._full_spec if name not in self.worker_spec)
        return {name: self._full_spec[name]}

    def resize(self, n_workers: int) -> None:
        """Dismiss workers, or get them back; the first ones stay."""
        scale: Any = self.scale  # not typed
        scale(n_workers)

    def heal(self) -> None:
        """Replace nannies that have ended. Does not wait.

        A nanny replaces a worker process that dies, but ends itself if the process dies while it starts.
        Without this, nobody would notice for some time, and then nobody would do anything.
        """
        ended = [name for name, worker in list(self.workers.items()) if worker.status.name in _ENDED]
        if not ended and len(self.workers) >= len(self.worker_spec):
            return

        def replace() -> None:
            for name in ended:
                self.workers.pop(name, None)
            # Starts those that are specified but not there.
            self.resize(len(self.worker_spec))

        loop: Any = self.loop
        loop.add_callback(replace)

    @property
    def full_size(self) -> int:
        """Number of workers that were asked for."""
        return len(self._full_spec)


def with_defaults(worker: Mapping[str, Any]) -> dict[str, Any]:
    """Add environment and configuration to the specification of a worker process.

    As options of the worker, they also hold for a process that takes the place of one that died, and the
    environment of the main process stays as it is.
    """
    worker = {**worker, "options": copy.copy(dict(worker.get("options", {})))}
    cls = worker["cls"]
    if isinstance(cls, type) and issubclass(cls, Nanny):
        options = worker["options"]
        options["env"] = {**dict.fromkeys(_THREADS, "1"), **(options.get("env") or {})}
        # The profiler takes samples of all threads a hundred times per second.
        options["config"] = {"distributed.worker.profile.enabled": False, **(options.get("config") or {})}
    return dict(worker)
