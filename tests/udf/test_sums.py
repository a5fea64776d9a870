"""Sums over frames and over pixels, and the UDF that does nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from libertem.udf import UDF
from libertem.udf.logsum import LogsumUDF, run_logsum
from libertem.udf.noop import NoOpUDF
from libertem.udf.sum import SumUDF
from libertem.udf.sumsigudf import SumSigUDF, run_sumsig


def test_sum_follows_the_worked_example(ctx: Any, ds: Any, data: Any) -> None:
    result = ctx.run_udf(dataset=ds, udf=SumUDF())["intensity"]
    assert result.kind == "sig"
    assert result.data[0].tolist() == [240, 246, 252, 258]
    np.testing.assert_array_equal(result.data, data.sum(axis=(0, 1)))


@pytest.mark.parametrize(
    ("preferred", "stored", "expected"),
    [
        ("float32", "u2", "f4"),
        ("float32", "u4", "f8"),
        ("float32", "c8", "c8"),
        ("float64", "u2", "f8"),
        ("u2", "u2", "u2"),
        (UDF.USE_NATIVE_DTYPE, "i2", "i2"),
    ],
)
def test_sum_has_the_input_dtype(
    inline: Any, make_ds: Any, data: Any, preferred: Any, stored: str, expected: str
) -> None:
    result = inline.run_udf(dataset=make_ds(data.astype(stored)), udf=SumUDF(dtype=preferred))["intensity"]
    assert result.dtype == result.data.dtype == np.dtype(expected)
    np.testing.assert_array_equal(result.data, data.sum(axis=(0, 1)))


@pytest.mark.parametrize("preferred", ["u2", UDF.USE_NATIVE_DTYPE])
def test_integer_sums_wrap_around(ctx: Any, make_ds: Any, preferred: Any) -> None:
    ds = make_ds(np.full((2, 3, 4, 4), 60000, dtype="u2"))
    assert (ctx.run_udf(dataset=ds, udf=SumUDF(dtype=preferred))["intensity"].data == 32320).all()


def test_sums_of_many_frames_are_exact(ctx: Any, make_ds: Any) -> None:
    # In float32 the last frames would get lost.
    data = np.full((70000, 1, 3), 65535, dtype="u2")
    result = ctx.run_udf(dataset=make_ds(data), udf=[SumUDF(dtype="float64"), SumUDF(dtype="float64")])
    for sums in result:
        assert (sums["intensity"].data == 70000 * 65535).all()


def test_sums_over_pixels_follow_the_worked_example(ctx: Any, ds: Any) -> None:
    result = ctx.run_udf(dataset=ds, udf=SumSigUDF())["intensity"]
    assert result.kind == "nav"
    assert result.data.tolist() == [[120, 376, 632], [888, 1144, 1400]]
    assert run_sumsig(ctx, ds)["intensity"].data.tolist() == result.data.tolist()


@pytest.mark.parametrize(("stored", "expected"), [("u2", "f4"), ("u4", "f8"), ("f8", "f8"), ("c8", "c8")])
def test_sums_over_pixels_are_floats(
    inline: Any, make_ds: Any, data: Any, stored: str, expected: str
) -> None:
    result = inline.run_udf(dataset=make_ds(data.astype(stored)), udf=SumSigUDF())["intensity"]
    assert result.dtype == result.data.dtype == np.dtype(expected)
    np.testing.assert_array_equal(result.data, data.sum(axis=(2, 3)))


def test_sums_work_for_any_number_of_dimensions(ctx: Any, make_ds: Any) -> None:
    data = np.random.default_rng(1).integers(0, 99, (2, 2, 3, 4, 5, 2)).astype("u1")
    for sig_dims in (1, 2, 3, 4, 5):
        ds = make_ds(data, sig_dims=sig_dims)
        frames, pixels = ctx.run_udf(dataset=ds, udf=[SumUDF(), SumSigUDF()])
        nav, sig = tuple(range(6 - sig_dims)), tuple(range(6 - sig_dims, 6))
        np.testing.assert_array_equal(frames["intensity"].data, data.sum(axis=nav))
        np.testing.assert_array_equal(pixels["intensity"].data, data.sum(axis=sig))


def test_logsum_follows_the_worked_example(ctx: Any, ds: Any, data: Any) -> None:
    result = ctx.run_udf(dataset=ds, udf=LogsumUDF())["logsum"]
    assert result.dtype == result.data.dtype == np.float32
    np.testing.assert_allclose(result.data[0], [0, 4.158883, 6.591674, 8.317766], rtol=1e-6)
    shifted = data - data.min(axis=(2, 3), keepdims=True) + 1.0
    np.testing.assert_allclose(result.data, np.log(shifted).sum(axis=(0, 1)), rtol=1e-6)


def test_logsum_can_be_run_with_a_roi(ctx: Any, ds: Any, data: Any) -> None:
    result = run_logsum(ctx, ds, roi=(0, 1))["logsum"]
    np.testing.assert_allclose(result.data, np.log(data[0, 1] - data[0, 1].min() + 1.0), rtol=1e-6)


def test_logsum_refuses_complex_data(inline: Any, make_ds: Any, data: Any) -> None:
    with pytest.raises(TypeError, match=r"[Cc]ast"):
        inline.run_udf(dataset=make_ds(data.astype("c8")), udf=LogsumUDF())


def test_noop_has_no_results_and_prefers_the_native_dtype(ctx: Any, ds: Any) -> None:
    udf = NoOpUDF()
    assert ctx.run_udf(dataset=ds, udf=udf) == {}
    assert udf.meta.input_dtype == np.uint16
    udf = NoOpUDF(preferred_input_dtype=np.float64)
    assert ctx.run_udf(dataset=ds, udf=udf) == {}
    assert udf.meta.input_dtype == np.float64
