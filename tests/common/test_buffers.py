"""Result buffers as objects: data, masks, slices and conversion to arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from libertem.common.buffers import (
    ArrayWithMask,
    AuxBufferWrapper,
    BufferWrapper,
    InvalidMaskError,
    get_bbox,
    get_bbox_slice,
    get_inner_slice,
    reshaped_view,
)
from libertem.common.shape import Shape
from libertem.exceptions import InvalidMaskError as OfExceptions

DS_SHAPE = Shape((2, 3, 4, 5), sig_dims=2)
ROI = np.array([[1, 0, 1], [0, 1, 0]], dtype=bool)


def filled(roi: Any = None, valid: Any = True, **how: Any) -> BufferWrapper:
    """A buffer of kind 'nav' by default that holds 1, 2, 3, ..."""
    buffer = BufferWrapper(**{"kind": "nav", **how})
    buffer.set_shape_ds(DS_SHAPE, roi)
    values = np.arange(1, int(np.prod(buffer.shape)) + 1).reshape(buffer.shape)
    buffer.set_data(values.astype(buffer.dtype), valid=valid)
    return buffer


def test_a_buffer_knows_its_declaration() -> None:
    buffer = BufferWrapper("nav", extra_shape=(2, 3), dtype="u1", where="device", use="private")
    assert (buffer.kind, buffer.extra_shape, buffer.dtype) == ("nav", (2, 3), np.uint8)
    assert (buffer.where, buffer.use) == ("device", "private")


def test_declarations_have_defaults() -> None:
    buffer = BufferWrapper("single")
    assert (buffer.extra_shape, buffer.dtype, buffer.where, buffer.use) == ((), np.float32, None, None)
    assert repr(BufferWrapper("nav")) == "<BufferWrapper kind=nav dtype=float32 extra_shape=()>"


@pytest.mark.parametrize(
    ("how", "raw", "full"),
    [
        ({"kind": "nav"}, (6,), (2, 3)),
        ({"kind": "nav", "extra_shape": (7,)}, (6, 7), (2, 3, 7)),
        ({"kind": "nav", "extra_shape": Shape((7, 8), sig_dims=2)}, (6, 7, 8), (2, 3, 7, 8)),
        ({"kind": "sig"}, (4, 5), (4, 5)),
        ({"kind": "sig", "extra_shape": (2,)}, (4, 5, 2), (4, 5, 2)),
        ({"kind": "single"}, (1,), (1,)),
        ({"kind": "single", "extra_shape": (2, 3)}, (2, 3), (2, 3)),
    ],
)
def test_shapes_follow_the_kind(how: Any, raw: tuple[int, ...], full: tuple[int, ...]) -> None:
    buffer = filled(**how)
    assert buffer.shape == buffer.raw_data.shape == raw
    assert buffer.data.shape == buffer.valid_mask.shape == full


@pytest.mark.parametrize(
    ("dtype", "fill"),
    [
        ("f4", np.nan),
        ("c8", np.nan),
        ("i4", 0),
        ("u1", 0),
        ("bool", False),
        ("S4", b""),
        ("U2", ""),
        ("object", None),
        ("M8[s]", np.datetime64("NaT")),
        ("m8[s]", np.timedelta64("NaT")),
    ],
)
def test_positions_outside_of_the_roi_are_filled(dtype: str, fill: Any) -> None:
    buffer = filled(roi=ROI, dtype=dtype)
    assert buffer.raw_data.shape == (3,)
    full = buffer.data
    assert full.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(full[ROI], buffer.raw_data)
    np.testing.assert_array_equal(full[~ROI], np.array([fill] * 3, dtype=dtype))


def test_structured_positions_outside_of_the_roi_are_zero() -> None:
    dtype = np.dtype([("x", "f4"), ("y", "i2")])
    buffer = BufferWrapper("nav", dtype=dtype)
    buffer.set_shape_ds(DS_SHAPE, ROI)
    buffer.allocate()
    buffer.raw_data["x"] = 2
    assert buffer.data["x"].tolist() == [[2, 0, 2], [0, 2, 0]]


def test_a_buffer_can_be_used_like_an_array() -> None:
    buffer = filled(roi=ROI, dtype="u2")
    expected = np.array([[1, 0, 2], [0, 3, 0]])
    np.testing.assert_array_equal(np.array(buffer), expected)
    np.testing.assert_allclose(buffer, expected)
    np.testing.assert_array_equal(np.add(buffer, 1), expected + 1)
    assert np.sum(buffer) == 6
    assert np.asarray(buffer, dtype="i4").dtype == np.int32
    assert np.array(buffer, copy=True) is not buffer.data


def test_valid_masks_unfold_like_data() -> None:
    valid = np.array([True, False, True])
    buffer = filled(roi=ROI, valid=valid, extra_shape=(2,))
    expected = np.array([[1, 0, 0], [0, 1, 0]], dtype=bool)[..., np.newaxis].repeat(2, axis=-1)
    np.testing.assert_array_equal(buffer.valid_mask, expected)
    np.testing.assert_array_equal(buffer.masked_data.mask, ~expected)
    np.testing.assert_array_equal(buffer.raw_masked_data.mask[:, 0], ~valid)
    np.testing.assert_array_equal(buffer.masked_data.compressed(), [1, 2, 5, 6])


def test_slices_bound_what_is_valid() -> None:
    mask = np.zeros((2, 3), dtype=bool)
    buffer = filled(valid=mask.reshape(-1))
    assert buffer.data[buffer.valid_slice_bounding].size == 0
    mask[1, 1:] = True
    buffer = filled(valid=mask.reshape(-1))
    assert buffer.valid_slice_bounding == (slice(1, 2), slice(1, 3))
    assert filled().valid_slice_bounding == (slice(0, 2), slice(0, 3))


def test_inner_slices_cover_the_first_run_of_valid_elements() -> None:
    mask = np.array([[1, 1, 0], [1, 1, 1]], dtype=bool)
    buffer = filled(valid=mask.reshape(-1))
    assert buffer.get_valid_slice_inner() == (slice(1, 2), slice(None))
    assert buffer.get_valid_slice_inner(axis=1) == (slice(None), slice(0, 2))


# --- helpers ---


def test_inner_slice_takes_the_first_of_several_runs() -> None:
    assert get_inner_slice(np.array([0, 1, 1, 0, 1, 1, 1], dtype=bool)) == (slice(1, 3),)
    assert get_inner_slice(np.zeros((2, 2), dtype=bool), axis=1) == (slice(None), slice(0, 0))


masks = npst.arrays(bool, npst.array_shapes(max_dims=3, max_side=5))


@given(masks, st.integers(0, 2))
def test_everything_in_an_inner_slice_is_valid(mask: Any, axis: int) -> None:
    axis = min(axis, mask.ndim - 1)
    found = get_inner_slice(mask, axis=axis)
    assert mask[found].all()
    start, stop = found[axis].start, found[axis].stop
    rows = np.moveaxis(mask, axis, 0).reshape(mask.shape[axis], -1).all(axis=1)
    assert stop == len(rows) or stop == 0 or not rows[stop]
    assert not rows[:start].any()


@given(masks)
def test_bounding_slices_are_as_small_as_possible(mask: Any) -> None:
    inside = mask[get_bbox_slice(mask)]
    assert inside.sum() == mask.sum()
    if mask.any():
        assert len(get_bbox(mask)) == mask.ndim
        for axis in range(mask.ndim):
            assert inside.take(0, axis=axis).any()
            assert inside.take(-1, axis=axis).any()
    else:
        assert get_bbox(mask) == ()
        assert inside.size == 0


def test_reshaped_view_never_copies() -> None:
    a = np.zeros((4, 6))
    view = reshaped_view(a, (-1, 3))
    view[0, 0] = 1
    assert a[0, 0] == 1
    assert view.shape == (8, 3)
    with pytest.raises(AttributeError):
        reshaped_view(a[:, :4], (-1,))


def test_reshaped_view_accepts_shapes_and_memory_maps(tmp_path: Any) -> None:
    file = np.lib.format.open_memmap(tmp_path / "a.npy", mode="w+", dtype="u1", shape=(2, 3, 4, 5))
    assert reshaped_view(file, DS_SHAPE.flatten_nav()).shape == (6, 4, 5)


def test_array_with_mask_says_what_is_wrong() -> None:
    assert InvalidMaskError is OfExceptions
    with pytest.raises(InvalidMaskError, match=r"\(4,\) does not broadcast to the data of shape \(2, 3\)"):
        ArrayWithMask.make(np.zeros((2, 3)), np.zeros(4, dtype=bool))


def test_auxiliary_data_selects_scan_positions() -> None:
    aux = AuxBufferWrapper("nav", (2,), "i8")
    aux.set_buffer(np.arange(12))
    assert aux.select(np.array([1, 5])).raw_data.tolist() == [[2, 3], [10, 11]]
    assert aux.select(None) is aux
    assert repr(aux) == "<AuxBufferWrapper kind=nav dtype=int64 extra_shape=(2,)>"
    with pytest.raises(ValueError, match="unknown kind: frame"):
        AuxBufferWrapper("frame")  # type: ignore[arg-type]  # wrong on purpose
