"""A small scan, and how other programs read what was saved of it."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import zarr

from libertem.api import Context, DataSet
from libertem.interact.saving import job
from libertem.io.dataset.base.metadata import Axis, Metadata, Quantity, Timestamp
from libertem.io.dataset.npy import NPYDataSet

NAV, SIG = (4, 5), (6, 8)
DATA = np.random.default_rng(0).integers(0, 1000, (*NAV, *SIG)).astype("u2")
RECTANGLE = np.zeros(NAV, dtype=bool)
RECTANGLE[1:3, 2:5] = True
SCATTERED = np.zeros(NAV, dtype=bool)
SCATTERED[0, 1] = SCATTERED[2, 3] = SCATTERED[3, 3] = True

METADATA = Metadata(
    voltage=Quantity(200e3, "V", "HT"),
    camera_length=Quantity(0.115, "m", "CL"),
    acquired=Timestamp(datetime.datetime(2024, 5, 6, 7, 8, 9), "Date"),
    detector="Camera µ",
    nav_axes=(Axis("y", 2e-9, "m", 0.0, "dy"), Axis("x", 1e-9, "m", 5e-9, "dx")),
    sig_axes=(Axis("ky", 1e8, "1/m", -3e8, "dk"), Axis("kx", 2e8, "1/m", 0.0, "dk")),
    extra={"beam_current": Quantity(1e-11, "A", "I")},
    header={"Comment": "Probe µ", "deep": {"list": [1, 2]}},
)


@pytest.fixture(scope="module")
def ctx() -> Iterator[Context]:
    with Context.make_with("inline") as ctx:
        yield ctx


@pytest.fixture
def ds(ctx: Context, tmp_path: Path) -> DataSet:
    np.save(tmp_path / "scan.npy", DATA)
    return ctx.load("npy", path=tmp_path / "scan.npy", num_partitions=3)


@pytest.fixture
def known(ds: DataSet, monkeypatch: pytest.MonkeyPatch) -> DataSet:
    """A data set that knows about the experiment."""
    monkeypatch.setattr(NPYDataSet, "get_metadata", lambda self: METADATA)
    return ds


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """About two frames at a time."""
    monkeypatch.setattr(job, "BYTES_AT_A_TIME", 2 * math.prod(SIG) * 2 + 10)


def read_raw(path: Path) -> npt.NDArray[Any]:
    load = json.loads(path.with_suffix(".json").read_text("utf-8"))["load"]
    return np.fromfile(path, load["dtype"]).reshape((*load["nav_shape"], *load["sig_shape"]))


def read_hdf5(path: Path, where: str) -> Any:
    with h5py.File(path) as file:
        return file[where][()]


READERS: dict[str, Callable[[Path], Any]] = {
    ".npy": np.load,
    ".h5": lambda path: read_hdf5(path, "entry/data/data"),
    ".hdf5": lambda path: read_hdf5(path, "entry/data/data"),
    ".hspy": lambda path: read_hdf5(path, f"Experiments/{path.stem}/data"),
    ".emd": lambda path: read_hdf5(path, f"data/{path.stem}/data"),
    ".zarr": lambda path: zarr.open_array(path, mode="r")[...],
    ".tif": tifffile.imread,
    ".tiff": tifffile.imread,
    ".raw": read_raw,
    ".bin": read_raw,
}


def assert_saved(path: Path, expected: npt.NDArray[Any]) -> None:
    found = READERS[path.suffix.lower()](path)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def assert_nothing_left(folder: Path, *names: str) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
