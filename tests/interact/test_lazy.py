"""Data sets as lazy Dask arrays, from the data set itself."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libertem.api import Context
from libertem.io.corrections import CorrectionSet
from libertem.io.dataset.npy import NPYDataSet

DATA = np.random.default_rng(0).integers(0, 1000, (4, 5, 6, 8)).astype("u2")


@pytest.fixture
def ctx() -> Iterator[Context]:
    with Context.make_with("inline") as ctx:
        yield ctx


@pytest.fixture
def ds(ctx: Context, tmp_path: Path) -> Any:
    np.save(tmp_path / "scan.npy", DATA)
    return ctx.load("npy", path=tmp_path / "scan.npy")


def compute(array: Any) -> Any:
    return array.compute(scheduler="sync")


def test_the_array_is_the_data_set(ds: Any) -> None:
    array = ds.to_dask()
    assert array.shape == DATA.shape
    assert array.dtype == np.uint16
    np.testing.assert_array_equal(compute(array), DATA)
    np.testing.assert_array_equal(compute(array[1, 2:, ::2].mean(axis=0)), DATA[1, 2:, ::2].mean(axis=0))


def test_other_dtypes(ds: Any) -> None:
    array = ds.to_dask(dtype="float32")
    assert array.dtype == np.float32
    np.testing.assert_array_equal(compute(array), DATA)


def test_big_endian_pixels_become_native(ctx: Context, tmp_path: Path) -> None:
    DATA.astype(">u2").tofile(tmp_path / "a.raw")
    ds = ctx.load("raw", path=tmp_path / "a.raw", dtype=">u2", nav_shape=(4, 5), sig_shape=(6, 8))
    array = ds.to_dask()
    assert array.dtype.isnative
    np.testing.assert_array_equal(compute(array), DATA)


def test_a_roi_in_any_form_gives_a_flat_axis(ds: Any) -> None:
    roi = DATA[..., 0, 0] > 500
    np.testing.assert_array_equal(compute(ds.to_dask(roi=roi)), DATA[roi])
    np.testing.assert_array_equal(compute(ds.to_dask(roi=(1, 2))), DATA[1, 2][np.newaxis])
    with pytest.raises(ValueError, match="incompatible shapes"):
        ds.to_dask(roi=np.ones((2, 2), dtype=bool))


@pytest.mark.parametrize("dtype", ["u2", "f4"])
def test_corrections_that_come_with_the_data_are_applied_as_everywhere(
    ctx: Context, tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dark = CorrectionSet(dark=np.full((6, 8), 0.5, dtype="f4"), excluded_pixels=np.eye(6, 8, dtype=bool))
    monkeypatch.setattr(NPYDataSet, "get_correction_data", lambda self: dark)
    np.save(tmp_path / "a.npy", DATA.astype(dtype))
    ds = ctx.load("npy", path=tmp_path / "a.npy")
    array = ds.to_dask()
    assert array.dtype == np.float32
    np.testing.assert_array_equal(compute(array), np.asarray(ds))


def test_tasks_hold_no_data_and_no_context(ctx: Context, tmp_path: Path) -> None:
    np.zeros((64, 64, 16, 16), dtype="u1").tofile(tmp_path / "a.raw")
    ds = ctx.load("raw", path=tmp_path / "a.raw", dtype="u1", nav_shape=(64, 64), sig_shape=(16, 16))
    packed = pickle.dumps(dict(ds.to_dask().__dask_graph__()))
    assert len(packed) < 10_000
    assert b"ContextTools" not in packed


def test_nothing_is_read_before_and_no_context_is_needed_later(ctx: Context, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros_like(DATA))
    array = ctx.load("npy", path=path).to_dask()
    ctx.close()
    np.save(path, DATA)
    np.testing.assert_array_equal(compute(array), DATA)
