from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sparse
from hypothesis import given
from hypothesis import strategies as st

from libertem.masks import radial_bins


def by_definition(
    cx: float, cy: float, nx: int, ny: int, radius: float, radius_inner: float, n_bins: int, normalize: bool
) -> np.ndarray:
    """All rings for all pixels, as the definition says."""
    width = (radius - radius_inner) / n_bins
    y, x = np.mgrid[:ny, :nx]
    distance = np.sqrt((y - cy) ** 2 + (x - cx) ** 2)
    centres = radius_inner + (np.arange(n_bins) + 0.5) * width
    stack = np.maximum(0, np.minimum(1, width / 2 + 0.5 - np.abs(distance - centres[:, None, None])))
    if normalize:
        for ring in stack:
            if not np.isclose(ring.sum(), 0):
                ring /= ring.sum()
    row, column = round(cy), round(cx)
    if radius_inner < 0.5 and 0 <= row < ny and 0 <= column < nx:
        stack[0, row, column] = 1 - radius_inner
    return stack


def test_example() -> None:
    stack = radial_bins(3, 3, 7, 7, radius=3, n_bins=3, use_sparse=False)
    assert stack.shape == (3, 7, 7)
    assert stack.dtype == np.float64
    np.testing.assert_allclose(stack.sum(axis=(1, 2)), [3.34315, 9.76831, 15.27661], atol=5e-6)
    assert stack[0, 3, 3] == 1
    np.testing.assert_allclose([stack[0, 3, 2], stack[0, 2, 3]], 0.5)
    np.testing.assert_allclose([stack[0, 2, 2], stack[0, 4, 2]], 0.08579, atol=5e-6)


@given(
    cx=st.floats(-4, 12),
    cy=st.floats(-4, 12),
    nx=st.integers(1, 9),
    ny=st.integers(1, 9),
    radius_inner=st.floats(0, 4),
    extent=st.floats(0, 9),
    n_bins=st.integers(1, 12),
    normalize=st.booleans(),
)
def test_rings_agree_with_the_definition(
    cx: float, cy: float, nx: int, ny: int, radius_inner: float, extent: float, n_bins: int, normalize: bool
) -> None:
    args = (cx, cy, nx, ny, radius_inner + extent, radius_inner, n_bins, normalize)
    np.testing.assert_allclose(radial_bins(*args, use_sparse=False), by_definition(*args), atol=1e-12)


@pytest.mark.parametrize("n_bins", [1, 3, 10])
def test_neighbouring_rings_sum_to_one(n_bins: int) -> None:
    total = radial_bins(9.3, 8.9, 20, 19, radius=30, n_bins=n_bins, use_sparse=False).sum(axis=0)
    np.testing.assert_allclose(total, 1)


def test_the_default_is_one_pixel_per_ring_up_to_the_corners() -> None:
    large = radial_bins(64, 64, 128, 128)
    assert isinstance(large, sparse.COO)
    assert large.shape == (92, 128, 128)
    small = radial_bins(3, 3, 7, 7)
    assert isinstance(small, np.ndarray)
    assert small.shape == (7, 7, 7)


def test_a_radius_too_small_for_a_ring_gives_one_ring() -> None:
    assert radial_bins(3, 3, 7, 7, radius=0.4, use_sparse=False).shape == (1, 7, 7)


def test_the_number_of_rings_is_rounded_half_to_even() -> None:
    assert radial_bins(3, 3, 7, 7, radius=2.5, use_sparse=False).shape == (2, 7, 7)


def test_sparse_and_dense_rings_are_the_same() -> None:
    args: dict[str, Any] = {"radius": 5, "radius_inner": 0.2, "n_bins": 4, "normalize": True}
    in_coo = radial_bins(3.4, 2.6, 7, 8, use_sparse=True, **args)
    assert isinstance(in_coo, sparse.COO)
    np.testing.assert_array_equal(in_coo.todense(), radial_bins(3.4, 2.6, 7, 8, use_sparse=False, **args))


def test_normalized_rings_sum_to_one_except_for_the_centre() -> None:
    stack = radial_bins(3, 3, 7, 7, radius=3, n_bins=3, normalize=True, use_sparse=False)
    np.testing.assert_allclose(stack.sum(axis=(1, 2)), [1.824, 1, 1], atol=5e-4)


def test_rings_outside_the_image_stay_empty_when_normalized() -> None:
    stack = radial_bins(3, 3, 7, 7, radius=30, radius_inner=20, n_bins=2, normalize=True, use_sparse=False)
    np.testing.assert_array_equal(stack, np.zeros((2, 7, 7)))


def test_the_centre_is_rounded_half_to_even() -> None:
    stack = radial_bins(2.5, 3.5, 7, 7, radius=3, n_bins=3, use_sparse=False)
    assert stack[0, 4, 2] == 1
    assert stack[0, 3, 3] < 1


def test_an_inner_radius_below_half_a_pixel_lowers_the_centre() -> None:
    stack = radial_bins(3, 3, 7, 7, radius=3, radius_inner=0.3, n_bins=3, use_sparse=False)
    assert stack[0, 3, 3] == pytest.approx(0.7)


def test_a_centre_outside_the_image_is_not_set() -> None:
    stack = radial_bins(-1, 3, 7, 7, radius=3, n_bins=3, use_sparse=False)
    np.testing.assert_allclose(stack[0][2:5, 0], [0.08579, 0.5, 0.08579], atol=5e-6)
    np.testing.assert_array_equal(stack[0][:, 1:], 0)


@pytest.mark.parametrize("use_sparse", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.complex64, np.bool_, np.int64])
def test_the_dtype_can_be_chosen(dtype: Any, use_sparse: bool) -> None:
    reference = by_definition(3, 3, 7, 7, 3, 0, 3, normalize=False)
    stack = radial_bins(3, 3, 7, 7, radius=3, n_bins=3, use_sparse=use_sparse, dtype=dtype)
    assert stack.dtype == dtype
    dense = stack.todense() if use_sparse else stack
    np.testing.assert_allclose(dense, reference.astype(dtype), rtol=1e-6)


def test_no_rings_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        radial_bins(3, 3, 7, 7, radius=3, n_bins=0)
