from __future__ import annotations

import json
import os
import pickle
import struct
from pathlib import Path
from typing import Any, Literal

import mrcfile
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libertem.exceptions import DataSetException, HeaderError, MissingFileError, ShapeError
from libertem.executor.inline import InlineJobExecutor
from libertem.io.dataset import load
from libertem.io.dataset.base.backends.rawio import io_counts
from libertem.io.dataset.base.framefile import PROBE_BYTES
from libertem.io.dataset.base.scheme import TilingScheme
from libertem.io.dataset.mrc import MRCDataSet, MRCDatasetParams, parse_info
from libertem.testing.writers.mrc import make_mrc_header, write_mrc

EXECUTOR = InlineJobExecutor(debug=True)
BACKENDS = ["mmap", "buffered", "direct"]
MODES = ["i1", "u1", "i2", "f4", "c8", "u2", "f2"]
IMOD_UNSIGNED = {152: struct.pack("<2i", 1146047817, 0)}
INFO = """Scan - Enable                       = Enable
Scan - Type                         = Raster
Scan - ROI Enable                   = Disable
Scan - ROI Size X                   = 5
Scan - ROI Size Y                   = 7
Scan - Size X                       = 2
Scan - Size Y                       = 3
"""


def load_mrc(path: Path, **kwargs: Any) -> Any:
    return load("mrc", path=path, executor=EXECUTOR, **kwargs)


def read(ds: Any, dtype: npt.DTypeLike | None = None) -> npt.NDArray[Any]:
    """All frames, blanks as zeros, put together from the partitions."""
    dtype = ds.dtype if dtype is None else dtype
    out = np.zeros((ds.shape.nav.size, *ds.shape.sig), dtype=dtype)
    for partition in ds.get_partitions():
        tile = partition.get_macrotile(dest_dtype=dtype)
        start = tile.tile_slice.origin[0]
        out[start : start + tile.shape[0]] = tile.data
    return out.reshape(tuple(ds.shape))


def make_frames(dtype: str, shape: tuple[int, ...] = (6, 4, 5)) -> npt.NDArray[Any]:
    rng = np.random.default_rng(3)
    frames = rng.integers(0, 120, size=shape) + (0 if dtype[0] == "u" else -60)
    return (frames * (1 + 2j) if dtype == "c8" else frames).astype(dtype)


# --- content ---


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("dtype", MODES)
def test_every_mode_reads_back(
    dtype: str, byte_order: Literal["<", ">"], backend: str, tmp_path: Path
) -> None:
    frames = make_frames(dtype)
    patches = {152: struct.pack(f"{byte_order}2i", 1146047817, 0)} if dtype == "u1" else None
    path = write_mrc(tmp_path / "x.mrc", frames, byte_order=byte_order, patches=patches)
    ds = load_mrc(path, io_backend=backend)
    assert ds.dtype == frames.dtype.newbyteorder(byte_order)
    np.testing.assert_array_equal(read(ds), frames)
    as_float = np.result_type(dtype, "f4")
    np.testing.assert_array_equal(read(ds, as_float), frames.astype(as_float))


@pytest.mark.parametrize("dtype", ["i1", "i2", "f4", "c8", "u2", "f2"])
def test_mrcfile_and_this_reader_agree(dtype: str, tmp_path: Path) -> None:
    path = tmp_path / "x.mrc"
    with mrcfile.new(path) as other:
        other.set_data(make_frames(dtype))
    np.testing.assert_array_equal(read(load_mrc(path)), mrcfile.read(path))


def test_volume_stacks_are_read_as_frames(tmp_path: Path) -> None:
    path = tmp_path / "x.mrc"
    with mrcfile.new(path) as other:
        other.set_data(make_frames("i2", (2, 3, 4, 5)))
    ds = load_mrc(path)
    assert tuple(ds.shape) == (6, 4, 5)
    np.testing.assert_array_equal(read(ds), make_frames("i2", (2, 3, 4, 5)).reshape(6, 4, 5))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("n_bytes", [80, 81, 768 * 6, 131072])
def test_extended_headers_of_any_size_are_skipped(n_bytes: int, backend: str, tmp_path: Path) -> None:
    frames = make_frames("u2")
    path = write_mrc(tmp_path / "x.mrc", frames, extended=b"\xff" * n_bytes, extended_type=b"FEI1")
    ds = load_mrc(path, io_backend=backend)
    np.testing.assert_array_equal(read(ds), frames)
    np.testing.assert_array_equal(read(ds, "f4"), frames)


def test_pixels_of_native_byte_order_are_not_copied(tmp_path: Path) -> None:
    path = write_mrc(tmp_path / "x.mrc", make_frames("u2"))
    ds = load_mrc(path, io_backend="mmap")
    scheme = TilingScheme.make_for_shape(tileshape=ds.shape, dataset_shape=ds.shape)
    (tile,) = next(iter(ds.get_partitions())).get_tiles(scheme, dest_dtype=ds.dtype)
    assert not tile.data.flags.owndata
    assert not tile.data.flags.writeable


@pytest.mark.parametrize("shape", [(1, 4, 5), (6, 4, 1), (6, 1, 5), (1, 1, 1)])
def test_axes_of_length_one_stay(shape: tuple[int, ...], tmp_path: Path) -> None:
    frames = make_frames("u2", shape)
    ds = load_mrc(write_mrc(tmp_path / "x.mrc", frames))
    assert tuple(ds.shape) == shape
    np.testing.assert_array_equal(read(ds), frames)


def test_trailing_bytes_do_not_matter(tmp_path: Path) -> None:
    path = write_mrc(tmp_path / "x.mrc", make_frames("u2"))
    path.write_bytes(path.read_bytes() + b"1234567")
    np.testing.assert_array_equal(read(load_mrc(path)), make_frames("u2"))


def test_without_a_section_count_the_size_of_the_file_decides(tmp_path: Path) -> None:
    path = write_mrc(tmp_path / "x.mrc", make_frames("u2"), patches={8: bytes(4)})
    np.testing.assert_array_equal(read(load_mrc(path)), make_frames("u2"))


# --- damage ---


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_cut_last_frame_is_dropped_with_a_warning(backend: str, tmp_path: Path) -> None:
    path = write_mrc(tmp_path / "x.mrc", make_frames("u2"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(RuntimeWarning, match=r"x\.mrc: the header promises 6 frames, the file holds 5"):
        ds = load_mrc(path, io_backend=backend)
    np.testing.assert_array_equal(read(ds), make_frames("u2")[:5])


@pytest.mark.parametrize("claim", [32766, 2**31 - 1])
def test_a_section_count_that_is_no_count_is_not_believed(claim: int, tmp_path: Path) -> None:
    path = write_mrc(tmp_path / "x.mrc", make_frames("f4"), patches={8: struct.pack("<i", claim)})
    with pytest.warns(RuntimeWarning, match=f"{claim} frames, the file holds 6"):
        ds = load_mrc(path)
    np.testing.assert_array_equal(read(ds), make_frames("f4"))


def test_a_file_without_any_whole_frame_is_refused(tmp_path: Path) -> None:
    path = write_mrc(tmp_path / "x.mrc", make_frames("u2"))
    path.write_bytes(path.read_bytes()[: 1024 + 39])
    with pytest.raises(DataSetException, match=r"x\.mrc.*no frames: found 1063 bytes, expected 1064 or more"):
        load_mrc(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "found 0 bytes"),
        (bytes(1023), "found 1023 bytes, expected at least 1024"),
        (b"Not what it should be. " * 100, "not an MRC file"),
        (make_mrc_header((6, 4, 5), 101) + bytes(100), "mode 101"),
    ],
)
def test_what_is_no_mrc_file_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.mrc"
    path.write_bytes(content)
    with pytest.raises(HeaderError, match=rf"x\.mrc.*{message}"):
        load_mrc(path)
    assert MRCDataSet.detect_params(str(path), EXECUTOR) is False


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"no\.mrc"):
        load_mrc(tmp_path / "no.mrc")
    with pytest.raises(FileNotFoundError):
        load_mrc(tmp_path / "no.mrc")


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataSetException, match="found a directory"):
        load_mrc(tmp_path)


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="permissions do not bind this user")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = write_mrc(tmp_path / "x.mrc", make_frames("u2"))
    path.chmod(0)
    with pytest.raises(PermissionError, match=r"x\.mrc"):
        load_mrc(path)


# --- parameters ---


@pytest.mark.parametrize("nav_shape", [(2, 3), (4,), (2, 2, 2), (7,), np.array([3, 2])])
def test_any_scan_shape_can_be_given(nav_shape: Any, tmp_path: Path) -> None:
    frames = make_frames("u2")
    ds = load_mrc(write_mrc(tmp_path / "x.mrc", frames), nav_shape=nav_shape)
    n = int(np.prod(nav_shape))
    expected = np.concatenate([frames, np.zeros_like(frames)])[:n]
    assert tuple(ds.shape.nav) == tuple(nav_shape)
    np.testing.assert_array_equal(read(ds).reshape(n, 4, 5), expected)


@pytest.mark.parametrize("sig_shape", [(20,), (5, 4), (2, 2, 5)])
def test_frames_can_be_given_another_shape(sig_shape: tuple[int, ...], tmp_path: Path) -> None:
    ds = load_mrc(write_mrc(tmp_path / "x.mrc", make_frames("u2")), sig_shape=sig_shape)
    assert ds.shape.sig.to_tuple() == sig_shape
    np.testing.assert_array_equal(read(ds), make_frames("u2").reshape(6, *sig_shape))


@pytest.mark.parametrize("sync_offset", [-5, -2, 0, None, 3, 5])
def test_the_sync_offset_shifts_the_scan(sync_offset: int | None, tmp_path: Path) -> None:
    frames = make_frames("u2")
    ds = load_mrc(write_mrc(tmp_path / "x.mrc", frames), sync_offset=sync_offset, num_partitions=2)
    expected = np.zeros_like(frames)
    for i in range(6):
        if 0 <= i + (sync_offset or 0) < 6:
            expected[i] = frames[i + (sync_offset or 0)]
    np.testing.assert_array_equal(read(ds), expected)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"sig_shape": (3, 17)}, ShapeError, "sig_shape must be of size: 20.*leave sig_shape out"),
        ({"sig_shape": (4, -5)}, ShapeError, "sig_shape has to consist of positive integers"),
        ({"nav_shape": (-1, 2)}, ShapeError, "nav_shape has to consist of positive integers"),
        ({"nav_shape": (float("nan"),)}, ShapeError, "nav_shape has to consist"),
        ({"nav_shape": 4}, TypeError, "not iterable"),
        ({"sync_offset": 6}, ShapeError, r"sync_offset should be in \(-6, 6\), which is"),
        (
            {"io_backend": "doesn't exist"},
            DataSetException,
            "not an I/O backend.*'mmap'",
        ),
    ],
)
def test_parameters_that_do_not_fit_are_refused(
    kwargs: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    path = write_mrc(tmp_path / "x.mrc", make_frames("u2"))
    with pytest.raises(error, match=message):
        load_mrc(path, **kwargs)


# --- detection ---


@pytest.mark.parametrize("name", ["x.mrc", "x.MRC"])
def test_detection_squares_the_scan(name: str, tmp_path: Path) -> None:
    path = str(write_mrc(tmp_path / name, make_frames("u2", (4, 8, 9))))
    assert MRCDataSet.detect_params(path, EXECUTOR) == {
        "parameters": {"path": path, "nav_shape": (2, 2), "sig_shape": (8, 9)},
        "info": {"image_count": 4, "native_sig_shape": (8, 9)},
    }


def test_detection_leaves_other_frame_counts_alone(tmp_path: Path) -> None:
    path = write_mrc(tmp_path / "x.mrc", make_frames("u2"))
    params = MRCDataSet.detect_params(path, EXECUTOR)
    assert isinstance(params, dict)
    assert params["parameters"]["nav_shape"] == (6,)


@pytest.mark.parametrize("path", ["no.mrc", "no.txt", 555, None, b"x.mrc", "a\0.mrc"])
def test_detection_says_no_to_what_is_no_file(path: Any) -> None:
    assert MRCDataSet.detect_params(path, EXECUTOR) is False


def test_detection_does_not_touch_files_with_another_extension(tmp_path: Path) -> None:
    path = write_mrc(tmp_path / "x.map", make_frames("u2"))
    before = io_counts()
    assert MRCDataSet.detect_params(path, EXECUTOR) is False
    assert io_counts() == before


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.binary(max_size=2000))
def test_detection_never_fails_on_noise(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.mrc"
    path.write_bytes(content)
    params = MRCDataSet.detect_params(str(path), EXECUTOR)
    assert params is False or isinstance(params, dict)


def test_detection_takes_the_scan_from_fei_records(tmp_path: Path) -> None:
    record = (bytes(587) + struct.pack("<4i", 1, 1, 4, 3)).ljust(768, b"\0")
    path = write_mrc(tmp_path / "x.mrc", make_frames("u2"), extended=record * 6, extended_type=b"FEI1")
    params = MRCDataSet.detect_params(path, EXECUTOR)
    assert isinstance(params, dict)
    assert params["parameters"]["nav_shape"] == (2, 3)
    assert tuple(load_mrc(path).shape) == (6, 4, 5)


@pytest.mark.parametrize("suffix", ["info", "12_info"])
@pytest.mark.parametrize(("count", "nav_shape"), [(6, (3, 2)), (7, (7,))])
def test_detection_takes_the_scan_from_the_text_beside_a_movie(
    count: int, nav_shape: tuple[int, ...], suffix: str, tmp_path: Path
) -> None:
    path = write_mrc(tmp_path / "20240101_00012_x_1_movie.mrc", make_frames("u2", (count, 4, 5)))
    (tmp_path / f"20240101_00012_{suffix}.txt").write_text(INFO)
    before = io_counts()
    params = MRCDataSet.detect_params(path, EXECUTOR)
    assert (io_counts() - before).read_bytes <= PROBE_BYTES
    assert isinstance(params, dict)
    assert params["parameters"]["nav_shape"] == nav_shape


@pytest.mark.parametrize(
    ("old", "new", "shape"),
    [
        ("", "", (3, 2)),
        ("ROI Enable                   = Disable", "ROI Enable = Enable", (7, 5)),
        ("Raster", "Random", None),
        ("= Enable", "= Disable", None),
        ("Y                       = 3", "Y = nan", None),
        ("Y                       = 3", "Y = -3", None),
        ("Scan - Size X                       = 2\n", "", None),
    ],
)
def test_only_rasters_with_a_size_have_a_scan_shape(old: str, new: str, shape: Any) -> None:
    assert parse_info(INFO.replace(old, new).encode()) == shape


@given(st.binary(max_size=300))
def test_any_text_beside_a_movie_is_harmless(raw: bytes) -> None:
    assert parse_info(raw) is None


# --- facts ---


def test_diagnostics_show_the_header(tmp_path: Path) -> None:
    path = write_mrc(tmp_path / "x.mrc", make_frames("f4"), byte_order=">", extended=bytes(80))
    diagnostics = {item["name"]: item["value"] for item in load_mrc(path).diagnostics}
    assert diagnostics["dtype"] == ">f4"
    assert diagnostics["MRC mode"] == 2
    assert diagnostics["NX, NY, NZ"] == "5, 4, 6"
    assert diagnostics["Byte order"] == "big endian"
    assert diagnostics["Extended header bytes"] == 80
    assert diagnostics["Number of partitions"] == "1"


def test_facts_of_a_data_set(tmp_path: Path) -> None:
    path = write_mrc(tmp_path / "x.mrc", make_frames("f4"))
    ds = load_mrc(path, sync_offset=1)
    assert repr(ds) == "<MRCDataSet of float32 shape=(6, 4, 5)>"
    key = json.loads(json.dumps(ds.get_cache_key()))
    assert (key["path"], key["shape"], key["sync_offset"]) == (str(path), [6, 4, 5], 1)
    assert ds.get_diagnostics()[0] == {"name": "dtype", "value": "float32"}
    np.testing.assert_array_equal(read(pickle.loads(pickle.dumps(ds))), read(ds))
    assert MRCDataSet.get_supported_extensions() == {"mrc"}


def test_json_parameters_become_arguments() -> None:
    converter = MRCDataSet.get_msg_converter()()
    assert isinstance(converter, MRCDatasetParams)
    params = converter.to_python(
        {"type": "MRC", "path": "x.mrc", "nav_shape": [2, 3], "sync_offset": 1, "io_backend": "buffered"}
    )
    backend = params.pop("io_backend")
    assert backend.id_ == "buffered"
    assert params == {"path": "x.mrc", "nav_shape": (2, 3), "sync_offset": 1}
    message = converter.from_python({**params, "sig_shape": None, "io_backend": backend})
    assert message == {
        "type": "MRC",
        "path": "x.mrc",
        "nav_shape": [2, 3],
        "sync_offset": 1,
        "io_backend": "buffered",
    }
