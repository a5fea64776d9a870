"""Undo the filters of HDF5 that only move bits and bytes.

A chunk of `n` pixels with `s` bytes each:

| filter | layout |
|---|---|
| shuffle | all first bytes, then all second bytes, ...: byte `k` of pixel `i` lies at ``k * n + i`` |
| bitshuffle | blocks of some pixels; in each, row ``8 * k + b`` holds bit `b` of byte `k` of all pixels of the block, pixel ``8 * j + i`` in bit `i` of its byte `j` |
| fletcher32 | the bytes unchanged, then a checksum of four bytes |

Sources: descriptions of the shuffle, bitshuffle and fletcher32 filters in the documentation of HDF5 and of the
bitshuffle filter.
"""  # noqa: E501

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.jit import jit

if TYPE_CHECKING:
    import numpy.typing as npt

    Bytes = npt.NDArray[np.uint8]

__all__ = ["bit_unshuffle", "block_fills_itself", "copy_rows", "fletcher32", "streams_are_usual", "unshuffle"]

FLETCHER_RUN = 360
"""So many 16 bit words can be added twice before 32 bits overflow."""


@jit
def _merge_2(planes: Bytes, n: int, out: npt.NDArray[np.uint16]) -> None:
    a, b = planes[:n], planes[n : 2 * n]
    for i in range(n):
        out[i] = np.uint16(a[i]) | (np.uint16(b[i]) << np.uint16(8))


@jit
def _merge_4(planes: Bytes, n: int, out: npt.NDArray[np.uint32]) -> None:
    a, b, c, d = planes[:n], planes[n : 2 * n], planes[2 * n : 3 * n], planes[3 * n : 4 * n]
    for i in range(n):
        low = np.uint32(a[i]) | (np.uint32(b[i]) << np.uint32(8))
        high = np.uint32(c[i]) | (np.uint32(d[i]) << np.uint32(8))
        out[i] = low | (high << np.uint32(16))


@jit
def _merge_8(planes: Bytes, n: int, out: npt.NDArray[np.uint64]) -> None:
    a, b, c, d = planes[:n], planes[n : 2 * n], planes[2 * n : 3 * n], planes[3 * n : 4 * n]
    # In two rounds: compilers give up on nine arrays, any of which might overlap.
    for i in range(n):
        low = np.uint64(a[i]) | (np.uint64(b[i]) << np.uint64(8))
        high = np.uint64(c[i]) | (np.uint64(d[i]) << np.uint64(8))
        out[i] = low | (high << np.uint64(16))
    e, f, g, h = planes[4 * n : 5 * n], planes[5 * n : 6 * n], planes[6 * n : 7 * n], planes[7 * n :]
    for i in range(n):
        low = np.uint64(e[i]) | (np.uint64(f[i]) << np.uint64(8))
        high = np.uint64(g[i]) | (np.uint64(h[i]) << np.uint64(8))
        out[i] |= (low | (high << np.uint64(16))) << np.uint64(32)


@jit
def _merge_any(planes: Bytes, n: int, item: int, out: Bytes) -> None:
    for k in range(item):
        plane = planes[k * n : (k + 1) * n]
        for i in range(n):
            out[i * item + k] = plane[i]


def unshuffle(planes: Bytes, item: int, out: Bytes) -> None:
    """Put the bytes of each pixel together again. Both arrays are 1D and of the same size.

    Parameters
    ----------
    planes : array of uint8
        As the shuffle filter has left it.
    item : int
        Bytes per pixel.
    out : array of uint8
        Receives the pixels, with their byte order as it was. Aligned for them.
    """
    n = planes.size // item
    whole = out[: n * item]
    if item == 2:
        _merge_2(planes, n, whole.view(np.uint16))
    elif item == 4:
        _merge_4(planes, n, whole.view(np.uint32))
    elif item == 8:
        _merge_8(planes[: 8 * n], n, whole.view(np.uint64))
    else:
        _merge_any(planes, n, item, whole)
    # What does not fill a pixel is stored as it is.
    out[n * item :] = planes[n * item :]


@jit
def copy_rows(
    src: npt.NDArray[Any],
    src_starts: npt.NDArray[np.int64],
    dst: npt.NDArray[Any],
    base: int,
    dst_starts: npt.NDArray[np.int64],
    n: int,
) -> None:
    """Copy rows of `n` items each; NumPy takes longer for the overhead of short rows than for their content.

    Parameters
    ----------
    src, dst : array
        1D, of the same dtype.
    src_starts : array of int64
        Where the rows begin.
    base, dst_starts : int, array of int64
        Where they go: `base` is added to all of them.
    n : int
        Items per row.
    """
    for k in range(src_starts.size):
        source = src[src_starts[k] : src_starts[k] + n]
        target = dst[base + dst_starts[k] : base + dst_starts[k] + n]
        for i in range(n):
            target[i] = source[i]


@jit
def _transpose_quad(
    r0: npt.NDArray[np.uint64],
    r1: npt.NDArray[np.uint64],
    r2: npt.NDArray[np.uint64],
    r3: npt.NDArray[np.uint64],
) -> None:
    """Swap bits between four rows: the first two of three steps."""
    one, two = np.uint64(1), np.uint64(2)
    odd, pairs = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333)
    for j in range(r0.size):
        a, b, c, d = r0[j], r1[j], r2[j], r3[j]
        t = ((a >> one) ^ b) & odd
        a, b = a ^ (t << one), b ^ t
        t = ((c >> one) ^ d) & odd
        c, d = c ^ (t << one), d ^ t
        t = ((a >> two) ^ c) & pairs
        a, c = a ^ (t << two), c ^ t
        t = ((b >> two) ^ d) & pairs
        b, d = b ^ (t << two), d ^ t
        r0[j] = a
        r1[j] = b
        r2[j] = c
        r3[j] = d


@jit
def _transpose_halves(upper: npt.NDArray[np.uint64], lower: npt.NDArray[np.uint64]) -> None:
    """Swap bits between rows 0 to 3 and 4 to 7: the last step."""
    four, nibbles = np.uint64(4), np.uint64(0x0F0F0F0F0F0F0F0F)
    for j in range(upper.size):
        a, b = upper[j], lower[j]
        t = ((a >> four) ^ b) & nibbles
        upper[j] = a ^ (t << four)
        lower[j] = b ^ t


@jit
def _transpose_bits(words: npt.NDArray[np.uint64], n_rows: int, width: int) -> None:
    """Transpose each 8 x 8 bits (eight rows, one byte of each) in place; `width` words per row.

    In functions with two or four arrays: compilers give up on eight, any of which might overlap.
    """
    for quad in range(n_rows // 4):
        at = 4 * quad * width
        _transpose_quad(
            words[at : at + width],
            words[at + width : at + 2 * width],
            words[at + 2 * width : at + 3 * width],
            words[at + 3 * width : at + 4 * width],
        )
    for byte in range(n_rows // 8):
        at = 8 * byte * width
        _transpose_halves(words[at : at + 4 * width], words[at + 4 * width : at + 8 * width])


@jit
def _spread(rows: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
    """Row `i`, place `j` goes to place ``8 * j + i``."""
    for j in range(rows.shape[1]):
        for i in range(8):
            out[8 * j + i] = rows[i, j]


@jit
def _unshuffle_any(stored: Bytes, item: int, n: int, out: Bytes) -> None:
    """One block of `n` pixels, bit by bit: blocks of odd sizes, at the end of chunks."""
    width = n // 8
    out[: n * item] = 0
    for k in range(item):
        for b in range(8):
            row = stored[(8 * k + b) * width : (8 * k + b + 1) * width]
            for j in range(width):
                for i in range(8):
                    bit = (row[j] >> np.uint8(i)) & np.uint8(1)
                    out[(8 * j + i) * item + k] |= bit << np.uint8(b)


# One block after the other, so that it stays in the first cache. Bits become bytes, bytes become pixels in
# eight rows, and these are put in order.


@jit
def _unshuffle_1(stored: Bytes, n: int, rows: npt.NDArray[np.uint8], out: npt.NDArray[np.uint8]) -> None:
    for first in range(0, out.size, n):
        block = stored[first : first + n]
        _transpose_bits(block.view(np.uint64), 8, n // 64)
        _spread(block.reshape((8, n // 8)), out[first : first + n])


@jit
def _unshuffle_2(stored: Bytes, n: int, rows: npt.NDArray[np.uint16], out: npt.NDArray[np.uint16]) -> None:
    for first in range(0, out.size, n):
        block = stored[2 * first : 2 * (first + n)]
        _transpose_bits(block.view(np.uint64), 16, n // 64)
        _merge_2(block, n, rows)
        _spread(rows.reshape((8, n // 8)), out[first : first + n])


@jit
def _unshuffle_4(stored: Bytes, n: int, rows: npt.NDArray[np.uint32], out: npt.NDArray[np.uint32]) -> None:
    for first in range(0, out.size, n):
        block = stored[4 * first : 4 * (first + n)]
        _transpose_bits(block.view(np.uint64), 32, n // 64)
        _merge_4(block, n, rows)
        _spread(rows.reshape((8, n // 8)), out[first : first + n])


@jit
def _unshuffle_8(stored: Bytes, n: int, rows: npt.NDArray[np.uint64], out: npt.NDArray[np.uint64]) -> None:
    for first in range(0, out.size, n):
        block = stored[8 * first : 8 * (first + n)]
        _transpose_bits(block.view(np.uint64), 64, n // 64)
        _merge_8(block, n, rows)
        _spread(rows.reshape((8, n // 8)), out[first : first + n])


_FAST: dict[int, Any] = {1: _unshuffle_1, 2: _unshuffle_2, 4: _unshuffle_4, 8: _unshuffle_8}


def bit_unshuffle(stored: Bytes, item: int, block_px: int, out: Bytes) -> None:
    """Put the bits of each pixel together again.

    Parameters
    ----------
    stored : array of uint8
        1D, all pixels as the bitshuffle filter has left them. Aligned to 8 bytes. Is overwritten, as the fast
        way works in place.
    item : int
        Bytes per pixel.
    block_px : int
        Pixels that were shuffled together, a multiple of 8. The last block holds the rest of them, down to
        a multiple of 8; what is then left is stored as it is.
    out : array of uint8
        Of the same size, receives the pixels. Aligned for them.
    """
    total = out.size // item
    n_fast = 0
    fast = _FAST.get(item)
    if fast is not None and block_px % 64 == 0:
        n_fast = total // block_px * block_px
        rows = np.empty(block_px, dtype=f"u{item}")
        fast(stored, block_px, rows, out[: n_fast * item].view(f"u{item}"))
        if n_fast * item == out.size:
            return
    first = n_fast
    while (n := min(block_px, (total - first) // 8 * 8)) > 0:
        place = slice(first * item, (first + n) * item)
        _unshuffle_any(stored[place], item, n, out[place])
        first += n
    out[first * item :] = stored[first * item : out.size]


@jit
def block_fills_itself(stored: Bytes, total: int, block_bytes: int) -> bool:
    """Whether any block of a stream of LZ4 blocks is as long as what it decodes to.

    `stored` has the header of twelve bytes, then for each block its size (four bytes, big-endian) and its
    bytes. The LZ4 filter stores a block of that size as it is, bitshuffle never does. True as well for
    streams that end too early.
    """
    at = 12
    left = total
    while left > 0:
        if at + 4 > stored.size:
            return True
        size = 0
        for k in range(4):
            size = (size << 8) | stored[at + k]
        if size == min(left, block_bytes):
            return True
        at += 4 + size
        left -= block_bytes
    return False


@jit
def streams_are_usual(
    raw: Bytes,
    starts: npt.NDArray[np.int64],
    sizes: npt.NDArray[np.int64],
    total: int,
    block_bytes: int,
) -> bool:
    """Whether streams of LZ4 blocks become one if they follow each other without their headers.

    Not so if some stream decodes to another size or with other blocks than expected, does not end with its
    last block, or has a block that `block_fills_itself`.

    Parameters
    ----------
    raw : array of uint8
        Memory with the streams.
    starts, sizes : array of int64
        Where they are.
    total : int
        Bytes that each stream decodes to, a multiple of `block_bytes`.
    block_bytes : int
        Bytes that each block decodes to.
    """
    for k in range(starts.size):
        start, stop = starts[k], starts[k] + sizes[k]
        if sizes[k] < 12:
            return False
        found_total, found_block = 0, 0
        for i in range(8):
            found_total = (found_total << 8) | raw[start + i]
        for i in range(8, 12):
            found_block = (found_block << 8) | raw[start + i]
        if found_total != total or found_block != block_bytes:
            return False
        at = start + 12
        for _ in range(total // block_bytes):
            if at + 4 > stop:
                return False
            size = 0
            for i in range(4):
                size = (size << 8) | raw[at + i]
            at += 4 + size
            if size == block_bytes or at > stop:
                return False
        if at != stop:
            return False
    return True


@jit
def fletcher32(data: Bytes) -> int:
    """The checksum that the fletcher32 filter appends, as it stands in the file in little-endian order."""
    sum1, sum2 = np.uint32(0), np.uint32(0)
    n_words = data.size // 2
    low = np.uint32(0xFFFF)
    for first in range(0, n_words, FLETCHER_RUN):
        for i in range(first, min(n_words, first + FLETCHER_RUN)):
            sum1 += (np.uint32(data[2 * i]) << np.uint32(8)) | np.uint32(data[2 * i + 1])
            sum2 += sum1
        sum1 = (sum1 & low) + (sum1 >> np.uint32(16))
        sum2 = (sum2 & low) + (sum2 >> np.uint32(16))
    if data.size % 2:
        sum1 += np.uint32(data[data.size - 1]) << np.uint32(8)
        sum2 += sum1
        sum1 = (sum1 & low) + (sum1 >> np.uint32(16))
        sum2 = (sum2 & low) + (sum2 >> np.uint32(16))
    sum1 = (sum1 & low) + (sum1 >> np.uint32(16))
    sum2 = (sum2 & low) + (sum2 >> np.uint32(16))
    return int((sum2 << np.uint32(16)) | sum1)
