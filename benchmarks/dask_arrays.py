"""Dask arrays in and out against plain Dask: ``python -m benchmarks.dask_arrays``.

All run in the threads of one process, each round one after the other. Chunks are those of a user: 64 MiB
for the array that goes in, about one per partition for the one that comes out.
Run it with another interpreter to measure another library: it uses nothing but the documented API.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np

import libertem
from libertem.api import Context
from libertem.contrib.daskadapter import make_dask_array
from libertem.udf.sum import SumUDF

__all__ = ["main", "measure"]

SIG_SHAPE = (256, 256)
COLUMNS = 64
ROW_BYTES = COLUMNS * SIG_SHAPE[0] * SIG_SHAPE[1] * 2
ROWS_PER_CHUNK = 8  # 64 MiB
PLAIN = "dask.array.sum over a memory map"


def _write(path: Path, rows: int) -> None:
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for _ in range(rows):
            file.write(rng.integers(0, 1000, (COLUMNS, *SIG_SHAPE)).astype("<u2").tobytes())


def measure(path: Path, rows: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each round, by what was measured.

    Raises
    ------
    AssertionError
        If results differ.
    """
    shape: Any = (rows, COLUMNS, *SIG_SHAPE)
    mapped = np.memmap(path, dtype="<u2", mode="r", shape=shape)
    array: Any = da.from_array(mapped, chunks=(min(rows, ROWS_PER_CHUNK), -1, -1, -1))
    with Context() as ctx:
        lazy = ctx.load("dask", dask_array=array, sig_dims=2, min_size=0)
        raw = ctx.load("raw", path=str(path), dtype="<u2", nav_shape=shape[:2], sig_shape=SIG_SHAPE)
        out = make_dask_array(raw, dtype="uint16")[0]
        ways: dict[str, Callable[[], Any]] = {
            PLAIN: lambda: array.sum(axis=(0, 1)).compute(scheduler="threads"),
            "in: SumUDF over a DaskDataSet": lambda: ctx.run_udf(lazy, SumUDF())["intensity"].data,
            "out: make_dask_array(...).sum": lambda: out.sum(axis=(0, 1)).compute(scheduler="threads"),
        }
        expected = ways[PLAIN]()
        for way in ways.values():
            np.testing.assert_allclose(way(), expected, rtol=1e-5)
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                start = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - start)
    return seconds


def main(argv: list[str] | None = None) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dask_arrays", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=float, default=1.0, metavar="GIB")
    arguments = parser.parse_args(argv)
    rows = max(1, round(arguments.size * (1 << 30) / ROW_BYTES))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan.raw"
        _write(path, rows)
        seconds = measure(path, rows, arguments.rounds)
    print(f"libertem {libertem.__version__}\n\n| way | median | times plain Dask |\n|---|--:|--:|")
    plain = statistics.median(seconds[PLAIN])
    for name, samples in seconds.items():
        median = statistics.median(samples)
        print(f"| {name} | {rows * ROW_BYTES / median / 1e9:.2f} GB/s | {plain / median:.2f} |")


if __name__ == "__main__":
    main()
