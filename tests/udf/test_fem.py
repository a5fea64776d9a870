"""Fluctuations along a ring against NumPy."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from libertem.api import Context
from libertem.io.corrections import CorrectionSet
from libertem.io.dataset.base.dataset import DataSet
from libertem.udf.FEM import FEMUDF, run_fem
from libertem.udf.sum import SumUDF

Array = np.ndarray[Any, Any]
MakeDataSet = Callable[..., DataSet]

SHAPE = (3, 4, 11, 14)
CENTER = (4.5, 7.0)


class OnTiles(FEMUDF):
    """The same without the block hook."""

    def process_tile(self, tile: Any) -> None:
        super().process_tile(tile)


def counts(dtype: str) -> Array:
    rng = np.random.default_rng(5)
    data: Array = rng.integers(0, 100, SHAPE).astype(dtype)
    if data.dtype.kind == "c":
        data += (1j * rng.integers(0, 100, SHAPE)).astype(dtype)
    return data


def inside(cy: float = CENTER[0], cx: float = CENTER[1], rad_in: float = 2, rad_out: float = 5) -> Array:
    y, x = np.mgrid[: SHAPE[2], : SHAPE[3]]
    distance = (y - cy) ** 2 + (x - cx) ** 2
    found: Array = (distance > rad_in**2) & (distance <= rad_out**2)
    return found


@pytest.mark.parametrize("udf_class", [FEMUDF, OnTiles])
@pytest.mark.parametrize("dtype", ["bool", "u1", "u2", ">u2", "i4", "u8", "f4", ">f4", "f8", "c8"])
def test_the_result_is_the_standard_deviation_in_the_ring(
    ctx: Context, make_ds: MakeDataSet, dtype: str, udf_class: type[FEMUDF]
) -> None:
    data = counts(dtype)
    result = ctx.run_udf(dataset=make_ds(data), udf=udf_class(CENTER, 2, 5))
    assert list(result) == ["intensity"]
    assert result["intensity"].data.dtype == np.float32
    exact = data.astype("c16" if dtype == "c8" else "f8")
    expected = exact[..., inside()].std(axis=-1)
    np.testing.assert_allclose(result["intensity"].data, expected, rtol=1e-6)


@pytest.mark.parametrize("udf_class", [FEMUDF, OnTiles])
def test_a_small_spread_on_a_large_mean_is_found(
    inline: Context, make_ds: MakeDataSet, udf_class: type[FEMUDF]
) -> None:
    data = 1e6 + np.random.default_rng(6).random(SHAPE)
    found = inline.run_udf(dataset=make_ds(data), udf=udf_class(CENTER, 2, 5))["intensity"].data
    np.testing.assert_allclose(found, data[..., inside()].std(axis=-1), rtol=1e-5)


@pytest.mark.filterwarnings("ignore:the data set changed the tile shape")
@pytest.mark.parametrize("tileshape", [(1, 11, 14), (5, 3, 14), (2, 1, 14), (12, 11, 14)])
def test_results_do_not_depend_on_tiles(inline: Context, tileshape: tuple[int, ...]) -> None:
    data = counts("u2")
    ds = inline.load("memory", data=data, tileshape=tileshape, sig_dims=2, num_partitions=2)
    found = inline.run_udf(dataset=ds, udf=OnTiles(CENTER, 2, 5))["intensity"].data
    np.testing.assert_allclose(found, data[..., inside()].std(axis=-1), rtol=1e-6)


@pytest.mark.parametrize("udf_class", [FEMUDF, OnTiles])
def test_a_roi_and_blanks_are_respected(ctx: Context, make_ds: MakeDataSet, udf_class: type[FEMUDF]) -> None:
    data = counts("u2")
    roi = np.zeros(SHAPE[:2], dtype=bool)
    roi[0, 1:] = roi[2, 3] = True
    result = run_fem(ctx, make_ds(data), CENTER, 2, 5, roi=roi)["intensity"].data
    np.testing.assert_allclose(result[roi], data[roi][:, inside()].std(axis=-1), rtol=1e-6)
    assert np.isnan(result[~roi]).all()
    moved = ctx.run_udf(dataset=make_ds(data, sync_offset=-2), udf=udf_class(CENTER, 2, 5))
    expected = np.concatenate([np.zeros(2), data[..., inside()].std(axis=-1).reshape(-1)[:-2]])
    np.testing.assert_allclose(moved["intensity"].data.reshape(-1), expected, rtol=1e-6)


def test_corrections_and_other_udfs_in_the_same_run(ctx: Context, make_ds: MakeDataSet) -> None:
    data, dark = counts("u2"), np.arange(154.0).reshape(SHAPE[2:])
    udfs = [FEMUDF(CENTER, 2, 5), SumUDF()]
    fem, total = ctx.run_udf(dataset=make_ds(data), udf=udfs, corrections=CorrectionSet(dark=dark))
    np.testing.assert_allclose(fem["intensity"].data, (data - dark)[..., inside()].std(axis=-1), rtol=1e-6)
    np.testing.assert_allclose(total["intensity"].data, (data - dark).sum(axis=(0, 1)), rtol=1e-6)


def test_the_center_is_y_before_x(inline: Context, make_ds: MakeDataSet) -> None:
    data = counts("u2")
    found = inline.run_udf(dataset=make_ds(data), udf=FEMUDF((2, 9), 0, 3))["intensity"].data
    np.testing.assert_allclose(found, data[..., inside(2, 9, 0, 3)].std(axis=-1), rtol=1e-6)


def test_an_empty_ring_has_no_deviation(inline: Context, make_ds: MakeDataSet) -> None:
    for udf_class in (FEMUDF, OnTiles):
        found = inline.run_udf(dataset=make_ds(counts("u2")), udf=udf_class((100, 100), 0, 3))
        assert np.isnan(found["intensity"].data).all()


def test_intermediate_results_are_zero_where_frames_are_missing(
    inline: Context, make_ds: MakeDataSet
) -> None:
    data = counts("u2")
    first = next(inline.run_udf_iter(dataset=make_ds(data), udf=FEMUDF(CENTER, 2, 5)))
    found = first.buffers[0]["intensity"].data.reshape(-1)
    np.testing.assert_allclose(found[:6], data[..., inside()].std(axis=-1).reshape(-1)[:6], rtol=1e-6)
    assert not found[6:].any()


def test_spectra_are_refused(inline: Context, make_ds: MakeDataSet) -> None:
    ds = make_ds(np.zeros((3, 4, 20), dtype="u2"), sig_dims=1)
    with pytest.raises(ValueError, match=r"two signal dimensions, found \(20,\)"):
        inline.run_udf(dataset=ds, udf=FEMUDF(CENTER, 2, 5))


def test_signatures_are_the_documented_ones() -> None:
    assert list(inspect.signature(FEMUDF).parameters) == ["center", "rad_in", "rad_out"]
    assert list(inspect.signature(run_fem).parameters) == [
        "ctx",
        "dataset",
        "center",
        "rad_in",
        "rad_out",
        "roi",
    ]
