"""Workers of an executor, and how many tasks they can run at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

__all__ = ["Scheduler", "Worker", "WorkerSet"]


@dataclass(frozen=True)
class Worker:
    """One worker of an executor."""

    name: str
    """Name of the worker, unique within its executor."""

    host: str
    """Name of the machine."""

    # Left out of the hash: mappings have none.
    resources: Mapping[str, float] = field(hash=False)
    """What the worker offers, by resource tag; empty for a service worker."""

    nthreads: int
    """Number of tasks that it runs at the same time."""


class WorkerSet:
    """Workers in a fixed order. Methods that change anything return a new set."""

    def __init__(self, workers: Iterable[Worker]) -> None:
        self._workers = tuple(workers)

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers)

    def __len__(self) -> int:
        return len(self._workers)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, WorkerSet):
            return NotImplemented
        return self._workers == other._workers

    def __hash__(self) -> int:
        return hash(self._workers)

    def __repr__(self) -> str:
        return f"WorkerSet({list(self._workers)})"

    def filter(self, fn: Callable[[Worker], bool]) -> WorkerSet:
        """The workers for which `fn` holds."""
        return WorkerSet(filter(fn, self._workers))

    def extend(self, other: Iterable[Worker]) -> WorkerSet:
        """These workers followed by those of `other`."""
        return WorkerSet((*self._workers, *other))

    def group_by_host(self) -> list[WorkerSet]:
        """One set per machine, in the order in which the machines first appear."""
        hosts = dict.fromkeys(worker.host for worker in self._workers)
        return [self.get_by_host(host) for host in hosts]

    def get_by_host(self, host: str) -> WorkerSet:
        """The workers on one machine."""
        return self.filter(lambda worker: worker.host == host)

    def has_cpu(self) -> WorkerSet:
        """The workers that compute on a CPU: empty, hence false, if there are none."""
        return self.filter(lambda worker: worker.resources.get("CPU", 0) > 0)

    def has_cuda(self) -> WorkerSet:
        """The workers that compute on a CUDA device: empty, hence false, if there are none."""
        return self.filter(lambda worker: worker.resources.get("CUDA", 0) > 0)

    def has_threaded_workers(self) -> bool:
        """Whether any worker runs several tasks at the same time."""
        return any(worker.nthreads > 1 for worker in self._workers)

    def hosts(self) -> set[str]:
        """Names of the machines."""
        return {worker.host for worker in self._workers}

    def names(self) -> list[str]:
        """Names of the workers."""
        return [worker.name for worker in self._workers]

    def concurrency(self) -> int:
        """Number of tasks that all workers together run at the same time."""
        return sum(worker.nthreads for worker in self._workers)

    def example(self) -> Worker:
        """Some worker of the set.

        Raises
        ------
        IndexError
            If the set is empty.
        """
        return self._workers[0]


class Scheduler:
    """Knows what the workers of an executor can do together."""

    def __init__(self, all_workers: WorkerSet) -> None:
        self._workers = all_workers

    def effective_worker_count(self) -> int:
        """Number of tasks of one run that can go on at the same time.

        A run computes on CPUs or on CUDA devices, so the larger group counts. Service workers do not
        count, except where no worker declares what it offers (a plain Dask cluster).
        """
        declared = max(self._workers.has_cpu().concurrency(), self._workers.has_cuda().concurrency())
        return declared or self._workers.concurrency()
