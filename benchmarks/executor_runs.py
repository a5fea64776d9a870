"""Use one executor in a process of its own: ``python -m benchmarks.executor_runs WHAT ARGUMENTS``.

Prints a JSON object per line: the name of a step before it begins, and its seconds afterwards. The parent
side is `benchmarks.executors`. WHAT is the name of an executor, or ``dask.array/SCHEDULER`` for the same work
without any library.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from benchmarks.workloads import PythonFrameUDF, TileUDF, disc, masks

__all__ = ["STEPS", "main"]

N_EMPTY, EMPTY_SIG = 1000, (4, 4)
N_SIG_SIZED = 1000

STEPS = {
    "start": "from nothing to the first result of a function",
    "empty": f"{N_EMPTY} partitions of one frame, NoOpUDF; per partition",
    "sum": "sum, raw",
    "masks4": "four masks, raw",
    "mib-sum": "sum, MIB",
    "mib-masks4": "four masks, MIB",
    "frame": "Python per frame, raw",
    "merge": f"{N_SIG_SIZED} partitions with one result in the shape of a frame each, sum",
    "user-merge": "the same with a UDF that merges in a way of its own",
}
"""What is measured, in this order."""


def _say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def _measure(step: str, run: Callable[[], Any], rounds: int, unit: float = 1.0) -> None:
    """Run once without looking at the time, then some more times."""
    _say(begin=step)
    run()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        seconds.append((time.perf_counter() - start) / unit)
    _say(step=step, seconds=seconds)


# --- this library and the reference ---


def _make_executor(name: str) -> Any:
    from libertem.api import Context

    if name == "default":
        return Context()
    if name == "inline":
        from libertem.executor.inline import InlineJobExecutor

        return Context(executor=InlineJobExecutor(inline_threads=1))
    if name == "pipelined":
        from libertem.executor.pipelined import PipelinedExecutor

        return Context(executor=PipelinedExecutor.make_local())
    return Context.make_with(name)


def _compute(results: Any) -> None:
    """Lazy results are computed here."""
    for result in results if isinstance(results, tuple) else [results]:
        for buffer in result.values():
            np.asarray(buffer.data)


def _run_library(name: str, files: dict[str, Any], rounds: int) -> None:
    _say(begin="start")
    start = time.perf_counter()
    context = _make_executor(name)
    context.executor.run_function(math.sqrt, 4.0)
    _say(step="start", seconds=[time.perf_counter() - start])

    # Not before: loading them would count for executors that need them anyway.
    from libertem.udf.base import NoOpUDF
    from libertem.udf.sum import SumUDF

    def load(key: str, **kwargs: Any) -> Any:
        arguments = {**files[key], **kwargs}
        return context.load(arguments.pop("filetype"), **arguments)

    def run(dataset: Any, make: Callable[[], Any]) -> Callable[[], None]:
        return lambda: _compute(context.run_udf(dataset=dataset, udf=make()))

    sig = tuple(files["raw"]["sig_shape"])
    four = partial(masks, 4, sig)
    empty, raw, mib = load("empty", num_partitions=N_EMPTY), load("raw"), load("mib")
    many = load("raw", num_partitions=N_SIG_SIZED)
    _measure("empty", run(empty, NoOpUDF), rounds, N_EMPTY)
    _measure("sum", run(raw, SumUDF), rounds)
    _measure("masks4", run(raw, four), rounds)
    _measure("mib-sum", run(mib, SumUDF), rounds)
    _measure("mib-masks4", run(mib, four), rounds)
    _measure("frame", run(raw, PythonFrameUDF), rounds)
    _measure("merge", run(many, SumUDF), rounds)
    _measure("user-merge", run(many, TileUDF), rounds)
    context.close()


# --- Dask alone ---


@contextmanager
def _scheduler(name: str) -> Iterator[None]:
    import dask

    with ExitStack() as stack:
        if name == "distributed":
            from distributed import Client, LocalCluster

            cluster: Any = LocalCluster
            made = stack.enter_context(cluster(threads_per_worker=1, dashboard_address=None))
            stack.enter_context(Client(made))
        else:
            stack.enter_context(dask.config.set(scheduler=name))
        yield


def _read(path: str, start: int, stop: int, sig: tuple[int, int]) -> Any:
    frames = np.memmap(path, dtype="<u2", mode="r", shape=(stop, *sig))
    return frames[start:stop]


def _as_array(path: str, n_frames: int, sig: tuple[int, int], n_parts: int) -> Any:
    """A Dask array whose chunks are mapped where they are processed."""
    import dask.array as da
    from dask.delayed import delayed

    borders = np.linspace(0, n_frames, n_parts + 1, dtype=int).tolist()
    read: Any = delayed(_read, pure=False)
    return da.concatenate(
        [
            da.from_delayed(read(path, start, stop, sig), shape=(stop - start, *sig), dtype="<u2")
            for start, stop in pairwise(borders)
        ]
    )


def _half_rows(frames: Any) -> Any:
    """What `PythonFrameUDF` computes."""
    found = np.zeros(len(frames), dtype=np.float32)
    for i, frame in enumerate(frames.astype(np.float32)):
        rows = [sum(row) for row in frame[:, ::8].tolist()]
        found[i] = next(n for n, reached in enumerate(accumulate(rows)) if reached >= sum(rows) / 2)
    return found


def _nothing(_: int) -> None:
    return None


def _run_dask(scheduler: str, files: dict[str, Any], rounds: int) -> None:
    import dask
    import dask.array as da

    raw = files["raw"]
    sig, n_frames = tuple(raw["sig_shape"]), math.prod(raw["nav_shape"])
    n_cores = int(dask.system.CPU_COUNT)
    _say(begin="start")
    start = time.perf_counter()
    with _scheduler(scheduler):
        call: Any = dask.delayed
        call(math.sqrt, pure=False)(4.0).compute()
        _say(step="start", seconds=[time.perf_counter() - start])
        tasks = [call(_nothing, pure=False)(i) for i in range(N_EMPTY)]
        _measure("empty", lambda: dask.compute(*tasks), rounds, N_EMPTY)
        frames = _as_array(raw["path"], n_frames, sig, n_cores)
        stack = np.stack([disc(sig, i, 4) for i in range(4)]).reshape((4, -1)).T
        _measure("sum", lambda: frames.sum(axis=0, dtype="float32").compute(), rounds)

        def products(part: Any) -> Any:
            return part.reshape((len(part), -1)).astype(np.float32) @ stack

        lazy = frames.map_blocks(products, dtype="float32", drop_axis=2, chunks=(frames.chunks[0], (4,)))
        _measure("masks4", lambda: lazy.compute(), rounds)
        rows = frames.map_blocks(_half_rows, dtype="float32", drop_axis=(1, 2))
        _measure("frame", lambda: rows.compute(), rounds)
        many = _as_array(raw["path"], n_frames, sig, N_SIG_SIZED)
        _measure("merge", lambda: many.sum(axis=0, dtype="float32").compute(), rounds)
        both = many.max(axis=0), many.sum(axis=(1, 2), dtype="float32")
        _measure("user-merge", lambda: da.compute(*both), rounds)


def main() -> None:
    """Run all steps."""
    what, arguments = sys.argv[1], json.loads(sys.argv[2])
    name, _, scheduler = what.partition("/")
    if name == "dask.array":
        _run_dask(scheduler, arguments["files"], arguments["rounds"])
    else:
        _run_library(name, arguments["files"], arguments["rounds"])


if __name__ == "__main__":
    main()
