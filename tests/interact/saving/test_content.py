"""Saved files hold the data, whatever it is and whoever reads them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import distributed
import h5py
import numpy as np
import pytest

from libertem.api import Context, DataSet
from libertem.common.progress import ProgressReporter, ProgressState
from libertem.executor.dask import DaskJobExecutor
from libertem.interact.saving import SUFFIXES, pieces
from libertem.io.corrections import CorrectionSet
from libertem.io.dataset.npy import NPYDataSet

from .conftest import (
    DATA,
    NAV,
    READERS,
    RECTANGLE,
    SCATTERED,
    SIG,
    assert_nothing_left,
    assert_saved,
)

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


@pytest.mark.parametrize("suffix", [".npy", ".h5"])
def test_chunks_are_not_decoded_again_for_each_piece(
    ctx: Context, tmp_path: Path, out: Path, suffix: str, small_pieces: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", data=DATA, chunks=(2, 5, 3, 8), compression="gzip")
    ds = ctx.load("hdf5", path=tmp_path / "a.h5", num_partitions=2)
    shapes = []
    read = pieces.read_frames

    def counted(*args: Any) -> Any:
        frames = read(*args)
        shapes.append(frames.shape)
        return frames

    monkeypatch.setattr(pieces, "read_frames", counted)
    ds.save(out / f"a{suffix}")
    assert_saved(out / f"a{suffix}", DATA)
    assert shapes == [(10, *SIG)] * 2


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
