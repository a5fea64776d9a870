from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libertem import utils
from libertem.utils import geometry

NUMBERS = st.floats(-100, 100)
POINTS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=5).map(np.array)


def test_the_face_shows_all_functions() -> None:
    assert utils.__all__ == geometry.__all__
    for name in utils.__all__:
        assert getattr(utils, name) is getattr(geometry, name)


def test_polar_coordinates_of_known_points() -> None:
    np.testing.assert_allclose(
        utils.make_polar([[1, 0], [0, 2], [-1, -1]]),
        [[1, np.pi / 2], [2, 0], [np.sqrt(2), -0.75 * np.pi]],
    )


def test_cartesian_coordinates_of_known_points() -> None:
    np.testing.assert_allclose(utils.make_cartesian([[1, np.pi / 2], [2, 0]]), [[1, 0], [0, 2]], atol=1e-12)


@given(POINTS)
def test_polar_coordinates_lead_back(points: np.ndarray) -> None:
    np.testing.assert_allclose(utils.make_cartesian(utils.make_polar(points)), points, atol=1e-9)


@pytest.mark.parametrize("shape", [(2,), (1, 2), (3, 4, 2)])
def test_leading_axes_are_kept(shape: tuple[int, ...]) -> None:
    assert utils.make_polar(np.ones(shape)).shape == shape
    assert utils.make_cartesian(np.ones(shape)).shape == shape


def test_rotation_by_a_right_angle() -> None:
    np.testing.assert_allclose(utils.rotate_deg(1.0, 2.0, 90), (2, -1))


def test_rotation_by_30_degrees() -> None:
    y, x = utils.rotate_deg(np.array([1, 0]), np.array([0, 1]), 30)
    np.testing.assert_allclose(y, [np.sqrt(3) / 2, 0.5])
    np.testing.assert_allclose(x, [-0.5, np.sqrt(3) / 2])


@given(NUMBERS, NUMBERS, st.floats(-10, 10))
def test_rotation_is_multiplication_with_a_complex_number(y: float, x: float, angle: float) -> None:
    expected = (x + 1j * y) * np.exp(1j * angle)
    np.testing.assert_allclose(utils.rotate_rad(y, x, angle), (expected.imag, expected.real), atol=1e-9)


def test_degrees_are_radians() -> None:
    np.testing.assert_allclose(utils.rotate_deg(1, 2, 180 / np.pi), utils.rotate_rad(1, 2, 1))


def test_a_list_of_pairs_is_regular() -> None:
    pairs = [(0, 0), (1, 1), (2, 2)]
    np.testing.assert_array_equal(utils.regularize_indices(pairs), pairs)
    np.testing.assert_array_equal(utils.regularize_indices(pairs[:2]), pairs[:2])


def test_a_grid_becomes_a_list_of_pairs() -> None:
    np.testing.assert_array_equal(
        utils.regularize_indices(np.mgrid[-1:1, 0:3]),
        [[-1, 0], [0, 0], [-1, 1], [0, 1], [-1, 2], [0, 2]],
    )


@pytest.mark.parametrize("shape", [(2, 9), (3, 3), (3, 2, 2), (2,)])
def test_indices_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="found"):
        utils.regularize_indices(np.zeros(shape))


def test_coordinates_are_origin_plus_multiples_of_the_basis() -> None:
    result = utils.calc_coords([5, 6], [1, 2], [3, -1], [[0, 0], [1, 0], [2, -1]])
    np.testing.assert_array_equal(result, [[5, 6], [6, 8], [4, 11]])


def test_the_margin_counts_from_the_border() -> None:
    peaks = [[0, 0], [2, 2], [1.9, 5], [7, 8], [8, 8], [9, 5], [7, 9]]
    np.testing.assert_array_equal(
        utils.within_frame(peaks, 2, 10, 11), [False, True, False, True, False, False, False]
    )


@pytest.mark.parametrize(
    "indices", [np.mgrid[-2:3, -2:3], [(i, j) for j in range(-2, 3) for i in range(-2, 3)]]
)
def test_peaks_outside_are_left_out(indices: Any) -> None:
    found, peaks = utils.frame_peaks(10, 11, (5, 5), (3, 0), (0, 3), 2, indices)
    np.testing.assert_array_equal(found, [[-1, -1], [0, -1], [-1, 0], [0, 0], [-1, 1], [0, 1]])
    np.testing.assert_array_equal(peaks, [[2, 2], [5, 2], [2, 5], [5, 5], [2, 8], [5, 8]])
