from __future__ import annotations

import pickle

import numpy as np
import pytest
import sparse
from hypothesis import given
from hypothesis import strategies as st

import libertem.common
from libertem.common.shape import Shape
from libertem.common.slice import Slice, SliceUsageError


@st.composite
def slices(draw: st.DrawFn, dims: int = 3, sig_dims: int = 2) -> Slice:
    origin = draw(st.tuples(*[st.integers(0, 6)] * dims))
    extents = draw(st.tuples(*[st.integers(0, 5)] * dims))
    return Slice(origin=origin, shape=Shape(extents, sig_dims=sig_dims))


def painted(s: Slice) -> np.ndarray:
    """A volume in which exactly the elements of `s` are true."""
    volume = np.zeros((12,) * len(s.origin), dtype=bool)
    volume[s.get()] = True
    return volume


@pytest.fixture
def region() -> Slice:
    return Slice(origin=(3, 1, 0), shape=Shape((2, 3, 4), sig_dims=2))


def test_it_can_be_imported_from_common() -> None:
    assert libertem.common.Slice is Slice
    assert libertem.common.SliceUsageError is SliceUsageError


def test_get_returns_python_slices(region: Slice) -> None:
    assert region.get() == np.s_[3:5, 1:4, 0:4]
    assert region.get(sig_only=True) == np.s_[1:4, 0:4]
    assert region.get(nav_only=True) == np.s_[3:5,]


def test_get_cuts_an_array(region: Slice) -> None:
    data = np.arange(10 * 8 * 8).reshape(10, 8, 8)
    np.testing.assert_array_equal(region.get(data), data[3:5, 1:4, 0:4])


def test_get_with_sig_only_cuts_the_last_axes(region: Slice) -> None:
    data = np.arange(2 * 3 * 8 * 8).reshape(2, 3, 8, 8)
    np.testing.assert_array_equal(region.get(data, sig_only=True), data[:, :, 1:4, 0:4])
    np.testing.assert_array_equal(region.get(data[0, 0], sig_only=True), data[0, 0, 1:4, 0:4])


def test_get_with_nav_only_cuts_the_first_axes(region: Slice) -> None:
    data = np.arange(10 * 3).reshape(10, 3)
    np.testing.assert_array_equal(region.get(data, nav_only=True), data[3:5])


def test_get_gives_a_view(region: Slice) -> None:
    data = np.zeros((10, 8, 8))
    assert np.shares_memory(region.get(data), data)


def test_nav_and_sig_crop_origin_and_shape(region: Slice) -> None:
    assert region.nav == Slice(origin=(3,), shape=Shape((2,), sig_dims=0))
    assert region.sig == Slice(origin=(1, 0), shape=Shape((3, 4), sig_dims=2))


def test_from_shape_starts_at_zero() -> None:
    assert Slice.from_shape((2, 3, 4), sig_dims=2) == Slice((0, 0, 0), Shape((2, 3, 4), sig_dims=2))


@given(slices(), slices())
def test_intersection_holds_exactly_the_common_elements(a: Slice, b: Slice) -> None:
    np.testing.assert_array_equal(painted(a.intersection_with(b)), painted(a) & painted(b))


def test_intersection_of_distant_slices_is_null() -> None:
    a = Slice((0, 0, 0), Shape((2, 2, 2), sig_dims=2))
    b = Slice((5, 5, 5), Shape((2, 2, 2), sig_dims=2))
    assert a.intersection_with(b).is_null()


@given(slices())
def test_a_slice_is_null_if_it_holds_nothing(s: Slice) -> None:
    assert s.is_null() == (not painted(s).any())


def test_different_axes_cannot_be_combined(region: Slice) -> None:
    for other in (
        Slice((0, 0), Shape((2, 2), sig_dims=2)),
        Slice((0, 0, 0), Shape((2, 2, 2), sig_dims=1)),
    ):
        with pytest.raises(SliceUsageError):
            region.intersection_with(other)
        with pytest.raises(SliceUsageError):
            region.shift(other)


def test_shift_counts_the_origin_from_another_slice(region: Slice) -> None:
    other = Slice((2, 1, 0), Shape((9, 9, 9), sig_dims=2))
    assert region.shift(other) == Slice((1, 0, 0), Shape((2, 3, 4), sig_dims=2))


def test_shift_by_moves_the_origin(region: Slice) -> None:
    assert region.shift_by((-1, 2, 3)) == Slice((2, 3, 3), Shape((2, 3, 4), sig_dims=2))
    with pytest.raises(SliceUsageError):
        region.shift_by((1, 2))


def test_clip_to_stays_inside_the_shape(region: Slice) -> None:
    assert region.clip_to(Shape((4, 8, 2), sig_dims=2)) == Slice((3, 1, 0), Shape((1, 3, 2), sig_dims=2))


def test_discard_nav_zeroes_origin_and_extent(region: Slice) -> None:
    assert region.discard_nav() == Slice((0, 1, 0), Shape((0, 3, 4), sig_dims=2))


def test_subslices_are_a_c_order_grid_with_truncated_borders() -> None:
    whole = Slice((0, 0, 0), Shape((3, 4, 5), sig_dims=2))
    assert [(s.origin, tuple(s.shape)) for s in whole.subslices((2, 3, 5))] == [
        ((0, 0, 0), (2, 3, 5)),
        ((0, 3, 0), (2, 1, 5)),
        ((2, 0, 0), (1, 3, 5)),
        ((2, 3, 0), (1, 1, 5)),
    ]


@given(slices(), st.tuples(*[st.integers(1, 4)] * 3))
def test_subslices_cover_each_element_once(s: Slice, steps: tuple[int, int, int]) -> None:
    count = np.zeros((12, 12, 12), dtype=int)
    for piece in s.subslices(steps):
        assert not piece.is_null()
        count[piece.get()] += 1
    np.testing.assert_array_equal(count, painted(s).astype(int))


def test_subslices_need_a_step_for_each_axis(region: Slice) -> None:
    with pytest.raises(SliceUsageError):
        list(region.subslices((2, 2)))


def test_flatten_nav_counts_frames() -> None:
    s = Slice((1, 0, 0, 0), Shape((2, 6, 4, 4), sig_dims=2))
    assert s.flatten_nav((5, 6, 4, 4)) == Slice((6, 0, 0), Shape((12, 4, 4), sig_dims=2))


@given(st.data())
def test_flatten_nav_selects_the_same_frames_or_refuses(data: st.DataObject) -> None:
    nav_shape = data.draw(st.tuples(*[st.integers(1, 4)] * 3))
    origin = tuple(data.draw(st.integers(0, n - 1)) for n in nav_shape)
    extents = tuple(data.draw(st.integers(1, n - o)) for n, o in zip(nav_shape, origin, strict=True))
    s = Slice((*origin, 0), Shape((*extents, 5), sig_dims=1))
    frames = np.arange(np.prod(nav_shape)).reshape(nav_shape)[s.nav.get()].ravel()
    if np.all(np.diff(frames) == 1):
        flat = s.flatten_nav((*nav_shape, 5))
        np.testing.assert_array_equal(np.arange(np.prod(nav_shape))[flat.nav.get()], frames)
    else:
        with pytest.raises(SliceUsageError):
            s.flatten_nav((*nav_shape, 5))


def test_adjust_for_roi_counts_selected_frames(region: Slice) -> None:
    assert region.adjust_for_roi([1, 0, 1, 1, 0, 1]) == Slice((2, 1, 0), Shape((1, 3, 4), sig_dims=2))
    whole = Slice((0, 0, 0), Shape((3, 4, 5), sig_dims=2))
    assert whole.adjust_for_roi([0, 1, 1, 1]) == Slice((0, 0, 0), Shape((2, 4, 5), sig_dims=2))


def test_adjust_for_roi_without_roi_changes_nothing(region: Slice) -> None:
    assert region.adjust_for_roi(None) == region


@given(st.lists(st.booleans(), min_size=1, max_size=20), st.data())
def test_adjust_for_roi_agrees_with_compressing_the_frames(bits: list[bool], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(bits)))
    extent = data.draw(st.integers(0, len(bits) - start))
    s = Slice((start, 0), Shape((extent, 4), sig_dims=1))
    roi = np.array(bits)
    frames = np.arange(len(bits))
    for form in (roi, bits, sparse.COO.from_numpy(roi)):
        adjusted = s.adjust_for_roi(form)
        np.testing.assert_array_equal(
            frames[roi][adjusted.nav.get()], frames[start : start + extent][roi[start : start + extent]]
        )


def test_adjust_for_roi_accepts_a_roi_of_the_shape_of_the_scan(region: Slice) -> None:
    roi = np.array([[1, 0, 1], [1, 0, 1]], dtype=bool)
    assert region.adjust_for_roi(roi) == region.adjust_for_roi(roi.ravel())


def test_adjust_for_roi_needs_a_flat_navigation_axis() -> None:
    with pytest.raises(SliceUsageError):
        Slice((0, 0, 0), Shape((2, 2, 2), sig_dims=1)).adjust_for_roi([True] * 4)


def test_origin_and_shape_need_the_same_length() -> None:
    with pytest.raises(SliceUsageError):
        Slice((0, 0), Shape((2, 2, 2), sig_dims=2))


def test_the_shape_has_to_be_a_shape() -> None:
    with pytest.raises(SliceUsageError):
        Slice((0, 0), (2, 2))  # type: ignore[arg-type]


def test_misuse_is_a_value_error() -> None:
    assert issubclass(SliceUsageError, ValueError)


def test_equality_compares_origin_and_shape(region: Slice) -> None:
    assert region == Slice([3, 1, 0], Shape((2, 3, 4), sig_dims=2))
    assert region != Slice((3, 1, 1), Shape((2, 3, 4), sig_dims=2))
    assert region != Slice((3, 1, 0), Shape((2, 3, 5), sig_dims=2))
    assert region != "a slice"


def test_it_serves_as_a_dictionary_key(region: Slice) -> None:
    assert {region: 1}[Slice((3, 1, 0), Shape((2, 3, 4), sig_dims=2))] == 1


def test_it_survives_pickling(region: Slice) -> None:
    assert pickle.loads(pickle.dumps(region)) == region
