"""Buffered reading: large sequential reads through the page cache, fetched ahead."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from libertem.common.protocols import CorrectionsProtocol
from libertem.io.dataset.base.backends.contract import Fetch, IOBackend, IOBackendImpl
from libertem.io.dataset.base.backends.openfiles import RecentFiles
from libertem.io.dataset.base.backends.rawio import DIRECT_ALIGNMENT, RawFile, aligned_buffer
from libertem.io.dataset.base.backends.readblocks import BufferedBlocks
from libertem.io.dataset.base.backends.readplan import is_small_gap
from libertem.io.dataset.base.blocks import BlockSource
from libertem.io.dataset.base.decode import Decoder
from libertem.io.dataset.base.files import File, FileSet
from libertem.io.dataset.base.ranges import ReadRanges
from libertem.io.dataset.base.tile import DataTile

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.dataset.base.scheme import TilingScheme

__all__ = ["BufferedBackend", "BufferedBackendImpl", "BufferedFile", "DirectBufferedFile"]


class BufferedBackend(IOBackend, id_="buffered"):
    """Read files with large sequential reads. The default on Windows, and good for hard disks.

    Parameters
    ----------
    max_buffer_size : int
        Upper bound of the memory for reading, in bytes per worker.
    """

    def __init__(self, max_buffer_size: int = 16777216) -> None:
        self._max_buffer_size = max_buffer_size

    @property
    def max_buffer_size(self) -> int:
        """Upper bound of the memory for reading, in bytes per worker."""
        return self._max_buffer_size

    def get_impl(self) -> BufferedBackendImpl:
        """A new reader."""
        return BufferedBackendImpl(max_buffer_size=self._max_buffer_size)


class BufferedFile:
    """An open file that read ranges are fetched from."""

    direct = False

    def __init__(self, desc: File) -> None:
        self.desc = desc
        self._file = RawFile(desc.path, direct=self.direct)

    def read(self, start: int, stop: int) -> npt.NDArray[np.uint8]:
        """Bytes ``[start, stop)`` of the file."""
        buffer = np.empty(stop - start, dtype=np.uint8)
        self._file.read_into(buffer, start)
        return buffer

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class DirectBufferedFile(BufferedFile):
    """An open file that is read past the page cache; any position and length."""

    direct = True

    def read(self, start: int, stop: int) -> npt.NDArray[np.uint8]:
        """Bytes ``[start, stop)`` of the file."""
        extra = start % DIRECT_ALIGNMENT
        needed = extra + stop - start
        buffer = aligned_buffer(-(-needed // DIRECT_ALIGNMENT) * DIRECT_ALIGNMENT)
        self._file.read_into(buffer, start - extra, needed=needed)
        return buffer[extra:needed]


class BufferedBackendImpl(IOBackendImpl):
    """Reader of `BufferedBackend`; that of `DirectBackend` differs only in the files it opens."""

    file_class: type[BufferedFile] = BufferedFile

    def __init__(self, max_buffer_size: int) -> None:
        self._max_buffer_size = max_buffer_size

    def need_copy(
        self,
        decoder: Decoder | None,
        roi: npt.NDArray[np.bool_] | None,
        native_dtype: npt.DTypeLike,
        read_dtype: npt.DTypeLike,
        tiling_scheme: TilingScheme | None = None,
        fileset: FileSet | None = None,
        sync_offset: int = 0,
        corrections: CorrectionsProtocol | None = None,
    ) -> bool:
        """Always: nothing is mapped."""
        return True

    def get_max_io_size(self) -> int:
        """The size of the buffer."""
        return self._max_buffer_size

    def block_source(self) -> BlockSource:
        """Blocks are read through the page cache."""
        return BufferedBlocks(self._max_buffer_size)

    @contextmanager
    def open_files(self, fileset: FileSet) -> Iterator[list[BufferedFile]]:
        """Open all files of a partition."""
        files: list[BufferedFile] = []
        try:
            for file in fileset:
                files.append(self.file_class(file))
            yield files
        finally:
            for opened in files:
                opened.close()

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
        """Decoded copies; the tiles of a block of frames share their reads."""
        with RecentFiles(self.file_class, fileset) as files:
            yield from self._decode_tiles(
                _fetchers(files, read_ranges, self._max_buffer_size),
                tiling_scheme,
                read_ranges,
                native_dtype,
                read_dtype,
                decoder,
                corrections,
                array_backend,
            )


def _fetchers(
    files: RecentFiles[BufferedFile], read_ranges: ReadRanges, max_buffer_size: int
) -> Iterator[tuple[range, Fetch]]:
    """Read for all signal slices of a block of frames at once where the buffer allows it."""
    tile_slices, ranges, _ = read_ranges
    n_tiles = tile_slices.shape[0]
    blocks = np.flatnonzero(np.diff(tile_slices[:, 0, 0])) + 1
    borders = [0, *blocks.tolist(), n_tiles] if n_tiles else [0]
    for start, stop in itertools.pairwise(borders):
        wanted = ranges[start:stop, :, :3]
        if (wanted[..., 2] - wanted[..., 1]).sum() <= max_buffer_size:
            yield range(start, stop), _read_spans(files, wanted.reshape(-1, 3), max_buffer_size)
            continue
        for t in range(start, stop):
            yield range(t, t + 1), _read_spans(files, ranges[t, :, :3], max_buffer_size)


def _read_spans(files: RecentFiles[BufferedFile], wanted: npt.NDArray[np.int64], max_bytes: int) -> Fetch:
    """Read what the ranges cover, with small gaps included, and return a function that finds them."""
    used = wanted[wanted[:, 2] > wanted[:, 1]]
    used = used[np.lexsort((used[:, 1], used[:, 0]))]
    reach = np.maximum.accumulate(used[:, 2] + used[:, 0] * (1 << 52))
    begin = used[:, 1] + used[:, 0] * (1 << 52)
    gaps = begin[1:] - reach[:-1]
    together = is_small_gap(gaps, used[1:, 2] - used[1:, 1])
    if (used[:, 2] - used[:, 1]).sum() + gaps[together].clip(0).sum() > max_bytes:
        together = gaps <= 0
    heads = np.concatenate([[0], np.flatnonzero(~together) + 1])
    spans: dict[int, list[tuple[int, npt.NDArray[np.uint8]]]] = {}
    for head, tail in zip(heads, [*heads[1:].tolist(), used.shape[0]], strict=True):
        idx, first = int(used[head, 0]), int(used[head, 1])
        last = int(used[head:tail, 2].max())
        spans.setdefault(idx, []).append((first, files[idx].read(first, last)))

    def fetch(file_idx: int, start: int, stop: int) -> npt.NDArray[np.uint8]:
        in_file = spans[file_idx]
        lo, hi = 0, len(in_file)
        while hi - lo > 1:
            mid = (lo + hi) // 2
            lo, hi = (mid, hi) if in_file[mid][0] <= start else (lo, mid)
        first, data = in_file[lo]
        return data[start - first : stop - first]

    return fetch
