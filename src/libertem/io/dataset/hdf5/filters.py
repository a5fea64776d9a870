"""Decode chunks outside of HDF5: no lock, so that threads decode at the same time.

| id | filter | stored as | undone with |
|---|---|---|---|
| 1 | deflate | zlib stream | libdeflate, through imagecodecs |
| 2 | shuffle | see `kernels` | `kernels.unshuffle` |
| 3 | fletcher32 | see `kernels` | `kernels.fletcher32`, which is compared |
| 32000 | LZF | raw LZF stream | imagecodecs |
| 32001 | Blosc | Blosc-1 frame | imagecodecs |
| 32004 | LZ4 | header, blocks | imagecodecs |
| 32008 | bitshuffle, without compression, LZ4 or Zstandard | header, blocks; see `kernels` | imagecodecs, `kernels.bit_unshuffle` |
| 32015 | Zstandard | plain frame | imagecodecs |
| 32026 | Blosc2 | see `blosc2` | imagecodecs, `blosc2.undo_frame` |

The header of LZ4 and compressed bitshuffle streams is the number of bytes that come out (eight bytes) and that of each
block (four bytes), both big-endian. Then follow, for each block, the number of its stored bytes (four bytes,
big-endian) and these.

Filters are listed in the order in which they were applied, and undone in reverse. Bit `k` of the mask of a chunk
says that filter `k` was skipped for it.

Sources: list of registered HDF5 filters; descriptions of the LZ4 and bitshuffle filters.
"""  # noqa: E501

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from libertem.exceptions import DataSetException
from libertem.io.dataset.hdf5.blosc2 import parse_frame, undo_frame

if TYPE_CHECKING:
    import numpy.typing as npt

    Bytes = npt.NDArray[np.uint8]
    Ints = npt.NDArray[np.int64]

__all__ = ["BLOSC2", "KERNELS", "ChunkDecoder", "Filter", "filter_name", "why_not_decodable", "why_unusual"]

KERNELS = "libertem.io.dataset.hdf5.kernels"
"""Module with compiled functions, which takes a while to load."""

DEFLATE, SHUFFLE, FLETCHER32 = 1, 2, 3
LZF, BLOSC, LZ4, BITSHUFFLE, ZSTD, BLOSC2 = 32000, 32001, 32004, 32008, 32015, 32026

NAMES = {
    DEFLATE: "gzip",
    SHUFFLE: "shuffle",
    FLETCHER32: "fletcher32",
    4: "szip",
    5: "n-bit",
    6: "scale-offset",
    LZF: "lzf",
    BLOSC: "blosc",
    LZ4: "lz4",
    BITSHUFFLE: "bitshuffle",
    32013: "zfp",
    ZSTD: "zstd",
    BLOSC2: "blosc2",
}

BITSHUFFLE_PLAIN, BITSHUFFLE_LZ4, BITSHUFFLE_ZSTD = 0, 2, 3

COMPRESSORS = (DEFLATE, LZF, BLOSC, LZ4, BITSHUFFLE, ZSTD, BLOSC2)
"""Filters whose output has another size than their input."""

STREAM_HEADER = struct.Struct(">QI")
BLOCK_HEADER = struct.Struct(">I")

BLOSC_HEADER = struct.Struct("<4x3I")
"""Version and flags, then bytes that come out, bytes per block, stored bytes."""

CHECKSUM_BYTES = 4

MAX_JOINT_BYTES = 1 << 31
"""Sizes in streams are signed numbers for some decoders."""

DEFAULT_BITSHUFFLE_BYTES = 8192
MIN_BITSHUFFLE_PX = 128
"""Bitshuffle takes blocks of 8 KiB, rounded down to a multiple of eight pixels, but not below this."""


@dataclass(frozen=True)
class Filter:
    """One filter of a data set."""

    id: int
    """As registered with the HDF Group."""

    values: tuple[int, ...]
    """Parameters of the filter as they stand in the file."""


def filter_name(filter_id: int) -> str:
    """Name for people."""
    return NAMES.get(filter_id, f"filter {filter_id}")


def why_not_decodable(filters: tuple[Filter, ...]) -> str | None:
    """Why chunks with these filters have to be left to HDF5; None if `ChunkDecoder` can decode them."""
    known = {SHUFFLE, FLETCHER32, *COMPRESSORS}
    unknown = [filter_name(f.id) for f in filters if f.id not in known]
    if unknown:
        return f"{', '.join(unknown)} can only be decoded by HDF5"
    if sum(f.id in COMPRESSORS for f in filters) > 1:
        return "compressed more than once"
    for f in filters:
        if f.id == BITSHUFFLE and (len(f.values) < 3 or _bitshuffle_mode(f) is None):
            return f"bitshuffle with unknown parameters {f.values}"
        if f.id == SHUFFLE and not f.values:
            return "shuffle without parameters"
    return None


def why_unusual(filters: tuple[Filter, ...], stored: bytes, mask: int) -> str | None:
    """Why a chunk has to be left to HDF5 although `why_not_decodable` knows of no reason; None if not.

    Only Blosc2 stores things that the parameters of the filter do not tell.
    """
    last = next((k for k, f in enumerate(filters) if f.id == BLOSC2), None)
    if last is None or mask >> last & 1:
        return None
    try:
        parse_frame(memoryview(stored))
    except ValueError as err:
        return str(err)
    return None


def _bitshuffle_mode(f: Filter) -> int | None:
    mode = f.values[4] if len(f.values) > 4 else BITSHUFFLE_PLAIN
    return mode if mode in (BITSHUFFLE_PLAIN, BITSHUFFLE_LZ4, BITSHUFFLE_ZSTD) else None


Undo: TypeAlias = "Callable[[Bytes, Bytes], Bytes]"
"""``undo(data, target)`` returns what the filter was given: `target`, or a part of either."""


class ChunkDecoder:
    """Undoes the filters of chunks. Holds scratch memory: use each object from one thread only.

    Parameters
    ----------
    filters : tuple of Filter
        In the order of the file; `why_not_decodable` has to give None for them.
    chunk_bytes : int
        Size of a decoded chunk.
    """

    def __init__(self, filters: tuple[Filter, ...], chunk_bytes: int) -> None:
        self._chunk_bytes = chunk_bytes
        self._filters = filters
        self._undos = [_make_undo(f) for f in filters]
        self._steps: dict[int, list[tuple[Undo, Bytes | None]]] = {}

    def decode(self, stored: Bytes, mask: int, out: Bytes) -> None:
        """Decode one chunk.

        Parameters
        ----------
        stored : array of uint8
            As in the file, 1D.
        mask : int
            Filter mask of the chunk.
        out : array of uint8
            1D, contiguous, as large as a decoded chunk.

        Raises
        ------
        DataSetException
            If the bytes cannot be decoded, or to another size, or their checksum is wrong.
        """
        steps = self._steps.get(mask)
        if steps is None:
            steps = self._steps[mask] = self._plan(mask)
        data = stored
        for undo, scratch in steps:
            data = undo(data, out if scratch is None else scratch)
        _require_size(data, self._chunk_bytes)
        if data is not out:
            out[:] = data

    def decode_joint(self, raw: Bytes, starts: Ints, sizes: Ints, out: Bytes) -> bool:
        """Decode several chunks at once, if these filters allow that; False if not.

        Threads then meet less often: each call of a decoder gives the interpreter's lock away and has to
        wait for it afterwards, which can take longer than decoding a small chunk.

        Parameters
        ----------
        raw : array of uint8
            Memory with the stored chunks.
        starts, sizes : array of int64
            Where they are in it. No filter may have been skipped for any of them.
        out : array of uint8
            1D, contiguous: for all chunks, one after the other.
        """
        if len(self._filters) != 1 or not isinstance(self._undos[0], _Bitshuffle):
            return False
        return self._undos[0].undo_joint(raw, starts, sizes, self._chunk_bytes, out)

    def _plan(self, mask: int) -> list[tuple[Undo, Bytes | None]]:
        """What to undo, the last filter first, and where to put what comes out; None for the chunk."""
        applied = [k for k in range(len(self._filters)) if not mask >> k & 1]
        steps: list[tuple[Undo, Bytes | None]] = []
        for k in reversed(applied):
            sums = sum(self._filters[i].id == FLETCHER32 for i in applied if i < k)
            size = self._chunk_bytes + CHECKSUM_BYTES * sums
            last = k == applied[0]
            steps.append((self._undos[k], None if last else np.empty(size, dtype=np.uint8)))
        return steps


def _require_size(data: Bytes, n_bytes: int) -> None:
    if data.size != n_bytes:
        raise DataSetException(
            "a chunk has another size than expected", found=f"{data.size} bytes", expected=f"{n_bytes} bytes"
        )


def _make_undo(f: Filter) -> Undo:
    # Loads numba or large packages, which chunks without filters do not need.
    if f.id == SHUFFLE:
        return partial(_unshuffle, import_module(KERNELS), f.values[0])
    if f.id == FLETCHER32:
        return partial(_check, import_module(KERNELS))
    if f.id == BITSHUFFLE:
        return _Bitshuffle(f)
    codecs = import_module("imagecodecs")
    if f.id == BLOSC:
        return partial(_undo_blosc, partial(codecs.blosc_decode, numthreads=1))
    if f.id == BLOSC2:
        return partial(undo_frame, codecs)
    decode = {
        DEFLATE: codecs.deflate_decode,
        LZF: codecs.lzf_decode,
        LZ4: codecs.lz4h5_decode,
        ZSTD: codecs.zstd_decode,
    }
    return partial(_decompress, decode[f.id], filter_name(f.id))


def _unshuffle(kernels: Any, item: int, data: Bytes, target: Bytes) -> Bytes:
    _require_size(data, target.size)
    kernels.unshuffle(data, item, target)
    return target


def _check(kernels: Any, data: Bytes, target: Bytes) -> Bytes:
    content = data[:-CHECKSUM_BYTES]
    stored = data[-CHECKSUM_BYTES:].tobytes()
    found = kernels.fletcher32(content)
    if stored not in (found.to_bytes(4, "little"), _swapped_halves(found)):
        raise DataSetException(
            "the checksum of a chunk is wrong",
            found=hex(found),
            expected=hex(int.from_bytes(stored, "little")),
            hint="the file is damaged: copy it again",
        )
    return content


def _decompress(decode: Callable[..., Any], name: str, data: Bytes, target: Bytes) -> Bytes:
    try:
        size = len(decode(data, out=target))
    except (RuntimeError, ValueError) as err:
        raise DataSetException(f"a chunk cannot be decoded ({name}): {err}") from err
    return target if size == target.size else target[:size]


def _undo_blosc(decode: Callable[..., Any], data: Bytes, target: Bytes) -> Bytes:
    # The library believes what the header says about sizes, and would read behind the end.
    sizes = BLOSC_HEADER.unpack_from(data.data) if data.size >= BLOSC_HEADER.size else (0, 0, 0)
    if sizes[0] != target.size or sizes[2] != data.size:
        raise DataSetException(
            "a chunk cannot be decoded (blosc)",
            found=f"a header for {sizes[2]} bytes that become {sizes[0]}",
            expected=f"{data.size} bytes that become {target.size}",
        )
    return _decompress(decode, "blosc", data, target)


class _Bitshuffle:
    """Undoes the bitshuffle filter. Compressed blocks are decoded first, all of them."""

    def __init__(self, f: Filter) -> None:
        self._codecs: Any = import_module("imagecodecs")
        self._kernels: Any = import_module(KERNELS)
        self._item = f.values[2]
        self._block_px = (f.values[3] if len(f.values) > 3 else 0) or _default_block_px(self._item)
        self._mode = _bitshuffle_mode(f)
        self._shuffled = np.empty(0, dtype=np.uint8)
        self._joint = np.empty(0, dtype=np.uint8)

    def __call__(self, data: Bytes, target: Bytes) -> Bytes:
        if self._shuffled.size != target.size:
            self._shuffled = np.empty(target.size, dtype=np.uint8)
        shuffled = self._shuffled
        block_px = self._block_px
        if self._mode == BITSHUFFLE_PLAIN:
            _require_size(data, target.size)
            shuffled[:] = data
        else:
            try:
                block_px = self._decompress(data, shuffled)
            except (RuntimeError, ValueError, struct.error) as err:
                raise DataSetException(f"a chunk cannot be decoded (bitshuffle): {err}") from err
        self._kernels.bit_unshuffle(shuffled, self._item, block_px, target)
        return target

    def undo_joint(self, raw: Bytes, starts: Ints, sizes: Ints, chunk_bytes: int, out: Bytes) -> bool:
        """Undo the filter for several chunks at once; False if something is not as usual."""
        block_bytes = self._block_px * self._item
        if self._mode != BITSHUFFLE_LZ4 or chunk_bytes % block_bytes or out.size >= MAX_JOINT_BYTES:
            return False
        if self._shuffled.size != out.size:
            self._shuffled = np.empty(out.size, dtype=np.uint8)
        if not self._kernels.streams_are_usual(raw, starts, sizes, chunk_bytes, block_bytes):
            return False
        stream = self._join(raw, starts, sizes)
        STREAM_HEADER.pack_into(stream.data, 0, out.size, block_bytes)
        try:
            if len(self._codecs.lz4h5_decode(stream, out=self._shuffled)) != out.size:
                return False
        except (RuntimeError, ValueError):
            # Decoding them one by one will tell which chunk it is.
            return False
        self._kernels.bit_unshuffle(self._shuffled, self._item, self._block_px, out)
        return True

    def _join(self, raw: Bytes, starts: Ints, sizes: Ints) -> Bytes:
        """The blocks of several streams one after the other, behind room for one header."""
        header = STREAM_HEADER.size
        total = header + int(sizes.sum()) - header * sizes.size
        if self._joint.size < total:
            self._joint = np.empty(total, dtype=np.uint8)
        at = header
        for start, stop in zip((starts + header).tolist(), (starts + sizes).tolist(), strict=True):
            self._joint[at : at + stop - start] = raw[start:stop]
            at += stop - start
        return self._joint[:total]

    def _decompress(self, data: Bytes, shuffled: Bytes) -> int:
        """Decompress all blocks to where they belong; returns the pixels of each."""
        total: int
        block_bytes: int
        total, block_bytes = STREAM_HEADER.unpack_from(data.data)
        if total != shuffled.size:
            raise ValueError(f"{total} bytes announced, {shuffled.size} expected")
        block_px = block_bytes // self._item
        if block_px < 1 or block_px % 8:
            raise ValueError(f"blocks of {block_bytes} bytes for pixels of {self._item}")
        unit = 8 * self._item
        whole = total // unit * unit
        is_lz4 = self._mode == BITSHUFFLE_LZ4
        if is_lz4 and whole == total and not self._kernels.block_fills_itself(data, total, block_bytes):
            # Then the stream is one of the LZ4 filter, which is decoded in one call.
            if len(self._codecs.lz4h5_decode(data, out=shuffled)) != total:
                raise ValueError("the stream is too short")
            return block_px
        decode = self._codecs.lz4_decode if is_lz4 else self._codecs.zstd_decode
        at = STREAM_HEADER.size
        for start in range(0, whole, block_px * self._item):
            place = shuffled[start : min(whole, start + block_px * self._item)]
            (size,) = BLOCK_HEADER.unpack_from(data.data, at)
            at += BLOCK_HEADER.size
            if len(decode(data[at : at + size], out=place)) != place.size:
                raise ValueError("a block is too short")
            at += size
        # What does not fill eight pixels follows as it is.
        rest = data[at : at + total - whole]
        if rest.size != total - whole:
            raise ValueError("the stream is too short")
        shuffled[whole:] = rest
        return block_px


def _default_block_px(item: int) -> int:
    return max(MIN_BITSHUFFLE_PX, DEFAULT_BITSHUFFLE_BYTES // item // 8 * 8)


def _swapped_halves(checksum: int) -> bytes:
    """The checksum as HDF5 before 1.6.3 wrote it: the bytes of both halves exchanged."""
    b = checksum.to_bytes(4, "little")
    return bytes((b[1], b[0], b[3], b[2]))
