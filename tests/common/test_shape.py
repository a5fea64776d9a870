from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import libertem.common
from libertem.common.shape import Shape

EXTENTS = st.lists(st.integers(0, 50), max_size=5).map(tuple)


@pytest.fixture
def shape() -> Shape:
    return Shape((5, 6, 16, 17), sig_dims=2)


def test_it_can_be_imported_from_common() -> None:
    assert libertem.common.Shape is Shape


def test_nav_and_sig_are_shapes_of_their_own(shape: Shape) -> None:
    assert shape.nav == Shape((5, 6), sig_dims=0)
    assert shape.sig == Shape((16, 17), sig_dims=2)
    assert isinstance(shape.nav, Shape)
    assert isinstance(shape.sig, Shape)


def test_dimensions_are_counted(shape: Shape) -> None:
    assert (shape.dims, shape.nav.dims, shape.sig.dims, shape.nav_dims, shape.sig_dims) == (4, 2, 2, 2, 2)


def test_size_is_the_number_of_elements(shape: Shape) -> None:
    assert shape.size == 8160
    assert (shape.nav.size, shape.sig.size) == (30, 272)


def test_size_does_not_overflow() -> None:
    assert Shape((np.int64(2**40), np.int64(2**40), 2), sig_dims=1).size == 2**81


def test_an_empty_shape_has_size_zero() -> None:
    assert Shape((16, 16), sig_dims=2).nav.size == 0
    assert Shape((), sig_dims=0).size == 0


def test_it_behaves_like_a_tuple(shape: Shape) -> None:
    assert shape.to_tuple() == tuple(shape) == (5, 6, 16, 17)
    assert len(shape) == 4
    assert list(shape) == [5, 6, 16, 17]
    assert 17 in shape
    assert shape.index(16) == 2


def test_an_index_gives_an_int_and_a_slice_gives_a_plain_tuple(shape: Shape) -> None:
    assert shape[0] == 5
    assert shape[-1] == 17
    assert shape[1:3] == (6, 16)
    assert type(shape[1:3]) is tuple


def test_flatten_nav_joins_the_navigation_axes(shape: Shape) -> None:
    assert shape.flatten_nav() == Shape((30, 16, 17), sig_dims=2)


def test_flatten_nav_of_a_signal_shape_changes_nothing(shape: Shape) -> None:
    assert shape.sig.flatten_nav() == shape.sig


def test_flatten_sig_joins_the_signal_axes(shape: Shape) -> None:
    assert shape.flatten_sig() == Shape((5, 6, 272), sig_dims=1)


def test_adding_a_tuple_extends_the_signal(shape: Shape) -> None:
    extra = (3,)
    assert shape + extra == Shape((5, 6, 16, 17, 3), sig_dims=3)


def test_adding_to_a_tuple_inserts_between_nav_and_sig(shape: Shape) -> None:
    extra = (3,)
    assert extra + shape == Shape((5, 6, 3, 16, 17), sig_dims=2)
    assert extra + shape.sig == Shape((3, 16, 17), sig_dims=2)


@pytest.mark.parametrize("other", [3, [3], "3", None], ids=repr)
def test_only_tuples_can_be_added(shape: Shape, other: object) -> None:
    with pytest.raises(NotImplementedError):
        shape + other
    with pytest.raises((NotImplementedError, TypeError)):
        other + shape  # type: ignore[operator]


@given(EXTENTS, EXTENTS, st.integers(0, 5), st.integers(0, 5))
def test_shapes_are_equal_if_extents_and_split_are(
    a: tuple[int, ...], b: tuple[int, ...], sig_a: int, sig_b: int
) -> None:
    sig_a, sig_b = min(sig_a, len(a)), min(sig_b, len(b))
    assert (Shape(a, sig_a) == Shape(b, sig_b)) == ((a, sig_a) == (b, sig_b))


def test_a_tuple_is_not_equal_to_a_shape(shape: Shape) -> None:
    assert shape != (5, 6, 16, 17)
    assert shape != (5, 6, 16, 17)


def test_equal_shapes_have_the_same_hash(shape: Shape) -> None:
    assert len({shape, Shape([5, 6, 16, 17], sig_dims=2), Shape((5, 6, 16, 17), sig_dims=1)}) == 2


@given(EXTENTS, st.integers(0, 5))
def test_nav_and_sig_together_are_the_shape(extents: tuple[int, ...], sig_dims: int) -> None:
    shape = Shape(extents, sig_dims=min(sig_dims, len(extents)))
    assert tuple(shape.nav) + tuple(shape.sig) == extents


def test_a_shape_can_be_made_from_a_shape(shape: Shape) -> None:
    assert Shape(shape, sig_dims=1) == Shape((5, 6, 16, 17), sig_dims=1)


def test_repr_is_that_of_the_tuple(shape: Shape) -> None:
    assert repr(shape) == "(5, 6, 16, 17)"


def test_it_survives_pickling_and_copying(shape: Shape) -> None:
    for other in (pickle.loads(pickle.dumps(shape)), copy.copy(shape), copy.deepcopy(shape)):
        assert other == shape
        assert other.sig_dims == 2


def test_numpy_takes_it_wherever_it_takes_a_shape(shape: Shape) -> None:
    assert np.zeros(shape.sig).shape == (16, 17)
    assert np.arange(30).reshape(shape.nav).shape == (5, 6)
    assert np.broadcast_to(0, shape).shape == (5, 6, 16, 17)
    assert np.prod(shape.nav, dtype=np.int64) == 30
    assert np.unravel_index(7, shape.nav) == (1, 1)


def test_too_many_signal_dimensions_leave_nothing_for_navigation() -> None:
    shape = Shape((2, 3), sig_dims=5)
    assert (tuple(shape.nav), tuple(shape.sig)) == ((), (2, 3))
