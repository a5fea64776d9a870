"""Find the data sets of an HDF5 file that could be the data.

Candidates have at least three axes and numbers as elements. Hard links are followed first, in the order of names; then
soft and external links, each object once. A group of external links ``data_000001``, ``data_000002``, ... as in the
master files of DECTRIS detectors is one candidate more.
"""  # noqa: E501

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from libertem.common.math import prod
from libertem.exceptions import DataSetException
from libertem.io.dataset.hdf5.library import LIBRARY_ERRORS, as_hdf5_error, import_h5py, open_hdf5

__all__ = ["LINKED_PART", "Candidate", "choose", "find_candidates", "is_pixel_dtype", "list_candidates"]

LINKED_PART = re.compile(r"data_\d+")
"""Names of the links to data files in master files."""

MIN_DIMS = 3

MAX_SECONDS = 3
"""The walk is given up after this time; some files hold millions of objects."""

MAX_LINK_DEPTH = 8
"""So many links behind each other lead to no data set that anybody has."""


@dataclass(frozen=True)
class Candidate:
    """A data set, or a group of linked data sets, that could be the data."""

    name: str
    """Path in the file, without slash in front."""
    shape: tuple[int, ...]
    dtype: str
    compression: str | None
    """As h5py calls it."""
    chunks: tuple[int, ...] | None
    is_group: bool = False


def is_pixel_dtype(dtype: np.dtype[Any]) -> bool:
    """Whether elements of this dtype can be pixels."""
    return dtype.kind in "biufc" and dtype.subdtype is None


def time_limit() -> float:
    """Seconds that a search may take."""
    try:
        return int(os.environ.get("LIBERTEM_IO_HDF5_TIMEOUT_DEBUG", MAX_SECONDS))
    except ValueError:
        return MAX_SECONDS


def choose(candidates: tuple[Candidate, ...]) -> Candidate | None:
    """The one with most elements; a group rather than a virtual data set of the same size."""
    usable = [c for c in candidates if prod(c.shape) > 0]
    return max(usable, key=lambda c: (prod(c.shape), c.is_group), default=None)


def list_candidates(path: str, clock: Callable[[], float]) -> tuple[Candidate, ...]:
    """Candidates of a file; none if the search takes too long."""
    with open_hdf5(path) as file:
        return find_candidates(file, clock)


def find_candidates(file: Any, clock: Callable[[], float]) -> tuple[Candidate, ...]:
    """Candidates of an open file; none if the search takes too long.

    Parameters
    ----------
    file : h5py.File
    clock : callable
        Returns seconds.
    """
    search = _Search(file, clock)
    with as_hdf5_error(file.filename, "the objects of the file cannot be listed"):
        try:
            search.run()
        # SystemError: h5py in place of the former, its issue 1740.
        except (TimeoutError, SystemError):
            return ()
    return tuple(search.candidates)


class _Search:
    """State of a walk through a file."""

    def __init__(self, file: Any, clock: Callable[[], float]) -> None:
        self._file = file
        self._h5py = import_h5py()
        self._clock = clock
        self._limit = time_limit()
        self._started = clock()
        self._seen: set[tuple[int, int]] = set()
        self._groups: list[tuple[str, Any, int]] = []
        self.candidates: list[Candidate] = []

    def run(self) -> None:
        """Visit everything."""
        self._visit("", self._file, 0)
        while self._groups:
            self._follow_links(*self._groups.pop(0))

    def _check_time(self) -> None:
        if self._clock() - self._started > self._limit:
            raise TimeoutError("the file has too many objects")

    def _is_new(self, obj: Any) -> bool:
        info = self._h5py.h5o.get_info(obj.id)
        key = (info.fileno, info.addr)
        if key in self._seen:
            return False
        self._seen.add(key)
        return True

    def _visit(self, prefix: str, group: Any, depth: int) -> None:
        """Everything below a group that hard links lead to."""
        self._is_new(group)
        self._groups.append((prefix, group, depth))

        def visit(name: str, obj: Any) -> None:
            self._check_time()
            if not self._is_new(obj):
                return
            if isinstance(obj, self._h5py.Group):
                self._groups.append((f"{prefix}{name}/", obj, depth))
            else:
                self._add(f"{prefix}{name}", obj)

        group.visititems(visit)

    def _add(self, name: str, obj: Any) -> None:
        if not isinstance(obj, self._h5py.Dataset) or obj.shape is None or len(obj.shape) < MIN_DIMS:
            return
        try:
            if is_pixel_dtype(obj.dtype):
                facts = (obj.shape, str(obj.dtype), obj.compression, obj.chunks)
                self.candidates.append(Candidate(name, *facts))
        except TypeError:  # h5py has no dtype for it
            return

    def _follow_links(self, prefix: str, group: Any, depth: int) -> None:
        links = []
        for name in group:
            kind = group.id.links.get_info(name.encode()).type
            if kind != self._h5py.h5l.TYPE_HARD:
                links.append((name, kind == self._h5py.h5l.TYPE_EXTERNAL))
        if not links or depth >= MAX_LINK_DEPTH:
            return
        self._add_linked_group(prefix, group, [n for n, external in links if external])
        for name, _ in links:
            self._check_time()
            target = _resolve(group, name)
            if target is None or not self._is_new(target):
                continue
            if isinstance(target, self._h5py.Group):
                self._visit(f"{prefix}{name}/", target, depth + 1)
            else:
                self._add(f"{prefix}{name}", target)

    def _add_linked_group(self, prefix: str, group: Any, names: list[str]) -> None:
        """The data files of a master file as one candidate."""
        found = []
        for name in names:
            self._check_time()
            target = _resolve(group, name) if LINKED_PART.fullmatch(name) else None
            if isinstance(target, self._h5py.Dataset) and is_pixel_dtype(target.dtype):
                found.append(target)
        kinds = {(d.shape[1:], d.dtype) for d in found}
        if len(kinds) != 1 or len(found[0].shape) < MIN_DIMS or not prefix:
            return
        first = found[0]
        shape = (sum(d.shape[0] for d in found), *first.shape[1:])
        facts = (shape, str(first.dtype), first.compression, first.chunks)
        self.candidates.append(Candidate(prefix.rstrip("/"), *facts, is_group=True))


def _resolve(group: Any, name: str) -> Any:
    """What a link leads to, None if it leads nowhere."""
    try:
        return group[name]
    except DataSetException:
        raise
    except LIBRARY_ERRORS:
        return None
