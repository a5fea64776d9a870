"""Find the nine files of a recording, and read the scan shape from the tags."""

from __future__ import annotations

import glob
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from libertem.common.math import prod
from libertem.exceptions import DataSetException, HeaderError, MissingFileError
from libertem.io.dataset.base.backends.rawio import RawFile
from libertem.io.dataset.base.framefile import file_size
from libertem.io.dataset.k2is.blocks import N_SECTORS
from libertem.io.headers.dm import DMTags, Names, parse_tags

__all__ = ["RecordingFiles", "TagsTooLongError", "find_files", "read_scan_shape", "read_tags"]

SCAN_GROUP = ("SI Dimensions",)
SCAN_SHAPE_TAGS = ("SI Dimensions.Size Y", "SI Dimensions.Size X")
"""Written if the STEMx unit drove the acquisition. Fly-back columns are counted."""

MAX_POSITIONS = 1 << 24
"""More than this take the camera half a day: a scan that claims to have them is damaged."""


class TagsTooLongError(HeaderError):
    """More would have to be read than is allowed."""


@dataclass(frozen=True)
class RecordingFiles:
    """The files of a recording."""

    sectors: tuple[str, ...]
    """The ``.bin`` files, from left to right."""

    tags: str
    """The ``.gtg`` file."""


def find_files(path: str) -> RecordingFiles:
    """The files of a recording, of which `path` is one.

    Raises
    ------
    DataSetException
        If they are not complete, or `path` has another extension.
    """
    stem, extension = os.path.splitext(path)
    if extension.lower() not in (".gtg", ".bin"):
        raise DataSetException(f"unknown extension: {extension}", path=path, expected=".gtg or .bin")
    file_size(path)
    if extension.lower() == ".bin":
        folder, name = os.path.split(stem)
        stem = os.path.join(folder, re.sub("[0-9]+$", "", name))
    sectors = sorted(glob.glob(glob.escape(stem) + "*.[bB][iI][nN]"))
    if len(sectors) != N_SECTORS:
        raise DataSetException(
            f"expected {N_SECTORS} files at {stem}*.bin, found {len(sectors)}",
            path=path,
            hint="there is one for each sector of the sensor; copy all of them to one folder",
        )
    tags = path if extension.lower() == ".gtg" else _find_tags(stem)
    return RecordingFiles(tuple(sectors), tags)


def _find_tags(stem: str) -> str:
    found = sorted(glob.glob(glob.escape(stem) + ".[gG][tT][gG]"))
    if not found:
        raise MissingFileError(
            "the .gtg file of the recording does not exist",
            path=f"{stem}.gtg",
            hint="it tells whether the recording is a scan; copy it to the folder of the .bin files",
        )
    return found[0]


def read_scan_shape(path: str, *, max_bytes: int | None = None) -> tuple[int, int] | None:
    """Scan shape in a ``.gtg`` file, None for a time series.

    Parameters
    ----------
    max_bytes : int, optional
        How much may be read.

    Raises
    ------
    HeaderError
        If this is no tag file, or its numbers are absurd.
    TagsTooLongError
        If more would have to be read.
    """
    tags = read_tags(path, max_bytes=max_bytes, keep=lambda names: names == SCAN_GROUP)
    extents = [tags.get(name) for name in SCAN_SHAPE_TAGS]
    if None in extents:
        return None
    height, width = (_extent(extent, path) for extent in extents)
    if prod((height, width)) > MAX_POSITIONS:
        raise HeaderError("absurd scan shape", path=path, found=(height, width))
    return height, width


def read_tags(
    path: str, *, max_bytes: int | None = None, keep: Callable[[Names], bool] | None = None
) -> DMTags:
    """Read a ``.gtg`` file; see `read_scan_shape` for `max_bytes` and errors, `parse_tags` for `keep`."""
    budget = math.inf if max_bytes is None else max_bytes
    with RawFile(path) as file:

        def read(offset: int, n_bytes: int) -> bytes:
            nonlocal budget
            budget -= n_bytes
            if budget < 0:
                raise TagsTooLongError(
                    "the tags are too long", path=path, expected=f"at most {max_bytes} bytes"
                )
            raw = np.empty(n_bytes, dtype=np.uint8)
            file.read_into(raw, offset)
            return raw.tobytes()

        return parse_tags(read, file.size(), path=path, keep=keep)


def _extent(value: object, path: str) -> int:
    if not isinstance(value, int | float) or not 1 <= value <= MAX_POSITIONS:
        raise HeaderError(
            "absurd scan size in the tags",
            path=path,
            found=repr(value)[:100],
            expected="a positive number",
            hint="the file is damaged; copy it again",
        )
    return int(value)
