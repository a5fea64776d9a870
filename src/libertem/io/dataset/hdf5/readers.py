"""Put frames of an HDF5 data set into memory: chunk by chunk past HDF5, or with HDF5.

Both kinds of readers fill an array ``(frames, *sig)`` with frames of some units, see `units`. The array may
be narrower than the frames along the first signal axis; then it receives a band of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from libertem.common.math import prod
from libertem.exceptions import DataSetException
from libertem.io.dataset.base.backends.rawio import RawFile
from libertem.io.dataset.hdf5.chunktable import chunk_table
from libertem.io.dataset.hdf5.filters import ChunkDecoder
from libertem.io.dataset.hdf5.library import as_hdf5_error, open_hdf5
from libertem.io.dataset.hdf5.rows import RowCopier
from libertem.io.dataset.hdf5.units import ChunkPlace

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.dataset.hdf5.layout import H5Piece

    Ints = npt.NDArray[np.int64]
    Bytes = npt.NDArray[np.uint8]

__all__ = ["ChunkReader", "LibraryReader", "Portion", "Reader", "open_reader"]

MAX_GAP = 64 << 10
"""Reading so many bytes in vain takes less time than a second read."""

MAX_SPAN = 16 << 20
"""Chunks that lie next to each other are read together up to this size."""

JOINT_BYTES = 1 << 21
"""So many bytes are decoded together, if the filters allow that. With a quarter of it, two threads were a
quarter slower: they wait for the interpreter's lock, see docs/performance.md."""

AHEAD_BYTES = 16 << 20
"""The system is asked to fetch so many bytes before they are needed."""


class Portion(NamedTuple):
    """Frames of one unit that are read together."""

    start: int
    """First frame of the unit within the data set."""
    stop: int
    """Frame after the last one of the unit."""
    keep: range
    """Frames that have room in memory, usually all of the unit."""
    wanted: Ints
    """Frames of `keep` that are needed, ascending; the others may stay undefined."""
    row: int
    """Place in memory of the first frame of `keep`."""

    def rows_in(self, out: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The part of an array of frames that belongs to this portion."""
        return out[self.row : self.row + len(self.keep)]


class Reader(Protocol):
    """Reads frames of one data set."""

    def read(self, portions: Sequence[Portion], band: range, out: npt.NDArray[Any]) -> None:
        """Fill an array ``(frames, *sig of the band)`` with some portions that follow each other in it.

        `band` counts chunks along the first signal axis.
        """
        ...

    def close(self) -> None:
        """Close the file."""
        ...


def open_reader(piece: H5Piece, frames: Ints) -> Reader:
    """Reader for some frames of a data set, in the way that its layout asks for."""
    return ChunkReader(piece, frames) if piece.layout.access == "chunks" else LibraryReader(piece)


class _Content(NamedTuple):
    """What a chunk holds."""

    stored: Bytes | None
    """As in the file; None if it was never written."""
    chunk: int
    """Its number among those that are read."""
    decoded: npt.NDArray[Any] | None
    """As an array, if it has been decoded already."""


class ChunkReader:
    """Reads chunks at their places in the file and decodes them.

    Parameters
    ----------
    piece : H5Piece
    frames : array of int64
        All frames that will be asked for, numbered within the data set.
    """

    def __init__(self, piece: H5Piece, frames: Ints) -> None:
        layout = piece.layout
        assert layout.chunks is not None
        self._piece = piece
        self._units = layout.units
        self._n_nav = len(layout.nav_shape)
        self._chunk_shape = layout.chunks[self._units.axis :]
        self._strides = _strides(self._units.grid)
        self._chunk_frames = prod(self._units.nav_chunks)
        # Chunks of whole frames, one after the other, are decoded to where they are needed.
        self._fills_unit = (
            len(self._units.places) == 1
            and self._units.sig_chunks == self._units.sig_shape
            and self._chunk_frames == self._units.step
        )
        self._chunk_bytes = prod(layout.chunks) * piece.native_dtype.itemsize
        self._relative = np.array(
            [sum(i * s for i, s in zip(p.chunk, self._strides, strict=True)) for p in self._units.places],
            dtype=np.int64,
        )
        starts = np.unique(self._units.starts_of(frames))
        firsts = self._units.first_chunks(starts) @ np.array(self._strides, dtype=np.int64)
        table, rows = chunk_table(piece, (firsts[:, np.newaxis] + self._relative).reshape(-1))
        self._offsets, self._sizes = table.offsets[rows], table.sizes[rows]
        self._masks, self._fill = table.masks[rows], table.fill
        # Of each unit, the number of its first chunk among those that are read.
        self._first_of = {start: i * self._relative.size for i, start in enumerate(starts.tolist())}
        self._decoder = ChunkDecoder(layout.filters, self._chunk_bytes)
        self._per_call = max(1, JOINT_BYTES // self._chunk_bytes)
        self._chunk = np.empty(0, dtype=np.uint8)
        self._rows = RowCopier(piece.native_dtype)
        self._file = RawFile(piece.path)
        self._raw = np.empty(0, dtype=np.uint8)
        self._ahead = ReadAhead(self._file, self._offsets, self._sizes)

    def read(self, portions: Sequence[Portion], band: range, out: npt.NDArray[Any]) -> None:
        """Fill an array with frames, see `Reader`."""
        self._ahead.move_to(self._first_of[portions[0].start])
        if self._fills_unit and all(len(p.keep) == self._chunk_frames for p in portions):
            self._read_run([self._first_of[p.start] for p in portions], out.reshape(-1).view(np.uint8))
            return
        jobs = []
        for portion in portions:
            first = self._first_of[portion.start]
            for k, place in enumerate(self._units.places):
                if place.chunk[self._n_nav] in band and self._is_wanted(place, portion):
                    jobs.append((first + k, place, portion))
        chunks = [job[0] for job in jobs]
        for first, stop, start in self._spans(chunks):
            for a in range(first, stop, self._per_call):
                part = jobs[a : min(stop, a + self._per_call)]
                together = None if start < 0 else self._decode_together([job[0] for job in part], start)
                for k, (chunk, place, portion) in enumerate(part):
                    content = _Content(
                        stored=None if start < 0 else self._stored(chunk, start),
                        chunk=chunk,
                        decoded=None if together is None else together[k],
                    )
                    self._put(content, place, portion, band, portion.rows_in(out))

    def _read_run(self, chunks: list[int], out: Bytes) -> None:
        """Decode whole chunks one after the other."""
        n_bytes = self._chunk_bytes
        if not self._piece.layout.filters:
            self._read_plain(chunks, out)
            return
        per_call = self._per_call
        offsets, sizes = self._offsets[chunks], self._sizes[chunks]
        joint = per_call > 1 and not self._masks[chunks].any()
        for first, stop, start in self._spans(chunks):
            if start < 0:
                out[first * n_bytes : stop * n_bytes].view(self._piece.native_dtype)[...] = self._fill
                continue
            for a in range(first, stop, per_call):
                b = min(stop, a + per_call)
                part = out[a * n_bytes : b * n_bytes]
                if joint and self._decoder.decode_joint(self._raw, offsets[a:b] - start, sizes[a:b], part):
                    continue
                for k in range(a, b):
                    raw = self._stored(chunks[k], start)
                    self._decode(raw, chunks[k], out[k * n_bytes : (k + 1) * n_bytes])

    def _decode_together(self, chunks: list[int], start: int) -> npt.NDArray[Any] | None:
        """Chunks ``(n, *chunk)`` in memory that is used again, if they can be decoded in one call."""
        if len(chunks) < 2 or self._masks[chunks].any():
            return None
        n_bytes = len(chunks) * self._chunk_bytes
        if self._chunk.size < n_bytes:
            self._chunk = np.empty(n_bytes, dtype=np.uint8)
        out = self._chunk[:n_bytes]
        if not self._decoder.decode_joint(self._raw, self._offsets[chunks] - start, self._sizes[chunks], out):
            return None
        return out.view(self._piece.native_dtype).reshape(len(chunks), *self._chunk_shape)

    def _read_plain(self, chunks: list[int], out: Bytes) -> None:
        """The same without filters: chunks are read to where they are needed."""
        offsets = self._offsets[chunks]
        apart = (np.diff(offsets) != self._chunk_bytes) | (offsets[1:] < 0) | (offsets[:-1] < 0)
        breaks = np.flatnonzero(apart) + 1
        for first, stop in itertools.pairwise([0, *breaks.tolist(), len(chunks)]):
            part = out[first * self._chunk_bytes : stop * self._chunk_bytes]
            if offsets[first] < 0:
                part.view(self._piece.native_dtype)[...] = self._fill
            else:
                self._file.read_into(part, int(offsets[first]))

    def _spans(self, chunks: list[int]) -> Iterator[tuple[int, int, int]]:
        """Read chunks that lie close to each other into memory.

        Yields
        ------
        (int, int, int)
            Half-open range in `chunks`, and the byte in the file where the memory begins; -1 for a chunk that
            was never written.
        """
        offsets, sizes = self._offsets[chunks].tolist(), self._sizes[chunks].tolist()
        k = 0
        while k < len(chunks):
            if offsets[k] < 0:
                yield k, k + 1, -1
                k += 1
                continue
            # Chunks follow each other in the file if it was written in one go.
            n, start, stop = k + 1, offsets[k], offsets[k] + sizes[k]
            while (
                n < len(chunks)
                and 0 <= offsets[n] - stop <= MAX_GAP
                and offsets[n] + sizes[n] - start <= MAX_SPAN
            ):
                stop = offsets[n] + sizes[n]
                n += 1
            if self._raw.size < stop - start:
                self._raw = np.empty(stop - start, dtype=np.uint8)
            self._file.read_into(self._raw[: stop - start], start)
            yield k, n, start
            k = n

    def _stored(self, chunk: int, start: int) -> Bytes:
        """A chunk in memory that begins with byte `start` of the file."""
        at = int(self._offsets[chunk]) - start
        return self._raw[at : at + int(self._sizes[chunk])]

    def _is_wanted(self, place: ChunkPlace, portion: Portion) -> bool:
        if len(portion.wanted) == portion.stop - portion.start or not self._units.inner_shape:
            return True
        inside = np.unravel_index(
            (portion.wanted - portion.start) % self._units.inner, self._units.inner_shape
        )
        hit = np.ones(portion.wanted.shape, dtype=bool)
        for index, part in zip(inside, place.nav, strict=True):
            hit &= (index >= part.start) & (index < part.stop)
        return bool(hit.any())

    # --- to memory ---

    def _put(
        self,
        content: _Content,
        place: ChunkPlace,
        portion: Portion,
        band: range,
        out: npt.NDArray[Any],
    ) -> None:
        """Bring a chunk to its place in `out`."""
        sig = self._sig_place(place, band)
        n_along = (portion.stop - portion.start) // self._units.inner
        nav_shape = (n_along, *self._units.inner_shape)
        nav = (slice(None), *place.nav)
        if len(portion.keep) < portion.stop - portion.start:
            ids = np.arange(portion.start, portion.stop).reshape(nav_shape)[nav] - portion.keep.start
            self._put_part(content, ids, sig, out)
            return
        target = out.reshape(nav_shape + out.shape[1:])[nav + sig]
        if content.stored is None:
            target[...] = self._fill
        elif content.decoded is None and target.shape == self._chunk_shape and target.flags.c_contiguous:
            self._decode(content.stored, content.chunk, target.reshape(-1).view(np.uint8))
        else:
            self._rows.copy(self._decoded(content), target, out)

    def _put_part(self, content: _Content, ids: Ints, sig: tuple[slice, ...], out: npt.NDArray[Any]) -> None:
        """The same where only some frames have room. `ids` are the rows of `out` for those of the chunk."""
        kept = (ids >= 0) & (ids < out.shape[0])
        into: Any = (ids[kept], *sig)
        if content.stored is None:
            out[into] = self._fill
            return
        whole = tuple(slice(extent) for extent in ids.shape)
        part: Any = (slice(None), *(slice(s.stop - s.start) for s in sig))
        out[into] = self._decoded(content)[whole][kept][part]

    def _sig_place(self, place: ChunkPlace, band: range) -> tuple[slice, ...]:
        """Place of a chunk in frames that are cut to a band."""
        skipped = band.start * self._units.sig_chunks[0]
        first = place.sig[0]
        return (slice(first.start - skipped, first.stop - skipped), *place.sig[1:])

    def _decoded(self, content: _Content) -> npt.NDArray[Any]:
        """The chunk as an array, in memory that is used again."""
        if content.decoded is not None:
            return content.decoded
        assert content.stored is not None
        if not self._chunk.size:
            self._chunk = np.empty(self._chunk_bytes, dtype=np.uint8)
        chunk = self._chunk[: self._chunk_bytes]
        self._decode(content.stored, content.chunk, chunk)
        return chunk.view(self._piece.native_dtype).reshape(self._chunk_shape)

    def _decode(self, raw: Bytes, chunk: int, out: Bytes) -> None:
        try:
            self._decoder.decode(raw, int(self._masks[chunk]), out)
        except DataSetException as err:
            offset = self._offsets[chunk]
            where = f"{self._piece.path}: {self._piece.dataset}, chunk at byte {offset}"
            raise DataSetException(f"{where}: {err}", path=self._piece.path, hint=err.hint) from err

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _strides(grid: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(prod(grid[axis + 1 :]) for axis in range(len(grid)))


class ReadAhead:
    """Asks the system to fetch chunks before their turn comes.

    Parameters
    ----------
    file : RawFile
    offsets, sizes : array of int64
        Of all chunks in the order in which they are read; offsets are -1 for chunks that do not exist.
    """

    def __init__(self, file: RawFile, offsets: Ints, sizes: Ints) -> None:
        self._file = file
        self._offsets, self._sizes = offsets, sizes
        self._end = np.cumsum(sizes)
        self._asked = 0

    def move_to(self, chunk: int) -> None:
        """Say which chunk is decoded next."""
        done = int(self._end[chunk - 1]) if chunk else 0
        have = int(self._end[self._asked - 1]) if self._asked else 0
        # In large steps: each question is a system call.
        if have - done > AHEAD_BYTES // 2 or self._asked == self._end.size:
            return
        stop = max(chunk + 1, int(np.searchsorted(self._end, done + AHEAD_BYTES)))
        part = slice(self._asked, stop)
        self._asked = min(stop, self._end.size)
        offsets = self._offsets[part][self._offsets[part] >= 0]
        if offsets.size:
            first, last = int(offsets.min()), int((self._offsets[part] + self._sizes[part]).max())
            # Chunks that are scattered over the file are left to the system.
            if last - first <= 2 * AHEAD_BYTES:
                self._file.advise_willneed(first, last - first)


class LibraryReader:
    """Reads with HDF5: everything that is unusual. One thread at a time, whoever reads.

    Parameters
    ----------
    piece : H5Piece
    """

    def __init__(self, piece: H5Piece) -> None:
        self._piece = piece
        self._units = piece.layout.units
        self._stack = ExitStack()
        try:
            file = self._stack.enter_context(open_hdf5(piece.path))
            with as_hdf5_error(piece.path, "the data set cannot be opened"):
                self._dset = file[piece.dataset]
                shape = self._dset.shape
            if shape != (*piece.layout.nav_shape, *piece.layout.sig_shape):
                raise DataSetException(
                    "the data set has changed", path=piece.path, found=f"shape {shape}", hint="load it again"
                )
        except BaseException:
            self._stack.close()
            raise

    def read(self, portions: Sequence[Portion], band: range, out: npt.NDArray[Any]) -> None:
        """Fill an array with frames, see `Reader`."""
        for portion in portions:
            self._read_one(portion, band, portion.rows_in(out))

    def _read_one(self, portion: Portion, band: range, out: npt.NDArray[Any]) -> None:
        inner = self._units.inner
        # Steps along the axis that is cut, from the first to the last one that is needed.
        first = (int(portion.wanted[0]) - portion.start) // inner
        last = (int(portion.wanted[-1]) - portion.start) // inner
        if self._piece.layout.chunks is not None and len(portion.keep) == portion.stop - portion.start:
            # Chunks are decoded as a whole, so that all of it is read at once.
            first, last = 0, (portion.stop - portion.start) // inner - 1
        axis, nav_shape = self._units.axis, self._units.nav_shape
        outer, inside = divmod(portion.start, self._units.period)
        before = np.unravel_index(outer, nav_shape[:axis]) if axis else ()
        along = inside // inner
        rows = self._units.sig_chunks[0]
        sig_rows = slice(band.start * rows, band.start * rows + out.shape[1])
        selection = (
            *(int(i) for i in before),
            slice(along + first, along + last + 1),
            *(slice(None) for _ in nav_shape[axis + 1 :]),
            sig_rows,
        )
        a = portion.start + first * inner
        b = portion.start + (last + 1) * inner
        with as_hdf5_error(self._piece.path, "the data set cannot be read"):
            data = self._dset[selection]
        frames = data.reshape(b - a, *out.shape[1:])
        lo, hi = max(a, portion.keep.start), min(b, portion.keep.stop)
        out[lo - portion.keep.start : hi - portion.keep.start] = frames[lo - a : hi - a]

    def close(self) -> None:
        """Close the file."""
        self._stack.close()
