"""Blocks, of which the file of a sector consists, without anything before, between or behind them.

A frame has 1860 rows of 2048 pixels, a sector 256 of its columns: 32 blocks of 930 rows and 16 columns. First
those of the upper half come, right to left, then those of the lower half, right to left.

A block has 22360 bytes; its header is big-endian:

| offset | bytes | type | meaning |
|-------:|------:|------|---------|
|  0 | 4 | >u4 | sync word 0xFFFF0055 |
|  4 | 4 |     | unknown |
|  8 | 1 | u1  | version |
|  9 | 1 | u1  | flags; bit 0: shutter active, others unknown |
| 10 | 6 |     | unknown |
| 16 | 4 | >u4 | block count: running number in the sector, the same in all sectors |
| 20 | 2 | >u2 | width of the sector, 256 |
| 22 | 2 | >u2 | height of the sector, 1860 |
| 24 | 4 | >u4 | frame id, the same for all blocks of a frame; not always ascending |
| 28 | 2 | >u2 | first column in the sector |
| 30 | 2 | >u2 | first row |
| 32 | 2 | >u2 | last column, inclusive |
| 34 | 2 | >u2 | last row, inclusive |
| 36 | 4 | >u4 | bytes of the block, 22360 |
| 40 | 22320 | | pixels of 12 bit in C order, two in three bytes: ``a | b << 12``, little-endian |

Gatan has not published the format. Source: what users of LiberTEM and py4DSTEM found in recorded data
(LiberTEM issue 63). There are no public sample files to check it against.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from libertem.exceptions import HeaderError
from libertem.io.dataset.base.backends.rawio import RawFile

__all__ = [
    "BLOCKS_PER_FRAME",
    "BLOCK_BYTES",
    "BLOCK_HEADER_BYTES",
    "BLOCK_SHAPE",
    "FRAME_SHAPE",
    "N_SECTORS",
    "SECTOR_BYTES",
    "BlockHeader",
    "Sector",
    "header_fields",
    "parse_header",
]

FRAME_SHAPE = (1860, 2048)
N_SECTORS = 8
SECTOR_SHAPE = (1860, 256)
BLOCK_SHAPE = (930, 16)
BLOCKS_PER_FRAME = 32

HEADER = struct.Struct(">I4xBB6xIHHIHHHHI")
BLOCK_HEADER_BYTES = HEADER.size
HEADER_NAMES = (
    *("sync word", "version", "flags", "block count", "width", "height", "frame id"),
    *("first x", "first y", "last x", "last y", "block size"),
)
BLOCK_BYTES = 22360
SECTOR_BYTES = BLOCKS_PER_FRAME * BLOCK_BYTES

SYNC_WORD = b"\xff\xff\x00\x55"
EXTENTS_AT = 20
SECTOR_EXTENTS = struct.pack(">HH", SECTOR_SHAPE[1], SECTOR_SHAPE[0])
SHUTTER_ACTIVE = 0x01

SEARCH_BYTES = 1 << 20
"""How far from the start of a file the first block is looked for."""


class BlockHeader(NamedTuple):
    """What the header of a block says."""

    is_active: bool
    """Whether the shutter was active."""

    block_count: int
    """Running number of the block in the stream of its sector."""

    frame_id: int
    """Number of the frame."""

    place: tuple[int, int]
    """(row, column) of its first pixel in the sector."""


def parse_header(raw: bytes, *, path: str, offset: int = 0) -> BlockHeader:
    """Turn the first 40 bytes of a block into a `BlockHeader`.

    Parameters
    ----------
    raw : bytes
        At least that many.
    path : str
        Where `raw` came from. Named in errors, never opened.
    offset : int
        Where the block starts in the file, for errors.

    Raises
    ------
    HeaderError
        If this is no block of a full frame.
    """
    if len(raw) < HEADER.size or raw[:4] != SYNC_WORD:
        raise HeaderError(
            f"no K2IS block at byte {offset}",
            path=path,
            found=repr(raw[:4]),
            expected=repr(SYNC_WORD),
            hint="copy the file again if it should be one; name the type yourself if it is something else",
        )
    _, _, flags, count, width, height, frame_id, x, y, _, _, _ = HEADER.unpack_from(raw)
    if (height, width) != SECTOR_SHAPE:
        raise HeaderError(
            f"the K2IS block at byte {offset} belongs to a sector of another size",
            path=path,
            found=(height, width),
            expected=SECTOR_SHAPE,
            hint="only the full readout of the sensor is supported",
        )
    return BlockHeader(bool(flags & SHUTTER_ACTIVE), count, frame_id, (y, x))


def header_fields(raw: bytes) -> dict[str, int]:
    """All fields of a block header whose meaning is known, by name.

    Parameters
    ----------
    raw : bytes
        `BLOCK_HEADER_BYTES` or more.
    """
    return dict(zip(HEADER_NAMES, HEADER.unpack_from(raw), strict=True))


class Sector:
    """The blocks of one file, by number.

    Headers are read when they are asked for, each once: they lie 22360 bytes apart.

    Parameters
    ----------
    file : RawFile
        Open file.
    search : bool
        Look for the first block if there is none at the start of the file. Costs up to a megabyte of reading.

    Raises
    ------
    HeaderError
        If there is no block.
    """

    def __init__(self, file: RawFile, *, search: bool) -> None:
        self.path = file.path
        self._file = file
        self._size = file.size()
        self._headers: dict[int, BlockHeader] = {}
        self._start = 0
        self.n_blocks = self._size // BLOCK_BYTES
        if search and not _is_block(self._read(0, HEADER.size)):
            self._start = self._find_first()
            self.n_blocks = (self._size - self._start) // BLOCK_BYTES
        if self.n_blocks < 1:
            # The first bytes may tell that it is something else, which is the better answer.
            parse_header(self._read(0, HEADER.size), path=self.path)
            raise HeaderError(
                "the file ends inside its first block",
                path=self.path,
                found=f"{self._size} bytes",
                expected=f"at least {BLOCK_BYTES}",
                hint="copy the file again: the transfer probably broke off",
            )
        self.header(0)

    def offset(self, block: int) -> int:
        """Byte where a block starts."""
        return self._start + block * BLOCK_BYTES

    def header(self, block: int) -> BlockHeader:
        """Header of a block.

        Raises
        ------
        HeaderError
            If the file ends before the block does, or this is none.
        """
        if block not in self._headers:
            offset = self.offset(block)
            if not 0 <= block < self.n_blocks:
                raise HeaderError(
                    "the file ends too early",
                    path=self.path,
                    found=f"{self.n_blocks} blocks",
                    expected=f"block {block}",
                )
            raw = self._read(offset, HEADER.size)
            self._headers[block] = parse_header(raw, path=self.path, offset=offset)
        return self._headers[block]

    def _read(self, offset: int, n_bytes: int) -> bytes:
        raw = np.empty(max(0, min(n_bytes, self._size - offset)), dtype=np.uint8)
        self._file.read_into(raw, offset)
        return raw.tobytes()

    def _find_first(self) -> int:
        """Where the first block starts, 0 if it cannot be found.

        The sync word can also occur in pixels: there has to be another one at the distance of a block.
        """
        raw = self._read(0, SEARCH_BYTES + BLOCK_BYTES + len(SYNC_WORD))
        offset = raw.find(SYNC_WORD, 1)
        while 0 < offset < SEARCH_BYTES:
            if _is_block(raw, offset) and raw.startswith(SYNC_WORD, offset + BLOCK_BYTES):
                return offset
            offset = raw.find(SYNC_WORD, offset + 1)
        return 0


def _is_block(raw: bytes, offset: int = 0) -> bool:
    """Whether `parse_header` would accept what starts there; much faster if it would not."""
    return raw.startswith(SYNC_WORD, offset) and raw.startswith(SECTOR_EXTENTS, offset + EXTENTS_AT)
