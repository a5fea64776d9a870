from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libertem.io.dataset.mib.dataset import MIBPacking
from libertem.io.dataset.mib.header import PIXELS_PER_WORD, MIBHeader, choose_encoding
from libertem.testing.writers.mib import MIBSpec, encode_frames, pack_words

QUADS = [(depth, True) for depth in (1, 6, 12)]
CASES = [(depth, False) for depth in (1, 6, 12, 24)] + QUADS


def make_packing(depth: int, width: int, height: int, *, is_quad: bool = False) -> MIBPacking:
    """For a width and height as they stand in the frame header."""
    header = MIBHeader(
        sequence=1,
        header_bytes=384,
        n_chips=4 if is_quad else 1,
        width=width,
        height=height,
        pixel_kind="R64",
        layout=(2, 2) if is_quad else (1, 1),
        has_gap=False,
        timestamp="",
        counter_depth=depth,
    )
    return MIBPacking(choose_encoding(header, path="x.mib"))


def unpack(
    packing: MIBPacking, stored: bytes, starts: list[int], first_row: int = 0, n_rows: int | None = None
) -> npt.NDArray[Any]:
    height, width = packing.frame_shape
    out = np.full((len(starts), n_rows or height, width), 99, dtype=packing.dtype)
    buffer = np.frombuffer(stored, dtype=np.uint8)
    packing.unpack(0, buffer, np.array(starts, dtype=np.int64), first_row, out)
    return out


def numpy_chip(stored: npt.NDArray[np.uint8], width: int, depth: int) -> npt.NDArray[Any]:
    """Rows of one chip, by another rule than that of the kernels: bits of numbers of 64 bit."""
    words = stored.view(">u8").astype(np.uint64)
    n, bits = PIXELS_PER_WORD[depth], 64 // PIXELS_PER_WORD[depth]
    shifts = (np.arange(n) * bits).astype(np.uint64)
    pixels = (words[:, np.newaxis] >> shifts) & np.uint64((1 << bits) - 1)
    return pixels.reshape(-1, width)


def numpy_unpack(packing: MIBPacking, stored: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    """A frame, with plain NumPy."""
    height, width = packing.frame_shape
    if packing.depth == 24:
        upper, lower = (numpy_chip(half, width, 24) for half in np.split(stored, 2))
        return upper * 4096 + lower
    if not packing.is_quad:
        return numpy_chip(stored, width, packing.depth)
    rows = numpy_chip(stored, 2 * width, packing.depth).reshape(height // 2, 4, width // 2)
    top = np.hstack([rows[:, 3], rows[:, 2]])
    bottom = np.hstack([np.rot90(rows[:, 1], 2), np.rot90(rows[:, 0], 2)])
    return np.vstack([top, bottom])


@pytest.mark.parametrize(
    ("depth", "pixels", "stored"),
    [
        (1, [1] + 63 * [0], "00 00 00 00 00 00 00 01"),
        (1, [int(i in (0, 1, 8, 63)) for i in range(64)], "80 00 00 00 00 00 01 03"),
        (6, [1, 2, 3, 4, 5, 6, 7, 63], "3F 07 06 05 04 03 02 01"),
        (6, [0, 10, 20, 30, 40, 50, 60, 63], "3F 3C 32 28 1E 14 0A 00"),
        (12, [0x001, 0x123, 0xABC, 0xFFF], "0F FF 0A BC 01 23 00 01"),
        (12, [4095, 0, 256, 15], "00 0F 01 00 00 00 0F FF"),
        (24, [0x000001, 0x123456, 0xABCDEF, 0xFFFFFF], "0F FF 0A BC 01 23 00 00 0F FF 0D EF 04 56 00 01"),
        (24, [4096, 4095, 65536, 0], "00 00 00 10 00 00 00 01 00 00 00 00 0F FF 00 00"),
    ],
)
def test_published_examples_of_one_chip(depth: int, pixels: list[int], stored: str) -> None:
    width = 2 * len(pixels) if depth == 24 else len(pixels)
    found = unpack(make_packing(depth, width, 1), bytes.fromhex(stored), [0])
    assert found.reshape(-1).tolist() == pixels
    frame = np.array(pixels, dtype=found.dtype).reshape(1, 1, -1)
    assert encode_frames(frame, MIBSpec("R64", depth)).tobytes() == bytes.fromhex(stored)


def test_published_example_of_a_quad_of_6_bit() -> None:
    frame = ((16 * np.arange(16)[:, np.newaxis] + np.arange(16)) % 64).astype(np.uint8)
    stored = encode_frames(frame[np.newaxis], MIBSpec("R64", 6, "2x2")).tobytes()
    assert stored[:32] == bytes.fromhex(
        "38 39 3A 3B 3C 3D 3E 3F 30 31 32 33 34 35 36 37 0F 0E 0D 0C 0B 0A 09 08 07 06 05 04 03 02 01 00"
    )
    assert stored[-32:] == bytes.fromhex(
        "08 09 0A 0B 0C 0D 0E 0F 00 01 02 03 04 05 06 07 3F 3E 3D 3C 3B 3A 39 38 37 36 35 34 33 32 31 30"
    )
    found = unpack(make_packing(6, 32, 8, is_quad=True), stored, [0])
    np.testing.assert_array_equal(found[0], frame)


def test_published_example_of_a_quad_of_12_bit() -> None:
    frame = np.arange(64, dtype=np.uint16).reshape(8, 8)
    stored = encode_frames(frame[np.newaxis], MIBSpec("R64", 12, "2x2")).tobytes()
    assert stored[:32] == bytes.fromhex(
        "00 3C 00 3D 00 3E 00 3F 00 38 00 39 00 3A 00 3B 00 07 00 06 00 05 00 04 00 03 00 02 00 01 00 00"
    )
    assert stored[-32:] == bytes.fromhex(
        "00 24 00 25 00 26 00 27 00 20 00 21 00 22 00 23 00 1F 00 1E 00 1D 00 1C 00 1B 00 1A 00 19 00 18"
    )
    found = unpack(make_packing(12, 16, 4, is_quad=True), stored, [0])
    np.testing.assert_array_equal(found[0], frame)


@pytest.mark.parametrize(
    ("place", "offset", "byte"), [((0, 0), 31, 0x01), ((127, 127), 7, 0x01), ((64, 0), 2024, 0x80)]
)
def test_published_example_of_a_quad_of_1_bit(place: tuple[int, int], offset: int, byte: int) -> None:
    frame = np.zeros((128, 128), dtype=np.uint8)
    frame[place] = 1
    stored = np.zeros(2048, dtype=np.uint8)
    stored[offset] = byte
    np.testing.assert_array_equal(encode_frames(frame[np.newaxis], MIBSpec("R64", 1, "2x2"))[0], stored)
    found = unpack(make_packing(1, 256, 64, is_quad=True), stored.tobytes(), [0])
    np.testing.assert_array_equal(found[0], frame)


@pytest.mark.parametrize(("depth", "is_quad"), CASES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_kernels_equal_numpy_on_any_bytes_rows_and_places(
    depth: int, is_quad: bool, data: st.DataObject
) -> None:
    words, rows, n = (data.draw(st.integers(1, 5)) for _ in range(3))
    width = words * PIXELS_PER_WORD[depth] * (4 if is_quad else 2 if depth == 24 else 1)
    packing = make_packing(depth, width, rows, is_quad=is_quad)
    height = packing.frame_shape[0]
    first_row = data.draw(st.integers(0, height - 1))
    n_rows = data.draw(st.integers(1, height - first_row))
    gaps = [data.draw(st.integers(0, 9)) for _ in range(n)]
    starts = [sum(gaps[: i + 1]) + i * packing.part_bytes for i in range(n)]
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    stored = rng.integers(0, 256, sum(gaps) + n * packing.part_bytes, dtype=np.uint8)
    found = unpack(packing, stored.tobytes(), starts, first_row, n_rows)
    for i, start in enumerate(starts):
        expected = numpy_unpack(packing, stored[start : start + packing.part_bytes])
        np.testing.assert_array_equal(found[i], expected[first_row : first_row + n_rows])


@pytest.mark.parametrize(("depth", "is_quad"), CASES)
def test_largest_values_and_full_frames_come_back(depth: int, is_quad: bool) -> None:
    spec = MIBSpec("R64", depth, "2x2" if is_quad else "1x1")
    side = 512 if is_quad else 256
    frames = np.random.default_rng(1).integers(0, spec.max_value, (3, side, side), spec.dtype, endpoint=True)
    frames[0] = spec.max_value
    stored = encode_frames(frames, spec)
    width = {True: 1024, False: 512 if depth == 24 else 256}[is_quad]
    packing = make_packing(depth, width, 256, is_quad=is_quad)
    assert stored.shape[1] == packing.part_bytes
    starts = [i * packing.part_bytes for i in (2, 0, 1)]
    np.testing.assert_array_equal(unpack(packing, stored.tobytes(), starts), frames[[2, 0, 1]])


def test_words_are_packed_as_numbers_of_64_bit() -> None:
    pixels = np.arange(1, 9, dtype=np.uint16)
    words = sum(int(pixel) << (16 * i) for i, pixel in enumerate(pixels[:4]))
    assert pack_words(pixels, 12)[:8].tobytes() == words.to_bytes(8, "big")
