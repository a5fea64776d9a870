"""Kernels for sparse frames against their twins in NumPy, on frames made dense."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from libertem.udf.kernels import csr
from libertem.udf.kernels.csr import (
    VALUES_PER_FLUSH,
    csr_dot_masks,
    csr_dot_sparse_masks,
    csr_sum_frames,
    csr_sum_pixels,
    make_sparse_masks,
    mask_rows,
)

Array = npt.NDArray[Any]

VALUES = ("u1", "i1", "u2", "i4", "f4", "f8")
INDICES = ("i4", "i8", "u2")


# Kernels for products take seconds to compile, so not in all combinations.
FEW = [("i4", "f4"), ("u2", "u1"), ("i8", "f8"), ("i4", "i4")]
ALL = list(itertools.product(INDICES, VALUES))


@st.composite
def sparse_frames(draw: st.DrawFn, dtypes: list[tuple[str, str]] = ALL) -> tuple[Array, Array, Array, Array]:
    """indptr, indices, values, and the same frames dense ``(frames, pixels)`` in the widest dtype."""
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    n_px = draw(st.integers(1, 20))
    counts = np.array(draw(st.lists(st.sampled_from([0, 1, 2, 5, 30]), min_size=1, max_size=5)))
    # The first frame of a block need not start with the first value of its arrays.
    skipped = draw(st.integers(0, 3))
    indptr = skipped + np.concatenate([[0], np.cumsum(counts)])
    n_values = int(indptr[-1]) + draw(st.integers(0, 3))
    indices_dtype, values_dtype = draw(st.sampled_from(dtypes))
    indices = rng.integers(0, n_px, n_values).astype(indices_dtype)
    values = rng.integers(-100, 100, n_values).astype(values_dtype)
    dense = np.zeros((len(counts), n_px), dtype="f8" if values.dtype.kind == "f" else "i8")
    for f, (start, stop) in enumerate(itertools.pairwise(indptr)):
        np.add.at(dense[f], indices[start:stop].astype("i8"), values[start:stop])
    return indptr, indices, values, dense


@given(frames=sparse_frames(), kind=st.sampled_from("iuf"))
@settings(max_examples=60, deadline=None)
def test_sums_are_exact(frames: tuple[Array, Array, Array, Array], kind: str) -> None:
    indptr, indices, values, dense = frames
    dtype = np.dtype(f"{'f' if values.dtype.kind == 'f' else kind}8")
    sums = np.arange(dense.shape[1]).astype(dtype)
    csr_sum_frames(indptr, indices, values, sums)
    np.testing.assert_array_equal(sums, (np.arange(dense.shape[1]) + dense.sum(axis=0)).astype(dtype))
    sums = np.arange(dense.shape[0]).astype(dtype)
    csr_sum_pixels(indptr, values, sums)
    np.testing.assert_array_equal(sums, (np.arange(dense.shape[0]) + dense.sum(axis=1)).astype(dtype))


def make_masks(n_masks: int, n_px: int, dtype: str) -> Array:
    return np.random.default_rng(n_masks).normal(size=(n_masks, n_px)).astype(dtype)


def check_products(out: Array, frames: tuple[Array, Array, Array, Array], masks: Array) -> None:
    indptr, _, values, dense = frames
    # What rounding can do in 32 bit: values of a pixel that is stored several times may nearly cancel.
    stored = np.abs(values[indptr[0] : indptr[-1]].astype("f8")).sum()
    scale = 1 + float(stored) * float(np.abs(masks).max())
    longest = int(np.diff(indptr).max())
    expected = 1 + dense @ masks.T.astype("f8")
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=(2 + longest) * 2.0**-24 * scale)


@given(
    frames=sparse_frames(FEW),
    # All numbers of lanes, alone and together.
    n_masks=st.integers(1, 9) | st.sampled_from([12, 17, 33, 63, 100]),
    dtype=st.sampled_from(["f4", "f8"]),
    slab_bytes=st.sampled_from([1, 200, 1 << 20]),
)
@settings(max_examples=80, deadline=None)
def test_products_equal_those_of_dense_frames(
    frames: tuple[Array, Array, Array, Array], n_masks: int, dtype: str, slab_bytes: int
) -> None:
    indptr, indices, values, dense = frames
    masks = make_masks(n_masks, dense.shape[1], dtype)
    out = np.ones((dense.shape[0], n_masks))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csr, "SLAB_BYTES", slab_bytes)
        patch.setattr(csr, "MIN_VALUES_PER_SLAB", 1)
        csr_dot_masks(indptr, indices, values, mask_rows(masks), out)
    check_products(out, frames, masks)


@given(
    frames=sparse_frames(FEW),
    n_masks=st.integers(1, 12),
    dtype=st.sampled_from(["f4", "f8"]),
    max_entries=st.sampled_from([0, 8, 12]),
)
@settings(max_examples=60, deadline=None)
def test_products_with_sparse_masks_equal_those_of_dense_ones(
    frames: tuple[Array, Array, Array, Array], n_masks: int, dtype: str, max_entries: int
) -> None:
    indptr, indices, values, dense = frames
    masks = make_masks(n_masks, dense.shape[1], dtype)
    masks[np.abs(masks) < 1] = 0
    out = np.ones((dense.shape[0], n_masks))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csr, "MAX_ENTRIES", max_entries)
        entries = make_sparse_masks(scipy.sparse.csr_matrix(masks.T))
    csr_dot_sparse_masks(indptr, indices, values, entries, out)
    check_products(out, frames, masks)


def test_sparse_masks_are_filled_up_only_as_far_as_it_is_cheap() -> None:
    weights = np.zeros((100, 12))
    weights[:98, 3] = weights[5, :3] = 1
    filled = make_sparse_masks(scipy.sparse.csr_matrix(weights))
    assert filled.masks.shape == filled.weights.shape == (100, 4)
    weights[5] = 1
    assert make_sparse_masks(scipy.sparse.csr_matrix(weights)).masks.shape == (109,)
    weights[6:] = 0
    assert make_sparse_masks(scipy.sparse.csr_matrix(weights[:, :4])).masks.ndim == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_pixels_without_a_number_reach_only_masks_that_have_them(bad: float) -> None:
    """What fills up rows of weights must not spread them."""
    weights = np.zeros((4, 3), dtype=np.float32)
    weights[[0, 1, 1, 2], [1, 0, 1, 2]] = 1
    frame = (np.array([0, 2]), np.array([0, 2], "i4"), np.array([bad, 5], "f4"))
    out = np.zeros((1, 3))
    entries = make_sparse_masks(scipy.sparse.csr_matrix(weights))
    assert entries.masks.ndim == 2
    csr_dot_sparse_masks(*frame, entries, out)
    np.testing.assert_array_equal(out, [[0, bad, 5]])
    out[:] = 0
    csr_dot_masks(*frame, mask_rows(weights.T[:, [0, 2, 1, 3]]), out)
    # Dense masks have a weight everywhere, if only 0.
    np.testing.assert_array_equal(out, [[np.nan, bad, np.nan]])


def test_float32_products_keep_their_precision_over_many_values() -> None:
    n = 500 * VALUES_PER_FLUSH + 7
    values = np.random.default_rng(0).random(n, dtype=np.float32)
    masks = np.random.default_rng(1).random((5, 64), dtype=np.float32)
    indices = np.random.default_rng(2).integers(0, 64, n).astype("i4")
    exact = np.bincount(indices, values.astype("f8"), 64) @ masks.T.astype("f8")
    dense, thin = np.zeros((1, 5)), np.zeros((1, 5))
    csr_dot_masks(np.array([0, n]), indices, values, mask_rows(masks), dense)
    np.testing.assert_allclose(dense[0], exact, rtol=2e-7)
    entries = make_sparse_masks(scipy.sparse.csr_matrix(masks.T))
    csr_dot_sparse_masks(np.array([0, n]), indices, values, entries, thin)
    np.testing.assert_allclose(thin[0], exact, rtol=2e-7)


@pytest.mark.parametrize(
    ("n_masks", "dtype", "columns"),
    [
        *((1, "f4", 1), (2, "f4", 2), (3, "f4", 4), (5, "f4", 8), (16, "f4", 16)),
        *((17, "f4", 32), (100, "f4", 112), (17, "f8", 24)),
    ],
)
def test_weights_of_a_pixel_lie_next_to_each_other(n_masks: int, dtype: str, columns: int) -> None:
    masks = np.arange(1, 1 + n_masks * 6).astype(dtype).reshape(n_masks, 6)
    rows = mask_rows(masks)
    assert rows.shape == (6, columns)
    assert rows.flags.c_contiguous
    assert rows.ctypes.data % 64 == 0
    np.testing.assert_array_equal(rows[:, :n_masks], masks.T)
    assert not rows[:, n_masks:].any()
