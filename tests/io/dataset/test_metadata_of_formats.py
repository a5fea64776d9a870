"""What each format knows about the experiment: values in SI, sources, axes and raw headers."""

from __future__ import annotations

import datetime
import json
import pickle
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libertem.executor.inline import InlineJobExecutor
from libertem.io.dataset import load
from libertem.io.dataset.base.metadata import NO_METADATA, Axis, Metadata, Quantity, Timestamp
from libertem.io.dataset.memory import MemoryDataSet
from libertem.io.dataset.mib.metadata import describe as describe_mib
from libertem.io.dataset.mib.metadata import parse_fields
from libertem.io.dataset.ser.emi import find_emi, parse_object_info, read_object_info
from libertem.io.dataset.tvips.metadata import describe as describe_tvips
from libertem.testing.writers.blo import write_blo
from libertem.testing.writers.dm import (
    image_tags,
    number,
    text,
    write_dm,
)
from libertem.testing.writers.empad import write_empad
from libertem.testing.writers.frms6 import write_frms6
from libertem.testing.writers.k2is import write_sparse_k2is
from libertem.testing.writers.mib import MIBSpec, write_hdr, write_mib
from libertem.testing.writers.mrc import write_mrc
from libertem.testing.writers.seq import write_seq, write_seq_config, write_seq_metadata
from libertem.testing.writers.ser import make_ser_header, write_ser
from libertem.testing.writers.tvips import make_scan, write_tvips

from .test_testdata import FOLDER, load_arguments

EXECUTOR = InlineJobExecutor()
UTC = datetime.timezone.utc

real_file = pytest.mark.skipif(
    FOLDER is None, reason="LIBERTEM_TESTDATA names no folder with a manifest.json"
)
not_every_dm_file_says_what_it_is = pytest.mark.filterwarnings("ignore:.*unrecognized format:RuntimeWarning")


def open_file(format: str, path: Path | None = None, **kwargs: Any) -> Any:
    if path is not None:
        kwargs["path"] = str(path)
    return load(format, executor=EXECUTOR, **kwargs)


def metadata_of(format: str, path: Path | None = None, **kwargs: Any) -> Metadata:
    """Metadata of a data set, checked for what is true of all."""
    ds = open_file(format, path, **kwargs)
    metadata = ds.metadata
    assert isinstance(metadata, Metadata)
    assert pickle.loads(pickle.dumps(metadata)) == metadata
    assert len(pickle.dumps(metadata)) < 200_000
    json.dumps([metadata.to_dict(), metadata.header], allow_nan=False)
    assert len(ds.axes) == len(ds.shape)
    # Nobody has to wait for them or carry them around.
    assert len(pickle.dumps(ds)) == len(pickle.dumps(open_file(format, path, **kwargs)))
    return metadata


def frames(*shape: int) -> np.ndarray[Any, Any]:
    return np.arange(np.prod(shape), dtype="u2").reshape(shape) % 251


def known(metadata: Metadata) -> dict[str, tuple[float, str, str]]:
    """All quantities."""
    return {
        name: (found.value, found.unit, found.source)
        for name, found in metadata.quantities()
        if isinstance(found, Quantity)
    }


def approx(expected: dict[str, tuple[float, str, str]]) -> dict[str, tuple[Any, str, str]]:
    return {
        name: (pytest.approx(value, rel=1e-6, abs=1e-300), unit, source)
        for name, (value, unit, source) in expected.items()
    }


def check_axes(found: tuple[Axis, ...], expected: list[tuple[str, float, str, float, str]]) -> None:
    assert [(axis.name, axis.unit, axis.source) for axis in found] == [
        (name, unit, source) for name, _, unit, _, source in expected
    ]
    assert [axis.step for axis in found] == pytest.approx([step for _, step, *_ in expected])
    assert [axis.offset for axis in found] == pytest.approx([offset for *_, offset, _ in expected])


# --- MIB ---


def test_mib_knows_what_frame_header_and_hdr_file_say(tmp_path: Path) -> None:
    write_mib(tmp_path, frames(6, 8, 8), MIBSpec("U16"), names=("default.mib",))
    hdr = write_hdr(tmp_path / "default.hdr", 6, 3)
    content = hdr.read_bytes().replace(
        b"Software", b"Readout System:\tMerlin Quad\r\nSensor Bias (V):\t120 V\r\nSoftware"
    )
    hdr.write_bytes(content)
    metadata = metadata_of("mib", hdr)
    assert metadata.acquired == Timestamp(
        datetime.datetime(2021, 5, 7, 16, 51, 10, 905800, UTC), "extended time stamp"
    )
    assert metadata.detector == "Merlin Quad"
    assert known(metadata) == approx(
        {
            "exposure_time": (1e-3, "s", "exposure"),
            "threshold_0": (12e3, "eV", "threshold 0"),
            "threshold_1": (511e3, "eV", "threshold 1"),
            "sensor_bias": (120.0, "V", "Sensor Bias (V)"),
        }
    )
    # Local format of the date, so it is not interpreted.
    assert metadata.header["hdr"]["Time and Date Stamp (day, mnth, yr, hr, min, s)"] == "07/05/2021 18:51:10"
    assert metadata.header["frame header"]["acquisition sequence number"] == "000001"


def test_mib_knows_the_hdr_file_also_if_another_file_is_opened(tmp_path: Path) -> None:
    write_mib(tmp_path, frames(6, 8, 8), MIBSpec("U16"), names=("default.mib",))
    write_hdr(tmp_path / "default.hdr", 6, 3)
    assert "hdr" in metadata_of("mib", tmp_path / "default.mib", nav_shape=(6,)).header


def test_mib_of_old_software_knows_local_time_and_shutter_time(tmp_path: Path) -> None:
    spec = MIBSpec("U16", has_extension=False, has_thresholds=False, has_dacs=False)
    write_mib(tmp_path, frames(2, 8, 8), spec)
    metadata = metadata_of("mib", tmp_path / "default.mib", nav_shape=(2,))
    assert metadata.acquired == Timestamp(datetime.datetime(2021, 5, 7, 18, 51, 10, 905800), "time stamp")
    assert known(metadata) == approx({"exposure_time": (1e-3, "s", "shutter open time")})


def test_mib_takes_the_first_frame_of_all_files(tmp_path: Path) -> None:
    write_mib(tmp_path, frames(4, 8, 8), names=("b10.mib", "b2.mib"), frames_per_file=2)
    metadata = metadata_of("mib", tmp_path / "b2.mib", nav_shape=(4,))
    assert metadata.header["frame header"]["acquisition sequence number"] == "000001"


@given(
    st.binary(max_size=200),
    st.dictionaries(st.sampled_from(["Sensor Bias (V)", "Readout System"]), st.text()),
)
def test_any_bytes_are_a_mib_header_or_left_out(raw: bytes, hdr: dict[str, str]) -> None:
    commas = raw.replace(b"\0", b",")
    for content in (raw, commas, b"MQ1," + commas, commas + b",MQ1A," + commas):
        json.dumps(describe_mib(parse_fields(content), hdr).to_dict(), allow_nan=False)


# --- BLO ---


def test_blo_knows_steps_in_both_spaces(tmp_path: Path) -> None:
    patches = {
        28: struct.pack("<H", 4500),
        30: struct.pack("<2d", 12.5, 25.0),
        46: struct.pack("<IHI", 300000, 5000, 1350),
    }
    path = write_blo(
        tmp_path / "x.blo", [frames(6, 4, 4).astype("u1")], (2, 3), patches=patches, note="A\r\nB"
    )
    metadata = metadata_of("blo", path)
    assert known(metadata) == approx(
        {
            "voltage": (300e3, "V", "Beam_energy"),
            "camera_length": (0.135, "m", "Camera_length"),
            "scan_rotation": (np.pi / 4, "rad", "Scan_rotation"),
        }
    )
    check_axes(metadata.nav_axes, [("y", 25e-9, "m", 0, "SY"), ("x", 12.5e-9, "m", 0, "SX")])
    check_axes(metadata.sig_axes, [("ky", 2e-4, "m", 0, "SDP"), ("kx", 2e-4, "m", 0, "SDP")])
    # Days since a date that nobody has written down.
    assert metadata.acquired is None
    assert metadata.header["Acquisition_time"] == 43831.0
    assert metadata.header["note"] == "A\r\nB"


def test_big_endian_blo_knows_the_same(tmp_path: Path) -> None:
    data = frames(2, 4, 4).astype("u1")
    little, big = (
        metadata_of("blo", write_blo(tmp_path / name, [data], (1, 2), byte_order=order), endianess=order)
        for name, order in (("l.blo", "<"), ("b.blo", ">"))
    )
    assert little.to_dict() == big.to_dict()


def test_another_scan_shape_has_no_calibration(tmp_path: Path) -> None:
    path = write_blo(tmp_path / "x.blo", [frames(6, 4, 4).astype("u1")], (2, 3))
    assert metadata_of("blo", path, nav_shape=(3, 2)).nav_axes == ()
    assert metadata_of("blo", path, nav_shape=(1, 3)).nav_axes != ()
    assert metadata_of("blo", path, sig_shape=(16,)).sig_axes == ()


# --- MRC ---


def test_mrc_knows_pixel_sizes(tmp_path: Path) -> None:
    patches = {28: struct.pack("<3i", 5, 4, 6), 40: struct.pack("<3f", 10, 8, 12), 88: struct.pack("<i", 1)}
    metadata = metadata_of("mrc", write_mrc(tmp_path / "x.mrc", frames(6, 4, 5), patches=patches))
    check_axes(metadata.nav_axes, [("z", 2e-10, "m", 0, "CELLA z / MZ")])
    check_axes(
        metadata.sig_axes, [("ky", 2e-10, "m", 0, "CELLA y / MY"), ("kx", 2e-10, "m", 0, "CELLA x / MX")]
    )
    assert metadata.header["ISPG"] == 1


@pytest.mark.parametrize(
    "patches",
    [
        {40: struct.pack("<3f", -10, -8, 0)},
        {40: struct.pack("<3f", np.nan, np.inf, 0)},
        {28: bytes(12)},
        {64: struct.pack("<3i", 3, 1, 2)},
    ],
    ids=["negative", "no numbers", "no cells", "turned axes"],
)
def test_mrc_without_sizes_is_not_calibrated(patches: dict[int, bytes], tmp_path: Path) -> None:
    metadata = metadata_of("mrc", write_mrc(tmp_path / "x.mrc", frames(6, 4, 5), patches=patches))
    assert (metadata.nav_axes, metadata.sig_axes) == ((), ())


def make_fei_record(order: str, pixel_size: float, mask: int = 1) -> bytes:
    record = bytearray(888)
    struct.pack_into(order + "2i", record, 0, 888, 2)
    struct.pack_into("<I", record, 8, mask)
    struct.pack_into(order + "d", record, 84, 200e3)
    struct.pack_into(order + "2d", record, 156, pixel_size, 2 * pixel_size)
    struct.pack_into(order + "d", record, 301, 0.135)
    record[435:439] = b"Ceta"
    struct.pack_into(order + "2d", record, 571, 1e-3, 0.0)
    return bytes(record)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("pixel_size", "unit"), [(1.5e-10, "m"), (2.5e7, "1/m")])
def test_mrc_knows_fei_headers(order: Any, pixel_size: float, unit: str, tmp_path: Path) -> None:
    record = make_fei_record(order, pixel_size)
    path = write_mrc(
        tmp_path / "x.mrc", frames(2, 4, 5), byte_order=order, extended=record * 4, extended_type=b"FEI2"
    )
    metadata = metadata_of("mrc", path)
    assert metadata.detector == "Ceta"
    assert known(metadata) == approx(
        {
            "voltage": (200e3, "V", "high tension"),
            "camera_length": (0.135, "m", "camera length"),
            "dwell_time": (1e-3, "s", "dwell time"),
        }
    )
    check_axes(
        metadata.sig_axes,
        [("ky", 2 * pixel_size, unit, 0, "pixel size y"), ("kx", pixel_size, unit, 0, "pixel size x")],
    )


def test_fei_fields_that_are_all_invalid_do_not_count(tmp_path: Path) -> None:
    record = make_fei_record("<", 1e-9, mask=0)
    path = write_mrc(tmp_path / "x.mrc", frames(2, 4, 5), extended=record, extended_type=b"FEI1")
    metadata = metadata_of("mrc", path)
    assert known(metadata) == {}
    assert metadata.sig_axes[0].source == "CELLA y / MY"


# --- TVIPS ---


def test_tvips_knows_time_and_stage(tmp_path: Path) -> None:
    path = write_tvips(tmp_path / "x_000.tvips", [frames(12, 4, 5)], make_scan((3, 4)))
    with path.open("r+b") as file:
        file.seek(256 + 28)
        file.write(struct.pack("<5f", 1000, -2000, 0, 45, 0))
    metadata = metadata_of("tvips", path)
    assert metadata.acquired == Timestamp(
        datetime.datetime(2020, 9, 13, 12, 26, 40, tzinfo=UTC), "ITime, IMS"
    )
    assert known(metadata) == approx(
        {
            "voltage": (200e3, "V", "IHT"),
            "detector_pixel_size": (15.5e-6, "m", "IPixelSize"),
            "stage_x": (1e-6, "m", "stage x"),
            "stage_y": (-2e-6, "m", "stage y"),
            "stage_z": (0.0, "m", "stage z"),
            "stage_alpha": (np.pi / 4, "rad", "stage alpha"),
            "stage_beta": (0.0, "rad", "stage beta"),
        }
    )
    # Magnification or camera length: nothing says which.
    assert metadata.header["series header"]["IMagTotal"] == 80
    assert metadata.header["image header"]["Scan_x"] == 0.0


@pytest.mark.parametrize(("version", "n_bytes", "last"), [(1, 12, "IMS"), (2, 61, "DENS heating set T")])
def test_tvips_knows_the_fields_that_there_are(version: int, n_bytes: int, last: str, tmp_path: Path) -> None:
    path = write_tvips(
        tmp_path / "x_000.tvips", [frames(4, 4, 5)], version=version, image_header_bytes=n_bytes
    )
    assert list(metadata_of("tvips", path).header["image header"])[-1] == last


@given(st.binary(min_size=52, max_size=52), st.binary(min_size=12, max_size=256))
def test_any_bytes_are_tvips_headers_or_left_out(series: bytes, image: bytes) -> None:
    json.dumps(describe_tvips(series, image).to_dict(), allow_nan=False)


# --- FRMS6 ---


def test_frms6_knows_the_dwell_time(tmp_path: Path) -> None:
    hdr = write_frms6(
        tmp_path, [frames(6, 8, 4)], (2, 3), values={"dwellTimeMicroseconds": 250, "other": "x"}
    )
    metadata = metadata_of("frms6", hdr, enable_offset_correction=False)
    assert known(metadata) == approx({"dwell_time": (250e-6, "s", "dwelltimemicroseconds")})
    assert metadata.header["other"] == "x"
    assert metadata.header["readoutmode"]["bin"] == 1


def test_a_dwell_time_of_nothing_is_not_known(tmp_path: Path) -> None:
    hdr = write_frms6(tmp_path, [frames(6, 8, 4)], (2, 3), values={"dwellTimeMicroseconds": -1})
    assert known(metadata_of("frms6", hdr, enable_offset_correction=False)) == {}


# --- SEQ ---


def test_seq_knows_what_sidecars_say(tmp_path: Path) -> None:
    path = write_seq(tmp_path / "x.seq", [frames(3, 4, 5)])
    write_seq_metadata(tmp_path / "x.seq.metadata", (4, 5), (0, 0))
    info = {"CameraType": "Celeritas Camera", "HT": "200"}
    write_seq_config(tmp_path / "x.seq.Config.Metadata.xml", [], info)
    metadata = metadata_of("seq", path, nav_shape=(3,))
    assert metadata.detector == "Celeritas Camera"
    assert metadata.acquired == Timestamp(
        datetime.datetime(2022, 8, 11, 14, 21, 27, 690000), "acquisition time"
    )
    assert known(metadata) == {}
    assert metadata.header["FileInfo"] == info
    assert metadata.header["header"]["suggested_frame_rate"] == 25.0
    assert metadata.header["metadata"]["FrameRate"] == 86956.52


@pytest.mark.parametrize(("version", "names"), [(5, 3), (3, 2)])
def test_seq_has_the_time_of_the_first_frame_in_its_header(version: int, names: int, tmp_path: Path) -> None:
    path = write_seq(tmp_path / "x.seq", [frames(3, 4, 5)], version=version)
    time = metadata_of("seq", path, nav_shape=(3,)).header["first frame"]
    assert len(time) == names
    assert time["seconds"] == 1_600_000_000


def test_seq_without_room_for_times_knows_none(tmp_path: Path) -> None:
    path = write_seq(tmp_path / "x.seq", [frames(3, 4, 5)], true_image_size=40)
    assert set(metadata_of("seq", path, nav_shape=(3,)).header) == {"header"}


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=600))
@pytest.mark.filterwarnings("ignore:.*seq:RuntimeWarning")
def test_damaged_sidecars_of_seq_are_left_out(tmp_path: Path, content: bytes) -> None:
    path = write_seq(tmp_path / "x.seq", [frames(3, 4, 5)])
    for suffix in (".metadata", ".Config.Metadata.xml"):
        (tmp_path / f"x.seq{suffix}").write_bytes(content)
    assert "header" in metadata_of("seq", path, nav_shape=(3,)).header


# --- SER ---


def test_ser_knows_scan_steps_and_time(tmp_path: Path) -> None:
    data = frames(6, 4, 5)
    header = bytearray(make_ser_header([3, 2], 6, tags="position"))
    record = 34
    for coordinate, delta, element in ((5e-9, 2e-9, 1), (7e-9, -4e-9, 2)):
        struct.pack_into("<ddi", header, record + 4, coordinate, delta, element)
        record += 24 + 4 + len("Position") + 4 + len("meters")
    path = write_ser(tmp_path / "x_1.ser", data, nav_shape=(2, 3), tags="position", header=bytes(header))
    metadata = metadata_of("ser", path)
    check_axes(
        metadata.nav_axes,
        [("y", -4e-9, "m", 15e-9, "CalibrationDelta"), ("x", 2e-9, "m", 3e-9, "CalibrationDelta")],
    )
    # The units of elements are not in the file.
    assert metadata.sig_axes == ()
    assert metadata.header["first element"]["Y"]["CalibrationDelta"] == 1e-10
    assert metadata.header["first tag"] == {"time": 1_500_000_000, "PositionX": 0.0, "PositionY": 0.0}
    assert metadata.acquired == Timestamp(datetime.datetime(2017, 7, 14, 2, 40, tzinfo=UTC), "time")


def test_ser_of_a_series_has_no_scan_step(tmp_path: Path) -> None:
    metadata = metadata_of("ser", write_ser(tmp_path / "x_1.ser", frames(3, 4, 5), version=0x0210))
    assert metadata.nav_axes == ()
    assert metadata.header["first tag"] == {"time": 1_500_000_000}


OBJECT_INFO = (
    b"<ObjectInfo><ExperimentalDescription><Root>"
    b"<Data><Label>High tension</Label><Value>%d</Value><Unit>kV</Unit></Data>"
    b"<Data><Label>Camera length</Label><Value>0.5</Value><Unit>m</Unit></Data>"
    b"<Data><Label>Defocus</Label><Value>n/a</Value><Unit>um</Unit></Data>"
    b"<Data><Label>Magnification</Label><Value>1000</Value><Unit>x</Unit></Data>"
    b"<Data><Label>Stage A</Label><Value>180</Value><Unit>deg</Unit></Data>"
    b"<Data><Label>Spot size</Label><Value>3</Value><Unit></Unit></Data>"
    b"</Root></ExperimentalDescription>"
    b"<AcquireInfo><CameraNamePath>BM-Ceta</CameraNamePath></AcquireInfo></ObjectInfo>"
)


def test_ser_knows_its_part_of_the_emi_file(tmp_path: Path) -> None:
    (tmp_path / "x.emi").write_bytes(b"\1\2" + OBJECT_INFO % 200 + bytes(100) + OBJECT_INFO % 300 + b"\3")
    for n, voltage in ((1, 200e3), (2, 300e3)):
        metadata = metadata_of("ser", write_ser(tmp_path / f"x_{n}.ser", frames(3, 4, 5)))
        assert metadata.detector == "BM-Ceta"
        assert known(metadata) == approx(
            {
                "voltage": (voltage, "V", "High tension"),
                "camera_length": (0.5, "m", "Camera length"),
                "magnification": (1000.0, "", "Magnification"),
                "stage_alpha": (np.pi, "rad", "Stage A"),
            }
        )
        assert metadata.header["emi"]["AcquireInfo"] == {"CameraNamePath": "BM-Ceta"}
    assert known(metadata_of("ser", write_ser(tmp_path / "x_3.ser", frames(3, 4, 5)))) == {}


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", b"<ObjectInfo>", b"<ObjectInfo><a></ObjectInfo>", b"</ObjectInfo><ObjectInfo/>"],
)
def test_an_emi_file_that_cannot_be_read_is_left_out(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.emi").write_bytes(content)
    metadata = metadata_of("ser", write_ser(tmp_path / "x_1.ser", frames(3, 4, 5)))
    assert "emi" not in metadata.header


def test_emi_files_are_found_by_name(tmp_path: Path) -> None:
    (tmp_path / "a_b.EMI").write_bytes(b"")
    assert find_emi(str(tmp_path / "a_b_12.ser")) == (str(tmp_path / "a_b.EMI"), 12)
    assert find_emi(str(tmp_path / "a_b.ser")) is None
    assert find_emi(str(tmp_path / "a_b_0.ser")) is None


def test_entities_in_emi_files_are_not_resolved(tmp_path: Path) -> None:
    bomb = b'<!DOCTYPE a [<!ENTITY b "c">]><ObjectInfo>&b;</ObjectInfo>'
    (tmp_path / "x.emi").write_bytes(bomb)
    assert read_object_info(str(tmp_path / "x_1.ser")).header is None


@given(st.text(max_size=30), st.text(max_size=10))
def test_any_setting_of_an_emi_file_is_understood_or_left_out(value: str, unit: str) -> None:
    from xml.sax.saxutils import escape

    from libertem.exceptions import HeaderError
    from libertem.io.dataset.base.metadata import make_metadata

    raw = OBJECT_INFO % 200
    raw = raw.replace(b"n/a", escape(value).encode("utf-8", "replace"))
    raw = raw.replace(b"um", escape(unit).encode("utf-8", "replace"))
    try:
        info = parse_object_info(raw, path="x.emi")
    except HeaderError:
        return
    assert make_metadata(info.quantities).voltage == Quantity(200e3, "V", "High tension")


# --- DM ---


def calibration(*axes: tuple[float, float, str]) -> dict[str, Any]:
    """Patch of ``ImageData``: (origin, scale, units) of all axes, fastest first."""
    dimension = [
        {"Origin": number(6, origin), "Scale": number(6, scale), "Units": text(units)}
        for origin, scale, units in axes
    ]
    return {"Calibrations": {"Dimension": dimension}}


DETECTOR = (2.0, 0.5, "1/nm"), (-4.0, 0.25, "1/nm")
SCAN = (0.0, 3.0, "nm"), (0.0, 5.0, "Å")
EXPERIMENT: dict[str, Any] = {
    "Microscope Info": {
        "Voltage": number(7, 200000),
        "Indicated Magnification": number(7, 225000),
        "STEM Camera Length": number(7, 135),
        "Probe Current (nA)": number(7, 0.05),
        "Emission Current (µA)": number(7, 0),
    },
    "Acquisition": {
        "Device": {"Name": text("K3 ")},
        "Parameters": {"High Level": {"Exposure (s)": number(7, 0.02)}},
    },
    "DataBar": {
        "Acquisition Date": text("5/6/2019"),
        "Acquisition Time (OS)": number(7, 1.3248297119254957e17),
    },
    "SI": {"Acquisition": {"Pixel time (s)": number(7, 0.025)}},
}


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_dm_knows_axes_and_microscope(version: int, byte_order: Any, tmp_path: Path) -> None:
    image = image_tags(
        frames(2, 3, 4, 5),
        format="Diffraction image",
        order_flag=True,
        tags=EXPERIMENT,
        patches=calibration(*DETECTOR, *SCAN),
    )
    path = write_dm(tmp_path / "x.dm4", image, version=version, byte_order=byte_order)
    metadata = metadata_of("dm", path)
    source = "ImageData.Calibrations.Dimension"
    check_axes(metadata.nav_axes, [("y", 5e-10, "m", 0, f"{source}.3"), ("x", 3e-9, "m", 0, f"{source}.2")])
    check_axes(
        metadata.sig_axes,
        [("ky", 0.25e9, "1/m", 1e9, f"{source}.1"), ("kx", 0.5e9, "1/m", -1e9, f"{source}.0")],
    )
    assert metadata.detector == "K3"
    assert metadata.acquired is not None
    assert metadata.acquired.value.isoformat(timespec="seconds") == "2020-10-27T18:31:59+00:00"
    assert known(metadata) == approx(
        {
            "voltage": (200e3, "V", "Microscope Info.Voltage"),
            "exposure_time": (0.02, "s", "Acquisition.Parameters.High Level.Exposure (s)"),
            "dwell_time": (0.025, "s", "SI.Acquisition.Pixel time (s)"),
            "magnification": (225e3, "", "Microscope Info.Indicated Magnification"),
            "beam_current": (0.05e-9, "A", "Microscope Info.Probe Current (nA)"),
        }
    )
    tags = metadata.header["ImageTags"]
    assert tags["Microscope Info"]["STEM Camera Length"] == 135.0
    assert tags["DataBar"]["Acquisition Date"] == "5/6/2019"
    assert set(metadata.header["ImageData"]) == {"Calibrations", "DataType", "Dimensions", "PixelDepth"}


def test_transposed_dm_has_the_scan_axes_of_the_scan(tmp_path: Path) -> None:
    image = image_tags(frames(4, 5, 2, 3), format="Image", patches=calibration(*SCAN, *DETECTOR))
    path = write_dm(tmp_path / "x.dm4", image)
    direct = metadata_of("dm", path, transposed="direct")
    assert [axis.unit for axis in direct.nav_axes] == ["m", "m"]
    assert [axis.step for axis in direct.nav_axes] == pytest.approx([5e-10, 3e-9])
    assert [(axis.name, axis.unit) for axis in direct.sig_axes] == [("ky", "1/m"), ("kx", "1/m")]
    assert [axis.step for axis in direct.sig_axes] == pytest.approx([0.25e9, 0.5e9])
    as_stored = metadata_of("dm", path, force_c_order=True)
    assert [axis.unit for axis in as_stored.nav_axes] == ["1/m", "1/m"]
    assert [axis.unit for axis in as_stored.sig_axes] == ["m", "m"]


@pytest.mark.parametrize("transposed", [None, "direct"])
def test_spectra_have_an_energy_axis(transposed: Any, tmp_path: Path) -> None:
    energy, *scan = (-300.0, 1.0, "eV"), *SCAN
    axes, shape = ([*scan, energy], (6, 2, 3)) if transposed else ([energy, *scan], (2, 3, 6))
    image = image_tags(
        frames(*shape),
        format="Spectrum image",
        order_flag=None if transposed else True,
        patches=calibration(*axes),
    )
    path = write_dm(tmp_path / "x.dm4", image)
    ds = open_file("dm", path, transposed=transposed)
    assert tuple(ds.shape) == (2, 3, 6)
    metadata = ds.metadata
    (found,) = metadata.sig_axes
    assert (found.name, found.unit, found.step, found.offset) == ("energy", "eV", 1.0, 300.0)
    assert [axis.step for axis in metadata.nav_axes] == pytest.approx([5e-10, 3e-9])


def test_dm_frames_of_another_size_are_not_calibrated(tmp_path: Path) -> None:
    image = image_tags(
        frames(2, 3, 4, 5), format="Image", order_flag=True, patches=calibration(*DETECTOR, *SCAN)
    )
    path = write_dm(tmp_path / "x.dm4", image)
    cut = metadata_of("dm", path, sig_shape=(2, 5))
    assert (cut.nav_axes, cut.sig_axes) == ((), ())
    flat = metadata_of("dm", path, sig_shape=(20,))
    assert flat.sig_axes == ()
    assert len(flat.nav_axes) == 2


def test_a_stack_of_dm_files_knows_its_detector(tmp_path: Path) -> None:
    files = []
    for i in range(2):
        image = image_tags(frames(4, 5), format="Image", tags=EXPERIMENT, patches=calibration(*DETECTOR))
        files.append(str(write_dm(tmp_path / f"{i}.dm4", image)))
    metadata = metadata_of("dm", files=files)
    assert metadata.nav_axes == ()
    assert [axis.step for axis in metadata.sig_axes] == pytest.approx([0.25e9, 0.5e9])
    assert metadata.voltage == Quantity(200e3, "V", "Microscope Info.Voltage")


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize(
    "patches",
    [
        {"Calibrations": {}},
        {"Calibrations": number(6, 1)},
        {"Calibrations": {"Dimension": [{"Scale": text("x"), "Units": number(6, 1)}] * 3}},
        calibration((np.nan, np.inf, "nm"), (0, 0, "nm"), (1, 1, "furlong")),
    ],
    ids=["missing", "no group", "other types", "no numbers"],
)
def test_dm_without_calibration_is_not_calibrated(version: int, patches: Any, tmp_path: Path) -> None:
    image = image_tags(frames(2, 4, 5), format="Image", patches=patches)
    metadata = metadata_of("dm", write_dm(tmp_path / "x.dm4", image, version=version))
    assert (metadata.nav_axes, metadata.sig_axes) == ((), ())


def test_damage_in_tags_that_loading_jumps_over_leaves_the_calibration(tmp_path: Path) -> None:
    image = image_tags(
        frames(2, 4, 5), format="Image", tags=EXPERIMENT, patches=calibration(*DETECTOR, SCAN[0])
    )
    path = write_dm(tmp_path / "x.dm4", image)
    raw = path.read_bytes()
    place = raw.index(b"Indicated Magnification")
    path.write_bytes(raw[: place + 31] + b"XXXX" + raw[place + 35 :])
    metadata = metadata_of("dm", path)
    assert metadata.voltage is None
    assert [axis.step for axis in metadata.sig_axes] == pytest.approx([0.25e9, 0.5e9])


def test_a_huge_tag_tree_is_cut(tmp_path: Path) -> None:
    many = {f"tag {i}": text("x" * 100) for i in range(20_000)}
    tags = {"Microscope Info": EXPERIMENT["Microscope Info"], "many": many}
    image = image_tags(frames(2, 4, 5), format="Image", tags=tags)
    metadata = metadata_of("dm", write_dm(tmp_path / "x.dm4", image))
    assert metadata.header["(more tags)"] is True
    assert metadata.voltage == Quantity(200e3, "V", "Microscope Info.Voltage")


# --- EMPAD ---


def test_empad_knows_what_the_microscope_answered(tmp_path: Path) -> None:
    path = write_empad(tmp_path, [np.zeros((2, 128, 128), dtype="f4")], (1, 2))
    answers = (
        "<iom_measurements><source.get_voltage>300000.0</source.get_voltage>"
        "<optics.get_cameralength>0.7225</optics.get_cameralength>"
        "<source.get_screencurrent>1e-12</source.get_screencurrent></iom_measurements></root>"
    )
    path.write_text(path.read_text().replace("</root>", answers))
    metadata = metadata_of("empad", path)
    assert known(metadata) == approx(
        {
            "voltage": (300e3, "V", "source.get_voltage"),
            "camera_length": (0.7225, "m", "optics.get_cameralength"),
        }
    )
    assert metadata.acquired is not None
    assert metadata.acquired.source == "timestamp isoformat"
    assert metadata.header["root"]["exposure_time"] == "1"
    assert metadata.header["root"]["iom_measurements"]["source.get_screencurrent"] == "1e-12"


def test_a_raw_file_of_empad_says_nothing(tmp_path: Path) -> None:
    write_empad(tmp_path, [np.zeros((2, 128, 128), dtype="f4")], (1, 2))
    assert metadata_of("empad", tmp_path / "scan_x2_y1.raw", nav_shape=(2,)) == NO_METADATA


@pytest.mark.parametrize("answer", ["None", "", "[1, 2]", "1e999", "-1"])
def test_strange_answers_of_the_microscope_are_left_out(answer: str, tmp_path: Path) -> None:
    path = write_empad(tmp_path, [np.zeros((2, 128, 128), dtype="f4")], (1, 2))
    answers = f"<iom_measurements><source.get_voltage>{answer}</source.get_voltage></iom_measurements></root>"
    path.write_text(path.read_text().replace("</root>", answers))
    assert known(metadata_of("empad", path)) == {}


# --- K2IS, and what knows nothing ---


def test_k2is_has_block_header_and_tags(tmp_path: Path) -> None:
    metadata = metadata_of("k2is", write_sparse_k2is(tmp_path, 3, scan_shape=(1, 2)))
    assert metadata.to_dict() == {}
    assert metadata.header["gtg"] == {"SI Dimensions": {"Size X": 2, "Size Y": 1}}
    assert metadata.header["block header"]["block count"] == 1000
    assert metadata.header["block header"]["block size"] == 22360


def test_k2is_without_usable_tags_has_a_block_header(tmp_path: Path) -> None:
    gtg = write_sparse_k2is(tmp_path, 3, scan_shape=(1, 2))
    ds = open_file("k2is", gtg)
    gtg.write_bytes(b"garbage")
    assert ds.metadata.header["gtg"] == {}
    assert "frame id" in ds.metadata.header["block header"]


def test_npy_has_its_header(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", frames(2, 3, 4))
    metadata = metadata_of("npy", tmp_path / "x.npy")
    assert metadata.header == {"descr": "<u2", "fortran_order": False, "shape": [2, 3, 4]}
    assert metadata.to_dict() == {}


def test_transposed_npy_has_its_header(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.asfortranarray(frames(2, 3, 4)))
    assert metadata_of("npy", tmp_path / "x.npy", transposed="direct").header["fortran_order"] is True


def test_raw_files_and_memory_know_nothing(tmp_path: Path) -> None:
    frames(2, 3, 4).tofile(tmp_path / "x.raw")
    arguments = {"dtype": "u2", "nav_shape": (2,), "sig_shape": (3, 4)}
    assert metadata_of("raw", tmp_path / "x.raw", **arguments) == NO_METADATA
    assert MemoryDataSet(data=frames(2, 3, 4)).initialize(EXECUTOR).metadata == NO_METADATA


# --- damage, in all formats ---


def write_all(folder: Path) -> dict[str, tuple[Path, dict[str, Any], range]]:
    """Files of formats with binary headers, arguments, and the bytes that tell about the experiment."""
    series = write_tvips(folder / "x_000.tvips", [frames(4, 4, 5)])
    record = make_fei_record("<", 1e-9)
    spectra = write_ser(folder / "x_1.ser", frames(6, 4, 5), nav_shape=(2, 3), tags="position")
    return {
        "blo": (write_blo(folder / "x.blo", [frames(6, 4, 4).astype("u1")], (2, 3)), {}, range(28, 256)),
        "mrc": (
            write_mrc(folder / "x.mrc", frames(2, 4, 5), extended=record, extended_type=b"FEI2"),
            {},
            range(1024, 1024 + 620),
        ),
        "tvips": (series, {"nav_shape": (4,), "sync_offset": 0}, range(256, 256 + 108)),
        "ser": (spectra, {}, range(38, 38 + 20)),
        "seq": (write_seq(folder / "x.seq", [frames(3, 4, 5)]), {"nav_shape": (3,)}, range(584, 620)),
    }


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("format", ["blo", "mrc", "tvips", "ser", "seq"])
def test_any_bytes_in_fields_about_the_experiment_do_no_harm(format: str, data: Any, tmp_path: Path) -> None:
    path, arguments, place = write_all(tmp_path)[format]
    content = data.draw(st.binary(min_size=len(place), max_size=len(place)))
    raw = path.read_bytes()
    path.write_bytes(raw[: place.start] + content + raw[place.stop :])
    metadata_of(format, path, **arguments)


def test_metadata_of_a_file_that_is_gone_are_those_already_read(tmp_path: Path) -> None:
    path = write_blo(tmp_path / "x.blo", [frames(6, 4, 4).astype("u1")], (2, 3))
    ds = open_file("blo", path)
    before = ds.metadata
    path.unlink()
    assert ds.metadata == before


def test_loading_keeps_no_headers(tmp_path: Path) -> None:
    """The header of an EMPAD file is as large as all else that the data set holds."""
    path = write_empad(tmp_path, [np.zeros((2, 128, 128), dtype="f4")], (1, 2))
    path.write_text(path.read_text().replace("</root>", f"<note>{'x' * 500_000}</note></root>"))
    open_file("empad", path)
    tracemalloc.start()
    ds = open_file("empad", path)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 200_000
    # Cut, as nobody wants to look at so long a text.
    assert len(ds.metadata.header["root"]["note"]) < 70_000


# --- real files: values read by hand from their bytes, with the fact sheets of the formats ---

MIB_QUANTITIES = {
    "exposure_time": (1e-3, "s", "exposure"),
    "threshold_0": (2e3, "eV", "threshold 0"),
    "threshold_1": (511e3, "eV", "threshold 1"),
}
FEI_QUANTITIES = {
    "voltage": (300e3, "V", "high tension"),
    "camera_length": (0.0911, "m", "camera length"),
    "dwell_time": (0.01, "s", "dwell time"),
}
EELS_QUANTITIES = {
    "voltage": (200e3, "V", "Microscope Info.Voltage"),
    "exposure_time": (0.02001, "s", "Acquisition.Parameters.High Level.Exposure (s)"),
    "dwell_time": (0.02, "s", "SI.Acquisition.Pixel time (s)"),
    "magnification": (225e3, "", "Microscope Info.Indicated Magnification"),
    "field_of_view": (0.5579168e-6, "m", "Microscope Info.Field of View (µm)"),
    "convergence_angle": (21e-3, "rad", "EELS.Experimental Conditions.Convergence semi-angle (mrad)"),
    "collection_angle": (62e-3, "rad", "EELS.Experimental Conditions.Collection semi-angle (mrad)"),
}
EMI_QUANTITIES = {
    "voltage": (200e3, "V", "High tension"),
    "magnification": (22500.0, "", "Magnification"),
    "emission_current": (225e-6, "A", "Emission"),
    "defocus": (0.0, "m", "Defocus"),
    "stage_x": (0.147e-6, "m", "Stage X"),
    "stage_y": (0.255e-6, "m", "Stage Y"),
    "stage_z": (0.021e-6, "m", "Stage Z"),
    "stage_alpha": (0.0, "rad", "Stage A"),
    "stage_beta": (0.0, "rad", "Stage B"),
}
REAL_QUANTITIES: list[tuple[str, str, dict[str, Any], dict[str, tuple[float, str, str]]]] = [
    ("mib", "mib/split_three/part001.mib", {"nav_shape": (9,)}, MIB_QUANTITIES),
    ("mib", "mib/quad_12bit_roi/quad_12bit_roi.mib", {"nav_shape": (1,)}, MIB_QUANTITIES),
    (
        "mib",
        "mib/single_12bit_hdr/single_12bit_hdr.hdr",
        {},
        {**MIB_QUANTITIES, "sensor_bias": (120.0, "V", "Sensor Bias (V)")},
    ),
    (
        "blo",
        "blo/astar_3x2x144.blo",
        {},
        {
            "voltage": (200e3, "V", "Beam_energy"),
            "camera_length": (0.2, "m", "Camera_length"),
            "scan_rotation": (np.deg2rad(25), "rad", "Scan_rotation"),
        },
    ),
    ("mrc", "mrc/haadf_fei2_u16.mrc", {}, FEI_QUANTITIES),
    ("mrc", "mrc/movie_30x16x16_u16.mrc", {}, {}),
    ("dm", "dm/eels_si_hybrid_dm4.dm4", {"transposed": "direct"}, EELS_QUANTITIES),
    ("ser", "ser/tem_128_i32_1.ser", {}, EMI_QUANTITIES),
    ("ser", "ser/diff_64_f32_1.ser", {}, {}),
    (
        "empad",
        "empad/map_4x4/map4x4.xml",
        {},
        {
            "voltage": (300e3, "V", "source.get_voltage"),
            "camera_length": (0.7225, "m", "optics.get_cameralength"),
        },
    ),
    ("seq", "seq/celeritas_64x64/celeritas_64x64.seq", {"nav_shape": (15,)}, {}),
    (
        "tvips",
        "tvips/synthetic_2x3x4x5_000.tvips",
        {},
        {"voltage": (200e3, "V", "IHT"), "detector_pixel_size": (1e-9, "m", "IPixelSize")},
    ),
]


@real_file
@pytest.mark.parametrize(("format", "name", "arguments", "expected"), REAL_QUANTITIES)
def test_quantities_of_real_files(
    format: str, name: str, arguments: dict[str, Any], expected: dict[str, tuple[float, str, str]]
) -> None:
    assert FOLDER is not None
    assert known(metadata_of(format, FOLDER / name, **arguments)) == approx(expected)


DM_AXIS = "ImageData.Calibrations.Dimension"
REAL_AXES: list[tuple[str, str, dict[str, Any], list[Any], list[Any]]] = [
    (
        "blo",
        "blo/astar_3x2x144.blo",
        {},
        [("y", 12.8e-9, "m", 0, "SY"), ("x", 12.8e-9, "m", 0, "SX")],
        [("ky", 0.01 / 62.26, "m", 0, "SDP"), ("kx", 0.01 / 62.26, "m", 0, "SDP")],
    ),
    (
        "mrc",
        "mrc/haadf_fei2_u16.mrc",
        {},
        [],
        [("ky", 5.67913e-9, "m", 0, "pixel size y"), ("kx", 5.67913e-9, "m", 0, "pixel size x")],
    ),
    (
        "mrc",
        "mrc/stack_3x128x128_f32.mrc",
        {},
        [],
        [("ky", 2e-10, "m", 0, "CELLA y / MY"), ("kx", 2e-10, "m", 0, "CELLA x / MX")],
    ),
    ("mrc", "mrc/roi_sum_29x12_f32.mrc", {}, [], []),
    (
        "dm",
        "dm/eels_si_hybrid_dm4.dm4",
        {"transposed": "direct"},
        [("y", 1.992074e-9, "m", 0, f"{DM_AXIS}.1"), ("x", 1.992074e-9, "m", 0, f"{DM_AXIS}.0")],
        [("energy", 1, "eV", 300, f"{DM_AXIS}.2")],
    ),
    (
        "dm",
        "dm/stem_image_dm3.dm3",
        {},
        [],
        [
            ("ky", 0.248538e-9, "m", 171 * 0.248538e-9, f"{DM_AXIS}.1"),
            ("kx", 0.248538e-9, "m", 207 * 0.248538e-9, f"{DM_AXIS}.0"),
        ],
    ),
    (
        "dm",
        "dm/image_float32_64x128_dm4.dm4",
        {},
        [],
        [("ky", 2e-10, "m", 0, f"{DM_AXIS}.1"), ("kx", 1e-9, "m", 0, f"{DM_AXIS}.0")],
    ),
    (
        "dm",
        "dm/stack_int16_66x65x64_dm3.dm3",
        {},
        [("x", 4e-6, "m", 0, f"{DM_AXIS}.2")],
        [("ky", 3e-9, "m", 0, f"{DM_AXIS}.1"), ("kx", 2e-12, "m", 0, f"{DM_AXIS}.0")],
    ),
    # Without units, or with units that nobody knows.
    ("dm", "dm/image_float32_dm3.dm3", {}, [], []),
    ("dm", "dm/stack_float32_ref_dm3.dm3", {}, [], []),
    (
        "ser",
        "ser/si_5x5x1024_i32_1.ser",
        {},
        [
            ("y", -1.2053969e-10, "m", -8.5791805e-11 + 5 * 1.2053969e-10, "CalibrationDelta"),
            ("x", 1.2053969e-10, "m", -3.6550935e-10, "CalibrationDelta"),
        ],
        [],
    ),
    ("ser", "ser/preview_incomplete_1.ser", {}, [], []),
    ("empad", "empad/map_4x4/map4x4.xml", {}, [], []),
]


@real_file
@not_every_dm_file_says_what_it_is
@pytest.mark.parametrize(("format", "name", "arguments", "nav", "sig"), REAL_AXES)
def test_axes_of_real_files(
    format: str, name: str, arguments: dict[str, Any], nav: list[Any], sig: list[Any]
) -> None:
    assert FOLDER is not None
    metadata = metadata_of(format, FOLDER / name, **arguments)
    check_axes(metadata.nav_axes, nav)
    check_axes(metadata.sig_axes, sig)


REAL_TIMES = [
    (
        "mib",
        "mib/single_12bit_hdr/single_12bit_hdr.hdr",
        {},
        "2021-04-15T14:01:38.996867+00:00",
        "Merlin Quad",
    ),
    ("mib", "mib/split_three/part002.mib", {"nav_shape": (9,)}, "2021-04-15T14:00:43.762274+00:00", None),
    ("mib", "mib/nist_12bit/nist_12bit.mib", {"nav_shape": (1,)}, "2021-02-04T20:10:31.543274+00:00", None),
    ("blo", "blo/astar_3x2x144.blo", {}, None, None),
    ("mrc", "mrc/haadf_fei2_u16.mrc", {}, None, "BM-Ceta"),
    # The texts of these two files are 27/08/2016 20:54:33 and 10/27/2020 2:31:59 PM.
    ("dm", "dm/haadf_a.dm3", {}, "2016-08-27T19:54:33.854450+00:00", None),
    ("dm", "dm/haadf_nist_dm3.dm3", {}, "2020-10-27T18:31:59.254957+00:00", None),
    ("dm", "dm/eels_si_hybrid_dm4.dm4", {"transposed": "direct"}, None, "US1000FTXP 1"),
    ("ser", "ser/tem_128_i32_1.ser", {}, "2016-02-22T18:50:01+00:00", "BM-Ceta"),
    ("empad", "empad/map_4x4/map4x4.xml", {}, "2019-06-06T13:30:00.164675", None),
    (
        "seq",
        "seq/celeritas_64x64/celeritas_64x64.seq",
        {"nav_shape": (15,)},
        "2022-08-11T14:21:27.690000",
        "Celeritas Camera",
    ),
    ("seq", "seq/celeritas_bottom_128x256/celeritas_bottom_128x256.seq", {"nav_shape": (5,)}, None, None),
    ("tvips", "tvips/synthetic_2x2x3x3_000.tvips", {}, "1993-06-18T10:34:56+00:00", None),
]


@real_file
@not_every_dm_file_says_what_it_is
@pytest.mark.parametrize(("format", "name", "arguments", "time", "detector"), REAL_TIMES)
def test_time_and_detector_of_real_files(
    format: str, name: str, arguments: dict[str, Any], time: str | None, detector: str | None
) -> None:
    assert FOLDER is not None
    metadata = metadata_of(format, FOLDER / name, **arguments)
    assert (None if metadata.acquired is None else metadata.acquired.value.isoformat()) == time
    assert metadata.detector == detector


@real_file
@not_every_dm_file_says_what_it_is
@pytest.mark.filterwarnings("ignore:.*(missing|blank|promises):RuntimeWarning")
def test_metadata_of_all_real_files_can_be_read() -> None:
    assert FOLDER is not None
    n = 0
    for record in json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8")):
        if record["expect"] != "data" or record.get("operation") or record["format"] in ("hdf5", "raw_csr"):
            continue
        path = None if record["path"] is None else FOLDER / record["path"]
        metadata = metadata_of(record["format"], path, **load_arguments(record))
        assert bool(metadata.header) == (path is None or path.suffix != ".raw")
        n += 1
    assert n > 50
