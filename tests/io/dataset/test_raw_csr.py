"""What is peculiar to CSR files; the suite of formats has the rest."""

from __future__ import annotations

import itertools
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import jsonschema
import numpy as np
import numpy.typing as npt
import pytest
import sparse
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from libertem.api import Context
from libertem.common import Shape, Slice
from libertem.common.arrays import CPU_BACKENDS, D2_BACKENDS, SPARSE_DOK, SPARSE_GCXS, to_dense
from libertem.exceptions import DataSetException, HeaderError
from libertem.executor.inline import InlineJobExecutor
from libertem.io.corrections import CorrectionSet
from libertem.io.dataset.base import BasePartition, MMapBackend, Partition, TilingScheme
from libertem.io.dataset.base.backends.rawio import io_counts
from libertem.io.dataset.raw_csr import (
    CSRDescriptor,
    CSRTriple,
    RawCSRDataSet,
    RawCSRDatasetParams,
    TOMLError,
    check,
    get_descriptor,
    get_nav_size,
    load_toml,
    read_tiles_straight,
    read_tiles_with_roi,
)
from libertem.io.dataset.raw_csr.sidecar import Sidecar, parse_sidecar
from libertem.io.dataset.raw_csr.triple import RowReader
from libertem.testing import DataSetTests
from libertem.testing.suite.reading import assert_delivered, read
from libertem.testing.writers.raw_csr import SparseFrames, sparse_frames, write_raw_csr
from libertem.udf.masks import ApplyMasksUDF
from libertem.udf.sum import SumUDF
from libertem.udf.sumsigudf import SumSigUDF

Array = npt.NDArray[Any]


class TestRawCSR(DataSetTests):
    filetype = "raw_csr"
    dtypes: ClassVar[tuple[str, ...]] = ("<u2", "u1", ">i2", "<u4", "<i8", "?")
    io_backends = ()
    index_dtypes: ClassVar[tuple[str, str]] = ("<i8", "<i4")

    def write(self, folder: Path, frames: Array) -> dict[str, Any]:
        indptr_dtype, indices_dtype = self.index_dtypes
        path = write_raw_csr(
            folder / "scan.toml",
            # Frames come in pieces of different sizes, some of them empty.
            [sparse_frames(piece) for piece in np.array_split(frames, [1, 1, 6])],
            (frames.shape[0],),
            self.sig_shape,
            indptr_dtype=indptr_dtype,
            indices_dtype=indices_dtype,
            data_dtype=frames.dtype.str,
        )
        return {"path": str(path)}

    def make_frames(self, n: int, dtype: str | None = None, *, seed: int = 0) -> Array:
        """Half of the pixels are zero, and every fifth frame is empty."""
        frames = super().make_frames(n, dtype, seed=seed)
        frames[np.random.default_rng(seed + 1).random(frames.shape) < 0.5] = 0
        frames[4::5] = 0
        return frames

    def main_file(self, kwargs: dict[str, Any]) -> Path:
        return Path(kwargs["path"]).with_name("scan.data.dat")


class TestRawCSRFloats(TestRawCSR):
    """And index files of other dtypes."""

    dtypes = (">f4", "<f8", "<c8")
    index_dtypes = (">u8", ">u4")

    def test_pixels_are_those_written(
        self, tmp_path: Path, ctx: Context, dtype: str, io_backend: str | None
    ) -> None:
        """Dense arrays lose the sign of stored zeros, because values of the same pixel are added up."""
        frames = self.make_frames(self.n_frames, dtype)
        flat = frames.reshape(-1)
        flat[1::17], flat[2::31], flat[3::37] = np.nan, -0.0, np.inf
        ds = self.load(ctx, self.write_frames(tmp_path, frames))
        expected = frames.astype(frames.dtype.newbyteorder("="))
        assert_delivered(read(ds), expected, None, repr(ds))
        tiles = [p.get_macrotile(dest_dtype=expected.dtype).data for p in ds.get_partitions()]
        stored = sparse_frames(expected).values
        assert np.concatenate([tile.data for tile in tiles]).tobytes() == stored.tobytes()


# --- the example of the fact sheet: 6 frames of (2, 3), frames 1 and 4 are empty ---

INDPTR = [0, 2, 2, 3, 9, 9, 11]
INDICES = [0, 3, 5, 0, 1, 2, 3, 4, 5, 1, 2]
VALUES = [1, 2, 3, 4, 4, 4, 4, 4, 4, 7, 8]
FRAMES = csr_matrix((VALUES, INDICES, INDPTR), shape=(6, 6)).toarray().reshape(6, 2, 3)

INDEX_DTYPES = ("<i4", "<i8", "<u8", ">i4", ">u8", "u1", "<i2")


def write_example(folder: Path, name: str = "x.toml", **options: Any) -> str:
    counts, columns, values = np.diff(INDPTR), np.array(INDICES), np.array(VALUES)
    path = folder / name
    arguments = {"nav_shape": (6,), "sig_shape": (2, 3), **options}
    return str(write_raw_csr(path, [SparseFrames(counts, columns, values)], **arguments))


def load(path: str, **kwargs: Any) -> RawCSRDataSet:
    with Context(executor=InlineJobExecutor()) as ctx:
        ds = ctx.load("raw_csr", path=path, **kwargs)
    assert isinstance(ds, RawCSRDataSet)
    return ds


def replace(path: str, old: str, new: str) -> None:
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new))


def scheme_for(depth: int, *sig: int, shape: tuple[int, ...] = (6, 2, 3)) -> TilingScheme:
    return TilingScheme.make_for_shape(Shape((depth, *sig), len(sig)), Shape(shape, len(sig)))


def tiles_of(ds: RawCSRDataSet, depth: int = 2, **kwargs: Any) -> list[list[Any]]:
    scheme = scheme_for(depth, *ds.shape.sig, shape=ds.shape.flatten_nav().to_tuple())
    return [list(p.get_tiles(scheme, **kwargs)) for p in ds.get_partitions()]


def summary(tile: Any) -> tuple[int, int, list[float]]:
    return (tile.tile_slice.origin[0], tile.shape[0], to_dense(tile.data).sum(axis=1).tolist())


ROI = np.array([1, 0, 1, 1, 0, 1], dtype=bool)

WORKED = [
    (0, None, [[(0, 2, [3, 0]), (2, 1, [3])], [(3, 2, [24, 0]), (5, 1, [15])]]),
    (2, None, [[(0, 2, [3, 24]), (2, 1, [0])], [(3, 1, [15])]]),
    (-2, None, [[(2, 1, [3])], [(3, 2, [0, 3]), (5, 1, [24])]]),
    (0, ROI, [[(0, 2, [3, 3])], [(2, 2, [24, 15])]]),
    (2, ROI, [[(0, 2, [3, 0])], [(2, 1, [15])]]),
    (-2, ROI, [[(1, 1, [3])], [(2, 2, [0, 24])]]),
]


class TestTiles:
    @pytest.mark.parametrize(("offset", "roi", "expected"), WORKED)
    def test_of_the_example_are_those_of_the_sheet(
        self, tmp_path: Path, offset: int, roi: Array | None, expected: Any
    ) -> None:
        ds = load(write_example(tmp_path), sync_offset=offset, num_partitions=2)
        tiles = tiles_of(ds, roi=roi)
        assert [[summary(tile) for tile in part] for part in tiles] == expected
        for tile in itertools.chain(*tiles):
            assert type(tile.data) is csr_matrix
            assert tile.data.shape == (tile.shape[0], 6)
            assert tile.shape[1:] == (2, 3)
            assert (tile.scheme_idx, tile.dtype, tile.data.indptr[0]) == (0, np.float32, 0)

    @pytest.mark.parametrize("dtype", INDEX_DTYPES)
    @pytest.mark.parametrize(("offset", "roi", "expected"), WORKED)
    def test_from_arrays_in_memory_are_the_same(
        self, dtype: str, offset: int, roi: Array | None, expected: Any
    ) -> None:
        triple = CSRTriple(np.array(INDPTR, dtype), np.array(INDICES, dtype), np.array(VALUES, ">i4"))
        for start, of_partition in zip((0, 3), expected, strict=True):
            part = Slice((start, 0, 0), Shape((3, 2, 3), 2))
            if roi is None:
                tiles = read_tiles_straight(triple, part, offset, scheme_for(2, 2, 3), np.float32)
            else:
                tiles = read_tiles_with_roi(
                    triple, part, offset, scheme_for(2, 2, 3), roi.reshape(2, 3), np.float32
                )
            found = list(tiles)
            assert [summary(tile) for tile in found] == of_partition
            assert {(tile.data.indices.dtype, tile.data.indptr.dtype) for tile in found} == {
                (np.dtype("i4"), np.dtype("i4"))
            }

    def test_may_come_from_a_sparse_roi(self) -> None:
        triple = CSRTriple(np.array(INDPTR), np.array(INDICES), np.array(VALUES))
        roi = sparse.COO.from_numpy(ROI, fill_value=False)
        part = Slice((0, 0, 0), Shape((6, 2, 3), 2))
        (tile,) = read_tiles_with_roi(triple, part, 0, scheme_for(6, 2, 3), roi, np.int64)
        np.testing.assert_array_equal(tile.data.toarray().reshape(4, 2, 3), FRAMES[ROI])

    def test_share_memory_where_nothing_changes(self) -> None:
        triple = CSRTriple(np.array(INDPTR), np.array(INDICES, "i4"), np.array(VALUES, "f4"))
        part = Slice((0, 0, 0), Shape((6, 2, 3), 2))
        for tile in read_tiles_straight(triple, part, 0, scheme_for(4, 2, 3), "f4"):
            assert np.shares_memory(tile.data.data, triple.data)
            assert np.shares_memory(tile.data.indices, triple.indices)
            assert not tile.data.data.flags.writeable

    def test_share_memory_with_the_files(self, tmp_path: Path) -> None:
        ds = load(write_example(tmp_path))
        for tile in itertools.chain(*tiles_of(ds, dest_dtype="f4")):
            for array in (tile.data.data, tile.data.indices):
                assert (array.flags.owndata, array.flags.writeable) == (False, False)

    @pytest.mark.parametrize("dest", [">f4", "<f4", ">i2", "c8"])
    def test_have_the_byte_order_that_was_asked_for(self, tmp_path: Path, dest: str) -> None:
        (tile,) = tiles_of(load(write_example(tmp_path), num_partitions=1), 6, dest_dtype=dest)[0]
        assert tile.dtype == tile.data.data.dtype == np.dtype(dest)
        np.testing.assert_array_equal(tile.data.toarray().reshape(6, 2, 3), FRAMES)

    @pytest.mark.parametrize("columns", [[2, 1, 0], [2, 1, 1]])
    def test_with_unsorted_or_repeated_pixels_can_be_used_in_all_ways(self, columns: list[int]) -> None:
        values = np.array([1, 2, 4], "f4")
        triple = CSRTriple(np.array([0, 3]), np.array(columns, "i4"), values)
        part = Slice((0, 0, 0), Shape((1, 2, 2), 2))
        scheme = scheme_for(1, 2, 2, shape=(1, 2, 2))
        expected = np.zeros(4)
        np.add.at(expected, columns, values)
        (tile,) = read_tiles_straight(triple, part, 0, scheme, "f4")
        np.testing.assert_array_equal(tile.data.indices, columns)
        np.testing.assert_array_equal(tile.data.data, values)
        # These sort the matrix in place.
        assert abs(tile.data).sum() == 7
        np.testing.assert_array_equal(tile.data.toarray().reshape(-1), expected)
        np.testing.assert_array_equal(triple.indices, columns)

    @pytest.mark.parametrize("sig", [(1, 3), (1, 2), (1, 1), (2, 3)])
    @pytest.mark.parametrize("roi", [None, ROI])
    def test_can_be_contiguous_parts_of_frames(
        self, tmp_path: Path, sig: tuple[int, int], roi: Array | None
    ) -> None:
        ds = load(write_example(tmp_path), num_partitions=2)
        delivered = read(ds, dest_dtype="f4", roi=roi, tile_shape=(2, *sig))
        assert_delivered(delivered, FRAMES[... if roi is None else roi].astype("f4"), None, f"tiles {sig}")
        first = next(next(iter(ds.get_partitions())).get_tiles(scheme_for(2, *sig)))
        assert first.data.shape == (2, sig[0] * sig[1])

    def test_of_other_parts_are_refused(self, tmp_path: Path) -> None:
        ds = load(write_example(tmp_path))
        with pytest.raises(ValueError, match=r"Cannot slice CSR data in sig .* found \(2, 1\) at \(0, 0\)"):
            next(next(iter(ds.get_partitions())).get_tiles(scheme_for(2, 2, 1)))

    # The first conversion to DOK or GCXS compiles for ten seconds.
    @pytest.mark.parametrize("backend", sorted(CPU_BACKENDS - {SPARSE_DOK, SPARSE_GCXS}))
    @pytest.mark.parametrize("part", [(2, 3), (1, 3)])
    def test_are_any_kind_of_array(self, tmp_path: Path, backend: str, part: tuple[int, int]) -> None:
        from sparseconverter import get_backend

        ds = load(write_example(tmp_path), num_partitions=2)
        for partition in ds.get_partitions():
            for tile in partition.get_tiles(scheme_for(2, *part), array_backend=backend):
                assert get_backend(tile.data) == backend
                flat = (tile.shape[0], part[0] * part[1])
                assert tile.data.shape == (flat if backend in D2_BACKENDS else tile.shape)
                expected = tile.tile_slice.get(FRAMES)
                np.testing.assert_array_equal(to_dense(tile.data).reshape(tile.shape), expected)

    def test_of_unknown_kind_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="unknown array backend 'list'"):
            tiles_of(load(write_example(tmp_path)), array_backend="list")

    def test_in_half_precision_are_refused(self, tmp_path: Path) -> None:
        ds = load(write_example(tmp_path, data_dtype="<f2"))
        np.testing.assert_array_equal(read(ds, dest_dtype="f4").pixels, FRAMES)
        with pytest.raises(DataSetException, match="half precision"):
            tiles_of(ds, dest_dtype="f2")

    def test_of_no_frames_are_an_empty_matrix(self, tmp_path: Path) -> None:
        ds = load(write_example(tmp_path), num_partitions=3, sync_offset=-4)
        parts = list(ds.get_partitions())
        empty = parts[0].get_macrotile(dest_dtype="f8")
        assert type(empty.data) is csr_matrix
        assert (empty.data.shape, empty.shape, empty.dtype) == ((0, 6), (0, 2, 3), np.float64)
        assert tiles_of(ds)[:2] == [[], []]
        assert tiles_of(ds, roi=np.zeros(6, dtype=bool)) == [[], [], []]

    def test_may_hold_no_value_at_all(self, tmp_path: Path) -> None:
        nothing = SparseFrames(np.zeros(4, int), np.zeros(0, int), np.zeros(0))
        path = write_raw_csr(tmp_path / "x.toml", [nothing], (4,), (2, 3))
        ds = load(str(path))
        assert_delivered(read(ds), np.zeros((4, 2, 3), "f4"), None, "no values")

    def test_may_leave_values_out(self, tmp_path: Path) -> None:
        """Index pointers need not start at 0, nor end at the last value."""
        path = write_example(tmp_path)
        np.array(INDPTR[2:5]).tofile(tmp_path / "x.indptr.dat")
        ds = load(path, nav_shape=(2,))
        assert_delivered(read(ds), FRAMES[2:4].astype("f4"), None, "two of six frames")


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    n = draw(st.integers(1, 9))
    sig = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    shown = draw(st.integers(1, 12))
    return {
        "frames": np.random.default_rng(draw(st.integers(0, 99))).integers(-2, 3, (n, *sig)),
        "shown": shown,
        "offset": draw(st.integers(1 - n, n - 1)),
        "partitions": draw(st.integers(1, shown)),
        "depth": draw(st.integers(1, 13)),
        "dtypes": (
            draw(st.sampled_from([name for name in INDEX_DTYPES if name != "u1"])),
            draw(st.sampled_from(INDEX_DTYPES)),
            draw(st.sampled_from(["i1", ">i2", "<f4"])),
        ),
        "roi": draw(st.none() | st.lists(st.booleans(), min_size=shown, max_size=shown)),
    }


@given(case=cases())
@settings(max_examples=60, deadline=None)
def test_frames_are_where_the_rule_of_sync_offsets_says(
    tmp_path_factory: pytest.TempPathFactory, case: dict[str, Any]
) -> None:
    frames, offset, shown = case["frames"], case["offset"], case["shown"]
    path = write_raw_csr(
        tmp_path_factory.mktemp("csr") / "x.toml",
        [sparse_frames(frames)],
        (shown,),
        frames.shape[1:],
        **dict(zip(("indptr_dtype", "indices_dtype", "data_dtype"), case["dtypes"], strict=True)),
    )
    ds = load(str(path), nav_shape=(shown,), sync_offset=offset, num_partitions=case["partitions"])
    roi = None if case["roi"] is None else np.array(case["roi"])
    selected = np.arange(shown) if roi is None else np.flatnonzero(roi)
    present = (selected + offset >= 0) & (selected + offset < frames.shape[0])
    expected = np.zeros((len(selected), *frames.shape[1:]))
    expected[present] = frames[selected[present] + offset]
    delivered = read(ds, dest_dtype="f8", roi=roi, tile_shape=(case["depth"], *frames.shape[1:]), ship=True)
    assert_delivered(delivered, expected, present, str(case))


class TestDataSet:
    def test_facts_are_those_of_the_files(self, tmp_path: Path) -> None:
        ds = load(write_example(tmp_path, data_dtype=">u2", nav_shape=(2, 3)))
        assert (ds.shape.to_tuple(), ds.shape.sig.dims, ds.dtype) == ((2, 3, 2, 3), 2, np.dtype(">u2"))
        assert ds.meta is not None
        assert (ds.meta.image_count, ds.meta.raw_dtype) == (6, np.dtype(">u2"))
        assert ds.array_backends == ds.meta.array_backends == ["scipy.sparse.csr_matrix"]
        assert repr(ds) == "<RawCSRDataSet of >u2 shape=(2, 3, 2, 3)>"
        assert ds.get_max_io_size() == 20971520
        assert (ds.get_base_shape(None), ds.adjust_tileshape((7, 1, 1), None)) == ((1, 2, 3), (7, 2, 3))
        assert ds.diagnostics[:3] == [
            {"name": "data dtype", "value": ">u2"},
            {"name": "indptr dtype", "value": "<i8"},
            {"name": "indices dtype", "value": "<i4"},
        ]

    def test_answers_what_all_data_sets_do(self, tmp_path: Path) -> None:
        path = write_example(tmp_path)
        ds = load(path, sync_offset=2)
        assert ds.check_valid() is True
        key = {"path": path, "shape": (6, 2, 3), "dtype": "float32", "sync_offset": 2}
        assert ds.get_cache_key() == key
        assert RawCSRDataSet.get_supported_extensions() == {"toml"}
        for partition in ds.get_partitions():
            assert isinstance(partition, Partition)
            assert not isinstance(partition, BasePartition)

    @pytest.mark.parametrize(
        ("offset", "dtype", "roi", "dark", "expected"),
        [
            (0, "f4", None, None, False),
            (2, "f4", None, None, False),
            (-1, "f4", None, None, True),
            (0, "f8", None, None, True),
            (0, "f4", np.ones(6, dtype=bool), None, True),
            (0, "f4", None, np.ones((2, 3)), True),
        ],
    )
    def test_needs_to_decode_by_the_common_rule(
        self, tmp_path: Path, offset: int, dtype: str, roi: Any, dark: Any, expected: bool
    ) -> None:
        ds = load(write_example(tmp_path), sync_offset=offset)
        assert ds.need_decode(dtype, roi, CorrectionSet(dark=dark)) is expected

    def test_has_no_facts_before_it_is_initialized(self) -> None:
        ds = RawCSRDataSet("x.toml")
        assert repr(ds) == "<RawCSRDataSet of 'x.toml', not initialized>"
        with pytest.raises(RuntimeError, match="not initialized"):
            ds.shape  # noqa: B018

    @pytest.mark.parametrize("shape", [[3, 2], {3: "a", 2: "b"}.keys(), np.array([3, 2])])
    def test_shapes_are_any_iterable(self, tmp_path: Path, shape: Any) -> None:
        ds = load(write_example(tmp_path), nav_shape=shape, sig_shape=shape)
        assert ds.shape.to_tuple() == (3, 2, 3, 2)

    def test_sig_shape_keeps_the_number_of_pixels(self, tmp_path: Path) -> None:
        path = write_example(tmp_path)
        with pytest.raises(ValueError, match=r"Sig size mismatch between \(3, 3\) and \(2, 3\)\.") as caught:
            load(path, sig_shape=(3, 3))
        assert isinstance(caught.value, DataSetException)

    @pytest.mark.parametrize("name", ["nav_shape", "sig_shape"])
    def test_shapes_are_in_the_file_or_given(self, tmp_path: Path, name: str) -> None:
        path = write_example(tmp_path)
        replace(path, name, "other")
        with pytest.raises(KeyError, match=f"no {name} in the table params") as caught:
            load(path)
        assert isinstance(caught.value, DataSetException)
        ds = load(path, **{name: {"nav_shape": (2, 3), "sig_shape": (6,)}[name]})
        np.testing.assert_array_equal(read(ds).pixels.reshape(6, 2, 3), FRAMES)

    def test_a_scan_of_more_positions_than_frames_is_reported(self, tmp_path: Path) -> None:
        path = write_example(tmp_path, nav_shape=(3, 3))
        with pytest.warns(RuntimeWarning, match=r"9 positions .* \(3, 3\), but the files hold 6 frames"):
            load(path)
        assert load(path, nav_shape=(3, 4)).shape.nav.size == 12

    def test_io_backends_are_refused_in_all_ways(self) -> None:
        for expected in (NotImplementedError, ValueError, DataSetException):
            with pytest.raises(expected, match="RawCSRDataSet currently doesn't support alternative I/O"):
                RawCSRDataSet("x.toml", io_backend=MMapBackend())

    def test_corrections_are_refused(self, tmp_path: Path) -> None:
        path = write_example(tmp_path)
        corrections = CorrectionSet(dark=np.ones((2, 3)))
        message = "corrections not implemented for raw CSR data set"
        with Context(executor=InlineJobExecutor()) as ctx:
            ds = ctx.load("raw_csr", path=path)
            assert not ds.supports_correction()
            part = next(iter(ds.get_partitions()))
            part.set_corrections(None)
            part.set_corrections(CorrectionSet())
            with pytest.raises(NotImplementedError, match=message):
                part.set_corrections(corrections)
            with pytest.raises(NotImplementedError, match="corrections not implemented for"):
                ctx.run_udf(dataset=ds, udf=SumUDF(), corrections=corrections)
            for none in (None, CorrectionSet()):
                result = ctx.run_udf(dataset=ds, udf=SumUDF(), corrections=none)
                np.testing.assert_array_equal(result["intensity"].data, FRAMES.sum(axis=0))

    def test_runs_equal_numpy(self, tmp_path: Path) -> None:
        masks = np.random.default_rng(0).random((3, 2, 3))
        with Context(executor=InlineJobExecutor(debug=True)) as ctx:
            ds = ctx.load("raw_csr", path=write_example(tmp_path), num_partitions=3)
            udfs = [SumUDF(), SumSigUDF(), ApplyMasksUDF(mask_factories=lambda: masks)]
            total, frames, products = ctx.run_udf(dataset=ds, udf=udfs)
        np.testing.assert_array_equal(total["intensity"].data, FRAMES.sum(axis=0))
        np.testing.assert_array_equal(frames["intensity"].data, FRAMES.sum(axis=(1, 2)))
        np.testing.assert_allclose(products["intensity"].data, np.einsum("fyx,myx->fm", FRAMES, masks))

    def test_importing_needs_nothing_heavy(self) -> None:
        script = (
            "import sys, libertem.io.dataset.raw_csr\n"
            "print(*{'numba', 'scipy', 'sparse', 'sparseconverter', 'h5py'} & sys.modules.keys())"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.split() == []

    def test_json_parameters_fit_the_constructor(self) -> None:
        assert RawCSRDataSet.get_msg_converter() is RawCSRDatasetParams
        message = {"type": "RAW_CSR", "path": "x.toml", "nav_shape": [2, 3], "sync_offset": 1}
        params = RawCSRDatasetParams().to_python(message)
        assert params == {"path": "x.toml", "nav_shape": (2, 3), "sync_offset": 1}
        RawCSRDataSet(**params)
        assert RawCSRDatasetParams().from_python(params) == message
        with pytest.raises(jsonschema.ValidationError):
            RawCSRDatasetParams().to_python({"type": "RAW_CSR"})


class TestSidecar:
    def test_is_found_relative_to_its_folder(self, tmp_path: Path) -> None:
        descriptor = get_descriptor(write_example(tmp_path))
        assert descriptor == CSRDescriptor(
            str(tmp_path / "x.indptr.dat"),
            "<i8",
            str(tmp_path / "x.indices.dat"),
            "<i4",
            str(tmp_path / "x.data.dat"),
            "<f4",
        )
        assert get_nav_size(descriptor) == 6

    def test_may_name_files_elsewhere(self, tmp_path: Path) -> None:
        (tmp_path / "sub").mkdir()
        path = write_example(tmp_path / "sub")
        for name in ("indptr", "indices", "data"):
            replace(path, f"x.{name}.dat", str(tmp_path / f"{name}.bin"))
            (tmp_path / "sub" / f"x.{name}.dat").rename(tmp_path / f"{name}.bin")
        np.testing.assert_array_equal(read(load(path)).pixels, FRAMES)

    @pytest.mark.parametrize(("filetype", "table"), [("RAW_CSR", "RAW_CSR"), ("Raw_CSR", "raw_csr")])
    def test_writes_the_filetype_in_any_case(self, tmp_path: Path, filetype: str, table: str) -> None:
        path = write_example(tmp_path)
        replace(path, 'filetype = "raw_csr"', f'filetype = "{filetype}"')
        replace(path, "[raw_csr]", f"[{table}]")
        np.testing.assert_array_equal(read(load(path)).pixels, FRAMES)

    def test_that_is_missing_is_a_missing_file(self, tmp_path: Path) -> None:
        for read_it in (load_toml, load):
            with pytest.raises(FileNotFoundError, match=r"x\.toml") as caught:
                read_it(str(tmp_path / "x.toml"))
            assert isinstance(caught.value, DataSetException)

    @pytest.mark.parametrize(
        ("old", "new", "kind", "message"),
        [
            ("[params]", "[params", TOMLError, "not a valid TOML file: .*line 1"),
            ("[params]", "[other]", KeyError, r"no table params: found \['other', 'raw_csr'\]"),
            ("[raw_csr]", "[csr]", KeyError, r"no table raw_csr: found \['csr', 'params'\]"),
            ('filetype = "raw_csr"', 'filetype = "raw"', ValueError, "Filetype is not CSR, found raw"),
            ("filetype", "kind", KeyError, "no filetype in the table params"),
            ('filetype = "raw_csr"', "filetype = 3", ValueError, "Filetype is not CSR, found 3"),
            ("indptr_file", "file", KeyError, "no indptr_file"),
            ("data_dtype", "dtype", KeyError, "no data_dtype"),
            ('"x.data.dat"', "5", HeaderError, "data_file has to be a string: found 5"),
            ('"<i4"', '"<f4"', HeaderError, "indices_dtype is of no use: found '<f4', expected an integer"),
            ('"<i8"', '"i8,i8"', HeaderError, "indptr_dtype is of no use: found 'i8,i8'"),
            ('"<i8"', '"nonsense"', HeaderError, "indptr_dtype is of no use: found 'nonsense'"),
            ('"<f4"', '"O"', HeaderError, "data_dtype is of no use: found 'O', expected a numeric"),
            ("[6]", "6", HeaderError, "nav_shape has to be an array: found 6"),
            ("[6]", "[-6]", DataSetException, "nav_shape has to consist of positive integers"),
            ("[2, 3]", "[2.0, 3]", DataSetException, "sig_shape has to consist of positive integers"),
            ("x.data.dat", "gone.dat", FileNotFoundError, "gone.dat: the file does not exist"),
            ("x.data.dat", "gone\\u0000.dat", DataSetException, "not a possible path"),
        ],
    )
    def test_is_refused_where_it_is_wrong(
        self, tmp_path: Path, old: str, new: str, kind: type[Exception], message: str
    ) -> None:
        path = write_example(tmp_path)
        replace(path, old, new)
        with pytest.raises(kind, match=message) as caught:
            load(path)
        assert isinstance(caught.value, DataSetException)
        assert os.fspath(tmp_path) in str(caught.value)
        again = pickle.loads(pickle.dumps(caught.value))
        assert (type(again), str(again)) == (type(caught.value), str(caught.value))
        assert RawCSRDataSet.detect_params(path, InlineJobExecutor()) is False

    def test_is_small(self, tmp_path: Path) -> None:
        path = tmp_path / "x.toml"
        path.write_bytes(b"#" * (1 << 20) + b"\n")
        with pytest.raises(HeaderError, match="too large for a file of parameters: found 1048577 bytes"):
            load(str(path))

    def test_with_deep_nesting_is_refused(self) -> None:
        with pytest.raises(TOMLError):
            parse_sidecar(b"a = " + b"[" * 30000, path="x.toml")

    @given(st.binary(max_size=80) | st.text(alphabet='[]params="raw_csr.\n', max_size=80).map(str.encode))
    @example(b'[params]\nfiletype = "raw_csr"\nraw_csr = 3\n[raw_csr]\nindptr_file = [1]\n')
    @settings(max_examples=50)
    def test_of_any_bytes_is_read_or_refused(self, raw: bytes) -> None:
        try:
            assert isinstance(parse_sidecar(raw, path="x.toml"), Sidecar)
        except DataSetException as err:
            assert "x.toml" in str(err)

    def test_is_detected(self, tmp_path: Path) -> None:
        path = write_example(tmp_path, name="x.txt", nav_shape=(2, 3))
        assert RawCSRDataSet.detect_params(path, InlineJobExecutor()) == {
            "parameters": {"path": path, "nav_shape": [2, 3], "sig_shape": [2, 3], "sync_offset": 0},
            "info": {"image_count": 6},
        }

    @pytest.mark.parametrize("name", ["long.toml", "LONG.TOML"])
    def test_is_detected_by_its_extension_however_many_comments_it_has(
        self, tmp_path: Path, name: str
    ) -> None:
        path = tmp_path / name
        path.write_bytes(Path(write_example(tmp_path)).read_bytes() + b"#" * (1 << 19))
        assert RawCSRDataSet.detect_params(str(path), InlineJobExecutor())
        with Context(executor=InlineJobExecutor()) as ctx:
            assert isinstance(ctx.load("auto", path=str(path)), RawCSRDataSet)

    @pytest.mark.parametrize(("name", "n_bytes"), [("large.toml", 1 << 20), ("large", 1 << 16)])
    def test_is_not_looked_for_in_large_files(self, tmp_path: Path, name: str, n_bytes: int) -> None:
        path = tmp_path / name
        path.write_bytes(Path(write_example(tmp_path)).read_bytes() + b"#" * n_bytes)
        before = io_counts()
        assert RawCSRDataSet.detect_params(str(path), InlineJobExecutor()) is False
        assert (io_counts() - before).read_bytes == 0


ROLES = ("indptr", "indices", "data")


class TestDamagedFiles:
    """Whatever is wrong is found before a value is delivered, and the error says where it is."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> str:
        return write_example(tmp_path)

    def put(self, path: str, role: str, entry: int, value: int) -> str:
        file = Path(path).with_name(f"x.{role}.dat")
        entries = np.fromfile(file, dtype={"indptr": "<i8", "indices": "<i4"}[role])
        entries[entry] = value
        entries.tofile(file)
        return str(file)

    @pytest.mark.parametrize(
        ("entry", "value", "frame"), [(2, 12, 1), (2, -1, 1), (3, 1, 2), (1, 4, 1), (4, 1 << 62, 3)]
    )
    def test_index_pointers_are_checked_when_loading(
        self, path: str, entry: int, value: int, frame: int
    ) -> None:
        file = self.put(path, "indptr", entry, value)
        with pytest.raises(DataSetException, match=f"impossible index pointers of frame {frame}: ") as err:
            load(path)
        assert file in str(err.value)
        assert f"at byte {8 * frame}," in str(err.value)
        assert "within 0 to 11" in str(err.value)

    @pytest.mark.parametrize(("entry", "value"), [(0, -1), (6, 12), (0, 12), (6, -5)])
    def test_the_ends_of_index_pointers_are_checked_first(self, path: str, entry: int, value: int) -> None:
        self.put(path, "indptr", entry, value)
        with pytest.raises(DataSetException, match="the index pointers do not fit the values"):
            load(path)
        assert RawCSRDataSet.detect_params(path, InlineJobExecutor()) is False

    @pytest.mark.parametrize(("k", "frame"), [(0, 0), (1, 0), (2, 2), (5, 3), (8, 3), (10, 5)])
    @pytest.mark.parametrize("column", [6, -1, -(1 << 31), (1 << 31) - 1])
    def test_column_indices_are_checked_when_reading(
        self, path: str, k: int, frame: int, column: int
    ) -> None:
        file = self.put(path, "indices", k, column)
        ds = load(path, num_partitions=2)
        message = (
            f"frame {frame} has a pixel outside of the frame: found column index {column} at byte {4 * k},"
        )
        roi = np.arange(6) % 2 == frame % 2
        for kwargs in ({}, {"roi": roi}, {"array_backend": "numpy"}):
            with pytest.raises(DataSetException, match=message) as err:
                tiles_of(ds, **kwargs)
            assert file in str(err.value)
            assert "expected 0 to 5" in str(err.value)
        # Other frames can be read.
        assert sum(len(tiles) for tiles in tiles_of(ds, roi=~roi)) == 2

    def test_all_can_be_checked_at_once(self, path: str) -> None:
        check(get_descriptor(path), (6,), (2, 3), debug=True)
        self.put(path, "indices", 5, 7)
        check(get_descriptor(path), (6,), (2, 3))
        with pytest.raises(DataSetException, match="frame 3 has a pixel outside of the frame"):
            check(get_descriptor(path), (6,), (2, 3), debug=True)

    def test_loading_checks_no_more_than_some_frames(self, path: str, monkeypatch: Any) -> None:
        """Of 200 million frames, index pointers alone are more than a gigabyte."""
        monkeypatch.setattr("libertem.io.dataset.raw_csr.dataset.MAX_CHECKED_FRAMES", 3)
        self.put(path, "indptr", 5, 2)
        ds = load(path, num_partitions=3)
        with pytest.raises(DataSetException, match="index pointers of frame 4: found values 9 to 2"):
            tiles_of(ds)
        self.put(path, "indptr", 2, 1)
        with pytest.raises(DataSetException, match="impossible index pointers of frame 1"):
            load(path)

    def test_as_many_indices_as_values(self, path: str) -> None:
        os.truncate(Path(path).with_name("x.data.dat"), 40)
        for expected in (RuntimeError, DataSetException):
            with pytest.raises(expected, match=r"Shape mismatch between data and indices\.: found 10 values"):
                load(path)

    @pytest.mark.parametrize("role", ROLES)
    @pytest.mark.parametrize("n_bytes", [0, 1, 3, 8, 16, 24, 40])
    def test_files_that_are_cut_off_are_refused(self, path: str, role: str, n_bytes: int) -> None:
        file = Path(path).with_name(f"x.{role}.dat")
        os.truncate(file, n_bytes)
        if role == "indptr" and n_bytes in (16, 24, 40):
            # Whole frames are missing, which only nav_shape tells.
            with pytest.warns(RuntimeWarning, match=f"the files hold {n_bytes // 8 - 1} frames"):
                ds = load(path)
            left = read(ds, dest_dtype="f4")
            np.testing.assert_array_equal(left.pixels[: n_bytes // 8 - 1], FRAMES[: n_bytes // 8 - 1])
            assert not left.counts[n_bytes // 8 - 1 :].any()
            return
        with pytest.raises(DataSetException) as err:
            load(path)
        assert os.fspath(file) in str(err.value) or "x.data.dat" in str(err.value)

    @pytest.mark.parametrize("role", ROLES)
    def test_files_that_shrink_later_are_refused(self, path: str, role: str) -> None:
        ds = load(path)
        file = Path(path).with_name(f"x.{role}.dat")
        os.truncate(file, file.stat().st_size - 1)
        with pytest.raises(DataSetException, match="the file has become shorter"):
            tiles_of(ds)

    @given(raw=st.lists(st.integers(-3, 14), min_size=2, max_size=6))
    @settings(max_examples=60)
    def test_any_index_pointers_give_rows_or_an_error(self, raw: list[int]) -> None:
        reader = RowReader(CSRTriple(np.array(raw), np.array(INDICES), np.array(VALUES)), 6)
        images = np.arange(len(raw) - 1)
        good = min(raw) >= 0 and raw == sorted(raw) and raw[-1] <= 11
        for chosen in _contiguous_and_not(images):
            try:
                rows = reader.read(chosen)
            except DataSetException:
                assert not good
                continue
            for row, image in enumerate(chosen):
                found = rows.data[rows.indptr[row] : rows.indptr[row + 1]].tolist()
                assert found == VALUES[raw[image] : raw[image + 1]]
                assert 0 <= raw[image] <= raw[image + 1] <= 11

    @given(
        column=st.integers(-300, 300),
        n_px=st.integers(1, 300),
        dtype=st.sampled_from(["i1", "u1", "<i2", ">i2", ">u2", "<i4", "<u8"]),
    )
    @example(column=-1, n_px=300, dtype="i1")
    @example(column=-128, n_px=129, dtype="i1")
    @example(column=255, n_px=256, dtype="u1")
    def test_no_column_outside_of_frames_is_overlooked(self, column: int, n_px: int, dtype: str) -> None:
        columns = np.array([0, column, 0]).astype(dtype)
        value = int(columns[1])
        reader = RowReader(CSRTriple(np.array([0, 3]), columns, np.ones(3)), n_px)
        if 0 <= value < n_px:
            assert reader.read(np.array([0])).indices.tolist() == [0, value, 0]
            return
        with pytest.raises(DataSetException, match=f"column index {value} at byte {columns.itemsize},"):
            reader.read(np.array([0]))

    def test_index_pointers_beyond_64_bits_are_refused(self) -> None:
        reader = RowReader(CSRTriple(np.array([0, (1 << 64) - 1], "u8"), np.array([0]), np.array([1])), 6)
        with pytest.raises(DataSetException, match=f"values 0 to {(1 << 64) - 1} at byte 0"):
            reader.read(np.array([0]))


def _contiguous_and_not(images: Array) -> Iterator[Array]:
    yield images
    if len(images) > 2:
        yield images[::2]
