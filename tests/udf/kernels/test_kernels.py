"""Each kernel against its plain NumPy twin, for arbitrary frame places, dtypes and byte orders."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libertem.udf.accumulate import exact_dtype, lanes_for
from libertem.udf.kernels.dots import cut_spans, dot_masks, group_masks
from libertem.udf.kernels.moments import EXACT_FRAMES, moments, power_sums, scratch_for_squares
from libertem.udf.kernels.sums import sum_frames, sum_pixels

INTEGERS = ["u1", "i1", "u2", "i2", "u4", "i4"]
DTYPES = [*INTEGERS, "f4", "f8"]


def random_memory(dtype: str, size: int, seed: int) -> npt.NDArray[Any]:
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(1000, 300, size).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, size, dtype=dtype, endpoint=True)


def frames_at(memory: npt.NDArray[Any], starts: npt.NDArray[np.int64], n_px: int) -> npt.NDArray[Any]:
    """Frames gathered one by one: what kernels never do."""
    return np.stack([memory[s : s + n_px] for s in starts])


def stored_as(memory: npt.NDArray[Any], *, swapped: bool) -> npt.NDArray[Any]:
    return memory.byteswap() if swapped else memory


@st.composite
def frame_places(draw: st.DrawFn) -> tuple[int, npt.NDArray[np.int64], int]:
    n_px = draw(st.integers(1, 70))
    size = draw(st.integers(n_px, 4 * n_px + 40))
    places = draw(st.lists(st.integers(0, size - n_px), min_size=1, max_size=21))
    return size, np.array(places, dtype=np.int64), n_px


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("swapped", [False, True])
@settings(max_examples=15, deadline=None)
@given(where=frame_places(), seed=st.integers(0, 99))
def test_sum_frames_adds_all_frames_exactly(
    dtype: str, swapped: bool, where: tuple[int, npt.NDArray[np.int64], int], seed: int
) -> None:
    if swapped and np.dtype(dtype).kind == "f":
        pytest.skip("floats are never read swapped")
    size, starts, n_px = where
    memory = random_memory(dtype, size, seed)
    total = np.zeros(n_px, dtype=exact_dtype(dtype))
    lanes = lanes_for(np.dtype(dtype), total.dtype)
    sum_frames(stored_as(memory, swapped=swapped), starts, n_px, swapped, lanes, total)
    expected = frames_at(memory, starts, n_px).sum(axis=0, dtype=total.dtype)
    np.testing.assert_allclose(total, expected, rtol=1e-14 if total.dtype.kind == "f" else 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("swapped", [False, True])
@settings(max_examples=15, deadline=None)
@given(where=frame_places(), seed=st.integers(0, 99))
def test_sum_pixels_adds_each_frame_to_what_is_there(
    dtype: str, swapped: bool, where: tuple[int, npt.NDArray[np.int64], int], seed: int
) -> None:
    if swapped and np.dtype(dtype).kind == "f":
        pytest.skip("floats are never read swapped")
    size, starts, n_px = where
    memory = random_memory(dtype, size, seed)
    total = np.full(starts.shape[0], 3, dtype=exact_dtype(dtype))
    sum_pixels(stored_as(memory, swapped=swapped), starts, n_px, swapped, total)
    expected = 3 + frames_at(memory, starts, n_px).sum(axis=1, dtype=total.dtype)
    np.testing.assert_allclose(total, expected, rtol=1e-13 if total.dtype.kind == "f" else 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_masks", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("mask_dtype", ["f4", "f8"])
def test_dot_masks_equals_the_matrix_product(dtype: str, n_masks: int, mask_dtype: str) -> None:
    if dtype == "f8" and mask_dtype == "f4":
        pytest.skip("masks are never narrower than the result, which holds float64 pixels")
    n_px, starts = 5003, np.array([0, 6000, 11, 5003, 5, 9000, 700], dtype=np.int64)
    memory = random_memory(dtype, 20000, seed=1)
    masks = np.random.default_rng(2).random((n_masks, n_px)).astype(mask_dtype)
    out = np.ones((starts.shape[0], n_masks))
    dot_masks(memory, starts, n_px, False, group_masks(masks), 0, out)
    frames = frames_at(memory, starts, n_px).astype("f8")
    # Relative to the size of the terms: sums of signed values may cancel.
    scale = np.abs(frames) @ np.abs(masks.T.astype("f8"))
    error = np.abs(out - 1 - frames @ masks.T.astype("f8")) / scale
    assert error.max() < (2e-7 if mask_dtype == "f4" else 1e-14)


def test_parts_of_frames_meet_their_part_of_the_masks() -> None:
    frames = random_memory("u2", 5 * 100, seed=7).reshape(5, 100)
    masks = np.random.default_rng(8).random((6, 100))
    out = np.zeros((5, 6))
    for first, n_px in ((0, 37), (37, 63)):
        starts = np.arange(5) * 100 + first
        dot_masks(frames.reshape(-1), starts, n_px, False, group_masks(masks), first, out)
    np.testing.assert_allclose(out, frames.astype("f8") @ masks.T, rtol=1e-12)


@pytest.mark.parametrize("dtype", [">u2", ">i2", ">u4", ">i4"])
def test_dot_masks_reads_big_endian_integers(dtype: str) -> None:
    frames = random_memory(np.dtype(dtype).newbyteorder("=").str, 6 * 40, seed=3).reshape(6, 40)
    masks = np.random.default_rng(4).random((3, 40))
    out = np.zeros((6, 3))
    stored = frames.astype(dtype).reshape(-1).view(np.dtype(dtype).newbyteorder("="))
    dot_masks(stored, np.arange(6) * 40, 40, True, group_masks(masks), 0, out)
    np.testing.assert_allclose(out, frames.astype("f8") @ masks.T, rtol=1e-12, atol=1e-6)


@pytest.mark.parametrize("n_masks", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("real", ["f4", "f8"])
def test_the_dark_frame_is_subtracted_and_gaps_are_left_out(n_masks: int, real: str) -> None:
    rng = np.random.default_rng(9)
    frames = random_memory("u2", 7 * 5000, seed=10).reshape(7, 5000).astype("f4")
    dark, masks = rng.random(5000).astype(real) * 1000, rng.random((n_masks, 5000)).astype(real)
    left_out = np.array([0, 1, 77, 2047, 2048, 4999])
    frames[:, left_out] = np.nan
    out = np.ones((7, n_masks))
    starts = np.arange(7) * 5000
    dot_masks(frames.reshape(-1), starts, 5000, None, group_masks(masks), 0, out, dark, left_out)
    kept = np.setdiff1d(np.arange(5000), left_out)
    expected = (frames[:, kept].astype("f8") - dark[kept]) @ masks[:, kept].T.astype("f8")
    np.testing.assert_allclose(out - 1, expected, rtol=3e-6 if real == "f4" else 1e-12)


@given(st.integers(1, 6000), st.sets(st.integers(0, 5999), max_size=30))
def test_spans_cover_all_pixels_but_those_left_out(n_px: int, left_out: set[int]) -> None:
    gaps = sorted(px for px in left_out if px < n_px)
    spans = cut_spans(n_px, 512, np.array(gaps, dtype=np.int64))
    covered = [px for start, stop in spans for px in range(start, stop)]
    assert covered == [px for px in range(n_px) if px not in left_out]
    assert all(0 < stop - start <= 512 for start, stop in spans)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("counts", [(1,), (4, 1), (7, 3, 9), (EXACT_FRAMES + 5, 2)])
def test_moments_of_parts_equal_those_of_the_whole(dtype: str, counts: tuple[int, ...]) -> None:
    n_px = 33
    n = sum(counts)
    memory = random_memory(dtype, n * n_px, seed=5)
    frames = memory.reshape(n, n_px).astype("f8")
    sums, varsums = np.zeros(n_px), np.zeros(n_px)
    done = 0
    for count in counts:
        starts = np.arange(done, done + count) * n_px
        if dtype in ("u1", "i1", "u2", "i2"):
            lanes = lanes_for(np.dtype(dtype), sums.dtype)
            squares = scratch_for_squares(memory.dtype, len(lanes))
            power_sums(memory, starts, n_px, False, done, lanes, squares, sums, varsums)
        else:
            moments(memory, starts, n_px, False, done, sums, varsums)
        done += count
    np.testing.assert_allclose(sums, frames.sum(axis=0), rtol=1e-13, atol=1e-3)
    np.testing.assert_allclose(varsums, frames.var(axis=0) * n, rtol=1e-11, atol=1e-6)


def test_moments_are_stable_for_a_large_mean_and_a_small_spread() -> None:
    rng = np.random.default_rng(6)
    frames = (1000 + rng.normal(0, 0.3, (1000, 16))).astype("f4")
    sums, varsums = np.zeros(16), np.zeros(16)
    moments(frames.reshape(-1), np.arange(1000) * 16, 16, False, 0, sums, varsums)
    expected = frames.astype("f8").var(axis=0) * 1000
    np.testing.assert_allclose(varsums, expected, rtol=1e-12)


def test_power_sums_are_exact_for_full_scale_values_with_a_spread_of_one() -> None:
    frames = np.full((EXACT_FRAMES, 4), 65535, dtype="u2")
    frames[::2] -= 1
    sums, varsums = np.zeros(4), np.zeros(4)
    lanes = lanes_for(frames.dtype, sums.dtype)
    power_sums(
        frames.reshape(-1),
        np.arange(EXACT_FRAMES) * 4,
        4,
        False,
        0,
        lanes,
        scratch_for_squares(frames.dtype, len(lanes)),
        sums,
        varsums,
    )
    np.testing.assert_array_equal(varsums, EXACT_FRAMES / 4)


def test_lanes_do_not_overflow_for_many_full_scale_frames() -> None:
    n = 70000
    frames = np.full((n, 2), 65535, dtype="u2")
    total = np.zeros(2)
    sum_frames(frames.reshape(-1), np.arange(n) * 2, 2, False, lanes_for(frames.dtype, total.dtype), total)
    np.testing.assert_array_equal(total, 65535.0 * n)


def test_nan_and_infinity_keep_their_meaning() -> None:
    frames = np.ones((9, 3), dtype="f4")
    frames[4, 0], frames[5, 1] = np.nan, np.inf
    total = np.zeros(3)
    sum_frames(frames.reshape(-1), np.arange(9) * 3, 3, False, lanes_for(frames.dtype, total.dtype), total)
    np.testing.assert_array_equal(total, [np.nan, np.inf, 9.0])
