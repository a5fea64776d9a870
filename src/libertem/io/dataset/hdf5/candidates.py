"""Find the data sets of an HDF5 file that could be the data, and the one that is most likely meant.

Candidates have at least three axes and numbers as elements. Hard links are followed first, in the order of names; then
soft and external links, each object once. A group of external links ``data_000001``, ``data_000002``, ... as in the
master files of DECTRIS detectors is one candidate more.

NeXus files say what is to be shown: the attribute ``default`` of each group names the next one, down to the NXdata group,
whose attribute ``signal`` names the data set (older files: that has an attribute ``signal`` itself). Source: NeXus manual,
"Associating plottable data".
"""  # noqa: E501

from __future__ import annotations

import itertools
import os
import posixpath
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from libertem.common.math import prod
from libertem.exceptions import DataSetException
from libertem.io.dataset.hdf5.library import LIBRARY_ERRORS, as_hdf5_error, import_h5py, open_hdf5

__all__ = [
    "LINKED_PART",
    "Candidate",
    "Found",
    "attribute",
    "choose",
    "describe_link",
    "find_candidates",
    "is_pixel_dtype",
    "list_candidates",
]

LINKED_PART = re.compile(r"data_\d+")
"""Names of the links to data files in master files."""

MIN_DIMS = 3
SCAN_DIMS = 4

MAX_SECONDS = 3
"""The walk is given up after this time; some files hold millions of objects."""

MAX_MARKED = 100
"""Members of an NXdata group that are looked at for the mark of the signal."""

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
    is_default: bool = False
    """Whether a NeXus file says that this is to be shown."""

    @property
    def is_scan(self) -> bool:
        """Whether this is a scan with two axes or more, of frames with more than one pixel."""
        axes = self.shape
        return len(axes) >= SCAN_DIMS and prod(axes[:-2]) > 1 and prod(axes[-2:]) > 1


class Found(NamedTuple):
    """What a search has found."""

    candidates: tuple[Candidate, ...]
    """Empty if the search took too long."""
    default: str | None
    """Path of what a NeXus file shows; known even then."""
    is_complete: bool
    """False if the search took too long."""
    dangling: tuple[str, ...] = ()
    """Links that lead nowhere, in words."""


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
    """The one that is most likely meant.

    That is the only one with four axes or more, if there is exactly one; then what a NeXus file says is to be
    shown, unless others have more axes; then the one with most elements, and of the same size a group rather
    than a virtual data set.
    """
    usable = [c for c in candidates if prod(c.shape) > 0]
    scans = [c for c in usable if c.is_scan]
    if len(scans) == 1:
        return scans[0]
    default = next((c for c in scans or usable if c.is_default), None)
    if default is not None:
        return default
    return max(usable, key=lambda c: (prod(c.shape), c.is_group), default=None)


def list_candidates(path: str, clock: Callable[[], float]) -> tuple[Candidate, ...]:
    """Candidates of a file; none if the search takes too long."""
    with open_hdf5(path) as file:
        return find_candidates(file, clock).candidates


def find_candidates(file: Any, clock: Callable[[], float]) -> Found:
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
            return Found((), search.default, is_complete=False)
    return Found(tuple(search.candidates), search.default, True, tuple(search.dangling))


class _Search:
    """State of a walk through a file."""

    def __init__(self, file: Any, clock: Callable[[], float]) -> None:
        self._file = file
        self._h5py = import_h5py()
        self._clock = clock
        self._limit = time_limit()
        self._started = clock()
        self._seen: set[tuple[int, int]] = set()
        self._groups: deque[tuple[str, Any, int]] = deque()
        # Files that links lead to stay open: opened again, their objects would count as new ones.
        self._files: dict[int, Any] = {}
        self._shown: tuple[int, int] | None = None
        self.default: str | None = None
        self.candidates: list[Candidate] = []
        self.dangling: list[str] = []

    def run(self) -> None:
        """Visit everything."""
        self._find_default()
        self._visit("", self._file, 0)
        while self._groups:
            self._follow_links(*self._groups.popleft())

    def _check_time(self) -> None:
        if self._clock() - self._started > self._limit:
            raise TimeoutError("the file has too many objects")

    def _find_default(self) -> None:
        """Follow a NeXus file to what it shows."""
        path, group = "/", self._file
        for _ in range(MAX_LINK_DEPTH):
            if _text(group, "NX_class") == "NXdata":
                break
            path = posixpath.join(path, _text(group, "default") or "")
            group = None if path.endswith("/") else _resolve(self._file, path)
            if not isinstance(group, self._h5py.Group):
                return
        else:
            return
        if any(LINKED_PART.fullmatch(name) for name in group):
            # A master file shows its first data file, and means all of them.
            self._shown, self.default = self._key(group), path
            return
        path = posixpath.join(path, _text(group, "signal") or self._marked(group) or "data")
        shown = _resolve(self._file, path)
        if isinstance(shown, self._h5py.Dataset):
            self._shown, self.default = self._key(shown), path

    def _marked(self, group: Any) -> str | None:
        """The data set that is marked as signal, as in older files."""
        for name in itertools.islice(group, MAX_MARKED):
            if name in group and str(attribute(group[name], "signal")) == "1":
                return str(name)
        return None

    def _key(self, obj: Any) -> tuple[int, int]:
        info = self._h5py.h5o.get_info(obj.id)
        self._files.setdefault(info.fileno, obj)
        return info.fileno, info.addr

    def _is_new(self, obj: Any) -> bool:
        key = self._key(obj)
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
                shown = self._key(obj) == self._shown
                self.candidates.append(Candidate(name, *facts, is_default=shown))
        except TypeError:  # h5py has no dtype for it
            return

    def _follow_links(self, prefix: str, group: Any, depth: int) -> None:
        links = []
        for name in group:
            self._check_time()
            kind = group.id.links.get_info(name.encode()).type
            if kind != self._h5py.h5l.TYPE_HARD:
                links.append((name, kind == self._h5py.h5l.TYPE_EXTERNAL))
        if not links or depth >= MAX_LINK_DEPTH:
            return
        self._add_linked_group(prefix, group, [n for n, external in links if external])
        for name, _ in links:
            self._check_time()
            target = _resolve(group, name)
            if target is None:
                self.dangling.append(f"{prefix}{name} -> {describe_link(group, name)}")
                continue
            if not self._is_new(target):
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
        shown = self._key(group) == self._shown
        self.candidates.append(Candidate(prefix.rstrip("/"), *facts, is_group=True, is_default=shown))


def _resolve(group: Any, name: str) -> Any:
    """What a link leads to, None if it leads nowhere."""
    try:
        return group[name]
    except DataSetException:
        raise
    except LIBRARY_ERRORS:
        return None


def describe_link(group: Any, name: str) -> str:
    """Where a link should lead: the file if it is another one, else the path."""
    link = group.get(name, getlink=True)
    return str(getattr(link, "filename", None) or getattr(link, "path", None) or name)


def attribute(obj: Any, name: str) -> Any:
    """An attribute as text or number, None if there is none that can be read."""
    try:
        value = obj.attrs.get(name)
    except LIBRARY_ERRORS:
        return None
    value = value.item() if isinstance(value, np.ndarray | np.generic) and value.size == 1 else value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _text(obj: Any, name: str) -> str | None:
    """The same if it is text."""
    value = attribute(obj, name)
    return value if isinstance(value, str) else None
