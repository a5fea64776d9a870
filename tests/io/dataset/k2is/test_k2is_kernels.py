from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from libertem.io.dataset.k2is.kernels import unpack_sector
from libertem.testing.writers.k2is import BLOCK_BYTES, pack_sector

SECTOR_BYTES = 32 * BLOCK_BYTES


def unpack_with_numpy(stored: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
    """The 1860 rows and 256 columns of one sector of one frame."""
    triples = stored.reshape(2, 16, BLOCK_BYTES)[:, ::-1, 40:].reshape(2, 16, 930, 8, 3).astype(np.uint16)
    pixels = np.empty((2, 16, 930, 8, 2), dtype=np.uint16)
    pixels[..., 0] = triples[..., 0] | (triples[..., 1] & 0xF) << 8
    pixels[..., 1] = triples[..., 1] >> 4 | triples[..., 2] << 4
    return pixels.reshape(2, 16, 930, 16).transpose(0, 2, 1, 3).reshape(1860, 256)


@pytest.fixture(scope="module")
def stored() -> npt.NDArray[np.uint8]:
    memory = np.random.default_rng(1).integers(0, 256, 2 * SECTOR_BYTES + 64, dtype=np.uint8)
    memory.flags.writeable = False
    return memory


@settings(max_examples=60)
@given(
    sector=st.integers(0, 7),
    starts=st.lists(st.integers(0, SECTOR_BYTES + 64), min_size=1, max_size=3),
    first_row=st.integers(0, 1859),
    n_rows=st.integers(1, 70),
)
@example(sector=3, starts=[0], first_row=0, n_rows=1860)
@example(sector=0, starts=[SECTOR_BYTES + 3, 8], first_row=929, n_rows=2)
@example(sector=7, starts=[1], first_row=1859, n_rows=1)
@example(sector=1, starts=[0], first_row=898, n_rows=64)
@example(sector=1, starts=[0], first_row=930, n_rows=32)
@example(sector=1, starts=[0], first_row=0, n_rows=1)
def test_any_rows_from_any_place_are_those_of_numpy(
    stored: npt.NDArray[np.uint8], sector: int, starts: list[int], first_row: int, n_rows: int
) -> None:
    n_rows = min(n_rows, 1860 - first_row)
    out = np.full((len(starts), n_rows, 2048), 0xBEEF, dtype=np.uint16)
    expected = out.copy()
    for frame, start in zip(expected, starts, strict=True):
        rows = unpack_with_numpy(stored[start : start + SECTOR_BYTES])[first_row : first_row + n_rows]
        frame[:, 256 * sector : 256 * sector + 256] = rows
    unpack_sector(sector, stored, np.array(starts, dtype=np.int64), first_row, out)
    np.testing.assert_array_equal(out, expected)


@settings(max_examples=5)
@given(seed=st.integers(0, 1 << 30))
def test_unpacking_undoes_packing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 4096, (1, 1860, 2048), dtype=np.uint16)
    out = np.zeros_like(frames)
    for sector in range(8):
        blocks = rng.integers(0, 256, (32, BLOCK_BYTES), dtype=np.uint8)
        blocks[:, 40:] = pack_sector(frames, sector)[0]
        stored = blocks.reshape(-1)
        stored.flags.writeable = False
        unpack_sector(sector, stored, np.zeros(1, dtype=np.int64), 0, out)
    np.testing.assert_array_equal(out, frames)


@pytest.mark.parametrize(
    ("pixels", "packed"),
    [
        ((0xABC, 0xDEF), "BC FA DE"),
        ((1, 2), "01 20 00"),
        ((0xFFF, 0), "FF 0F 00"),
        ((0, 0xFFF), "00 F0 FF"),
        ((0x123, 0x456), "23 61 45"),
    ],
)
@pytest.mark.parametrize("pair", range(8))
@pytest.mark.parametrize(("block", "row", "column"), [(0, 0, 240), (15, 0, 0), (16, 930, 240), (31, 930, 0)])
def test_two_pixels_are_three_bytes(
    pixels: tuple[int, int], packed: str, pair: int, block: int, row: int, column: int
) -> None:
    stored = np.zeros(SECTOR_BYTES, dtype=np.uint8)
    at = block * BLOCK_BYTES + 40 + 3 * pair
    stored[at : at + 3] = list(bytes.fromhex(packed))
    stored.flags.writeable = False
    out: npt.NDArray[Any] = np.zeros((1, 1, 2048), dtype=np.uint16)
    unpack_sector(2, stored, np.zeros(1, dtype=np.int64), row, out)
    at = 512 + column + 2 * pair
    assert tuple(out[0, 0, at : at + 2]) == pixels
    assert np.count_nonzero(out) == np.count_nonzero(pixels)
