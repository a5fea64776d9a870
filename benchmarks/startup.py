"""Times to a first result: fresh processes, from the start of the interpreter."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cases import matches
from benchmarks.client import ROOT, environment
from benchmarks.inputs import Prepared
from benchmarks.rows import ALL_CORES, REFERENCE, Check, Row
from benchmarks.targets import at_most_seconds

__all__ = ["StartupCase", "measure_startup", "startup_cases"]

STEPS = ("import", "context", "result")
TIME_LIMIT = 300.0


@dataclass(frozen=True)
class StartupCase:
    """How long until something has happened."""

    name: str
    """As shown."""

    workload: str
    """What is computed."""

    empty_cache: bool
    """Whether kernels have to be compiled first."""

    seconds_of: str
    """Name of the step; ``'context'`` counts from the step before it, others from the interpreter's start."""

    check: Check
    """Target."""


def _cases() -> Iterator[StartupCase]:
    yield StartupCase("startup/import", "sum", False, "import", at_most_seconds(0.3, "0.3 s"))
    yield StartupCase("startup/context", "sum", False, "context", at_most_seconds(0.05, "0.05 s"))
    for workload in ("sum", "com"):
        name = f"startup/first-result/{workload}"
        yield StartupCase(name, workload, False, "result", at_most_seconds(1, "1 s"))
    for workload in ("sum", "com"):
        name = f"startup/first-ever-result/{workload}"
        yield StartupCase(name, workload, True, "result", at_most_seconds(4, "4 s"))


def startup_cases(patterns: list[str]) -> list[StartupCase]:
    """Cases that match a pattern, all if there is none."""
    return [case for case in _cases() if not patterns or matches(case.name, patterns)]


def measure_startup(
    cases: list[StartupCase], prepared: Prepared, interpreters: dict[str, str], rounds: int
) -> Iterator[Row]:
    """Measure start-up; processes that are alike are shared between cases.

    Parameters
    ----------
    cases : list of StartupCase
        What.
    prepared : Prepared
        The file that the first result comes from.
    interpreters : dict
        Path of the interpreter, by who is measured.
    rounds : int
        How often.
    """
    for workload, empty_cache in dict.fromkeys((case.workload, case.empty_cache) for case in cases):
        group = [case for case in cases if (case.workload, case.empty_cache) == (workload, empty_cache)]
        rows = [Row(case.name, unit="s", checks=(case.check,)) for case in group]
        with tempfile.TemporaryDirectory() as kernels:
            launcher = _Launcher(workload, prepared, interpreters, None if empty_cache else Path(kernels))
            _fill(rows, group, launcher, rounds, warm_up=not empty_cache)
        yield from rows


def _fill(
    rows: list[Row], group: list[StartupCase], launcher: _Launcher, rounds: int, *, warm_up: bool
) -> None:
    able = list(launcher.interpreters)
    for number in range(-1 if warm_up else 0, rounds):
        for who in able.copy():
            try:
                times = launcher.launch(who)
            except RuntimeError as err:
                able.remove(who)
                _fail(rows, who, str(err))
                continue
            if number >= 0:
                for row, case in zip(rows, group, strict=True):
                    row.seconds.setdefault(who, []).append(times[case.seconds_of])


def _fail(rows: list[Row], who: str, problem: str) -> None:
    for row in rows:
        if who == REFERENCE:
            row.remarks.append(f"reference failed: {problem}")
        else:
            row.failure = problem


class _Launcher:
    """Starts processes that compute a first result.

    Parameters
    ----------
    workload : str
        What they compute.
    prepared : Prepared
        From what.
    interpreters : dict
        By who is measured.
    kernels : Path, optional
        Folder for compiled kernels, an empty one for each process by default.
    """

    def __init__(
        self, workload: str, prepared: Prepared, interpreters: dict[str, str], kernels: Path | None
    ) -> None:
        self._arguments = json.dumps({"filetype": prepared.source.filetype, **prepared.arguments})
        self._workload = workload
        self.interpreters = interpreters
        self._kernels = kernels

    def launch(self, who: str) -> dict[str, float]:
        """Seconds of each step."""
        if self._kernels is not None:
            return self._launch(who, self._kernels / who)
        with tempfile.TemporaryDirectory() as kernels:
            return self._launch(who, Path(kernels))

    def _launch(self, who: str, kernels: Path) -> dict[str, float]:
        command = [self.interpreters[who], "-m", "benchmarks.first_result", self._workload, self._arguments]
        variables = environment(foreign=who != ALL_CORES, NUMBA_CACHE_DIR=str(kernels))
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=variables,
            cwd=ROOT,
            text=True,
        )
        guard = threading.Timer(TIME_LIMIT, process.kill)
        guard.start()
        assert process.stdout is not None
        moments = {line.strip(): time.perf_counter() - start for line in process.stdout}
        process.wait()
        guard.cancel()
        missing = [step for step in STEPS if step not in moments]
        if missing:
            raise RuntimeError(f"the process ended before {missing[0]!r} was done")
        return {**moments, "context": moments["context"] - moments["import"]}
