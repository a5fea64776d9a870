"""What is peculiar to Dask arrays; the suite of formats has the rest."""

from __future__ import annotations

import itertools
import logging
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, ClassVar

import dask
import dask.array as da
import jsonschema
import numpy as np
import numpy.typing as npt
import pytest
import sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from libertem.api import Context
from libertem.common import Shape
from libertem.exceptions import DataSetException
from libertem.executor.inline import InlineJobExecutor
from libertem.io.corrections import CorrectionSet
from libertem.io.dataset.base import MMapBackend, TilingScheme
from libertem.io.dataset.base.blocks import ReadOrder
from libertem.io.dataset.dask import (
    DaskBackend,
    DaskDataSet,
    DaskDatasetParams,
    DaskFile,
    DaskFileSet,
    DaskPartition,
    merge_until_target,
)
from libertem.io.dataset.dask.chunks import contiguous_chunks, merge_small
from libertem.testing.suite.content import ContentTests
from libertem.testing.suite.reading import assert_delivered, read
from libertem.testing.suite.runs import RunTests
from libertem.udf.sum import SumUDF
from libertem.udf.sumsigudf import SumSigUDF

Array = npt.NDArray[Any]


class TestDask(ContentTests, RunTests):
    """Arrays have neither another shape nor a sync offset, and partitions are those of the chunks."""

    filetype = "dask"
    dtypes: ClassVar[tuple[str, ...]] = ("u1", "<u2", ">i2", "<i4", "<f4", ">f8", "<c8", "?")
    io_backends = ()
    nav_shape = (12,)

    def write(self, folder: Path, frames: Array) -> dict[str, Any]:
        return {"frames": frames.copy()}

    def load(self, ctx: Context, kwargs: dict[str, Any], **more: Any) -> Any:
        arguments = {**kwargs, **more}
        if arguments.pop("sync_offset", 0):
            pytest.skip("Dask arrays have no sync_offset")
        frames = arguments.pop("frames")
        n = arguments.pop("num_partitions", 2)
        borders = np.linspace(0, len(frames), n + 1, dtype=int)
        array = da.from_array(frames, chunks=(tuple(np.diff(borders).tolist()), 5, -1))
        arguments = {name: value for name, value in arguments.items() if value is not None}
        return ctx.load(self.filetype, dask_array=array, sig_dims=2, min_size=0, **arguments)


def load(array: Any, sig_dims: int = 2, **kwargs: Any) -> DaskDataSet:
    with Context(executor=InlineJobExecutor()) as ctx:
        ds = ctx.load("dask", dask_array=array, sig_dims=sig_dims, **kwargs)
    assert isinstance(ds, DaskDataSet)
    return ds


def lazy(shape: tuple[int, ...], chunks: Any, dtype: Any = "f4") -> Any:
    return da.zeros(shape, chunks=chunks, dtype=dtype)


BIG = (5, 25, 16, 16)
ONES = (1,) * 12
DEFAULT = {"min_size": None}


class TestChunks:
    """The examples of the fact sheet."""

    @pytest.mark.parametrize(
        ("shape", "chunks", "options", "nav_chunks"),
        [
            (BIG, (1, -1, 8, 8), {}, ((1,) * 5, (25,))),
            (BIG, (2, 5, -1, -1), {}, ((2, 2, 1), (25,))),
            (BIG, (5, 1, -1, -1), {}, ((5,), (25,))),
            (BIG, (5, 1, -1, -1), {"preserve_dimensions": False}, ((1,) * 25, (5,))),
            (BIG, (1, -1, -1, -1), {"min_size": 51199}, ((3, 2), (25,))),
            ((12, 25, 16, 16), (1, 2, -1, -1), {"min_size": 4096}, (ONES, (6, 4, 4, 4, 7))),
            ((12, 25, 16, 16), (1, 2, -1, -1), {}, (ONES, (2,) * 12 + (1,))),
            ((6, 10, 16, 16), (1, -1, -1, -1), {"min_size": float("inf")}, ((6,), (10,))),
            (BIG, -1, {}, ((5,), (25,))),
            (BIG, -1, DEFAULT, ((5,), (25,))),
            (BIG, (-1, -1, 8, 8), {}, ((5,), (25,))),
            ((8, 4, 5, 16, 16), (4, 2, 1, 8, 8), {}, ((4, 4), (4,), (5,))),
            ((8, 12, 25, 16, 16), (1, 1, 2, -1, -1), {"min_size": 102400}, ((1,) * 8, (4, 4, 4), (25,))),
            ((4, 8, 4, 5, 16, 16), (2, 4, 2, 1, 8, 8), {}, ((2, 2), (8,), (4,), (5,))),
            ((5, 36, 50, 16), (1, 6, 10, 8), {"sig_dims": 1}, ((1,) * 5, (6,) * 6, (50,))),
            ((5, 36, 50, 16), (1, 6, 10, 8), {"sig_dims": 3}, ((1,) * 5,)),
        ],
    )
    def test_are_merged_until_partitions_are_contiguous_and_large(
        self, shape: tuple[int, ...], chunks: Any, options: dict[str, Any], nav_chunks: Any
    ) -> None:
        ds = load(lazy(shape, chunks), **{"sig_dims": 2, "min_size": 0, **options})
        sig = ds.shape.sig.to_tuple()
        assert ds.array.chunks == (*nav_chunks, *((extent,) for extent in sig))
        assert ds.shape.nav.to_tuple() == tuple(sum(c) for c in nav_chunks)
        n = ds.get_num_partitions()
        partitions = list(ds.get_partitions())
        assert len(partitions) == n == np.prod([len(c) for c in nav_chunks])
        self.check_partitions(ds, partitions)

    def check_partitions(self, ds: DaskDataSet, partitions: list[DaskPartition]) -> None:
        stop = 0
        sig = ds.shape.sig.to_tuple()
        for part, (index, place, start, after) in zip(partitions, ds.get_slices(), strict=True):
            assert (part.slice.origin[0], part._start_frame) == (stop, stop)
            assert (place, start, after) == (part.slice, stop, stop + part.shape[0])
            assert tuple(s.stop - s.start for s in index[ds.shape.nav.dims :]) == sig
            first = np.ravel_multi_index([s.start for s in index[: ds.shape.nav.dims]], tuple(ds.shape.nav))
            assert first == start
            assert isinstance(part._fileset, DaskFileSet)
            assert [type(file) for file in part._fileset] == [DaskFile]
            assert (part._fileset[0].start_idx, part._fileset[0].end_idx) == (start, after)
            stop = after
        assert stop == ds.shape.nav.size

    def test_of_the_documented_example_make_one_or_two_partitions(self) -> None:
        array = da.ones((4, 4, 64, 64), chunks=(2, -1, -1, -1))
        assert load(array).get_num_partitions() == 1
        assert load(array, min_size=0).get_num_partitions() == 2

    @pytest.mark.parametrize(("n_bytes", "expected"), [(134217728, (1, 1)), (134217727, (2,))])
    def test_have_128_mebibytes_by_default(self, n_bytes: int, expected: tuple[int, ...]) -> None:
        array = lazy((2, n_bytes), (1, -1), "u1")
        assert load(array, 1).array.chunks[0] == load(array, 1, min_size=2.0**27).array.chunks[0] == expected

    @pytest.mark.parametrize(
        ("start", "target", "expected"),
        [
            ((1, 1, 1, 1, 1), 2, (3, 2)),
            ((4, 1, 4, 1), 2, (5, 5)),
            ((3, 3, 3, 1), 4, (6, 4)),
            ((1, 2, 3, 4), 4, (6, 4)),
            ((2,) * 12 + (1,), 4, (6, 4, 4, 4, 7)),
            ((3, 3), 0, (3, 3)),
            ((3, 3), 3, (3, 3)),
            ((3, 3), 7, (6,)),
        ],
    )
    def test_are_merged_with_their_smaller_neighbours(
        self, start: tuple[int, ...], target: int, expected: tuple[int, ...]
    ) -> None:
        assert merge_small((start,), 1, target) == (expected,)

    def test_can_be_merged_down_to_a_number(self) -> None:
        array = lazy((12, 25, 16, 16), (1, 2, -1, -1))
        expected = {
            0: (6, 4, 4, 4, 7),
            100: (2, 2, 2, 4, 4, 4, 4, 3),
            155: (2,) * 11 + (3,),
            156: (2,) * 12 + (1,),
        }
        for min_chunks, lengths in expected.items():
            chunks, sizes = merge_until_target(array, 4096, min_chunks=min_chunks)
            assert chunks == (ONES, lengths, (16,), (16,))
            assert sizes == (min(lengths) * 1024, max(lengths) * 1024)

    @given(
        chunks=st.lists(
            st.lists(st.integers(1, 4), min_size=1, max_size=6).map(tuple), min_size=1, max_size=4
        ),
        target=st.integers(0, 200),
        sig_px=st.integers(1, 3),
    )
    @settings(max_examples=200)
    def test_are_unions_of_the_old_ones_and_contiguous(
        self, chunks: list[tuple[int, ...]], target: int, sig_px: int
    ) -> None:
        before = (*chunks, (sig_px,))
        after = merge_small(contiguous_chunks(before, len(chunks)), 2, target)
        for old, new in zip(before, after, strict=True):
            assert set(np.cumsum(new).tolist()) <= set(np.cumsum(old).tolist())
            assert sum(new) == sum(old)
        assert contiguous_chunks(after, len(chunks)) == after
        smallest = 2 * np.prod([min(c) for c in after])
        assert smallest >= target or all(len(c) == 1 for c in after)

    def test_of_equal_number_keep_their_order(self) -> None:
        ds = load(lazy((4, 4, 8, 8), (2, 2, -1, -1)), preserve_dimensions=False, min_size=0)
        assert ds.array.chunks[:2] == ((2, 2), (4,))
        data = np.arange(3 * 4 * 6).reshape(3, 4, 6)
        ds = load(da.from_array(data, chunks=(3, 1, 2)), 1, preserve_dimensions=False, min_size=0)
        assert ds.shape.to_tuple() == (4, 3, 6)
        np.testing.assert_array_equal(read(ds).pixels.reshape(4, 3, 6), data.transpose(1, 0, 2))

    def test_without_pixels_make_no_partition(self) -> None:
        array = lazy((3, 4, 4), ((0, 2, 0, 1), 4, 4))
        assert array.chunks[0] == (0, 2, 0, 1)
        assert load(array, min_size=0).array.chunks == ((2, 1), (4,), (4,))

    def test_changes_are_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING, logger="libertem.io.dataset.dask"):
            load(lazy((6, 10, 16, 16), (3, 1, 8, -1)), preserve_dimensions=False, min_size=20000)
            load(lazy((6, 10, 16, 16), (3, 2, -1, -1)), min_size=0)
        for part in (
            "to merge chunks in signal dimensions: n_blocks [2, 10, 2, 1] => [2, 10, 1, 1]",
            "Re-ordered navigation dimensions to [1, 0], shape is now (10, 6, 16, 16)",
            "to increase the minimum partition size: n_blocks [10, 2, 1, 1] => [2, 1, 1, 1]",
            "now of 0.02344 to 0.03516 MiB",
            "to make partitions contiguous: n_blocks [2, 5, 1, 1] => [2, 1, 1, 1]",
        ):
            assert part in caplog.text
        caplog.clear()
        load(lazy((6, 10, 16, 16), -1))
        assert "not chunked in navigation dimensions" in caplog.text
        caplog.clear()
        load(lazy((6, 10, 16, 16), (2, -1, -1, -1)), min_size=0)
        assert not caplog.text


class TestRefusals:
    def test_of_io_backends(self) -> None:
        with pytest.raises(
            DataSetException, match="DaskDataSet currently doesn't support alternative I/O backends"
        ):
            DaskDataSet(np.zeros(3), sig_dims=1, io_backend=MMapBackend())

    @pytest.mark.parametrize("thing", [np.zeros((3, 4, 4)), [[1, 2]], None, "path"])
    def test_of_what_is_no_dask_array(self, thing: Any) -> None:
        with pytest.raises(DataSetException, match=r"Expected a Dask array as input, received .*memory"):
            DaskDataSet(thing, sig_dims=1)

    @pytest.mark.parametrize("sig_dims", [3.0, "2", None])
    def test_of_sig_dims_that_are_no_integer(self, sig_dims: Any) -> None:
        with pytest.raises(DataSetException, match="Expected non-negative integer sig_dims"):
            DaskDataSet(lazy((3, 4, 4), 1), sig_dims=sig_dims)

    @pytest.mark.parametrize(
        ("array", "sig_dims", "message"),
        [
            (np.zeros(3), 3.0, "Expected a Dask array"),
            (lazy((3, 4), 1)[np.arange(3) > lazy((3,), 1)], 3.0, "non-negative integer sig_dims"),
            (lazy((3, 4), 1)[np.arange(3) > lazy((3,), 1)], 2, "unknown shape or chunk sizes"),
        ],
    )
    def test_of_several_things_names_the_first(self, array: Any, sig_dims: Any, message: str) -> None:
        with pytest.raises(DataSetException, match=message):
            DaskDataSet(array, sig_dims=sig_dims)

    def test_of_the_constructor_are_repeated_by_check_valid(self) -> None:
        ds = load(lazy((3, 4, 4), 1))
        assert ds.check_valid() is True
        ds.array = ds.array[0]
        with pytest.raises(DataSetException, match="sig_dims 2 not compatible"):
            ds.check_valid()
        ds.array = np.zeros((3, 4, 4))
        with pytest.raises(DataSetException, match="Expected a Dask array"):
            ds.check_valid()

    @pytest.mark.parametrize("sig_dims", [-1, 0, 3, 4])
    def test_of_sig_dims_that_leave_no_axis(self, sig_dims: int) -> None:
        with pytest.raises(
            DataSetException, match=rf"sig_dims {sig_dims} not compatible .* dims 3: expected 1 to 2"
        ):
            DaskDataSet(lazy((3, 4, 4), 1), sig_dims=sig_dims)

    def test_of_unknown_chunks(self) -> None:
        array = lazy((3, 4, 4), 1)
        unknown = array[array.sum(axis=(1, 2)) >= 0]
        with pytest.raises(
            DataSetException, match=r"unknown shape or chunk sizes: .*compute_chunk_sizes\(\)"
        ):
            DaskDataSet(unknown, sig_dims=2)
        assert load(unknown.compute_chunk_sizes()).shape.to_tuple() == (3, 4, 4)

    @pytest.mark.parametrize(
        "array", [lazy((0, 4, 4), -1), lazy((2, 2, 2), -1, "O"), lazy((2, 2, 2), -1, "M8[s]")]
    )
    def test_of_arrays_without_pixels(self, array: Any) -> None:
        with pytest.raises(DataSetException, match="the Dask array holds no pixels"):
            DaskDataSet(array, sig_dims=2)

    @pytest.mark.parametrize("min_size", [-1, float("nan")])
    def test_of_sizes_that_are_none(self, min_size: float) -> None:
        with pytest.raises(ValueError, match="min_size has to be a number of bytes"):
            DaskDataSet(lazy((3, 4, 4), 1), sig_dims=2, min_size=min_size)

    @pytest.mark.parametrize("name", ["sync_offset", "nav_shape", "sig_shape", "num_partitions"])
    def test_of_parameters_of_other_types(self, name: str) -> None:
        with pytest.raises(TypeError, match=name):
            DaskDataSet(lazy((3, 4, 4), 1), sig_dims=2, **{name: 1})
        with pytest.raises(TypeError, match="sig_dims"):
            DaskDataSet(lazy((3, 4, 4), 1))  # type: ignore[call-arg]


FRAMES = np.random.default_rng(0).integers(0, 1000, (3, 4, 6, 10), dtype=np.uint16)


def made_later(make: Any, dtype: Any = np.uint16) -> Any:
    """An array of three chunks (1, 4, 6, 10), each of which is what `make` makes of its frames."""
    rows = [
        da.from_delayed(dask.delayed(make)(FRAMES[i : i + 1]), (1, *FRAMES.shape[1:]), dtype)
        for i in range(3)
    ]
    return da.concatenate(rows)


class TestReading:
    @pytest.mark.parametrize(
        "make",
        [
            np.asfortranarray,
            lambda frames: frames[..., ::-1].copy()[..., ::-1],
            lambda frames: sparse.COO.from_numpy(frames),
            lambda frames: frames.astype(">u2"),
            lambda frames: frames.astype("u1" if frames.max() < 256 else "u2"),
            np.matrix.view,
        ],
        ids=["fortran", "strided", "sparse", "swapped", "narrower", "view"],
    )
    def test_chunks_can_be_any_kind_of_array(self, make: Any) -> None:
        ds = load(made_later(make), min_size=0)
        assert ds.get_num_partitions() == 3
        for dest in ("u2", "f4"):
            expected = FRAMES.reshape(12, 6, 10).astype(dest)
            assert_delivered(read(ds, dest_dtype=dest), expected, None, repr(make))

    @pytest.mark.parametrize("axes", list(itertools.permutations(range(4)))[1::5])
    def test_transposed_arrays_can_be_read(self, axes: tuple[int, ...]) -> None:
        stored = np.ascontiguousarray(FRAMES.transpose(np.argsort(axes)))
        array = da.from_array(stored, chunks=2).transpose(axes)
        for options in ({}, {"min_size": 0}):
            ds = load(array, **options)
            assert_delivered(read(ds), FRAMES.reshape(12, 6, 10), None, f"{axes} {options}")

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda frames: frames[:, 1:], r"found uint16 \(1, 3, 6, 10\), expected uint16 \(1, 4, 6, 10\)"),
            (lambda frames: frames.astype("f4"), r"found float32 \(1, 4, 6, 10\), expected uint16"),
            (
                lambda frames: np.ma.masked_less(frames, 5),
                r"masked arrays cannot be read .*da|dask\.array\.ma\.filled",
            ),
            (lambda frames: [1, 2], "a chunk is no array: found list"),
        ],
    )
    def test_chunks_have_to_be_what_the_array_says(self, make: Any, message: str) -> None:
        ds = load(made_later(make), min_size=0)
        with pytest.raises(DataSetException, match=message):
            read(ds)

    def test_errors_of_tasks_are_passed_on(self) -> None:
        def fail(frames: Array) -> Array:
            raise FileNotFoundError("gone.dat")

        ds = load(made_later(fail), min_size=0)
        with pytest.raises(FileNotFoundError, match=r"gone\.dat"):
            read(ds)

    def test_a_chunk_is_computed_once_and_only_if_needed(self) -> None:
        calls: list[int] = []

        def note(frames: Array) -> Array:
            calls.append(int(frames[0, 0, 0, 0]))
            return frames

        firsts = FRAMES[:, 0, 0, 0].tolist()
        with Context(executor=InlineJobExecutor()) as ctx:
            ds = ctx.load("dask", dask_array=made_later(note), sig_dims=2, min_size=0)
            assert ds.diagnostics
            assert calls == []
            read(ds, tile_shape=(1, 2, 10))
            assert calls == firsts
            calls.clear()
            # One UDF takes frames where they lie, the other one tiles.
            ctx.run_udf(dataset=ds, udf=[SumUDF(), _Frames()])
            assert sorted(calls) == sorted(firsts)
            calls.clear()
            roi = np.zeros((3, 4), dtype=bool)
            roi[1, 2:] = True
            assert_delivered(read(ds, roi=roi), FRAMES[roi], None, "ROI")
            assert calls == [firsts[1]]

    def test_tasks_run_in_this_process_whatever_scheduler_is_set(self) -> None:
        where: list[int] = []

        def note(frames: Array) -> Array:
            where.append(threading.get_ident())
            return frames

        def refuse(*args: Any, **kwargs: Any) -> Any:
            raise AssertionError("another scheduler was asked")

        ds = load(made_later(note), min_size=0)
        with dask.config.set(scheduler=refuse):
            read(ds)
        assert len(where) == 3

    def test_no_threads_are_left_behind(self) -> None:
        before = set(threading.enumerate())
        with Context.make_with("threads", cpus=2) as ctx:
            ds = ctx.load("dask", dask_array=made_later(np.copy), sig_dims=2, min_size=0)
            ctx.run_udf(dataset=ds, udf=SumUDF())
        assert set(threading.enumerate()) <= before

    def test_tiles_are_views_that_cannot_be_written_to(self) -> None:
        memory = FRAMES.copy()
        ds = load(da.from_array(memory, chunks=(1, -1, -1, -1)), min_size=0)
        scheme = TilingScheme.make_for_shape(Shape((2, 3, 10), 2), ds.shape)
        for partition in ds.get_partitions():
            tiles = [tile.data for tile in partition.get_tiles(scheme, dest_dtype="u2")]
            assert len(tiles) == 4
            assert not any(tile.flags.writeable or tile.flags.owndata for tile in tiles)

    def test_corrections_leave_the_memory_behind_the_array_alone(self) -> None:
        memory = np.ones((2, 4, 6, 10), dtype=np.float32)
        corrections = CorrectionSet(dark=np.ones((6, 10)))
        with Context(executor=InlineJobExecutor()) as ctx:
            ds = ctx.load("dask", dask_array=da.from_array(memory, chunks=-1), sig_dims=2)
            for _ in range(2):
                result = ctx.run_udf(dataset=ds, udf=SumUDF(), corrections=corrections)
                assert not result["intensity"].data.any()
        assert (memory == 1).all()

    def test_compiled_udfs_get_the_pixels_as_they_are(self) -> None:
        ds = load(da.from_array(FRAMES, chunks=(1, -1, -1, -1)), min_size=0)
        for partition in ds.get_partitions():
            blocks = partition.get_frame_blocks(ReadOrder.for_kernels(60), None)
            assert blocks is not None
            assert sum(block.n_frames for block in blocks) == 4

    def test_other_kinds_of_arrays_are_refused(self) -> None:
        ds = load(da.from_array(FRAMES, chunks=(1, -1, -1, -1)))
        scheme = TilingScheme.make_for_shape(Shape((2, 6, 10), 2), ds.shape)
        with pytest.raises(DataSetException, match=r"found sparse\.COO, expected numpy or cuda"):
            list(next(ds.get_partitions()).get_tiles(scheme, array_backend="sparse.COO"))

    def test_the_documented_path_gives_the_same_tiles(self) -> None:
        class Documented(DaskPartition):
            def _get_read_ranges(self, *args: Any, **kwargs: Any) -> Any:
                return super()._get_read_ranges(*args, **kwargs)

        ds = load(da.from_array(FRAMES, chunks=(1, -1, -1, -1)), min_size=0)
        corrections = CorrectionSet(dark=np.ones((6, 10)))
        scheme = TilingScheme.make_for_shape(Shape((3, 2, 10), 2), ds.shape)
        for partition in ds.get_partitions():
            other = pickle.loads(pickle.dumps(partition))
            other.__class__ = Documented
            for part in (partition, other):
                part.set_corrections(corrections)
            both = zip(partition.get_tiles(scheme), other.get_tiles(scheme), strict=True)
            for fast, slow in both:
                assert fast.tile_slice == slow.tile_slice
                np.testing.assert_array_equal(fast.data, slow.data)


class _Frames(SumSigUDF):
    def process_tile(self, tile: Any) -> None:
        super().process_tile(tile)


class TestMessages:
    def test_partitions_carry_only_their_own_chunk(self) -> None:
        array = da.from_array(np.zeros((64, 4, 32, 32), "f4"), chunks=(1, -1, -1, -1)) + 1
        ds = load(array, min_size=0)
        for partition in itertools.islice(ds.get_partitions(), 3):
            message = pickle.dumps(partition)
            assert 4 * 32 * 32 * 4 < len(message) < 1.3 * 4 * 32 * 32 * 4
            copy = pickle.loads(message)
            np.testing.assert_array_equal(copy.get_macrotile(dest_dtype="f4").data, np.ones((4, 32, 32)))
        lazily = load(da.random.random((500, 2, 64, 64), chunks=(1, -1, -1, -1)) * 2, min_size=0)
        assert len(pickle.dumps(next(lazily.get_partitions()))) < 8192

    def test_data_sets_can_be_sent_before_and_after_loading(self) -> None:
        array = da.from_array(FRAMES, chunks=(1, 2, -1, -1))
        fresh = pickle.loads(pickle.dumps(DaskDataSet(array, sig_dims=2, min_size=0)))
        loaded = load(array, min_size=0)
        list(loaded.get_partitions())
        for ds in (fresh.initialize(InlineJobExecutor()), pickle.loads(pickle.dumps(loaded))):
            assert ds.check_valid()
            assert_delivered(read(ds, ship=True), FRAMES.reshape(12, 6, 10), None, repr(ds))

    def test_a_cluster_that_is_there_is_not_asked(self) -> None:
        """Neither to merge chunks, for which it has methods of its own, nor to compute them."""
        distributed = pytest.importorskip("distributed")
        with distributed.Client(
            processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None
        ) as client:
            ds = load(da.from_array(FRAMES, chunks=(1, 2, 3, -1)), min_size=0)
            assert_delivered(read(ds, ship=True), FRAMES.reshape(12, 6, 10), None, repr(ds))
            assert client.run(lambda dask_worker: len(dask_worker.state.tasks)) == dict.fromkeys(
                client.scheduler_info()["workers"], 0
            )


class TestDataSet:
    def test_facts_are_those_of_the_array(self) -> None:
        array = lazy((4, 4, 4, 5), (2, -1, -1, -1), "u2")
        assert repr(DaskDataSet(array, sig_dims=2)) == (
            "<DaskDataSet of uint16 shape=(4, 4, 4, 5), n_blocks=[2, 1, 1, 1]>"
        )
        ds = load(array, min_size=0)
        assert repr(ds) == "<DaskDataSet of uint16 shape=(4, 4, 4, 5), n_blocks=[2, 1, 1, 1]>"
        assert (ds.shape.to_tuple(), ds.shape.sig.dims, ds.dtype) == ((4, 4, 4, 5), 2, np.uint16)
        assert ds.meta is not None
        assert (ds.meta.image_count, ds.meta.sync_offset) == (16, 0)
        assert tuple(ds.meta.array_backends) == tuple(ds.array_backends) == ("numpy", "cuda")
        assert (DaskDataSet.get_supported_io_backends(), DaskDataSet.get_supported_extensions()) == (
            [],
            set(),
        )
        assert type(ds.get_io_backend()) is DaskBackend
        assert [entry["value"] for entry in ds.diagnostics] == ["(8, 4, 5)", "2", 0, 0, 0, 0]

    def test_has_no_shape_before_it_is_initialized(self) -> None:
        with pytest.raises(RuntimeError, match="not initialized"):
            DaskDataSet(lazy((4, 4, 5), 1), sig_dims=2).shape  # noqa: B018

    def test_does_not_answer_what_makes_no_sense(self) -> None:
        with pytest.raises(NotImplementedError):
            DaskDataSet.detect_params("x", InlineJobExecutor())
        with pytest.raises(NotImplementedError):
            load(lazy((4, 4, 5), 1)).get_cache_key()

    def test_is_what_auto_loads_from_an_array(self) -> None:
        with Context(executor=InlineJobExecutor()) as ctx:
            assert isinstance(ctx.load("auto", path=lazy((4, 4, 5), 1), sig_dims=2), DaskDataSet)

    def test_json_parameters_fit_the_constructor(self) -> None:
        assert DaskDataSet.get_msg_converter() is DaskDatasetParams
        for min_size in (100, 0):
            params = {"sig_dims": 2, "preserve_dimensions": False, "min_size": min_size}
            message = {"type": "DASK", **params}
            assert DaskDatasetParams().to_python(message) == params
            DaskDataSet(lazy((4, 4, 5), 1), **params)
            assert DaskDatasetParams().from_python(params) == message
        assert DaskDatasetParams().to_python({"type": "DASK"}) == {}
        with pytest.raises(jsonschema.ValidationError):
            DaskDatasetParams().to_python({"type": "DASK", "sig_dims": 0})

    def test_importing_needs_nothing_heavy(self) -> None:
        script = (
            "import sys, libertem.api, libertem.io.dataset.dask\n"
            "print(*{'dask', 'numba', 'scipy', 'sparse', 'sparseconverter', 'h5py'} & sys.modules.keys())"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.split() == []
