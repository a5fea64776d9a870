"""Data sets as Dask arrays."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libertem.api import Context
from libertem.contrib.daskadapter import make_dask_array, to_dask
from libertem.io.corrections import CorrectionSet
from libertem.io.dataset.base.lazy import LazyBlock, box_chunks, is_mapped
from libertem.testing.writers.raw_csr import sparse_frames, write_raw_csr

FRAMES = np.random.default_rng(0).integers(0, 1000, (12, 6, 7)).astype("<u2")
SCAN = FRAMES.reshape(3, 4, 6, 7)
ROI = np.zeros((3, 4), dtype=bool)
ROI[0, 1] = ROI[2, :] = True

FRAME_BYTES = 6 * 7 * 2


def ctx() -> Context:
    return Context.make_with("inline")


def load(folder: Path, **kwargs: Any) -> Any:
    path = folder / "frames.raw"
    path.write_bytes(FRAMES.tobytes())
    arguments = {"dtype": "<u2", "nav_shape": (3, 4), "sig_shape": (6, 7), "num_partitions": 4, **kwargs}
    return ctx().load("raw", path=path, **arguments)


def compute(array: Any) -> Any:
    return array.compute(scheduler="sync")


def blocks_of(array: Any) -> list[LazyBlock]:
    """What the tasks call."""
    graph = dict(array.__dask_graph__())
    keys = list(dask.core.flatten(array.__dask_keys__()))
    return [getattr(graph[key], "func", None) or graph[key][0] for key in keys]


def in_chunks_of(n_frames: int) -> Any:
    return dask.config.set({"array.chunk-size": n_frames * FRAME_BYTES})


class TestMakeDaskArray:
    def test_has_the_shape_and_content_of_the_data_set(self, tmp_path: Path) -> None:
        array, workers = make_dask_array(load(tmp_path), dtype="uint16")
        assert array.shape == (3, 4, 6, 7)
        assert array.dtype == np.uint16
        assert workers == {}
        np.testing.assert_array_equal(compute(array), SCAN)

    def test_float32_is_the_default(self, tmp_path: Path) -> None:
        array, _ = make_dask_array(load(tmp_path))
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array.compute(scheduler="threads"), SCAN)

    @pytest.mark.parametrize("n", [1, 3])
    def test_has_a_block_per_partition(self, tmp_path: Path, n: int) -> None:
        array, _ = make_dask_array(load(tmp_path, num_partitions=n))
        assert array.npartitions == n

    def test_names_the_workers_that_hold_the_data(self, tmp_path: Path, monkeypatch: Any) -> None:
        ds = load(tmp_path)
        kind = type(next(iter(ds.get_partitions())))
        monkeypatch.setattr(kind, "get_locations", lambda self: [f"host-{self.slice.origin[0]}"])
        array, workers = make_dask_array(ds)
        assert sorted(workers.values()) == [["host-0"], ["host-3"], ["host-6"], ["host-9"]]
        assert set(workers) <= set(array.__dask_graph__())
        np.testing.assert_array_equal(compute(array), SCAN)

    def test_a_roi_gives_a_flat_navigation_axis(self, tmp_path: Path) -> None:
        array, _ = make_dask_array(load(tmp_path), roi=ROI)
        assert array.chunks[0] == (1, 1, 3)
        np.testing.assert_array_equal(compute(array), SCAN[ROI])
        empty, _ = make_dask_array(load(tmp_path), roi=np.zeros((3, 4), dtype=bool))
        assert compute(empty).shape == (0, 6, 7)


@pytest.mark.parametrize("sync_offset", [5, -5, 0])
@pytest.mark.parametrize("n_frames", [1, 2, 4, 8, 100])
def test_blanks_are_zero_and_blocks_of_any_size(tmp_path: Path, sync_offset: int, n_frames: int) -> None:
    ds = load(tmp_path, sync_offset=sync_offset)
    expected = np.zeros_like(FRAMES)
    if sync_offset > 0:
        expected[:-5] = FRAMES[5:]
    elif sync_offset < 0:
        expected[5:] = FRAMES[:-5]
    else:
        expected = FRAMES
    with in_chunks_of(n_frames):
        np.testing.assert_array_equal(compute(to_dask(ds)), expected.reshape(SCAN.shape))
        chosen = to_dask(ds, roi=ROI, dtype="f8")
    np.testing.assert_array_equal(compute(chosen), expected.reshape(SCAN.shape)[ROI])
    np.testing.assert_array_equal(compute(make_dask_array(ds)[0]), expected.reshape(SCAN.shape))


class TestToDask:
    def test_gives_the_native_dtype_in_blocks_of_whole_rows(self, tmp_path: Path) -> None:
        with in_chunks_of(9):
            array = to_dask(load(tmp_path))
        assert (array.dtype, array.chunks) == (np.dtype("u2"), ((1, 2), (4,), (6,), (7,)))
        np.testing.assert_array_equal(compute(array), SCAN)

    def test_cuts_rows_that_are_too_long(self, tmp_path: Path) -> None:
        with in_chunks_of(3):
            array = to_dask(load(tmp_path))
        assert array.chunks == ((1, 1, 1), (2, 2), (6,), (7,))
        np.testing.assert_array_equal(compute(array[1, 1:]), SCAN[1, 1:])

    def test_reads_nothing_before_it_is_computed(self, tmp_path: Path) -> None:
        array = to_dask(load(tmp_path))
        # Where Dask is asked about an array, it often computes an empty one.
        assert (array + 1).sum().dtype == np.uint64
        (tmp_path / "frames.raw").write_bytes((FRAMES + 1).tobytes())
        np.testing.assert_array_equal(compute(array), SCAN + 1)

    def test_stored_pixels_are_views_of_the_mapped_file(self, tmp_path: Path) -> None:
        with in_chunks_of(8):
            array = to_dask(load(tmp_path))
        for block in blocks_of(array):
            pixels = block()
            assert is_mapped(pixels)
            assert not pixels.flags.writeable

    @pytest.mark.parametrize("kwargs", [{"dtype": "f4"}, {"roi": ROI}])
    def test_other_blocks_own_their_memory(self, tmp_path: Path, kwargs: Any) -> None:
        for block in blocks_of(to_dask(load(tmp_path), **kwargs)):
            assert not is_mapped(block())

    def test_blocks_can_be_sparse(self, tmp_path: Path) -> None:
        array = to_dask(load(tmp_path), array_backend="sparse.COO")
        np.testing.assert_array_equal(compute(array).todense(), SCAN)
        with pytest.raises(ValueError, match=r"'scipy\.sparse\.csr_matrix' have two axes"):
            to_dask(load(tmp_path), array_backend="scipy.sparse.csr_matrix")

    def test_corrections_are_applied_if_given(self, tmp_path: Path) -> None:
        dark, gain = np.full((6, 7), 3.0), np.full((6, 7), 0.5)
        corrections = CorrectionSet(dark=dark, gain=gain)
        with in_chunks_of(8):
            array = to_dask(load(tmp_path), dtype="f4", corrections=corrections)
        np.testing.assert_allclose(compute(array), (SCAN - dark) * gain)
        # Once, and not with each block.
        assert len(pickle.dumps(blocks_of(array)[0])) < 5000
        np.testing.assert_array_equal(compute(to_dask(load(tmp_path), corrections=CorrectionSet())), SCAN)

    def test_a_roi_of_another_scan_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"incompatible shapes: \(5,\) \(roi\) vs \(3, 4\)"):
            to_dask(load(tmp_path), roi=np.ones(5, dtype=bool))

    def test_arrays_are_not_taken_for_each_other(self, tmp_path: Path) -> None:
        ds = load(tmp_path)
        assert to_dask(ds).name != to_dask(ds).name


def make_h5(folder: Path) -> Any:
    import h5py

    with h5py.File(folder / "scan.h5", "w") as file:
        file.create_dataset("data", data=SCAN, chunks=(2, 2, 6, 7), compression="gzip")
    return ctx().load("hdf5", path=folder / "scan.h5")


def make_csr(folder: Path) -> Any:
    write_raw_csr(folder / "x.toml", [sparse_frames(FRAMES)], (3, 4), (6, 7), data_dtype="<u2")
    return ctx().load("raw_csr", path=folder / "x.toml")


def make_dask(folder: Path) -> Any:
    import dask.array as da

    return ctx().load("dask", da.from_array(SCAN, chunks=(2, 2, -1, -1)), sig_dims=2, min_size=0)


def make_memory(folder: Path) -> Any:
    return ctx().load("memory", data=SCAN, num_partitions=5)


def make_tiles_of_memory(folder: Path) -> Any:
    return ctx().load("memory", data=SCAN, num_partitions=2, tileshape=(3, 2, 7))


def make_swapped(folder: Path) -> Any:
    (folder / "x.raw").write_bytes(FRAMES.astype(">u2").tobytes())
    return ctx().load("raw", path=folder / "x.raw", dtype=">u2", nav_shape=(3, 4), sig_shape=(6, 7))


@pytest.mark.parametrize("n_frames", [1, 5, 100])
@pytest.mark.parametrize(
    "make", [make_h5, make_csr, make_dask, make_memory, make_tiles_of_memory, make_swapped]
)
def test_all_kinds_of_data_sets_can_be_arrays(tmp_path: Path, make: Any, n_frames: int) -> None:
    ds = make(tmp_path)
    with in_chunks_of(n_frames):
        array, some = to_dask(ds), to_dask(ds, roi=ROI)
    assert array.dtype == np.dtype("u2")
    assert array.dtype.isnative
    np.testing.assert_array_equal(compute(array), SCAN)
    np.testing.assert_array_equal(compute(some), SCAN[ROI])
    np.testing.assert_array_equal(compute(make_dask_array(ds)[0]), SCAN)


@given(
    nav=st.lists(st.integers(1, 7), min_size=1, max_size=4).map(tuple),
    n_frames=st.integers(1, 400),
)
def test_boxes_cover_the_scan_in_order_and_are_not_too_large(nav: tuple[int, ...], n_frames: int) -> None:
    chunks = box_chunks(nav, n_frames)
    assert tuple(map(sum, chunks)) == nav
    assert all(min(lengths) > 0 for lengths in chunks)
    assert np.prod([max(lengths) for lengths in chunks]) <= n_frames
    numbers = np.arange(np.prod(nav)).reshape(nav)
    found = [numbers[box] for box in dask.array.core.slices_from_chunks(chunks)]
    np.testing.assert_array_equal(np.concatenate([box.reshape(-1) for box in found]), numbers.reshape(-1))


class TestGraphs:
    """What travels to workers."""

    def test_are_small_however_large_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "large.raw"
        with path.open("wb") as file:
            file.truncate(100 << 30)
        nav, sig = (800, 1024), (256, 256)
        ds = ctx().load("raw", path=path, dtype="<u2", nav_shape=nav, sig_shape=sig)
        array = to_dask(ds)
        assert array.npartitions == 800
        assert len(pickle.dumps(array)) < 2 << 20
        roi = np.zeros(nav, dtype=bool)
        roi[:, ::2] = True
        # Each block has its own part of the ROI.
        assert len(pickle.dumps(to_dask(ds, roi=roi))) < 4 << 20
        assert not compute(array[799, 1023]).any()

    def test_run_in_other_processes(self, tmp_path: Path) -> None:
        """That is what clusters need: nothing but what was pickled, and the file."""
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context

        with in_chunks_of(4):
            array = to_dask(load(tmp_path))
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            parts = [pool.submit(block).result() for block in blocks_of(array)]
        np.testing.assert_array_equal(np.concatenate(parts), SCAN)

    @pytest.mark.slow
    def test_run_on_a_cluster(self, tmp_path: Path) -> None:
        from distributed import Client, LocalCluster

        with in_chunks_of(4):
            array = to_dask(load(tmp_path))
        corrected = to_dask(load(tmp_path), dtype="f4", corrections=CorrectionSet(dark=np.ones((6, 7))))
        with (
            LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            np.testing.assert_array_equal(client.compute(array).result(), SCAN)
            total = client.compute(corrected.sum(axis=(0, 1))).result()
        np.testing.assert_allclose(total, (SCAN - 1.0).sum(axis=(0, 1)))
