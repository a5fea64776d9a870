"""The centre of mass against formulas."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from libertem.analysis import COMAnalysis
from libertem.analysis.com import COMResultSet
from libertem.api import Context
from libertem.io.dataset.base.dataset import DataSet

Array = np.ndarray[Any, Any]
Load = Callable[..., DataSet]

SHAPE = (4, 5, 9, 12)
REAL_DTYPES = ("u1", "u2", ">u2", "i4", "f4", "f8")


def counts(dtype: str = "u2", shape: tuple[int, ...] = SHAPE) -> Array:
    rng = np.random.default_rng(11)
    data: Array = rng.integers(0, 100, shape).astype(dtype)
    if data.dtype.kind == "c":
        data += (1j * rng.integers(0, 50, shape)).astype(dtype)
    return data


def shifts(data: Array, cy: float, cx: float, mask: Array | float = 1) -> tuple[Array, Array]:
    """Centres of mass relative to (cy, cx); 0 where there is nothing."""
    weights = data.astype("c16" if data.dtype.kind == "c" else "f8") * mask
    y, x = np.mgrid[: data.shape[2], : data.shape[3]]
    total = weights.sum(axis=(2, 3))
    safe = np.where(total == 0, 1, total)
    found_y, found_x = ((weights * axis).sum(axis=(2, 3)) / safe for axis in (y, x))
    return np.where(total == 0, 0, found_y - cy), np.where(total == 0, 0, found_x - cx)


def check(results: Any, y: Array, x: Array) -> None:
    expected = {
        "x": x,
        "y": y,
        "magnitude": np.hypot(y, x),
        "divergence": np.gradient(y, axis=0) + np.gradient(x, axis=1),
        "curl": np.gradient(y, axis=1) - np.gradient(x, axis=0),
    }
    for key, values in expected.items():
        assert results[key].raw_data.dtype == np.float64
        np.testing.assert_allclose(results[key].raw_data, values, rtol=1e-5, atol=1e-5)
    field_x, field_y = results.field.raw_data
    np.testing.assert_array_equal(field_x, results.x.raw_data)
    np.testing.assert_array_equal(field_y, results.y.raw_data)


@pytest.mark.parametrize("dtype", REAL_DTYPES)
def test_all_results_follow_from_the_centre_of_mass(ctx: Context, load: Load, dtype: str) -> None:
    data = counts(dtype)
    data[0, 0] = 0
    results = ctx.run(ctx.create_com_analysis(load(data)))
    assert isinstance(results, COMResultSet)
    assert results.keys() == ["field", "magnitude", "divergence", "curl", "x", "y"]
    check(results, *shifts(data, 4.5, 6))


def test_only_pixels_in_the_ring_count(ctx: Context, load: Load) -> None:
    data = counts()
    y, x = np.mgrid[:9, :12]
    distance = (y - 3.3) ** 2 + (x - 2) ** 2
    for inner, mask in ((None, distance <= 16), (1, (distance <= 16) & (distance > 1))):
        analysis = ctx.create_com_analysis(load(data), cx=2, cy=3.3, mask_radius=4, mask_radius_inner=inner)
        check(ctx.run(analysis), *shifts(data, 3.3, 2, mask))


@pytest.mark.parametrize("flip_y", [False, True])
@pytest.mark.parametrize("angle", [0.0, 33.0, 90.0, -170.0])
def test_the_field_is_flipped_and_then_rotated(ctx: Context, load: Load, angle: float, flip_y: bool) -> None:
    data = counts()
    y, x = shifts(data, 4, 5)
    if flip_y:
        y = -y
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    analysis = ctx.create_com_analysis(load(data), cx=5, cy=4, flip_y=flip_y, scan_rotation=angle)
    check(ctx.run(analysis), y * cos + x * sin, x * cos - y * sin)


def test_a_shift_of_one_pixel_is_seen_as_such(ctx: Context, load: Load) -> None:
    data = np.zeros((3, 3, 9, 9), dtype="u1")
    for i in range(3):
        for j in range(3):
            data[i, j, 3 + i, 3 + j] = 7
    results = ctx.run(ctx.create_com_analysis(load(data), cx=4, cy=4))
    assert results.y.raw_data.tolist() == [[-1] * 3, [0] * 3, [1] * 3]
    assert results.x.raw_data.tolist() == [[-1, 0, 1]] * 3
    assert results.divergence.raw_data.tolist() == [[2] * 3] * 3
    assert results.curl.raw_data.tolist() == [[0] * 3] * 3


def test_outside_of_the_roi_everything_is_nan(ctx: Context, load: Load) -> None:
    data = counts()
    roi = np.zeros(SHAPE[:2], dtype=bool)
    roi[:3, 1:4] = True
    results = ctx.run(ctx.create_com_analysis(load(data)), roi=roi)
    y, x = (np.where(roi, part, np.nan) for part in shifts(data, 4.5, 6))
    check(results, y, x)
    # Gradients in the interior of the ROI exist.
    assert np.isfinite(results.curl.raw_data[1, 2])
    assert results.field.visualized.shape == (4, 5, 3)


@pytest.mark.parametrize("nav_shape", [(1, 20), (20, 1)])
def test_one_line_has_no_gradients(ctx: Context, load: Load, nav_shape: tuple[int, int]) -> None:
    data = counts().reshape((*nav_shape, 9, 12))
    results = ctx.run(ctx.create_com_analysis(load(data)))
    assert results.keys() == ["field", "magnitude", "x", "y"]
    y, x = shifts(data, 4.5, 6)
    np.testing.assert_allclose(results.x.raw_data, x, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(results.magnitude.raw_data, np.hypot(y, x), rtol=1e-5, atol=1e-5)


def test_complex_data_has_complex_shifts(ctx: Context, load: Load) -> None:
    data = counts("c8")
    results = ctx.run(ctx.create_com_analysis(load(data)))
    assert results.keys() == ["x_real", "y_real", "x_imag", "y_imag"]
    y, x = shifts(data, 4.5, 6)
    for key, expected in {"x_real": x.real, "y_real": y.real, "x_imag": x.imag, "y_imag": y.imag}.items():
        np.testing.assert_allclose(results[key].raw_data, expected, rtol=1e-4, atol=1e-4)


def test_parameters_that_make_no_sense_are_refused(ctx: Context, load: Load) -> None:
    ds = load(counts())
    with pytest.raises(ValueError, match="must pass both `mask_radius` and `mask_radius_inner`"):
        ctx.create_com_analysis(ds, mask_radius_inner=1)
    with pytest.raises(ValueError, match="inner radius 3 has to be less than the outer radius 2"):
        ctx.create_com_analysis(ds, mask_radius=2, mask_radius_inner=3)
    with pytest.raises(ValueError, match=r"need two navigation dimensions, found \(20,\)"):
        ctx.create_com_analysis(load(counts(shape=(20, 9, 12))))
    with pytest.raises(ValueError, match=r"need two signal dimensions, found \(108,\)"):
        COMAnalysis(load(counts(shape=(4, 5, 108)), sig_dims=1), {})


@pytest.mark.parametrize(
    "name",
    [
        "GuessResult",
        "apply_correction",
        "center_shifts",
        "com_masks_factory",
        "com_masks_generic",
        "coordinate_check",
        "curl_2d",
        "divergence",
        "guess_corrections",
        "magnitude",
    ],
)
def test_functions_for_fields_are_those_of_the_udf(name: str) -> None:
    found = [
        getattr(importlib.import_module(f"libertem.{path}"), name) for path in ("analysis.com", "udf.com")
    ]
    assert found[0] is found[1]
