from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libertem.corrections.coordinates import (
    flip_x,
    flip_y,
    identity,
    rotate,
    rotate_deg,
    scale,
    scale_rotate_flip_y,
)


def test_identity_is_the_unit_matrix() -> None:
    np.testing.assert_array_equal(identity(), [[1, 0], [0, 1]])


def test_scale_acts_on_both_axes() -> None:
    np.testing.assert_array_equal(scale(3) @ (1, 2), [3, 6])


def test_flips_change_the_sign_of_their_axis() -> None:
    np.testing.assert_array_equal(flip_y() @ (1, 2), [-1, 2])
    np.testing.assert_array_equal(flip_x() @ (1, 2), [1, -2])


def test_rotation_matrix_has_the_documented_signs() -> None:
    half = math.sqrt(3) / 2
    np.testing.assert_allclose(rotate_deg(30), [[half, 0.5], [-0.5, half]])
    np.testing.assert_allclose(rotate(math.pi / 6), rotate_deg(30))


def test_documented_decomposition() -> None:
    factor, angle, flip = scale_rotate_flip_y(scale(2) @ rotate_deg(30) @ flip_y())
    assert factor == pytest.approx(2)
    assert angle == pytest.approx(0.5235987755982988)
    assert flip is True


@given(
    st.floats(1e-9, 1e9),
    st.floats(-3.14, 3.14),
    st.booleans(),
    st.sampled_from([np.float32, np.float64]),
)
def test_decomposition_finds_what_was_composed(
    factor: float, angle: float, flip: bool, dtype: type[np.floating]
) -> None:
    sign = -1 if flip else 1
    cos, sin = math.cos(angle), math.sin(angle)
    matrix = factor * np.array([[sign * cos, sin], [sign * -sin, cos]])
    found = scale_rotate_flip_y(matrix.astype(dtype))
    assert found[0] == pytest.approx(factor, rel=1e-6)
    assert found[1] == pytest.approx(angle, abs=1e-6)
    assert found[2] is flip


@pytest.mark.parametrize("matrix", [np.diag((1.0, 2.0)), np.zeros((2, 2)), np.full((2, 2), np.nan)])
def test_unequal_or_absurd_scales_are_refused(matrix: np.ndarray) -> None:
    with pytest.raises(ValueError, match="scale"):
        scale_rotate_flip_y(matrix)


def test_shear_is_refused() -> None:
    with pytest.raises(ValueError, match="shear"):
        scale_rotate_flip_y(np.array([[0.6, 0.0], [0.8, 1.0]]))


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(3, 3\)"):
        scale_rotate_flip_y(np.eye(3))
