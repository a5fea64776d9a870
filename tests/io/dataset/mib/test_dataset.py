from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libertem.exceptions import DataSetException, HeaderError, ShapeError
from libertem.executor.inline import InlineJobExecutor
from libertem.io.dataset import load
from libertem.io.dataset.base.scheme import TilingScheme
from libertem.io.dataset.mib import MIBDataSet, MIBDatasetParams
from libertem.testing.writers.mib import MIBSpec, make_header, write_hdr, write_mib

EXECUTOR = InlineJobExecutor()
BACKENDS = ["mmap", "buffered", "direct"]

ENCODINGS = [
    (MIBSpec("U08", 1), (4, 6)),
    (MIBSpec("U08", 6), (4, 6)),
    (MIBSpec("U16", 12), (4, 6)),
    (MIBSpec("U32", 24), (4, 6)),
    (MIBSpec("U64", 24), (4, 6)),
    (MIBSpec("U16", 12, "2x2"), (4, 6)),
    (MIBSpec("U16", 12, "2x2G"), (514, 514)),
    (MIBSpec("U16", 12, "Nx1", n_chips=4), (4, 24)),
    (MIBSpec("U32", 24, "4x1G"), (4, 26)),
    (MIBSpec("R64", 1), (4, 128)),
    (MIBSpec("R64", 6), (4, 16)),
    (MIBSpec("R64", 12), (4, 8)),
    (MIBSpec("R64", 24), (4, 8)),
    (MIBSpec("R64", 12, "2x2", n_chips=1), (32, 256)),
    (MIBSpec("R64", 1, "2x2"), (128, 512)),
    (MIBSpec("R64", 6, "2x2"), (4, 16)),
    (MIBSpec("R64", 12, "2x2"), (64, 512)),
    (MIBSpec("R64", 12, "2x2G"), (512, 512)),
]


def name_of(value: Any) -> str | None:
    if isinstance(value, MIBSpec):
        return f"{value.kind}-{value.counter_depth}-{value.layout}-{value.chips}"
    return None


def make_frames(spec: MIBSpec, sig_shape: tuple[int, int], n: int = 5) -> npt.NDArray[Any]:
    rng = np.random.default_rng(7)
    frames = rng.integers(0, spec.max_value, (n, *sig_shape), dtype=spec.dtype, endpoint=True)
    frames[0, 0] = spec.max_value
    return frames


def load_mib(path: Path, **kwargs: Any) -> Any:
    return load("mib", path=path, executor=EXECUTOR, **kwargs)


def read(ds: Any, dtype: npt.DTypeLike | None = None) -> npt.NDArray[Any]:
    """All frames, blanks as zeros."""
    dtype = ds.dtype.newbyteorder("=") if dtype is None else dtype
    out = np.zeros((ds.shape.nav.size, *ds.shape.sig), dtype=dtype)
    for partition in ds.get_partitions():
        tile = partition.get_macrotile(dest_dtype=dtype)
        start = tile.tile_slice.origin[0]
        out[start : start + tile.shape[0]] = tile.data
    return out.reshape(tuple(ds.shape))


# --- pixels ---


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("spec", "sig_shape"), ENCODINGS, ids=name_of)
def test_every_encoding_reads_back(
    spec: MIBSpec, sig_shape: tuple[int, int], backend: str, tmp_path: Path
) -> None:
    frames = make_frames(spec, sig_shape)
    (path, _) = write_mib(tmp_path, frames, spec, frames_per_file=3)
    ds = load_mib(path, nav_shape=(5,), io_backend=backend)
    assert ds.shape.sig.to_tuple() == sig_shape
    assert ds.dtype == (frames.dtype if spec.kind == "R64" else frames.dtype.newbyteorder(">"))
    assert ds.meta.image_count == 5
    np.testing.assert_array_equal(read(ds), frames)
    np.testing.assert_array_equal(read(ds, "float64"), frames.astype("float64"))
    roi = np.array([False, True, False, False, True])
    for partition in ds.get_partitions():
        np.testing.assert_array_equal(partition.get_macrotile(dest_dtype="u8", roi=roi).data, frames[roi])


@pytest.mark.parametrize(
    "spec", [MIBSpec("R64", 24), MIBSpec("R64", 1, "2x2"), MIBSpec("R64", 12, "2x2")], ids=name_of
)
def test_rows_of_raw_frames_can_be_read_alone(spec: MIBSpec, tmp_path: Path) -> None:
    frames = make_frames(spec, (8, 128))
    (path,) = write_mib(tmp_path, frames, spec)
    ds = load_mib(path, nav_shape=(5,))
    for rows in (1, 3, 4, 5, 8):
        scheme = TilingScheme.make_for_shape(
            tileshape=type(ds.shape)((2, rows, 128), sig_dims=2), dataset_shape=ds.shape
        )
        out = np.zeros_like(frames)
        for partition in ds.get_partitions():
            for tile in partition.get_tiles(scheme, dest_dtype=frames.dtype):
                out[tile.tile_slice.get()] = tile.data
        np.testing.assert_array_equal(out, frames)


@pytest.mark.parametrize("kind", ["U08", "R64"])
def test_frames_may_have_another_shape(kind: str, tmp_path: Path) -> None:
    frames = make_frames(MIBSpec(kind, 6), (4, 16))
    (path,) = write_mib(tmp_path, frames, MIBSpec(kind, 6))
    for sig_shape in ((64,), (8, 8), (2, 2, 16)):
        ds = load_mib(path, nav_shape=(5,), sig_shape=sig_shape)
        np.testing.assert_array_equal(read(ds), frames.reshape(5, *sig_shape))
    with pytest.raises(ShapeError, match=r"sig_shape must be of size: 64"):
        load_mib(path, nav_shape=(5,), sig_shape=(4, 15))


@pytest.mark.parametrize(
    ("nav_shape", "sync_offset", "expected"),
    [
        ((5,), 0, [1, 2, 3, 0, 0]),
        ((3,), 1, [2, 3, 0]),
        ((3,), -1, [0, 1, 2]),
        ((2,), 0, [1, 2]),
        ((1, 2, 2), 0, [1, 2, 3, 0]),
    ],
)
@pytest.mark.parametrize("kind", ["U16", "R64"])
def test_frames_on_the_scan(
    nav_shape: tuple[int, ...], sync_offset: int, expected: list[int], kind: str, tmp_path: Path
) -> None:
    frames = np.repeat(np.arange(1, 4, dtype=np.uint16), 16).reshape(3, 2, 8)
    (path,) = write_mib(tmp_path, frames, MIBSpec(kind, 12))
    ds = load_mib(path, nav_shape=nav_shape, sync_offset=sync_offset)
    assert read(ds)[..., 1, 3].reshape(-1).tolist() == expected


def test_offsets_beyond_the_frames_are_refused(tmp_path: Path) -> None:
    (path,) = write_mib(tmp_path, make_frames(MIBSpec(), (4, 6), 3))
    for offset in (3, -3, 1000):
        with pytest.raises(DataSetException, match=r"sync_offset should be in \(-3, 3\)"):
            load_mib(path, nav_shape=(3,), sync_offset=offset)


# --- shape of the scan ---


@pytest.mark.parametrize(
    ("frames", "per_trigger", "scan", "nav_shape"),
    [
        (6, 3, None, (2, 3)),
        (6, 1, None, (6, 1)),
        (6, 6, None, (1, 6)),
        (5, 3, None, (1, 3)),
        (6, 0, None, (6,)),
        (0, 3, None, (6,)),
        (6, 1, (2, 3), (3, 2)),
    ],
)
def test_the_hdr_file_tells_the_shape_of_the_scan(
    frames: int, per_trigger: int, scan: tuple[int, int] | None, nav_shape: tuple[int, ...], tmp_path: Path
) -> None:
    written = make_frames(MIBSpec(), (4, 6), 6)
    write_mib(tmp_path, written, frames_per_file=4)
    path = write_hdr(tmp_path / "default.hdr", frames, per_trigger, scan=scan)
    ds = load_mib(path)
    assert ds.shape.nav.to_tuple() == nav_shape
    flat = read(ds).reshape(-1, 4, 6)
    np.testing.assert_array_equal(flat, written[: len(flat)])
    answer = MIBDataSet.detect_params(str(path), EXECUTOR)
    assert isinstance(answer, dict)
    assert answer["parameters"] == {"path": str(path), "nav_shape": nav_shape, "sig_shape": (4, 6)}
    assert answer["info"] == {"image_count": 6, "native_sig_shape": (4, 6)}
    assert load_mib(path, nav_shape=(2, 2)).shape.nav.to_tuple() == (2, 2)


def test_frames_that_the_hdr_file_promises_in_vain_are_named(tmp_path: Path) -> None:
    frames = make_frames(MIBSpec(), (4, 6), 3)
    write_mib(tmp_path, frames)
    path = write_hdr(tmp_path / "default.hdr", 6, 2)
    with pytest.warns(RuntimeWarning, match=r"promises 6 frames, .* hold 3: frames 3 to 5 are blank"):
        ds = load_mib(path)
    np.testing.assert_array_equal(read(ds).reshape(6, 4, 6)[:3], frames)
    load_mib(path, nav_shape=(6,))  # asked for by the user: no warning, which would be an error here


def test_an_hdr_file_without_numbers_needs_a_nav_shape(tmp_path: Path) -> None:
    write_mib(tmp_path, make_frames(MIBSpec(), (4, 6), 4))
    path = write_hdr(tmp_path / "default.hdr", None, None)
    with pytest.raises(ShapeError, match=r"default.hdr: .*pass nav_shape"):
        load_mib(path)
    assert load_mib(path, nav_shape=(4,)).shape.nav.to_tuple() == (4,)
    answer = MIBDataSet.detect_params(str(path), EXECUTOR)
    assert isinstance(answer, dict)
    assert answer["parameters"]["nav_shape"] == (2, 2)


@pytest.mark.parametrize("nav_shape", [None, (4,)])
def test_hdr_files_of_other_formats_are_refused(nav_shape: tuple[int] | None, tmp_path: Path) -> None:
    write_mib(tmp_path, make_frames(MIBSpec(), (4, 6), 4))
    path = tmp_path / "default.hdr"
    path.write_text("[measurementInfo]\ndataFileName = x\n")
    with pytest.raises(HeaderError, match=r"default.hdr: not an .hdr file of a Merlin detector"):
        load_mib(path, nav_shape=nav_shape)
    assert MIBDataSet.detect_params(str(path), EXECUTOR) is False
    path.unlink()
    with pytest.raises(DataSetException, match=r"default.hdr: the file does not exist"):
        load_mib(path, nav_shape=nav_shape)


@pytest.mark.parametrize(("n", "nav_shape"), [(9, (3, 3)), (1, (1, 1)), (5, (5,))])
def test_detection_guesses_a_square(n: int, nav_shape: tuple[int, ...], tmp_path: Path) -> None:
    paths = write_mib(tmp_path, make_frames(MIBSpec("R64", 12, "2x2"), (4, 16), n), MIBSpec("R64", 12, "2x2"))
    answer = MIBDataSet.detect_params(str(paths[0]), EXECUTOR)
    assert answer == {
        "parameters": {"path": str(paths[0]), "nav_shape": nav_shape, "sig_shape": (4, 16)},
        "info": {"image_count": n, "native_sig_shape": (4, 16)},
    }
    assert isinstance(answer, dict)
    assert all(type(extent) is int for extent in answer["parameters"]["nav_shape"])


# --- arguments ---


def test_the_scan_shape_has_to_come_from_somewhere(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nav_shape needs to be passed, or path needs to point to a \.hdr"):
        MIBDataSet(path=str(tmp_path / "x.mib"))


def test_old_parameters(tmp_path: Path) -> None:
    (path,) = write_mib(tmp_path, make_frames(MIBSpec(), (4, 6), 4))
    with pytest.warns(FutureWarning, match="scan_size argument is deprecated"):
        assert load_mib(path, scan_size=(2, 2)).shape.nav.to_tuple() == (2, 2)
    with pytest.warns(FutureWarning, match="tileshape argument is ignored"):
        load_mib(path, nav_shape=(4,), tileshape=(1, 4, 6))
    with (
        pytest.warns(FutureWarning),
        pytest.raises(ValueError, match="cannot specify both scan_size and nav_shape"),
    ):
        load_mib(path, scan_size=(2, 2), nav_shape=(4,))


def test_other_extensions_and_senseless_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataSetException, match=r"another extension: found '\.xyz', expected \.hdr or \.mib"):
        load_mib(tmp_path / "x.xyz", nav_shape=(4,))
    with pytest.raises(DataSetException, match=r"x.hdr: disable_glob=True loads a single file"):
        load_mib(tmp_path / "x.hdr", nav_shape=(4,), disable_glob=True)


def test_extensions_of_either_case(tmp_path: Path) -> None:
    (path,) = write_mib(tmp_path, make_frames(MIBSpec(), (4, 6), 4), names=["X1.MIB"])
    write_hdr(tmp_path / "X.HDR", 4, 4)
    assert load_mib(path, nav_shape=(4,)).meta.image_count == 4
    assert load_mib(tmp_path / "X.HDR").shape.nav.to_tuple() == (1, 4)


# --- what others see ---


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (MIBSpec("U16", 12), ("12", "u", "(1, 1)")),
        (MIBSpec("U16", 12, has_extension=False), ("16", "u", "(1, 1)")),
        (MIBSpec("R64", 1, "2x2"), ("1", "r", "(2, 2)")),
        (MIBSpec("U08", 6, "Nx1G", n_chips=3), ("6", "u", "(3, 1)")),
    ],
    ids=name_of,
)
def test_diagnostics(spec: MIBSpec, expected: tuple[str, str, str], tmp_path: Path) -> None:
    (path,) = write_mib(tmp_path, make_frames(spec, (16, 128), 3), spec)
    facts = load_mib(path, nav_shape=(3,)).diagnostics
    names = ("Bits per pixel", "Data kind", "Layout")
    assert facts[:3] == [{"name": name, "value": value} for name, value in zip(names, expected, strict=True)]
    assert all(isinstance(fact["value"], str) for fact in facts[:6])


def test_representation(tmp_path: Path) -> None:
    (path,) = write_mib(tmp_path, make_frames(MIBSpec(), (16, 16), 3))
    assert repr(load_mib(path, nav_shape=(3,))) == "<MIBDataSet of >u2 shape=(3, 16, 16)>"
    assert "not initialized" in repr(MIBDataSet(path, nav_shape=(3,)))


def test_what_simulators_of_the_detector_use(tmp_path: Path) -> None:
    spec = MIBSpec("R64", 12, "2x2")
    write_mib(tmp_path, make_frames(spec, (4, 16), 5), spec, names=["z1.mib", "z0.mib"], frames_per_file=[3])
    ds = MIBDataSet(path=str(tmp_path / "z0.mib"), nav_shape=(5,))
    ds.initialize(EXECUTOR)
    files = ds._files_sorted
    assert [os.path.basename(file.path) for file in files] == ["z1.mib", "z0.mib"]
    assert files[0].fields == {"header_size_bytes": 768, "image_size_bytes": 128, "bits_per_pixel": 12}
    fileset = ds._get_fileset()
    assert [(file.start_idx, file._path) for file in fileset] == [
        (0, str(tmp_path / "z1.mib")),
        (3, str(tmp_path / "z0.mib")),
    ]


def test_json_parameters_become_arguments(tmp_path: Path) -> None:
    (path,) = write_mib(tmp_path, make_frames(MIBSpec(), (4, 6), 4))
    converter = MIBDataSet.get_msg_converter()()
    assert isinstance(converter, MIBDatasetParams)
    arguments = converter.to_python({"type": "MIB", "path": str(path), "nav_shape": [2, 2], "sync_offset": 1})
    assert load("mib", executor=EXECUTOR, **arguments).shape.nav.to_tuple() == (2, 2)


def test_unsupported_raw_data_are_named_when_loading(tmp_path: Path) -> None:
    header = make_header(MIBSpec("R64", 12, "4x1", header_bytes=768), (4, 16))
    (tmp_path / "x.mib").write_bytes(header + bytes(4 * 16 * 2))
    with pytest.raises(
        DataSetException, match=r"x.mib: raw data of this arrangement .* 4x1, 4 chip\(s\), 12 bit"
    ):
        load_mib(tmp_path / "x.mib", nav_shape=(1,))
    assert MIBDataSet.detect_params(str(tmp_path / "x.mib"), EXECUTOR) is False


def test_errors_survive_pickling(tmp_path: Path) -> None:
    (tmp_path / "x.mib").write_bytes(b"MQ1,garbage,,,,,,,,".ljust(400, b"\0"))
    with pytest.raises(HeaderError) as err:
        load_mib(tmp_path / "x.mib", nav_shape=(1,))
    copy = pickle.loads(pickle.dumps(err.value))
    assert str(copy) == str(err.value)
    assert copy.path == str(tmp_path / "x.mib")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_load_or_raise_the_family(data: st.DataObject, tmp_path: Path) -> None:
    spec = data.draw(st.sampled_from([MIBSpec("U16"), MIBSpec("R64", 12, "2x2"), MIBSpec("R64", 24)]))
    (path,) = write_mib(tmp_path, make_frames(spec, (4, 16), 3), spec)
    raw = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, 60), min_size=1, max_size=5)):
        raw[place] = data.draw(st.sampled_from(b"0123456789,xGNRU\0\xff "))
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    try:
        read(load_mib(path, nav_shape=(3,)))
    except DataSetException as err:
        assert "default.mib" in str(err)
    answer = MIBDataSet.detect_params(str(path), EXECUTOR)
    assert answer is False or isinstance(answer, dict)


def test_importing_compiles_nothing() -> None:
    heavy = "{'numba', 'h5py', 'scipy', 'sparse', 'llvmlite'}"
    code = f"import sys, libertem.io.dataset.mib; print(*sorted(sys.modules.keys() & {heavy}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
