"""Anonymous resident memory: of running processes, and over a file that is larger than memory."""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.cases import matches
from benchmarks.client import Worker, WorkerError
from benchmarks.inputs import Prepared, prepare_sparse
from benchmarks.limit import available_cores
from benchmarks.rows import ALL_CORES, Row
from benchmarks.targets import at_most_anon

__all__ = ["PeakAnon", "anon_bytes", "family_of", "measure_memory", "memory_cases"]

INTERVAL = 0.002  # seconds between samples
COUNTED = ("RssAnon:", "RssShmem:")  # the latter is what anonymous maps are unless they are made private
SAMPLES_PER_LOOK = 50  # before children are looked for again
FILE_BYTES = 20_000_000_000
USED_BYTES = 4 << 30  # of the file: eight partitions and more, so that the peak is the one of any larger part
FIXED_LIMIT = 300_000_000
LIMIT_PER_WORKER = 64_000_000
READINGS = ("mmap", "buffered", "direct")
WORKLOADS = ("sum", "sumsig", "std", "masks4", "com", "three", "roi", "tile")


def family_of(pid: int) -> list[psutil.Process]:
    """A process and all that it started; nothing if it is gone."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def anon_bytes(process: psutil.Process) -> int:
    """Anonymous resident memory; where the system does not tell it, what belongs to the process alone.

    0 if the process is gone.
    """
    try:
        if not sys.platform.startswith("linux"):
            return int(process.memory_full_info().uss)
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith(COUNTED)) * 1024
    except (OSError, psutil.Error):
        return 0


class PeakAnon:
    """Samples a process from a thread of this one, so that the process itself is not disturbed.

    Parameters
    ----------
    pid : int
        The process; its children count as well.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.nbytes = 0
        """The highest value seen so far."""

    def _watch(self) -> None:
        done = False
        while not done:
            # Looking for children takes longer than a sample.
            family = family_of(self._pid)
            for _ in range(SAMPLES_PER_LOOK):
                self.nbytes = max(self.nbytes, sum(anon_bytes(process) for process in family))
                done = self._stop.wait(INTERVAL)
                if done:
                    break

    def __enter__(self) -> PeakAnon:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()


def memory_cases(patterns: list[str]) -> list[tuple[str, str, str]]:
    """Name, workload and I/O backend of the memory cases that match a pattern, all if there is none."""
    cases = [
        (f"memory/{workload}/{reading}", workload, reading) for reading in READINGS for workload in WORKLOADS
    ]
    return [case for case in cases if not patterns or matches(case[0], patterns)]


def measure_memory(cases: list[tuple[str, str, str]], folder: Path) -> Iterator[Row]:
    """Measure each case in a fresh process, on a large file of holes of which the first part is processed."""
    if not cases:
        return
    with _sparse_file(folder) as prepared:
        for name, workload, reading in cases:
            yield _measure_one(Row(name, unit=""), workload, reading, prepared)


@contextmanager
def _sparse_file(folder: Path) -> Iterator[Prepared]:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as home:
        yield prepare_sparse(FILE_BYTES, USED_BYTES, Path(home))


def _measure_one(row: Row, workload: str, reading: str, prepared: Prepared) -> Row:
    row.checks = (at_most_anon(FIXED_LIMIT + LIMIT_PER_WORKER * available_cores()),)
    worker = Worker(sys.executable)
    try:
        worker.open("default", prepared.source.filetype, reading, prepared.arguments)
        with PeakAnon(worker.pid) as peak:
            worker.run("default", workload)
        row.anon_bytes[ALL_CORES] = peak.nbytes
    except WorkerError as err:
        row.failure = str(err)
    finally:
        worker.close()
    return row
