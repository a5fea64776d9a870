"""Files and folders that appear under their name when they are complete, or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from libertem.exceptions import DataSetException, FileAccessError, MissingFileError

__all__ = ["TEMPORARY", "as_write_error", "check_space", "complete_folder_or_nothing", "complete_or_nothing"]

TEMPORARY = ".incomplete-"
"""Part of the name of an output that is not complete."""


@contextmanager
def complete_or_nothing(target: str, size: int, *, overwrite: bool = True) -> Iterator[str]:
    """Path of a new file of `size` bytes, which replaces `target` if all goes well.

    Raises
    ------
    FileExistsError
        If there is such a file and it is not to be overwritten; also if it came up meanwhile.
    DataSetException
        If it cannot be written.
    """
    # Where a link leads to: that is what would be written to.
    final = os.path.realpath(target)
    folder = os.path.dirname(final)
    if not overwrite:
        _refuse_existing(target, final)
    with as_write_error(target):
        mode = _check_target(final, size)
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
            if overwrite:
                os.replace(temporary, final)
            else:
                _rename_if_free(temporary, target, final)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(folder)


@contextmanager
def complete_folder_or_nothing(target: str, size: int, *, overwrite: bool = False) -> Iterator[str]:
    """Path of a new folder, for content of `size` bytes, that replaces `target` if all goes well.

    Folders cannot be exchanged in one step: for a moment there is none if an old one is replaced.

    Raises
    ------
    FileExistsError
        If there is something and it is not to be overwritten; also if it came up meanwhile.
    DataSetException
        If it cannot be written.
    """
    final = os.path.realpath(target)
    parent = os.path.dirname(final)
    if not overwrite:
        _refuse_existing(target, final)
    temporary = f"{final}{TEMPORARY}{secrets.token_hex(4)}"
    with as_write_error(target):
        check_space(final, size)
        os.mkdir(temporary)
    try:
        yield temporary
        with as_write_error(target):
            _sync_content(temporary)
            if overwrite:
                _exchange_folder(temporary, final)
            else:
                # Fails if there is a folder by now, but for an empty one.
                _refuse_existing(target, final)
                os.rename(temporary, final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync_folder(parent)


def _refuse_existing(target: str, final: str) -> None:
    if os.path.lexists(final):
        raise FileExistsError(
            f"{target}: the output exists already, and is left as it is "
            "(use overwrite=True to replace it, or another name)"
        )


def _rename_if_free(temporary: str, target: str, final: str) -> None:
    """Rename, but never over a file that came up meanwhile."""
    try:
        os.link(temporary, final)
    except FileExistsError:
        _refuse_existing(target, final)
        raise
    except (OSError, AttributeError):
        # No hard links on this file system.
        _refuse_existing(target, final)
        os.rename(temporary, final)
    else:
        os.unlink(temporary)


def _exchange_folder(temporary: str, final: str) -> None:
    old = None
    if os.path.lexists(final):
        old = f"{final}{TEMPORARY}{secrets.token_hex(4)}"
        os.rename(final, old)
    try:
        os.rename(temporary, final)
    except OSError:
        if old is not None:
            os.rename(old, final)
        raise
    if old is not None:
        if os.path.isdir(old):
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.unlink(old)


def _check_target(final: str, size: int) -> int | None:
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
    check_space(final, size)
    return mode


def check_space(path: str, size: int) -> None:
    """Make sure that a file can grow.

    Raises
    ------
    DataSetException
        If there is less space left than `size` bytes.
    """
    free = shutil.disk_usage(os.path.dirname(path)).free
    if free < size:
        raise DataSetException(
            "not enough space on the disk for the output",
            path=path.split(TEMPORARY)[0],
            found=f"{free} bytes free",
            expected=f"{size} bytes",
            hint="an existing output is kept until the new one is complete",
        )


def _sync_content(folder: str) -> None:
    for where, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(where, name), "r+b") as file:
                os.fsync(file.fileno())
        _sync_folder(where)


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
    except (DataSetException, FileExistsError):
        raise
    except PermissionError as err:
        raise FileAccessError("no permission to write the file", path=target) from err
    except FileNotFoundError as err:
        raise MissingFileError("the folder of the output does not exist", path=target) from err
    except OSError as err:
        number = err.errno
        if os.strerror(errno.ENOSPC) in str(err):
            # HDF5 packs the error of the system into a long text.
            number = errno.ENOSPC
        if number in (errno.ENOSPC, errno.EDQUOT):
            raise DataSetException(
                f"no space left for the output: {os.strerror(number)}",
                path=target,
                hint="make room, or write to another disk",
            ) from err
        raise DataSetException(f"could not write the output: {err}", path=target) from err
