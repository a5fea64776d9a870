from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import sparse
from hypothesis import given
from hypothesis import strategies as st

from libertem import masks
from libertem.common import arrays

CENTRES = st.floats(-5, 12)
SIZES = st.integers(1, 10)
RADII = st.floats(0, 12)


def pattern(text: str) -> np.ndarray:
    """Rows of 0 and 1, separated by spaces, as a bool array."""
    return np.array([[char == "1" for char in row] for row in text.split()])


def test_circular_example() -> None:
    result = masks.circular(2, 1.5, 6, 5, 1.5)
    assert result.dtype == np.bool_
    np.testing.assert_array_equal(result, pattern("001000 011100 011100 001000 000000"))


@given(CENTRES, CENTRES, SIZES, SIZES, RADII)
def test_circular_holds_the_pixels_within_the_radius(
    cx: float, cy: float, nx: int, ny: int, radius: float
) -> None:
    expected = [[(y - cy) ** 2 + (x - cx) ** 2 <= radius**2 for x in range(nx)] for y in range(ny)]
    np.testing.assert_array_equal(masks.circular(cx, cy, nx, ny, radius), expected)


def test_antialiased_circle_example() -> None:
    result = masks.circular(centerX=2, centerY=1.5, imageSizeX=6, imageSizeY=5, radius=1.5, antialiased=True)
    assert result.dtype == np.float64
    np.testing.assert_allclose(result[0], [0, 0.19722, 0.5, 0.19722, 0, 0], atol=5e-6)
    np.testing.assert_allclose(result[1], [0, 0.88197, 1, 0.88197, 0, 0], atol=5e-6)
    assert result.sum() == pytest.approx(7.3168, abs=5e-5)


def test_the_area_of_an_antialiased_circle_is_that_of_the_disk() -> None:
    result = masks.circular(31.3, 32.8, 64, 64, radius=20, antialiased=True)
    assert result.sum() == pytest.approx(math.pi * 20**2, rel=1e-3)


def test_the_name_for_generated_notebooks_is_the_same_function() -> None:
    assert masks._make_circular_mask is masks.circular


def test_ring_example() -> None:
    result = masks.ring(3, 3, 7, 7, 3, 1.5)
    assert result.dtype == np.bool_
    assert result.sum() == 20
    np.testing.assert_array_equal(result, masks.circular(3, 3, 7, 7, 3) & ~masks.circular(3, 3, 7, 7, 1.5))


def test_antialiased_ring_example() -> None:
    result = masks.ring(3, 3, 7, 7, 3, 1.5, antialiased=True)
    assert result.dtype == np.float64
    assert result.sum() == pytest.approx(21.0449, abs=5e-5)


def test_a_ring_without_hole_lacks_only_the_centre() -> None:
    disk = masks.circular(3, 3, 7, 7, 2)
    disk[3, 3] = False
    np.testing.assert_array_equal(masks.ring(3, 3, 7, 7, 2, 0), disk)


def test_radial_gradient_rises_to_one_at_the_radius() -> None:
    result = masks.radial_gradient(3, 3, 7, 7, 3)
    assert result.dtype == np.float64
    np.testing.assert_allclose(result[3], [1, 2 / 3, 1 / 3, 0, 1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(result[0], [0, 0, 0, 1, 0, 0, 0])
    np.testing.assert_allclose(np.diag(result), np.sqrt(2) / 3 * np.array([0, 2, 1, 0, 1, 2, 0]))


def test_radial_gradient_of_radius_zero_is_zero() -> None:
    np.testing.assert_array_equal(masks.radial_gradient(3, 3, 7, 7, 0), np.zeros((7, 7)))


def test_antialiased_radial_gradient_falls_at_the_rim() -> None:
    result = masks.radial_gradient(3, 3, 7, 7, 3, antialiased=True)
    np.testing.assert_allclose(result[3], [0, 2 / 3, 1 / 3, 0, 1 / 3, 2 / 3, 0])
    np.testing.assert_allclose(result[0, 2], (3 - np.sqrt(10)) / 0.5)
    np.testing.assert_allclose(result[1, 1], (3 - np.sqrt(8)) / 0.5)


def test_radial_gradient_background_subtraction_example() -> None:
    r = [0, 0.5, 1, 1.4, 1.5, 1.75, 2, 2.25, 2.5, 2.75, 3, 3.01]
    expected = [0, 0.25, 0.5, 0.7, 1, 0.5, 0, -0.5, -1, -1, -1, 0]
    np.testing.assert_allclose(masks.radial_gradient_background_subtraction(r, 2, 3), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_radial_gradient_background_subtraction_keeps_shape_and_dtype(dtype: Any) -> None:
    result = masks.radial_gradient_background_subtraction(np.array([[0, 2], [3, 4]], dtype=dtype), 2, 3)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, [[0, 0], [-1, 0]])


def test_radial_gradient_background_subtraction_without_border_is_a_step() -> None:
    result = masks.radial_gradient_background_subtraction([1.0, 1.9, 2.0, 3.0], 2, 3, delta=0)
    np.testing.assert_allclose(result, [0.5, 0.95, -1, -1])


def test_polar_map_example() -> None:
    radius, angle = masks.polar_map(3, 3, 7, 7)
    assert radius.dtype == angle.dtype == np.float64
    assert radius[0, 0] == pytest.approx(4.2426, abs=5e-5)
    assert angle[0, 0] == pytest.approx(-2.3562, abs=5e-5)
    assert angle[3, 6] == 0
    assert angle[6, 3] == pytest.approx(np.pi / 2)


def test_polar_map_stretches_y() -> None:
    radius, _ = masks.polar_map(3, 3, 7, 7, stretchY=2)
    assert (radius[0, 3], radius[3, 0]) == (pytest.approx(1.5), pytest.approx(3))


def test_polar_map_rotates_before_it_stretches() -> None:
    radius, _ = masks.polar_map(3, 3, 7, 7, stretchY=2, angle=np.pi / 2)
    assert (radius[0, 3], radius[3, 0]) == (pytest.approx(3), pytest.approx(1.5))


@given(CENTRES, CENTRES, st.floats(0.1, 10), st.floats(-7, 7))
def test_polar_map_agrees_with_its_formula(cx: float, cy: float, stretch: float, angle: float) -> None:
    radius, phi = masks.polar_map(cx, cy, 5, 4, stretchY=stretch, angle=angle)
    for y in range(4):
        for x in range(5):
            dy = ((y - cy) * math.cos(angle) - (x - cx) * math.sin(angle)) / stretch
            dx = (y - cy) * math.sin(angle) + (x - cx) * math.cos(angle)
            assert radius[y, x] == pytest.approx(math.hypot(dy, dx))
            # As vectors: angles near pi and -pi are neighbours.
            assert radius[y, x] * math.sin(phi[y, x]) == pytest.approx(dy, abs=1e-9)
            assert radius[y, x] * math.cos(phi[y, x]) == pytest.approx(dx, abs=1e-9)


@pytest.mark.parametrize("angle", [0, 0.5, np.pi, -3])
def test_the_angle_at_the_centre_is_zero(angle: float) -> None:
    assert masks.polar_map(3, 3, 7, 7, stretchY=2, angle=angle)[1][3, 3] == 0


def test_balance_example() -> None:
    np.testing.assert_allclose(masks.balance([[1, 2, -1], [0, -2, 3]]), [[1, 2, -2], [0, -4, 3]])


def test_balance_makes_a_copy_of_the_same_float_dtype() -> None:
    template = np.array([1, -1, 3], dtype=np.float32)
    result = masks.balance(template)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, [1, -4, 3])
    np.testing.assert_array_equal(template, [1, -1, 3])


def test_balance_without_negative_entries_changes_nothing() -> None:
    np.testing.assert_array_equal(masks.balance([[0.0, 2.0]]), [[0, 2]])


@pytest.mark.parametrize(
    ("args", "radius"),
    [((3, 3, 7, 7), 7), ((0, 0, 7, 7), 11), ((3.5, 3.5, 7, 7), 6), ((-2, 3, 7, 7), 11)],
)
def test_bounding_radius_examples(args: tuple[float, float, int, int], radius: int) -> None:
    result = masks.bounding_radius(*args)
    assert result == radius
    assert type(result) is int


@given(st.floats(0, 9), st.floats(0, 9))
def test_the_bounding_radius_covers_the_image(cx: float, cy: float) -> None:
    assert masks.circular(cx, cy, 10, 10, masks.bounding_radius(cx, cy, 10, 10)).all()


def test_background_subtraction_example() -> None:
    result = masks.background_subtraction(3, 3, 7, 7, 3, 1.5)
    assert result.dtype == np.float64
    values, counts = np.unique(result.round(12), return_counts=True)
    np.testing.assert_allclose(values, [-0.45, 0, 1])
    np.testing.assert_array_equal(counts, [20, 20, 9])


@pytest.mark.parametrize("antialiased", [False, True])
def test_background_subtraction_sums_to_zero(antialiased: bool) -> None:
    result = masks.background_subtraction(4.2, 3.7, 12, 11, 3.3, 1.9, antialiased=antialiased)
    assert result.sum() == pytest.approx(0, abs=1e-12)


def test_background_subtraction_without_ring_subtracts_nothing() -> None:
    result = masks.background_subtraction(3, 3, 7, 7, 1, 1)
    np.testing.assert_array_equal(result, masks.circular(3, 3, 7, 7, 1).astype(float))


@pytest.mark.parametrize(
    ("args", "rows"),
    [
        ((1, 1, 2, 1, 5, 4), "00000 01110 01110 00000"),
        ((3, 2, -2, 1, 5, 4), "00000 00000 01110 01110"),
        ((1, 1, 0, 1, 5, 4), "00000 00000 00000 00000"),
        ((1, 1, 1, 0, 5, 4), "00000 00000 00000 00000"),
        ((-2, -2, 4, 4, 5, 4), "11100 11100 11100 00000"),
        ((10, 10, -8, -8, 5, 4), "00000 00000 00111 00111"),
        ((10, 10, 2, 2, 5, 4), "00000 00000 00000 00000"),
        ((-3, -3, 1, -7, 5, 4), "00000 00000 00000 00000"),
        ((1.7, 1.7, 2.5, 1.9, 5, 4), "00000 01111 01111 01111"),
        ((3, 2, -2.5, -1.2, 5, 4), "11110 11110 11110 00000"),
    ],
    ids=str,
)
def test_rectangular_examples(args: tuple[float, float, float, float, int, int], rows: str) -> None:
    result = masks.rectangular(*args)
    assert result.dtype == np.bool_
    np.testing.assert_array_equal(result, pattern(rows))


@given(*[st.integers(-15, 15)] * 4, SIZES, SIZES)
def test_rectangular_includes_both_corners(x: int, y: int, width: int, height: int, nx: int, ny: int) -> None:
    rows = range(min(y, y + height), max(y, y + height) + 1)
    columns = range(min(x, x + width), max(x, x + width) + 1)
    expected = [[bool(width and height) and i in rows and j in columns for j in range(nx)] for i in range(ny)]
    np.testing.assert_array_equal(masks.rectangular(x, y, width, height, nx, ny), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
def test_gradients_hold_the_pixel_coordinates(dtype: Any) -> None:
    x, y = masks.gradient_x(3, 2, dtype=dtype), masks.gradient_y(3, 2, dtype=dtype)
    assert x.dtype == y.dtype == dtype
    np.testing.assert_array_equal(x, [[0, 1, 2], [0, 1, 2]])
    np.testing.assert_array_equal(y, [[0, 0, 0], [1, 1, 1]])


def test_gradients_are_float32_by_default() -> None:
    assert masks.gradient_x(3, 2).dtype == masks.gradient_y(3, 2).dtype == np.float32


def test_templates_are_stamped_cut_and_added() -> None:
    template = np.array([[1.0, 2.0], [3.0, 4.0]])
    result = masks.sparse_template_multi_stack([0, 0, 1], [0, 1, 4], [0, 0, -1], template, 5, 4)
    expected = np.zeros((2, 4, 5))
    expected[0, :2, :3] = [[1, 3, 2], [3, 7, 4]]
    expected[1, 0, 4] = 3
    assert isinstance(result, sparse.COO)
    np.testing.assert_array_equal(result.todense(), expected)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.float32, np.complex64])
def test_stamped_masks_have_the_dtype_of_the_template(dtype: Any) -> None:
    result = masks.sparse_template_multi_stack([0, 0], [1, 1], [0, 0], np.ones((2, 2), dtype=dtype), 5, 4)
    assert result.dtype == dtype
    assert result.todense()[0, 0, 1] == (True if dtype is np.bool_ else 2)


def test_the_template_may_be_sparse() -> None:
    template = np.array([[0, 2], [3, 0]])
    args = ([0, 1], [0, 3], [1, 2])
    np.testing.assert_array_equal(
        masks.sparse_template_multi_stack(*args, masks.to_sparse(template), 5, 4).todense(),
        masks.sparse_template_multi_stack(*args, template, 5, 4).todense(),
    )


def test_masks_without_stamps_are_empty() -> None:
    result = masks.sparse_template_multi_stack([0, 2], [0, 10], [0, 0], np.ones((2, 2)), 5, 4)
    np.testing.assert_array_equal(result.todense().sum(axis=(1, 2)), [4, 0, 0])
    assert masks.sparse_template_multi_stack([], [], [], np.ones((2, 2)), 5, 4).shape == (0, 4, 5)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.floats(-4, 9), st.floats(-4, 9)), min_size=1, max_size=4),
    st.floats(0, 4),
)
def test_stamped_circles_are_circles_around_truncated_centres(
    stamps: list[tuple[int, float, float]], radius: float
) -> None:
    index, x, y = zip(*stamps, strict=True)
    expected = np.zeros((max(index) + 1, 6, 7), dtype=bool)
    for i, cx, cy in stamps:
        expected[i] |= masks.circular(int(cx), int(cy), 7, 6, radius)
    result = masks.sparse_circular_multi_stack(index, x, y, 7, 6, radius)
    assert result.dtype == np.bool_
    np.testing.assert_array_equal(result.todense(), expected)


def test_the_sparse_helpers_are_handed_on() -> None:
    for name in ("is_sparse", "to_dense", "to_sparse"):
        assert getattr(masks, name) is getattr(arrays, name)


def test_drawing_dense_masks_loads_no_sparse_package() -> None:
    script = """
import sys
from libertem import masks
masks.circular(3, 3, 7, 7, 2, antialiased=True), masks.radial_bins(3, 3, 7, 7), masks.polar_map(3, 3, 7, 7)
loaded = {"scipy", "sparse", "sparseconverter", "numba"} & set(sys.modules)
sys.exit(f"loaded {sorted(loaded)}" if loaded else 0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
