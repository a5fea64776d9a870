from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse
import sparse
from hypothesis import given
from hypothesis import strategies as st

from libertem.common.math import count_nonzero, flat_nonzero, make_2D_square, prod
from libertem.common.shape import Shape

PATTERN = np.array([[0, 3, 0], [0, 0, -1]])

FORMS = {
    "list": PATTERN.tolist(),
    "NumPy": PATTERN,
    "bool": PATTERN.astype(bool),
    "COO": sparse.COO.from_numpy(PATTERN),
    "COO filled with ones": sparse.COO.from_numpy(PATTERN == 0, fill_value=np.bool_(True)) == np.bool_(False),
    "GCXS": sparse.GCXS.from_numpy(PATTERN),
    "DOK": sparse.DOK.from_numpy(PATTERN),
    "CSR matrix": scipy.sparse.csr_matrix(PATTERN),
    "CSC array": scipy.sparse.csc_array(PATTERN),
    "COO matrix": scipy.sparse.coo_matrix(PATTERN),
}


@given(st.lists(st.integers(-(10**30), 10**30), max_size=6))
def test_prod_is_exact_for_any_integers(numbers: list[int]) -> None:
    assert prod(numbers) == math.prod(numbers)


def test_prod_of_numpy_integers_does_not_overflow() -> None:
    result = prod([np.uint16(65535), np.int64(2**62), np.uint8(255)])
    assert result == 65535 * 2**62 * 255
    assert type(result) is int


def test_prod_of_nothing_is_one() -> None:
    assert prod(()) == 1


def test_prod_accepts_bools() -> None:
    assert prod([True, np.True_, 3]) == 3
    assert prod([3, False]) == 0


def test_prod_accepts_a_shape() -> None:
    assert prod(Shape((2, 3, 4), sig_dims=2)) == 24


@pytest.mark.parametrize("item", [2.0, np.float32(2), "2", None, 2j], ids=repr)
def test_prod_refuses_what_is_no_integer(item: object) -> None:
    with pytest.raises(ValueError, match="integers only"):
        prod((2, item))


@pytest.mark.parametrize("array", FORMS.values(), ids=FORMS.keys())
def test_count_nonzero_counts_in_dense_and_sparse_arrays(array: Any) -> None:
    result = count_nonzero(array)
    assert result == 2
    assert type(result) is int


@pytest.mark.parametrize("array", FORMS.values(), ids=FORMS.keys())
def test_flat_nonzero_gives_c_order_indices(array: Any) -> None:
    np.testing.assert_array_equal(flat_nonzero(array), [1, 5])


def test_sparse_arrays_that_are_true_by_default_are_counted_in_full() -> None:
    roi = sparse.COO(np.array([[1], [2]]), np.array([False]), shape=(2, 3), fill_value=np.True_)
    assert count_nonzero(roi) == 5
    np.testing.assert_array_equal(flat_nonzero(roi), [0, 1, 2, 3, 4])


@pytest.mark.parametrize(
    ("shape", "square"),
    [((16,), (4, 4)), ((1,), (1, 1)), ((17,), (17,)), ((2, 8), (2, 8)), ((4, 2, 2), (4, 2, 2))],
)
def test_make_2d_square_squares_what_is_flat_and_square(
    shape: tuple[int, ...], square: tuple[int, ...]
) -> None:
    result = make_2D_square(shape)
    assert result == square
    assert all(type(extent) is int for extent in result)


@given(st.integers(1, 10**9))
def test_make_2d_square_is_exact_for_large_counts(root: int) -> None:
    assert make_2D_square((root * root,)) == (root, root)
    assert make_2D_square((root * root + 1,)) == (root * root + 1,)


@pytest.mark.parametrize("shape", [(0,), (-4,), (3, 0)])
def test_make_2d_square_refuses_empty_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="no elements"):
        make_2D_square(shape)


def test_flat_nonzero_returns_int64() -> None:
    result: npt.NDArray[Any] = flat_nonzero(np.array([True, False]))
    assert result.dtype == np.int64
