from __future__ import annotations

import zlib
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libertem.io.dataset.hdf5.kernels import (
    bit_unshuffle,
    block_fills_itself,
    copy_rows,
    fletcher32,
    streams_are_usual,
    unshuffle,
)

Bytes = npt.NDArray[np.uint8]


def noise(n: int, seed: int = 0) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, n, dtype=np.uint8)


# --- twins in NumPy ---


def shuffle(pixels: Bytes, item: int) -> Bytes:
    n = pixels.size // item
    return np.concatenate([pixels[: n * item].reshape(n, item).T.reshape(-1), pixels[n * item :]])


def bit_shuffle(pixels: Bytes, item: int, block_px: int) -> Bytes:
    total = pixels.size // item
    parts = []
    first = 0
    while (n := min(block_px, (total - first) // 8 * 8)) > 0:
        block = pixels[first * item : (first + n) * item].reshape(n, item)
        bits = np.unpackbits(block.T.copy(), axis=1, bitorder="little").reshape(item, n, 8)
        rows = bits.transpose(0, 2, 1).reshape(8 * item, n)
        parts.append(np.packbits(rows, axis=1, bitorder="little").reshape(-1))
        first += n
    return np.concatenate([*parts, pixels[first * item :]])


def add_up(data: bytes) -> int:
    padded = data + b"\0" * (len(data) % 2)
    sums = [0, 0]
    for word in np.frombuffer(padded, dtype=">u2").tolist():
        sums[0] += word
        sums[1] += sums[0]
    # Sums modulo 65535, in which a multiple other than 0 itself is 65535.
    low, high = (total % 65535 or (65535 if total else 0) for total in sums)
    return high << 16 | low


# --- tests ---


@settings(max_examples=60, deadline=None)
@given(item=st.sampled_from([1, 2, 3, 4, 8, 16]), n=st.integers(0, 300), rest=st.integers(0, 15))
def test_unshuffle_undoes_shuffle(item: int, n: int, rest: int) -> None:
    pixels = noise(n * item + rest % item)
    out = np.empty_like(pixels)
    unshuffle(shuffle(pixels, item), item, out)
    np.testing.assert_array_equal(out, pixels)


@settings(max_examples=80, deadline=None)
@given(
    item=st.sampled_from([1, 2, 4, 8, 16]),
    block_px=st.sampled_from([8, 64, 72, 128, 512]),
    n=st.integers(0, 1300),
)
def test_bit_unshuffle_undoes_bit_shuffle(item: int, block_px: int, n: int) -> None:
    pixels = noise(n * item)
    out = np.empty_like(pixels)
    bit_unshuffle(bit_shuffle(pixels, item, block_px), item, block_px, out)
    np.testing.assert_array_equal(out, pixels)


def test_one_bit_goes_where_the_layout_says() -> None:
    stored = np.zeros(256, dtype=np.uint8)
    # 128 pixels of two bytes: row 8 * 1 + 3 of 16 bytes each, byte 5, bit 6.
    stored[(8 + 3) * 16 + 5] = 1 << 6
    out = np.empty_like(stored)
    bit_unshuffle(stored, 2, 128, out)
    pixels = out.view("<u2")
    assert pixels[8 * 5 + 6] == 1 << (8 + 3)
    assert np.count_nonzero(pixels) == 1


@pytest.mark.parametrize("data", [b"", b"\1", b"\1\2", b"\xff" * 5, b"\0" * 9, b"abcde"])
def test_checksums_of_short_data(data: bytes) -> None:
    assert fletcher32(np.frombuffer(data, dtype=np.uint8)) == add_up(data)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(0, 3000), seed=st.integers(0, 99))
def test_checksums_equal_the_definition(n: int, seed: int) -> None:
    data = noise(n, seed)
    assert fletcher32(data) == add_up(data.tobytes())


@pytest.mark.parametrize("n", [1, 2, 719, 720, 721, 50_001])
def test_checksums_are_those_of_hdf5(n: int, tmp_path: Any) -> None:
    data = noise(n)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        dset = file.create_dataset("x", data=data, chunks=(n,), fletcher32=True)
        file.flush()
        stored = dset.id.read_direct_chunk((0,))[1]
    assert fletcher32(data) == int.from_bytes(stored[-4:], "little")
    assert zlib.crc32(stored[:-4]) == zlib.crc32(data.tobytes())


def stream(sizes: list[int], total: int, block_bytes: int) -> Bytes:
    """A stream of blocks with these stored sizes."""
    blocks = b"".join(size.to_bytes(4, "big") + bytes(size) for size in sizes)
    return np.frombuffer(total.to_bytes(8, "big") + block_bytes.to_bytes(4, "big") + blocks, dtype=np.uint8)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [([5, 99, 7], False), ([5, 100, 7], True), ([5, 99, 50], True), ([5, 101, 49], False), ([5, 99], True)],
)
def test_blocks_as_long_as_their_content_are_found(sizes: list[int], expected: bool) -> None:
    assert block_fills_itself(stream(sizes, 250, 100), 250, 100) == expected


def are_usual(streams: list[Bytes], total: int, block_bytes: int) -> bool:
    raw = np.concatenate([np.zeros(3, np.uint8), *streams])
    sizes = np.array([stream.size for stream in streams])
    starts = 3 + np.cumsum(sizes) - sizes
    return streams_are_usual(raw, starts, sizes, total, block_bytes)


def test_streams_of_usual_blocks_can_be_joined() -> None:
    assert are_usual([stream([5, 7], 200, 100), stream([1, 120], 200, 100)], 200, 100)


@pytest.mark.parametrize(
    "other",
    [
        stream([5, 7], 300, 100),
        stream([5, 7], 200, 50),
        stream([5, 100], 200, 100),
        stream([5], 200, 100),
        stream([5, 7, 3], 200, 100),
        stream([5, 7], 200, 100)[:-1],
        stream([5, 7], 200, 100)[:14],
        stream([5, 7], 200, 100)[:11],
    ],
)
def test_streams_that_are_not_alike_are_not_joined(other: Bytes) -> None:
    assert not are_usual([stream([5, 7], 200, 100), other], 200, 100)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8"])
def test_rows_are_copied_to_their_places(dtype: str) -> None:
    src = noise(480).view(dtype)
    dst = np.zeros(600, dtype=dtype)
    starts = np.array([0, 7, 20])
    copy_rows(src, starts, dst, 3, 100 * starts[::-1] // 7, 5)
    expected = np.zeros_like(dst)
    for a, b in zip(starts, 100 * starts[::-1] // 7, strict=True):
        expected[3 + b : 8 + b] = src[a : a + 5]
    np.testing.assert_array_equal(dst, expected)
