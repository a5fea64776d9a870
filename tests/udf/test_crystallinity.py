"""Rings in the Fourier transform against NumPy."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from libertem.api import Context
from libertem.io.dataset.base.dataset import DataSet
from libertem.udf.crystallinity import CrystallinityUDF, run_analysis_crystall

Array = np.ndarray[Any, Any]
MakeDataSet = Callable[..., DataSet]


def counts(dtype: str = "u2", sig_shape: tuple[int, int] = (9, 12)) -> Array:
    data: Array = np.random.default_rng(8).integers(0, 100, (3, 4, *sig_shape)).astype(dtype)
    return data


def formula(
    data: Array,
    rad_in: float,
    rad_out: float,
    real_center: tuple[float, float] | None = None,
    real_rad: float | None = None,
) -> Array:
    height, width = data.shape[2:]
    y, x = np.mgrid[:height, :width]
    frames = data.astype("f8")
    if real_center is not None and real_rad is not None:
        frames[..., (y - real_center[0]) ** 2 + (x - real_center[1]) ** 2 <= real_rad**2] = 0
    distance = (y - height / 2) ** 2 + (x - width / 2) ** 2
    ring = (distance <= rad_out**2).astype(int) - (distance <= rad_in**2)
    half = np.fft.fftshift(ring)[:, : width // 2 + 1]
    total: Array = (np.abs(np.fft.rfft2(frames)) * half).sum(axis=(2, 3))
    return total


@pytest.mark.parametrize("sig_shape", [(9, 12), (8, 8), (9, 11), (12, 9)])
@pytest.mark.parametrize("cover", [(None, None), ((3.0, 5.5), 2.0), (None, 2.0), ((3.0, 5.5), None)])
def test_a_ring_of_the_transform_is_added_up(
    inline: Context, make_ds: MakeDataSet, sig_shape: tuple[int, int], cover: tuple[Any, Any]
) -> None:
    data = counts(sig_shape=sig_shape)
    result = inline.run_udf(dataset=make_ds(data), udf=CrystallinityUDF(1, 4, *cover))
    assert list(result) == ["intensity"]
    assert result["intensity"].data.dtype == np.float32
    np.testing.assert_allclose(result["intensity"].data, formula(data, 1, 4, *cover), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["u1", ">u2", "i4", "f4", "f8"])
def test_all_real_dtypes_are_supported(ctx: Context, make_ds: MakeDataSet, dtype: str) -> None:
    data = counts(dtype)
    found = run_analysis_crystall(ctx, make_ds(data), 1, 4)["intensity"].data
    np.testing.assert_allclose(found, formula(data, 1, 4), rtol=1e-5)


def test_a_roi_is_respected(ctx: Context, make_ds: MakeDataSet) -> None:
    data = counts()
    roi = np.zeros((3, 4), dtype=bool)
    roi[1, 2:] = True
    found = run_analysis_crystall(
        ctx, make_ds(data), rad_in=0, rad_out=3, real_center=(4, 6), real_rad=1, roi=roi
    )["intensity"].data
    np.testing.assert_allclose(found[roi], formula(data, 0, 3, (4, 6), 1)[roi], rtol=1e-5)
    assert np.isnan(found[~roi]).all()


def test_a_lattice_is_found_at_its_distance(inline: Context, make_ds: MakeDataSet) -> None:
    x = np.arange(32)
    data = np.zeros((1, 2, 32, 32), dtype="f4")
    data[0, 1] = 10 * (1 + np.cos(2 * np.pi * x * 8 / 32))
    found = run_analysis_crystall(inline, make_ds(data), 7, 9)["intensity"].data
    # The wave with 8 periods has the amplitude 10/2 at each of its two frequencies, of which one is kept.
    assert found[0, 0] == 0
    assert found[0, 1] == pytest.approx(5 * 32 * 32, rel=1e-4)


def test_what_cannot_be_transformed_is_refused(inline: Context, make_ds: MakeDataSet) -> None:
    udf = CrystallinityUDF(1, 4, None, None)
    with pytest.raises(ValueError, match=r"two signal dimensions, found \(20,\)"):
        inline.run_udf(dataset=make_ds(np.zeros((3, 4, 20), dtype="u2"), sig_dims=1), udf=udf)
    with pytest.raises(TypeError, match="real numbers, found complex64"):
        inline.run_udf(dataset=make_ds(counts("c8")), udf=udf)


def test_signatures_are_the_documented_ones() -> None:
    found = inspect.signature(CrystallinityUDF).parameters
    assert list(found) == ["rad_in", "rad_out", "real_center", "real_rad"]
    assert all(p.default is p.empty for p in found.values())
    assert list(inspect.signature(run_analysis_crystall).parameters) == (
        ["ctx", "dataset", "rad_in", "rad_out", "real_center", "real_rad", "roi", "progress"]
    )
