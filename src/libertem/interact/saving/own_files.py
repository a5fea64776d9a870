"""Protect the files that a data set is read from."""

from __future__ import annotations

import math
import os
import sys
from typing import TYPE_CHECKING

from libertem.interact.saving.pieces import Frames
from libertem.io.dataset.npy import NPYDataSet
from libertem.io.dataset.raw import RawFileDataSet

if TYPE_CHECKING:
    from libertem.io.dataset.base.dataset import DataSet

__all__ = ["check_own_files"]


def check_own_files(frames: Frames, target: str) -> None:
    """Refuse to replace a file of the data set, unless nothing can get lost.

    A new file replaces the old one by its name only: who has mapped the old one still sees it. It is safe if
    the file holds nothing but the frames that are saved.

    Raises
    ------
    ValueError
        If it is not safe.
    """
    if not os.path.exists(target):
        return
    own = _own_files(frames.dataset)
    if not any(os.path.samefile(path, target) for path in own if os.path.exists(path)):
        return
    reason = _what_is_lost(frames, len(own))
    if reason is not None:
        raise ValueError(
            f"{target}: the data set is read from this file, which can not be replaced safely: {reason} "
            "(save under another name)"
        )


def _own_files(dataset: DataSet) -> set[str]:
    """Paths of the files of a data set, as far as they are known; empty for arrays in memory."""
    found = [getattr(dataset, name, None) for name in ("_path", "path")]
    for partition in dataset.get_partitions():
        fileset = getattr(partition, "_fileset", None)
        found += [getattr(file, "path", None) for file in (() if fileset is None else fileset)]
    # A memory map in a `MemoryDataSet`.
    found.append(getattr(getattr(dataset, "data", None), "filename", None))
    return {os.fspath(path) for path in found if isinstance(path, str | os.PathLike)}


def _what_is_lost(frames: Frames, n_files: int) -> str | None:
    dataset = frames.dataset
    if sys.platform.startswith("win"):
        return "Windows does not allow that while it is open"
    if n_files > 1 or not isinstance(dataset, NPYDataSet | RawFileDataSet):
        return "it may hold other things, or belong to other files"
    meta = dataset.meta
    if not frames.are_all or meta is None or meta.sync_offset:
        return "frames would be lost"
    if meta.image_count != math.prod(dataset.shape.nav):
        return "frames would be lost"
    return None
