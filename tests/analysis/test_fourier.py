"""Analyses of Fourier transforms, and of fluctuations along rings, against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from libertem.analysis import ApplyFFTMask, FEMAnalysis, PickFFTFrameAnalysis, SumfftAnalysis
from libertem.api import Context
from libertem.io.dataset.base.dataset import DataSet

Array = np.ndarray[Any, Any]
Load = Callable[..., DataSet]

SHAPE = (4, 5, 9, 12)
COVER = {"real_rad": 2, "real_centerx": 6, "real_centery": 5}


def counts(dtype: str = "u2", shape: tuple[int, ...] = SHAPE) -> Array:
    data: Array = np.random.default_rng(17).integers(0, 100, shape).astype(dtype)
    return data


def visible(parameters: dict[str, Any]) -> Array:
    y, x = np.mgrid[:9, :12]
    if not parameters:
        return np.ones((9, 12))
    return np.where((y - 5) ** 2 + (x - 6) ** 2 <= 4, 0.0, 1.0)


@pytest.mark.parametrize("dtype", ["u1", ">u2", "f4", "f8", "c8"])
@pytest.mark.parametrize("cover", [{}, COVER])
def test_the_transform_of_a_frame_has_its_zero_in_the_middle(
    ctx: Context, load: Load, cover: dict[str, Any], dtype: str
) -> None:
    data = counts(dtype)
    results = ctx.run(PickFFTFrameAnalysis(load(data), {"x": 3, "y": 2, **cover}))
    assert results.keys() == ["intensity", "intensity_lin"]
    expected = np.abs(np.fft.fftshift(np.fft.fft2(data[2, 3] * visible(cover))))
    for result in results:
        np.testing.assert_allclose(result.raw_data, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("cover", [{}, COVER])
def test_the_transform_of_the_sum(ctx: Context, load: Load, cover: dict[str, Any]) -> None:
    data = counts()
    roi = np.zeros(SHAPE[:2], dtype=bool)
    roi[2] = True
    (result,) = ctx.run(SumfftAnalysis(load(data), cover), roi=roi)
    expected = np.abs(np.fft.fftshift(np.fft.fft2(data[2].sum(axis=0) * visible(cover))))
    np.testing.assert_allclose(result.raw_data, expected, rtol=1e-6, atol=1e-6)
    assert result.desc == "fft of sum of all frames"


def test_a_ring_in_the_transform_is_added_up(ctx: Context, load: Load) -> None:
    data = counts()
    y, x = np.mgrid[:9, :12]
    distance = (y - 4.5) ** 2 + (x - 6) ** 2
    ring = np.fft.fftshift((distance <= 16) & (distance > 1))[:, :7]
    for cover in ({}, COVER):
        (result,) = ctx.run(ApplyFFTMask(load(data), {"rad_in": 1, "rad_out": 4, **cover}))
        transform = np.abs(np.fft.rfft2(data * visible(cover)))
        np.testing.assert_allclose(result.raw_data, (transform * ring).sum(axis=(2, 3)), rtol=1e-5)


def test_the_deviation_in_a_ring_is_that_of_the_population(ctx: Context, load: Load) -> None:
    data = counts()
    y, x = np.mgrid[:9, :12]
    for given, (cy, cx) in (({"cx": 5, "cy": 3}, (3, 5)), ({}, (4.5, 6))):
        distance = (y - cy) ** 2 + (x - cx) ** 2
        inside = (distance <= 16) & (distance > 4)
        (result,) = ctx.run(FEMAnalysis(load(data), {"ri": 2, "ro": 4, **given}))
        np.testing.assert_allclose(result.raw_data, data[..., inside].std(axis=-1), rtol=1e-6)


@pytest.mark.parametrize(
    ("cls", "parameters"),
    [
        (FEMAnalysis, {"ri": 1, "ro": 2}),
        (ApplyFFTMask, {"rad_in": 1, "rad_out": 2}),
        (SumfftAnalysis, {}),
        (PickFFTFrameAnalysis, {"x": 0, "y": 0}),
    ],
)
def test_frames_need_two_dimensions(load: Load, cls: Any, parameters: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="need two signal dimensions"):
        cls(load(counts(shape=(4, 5, 108)), sig_dims=1), parameters)
