"""Plan which bytes to read for a block, and where in a buffer its frames then lie."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from libertem.io.dataset.base.backends.rawio import DIRECT_ALIGNMENT, RawFile
from libertem.io.dataset.base.blocks import FrameBlock, FrameRun, FrameTable, ReadOrder, Slab

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["FileCache", "ReadPlan", "ReadPlanner", "Span", "fill", "is_small_gap", "to_block"]

MAX_GAP = 32 << 10
"""Bytes between frames that are read rather than skipped, if there is at least as much to use."""

MIN_GAP = 4096
"""As many are always read: a page takes less time than another call, and direct I/O reads it anyway."""

MAX_EXCESS = 1.25
"""Blocks whose buffer exceeds the limit by this factor, because of gaps, are cut into smaller ones."""

CACHE_LINE = 64


@dataclass(frozen=True)
class Span:
    """One contiguous read."""

    file_idx: int
    start: int
    stop: int
    """Half-open range of bytes in the file."""
    position: int
    """Where byte `start` goes in the buffer."""


@dataclass(frozen=True)
class ReadPlan:
    """The reads of one block."""

    first: int
    slab: Slab
    spans: tuple[Span, ...]
    positions: npt.NDArray[np.int64]
    """Byte in the buffer where the part of each frame starts; a multiple of the itemsize."""
    buffer_bytes: int

    @property
    def read_bytes(self) -> int:
        """Bytes that will be read, gaps included."""
        return sum(span.stop - span.start for span in self.spans)


def is_small_gap(gaps: npt.NDArray[np.int64], length: npt.NDArray[np.int64] | int) -> npt.NDArray[np.bool_]:
    """Whether it costs less to read gaps between pieces of some length than to skip them."""
    return gaps <= np.maximum(MIN_GAP, np.minimum(MAX_GAP, length))


class ReadPlanner:
    """Iterates over the blocks of a partition.

    Parameters
    ----------
    table : FrameTable
        Frames to read.
    order : ReadOrder
        Wanted portions.
    limit : int
        Bytes per block, as far as the order allows.
    alignment : int
        Spans go to positions in the buffer with the same remainder as their position in the file,
        so that whole units can be read.
    """

    def __init__(self, table: FrameTable, order: ReadOrder, *, limit: int, alignment: int) -> None:
        self._table = table
        self._depth = order.depth
        self._limit = limit
        self._alignment = max(alignment, CACHE_LINE)
        self._direct = alignment > 1
        self._step, self._slabs = order.fit(table.sig_px, table.dtype.itemsize, limit)
        self._heads: dict[int, npt.NDArray[np.int64]] = {}

    def __iter__(self) -> Iterator[ReadPlan]:
        for start in range(0, len(self._table), self._step):
            yield from self._portion(start, min(len(self._table), start + self._step))

    def _portion(self, start: int, stop: int) -> Iterator[ReadPlan]:
        plans = [self._plan(start, stop, slab) for slab in self._slabs]
        allowed = MAX_EXCESS * self._limit + 4 * self._alignment
        half = (stop - start) // 2 // self._depth * self._depth
        if half == 0 or max(plan.buffer_bytes for plan in plans) <= allowed:
            yield from plans
        else:
            yield from self._portion(start, start + half)
            yield from self._portion(start + half, stop)

    def _span_heads(self, length: int) -> npt.NDArray[np.int64]:
        """Frames that cannot be read together with the one before them, if `length` bytes are wanted."""
        if length not in self._heads:
            steps = np.diff(self._table.offsets)
            together = (
                (np.diff(self._table.files) == 0)
                & (steps >= length)
                & is_small_gap(steps - length, length)
                & (steps % self._table.dtype.itemsize == 0)
            )
            self._heads[length] = np.flatnonzero(~together) + 1
        return self._heads[length]

    def _plan(self, start: int, stop: int, slab: Slab) -> ReadPlan:
        item = self._table.dtype.itemsize
        shift = slab.px_start * item
        length = (slab.px_stop - slab.px_start) * item
        heads = self._span_heads(length)
        inside = heads[np.searchsorted(heads, start + 1) : np.searchsorted(heads, stop)].tolist()
        spans = []
        positions = np.empty(stop - start, dtype=np.int64)
        end = 0
        for head, tail in pairwise([start, *inside, stop]):
            begins = self._table.offsets[head:tail]
            low = int(begins[0]) + shift
            high = int(begins[-1]) + shift + length
            # The remainder of the position stays, so that whole units can be read directly.
            room = low % self._alignment if self._direct else 0
            place = end + room
            spans.append(Span(int(self._table.files[head]), low, high, place))
            # Rounded down: pixels have to be aligned in memory, if need be by moving them after the read.
            positions[head - start : tail - start] = begins + (place // item * item + shift - low)
            end = -(-(place + high - low) // self._alignment) * self._alignment
            if self._direct:
                end += self._alignment
        return ReadPlan(
            first=self._table.first + start,
            slab=slab,
            spans=tuple(spans),
            positions=positions,
            buffer_bytes=end,
        )


class FileCache:
    """Open files of a partition. Frames come in order, so that a few recent ones are enough."""

    def __init__(self, table: FrameTable, *, direct: bool, keep: int = 8) -> None:
        self._table = table
        self._direct = direct
        self._keep = keep
        self._open: dict[str, RawFile] = {}

    def get(self, idx: int) -> RawFile:
        """The file with that index in the file set, which may name a file several times."""
        path = self._table.fileset[idx].path
        file = self._open.get(path)
        if file is None:
            while len(self._open) >= self._keep:
                self._open.pop(next(iter(self._open))).close()
            file = self._open[path] = RawFile(path, direct=self._direct)
        return file

    def close(self) -> None:
        """Close all files."""
        while self._open:
            self._open.popitem()[1].close()

    def __enter__(self) -> FileCache:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def fill(plan: ReadPlan, buffer: npt.NDArray[np.uint8], files: FileCache, *, direct: bool) -> None:
    """Carry out the reads of a plan."""
    for span in plan.spans:
        file = files.get(span.file_idx)
        n = span.stop - span.start
        if not direct:
            file.read_into(buffer[span.position : span.position + n], span.start)
            continue
        extra = span.start % DIRECT_ALIGNMENT
        at = span.position - extra
        whole = -(-(extra + n) // DIRECT_ALIGNMENT) * DIRECT_ALIGNMENT
        file.read_into(buffer[at : at + whole], span.start - extra, needed=extra + n)


def to_block(plan: ReadPlan, buffer: npt.NDArray[np.uint8], table: FrameTable) -> FrameBlock:
    """Describe a buffer that `fill` has filled."""
    item = table.dtype.itemsize
    native = table.dtype.newbyteorder("=")
    for span in plan.spans:
        # Headers of odd length leave pixels misaligned after a direct read; move them into place.
        shift = span.position % item
        if shift:
            n = span.stop - span.start
            buffer[span.position - shift : span.position - shift + n] = buffer[
                span.position : span.position + n
            ].copy()
    usable = buffer[: buffer.size // item * item].view(native)
    return FrameBlock(
        first=plan.first,
        runs=(FrameRun(usable, plan.positions // item),),
        px_start=plan.slab.px_start,
        px_stop=plan.slab.px_stop,
        swapped=not table.dtype.isnative,
        slab=plan.slab,
    )
