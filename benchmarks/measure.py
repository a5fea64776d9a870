"""Measure cases: limit, library and reference in turn, round by round."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from benchmarks.cases import Case
from benchmarks.client import WorkerError
from benchmarks.decode_limit import DecodeLimit
from benchmarks.inputs import Prepared
from benchmarks.limit import CAN_DROP_CACHE, CopyLimit, DirectLimit, Limit, available_cores, drop_cache
from benchmarks.memory import PeakAnon
from benchmarks.rows import ALL_CORES, LIMIT, ONE_THREAD, REFERENCE, Row, part

__all__ = ["Measured", "Plan", "compare", "measure_case"]

# The reference sums in float32; of positions it keeps what float32 leaves after subtracting a large offset.
TOLERANCE = 1e-4
TOLERANCE_OF_WORKLOAD = {"com": 1e-3}

WITHOUT_BACKENDS = ("ser", "raw_csr", "hdf5")
EXECUTORS = {ONE_THREAD: "inline", ALL_CORES: "default", REFERENCE: "default"}


class Measured(Protocol):
    """A library that runs workloads, see `benchmarks.client.Worker`."""

    @property
    def pid(self) -> int: ...

    def open(
        self,
        executor: str,
        filetype: str,
        io_backend: str | None,
        arguments: dict[str, object],
        corrections: Path | None = None,
    ) -> float: ...

    def forget(self) -> None: ...

    def run(self, executor: str, workload: str, save: Path | None = None) -> float: ...


@dataclass(frozen=True)
class Plan:
    """How often things are measured."""

    rounds: int = 5
    """At least."""

    more_rounds: int = 3
    """As many times more rounds are made while a case has not taken `seconds` yet."""

    seconds: float = 5.0
    """See `more_rounds`."""


def measure_case(
    case: Case, prepared: Prepared, ours: Measured, reference: Measured | None, plan: Plan, scratch: Path
) -> Row:
    """Measure one case.

    Parameters
    ----------
    case, prepared
        What, and its files.
    ours, reference
        The processes of both libraries.
    plan : Plan
        How often.
    scratch : Path
        A folder for results that are compared.

    Returns
    -------
    Row
        With `failure` set if it could not be measured.
    """
    row = Row(case.name, unit=case.unit, checks=case.checks, nbytes=prepared.nbytes)
    libraries = {ONE_THREAD: ours, ALL_CORES: ours} | ({} if reference is None else {REFERENCE: reference})
    limit: Limit | None = None
    try:
        if case.cold and not CAN_DROP_CACHE:
            raise OSError("this system cannot drop a file from its cache")
        _warm_up(row, case, prepared, libraries, scratch)
        limit = _make_limit(case, prepared)
        _take_rounds(row, _samplers(row, case, prepared, libraries, limit), plan)
    except (WorkerError, OSError) as err:
        row.failure = str(err)
    finally:
        if limit is not None:
            limit.close()
        for library in set(libraries.values()):
            _forget(library)
    return row


def _make_limit(case: Case, prepared: Prepared) -> Limit | None:
    if case.unit != "GB/s":
        return None
    if case.cold:
        (path,) = prepared.paths
        return DirectLimit(path, available_cores())
    if prepared.source.kind == "compressed":
        return DecodeLimit(prepared.paths, available_cores())
    return CopyLimit(prepared.paths, available_cores())


def _forget(library: Measured) -> None:
    try:
        library.forget()
    except WorkerError:
        pass  # it has ended, which the row says already


def _warm_up(row: Row, case: Case, prepared: Prepared, libraries: dict[str, Measured], scratch: Path) -> None:
    """Open the files everywhere, run once with and once without a look at memory, and compare results."""
    for who in list(libraries):
        library, saved = libraries[who], scratch / f"{who}.npz"
        try:
            _open(library, who, case, prepared)
            library.run(EXECUTORS[who], case.workload, save=saved)
            if who != ONE_THREAD:
                with PeakAnon(library.pid) as peak:
                    library.run(EXECUTORS[who], case.workload)
                row.anon_bytes[who] = peak.nbytes
        except WorkerError as err:
            if who != REFERENCE:
                raise
            row.remarks.append(f"reference failed: {err}")
            row.reference_fails = True
            del libraries[who]
    for who in (ONE_THREAD, REFERENCE):
        if who in libraries:
            tolerance = TOLERANCE_OF_WORKLOAD.get(case.workload, TOLERANCE)
            differing = compare(scratch / f"{ALL_CORES}.npz", scratch / f"{who}.npz", tolerance)
            _note_differences(row, who, differing, prepared.source.reference_defect)


def _note_differences(row: Row, who: str, differing: list[str], defect: str | None) -> None:
    if differing and who == REFERENCE and defect is not None:
        row.remarks.append(f"reference is wrong: {defect}")
        row.reference_fails = True
    else:
        row.disagreements += [f"{name} ({who})" for name in differing]


def _samplers(
    row: Row, case: Case, prepared: Prepared, libraries: dict[str, Measured], limit: Limit | None
) -> dict[str, Callable[[], float]]:
    """What takes a sample, in the order of a round."""

    def runs(who: str, workload: str) -> Callable[[], float]:
        def sample() -> float:
            if case.cold:
                # Pages that are mapped somewhere would stay in the cache.
                for library in libraries.values():
                    library.forget()
                for path in prepared.paths:
                    drop_cache(path)
                _open(libraries[who], who, case, prepared)
            return libraries[who].run(EXECUTORS[who], workload)

        return sample

    samplers: dict[str, Callable[[], float]] = {}
    if limit is not None:
        # Headers and footers are read as well; the samples are those of as many bytes as the pixels have.
        scale = row.nbytes / limit.nbytes
        measure = limit.measure
        samplers[LIMIT] = lambda: measure() * scale
    for who in libraries:
        samplers[who] = runs(who, case.workload)
    for workload in case.parts:
        samplers[part(workload)] = runs(ALL_CORES, workload)
    return samplers


def _open(library: Measured, who: str, case: Case, prepared: Prepared) -> None:
    # Memory mapping is the default where it is the best, and there are formats that refuse a backend.
    filetype = prepared.source.filetype
    maps_by_default = sys.platform != "win32" or filetype in WITHOUT_BACKENDS
    io_backend = None if case.reading == "mmap" and maps_by_default else case.reading
    library.open(EXECUTORS[who], filetype, io_backend, prepared.arguments, prepared.corrections)


def _take_rounds(row: Row, samplers: dict[str, Callable[[], float]], plan: Plan) -> None:
    # The limit and the parts have not been warmed up by anyone yet.
    for who, sample in samplers.items():
        if who not in EXECUTORS:
            sample()
    start = time.perf_counter()
    for number in range(plan.rounds * (1 + plan.more_rounds)):
        if number >= plan.rounds and time.perf_counter() - start > plan.seconds:
            break
        for who, sample in samplers.items():
            row.seconds.setdefault(who, []).append(sample())


def compare(path: Path, other: Path, tolerance: float) -> list[str]:
    """Names of the results in two ``.npz`` files that differ, or that only one of them has.

    Parameters
    ----------
    path, other : Path
        Written by workers.
    tolerance : float
        Relative to a value, or to the largest one of its array.
    """
    with np.load(path) as ours, np.load(other) as theirs:
        differing = sorted(set(ours) ^ set(theirs))
        for name in sorted(set(ours) & set(theirs)):
            mine, yours = ours[name], theirs[name]
            scale = np.nanmax(np.abs(yours), initial=0.0)
            if mine.shape != yours.shape or not np.allclose(
                mine, yours, rtol=tolerance, atol=tolerance * scale, equal_nan=True
            ):
                differing.append(name)
    return differing
