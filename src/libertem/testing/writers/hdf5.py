"""Write HDF5 files as different programs arrange them.

h5py stores the pixels, so that files are what HDF5 makes of them, not what the reader expects. How they are
arranged follows the fact sheet of the format.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "FILTERS",
    "filter_arguments",
    "write_berkeley_emd",
    "write_dectris",
    "write_hdf5",
    "write_hspy",
    "write_nexus",
    "write_py4dstem",
]

FILTERS = (
    "none",
    "gzip",
    "gzip-shuffle",
    "gzip-shuffle-fletcher32",
    "shuffle",
    "fletcher32",
    "lzf",
    "lzf-shuffle",
    "bitshuffle",
    "bitshuffle-lz4",
    "bitshuffle-zstd",
    "lz4",
    "zstd",
    "blosc",
    "blosc-bitshuffle",
    "blosc2",
    "scale-offset",
)
"""Names for `filter_arguments`."""


def filter_arguments(name: str) -> dict[str, Any]:
    """Arguments of `h5py.Group.create_dataset` for a combination of filters."""
    import hdf5plugin

    known: dict[str, Any] = {
        "none": {},
        "gzip": {"compression": "gzip"},
        "gzip-shuffle": {"compression": "gzip", "shuffle": True},
        "gzip-shuffle-fletcher32": {"compression": "gzip", "shuffle": True, "fletcher32": True},
        "shuffle": {"shuffle": True},
        "fletcher32": {"fletcher32": True},
        "lzf": {"compression": "lzf"},
        "lzf-shuffle": {"compression": "lzf", "shuffle": True},
        "bitshuffle": dict(hdf5plugin.Bitshuffle(cname="none")),
        "bitshuffle-lz4": dict(hdf5plugin.Bitshuffle(cname="lz4")),
        "bitshuffle-zstd": dict(hdf5plugin.Bitshuffle(cname="zstd")),
        "lz4": dict(hdf5plugin.LZ4()),
        "zstd": dict(hdf5plugin.Zstd()),
        "blosc": dict(hdf5plugin.Blosc()),
        "blosc-bitshuffle": dict(hdf5plugin.Blosc(cname="zstd", shuffle=hdf5plugin.Blosc.BITSHUFFLE)),
        "blosc2": dict(hdf5plugin.Blosc2()),
        "scale-offset": {"scaleoffset": 0},
    }
    arguments: dict[str, Any] = known[name]
    return arguments


def write_hdf5(
    path: Path,
    data: npt.NDArray[Any] | Iterable[npt.NDArray[Any]],
    *,
    ds_path: str = "data",
    shape: Sequence[int] | None = None,
    chunks: tuple[int, ...] | None = None,
    filters: str = "none",
    userblock: int = 0,
) -> Path:
    """Store an array.

    Parameters
    ----------
    data : array, or iterable of arrays
        With several arrays, these follow each other along the first axis.
    ds_path : str
        Path of the data set in the file.
    shape : sequence of int, optional
        Needed if `data` is an iterable.
    chunks : tuple of int, optional
        Stored in one piece by default.
    filters : str
        One of `FILTERS`; needs chunks.
    userblock : int
        Bytes in front of the file, 0 or a power of two from 512 on.
    """
    import h5py

    dset, row = None, 0
    with h5py.File(path, "w", userblock_size=userblock) as file:
        for piece in [data] if isinstance(data, np.ndarray) else data:
            if dset is None:
                full = piece.shape if shape is None else tuple(shape)
                arguments = filter_arguments(filters) if chunks is not None else {}
                dset = file.create_dataset(ds_path, shape=full, dtype=piece.dtype, chunks=chunks, **arguments)
            dset[row : row + piece.shape[0]] = piece
            row += piece.shape[0]
    return path


def write_py4dstem(path: Path, data: npt.NDArray[Any]) -> Path:
    """Store a four-dimensional array like py4DSTEM 0.14 (EMD 1.0)."""
    import h5py

    with h5py.File(path, "w") as file:
        file.attrs["emd_group_type"] = "file"
        root = file.create_group("datacube_root")
        root.attrs["emd_group_type"] = "root"
        cube = root.create_group("datacube")
        cube.attrs.update({"emd_group_type": "array", "python_class": "DataCube"})
        cube["data"] = data
        for axis, extent in enumerate(data.shape):
            cube[f"dim{axis}"] = np.arange(min(2, extent), dtype="f8")
    return path


def write_berkeley_emd(path: Path, data: npt.NDArray[Any]) -> Path:
    """Store an array like programs of the first EMD versions."""
    import h5py

    with h5py.File(path, "w") as file:
        file.attrs.update({"version_major": 0, "version_minor": 2})
        group = file.create_group("data/datacube_000")
        group.attrs["emd_group_type"] = 1
        group["data"] = data
        for axis, extent in enumerate(data.shape):
            group[f"dim{axis + 1}"] = np.arange(extent, dtype="f4")
    return path


def write_hspy(path: Path, data: npt.NDArray[Any]) -> Path:
    """Store an array like HyperSpy."""
    import h5py

    with h5py.File(path, "w") as file:
        file.attrs.update({"file_format": "HyperSpy", "file_format_version": "3.3"})
        group = file.create_group("Experiments/scan")
        chunks = (*(1 for _ in data.shape[:-2]), *data.shape[-2:])
        group.create_dataset("data", data=data, chunks=chunks, compression="gzip", shuffle=True)
        group.create_group("metadata/General").attrs["title"] = "scan"
    return path


def write_nexus(path: Path, data: npt.NDArray[Any], *, soft_link: bool = False) -> Path:
    """Store an array like beamlines, optionally with the data elsewhere and a link in the NXdata group."""
    import h5py

    with h5py.File(path, "w") as file:
        file.attrs["default"] = "entry"
        entry = file.create_group("entry")
        entry.attrs.update({"NX_class": "NXentry", "default": "data"})
        group = entry.create_group("data")
        group.attrs.update({"NX_class": "NXdata", "signal": "counts"})
        detector = entry.create_group("instrument/detector")
        (detector if soft_link else group).create_dataset("counts", data=data)
        if soft_link:
            group["counts"] = h5py.SoftLink("/entry/instrument/detector/counts")
    return path


def write_dectris(
    folder: Path,
    parts: Iterable[npt.NDArray[Any]],
    *,
    name: str = "scan",
    filters: str = "bitshuffle-lz4",
    numbered: bool = True,
    triggers: tuple[int, int] | None = None,
    maps: Mapping[str, npt.NDArray[Any]] | None = None,
    applied: Mapping[str, int] | None = None,
) -> Path:
    """Store stacks of frames like the file writer of DECTRIS detectors; returns the master file.

    Parameters
    ----------
    parts : iterable of array
        ``(n, height, width)`` for each data file; taken one by one if `triggers` are given.
    name : str
        Beginning of the names of all files.
    numbered : bool
        Whether data files say which frames they hold.
    triggers : (int, int), optional
        Images per trigger, and triggers. By default one trigger for each frame.
    maps : mapping, optional
        ``pixel_mask`` and ``flatfield``.
    applied : mapping, optional
        Numbers beside the maps, as ``flatfield_correction_applied``.
    """
    import h5py

    master = folder / f"{name}_master.h5"
    if triggers is None:
        parts = list(parts)
        triggers = (1, sum(len(part) for part in parts))
    n_images, n_triggers = triggers
    with h5py.File(master, "w") as file:
        group = _make_nexus_groups(file)
        detector = file["entry/instrument/detector"]
        detector["detectorSpecific/nimages"] = np.uint64(n_images)
        detector["detectorSpecific/ntrigger"] = np.uint64(n_triggers)
        for key, value in (maps or {}).items():
            detector[f"detectorSpecific/{key}"] = value
        for key, number in (applied or {}).items():
            detector[key] = np.int8(number)
        first = 1
        for number, part in enumerate(parts, 1):
            data_file = f"{name}_data_{number:06d}.h5"
            _write_part(folder / data_file, part, filters, first if numbered else None)
            group[f"data_{number:06d}"] = h5py.ExternalLink(data_file, "/entry/data/data")
            first += len(part)
    return master


def _make_nexus_groups(file: Any) -> Any:
    """The groups of a master file; returns that for the links."""
    entry = file.create_group("entry")
    entry.attrs["NX_class"] = np.bytes_(b"NXentry")
    entry.create_group("instrument/detector/detectorSpecific")
    group = entry.create_group("data")
    group.attrs.update({"NX_class": np.bytes_(b"NXdata"), "signal": np.bytes_(b"data_000001")})
    return group


def _write_part(path: Path, part: npt.NDArray[Any], filters: str, first: int | None) -> None:
    import h5py

    write_hdf5(path, part, ds_path="entry/data/data", chunks=(1, *part.shape[1:]), filters=filters)
    if first is not None:
        with h5py.File(path, "r+") as file:
            numbers = {"image_nr_low": first, "image_nr_high": first + len(part) - 1}
            file["entry/data/data"].attrs.update(numbers)
