"""Saved files say what is known about the experiment."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from libertem.api import Context, DataSet
from libertem.io.dataset.base.metadata import Metadata
from libertem.io.dataset.npy import NPYDataSet

from .conftest import (
    DATA,
    RECTANGLE,
    SCATTERED,
    assert_saved,
)

# --- what is known about the experiment ---


def test_nexus_files_have_axes_and_metadata(known: DataSet, out: Path) -> None:
    known.save(out / "a.h5", roi=RECTANGLE)
    with h5py.File(out / "a.h5") as file:
        group = file[file.attrs["default"]][file["entry"].attrs["default"]]
        assert (group.attrs["NX_class"], group.attrs["signal"]) == ("NXdata", "data")
        assert list(group.attrs["axes"]) == ["axis_y", "axis_x", "axis_ky", "axis_kx"]
        # The rectangle starts at (1, 2).
        np.testing.assert_allclose(group["axis_y"], [2, 4])
        np.testing.assert_allclose(group["axis_x"], [7, 8, 9])
        np.testing.assert_allclose(group["axis_ky"][:3], [-0.3, -0.2, -0.1])
        assert (group["axis_x"].attrs["units"], group["axis_kx"].attrs["units"]) == ("nm", "1/nm")
        attrs = file["entry/libertem"].attrs
        metadata = json.loads(attrs["metadata"])
        assert metadata["voltage"] == {"value": 200e3, "unit": "V", "source": "HT"}
        assert metadata["acquired"]["value"] == "2024-05-06T07:08:09"
        assert json.loads(attrs["header"]) == {"Comment": "Probe µ", "deep": {"list": [1, 2]}}
        assert json.loads(attrs["axes"])[1]["offset"] == pytest.approx(7e-9)


def test_hyperspy_finds_calibrations(known: DataSet, out: Path) -> None:
    known.save(out / "a.hspy")
    with h5py.File(out / "a.hspy") as file:
        assert file.attrs["file_format"] == "HyperSpy"
        group = file["Experiments/a"]
        axes = [dict(group[f"axis-{i}"].attrs) for i in range(4)]
        assert [(a["name"], a["units"], bool(a["navigate"])) for a in axes] == [
            ("y", "nm", True),
            ("x", "nm", True),
            ("ky", "1/nm", False),
            ("kx", "1/nm", False),
        ]
        np.testing.assert_allclose([a["scale"] for a in axes], [2, 1, 0.1, 0.2])
        np.testing.assert_allclose([a["offset"] for a in axes], [0, 5, -0.3, 0])
        assert [a["size"] for a in axes] == list(DATA.shape)
        microscope = group["metadata/Acquisition_instrument/TEM"].attrs
        assert microscope["beam_energy"] == 200
        assert microscope["camera_length"] == 115
        general = dict(group["metadata/General"].attrs)
        assert general == {"title": "a", "date": "2024-05-06", "time": "07:08:09"}


def test_emd_files_have_dimensions(known: DataSet, out: Path) -> None:
    known.save(out / "a.emd")
    with h5py.File(out / "a.emd") as file:
        assert (file.attrs["version_major"], file.attrs["version_minor"]) == (0, 2)
        group = file["data/a"]
        assert group.attrs["emd_group_type"] == 1
        dims = [group[f"dim{i}"] for i in (1, 2, 3, 4)]
        assert [(d.attrs["name"], d.attrs["units"]) for d in dims] == [
            ("y", "[n_m]"),
            ("x", "[n_m]"),
            ("ky", "[n_m^-1]"),
            ("kx", "[n_m^-1]"),
        ]
        np.testing.assert_allclose(dims[1], [5, 6, 7, 8, 9])
        assert file["microscope"].attrs["voltage"] == 200e3
        assert file["microscope"].attrs["voltage_units"] == "[V]"


def test_zarr_attributes_name_the_axes(known: DataSet, out: Path) -> None:
    known.save(out / "a.zarr")
    attrs = dict(zarr.open_array(out / "a.zarr", mode="r").attrs)
    assert attrs["_ARRAY_DIMENSIONS"] == ["y", "x", "ky", "kx"]
    assert attrs["units"] == ["nm", "nm", "1/nm", "1/nm"]
    np.testing.assert_allclose(attrs["scale"], [2, 1, 0.1, 0.2])
    assert attrs["libertem"]["metadata"]["detector"] == {"value": "Camera µ"}


def test_imagej_finds_pixel_sizes(known: DataSet, out: Path) -> None:
    known.save(out / "a.tif")
    with tifffile.TiffFile(out / "a.tif") as file:
        assert file.series[0].axes == "TZYX"
        found = file.imagej_metadata
        assert found is not None
        assert (found["unit"], found["spacing"]) == ("1/nm", 1)
        x = file.pages[0].tags["XResolution"].value  # type: ignore[union-attr]  # a page, not a frame
        assert x[0] / x[1] == pytest.approx(1 / 0.2)
        assert json.loads(found["Info"])["header"]["Comment"] == "Probe µ"


def test_what_imagej_does_not_hold_becomes_ome(known: DataSet, out: Path) -> None:
    known.save(out / "a.tif", dtype="i4")
    assert_saved(out / "a.tif", DATA.astype("i4"))
    with tifffile.TiffFile(out / "a.tif") as file:
        assert file.is_ome
        assert "200000" in str(file.ome_metadata)


def test_large_tiff_files_have_wide_offsets(ds: DataSet, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from libertem.interact.saving import tiff

    monkeypatch.setattr(tiff, "MAX_CLASSIC_BYTES", 1000)
    ds.save(out / "a.tif")
    assert_saved(out / "a.tif", DATA)
    with tifffile.TiffFile(out / "a.tif") as file:
        assert file.is_bigtiff


def test_sidecars_describe_everything(known: DataSet, out: Path) -> None:
    known.save(out / "a.bin", roi=SCATTERED)
    beside = json.loads((out / "a.json").read_text("utf-8"))
    assert beside["load"]["nav_shape"] == [3]
    assert [axis["name"] for axis in beside["axes"]] == ["index", "ky", "kx"]
    assert beside["metadata"]["beam_current"]["value"] == 1e-11
    assert beside["header"]["Comment"] == "Probe µ"


def test_long_headers_are_no_attributes(ds: DataSet, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = {f"field {i}": "x" * 1000 for i in range(100)}
    monkeypatch.setattr(NPYDataSet, "get_metadata", lambda self: Metadata(header=header))
    ds.save(out / "a.h5")
    with h5py.File(out / "a.h5") as file:
        assert json.loads(file["entry/libertem/header"].asstr()[()]) == header


@pytest.mark.parametrize("suffix", [".h5", ".hspy", ".emd"])
def test_calibrations_survive(ctx: Context, known: DataSet, out: Path, suffix: str) -> None:
    known.save(out / f"a{suffix}", roi=RECTANGLE)
    again = ctx.load("auto", path=out / f"a{suffix}")
    assert [axis.unit for axis in again.axes] == ["m", "m", "1/m", "1/m"]
    np.testing.assert_allclose([axis.step for axis in again.axes], [2e-9, 1e-9, 1e8, 2e8])
    np.testing.assert_allclose([axis.offset for axis in again.axes], [2e-9, 7e-9, -3e8, 0], atol=1e-12)
