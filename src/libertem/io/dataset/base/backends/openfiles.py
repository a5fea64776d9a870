"""Keep few files open, however many a partition has."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from libertem.io.dataset.base.files import File, FileSet

__all__ = ["MAX_OPEN", "RecentFiles"]

MAX_OPEN = 64
"""Operating systems allow 256 to some thousand per process, and several partitions are read at a time."""


class _Open(Protocol):
    def close(self) -> None: ...


F = TypeVar("F", bound=_Open)


class RecentFiles(Generic[F]):
    """Files of a partition by their index, opened on first use; those opened last stay open.

    Parameters
    ----------
    open_file : callable
        Opens a file.
    fileset : FileSet
        Files of the partition.
    """

    def __init__(self, open_file: Callable[[File], F], fileset: FileSet) -> None:
        self._open_file = open_file
        self._fileset = fileset
        self._open: dict[int, F] = {}

    def __getitem__(self, idx: int) -> F:
        file = self._open.get(idx)
        if file is None:
            while len(self._open) >= MAX_OPEN:
                self._open.pop(next(iter(self._open))).close()
            file = self._open[idx] = self._open_file(self._fileset[idx])
        return file

    def __enter__(self) -> RecentFiles[F]:
        return self

    def __exit__(self, *exc: object) -> None:
        while self._open:
            self._open.popitem()[1].close()
