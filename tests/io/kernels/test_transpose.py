from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from libertem.io.kernels.transpose import gather_items, transpose_planes


def transpose_with_numpy(
    source: npt.NDArray[np.uint8],
    planes: npt.NDArray[np.int64],
    shifts: npt.NDArray[np.int64],
    out: npt.NDArray[Any],
    rows: npt.NDArray[np.int64],
    first_px: int,
) -> None:
    """The twin: one item after the other."""
    item = out.itemsize
    for p, plane in enumerate(planes):
        for shift, row in zip(shifts, rows, strict=True):
            start = plane + shift
            out[row + first_px + p] = source[start : start + item].view(out.dtype)[0]


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from([1, 2, 4, 8]),
    st.integers(0, 40),
    st.integers(0, 70),
    st.integers(0, 3),
    st.integers(0, 3),
    st.sampled_from(["all", "reversed rows", "some"]),
    st.integers(0, 2**32 - 1),
)
@example(1, 17, 33, 1, 0, "some", 0)
def test_squares_and_the_rest_are_where_numpy_puts_them(
    item: int, n_px: int, n_frames: int, lead: int, first_px: int, which: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    source = rng.integers(0, 256, lead + n_px * n_frames * item, dtype=np.uint8)
    planes = lead + rng.permutation(n_px) * n_frames * item
    frames = np.flatnonzero(rng.random(n_frames) < (0.8 if which == "some" else 2))
    ranks = rng.permutation(frames.size) if which == "reversed rows" else np.arange(frames.size)
    stride = first_px + n_px + 2
    out = np.full(frames.size * stride, 7, dtype=f"u{item}")
    expected = out.copy()
    arguments = (source, planes, frames * item)
    transpose_planes(*arguments, out, ranks * stride, first_px)
    transpose_with_numpy(*arguments, expected, ranks * stride, first_px)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("dtype", ["<c16", "u1"])
def test_items_of_any_size_are_gathered(dtype: str) -> None:
    stored = (np.arange(35) * 1.5).reshape(5, 7).astype(dtype)
    source = np.concatenate([np.zeros(3, dtype=np.uint8), stored.reshape(-1).view(np.uint8)])
    item = stored.itemsize
    out = np.zeros(4 * 6, dtype=dtype)
    columns = np.array([0, 2, 3, 6])
    planes = 3 + np.arange(5) * 7 * item
    gather_items(source, planes, columns * item, out.view(np.uint8), np.arange(4) * 6, 1, item)
    np.testing.assert_array_equal(out.reshape(4, 6)[:, 1:], stored[:, columns].T)
    assert not out.reshape(4, 6)[:, 0].any()
