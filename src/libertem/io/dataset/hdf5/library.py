"""Where HDF5 support starts in a process, and how files are opened.

All that uses h5py gets it from `import_h5py`, so that the filters of hdf5plugin are there before the first
read, in each process.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np

from libertem.exceptions import DataSetException
from libertem.io.dataset.base.backends.rawio import RawFile
from libertem.io.dataset.base.framefile import file_size

__all__ = ["LIBRARY_ERRORS", "as_hdf5_error", "has_signature", "import_h5py", "open_hdf5"]

_log = logging.getLogger(__name__)

SIGNATURE = b"\x89HDF\r\n\x1a\n"

FIRST_USER_BLOCK = 512
"""The signature stands at byte 0, or behind a user block of this size or twice, four times, ... as much."""

LIBRARY_ERRORS = (
    OSError,
    KeyError,
    RuntimeError,
    ValueError,
    TypeError,
    SystemError,
    OverflowError,
    MemoryError,
    AttributeError,
)
"""What h5py raises for damaged files, depending on where the damage is."""


def import_h5py() -> Any:
    """The h5py module, with the filters of hdf5plugin if that is installed."""
    h5py = import_module("h5py")
    try:
        import_module("hdf5plugin")
    # OSError: shared libraries that do not fit this machine. Files with other filters can still be read.
    except (ImportError, OSError) as err:
        _log.info("hdf5plugin is not loaded: %s", err)
    return h5py


def has_signature(path: str) -> bool:
    """Whether a file has the signature of HDF5 in one of the places for it. Reads a few bytes.

    Raises
    ------
    DataSetException
        If it cannot be read at all.
    """
    file_size(path)
    found = np.empty(len(SIGNATURE), dtype=np.uint8)
    with RawFile(path) as file:
        size = file.size()
        start = 0
        while start + len(SIGNATURE) <= size:
            file.read_into(found, start)
            if found.tobytes() == SIGNATURE:
                return True
            start = max(FIRST_USER_BLOCK, 2 * start)
    return False


@contextmanager
def as_hdf5_error(path: str, problem: str) -> Iterator[None]:
    """Translate whatever h5py raises into an error of the library. Keep the body small."""
    try:
        yield
    except DataSetException:
        raise
    except LIBRARY_ERRORS as err:
        raise DataSetException(
            f"{problem}: {err}",
            path=path,
            hint="was it written completely? HDF5 refuses files that are cut off or damaged",
        ) from err


@contextmanager
def open_hdf5(path: str) -> Iterator[Any]:
    """Open a file for reading, also while it is being written (SWMR), and close it.

    Raises
    ------
    DataSetException
        If there is no such file, or it is no HDF5 file. Names the path.
    """
    if not has_signature(path):
        raise DataSetException(
            "not an HDF5 file", path=path, found="no signature", expected=f"{SIGNATURE!r} at its start"
        )
    h5py = import_h5py()
    with as_hdf5_error(path, "cannot be opened as HDF5 file"):
        try:
            file = h5py.File(path, "r")
        except OSError as err:
            # Perhaps a program is still writing to it, in the way that allows others to read.
            try:
                file = h5py.File(path, "r", swmr=True)
            except OSError:
                raise err from None
    try:
        yield file
    finally:
        file.close()
