"""The files of an acquisition: which they are, in which order, and how many frames each holds.

The acquisition software cuts an acquisition into ``.mib`` files with a common prefix and a number, of one
frame each up to all in one. File names say nothing about the order (``x10.mib``, ``x2.mib``): the sequence
number in the first header of each file does. Frames within a file follow each other.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from libertem.common.math import prod
from libertem.exceptions import DataSetException, HeaderError, MissingFileError
from libertem.io.dataset.base.backends.rawio import RawFile, as_dataset_error
from libertem.io.dataset.base.framefile import FrameFacts, file_size, read_head
from libertem.io.dataset.mib.hdr import AcquisitionHeader, is_valid_hdr, read_hdr
from libertem.io.dataset.mib.header import MAGIC, Encoding, MIBHeader, choose_encoding, parse_header

__all__ = ["MIBFacts", "count_frames", "find_files", "find_hdr", "inspect_acquisition"]

HEAD_BYTES = 1 << 10
"""Holds the header of six chips; longer ones are read again."""

MANY_FILES = 16384
"""Above this, the user is told that another setting of the acquisition software is better."""

MIN_FILES_FOR_THREADS = 512

DIGITS = "0123456789"


@dataclass(frozen=True, kw_only=True)
class MIBFacts(FrameFacts):
    """What an acquisition holds."""

    header: MIBHeader
    """Of the first frame."""

    encoding: Encoding

    folder: str

    names: tuple[str, ...]
    """Files with at least one frame, in the order of their frames."""

    n_frames: tuple[int, ...]
    """Number of frames of each of these files."""


class FileFacts(NamedTuple):
    """What one file holds."""

    header: MIBHeader
    encoding: Encoding
    n_frames: int
    """Complete ones. None at all is normal at the end of an acquisition that was stopped."""
    name: str

    @property
    def sequences(self) -> range:
        """Sequence numbers of its frames."""
        return range(self.header.sequence, self.header.sequence + self.n_frames)


def find_files(path: str, *, disable_glob: bool = False) -> tuple[str, list[str]]:
    """Folder and names of the ``.mib`` files that belong to a path.

    Parameters
    ----------
    path : str
        The ``.hdr`` file, or one of the ``.mib`` files.
    disable_glob : bool
        Only the ``.mib`` file itself.

    Raises
    ------
    DataSetException
        If there are none.
    """
    folder, name = os.path.split(path)
    if disable_glob:
        return folder, [name]
    stem, extension = os.path.splitext(name)
    prefix = os.path.normcase(stem if extension.lower() == ".hdr" else stem.rstrip(DIGITS))
    with as_dataset_error(path):
        try:
            names = os.listdir(folder or os.curdir)
        except ValueError as err:
            raise DataSetException(f"not a possible path: {err}", path=path) from err
    found = [name for name in names if _belongs(os.path.normcase(name), prefix)]
    if not found:
        raise MissingFileError(
            "no files found", path=path, expected=f"files {os.path.join(folder, prefix)}*.mib"
        )
    return folder, sorted(found)


def _belongs(name: str, prefix: str) -> bool:
    # Hidden files: other systems leave things of their own, such as ``._scan.mib``.
    return name.startswith(prefix) and name[-4:].lower() == ".mib" and (prefix != "" or name[0] != ".")


def inspect_acquisition(path: str, *, disable_glob: bool = False, needs_nav_shape: bool = False) -> MIBFacts:
    """Facts about all files that belong to a path, from the first header of each.

    Parameters
    ----------
    path : str
        The ``.hdr`` file, or one of the ``.mib`` files.
    disable_glob : bool
        Only the ``.mib`` file itself.
    needs_nav_shape : bool
        Whether the ``.hdr`` file has to tell the shape of the scan.

    Raises
    ------
    DataSetException
        If files are missing, damaged or do not belong together.
    """
    hdr = read_hdr(path) if path.lower().endswith(".hdr") else None
    folder, names = find_files(path, disable_glob=disable_glob)
    depth = _depth_from_hdr(path, hdr)
    looks = list(_look_into(folder, names, depth))
    files = [file for file in looks if isinstance(file, FileFacts)]
    files.sort(key=lambda file: (file.header.sequence, file.name))
    if not any(file.n_frames for file in files):
        raise _no_frames(folder, names)
    _check_same_kind(folder, files)
    _check_sequences(folder, files)
    first = files[0].header.sequence
    for name in looks:
        if isinstance(name, str) and first > 1:
            raise DataSetException(
                f"frames before number {first} may be missing: the file ends within its first header",
                path=os.path.join(folder, name),
                found=f"{file_size(os.path.join(folder, name))} bytes",
                hint="copy the file again, or remove it to load the others",
            )
    files = [file for file in files if file.n_frames]
    _check_second_header(folder, files)
    return _summarize(path, folder, files, hdr if needs_nav_shape else None, len(names))


def _no_frames(folder: str, names: list[str]) -> HeaderError:
    path = os.path.join(folder, names[0])
    return HeaderError(
        "no complete frames in the file" if len(names) == 1 else f"no complete frames in {len(names)} files",
        path=path,
        found=f"{file_size(path)} bytes",
        expected="at least a frame header and the pixels that it announces",
        hint="copy the file again: the transfer probably broke off",
    )


def _depth_from_hdr(path: str, hdr: AcquisitionHeader | None) -> int | None:
    """Counter depth for frame headers that do not have it."""
    if hdr is None:
        hdr = find_hdr(path)
    return None if hdr is None else hdr.counter_depth


def find_hdr(path: str) -> AcquisitionHeader | None:
    """The ``.hdr`` file beside a ``.mib`` file; None if there is none."""
    stem = os.path.splitext(path)[0]
    for candidate in dict.fromkeys((f"{stem}.hdr", f"{stem.rstrip(DIGITS)}.hdr")):
        if is_valid_hdr(candidate):
            return read_hdr(candidate)
    return None


def _look_into(folder: str, names: list[str], depth: int | None) -> Iterator[FileFacts | str]:
    def look(name: str) -> FileFacts | str:
        return _look_into_file(folder, name, depth)

    if len(names) <= MIN_FILES_FOR_THREADS:
        yield from map(look, names)
        return
    from concurrent.futures import ThreadPoolExecutor

    # Opening is latency, not work: more threads than these were slower.
    n_threads = max(2, (os.cpu_count() or 1) // 2) if sys.platform == "win32" else 2
    chunks = [names[start : start + 256] for start in range(0, len(names), 256)]
    with ThreadPoolExecutor(n_threads) as pool:
        for chunk in pool.map(lambda part: [look(name) for name in part], chunks):
            yield from chunk


def _look_into_file(folder: str, name: str, depth: int | None) -> FileFacts | str:
    """Facts about a file, or its name if it ends before its first header does."""
    path = os.path.join(folder, name)
    n_bytes = HEAD_BYTES
    while True:
        head = read_head(path, n_bytes)
        header = parse_header(head.raw, path=path)
        if isinstance(header, MIBHeader):
            break
        if header > head.size:
            return name
        n_bytes = header
    encoding = choose_encoding(header, path=path, counter_depth=depth)
    return FileFacts(header, encoding, head.size // (header.header_bytes + encoding.image_bytes), name)


def _check_same_kind(folder: str, files: list[FileFacts]) -> None:
    first = files[0]
    for file in files:
        if file.encoding != first.encoding or file.header.header_bytes != first.header.header_bytes:
            raise HeaderError(
                "the files do not belong to the same acquisition",
                path=os.path.join(folder, file.name),
                found=file.header.describe(),
                expected=f"{first.header.describe()}, as in {first.name}",
                hint="pass disable_glob=True to load a single file",
            )


def _check_sequences(folder: str, files: list[FileFacts]) -> None:
    before = files[0]
    for after in files[1:]:
        expected, found = before.sequences.stop, after.sequences.start
        if found < expected and after.n_frames == 0:
            continue
        if found != expected:
            raise _not_consecutive(folder, before, after)
        before = after


def _not_consecutive(folder: str, before: FileFacts, after: FileFacts) -> DataSetException:
    path = os.path.join(folder, after.name)
    where = f"{_describe_frames(after)}, {_describe_frames(before)}"
    expected, found = before.sequences.stop, after.sequences.start
    if found < expected:
        return DataSetException(
            "the sequence numbers of the files overlap",
            path=path,
            found=where,
            expected="files of one acquisition",
            hint="several acquisitions share this prefix: pass disable_glob=True to load a single file",
        )
    return DataSetException(
        f"frames {expected} to {found - 1} are missing between the files",
        path=path,
        found=where,
        expected="consecutive sequence numbers",
        hint="copy the missing files again, or pass disable_glob=True to load a single file",
    )


def _describe_frames(file: FileFacts) -> str:
    if file.n_frames == 0:
        return f"an incomplete frame {file.header.sequence} in {file.name}"
    return f"frames {file.sequences.start} to {file.sequences.stop - 1} in {file.name}"


def _check_second_header(folder: str, files: list[FileFacts]) -> None:
    """Check a header behind a frame, which shows that the frames have the size that the first one says."""
    file = next((file for file in files if file.n_frames > 1), None)
    if file is None:
        return
    path = os.path.join(folder, file.name)
    start = file.header.header_bytes + file.encoding.image_bytes
    found = np.empty(len(MAGIC), dtype=np.uint8)
    with RawFile(path) as opened:
        opened.read_into(found, start)
    if found.tobytes() != MAGIC:
        raise HeaderError(
            "the frames have another size than the first header says",
            path=path,
            found=f"{found.tobytes()!r} at byte {start}, and {file.header.describe()}",
            expected=f"{MAGIC!r}, the header of the second frame",
            hint="the file is damaged?",
        )


def _summarize(
    path: str, folder: str, files: list[FileFacts], hdr: AcquisitionHeader | None, n_names: int
) -> MIBFacts:
    first = files[0]
    image_count = sum(file.n_frames for file in files)
    nav_shape = () if hdr is None else hdr.nav_shape(image_count, path=path)
    return MIBFacts(
        dtype=first.encoding.dtype,
        image_count=image_count,
        nav_shape=nav_shape,
        sig_shape=first.encoding.sig_shape,
        notices=tuple(_notices(path, n_names, image_count, nav_shape)),
        header=first.header,
        encoding=first.encoding,
        folder=folder,
        names=tuple(file.name for file in files),
        n_frames=tuple(file.n_frames for file in files),
    )


def _notices(path: str, n_names: int, image_count: int, nav_shape: Iterable[int]) -> Iterator[str]:
    if n_names > MANY_FILES:
        yield (
            f"{path}: Saving data in many small files (here: {n_names}) is not efficient: they are slow "
            "to open and may exceed the limit of open files. Increase 'Images Per File' in the software "
            "of the detector."
        )
    promised = prod(nav_shape)
    if promised > image_count:
        yield (
            f"{path}: the .hdr file promises {promised} frames, the .mib files hold {image_count}: "
            f"frames {image_count} to {promised - 1} are blank"
        )


def count_frames(path: str) -> tuple[Encoding, int, AcquisitionHeader | None]:
    """Encoding, number of frames and ``.hdr`` file of an acquisition, from one header and the sizes of files.

    For detection, which may not read much: files that do not belong together are noticed by
    `inspect_acquisition`.
    """
    hdr = read_hdr(path) if path.lower().endswith(".hdr") else None
    folder, names = find_files(path)
    sizes = {name: file_size(os.path.join(folder, name)) for name in names}
    depth = _depth_from_hdr(path, hdr)
    own = os.path.basename(path)
    name = own if own in sizes else max(sizes, key=lambda name: sizes[name])
    file = _look_into_file(folder, name, depth)
    if not isinstance(file, FileFacts) or not file.n_frames:
        raise _no_frames(folder, [name])
    record_bytes = file.header.header_bytes + file.encoding.image_bytes
    return file.encoding, sum(size // record_bytes for size in sizes.values()), hdr
