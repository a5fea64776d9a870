"""Centre of mass, and the mathematics of vector fields."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given
from hypothesis import strategies as st

from libertem.udf.com import (
    CoMParams,
    CoMUDF,
    GuessResult,
    RegressionOptions,
    apply_correction,
    center_shifts,
    com_masks_factory,
    com_masks_generic,
    coordinate_check,
    curl_2d,
    divergence,
    guess_corrections,
    magnitude,
)

NAMES = [
    "raw_shifts",
    "raw_com",
    "field",
    "field_y",
    "field_x",
    "regression",
    "magnitude",
    "divergence",
    "curl",
]


def points(y: Any, x: Any, sig: tuple[int, int] = (7, 8)) -> Any:
    """Frames with one bright pixel each."""
    frames = np.zeros((*np.shape(y), *sig), dtype=np.float32)
    for place in np.ndindex(*np.shape(y)):
        frames[(*place, int(y[place]), int(x[place]))] = 5
    return frames


def run(ctx: Any, ds: Any, roi: Any = None, **params: Any) -> Any:
    return ctx.run_udf(dataset=ds, udf=CoMUDF.with_params(**params), roi=roi)


# --- results ---


def test_results_have_the_documented_order_kinds_and_dtypes(ctx: Any, ds: Any) -> None:
    result = run(ctx, ds)
    assert list(result) == NAMES
    for name in NAMES:
        buffer = result[name]
        assert buffer.kind == ("single" if name == "regression" else "nav")
        assert buffer.data.dtype == buffer.dtype == np.dtype("f8" if name == "regression" else "f4")
    assert [result[name].extra_shape for name in NAMES[:6]] == [(2,), (2,), (2,), (), (), (3, 2)]
    assert "raw_mask_result" not in result


@pytest.mark.parametrize(("stored", "expected"), [("u2", "f4"), ("i4", "f8"), ("f8", "f8"), ("c8", "c8")])
def test_results_have_at_least_single_precision(
    inline: Any, make_ds: Any, data: Any, stored: str, expected: str
) -> None:
    result = run(inline, make_ds(data.astype(stored)), regression=1)
    assert {result[n].data.dtype for n in NAMES if n != "regression"} == {np.dtype(expected)}


def test_centres_agree_with_scipy(ctx: Any, make_ds: Any) -> None:
    data = np.random.default_rng(0).integers(0, 1000, (4, 5, 13, 18)).astype("u2")
    result = run(ctx, make_ds(data))
    expected = [[scipy.ndimage.center_of_mass(frame.astype("f8")) for frame in row] for row in data]
    np.testing.assert_allclose(result["raw_com"].data, expected, rtol=1e-5)
    # Integer division: 13 // 2, 18 // 2
    np.testing.assert_allclose(result["raw_shifts"].data, np.array(expected) - (6, 9), atol=1e-5)
    np.testing.assert_array_equal(result["field"].data, result["raw_shifts"].data)
    np.testing.assert_array_equal(result["field_y"].data, result["field"].data[..., 0])
    np.testing.assert_array_equal(result["field_x"].data, result["field"].data[..., 1])


@pytest.mark.parametrize(
    "params",
    [{"r": 3.0}, {"r": 4.0, "ri": 2.0}, {"r": 4.0, "ri": None}, {"ri": 2.5}, {"cy": 2.5, "cx": 8, "r": 5}],
)
def test_only_pixels_in_the_disk_or_ring_count(ctx: Any, make_ds: Any, params: Any) -> None:
    data = np.random.default_rng(0).random((3, 3, 12, 11)).astype("f4")
    result = run(ctx, make_ds(data), **params)
    cy, cx = params.get("cy", 6), params.get("cx", 5)
    y, x = np.mgrid[:12, :11]
    d2 = (y - cy) ** 2 + (x - cx) ** 2
    mask = d2 <= params.get("r", np.inf) ** 2
    if params.get("ri"):
        mask &= ~(d2 <= params["ri"] ** 2)
    weights = data * mask
    total = weights.sum(axis=(2, 3))
    com = np.stack([(weights * c).sum(axis=(2, 3)) / total for c in (y, x)], axis=-1)
    np.testing.assert_allclose(result["raw_com"].data, com, rtol=1e-5)
    np.testing.assert_allclose(result["raw_shifts"].data, com - (cy, cx), atol=1e-5)


def test_empty_frames_have_no_shift(ctx: Any, make_ds: Any) -> None:
    result = run(ctx, make_ds(np.zeros((2, 2, 5, 5), dtype="u1")), cy=1, cx=1.5)
    assert (result["raw_shifts"].data == 0).all()
    assert result["raw_com"].data[0, 0].tolist() == [1, 1.5]


def test_blank_positions_have_no_shift(ctx: Any, make_ds: Any) -> None:
    data = points(np.zeros((2, 3)), np.zeros((2, 3)))
    result = run(ctx, make_ds(data, sync_offset=-2))
    assert result["raw_shifts"].data.tolist() == [[[0, 0], [0, 0], [-3, -4]], [[-3, -4]] * 3]
    assert result["raw_shifts"].valid_mask.all()


@pytest.mark.parametrize(
    ("shift", "rotation", "flip", "expected"),
    [
        ((-1, -1), 90, False, (-1, 1)),
        ((-1, 0), 90, False, (0, 1)),
        ((-1, -1), 0, True, (1, -1)),
        ((-1, -1), 90, True, (-1, -1)),
    ],
)
def test_fields_follow_the_worked_examples(
    ctx: Any, make_ds: Any, shift: Any, rotation: float, flip: bool, expected: Any
) -> None:
    data = points(np.full((2, 2), 3 + shift[0]), np.full((2, 2), 4 + shift[1]))
    result = run(ctx, make_ds(data), scan_rotation=rotation, flip_y=flip)
    np.testing.assert_allclose(result["raw_shifts"].data, np.broadcast_to(shift, (2, 2, 2)))
    np.testing.assert_allclose(result["field"].data, np.broadcast_to(expected, (2, 2, 2)), atol=1e-6)


def test_derivatives_follow_the_worked_example(ctx: Any, make_ds: Any) -> None:
    y, x = np.mgrid[:3, :3]
    result = run(ctx, make_ds(points(3 + y - 1, 4 + x - 1)))
    np.testing.assert_array_equal(result["divergence"].data, 2)
    np.testing.assert_array_equal(result["curl"].data, 0)
    np.testing.assert_allclose(result["magnitude"].data, np.hypot(y - 1, x - 1), rtol=1e-6)


def test_everything_is_nan_outside_of_the_roi(ctx: Any, make_ds: Any) -> None:
    y, x = np.mgrid[:5, :6]
    ds = make_ds(points(y, x))
    roi = np.zeros((5, 6), dtype=bool)
    roi[1:4, 1:5] = True
    result = run(ctx, ds, roi=roi, regression=0)
    for name in ("raw_shifts", "raw_com", "field", "field_y", "field_x", "magnitude"):
        data = result[name].data
        assert np.isnan(data[~roi]).all(), name
        assert np.isfinite(data[roi]).all(), name
        np.testing.assert_array_equal(result[name].valid_mask[roi], True)
        assert not result[name].valid_mask[~roi].any()
        assert result[name].raw_data.shape[0] == roi.sum()
    inner = np.zeros((5, 6), dtype=bool)
    inner[2, 2:4] = True
    for name in ("divergence", "curl"):
        np.testing.assert_array_equal(np.isfinite(result[name].data), inner)


def test_an_empty_roi_gives_nan(ctx: Any, ds: Any) -> None:
    for option in RegressionOptions:
        result = run(ctx, ds, roi=np.zeros((2, 3), dtype=bool), regression=option)
        assert np.isnan(result["field"].data).all()
        assert (result["regression"].data == 0).all()


# --- regression ---

FIELD = np.random.default_rng(4).integers(0, 7, (2, 6, 5))
SELECTED = np.random.default_rng(5).random((6, 5)) < 0.7


def shifts_of(field: Any) -> Any:
    return np.moveaxis(field, 0, -1) - (3, 4)


@pytest.mark.parametrize("roi", [None, SELECTED])
@pytest.mark.parametrize("option", [-1, 0, 1, RegressionOptions.SUBTRACT_LINEAR, True, np.int64(1)])
def test_regression_is_subtracted_from_the_field(ctx: Any, make_ds: Any, roi: Any, option: Any) -> None:
    result = run(ctx, make_ds(points(*FIELD)), roi=roi, regression=option)
    mask = np.ones((6, 5), dtype=bool) if roi is None else roi
    shifts = shifts_of(FIELD)[mask].astype(float)
    y, x = np.nonzero(mask)
    coefficients = np.zeros((3, 2))
    if option == 0:
        coefficients[0] = shifts.mean(axis=0)
    elif option == 1:
        coefficients = np.linalg.pinv(np.stack([np.ones(len(y)), y, x], axis=1)) @ shifts
    np.testing.assert_allclose(result["regression"].data, coefficients, atol=1e-6)
    planes = coefficients[0] + np.outer(y, coefficients[1]) + np.outer(x, coefficients[2])
    np.testing.assert_allclose(result["field"].raw_data, shifts - planes, atol=1e-5)
    np.testing.assert_allclose(result["raw_shifts"].raw_data, shifts, atol=1e-5)


def test_given_coefficients_are_subtracted(ctx: Any, make_ds: Any) -> None:
    coefficients = np.array([[1.0, 2.0], [0.5, 0.25], [-1.0, 3.0]])
    result = run(ctx, make_ds(points(*FIELD)), regression=coefficients)
    y, x = np.mgrid[:6, :5]
    expected = shifts_of(FIELD) - np.stack([1 + 0.5 * y - x, 2 + 0.25 * y + 3 * x], axis=-1)
    np.testing.assert_allclose(result["field"].data, expected, atol=1e-5)
    np.testing.assert_array_equal(result["regression"].data, coefficients)


def test_regression_comes_after_the_correction(ctx: Any, make_ds: Any) -> None:
    result = run(ctx, make_ds(points(*FIELD)), regression=0, scan_rotation=33.0, flip_y=True)
    np.testing.assert_allclose(result["field"].data.mean(axis=(0, 1)), 0, atol=1e-5)
    y, x = apply_correction(*np.moveaxis(shifts_of(FIELD), -1, 0), 33.0, True)
    np.testing.assert_allclose(result["regression"].data[0], (y.mean(), x.mean()), atol=1e-6)


@pytest.mark.parametrize("option", [0, 1])
def test_one_frame_with_nan_does_not_spoil_the_regression(ctx: Any, make_ds: Any, option: int) -> None:
    frames = points(*FIELD)
    frames[2, 3, 0, 0] = np.nan
    valid = np.ones((6, 5), dtype=bool)
    valid[2, 3] = False
    result = run(ctx, make_ds(frames), regression=option)
    expected = run(ctx, make_ds(points(*FIELD)), roi=valid, regression=option)
    np.testing.assert_allclose(result["regression"].data, expected["regression"].data, atol=1e-6)
    assert np.isnan(result["field"].data[2, 3]).all()
    np.testing.assert_allclose(result["field"].data[valid], expected["field"].data[valid], atol=1e-5)


@pytest.mark.parametrize("option", [2, -2, np.zeros((2, 3)), None, 1.0])
def test_other_regressions_are_refused_before_the_run(inline: Any, ds: Any, option: Any) -> None:
    with pytest.raises(ValueError, match="regression"):
        run(inline, ds, regression=option)


# --- parameters and subclasses ---


def test_parameters_have_the_documented_defaults() -> None:
    assert CoMParams() == (None, None, np.inf, 0.0, 0.0, False, -1)
    assert [option.value for option in RegressionOptions] == [-1, 0, 1]
    assert CoMUDF()._kwargs == {"com_params": CoMParams()}
    udf = CoMUDF.with_params(cy=1, cx=2, r=3, ri=1, scan_rotation=4, flip_y=True, regression=0)
    assert udf._kwargs == {"com_params": CoMParams(1, 2, 3, 1, 4, True, 0)}


@pytest.mark.parametrize(("r", "ri"), [(2, 3), (2, 2)])
def test_the_inner_radius_has_to_be_smaller(r: float, ri: float) -> None:
    with pytest.raises(ValueError, match="inner radius"):
        CoMUDF.with_params(r=r, ri=ri)


@pytest.mark.parametrize(
    ("shape", "sig_dims"), [((6, 4, 4), 2), ((2, 3, 4), 1), ((2, 2, 3, 4, 4), 2), ((2, 3, 2, 4, 4), 3)]
)
def test_two_dimensions_are_needed(inline: Any, make_ds: Any, shape: Any, sig_dims: int) -> None:
    with pytest.raises(ValueError, match="two navigation and two signal dimensions"):
        run(inline, make_ds(np.ones(shape, dtype="f4"), sig_dims=sig_dims))


class Extended(CoMUDF):
    """Derives another result, and no gradients."""

    def get_result_buffers(self) -> Any:
        return {**super().get_result_buffers(), "angle": self.buffer("nav", use="result_only")}

    def get_field_results(self, field_y: Any, field_x: Any) -> Any:
        assert field_y.shape == field_x.shape == self.meta.dataset_shape.nav.to_tuple()
        return {
            "magnitude": magnitude(field_y, field_x),
            "divergence": np.zeros_like(field_y),
            "curl": np.ones_like(field_y),
            "angle": np.arctan2(field_y, field_x),
        }


def test_subclasses_can_add_results(ctx: Any, make_ds: Any) -> None:
    ds = make_ds(points(*FIELD))
    result = ctx.run_udf(dataset=ds, udf=Extended.with_params(cy=0))
    assert list(result) == [*NAMES, "angle"]
    np.testing.assert_allclose(result["angle"].data, np.arctan2(FIELD[0], FIELD[1] - 4.0), rtol=1e-6)
    np.testing.assert_array_equal(result["curl"].data, 1)
    masked = ctx.run_udf(dataset=ds, udf=Extended.with_params(cy=0), roi=SELECTED)
    np.testing.assert_allclose(masked["angle"].data[SELECTED], result["angle"].data[SELECTED])
    assert np.isnan(masked["angle"].data[~SELECTED]).all()


def test_gradients_need_two_positions_in_each_direction(inline: Any, make_ds: Any) -> None:
    ds = make_ds(points(np.zeros((1, 5)), np.zeros((1, 5))), num_partitions=1)
    with pytest.raises(ValueError, match="at least two scan positions"):
        run(inline, ds)
    assert inline.run_udf(dataset=ds, udf=Extended())["field_y"].data.tolist() == [[-3.0] * 5]


def test_get_params_fills_in_the_centre(inline: Any, make_ds: Any) -> None:
    udf = CoMUDF.with_params(cx=2.5)
    inline.run_udf(dataset=make_ds(points(*FIELD)), udf=udf)
    assert udf.get_params() == CoMParams(cy=3, cx=2.5)


# --- masks ---


def test_mask_factories_make_selection_y_and_x() -> None:
    y, x = np.mgrid[:5, :6]
    disk = (y - 2.0) ** 2 + (x - 3.0) ** 2 <= 1.5**2
    masks = [factory() for factory in com_masks_factory(5, 6, 2.0, 3.0, 1.5)]
    for mask, expected in zip(masks, (disk, y * disk, x * disk), strict=True):
        np.testing.assert_array_equal(mask, expected)
    assert masks[1].dtype == masks[2].dtype == np.float32
    generic = [factory() for factory in com_masks_generic(5, 6, lambda: disk)]
    for mask, other in zip(masks, generic, strict=True):
        np.testing.assert_array_equal(mask, other)


# --- fields ---

components = st.floats(-1e3, 1e3)
angles = st.floats(-720, 720)


@given(components, components, angles, st.booleans())
def test_corrections_can_be_undone(y: float, x: float, angle: float, flip: bool) -> None:
    there = apply_correction(np.array([y]), np.array([x]), angle, flip)
    back = apply_correction(*there, angle, flip, forward=False)
    np.testing.assert_allclose(back, [[y], [x]], atol=1e-9)
    np.testing.assert_allclose(magnitude(*there), np.hypot(y, x), atol=1e-9)


def test_corrections_flip_first_and_then_rotate() -> None:
    c, s = np.cos(np.radians(30)), np.sin(np.radians(30))
    y, x = np.mgrid[:4, :5].astype(float)
    found = apply_correction(y, x, 30, True)
    np.testing.assert_allclose(found, [c * -y + s * x, s * y + c * x])
    np.testing.assert_allclose(apply_correction(y, x, 30, False), [c * y + s * x, -s * y + c * x])


def test_shifts_are_relative_and_zero_for_empty_frames() -> None:
    total, y, x = np.array([0.0, 2]), np.array([1.0, 3]), np.array([1.0, 4])
    np.testing.assert_array_equal(center_shifts(total, y, x, 1.0, 2.0), [[0, 0.5], [0, 0]])
    integers = center_shifts(total.astype(int), y.astype(int), x.astype(int), 1.0, 2.0)
    np.testing.assert_array_equal(integers, [[0, 0.5], [0, 0]])


def test_differential_operators_are_those_of_numpy() -> None:
    y, x = np.random.default_rng(0).random((2, 5, 6))
    np.testing.assert_allclose(
        divergence(y_centers=y, x_centers=x), np.gradient(y)[0] + np.gradient(x)[1], rtol=1e-12
    )
    np.testing.assert_allclose(curl_2d(y_centers=y, x_centers=x), np.gradient(y)[1] - np.gradient(x)[0])
    np.testing.assert_allclose(magnitude(y_centers=y, x_centers=x), np.sqrt(y**2 + x**2))


@pytest.mark.parametrize("roi", [None, np.s_[1:3, 1:4], np.random.default_rng(1).random((5, 6)) < 0.5])
def test_the_check_is_the_curl_at_each_angle(roi: Any) -> None:
    y, x = np.random.default_rng(0).random((2, 5, 6))
    region = np.s_[:-1, :-1] if roi is None else roi
    straight, flipped = coordinate_check(y_centers=y, x_centers=x, roi=roi)
    assert straight.shape == flipped.shape == (360,)
    for angle in (0, 1, 45, 90, 137, 180, 300, 359):
        for found, flip in ((straight, False), (flipped, True)):
            curl = curl_2d(*apply_correction(y, x, angle, flip))[region]
            np.testing.assert_allclose(found[angle], np.sqrt(np.mean(curl**2)), rtol=1e-9)


def attractive_centres() -> Any:
    """Field that points to the nodes of a grid, as that of atoms."""
    y, x = np.mgrid[:48, :48].astype(float)
    fields = []
    for cy in (12.0, 36.0):
        for cx in (12.0, 36.0):
            weight = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 18)
            fields.append((-(y - cy) * weight, -(x - cx) * weight))
    return np.sum(fields, axis=0)


@pytest.mark.parametrize("rotation", [-179, -90, -30, 0, 1, 77, 180])
@pytest.mark.parametrize("flip", [False, True])
def test_corrections_are_guessed(rotation: int, flip: bool) -> None:
    y, x = apply_correction(*attractive_centres(), rotation, flip, forward=False)
    guess = guess_corrections(y + 0.5, x - 0.25)
    assert isinstance(guess, GuessResult)
    assert (guess.scan_rotation, guess.flip_y) == (rotation, flip)
    assert type(guess.scan_rotation) is int
    assert type(guess.flip_y) is bool
    assert (guess.cy, guess.cx) == pytest.approx((0.5, -0.25), abs=1e-2)


def test_guesses_can_be_limited_to_a_region() -> None:
    y, x = attractive_centres()
    y[30:], x[30:] = np.random.default_rng(0).random((2, 18, 48)) * 100
    assert guess_corrections(y, x, roi=np.s_[:28, :40])[:2] == (0, False)
    mask = np.zeros((48, 48), dtype=bool)
    mask[:28] = True
    assert guess_corrections(y, x, roi=mask)[:2] == (0, False)


def test_guesses_ignore_positions_without_data() -> None:
    y, x = apply_correction(*attractive_centres(), 20, True, forward=False)
    y[30:], x[30:] = np.nan, np.nan
    assert guess_corrections(y, x)[:2] == (20, True)
