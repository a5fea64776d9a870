"""Command line of the benchmarks: select cases, measure them, print one table."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from benchmarks.cases import CASES, Case, select
from benchmarks.client import Worker, WorkerError
from benchmarks.executors import NBYTES, OURS, compare_executors
from benchmarks.inputs import INPUTS, Input, Prepared, prepare
from benchmarks.limit import available_cores
from benchmarks.measure import Plan, measure_case
from benchmarks.memory import MemoryCase, measure_memory, memory_cases
from benchmarks.opening import OpeningCase, measure_opening, opening_cases
from benchmarks.rows import ALL_CORES, REFERENCE, Row
from benchmarks.startup import StartupCase, measure_startup, startup_cases
from benchmarks.storage import DISK_BYTES, remove_inputs
from benchmarks.table import as_json, as_markdown

__all__ = ["main"]

GIB = 1 << 30
QUICK_GIB = 1 / 16
MIN_ROUNDS = 5


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure speed, start-up and memory, and print one table. The reference is measured too "
        "if the environment variable REFERENCE_PYTHON names an interpreter that has it.",
    )
    parser.add_argument(
        "--cases", action="append", default=[], metavar="PATTERN", help="part of a name, with * and ?"
    )
    parser.add_argument("--list", action="store_true", help="show the names of all cases and end")
    parser.add_argument("--rounds", type=int, default=MIN_ROUNDS, help="at least (default: %(default)s)")
    parser.add_argument("--size", type=float, default=1.0, metavar="GIB", help="of each input (default: 1)")
    parser.add_argument("--data-dir", type=Path, help="folder for inputs (default: in the temporary folder)")
    parser.add_argument(
        "--disk",
        type=float,
        default=DISK_BYTES / 1e9,
        metavar="GB",
        help="what all inputs together may take; those not used for longest go first (default: %(default)g)",
    )
    parser.add_argument(
        "--out", action="append", type=Path, default=[], help="also write to a .md or .json file"
    )
    parser.add_argument(
        "--quick", action="store_true", help="small inputs, 2 rounds: only to see that it works"
    )
    parser.add_argument(
        "--executors",
        action="store_true",
        help="compare executors instead, with inputs of a quarter of the size",
    )
    parser.add_argument("--clean", action="store_true", help="delete the inputs in the end")
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.size, arguments.rounds = QUICK_GIB, 2
    if arguments.data_dir is None:
        arguments.data_dir = Path(tempfile.gettempdir()) / "libertem-benchmarks"
    arguments.data_dir = arguments.data_dir.resolve()
    return arguments


@dataclass(frozen=True)
class Selection:
    """What is measured, by kind."""

    runs: list[Case]
    """Runs of UDFs over files."""

    opening: list[OpeningCase]
    """Times of loading data sets of many files."""

    startup: list[StartupCase]
    """Times to a first result."""

    memory: list[MemoryCase]
    """Peaks of memory."""

    @property
    def names(self) -> list[str]:
        """Names of all cases."""
        return [
            *(run.name for run in self.runs),
            *(opening.name for opening in self.opening),
            *(startup.name for startup in self.startup),
            *(memory.name for memory in self.memory),
        ]


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Measurement:
    """One run of the benchmarks.

    Parameters
    ----------
    arguments : argparse.Namespace
        From the command line.
    selection : Selection
        What to measure.
    """

    def __init__(self, arguments: argparse.Namespace, selection: Selection) -> None:
        self._selection = selection
        self._folder: Path = arguments.data_dir
        self._nbytes = int(arguments.size * GIB)
        self._disk_bytes = int(arguments.disk * 1e9)
        more = {"more_rounds": 0} if arguments.quick else {}
        self._plan = Plan(rounds=arguments.rounds, **more)
        self._interpreters = {ALL_CORES: sys.executable}
        if os.environ.get("REFERENCE_PYTHON"):
            self._interpreters[REFERENCE] = os.environ["REFERENCE_PYTHON"]
        self._workers: dict[str, Worker] = {}

    def __enter__(self) -> Measurement:
        return self

    def __exit__(self, *exc: object) -> None:
        for worker in self._workers.values():
            worker.close()

    def _worker(self, who: str) -> Worker | None:
        """The process of a library; a new one if the last one has ended."""
        if who not in self._interpreters:
            return None
        worker = self._workers.get(who)
        if worker is not None and worker.alive:
            return worker
        if worker is not None:
            worker.close()
        self._workers[who] = Worker(self._interpreters[who], foreign=who == REFERENCE)
        return self._workers[who]

    def describe(self) -> dict[str, str]:
        """Machine, software and time."""
        facts = {
            "CPU": _cpu_model(),
            "cores": str(available_cores()),
            "kernel": f"{platform.system()} {platform.release()}",
        }
        packages = {}
        for who in self._interpreters:
            worker = self._worker(who)
            assert worker is not None
            versions = worker.describe()
            packages[who] = versions.pop("package")
            facts["reference" if who == REFERENCE else "ours"] = ", ".join(map(" ".join, versions.items()))
        if REFERENCE in packages and os.path.samefile(packages[ALL_CORES], packages[REFERENCE]):
            raise WorkerError(
                "REFERENCE_PYTHON names an interpreter with this library, not with the reference"
            )
        facts["date"] = f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"
        return facts

    def _prepare(self, source: Input) -> Prepared:
        return prepare(source, self._nbytes, self._folder, self._disk_bytes)

    def _measure(self, case: Case, scratch: Path) -> Row:
        try:
            prepared = self._prepare(case.source)
        except OSError as err:
            return Row(case.name, unit=case.unit, checks=case.checks, failure=str(err))
        ours = self._worker(ALL_CORES)
        assert ours is not None
        return measure_case(case, prepared, ours, self._worker(REFERENCE), self._plan, scratch)

    def _measure_opening(self, scratch: Path) -> Iterator[Row]:
        for source in {case.source.name: case.source for case in self._selection.opening}.values():
            cases = [case for case in self._selection.opening if case.source is source]
            _log(f"open/{source.name}")
            try:
                prepared = self._prepare(source)
            except OSError as err:
                yield from (Row(case.name, unit="s", failure=str(err)) for case in cases)
                continue
            libraries = {who: self._worker(who) for who in self._interpreters}
            present = {who: worker for who, worker in libraries.items() if worker is not None}
            yield from measure_opening(cases, prepared, present, self._plan.rounds, scratch)

    def rows(self) -> Iterator[Row]:
        """Measure everything."""
        with tempfile.TemporaryDirectory() as scratch:
            for case in self._selection.runs:
                _log(case.name)
                yield self._measure(case, Path(scratch))
            yield from self._measure_opening(Path(scratch))
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()
        if self._selection.startup:
            _log("startup")
            prepared = self._prepare(INPUTS["u16-256"])
            startup = self._selection.startup
            yield from measure_startup(startup, prepared, self._interpreters, self._plan.rounds)
        for memory_case in self._selection.memory:
            _log(memory_case.name)
            yield measure_memory(memory_case, self._folder)


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


NOTES = (
    "Medians over all rounds; in each round limit, ours and reference run once, one after the other.",
    "Throughput is bytes of pixels, as they are stored, per second. Spread is (maximum - minimum) / median.",
    "Limit: copying the cached file to L2-sized buffers, all cores; for cold files, plain O_DIRECT reading;",
    "for compressed HDF5 files, reading and decoding all chunks into such buffers.",
    "Ratios are those of speeds: above 1, ours is faster. The reference runs with its default executor.",
    "Opening: about 20,000 MIB files of one frame, and 1,000 DM files. The second pass is one more sum.",
    "Start-up counts from the start of the interpreter; that of the context from the end of the import.",
    "Memory cases process the first part of a large sparse file, each in a fresh process.",
)
NO_MEASUREMENT = "**Not a measurement**: inputs below 1 GiB or fewer than 5 rounds say nothing about targets."


def _notes(arguments: argparse.Namespace) -> list[str]:
    notes = list(NOTES)
    if arguments.size < 1 or arguments.rounds < MIN_ROUNDS:
        notes.insert(0, NO_MEASUREMENT)
    return notes


def main(argv: list[str] | None = None) -> int:
    """Run the benchmarks.

    Returns
    -------
    int
        Exit status: 1 if something failed or results disagree, 0 otherwise, also if targets are missed.
    """
    arguments = _arguments(argv)
    if arguments.list:
        everything = Selection(list(CASES), opening_cases([]), startup_cases([]), memory_cases([]))
        print("\n".join(everything.names))
        return 0
    if arguments.executors:
        return _compare_executors(arguments)
    patterns = arguments.cases
    selection = Selection(
        select(patterns), opening_cases(patterns), startup_cases(patterns), memory_cases(patterns)
    )
    if not selection.names:
        _log("no case matches, see --list")
        return 1
    rows: list[Row] = []
    notes = _notes(arguments)
    try:
        with Measurement(arguments, selection) as measurement:
            environment = measurement.describe()
            for row in measurement.rows():
                rows.append(_without_paths(row, arguments.data_dir))
    except WorkerError as err:
        _log(str(err))
        return 1
    finally:
        if arguments.clean:
            remove_inputs(arguments.data_dir)
    table = as_markdown(rows, environment, notes)
    print(table)
    for path in arguments.out:
        text = as_json(rows, environment, notes) if path.suffix == ".json" else table
        path.write_text(text, encoding="utf-8")
    return 0 if all(row.is_sound for row in rows) else 1


def _compare_executors(arguments: argparse.Namespace) -> int:
    nothing = Selection([], [], [], [])
    try:
        with Measurement(arguments, nothing) as measurement:
            facts = measurement.describe()
    except WorkerError as err:
        _log(str(err))
        return 1
    interpreters = {OURS: sys.executable}
    if os.environ.get("REFERENCE_PYTHON"):
        interpreters[REFERENCE] = os.environ["REFERENCE_PYTHON"]
    nbytes = int(arguments.size * NBYTES)
    table, rows = compare_executors(arguments.data_dir, interpreters, arguments.rounds, facts, nbytes)
    if arguments.clean:
        remove_inputs(arguments.data_dir)
    print(table)
    for path in arguments.out:
        data = {"environment": facts, "rows": [asdict(row) for row in rows]}
        path.write_text(json.dumps(data, indent=1) if path.suffix == ".json" else table, encoding="utf-8")
    return 0 if all(row.failure is None for row in rows) else 1


def _without_paths(row: Row, folder: Path) -> Row:
    """Error messages name files; where they lie on this machine is nobody's business."""
    row.remarks = [remark.replace(str(folder), "...") for remark in row.remarks]
    if row.failure is not None:
        row.failure = row.failure.replace(str(folder), "...")
    return row


if __name__ == "__main__":
    sys.exit(main())
