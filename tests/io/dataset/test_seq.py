from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from libertem.api import Context
from libertem.exceptions import DataSetException, HeaderError, MissingFileError, ShapeError
from libertem.executor.inline import InlineJobExecutor
from libertem.io.corrections.corrset import CorrectionSet
from libertem.io.dataset import load
from libertem.io.dataset.seq import SEQDataSet, SEQDatasetParams
from libertem.io.dataset.seq.defects import (
    Defect,
    DefectMap,
    MisfitError,
    excluded_pixels,
    parse_config,
)
from libertem.io.dataset.seq.geometry import Geometry, parse_metadata
from libertem.io.dataset.seq.header import HEADER_DTYPE, parse_header
from libertem.io.dataset.seq.sidecars import find_sidecar, read_sidecars
from libertem.testing import DataSetTests
from libertem.testing.suite.reading import read
from libertem.testing.writers.mrc import write_mrc
from libertem.testing.writers.seq import (
    make_seq_header,
    write_seq,
    write_seq_config,
    write_seq_metadata,
    write_seq_reference,
)
from libertem.udf.sum import SumUDF

EXECUTOR = InlineJobExecutor(debug=True)
BACKENDS = ["mmap", "buffered", "direct"]
TESTDATA = os.environ.get("LIBERTEM_TESTDATA", "")


def make_frames(dtype: str = "<u2", shape: tuple[int, ...] = (6, 4, 5)) -> npt.NDArray[Any]:
    """Pixel values are index + frame number."""
    n, *sig = shape
    return (np.arange(np.prod(sig)).reshape(sig) + np.arange(n).reshape(n, *(1 for _ in sig))).astype(dtype)


def load_seq(path: Path, nav_shape: Any = (2, 3), **kwargs: Any) -> Any:
    return load("seq", path=path, executor=EXECUTOR, nav_shape=nav_shape, **kwargs)


def pixels(ds: Any) -> npt.NDArray[Any]:
    return read(ds).pixels


# --- the common suite ---


class TestSEQ(DataSetTests):
    """Version 5 with little padding: when a file is cut by a frame, the last frame has to be gone."""

    filetype = "seq"
    dtypes = ("<u2", "u1", "<u4", "<u8")
    has_nav_shape = False
    # All fields of the header travel with each partition.
    max_pickle_bytes = 3072

    def write(self, folder: Path, frames: npt.NDArray[Any]) -> dict[str, Any]:
        stride = frames[0].nbytes + 8
        return {"path": str(write_seq(folder / "scan.seq", [frames], true_image_size=stride))}


class TestSEQWithOddFooter(TestSEQ):
    """Old files do not align frames to anything."""

    dtypes = ("<u2", "<u4")

    def write(self, folder: Path, frames: npt.NDArray[Any]) -> dict[str, Any]:
        stride = frames[0].nbytes + 7
        return {"path": str(write_seq(folder / "scan.seq", [frames], version=3, true_image_size=stride))}


# --- header and frames ---


def test_the_file_of_the_worked_example(tmp_path: Path) -> None:
    path = write_seq(tmp_path / "x.seq", [make_frames()])
    raw = path.read_bytes()
    assert len(raw) == 57344
    assert raw[:8] == bytes.fromhex("ED FE 00 00 4E 00 6F 00")
    assert raw[0x1C:0x28] == bytes.fromhex("05 00 00 00  00 04 00 00  4E 00 6F 00")
    assert raw[0x224:0x234] == bytes.fromhex("05 00 00 00 04 00 00 00 10 00 00 00 10 00 00 00")
    assert raw[0x234:0x244] == bytes.fromhex("28 00 00 00 64 00 00 00 06 00 00 00 00 00 00 00")
    assert raw[0x244:0x250] == bytes.fromhex("00 20 00 00 00 00 00 00 00 00 39 40")
    assert raw[0x26C:0x270] == bytes(4)
    assert raw[0x2000:0x2028] == make_frames()[0].tobytes()
    assert raw[0x2028:0x2030] == bytes.fromhex("00 10 5E 5F 00 00 00 00")
    ds = load_seq(path)
    assert tuple(ds.shape) == (2, 3, 4, 5)
    assert ds.dtype == ds.meta.raw_dtype == np.dtype("<u2")
    assert pixels(ds).sum() == 1440
    np.testing.assert_array_equal(pixels(ds), make_frames())


def test_all_fields_of_the_header_are_metadata(tmp_path: Path) -> None:
    ds = load_seq(write_seq(tmp_path / "x.seq", [make_frames()], patches={628: b"\x01\x02\x03\x04"}))
    assert ds.meta.metadata == {
        "magic": 0xFEED,
        "name": "Norpix seq",
        "version": 5,
        "header_size": 1024,
        "description": "No Description",
        "width": 5,
        "height": 4,
        "bit_depth": 16,
        "bit_depth_real": 16,
        "image_size_bytes": 40,
        "image_format": 100,
        "allocated_frames": 6,
        "origin": 0,
        "true_image_size": 8192,
        "suggested_frame_rate": 25.0,
        "description_format": 0,
        "reference_frame": 0,
        "fixed_size": 0,
        "flags": 0,
        "bayer_pattern": 0,
        "time_offset_us": 0,
        "extended_header_size": 0,
        "compression_format": 0,
        "reference_time_s": 0,
        "reference_time_ms": 0x201,
        "reference_time_us": 0x403,
    }
    assert ds.meta["width"] == 5
    assert tuple(ds.meta.metadata) == HEADER_DTYPE.names
    assert HEADER_DTYPE.itemsize == 632
    assert json.dumps(ds.meta.metadata)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["u1", "<u2", "<u4"])
@pytest.mark.parametrize(("version", "footer"), [(5, None), (3, 0), (3, 7), (3, 8), (4, 6), (5, 0)])
def test_frames_are_found_whatever_lies_between_them(
    version: int, footer: int | None, dtype: str, backend: str, tmp_path: Path
) -> None:
    frames = make_frames(dtype)
    size = None if footer is None else frames[0].nbytes + footer
    path = write_seq(tmp_path / "x.seq", [frames[:2], frames[2:]], version=version, true_image_size=size)
    ds = load_seq(path, io_backend=backend)
    assert ds.dtype == frames.dtype
    np.testing.assert_array_equal(pixels(ds), frames)
    np.testing.assert_array_equal(read(ds, dest_dtype="float32").pixels, frames)


def test_the_frame_count_in_the_header_is_not_believed(tmp_path: Path) -> None:
    path = write_seq(tmp_path / "x.seq", [make_frames()], patches={572: struct.pack("<I", 10)})
    assert load_seq(path).meta.image_count == 6


@pytest.mark.parametrize(("cut", "n"), [(-1, 5), (-8192, 5), (-8193, 4)])
def test_a_cut_last_frame_is_left_out(cut: int, n: int, tmp_path: Path) -> None:
    path = write_seq(tmp_path / "x.seq", [make_frames()])
    path.write_bytes(path.read_bytes()[:cut])
    ds = load_seq(path)
    assert ds.meta.image_count == n
    np.testing.assert_array_equal(pixels(ds)[:n], make_frames()[:n])
    assert not pixels(ds)[n:].any()


def test_trailing_bytes_do_not_matter(tmp_path: Path) -> None:
    path = write_seq(tmp_path / "x.seq", [make_frames()])
    path.write_bytes(path.read_bytes() + b"12345")
    assert load_seq(path).meta.image_count == 6
    np.testing.assert_array_equal(pixels(load_seq(path)), make_frames())


def test_what_stands_behind_the_description_does_not_matter(tmp_path: Path) -> None:
    description = "StreamPix 8.5".encode("utf-16-le") + b"\0\0"
    path = write_seq(tmp_path / "x.seq", [make_frames()], description=description.ljust(512, b"\xd8"))
    assert load_seq(path).meta["description"] == "StreamPix 8.5"
    assert SEQDataSet.detect_params(path, EXECUTOR)


def test_a_nul_byte_within_a_character_does_not_end_the_text(tmp_path: Path) -> None:
    # U+4100 and U+0042 are 00 41 and 42 00.
    description = "A\u4100B".encode("utf-16-le")
    path = write_seq(tmp_path / "x.seq", [make_frames()], description=description)
    assert load_seq(path).meta["description"] == "A\u4100B"


def test_damaged_texts_are_no_reason_not_to_load(tmp_path: Path) -> None:
    path = write_seq(tmp_path / "x.seq", [make_frames()], description=b"\x00\xd8" * 256)
    np.testing.assert_array_equal(pixels(load_seq(path)), make_frames())
    assert SEQDataSet.detect_params(path, EXECUTOR) is False


# --- errors ---


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (0, 0xFEEE, "The format of this .seq file is unrecognized"),
        (620, 1, r"Only uncompressed images are supported in \.seq files: found compression 1 \(JPEG\)"),
        (568, 101, "Non-monochrome images are not supported: found image format 101, expected 100"),
        (556, 12, r"unsupported bit depth: 12.*expected one of \(8, 16, 32, 64\)"),
        (556, 24, "unsupported bit depth: 24"),
        (556, 0, "unsupported bit depth: 0"),
        (580, 0, "true_image_size is too small: found 0 bytes, expected at least 40"),
        (580, 32, "true_image_size is too small: found 32 bytes, expected at least 40"),
        (580, 0xFFFFFFFF, "contains no frames"),
        (548, 0, "impossible size of frames.*found 0 columns, 4 rows"),
        (552, 0xFFFFFFFF, "true_image_size is too small"),
    ],
)
def test_headers_that_cannot_be_read_are_refused(
    offset: int, value: int, message: str, tmp_path: Path
) -> None:
    patches = {offset: struct.pack("<I", value)}
    path = write_seq(tmp_path / "x.seq", [make_frames()], patches=patches)
    with pytest.raises(DataSetException, match=rf"x\.seq.*{message}"):
        load_seq(path)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (0, r"unrecognized: found b''"),
        (3, "unrecognized"),
        (4, "ends inside its header: found 4 bytes, expected at least 1024"),
        (1023, "ends inside its header"),
        (1024, "contains no frames"),
        (8192, "contains no frames"),
        (8192 + 8191, "contains no frames"),
    ],
)
def test_files_that_are_cut_off_are_refused(size: int, message: str, tmp_path: Path) -> None:
    path = write_seq(tmp_path / "x.seq", [make_frames()])
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataSetException, match=rf"x\.seq.*{message}"):
        load_seq(path)
    assert SEQDataSet.detect_params(path, EXECUTOR) is False


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"no\.seq"):
        load_seq(tmp_path / "no.seq")
    with pytest.raises(FileNotFoundError):
        load_seq(tmp_path / "no.seq")


@given(st.binary(max_size=700), st.integers(0, 1024))
@example(b"\xff" * 600, 28)
@example(b"\xff" * 4, 28)
def test_any_header_parses_or_raises_the_family(noise: bytes, start: int) -> None:
    raw = bytearray(make_seq_header((4, 5), "u2", 6, 8192)[:1024])
    raw[start : start + len(noise)] = noise[: len(raw) - start]
    try:
        header = parse_header(bytes(raw), path="x.seq")
        header.check_supported("x.seq")
    except HeaderError as err:
        assert "x.seq" in str(err)
        return
    assert header.footer_bytes >= 0
    assert header.frames_in(1 << 20) >= 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.binary(max_size=2000))
def test_detection_never_fails_on_noise(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.seq"
    for start in (b"", b"\xed\xfe\0\0"):
        path.write_bytes(start + content)
        params = SEQDataSet.detect_params(str(path), EXECUTOR)
        assert params is False or isinstance(params, dict)


# --- parameters ---


def test_a_nav_shape_has_to_be_given(tmp_path: Path) -> None:
    path = write_seq(tmp_path / "x.seq", [make_frames()])
    with pytest.raises(TypeError, match="missing 1 required argument: 'nav_shape'"):
        load_seq(path, nav_shape=None)


def test_scan_size_is_an_old_name(tmp_path: Path) -> None:
    path = write_seq(tmp_path / "x.seq", [make_frames()])
    with pytest.warns(FutureWarning, match="scan_size"):
        ds = load_seq(path, nav_shape=None, scan_size=(3, 2))
    assert tuple(ds.shape.nav) == (3, 2)
    with (
        pytest.warns(FutureWarning),
        pytest.raises(ValueError, match="cannot specify both scan_size and nav_shape"),
    ):
        load_seq(path, scan_size=(3, 2))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"sig_shape": (3, 17)}, "sig_shape must be of size: 20"),
        ({"sync_offset": 6}, r"sync_offset should be in \(-6, 6\), which is \(-image_count, image_count\)"),
        ({"sync_offset": -6}, r"sync_offset should be in \(-6, 6\)"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(kwargs: Any, message: str, tmp_path: Path) -> None:
    path = write_seq(tmp_path / "x.seq", [make_frames()])
    with pytest.raises(ShapeError, match=message):
        load_seq(path, **kwargs)


# --- detection ---


@pytest.mark.parametrize("name", ["x.seq", "x.SEQ", "x.seq.seq", "x.bin"])
def test_detection_does_not_mind_the_name(name: str, tmp_path: Path) -> None:
    path = str(write_seq(tmp_path / name, [make_frames(shape=(4, 8, 9))]))
    assert SEQDataSet.detect_params(path, EXECUTOR) == {
        "parameters": {"path": path, "nav_shape": (2, 2), "sig_shape": (8, 9)},
        "info": {"image_count": 4, "native_sig_shape": (8, 9)},
    }


@pytest.mark.parametrize(("offset", "value"), [(620, 1), (568, 200), (556, 24), (556, 12)])
def test_files_that_cannot_be_read_are_still_recognized(offset: int, value: int, tmp_path: Path) -> None:
    """So that loading says what is wrong with them."""
    path = write_seq(tmp_path / "x.seq", [make_frames()], patches={offset: struct.pack("<I", value)})
    params = SEQDataSet.detect_params(path, EXECUTOR)
    assert isinstance(params, dict)
    assert params["parameters"]["nav_shape"] == (6,)
    with pytest.raises(HeaderError, match=r"supported|bit depth"):
        load("auto", path=path, nav_shape=(6,), executor=EXECUTOR)


# --- names of sidecars ---


@pytest.mark.parametrize(
    ("name", "sidecar"),
    [
        ("a.seq", "a.seq.dark.mrc"),
        ("a.seq", "a.dark.mrc"),
        ("a.seq.seq", "a.seq.dark.mrc"),
        ("a.seq.seq", "a.dark.mrc"),
        ("a.SEQ", "a.seq.dark.mrc"),
        ("a.SEQ.seq", "a.seq.dark.mrc"),
        ("a.b", "a.b.seq.dark.mrc"),
        ("a.b", "a.b.dark.mrc"),
    ],
)
def test_sidecars_are_found_by_name(name: str, sidecar: str, tmp_path: Path) -> None:
    assert find_sidecar(str(tmp_path / name), ".dark.mrc") is None
    (tmp_path / sidecar).write_bytes(b"")
    assert find_sidecar(str(tmp_path / name), ".dark.mrc") == str(tmp_path / sidecar)


def test_the_full_name_of_a_sidecar_comes_first(tmp_path: Path) -> None:
    for name in ("a.dark.mrc", "a.seq.dark.mrc"):
        (tmp_path / name).write_bytes(b"")
    assert find_sidecar(str(tmp_path / "a.seq"), ".dark.mrc") == str(tmp_path / "a.seq.dark.mrc")


# --- dark frame and gain map ---


def write_all(
    folder: Path, sig_shape: tuple[int, int] = (4, 5)
) -> tuple[Path, npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """A SEQ file with dark frame, gain map and a defect at (1, 2) of the frames."""
    frames = make_frames(shape=(6, *sig_shape))
    rng = np.random.default_rng(1)
    dark, gain = rng.random((2, *sig_shape)).astype(np.float32)
    path = write_seq(folder / "x.seq", [frames])
    write_seq_reference(folder / "x.seq.dark.mrc", dark)
    write_seq_reference(folder / "x.seq.gain.mrc", gain)
    write_seq_metadata(folder / "x.seq.metadata", sig_shape, (10, 20))
    defect = {"Row": 11, "Column": 22}
    write_seq_config(folder / "x.seq.Config.Metadata.xml", [({"Rows": 64, "Columns": 128}, [defect])])
    return path, frames, dark, gain


def test_corrections_come_from_the_sidecars(tmp_path: Path) -> None:
    path, frames, dark, gain = write_all(tmp_path)
    ds = load_seq(path)
    corrections = ds.get_correction_data()
    np.testing.assert_array_equal(corrections.get_dark_frame(), dark)
    np.testing.assert_array_equal(corrections.get_gain_map(), gain)
    np.testing.assert_array_equal(corrections.get_excluded_pixels().coords, [[1], [2]])
    assert corrections.get_dark_frame().dtype == np.float32
    expected = (frames - dark) * gain
    around = np.delete(expected[:, :3, 1:4].reshape(6, 9), 4, axis=1)
    expected[:, 1, 2] = around.mean(axis=1)
    with Context(executor=InlineJobExecutor()) as ctx:
        total = ctx.run_udf(dataset=ds, udf=SumUDF())["intensity"].data
        raw = ctx.run_udf(dataset=ds, udf=SumUDF(), corrections=CorrectionSet())["intensity"].data
    assert total.dtype == np.float32
    np.testing.assert_allclose(total, expected.sum(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(raw, frames.sum(axis=0))


def test_corrections_are_read_once(tmp_path: Path) -> None:
    path, *_ = write_all(tmp_path)
    ds = load_seq(path)
    corrections = ds.get_correction_data()
    for sidecar in tmp_path.glob("x.seq.*"):
        sidecar.unlink()
    assert ds.get_correction_data() is corrections
    copy = pickle.loads(pickle.dumps(ds)).get_correction_data()
    np.testing.assert_array_equal(copy.get_gain_map(), corrections.get_gain_map())
    assert not load_seq(path).get_correction_data().have_corrections()


def test_corrections_follow_the_shape_of_the_frames(tmp_path: Path) -> None:
    path, _, dark, _ = write_all(tmp_path)
    corrections = load_seq(path, sig_shape=(20,)).get_correction_data()
    np.testing.assert_array_equal(corrections.get_dark_frame(), dark.reshape(20))
    np.testing.assert_array_equal(corrections.get_excluded_pixels().coords, [[7]])


def test_diagnostics_show_header_and_sidecars(tmp_path: Path) -> None:
    path, *_ = write_all(tmp_path)
    diagnostics = load_seq(path).diagnostics
    names = [item["name"] for item in diagnostics]
    facts = {item["name"]: item["value"] for item in diagnostics}
    assert names[:26] == list(HEADER_DTYPE.names or ())
    assert names[26:29] == ["Footer size", "Dark frame included", "Gain map included"]
    assert (facts["width"], facts["suggested_frame_rate"]) == ("5", "25.0")
    assert (facts["Footer size"], facts["Dark frame included"]) == ("8152", "True")
    assert (facts["Gain map included"], facts["Excluded pixels"]) == ("True", "1")
    bare = load_seq(write_seq(tmp_path / "bare.seq", [make_frames()]))
    facts = {item["name"]: item["value"] for item in bare.diagnostics}
    assert (facts["Dark frame included"], facts["Excluded pixels"]) == ("False", "no map")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "ends inside the header"),
        (bytes(2000), "not an MRC file"),
        (None, r"does not belong to these frames: found \(4, 6\) float32, expected \(4, 5\)"),
    ],
)
def test_references_that_cannot_be_used_are_left_out(
    content: bytes | None, message: str, tmp_path: Path
) -> None:
    path, frames, _, gain = write_all(tmp_path)
    dark = tmp_path / "x.seq.dark.mrc"
    if content is None:
        write_seq_reference(dark, np.zeros((4, 6)))
    else:
        dark.write_bytes(content)
    with pytest.warns(RuntimeWarning, match=rf"x\.seq\.dark\.mrc.*{message}.*without this correction"):
        ds = load_seq(path)
    assert ds.get_correction_data().get_dark_frame() is None
    np.testing.assert_array_equal(ds.get_correction_data().get_gain_map(), gain)
    np.testing.assert_array_equal(pixels(ds), frames)
    assert "Sidecar left out" in [item["name"] for item in ds.diagnostics]


def test_a_cut_reference_is_left_out(tmp_path: Path) -> None:
    path, *_ = write_all(tmp_path)
    dark = tmp_path / "x.seq.dark.mrc"
    dark.write_bytes(dark.read_bytes()[:-1])
    with pytest.warns(
        RuntimeWarning, match="shorter than its image: found 1103 bytes, expected at least 1104"
    ):
        load_seq(path)


def test_references_of_other_modes_and_byte_orders_are_read(tmp_path: Path) -> None:
    path, *_ = write_all(tmp_path)
    write_mrc(tmp_path / "x.seq.dark.mrc", np.full((3, 4, 5), -7, dtype="i2"), byte_order=">")
    dark = load_seq(path).get_correction_data().get_dark_frame()
    assert dark.dtype == np.float32
    assert (dark == -7).all()


# --- geometry ---


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("binning", [1, 2])
def test_both_layouts_of_metadata_are_told_apart(bare: bool, binning: int, tmp_path: Path) -> None:
    size = (64 * binning, 128 * binning)
    path = write_seq_metadata(tmp_path / "x", size, (480, 512), binning, bare=bare)
    assert parse_metadata(path.read_bytes(), (64, 128)) == Geometry(size, (480, 512), binning)


def test_metadata_of_other_frames_is_no_geometry(tmp_path: Path) -> None:
    raw = write_seq_metadata(tmp_path / "x", (64, 128), (0, 0)).read_bytes()
    assert parse_metadata(raw, (64, 127)) is None
    assert parse_metadata(raw[:300], (64, 128)) is None
    for size, offset, binning in (
        ((64, 128), (-1, 0), 1),
        ((64, 128), (0, 65536), 1),
        ((0, 0), (0, 0), 0),
        ((64 * 17, 128 * 17), (0, 0), 17),
        ((-64, -128), (0, 0), -1),
    ):
        raw = write_seq_metadata(tmp_path / "x", size, offset, binning).read_bytes()
        assert parse_metadata(raw, (64, 128)) is None


def test_turned_frames_have_a_geometry_but_cannot_be_mapped(tmp_path: Path) -> None:
    raw = write_seq_metadata(tmp_path / "x", (128, 64), (0, 0), rotation=1).read_bytes()
    geometry = parse_metadata(raw, (64, 128))
    assert geometry == Geometry((128, 64), (0, 0), 1, 1)
    with pytest.raises(MisfitError, match="turned relative to the sensor"):
        excluded_pixels((DefectMap((256, 256), 1, ()),), geometry, (64, 128))
    raw = write_seq_metadata(tmp_path / "x", (128, 64), (0, 0), rotation=2).read_bytes()
    assert parse_metadata(raw, (64, 128)) is None


def test_metadata_that_only_counts_frames_has_no_geometry() -> None:
    record = struct.pack("<4IQ", 24, 1, 10, 8, 1).ljust(224, b"\x07")
    raw = struct.pack("<4I", 1, 256, 3, 224).ljust(256, b"\0") + record * 3
    assert parse_metadata(raw, (64, 128)) is None


def test_the_readout_may_come_after_another_entry(tmp_path: Path) -> None:
    raw = write_seq_metadata(tmp_path / "x", (64, 128), (1, 2)).read_bytes()
    counter = struct.pack("<4IQ", 24, 1, 10, 8, 1)
    raw = struct.pack("<4I", 1, 256, 1, 248).ljust(256, b"\0") + counter + raw[256 : 256 + 224]
    assert parse_metadata(raw, (64, 128)) == Geometry((64, 128), (1, 2), 1)


@given(st.binary(max_size=600), st.booleans())
def test_any_metadata_is_harmless(noise: bytes, with_header: bool) -> None:
    raw = struct.pack("<4I", 1, 16, 3, 500) + noise if with_header else noise
    geometry = parse_metadata(raw, (4, 5))
    assert geometry is None or geometry.fits((4, 5))


# --- defects ---


def config(
    *maps: tuple[Mapping[str, object], Sequence[Mapping[str, object]]], tmp_path: Path, **file_info: object
) -> Any:
    path = write_seq_config(tmp_path / "c.xml", maps, file_info or None)
    return parse_config(path.read_bytes(), path="c.xml")


def test_every_form_of_defect_is_read(tmp_path: Path) -> None:
    defects = [
        {"Row": 1},
        {"Rows": "2-4"},
        {"Column": " 5 "},
        {"Columns": "6 - 7"},
        {"Row": 8, "Column": 9},
        {"Columns": "10-11", "Row": 12},
        {"Column": 13, "Rows": "14-15"},
        {"Columns": "1-2", "Rows": "3-4"},
        {"Columns": "0-1023", "Row": "109", "pattern": "00110011"},
        {"Columns": "7"},
    ]
    parsed = config(({"Rows": 16, "Columns": 20}, defects), tmp_path=tmp_path)
    assert parsed.notices == ()
    (defect_map,) = parsed.maps
    assert (defect_map.shape, defect_map.binning) == ((16, 20), 1)
    assert defect_map.defects == (
        Defect((1, 1), None),
        Defect((2, 4), None),
        Defect(None, (5, 5)),
        Defect(None, (6, 7)),
        Defect((8, 8), (9, 9)),
        Defect((12, 12), (10, 11)),
        Defect((14, 15), (13, 13)),
        Defect((3, 4), (1, 2)),
        Defect((109, 109), (0, 1023)),
        Defect(None, (7, 7)),
    )


@pytest.mark.parametrize(
    "defect",
    [{}, {"Row": "x"}, {"Rows": "1-2-3"}, {"Row": -1}, {"Row": 1, "Rows": "2-3"}, {"Row": "9" * 5000}],
)
def test_a_defect_that_makes_no_sense_is_left_out(defect: dict[str, Any], tmp_path: Path) -> None:
    parsed = config(({"Rows": 16, "Columns": 20}, [defect, {"Row": 3}]), tmp_path=tmp_path)
    assert parsed.maps[0].defects == (Defect((3, 3), None),)
    assert "c.xml: 1 defects were ignored" in parsed.notices[0]


def test_a_map_without_a_shape_is_left_out(tmp_path: Path) -> None:
    parsed = config(({"Rows": 16}, [{"Row": 1}]), ({"Rows": 2, "Columns": 3}, []), tmp_path=tmp_path)
    assert [defect_map.shape for defect_map in parsed.maps] == [(2, 3)]
    assert "a map of defects was ignored: found Columns ''" in parsed.notices[0]


def marked_by_hand(defect_map: DefectMap, geometry: Geometry) -> npt.NDArray[np.bool_]:
    """The slow way: draw the whole sensor, bin it, cut it."""
    full = np.zeros(defect_map.shape, dtype=bool)
    for defect in defect_map.defects:
        rows = slice(None) if defect.rows is None else slice(defect.rows[0], defect.rows[1] + 1)
        columns = slice(None) if defect.columns is None else slice(defect.columns[0], defect.columns[1] + 1)
        full[rows, columns] = True
    binning = defect_map.binning
    y, x = (start // binning for start in geometry.offset)
    height, width = (extent // binning for extent in geometry.size)
    cut = full[y : y + height, x : x + width]
    factor = geometry.binning // binning
    height, width = (extent // factor for extent in cut.shape)
    cut = cut[: height * factor, : width * factor]
    return cut.reshape(height, factor, width, factor).any(axis=(1, 3))


ENDS = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda ends: (min(ends), max(ends)))
DEFECTS = st.builds(Defect, st.none() | ENDS, st.none() | ENDS)


@given(
    st.lists(DEFECTS, max_size=4),
    st.sampled_from([(1, 1), (1, 2), (2, 2), (1, 3), (2, 4)]),
    st.tuples(st.integers(0, 12), st.integers(0, 12)),
)
def test_defects_land_where_numpy_puts_them(
    defects: list[Defect], binnings: tuple[int, int], offset: tuple[int, int]
) -> None:
    map_binning, binning = binnings
    defect_map = DefectMap((36 // map_binning, 40 // map_binning), map_binning, tuple(defects))
    geometry = Geometry((24, 12), offset, binning)
    sig_shape = (24 // binning, 12 // binning)
    assert geometry.fits(sig_shape)
    expected = marked_by_hand(defect_map, geometry)
    np.testing.assert_array_equal(excluded_pixels((defect_map,), geometry, sig_shape), expected)


def test_unbinned_worked_case() -> None:
    defect_map = DefectMap((4096, 4096), 1, (Defect((2311, 2312), None), Defect(None, (2311, 2311))))
    marked = excluded_pixels((defect_map,), Geometry((1024, 1024), (1536, 1536), 1), (1024, 1024))
    expected = np.zeros((1024, 1024), dtype=bool)
    expected[775:777] = True
    expected[:, 775] = True
    np.testing.assert_array_equal(marked, expected)


def test_binned_worked_case() -> None:
    defects = (
        Defect((1250, 1252), None),
        Defect((800, 800), None),
        Defect(None, (768, 770)),
        Defect(None, (1000, 1000)),
        Defect((1200, 1200), (1100, 1100)),
    )
    maps = (DefectMap((4096, 4096), 1, (Defect((0, 4095), None),)), DefectMap((2048, 2048), 2, defects))
    marked = excluded_pixels(maps, Geometry((1024, 1024), (1536, 1536), 2), (512, 512))
    expected = np.zeros((512, 512), dtype=bool)
    expected[482:485] = expected[32] = expected[432, 332] = True
    expected[:, 0:3] = True
    expected[:, 232] = True
    np.testing.assert_array_equal(marked, expected)


def test_the_largest_map_of_the_right_binning_is_used() -> None:
    def with_row(row: int, shape: tuple[int, int], binning: int) -> DefectMap:
        return DefectMap(shape, binning, (Defect((row, row), None),))

    maps = (
        with_row(0, (8, 8), 1),
        with_row(1, (16, 16), 1),
        with_row(2, (16, 16), 1),
        with_row(3, (8, 8), 2),
        with_row(0, (64, 64), 4),
    )
    assert excluded_pixels(maps, Geometry((8, 8), (0, 0), 1), (8, 8))[:, 0].nonzero()[0].tolist() == [1]
    assert excluded_pixels(maps, Geometry((8, 8), (0, 0), 2), (4, 4))[:, 0].nonzero()[0].tolist() == [3]
    with pytest.raises(MisfitError, match=r"no map for binning 1, only for \[2, 4\]"):
        excluded_pixels(maps[3:], Geometry((8, 8), (0, 0), 1), (8, 8))


def test_maps_that_do_not_cover_the_frames_are_not_used() -> None:
    maps = (DefectMap((16, 16), 1, ()),)
    with pytest.raises(MisfitError, match="exceed the map"):
        excluded_pixels(maps, Geometry((8, 8), (0, 9), 1), (8, 8))


def test_without_a_geometry_the_map_has_to_have_the_shape_of_the_frames() -> None:
    maps = (DefectMap((8, 8), 1, ()), DefectMap((4, 5), 1, (Defect((1, 1), (2, 2)),)))
    assert np.argwhere(excluded_pixels(maps, None, (4, 5))).tolist() == [[1, 2]]
    with pytest.raises(MisfitError, match="nothing says which part"):
        excluded_pixels(maps, None, (5, 4))


def test_a_map_that_claims_to_be_huge_takes_no_memory() -> None:
    claim = (999999999, 999999999)
    maps = (DefectMap(claim, 1, (Defect(None, (3, claim[1])), Defect((0, claim[0]), None))),)
    assert excluded_pixels(maps, Geometry((4, 5), (0, 0), 1), (4, 5)).all()


def test_file_info_takes_the_place_of_missing_metadata(tmp_path: Path) -> None:
    path, *_ = write_all(tmp_path)
    (tmp_path / "x.seq.metadata").unlink()
    names = {"ImageSizeX": 5, "ImageSizeY": 4, "ImageOffsetX": 21, "ImageOffsetY": 11, "ImageBinning": 1}
    defects = [{"Row": 11, "Column": 22}]
    config_path = tmp_path / "x.seq.Config.Metadata.xml"
    write_seq_config(config_path, [({"Rows": 64, "Columns": 128}, defects)], names)
    excluded = load_seq(path).get_correction_data().get_excluded_pixels()
    np.testing.assert_array_equal(excluded.coords, [[0], [1]])
    for name in ("ImageSizeX", "ImageSizeY"):
        write_seq_config(config_path, [({"Rows": 64, "Columns": 128}, defects)], {**names, name: 40})
        with pytest.warns(RuntimeWarning, match="no pixels are excluded: nothing says which part"):
            ds = load_seq(path)
        assert ds.get_correction_data().get_excluded_pixels() is None


def test_a_config_without_maps_excludes_nothing(tmp_path: Path) -> None:
    path, *_ = write_all(tmp_path)
    write_seq_config(tmp_path / "x.seq.Config.Metadata.xml", [], {"ImageSizeX": 5})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_seq(path).get_correction_data().get_excluded_pixels() is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<Configuration>",
        b'<?xml version="1.0" encoding="nonsense"?><Configuration/>',
        b'<!DOCTYPE x [<!ENTITY a "b">]><Configuration>&a;</Configuration>',
    ],
)
def test_a_damaged_config_is_left_out(content: bytes, tmp_path: Path) -> None:
    path, frames, *_ = write_all(tmp_path)
    (tmp_path / "x.seq.Config.Metadata.xml").write_bytes(content)
    with pytest.warns(
        RuntimeWarning, match=r"Config\.Metadata\.xml: no pixels are excluded: not a well-formed"
    ):
        ds = load_seq(path)
    np.testing.assert_array_equal(pixels(ds), frames)


@given(st.binary(max_size=200))
def test_any_config_parses_or_raises_the_family(raw: bytes) -> None:
    for content in (raw, b"<Configuration><BadPixels>" + raw + b"</BadPixels></Configuration>"):
        try:
            parse_config(content, path="c.xml")
        except HeaderError as err:
            assert "c.xml" in str(err)


def test_wide_defects_do_not_prevent_reading(tmp_path: Path) -> None:
    path, frames, dark, gain = write_all(tmp_path, (8, 8))
    write_seq_config(
        tmp_path / "x.seq.Config.Metadata.xml", [({"Rows": 64, "Columns": 64}, [{"Rows": "12-14"}])]
    )
    ds = load_seq(path)
    with Context(executor=InlineJobExecutor()) as ctx:
        total = ctx.run_udf(dataset=ds, udf=SumUDF())["intensity"].data
    expected = ((frames - dark) * gain).sum(axis=0)
    # The middle row has no neighbours to be repaired from.
    np.testing.assert_allclose(total[3], expected[3], rtol=1e-5)
    np.testing.assert_allclose(total[[0, 1, 5, 6, 7]], expected[[0, 1, 5, 6, 7]], rtol=1e-5)


# --- facts ---


def test_facts_of_a_data_set(tmp_path: Path) -> None:
    path = write_seq(tmp_path / "x.seq", [make_frames()])
    ds = load_seq(path, sync_offset=1)
    assert repr(ds) == "<SEQDataSet of uint16 shape=(2, 3, 4, 5)>"
    key = json.loads(json.dumps(ds.get_cache_key()))
    assert (key["path"], key["shape"], key["sync_offset"]) == (str(path), [2, 3, 4, 5], 1)
    assert SEQDataSet.get_supported_extensions() == {"seq"}


def test_json_parameters_need_a_nav_shape() -> None:
    import jsonschema

    converter = SEQDataSet.get_msg_converter()()
    assert isinstance(converter, SEQDatasetParams)
    message = {"type": "SEQ", "path": "x.seq", "nav_shape": [2, 3], "sync_offset": 1}
    params = converter.to_python(message)
    assert params == {"path": "x.seq", "nav_shape": (2, 3), "sync_offset": 1}
    assert converter.from_python(params) == message
    with pytest.raises(jsonschema.ValidationError, match="nav_shape"):
        converter.to_python({"type": "SEQ", "path": "x.seq"})


def find_records() -> list[Any]:
    """Real files that have corrections."""
    manifest = Path(TESTDATA) / "manifest.json"
    if not TESTDATA or not manifest.is_file():
        return []
    records = json.loads(manifest.read_text(encoding="utf-8"))
    return [pytest.param(r, id=r["id"]) for r in records if r["format"] == "seq" and "corrections" in r]


@pytest.mark.skipif(not find_records(), reason="LIBERTEM_TESTDATA names no folder with a manifest.json")
@pytest.mark.parametrize("record", find_records())
def test_corrections_of_real_files(record: dict[str, Any]) -> None:
    ds = load_seq(Path(TESTDATA) / record["path"], **record["load_kwargs"])
    corrections = ds.get_correction_data()
    expected = record["corrections"]
    for name, array in (("dark", corrections.get_dark_frame()), ("gain", corrections.get_gain_map())):
        assert array.shape == tuple(expected[name]["shape"])
        assert array.dtype == np.dtype(expected[name]["dtype"])
        assert hashlib.sha256(array.tobytes()).hexdigest() == expected[name]["sha256"]
        np.testing.assert_allclose(array.sum(dtype=np.float64), expected[name]["sum"], rtol=1e-9)
    coords = corrections.get_excluded_pixels().coords.T.tolist()
    assert coords == [list(pixel) for pixel in expected["excluded_pixels"]]
    assert read_sidecars(str(Path(TESTDATA) / record["path"]), (64, 64)).notices == ()
