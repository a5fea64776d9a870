"""Times of loading data sets of many files, and of passing over them again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.cases import matches
from benchmarks.client import WorkerError
from benchmarks.inputs import INPUTS, Input, Prepared
from benchmarks.measure import EXECUTORS, TOLERANCE, Measured, compare
from benchmarks.rows import ALL_CORES, REFERENCE, Row
from benchmarks.targets import takes_seconds

__all__ = ["OpeningCase", "measure_opening", "opening_cases"]

Step = Literal["load", "second-pass"]
STEPS: tuple[Step, ...] = ("load", "second-pass")
WORKLOAD = "sum"


@dataclass(frozen=True)
class OpeningCase:
    """How long something takes that depends on the number of files."""

    source: Input
    """The files."""

    step: Step
    """Loading, or the second run over the data set that it gives."""

    @property
    def name(self) -> str:
        """As shown, and as matched by patterns."""
        return f"open/{self.source.name}/{self.step}"


def opening_cases(patterns: list[str]) -> list[OpeningCase]:
    """Cases that match a pattern, all if there is none."""
    cases = [
        OpeningCase(INPUTS["mib-files"], "load"),
        OpeningCase(INPUTS["mib-files"], "second-pass"),
        OpeningCase(INPUTS["dm-stack"], "load"),
    ]
    return [case for case in cases if not patterns or matches(case.name, patterns)]


def measure_opening(
    cases: list[OpeningCase],
    prepared: Prepared,
    libraries: Mapping[str, Measured],
    rounds: int,
    scratch: Path,
) -> list[Row]:
    """Measure cases of one input.

    Parameters
    ----------
    cases : list of OpeningCase
        What.
    prepared : Prepared
        The files.
    libraries : mapping
        Processes by who is measured.
    rounds : int
        How often, after a round that does not count.
    scratch : Path
        A folder for results that are compared.
    """
    rows = {case.step: Row(case.name, unit="s", checks=(takes_seconds,)) for case in cases}
    failed: set[tuple[str, Step]] = set()
    for number in range(-1, rounds):
        for who, library in libraries.items():
            for step, seconds in _take_round(who, library, prepared, scratch, failed):
                if isinstance(seconds, WorkerError):
                    _note_failure(rows, failed, who, step, str(seconds))
                elif number >= 0 and step in rows:
                    rows[step].seconds.setdefault(who, []).append(seconds)
    for library in libraries.values():
        with suppress(WorkerError):  # it has ended, which the rows say already
            library.forget()
    if REFERENCE in libraries and not failed:
        differing = compare(_results(ALL_CORES, scratch), _results(REFERENCE, scratch), TOLERANCE)
        for row in rows.values():
            row.disagreements += [f"{name} ({REFERENCE})" for name in differing]
    return list(rows.values())


def _take_round(
    who: str, library: Measured, prepared: Prepared, scratch: Path, failed: set[tuple[str, Step]]
) -> Iterator[tuple[Step, float | WorkerError]]:
    """Seconds of each step, or why it failed; steps after one that has failed before are left out."""
    executor = EXECUTORS[who]

    def load() -> float:
        library.forget()
        return library.open(executor, prepared.source.filetype, None, prepared.arguments)

    def pass_again() -> float:
        library.run(executor, WORKLOAD, save=_results(who, scratch))
        return library.run(executor, WORKLOAD)

    steps: dict[Step, Callable[[], float]] = {"load": load, "second-pass": pass_again}
    for step, take in steps.items():
        if (who, step) in failed:
            return
        try:
            yield step, take()
        except WorkerError as err:
            yield step, err


def _note_failure(
    rows: dict[Step, Row], failed: set[tuple[str, Step]], who: str, step: Step, problem: str
) -> None:
    """What fails, and what would come after it."""
    for later in STEPS[STEPS.index(step) :]:
        failed.add((who, later))
        if later not in rows:
            continue
        if who == REFERENCE:
            rows[later].remarks.append(f"reference failed: {problem}")
            rows[later].reference_fails = True
        else:
            rows[later].failure = problem


def _results(who: str, scratch: Path) -> Path:
    return scratch / f"{who}.npz"
