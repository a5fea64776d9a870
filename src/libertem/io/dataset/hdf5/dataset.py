"""The data set of HDF5 files."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.math import prod
from libertem.common.shape import Shape
from libertem.common.slice import Slice
from libertem.exceptions import DataSetException, ShapeError, UnsupportedBackendError
from libertem.io.corrections.corrset import CorrectionSet
from libertem.io.dataset.base.backends.contract import IOBackend
from libertem.io.dataset.base.files import FileSet
from libertem.io.dataset.base.framefile import FrameFacts, FrameFileDataSet, FrameFileParams
from libertem.io.dataset.base.metadata import Metadata
from libertem.io.dataset.base.partition import BasePartition
from libertem.io.dataset.hdf5.facts import H5Facts, dataset_rows, inspect_file, object_at, recognize_file
from libertem.io.dataset.hdf5.filters import filter_name
from libertem.io.dataset.hdf5.frames import n_passes
from libertem.io.dataset.hdf5.layout import H5Piece
from libertem.io.dataset.hdf5.library import as_hdf5_error, open_hdf5
from libertem.io.dataset.hdf5.masters import DetectorFacts, correction_maps
from libertem.io.dataset.hdf5.metadata import describe_experiment
from libertem.io.dataset.hdf5.partition import H5Partition

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.common.protocols import CorrectionsProtocol, ExecutorProtocol

__all__ = ["H5DataSet", "H5Reader", "HDF5DatasetParams"]


class HDF5DatasetParams(FrameFileParams):
    """JSON parameters of HDF5 files."""

    SCHEMA = FrameFileParams.make_schema("HDF5")
    SCHEMA["properties"]["ds_path"] = {"type": "string"}
    SCHEMA["required"] = ["type", "path", "ds_path"]

    def convert_to_python(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments for `H5DataSet`."""
        return {**super().convert_to_python(raw), "ds_path": raw["ds_path"]}


class H5Reader:
    """Opens a data set with h5py. Small and picklable.

    Parameters
    ----------
    path : str
        The file.
    ds_path : str
        Path of the data set in the file.
    """

    def __init__(self, path: str, ds_path: str) -> None:
        self._path = path
        self._ds_path = ds_path

    @contextmanager
    def get_h5ds(self) -> Iterator[Any]:
        """The open `h5py.Dataset` (or group of them); valid within the context."""
        with open_hdf5(self._path) as file:
            yield object_at(file, self._ds_path, self._path)


class H5DataSet(FrameFileDataSet):
    """Read data from HDF5 files: NeXus, EMD, py4DSTEM, HyperSpy, DECTRIS masters and any others.

    Data that are stored in one piece are read like raw files, with any I/O backend. Chunks are read past HDF5
    and decoded in several threads. What is unusual is read with HDF5.

    Parameters
    ----------
    path : str or path-like
        The file.
    ds_path : str, optional
        Path of the data set in the file. By default the one with most elements, among those with at least
        three axes. A group stands for its data sets, one after the other: ``"entry/data"`` in the master
        files of DECTRIS detectors, which is the default for these.
    tileshape : optional
        Ignored.
    nav_shape : sequence of int, optional
        Another shape for the scan, any number of axes: frames are taken in the order of storage.
        Frames that the file lacks are blank.
    sig_shape : sequence of int, optional
        Has to be that of the file.
    target_size : int, optional
        Size of partitions in bytes.
    min_num_partitions : int, optional
        At least so many partitions, if the chunks allow that.
    sig_dims : int
        How many axes, counted from the end, make up a frame.
    io_backend : IOBackend, optional
        How to read; only for data that are stored in one piece.
    sync_offset : int
        Frames to skip (> 0) or blanks to insert (< 0) at the start.
    num_partitions : int, optional
        Overrides the number of partitions, even if chunks are decoded more than once then.

    Raises
    ------
    DataSetException
        If this is no HDF5 file, the data set cannot be found or read, or the parameters do not fit it.

    Examples
    --------
    >>> ds = ctx.load("hdf5", path="scan.h5", ds_path="/data")  # doctest: +SKIP
    """

    _facts: H5Facts | None

    def __init__(
        self,
        path: Any,
        ds_path: str | None = None,
        tileshape: Any = None,
        nav_shape: Any = None,
        sig_shape: Any = None,
        target_size: int | None = None,
        min_num_partitions: int | None = None,
        sig_dims: int = 2,
        io_backend: IOBackend | None = None,
        sync_offset: int = 0,
        num_partitions: int | None = None,
    ) -> None:
        super().__init__(path, nav_shape, sig_shape, sync_offset, io_backend, num_partitions)
        if tileshape is not None:
            warnings.warn("tileshape argument is ignored", FutureWarning, stacklevel=2)
        if isinstance(sig_dims, bool) or not isinstance(sig_dims, int | np.integer) or sig_dims < 1:
            raise ShapeError("sig_dims has to be a positive integer", path=self._path, found=repr(sig_dims))
        if ds_path is not None and not isinstance(ds_path, str):
            raise TypeError(f"ds_path has to be a string, found {type(ds_path).__name__}")
        self._ds_path = ds_path
        self._sig_dims = int(sig_dims)
        self._target_size = target_size
        self._min_num_partitions = min_num_partitions
        self._found: tuple[H5Piece, ...] = ()
        self._detector: DetectorFacts | None = None

    # --- facts ---

    def _inspect(self) -> H5Facts:
        return inspect_file(self._path, self._ds_path, self._sig_dims)

    @property
    def _pieces(self) -> tuple[H5Piece, ...]:
        """The data sets that follow each other."""
        self._initialized()
        return self._found

    def _fit_sig_shape(self, facts: FrameFacts) -> tuple[int, ...]:
        if self._sig_shape is not None and self._sig_shape != facts.sig_shape:
            raise ShapeError(
                "sig reshaping currently not supported with HDF5 files",
                path=self._path,
                found=self._sig_shape,
                expected=facts.sig_shape,
            )
        return facts.sig_shape

    def initialize(self, executor: ExecutorProtocol) -> H5DataSet:
        """Look into the file on a worker and set up `meta`."""
        super().initialize(executor)
        facts = self._facts
        assert facts is not None
        self._ds_path = facts.ds_path
        # All else is known twice now, and would double the size of messages to workers.
        self._found, self._detector, self._facts = facts.pieces, facts.detector, None
        if self._io_backend is not None and not self._is_mapped():
            raise UnsupportedBackendError(
                f"{type(self).__name__} currently doesn't support alternative I/O backends",
                path=self._path,
                found=f"{self._io_backend} for data stored as {self._how_read()}",
                hint="leave io_backend out; it is only for data that are stored in one piece",
            )
        assert self._meta is not None
        stored = facts.pieces[0].layout.nav_shape if len(facts.pieces) == 1 else (facts.image_count,)
        self._meta.metadata = {"ds_raw_shape": Shape((*stored, *facts.sig_shape), sig_dims=self._sig_dims)}
        return self

    def _initialized_ds_path(self) -> str:
        self._initialized()
        assert self._ds_path is not None
        return self._ds_path

    def _is_mapped(self) -> bool:
        return all(piece.layout.access == "mapped" for piece in self._pieces)

    def check_valid(self) -> bool:
        """Open the first and the last data set as a run would."""
        if self._is_mapped():
            return super().check_valid()
        for piece in {self._pieces[0], self._pieces[-1]}:
            with open_hdf5(piece.path) as file, as_hdf5_error(piece.path, "invalid dataset"):
                shape = file[piece.dataset].shape
            if shape != (*piece.layout.nav_shape, *piece.layout.sig_shape):
                raise DataSetException("invalid dataset: it has changed", path=piece.path, found=shape)
        return True

    @classmethod
    def get_supported_extensions(cls) -> set[str]:
        """``.h5``, ``.hdf5``, ``.hspy`` and ``.nxs``; others are recognized, too."""
        return {"h5", "hdf5", "hspy", "nxs"}

    @classmethod
    def get_msg_converter(cls) -> type[HDF5DatasetParams]:
        """Converter of JSON parameters."""
        return HDF5DatasetParams

    @classmethod
    def recognize(cls, path: str, executor: ExecutorProtocol) -> dict[str, Any]:
        """The signature, then what the file holds. Also true for files without suitable data sets."""
        return executor.run_function(recognize_file, path)

    def get_reader(self) -> H5Reader:
        """Access through h5py."""
        return H5Reader(self._path, self._initialized_ds_path())

    def get_correction_data(self) -> CorrectionSet:
        """Pixel mask and flat field of a master file."""
        detector = self._detector
        if detector is None or (detector.pixel_mask is None and detector.flatfield is None):
            return CorrectionSet()
        gain, excluded = correction_maps(detector)
        return CorrectionSet(gain=gain, excluded_pixels=excluded, allow_empty=True)

    def _read_metadata(self) -> Metadata:
        """What the file says about the experiment."""
        shape = self._stored_shape()
        with open_hdf5(self._path) as file:
            obj = object_at(file, self._initialized_ds_path(), self._path)
            return describe_experiment(file, obj, shape.nav.dims, shape.sig.dims)

    def get_metadata(self) -> Metadata:
        """What the file says; without the calibration of scan axes that the user has cut in another way."""
        stored = self._stored_shape().nav.to_tuple()
        metadata = self._metadata.get(self._read_metadata)
        if self._nav_shape is not None and self._nav_shape[1:] != stored[1:]:
            return replace(metadata, nav_axes=())
        return metadata

    def _stored_shape(self) -> Shape:
        shape: Shape = self._initialized()["ds_raw_shape"]
        return shape

    # --- reading ---

    def _get_fileset(self) -> FileSet:
        return FileSet(list(self._pieces))

    def need_decode(
        self,
        read_dtype: npt.DTypeLike,
        roi: npt.NDArray[np.bool_] | None,
        corrections: CorrectionsProtocol | None,
    ) -> bool:
        """Whether tiles have to be copies; always, unless data are stored in one piece."""
        return not self._is_mapped() or super().need_decode(read_dtype, roi, corrections)

    def adjust_tileshape(
        self, tileshape: tuple[int, ...], roi: npt.NDArray[np.bool_] | None
    ) -> tuple[int, ...]:
        """Let tiles end with units of chunks where that costs little."""
        if self._is_mapped() or roi is not None:
            return tileshape
        depth, step = tileshape[0], self._pieces[0].layout.units.step
        if depth >= step:
            return (depth // step * step, *tileshape[1:])
        n_tiles = -(-step // depth)
        even = -(-step // n_tiles)
        return (even if step % even == 0 else depth, *tileshape[1:])

    def get_partitions(self) -> Iterator[BasePartition]:
        """All partitions in order; they consist of whole chunks unless their number was given."""
        if self._is_mapped():
            yield from super().get_partitions()
            return
        fileset = self._get_fileset()
        for part_slice, start, stop in self._slices():
            yield H5Partition(
                meta=self._initialized(),
                partition_slice=part_slice,
                fileset=fileset,
                start_frame=start,
                num_frames=stop - start,
                io_backend=self.get_io_backend(),
            )

    def get_num_partitions(self) -> int:
        """How many partitions there should be, before their borders are moved to those of chunks."""
        if self._user_num_partitions is not None:
            return max(1, self._user_num_partitions)
        n = max(super().get_num_partitions(), self._min_num_partitions or 1)
        if self._target_size is not None:
            n_bytes = prod(self.shape) * self._initialized().raw_dtype.itemsize
            n = max(n, -(-n_bytes // max(1, self._target_size)))
        return min(n, self.shape.nav.size)

    def _slices(self) -> Iterator[tuple[Slice, int, int]]:
        if self._user_num_partitions is not None:
            yield from self.get_slices()
            return
        n, offset = self.shape.nav.size, self._sync_offset or 0
        borders = np.linspace(0, n, num=self.get_num_partitions() + 1, endpoint=True, dtype=int)
        frames = borders[1:-1] + offset
        inside = [int(frame) for frame in frames if 0 < frame < self._image_count]
        starts = sorted({self._unit_start(frame) - offset for frame in inside})
        cuts = [0, *(start for start in starts if 0 < start < n), n]
        sig = self.shape.sig.to_tuple()
        for a, b in itertools.pairwise(cuts):
            shape = Shape((b - a, *sig), sig_dims=len(sig))
            yield Slice(origin=(a, *(0 for _ in sig)), shape=shape), a + offset, b + offset

    def _unit_start(self, frame: int) -> int:
        """First frame that is decoded together with `frame`."""
        piece = next(p for p in self._pieces if frame < p.end_idx)
        inside = np.array([frame - piece.start_idx])
        return piece.start_idx + int(piece.layout.units.starts_of(inside)[0])

    # --- for people ---

    def _how_read(self) -> str:
        layout = self._pieces[0].layout
        if layout.access == "mapped":
            return "one piece"
        if layout.access == "library":
            return f"what only HDF5 can read: {layout.reason}"
        names = ", ".join(filter_name(f.id) for f in layout.filters) or "no filter"
        return f"chunks ({names}), decoded in threads"

    def _decoded_again(self) -> str:
        """Whether chunks are decoded more than once in a run, and why."""
        pieces = self._pieces
        if self._is_mapped() or all(piece.layout.chunks is None for piece in pieces):
            return "no"
        passes = max(n_passes(piece) for piece in pieces)
        if passes > 1:
            step = pieces[0].layout.units.step
            return f"yes, {passes} times: {step} frames that share chunks do not fit into memory"
        starts = [start for _, start, _ in self._slices()]
        split = [s for s in starts if 0 < s < self._image_count and self._unit_start(s) != s]
        if split:
            return f"yes, those at {len(split)} borders of partitions: num_partitions does not fit the chunks"
        return "no"

    def get_diagnostics(self) -> list[dict[str, Any]]:
        """Dtype, how the data are stored and read, and what else is in the file."""
        pieces = self._pieces
        layout = pieces[0].layout
        names = ", ".join(filter_name(f.id) for f in layout.filters)
        rows: list[dict[str, Any]] = [
            *super().get_diagnostics(),
            {"name": "chunks", "value": str(layout.chunks)},
            {"name": "compression", "value": names or "None"},
            {"name": "Data set", "value": self._initialized_ds_path()},
            {"name": "Stored as", "value": self._how_read()},
            {"name": "Chunks decoded more than once", "value": self._decoded_again()},
        ]
        if len(pieces) > 1:
            rows.append({"name": "Number of data files", "value": len({p.path for p in pieces})})
        if self._detector is not None:
            rows += _detector_rows(self._detector)
        return [*rows, {"name": "datasets", "value": dataset_rows(self._path)}]

    def __getstate__(self) -> dict[str, Any]:
        # Follows from the rest.
        return {**self.__dict__, "_sync_offset_info": None}

    def get_cache_key(self) -> dict[str, Any]:
        """Also the path within the file."""
        return {**super().get_cache_key(), "ds_path": self._initialized_ds_path()}


def _detector_rows(detector: DetectorFacts) -> list[dict[str, Any]]:
    mask = detector.pixel_mask
    rows = [
        ("Images per trigger", detector.n_images),
        ("Triggers", detector.n_triggers),
        ("Excluded pixels", 0 if mask is None else int(np.count_nonzero(mask))),
        ("Flat field", "none to be applied" if detector.flatfield is None else "offered as gain map"),
    ]
    return [{"name": name, "value": value} for name, value in rows if value is not None]
