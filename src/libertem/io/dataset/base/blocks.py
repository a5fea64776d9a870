"""Frame tables and frame blocks: the way of pixels from files to kernels and tiles.

A *frame table* says for each frame of a partition which file holds it and at which byte it starts. An I/O
backend turns the table into *frame blocks*: memory (mapped or read) together with the places of frames in
it. Compiled UDFs reduce a block where it lies; `tiles` cuts the same block into tiles for all others.
Blocks of packed pixels are decoded on the way, see `packing`.

Data sets that override parts of the documented path have no frame table; they are read through read ranges
and decoders.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from libertem.common.math import prod

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.dataset.base.files import FileSet
    from libertem.io.dataset.base.scheme import TilingScheme

__all__ = [
    "BlockSource",
    "FrameBlock",
    "FrameRun",
    "FrameTable",
    "Frames",
    "ReadOrder",
    "Slab",
    "SparseBlock",
    "open_blocks",
    "read_only",
]

MIN_FRAMES_PER_BLOCK = 8
"""Kernels that add up frames take eight at a time."""


@dataclass(frozen=True)
class FrameTable:
    """Where the selected frames of a partition lie."""

    fileset: FileSet
    files: npt.NDArray[np.int64]
    """Index of the file in `fileset`, for each frame."""
    offsets: npt.NDArray[np.int64]
    """Byte where the pixels start, for each frame."""
    first: int
    """Rank of the first frame on the compressed navigation axis of the data set."""
    dtype: np.dtype[Any]
    """As stored, with byte order."""
    sig_shape: tuple[int, ...]

    @cached_property
    def sig_px(self) -> int:
        """Pixels per frame."""
        return prod(self.sig_shape)

    @property
    def frame_bytes(self) -> int:
        """Bytes of the pixels of one frame."""
        return self.sig_px * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self.offsets)

    def read_blocks(self, source: BlockSource, order: ReadOrder) -> Iterator[FrameBlock]:
        """Blocks as the source delivers them."""
        return source.read_blocks(self, order)


@dataclass(frozen=True)
class FrameRun:
    """Frames in one piece of memory."""

    buffer: npt.NDArray[Any]
    """1D, aligned, often read-only; values in native byte order unless the block is swapped."""
    starts: npt.NDArray[np.int64]
    """For each frame the index in `buffer` of its first pixel in the block."""


@dataclass(frozen=True)
class FrameBlock:
    """Consecutive frames, or the same contiguous part of each of them, in memory."""

    first: int
    """Rank of the first frame on the compressed navigation axis of the data set."""
    runs: tuple[FrameRun, ...]
    px_start: int
    """First pixel of the part of the frames that is here."""
    px_stop: int
    """Pixel after the last one."""
    swapped: bool
    """Whether the pixels are stored in the other byte order."""
    slab: Slab
    """Which tiles the block holds."""

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return sum(run.starts.shape[0] for run in self.runs)

    @property
    def n_px(self) -> int:
        """Pixels per frame that are here."""
        return self.px_stop - self.px_start


@dataclass(frozen=True)
class SparseBlock:
    """Consecutive frames as the arrays of a CSR matrix, in native byte order; often read-only."""

    first: int
    """Rank of the first frame on the compressed navigation axis of the data set."""
    indptr: npt.NDArray[np.int64]
    """``(frames + 1,)``, starts at 0."""
    indices: npt.NDArray[Any]
    """Flat pixel of each value; none is outside of the frame."""
    values: npt.NDArray[Any]

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.indptr) - 1


@dataclass(frozen=True)
class Slab:
    """A contiguous range of pixels that consists of whole signal slices of a tiling scheme."""

    px_start: int
    px_stop: int
    slices: range
    """Indices in the tiling scheme; empty if nobody needs tiles."""


@dataclass(frozen=True)
class ReadOrder:
    """In which portions a partition is to be read."""

    depth: int
    """Frames per tile; blocks hold a multiple of it."""
    slabs: tuple[Slab, ...]
    """The whole frame as one slab, or its parts; they are interchangeable if nobody needs tiles."""
    for_tiles: bool
    """Whether tiles will be cut from the blocks."""
    whole: bool = False
    """Whether blocks have to hold whole frames, even if these are large."""

    @classmethod
    def for_scheme(cls, scheme: TilingScheme) -> ReadOrder:
        """Portions from which the tiles of a scheme can be cut, as small as possible."""
        sig_shape = scheme.dataset_shape.sig.to_tuple()
        return cls(depth=scheme.depth, slabs=_atomic_slabs(scheme.slices_array, sig_shape), for_tiles=True)

    @classmethod
    def for_kernels(cls, sig_px: int, *, whole: bool = False) -> ReadOrder:
        """Portions for compiled UDFs, which take blocks as they come, of whole frames if need be."""
        return cls(depth=1, slabs=(Slab(0, sig_px, range(0)),), for_tiles=False, whole=whole)

    def whole_frames(self) -> ReadOrder:
        """The same with all slabs joined, for sources that hold whole frames anyway."""
        last = self.slabs[-1]
        whole = Slab(0, last.px_stop, range(last.slices.stop))
        return ReadOrder(depth=self.depth, slabs=(whole,), for_tiles=self.for_tiles, whole=self.whole)

    def fit(self, frame_px: int, itemsize: int, limit: int) -> tuple[int, tuple[Slab, ...]]:
        """Frames per block and slabs such that a block has about `limit` bytes, if at all possible."""
        frame_bytes = frame_px * itemsize
        if self.whole or (
            self.depth * frame_bytes <= limit
            and (self.for_tiles or MIN_FRAMES_PER_BLOCK * frame_bytes <= limit)
        ):
            return max(1, limit // (self.depth * frame_bytes)) * self.depth, self.whole_frames().slabs
        if not self.for_tiles:
            # Many frames at a time are worth more than whole frames: they share one pass over the sums.
            px = max(1, limit // (MIN_FRAMES_PER_BLOCK * itemsize))
            parts = tuple(Slab(p, min(frame_px, p + px), range(0)) for p in range(0, frame_px, px))
            return MIN_FRAMES_PER_BLOCK, parts
        slab_limit = max(1, limit // (self.depth * itemsize))
        return self.depth, _join_slabs(self.slabs, slab_limit)


class BlockSource(Protocol):
    """What an I/O backend offers besides the documented path."""

    def read_blocks(self, table: FrameTable, order: ReadOrder) -> Iterator[FrameBlock]:
        """Read the frames of a table; slabs run fastest. A block is valid until the next one is asked for."""
        ...


class Frames(Protocol):
    """The selected frames of a partition, plain or packed."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels in blocks, with byte order."""
        ...

    @property
    def sig_shape(self) -> tuple[int, ...]:
        """Shape of a frame as the user sees it."""
        ...

    def read_blocks(self, source: BlockSource, order: ReadOrder) -> Iterator[FrameBlock]:
        """Read them; slabs run fastest. A block is valid until the next one is asked for."""
        ...


def read_only(buffer: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same memory, always with the same type for compiled functions: one compilation serves all."""
    view = buffer[:]
    view.flags.writeable = False
    return view


def open_blocks(
    source: BlockSource, table: FrameTable, order: ReadOrder
) -> AbstractContextManager[Iterator[FrameBlock]]:
    """Blocks of a source, whose files and threads end with the context, also if blocks are left."""

    def blocks() -> Generator[FrameBlock, None, None]:
        yield from source.read_blocks(table, order)

    return closing(blocks())


def _atomic_slabs(slices_arr: npt.NDArray[np.int64], sig_shape: tuple[int, ...]) -> tuple[Slab, ...]:
    """Smallest contiguous pixel ranges that hold whole signal slices, in the order of the scheme."""
    strides = np.cumprod([1, *sig_shape[:0:-1]])[::-1]
    lo = (slices_arr[:, 0] * strides).sum(axis=1)
    hi = ((slices_arr[:, 0] + slices_arr[:, 1] - 1) * strides).sum(axis=1) + 1
    # A border lies before slice i if all slices before it end where it and all after it begin.
    ends = np.maximum.accumulate(hi)
    begins = np.minimum.accumulate(lo[::-1])[::-1]
    borders = [0, *(np.flatnonzero(ends[:-1] <= begins[1:]) + 1).tolist(), slices_arr.shape[0]]
    return tuple(
        Slab(int(lo[a:b].min()), int(hi[a:b].max()), range(a, b)) for a, b in itertools.pairwise(borders)
    )


def _join_slabs(slabs: tuple[Slab, ...], limit_px: int) -> tuple[Slab, ...]:
    joined = [slabs[0]]
    for slab in slabs[1:]:
        last = joined[-1]
        if slab.px_stop - last.px_start <= limit_px:
            joined[-1] = Slab(last.px_start, slab.px_stop, range(last.slices.start, slab.slices.stop))
        else:
            joined.append(slab)
    return tuple(joined)
