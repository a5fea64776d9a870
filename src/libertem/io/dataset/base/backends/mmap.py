"""Memory-mapped files: the kernel's page cache is read in place."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.protocols import CorrectionsProtocol
from libertem.exceptions import DataSetException
from libertem.io.dataset.base.backends.contract import IOBackend, IOBackendImpl, make_tile_slice
from libertem.io.dataset.base.backends.openfiles import MAX_OPEN, RecentFiles
from libertem.io.dataset.base.backends.rawio import RawFile
from libertem.io.dataset.base.backends.readblocks import BufferedBlocks
from libertem.io.dataset.base.blocks import BlockSource, FrameBlock, FrameRun, FrameTable, ReadOrder
from libertem.io.dataset.base.decode import Decoder
from libertem.io.dataset.base.files import File, FileSet
from libertem.io.dataset.base.ranges import ReadRanges
from libertem.io.dataset.base.tile import DataTile

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.dataset.base.scheme import TilingScheme

__all__ = ["MMapBackend", "MMapBackendImpl", "MMapFile", "MMapFileBase"]

BLOCK_BYTES = 16 << 20
"""Small enough for fine progress, large enough that Python between blocks costs under 1 %."""

READ_BYTES = 16 << 20
"""Memory for frames that cannot be used in a map."""

MIN_KERNEL_FRAMES = 64

MIN_RUN_FRAMES = 4
"""With fewer frames per file than this, files are read rather than mapped: mapping costs two faults."""


class MMapBackend(IOBackend, id_="mmap"):
    """Read files through memory maps. The default except on Windows.

    Parameters
    ----------
    enable_readahead_hints : bool
        Linux only: ask the system to fetch whole files ahead (experimental).
    """

    def __init__(self, enable_readahead_hints: bool = False) -> None:
        self._hints_enabled = enable_readahead_hints

    @property
    def enable_readahead_hints(self) -> bool:
        """Whether whole files are fetched ahead."""
        return self._hints_enabled

    def get_impl(self) -> MMapBackendImpl:
        """A new reader."""
        return MMapBackendImpl(enable_readahead_hints=self._hints_enabled)


class MMapFileBase:
    """An open file as its bytes and as an array of frames; subclasses may hold both elsewhere."""

    def __init__(self, desc: File) -> None:
        self.desc = desc

    @property
    def raw(self) -> npt.NDArray[np.uint8]:
        """All bytes of the file."""
        raise NotImplementedError

    @property
    def array(self) -> npt.NDArray[Any]:
        """Array ``(num_frames, frame px)`` of native dtype."""
        raise NotImplementedError

    def close(self) -> None:
        """Release what the file holds."""


class MMapFile(MMapFileBase):
    """A file mapped into memory."""

    def __init__(self, desc: File, *, enable_readahead_hints: bool = False) -> None:
        super().__init__(desc)
        with RawFile(desc.path) as file:
            if file.size() < desc.min_file_bytes:
                raise DataSetException(
                    "the file is shorter than its frames",
                    path=desc.path,
                    found=f"{file.size()} bytes",
                    expected=f"at least {desc.min_file_bytes} bytes for {desc.num_frames} frames",
                    hint="was it truncated after the data set was loaded?",
                )
            self._raw: npt.NDArray[np.uint8] | None = file.map()
            if enable_readahead_hints:
                file.advise_willneed(0, file.size())

    @property
    def raw(self) -> npt.NDArray[np.uint8]:
        """All bytes of the file."""
        assert self._raw is not None
        return self._raw

    @property
    def array(self) -> npt.NDArray[Any]:
        """Array ``(num_frames, frame px)`` of native dtype, a view of the map."""
        slicing = self.desc.get_offsets_sizes(self.raw.size)
        return self.desc.get_array_from_memview(self.raw.data, slicing)

    def close(self) -> None:
        """Forget the map. It ends when the last view of it is gone."""
        self._raw = None


class MMapBackendImpl(IOBackendImpl):
    """Reader of `MMapBackend`."""

    def __init__(self, enable_readahead_hints: bool = False) -> None:
        self._hints_enabled = enable_readahead_hints

    def block_source(self) -> BlockSource:
        """Blocks are places in the map."""
        return _MappedBlocks(self._hints_enabled)

    @contextmanager
    def open_files(self, fileset: FileSet) -> Iterator[list[MMapFileBase]]:
        """Map all files of a partition."""
        files: list[MMapFileBase] = []
        try:
            for file in fileset:
                files.append(self._open(file))
            yield files
        finally:
            for opened in files:
                opened.close()

    def _open(self, file: File) -> MMapFileBase:
        return MMapFile(file, enable_readahead_hints=self._hints_enabled)

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
        """Views of the map where that is possible, else decoded copies."""
        with RecentFiles(self._open, fileset) as files:
            copy = (
                self.need_copy(
                    decoder, roi, native_dtype, read_dtype, tiling_scheme, fileset, sync_offset, corrections
                )
                or not all(file.frames_fit_items for file in fileset)
                or _tiles_cross_files(fileset, read_ranges[0], sync_offset)
            )
            if not copy:
                yield from _straight_tiles(files, fileset, read_ranges, sync_offset)
                return

            def fetch(file_idx: int, start: int, stop: int) -> npt.NDArray[np.uint8]:
                return files[file_idx].raw[start:stop]

            everything = range(read_ranges[0].shape[0])
            yield from self._decode_tiles(
                iter([(everything, fetch)]),
                tiling_scheme,
                read_ranges,
                native_dtype,
                read_dtype,
                decoder,
                corrections,
                array_backend,
            )


def _tiles_cross_files(fileset: FileSet, tile_slices: npt.NDArray[np.int64], sync_offset: int) -> bool:
    files = fileset.get_as_arr()
    first = tile_slices[:, 0, 0] + sync_offset
    last = first + tile_slices[:, 1, 0] - 1
    rows = np.searchsorted(files[:, 0], [first, last], side="right")
    return bool(np.any(rows[0] != rows[1]))


def _straight_tiles(
    files: RecentFiles[MMapFileBase], fileset: FileSet, read_ranges: ReadRanges, sync_offset: int
) -> Iterator[DataTile]:
    tile_slices, ranges, scheme_indices = read_ranges
    for t in range(tile_slices.shape[0]):
        origin, shape = tile_slices[t]
        tile_slice = make_tile_slice(origin, shape, tile_slices.shape[2] - 1)
        file_idx = int(ranges[t, 0, 0])
        start = int(origin[0]) + sync_offset - fileset[file_idx].start_idx
        frames = files[file_idx].array.reshape(-1, *fileset[file_idx].sig_shape)
        part = frames[start : start + int(shape[0])]
        yield DataTile(tile_slice.get(part, sig_only=True), tile_slice, int(scheme_indices[t]))


class _MappedBlocks:
    """Blocks are places in the map; only what cannot be used there is copied."""

    def __init__(self, hints_enabled: bool) -> None:
        self._hints_enabled = hints_enabled

    def read_blocks(self, table: FrameTable, order: ReadOrder) -> Iterator[FrameBlock]:
        """Whole frames, about `BLOCK_BYTES` at a time."""
        item = table.dtype.itemsize
        native = table.dtype.newbyteorder("=")
        (slab,) = order.whole_frames().slabs
        # Kernels want many frames at a time, however large these are: nothing is copied.
        unit = order.depth if order.for_tiles else MIN_KERNEL_FRAMES
        step = max(1, BLOCK_BYTES // (unit * table.frame_bytes)) * unit
        if _is_scattered(table, step) or np.any(table.offsets % item):
            # Kernels need aligned pixels.
            yield from BufferedBlocks(READ_BYTES).read_blocks(table, order)
            return
        maps = _Maps(table.fileset, self._hints_enabled)
        for start in range(0, len(table), step):
            files, offsets = table.files[start : start + step], table.offsets[start : start + step]
            runs = []
            borders = [0, *(np.flatnonzero(np.diff(files)) + 1).tolist(), files.shape[0]]
            for a, b in itertools.pairwise(borders):
                raw = maps.get(int(files[a]))
                usable = raw[: raw.size // item * item].view(native)
                runs.append(FrameRun(usable, offsets[a:b] // item))
            yield FrameBlock(
                first=table.first + start,
                runs=tuple(runs),
                px_start=0,
                px_stop=table.sig_px,
                swapped=not table.dtype.isnative,
                slab=slab,
            )


def _is_scattered(table: FrameTable, step: int) -> bool:
    """Whether the frames lie in so many files that mapping these costs more than reading."""
    n_files = 1 + int(np.count_nonzero(np.diff(table.files)))
    n_blocks = -(-len(table) // step)
    # The maps of a block are open at the same time.
    return n_files > 1 and (len(table) < MIN_RUN_FRAMES * n_files or n_files > MAX_OPEN * n_blocks)


class _Maps:
    """Maps of the files in use; a partition walks through its files from first to last."""

    def __init__(self, fileset: FileSet, hints_enabled: bool) -> None:
        self._fileset = fileset
        self._hints_enabled = hints_enabled
        self._current: tuple[int, npt.NDArray[np.uint8]] | None = None

    def get(self, idx: int) -> npt.NDArray[np.uint8]:
        if self._current is None or self._current[0] != idx:
            file = MMapFile(self._fileset[idx], enable_readahead_hints=self._hints_enabled)
            self._current = idx, file.raw
        return self._current[1]
