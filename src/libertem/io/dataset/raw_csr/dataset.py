"""The data set of sparse frames in CSR form."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.arrays import BACKENDS, SCIPY_CSR
from libertem.common.math import flat_nonzero, prod
from libertem.common.shape import Shape
from libertem.common.slice import Slice
from libertem.exceptions import DataSetException, ShapeError, UnsupportedBackendError
from libertem.io.corrections.corrset import CorrectionSet
from libertem.io.dataset.base.backends.contract import IOBackend
from libertem.io.dataset.base.blocks import SparseBlock
from libertem.io.dataset.base.dataset import DataSet
from libertem.io.dataset.base.framefile import PROBE_BYTES, FrameFileParams, file_size
from libertem.io.dataset.base.meta import DataSetMeta
from libertem.io.dataset.base.partition import Partition
from libertem.io.dataset.base.ranges import select_frames
from libertem.io.dataset.base.scan import check_shape, check_sync_offset, integer_sync_offset
from libertem.io.dataset.base.scheme import TilingScheme
from libertem.io.dataset.base.tile import DataTile
from libertem.io.dataset.raw_csr.sidecar import (
    MAX_TOML_BYTES,
    CSRSizes,
    MissingKeyError,
    Sidecar,
    check_frames,
    load_sidecar,
    measure,
)
from libertem.io.dataset.raw_csr.tiles import pixel_ranges, read_tiles
from libertem.io.dataset.raw_csr.triple import CSRDescriptor, RowReader, map_files

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.common.protocols import ExecutorProtocol

__all__ = ["RawCSRDataSet", "RawCSRDatasetParams", "RawCSRPartition"]

MAX_IO_SIZE = 20 << 20
"""Bytes of a tile if it were dense: many frames share the cost of a matrix, and some UDFs make it dense."""

BLOCK_BYTES = 16 << 20
"""Of stored values and columns: fine progress, and little Python in between."""

MAX_BLOCK_FRAMES = 1 << 16
"""Of a block, also if they are all but empty."""

MAX_CHECKED_FRAMES = 1 << 22
"""When loading: reading so many index pointers takes no time. The others are checked when they are read."""

MAX_PROBED_BYTES = PROBE_BYTES // 2
"""Of a file that is to be recognized without an extension that promises TOML."""


class SigSizeError(ShapeError, ValueError):
    """`sig_shape` has another number of pixels than the frames."""


class NoIOBackendError(UnsupportedBackendError, NotImplementedError):
    """An I/O backend was given."""


class RawCSRDatasetParams(FrameFileParams):
    """JSON parameters of CSR files."""

    SCHEMA = FrameFileParams.make_schema("RAW_CSR")
    del SCHEMA["properties"]["io_backend"]


@dataclass(frozen=True)
class CSRFacts:
    """What the four files say, before the user's overrides."""

    sidecar: Sidecar
    sizes: CSRSizes


def inspect_files(path: str) -> CSRFacts:
    """Read the TOML file at `path` and measure the three others; to be called on a worker."""
    sidecar = load_sidecar(path)
    return CSRFacts(sidecar, measure(sidecar.descriptor))


def recognize_file(path: str) -> CSRFacts:
    """`inspect_files`, unless the file at `path` is too large to be looked into."""
    size = file_size(path)
    limit = MAX_TOML_BYTES if path.lower().endswith(".toml") else MAX_PROBED_BYTES
    if size > limit:
        raise DataSetException(
            "too large for a file of parameters",
            path=path,
            found=f"{size} bytes",
            expected=f"at most {limit}",
        )
    return inspect_files(path)


class RawCSRDataSet(DataSet):
    """Read sparse data in CSR form: a TOML file, and files of index pointers, column indices and values.

    Parameters
    ----------
    path : str or path-like
        Path of the TOML file.
    nav_shape : sequence of int, optional
        Overrides the scan shape in the TOML file.
    sig_shape : sequence of int, optional
        Overrides the shape of a frame; has to have as many pixels.
    sync_offset : int
        Frames to skip (> 0) or blanks to insert (< 0) at the start.
    io_backend
        Not supported: the files are mapped into memory.
    num_partitions : int, optional
        Overrides the number of partitions.

    Raises
    ------
    DataSetException
        If a parameter does not fit the files. So does `initialize`.

    Examples
    --------
    >>> ds = ctx.load("raw_csr", path="scan.toml")  # doctest: +SKIP
    """

    def __init__(
        self,
        path: Any,
        nav_shape: Any = None,
        sig_shape: Any = None,
        sync_offset: int = 0,
        io_backend: IOBackend | None = None,
        num_partitions: int | None = None,
    ) -> None:
        super().__init__(num_partitions=num_partitions)
        if io_backend is not None:
            raise NoIOBackendError("RawCSRDataSet currently doesn't support alternative I/O backends")
        self._path = os.fspath(path)
        where = self._path if isinstance(self._path, str) else None
        self._nav_shape = None if nav_shape is None else check_shape(nav_shape, "nav_shape", path=where)
        self._sig_shape = None if sig_shape is None else check_shape(sig_shape, "sig_shape", path=where)
        self._sync_offset = integer_sync_offset(sync_offset, path=where)
        self._facts: CSRFacts | None = None

    def initialize(self, executor: ExecutorProtocol) -> RawCSRDataSet:
        """Read the TOML file and measure the others, on a worker."""
        facts = executor.run_function(inspect_files, self._path)
        if facts.sizes.image_count < 1:
            raise DataSetException(
                "the data set contains no frames",
                path=facts.sidecar.descriptor.indptr_file,
                found="one index pointer",
                expected="frames + 1 of them",
            )
        self._facts = facts
        self._image_count = facts.sizes.image_count
        sig_shape = self._fit_sig_shape(facts.sidecar)
        nav_shape = self._fit_nav_shape(facts)
        self._nav_shape_product = prod(nav_shape)
        self._sync_offset = check_sync_offset(self._sync_offset, self._image_count, path=self._path)
        self._sync_offset_info = self.get_sync_offset_info()
        self._meta = DataSetMeta(
            shape=Shape((*nav_shape, *sig_shape), sig_dims=len(sig_shape)),
            array_backends=[SCIPY_CSR],
            image_count=self._image_count,
            raw_dtype=facts.sidecar.descriptor.data_dtype,
            sync_offset=self._sync_offset,
        )
        return self

    def _fit_sig_shape(self, sidecar: Sidecar) -> tuple[int, ...]:
        stored, wanted = sidecar.sig_shape, self._sig_shape
        if stored is not None and wanted is not None and prod(stored) != prod(wanted):
            raise SigSizeError(
                f"Sig size mismatch between {wanted} and {stored}.",
                path=self._path,
                hint=f"sig_shape must be of size: {prod(stored)}",
            )
        return self._require("sig_shape", stored if wanted is None else wanted)

    def _fit_nav_shape(self, facts: CSRFacts) -> tuple[int, ...]:
        if self._nav_shape is not None:
            return self._nav_shape
        shape = self._require("nav_shape", facts.sidecar.nav_shape)
        if prod(shape) > facts.sizes.image_count:
            warnings.warn(
                f"{self._path}: the scan has {prod(shape)} positions according to its nav_shape {shape}, but "
                f"the files hold {facts.sizes.image_count} frames; the others stay blank",
                RuntimeWarning,
                stacklevel=3,
            )
        return shape

    def _require(self, name: str, shape: tuple[int, ...] | None) -> tuple[int, ...]:
        if shape is None:
            hint = f"add it there, or pass {name}=(height, width)"
            raise MissingKeyError(f"no {name} in the table params", path=self._path, hint=hint)
        return shape

    def _initialized(self) -> tuple[DataSetMeta, CSRFacts]:
        if self._meta is None or self._facts is None:
            raise RuntimeError("RawCSRDataSet is not initialized, use Context.load")
        return self._meta, self._facts

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the values as stored."""
        return self._initialized()[0].dtype

    @property
    def shape(self) -> Shape:
        """Shape as the user sees it."""
        return self._initialized()[0].shape

    @property
    def array_backends(self) -> Sequence[str]:
        """Only one: ``'scipy.sparse.csr_matrix'``."""
        return [SCIPY_CSR]

    def check_valid(self) -> bool:
        """Check index pointers, up to a number of frames; everything is checked when it is read."""
        meta, facts = self._initialized()
        sig_shape = meta.shape.sig.to_tuple()
        check_frames(facts.sidecar.descriptor, sig_shape, facts.sizes, max_frames=MAX_CHECKED_FRAMES)
        return True

    # --- detection ---

    @classmethod
    def recognize(cls, path: str, executor: ExecutorProtocol) -> dict[str, Any]:
        """What `detect_params` answers, or an error that tells why the file is not of this format.

        Raises
        ------
        DataSetException
            If it is no TOML file with the right parameters, or files that it names are missing or damaged.
        """
        facts = executor.run_function(recognize_file, path)
        parameters: dict[str, Any] = {"path": path}
        for name, shape in (("nav_shape", facts.sidecar.nav_shape), ("sig_shape", facts.sidecar.sig_shape)):
            if shape is not None:
                parameters[name] = list(shape)
        return {
            "parameters": {**parameters, "sync_offset": 0},
            "info": {"image_count": facts.sizes.image_count},
        }

    @classmethod
    def detect_params(cls, path: Any, executor: ExecutorProtocol) -> dict[str, Any] | bool:
        """Parameters if `path` is of this format, else False; `recognize` tells the reason."""
        if not isinstance(path, str | os.PathLike):
            return False
        try:
            return cls.recognize(os.fsdecode(path), executor)
        except DataSetException:
            return False

    @classmethod
    def get_supported_extensions(cls) -> set[str]:
        """``toml``."""
        return {"toml"}

    # --- reading ---

    @classmethod
    def get_supported_io_backends(cls) -> list[str]:
        """None: the files are always mapped into memory."""
        return []

    def get_base_shape(self, roi: npt.NDArray[np.bool_] | None) -> tuple[int, ...]:
        """A whole frame."""
        return (1, *self.shape.sig)

    def adjust_tileshape(
        self, tileshape: tuple[int, ...], roi: npt.NDArray[np.bool_] | None
    ) -> tuple[int, ...]:
        """Whole frames only."""
        return (tileshape[0], *self.shape.sig)

    def get_max_io_size(self) -> int:
        """Bytes of a tile if it were dense."""
        return MAX_IO_SIZE

    def supports_correction(self) -> bool:
        """Not at all: corrected frames are hardly sparse."""
        return False

    def get_partitions(self) -> Iterator[RawCSRPartition]:
        """All partitions in order."""
        meta, facts = self._initialized()
        for part_slice, start, stop in self.get_slices():
            yield RawCSRPartition(
                meta=meta,
                partition_slice=part_slice,
                descriptor=facts.sidecar.descriptor,
                n_values=facts.sizes.n_values,
                start_frame=start,
                num_frames=stop - start,
            )

    # --- facts ---

    def get_diagnostics(self) -> list[dict[str, Any]]:
        """Dtypes as written in the TOML file."""
        descriptor = self._initialized()[1].sidecar.descriptor
        return [
            {"name": "data dtype", "value": descriptor.data_dtype},
            {"name": "indptr dtype", "value": descriptor.indptr_dtype},
            {"name": "indices dtype", "value": descriptor.indices_dtype},
        ]

    def get_cache_key(self) -> dict[str, Any]:
        """Path, shape, dtype and sync offset."""
        return {
            "path": self._path,
            "shape": self.shape.to_tuple(),
            "dtype": str(self.dtype),
            "sync_offset": self._sync_offset,
        }

    @classmethod
    def get_msg_converter(cls) -> type[RawCSRDatasetParams]:
        """Converter of JSON parameters."""
        return RawCSRDatasetParams

    def __repr__(self) -> str:
        if self._meta is None:
            return f"<RawCSRDataSet of {self._path!r}, not initialized>"
        return f"<RawCSRDataSet of {self.dtype} shape={self.shape}>"


class RawCSRPartition(Partition):
    """Some frames of CSR files. Holds no open file.

    Parameters
    ----------
    meta : DataSetMeta
        Of the data set.
    partition_slice : Slice
        Place in the data set, with a flat navigation axis; `sync_offset` is not included.
    descriptor : CSRDescriptor
        The files.
    n_values : int
        How many values the files hold.
    start_frame : int
        First image; may be negative where `sync_offset` inserts blanks.
    num_frames : int
        Number of frames, blanks included.
    """

    def __init__(
        self,
        meta: DataSetMeta,
        partition_slice: Slice,
        descriptor: CSRDescriptor,
        n_values: int,
        start_frame: int,
        num_frames: int,
    ) -> None:
        super().__init__(meta=meta, partition_slice=partition_slice, io_backend=None, decoder=None)
        self._descriptor = descriptor
        self._n_values = n_values
        self._start_frame = start_frame
        self._num_frames = num_frames

    def validate_tiling_scheme(self, tiling_scheme: TilingScheme) -> None:
        """Frames can be cut into contiguous parts only.

        Raises
        ------
        ValueError
            If a signal slice is something else.
        """
        pixel_ranges(tiling_scheme)

    def get_tiles(
        self,
        tiling_scheme: TilingScheme,
        dest_dtype: npt.DTypeLike = "float32",
        roi: npt.NDArray[np.bool_] | None = None,
        array_backend: str | None = None,
    ) -> Iterator[DataTile]:
        """All tiles of the partition, see `BasePartition.get_tiles`.

        Tiles are `scipy.sparse.csr_matrix` of shape ``(frames, pixels)``, which share memory with the files
        if neither dtype nor ROI are in the way; other kinds of arrays are made from them.

        Raises
        ------
        ValueError
            If there is no such kind of array, or frames would be cut into parts that are not contiguous.
        DataSetException
            If the files are damaged; names the frame and the place in the file.
        """
        backend = SCIPY_CSR if array_backend is None else array_backend
        if backend not in BACKENDS:
            raise ValueError(f"unknown array backend {array_backend!r}, expected one of {sorted(BACKENDS)}")
        if self._start_frame >= self.meta.image_count or self.get_frame_count(roi) == 0:
            return
        scheme = tiling_scheme.adjust_for_partition(self)
        self.validate_tiling_scheme(scheme)
        triple = map_files(self._descriptor, self.meta.image_count, self._n_values)
        reader = RowReader(triple, prod(self.meta.shape.sig), self._descriptor)
        yield from read_tiles(reader, self.slice, self.meta.sync_offset, scheme, dest_dtype, roi, backend)

    def get_sparse_blocks(self, roi: npt.NDArray[np.bool_] | None) -> Iterator[SparseBlock] | None:
        """Frames as they lie in the mapped files; checked, so that kernels can trust the pixel numbers."""
        if type(self).get_tiles is not RawCSRPartition.get_tiles:
            return None
        return self._read_blocks(roi)

    def _read_blocks(self, roi: npt.NDArray[np.bool_] | None) -> Iterator[SparseBlock]:
        stop = min(self._start_frame + self._num_frames, self.meta.image_count)
        selected = None if roi is None else flat_nonzero(roi)
        images, first = select_frames(self._start_frame, stop, selected, self.meta.sync_offset)
        if images.shape[0] == 0:
            return
        triple = map_files(self._descriptor, self.meta.image_count, self._n_values)
        reader = RowReader(triple, prod(self.meta.shape.sig), self._descriptor)
        value_bytes = triple.data.itemsize + triple.indices.itemsize
        starts, stops = reader.locate(images)
        ends = np.cumsum(stops - starts)
        row = 0
        while row < images.shape[0]:
            done = int(ends[row - 1]) if row else 0
            end = int(np.searchsorted(ends, done + BLOCK_BYTES // value_bytes, side="right"))
            end = min(max(end, row + 1), row + MAX_BLOCK_FRAMES)
            rows = reader.read(images[row:end])
            values = rows.data
            if not values.dtype.isnative:
                values = values.astype(values.dtype.newbyteorder("="))
            yield SparseBlock(first + row, rows.indptr, rows.indices, values)
            row = end

    def set_corrections(self, corrections: CorrectionSet | None) -> None:
        """None can be applied.

        Raises
        ------
        NotImplementedError
            If there are any.
        """
        if corrections is not None and corrections.have_corrections():
            raise NotImplementedError("corrections not implemented for raw CSR data set")

    def get_locations(self) -> Sequence[str] | None:
        """Any worker will do."""
        return None

    def __repr__(self) -> str:
        stop = self._start_frame + self._num_frames
        return f"<RawCSRPartition [{self._start_frame}:{stop}]>"
