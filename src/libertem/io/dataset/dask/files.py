"""Chunks that are computed when they are read, in the place of files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.arrays import NUMPY, for_backend, get_backend
from libertem.common.protocols import CorrectionsProtocol
from libertem.exceptions import DataSetException
from libertem.io.dataset.base.backends.contract import IOBackend, IOBackendImpl
from libertem.io.dataset.base.backends.mmap import BLOCK_BYTES, MIN_KERNEL_FRAMES
from libertem.io.dataset.base.blocks import BlockSource, FrameBlock, FrameRun, FrameTable, ReadOrder
from libertem.io.dataset.base.decode import Decoder
from libertem.io.dataset.base.files import File, FileSet
from libertem.io.dataset.base.partition import BasePartition
from libertem.io.dataset.base.ranges import ReadRanges
from libertem.io.dataset.base.scheme import TilingScheme
from libertem.io.dataset.base.tile import DataTile

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["DaskBackend", "DaskBackendImpl", "DaskFile", "DaskFileSet", "DaskPartition", "LazyChunk"]


class LazyChunk:
    """A block of an array, with the tasks that compute it. On its way to a worker it carries no others.

    Parameters
    ----------
    graph : mapping
        Tasks by key, those for other blocks included.
    key : tuple
        Of the block.
    shape : tuple of int
        Of the block.
    dtype : dtype
        Of the array.
    """

    def __init__(
        self, graph: Mapping[Any, Any], key: tuple[Any, ...], shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        self._graph = graph
        self._key = key
        self._shape = shape
        self._dtype = dtype

    def _tasks(self) -> Any:
        from dask import optimization

        typed: Any = optimization
        return typed.cull(self._graph, [self._key])[0]

    def compute(self) -> npt.NDArray[Any]:
        """The pixels as 1D array in C order, read-only; computed in threads of this process.

        Raises
        ------
        DataSetException
            If the block turns out to be of another kind than the array says.
        """
        from dask.threaded import get

        # A pool of its own: dask would keep one for each of the threads that ever ask.
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            found = _as_numpy(get(self._tasks(), self._key, pool=pool))
        if found.shape != self._shape or not np.can_cast(found.dtype, self._dtype, "same_kind"):
            raise DataSetException(
                "a chunk is not what the Dask array says",
                found=f"{found.dtype} {found.shape}",
                expected=f"{self._dtype} {self._shape}",
                hint="correct shape and dtype where the array is made, for instance in from_delayed()",
            )
        # Views of memory that belongs to somebody else are not to be written to.
        pixels = np.ascontiguousarray(found, dtype=self._dtype).reshape(-1).view()
        pixels.flags.writeable = False
        return pixels

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_graph": self._tasks()}


def _as_numpy(found: Any) -> npt.NDArray[Any]:
    if isinstance(found, np.ma.MaskedArray):
        raise DataSetException(
            "masked arrays cannot be read", hint="fill them first, as in dask.array.ma.filled(array, 0)"
        )
    if isinstance(found, np.ndarray | np.generic):
        return np.asarray(found)
    if not hasattr(found, "shape") or get_backend(found) is None:
        raise DataSetException(
            "a chunk is no array", found=type(found).__name__, expected="a NumPy, CuPy or sparse array"
        )
    return np.asarray(for_backend(found, NUMPY))


class DaskFile(File):
    """Stands where other data sets have a file: frames in a chunk that is not computed yet.

    Parameters
    ----------
    chunk : LazyChunk
        The frames.
    start_idx, end_idx : int
        Half-open range of image numbers.
    native_dtype : dtype
        Of the array.
    sig_shape : tuple of int
        Shape of one frame.
    """

    def __init__(
        self,
        chunk: LazyChunk,
        start_idx: int,
        end_idx: int,
        native_dtype: npt.DTypeLike,
        sig_shape: tuple[int, ...],
    ) -> None:
        super().__init__("", start_idx, end_idx, native_dtype=native_dtype, sig_shape=sig_shape)
        self._chunk = chunk

    def compute(self) -> npt.NDArray[Any]:
        """All pixels, 1D."""
        return self._chunk.compute()


class DaskFileSet(FileSet):
    """The only `DaskFile` of a partition."""


class DaskBackend(IOBackend):
    """Stands where data sets in files have their I/O backend."""

    def get_impl(self) -> DaskBackendImpl:
        """A new reader."""
        return DaskBackendImpl()


class DaskBackendImpl(IOBackendImpl):
    """Computes chunks, and cuts frames from them as from a file in memory."""

    def block_source(self) -> BlockSource:
        """Blocks are places in the computed chunk."""
        return _ComputedBlocks()

    @contextmanager
    def open_files(self, fileset: FileSet) -> Iterator[list[Any]]:
        """The pixels of each file of a partition, computed."""
        yield [_dask_file(file).compute() for file in fileset]

    def get_tiles(
        self,
        tiling_scheme: TilingScheme,
        fileset: FileSet,
        read_ranges: ReadRanges,
        roi: npt.NDArray[np.bool_] | None,
        native_dtype: npt.DTypeLike,
        read_dtype: npt.DTypeLike,
        decoder: Decoder | None,
        sync_offset: int,
        corrections: CorrectionsProtocol | None,
        array_backend: str | None,
    ) -> Iterator[DataTile]:
        """Tiles by way of read ranges, for partitions that override those."""
        with self.open_files(fileset) as files:

            def fetch(file_idx: int, start: int, stop: int) -> npt.NDArray[np.uint8]:
                part: npt.NDArray[np.uint8] = files[file_idx].view(np.uint8)[start:stop]
                return part

            yield from self._decode_tiles(
                iter([(range(read_ranges[0].shape[0]), fetch)]),
                tiling_scheme,
                read_ranges,
                native_dtype,
                read_dtype,
                decoder,
                corrections,
                array_backend,
            )


def _dask_file(file: File) -> DaskFile:
    assert isinstance(file, DaskFile)
    return file


class _ComputedBlocks:
    """The chunk of a partition, computed once."""

    def read_blocks(self, table: FrameTable, order: ReadOrder) -> Iterator[FrameBlock]:
        """Whole frames, about `BLOCK_BYTES` at a time."""
        if not len(table):
            return
        pixels = _dask_file(table.fileset[0]).compute().view(table.dtype.newbyteorder("="))
        starts = table.offsets // table.dtype.itemsize
        (slab,) = order.whole_frames().slabs
        unit = order.depth if order.for_tiles else MIN_KERNEL_FRAMES
        step = max(1, BLOCK_BYTES // (unit * table.frame_bytes)) * unit
        for row in range(0, starts.shape[0], step):
            yield FrameBlock(
                first=table.first + row,
                runs=(FrameRun(pixels, starts[row : row + step]),),
                px_start=0,
                px_stop=table.sig_px,
                swapped=not table.dtype.isnative,
                slab=slab,
            )


class DaskPartition(BasePartition):
    """A chunk of the adapted array."""
