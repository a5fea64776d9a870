"""The files of a series: finding them, counting frames, reading fields of image headers."""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from libertem.exceptions import DataSetException, MissingFileError, SizeMismatchError
from libertem.io.dataset.base.backends.rawio import RawFile, as_dataset_error
from libertem.io.dataset.base.framefile import file_size
from libertem.io.dataset.tvips.header import HEADER_BYTES, ImageHeaderField, TVIPSHeader

__all__ = ["Series", "count_frames", "file_header_bytes", "find_series", "read_field"]

SERIES_NAME = re.compile(r"(.*_)([0-9]{3})", re.DOTALL)

READS_AHEAD = 64
"""Image headers that are asked for at a time, so that a slow file system can fetch them together."""


@dataclass(frozen=True)
class Series:
    """The files of a series."""

    start: str
    """What the paths have in common before the number."""

    end: str
    """What comes after it, or the whole rest of the path if there is no number."""

    n_files: int | None
    """How many files there are, numbered from 0. None: one file without a number."""

    notices: tuple[str, ...] = ()
    """What the user has to know about files that were found."""

    @property
    def paths(self) -> list[str]:
        """All files in order."""
        if self.n_files is None:
            return [self.start + self.end]
        return [f"{self.start}{number:03}{self.end}" for number in range(self.n_files)]


def find_series(path: str) -> Series:
    """Find the files that belong to the same series as `path`, up to the first that is missing.

    Raises
    ------
    DataSetException
        If `path` does not exist or has another extension, or if it or the first file cannot be reached
        without a gap in the numbers.
    """
    file_size(path)
    stem, extension = os.path.splitext(path)
    if extension.lower() != ".tvips":
        raise DataSetException("unknown extension", path=path, found=repr(extension), expected=".tvips")
    folder, name = os.path.split(stem)
    parts = SERIES_NAME.fullmatch(name)
    if parts is None:
        return Series(start=stem, end=extension, n_files=None)
    start = stem[:-3]
    own = int(parts[2])
    with as_dataset_error(path):
        names = os.listdir(folder or os.curdir)
    numbers = sorted({own, *_numbers_of(names, parts[1], extension)})
    if numbers[0] != 0:
        raise MissingFileError(
            "the first file of the series is missing, which describes all others",
            path=f"{start}000{extension}",
            found=f"numbers {numbers[0]:03} to {numbers[-1]:03}",
            hint="put all files of the series into one folder",
        )
    n_files = next((n for n, number in enumerate(numbers) if n != number), len(numbers))
    gap = f"{start}{n_files:03}{extension}"
    if own > n_files:
        raise MissingFileError(
            "a file of the series is missing, so that its place is not known",
            path=gap,
            hint=f"put it beside {path}, or open {start}000{extension} to read what is before the gap",
        )
    notice = (
        f"{gap} is missing: reading the {n_files} files before it, not the {len(numbers) - n_files} after"
    )
    return Series(start, extension, n_files, notices=(notice,) if len(numbers) > n_files else ())


def _numbers_of(names: Iterable[str], prefix: str, extension: str) -> Iterator[int]:
    # File systems that ignore case list other names than the one that was opened.
    prefix, extension = os.path.normcase(prefix), os.path.normcase(extension)
    for name in map(os.path.normcase, names):
        parts = SERIES_NAME.fullmatch(name[: -len(extension)])
        if parts is not None and parts[1] == prefix and name.endswith(extension):
            yield int(parts[2])


def file_header_bytes(number: int) -> int:
    """Bytes before the first frame in the file of that number."""
    return HEADER_BYTES if number == 0 else 0


def count_frames(series: Series, header: TVIPSHeader) -> tuple[list[int], list[str]]:
    """Number of whole frames in each file, and what the user has to know about the last one."""
    counts, notices = [], []
    paths = series.paths
    for number, path in enumerate(paths):
        size = file_size(path)
        count, rest = divmod(size - file_header_bytes(number), header.stride)
        counts.append(count)
        if rest == 0:
            continue
        if number < len(paths) - 1:
            raise SizeMismatchError(
                "a file of the series does not end with a whole frame",
                path=path,
                found=f"{size} bytes, {count} frames and {rest} bytes",
                expected=f"frames of {header.stride} bytes",
                hint="copy the file again: the transfer probably broke off",
            )
        notices.append(f"{path}: the last frame is incomplete and ignored, {count} whole ones are read")
    return counts, notices


def read_field(
    field: ImageHeaderField, series: Series, counts: Sequence[int], header: TVIPSHeader, frames: range
) -> Generator[tuple[Any, ...], None, None]:
    """Read a field from the image headers of consecutive frames, one by one as they are asked for.

    Parameters
    ----------
    counts : sequence of int
        Number of frames in each file.
    frames : range
        The frames, with step 1.
    """
    raw = np.empty(field.format.size, dtype=np.uint8)
    before = 0
    for number, (path, count) in enumerate(zip(series.paths, counts, strict=True)):
        local = range(max(0, frames.start - before), min(count, frames.stop - before))
        before += count
        if not local:
            continue
        first = file_header_bytes(number) + field.offset
        with RawFile(path) as file:
            for start in range(0, len(local), READS_AHEAD):
                offsets = [first + idx * header.stride for idx in local[start : start + READS_AHEAD]]
                for offset in offsets:
                    file.advise_willneed(offset, raw.size)
                for offset in offsets:
                    file.read_into(raw, offset)
                    yield field.format.unpack(raw.data)
