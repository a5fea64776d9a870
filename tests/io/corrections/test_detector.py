from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse as sp
import sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from libertem.common import Shape
from libertem.corrections import detector as face
from libertem.io.corrections.detector import (
    CorrectError,
    RepairDescriptor,
    RepairValueError,
    correct,
    correct_dot_masks,
    environments,
)

Array = npt.NDArray[Any]
FRAME = np.arange(25, dtype=np.float32).reshape(1, 5, 5)
BLOCK = np.array([[0, 0, 0, 1, 1, 1, 2, 2, 2], [0, 1, 2] * 3])

# --- correct ------------------------------------------------------------------------------------------


def test_the_historic_path_names_the_same_objects() -> None:
    assert face.correct is correct
    assert face.RepairDescriptor is RepairDescriptor
    assert face.RepairValueError is RepairValueError
    assert issubclass(RepairValueError, ValueError)
    assert face.correct_dot_masks is correct_dot_masks


def test_a_copy_is_corrected() -> None:
    raw = np.arange(25, dtype=np.uint16).reshape(1, 5, 5)
    result = correct(raw, np.ones((5, 5)), np.full((5, 5), 2), excluded_pixels=[[2], [2]])
    assert result.dtype == np.float32
    assert result.shape == (1, 5, 5)
    np.testing.assert_array_equal(result, (np.arange(25).reshape(1, 5, 5) - 1) * 2)
    np.testing.assert_array_equal(raw.reshape(-1), np.arange(25))


def test_coordinates_of_a_sparse_mask_and_a_shape_are_enough() -> None:
    mask = np.zeros((5, 5), dtype=bool)
    mask[0, 2] = True
    for sig_shape in ((5, 5), [5, 5], Shape((5, 5), sig_dims=2)):
        result = correct(buffer=FRAME, excluded_pixels=sparse.COO(mask).coords, sig_shape=sig_shape)
        assert result.squeeze()[0, 2] == 5


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("u1", "f4"),
        ("?", "f4"),
        ("f2", "f4"),
        (">f4", "f4"),
        ("u2", "f4"),
        ("i4", "f8"),
        ("u4", "f8"),
        ("i8", "f8"),
        ("c8", "c8"),
        ("c16", "c16"),
    ],
)
def test_copies_have_at_least_float32(dtype: str, expected: str) -> None:
    result = correct(np.ones((2, 3, 4), dtype), gain_map=np.full((3, 4), 2.0))
    assert result.dtype == np.dtype(expected)
    np.testing.assert_array_equal(result, np.full((2, 3, 4), 2))


def test_in_place_returns_the_same_array() -> None:
    buffer = np.ones((2, 3, 5, 5), np.float32)
    assert correct(buffer, dark_image=np.ones((5, 5)), inplace=True) is buffer
    np.testing.assert_array_equal(buffer, np.zeros((2, 3, 5, 5)))


def test_integers_cannot_be_corrected_in_place() -> None:
    with pytest.raises(TypeError, match=r"In-place correction only supported for floating point data\."):
        correct(np.ones((1, 5, 5), int), gain_map=np.ones((5, 5)), inplace=True)


def test_arrays_that_are_not_contiguous_are_refused() -> None:
    text = "For in-place operation, the buffer given must be C-contiguous"
    with pytest.raises(CorrectError, match=text):
        correct(np.ones((2, 5, 10))[..., ::2], gain_map=np.ones((5, 5)), inplace=True)
    with pytest.raises(CorrectError, match=text):
        correct(np.ones((2, 5, 5), order="F"), gain_map=np.ones((5, 5)))
    strided = np.ones((2, 5, 10))[..., ::2]
    np.testing.assert_array_equal(correct(strided, gain_map=np.ones((5, 5))), strided)


def test_a_single_frame_needs_no_navigation_axis() -> None:
    assert correct(FRAME[0], sig_shape=(5, 5), excluded_pixels=[[0], [0]])[0, 0] == 4


def test_a_descriptor_replaces_coordinates() -> None:
    descriptor = RepairDescriptor((5, 5), [[0], [0]])
    result = correct(FRAME, sig_shape=(5, 5), repair_descriptor=descriptor)
    assert result[0, 0, 0] == 4
    with pytest.raises(ValueError, match="not both"):
        correct(FRAME, sig_shape=(5, 5), repair_descriptor=descriptor, excluded_pixels=[[0], [0]])
    with pytest.raises(ValueError, match=r"repair_descriptor.*\(4, 5\).*\(5, 5\)"):
        correct(FRAME, sig_shape=(5, 5), repair_descriptor=RepairDescriptor((4, 5)))


def test_the_signal_shape_has_to_be_known() -> None:
    with pytest.raises(ValueError, match="need either `dark_image`, `gain_map`, or `sig_shape`"):
        correct(FRAME, excluded_pixels=[[0], [0]])


@pytest.mark.parametrize(
    "kwargs",
    [
        {"gain_map": np.ones((4, 5))},
        {"dark_image": np.ones((4, 5))},
        {"gain_map": np.ones((5, 5)), "dark_image": np.ones((4, 5))},
        {"sig_shape": (4, 5)},
    ],
)
def test_shapes_that_do_not_fit_are_named(kwargs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"found|expected") as caught:
        correct(FRAME, **kwargs)
    assert "(5, 5)" in str(caught.value)
    assert "(4, 5)" in str(caught.value)


def test_pixels_without_neighbours_are_an_error_unless_allowed() -> None:
    with pytest.raises(RepairValueError, match="Empty repair environments for pixel"):
        correct(FRAME, sig_shape=(5, 5), excluded_pixels=BLOCK)
    result = correct(FRAME, sig_shape=(5, 5), excluded_pixels=BLOCK, allow_empty=True)
    np.testing.assert_array_equal(result[0, :2, :2], FRAME[0, :2, :2])


# --- correct_dot_masks --------------------------------------------------------------------------------


def test_the_value_of_an_excluded_pixel_goes_to_its_neighbours() -> None:
    mask = np.arange(25.0).reshape(1, 5, 5)
    result = correct_dot_masks(mask, np.ones((5, 5)), [[1], [1]])
    np.testing.assert_array_equal(result[0, 0], [0.75, 1.75, 2.75, 3, 4])
    np.testing.assert_array_equal(result[0, 1], [5.75, 0, 7.75, 8, 9])


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_corrected_masks_see_in_raw_frames_what_masks_see_in_corrected_ones(data: st.DataObject) -> None:
    sig = tuple(data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    frames = rng.normal(size=(3, *sig))
    masks = rng.normal(size=(2, *sig)) * (rng.random((2, *sig)) < 0.7)
    gain = rng.normal(size=sig) if data.draw(st.booleans()) else None
    excluded = np.argwhere(rng.random(sig) < 0.3).T
    corrected = correct(frames, None, gain, excluded, sig_shape=sig, allow_empty=True)
    axes = list(range(1, len(sig) + 1))
    expected = np.tensordot(corrected, masks, (axes, axes))
    dense = correct_dot_masks(masks, gain, excluded, allow_empty=True)
    np.testing.assert_allclose(np.tensordot(frames, dense, (axes, axes)), expected, atol=1e-12)
    thin = correct_dot_masks(sparse.COO(masks), gain, excluded, allow_empty=True)
    assert isinstance(thin, sparse.COO)
    np.testing.assert_allclose(thin.todense(), dense, atol=1e-12)


@pytest.mark.parametrize("kind", [sparse.GCXS, sparse.DOK, np.asarray])
def test_any_stack_of_masks_is_corrected(kind: Any) -> None:
    masks = np.arange(50, dtype=np.float32).reshape(2, 5, 5)
    result = correct_dot_masks(kind(masks), np.ones((5, 5)), [[1, 1], [1, 1]])
    dense = result if isinstance(result, np.ndarray) else result.todense()
    assert dense.shape == (2, 5, 5)
    assert dense[1, 0, 0] == 25 + 31 / 8
    assert dense[1, 1, 1] == 0


def test_scipy_stacks_and_sparse_stacks_of_ones_are_corrected() -> None:
    line = np.array([[1.0, 2, 0]])
    result = correct_dot_masks(sp.csr_matrix(line), np.array([1.0, 1, 10]), [[1]])
    np.testing.assert_array_equal(result.todense(), [[2, 0, 10]])
    ones = sparse.COO(coords=[[0], [1]], data=2.0, shape=(1, 3), fill_value=1.0)
    np.testing.assert_array_equal(correct_dot_masks(ones, np.ones(3), [[1]]), [[2, 0, 2]])


@pytest.mark.parametrize(
    ("masks", "gain", "expected"),
    [("f4", "f4", "f4"), ("f4", "f8", "f8"), ("i8", "f4", "f8"), ("u1", "u1", "f4"), ("c8", "f4", "c8")],
)
def test_masks_have_at_least_float32(masks: str, gain: str, expected: str) -> None:
    result = correct_dot_masks(np.ones((1, 3, 3), masks), np.ones((3, 3), gain), [[0], [0]])
    assert result.dtype == np.dtype(expected)


def test_masks_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 4, 5\).*\(5, 5\)"):
        correct_dot_masks(np.ones((2, 4, 5)), np.ones((5, 5)))
    with pytest.raises(RepairValueError):
        correct_dot_masks(np.ones((2, 5, 5)), np.ones((5, 5)), BLOCK)


# --- RepairDescriptor, environments ---------------------------------------------------------------------


def test_descriptor_lists_usable_neighbours_in_row_major_order() -> None:
    descriptor = RepairDescriptor((5, 5), [[1, 1], [1, 2]])
    np.testing.assert_array_equal(descriptor.exclude_flat, [6, 7])
    np.testing.assert_array_equal(descriptor.repair_counts, [7, 7])
    assert descriptor.repair_flat.shape == (2, 8)
    np.testing.assert_array_equal(
        descriptor.repair_flat[:, :7], [[0, 1, 2, 5, 10, 11, 12], [1, 2, 3, 8, 11, 12, 13]]
    )


def test_descriptor_without_excluded_pixels_is_empty() -> None:
    descriptor = RepairDescriptor((5, 5))
    assert descriptor.exclude_flat.shape == (0,)
    assert descriptor.repair_flat.shape == (0, 8)
    assert descriptor.repair_counts.shape == (0,)


def test_descriptor_reports_pixels_without_neighbours() -> None:
    descriptor = RepairDescriptor((5, 5), BLOCK, allow_empty=True)
    np.testing.assert_array_equal(descriptor.empty_repairs().reshape(-1), [0, 1, 3, 4])
    descriptor.check_empty_repairs(allow_empty=True)
    with pytest.raises(RepairValueError, match=r"number \[\[0\]"):
        descriptor.check_empty_repairs(allow_empty=False)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        ([[5], [0]], r"outside of frames of shape \(5, 5\)"),
        ([[0], [-1]], r"outside of frames of shape \(5, 5\)"),
        ([[0, 0, 0]], r"\(1, 3\).*\(2, n\)"),
        ([0, 0], r"\(2,\).*\(2, n\)"),
        ([[0.5], [0.5]], "integer"),
    ],
)
def test_coordinates_that_do_not_fit_the_frame_are_refused(pixels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RepairDescriptor((5, 5), pixels)


def test_environments_are_clipped_to_the_frame_only() -> None:
    positions, counts = environments(np.array([[0, 1], [0, 2]]), (5, 5))
    assert positions.shape == (2, 2, 8)
    np.testing.assert_array_equal(counts, [3, 8])
    np.testing.assert_array_equal(positions[0, :, :3], [[0, 1, 1], [1, 0, 1]])
    np.testing.assert_array_equal(positions[1], [[0, 0, 0, 1, 1, 2, 2, 2], [1, 2, 3, 1, 3, 1, 2, 3]])
