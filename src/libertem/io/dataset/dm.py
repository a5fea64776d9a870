"""Read DM3 and DM4 files of Digital Micrograph: one file, or a stack of them.

Each file of a stack holds one image or several of the same size:

| images in the file | the one that is used |
|--------------------|----------------------|
| one | that one |
| two or more | the second, because the first is a thumbnail |

Its axes are, slowest first, (z,) y, x. The place of the pixels differs from file to file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from libertem.common.math import prod
from libertem.exceptions import DataSetException, SizeMismatchError
from libertem.io.dataset.base.backends.contract import IOBackend
from libertem.io.dataset.base.files import File, FileSet
from libertem.io.dataset.base.framefile import FrameFacts, file_size, renamed_parameter
from libertem.io.dataset.base.metadata import Metadata
from libertem.io.dataset.dm_single import (
    DMDataSet,
    DMDatasetParams,
    SingleDMDataSet,
    read_images,
    read_metadata,
)

if TYPE_CHECKING:
    from libertem.common.protocols import ExecutorProtocol

__all__ = ["DMDataSet", "DMDatasetParams", "SingleDMDataSet", "StackedDMDataSet"]

T = TypeVar("T")

N_THREADS = 8
"""They wait for the file system most of the time, if that is a slow one."""

FILES_PER_TASK = 16


@dataclass(frozen=True)
class Member:
    """What one file of a stack holds."""

    dtype: np.dtype[Any]
    """As stored, with byte order."""

    sig_shape: tuple[int, int]
    """(height, width) of its frames."""

    n_frames: int
    """How many there are."""

    offset: int
    """Byte where the first one starts."""

    index: int
    """Which image of the file it is."""


@dataclass(frozen=True, kw_only=True)
class StackFacts(FrameFacts):
    """What the files of a stack hold."""

    offsets: tuple[int, ...]
    """Byte where the pixels start, for each file."""

    frame_counts: tuple[int, ...]
    """Number of frames, for each file."""

    image_index: int
    """Which image of the first file is used."""


def inspect_member(path: str) -> Member:
    """What one file of a stack holds."""
    images = read_images(path)
    if not images:
        raise DataSetException("the DM file has no images", path=path)
    image = images[min(1, len(images) - 1)]
    if len(image.dims) not in (2, 3):
        raise DataSetException(
            "files of a stack have to hold images or stacks of images",
            path=path,
            found=f"the shape {image.dims[::-1]}",
            expected="two or three axes",
            hint='load it alone, with ctx.load("dm", path=...)',
        )
    dtype, offset = image.locate(path=path)
    width, height = image.dims[:2]
    return Member(dtype, (height, width), prod(image.dims[2:]), offset, image.index)


def inspect_stack(paths: Sequence[str], *, same_offset: bool) -> StackFacts:
    """What the files of a stack hold; `same_offset` if all are like the first one."""
    first = inspect_member(paths[0])
    members = [first]
    if same_offset:
        for path, size in zip(paths[1:], _for_each(file_size, paths[1:]), strict=True):
            _check_size(first, size, path)
            members.append(first)
    else:
        for path, member in zip(paths[1:], _for_each(inspect_member, paths[1:]), strict=True):
            _check_same(first, member, path)
            members.append(member)
    n = sum(member.n_frames for member in members)
    return StackFacts(
        dtype=first.dtype,
        image_count=n,
        nav_shape=(n,),
        sig_shape=first.sig_shape,
        offsets=tuple(member.offset for member in members),
        frame_counts=tuple(member.n_frames for member in members),
        image_index=first.index,
    )


def _for_each(function: Callable[[str], T], paths: Sequence[str]) -> Iterator[T]:
    """Values of a function for all files, in the order of these."""
    parts = [paths[start : start + FILES_PER_TASK] for start in range(0, len(paths), FILES_PER_TASK)]
    if not parts:
        return
    pool = ThreadPoolExecutor(max_workers=min(N_THREADS, len(parts)))
    try:
        for values in pool.map(lambda part: [function(path) for path in part], parts):
            yield from values
    finally:
        # After an error nobody wants to know what is in the thousand other files.
        pool.shutdown(cancel_futures=True)


def _check_size(first: Member, size: int, path: str) -> None:
    n_bytes = first.offset + first.n_frames * prod(first.sig_shape) * first.dtype.itemsize
    if size < n_bytes:
        raise SizeMismatchError(
            "the file is too short for the pixels of the first one of the stack",
            path=path,
            found=f"{size} bytes",
            expected=f"{n_bytes} or more",
            hint="leave out same_offset",
        )


def _check_same(first: Member, member: Member, path: str) -> None:
    if (member.dtype, member.sig_shape) != (first.dtype, first.sig_shape):
        raise SizeMismatchError(
            "the file does not fit the first one of the stack",
            path=path,
            found=f"frames of {member.sig_shape} {member.dtype}",
            expected=f"{first.sig_shape} {first.dtype}",
            hint="take it out of the list",
        )


class StackedDMDataSet(DMDataSet, takes="files"):
    """Read a stack of DM3 or DM4 files that hold images of the same size.

    Parameters
    ----------
    files : list of str or path-like
        The files, in the order of the navigation axis. The package ``natsort`` can sort names by the numbers
        in them.
    scan_size
        Deprecated, use `nav_shape`.
    same_offset : bool
        Read the tags of the first file only, and find the pixels of all others at the same place. Saves time
        if that is known to be true. Otherwise the pixels are wrong.
    nav_shape : sequence of int, optional
        Shape of the scan, any number of axes; ``(number of frames,)`` by default. Frames that the files lack
        are blank.
    sig_shape : sequence of int, optional
        Another shape for as many pixels as a frame has.
    sync_offset : int
        Frames to skip (> 0) or blanks to insert (< 0) at the start.
    io_backend : IOBackend, optional
        How to read.
    num_partitions : int, optional
        Overrides the number of partitions.

    Raises
    ------
    DataSetException
        If `files` is no list, or a file cannot be read or does not fit the others.

    Examples
    --------
    >>> ds = ctx.load("dm", files=["image_1.dm3", "image_2.dm3"])  # doctest: +SKIP
    """

    _facts: StackFacts | None

    def __init__(
        self,
        files: Any = None,
        scan_size: Any = None,
        same_offset: bool = False,
        nav_shape: Any = None,
        sig_shape: Any = None,
        sync_offset: int | None = 0,
        io_backend: IOBackend | None = None,
        num_partitions: int | None = None,
    ) -> None:
        nav_shape = renamed_parameter("scan_size", scan_size, "nav_shape", nav_shape)
        if not isinstance(files, list | tuple):
            raise DataSetException(
                f"files has to be a list or tuple of paths, received {type(files)}",
                hint="use path= for a single file",
            )
        if not files:
            raise DataSetException("need at least one file as input!", found="an empty list")
        self._files = tuple(os.fspath(file) for file in files)
        super().__init__(self._files[0], nav_shape, sig_shape, sync_offset, io_backend, num_partitions)
        self._same_offset = same_offset

    @classmethod
    def detect_params(cls, path: Any, executor: ExecutorProtocol) -> bool:
        """Always False: one file says nothing about a stack."""
        return False

    def _inspect(self) -> StackFacts:
        return inspect_stack(self._files, same_offset=self._same_offset)

    def _read_metadata(self) -> Metadata:
        assert self._facts is not None
        metadata = read_metadata(self._path, self._facts.image_index, sig_dims=2)
        # The files are what the navigation axis counts, not the images of the first one.
        return replace(metadata, nav_axes=())

    def _get_fileset(self) -> FileSet:
        assert self._facts is not None
        files = []
        start = 0
        facts = self._facts
        for path, offset, count in zip(self._files, facts.offsets, facts.frame_counts, strict=True):
            stop = start + count
            files.append(File(path, start, stop, facts.dtype, self.shape.sig, file_header=offset))
            start = stop
        return FileSet(files)

    def get_diagnostics(self) -> list[dict[str, Any]]:
        """Dtype, and how many files there are."""
        return [*super().get_diagnostics(), {"name": "Number of files", "value": len(self._files)}]

    def get_cache_key(self) -> dict[str, Any]:
        """What all file formats have, and all files."""
        return {**super().get_cache_key(), "files": list(self._files)}

    def __repr__(self) -> str:
        return f"<DMDataSet for a stack of {len(self._files)} files>"
