"""What files of different programs say about the experiment."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from libertem.executor.inline import InlineJobExecutor
from libertem.io.dataset import load
from libertem.io.dataset.base.metadata import Axis
from libertem.testing.writers.hdf5 import (
    write_berkeley_emd,
    write_dectris,
    write_hdf5,
    write_hspy,
    write_nexus,
    write_py4dstem,
)

EXECUTOR = InlineJobExecutor()
RAMP = np.arange(360, dtype="u2").reshape(3, 4, 5, 6)


def load_h5(path: Path, **kwargs: Any) -> Any:
    return load("hdf5", path=path, executor=EXECUTOR, **kwargs)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.h5"


def test_axes_of_py4dstem(path: Path) -> None:
    write_py4dstem(path, RAMP)
    units = ("nm", "nm", "A^-1", "A^-1")
    with h5py.File(path, "r+") as file:
        for k, (unit, step) in enumerate(zip(units, (2, 2.5, 0.04, 0.05), strict=True)):
            dim = file[f"datacube_root/datacube/dim{k}"]
            dim[:] = [0, step]
            dim.attrs.update({"name": "Rx", "units": unit})
    ds = load_h5(path)
    found = ds.metadata
    assert found.nav_axes == (Axis("y", 2e-9, "m", 0.0, "dim0"), Axis("x", 2.5e-9, "m", 0.0, "dim1"))
    assert [axis.name for axis in found.sig_axes] == ["ky", "kx"]
    assert [axis.step for axis in found.sig_axes] == pytest.approx([4e8, 5e8])
    assert {axis.unit for axis in found.sig_axes} == {"1/m"}
    assert json.loads(json.dumps(found.header))["python_class"] == "DataCube"


def test_axes_of_berkeley_emd(path: Path) -> None:
    write_berkeley_emd(path, RAMP)
    with h5py.File(path, "r+") as file:
        group = file["data/datacube_000"]
        for k, unit in enumerate(("[n_m]", "[n_m]", "[px]", "mrad"), 1):
            group[f"dim{k}"].attrs["units"] = np.bytes_(unit)
        group["dim1"][:] = np.float32(0.1) * np.arange(3, dtype="f4") + np.float32(7)
        group["dim4"][:] = [3, 2, 1, 0, -1, -2]
    found = load_h5(path).metadata
    y, x = found.nav_axes
    assert (y.step, y.offset, y.source) == (pytest.approx(1e-10, rel=1e-5), pytest.approx(7e-9), "dim1")
    assert (x.step, x.unit) == (1e-9, "m")
    ky, kx = found.sig_axes
    assert not ky.is_calibrated
    assert (kx.step, kx.offset, kx.unit) == (pytest.approx(-1e-3), pytest.approx(3e-3), "rad")


def test_axes_and_settings_of_hyperspy(path: Path) -> None:
    write_hspy(path, RAMP)
    with h5py.File(path, "r+") as file:
        group = file["Experiments/scan"]
        for k, (extent, unit) in enumerate(zip(RAMP.shape, ("nm", "nm", "1/nm", "1/nm"), strict=True)):
            values = {"scale": 0.5, "offset": -1.0, "size": extent, "units": unit, "name": "x"}
            group.create_group(f"axis-{k}").attrs.update(values)
        tem = group.create_group("metadata/Acquisition_instrument/TEM")
        tem.attrs.update({"beam_energy": 200.0, "camera_length": 80.0, "microscope": "Titan"})
        tem.create_group("Camera").attrs.update({"exposure": 0.002, "name": "Merlin"})
        group["metadata/General"].attrs.update({"date": "2024-03-01", "time": "10:11:12"})
    found = load_h5(path).metadata
    assert found.nav_axes == tuple(Axis(n, 5e-10, "m", -1e-9, f"axis-{k}: scale") for k, n in enumerate("yx"))
    assert [axis.step for axis in found.sig_axes] == [5e8, 5e8]
    assert str(found.voltage) == "200 kV"
    assert found.voltage is not None
    assert found.voltage.source == "metadata.Acquisition_instrument.TEM.beam_energy"
    assert (float(found.camera_length or 0), float(found.exposure_time or 0)) == (0.08, 0.002)
    assert found.detector == "Merlin"
    assert str(found.acquired) == "2024-03-01 10:11:12"
    assert found.header["Acquisition_instrument.TEM"]["microscope"] == "Titan"


@pytest.mark.parametrize("axes", [["y", "x", ".", "qx"], "y:x:.:qx", "[y,x,.,qx]"])
def test_axes_of_nexus(axes: Any, path: Path) -> None:
    write_nexus(path, RAMP)
    with h5py.File(path, "r+") as file:
        group = file["entry/data"]
        group.attrs["axes"] = axes
        for name, extent, unit in (("y", 3, "um"), ("x", 4, "um"), ("qx", 6, "1/angstrom")):
            group[name] = 2.0 * np.arange(extent)
            group[name].attrs["units"] = unit
    found = load_h5(path).metadata
    assert [(axis.step, axis.unit, axis.source) for axis in found.nav_axes] == [
        (2e-6, "m", "y"),
        (2e-6, "m", "x"),
    ]
    assert [axis.is_calibrated for axis in found.sig_axes] == [False, True]


def test_settings_of_velox(path: Path) -> None:
    write_hdf5(path, RAMP[0], ds_path="Data/Image/abc/Data", chunks=(4, 5, 1))
    header = {
        "Optics": {"AccelerationVoltage": "300000", "CameraLength": "0.478", "Defocus": "1e-8"},
        "Acquisition": {"AcquisitionStartDatetime": {"DateTime": "1575540224"}},
        "BinaryResult": {"Detector": "BM-Ceta"},
    }
    text = np.zeros((1000, 6), dtype=np.uint8)
    raw = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    text[: raw.size] = raw[:, np.newaxis]
    with h5py.File(path, "r+") as file:
        file["Data/Image/abc/Metadata"] = text
    found = load_h5(path).metadata
    assert (str(found.voltage), found.detector) == ("300 kV", "BM-Ceta")
    assert found.extra["defocus"].source == "Optics.Defocus"
    assert found.acquired is not None
    assert found.acquired.value.year == 2019
    assert found.header["Optics"] == header["Optics"]


def write_master(tmp_path: Path) -> Path:
    path = write_dectris(tmp_path, [RAMP.reshape(12, 5, 6)])
    with h5py.File(path, "r+") as file:
        detector = file["entry/instrument/detector"]
        for name, value, unit in (
            ("count_time", 1e-3, "s"),
            ("frame_time", 1.01, "ms"),
            ("detector_distance", 0.0, "m"),
            ("x_pixel_size", 7.5e-5, "m"),
            ("y_pixel_size", 1e-4, "m"),
            ("detectorSpecific/photon_energy", 3e5, "eV"),
        ):
            detector[name] = value
            detector[name].attrs["units"] = np.bytes_(unit)
        detector["description"] = np.bytes_("Dectris ARINA")
        detector["detectorSpecific/data_collection_date"] = np.bytes_("2025-05-03T01:51:00.302+02:00")
    return path


def test_settings_of_master_files(tmp_path: Path) -> None:
    ds = load_h5(write_master(tmp_path), nav_shape=(3, 4))
    for found in (ds.metadata, pickle.loads(pickle.dumps(ds)).metadata):
        assert found.sig_axes == (
            Axis("ky", 1e-4, "m", 0.0, "entry/instrument/detector/y_pixel_size"),
            Axis("kx", 7.5e-5, "m", 0.0, "entry/instrument/detector/x_pixel_size"),
        )
        assert float(found.exposure_time or 0) == 1e-3
        assert float(found.frame_period or 0) == pytest.approx(1.01e-3)
        assert str(found.extra["photon_energy"]) == "300 keV"
        # Nobody has entered it.
        assert "detector_distance" not in found.extra
        assert found.detector == "Dectris ARINA"
        assert found.header["entry/instrument/detector"]["count_time"] == 1e-3


def test_scan_axes_are_left_out_if_rows_are_cut_in_another_way(path: Path) -> None:
    write_berkeley_emd(path, RAMP)
    with h5py.File(path, "r+") as file:
        for k in range(1, 5):
            file[f"data/datacube_000/dim{k}"].attrs["units"] = "nm"
    for nav_shape, n_axes in (((3, 4), 2), ((2, 4), 2), ((4, 3), 0), ((12,), 0)):
        found = load_h5(path, nav_shape=nav_shape).metadata
        assert (len(found.nav_axes), len(found.sig_axes)) == (n_axes, 2)


def test_a_file_that_says_nothing_has_no_metadata(path: Path) -> None:
    found = load_h5(write_hdf5(path, RAMP)).metadata
    assert found.to_dict() == {}


@pytest.mark.parametrize(
    "value", [np.array([1, 2]), "text", b"\xff\xfe", float("nan"), h5py.Empty("f4"), np.zeros(1, "V5"), 1e400]
)
def test_fields_that_make_no_sense_are_left_out(value: Any, path: Path) -> None:
    write_hspy(path, RAMP)
    with h5py.File(path, "r+") as file:
        group = file["Experiments/scan"]
        tem = group.create_group("metadata/Acquisition_instrument/TEM")
        for name in ("beam_energy", "camera_length", "Camera"):
            tem.attrs[name] = value
        for name in ("date", "time"):
            group["metadata/General"].attrs[name] = value
        for name in ("scale", "units", "offset"):
            group.create_group(f"axis-{name}")
            group.require_group("axis-0").attrs[name] = value
        group["axis-0"].attrs["size"] = 3
        group.attrs["axes"] = value
        group["dim1"] = 5
        group["Metadata"] = np.zeros((4, 4), np.uint8)
    assert load_h5(path).metadata.to_dict() == {}


@pytest.mark.parametrize("positions", [[0, 1, 3], [1, 1, 1], [0, np.nan, 2], [0, 1, np.inf], [0, 1, 2, 3]])
def test_positions_that_are_not_regular_are_no_calibration(positions: Any, path: Path) -> None:
    write_berkeley_emd(path, RAMP)
    with h5py.File(path, "r+") as file:
        del file["data/datacube_000/dim1"]
        file["data/datacube_000/dim1"] = np.array(positions, "f8")
        file["data/datacube_000/dim1"].attrs["units"] = "nm"
        file["data/datacube_000/dim2"].attrs["units"] = "nm"
    y, x = load_h5(path).metadata.nav_axes
    assert (y.is_calibrated, x.is_calibrated) == (False, True)
