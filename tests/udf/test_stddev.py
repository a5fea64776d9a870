"""Mean, variance and standard deviation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from libertem.udf.stddev import StdDevUDF, consolidate_result, run_stddev

NAMES = ["varsum", "num_frames", "sum", "var", "std", "mean"]


def test_the_worked_example(ctx: Any, ds: Any, data: Any) -> None:
    result = ctx.run_udf(dataset=ds, udf=StdDevUDF())
    assert list(result) == NAMES
    np.testing.assert_allclose(result["var"].data, 746.6667, rtol=1e-6)
    np.testing.assert_allclose(result["std"].data, 27.325202, rtol=1e-7)
    assert result["mean"].data[0, :2].tolist() == [40, 41]
    assert (result["varsum"].data == 4480).all()
    assert result["num_frames"].data.tolist() == [6]
    assert result["sum"].data[0, :2].tolist() == [240, 246]
    np.testing.assert_array_equal(result["mean"].data, data.mean(axis=(0, 1)))


@pytest.mark.parametrize("roi", [None, (0, 1), np.array([[1, 1, 0], [0, 0, 1]], dtype=bool)])
@pytest.mark.parametrize("use_numba", [True, False])
def test_results_as_plain_arrays(ctx: Any, ds: Any, data: Any, roi: Any, use_numba: bool) -> None:
    result = run_stddev(ctx, ds, roi=roi, use_numba=use_numba)
    mask = np.ones((2, 3), dtype=bool) if roi is None else np.zeros((2, 3), dtype=bool)
    if roi is not None:
        mask[roi] = True
    frames = data[mask].astype(np.float64)
    assert sorted(result) == sorted(NAMES)
    assert all(type(value) is np.ndarray for name, value in result.items() if name != "num_frames")
    assert np.ndim(result["num_frames"]) == 0
    assert result["num_frames"] == len(frames)
    np.testing.assert_allclose(result["var"], frames.var(axis=0), rtol=1e-12)
    np.testing.assert_allclose(result["std"], frames.std(axis=0), rtol=1e-12)
    np.testing.assert_allclose(result["mean"], frames.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(result["varsum"], frames.var(axis=0) * len(frames), rtol=1e-12)


@pytest.mark.parametrize(
    ("stored", "dtype", "base", "sums"),
    [
        ("u2", None, "f8", "f8"),
        ("f4", "f4", "f4", "f4"),
        ("f8", "f4", "f4", "f8"),
        ("c8", None, "f8", "c16"),
        ("c8", "f4", "f4", "c8"),
    ],
)
def test_dtypes_are_the_documented_ones(
    inline: Any, make_ds: Any, data: Any, stored: str, dtype: Any, base: str, sums: str
) -> None:
    result = inline.run_udf(dataset=make_ds(data.astype(stored)), udf=StdDevUDF(dtype=dtype))
    for name, expected in zip(NAMES, (base, "i8", sums, base, base, sums), strict=True):
        assert result[name].dtype == result[name].data.dtype == np.dtype(expected), name


@pytest.mark.parametrize("tile", [False, True])
def test_small_variations_around_a_large_mean_are_kept(ctx: Any, make_ds: Any, tile: bool) -> None:
    rng = np.random.default_rng(0)
    values = (1000 + 0.3 * rng.standard_normal((23, 31, 5, 7))).astype(np.float32)
    udf = ByTiles() if tile else StdDevUDF()
    result = ctx.run_udf(dataset=make_ds(values, num_partitions=5), udf=udf)
    exact = values.astype(np.longdouble)
    np.testing.assert_allclose(result["var"].data, exact.var(axis=(0, 1)), rtol=1e-12)
    np.testing.assert_allclose(result["sum"].data, exact.sum(axis=(0, 1)), rtol=1e-14)


class ByTiles(StdDevUDF):
    def process_tile(self, tile: Any) -> None:
        super().process_tile(tile)


def test_variances_of_complex_data_are_real(ctx: Any, make_ds: Any) -> None:
    rng = np.random.default_rng(0)
    values = (rng.random((3, 4, 5, 5)) + 1j * rng.random((3, 4, 5, 5))).astype(np.complex64)
    result = ctx.run_udf(dataset=make_ds(values), udf=StdDevUDF())
    exact = values.astype(np.complex128)
    np.testing.assert_allclose(result["var"].data, exact.var(axis=(0, 1)), rtol=1e-12)
    np.testing.assert_allclose(result["mean"].data, exact.mean(axis=(0, 1)), rtol=1e-12)


def test_an_empty_roi_gives_zeros_and_nan(ctx: Any, ds: Any) -> None:
    result = consolidate_result(ctx.run_udf(dataset=ds, udf=StdDevUDF(), roi=np.zeros((2, 3), dtype=bool)))
    assert result["num_frames"] == 0
    assert (result["varsum"] == 0).all()
    assert (result["sum"] == 0).all()
    for name in ("var", "std", "mean"):
        assert np.isnan(result[name]).all()
