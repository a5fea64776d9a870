"""Positional reading of files, plain and direct, behind one class for all platforms.

| | positional reads | direct reads |
|---|---|---|
| Linux | `os.preadv` | ``O_DIRECT`` |
| macOS | `os.preadv` | not offered |
| Windows | seek and read on a private handle | not offered: never tried on that platform |
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.exceptions import DataSetException, FileAccessError, MissingFileError

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "DIRECT_ALIGNMENT",
    "IOCounts",
    "RawFile",
    "aligned_buffer",
    "as_dataset_error",
    "direct_supported",
    "io_counts",
]

DIRECT_ALIGNMENT = 4096
"""O_DIRECT refuses other file positions, memory addresses and lengths on common file systems."""

_MAX_READ = 1 << 30
"""Linux transfers at most 2 GiB per call."""


@dataclass(frozen=True)
class IOCounts:
    """What has been read by this process, all files together."""

    reads: int = 0
    """Calls of a read function."""
    read_bytes: int = 0
    """Bytes that these calls have transferred."""
    maps: int = 0
    """Files that were mapped into memory."""

    def __sub__(self, other: IOCounts) -> IOCounts:
        return IOCounts(self.reads - other.reads, self.read_bytes - other.read_bytes, self.maps - other.maps)


class _Totals:
    """Sums over closed files. Files count for themselves, so that reads need no lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = IOCounts()

    def add(self, reads: int = 0, read_bytes: int = 0, maps: int = 0) -> None:
        with self._lock:
            c = self._counts
            self._counts = IOCounts(c.reads + reads, c.read_bytes + read_bytes, c.maps + maps)

    def get(self) -> IOCounts:
        with self._lock:
            return self._counts


_totals = _Totals()


def io_counts() -> IOCounts:
    """Reads of this process so far; those of a file are added when it is closed."""
    return _totals.get()


def direct_supported() -> bool:
    """Whether direct I/O is offered on this platform."""
    return sys.platform.startswith("linux") and hasattr(os, "O_DIRECT")


@contextmanager
def as_dataset_error(path: str) -> Iterator[None]:
    """Translate errors of the operating system into those of the library, path included."""
    try:
        yield
    except DataSetException:
        raise
    except FileNotFoundError as err:
        raise MissingFileError("the file does not exist", path=path) from err
    except PermissionError as err:
        raise FileAccessError("no permission to read the file", path=path) from err
    except OSError as err:
        raise DataSetException(f"could not open file {path}: {err}", path=path) from err


def aligned_buffer(size: int) -> npt.NDArray[np.uint8]:
    """Page-aligned memory of `size` bytes (at least one), for direct reads into any part of it."""
    size = max(size, 1)
    memory = np.empty(size + DIRECT_ALIGNMENT, dtype=np.uint8)
    skip = -memory.ctypes.data % DIRECT_ALIGNMENT
    return memory[skip : skip + size]


class RawFile:
    """A file opened for positional reads. Use each object from one thread only.

    Parameters
    ----------
    path : str
        The file.
    direct : bool
        Bypass the page cache. Positions, lengths and addresses then have to be multiples of
        `DIRECT_ALIGNMENT`.
    """

    def __init__(self, path: str, *, direct: bool = False) -> None:
        if direct and not direct_supported():
            raise RuntimeError("Direct I/O not supported on this platform.")
        self.path = path
        self._direct = direct
        self._reads = 0
        self._read_bytes = 0
        flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        if direct:
            flags |= os.O_DIRECT
        with as_dataset_error(path):
            self._fd = os.open(path, flags)

    def fileno(self) -> int:
        """Descriptor of the open file."""
        return self._fd

    def size(self) -> int:
        """Size of the file in bytes, now."""
        return os.fstat(self._fd).st_size

    def read_into(self, out: npt.NDArray[np.uint8], offset: int, *, needed: int | None = None) -> None:
        """Fill `out` with the bytes from `offset` on.

        Parameters
        ----------
        out : array of uint8, 1D
            Where the bytes go. Writable and contiguous.
        offset : int
            Position in the file.
        needed : int, optional
            How many bytes have to be there; by default all. Direct reads may run past the end.

        Raises
        ------
        DataSetException
            If the file ends before.
        """
        total = out.shape[0]
        done = 0
        needed = total if needed is None else needed
        while done < needed:
            n = self._read_once(out[done : min(total, done + _MAX_READ)].data, offset + done)
            if n == 0:
                raise DataSetException(
                    "the file ends before its data",
                    path=self.path,
                    found=f"{offset + done} bytes",
                    expected=f"at least {offset + needed} bytes",
                    hint="was it truncated after the data set was loaded?",
                )
            self._reads += 1
            self._read_bytes += n
            done += n
            if self._direct:
                # A direct read can only continue from an aligned position; the last unit is read again.
                stuck = done < needed and n < DIRECT_ALIGNMENT
                done -= done % DIRECT_ALIGNMENT if done < needed and not stuck else 0

    def _read_once(self, out: memoryview, offset: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._fd, [out], offset)
        os.lseek(self._fd, offset, os.SEEK_SET)  # Windows: the handle is private to one reader
        data = os.read(self._fd, len(out))
        out[: len(data)] = data
        return len(data)

    def advise_willneed(self, offset: int, length: int) -> bool:
        """Ask the system to fetch a range in the background; False where it cannot be asked."""
        advise: Any = getattr(os, "posix_fadvise", None)
        if advise is None:
            return False
        advise(self._fd, offset, length, os.POSIX_FADV_WILLNEED)
        return True

    def map(self) -> npt.NDArray[np.uint8]:
        """Read-only view of the whole file, mapped into memory. It outlives this object."""
        with as_dataset_error(self.path):
            try:
                mapped = mmap.mmap(self._fd, 0, access=mmap.ACCESS_READ)
            except ValueError as err:
                raise DataSetException("the file is empty", path=self.path, found="0 bytes") from err
        _totals.add(maps=1)
        return np.frombuffer(mapped, dtype=np.uint8)

    def close(self) -> None:
        """Close the file. May be called twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
            _totals.add(self._reads, self._read_bytes)
            self._reads = self._read_bytes = 0

    def __enter__(self) -> RawFile:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
