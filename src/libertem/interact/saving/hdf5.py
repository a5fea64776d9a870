"""HDF5 files as NeXus, HyperSpy and EMD arrange them."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.new_file import check_space
from libertem.interact.saving.chunks import check_chunks, default_chunks
from libertem.interact.saving.contract import Box, Output, Put, Writer, in_usual_unit
from libertem.interact.saving.flat import put_frames
from libertem.io.dataset.base.metadata import Axis

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["EMDWriter", "HSpyWriter", "NeXusWriter"]

SPARE_BYTES = 16 << 20
"""For what HDF5 holds back, and the description."""

MAX_ATTRIBUTE_BYTES = 60_000
"""HDF5 attributes hold 64 KiB at most."""

COMPRESSIONS = ("gzip", "lzf", "bitshuffle", "zstd", "lz4", "blosc")


class HDF5Writer(Writer):
    """What all HDF5 files have in common.

    Parameters
    ----------
    output : Output
        What will be written.
    compression : str, optional
        ``'gzip'`` or ``'lzf'``, which all programs read; ``'bitshuffle'`` (with LZ4), ``'zstd'``, ``'lz4'``,
        ``'blosc'``, for which others need hdf5plugin. None by default.
    chunks : tuple of int, optional
        Whole frames by default if compressed; otherwise the array is in one piece, which is fastest.
    """

    options = ("compression", "chunks")

    def __init__(self, output: Output, compression: str | None = None, chunks: Any = None) -> None:
        super().__init__(output)
        if compression is not None and compression not in COMPRESSIONS:
            raise ValueError(
                f"compression of HDF5: found {compression!r}, "
                f"expected None or one of {', '.join(COMPRESSIONS)}"
            )
        self._compression = compression
        self._chunks: tuple[int, ...] | None = None
        if chunks is not None:
            self._chunks = check_chunks(chunks, output)
        elif compression is not None:
            self._chunks = default_chunks(output)

    @property
    def granularity(self) -> tuple[int, ...]:
        """No chunk is written twice."""
        return super().granularity if self._chunks is None else self._chunks[: len(self.output.nav_shape)]

    @property
    def min_bytes(self) -> int:
        """Unknown if compressed."""
        return self.output.n_bytes if self._compression is None else 0

    def _filter(self) -> dict[str, Any]:
        if self._compression is None:
            return {}
        if self._compression in ("gzip", "lzf"):
            return {"compression": self._compression, "shuffle": True}
        import hdf5plugin

        known = {
            "bitshuffle": hdf5plugin.Bitshuffle,
            "zstd": hdf5plugin.Zstd,
            "lz4": hdf5plugin.LZ4,
            "blosc": hdf5plugin.Blosc,
        }
        return {**known[self._compression](), "shuffle": self._compression == "zstd"}

    @contextmanager
    def open(self, path: str) -> Iterator[Put]:
        """Everything but the pixels, then frames."""
        if self._chunks is None:
            with h5py_file(path) as file:
                first_byte = self._arrange(file).id.get_offset()
            # Past HDF5, which does not survive a disk that fills up.
            with put_frames(path, self.output, first_byte) as put:
                yield put
            return
        with _closed_safely(path) as file:
            data = self._arrange(file)

            def put_chunks(box: Box, frames: npt.NDArray[Any]) -> None:
                check_space(path, frames.nbytes + SPARE_BYTES)
                data[box] = frames

            yield put_chunks

    @abstractmethod
    def _arrange(self, file: Any) -> Any:
        """Make groups and attributes; returns the array for the pixels."""

    def _make_array(self, group: Any, name: str = "data") -> Any:
        if self._chunks is None:
            return _allocate(group, name, self.output)
        return group.create_dataset(
            name,
            shape=self.output.shape,
            dtype=self.output.dtype,
            chunks=self._chunks,
            **self._filter(),
        )

    def _add_description(self, group: Any) -> None:
        """All that is known, as JSON."""
        for name, text in self.output.as_json("axes", "metadata", "header").items():
            if len(text.encode()) <= MAX_ATTRIBUTE_BYTES:
                group.attrs[name] = text
            else:
                group[name] = text


def h5py_file(path: str) -> Any:
    """New file."""
    import h5py

    return h5py.File(path, "w")


@contextmanager
def _closed_safely(path: str) -> Iterator[Any]:
    """New file that can be closed also if the disk is full.

    If HDF5 fails to write what it holds back when a file is closed, the process crashes some time later.
    """
    file = h5py_file(path)
    try:
        yield file
        file.flush()
    except BaseException:
        # Nobody wants the content any more, and what it took is free again.
        os.truncate(path, 0)
        raise
    finally:
        file.close()


def _allocate(group: Any, name: str, output: Output) -> Any:
    """Array in one piece, which has its place in the file but no content yet."""
    import h5py

    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    dtype = h5py.h5t.py_create(output.dtype, logical=True)
    space = h5py.h5s.create_simple(output.shape)
    return h5py.Dataset(h5py.h5d.create(group.id, name.encode(), dtype, space, dcpl=properties))


def _positions(axis: Axis, n: int) -> npt.NDArray[Any]:
    """Of the elements of an axis, in its usual unit."""
    step, offset, _ = in_usual_unit(axis)
    return offset + step * np.arange(n)


class NeXusWriter(HDF5Writer):
    """``/entry/data/data`` with its axes, as the NeXus class NXdata has it."""

    def _arrange(self, file: Any) -> Any:
        file.attrs.update({"default": "entry"})
        entry = file.create_group("entry")
        entry.attrs.update({"NX_class": "NXentry", "default": "data"})
        entry["title"] = self.output.title
        group = entry.create_group("data")
        names = [f"axis_{axis.name}" for axis in self.output.axes]
        group.attrs.update({"NX_class": "NXdata", "signal": "data"})
        group.attrs["axes"] = np.array(names, dtype=object)
        for i, (name, axis) in enumerate(zip(names, self.output.axes, strict=True)):
            dset = group.create_dataset(name, data=_positions(axis, self.output.shape[i]))
            dset.attrs["long_name"] = axis.name
            if axis.is_calibrated:
                dset.attrs["units"] = in_usual_unit(axis)[2]
            group.attrs[f"{name}_indices"] = np.array([i])
        description = entry.create_group("libertem")
        description.attrs["NX_class"] = "NXcollection"
        self._add_description(description)
        return self._make_array(group)


class EMDWriter(HDF5Writer):
    """EMD 0.2 of Berkeley: ``/data/<title>/data`` with ``dim1``, ``dim2``, ..."""

    UNITS: Mapping[str, str] = {"m": "[n_m]", "1/m": "[n_m^-1]", "rad": "[m_rad]", "": "[px]"}

    def _arrange(self, file: Any) -> Any:
        file.attrs.update({"version_major": 0, "version_minor": 2})
        group = file.create_group("data").create_group(_group_name(self.output.title))
        group.attrs["emd_group_type"] = 1
        for i, axis in enumerate(self.output.axes):
            dim = group.create_dataset(f"dim{i + 1}", data=_positions(axis, self.output.shape[i]))
            dim.attrs["name"] = axis.name
            dim.attrs["units"] = self.UNITS.get(axis.unit, f"[{axis.unit}]")
        microscope = file.create_group("microscope")
        for name, value in self.output.metadata.items():
            microscope.attrs[name] = value["value"]
            if "unit" in value:
                microscope.attrs[f"{name}_units"] = f"[{value['unit']}]"
        for name in ("sample", "user", "comments"):
            file.create_group(name)
        self._add_description(file.create_group("libertem"))
        return self._make_array(group)


class HSpyWriter(HDF5Writer):
    """HyperSpy 3.x: ``/Experiments/<title>`` with groups for axes and metadata."""

    def _arrange(self, file: Any) -> Any:
        file.attrs.update({"file_format": "HyperSpy", "file_format_version": "3.3"})
        group = file.create_group("Experiments").create_group(_group_name(self.output.title))
        for i, axis in enumerate(self.output.axes):
            step, offset, unit = in_usual_unit(axis)
            group.create_group(f"axis-{i}").attrs.update(
                {
                    "_type": "UniformDataAxis",
                    "name": axis.name,
                    "scale": step,
                    "offset": offset,
                    "size": self.output.shape[i],
                    "units": unit,
                    "navigate": i < len(self.output.nav_shape),
                    "is_binned": False,
                }
            )
        self._add_metadata(group.create_group("metadata"))
        original = group.create_group("original_metadata").create_group("libertem")
        self._add_description(original)
        group.create_group("learning_results")
        return self._make_array(group)

    def _add_metadata(self, group: Any) -> None:
        """What HyperSpy knows by name; the rest is in the original metadata."""
        group.create_group("General").attrs["title"] = self.output.title
        group.create_group("Signal").attrs["signal_type"] = ""
        known = self.output.metadata
        if "acquired" in known:
            date, _, time = known["acquired"]["value"].partition("T")
            group["General"].attrs.update({"date": date, "time": time})
        microscope = {}
        if "voltage" in known:
            microscope["beam_energy"] = known["voltage"]["value"] / 1e3  # keV
        if "camera_length" in known:
            microscope["camera_length"] = known["camera_length"]["value"] * 1e3  # mm
        if microscope:
            group.create_group("Acquisition_instrument/TEM").attrs.update(microscope)


def _group_name(title: str) -> str:
    """A title as the name of a group."""
    return title.replace("/", "_") or "data"
