"""Folders of inputs on the disk: whether they are complete, room for more of them, and the page cache."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.limit import CAN_DROP_CACHE, drop_cache

__all__ = ["DISK_BYTES", "FOLDER_SUFFIX", "filled", "is_complete", "remove_inputs"]

FOLDER_SUFFIX = ".bench"
DISK_BYTES = 20_000_000_000
INVENTORY = "inventory.json"
RESERVE_BYTES = 1 << 30  # left free on the disk
READ_BYTES = 8 << 20
SETTLED_BYTES = 1 << 16  # smaller files are opened rather than read: how they are cached does not matter


def is_complete(home: Path) -> bool:
    """Whether all files of an input are there, in the size that they were written with."""
    try:
        sizes = json.loads((home / INVENTORY).read_text(encoding="utf-8"))
        return all((home / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


@contextmanager
def filled(home: Path, nbytes: int, disk_bytes: int) -> Iterator[None]:
    """Make an empty folder for the body to write files into, which are complete after it.

    Parameters
    ----------
    home : Path
        Replaced if it exists.
    nbytes : int
        About how much will be written.
    disk_bytes : int
        What all inputs together may take. The ones that were not used for longest are deleted.

    Raises
    ------
    OSError
        If the disk has too little room.
    """
    shutil.rmtree(home, ignore_errors=True)
    _forget_oldest(home.parent, disk_bytes - nbytes)
    home.mkdir(parents=True)
    free = shutil.disk_usage(home).free
    if free < nbytes + RESERVE_BYTES:
        raise OSError(
            f"{free / 1e9:.1f} GB free in the data folder, {(nbytes + RESERVE_BYTES) / 1e9:.1f} GB needed"
        )
    try:
        yield
    except BaseException:
        shutil.rmtree(home)
        raise
    files = sorted(home.iterdir())
    for path in files:
        if path.stat().st_size >= SETTLED_BYTES:
            _settle(path)
    sizes = {path.name: path.stat().st_size for path in files}
    (home / INVENTORY).write_text(json.dumps(sizes), encoding="utf-8")


def remove_inputs(folder: Path) -> None:
    """Delete all input files in `folder`, and nothing else."""
    for home in folder.glob(f"*{FOLDER_SUFFIX}"):
        shutil.rmtree(home)


def _forget_oldest(folder: Path, nbytes: int) -> None:
    """Delete inputs until all together take no more than `nbytes`."""
    homes = sorted(folder.glob(f"*{FOLDER_SUFFIX}"), key=lambda home: home.stat().st_mtime)
    sizes = [sum(path.stat().st_size for path in home.iterdir()) for home in homes]
    used = sum(sizes)
    for home, size in zip(homes, sizes, strict=True):
        if used <= nbytes:
            break
        shutil.rmtree(home)
        used -= size


def _settle(path: Path) -> None:
    """Leave the file in the cache as reading leaves it there, not as writing does.

    People process files that have been read before, rarely ones that the same machine has just written;
    Linux keeps the latter in smaller units, which take longer to map.
    """
    with path.open("rb+") as file:
        # Pages that are not on the disk yet cannot be dropped from the cache.
        os.fsync(file.fileno())
    if CAN_DROP_CACHE:
        drop_cache(path)
    with path.open("rb") as file:
        while file.read(READ_BYTES):
            pass
