"""From chunks to frame blocks: in which portions a partition is read, and what is kept meanwhile."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.math import prod
from libertem.common.memory import available_bytes
from libertem.io.dataset.base.blocks import FrameBlock, FrameRun, ReadOrder, Slab
from libertem.io.dataset.base.files import FileSet
from libertem.io.dataset.hdf5.layout import H5Piece
from libertem.io.dataset.hdf5.readers import Portion, open_reader

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.dataset.base.blocks import BlockSource

    Ints = npt.NDArray[np.int64]

__all__ = ["StoredFrames", "n_passes", "unit_memory"]

BLOCK_BYTES = 4 << 20
"""Blocks are reduced while they are in a cache of the CPU. Smaller ones cost more than that gains."""

MIN_KERNEL_FRAMES = 8
"""Kernels take so many frames at a time, if they do not make a block too large."""

MAX_KERNEL_BYTES = 4 << 20
"""Units above this size are read in bands, if chunks allow that."""

MIN_UNIT_MEMORY = 256 << 20
"""Decoding a chunk twice is worse than using this much memory per worker."""


def unit_memory() -> int:
    """Bytes that the decoded frames of a unit may take in one worker."""
    import psutil

    workers = psutil.cpu_count() or 1
    return max(MIN_UNIT_MEMORY, available_bytes() // (3 * workers))


def n_passes(piece: H5Piece, n_bands: int = 1) -> int:
    """How often the chunks of a unit are decoded because not all of its frames fit into memory."""
    unit_bytes = piece.layout.units.step * prod(piece.layout.sig_shape) * piece.native_dtype.itemsize
    return -(-unit_bytes // (n_bands * unit_memory()))


@dataclass(frozen=True)
class _Share:
    """Portions that are decoded together."""

    portions: list[Portion]
    n_rows: int
    """Frames that have room in memory."""
    n_wanted: int
    """Those of them that are needed."""


@dataclass(frozen=True)
class StoredFrames:
    """The selected frames of a partition."""

    fileset: FileSet
    images: Ints
    """Their numbers within the data set, ascending."""
    first: int
    """Rank of the first frame on the compressed navigation axis of the data set."""
    dtype: np.dtype[Any]
    """As stored, with byte order."""
    sig_shape: tuple[int, ...]

    @property
    def sig_px(self) -> int:
        """Pixels per frame."""
        return prod(self.sig_shape)

    def read_blocks(self, source: BlockSource | None, order: ReadOrder) -> Iterator[FrameBlock]:
        """Decode frames and deliver them in blocks. `source` is not used: chunks need a way of their own."""
        if order.for_tiles:
            return _TileBlocks(self, order).read()
        return self._kernel_blocks(order)

    # --- portions ---

    def pieces(self) -> Iterator[tuple[H5Piece, Ints]]:
        """Data sets with the frames that are wanted of each, numbered within it."""
        for piece in self.fileset:
            assert isinstance(piece, H5Piece)
            lo, hi = np.searchsorted(self.images, [piece.start_idx, piece.end_idx])
            if lo < hi:
                yield piece, self.images[lo:hi] - piece.start_idx

    def shares(self, piece: H5Piece, frames: Ints, limit: int, n_bands: int = 1) -> Iterator[_Share]:
        """Portions of a data set, as many at a time as give about `limit` bytes if frames are whole."""
        enough = -(-limit // (self.sig_px * self.dtype.itemsize))
        portions: list[Portion] = []
        row = n_wanted = 0
        for start, stop, keep, wanted in self._parts(piece, frames, n_passes(piece, n_bands)):
            portions.append(Portion(start, stop, keep, wanted, row))
            row += len(keep)
            n_wanted += wanted.size
            if row >= enough:
                yield _Share(portions, row, n_wanted)
                portions, row, n_wanted = [], 0, 0
        if portions:
            yield _Share(portions, row, n_wanted)

    def _parts(self, piece: H5Piece, frames: Ints, passes: int) -> Iterator[tuple[int, int, range, Ints]]:
        """Start and stop of units, the frames of them that are kept, and those that are wanted."""
        units = piece.layout.units
        starts = units.starts_of(frames)
        borders = np.flatnonzero(np.diff(starts, prepend=-1, append=-1))
        firsts = starts[borders[:-1]]
        stops = units.stops_of(firsts)
        rows = zip(itertools.pairwise(borders.tolist()), firsts.tolist(), stops.tolist(), strict=True)
        for (lo, hi), start, stop in rows:
            wanted = frames[lo:hi]
            if passes == 1:
                yield start, stop, range(start, stop), wanted
                continue
            size = -(-(stop - start) // passes)
            for a in range(start, stop, size):
                b = min(stop, a + size)
                kept = np.searchsorted(wanted, [a, b])
                if kept[0] < kept[1]:
                    yield start, stop, range(a, b), wanted[kept[0] : kept[1]]

    # --- blocks for compiled UDFs ---

    def _kernel_blocks(self, order: ReadOrder) -> Iterator[FrameBlock]:
        frame_bytes = self.sig_px * self.dtype.itemsize
        limit = max(BLOCK_BYTES, min(MIN_KERNEL_FRAMES * frame_bytes, MAX_KERNEL_BYTES))
        bands_allowed = not order.whole and len({p.layout.chunks for p, _ in self.pieces()}) == 1
        done = self.first
        buffer = _Buffer(self.dtype)
        for piece, frames in self.pieces():
            units = piece.layout.units
            bands: tuple[range, ...] = (range(units.grid[len(units.nav_shape)]),)
            if bands_allowed and units.step * frame_bytes > MAX_KERNEL_BYTES:
                bands = units.sig_bands(frame_bytes, MAX_KERNEL_BYTES)
            with closing(open_reader(piece, frames)) as reader:
                for share in self.shares(piece, frames, limit, len(bands)):
                    for band in bands:
                        shape, px = self._band(piece, band)
                        out, run = buffer.make(share, shape)
                        reader.read(share.portions, band, out)
                        yield self._block(done, (run,), px)
                    done += share.n_wanted

    def _band(self, piece: H5Piece, band: range) -> tuple[tuple[int, ...], Slab]:
        """Shape of the part of a frame that belongs to some chunks, and its pixels."""
        rows = piece.layout.units.sig_chunks[0]
        first, stop = band.start * rows, min(self.sig_shape[0], band.stop * rows)
        row_px = prod(self.sig_shape[1:])
        return (stop - first, *self.sig_shape[1:]), Slab(first * row_px, stop * row_px, range(0))

    def _block(self, first: int, runs: tuple[FrameRun, ...], slab: Slab) -> FrameBlock:
        return FrameBlock(
            first=first,
            runs=runs,
            px_start=slab.px_start,
            px_stop=slab.px_stop,
            swapped=not self.dtype.isnative,
            slab=slab,
        )


class _Buffer:
    """Memory for the frames of a share."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._memory: npt.NDArray[Any] = np.empty(0, dtype=dtype)
        self._native = self._memory

    def make(self, share: _Share, shape: tuple[int, ...]) -> tuple[npt.NDArray[Any], FrameRun]:
        """Array for the portions of a share, and where the wanted frames will be in it."""
        px = prod(shape)
        if self._memory.size < share.n_rows * px:
            self._memory = np.empty(share.n_rows * px, dtype=self._dtype)
            self._native = self._memory.view(self._dtype.newbyteorder("="))
        if share.n_rows == share.n_wanted:
            rows = np.arange(share.n_rows, dtype=np.int64)
        else:
            rows = np.concatenate([p.row + p.wanted - p.keep.start for p in share.portions])
        out = self._memory[: share.n_rows * px].reshape(share.n_rows, *shape)
        return out, FrameRun(self._native, rows * px)


class _TileBlocks:
    """Blocks of whole frames, a multiple of the depth of tiles each.

    Frames that do not fill a tile wait in their buffer for those that are decoded next.
    """

    def __init__(self, frames: StoredFrames, order: ReadOrder) -> None:
        self._frames = frames
        self._depth = order.depth
        (self._slab,) = order.whole_frames().slabs
        self._waiting: deque[tuple[_Buffer, FrameRun]] = deque()
        self._n_waiting = 0
        self._free: list[_Buffer] = []
        self._done = frames.first

    def read(self) -> Iterator[FrameBlock]:
        """All frames."""
        frames = self._frames
        for piece, wanted in frames.pieces():
            everything = range(piece.layout.units.grid[len(piece.layout.nav_shape)])
            with closing(open_reader(piece, wanted)) as reader:
                for share in frames.shares(piece, wanted, BLOCK_BYTES):
                    buffer = self._free.pop() if self._free else _Buffer(frames.dtype)
                    out, run = buffer.make(share, frames.sig_shape)
                    reader.read(share.portions, everything, out)
                    self._waiting.append((buffer, run))
                    self._n_waiting += share.n_wanted
                    if self._n_waiting >= self._depth:
                        yield from self._emit(self._n_waiting // self._depth * self._depth)
        if self._n_waiting:
            yield from self._emit(self._n_waiting)

    def _emit(self, n: int) -> Iterator[FrameBlock]:
        """The first `n` frames that wait."""
        runs, used = [], []
        left = n
        while left:
            buffer, run = self._waiting.popleft()
            size = run.starts.shape[0]
            if size > left:
                self._waiting.appendleft((buffer, FrameRun(run.buffer, run.starts[left:])))
                run = FrameRun(run.buffer, run.starts[:left])
            else:
                used.append(buffer)
            runs.append(run)
            left -= run.starts.shape[0]
        yield self._frames._block(self._done, tuple(runs), self._slab)
        self._done += n
        self._n_waiting -= n
        self._free += used
