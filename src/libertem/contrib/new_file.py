"""Files that appear under their name when they are complete, or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from libertem.exceptions import DataSetException, FileAccessError, MissingFileError

__all__ = ["TEMPORARY", "as_write_error", "complete_or_nothing"]

TEMPORARY = ".incomplete-"
"""Part of the name of an output that is not complete."""


@contextmanager
def complete_or_nothing(target: str, size: int) -> Iterator[str]:
    """Path of a new file of `size` bytes, which replaces `target` if all goes well."""
    # Where a link leads to: that is what would be written to.
    final = os.path.realpath(target)
    folder = os.path.dirname(final)
    with as_write_error(target):
        mode = _check_target(final, folder, size)
        temporary = f"{final}{TEMPORARY}{secrets.token_hex(4)}"
        descriptor = os.open(
            temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666
        )
    try:
        with as_write_error(target), open(descriptor, "r+b") as file:
            file.truncate(size)
        yield temporary
        with as_write_error(target):
            with open(temporary, "r+b") as file:
                os.fsync(file.fileno())
            if mode is not None:
                os.chmod(temporary, mode)
            os.replace(temporary, final)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(folder)


def _check_target(final: str, folder: str, size: int) -> int | None:
    """Permissions of the file that will be replaced, None if there is none.

    Raises
    ------
    DataSetException
        If it cannot be written to, or there is not enough space for a new one.
    """
    mode = None
    with suppress(FileNotFoundError):
        status = os.stat(final)
        if not stat.S_ISREG(status.st_mode):
            raise DataSetException("the output exists and is no file", path=final)
        if not os.access(final, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        mode = stat.S_IMODE(status.st_mode)
    free = shutil.disk_usage(folder).free
    if free < size:
        raise DataSetException(
            "not enough space on the disk for the output",
            path=final,
            found=f"{free} bytes free",
            expected=f"{size} bytes",
            hint="an existing output is kept until the new one is complete",
        )
    return mode


def _sync_folder(folder: str) -> None:
    """Make the new name as durable as the content, where folders can be opened."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def as_write_error(target: str) -> Iterator[None]:
    """Translate errors of the operating system into those of the library, path included."""
    try:
        yield
    except DataSetException:
        raise
    except PermissionError as err:
        raise FileAccessError("no permission to write the file", path=target) from err
    except FileNotFoundError as err:
        raise MissingFileError("the folder of the output does not exist", path=target) from err
    except OSError as err:
        if err.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataSetException(
                f"no space left for the output: {err.strerror}",
                path=target,
                hint="make room, or write to another disk",
            ) from err
        raise DataSetException(f"could not write the output: {err}", path=target) from err
