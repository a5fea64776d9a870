"""Decode what the Blosc2 filter stores: a contiguous frame around one Blosc2 chunk.

The header of a frame, in fixed places (numbers are big-endian, after a byte that names their type):

| offset | bytes | meaning |
|-------:|------:|---------|
| 0 | 10 | ``9e a8``, then ``b2frame`` and a zero |
| 11 | 4 | bytes of the header |
| 16 | 8 | bytes of the frame |
| 30 | 8 | bytes that come out |
| 39 | 8 | bytes of compressed data; 0 if all is one special value |
| 48 | 4 | bytes per item |
| 58 | 4 | bytes that come out of each chunk |

Arrays have a metalayer ``b2nd`` with the shapes of the array, of its chunks and of the blocks in these: pixels are then
stored block after block, and blocks at the border are filled up.

Behind the header follow the chunks, and the chunk of their offsets; for special values there is only that one, and
the offset says which value it is. Chunks have a header of 32 bytes: from byte 4 on three little-endian numbers, the bytes
that come out, those of a block, and those of the chunk.

Sources: the descriptions of the contiguous frame, of the chunk format and of the b2nd metalayer in C-Blosc2.
"""  # noqa: E501

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.math import prod
from libertem.exceptions import DataSetException

if TYPE_CHECKING:
    import numpy.typing as npt

    Bytes = npt.NDArray[np.uint8]

__all__ = ["BloscFrame", "parse_frame", "undo_frame"]

MAGIC = b"\x9e\xa8b2frame\x00"
FRAME_HEADER = struct.Struct(">10sxixQ5xxqxqxi5xxi")
CHUNK_HEADER = struct.Struct("<4x3I20x")
MAX_DIMS = 16

ZEROS = 0x81
"""First byte of an offset: there is no chunk, all bytes are zero."""


@dataclass(frozen=True)
class BloscFrame:
    """The facts of a frame."""

    header_bytes: int
    """Where the first chunk begins."""
    n_bytes: int
    """What comes out, with what borders are filled up with."""
    is_special: bool
    """Whether there is no chunk but one value everywhere."""
    item: int
    """Bytes per item."""
    shape: tuple[int, ...]
    """Of the array; empty if bytes are in order."""
    blocks: tuple[int, ...]
    """Of a block in the array."""


def parse_frame(data: memoryview) -> BloscFrame:
    """Turn the beginning of a frame into facts.

    Raises
    ------
    ValueError
        If this is no frame around one chunk.
    """
    if len(data) < FRAME_HEADER.size:
        raise ValueError("too short for a Blosc2 frame")
    magic, header_bytes, frame_bytes, n_bytes, stored, item, chunk_bytes = FRAME_HEADER.unpack_from(data)
    if magic != MAGIC or not FRAME_HEADER.size <= header_bytes <= frame_bytes <= len(data):
        raise ValueError("not a Blosc2 frame")
    if n_bytes != chunk_bytes or item < 1:
        raise ValueError("a Blosc2 frame of several chunks")
    shape, blocks = _parse_array(data[:header_bytes].tobytes())
    if shape and prod(-(-s // b) * b for s, b in zip(shape, blocks, strict=True)) * item != n_bytes:
        raise ValueError("a Blosc2 array of several chunks")
    return BloscFrame(header_bytes, n_bytes, stored == 0, item, shape, blocks)


def _parse_array(header: bytes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape of the array and of its blocks; empty if there is no such metalayer."""
    name = header.find(b"\xa4b2nd\xd2")
    if name < 0:
        return (), ()
    try:
        (at,) = struct.unpack_from(">i", header, name + 6)
        # Five bytes say how long the layer is; then an array of seven: version, axes, three shapes, dtype.
        n_dims = header[at + 7]
        at += 8
        if not 1 <= n_dims <= MAX_DIMS:
            raise ValueError("a Blosc2 array with an impossible number of axes")
        shape = struct.unpack_from(">x" + "xq" * n_dims, header, at)
        at += 1 + 9 * n_dims
        blocks = struct.unpack_from(">x" + "xi" * n_dims, header, at + 1 + 5 * n_dims)
    except (struct.error, IndexError) as err:
        raise ValueError("a Blosc2 array with a header that is cut off") from err
    if min(*shape, *blocks, 1) < 1:
        raise ValueError("a Blosc2 array with an impossible shape")
    return shape, blocks


def undo_frame(codecs: Any, data: Bytes, target: Bytes) -> Bytes:
    """Decode a frame into `target`.

    Parameters
    ----------
    codecs : module
        imagecodecs.
    data : array of uint8
        The frame.
    target : array of uint8
        1D, as large as what comes out.

    Raises
    ------
    DataSetException
        If that is not possible.
    """
    try:
        _undo(codecs, data, target)
    except (RuntimeError, ValueError, struct.error) as err:
        raise DataSetException(f"a chunk cannot be decoded (blosc2): {err}") from err
    return target


def _undo(codecs: Any, data: Bytes, target: Bytes) -> None:
    frame = parse_frame(data.data)
    expected = prod(frame.shape) * frame.item if frame.shape else frame.n_bytes
    if expected != target.size:
        raise ValueError(f"{expected} bytes announced, {target.size} expected")
    chunk = data[frame.header_bytes :]
    if frame.is_special:
        offset = np.empty(8, dtype=np.uint8)
        _decode_chunk(codecs, chunk, offset)
        if offset[7] != ZEROS:
            raise ValueError("a special value that is not known")
        target[:] = 0
        return
    if not frame.shape or (frame.blocks[1:] == frame.shape[1:] and frame.n_bytes == target.size):
        _decode_chunk(codecs, chunk, target)
        return
    decoded = np.empty(frame.n_bytes, dtype=np.uint8)
    _decode_chunk(codecs, chunk, decoded)
    _put_in_order(frame, decoded.view(f"V{frame.item}"), target.view(f"V{frame.item}").reshape(frame.shape))


def _decode_chunk(codecs: Any, data: Bytes, target: Bytes) -> None:
    n_bytes, _, size = CHUNK_HEADER.unpack_from(data.data)
    if n_bytes != target.size or size > data.size:
        raise ValueError(f"a header for {size} bytes that become {n_bytes}")
    if len(codecs.blosc2_decode(data[:size], numthreads=1, out=target)) != target.size:
        raise ValueError("the chunk is too short")


def _put_in_order(frame: BloscFrame, decoded: npt.NDArray[Any], target: npt.NDArray[Any]) -> None:
    """Copy blocks to their places."""
    size = prod(frame.blocks)
    starts = itertools.product(
        *(range(0, extent, block) for extent, block in zip(frame.shape, frame.blocks, strict=True))
    )
    for k, start in enumerate(starts):
        place = target[tuple(slice(a, a + block) for a, block in zip(start, frame.blocks, strict=True))]
        block = decoded[k * size : (k + 1) * size].reshape(frame.blocks)
        place[...] = block[tuple(slice(extent) for extent in place.shape)]
