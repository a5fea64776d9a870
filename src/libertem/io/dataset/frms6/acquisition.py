"""The files of an acquisition, and what their headers say.

Each ``.frms6`` file, all numbers little-endian:

| offset | bytes | type | meaning |
|-------:|------:|------|---------|
|      0 |     2 | u2   | bytes of this header, 1024 |
|      2 |     2 | u2   | bytes of the header of each frame, 64 |
|      7 |     1 | u1   | version, 6 |
|     88 |     2 | u2   | width: columns of both halves of the sensor together |
|     90 |     2 | u2   | height: rows of a half, after binning |
|   1020 |     4 | u4   | number of frames; 0 in older files |
|   1024 |       |      | frames: a header of 64 bytes, which is skipped, and height · width pixels, u2 |

Sources: pnCCD library (``fformat.h``), CASS (``frms6_file_header.h``), stemtool (``pnccd.py``).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from libertem.exceptions import DataSetException, HeaderError, MissingFileError, SizeMismatchError
from libertem.io.dataset.base.backends.rawio import as_dataset_error
from libertem.io.dataset.base.framefile import file_size, read_head
from libertem.io.dataset.frms6.hdr import MAX_HDR_BYTES, Hdr, parse_hdr

__all__ = [
    "FRAME_HEADER_BYTES",
    "HEADER_BYTES",
    "Acquisition",
    "FRMS6File",
    "find_files",
    "parse_header",
    "read_acquisition",
    "read_hdr",
    "read_header",
]

HEADER_BYTES = 1024
FRAME_HEADER_BYTES = 64
VERSION = 6

HEADER_DTYPE = np.dtype(
    {
        "names": ["header_bytes", "frame_header_bytes", "version", "width", "height", "n_frames"],
        "formats": ["<u2", "<u2", "u1", "<u2", "<u2", "<u4"],
        "offsets": [0, 2, 7, 88, 90, 1020],
        "itemsize": HEADER_BYTES,
    }
)

FRAME_FILE = ".frms6"
HDR_FILE = ".hdr"
NUMBERED = re.compile(r"(.*)_([0-9]{1,9})", re.DOTALL)


@dataclass(frozen=True)
class FRMS6File:
    """A ``.frms6`` file."""

    path: str

    raw_shape: tuple[int, int]
    """(rows, columns) of a frame as stored, with the halves of the sensor side by side."""

    n_frames: int

    @property
    def frame_bytes(self) -> int:
        """Bytes of the pixels of one frame."""
        return 2 * self.raw_shape[0] * self.raw_shape[1]

    @property
    def stride(self) -> int:
        """Bytes from one frame to the next."""
        return FRAME_HEADER_BYTES + self.frame_bytes


@dataclass(frozen=True)
class FileNames:
    """Where the files of an acquisition are."""

    hdr: str

    numbered: dict[int, str]
    """Paths of all ``.frms6`` files by their number, in ascending order. At least one."""


@dataclass(frozen=True)
class Acquisition:
    """All files of an acquisition."""

    hdr_path: str

    hdr: Hdr

    dark: FRMS6File | None
    """The file of the dark frames, None if there is none."""

    signal: tuple[FRMS6File, ...]
    """The files of the scan in order. At least one."""

    @property
    def raw_shape(self) -> tuple[int, int]:
        """(rows, columns) of a frame as stored."""
        return self.signal[0].raw_shape


def read_acquisition(path: str) -> Acquisition:
    """Find all files of an acquisition and read their headers.

    Parameters
    ----------
    path : str
        The ``.hdr`` file, or any of the ``.frms6`` files.

    Raises
    ------
    DataSetException
        If files are missing, damaged or do not belong together.
    """
    names = find_files(path)
    hdr = read_hdr(names.hdr)
    files = {number: read_header(name) for number, name in names.numbered.items()}
    shapes = {file.raw_shape: file.path for file in files.values()}
    if len(shapes) > 1:
        (shape, _), (other_shape, other) = list(shapes.items())[:2]
        raise DataSetException(
            "the frames of the files of this acquisition have different sizes",
            path=other,
            found=f"{other_shape} pixels",
            expected=f"{shape} as in the other files",
            hint="move files that do not belong to it to another folder",
        )
    dark = files.pop(0, None)
    if not files:
        raise MissingFileError(
            "there are only dark frames",
            path=names.hdr,
            found=os.path.basename(names.numbered[0]),
            expected="also files with numbers from 1 on",
        )
    _check_numbers(names)
    return Acquisition(names.hdr, hdr, dark, tuple(files.values()))


def _check_numbers(names: FileNames) -> None:
    """Refuse gaps: nothing says how many frames a missing file had, so that all later ones would move."""
    numbers = [0, *(number for number in names.numbered if number > 0)]
    for before, after in pairwise(numbers):
        if after != before + 1:
            raise MissingFileError(
                f"the file with number {before + 1} is missing",
                path=names.hdr,
                found=f"{os.path.basename(names.numbered[after])} as the next one",
                hint="copy all files of the acquisition to the same folder",
            )


def find_files(path: str) -> FileNames:
    """Find the files that belong to one of them, by name and number.

    Raises
    ------
    DataSetException
        If `path` has another extension, or files are missing.
    """
    stem, extension = os.path.splitext(path)
    base = stem
    if extension.lower() == FRAME_FILE:
        match = NUMBERED.fullmatch(os.path.basename(stem))
        base = os.path.join(os.path.dirname(stem), match[1]) if match else stem
    elif extension.lower() != HDR_FILE:
        raise DataSetException(
            f"unknown extension: {extension}",
            path=path,
            found=repr(extension),
            expected=f"{HDR_FILE} or {FRAME_FILE}",
        )
    file_size(path)
    return _list_files(base, path)


def _list_files(base: str, path: str) -> FileNames:
    folder, base_name = os.path.split(base)
    with as_dataset_error(path):
        entries = sorted(os.listdir(folder or os.curdir))
    hdr_names, numbered = [], []
    for entry in entries:
        stem, extension = os.path.splitext(entry)
        match = NUMBERED.fullmatch(stem)
        if extension.lower() == HDR_FILE and stem == base_name:
            hdr_names.append(entry)
        elif extension.lower() == FRAME_FILE and match is not None and match[1] == base_name:
            numbered.append((int(match[2]), entry))
    own_name = os.path.basename(path)
    if own_name in hdr_names:
        hdr_names = [own_name]
    if not hdr_names:
        hdr_path = f"{base}{HDR_FILE}"
        raise MissingFileError(f"Could not find .hdr file {hdr_path}", path=path, expected=hdr_path)
    if not numbered:
        raise MissingFileError(
            "there are no .frms6 files beside the .hdr file",
            path=path,
            expected=f"{base_name}_001{FRAME_FILE}",
        )
    numbered.sort()
    for (number, name), (other, other_name) in pairwise(numbered):
        if number == other:
            raise DataSetException(f"two files have the number {number}", path=path, found=[name, other_name])
    return FileNames(
        hdr=os.path.join(folder, hdr_names[0]),
        numbered={number: os.path.join(folder, name) for number, name in numbered},
    )


def read_hdr(path: str) -> Hdr:
    """Read a ``.hdr`` file.

    Raises
    ------
    DataSetException
        If that is impossible.
    """
    head = read_head(path, MAX_HDR_BYTES)
    if head.size > MAX_HDR_BYTES:
        raise HeaderError(
            "not the .hdr file of a pnCCD acquisition: it is too long",
            path=path,
            found=f"{head.size} bytes",
            expected=f"{MAX_HDR_BYTES} at most",
        )
    return parse_hdr(head.raw, path=path)


def read_header(path: str) -> FRMS6File:
    """Read the header of a ``.frms6`` file.

    Raises
    ------
    DataSetException
        If that is impossible.
    """
    head = read_head(path, HEADER_BYTES)
    return parse_header(head.raw, path=path, file_size=head.size)


def parse_header(raw: bytes, *, path: str, file_size: int) -> FRMS6File:
    """Turn the first bytes of a ``.frms6`` file into facts.

    Parameters
    ----------
    raw : bytes
        At least the first `HEADER_BYTES` bytes of the file.
    path : str
        Where `raw` came from. Named in errors, never opened.
    file_size : int
        Of the whole file, in bytes: its frames have to fit.

    Raises
    ------
    HeaderError
        If this is no FRMS6 file.
    SizeMismatchError
        If the file does not hold the frames that it should.
    """
    if len(raw) < HEADER_BYTES:
        raise HeaderError(
            f"error while checking validity of {path}: the file ends inside its header",
            path=path,
            found=f"{len(raw)} bytes",
            expected=f"at least {HEADER_BYTES}",
            hint="copy the file again: the transfer probably broke off",
        )
    record = np.frombuffer(raw, dtype=HEADER_DTYPE, count=1)[0]
    fields = {name: int(record[name]) for name in HEADER_DTYPE.names or ()}
    found = (fields["header_bytes"], fields["frame_header_bytes"], fields["version"])
    expected = (HEADER_BYTES, FRAME_HEADER_BYTES, VERSION)
    if found != expected:
        raise HeaderError(
            f"error while checking validity of {path}: no FRMS6 file of a known version",
            path=path,
            found=f"header sizes and version {found}",
            expected=expected,
        )
    width, height = fields["width"], fields["height"]
    if width < 1 or height < 1 or width % 2:
        raise HeaderError(
            f"error while checking validity of {path}: impossible size of frames",
            path=path,
            found=f"{width} columns, {height} rows",
            expected="positive numbers, and an even number of columns",
            hint="the header is damaged",
        )
    n_frames = _count_frames(fields, path, file_size)
    return FRMS6File(path, (height, width), n_frames)


def _count_frames(fields: dict[str, int], path: str, file_size: int) -> int:
    stride = FRAME_HEADER_BYTES + 2 * fields["width"] * fields["height"]
    payload = file_size - HEADER_BYTES
    if fields["n_frames"] == 0:
        if payload % stride:
            raise SizeMismatchError(
                "could not determine number of frames",
                path=path,
                found=f"{payload} bytes after the header",
                expected=f"a multiple of {stride} bytes, as the header gives no number",
                hint="copy the file again: the transfer probably broke off",
            )
        return payload // stride
    if payload < fields["n_frames"] * stride:
        raise SizeMismatchError(
            "the file is shorter than its frames",
            path=path,
            found=f"{file_size} bytes",
            expected=f"{HEADER_BYTES + fields['n_frames'] * stride} for {fields['n_frames']} frames",
            hint="copy the file again: the transfer probably broke off",
        )
    return fields["n_frames"]
