"""Anonymous resident memory: of running processes, and over a file that is larger than memory."""

from __future__ import annotations

import sys
import tempfile
import threading
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.cases import matches
from benchmarks.client import Worker, WorkerError
from benchmarks.inputs import INPUTS, Input, prepare_sparse
from benchmarks.limit import available_cores
from benchmarks.rows import ALL_CORES, Row
from benchmarks.targets import at_most_anon

__all__ = ["MemoryCase", "PeakAnon", "anon_bytes", "family_of", "measure_memory", "memory_cases"]

INTERVAL = 0.002  # seconds between samples
COUNTED = ("RssAnon:", "RssShmem:")  # the latter is what anonymous maps are unless they are made private
SAMPLES_PER_LOOK = 50  # before children are looked for again
FILE_BYTES = 20_000_000_000
USED_BYTES = 4 << 30  # of the file: more than ten partitions, so that a larger part would not need more
FIXED_LIMIT = 300_000_000
LIMIT_PER_WORKER = 64_000_000
READINGS = ("mmap", "buffered", "direct")
WORKLOADS = {
    "u16-256": ("sum", "sumsig", "std", "masks4", "com", "three", "roi", "pick", "tile"),
    "u16-2048": ("sum", "com", "three", "tile"),
}


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


@dataclass(frozen=True)
class MemoryCase:
    """Peak of memory while a large file is processed."""

    workload: str
    """What is computed."""

    source: Input
    """What the file pretends to hold."""

    reading: str
    """I/O backend."""

    @property
    def name(self) -> str:
        """As shown, and as matched by patterns."""
        return f"memory/{self.workload}/{self.source.name}/{self.reading}"


def memory_cases(patterns: list[str]) -> list[MemoryCase]:
    """Cases that match a pattern, all if there is none."""
    cases = [
        MemoryCase(workload, INPUTS[name], reading)
        for name, workloads in WORKLOADS.items()
        for reading in READINGS
        for workload in workloads
    ]
    return [case for case in cases if not patterns or matches(case.name, patterns)]


def measure_memory(case: MemoryCase, folder: Path) -> Row:
    """Measure in a fresh process, on a large file of holes of which the first part is processed.

    Parameters
    ----------
    case : MemoryCase
        What.
    folder : Path
        Where to put the file, which takes no room on the disk and is deleted again.
    """
    limit = FIXED_LIMIT + LIMIT_PER_WORKER * available_cores()
    row = Row(case.name, unit="", checks=(at_most_anon(limit),))
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as home, closing(Worker(sys.executable)) as worker:
        try:
            prepared = prepare_sparse(case.source, FILE_BYTES, USED_BYTES, Path(home))
            worker.open("default", prepared.source.filetype, case.reading, prepared.arguments)
            with PeakAnon(worker.pid) as peak:
                worker.run("default", case.workload)
            row.anon_bytes[ALL_CORES] = peak.nbytes
        except (WorkerError, OSError) as err:
            row.failure = str(err)
    return row
