"""What this machine can do at best: the yardsticks that results are compared with.

Copying reads every byte of a cached file, with all cores, into buffers that stay in the L2 cache. A path that
has to copy cannot be faster. Plain direct reading brings every byte of a file past the page cache into memory
and does nothing with it; that is the limit of direct I/O.
"""

from __future__ import annotations

import itertools
import mmap
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["CopyLimit", "DirectLimit", "Limit", "available_cores", "drop_cache"]

ROW_BYTES = 1 << 19  # fits into the L2 cache of current processors
PARTS_PER_THREAD = 8
DIRECT_BYTES = 8 << 20  # of 1 to 32 MiB no size was clearly better
CAN_DROP_CACHE = hasattr(os, "posix_fadvise")
CAN_READ_DIRECT = hasattr(os, "O_DIRECT")


class Limit(Protocol):
    """A yardstick for the files of an input."""

    nbytes: int
    """How much one pass reads."""

    def measure(self) -> float:
        """Seconds of one pass."""

    def close(self) -> None:
        """Let go of the files."""


def available_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def drop_cache(path: Path) -> None:
    """Ask the system to forget what it holds of a file; pages that a process has mapped stay."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _seconds(pool: ThreadPoolExecutor, work: Callable[[Any], None], parts: Sequence[Any]) -> float:
    start = time.perf_counter()
    for _ in pool.map(work, parts):
        pass
    return time.perf_counter() - start


class CopyLimit:
    """Copy the mapped files row by row into buffers that stay in L2.

    Parameters
    ----------
    paths : iterable of Path
        None of them empty. Stay mapped until `close`.
    threads : int
        Usually all cores.
    """

    def __init__(self, paths: Iterable[Path], threads: int) -> None:
        rows = [row for path in paths for row in _rows(path)]
        self.nbytes = sum(row.size for row in rows)
        edges = np.linspace(0, len(rows), threads * PARTS_PER_THREAD + 1).astype(int).tolist()
        self._parts = [rows[start:stop] for start, stop in itertools.pairwise(edges)]
        self._pool = ThreadPoolExecutor(threads)

    def measure(self) -> float:
        """Seconds of one pass."""
        return _seconds(self._pool, _copy, self._parts)

    def close(self) -> None:
        """Unmap the files."""
        self._pool.shutdown()
        self._parts = []


def _rows(path: Path) -> list[npt.NDArray[np.uint8]]:
    mapped = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
    return [mapped[start : start + ROW_BYTES] for start in range(0, mapped.size, ROW_BYTES)]


def _copy(rows: Sequence[npt.NDArray[np.uint8]]) -> None:
    buffer = np.empty(ROW_BYTES, dtype=np.uint8)
    for row in rows:
        buffer[: row.size] = row


class DirectLimit:
    """Read the file with O_DIRECT, each thread its own contiguous part, in large blocks.

    Parameters
    ----------
    path : Path
        On a file system that supports O_DIRECT.
    threads : int
        Usually all cores.

    Raises
    ------
    OSError
        If the system or the file system has no O_DIRECT.
    """

    def __init__(self, path: Path, threads: int) -> None:
        if not CAN_READ_DIRECT:
            raise OSError("this system has no O_DIRECT")
        self.nbytes = path.stat().st_size
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
        n_blocks = -(-self.nbytes // DIRECT_BYTES)
        # An anonymous map is page-aligned, which O_DIRECT wants.
        self._parts = [
            (mmap.mmap(-1, DIRECT_BYTES), block_ids)
            for block_ids in np.array_split(np.arange(n_blocks), threads)
        ]
        self._pool = ThreadPoolExecutor(threads)

    def measure(self) -> float:
        """Seconds of one pass."""
        return _seconds(self._pool, self._read, self._parts)

    def _read(self, part: tuple[mmap.mmap, npt.NDArray[np.int64]]) -> None:
        buffer, block_ids = part
        for block in block_ids.tolist():
            os.preadv(self._fd, [buffer], block * DIRECT_BYTES)

    def close(self) -> None:
        """Close the file."""
        self._pool.shutdown()
        os.close(self._fd)
        for buffer, _ in self._parts:
            buffer.close()
