"""How runs on a cluster scale: ``python -m benchmarks.scaling`` measures costs, fits a model, and checks it.

The costs of messages and of results are measured with a real Dask scheduler in a process of its own, and with
threads that sleep instead of computing, so that a small machine can play a large cluster. What a worker
computes is measured with real data. The model then says what limits a run: see ``docs/scaling.md``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from libertem.api import Context
from libertem.common.taskcomm import NoopCommHandler
from libertem.executor.dask import DaskJobExecutor, run
from libertem.executor.inline import InlineJobExecutor
from libertem.udf.groups import FEW_SHARES, MAX_RESULT_BYTES, SHARES
from libertem.udf.noop import NoOpUDF
from libertem.udf.sum import SumUDF

__all__ = ["Costs", "Job", "Plan", "predict"]

MB, GB, TB = 1e6, 1e9, 1e12
PARTITION_BYTES = 256 * 2**20
"""Of uint16: 512 MiB as float32, what the library aims at."""
MEASURED_WORKERS = 64
"""So many messages are on their way that Dask sends several at once, as on a large cluster."""


# --- the model ---


@dataclass(frozen=True)
class Costs:
    """What things cost. Seconds and bytes; the last two are assumed, all others measured."""

    start: float = 0.0
    """Of a run: planning, sending parameters, the first message."""
    message_scheduler: float = 0.0
    """CPU time of the scheduler per message, that is, per batch of tasks."""
    message_client: float = 0.0
    """CPU time of the main process per message."""
    task_client: float = 0.0
    """CPU time of the main process per task beyond that: pickling, merging nothing."""
    task_worker: float = 0.0
    """Time of a worker per task beyond what its data needs."""
    byte_scheduler: float = 0.0
    """CPU time of the scheduler per byte of a result, which passes through it."""
    byte_client: float = 0.0
    """CPU time of the main process per byte of a result, receiving and merging."""
    worker_rate: float = 5 * GB
    """Bytes of a file per second that one worker processes, if they are in memory."""
    storage_rate: float = math.inf
    """Bytes per second that all workers together read."""
    link_rate: float = 1.25 * GB
    """Bytes per second that reach scheduler and main process: 10 Gbit/s."""


@dataclass(frozen=True)
class Job:
    """A run."""

    n_bytes: float
    """Size of the data set."""
    n_workers: int
    """Workers with one thread each."""
    result_bytes: float = 256 * 256 * 4
    """Size of the result of each partition."""
    merged_on_workers: bool = True
    """Whether ready-made UDFs only are run, so that results are merged where they are made."""
    partition_bytes: float = PARTITION_BYTES
    """At most."""


@dataclass(frozen=True)
class Plan:
    """What the model says about a job."""

    n_partitions: int
    n_messages: int
    n_results: int
    parts: dict[str, float]
    """Seconds that each resource is busy."""
    seconds: float
    """Of the whole run."""

    @property
    def limit(self) -> str:
        """The resource that is busy the longest."""
        return max(self.parts, key=lambda name: self.parts[name])


def n_partitions(job: Job) -> int:
    """As many as the library makes: a multiple of the number of workers."""
    n = int(job.n_bytes // job.partition_bytes)
    w = job.n_workers
    return w * max(1, n // w + min(1, n % w))


def count_batches(n_tasks: int, n_workers: int, largest: float) -> int:
    """How many messages tasks need that go in batches: single ones first and last."""
    n_first = min(n_tasks, run.TASKS_PER_THREAD * n_workers)
    waiting, count = n_tasks - n_first, n_first
    while waiting > 0:
        waiting -= max(1, int(min(largest, waiting / (run.BATCHES_LEFT * n_workers))))
        count += 1
    return count


def predict(job: Job, costs: Costs) -> Plan:
    """How long a job takes: the resources work at the same time, the busiest one decides.

    At the end, workers wait for the last one, for the time of half a message on average, and what it sends is
    received.
    """
    parts = n_partitions(job)
    w = job.n_workers
    seconds_per_task = job.n_bytes / parts / costs.worker_rate + costs.task_worker
    if job.merged_on_workers:
        is_large = job.result_bytes * w * len(SHARES) > MAX_RESULT_BYTES
        n_messages = min(parts, len(FEW_SHARES if is_large else SHARES) * w)
        n_results = n_messages
    else:
        largest = min(run.BATCH_SECONDS / seconds_per_task, run.MAX_BATCH_BYTES / max(1, job.result_bytes))
        n_messages = count_batches(parts, w, largest)
        n_results = parts
    sent = n_results * job.result_bytes
    busy = {
        "workers": parts * seconds_per_task / w,
        "storage": job.n_bytes / costs.storage_rate,
        "scheduler": n_messages * costs.message_scheduler + sent * costs.byte_scheduler,
        "main process": n_messages * costs.message_client
        + parts * costs.task_client
        + sent * costs.byte_client,
        "network": sent / costs.link_rate,
    }
    per_worker = parts / w
    uneven = (math.ceil(per_worker) / per_worker - 1) * busy["workers"]
    last = job.result_bytes * (costs.byte_scheduler + costs.byte_client)
    seconds = costs.start + max(*busy.values()) + uneven + last
    return Plan(parts, n_messages, n_results, busy, seconds)


# --- a cluster that sleeps ---


class _Part:
    """Stands for a partition."""

    def __init__(self, idx: int) -> None:
        self._idx = idx

    def get_ident(self) -> str:
        return f"part-{self._idx}"


@dataclass
class SleepTask:
    """Takes its time, and returns a result of some size."""

    idx: int
    seconds: float
    n_bytes: int

    def get_partition(self) -> _Part:
        return _Part(self.idx)

    def get_resources(self) -> dict[str, int]:
        return {}

    def __call__(self, params: Any, env: Any) -> Any:
        time.sleep(self.seconds)
        return _Result([{"result": np.ones(self.n_bytes // 4, dtype=np.float32)}])


@dataclass
class _Result:
    arrays: list[dict[str, Any]]


class Cluster:
    """A scheduler in a process of its own, and worker processes with many threads, through the executor.

    Parameters
    ----------
    n_workers : int
        Threads, each of which plays a worker.
    threads_per_process : int
        Share a process.
    """

    def __init__(self, n_workers: int, threads_per_process: int = 32) -> None:
        self._stack = ExitStack()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        file = folder / "scheduler.json"
        dask = [sys.executable, "-m", "distributed.cli"]
        options = ["--scheduler-file", str(file)]
        try:
            self._scheduler = self._launch(
                [*dask[:2], "distributed.cli.dask_scheduler", *options, "--port", "0", "--no-dashboard"]
            )
            while not file.exists():
                time.sleep(0.05)
            n_processes = math.ceil(n_workers / threads_per_process)
            for i in range(n_processes):
                n = (n_workers - i + n_processes - 1) // n_processes
                self._launch(
                    [
                        *[*dask[:2], "distributed.cli.dask_worker", *options, "--no-dashboard", "--no-nanny"],
                        *["--nthreads", str(n), "--local-directory", str(folder), "--memory-limit", "0"],
                    ]
                )
            address = json.loads(file.read_text())["address"]
            self.executor: Any = self._stack.enter_context(DaskJobExecutor.connect(address))
            self.executor.client.wait_for_workers(n_processes, timeout=120)
        except BaseException:
            self._stack.close()
            raise

    def _launch(self, command: Sequence[str]) -> psutil.Popen:
        process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._stack.callback(process.wait)
        self._stack.callback(process.terminate)
        return process

    def run(self, n_tasks: int, seconds: float, n_bytes: int) -> dict[str, float]:
        """Run tasks and merge their results; returns wall and CPU seconds."""
        tasks = [SleepTask(i, seconds, n_bytes) for i in range(n_tasks)]
        total = np.zeros(n_bytes // 4, dtype=np.float32)
        messages = self._count_messages()
        with self.executor.scatter({}) as handle, messages as count:
            before = self._cpu()
            begin = time.perf_counter()
            handler: Any = NoopCommHandler()
            for result, _ in self.executor.run_tasks(tasks, handle, "scaling", handler):
                total += result.arrays[0]["result"]
            wall = time.perf_counter() - begin
            after = self._cpu()
        return {
            "wall": wall,
            "client": after["client"] - before["client"],
            "scheduler": after["scheduler"] - before["scheduler"],
            "messages": count[0],
        }

    @contextmanager
    def _count_messages(self) -> Iterator[list[float]]:
        client: Any = self.executor.client
        submit, count = client.submit, [0.0]

        def counted(*args: Any, **kwargs: Any) -> Any:
            count[0] += 1
            return submit(*args, **kwargs)

        client.submit = counted
        try:
            yield count
        finally:
            client.submit = submit

    def _cpu(self) -> dict[str, float]:
        return {
            "client": time.process_time(),
            "scheduler": sum(self._scheduler.cpu_times()[:2]),
        }

    def close(self) -> None:
        """End all processes."""
        self._stack.close()


@contextmanager
def batches_of(seconds: float, left: float = run.BATCHES_LEFT) -> Iterator[None]:
    """How long batches of tasks may take, 0 for each task alone; and how many must be left per worker."""
    usual = run.BATCH_SECONDS, run.BATCHES_LEFT
    run.BATCH_SECONDS, run.BATCHES_LEFT = seconds, left  # type: ignore[assignment]
    try:
        yield
    finally:
        run.BATCH_SECONDS, run.BATCHES_LEFT = usual


# --- measuring ---


@dataclass
class Measurements:
    """What was measured: wall time, and CPU time of main process (``client``) and scheduler."""

    message: dict[str, float] = field(default_factory=dict)
    """Per message."""
    task: dict[str, float] = field(default_factory=dict)
    """Per task beyond that."""
    byte: dict[str, float] = field(default_factory=dict)
    """Per byte of results."""
    start: float = 0.0
    """Of a run of one task."""


def _least(samples: Sequence[dict[str, float]]) -> dict[str, float]:
    """The least of each figure: what else a machine does adds to it, and never takes away."""
    return {key: min(sample[key] for sample in samples) for key in samples[0]}


def measure_cluster(cluster: Cluster, rounds: int, n_tasks: int = 1000) -> Measurements:
    """Costs of messages, tasks and bytes."""

    def least(*args: Any) -> dict[str, float]:
        return _least([cluster.run(*args) for _ in range(rounds)])

    found = Measurements()
    cluster.run(50, 0.0, 4)
    found.start = least(1, 0.0, 4)["wall"]
    n, n_bytes = 200, 1 << 20
    with batches_of(0.0):
        single = least(n_tasks, 0.0, 4)
        small, large = least(n, 0.0, 4), least(n, 0.0, n_bytes)
    with batches_of(1.0, left=0.2):
        batched = least(4 * n_tasks, 0.0, 4)
    for key in ("wall", "client", "scheduler"):
        # Cost = messages * m + tasks * t, for two ratios of messages to tasks.
        one, many = single[key] / n_tasks, batched[key] / (4 * n_tasks)
        found.message[key] = max(0.0, (one - many) / (1 - batched["messages"] / (4 * n_tasks)))
        found.task[key] = max(0.0, one - found.message[key])
        found.byte[key] = max(0.0, large[key] - small[key]) / (n * n_bytes)
    return found


def measure_worker(rounds: int, n_bytes: int = 1 << 28) -> dict[str, float]:
    """Speed of one worker over data in memory, and what a partition costs in addition."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Context(executor=InlineJobExecutor(inline_threads=1)) as ctx,
    ):
        path = Path(folder) / "frames.raw"
        shape = (n_bytes // (256 * 256 * 2), 256, 256)
        np.ones(shape, dtype=np.uint16).tofile(path)

        def cpu(udf: Any, parts: int) -> float:
            arguments = {"dtype": "u2", "nav_shape": shape[:1], "sig_shape": shape[1:]}
            dataset = ctx.load("raw", path=str(path), num_partitions=parts, **arguments)
            samples = []
            for _ in range(rounds + 1):
                begin = time.process_time()
                ctx.run_udf(dataset=dataset, udf=udf)
                samples.append(time.process_time() - begin)
            return min(samples)

        many = 500
        per_task = (cpu(NoOpUDF(), many) - cpu(NoOpUDF(), 1)) / many
        return {"rate": n_bytes / cpu(SumUDF(), 1), "per_task": per_task}


def fit(found: Measurements, worker: dict[str, float]) -> Costs:
    """The costs behind the measurements, on a cluster whose scheduler has a core of its own."""
    return Costs(
        start=found.start,
        message_scheduler=found.message["scheduler"],
        message_client=found.message["client"],
        task_client=found.task["client"],
        task_worker=worker["per_task"],
        byte_scheduler=found.byte["scheduler"],
        byte_client=found.byte["client"],
        worker_rate=worker["rate"],
    )


def fit_here(found: Measurements) -> Costs:
    """The same on this machine, where scheduler, main process and workers take turns: time that passes."""
    return Costs(
        start=found.start,
        message_client=found.message["wall"],
        task_client=found.task["wall"],
        byte_client=found.byte["wall"],
        worker_rate=GB,
        link_rate=math.inf,
    )


# --- checking ---


JOBS = (
    # Seconds per task, tasks per worker, bytes of a result, whether tasks go in batches.
    (1.0, 4, 4, False),
    (0.02, 20, 4, False),
    (0.02, 20, 4, True),
    (0.25, 4, 1 << 20, False),
)
"""What is simulated."""


def simulate(n_workers: int, n_tasks: int) -> Iterator[tuple[float, int, int, bool, Plan, float]]:
    """Let a cluster sleep for the time that workers would compute.

    Costs are measured on the same cluster just before, with `n_tasks` tasks: what else the machine does
    changes from minute to minute. Yields the job, what the model predicts, and the seconds that have passed.
    """
    with closing(Cluster(n_workers)) as cluster:
        costs = fit_here(measure_cluster(cluster, 1, n_tasks))
        for seconds, per_worker, result_bytes, batch in JOBS:
            parts = n_workers * per_worker
            n_bytes = parts * seconds * costs.worker_rate
            job = Job(
                n_bytes, n_workers, result_bytes, merged_on_workers=False, partition_bytes=n_bytes / parts
            )
            with batches_of(run.BATCH_SECONDS if batch else 0.0):
                plan = predict(job, costs)
                wall = cluster.run(parts, seconds, result_bytes)["wall"]
            yield seconds, parts, result_bytes, batch, plan, wall


# --- showing ---

SIZES = (10 * GB, 100 * GB, TB, 10 * TB, 100 * TB)
WORKERS = (1, 16, 128, 1000)


def table(costs: Costs, **job: Any) -> str:
    """Times and limits of all sizes and numbers of workers."""
    lines = [f"| data | {' | '.join(f'{w} workers' for w in WORKERS)} |", f"|---|{'---|' * len(WORKERS)}"]
    for n_bytes in SIZES:
        plans = [predict(Job(n_bytes, w, **job), costs) for w in WORKERS]
        cells = [f"{_duration(plan.seconds)}, {plan.limit}" for plan in plans]
        size = f"{n_bytes / TB:.0f} TB" if n_bytes >= TB else f"{n_bytes / GB:.0f} GB"
        lines.append(f"| {size} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h"


SCENARIOS: dict[str, tuple[dict[str, float], dict[str, Any]]] = {
    "ready-made UDF, files in memory": ({}, {}),
    "ready-made UDF, storage of 10 GB/s": ({"storage_rate": 10 * GB}, {}),
    "ready-made UDF, frames of 4096 x 4096": ({}, {"result_bytes": 4096 * 4096 * 4}),
    "own merge, frames of 256 x 256": ({}, {"merged_on_workers": False}),
    "own merge, frames of 4096 x 4096": ({}, {"merged_on_workers": False, "result_bytes": 4096 * 4096 * 4}),
    "Python per frame (0.5 GB/s per worker)": ({"worker_rate": 0.5 * GB}, {}),
}


def report(costs: Costs) -> str:
    """What the model says."""
    sections = []
    for title, (other, job) in SCENARIOS.items():
        sections.append(f"### {title}\n\n{table(replace(costs, **other), **job)}")
    return "\n\n".join(sections)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, fit, check and show."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--simulate", type=int, nargs="*", default=[16, 64, 128], metavar="WORKERS")
    parser.add_argument("--costs", type=Path, help="use costs from this file instead of measuring them")
    parser.add_argument("--out", type=Path, help="write the costs to this file")
    options = parser.parse_args(argv)
    if options.costs is not None:
        costs = Costs(**json.loads(options.costs.read_text()))
    else:
        with closing(Cluster(MEASURED_WORKERS)) as cluster:
            found = measure_cluster(cluster, options.rounds)
        costs = fit(found, measure_worker(options.rounds))
        print(json.dumps(asdict(found)), f"load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    if options.out is not None:
        options.out.write_text(json.dumps(asdict(costs), indent=1))
    print("\n".join(f"{name}: {value:.3g}" for name, value in asdict(costs).items()))
    print("\n| workers | partitions | of seconds | result | batches | predicted | simulated |")
    print("|--:|--:|--:|--:|---|--:|--:|")
    for n_workers in options.simulate:
        for seconds, parts, result_bytes, batch, plan, wall in simulate(n_workers, 300):
            print(
                f"| {n_workers} | {parts} | {seconds} | {result_bytes} | {'yes' if batch else 'no'} "
                f"| {plan.seconds:.2f} s ({plan.limit}) | {wall:.2f} s |",
                flush=True,
            )
    print(f"\n{report(costs)}")


if __name__ == "__main__":
    main()
