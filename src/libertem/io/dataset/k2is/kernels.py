"""Decode the pixels of one sector: 12 bit each, in blocks of 16 columns.

Imports numba, so import this module when pixels are decoded, not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.jit import inline_jit, jit
from libertem.io.kernels.prefetch import PREFETCH_BYTES, prefetch

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["unpack_sector"]

# In words of 8 bytes. All distances in a sector are multiples of that.
HEADER_WORDS = 5
ROW_WORDS = 3
BLOCK_WORDS = 2795
SECTOR_WORDS = 32 * BLOCK_WORDS
OUT_ROW_WORDS = 4  # 16 pixels
OUT_SECTOR_WORDS = 64  # 256 columns
OUT_FRAME_ROW_WORDS = 512  # 2048 columns

HALF_ROWS = 930

CHUNK_ROWS = 32
"""Rows that are decoded at a time: 16 KiB of scratch. Half of it costs a quarter of the speed, twice of it
gains little and wastes more at the ends of bands."""

AHEAD_WORDS = 2 * ROW_WORDS * CHUNK_ROWS
"""How far ahead stored pixels are fetched. Blocks are read a few rows at a time, from 16 places in turn: that
is too irregular for the processor to foresee. Without it, decoding takes 1.5 times as long."""

PREFETCH_WORDS = PREFETCH_BYTES // 8

# Two pixels in the lower half of a word, two above; then one in each quarter.
LOW_PAIR, HIGH_PAIR = np.uint64(0x0000_0000_00FF_FFFF), np.uint64(0x0000_FFFF_FF00_0000)
EVEN, ODD = np.uint64(0x0000_0FFF_0000_0FFF), np.uint64(0x00FF_F000_00FF_F000)


@inline_jit
def _spread(packed: Any) -> Any:
    """Four pixels of 16 bit from the lower 48 bits, whatever stands above."""
    pairs = (packed & LOW_PAIR) | ((packed & HIGH_PAIR) << np.uint64(8))
    return (pairs & EVEN) | ((pairs & ODD) << np.uint64(4))


@jit
def _unpack_rows(packed: npt.NDArray[np.uint64], out: npt.NDArray[np.uint64]) -> None:
    """Decode `CHUNK_ROWS` rows of a block: 3 words each to 4 words each. Compilers do four rows at a time."""
    for row in range(CHUNK_ROWS):
        a, b, c = packed[3 * row], packed[3 * row + 1], packed[3 * row + 2]
        out[4 * row] = _spread(a)
        out[4 * row + 1] = _spread((a >> np.uint64(48)) | (b << np.uint64(16)))
        out[4 * row + 2] = _spread((b >> np.uint64(32)) | (c << np.uint64(32)))
        out[4 * row + 3] = _spread(c >> np.uint64(16))


@jit
def _merge_rows(
    scratch: npt.NDArray[np.uint64], first: int, n_rows: int, out: npt.NDArray[np.uint64], start: int
) -> None:
    """Put the rows of 16 decoded blocks side by side, in rows of `out` from `start` on."""
    # Unsigned: for signed ones, each access would have to ask whether the index counts from the end.
    row_start = np.uint64(start)
    for row in range(first, first + n_rows):
        source = np.uint64(OUT_ROW_WORDS * row)
        dest = row_start
        for _ in range(16):
            out[dest] = scratch[source]
            out[dest + np.uint64(1)] = scratch[source + np.uint64(1)]
            out[dest + np.uint64(2)] = scratch[source + np.uint64(2)]
            out[dest + np.uint64(3)] = scratch[source + np.uint64(3)]
            source += np.uint64(OUT_ROW_WORDS * CHUNK_ROWS)
            dest += np.uint64(OUT_ROW_WORDS)
        row_start += np.uint64(OUT_FRAME_ROW_WORDS)


@jit
def unpack_sector(
    sector: int,
    stored: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.int64],
    first_row: int,
    out: npt.NDArray[np.uint16],
) -> None:
    """Decode rows from `first_row` on of one sector into its 256 columns of `out` (n_frames, n_rows, 2048).

    `starts` are the places in `stored` of the first block of each frame. They need not be aligned: the
    machines that numba compiles for, all little-endian, load words from anywhere.

    Whole rows of the sector are written, which needs all of its 16 blocks: so chunks of rows are decoded
    block by block into scratch, and merged from there. Not checked: the caller owns the sizes.
    """
    n_rows = out.shape[1]
    out_words = out.reshape(-1).view(np.uint64)
    scratch = np.empty(16 * OUT_ROW_WORDS * CHUNK_ROWS, dtype=np.uint64)
    for frame in range(starts.shape[0]):
        words = stored[starts[frame] : starts[frame] + 8 * SECTOR_WORDS].view(np.uint64)
        done = 0
        while done < n_rows:
            half = int(first_row + done >= HALF_ROWS)
            row = first_row + done - HALF_ROWS * half
            # Always a full chunk; the last one of a block starts early, so that it ends with the block.
            chunk = min(row, HALF_ROWS - CHUNK_ROWS)
            n = min(CHUNK_ROWS - (row - chunk), n_rows - done)
            # Blocks come right to left.
            source = (16 * half + 15) * BLOCK_WORDS + HEADER_WORDS + ROW_WORDS * chunk
            for block in range(16):
                dest = block * OUT_ROW_WORDS * CHUNK_ROWS
                _unpack_rows(
                    words[source : source + ROW_WORDS * CHUNK_ROWS],
                    scratch[dest : dest + OUT_ROW_WORDS * CHUNK_ROWS],
                )
                for ahead in range(0, ROW_WORDS * CHUNK_ROWS, PREFETCH_WORDS):
                    prefetch(words, source + AHEAD_WORDS + ahead)
                source -= BLOCK_WORDS
            start = (frame * n_rows + done) * OUT_FRAME_ROW_WORDS + OUT_SECTOR_WORDS * sector
            _merge_rows(scratch, row - chunk, n, out_words, start)
            done += n
