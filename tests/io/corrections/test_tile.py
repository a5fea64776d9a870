from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from libertem.common import Slice
from libertem.io.corrections import CorrectionSet

Array = npt.NDArray[Any]

SIG = (12, 10)
rng = np.random.default_rng(0)
DARK = rng.integers(0, 9, SIG).astype(np.float32)
GAIN = rng.integers(1, 5, SIG).astype(np.float32)
EXCLUDED = np.zeros(SIG, dtype=bool)
EXCLUDED[(0, 4, 11, 11), (0, 5, 3, 4)] = True


def corrected(frames: Array) -> Array:
    """What plain NumPy makes of whole frames."""
    result = (frames - DARK) * GAIN
    source = result.copy()
    for y, x in np.argwhere(EXCLUDED):
        window = (slice(max(0, y - 1), y + 2), slice(max(0, x - 1), x + 2))
        usable = ~EXCLUDED[window]
        result[:, y, x] = source[(slice(None), *window)][:, usable].mean(
            axis=1, dtype=np.result_type(frames, np.float64)
        )
    return result


def packed_records(n: int, dtype: str) -> Array:
    """Frames whose elements are not aligned."""
    return np.zeros((n, *SIG), dtype=[("flag", "u1"), ("value", dtype)])["value"]


VIEWS: dict[str, Callable[[int, str], Array]] = {
    "contiguous": lambda n, dtype: np.zeros((n, *SIG), dtype),
    "cropped rows": lambda n, dtype: np.zeros((n, 12, 17), dtype)[:, :, 3:13],
    "cropped frames": lambda n, dtype: np.zeros((n, 20, 10), dtype)[:, 5:17],
    "every other frame": lambda n, dtype: np.zeros((2 * n, *SIG), dtype)[::2],
    "every third pixel": lambda n, dtype: np.zeros((n, 12, 30), dtype)[:, :, 1::3],
    "Fortran order": lambda n, dtype: np.zeros((n, *SIG), dtype, order="F"),
    "transposed frames": lambda n, dtype: np.zeros((n, 10, 12), dtype).transpose(0, 2, 1),
    "frames last": lambda n, dtype: np.zeros((*SIG, n), dtype).transpose(2, 0, 1),
    "backwards": lambda n, dtype: np.zeros((n, *SIG), dtype)[::-1, :, ::-1],
    "byte-swapped": lambda n, dtype: np.zeros((n, *SIG), np.dtype(dtype).newbyteorder()),
    "unaligned": packed_records,
}


@pytest.mark.parametrize("dtype", ["f4", "f8", "c8", "c16"])
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("n", [0, 1, 5])
def test_any_view_is_corrected_in_place(n: int, view: str, dtype: str) -> None:
    tile = VIEWS[view](n, dtype)
    frames = rng.integers(0, 99, tile.shape).astype(dtype)
    if np.dtype(dtype).kind == "c":
        frames = frames + 1j * rng.integers(0, 99, tile.shape).astype(dtype)
    tile[...] = frames
    corrections = CorrectionSet(dark=DARK, gain=GAIN, excluded_pixels=EXCLUDED)
    corrections.apply(tile, Slice.from_shape(tile.shape, sig_dims=2))
    np.testing.assert_allclose(tile, corrected(frames), rtol=1e-7 if dtype in ("f4", "c8") else 1e-14)


def test_memory_around_the_view_is_left_alone() -> None:
    around = rng.random((6, 16, 20)).astype(np.float32)
    before = around.copy()
    tile = around[1::2, 2:14, 4:14]
    CorrectionSet(DARK, GAIN, EXCLUDED).apply(tile, Slice.from_shape(tile.shape, sig_dims=2))
    before[1::2, 2:14, 4:14] = tile
    np.testing.assert_array_equal(around, before)


def test_frames_larger_than_a_run_and_tiles_larger_than_a_block_are_complete() -> None:
    # 90 000 pixels are 22 runs; 40 frames of 360 kB are many blocks.
    sig = (300, 300)
    dark, gain = rng.integers(0, 9, (2, *sig))
    excluded = np.zeros(sig, dtype=bool)
    excluded[100, 100] = True
    frames = rng.integers(0, 99, (7, *sig)).astype(np.float32)
    tile = frames.copy()
    CorrectionSet(dark, gain, excluded).apply(tile, Slice.from_shape(tile.shape, sig_dims=2))
    expected = (frames - dark) * gain
    window = expected[:, 99:102, 99:102].sum(axis=(1, 2)) - expected[:, 100, 100]
    expected[:, 100, 100] = window / 8
    np.testing.assert_array_equal(tile, expected)


def test_axes_of_extent_one_may_have_any_stride() -> None:
    sig = (1, 8)
    buffer = np.arange(16, dtype=np.float32)
    tile = np.lib.stride_tricks.as_strided(buffer, shape=(2, *sig), strides=(32, 3, 4))
    CorrectionSet(dark=np.ones(sig)).apply(tile, Slice.from_shape(tile.shape, sig_dims=2))
    np.testing.assert_array_equal(buffer, np.arange(16) - 1)


@pytest.mark.parametrize("view", ["contiguous", "every third pixel", "backwards", "byte-swapped"])
def test_a_tile_is_never_copied_as_a_whole(view: str) -> None:
    tile = VIEWS[view](400, "f4")
    where = Slice.from_shape(tile.shape, sig_dims=2)
    corrections = CorrectionSet(DARK, GAIN, EXCLUDED)
    corrections.apply(tile, where)
    tracemalloc.start()
    try:
        corrections.apply(tile, where)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < tile.nbytes / 5
