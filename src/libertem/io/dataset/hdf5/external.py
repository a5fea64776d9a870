"""Pixels that are in other files: raw files of a data set, and the sources of virtual data sets.

HDF5 shows the fill value, usually zero, where a source of a virtual data set is missing or a raw file ends too
early. Here both is found out before anything is read.

Source: HDF5 documentation of `H5Pset_external` and `H5Pset_virtual`, with the order in which files are looked for.
"""  # noqa: E501

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from libertem.exceptions import DataSetException
from libertem.io.dataset.hdf5.library import LIBRARY_ERRORS, import_h5py

__all__ = ["RawPart", "check_sources", "find_raw_files"]

MAX_MAPPINGS = 100_000
MAX_OPENED = 100
"""Sources that are opened to see whether they have their data set; all are looked for."""


class RawPart(NamedTuple):
    """Bytes of a data set in a raw file."""

    path: str
    offset: int
    n_bytes: int
    is_beside: bool
    """Whether the file was found beside the HDF5 file, where HDF5 itself does not look."""


def find_raw_files(plist: Any, path: str, n_bytes: int) -> list[RawPart]:
    """Raw files of a data set, in order.

    Parameters
    ----------
    plist : h5py.h5p.PropDCID
        How the data set was created.
    path : str
        The HDF5 file.
    n_bytes : int
        Size of the data set.

    Raises
    ------
    DataSetException
        If a file is missing or too short.
    """
    parts = []
    left = n_bytes
    for k in range(plist.get_external_count()):
        name, offset, size = plist.get_external(k)
        part = _find_raw(os.fsdecode(name), int(offset), min(left, int(size)), path)
        found = os.path.getsize(part.path)
        if found < part.offset + part.n_bytes:
            raise DataSetException(
                "an external file is shorter than the data in it",
                path=path,
                found=f"{part.path} with {found} bytes",
                expected=f"at least {part.offset + part.n_bytes} bytes",
            )
        left -= part.n_bytes
        parts.append(part)
    if left:
        raise DataSetException(
            "the external files hold less than the data set", path=path, found=f"{left} bytes are missing"
        )
    return parts


def _find_raw(name: str, offset: int, n_bytes: int, path: str) -> RawPart:
    beside = os.path.dirname(os.path.abspath(path))
    prefix = os.environ.get("HDF5_EXTFILE_PREFIX", "").replace("${ORIGIN}", beside)
    as_hdf5 = os.path.join(prefix, name)
    for place, is_beside in ((as_hdf5, False), (os.path.join(beside, name), True)):
        if os.path.isfile(place):
            return RawPart(place, offset, n_bytes, is_beside)
    raise DataSetException(
        "an external file with the pixels is missing",
        path=path,
        expected=as_hdf5,
        hint="copy it next to the file that names it",
    )


def check_sources(dset: Any, path: str) -> str:
    """Look for the sources of a virtual data set.

    Parameters
    ----------
    dset : h5py.Dataset
    path : str
        File that the user named; for errors.

    Returns
    -------
    str
        What is missing, in a sentence; empty if all is there.

    Raises
    ------
    DataSetException
        If all of them are missing.
    """
    sources = dict.fromkeys(_sources(dset))
    missing = [f"{name}: {inside}" for (name, inside) in sources if not _exists(dset, name)]
    opened = [source for source in sources if _exists(dset, source[0])][:MAX_OPENED]
    missing += [f"{name}: {inside}" for name, inside in opened if not _has_dataset(dset, name, inside)]
    if not missing:
        return ""
    listed = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
    if len(missing) == len(sources):
        raise DataSetException(
            "all sources of the virtual data set are missing",
            path=path,
            found=dset.name,
            expected=listed,
            hint="copy them next to the file that refers to them",
        )
    return (
        f"{path}: {len(missing)} of {len(sources)} sources of the virtual data set {dset.name} are missing "
        f"({listed}): their pixels show the fill value {dset.fillvalue}"
    )


def _sources(dset: Any) -> Iterator[tuple[str, str]]:
    """File and data set of each mapping; those with numbers that HDF5 fills in are left out."""
    plist = dset.id.get_create_plist()
    for k in range(min(plist.get_virtual_count(), MAX_MAPPINGS)):
        source = plist.get_virtual_filename(k), plist.get_virtual_dsetname(k)
        if "%b" not in source[0] + source[1]:
            yield source


def _places(dset: Any, name: str) -> list[str]:
    """Where HDF5 looks for a source."""
    beside = os.path.dirname(os.path.abspath(os.fsdecode(dset.file.filename)))
    prefix = os.environ.get("HDF5_VDS_PREFIX", "").replace("${ORIGIN}", beside)
    places = [os.path.join(beside, name), os.path.join(beside, os.path.basename(name)), os.path.abspath(name)]
    return [os.path.join(prefix, name), *places] if prefix else places


def _exists(dset: Any, name: str) -> bool:
    return name == "." or any(os.path.isfile(place) for place in _places(dset, name))


def _has_dataset(dset: Any, name: str, inside: str) -> bool:
    if name == ".":
        return inside in dset.file
    h5py = import_h5py()
    place = next(place for place in _places(dset, name) if os.path.isfile(place))
    try:
        with h5py.File(place, "r") as file:
            return inside in file
    except LIBRARY_ERRORS:
        return False
