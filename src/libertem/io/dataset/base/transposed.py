"""Files in which the scan axes are the fastest: frames are put together by transposition in blocks.

Such a file has a *plane* for each pixel of the detector: the values of that pixel at all scan positions. A
frame has one value in each plane, so that it is spread over the whole file. The axes are in one of two
orders, slowest first:

| order | where |
|-------|-------|
| signal, navigation | Digital Micrograph, older software |
| signal reversed, navigation reversed | NumPy arrays in Fortran order |

The same stretch of each plane is read as if it was a frame, so that all I/O backends serve. There are two
ways from there to frame blocks:

* *Along planes.* Compiled UDFs that take any part of any frames go through the file once, some planes at a
  time. What is read stays in the cache until it has been transposed and reduced.
* *By frames.* Where whole frames or tiles are asked for, as many frames as fit into the memory that the user
  allows are put together, with a stretch of every plane of the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from libertem.common.math import flat_nonzero, prod
from libertem.exceptions import DataSetException
from libertem.io.dataset.base.blocks import (
    BlockSource,
    FrameBlock,
    FrameRun,
    FrameTable,
    ReadOrder,
    Slab,
    open_blocks,
    read_only,
)
from libertem.io.dataset.base.files import File, FileSet
from libertem.io.dataset.base.partition import BasePartition
from libertem.io.dataset.base.ranges import ReadRanges, select_frames

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.dataset.base.scheme import TilingScheme
    from libertem.io.dataset.base.tile import DataTile

__all__ = [
    "FrameScratch",
    "TransposedFileSet",
    "TransposedFrames",
    "TransposedLayout",
    "TransposedPartition",
]

LONG_RUN = 64 << 10
"""Bytes of a plane that should be read at once: much less, and disks spend their time between the reads."""

MAX_GAP = 64 << 10
"""Bytes of a plane between wanted frames that are read rather than skipped."""

SCRATCH_BYTES = 512 << 10
"""Transposed pixels in use at a time, on the way along planes; half of a second-level cache."""

SCATTERED_SCRATCH_BYTES = 4 << 20
"""The same where neighbours in a plane are far apart in the scan: then a whole cache line of each plane
should be used while it is there."""

RUN_BYTES = 128
"""At least so many bytes of each frame, on the way along planes: kernels work with pieces of frames."""

PLANES_PER_READ = 64
"""On the way by frames. More gained nothing, fewer leave cache lines of the frames unfinished."""

BLOCK_BYTES = 16 << 20
"""Frames that are handed on at a time, on the way by frames."""

VECTOR_BYTES = 16
CACHE_LINE = 64
BAD_STRIDE = 512
"""Frames a multiple of so many bytes apart compete for the same places in the cache."""


@dataclass(frozen=True)
class TransposedLayout:
    """Where the pixels lie in a file with the scan axes as the fastest."""

    offset: int
    """Byte where the first plane starts."""
    dtype: np.dtype[Any]
    """As stored, with byte order."""
    nav_shape: tuple[int, ...]
    """Of the scan in the file; images are counted in C order along it."""
    sig_shape: tuple[int, ...]
    """Of a frame in the file."""
    is_reversed: bool
    """Whether the axes of both shapes are stored in reversed order."""

    @property
    def plane_bytes(self) -> int:
        """Size of a plane."""
        return prod(self.nav_shape) * self.dtype.itemsize

    @property
    def keeps_order(self) -> bool:
        """Whether images are in the same order within a plane."""
        return not self.is_reversed or sum(extent > 1 for extent in self.nav_shape) < 2

    def columns(self, images: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Place of images within a plane, in items."""
        return images if self.keeps_order else _reversed_index(images, self.nav_shape)

    def plane_offsets(self, px_start: int, px_stop: int) -> npt.NDArray[np.int64]:
        """Byte in the file where the planes of some pixels start."""
        planes = np.arange(px_start, px_stop, dtype=np.int64)
        if self.is_reversed:
            planes = _reversed_index(planes, self.sig_shape)
        return self.offset + planes * self.plane_bytes


def _reversed_index(flat: npt.NDArray[np.int64], shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Flat index in Fortran order for one in C order."""
    return np.ravel_multi_index(np.unravel_index(flat, shape), shape, order="F").astype(np.int64)


class TransposedFileSet(FileSet):
    """The one file of a transposed data set.

    Parameters
    ----------
    path : str
        The file.
    layout : TransposedLayout
        What is where.
    max_bytes : int
        Memory in which frames are put together, per worker.
    """

    def __init__(self, path: str, layout: TransposedLayout, max_bytes: int) -> None:
        # Its frames are not where this says, but the file has as many bytes as if they were.
        file = File(
            path=path,
            start_idx=0,
            end_idx=prod(layout.nav_shape),
            native_dtype=layout.dtype,
            sig_shape=layout.sig_shape,
            file_header=layout.offset,
        )
        super().__init__([file])
        self.layout = layout
        self.max_bytes = max_bytes


class _Stretch(NamedTuple):
    """A piece of every plane that is read at once, and the frames in it."""

    low: int
    """First column."""
    high: int
    """Column after the last one."""
    shifts: npt.NDArray[np.int64]
    """For each frame the byte of its pixel from the first column on, ascending."""
    ranks: npt.NDArray[np.int64]
    """For each frame its number among those asked for."""


class _Planes(NamedTuple):
    """Stretches of consecutive planes in memory."""

    px: int
    """Pixel of the first plane."""
    buffer: npt.NDArray[np.uint8]
    starts: npt.NDArray[np.int64]
    """For each plane the byte in `buffer` where the stretch starts."""


@dataclass(frozen=True)
class TransposedFrames:
    """The selected frames of a partition."""

    fileset: TransposedFileSet
    images: npt.NDArray[np.int64]
    first: int
    """Rank of the first frame on the compressed navigation axis of the data set."""
    sig_shape: tuple[int, ...]
    """Shape of a frame as the user sees it."""

    @property
    def layout(self) -> TransposedLayout:
        """What is where in the file."""
        return self.fileset.layout

    @property
    def dtype(self) -> np.dtype[Any]:
        """As stored, with byte order."""
        return self.layout.dtype

    @cached_property
    def n_px(self) -> int:
        """Pixels per frame."""
        return prod(self.sig_shape)

    def read_blocks(self, source: BlockSource, order: ReadOrder) -> Iterator[FrameBlock]:
        """Blocks of transposed pixels, in memory that is used again.

        For compiled UDFs that take any part of a frame, frames run faster than parts of them. For tiles it
        is the other way round, unless frames are so large that not even the depth of a tile fits into the
        memory.
        """
        if self.images.shape[0] == 0:
            return
        if order.for_tiles or order.whole:
            yield from self._by_frames(source, order)
        else:
            yield from self._along_planes(source)

    def _along_planes(self, source: BlockSource) -> Iterator[FrameBlock]:
        """All frames of some pixels, then those of the next ones."""
        if self.layout.keeps_order:
            stretches = self._stretches(0, self.images.shape[0])
        else:
            # Blocks have to hold consecutive frames, wherever these are in a plane.
            stretches = [self._stretch(*self._sorted_columns(0, self.images.shape[0]))]
        n_frames, n_px = self._shape_along_planes(max(s.high - s.low for s in stretches))
        scratch = FrameScratch(self.dtype)
        for stretch in stretches:
            chunks = list(_chunks(stretch, n_frames))
            for planes in self._read_planes(source, stretch, Slab(0, self.n_px, range(0)), n_px):
                for low in range(0, planes.starts.shape[0], n_px):
                    starts = planes.starts[low : low + n_px]
                    px = planes.px + low
                    slab = Slab(px, px + starts.shape[0], range(0))
                    for rank, chunk in chunks:
                        scratch.arrange(chunk.ranks.shape[0], starts.shape[0])
                        scratch.transpose(planes.buffer, starts, chunk, 0)
                        yield scratch.block(0, chunk.ranks.shape[0], self.first + rank, slab)

    def _shape_along_planes(self, n_columns: int) -> tuple[int, int]:
        """Frames and pixels of a block. Pixels are the same for all stretches, UDFs rely on that."""
        item = self.dtype.itemsize
        side = max(1, VECTOR_BYTES // item)
        scratch = SCRATCH_BYTES if self.layout.keeps_order else SCATTERED_SCRATCH_BYTES
        n_px = max(scratch // (item * self.images.shape[0]), RUN_BYTES // item)
        # An I/O backend that reads has two buffers for so many planes.
        n_px = max(1, min(n_px, self.fileset.max_bytes // (4 * n_columns * item), self.n_px))
        if n_px > side:
            n_px -= n_px % side
        return max(1, scratch // (n_px * item)), n_px

    def _by_frames(self, source: BlockSource, order: ReadOrder) -> Iterator[FrameBlock]:
        """Frames, put together in as much memory as is allowed."""
        scratch = FrameScratch(self.dtype)
        for first, stop, slab in self._portions(order):
            self._gather(source, scratch, first, stop, slab)
            frame_bytes = (slab.px_stop - slab.px_start) * self.dtype.itemsize
            step = max(1, BLOCK_BYTES // (order.depth * frame_bytes)) * order.depth
            for rank in range(first, stop, step):
                here = rank - first
                n = min(step, stop - rank)
                yield scratch.block(here, here + n, self.first + rank, slab)

    def gather(
        self, source: BlockSource, px_start: int, px_stop: int, scratch: FrameScratch
    ) -> npt.NDArray[Any]:
        """Some pixels of all frames, ``(frames, pixels)``, as stored. Rows may be apart in memory."""
        n = self.images.shape[0]
        self._gather(source, scratch, 0, n, Slab(px_start, px_stop, range(0)))
        return scratch.array(n, px_stop - px_start).view(self.dtype)

    def _gather(self, source: BlockSource, scratch: FrameScratch, first: int, stop: int, slab: Slab) -> None:
        """Put a part of some frames together."""
        scratch.arrange(stop - first, slab.px_stop - slab.px_start)
        for stretch in self._stretches(first, stop):
            for planes in self._read_planes(source, stretch, slab, PLANES_PER_READ):
                for low in range(0, planes.starts.shape[0], PLANES_PER_READ):
                    starts = planes.starts[low : low + PLANES_PER_READ]
                    scratch.transpose(planes.buffer, starts, stretch, planes.px + low - slab.px_start)

    def _portions(self, order: ReadOrder) -> Iterator[tuple[int, int, Slab]]:
        """Frames, and the part of them, that are put together at a time."""
        n = self.images.shape[0]
        item, limit = self.dtype.itemsize, self.fileset.max_bytes
        step, slabs = order.fit(self.n_px, item, limit)
        if len(slabs) > 1:
            deep = replace(order, depth=max(1, LONG_RUN // (item * order.depth)) * order.depth)
            _, slabs = deep.fit(self.n_px, item, limit)
        for slab in slabs:
            if len(slabs) > 1:
                step = max(1, limit // (order.depth * (slab.px_stop - slab.px_start) * item)) * order.depth
            # Portions of about the same size: each goes through all planes.
            even = -(-n // -(-n // step))
            even = -(-even // order.depth) * order.depth
            for first in range(0, n, even):
                yield first, min(n, first + even), slab

    def _stretches(self, first: int, stop: int) -> list[_Stretch]:
        """Pieces of planes that hold some of the frames, without what lies between distant ones."""
        columns, ranks = self._sorted_columns(first, stop)
        cuts = np.flatnonzero(np.diff(columns) * self.dtype.itemsize > MAX_GAP) + 1
        return [
            self._stretch(c, r) for c, r in zip(np.split(columns, cuts), np.split(ranks, cuts), strict=True)
        ]

    def _sorted_columns(self, first: int, stop: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Ascending columns of frames ``[first, stop)``, and which frames these are, counted from `first`."""
        columns = self.layout.columns(self.images[first:stop])
        if self.layout.keeps_order:
            return columns, np.arange(stop - first, dtype=np.int64)
        ranks = np.argsort(columns)
        return columns[ranks], ranks

    def _stretch(self, columns: npt.NDArray[np.int64], ranks: npt.NDArray[np.int64]) -> _Stretch:
        low = int(columns[0])
        return _Stretch(low, int(columns[-1]) + 1, (columns - low) * self.dtype.itemsize, ranks)

    def _read_planes(
        self, source: BlockSource, stretch: _Stretch, slab: Slab, n_planes: int
    ) -> Iterator[_Planes]:
        """A stretch of the planes of some pixels, a multiple of `n_planes` at a time except for the last."""
        item = self.dtype.itemsize
        offsets = self.layout.plane_offsets(slab.px_start, slab.px_stop) + stretch.low * item
        run_bytes = (stretch.high - stretch.low) * item
        table = FrameTable(
            fileset=self.fileset,
            files=np.zeros(offsets.shape[0], dtype=np.int64),
            offsets=offsets,
            first=slab.px_start,
            # Items need not be aligned in the file; what transposes them can deal with that.
            dtype=np.dtype(np.uint8),
            sig_shape=(run_bytes,),
        )
        whole = (Slab(0, run_bytes, range(0)),)
        order = ReadOrder(depth=n_planes, slabs=whole, for_tiles=True, whole=True)
        with open_blocks(source, table, order) as blocks:
            for block in blocks:
                px = block.first
                for run in block.runs:
                    yield _Planes(px, read_only(run.buffer), run.starts)
                    px += run.starts.shape[0]


def _chunks(stretch: _Stretch, n_frames: int) -> Iterator[tuple[int, _Stretch]]:
    """Consecutive frames of a stretch, with the number of the first one."""
    begin, n = int(stretch.ranks.min()), stretch.ranks.shape[0]
    for rank in range(begin, begin + n, n_frames):
        inside = (stretch.ranks >= rank) & (stretch.ranks < rank + n_frames)
        yield rank, stretch._replace(shifts=stretch.shifts[inside], ranks=stretch.ranks[inside] - rank)


class FrameScratch:
    """Memory in which frames are put together. Used again: fresh memory takes as long as the transposition.

    Parameters
    ----------
    dtype : dtype
        As stored, with byte order.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._swapped = not dtype.isnative
        self._memory = np.empty(0, dtype=dtype.newbyteorder("="))
        self._stride = 0

    def arrange(self, n_frames: int, n_px: int) -> None:
        """Make room for frames, or parts of them."""
        item = self._memory.itemsize
        self._stride = n_px
        if n_px * item % BAD_STRIDE == 0:
            self._stride += max(1, CACHE_LINE // item)
        if self._memory.size < n_frames * self._stride:
            dtype = self._memory.dtype
            self._memory = np.empty(0, dtype=dtype)  # give it back before asking for more
            self._memory = np.empty(n_frames * self._stride, dtype=dtype)

    def transpose(
        self,
        buffer: npt.NDArray[np.uint8],
        starts: npt.NDArray[np.int64],
        stretch: _Stretch,
        first_px: int,
    ) -> None:
        """Put stretches of planes where the frames are, from a pixel of theirs on."""
        from libertem.io.kernels.transpose import gather_items, transpose_planes  # loads numba

        item = self._memory.itemsize
        rows = stretch.ranks * self._stride
        if item in (1, 2, 4, 8):
            out = self._memory.view(f"u{item}")
            transpose_planes(buffer, starts, stretch.shifts, out, rows, first_px)
        else:
            out = self._memory.view(np.uint8)
            gather_items(buffer, starts, stretch.shifts, out, rows, first_px, item)

    def array(self, n_frames: int, n_px: int) -> npt.NDArray[Any]:
        """The frames as an array, in native byte order."""
        return self._memory[: n_frames * self._stride].reshape(n_frames, self._stride)[:, :n_px]

    def block(self, start: int, stop: int, first: int, slab: Slab) -> FrameBlock:
        """Some of the frames."""
        where = np.arange(start, stop, dtype=np.int64) * self._stride
        return FrameBlock(
            first=first,
            runs=(FrameRun(read_only(self._memory), where),),
            px_start=slab.px_start,
            px_stop=slab.px_stop,
            swapped=self._swapped,
            slab=slab,
        )


class TransposedPartition(BasePartition):
    """Consecutive frames of a transposed file. There are no read ranges."""

    def _frames(self, roi: npt.NDArray[np.bool_] | None) -> TransposedFrames | None:
        if self._fileset is None:
            return None
        assert isinstance(self._fileset, TransposedFileSet)
        selected = None if roi is None else flat_nonzero(roi)
        images, first = select_frames(self._start_frame, self._stop_frame(), selected, self.meta.sync_offset)
        return TransposedFrames(self._fileset, images, first, self.meta.shape.sig.to_tuple())

    def _get_decoded_tiles(
        self,
        scheme: TilingScheme,
        dest_dtype: npt.DTypeLike,
        roi: npt.NDArray[np.bool_] | None,
        array_backend: str,
    ) -> Iterator[DataTile]:
        raise DataSetException("files are delivered as NumPy arrays", found=array_backend)

    def _get_read_ranges(
        self, tiling_scheme: TilingScheme, roi: npt.NDArray[np.bool_] | None = None
    ) -> ReadRanges:
        raise NotImplementedError("transposed files have no read ranges: each pixel would be one")
