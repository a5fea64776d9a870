"""Executors compared: start, cost of a task, throughput, merging and memory of each."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.client import ROOT, environment
from benchmarks.executor_runs import EMPTY_SIG, N_EMPTY, STEPS
from benchmarks.inputs import INPUTS, Prepared, prepare
from benchmarks.memory import anon_bytes, family_of
from benchmarks.rows import REFERENCE

__all__ = ["EXECUTORS", "NBYTES", "OURS", "Measured", "as_table", "compare_executors", "measure_executors"]

OURS, DASK = "ours", "dask.array"
NBYTES = 256 << 20
"""Of each input."""

EXECUTORS = {
    OURS: ("default", "inline", "threads", "dask", "pipelined", "delayed"),
    REFERENCE: ("default", "inline", "threads", "pipelined", "delayed"),
    DASK: ("threads", "distributed"),
}
"""What is measured of each library. ``dask.array`` does the same work without one."""

THROUGHPUT = ("sum", "masks4", "mib-sum", "mib-masks4", "frame")
TIME_LIMIT = 600.0
INTERVAL = 0.01


@dataclass
class Measured:
    """What one executor needs."""

    library: str
    """`OURS`, `REFERENCE` or `DASK`."""
    executor: str
    """Its name there."""
    seconds: dict[str, list[float]] = field(default_factory=dict)
    """Samples of each step."""
    main_bytes: dict[str, int] = field(default_factory=dict)
    """Peak of anonymous memory of the main process during each step."""
    worker_bytes: dict[str, int] = field(default_factory=dict)
    """The same of all its child processes together."""
    failure: str | None = None
    """Why something is missing."""


class _Watch:
    """Samples the memory of a process and its children, from a thread of this one."""

    def __init__(self, pid: int, measured: Measured) -> None:
        self._pid = pid
        self._measured = measured
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.step: str | None = None

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL):
            step = self.step
            if step is None:
                continue
            family: Sequence[psutil.Process] = family_of(self._pid)
            sizes = [anon_bytes(process) for process in family]
            for peaks, n in (
                (self._measured.main_bytes, sum(sizes[:1])),
                (self._measured.worker_bytes, sum(sizes[1:])),
            ):
                peaks[step] = max(peaks.get(step, 0), n)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()


def prepare_files(folder: Path, nbytes: int = NBYTES) -> dict[str, Any]:
    """Write the inputs; returns arguments of `Context.load` by name."""

    def describe(prepared: Prepared) -> dict[str, Any]:
        return {"filetype": prepared.source.filetype, **prepared.arguments}

    empty = folder / "empty.raw"
    folder.mkdir(parents=True, exist_ok=True)
    np.zeros((N_EMPTY, *EMPTY_SIG), dtype="<u2").tofile(empty)
    return {
        "raw": describe(prepare(INPUTS["u16-256"], nbytes, folder)),
        "mib": describe(prepare(INPUTS["mib-u16"], nbytes, folder)),
        "empty": {
            "filetype": "raw",
            "path": str(empty),
            "dtype": "<u2",
            "nav_shape": (N_EMPTY,),
            "sig_shape": EMPTY_SIG,
        },
    }


def measure_executors(
    files: Mapping[str, Any], interpreters: Mapping[str, str], rounds: int, names: Sequence[str] = ()
) -> Iterator[Measured]:
    """Measure each executor in a process of its own.

    Parameters
    ----------
    files : dict
        From `prepare_files`.
    interpreters : dict
        Path of the interpreter, by library.
    rounds : int
        How often each step is measured.
    names : sequence of str
        Only these executors, as ``library/executor``; all by default.
    """
    for library, executors in EXECUTORS.items():
        python = interpreters.get(OURS if library == DASK else library)
        for executor in executors:
            if python is not None and (not names or f"{library}/{executor}" in names):
                yield _measure(library, executor, python, files, rounds)


def _measure(library: str, executor: str, python: str, files: Mapping[str, Any], rounds: int) -> Measured:
    measured = Measured(library, executor)
    what = f"{DASK}/{executor}" if library == DASK else executor
    process = subprocess.Popen(
        [python, "-m", "benchmarks.executor_runs", what, json.dumps({"files": files, "rounds": rounds})],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(foreign=library == REFERENCE),
        cwd=ROOT,
        text=True,
    )
    complaints: list[str] = []
    assert process.stdout is not None
    assert process.stderr is not None
    errors = process.stderr
    # Read all the time: the process would wait if its pipe were full.
    listener = threading.Thread(target=lambda: complaints.extend(errors), daemon=True)
    listener.start()
    guard = threading.Timer(TIME_LIMIT, process.kill)
    guard.start()
    try:
        with _Watch(process.pid, measured) as watch:
            for line in process.stdout:
                if not line.startswith("{"):
                    continue
                news = json.loads(line)
                watch.step = news.get("begin")
                if "step" in news:
                    measured.seconds[news["step"]] = news["seconds"]
        process.wait()
    finally:
        guard.cancel()
        listener.join(timeout=5)
        process.stdout.close()
    if process.returncode:
        said = [line.strip() for line in complaints if line.strip()]
        measured.failure = said[-1] if said else f"exit code {process.returncode}"
    return measured


def as_table(rows: Sequence[Measured], environment: Mapping[str, str], raw_bytes: int) -> str:
    """All figures as a table in Markdown: one line per executor."""
    columns = ["executor", *STEPS, "peak memory of main process + workers: merge", "user-merge"]
    lines = [", ".join(f"{name} {value}" for name, value in environment.items()), ""]
    lines += [f"| {' | '.join(columns)} |", f"|---|{'--:|' * (len(columns) - 1)}"]
    for row in rows:
        cells = [f"{row.library}: {row.executor}", *(_cell(row, step, raw_bytes) for step in STEPS)]
        cells += [_memory(row, step) for step in ("merge", "user-merge")]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"* `{step}`: {text}." for step, text in STEPS.items())]
    lines += [f"* {row.library}: {row.executor} failed: {row.failure}" for row in rows if row.failure]
    lines += ["* Medians. Throughput is bytes of pixels per second. Memory is anonymous and resident.", ""]
    return "\n".join(lines)


def _cell(row: Measured, step: str, raw_bytes: int) -> str:
    samples = row.seconds.get(step)
    if not samples:
        return "-"
    median = statistics.median(samples)
    if step in THROUGHPUT:
        return f"{raw_bytes / median / 1e9:.2f} GB/s"
    return f"{median * 1e3:.3g} ms"


def _memory(row: Measured, step: str) -> str:
    if step not in row.main_bytes:
        return "-"
    return f"{row.main_bytes[step] / 1e6:.0f} + {row.worker_bytes[step] / 1e6:.0f} MB"


def compare_executors(
    folder: Path, interpreters: Mapping[str, str], rounds: int, facts: Mapping[str, str], nbytes: int = NBYTES
) -> tuple[str, list[Measured]]:
    """Measure everything.

    Parameters
    ----------
    folder : Path
        For the inputs.
    interpreters : dict
        Path of the interpreter, by library.
    rounds : int
        How often each step is measured.
    facts : dict
        What to say about machine and software.
    nbytes : int
        Size of each input.

    Returns
    -------
    str, list of Measured
        The table, and the figures behind it.
    """
    files = prepare_files(folder, nbytes)
    raw_bytes = 2 * math.prod((*files["raw"]["nav_shape"], *files["raw"]["sig_shape"]))
    rows = []
    for row in measure_executors(files, interpreters, rounds):
        print(f"{row.library}/{row.executor}", file=sys.stderr, flush=True)
        rows.append(row)
    return as_table(rows, facts, raw_bytes), rows
