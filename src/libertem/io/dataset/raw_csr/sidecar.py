"""The TOML file, and what it says about the three others."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from libertem.common.math import prod
from libertem.exceptions import HeaderError, SizeMismatchError
from libertem.io.dataset.base.backends.rawio import RawFile
from libertem.io.dataset.base.framefile import file_size, read_head
from libertem.io.dataset.base.scan import check_shape
from libertem.io.dataset.raw_csr.triple import CSRDescriptor, RowReader, map_files

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "CSRSizes",
    "FiletypeError",
    "MissingKeyError",
    "Sidecar",
    "TOMLError",
    "check",
    "check_frames",
    "get_descriptor",
    "get_nav_size",
    "load_sidecar",
    "load_toml",
    "measure",
    "parse_sidecar",
    "parse_toml",
]

FILETYPE = "raw_csr"

MAX_TOML_BYTES = 1 << 20
"""A larger file holds data rather than parameters."""

FRAMES_PER_CHECK = 1 << 16
"""So many index pointers stay in the cache."""

ROLES = ("indptr", "indices", "data")


class TOMLError(HeaderError):
    """The file is not valid TOML; carries the text of the parser."""


class MissingKeyError(HeaderError, KeyError):
    """A parameter is missing in the TOML file."""


class FiletypeError(HeaderError, ValueError):
    """A TOML file with parameters of something else."""


class LengthMismatchError(SizeMismatchError, RuntimeError):
    """There are not as many column indices as values."""


@dataclass(frozen=True)
class Sidecar:
    """The facts of a TOML file."""

    descriptor: CSRDescriptor
    """Paths, and dtypes as they are written there."""

    nav_shape: tuple[int, ...] | None
    """Scan shape, if it is there."""

    sig_shape: tuple[int, ...] | None
    """Shape of a frame, if it is there."""


class CSRSizes(NamedTuple):
    """How much the three files hold."""

    image_count: int
    n_values: int
    """Values that are stored, which may be more than the frames own."""


def parse_toml(raw: bytes, *, path: str) -> dict[str, Any]:
    """Turn the bytes of a TOML file into tables.

    Parameters
    ----------
    raw : bytes
        The whole file.
    path : str
        Where `raw` came from. Named in errors, never opened.

    Raises
    ------
    TOMLError
        If it is not TOML.
    """
    try:
        return tomllib.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as err:
        raise TOMLError(f"not a valid TOML file: {err}", path=path) from err


def parse_sidecar(raw: bytes, *, path: str) -> Sidecar:
    """Turn the bytes of a TOML file into a `Sidecar`.

    Parameters
    ----------
    raw : bytes
        The whole file.
    path : str
        Where `raw` came from; files are relative to its folder. Never opened.

    Raises
    ------
    HeaderError
        If a parameter is missing or impossible.
    """
    conf = parse_toml(raw, path=path)
    params = _table(conf, "params", path)
    filetype = params.get("filetype")
    if filetype is None:
        raise MissingKeyError("no filetype in the table params", path=path, expected=repr(FILETYPE))
    if not isinstance(filetype, str) or filetype.lower() != FILETYPE:
        raise FiletypeError(f"Filetype is not CSR, found {filetype}", path=path, expected=repr(FILETYPE))
    files = _table(conf, filetype, path)
    folder = os.path.dirname(path)
    entries = []
    for role in ROLES:
        name = _string(files, f"{role}_file", path)
        dtype = _string(files, f"{role}_dtype", path)
        _check_dtype(dtype, f"{role}_dtype", "biufc" if role == "data" else "iu", path)
        entries += [os.path.join(folder, name), dtype]
    return Sidecar(
        CSRDescriptor(*entries), _shape(params, "nav_shape", path), _shape(params, "sig_shape", path)
    )


def _table(conf: Mapping[str, Any], name: str, path: str) -> Mapping[str, Any]:
    found = conf.get(name)
    if found is None:
        # The name of the second table is that of the filetype, which may be written in any case.
        found = next((conf[key] for key in conf if key.lower() == name.lower()), None)
    if not isinstance(found, Mapping):
        raise MissingKeyError(f"no table {name}", path=path, found=sorted(conf), expected=f"[{name}]")
    return found


def _string(table: Mapping[str, Any], key: str, path: str) -> str:
    value = table.get(key)
    if value is None:
        raise MissingKeyError(f"no {key}", path=path, found=sorted(table), expected=f"{key} = ...")
    if not isinstance(value, str) or not value:
        raise HeaderError(f"{key} has to be a string", path=path, found=repr(value))
    return value


def _check_dtype(text: str, key: str, kinds: str, path: str) -> None:
    kind: str | None = None
    try:
        kind = np.dtype(text).kind
    except (TypeError, ValueError, SyntaxError):
        pass
    if kind is None or kind not in kinds:
        expected = "an integer dtype such as '<i8'" if kinds == "iu" else "a numeric dtype such as '<f4'"
        raise HeaderError(f"{key} is of no use", path=path, found=repr(text), expected=expected)


def _shape(params: Mapping[str, Any], key: str, path: str) -> tuple[int, ...] | None:
    value = params.get(key)
    if value is None:
        return None
    if not isinstance(value, list):
        raise HeaderError(
            f"{key} has to be an array", path=path, found=repr(value), expected="[height, width]"
        )
    return check_shape(value, key, path=path)


def _read_toml(path: str) -> bytes:
    head = read_head(path, MAX_TOML_BYTES)
    if head.size > MAX_TOML_BYTES:
        raise HeaderError(
            "too large for a file of parameters",
            path=path,
            found=f"{head.size} bytes",
            expected=f"at most {MAX_TOML_BYTES}",
            hint="path is that of the TOML file, which names the three others",
        )
    return head.raw


def load_toml(path: str) -> dict[str, Any]:
    """Tables of a TOML file.

    Raises
    ------
    DataSetException
        If it cannot be read.
    TOMLError
        If it is not TOML.
    """
    return parse_toml(_read_toml(path), path=path)


def load_sidecar(path: str) -> Sidecar:
    """Read the TOML file at `path`; see `parse_sidecar` for errors."""
    return parse_sidecar(_read_toml(path), path=path)


def get_descriptor(path: str) -> CSRDescriptor:
    """Paths and dtypes of the three files that belong to the TOML file at `path`."""
    return load_sidecar(path).descriptor


def get_nav_size(descriptor: CSRDescriptor) -> int:
    """Number of frames, from the size of a file."""
    n = _n_entries(descriptor.indptr_file, descriptor.indptr_dtype)
    if n < 1:
        raise SizeMismatchError(
            "the file of index pointers is empty", path=descriptor.indptr_file, expected="frames + 1 entries"
        )
    return n - 1


def _n_entries(path: str, dtype: str) -> int:
    size, itemsize = file_size(path), np.dtype(dtype).itemsize
    if size % itemsize:
        raise SizeMismatchError(
            "the file ends inside an entry",
            path=path,
            found=f"{size} bytes",
            expected=f"a multiple of {itemsize}, the size of {dtype}",
            hint="is it complete, and its dtype right in the TOML file?",
        )
    return size // itemsize


def measure(descriptor: CSRDescriptor) -> CSRSizes:
    """Find out how much is there, from file sizes and the two ends of the index pointers.

    Raises
    ------
    DataSetException
        If the three files do not fit each other.
    """
    image_count = get_nav_size(descriptor)
    n_values = _n_entries(descriptor.data_file, descriptor.data_dtype)
    n_columns = _n_entries(descriptor.indices_file, descriptor.indices_dtype)
    if n_values != n_columns:
        raise LengthMismatchError(
            "Shape mismatch between data and indices.",
            path=descriptor.data_file,
            found=f"{n_values} values",
            expected=f"{n_columns}, as many as in {descriptor.indices_file}",
            hint="is one of the files cut off, or a dtype in the TOML file wrong?",
        )
    dtype = np.dtype(descriptor.indptr_dtype)
    ends = np.empty((2, dtype.itemsize), dtype=np.uint8)
    with RawFile(descriptor.indptr_file) as file:
        file.read_into(ends[0], 0)
        file.read_into(ends[1], image_count * dtype.itemsize)
    first, last = (int(value) for value in ends.reshape(-1).view(dtype))
    if not 0 <= first <= last <= n_values:
        raise SizeMismatchError(
            "the index pointers do not fit the values",
            path=descriptor.indptr_file,
            found=f"{first} to {last}",
            expected=f"0 to {n_values}, the number of values in {descriptor.data_file}",
            hint="is one of the files cut off, or a dtype in the TOML file wrong?",
        )
    return CSRSizes(image_count, n_values)


def check(
    descriptor: CSRDescriptor,
    nav_shape: tuple[int, ...],
    sig_shape: tuple[int, ...],
    debug: bool = False,
) -> None:
    """Check the three files.

    Parameters
    ----------
    descriptor : CSRDescriptor
        The files.
    nav_shape : tuple of int
        Not used: a scan may be larger or smaller than the data.
    sig_shape : tuple of int
        Shape of a frame.
    debug : bool
        Read all column indices as well. They are checked anyway when they are read.

    Raises
    ------
    DataSetException
        If they contradict each other, with the place where.
    """
    check_frames(descriptor, sig_shape, measure(descriptor), columns=debug)


def check_frames(
    descriptor: CSRDescriptor,
    sig_shape: tuple[int, ...],
    sizes: CSRSizes,
    *,
    columns: bool = False,
    max_frames: int | None = None,
) -> None:
    """Check index pointers, and with `columns` the column indices, of at most the first `max_frames` frames.

    Raises
    ------
    DataSetException
        If one is impossible, with the place where.
    """
    reader = RowReader(map_files(descriptor, *sizes), prod(sig_shape), descriptor)
    n_frames = sizes.image_count if max_frames is None else min(max_frames, sizes.image_count)
    for start in range(0, n_frames, FRAMES_PER_CHECK):
        images = np.arange(start, min(n_frames, start + FRAMES_PER_CHECK))
        if columns:
            reader.read(images)
        else:
            reader.locate(images)
