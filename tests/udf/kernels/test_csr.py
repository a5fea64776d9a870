"""Kernels for sparse frames against their twins in NumPy, on frames made dense."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libertem.udf.kernels.csr import (
    VALUES_PER_FLUSH,
    csr_dot_masks,
    csr_sum_frames,
    csr_sum_pixels,
    interleave,
)

Array = npt.NDArray[Any]

VALUES = ("u1", "i1", "u2", "i4", "f4", "f8")
INDICES = ("i4", "i8", "u2")


@st.composite
def sparse_frames(draw: st.DrawFn) -> tuple[Array, Array, Array, Array]:
    """indptr, indices, values, and the same frames dense ``(frames, pixels)`` in the widest dtype."""
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    n_px = draw(st.integers(1, 20))
    counts = np.array(draw(st.lists(st.sampled_from([0, 1, 2, 5, 30]), min_size=1, max_size=5)))
    # The first frame of a block need not start with the first value of its arrays.
    skipped = draw(st.integers(0, 3))
    indptr = skipped + np.concatenate([[0], np.cumsum(counts)])
    n_values = int(indptr[-1]) + draw(st.integers(0, 3))
    indices = rng.integers(0, n_px, n_values).astype(draw(st.sampled_from(INDICES)))
    values = rng.integers(-100, 100, n_values).astype(draw(st.sampled_from(VALUES)))
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
    part = slice(indptr[0], indptr[-1])
    csr_sum_frames(indices[part], values[part], sums)
    np.testing.assert_array_equal(sums, (np.arange(dense.shape[1]) + dense.sum(axis=0)).astype(dtype))
    sums = np.arange(dense.shape[0]).astype(dtype)
    csr_sum_pixels(indptr, values, sums)
    np.testing.assert_array_equal(sums, (np.arange(dense.shape[0]) + dense.sum(axis=1)).astype(dtype))


@given(
    frames=sparse_frames(),
    n_masks=st.integers(1, 9),
    dtype=st.sampled_from(["f4", "f8"]),
)
@settings(max_examples=60, deadline=None)
def test_products_equal_those_of_dense_frames(
    frames: tuple[Array, Array, Array, Array], n_masks: int, dtype: str
) -> None:
    indptr, indices, values, dense = frames
    masks = np.random.default_rng(n_masks).normal(size=(n_masks, dense.shape[1])).astype(dtype)
    out = np.ones((dense.shape[0], n_masks))
    csr_dot_masks(indptr, indices, values, interleave(masks), out)
    scale = float(np.abs(dense).sum())
    np.testing.assert_allclose(out, 1 + dense @ masks.T.astype("f8"), rtol=1e-6, atol=1e-6 * (1 + scale))


def test_float32_products_keep_their_precision_over_many_values() -> None:
    n = 500 * VALUES_PER_FLUSH + 7
    values = np.random.default_rng(0).random(n, dtype=np.float32)
    masks = np.random.default_rng(1).random((5, 64), dtype=np.float32)
    indices = np.random.default_rng(2).integers(0, 64, n).astype("i4")
    out = np.zeros((1, 5))
    csr_dot_masks(np.array([0, n]), indices, values, interleave(masks), out)
    exact = np.bincount(indices, values.astype("f8"), 64) @ masks.T.astype("f8")
    np.testing.assert_allclose(out[0], exact, rtol=2e-7)


@pytest.mark.parametrize(
    ("n_masks", "widths"),
    [(1, [1]), (2, [1, 1]), (3, [4]), (4, [4]), (5, [4, 1]), (6, [4, 1, 1]), (7, [4, 4]), (8, [4, 4])],
)
def test_masks_are_grouped_so_that_few_passes_are_needed(n_masks: int, widths: list[int]) -> None:
    masks = np.arange(1, 1 + n_masks * 6, dtype=np.float32).reshape(n_masks, 6)
    groups = interleave(masks)
    assert [group.shape for group in groups] == [(6, width) for width in widths]
    assert all(group.flags.c_contiguous for group in groups)
    joined = np.concatenate(groups, axis=1)
    np.testing.assert_array_equal(joined[:, :n_masks], masks.T)
    assert not joined[:, n_masks:].any()
