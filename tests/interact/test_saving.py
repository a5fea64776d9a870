"""Files that other programs read, complete or not at all."""

from __future__ import annotations

import datetime
import errno
import json
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import distributed
import h5py
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
import zarr

from libertem.api import Context, DataSet
from libertem.common import new_file
from libertem.common.new_file import TEMPORARY
from libertem.common.progress import ProgressReporter, ProgressState
from libertem.exceptions import DataSetException, MissingFileError
from libertem.executor.dask import DaskJobExecutor
from libertem.interact.saving import SUFFIXES, flat, job, pieces, zarr_store
from libertem.io.corrections import CorrectionSet
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


# --- content ---


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_other_programs_read_what_was_saved(ds: DataSet, out: Path, suffix: str, small_pieces: None) -> None:
    path = out / f"a{suffix}"
    ds.save(path)
    assert_saved(path, DATA)
    beside = ["a.json"] if suffix in (".raw", ".bin") else []
    assert_nothing_left(out, path.name, *beside)


@pytest.mark.parametrize("suffix", [".npy", ".h5", ".hspy", ".emd"])
def test_saved_files_open_by_themselves(ctx: Context, ds: DataSet, out: Path, suffix: str) -> None:
    ds.save(out / f"a{suffix}")
    again = ctx.load("auto", path=out / f"a{suffix}")
    assert again.shape == ds.shape
    np.testing.assert_array_equal(np.asarray(again), DATA)


def test_raw_files_come_with_what_load_needs(ctx: Context, ds: DataSet, out: Path) -> None:
    ds.save(out / "a.raw")
    load = json.loads((out / "a.json").read_text())["load"]
    load["path"] = out / load["path"]
    np.testing.assert_array_equal(np.asarray(ctx.load(**load)), DATA)


@pytest.mark.parametrize("suffix", [".npy", ".h5", ".zarr", ".tif", ".raw"])
@pytest.mark.parametrize("dtype", ["u1", ">i4", ">f4", "f8", "c8"])
def test_dtypes_are_native(ctx: Context, out: Path, suffix: str, dtype: str, small_pieces: None) -> None:
    data = (DATA % 200).astype(dtype)
    ds = ctx.load("memory", data=data, num_partitions=2)
    ds.save(out / f"a{suffix}")
    assert_saved(out / f"a{suffix}", data.astype(np.dtype(dtype).newbyteorder("=")))


@pytest.mark.parametrize("suffix", [".npy", ".h5", ".zarr", ".tif", ".raw", ".hspy", ".emd"])
def test_a_rectangle_stays_one(ds: DataSet, out: Path, suffix: str, small_pieces: None) -> None:
    ds.save(out / f"a{suffix}", roi=RECTANGLE)
    assert_saved(out / f"a{suffix}", DATA[1:3, 2:5])


@pytest.mark.parametrize("suffix", [".npy", ".h5", ".zarr", ".tif"])
def test_other_regions_become_flat(ds: DataSet, out: Path, suffix: str, small_pieces: None) -> None:
    ds.save(out / f"a{suffix}", roi=SCATTERED)
    assert_saved(out / f"a{suffix}", DATA[SCATTERED])


@pytest.mark.parametrize(("nav", "sig_dims"), [((20,), 2), ((2, 2, 5), 2), ((4, 5), 1), ((20,), 1)])
def test_other_numbers_of_axes(
    ctx: Context, out: Path, nav: tuple[int, ...], sig_dims: int, small_pieces: None
) -> None:
    data = DATA.reshape(*nav, *(SIG if sig_dims == 2 else (48,)))
    ds = ctx.load("memory", data=data, sig_dims=sig_dims)
    for suffix in (".npy", ".h5", ".hspy", ".emd", ".zarr", *([".tif"] if sig_dims == 2 else [])):
        ds.save(out / f"a{suffix}")
        assert_saved(out / f"a{suffix}", data)


def test_blank_frames_are_saved_as_zeros(ctx: Context, tmp_path: Path, out: Path) -> None:
    DATA.tofile(tmp_path / "a.raw")
    parameters = {"dtype": "u2", "nav_shape": NAV, "sig_shape": SIG}
    ctx.load("raw", path=tmp_path / "a.raw", sync_offset=-3, **parameters).save(out / "a.npy")
    expected = np.concatenate([np.zeros((3, *SIG), "u2"), DATA.reshape(20, *SIG)[:-3]])
    assert_saved(out / "a.npy", expected.reshape(DATA.shape))


def test_corrections_that_come_with_the_data_are_applied(
    ds: DataSet, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dark = CorrectionSet(dark=np.full(SIG, 0.5, dtype="f4"))
    monkeypatch.setattr(NPYDataSet, "get_correction_data", lambda self: dark)
    ds.save(out / "a.npy")
    assert_saved(out / "a.npy", DATA.astype("f4") - np.float32(0.5))


def test_workers_of_a_cluster_read_and_this_process_writes(
    tmp_path: Path, out: Path, small_pieces: None
) -> None:
    np.save(tmp_path / "scan.npy", DATA)
    # Its workers are threads, which start faster. What they get is described, as for processes.
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0"
    )
    client = distributed.Client(cluster)
    with cluster, client, Context(executor=DaskJobExecutor(client)) as ctx:
        ds = ctx.load("npy", path=tmp_path / "scan.npy")
        ds.save(out / "a.h5", roi=RECTANGLE)
        assert_saved(out / "a.h5", DATA[1:3, 2:5])
        np.testing.assert_array_equal(ds[1, ::2, 3], DATA[1, ::2, 3])
        np.testing.assert_array_equal(ds.virtual_image(np.ones(SIG)), DATA.sum(axis=(2, 3)))


def test_memory_does_not_grow_with_the_data(
    ds: DataSet, out: Path, small_pieces: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    read = pieces.read_frames

    def counted(*args: Any) -> Any:
        frames = read(*args)
        sizes.append(len(frames))
        return frames

    monkeypatch.setattr(pieces, "read_frames", counted)
    ds.save(out / "a.npy")
    assert max(sizes) <= 2
    assert sum(sizes) == 20


class Recorder(ProgressReporter):
    def __init__(self) -> None:
        self.states: list[ProgressState] = []

    def start(self, state: ProgressState) -> None:
        self.states.append(state)

    update = end = start


def test_progress_is_reported(ds: DataSet, out: Path, small_pieces: None) -> None:
    recorder = Recorder()
    ds.save(out / "a.npy", progress=recorder)
    frames = [state.num_frames_complete for state in recorder.states]
    assert frames[0] == 0
    assert frames == sorted(frames)
    assert frames[-1] == recorder.states[0].num_frames_total == 20
    assert recorder.states[-1].num_part_complete == recorder.states[0].num_part_total > 5


def find_testdata() -> Path | None:
    name = os.environ.get("LIBERTEM_TESTDATA")
    return None if not name else Path(name)


@pytest.mark.skipif(find_testdata() is None, reason="LIBERTEM_TESTDATA names no folder")
@pytest.mark.parametrize("name", ["blo/astar_3x2x144.blo", "dm/stack_complex64_dm4.dm4"])
def test_real_files(ctx: Context, out: Path, name: str, small_pieces: None) -> None:
    folder = find_testdata()
    assert folder is not None
    if not (folder / name).exists():
        pytest.skip(f"there is no {name}")
    ds = ctx.load("auto", path=folder / name)
    data = np.asarray(ds)
    assert data.any()
    for suffix in (".npy", ".h5", ".hspy", ".emd", ".zarr", ".tif", ".raw"):
        ds.save(out / f"a{suffix}")
        assert_saved(out / f"a{suffix}", data.reshape(READERS[suffix](out / f"a{suffix}").shape))


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


# --- options ---


@pytest.mark.parametrize("compression", ["gzip", "lzf", "bitshuffle", "zstd", "lz4", "blosc"])
def test_compressed_hdf5(ctx: Context, ds: DataSet, out: Path, compression: str, small_pieces: None) -> None:
    ds.save(out / "a.h5", compression=compression)
    again = ctx.load("hdf5", path=out / "a.h5")
    np.testing.assert_array_equal(np.asarray(again), DATA)
    with h5py.File(out / "a.h5") as file:
        assert file["entry/data/data"].chunks == (1, 5, *SIG)


@pytest.mark.parametrize("compression", ["gzip", "zstd", "lz4", "blosc"])
def test_compressed_zarr(ds: DataSet, out: Path, compression: str, small_pieces: None) -> None:
    ds.save(out / "a.zarr", compression=compression, chunks=(2, 3, 4, 8))
    assert_saved(out / "a.zarr", DATA)
    array = zarr.open_array(out / "a.zarr", mode="r")
    assert array.chunks == (2, 3, 4, 8)


def test_no_chunk_is_written_twice(
    ds: DataSet, out: Path, small_pieces: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes: list[Any] = []
    opened = zarr_store.ZarrWriter.open

    class Spy:
        def __init__(self, writer: Any, path: str) -> None:
            self.inner = opened(writer, path)

        def __enter__(self) -> Any:
            put = self.inner.__enter__()

            def spy(box: Any, frames: Any) -> None:
                boxes.append(box)
                put(box, frames)

            return spy

        def __exit__(self, *exc: Any) -> Any:
            return self.inner.__exit__(*exc)

    monkeypatch.setattr(zarr_store.ZarrWriter, "open", lambda writer, path: Spy(writer, path))
    ds.save(out / "a.zarr", chunks=(3, 2, *SIG))
    assert_saved(out / "a.zarr", DATA)
    assert len(boxes) == 6
    assert all(box[0].start % 3 == 0 and box[1].start % 2 == 0 for box in boxes)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("a.npy", {"compression": "gzip"}, TypeError, "as .npy has no option compression: expected none"),
        ("a.h5", {"level": 3}, TypeError, "no option level: expected compression or chunks"),
        ("a.h5", {"compression": "zip"}, ValueError, "found 'zip', expected None or one of gzip, lzf"),
        ("a.zarr", {"compression": "lzf"}, ValueError, "found 'lzf', expected None or one of gzip, zstd"),
        ("a.h5", {"chunks": (1, 1)}, ValueError, r"found \(1, 1\), expected 4 numbers"),
        ("a.zarr", {"chunks": (1, 1, 6, 9)}, ValueError, r"extents of \(4, 5, 6, 8\)"),
        ("a.h5", {"chunks": "big"}, ValueError, "found 'big'"),
        ("a.h5", {"chunks": 3}, ValueError, "found 3"),
        ("a.mrc", {}, ValueError, r"found '\.mrc', expected one of \.npy, \.h5"),
        ("a", {}, ValueError, "found 'none'"),
        ("a.npy", {"dtype": "S4"}, ValueError, "expected a dtype of numbers"),
        ("a.tif", {"dtype": "i8"}, ValueError, "TIFF files do not hold int64 .use dtype="),
        ("a.npy", {"roi": np.zeros(NAV, dtype=bool)}, ValueError, "nothing to save"),
        ("no/a.npy", {}, MissingFileError, "folder of the output does not exist"),
        ("no/a.zarr", {}, MissingFileError, "folder of the output does not exist"),
    ],
)
def test_what_cannot_be_saved(
    ds: DataSet, out: Path, name: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ds.save(out / name, **options)
    assert_nothing_left(out)


def test_tiff_pages_are_frames(ctx: Context, out: Path) -> None:
    with pytest.raises(ValueError, match=r"pages of TIFF files have two axes: found .* \(48,\)"):
        ctx.load("memory", data=DATA.reshape(4, 5, 48), sig_dims=1).save(out / "a.tif")
    with pytest.raises(ValueError, match="one to three scan axes"):
        ctx.load("memory", data=DATA.reshape(2, 2, 1, 5, *SIG)).save(out / "a.tif")


@pytest.mark.parametrize(("suffix", "package"), [(".zarr", "zarr"), (".tif", "tifffile")])
def test_missing_packages_are_named(
    ds: DataSet, out: Path, suffix: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"pip install {package}, or libertem\[save\]"):
        ds.save(out / f"a{suffix}")
    assert_nothing_left(out)


# --- other dtypes ---


def test_values_that_fit_are_converted(ds: DataSet, out: Path) -> None:
    for dtype in ("f4", "i4", "c16", "u2"):
        ds.save(out / f"{dtype}.npy", dtype=dtype)
        assert_saved(out / f"{dtype}.npy", DATA.astype(dtype))


@pytest.mark.parametrize("roi", [None, RECTANGLE, SCATTERED])
def test_values_that_do_not_fit_are_named(ctx: Context, out: Path, roi: Any, small_pieces: None) -> None:
    data = np.zeros_like(DATA)
    data[2, 3, 4, 5] = 300
    ds = ctx.load("memory", data=data, num_partitions=2)
    message = r"cannot save as uint8: found 300 at \(2, 3, 4, 5\), expected 0 to 255 for uint8 \(choose"
    with pytest.raises(ValueError, match=message):
        ds.save(out / "a.npy", dtype="u1", roi=roi)
    assert_nothing_left(out)
    data[2, 3, 4, 5] = 255
    ds.save(out / "a.npy", dtype="u1")
    assert_saved(out / "a.npy", data.astype("u1"))


# --- complete or not at all ---


@pytest.mark.parametrize("suffix", [".npy", ".h5", ".zarr", ".tif", ".raw"])
def test_files_are_only_overwritten_on_demand(ds: DataSet, out: Path, suffix: str) -> None:
    path = out / f"a{suffix}"
    ds.save(path, roi=RECTANGLE)
    before = sorted(p.name for p in out.iterdir())
    with pytest.raises(FileExistsError, match=rf"a\{suffix}: .* is left as it is \(use overwrite=True"):
        ds.save(path)
    assert_saved(path, DATA[1:3, 2:5])
    ds.save(path, overwrite=True)
    assert_saved(path, DATA)
    assert_nothing_left(out, *before)


def test_descriptions_are_not_overwritten_either(ds: DataSet, out: Path) -> None:
    (out / "a.json").write_text("precious")
    with pytest.raises(FileExistsError, match=r"a\.json"):
        ds.save(out / "a.raw")
    assert_nothing_left(out, "a.json")
    assert (out / "a.json").read_text() == "precious"


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".npy", {}),
        (".h5", {}),
        (".hspy", {"compression": "gzip"}),
        (".zarr", {}),
        (".tif", {}),
        (".raw", {}),
    ],
)
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.EIO, "the disk is gone")])
def test_what_breaks_off_leaves_nothing(
    ds: DataSet,
    out: Path,
    suffix: str,
    options: dict[str, Any],
    error: Any,
    small_pieces: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = out / f"a{suffix}"
    ds.save(path, roi=RECTANGLE)
    before = sorted(p.name for p in out.iterdir())
    read, calls = pieces.read_frames, []

    def broken(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 3:
            # Something is there already, but under another name.
            assert any(TEMPORARY in p.name for p in out.iterdir())
            raise error
        return read(*args)

    monkeypatch.setattr(pieces, "read_frames", broken)
    # Errors of reading are not those of writing.
    with pytest.raises(type(error) if isinstance(error, OSError) else error):
        ds.save(path, overwrite=True, **options)
    assert_nothing_left(out, *before)
    assert_saved(path, DATA[1:3, 2:5])


@pytest.mark.parametrize("suffix", [".npy", ".zarr"])
def test_what_comes_up_meanwhile_is_not_overwritten(
    ds: DataSet, out: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = out / f"a{suffix}"
    read = pieces.read_frames

    def slow(*args: Any) -> Any:
        if suffix == ".npy":
            path.write_bytes(b"of somebody else")
        else:
            path.mkdir()
            (path / "x").write_bytes(b"of somebody else")
        return read(*args)

    monkeypatch.setattr(pieces, "read_frames", slow)
    with pytest.raises(FileExistsError, match="left as it is"):
        ds.save(path)
    assert (path if suffix == ".npy" else path / "x").read_bytes() == b"of somebody else"
    assert_nothing_left(out, path.name)


def test_two_at_a_time_do_not_mix(tmp_path: Path, out: Path, small_pieces: None) -> None:
    np.save(tmp_path / "scan.npy", DATA)
    errors: list[BaseException] = []
    barrier = threading.Barrier(2)

    def save() -> None:
        with Context.make_with("inline") as ctx:
            ds = ctx.load("npy", path=tmp_path / "scan.npy")
            barrier.wait()
            try:
                ds.save(out / "a.npy")
            except FileExistsError as err:
                errors.append(err)

    threads = [threading.Thread(target=save) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 1
    assert_saved(out / "a.npy", DATA)
    assert_nothing_left(out, "a.npy")


@pytest.mark.parametrize("suffix", [".npy", ".h5", ".zarr", ".tif", ".raw"])
def test_space_is_checked_before_anything_is_written(
    ds: DataSet, out: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = DATA.nbytes - 1

    monkeypatch.setattr(new_file.shutil, "disk_usage", lambda folder: Usage)
    with pytest.raises(DataSetException, match=r"not enough space on the disk.*found 1919 bytes free"):
        ds.save(out / f"a{suffix}")
    assert_nothing_left(out)


def test_a_disk_that_fills_up_is_named(
    ds: DataSet, out: Path, small_pieces: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Full:
        def __init__(self, *args: Any) -> None: ...

        def __enter__(self) -> Any:
            def put(box: Any, frames: Any) -> None:
                raise full

            return put

        def __exit__(self, *exc: Any) -> None: ...

    monkeypatch.setattr(flat, "put_frames", Full)
    with pytest.raises(DataSetException, match=r"a\.npy: no space left for the output.*make room"):
        ds.save(out / "a.npy")
    # As HDF5 tells it.
    full = OSError(f"Can't write data (file write failed: errno = 28, '{os.strerror(errno.ENOSPC)}')")
    with pytest.raises(DataSetException, match="no space left"):
        ds.save(out / "a.npy")
    assert_nothing_left(out)


@pytest.mark.parametrize("suffix", [".npy", ".zarr"])
def test_links_are_followed(ds: DataSet, out: Path, suffix: str) -> None:
    ds.save(out / f"real{suffix}", roi=RECTANGLE)
    (out / f"link{suffix}").symlink_to(out / f"real{suffix}")
    ds.save(out / f"link{suffix}", overwrite=True)
    assert (out / f"link{suffix}").is_symlink()
    assert_saved(out / f"real{suffix}", DATA)


def test_folders_are_no_files(ds: DataSet, out: Path) -> None:
    (out / "a.npy").mkdir()
    with pytest.raises(DataSetException, match="the output exists and is no file"):
        ds.save(out / "a.npy", overwrite=True)


# --- the file of the data set itself ---


def test_a_data_set_can_replace_its_own_file(ctx: Context, ds: DataSet, tmp_path: Path) -> None:
    source = tmp_path / "scan.npy"
    mapped = np.load(source, mmap_mode="r")
    with pytest.raises(FileExistsError):
        ds.save(source)
    ds.save(source, overwrite=True, dtype="f4")
    assert_saved(source, DATA.astype("f4"))
    # Who had opened the old one still sees it.
    np.testing.assert_array_equal(mapped, DATA)


@pytest.mark.skipif(not hasattr(os, "link"), reason="no hard links here")
def test_nothing_is_lost_by_replacing_ones_own_file(ctx: Context, ds: DataSet, tmp_path: Path) -> None:
    source = tmp_path / "scan.npy"
    before = source.read_bytes()
    with pytest.raises(ValueError, match=r"read from this file, .* frames would be lost \(save under"):
        ds.save(source, overwrite=True, roi=RECTANGLE)
    moved = ctx.load("npy", path=source, sync_offset=2)
    with pytest.raises(ValueError, match="frames would be lost"):
        moved.save(source, overwrite=True)
    fewer = ctx.load("npy", path=source, nav_shape=(3, 5))
    with pytest.raises(ValueError, match="frames would be lost"):
        fewer.save(source, overwrite=True)
    # Under whatever name.
    os.link(source, tmp_path / "other.raw")
    with pytest.raises(ValueError, match="read from this file"):
        ds.save(tmp_path / "other.raw", overwrite=True, roi=RECTANGLE)
    assert source.read_bytes() == before


def test_files_that_hold_other_things_are_not_replaced(ctx: Context, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = DATA
        file["notes"] = "precious"
    ds = ctx.load("hdf5", path=tmp_path / "a.h5")
    with pytest.raises(ValueError, match="may hold other things"):
        ds.save(tmp_path / "a.h5", overwrite=True)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["notes"].asstr()[()] == "precious"
