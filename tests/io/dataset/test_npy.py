from __future__ import annotations

import io
import json
import os
import pickle
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from libertem.exceptions import (
    DataSetException,
    HeaderError,
    MissingFileError,
    ShapeError,
    SizeMismatchError,
)
from libertem.executor.inline import InlineJobExecutor
from libertem.io.dataset import load
from libertem.io.dataset.base.backends.rawio import io_counts
from libertem.io.dataset.base.framefile import PROBE_BYTES
from libertem.io.dataset.npy import NPYDataSet, NPYDatasetParams, parse_header, read_npy_info
from libertem.testing.suite.reading import assert_delivered
from libertem.testing.suite.reading import read as read_tiles
from libertem.testing.suite.transposed import TransposedTests
from libertem.testing.writers.npy import write_npy, write_npy_header

EXECUTOR = InlineJobExecutor(debug=True)
BACKENDS = ["mmap", "buffered", "direct"]
SHAPE = (2, 4, 4, 5)
DTYPES = [
    "?",
    "u1",
    "<i2",
    ">i2",
    "<u2",
    ">u2",
    ">i4",
    "<u8",
    "<f2",
    "<f4",
    ">f4",
    "<f8",
    ">f8",
    "<c8",
    ">c16",
]


def load_npy(path: Path, *args: Any, **kwargs: Any) -> Any:
    return load("npy", path, *args, executor=EXECUTOR, **kwargs)


def read(ds: Any, dtype: npt.DTypeLike | None = None) -> npt.NDArray[Any]:
    """All frames, blanks as zeros, put together from the partitions."""
    dtype = ds.dtype if dtype is None else dtype
    out = np.zeros((ds.shape.nav.size, *ds.shape.sig), dtype=dtype)
    for partition in ds.get_partitions():
        tile = partition.get_macrotile(dest_dtype=dtype)
        start = tile.tile_slice.origin[0]
        out[start : start + tile.shape[0]] = tile.data
    return out.reshape(tuple(ds.shape))


def make_array(dtype: str = "<u2", shape: tuple[int, ...] = SHAPE) -> npt.NDArray[Any]:
    return np.arange(1, np.prod(shape, dtype=int) + 1).reshape(shape).astype(dtype)


def header(text: str, version: tuple[int, int] = (1, 0)) -> bytes:
    return write_npy_header(text, version)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_npy(tmp_path / "x.npy", make_array())


# --- the common suite, for arrays in Fortran order ---


class TestFortranOrder(TransposedTests):
    filetype = "npy"
    dtypes = ("<u2", "?", "u1", ">i4", "<f2", "<f4", ">f8", "<c8", "<c16")
    larger_nav_shape = "refused"

    def sig_arguments(self, sig_shape: tuple[int, ...]) -> dict[str, Any]:
        return {"sig_shape": sig_shape, "sig_dims": None}

    def write(self, folder: Path, frames: npt.NDArray[Any]) -> dict[str, Any]:
        np.save(folder / "x.npy", np.asfortranarray(frames))
        return {"path": str(folder / "x.npy"), "transposed": "direct"}

    def make_frames(self, n: int, dtype: str | None = None, *, seed: int = 0) -> npt.NDArray[Any]:
        stored = np.dtype(self.dtypes[0] if dtype is None else dtype)
        # float16 holds whole numbers up to 2048 only.
        frames = super().make_frames(n, dtype, seed=seed)
        return np.clip(frames, -2000, 2000).astype(stored) if stored.itemsize == 2 else frames


@pytest.mark.parametrize(
    ("shape", "kwargs", "expected"),
    [
        (SHAPE, {}, SHAPE),
        (SHAPE, {"sig_dims": 1}, SHAPE),
        (SHAPE, {"sig_dims": 3}, SHAPE),
        (SHAPE, {"sig_dims": 4}, (1, *SHAPE)),
        (SHAPE, {"nav_shape": (3,)}, (3, 4, 5)),
        (SHAPE, {"nav_shape": (8,), "sig_shape": (5, 4)}, (8, 5, 4)),
        (SHAPE, {"sig_dims": None, "sig_shape": (20,)}, (2, 4, 20)),
        ((3, 2, 4, 5, 2), {}, (3, 2, 4, 5, 2)),
        ((4, 5), {}, (1, 4, 5)),
    ],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_fortran_order_is_read_on_request(
    shape: tuple[int, ...], kwargs: dict[str, Any], expected: tuple[int, ...], backend: str, tmp_path: Path
) -> None:
    array = make_array(shape=shape)
    np.save(tmp_path / "x.npy", np.asfortranarray(array))
    ds = load_npy(tmp_path / "x.npy", transposed="direct", io_backend=backend, **kwargs)
    n = int(np.prod(expected))
    frames = array.reshape(-1)[:n].reshape(expected)
    np.testing.assert_array_equal(read(ds), frames)
    flat = frames.reshape(-1, *ds.shape.sig)
    assert_delivered(read_tiles(ds), flat, None, repr(ds))


def test_files_in_c_order_do_not_mind_the_request(path: Path) -> None:
    ds = load_npy(path, transposed="direct", sig_shape=(2, 5))
    np.testing.assert_array_equal(read(ds), make_array().reshape(-1)[:80].reshape(2, 4, 2, 5))
    assert ds.get_cache_key() == load_npy(path, sig_shape=(2, 5)).get_cache_key()


def test_fortran_order_allows_no_other_frames(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.asfortranarray(make_array()))
    for kwargs in ({"sig_shape": (2, 5)}, {"sig_dims": None, "sig_shape": (21,)}, {"nav_shape": (9,)}):
        with pytest.raises(ShapeError, match=r"x\.npy.*found"):
            load_npy(tmp_path / "x.npy", transposed="direct", **kwargs)
    os.truncate(tmp_path / "x.npy", 300)
    with pytest.raises(SizeMismatchError, match="shorter than its array"):
        load_npy(tmp_path / "x.npy", transposed="direct", nav_shape=(2,))


# --- content ---


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_reads_back(dtype: str, backend: str, tmp_path: Path) -> None:
    array = make_array(dtype)
    np.save(tmp_path / "x.npy", array)
    ds = load_npy(tmp_path / "x.npy", io_backend=backend)
    assert ds.dtype == np.dtype(dtype)
    assert tuple(ds.shape) == SHAPE
    np.testing.assert_array_equal(read(ds), array)
    wide = np.result_type(np.dtype(dtype).newbyteorder("="), "f4")
    np.testing.assert_array_equal(read(ds, wide), array.astype(wide))


@pytest.mark.parametrize("python2", [False, True])
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_all_versions_of_the_format_are_read(version: tuple[int, int], python2: bool, tmp_path: Path) -> None:
    path = write_npy(tmp_path / "x.npy", make_array(), version=version, python2=python2)
    np.testing.assert_array_equal(read(load_npy(path)), make_array())


@pytest.mark.parametrize(
    ("kwargs", "nav", "sig", "image_count"),
    [
        ({}, (2, 4), (4, 5), 8),
        ({"sig_dims": 1}, (2, 4, 4), (5,), 32),
        ({"sig_dims": 3}, (2,), (4, 4, 5), 2),
        ({"sig_dims": 4}, (1,), (2, 4, 4, 5), 1),
        ({"nav_shape": (3,)}, (3,), (4, 5), 8),
        ({"nav_shape": [8]}, (8,), (4, 5), 8),
        ({"nav_shape": np.array([4, 2])}, (4, 2), (4, 5), 8),
        ({"sig_shape": (2, 5)}, (2, 4), (2, 5), 16),
        ({"nav_shape": (16,), "sig_shape": (2, 5)}, (16,), (2, 5), 16),
        ({"sig_shape": (3, 3)}, (2, 4), (3, 3), 17),
        ({"sig_dims": None, "nav_shape": (8,), "sig_shape": (20,)}, (8,), (20,), 8),
        ({"nav_shape": (), "sig_shape": ()}, (2, 4), (4, 5), 8),
    ],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_shapes_are_taken_in_c_order_from_the_start(
    kwargs: dict[str, Any],
    nav: tuple[int, ...],
    sig: tuple[int, ...],
    image_count: int,
    backend: str,
    path: Path,
) -> None:
    ds = load_npy(path, io_backend=backend, **kwargs)
    assert (ds.shape.nav.to_tuple(), ds.shape.sig.to_tuple()) == (nav, sig)
    assert ds.meta.image_count == image_count
    n = int(np.prod(nav + sig))
    np.testing.assert_array_equal(read(ds), make_array().reshape(-1)[:n].reshape(nav + sig))


@pytest.mark.parametrize(
    ("shape", "kwargs", "expected"),
    [
        ((4, 5), {}, (1, 4, 5)),
        ((4, 5), {"nav_shape": (2,), "sig_shape": (2, 5)}, (2, 2, 5)),
        ((4, 5), {"sig_shape": (2, 5)}, (2, 2, 5)),
        ((10,), {"nav_shape": (5,), "sig_shape": (1, 2)}, (5, 1, 2)),
        ((10,), {"sig_dims": 1}, (1, 10)),
    ],
)
def test_an_array_with_the_axes_of_a_frame_holds_as_many_frames_as_fit(
    shape: tuple[int, ...], kwargs: dict[str, Any], expected: tuple[int, ...], tmp_path: Path
) -> None:
    array = make_array(shape=shape)
    ds = load_npy(write_npy(tmp_path / "x.npy", array), **kwargs)
    np.testing.assert_array_equal(read(ds), array.reshape(expected))


@pytest.mark.parametrize("backend", BACKENDS)
def test_skipped_frames_leave_blanks_at_the_end(backend: str, path: Path) -> None:
    ds = load_npy(path, nav_shape=(8,), sync_offset=1, io_backend=backend)
    frames = make_array().reshape(8, 4, 5)
    np.testing.assert_array_equal(read(ds), [*frames[1:], np.zeros((4, 5))])


def test_no_sync_offset_means_zero(path: Path) -> None:
    np.testing.assert_array_equal(read(load_npy(path, sync_offset=None)), make_array())


def test_a_fortran_file_in_c_order_is_read(tmp_path: Path) -> None:
    text = "{'descr': '<u2', 'fortran_order': True, 'shape': (1, 5), }"
    (tmp_path / "x.npy").write_bytes(header(text) + make_array(shape=(1, 5)).tobytes())
    ds = load_npy(tmp_path / "x.npy", sig_dims=1)
    np.testing.assert_array_equal(read(ds), make_array(shape=(1, 5)))


# --- refusals ---


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"sig_shape": (20,)}, ShapeError, r"Mismatching sig_dims \(= 2\) and sig_shape \(20,\) arguments"),
        ({"sig_dims": None}, DataSetException, "Must supply one of sig_dims or sig_shape to NPYDataSet"),
        ({"sig_dims": 2.0}, DataSetException, "Must supply one of sig_dims or sig_shape to NPYDataSet"),
        ({"sig_dims": 0}, ShapeError, "sig_dims has to be positive"),
        ({"sig_dims": -1}, ShapeError, "sig_dims has to be positive"),
        ({"sig_dims": 5}, ShapeError, r"fewer axes than a frame: found shape \(2, 4, 4, 5\), expected 5"),
        ({"nav_shape": (4, 4)}, ShapeError, "larger than that in the file.*= 320 elements, expected 160"),
        ({"nav_shape": (4, 4), "sync_offset": 99}, ShapeError, "larger than that in the file"),
        ({"sig_dims": None, "sig_shape": (20,)}, ShapeError, r"\(2, 4, 4\) \+ \(20,\) = 640 elements"),
        ({"nav_shape": (1,), "sig_shape": (161, 1)}, ShapeError, "larger than that in the file"),
        ({"nav_shape": (10**6, 10**6)}, ShapeError, "larger than that in the file"),
        ({"sync_offset": 8}, ShapeError, r"sync_offset should be in \(-8, 8\), which is"),
        ({"nav_shape": (2, -4)}, ShapeError, "nav_shape has to consist of positive integers"),
        ({"nav_shape": (float("nan"), 4)}, ShapeError, "nav_shape has to consist of positive integers"),
        ({"sig_shape": (4.0, 5)}, ShapeError, "sig_shape has to consist of positive integers"),
        ({"nav_shape": 4}, TypeError, "not iterable"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(
    kwargs: dict[str, Any], error: type[Exception], message: str, path: Path
) -> None:
    with pytest.raises(error, match=message):
        load_npy(path, **kwargs)


@pytest.mark.parametrize(
    "array",
    [np.zeros((0, 4, 5)), np.zeros((3, 4, 0)), np.array(3.0)],
    ids=["no frames", "no pixels", "no axes"],
)
def test_an_array_without_frames_is_refused(array: npt.NDArray[Any], tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(DataSetException, match=r"x\.npy.*contains no frames"):
        load_npy(tmp_path / "x.npy")


@pytest.mark.parametrize(
    "array",
    [
        np.array([[{}]]),
        np.zeros((2, 2), dtype=[("a", "<u2"), ("b", "<f4")]),
        np.zeros((2, 2), dtype="U3"),
        np.zeros((2, 2), dtype="S3"),
        np.zeros((2, 2), dtype="M8[s]"),
        np.zeros((2, 2), dtype="V4"),
    ],
)
def test_arrays_of_anything_but_numbers_are_refused(array: npt.NDArray[Any], tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(HeaderError, match=r"x\.npy: only arrays of plain numbers"):
        load_npy(tmp_path / "x.npy")
    assert NPYDataSet.detect_params(str(tmp_path / "x.npy"), EXECUTOR) is False


def test_fortran_order_is_refused_with_a_way_out(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.asfortranarray(make_array()))
    with pytest.raises(HeaderError, match=r"x\.npy.*C_CONTIGUOUS.*np\.ascontiguousarray.*'direct'"):
        load_npy(tmp_path / "x.npy")
    assert NPYDataSet.detect_params(str(tmp_path / "x.npy"), EXECUTOR) is False


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a NumPy file: found b''"),
        (b"hello world", "not a NumPy file: found b'hello '"),
        (b"\x93NUMPY", "ends inside its header: found 6 bytes"),
        (b"\x93NUMPY\1\0v", "ends inside its header: found 9 bytes"),
        (header("{}")[:-1], "ends inside its header: found 63 bytes, expected at least 64"),
        (b"\x93NUMPY\7\0v\0", "unknown version of the NPY format: found 7"),
        (b"\x93NUMPY\2\0\xff\xff\xff\xff{", "too long: found 4294967307 bytes, expected 65536 at most"),
        (header("{}"), "makes no sense"),
        (header("{'descr': '<u2', 'fortran_order': False}"), "makes no sense"),
        (header("{'descr': '<u2', 'fortran_order': False, 'shape': (2, 3), 'x': 'y'}"), "makes no sense"),
        (header("__import__('os').abort()"), "makes no sense"),
        (header("{'descr': '<u2', 'fortran_order': False, 'shape': " + "(" * 9999 + "}"), "makes no sense"),
        (header("{'descr': '<u2', 'fortran_order': False, 'shape': (-2, 3), }"), "makes no sense"),
        (header("{'descr': '<u2', 'fortran_order': False, 'shape': (nan, 3), }"), "makes no sense"),
        (header("{'descr': '<u2', 'fortran_order': False, 'shape': (2.5, 3), }"), "makes no sense"),
        (header("{'descr': '<u2', 'fortran_order': False, 'shape': (3), }"), "shape in the header"),
        (header(f"{{'descr': '<u2', 'fortran_order': False, 'shape': ({'9' * 5000}, ), }}"), "shape in the"),
        (header(f"{{'descr': '<u2', 'fortran_order': False, 'shape': ({'1,' * 65}), }}"), "shape in the"),
        (header("{'descr': '<u3', 'fortran_order': False, 'shape': (2, 3), }"), "found dtype '<u3'"),
        (header("{'descr': '2,3', 'fortran_order': False, 'shape': (2, 3), }"), "found dtype '2,3'"),
        (header("{'descr': '|O', 'fortran_order': False, 'shape': (2, 3), }"), "found Python objects"),
    ],
)
def test_headers_that_make_no_sense_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(HeaderError, match=rf"x\.npy: .*{message}"):
        load_npy(tmp_path / "x.npy")
    assert NPYDataSet.detect_params(str(tmp_path / "x.npy"), EXECUTOR) is False


@pytest.mark.parametrize("shape", ["1000000000000, 128, 128", "9999999999999999, " * 64])
def test_absurd_claims_are_compared_with_the_file(shape: str, tmp_path: Path) -> None:
    text = f"{{'descr': '<u2', 'fortran_order': False, 'shape': ({shape}), }}"
    (tmp_path / "x.npy").write_bytes(header(text) + bytes(100))
    tracemalloc.start()
    with pytest.raises(
        SizeMismatchError, match=r"x\.npy: the file is shorter than its array: found \d+ bytes"
    ):
        load_npy(tmp_path / "x.npy")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6


def test_a_truncated_file_is_read_only_as_far_as_the_user_says(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SizeMismatchError, match=r"x\.npy: .*expected 448 bytes.*pass nav_shape"):
        load_npy(path)
    np.testing.assert_array_equal(read(load_npy(path, nav_shape=(7,))), make_array().reshape(8, 4, 5)[:7])
    with pytest.raises(ShapeError, match="expected 159 at most"):
        load_npy(path, nav_shape=(8,))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"no\.npy"):
        load_npy(tmp_path / "no.npy")


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataSetException, match="found a directory"):
        load_npy(tmp_path)


@pytest.mark.skipif(sys.platform.startswith("win"), reason="no named pipes in the file system")
def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.npy")
    with pytest.raises(DataSetException, match="expected a regular file"):
        load_npy(tmp_path / "x.npy")


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="permissions do not bind this user")
def test_a_file_without_permission_is_refused(path: Path) -> None:
    path.chmod(0)
    with pytest.raises(PermissionError, match=r"x\.npy"):
        load_npy(path)


@pytest.mark.parametrize("path", [None, 0, 5.5])
def test_a_path_has_to_be_a_path(path: Any) -> None:
    with pytest.raises(TypeError, match="path"):
        load_npy(path)


# --- parser ---


@given(npst.array_shapes(min_dims=0, min_side=0, max_side=30), st.sampled_from(DTYPES))
def test_the_parser_and_numpy_agree(shape: tuple[int, ...], dtype: str) -> None:
    file = io.BytesIO()
    np.save(file, np.zeros(shape, dtype=dtype))
    info = parse_header(file.getvalue(), path="x.npy")
    assert info == (
        np.dtype(dtype),
        shape,
        int(np.prod(shape)),
        len(file.getvalue()) - np.zeros(shape, dtype).nbytes,
    )


@pytest.mark.parametrize(
    "text",
    [
        """{"shape": (2, 3), "fortran_order": False, "descr": "<u2"}""",
        "{'descr':'<u2','fortran_order':False,'shape':(2,3)}",
        "{ 'shape' : ( 2 , 3L , ) ,\n'fortran_order' : True , 'descr' : 'uint16' , }".replace(
            "True", "False"
        ),
    ],
)
def test_headers_of_other_writers_are_read(text: str) -> None:
    assert parse_header(header(text), path="x.npy")[:3] == (np.dtype("<u2"), (2, 3), 6)


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"\x93NUMPY\1\0", b"\x93NUMPY\1\0\x40\0{'descr': '<u2', "])
)
def test_any_bytes_parse_or_raise_the_family(raw: bytes, start: bytes) -> None:
    try:
        parse_header(start + raw, path="x.npy")
    except HeaderError:
        return


@given(
    st.text(
        st.sampled_from("{}()[]'\":, \n0123456789LTrueFalsdescrfortran_shp<>|iufcOVM\\-+*"), max_size=200
    ),
    st.text("<>=|?biufcOSUVMm0123456789float()[],", max_size=8),
    st.text("0123456789L,-. ()", max_size=40),
)
def test_any_literal_parses_or_raises_the_family(noise: str, descr: str, shape: str) -> None:
    for text in (noise, f"{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}"):
        try:
            info = parse_header(header(text), path="x.npy")
        except HeaderError:
            continue
        assert info.dtype.kind in "biufc"
        assert min(info.shape, default=0) >= 0


def test_read_npy_info_leaves_the_file_closed(path: Path) -> None:
    info = read_npy_info(str(path))
    assert (info.dtype, info.shape, info.count, info.offset) == (np.dtype("<u2"), SHAPE, 160, 128)
    path.unlink()  # fails on Windows if the file is open


# --- detection and facts ---


def test_detection_gives_the_shape_of_the_array(path: Path) -> None:
    before = io_counts()
    assert NPYDataSet.detect_params(str(path), EXECUTOR) == {
        "parameters": {"path": str(path), "nav_shape": (2, 4), "sig_shape": (4, 5)},
        "info": {"image_count": 8, "native_sig_shape": (4, 5)},
    }
    assert (io_counts() - before).read_bytes <= PROBE_BYTES


def test_detection_accepts_one_frame_but_not_less(tmp_path: Path) -> None:
    path = write_npy(tmp_path / "x.npy", make_array(shape=(4, 5)))
    params = NPYDataSet.detect_params(path, EXECUTOR)
    assert isinstance(params, dict)
    assert params["parameters"]["nav_shape"] == (1,)
    assert NPYDataSet.detect_params(write_npy(path, make_array(shape=(20,))), EXECUTOR) is False


@pytest.mark.parametrize("path", ["no.npy", 555, None, b"x.npy", "a\0.npy", np.zeros(3)])
def test_detection_says_no_to_what_is_no_file(path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert NPYDataSet.detect_params(path, EXECUTOR) is False
    assert capsys.readouterr() == ("", "")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.binary(max_size=300))
def test_detection_says_no_to_noise(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    assert NPYDataSet.detect_params(str(path), EXECUTOR) is False


def test_facts_of_a_data_set(path: Path) -> None:
    ds = load_npy(path, sync_offset=1)
    assert repr(ds) == "<NPYDataSet of uint16 shape=(2, 4, 4, 5)>"
    assert repr(NPYDataSet("x.npy")) == "<NPYDataSet of 'x.npy', not initialized>"
    assert ds.get_diagnostics() == [{"name": "dtype", "value": "uint16"}]
    key = json.loads(json.dumps(ds.get_cache_key()))
    assert key == {"path": str(path), "shape": [2, 4, 4, 5], "dtype": "uint16", "sync_offset": 1}
    assert ds.get_supported_extensions() == {"npy"}
    assert ds.get_supported_io_backends() == ["mmap", "buffered", "direct"]
    (file,) = ds._get_fileset()
    assert file.file_header_bytes == 128


def test_a_data_set_is_small_to_send(path: Path) -> None:
    ds = load_npy(path)
    dumped = pickle.dumps(ds)
    assert len(dumped) < 2048
    np.testing.assert_array_equal(read(pickle.loads(dumped)), make_array())


def test_json_parameters_become_arguments() -> None:
    converter = NPYDataSet.get_msg_converter()()
    assert isinstance(converter, NPYDatasetParams)
    message = {"type": "NPY", "path": "x.npy", "nav_shape": [2, 4], "sig_shape": [4, 5], "sync_offset": 0}
    params = converter.to_python(message)
    assert params == {"path": "x.npy", "nav_shape": (2, 4), "sig_shape": (4, 5), "sync_offset": 0}
    assert converter.from_python(params) == message
