"""Analyses against formulas: sums, single frames, and virtual detectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.analysis.conftest import REAL_DTYPES, SHAPE, Array, Load, counts, some_positions, squared_distance

from libertem.analysis import (
    DiskMaskAnalysis,
    PointMaskAnalysis,
    RingMaskAnalysis,
    SDAnalysis,
    SumAnalysis,
    SumSigAnalysis,
)
from libertem.analysis.masks import MasksResultSet, SingleMaskResultSet
from libertem.analysis.raw import PickResultSet
from libertem.analysis.sum import SumResultSet
from libertem.api import Context
from libertem.io.corrections import CorrectionSet
from libertem.io.dataset.memory import MemoryDataSet

COMPLEX_SUM_KEYS = [
    "intensity_lin",
    "intensity",
    "intensity_real",
    "intensity_imag",
    "intensity_angle",
    "intensity_complex",
]
COMPLEX_MASK_KEYS = ["intensity", "intensity_log", *COMPLEX_SUM_KEYS[2:]]


def exact(data: Array) -> Array:
    """The same numbers, for formulas."""
    return data.astype("c16" if data.dtype.kind == "c" else "f8")


def outside_is_nan(expected: Array, roi: Array | None) -> Array:
    if roi is None:
        return expected
    return np.where(roi, expected, np.nan)


def check_complex(results: Any, expected: Array) -> None:
    """The six views of complex numbers."""
    for name, part in {
        "real": expected.real,
        "imag": expected.imag,
        "angle": np.angle(expected),
        "complex": expected,
    }.items():
        np.testing.assert_allclose(results[f"intensity_{name}"].raw_data, part, rtol=1e-5, atol=1e-3)
    for key in results.keys()[:2]:
        np.testing.assert_allclose(results[key].raw_data, np.abs(expected), rtol=1e-5)


# --- sums over frames ---


@pytest.mark.parametrize("roi", [None, some_positions()], ids=["all", "roi"])
@pytest.mark.parametrize("dtype", REAL_DTYPES)
def test_the_sum_of_frames_is_exact(ctx: Context, load: Load, dtype: str, roi: Array | None) -> None:
    data = counts(dtype)
    results = ctx.run(ctx.create_sum_analysis(load(data)), roi=roi)
    assert isinstance(results, SumResultSet)
    assert results.keys() == ["intensity", "intensity_lin"]
    expected = exact(data)[slice(None) if roi is None else roi].reshape((-1, *SHAPE[2:])).sum(axis=0)
    for result in results:
        assert result.raw_data.tolist() == expected.tolist()
        assert result.raw_data.dtype == (np.float64 if dtype in ("f8", "i4") else np.float32)


@pytest.mark.parametrize("dtype", ["c8", "c16"])
def test_the_sum_of_complex_frames_has_six_views(ctx: Context, load: Load, dtype: str) -> None:
    data = counts(dtype)
    results = ctx.run(ctx.create_sum_analysis(load(data)))
    assert results.keys() == COMPLEX_SUM_KEYS
    assert results.intensity_complex.raw_data.dtype == dtype
    check_complex(results, exact(data).sum(axis=(0, 1)))


def test_half_precision_stays_as_it_is(ctx: Context) -> None:
    data = np.ones((2, 3, 4, 4), dtype=np.float16)
    results = ctx.run(ctx.create_sum_analysis(MemoryDataSet(data=data, sig_dims=2)))
    assert results.intensity.raw_data.dtype == np.float16
    assert results.intensity.raw_data.tolist() == [[6] * 4] * 4


@pytest.mark.parametrize("dtype", REAL_DTYPES)
def test_the_standard_deviation_is_that_of_the_population(ctx: Context, load: Load, dtype: str) -> None:
    data, roi = counts(dtype), some_positions()
    results = ctx.run(SDAnalysis(load(data), {}), roi=roi)
    assert results.keys() == ["intensity", "intensity_lin"]
    np.testing.assert_allclose(results.intensity.raw_data, exact(data)[roi].std(axis=0), rtol=1e-12)


# --- sums over pixels ---


@pytest.mark.parametrize("dtype", REAL_DTYPES)
def test_the_sum_of_pixels_has_the_shape_of_the_scan(ctx: Context, load: Load, dtype: str) -> None:
    data, roi = counts(dtype), some_positions()
    for given in (None, roi):
        (result,) = ctx.run(SumSigAnalysis(load(data), {}), roi=given)
        assert result.key == "intensity"
        np.testing.assert_array_equal(result.raw_data, outside_is_nan(exact(data).sum(axis=(2, 3)), given))


def test_the_sum_of_complex_pixels_has_six_views(ctx: Context, load: Load) -> None:
    data = counts("c8")
    results = ctx.run(SumSigAnalysis(load(data), {}))
    assert results.keys() == COMPLEX_MASK_KEYS
    check_complex(results, exact(data).sum(axis=(2, 3)))


def disk(cy: float, cx: float, r: float) -> Array:
    return squared_distance(cy, cx) <= r**2


def ring(cy: float, cx: float, ri: float, ro: float) -> Array:
    distance = squared_distance(cy, cx)
    return (distance <= ro**2) & ~(distance <= ri**2)


def point(y: int, x: int) -> Array:
    mask = np.zeros(SHAPE[2:], dtype=bool)
    mask[y, x] = True
    return mask


DETECTORS: list[tuple[str, dict[str, Any], Array]] = [
    ("disk", {}, disk(4.5, 6, 0.15 * 9)),
    ("disk", {"cx": 1.5, "cy": -1, "r": 4.2}, disk(-1, 1.5, 4.2)),
    ("disk", {"cx": 3, "cy": 2, "r": 0}, disk(2, 3, 0)),
    ("ring", {}, ring(4.5, 6, 0.8 * 4.5, 4.5)),
    ("ring", {"ro": 4}, ring(4.5, 6, 3.2, 4)),
    ("ring", {"cx": 1.5, "cy": 10, "ri": 1, "ro": 7.2}, ring(10, 1.5, 1, 7.2)),
    ("point", {}, point(4, 6)),
    ("point", {"x": 10, "y": 8}, point(8, 10)),
    ("point", {"x": 1.9, "y": 0.2}, point(0, 1)),
]


@pytest.mark.parametrize("roi", [None, some_positions()], ids=["all", "roi"])
@pytest.mark.parametrize("dtype", REAL_DTYPES)
@pytest.mark.parametrize(("name", "arguments", "mask"), DETECTORS)
def test_a_virtual_detector_adds_up_its_pixels(
    ctx: Context,
    load: Load,
    name: str,
    arguments: dict[str, Any],
    mask: Array,
    dtype: str,
    roi: Array | None,
) -> None:
    data = counts(dtype)
    analysis = getattr(ctx, f"create_{name}_analysis")(load(data), **arguments)
    results = ctx.run(analysis, roi=roi)
    assert isinstance(results, SingleMaskResultSet)
    assert results.keys() == ["intensity", "intensity_log"]
    expected = outside_is_nan((exact(data) * mask).sum(axis=(2, 3)), roi)
    for result in results:
        # The numbers are small enough that all sums are exact.
        np.testing.assert_array_equal(result.raw_data, expected)
        assert result.raw_data.dtype == (np.float64 if dtype in ("f8", "i4") else np.float32)


def test_a_virtual_detector_has_six_views_of_complex_data(ctx: Context, load: Load) -> None:
    data = counts("c8")
    results = ctx.run(ctx.create_disk_analysis(load(data), cx=5, cy=4, r=3))
    assert results.keys() == COMPLEX_MASK_KEYS
    assert results.intensity_complex.raw_data.dtype == np.complex64
    check_complex(results, (exact(data) * disk(4, 5, 3)).sum(axis=(2, 3)))


def test_a_virtual_detector_works_with_any_scan(ctx: Context, load: Load) -> None:
    for nav_shape in ((20,), (2, 2, 5), (1, 1, 4, 5)):
        data = counts(shape=(*nav_shape, 9, 12))
        found = ctx.run(ctx.create_disk_analysis(load(data), r=3)).intensity
        assert found.raw_data.tolist() == (data * disk(4.5, 6, 3)).sum(axis=(-2, -1)).tolist()
        assert found.visualized.shape == (*nav_shape, 4)


def test_corrections_are_applied(ctx: Context, load: Load) -> None:
    data, dark = counts("u2"), np.arange(108.0).reshape(SHAPE[2:])
    analysis = ctx.create_disk_analysis(load(data), cx=5, cy=4, r=3)
    results = ctx.run(analysis, corrections=CorrectionSet(dark=dark, gain=np.full_like(dark, 2)))
    expected = ((data - dark) * 2 * disk(4, 5, 3)).sum(axis=(2, 3))
    np.testing.assert_allclose(results.intensity.raw_data, expected, rtol=1e-6)


def test_threads_give_the_same(contexts: dict[str, Context], load: Load) -> None:
    ds = load(counts())
    found = [c.run(c.create_ring_analysis(ds)).intensity.raw_data.tolist() for c in contexts.values()]
    assert found[0] == found[1]


def test_detectors_need_frames_of_two_dimensions(ctx: Context, load: Load) -> None:
    spectra = load(counts(shape=(4, 5, 108)), sig_dims=1)
    for name in ("disk", "ring", "point"):
        with pytest.raises(ValueError, match=r"need two signal dimensions, found \(108,\)"):
            getattr(ctx, f"create_{name}_analysis")(spectra)
    with pytest.raises(ValueError, match="at most two navigation dimensions"):
        ctx.create_point_analysis(load(counts(shape=(2, 2, 5, 9, 12))))


@pytest.mark.parametrize(("x", "y"), [(12, 0), (0, 9), (-1, 0)])
def test_a_point_has_to_be_a_pixel(ctx: Context, load: Load, x: int, y: int) -> None:
    with pytest.raises(ValueError, match=f"pixel x={x} y={y} is outside of frames of 12 by 9"):
        ctx.create_point_analysis(load(counts()), x=x, y=y)


def test_other_packages_take_only_the_udf(ctx: Context, load: Load) -> None:
    data = counts()
    ds = load(data)
    for analysis, mask in (
        (DiskMaskAnalysis(ds, {"cx": 5, "cy": 4, "r": 2}), disk(4, 5, 2)),
        (RingMaskAnalysis(ds, {"cx": 5, "cy": 4, "ri": 2, "ro": 3.5}), ring(4, 5, 2, 3.5)),
        (PointMaskAnalysis(ds, {"cx": 5, "cy": 4, "r": 2, "shape": "point"}), point(4, 5)),
    ):
        buffers = ctx.run_udf(dataset=ds, udf=analysis.get_udf())
        assert list(buffers) == ["intensity"]
        assert np.squeeze(buffers["intensity"].data).tolist() == (data * mask).sum(axis=(2, 3)).tolist()


# --- masks of the user ---


@pytest.mark.parametrize("dtype", REAL_DTYPES)
def test_each_mask_has_its_result(ctx: Context, load: Load, dtype: str) -> None:
    data, roi = counts(dtype), some_positions()
    weights = [np.ones(SHAPE[2:]), np.linspace(-1, 1, 108).reshape(SHAPE[2:])]
    analysis = ctx.create_mask_analysis([lambda: weights[0], lambda: weights[1]], load(data))
    for given in (None, roi):
        results = ctx.run(analysis, roi=given)
        assert isinstance(results, MasksResultSet)
        assert results.keys() == ["mask_0", "mask_1"]
        for result, mask in zip(results, weights, strict=True):
            expected = outside_is_nan((exact(data) * mask).sum(axis=(2, 3)), given)
            np.testing.assert_allclose(result.raw_data, expected, rtol=1e-5, atol=1e-3)


def test_a_function_may_return_a_stack(ctx: Context, load: Load) -> None:
    data = counts()
    stack = np.stack([disk(4, 4, 2), disk(4, 8, 2), disk(4, 6, 9)])
    for use_sparse in (None, True, False):
        analysis = ctx.create_mask_analysis(
            lambda: stack, load(data), use_sparse=use_sparse, mask_count=3, mask_dtype="f4"
        )
        results = ctx.run(analysis)
        found = [result.raw_data for result in results]
        np.testing.assert_array_equal(found, np.einsum("abij,nij->nab", data, stack))
        assert all(part.dtype == np.float32 for part in found)


def test_the_dtype_of_reading_can_be_chosen(ctx: Context, load: Load) -> None:
    analysis = ctx.create_mask_analysis(
        [lambda: np.ones(SHAPE[2:])], load(counts()), mask_dtype="f4", dtype="f8"
    )
    assert ctx.run(analysis).mask_0.raw_data.dtype == np.float64


def test_complex_masks_have_six_views_each(ctx: Context, load: Load) -> None:
    data = counts()
    mask = np.exp(1j * np.linspace(0, 3, 108)).reshape(SHAPE[2:]).astype("c8")
    results = ctx.run(ctx.create_mask_analysis([lambda: mask, lambda: mask], load(data)))
    names = ["mask_0", "mask_0_log", "mask_0_real", "mask_0_imag", "mask_0_angle", "mask_0_complex"]
    assert results.keys() == names + [name.replace("0", "1") for name in names]
    expected = (data * mask.astype("c16")).sum(axis=(2, 3))
    np.testing.assert_allclose(results.mask_1_complex.raw_data, expected, rtol=1e-5)
    np.testing.assert_allclose(results.mask_0.raw_data, np.abs(expected), rtol=1e-5)


# --- one frame ---


@pytest.mark.parametrize("dtype", [*REAL_DTYPES, "c8"])
def test_a_frame_is_picked_as_it_is(ctx: Context, load: Load, dtype: str) -> None:
    data = counts(dtype)
    results = ctx.run(ctx.create_pick_analysis(load(data), x=3, y=2))
    assert isinstance(results, PickResultSet)
    if dtype == "c8":
        assert results.keys() == COMPLEX_SUM_KEYS
        check_complex(results, exact(data)[2, 3])
    else:
        assert results.keys() == ["intensity", "intensity_lin"]
        assert results.intensity.raw_data.dtype == np.dtype(dtype).newbyteorder("=")
        assert results.intensity.raw_data.tolist() == data[2, 3].tolist()


def test_coordinates_are_x_first(ctx: Context, load: Load) -> None:
    data = counts()
    for nav_shape, position in (((20,), {"x": 9}), ((2, 2, 5), {"x": 4, "y": 1, "z": 0})):
        ds = load(data.reshape((*nav_shape, 9, 12)))
        result = ctx.run(ctx.create_pick_analysis(ds, **position)).intensity
        assert result.raw_data.tolist() == data.reshape((20, 9, 12))[9].tolist()
    assert result.desc == "the frame at x=4 y=1 z=0 log-scaled"


@pytest.mark.parametrize(
    ("shape", "position", "message"),
    [
        (
            (4, 5),
            {"x": 1, "y": 0, "z": 0},
            "Need x, y and not z to index 2D dataset, received z=0, y=0, x=1",
        ),
        ((4, 5), {"x": 1}, "Need x, y and not z to index 2D dataset, received z=None, y=None, x=1"),
        ((20,), {"x": 1, "y": 1}, "Need x, not y and not z to index 1D dataset, received z=None, y=1, x=1"),
        ((2, 2, 5), {"x": 1, "y": 1}, "to index 3D dataset, received z=None, y=1, x=1"),
        ((1, 2, 2, 5), {"x": 1, "y": 1, "z": 1}, "one, two or three navigation dimensions, found 4"),
        ((4, 5), {"x": 5, "y": 0}, r"position \(0, 5\) is outside of the scan \(4, 5\)"),
        ((4, 5), {"x": 0, "y": -1}, r"position \(-1, 0\) is outside"),
    ],
)
def test_a_position_has_to_exist(
    ctx: Context, load: Load, shape: tuple[int, ...], position: dict[str, int], message: str
) -> None:
    analysis = ctx.create_pick_analysis(load(counts(shape=(*shape, 9, 12))), **position)
    with pytest.raises(ValueError, match=message):
        ctx.run(analysis)


def test_a_frame_of_another_roi_can_be_shown(ctx: Context, load: Load) -> None:
    data = counts()
    analysis = ctx.create_pick_analysis(load(data), x=0, y=0)
    assert ctx.run(analysis, roi=some_positions()).intensity.raw_data.tolist() == data[0, 1].tolist()
    with pytest.raises(ValueError, match="selects no frame"):
        ctx.run(analysis, roi=np.zeros(SHAPE[:2], dtype=bool))


# --- ROI as parameter ---


def test_an_analysis_can_have_its_own_roi(ctx: Context, load: Load) -> None:
    data = counts()
    where = {"roi": {"shape": "disk", "cx": 2, "cy": 1, "r": 1.5}}
    roi = squared_distance(1, 2, SHAPE[:2]) <= 1.5**2
    ds = load(data)
    total = ctx.run(SumAnalysis(ds, where)).intensity.raw_data
    assert total.tolist() == data[roi].sum(axis=0).tolist()
    detector = ctx.run(DiskMaskAnalysis(ds, {"r": 3, **where})).intensity.raw_data
    np.testing.assert_array_equal(
        detector, outside_is_nan((data * disk(4.5, 6, 3)).sum(axis=(2, 3)).astype("f8"), roi)
    )
    # One that is given to the run comes first.
    assert ctx.run(SumAnalysis(ds, where), roi=(1, 2)).intensity.raw_data.tolist() == data[1, 2].tolist()


def test_nothing_selected_gives_zeros(ctx: Context, load: Load) -> None:
    empty = np.zeros(SHAPE[:2], dtype=bool)
    ds = load(counts())
    assert not ctx.run(ctx.create_sum_analysis(ds), roi=empty).intensity.raw_data.any()
    assert np.isnan(ctx.run(ctx.create_disk_analysis(ds), roi=empty).intensity.raw_data).all()
