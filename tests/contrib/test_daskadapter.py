"""Data sets as Dask arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libertem.api import Context
from libertem.contrib.daskadapter import make_dask_array

FRAMES = np.random.default_rng(0).integers(0, 1000, (12, 6, 7)).astype("<u2")


def load(folder: Path, **kwargs: Any) -> Any:
    path = folder / "frames.raw"
    path.write_bytes(FRAMES.tobytes())
    arguments = {"dtype": "<u2", "nav_shape": (3, 4), "sig_shape": (6, 7), "num_partitions": 4, **kwargs}
    return Context.make_with("inline").load("raw", path=path, **arguments)


def test_the_array_has_the_shape_and_content_of_the_data_set(tmp_path: Path) -> None:
    ds = load(tmp_path)
    array, workers = make_dask_array(ds, dtype="uint16")
    assert array.shape == (3, 4, 6, 7)
    assert array.dtype == np.uint16
    assert workers == {}
    np.testing.assert_array_equal(array.compute(scheduler="sync"), FRAMES.reshape(3, 4, 6, 7))


def test_float32_is_the_default(tmp_path: Path) -> None:
    array, _ = make_dask_array(load(tmp_path))
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array.compute(scheduler="threads"), FRAMES.reshape(3, 4, 6, 7))


def test_a_roi_gives_a_flat_navigation_axis(tmp_path: Path) -> None:
    roi = np.zeros((3, 4), dtype=bool)
    roi[0, 1] = roi[2, :] = True
    array, _ = make_dask_array(load(tmp_path), roi=roi)
    np.testing.assert_array_equal(array.compute(scheduler="sync"), FRAMES[roi.reshape(-1)])
    empty, _ = make_dask_array(load(tmp_path), roi=np.zeros((3, 4), dtype=bool))
    assert empty.compute(scheduler="sync").shape == (0, 6, 7)


@pytest.mark.parametrize("sync_offset", [5, -5])
def test_blanks_are_zero(tmp_path: Path, sync_offset: int) -> None:
    array, _ = make_dask_array(load(tmp_path, sync_offset=sync_offset))
    expected = np.zeros_like(FRAMES)
    if sync_offset > 0:
        expected[:-5] = FRAMES[5:]
    else:
        expected[5:] = FRAMES[:-5]
    np.testing.assert_array_equal(array.compute(scheduler="sync"), expected.reshape(3, 4, 6, 7))


def test_blocks_can_be_sparse(tmp_path: Path) -> None:
    array, _ = make_dask_array(load(tmp_path), array_backend="sparse.COO")
    np.testing.assert_array_equal(array.compute(scheduler="sync").todense(), FRAMES.reshape(3, 4, 6, 7))
