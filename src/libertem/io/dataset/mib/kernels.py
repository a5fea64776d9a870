"""Unpack raw pixels of Medipix chips. See `header` for how they are stored.

A big-endian word whose leftmost pixel sits in the lowest bits becomes pixels in memory when it is written as
a little-endian word, whatever the number of bits of a pixel; only single bits are spread. For chips that are
turned by 180 degrees, words come in the other order and so do the pixels in them.

Loops are written out where helpers would do: those that take arrays count references, and that takes as long
as a row of a chip.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from libertem.common.jit import inline_jit, jit
from libertem.io.dataset.mib.words import load_word, reverse_bits, store_bits, store_word

if TYPE_CHECKING:
    import numpy.typing as npt

    Bytes = npt.NDArray[np.uint8]
    Starts = npt.NDArray[np.int64]

__all__ = ["unpack_24_bit", "unpack_chip", "unpack_quad"]


@inline_jit
def _swap_fields(word: np.uint64, bits: int, mask: int) -> np.uint64:
    return ((word >> np.uint64(bits)) & np.uint64(mask)) | ((word & np.uint64(mask)) << np.uint64(bits))


@inline_jit
def _reverse_pixels(word: np.uint64, depth: int) -> np.uint64:
    word = _swap_fields(word, 32, 0x00000000FFFFFFFF)
    word = _swap_fields(word, 16, 0x0000FFFF0000FFFF)
    return _swap_fields(word, 8, 0x00FF00FF00FF00FF) if depth == 6 else word


@jit
def unpack_chip(
    stored: Bytes, starts: Starts, first_byte: int, n_words: int, out: Bytes, frame_bytes: int, depth: int
) -> None:
    """Unpack the same run of words of frames of one chip.

    Parameters
    ----------
    stored, starts : array
        Bytes, and where in them frames begin.
    first_byte, n_words : int
        Which words of each frame.
    out : array
        Flat bytes of the unpacked pixels, frames one after the other.
    frame_bytes : int
        Bytes of each frame in `out`.
    depth : int
        1, 6 or 12 bits per pixel.
    """
    for i in range(starts.shape[0]):
        at = starts[i] + first_byte
        to = i * frame_bytes
        if depth == 1:
            for k in range(n_words):
                store_bits(out, to + 64 * k, load_word(stored, at + 8 * k))
        else:
            for k in range(n_words):
                store_word(out, to + 8 * k, load_word(stored, at + 8 * k))


@jit
def unpack_24_bit(
    stored: Bytes, starts: Starts, first_byte: int, half_bytes: int, n_words: int, out: Bytes
) -> None:
    """Unpack the same run of words of both counters into uint32.

    Parameters are those of `unpack_chip`, and `half_bytes`, the size of each of the two images of a frame.
    """
    low = np.uint64(0xFFFF)
    for i in range(starts.shape[0]):
        at = starts[i] + first_byte
        to = 16 * n_words * i
        for k in range(n_words):
            upper = load_word(stored, at + 8 * k)
            lower = load_word(stored, at + half_bytes + 8 * k)
            for pair in range(2):
                shift = np.uint64(32 * pair)
                u, v = upper >> shift, lower >> shift
                first = ((u & low) << np.uint64(12)) + (v & low)
                second = (((u >> np.uint64(16)) & low) << np.uint64(12)) + ((v >> np.uint64(16)) & low)
                store_word(out, to + 16 * k + 8 * pair, first | (second << np.uint64(32)))


@jit
def unpack_quad(
    stored: Bytes,
    starts: Starts,
    first_row: int,
    n_rows: int,
    chip_rows: int,
    chip_words: int,
    out: Bytes,
    depth: int,
) -> None:
    """Unpack rows of the assembled image of four chips.

    Parameters
    ----------
    stored, starts : array
        Bytes, and where in them frames begin.
    first_row, n_rows : int
        Rows of the assembled image.
    chip_rows, chip_words : int
        Rows of a chip, and words of each of them.
    out : array
        Flat bytes of the unpacked pixels.
    depth : int
        1, 6 or 12 bits per pixel.
    """
    chip_bytes = 8 * chip_words
    half_row = 64 * chip_words if depth == 1 else chip_bytes
    to = -half_row
    for i in range(starts.shape[0]):
        for y in range(first_row, first_row + n_rows):
            is_top = y < chip_rows
            row = y if is_top else 2 * chip_rows - 1 - y
            for half in range(2):
                chip = (3 if is_top else 1) - half
                at = starts[i] + (4 * row + chip) * chip_bytes
                last = at + chip_bytes - 8
                to += half_row
                if is_top and depth == 1:
                    for k in range(chip_words):
                        store_bits(out, to + 64 * k, load_word(stored, at + 8 * k))
                elif is_top:
                    for k in range(chip_words):
                        store_word(out, to + 8 * k, load_word(stored, at + 8 * k))
                elif depth == 1:
                    for k in range(chip_words):
                        store_bits(out, to + 64 * k, reverse_bits(load_word(stored, last - 8 * k)))
                else:
                    for k in range(chip_words):
                        store_word(out, to + 8 * k, _reverse_pixels(load_word(stored, last - 8 * k), depth))
