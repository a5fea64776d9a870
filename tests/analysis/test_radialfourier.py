"""Fourier components along rings, against formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from libertem.analysis import RadialFourierAnalysis
from libertem.analysis.radialfourier import RadialFourierResultSet
from libertem.api import Context
from libertem.io.dataset.base.dataset import DataSet

Array = np.ndarray[Any, Any]
Load = Callable[..., DataSet]

SHAPE = (4, 5, 9, 12)


def counts(dtype: str = "u2", shape: tuple[int, ...] = SHAPE) -> Array:
    rng = np.random.default_rng(13)
    data: Array = rng.integers(0, 100, shape).astype(dtype)
    if data.dtype.kind == "c":
        data += (1j * rng.integers(0, 50, shape)).astype(dtype)
    return data


def components(data: Array, cy: float, cx: float, ri: float, ro: float, n_bins: int, max_order: int) -> Array:
    """``(bins, orders, *nav)``: the formulas of the documentation, pixel by pixel."""
    y, x = np.mgrid[: data.shape[-2], : data.shape[-1]]
    distance, angle = np.hypot(y - cy, x - cx), np.arctan2(y - cy, x - cx)
    width = (ro - ri) / n_bins
    found = np.zeros((n_bins, max_order + 1, *data.shape[:-2]), dtype="c16")
    for b in range(n_bins):
        ring = np.clip(width / 2 + 0.5 - np.abs(distance - (ri + (b + 0.5) * width)), 0, 1)
        if b == 0 and ri < 0.5:
            ring[round(cy), round(cx)] = 1 - ri
        for order in range(max_order + 1):
            found[b, order] = (data * (ring * np.exp(1j * order * angle))).sum(axis=(-2, -1))
    return found


def check(results: Any, expected: Array, valid: Array | None = None) -> None:
    """All views of all components."""
    n_bins, n_orders = expected.shape[:2]
    pairs = [(b, o) for b in range(n_bins) for o in range(n_orders)]
    keys = [
        k for b in range(n_bins) for k in (f"dominant_{b}", *(f"absolute_{b}_{o}" for o in range(n_orders)))
    ]
    keys += [f"{name}_{b}_{o}" for name in ("phase", "complex") for b, o in pairs]
    assert results.keys() == keys
    where = np.ones(expected.shape[2:], dtype=bool) if valid is None else valid
    close = {"rtol": 1e-4, "atol": 1e-5 * np.abs(expected).max()}
    np.testing.assert_allclose(results.raw_results[:, :, where], expected[:, :, where], **close)
    assert np.isnan(results.raw_results[:, :, ~where]).all()
    for b, o in pairs:
        part = expected[b, o]
        np.testing.assert_allclose(results[f"absolute_{b}_{o}"].raw_data[where], np.abs(part)[where], **close)
        # Angles are compared as directions: there is a jump from -pi to pi.
        phase = results[f"phase_{b}_{o}"].raw_data[where]
        np.testing.assert_allclose(np.abs(part)[where] * np.exp(1j * phase), part[where], **close)
        scale = np.maximum(1, np.abs(expected[b, 0])) if o else 1
        found = results[f"complex_{b}_{o}"].raw_data[where]
        np.testing.assert_allclose(
            found, (part / scale)[where], rtol=1e-3, atol=1e-5 * np.abs(part / scale).max()
        )


def dominant(expected: Array, valid: Array) -> Array:
    harmonics = np.where(valid, np.abs(expected[1:]), 0)
    strongest = harmonics.max(axis=0)
    found: Array = np.where(strongest < 0.2 * strongest.max(), 0, harmonics.argmax(axis=0) + 1)
    found[~valid] = 0
    return found


@pytest.mark.parametrize("dtype", ["u1", "u2", ">u2", "i4", "f4", "f8", "c8"])
def test_components_follow_the_formulas(ctx: Context, load: Load, dtype: str) -> None:
    data = counts(dtype)
    analysis = ctx.create_radial_fourier_analysis(load(data), max_order=3, n_bins=3)
    results = ctx.run(analysis)
    assert isinstance(results, RadialFourierResultSet)
    # The radius at which everything is included: to the corner that is furthest away, and a bit.
    outer = int(np.ceil(np.hypot(4.5, 6))) + 1
    expected = components(data, 4.5, 6, 0, outer, 3, 3)
    check(results, expected)
    assert results.raw_results.dtype == ("c16" if dtype in ("f8", "i4") else "c8")
    for b in range(3):
        everywhere = np.ones(SHAPE[:2], dtype=bool)
        assert results[f"dominant_{b}"].raw_data.tolist() == dominant(expected[b], everywhere).tolist()


@pytest.mark.parametrize("use_sparse", [None, True, False, "scipy.sparse.csc"])
def test_rings_can_be_placed_and_stored_in_any_way(ctx: Context, load: Load, use_sparse: Any) -> None:
    data = counts()
    analysis = ctx.create_radial_fourier_analysis(
        load(data), cx=4, cy=2.5, ri=2, ro=5, n_bins=2, max_order=6, use_sparse=use_sparse
    )
    check(ctx.run(analysis), components(data, 2.5, 4, 2, 5, 2, 6))


def test_outside_of_the_roi_components_are_nan_and_nothing_dominates(ctx: Context, load: Load) -> None:
    data = counts()
    roi = np.zeros(SHAPE[:2], dtype=bool)
    roi[1, 1:4] = roi[3, 0] = True
    results = ctx.run(ctx.create_radial_fourier_analysis(load(data), max_order=2), roi=roi)
    outer = int(np.ceil(np.hypot(4.5, 6))) + 1
    expected = components(data, 4.5, 6, 0, outer, 1, 2)
    check(results, expected, roi)
    assert results.dominant_0.raw_data.tolist() == dominant(expected[0], roi).tolist()


@pytest.mark.parametrize("nav_shape", [(20,), (2, 2, 5)])
def test_any_scan_can_be_analyzed(ctx: Context, load: Load, nav_shape: tuple[int, ...]) -> None:
    data = counts(shape=(*nav_shape, 9, 12))
    results = ctx.run(ctx.create_radial_fourier_analysis(load(data), ro=4, max_order=2))
    check(results, components(data, 4.5, 6, 0, 4, 1, 2))


def test_the_order_of_a_symmetry_is_found(ctx: Context, load: Load) -> None:
    y, x = np.mgrid[:33, :33]
    angle = np.arctan2(y - 16, x - 16)
    orders = np.array([[2, 3], [4, 0]])
    data = np.stack([100 + 60 * np.cos(o * angle - 0.5) * (o > 0) for o in orders.flat])
    ds = load(data.reshape((2, 2, 33, 33)).astype("f4"))
    results = ctx.run(ctx.create_radial_fourier_analysis(ds, cx=16, cy=16, ri=4, ro=14, max_order=6))
    assert results.dominant_0.raw_data.tolist() == orders.tolist()
    # An intensity a·cos(o·φ - δ) has the component a/2·exp(iδ) of its mean.
    for o, (i, j) in {2: (0, 0), 3: (0, 1), 4: (1, 0)}.items():
        assert results[f"complex_0_{o}"].raw_data[i, j] == pytest.approx(0.3 * np.exp(0.5j), abs=0.01)


def test_there_are_24_orders_unless_others_are_given(ctx: Context, load: Load) -> None:
    ds = load(counts(shape=(1, 1, 9, 12)))
    assert ctx.run(ctx.create_radial_fourier_analysis(ds)).raw_results.shape == (1, 25, 1, 1)
    results = ctx.run(ctx.create_radial_fourier_analysis(ds, max_order=0))
    assert results.keys() == ["dominant_0", "absolute_0_0", "phase_0_0", "complex_0_0"]
    assert results.dominant_0.raw_data.tolist() == [[0]]


def test_frames_need_two_dimensions(load: Load) -> None:
    with pytest.raises(ValueError, match="need two signal dimensions"):
        RadialFourierAnalysis(load(counts(shape=(4, 5, 108)), sig_dims=1), {})
