"""Packed frames: pixels that have to be decoded before anything can be done with them.

A format whose pixels are not plain numbers describes the encoding with a subclass of `Packing` and returns it
from `FrameFileDataSet._get_packing`. Reading, cutting into cache-sized pieces, tiles, regions of interest and
corrections are then the same as for plain pixels.

An I/O backend delivers blocks of stored bytes, `PackedFrames` decodes some frames at a time into scratch
memory that stays in the second-level cache, and hands that on as frame blocks. Where a part of this was
overridden, `PackedDecoder` and `packed_read_ranges` serve the documented path.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from libertem.io.dataset.base.blocks import (
    MIN_FRAMES_PER_BLOCK,
    BlockSource,
    FrameBlock,
    FrameRun,
    FrameTable,
    ReadOrder,
    Slab,
    open_blocks,
    read_only,
)
from libertem.io.dataset.base.decode import Decode, Decoder, check_conversion
from libertem.io.dataset.base.ranges import ReadRanges, locate_frames, no_tiles, select_frames

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.dataset.base.files import FileSet
    from libertem.io.dataset.base.scheme import TilingScheme

__all__ = ["PackedDecoder", "PackedFrames", "Packing", "packed_frames", "packed_read_ranges"]

SCRATCH_BYTES = 1 << 20
"""Decoded pixels that are in use at a time: half of it leaves the second-level cache of older CPUs."""

SCRATCH_BYTES_OF_PARTS = 4 << 20
"""The same for frames in several parts: each piece costs a call per part, and reads from many places."""

MAX_STORED_BYTES = 16 << 20
"""For more, a backend that reads should not have to hold several frames at a time."""


class Packing:
    """How the pixels of a frame are encoded in a file. Small and picklable; travels with each partition.

    A frame consists of one or more *parts* of equal size, each a contiguous run of bytes in a file. Nearly
    all formats have one part; a K2IS frame has one for each of eight files.

    Parameters
    ----------
    dtype : dtype
        Of the decoded pixels, in native byte order.
    frame_shape : (int, int)
        (height, width) of a decoded frame as the sensor delivers it; the user may give other shapes of as
        many pixels to it.
    part_bytes : int
        Stored bytes of each part of a frame, without frame headers and footers.
    n_parts : int
        Number of parts of a frame.
    """

    def __init__(
        self, dtype: npt.DTypeLike, frame_shape: tuple[int, int], part_bytes: int, n_parts: int = 1
    ) -> None:
        self.dtype = np.dtype(dtype)
        self.frame_shape = frame_shape
        self.part_bytes = part_bytes
        self.n_parts = n_parts

    def unpack(
        self,
        part: int,
        stored: npt.NDArray[np.uint8],
        starts: npt.NDArray[np.int64],
        first_row: int,
        out: npt.NDArray[Any],
    ) -> None:
        """Decode some rows of some frames: one call of a compiled kernel that releases the GIL.

        Parameters
        ----------
        part : int
            Which part of the frames `stored` holds. Only the pixels of this part are written.
        stored : array
            1D bytes, read-only and not aligned.
        starts : array
            For each frame the index in `stored` where its part starts; ``part_bytes`` bytes belong to it.
        first_row : int
            Row of the frame that goes to the first row of `out`.
        out : array
            ``(n_frames, n_rows, width)``, C-contiguous, of `dtype`. Has undefined content before.
        """
        raise NotImplementedError


class _Band(NamedTuple):
    """Rows of a frame that are decoded at a time."""

    slab: Slab
    """The pixels that are wanted."""
    first_row: int
    """First row that holds some of them."""
    n_rows: int


@dataclass(frozen=True)
class PackedFrames:
    """Packed frames of a partition: reads and decodes them."""

    packing: Packing
    tables: tuple[FrameTable, ...]
    """Where the bytes of each part of the frames lie; their pixels are bytes."""
    sig_shape: tuple[int, ...]
    """Shape of a frame as the user sees it."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the decoded pixels."""
        return self.packing.dtype

    def read_blocks(self, source: BlockSource, order: ReadOrder) -> Iterator[FrameBlock]:
        """Blocks of decoded pixels, each of about `SCRATCH_BYTES`, in memory that is used again."""
        stored_order = self._stored_order(order)
        n_frames, bands = self._fit(order)
        scratch = _Scratch(self.packing)
        row = 0
        with ExitStack() as stack:
            cursors = [
                _Cursor(stack.enter_context(open_blocks(source, table, stored_order)))
                for table in self.tables
            ]
            while available := min(cursor.available() for cursor in cursors):
                taken = [cursor.take(min(available, n_frames)) for cursor in cursors]
                for band in bands:
                    yield scratch.decode(taken, band, self.tables[0].first + row)
                row += min(available, n_frames)

    def _stored_order(self, order: ReadOrder) -> ReadOrder:
        """Whole frames, as many as kernels like to have at a time."""
        depth = order.depth
        if not order.for_tiles:
            stored_bytes = self.packing.part_bytes * self.packing.n_parts
            depth = max(1, min(MIN_FRAMES_PER_BLOCK, MAX_STORED_BYTES // stored_bytes))
        slab = Slab(0, self.packing.part_bytes, range(0))
        return ReadOrder(depth=depth, slabs=(slab,), for_tiles=order.for_tiles, whole=True)

    def _fit(self, order: ReadOrder) -> tuple[int, list[_Band]]:
        """Frames to decode at a time, and the bands of rows."""
        height, width = self.packing.frame_shape
        itemsize = self.dtype.itemsize
        scratch_bytes = SCRATCH_BYTES if self.packing.n_parts == 1 else SCRATCH_BYTES_OF_PARTS
        n_frames, slabs = order.fit(height * width, itemsize, scratch_bytes)
        if not order.for_tiles and len(slabs) > 1:
            # Bands for kernels may end anywhere: between rows, so that no row is decoded twice.
            n_rows = max(1, scratch_bytes // (n_frames * width * itemsize))
            slabs = tuple(
                Slab(row * width, min(height, row + n_rows) * width, range(0))
                for row in range(0, height, n_rows)
            )
        return n_frames, [
            _Band(slab, slab.px_start // width, -(-slab.px_stop // width) - slab.px_start // width)
            for slab in slabs
        ]


class _Cursor:
    """A place in the blocks of one part of the frames."""

    def __init__(self, blocks: Iterator[FrameBlock]) -> None:
        self._blocks = blocks
        self._runs: list[FrameRun] = []

    def available(self) -> int:
        """Frames that can be taken now, 0 at the end. What was taken before may then be overwritten."""
        if not self._runs:
            block = next(self._blocks, None)
            if block is not None:
                self._runs = [FrameRun(read_only(run.buffer), run.starts) for run in block.runs]
        return sum(run.starts.shape[0] for run in self._runs)

    def take(self, n_frames: int) -> list[FrameRun]:
        """The next frames."""
        taken = []
        while n_frames:
            run = self._runs.pop(0)
            now, later = run.starts[:n_frames], run.starts[n_frames:]
            taken.append(FrameRun(run.buffer, now))
            n_frames -= now.shape[0]
            if later.shape[0]:
                self._runs.insert(0, FrameRun(run.buffer, later))
        return taken


class _Scratch:
    """Memory for decoded pixels."""

    def __init__(self, packing: Packing) -> None:
        self._packing = packing
        self._memory = np.empty(0, dtype=packing.dtype)

    def decode(self, parts: list[list[FrameRun]], band: _Band, first: int) -> FrameBlock:
        """Decode a band of some frames; `parts` holds the stored bytes of each part of them."""
        width = self._packing.frame_shape[1]
        n_frames = sum(run.starts.shape[0] for run in parts[0])
        size = n_frames * band.n_rows * width
        if self._memory.size < size:
            self._memory = np.empty(size, dtype=self._packing.dtype)
        out = self._memory[:size].reshape(n_frames, band.n_rows, width)
        for part, runs in enumerate(parts):
            row = 0
            for run in runs:
                stop = row + run.starts.shape[0]
                self._packing.unpack(part, run.buffer, run.starts, band.first_row, out[row:stop])
                row = stop
        pixels = read_only(self._memory[:size])
        starts = np.arange(n_frames, dtype=np.int64) * (band.n_rows * width)
        return FrameBlock(
            first=first,
            runs=(FrameRun(pixels, starts + (band.slab.px_start - band.first_row * width)),),
            px_start=band.slab.px_start,
            px_stop=band.slab.px_stop,
            swapped=False,
            slab=band.slab,
        )


# --- the documented path ---


class PackedDecoder(Decoder):
    """Decoder for read ranges as from `packed_read_ranges`: one for each part of each frame of a tile."""

    def __init__(self, packing: Packing) -> None:
        self.packing = packing

    def get_native_dtype(self, inp_native_dtype: npt.DTypeLike, read_dtype: npt.DTypeLike) -> npt.DTypeLike:
        """Bytes: what they mean only the packing knows."""
        return np.uint8

    def get_decode(self, native_dtype: npt.DTypeLike, read_dtype: npt.DTypeLike) -> Decode:
        """Decodes a whole frame, of which the tile takes its part; so it costs time for narrow tiles."""
        packing = self.packing
        check_conversion(packing.dtype, read_dtype)
        frame = np.empty((1, *packing.frame_shape), dtype=packing.dtype)
        start = np.zeros(1, dtype=np.int64)

        def decode(
            inp: npt.NDArray[np.uint8],
            out: npt.NDArray[Any],
            idx: int,
            native_dtype: Any,
            rr: Any,
            origin: Any,
            shape: Any,
            ds_shape: Any,
        ) -> None:
            row, part = divmod(idx, packing.n_parts)
            packing.unpack(part, read_only(inp), start, 0, frame)
            if part == packing.n_parts - 1:
                sig = tuple(slice(o, o + n) for o, n in zip(origin[1:], shape[1:], strict=True))
                out[row] = frame.reshape(ds_shape[-len(sig) :])[sig].reshape(-1)

        return decode


def packed_read_ranges(
    fileset: FileSet,
    packing: Packing,
    scheme: TilingScheme,
    frames: tuple[int, int],
    sync_offset: int,
    roi_nonzero: npt.NDArray[np.int64] | None,
) -> ReadRanges:
    """Read ranges of tiles of packed frames: all stored bytes of each frame, for every tile.

    `frames` is the half-open range of image numbers. See `default_get_read_ranges` for the result.
    """
    slices_arr = scheme.slices_array
    images, first = select_frames(*frames, roi_nonzero, sync_offset)
    if images.shape[0] == 0:
        return no_tiles(scheme.depth, slices_arr.shape[2])
    stored = np.empty((images.shape[0], packing.n_parts, 3), dtype=np.int64)
    n_files = 0
    for part, files in enumerate(fileset.parts):
        rows, offsets = locate_packed(images, files, packing)
        stored[:, part, 0] = n_files + files.get_as_arr()[rows, 2]
        stored[:, part, 1] = offsets
        stored[:, part, 2] = offsets + packing.part_bytes
        n_files += len(files)
    n_slices = slices_arr.shape[0]
    depths = np.minimum(scheme.depth, images.shape[0] - np.arange(0, images.shape[0], scheme.depth))
    ranges = np.zeros((depths.shape[0], int(depths.max()) * packing.n_parts, 3), dtype=np.int64)
    ranges.reshape(-1, packing.n_parts, 3)[: images.shape[0]] = stored
    tile_slices = np.empty((depths.shape[0], n_slices, 2, 1 + slices_arr.shape[2]), dtype=np.int64)
    tile_slices[:, :, 0, 0] = first + np.arange(0, images.shape[0], scheme.depth)[:, np.newaxis]
    tile_slices[:, :, 1, 0] = depths[:, np.newaxis]
    tile_slices[:, :, :, 1:] = slices_arr
    return (
        tile_slices.reshape(-1, 2, tile_slices.shape[3]),
        np.repeat(ranges, n_slices, axis=0),
        np.tile(np.arange(n_slices, dtype=np.int64), depths.shape[0]),
    )


def locate_packed(
    images: npt.NDArray[np.int64], files: FileSet, packing: Packing
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """For each image the row of its file, and the byte where its stored part starts."""
    return locate_frames(
        images,
        files.get_as_arr(),
        packing.part_bytes,
        8,
        files._frame_header_bytes,
        files._frame_footer_bytes,
    )


def packed_frames(
    fileset: FileSet,
    packing: Packing,
    selection: tuple[npt.NDArray[np.int64], int],
    sig_shape: tuple[int, ...],
) -> PackedFrames:
    """Frames of a partition; `selection` is what `select_frames` returns."""
    images, first = selection
    tables = []
    for files in fileset.parts:
        rows, offsets = locate_packed(images, files, packing)
        tables.append(
            FrameTable(
                fileset=files,
                files=files.get_as_arr()[rows, 2],
                offsets=offsets,
                first=first,
                dtype=np.dtype(np.uint8),
                sig_shape=(packing.part_bytes,),
            )
        )
    return PackedFrames(packing, tuple(tables), sig_shape)
