"""Partitions: contiguous runs of frames, the unit of distribution."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.arrays import CUDA, NUMPY, for_backend
from libertem.common.math import count_nonzero, flat_nonzero, prod
from libertem.common.shape import Shape
from libertem.common.slice import Slice
from libertem.io.dataset.base.backends.contract import IOBackend
from libertem.io.dataset.base.blocks import FrameBlock, Frames, FrameTable, ReadOrder, SparseBlock
from libertem.io.dataset.base.coordinates import roi_for_partition
from libertem.io.dataset.base.decode import Decoder, DtypeConversionDecoder
from libertem.io.dataset.base.files import File, FileSet
from libertem.io.dataset.base.meta import DataSetMeta
from libertem.io.dataset.base.packing import PackedDecoder, packed_frames, packed_read_ranges
from libertem.io.dataset.base.ranges import ReadRanges, locate_frames, select_frames
from libertem.io.dataset.base.scan import make_partition_slices
from libertem.io.dataset.base.scheme import TilingScheme
from libertem.io.dataset.base.tile import DataTile
from libertem.io.dataset.base.tiles import TileCutter

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.corrections.corrset import CorrectionSet

__all__ = ["BasePartition", "Partition", "WritablePartition"]


class Partition:
    """A contiguous run of frames of a data set.

    Parameters
    ----------
    meta : DataSetMeta
        Of the data set.
    partition_slice : Slice
        Place in the data set, with a flat navigation axis; `sync_offset` is not included.
    io_backend : IOBackend or None
        How to read files; None for data sets with I/O of their own.
    decoder : Decoder or None
        How to translate stored pixels.
    """

    def __init__(
        self,
        meta: DataSetMeta,
        partition_slice: Slice,
        io_backend: IOBackend | None,
        decoder: Decoder | None,
    ) -> None:
        if partition_slice.shape.nav.dims != 1:
            raise ValueError("nav dims should be flat")
        self.meta = meta
        self.slice = partition_slice
        self._io_backend = io_backend
        self._decoder = decoder
        self._idx: int | None = None

    @classmethod
    def make_slices(
        cls, shape: Shape, num_partitions: int, sync_offset: int = 0
    ) -> Iterator[tuple[Slice, int, int]]:
        """Cut a data set along its flat navigation axis.

        Yields
        ------
        (Slice, int, int)
            Place of the partition, its first image and the image after its last one.
        """
        yield from make_partition_slices(shape, num_partitions, sync_offset)

    @property
    def shape(self) -> Shape:
        """Shape with a flat navigation axis."""
        return self.slice.shape.flatten_nav()

    @property
    def dtype(self) -> np.dtype[Any]:
        """Native dtype of the data set."""
        return self.meta.dtype

    def shape_for_roi(self, roi: npt.NDArray[np.bool_] | None) -> Shape:
        """Shape with only the selected frames counted."""
        return self.slice.adjust_for_roi(roi).shape

    def get_frame_count(self, roi: npt.NDArray[np.bool_] | None = None) -> int:
        """Number of frames, or of selected frames; blank positions count."""
        if roi is None:
            return self.slice.shape[0]
        return count_nonzero(roi_for_partition(roi, self))

    def set_idx(self, idx: int) -> None:
        """Tell the partition its number."""
        self._idx = idx

    def get_ident(self) -> str:
        """Name of the partition, ``part-<number>``."""
        return f"part-{self._idx}"

    def validate_tiling_scheme(self, tiling_scheme: TilingScheme) -> None:
        """Hook to refuse a tiling scheme with `ValueError`."""

    def get_tiles(
        self,
        tiling_scheme: TilingScheme,
        dest_dtype: npt.DTypeLike = "float32",
        roi: npt.NDArray[np.bool_] | None = None,
        array_backend: str | None = None,
    ) -> Iterator[DataTile]:
        """Tiles of this partition; see `BasePartition.get_tiles`."""
        raise NotImplementedError

    def get_macrotile(
        self,
        dest_dtype: npt.DTypeLike = "float32",
        roi: npt.NDArray[np.bool_] | None = None,
        array_backend: str | None = None,
    ) -> DataTile:
        """All existing and selected frames of the partition as one tile."""
        scheme = TilingScheme.make_for_shape(
            tileshape=self.shape, dataset_shape=self.meta.shape, intent="partition"
        )
        tiles = self.get_tiles(scheme, dest_dtype=dest_dtype, roi=roi, array_backend=array_backend)
        for tile in tiles:
            return tile
        sig = self.shape.sig
        empty = Slice(
            origin=(self.slice.adjust_for_roi(roi).origin[0], *(0 for _ in sig)),
            shape=Shape((0, *sig), sig_dims=sig.dims),
        )
        data = np.zeros(tuple(empty.shape), dtype=dest_dtype)
        backend = self.meta.array_backends[0] if array_backend is None else array_backend
        return DataTile(for_backend(data, backend), tile_slice=empty, scheme_idx=0)

    def set_corrections(self, corrections: CorrectionSet | None) -> None:
        """Corrections to apply to tiles."""
        raise NotImplementedError(f"{type(self).__name__} does not support corrections")

    def set_worker_context(self, worker_context: Any) -> None:
        """Receive the means to talk to the main process."""

    def get_locations(self) -> Sequence[str] | None:
        """Names of the workers that hold the data; None for any."""
        raise NotImplementedError

    def get_io_backend(self) -> IOBackend | None:
        """The I/O backend."""
        return None

    def set_io_backend(self, io_backend: IOBackend) -> None:
        """Replace the I/O backend."""
        raise NotImplementedError

    def get_frame_blocks(
        self, order: ReadOrder, roi: npt.NDArray[np.bool_] | None
    ) -> Iterator[FrameBlock] | None:
        """Pixels where they lie, for compiled UDFs; None if this partition cannot offer them.

        Corrections are not applied: who takes blocks has to do that.
        """
        return None

    def get_sparse_blocks(self, roi: npt.NDArray[np.bool_] | None) -> Iterator[SparseBlock] | None:
        """Sparse frames where they lie, for compiled UDFs; None if frames are dense."""
        return None


class WritablePartition(Partition):
    """Marker for partitions that can be written to."""

    def get_write_handle(self) -> Any:
        """Context manager for writing."""
        raise NotImplementedError

    def delete(self) -> None:
        """Remove the data."""
        raise NotImplementedError


class BasePartition(Partition):
    """A partition that is read from files.

    Parameters
    ----------
    meta : DataSetMeta
        Of the data set.
    partition_slice : Slice
        Place in the data set, with a flat navigation axis; `sync_offset` is not included.
    fileset : FileSet
        Files of the data set; those that are not needed are left out.
    start_frame : int
        First image; may be negative where `sync_offset` inserts blanks.
    num_frames : int
        Number of frames, blanks included.
    io_backend : IOBackend
        How to read.
    decoder : Decoder, optional
        How to translate stored pixels; a `PackedDecoder` for packed ones.

    Raises
    ------
    ValueError
        If there is no frame.
    """

    def __init__(
        self,
        meta: DataSetMeta,
        partition_slice: Slice,
        fileset: FileSet,
        start_frame: int,
        num_frames: int,
        io_backend: IOBackend,
        decoder: Decoder | None = None,
    ) -> None:
        super().__init__(meta=meta, partition_slice=partition_slice, io_backend=io_backend, decoder=decoder)
        if num_frames <= 0:
            raise ValueError(f"invalid number of frames: {num_frames}")
        self._packing = decoder.packing if isinstance(decoder, PackedDecoder) else None
        self._start_frame = start_frame
        self._num_frames = num_frames
        self._corrections: CorrectionSet | None = None
        self._worker_context: Any = None
        self._fileset: FileSet | None = None
        if start_frame < meta.image_count and start_frame + num_frames > 0:
            last = min(start_frame + num_frames, meta.image_count) - 1
            self._fileset = fileset.get_for_range(max(0, start_frame), last)

    def set_corrections(self, corrections: CorrectionSet | None) -> None:
        """Corrections to apply to tiles."""
        self._corrections = corrections

    def set_worker_context(self, worker_context: Any) -> None:
        """Receive the means to talk to the main process."""
        self._worker_context = worker_context

    def get_locations(self) -> Sequence[str] | None:
        """Any worker will do."""
        return None

    def get_io_backend(self) -> IOBackend:
        """The I/O backend."""
        assert self._io_backend is not None
        return self._io_backend

    def get_max_io_size(self) -> int:
        """Upper bound for tiles that are copied, in bytes."""
        return self.get_io_backend().get_impl().get_max_io_size()

    def _stop_frame(self) -> int:
        return min(self._start_frame + self._num_frames, self.meta.image_count)

    def _get_read_ranges(
        self, tiling_scheme: TilingScheme, roi: npt.NDArray[np.bool_] | None = None
    ) -> ReadRanges:
        assert self._fileset is not None
        if self._packing is not None:
            return packed_read_ranges(
                self._fileset,
                self._packing,
                tiling_scheme,
                (self._start_frame, self._stop_frame()),
                self.meta.sync_offset,
                None if roi is None else flat_nonzero(roi),
            )
        return self._fileset.get_read_ranges(
            start_at_frame=self._start_frame,
            stop_before_frame=self._stop_frame(),
            dtype=self.meta.raw_dtype,
            tiling_scheme=tiling_scheme,
            sync_offset=self.meta.sync_offset,
            roi=roi,
        )

    def get_tiles(
        self,
        tiling_scheme: TilingScheme,
        dest_dtype: npt.DTypeLike = "float32",
        roi: npt.NDArray[np.bool_] | None = None,
        array_backend: str | None = None,
    ) -> Iterator[DataTile]:
        """All tiles of the partition, `depth` frames at a time, all signal slices for each.

        The memory of a tile may be used again for the next one: finish with a tile before asking for
        the next. It may be read-only.

        Parameters
        ----------
        tiling_scheme : TilingScheme
            How to cut frames.
        dest_dtype : dtype
            Of the tiles.
        roi : array of bool, optional
            Of navigation shape. Only selected frames are delivered; origins of tiles then count
            selected positions of the whole data set.
        array_backend : str, optional
            Kind of array; by default the first one that the data set offers.
        """
        if self._fileset is None:
            return
        scheme = tiling_scheme.adjust_for_partition(self)
        self.validate_tiling_scheme(scheme)
        backend = self.meta.array_backends[0] if array_backend is None else array_backend
        frames = self._frames(roi) if backend in (NUMPY, CUDA) else None
        if frames is not None:
            cutter = TileCutter(frames, scheme, dest_dtype, self._corrections)
            for block in self._read_blocks(frames, ReadOrder.for_scheme(scheme)):
                yield from cutter.cut(block)
            return
        yield from self._get_decoded_tiles(scheme, dest_dtype, roi, backend)

    def _get_decoded_tiles(
        self,
        scheme: TilingScheme,
        dest_dtype: npt.DTypeLike,
        roi: npt.NDArray[np.bool_] | None,
        array_backend: str,
    ) -> Iterator[DataTile]:
        """The documented way: read ranges, decoder, backend. Serves all that overrides a part of it."""
        yield from (
            self.get_io_backend()
            .get_impl()
            .get_tiles(
                tiling_scheme=scheme,
                fileset=self._fileset,  # type: ignore[arg-type]  # not None, see get_tiles
                read_ranges=self._get_read_ranges(scheme, roi),
                roi=roi,
                native_dtype=self.meta.raw_dtype,
                read_dtype=np.dtype(dest_dtype),
                sync_offset=self.meta.sync_offset,
                decoder=self._decoder,
                corrections=self._corrections,
                array_backend=array_backend,
            )
        )

    def _frames(self, roi: npt.NDArray[np.bool_] | None) -> Frames | None:
        """Where the frames lie; None if something in the documented way was overridden."""
        fileset = self._fileset
        if fileset is None or not self._is_regular(fileset):
            return None
        images, first = select_frames(
            self._start_frame,
            self._stop_frame(),
            None if roi is None else flat_nonzero(roi),
            self.meta.sync_offset,
        )
        sig_shape = self.meta.shape.sig.to_tuple()
        if self._packing is not None:
            return packed_frames(fileset, self._packing, (images, first), sig_shape)
        files = fileset.get_as_arr()
        rows, offsets = locate_frames(
            images,
            files,
            prod(sig_shape),
            self.meta.raw_dtype.itemsize * 8,
            fileset._frame_header_bytes,
            fileset._frame_footer_bytes,
        )
        return FrameTable(
            fileset=fileset,
            files=files[rows, 2],
            offsets=offsets,
            first=first,
            dtype=self.meta.raw_dtype,
            sig_shape=sig_shape,
        )

    def _is_regular(self, fileset: FileSet) -> bool:
        """Whether frames can be read without asking read ranges and decoders."""
        known = DtypeConversionDecoder if self._packing is None else PackedDecoder
        if self._decoder is not None and type(self._decoder) is not known:
            return False
        changed = (
            type(self)._get_read_ranges is not BasePartition._get_read_ranges
            or type(self)._get_decoded_tiles is not BasePartition._get_decoded_tiles
            or type(fileset).get_read_ranges is not FileSet.get_read_ranges
            or type(fileset).get_as_arr is not FileSet.get_as_arr
            or any(
                cls.get_array_from_memview is not File.get_array_from_memview
                or cls.get_offsets_sizes is not File.get_offsets_sizes
                for cls in {type(file) for file in fileset}
            )
        )
        return not changed and self._has_block_source()

    def _has_block_source(self) -> bool:
        return self.get_io_backend().get_impl().block_source() is not None

    def _read_blocks(self, frames: Frames, order: ReadOrder) -> Iterator[FrameBlock]:
        source = self.get_io_backend().get_impl().block_source()
        assert source is not None
        yield from frames.read_blocks(source, order)

    def get_frame_blocks(
        self, order: ReadOrder, roi: npt.NDArray[np.bool_] | None
    ) -> Iterator[FrameBlock] | None:
        """Pixels where they lie, for compiled UDFs, without corrections.

        None if a part of the documented way from files to tiles was overridden.
        """
        if type(self).get_tiles is not BasePartition.get_tiles:
            return None
        if self._fileset is None:
            return iter(())
        frames = self._frames(roi)
        return None if frames is None else self._read_blocks(frames, order)

    def make_tile_cutter(
        self, scheme: TilingScheme, dest_dtype: npt.DTypeLike, roi: npt.NDArray[np.bool_] | None
    ) -> TileCutter | None:
        """What cuts the blocks of `get_frame_blocks` into tiles, with corrections."""
        frames = self._frames(roi)
        return None if frames is None else TileCutter(frames, scheme, dest_dtype, self._corrections)

    def __repr__(self) -> str:
        stop = self._start_frame + self._num_frames
        return f"<{type(self).__name__} [{self._start_frame}:{stop}]>"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_worker_context": None}
