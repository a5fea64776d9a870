from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import sparse
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from libertem.common import Shape, Slice
from libertem.exceptions import DataSetException
from libertem.io.corrections import CorrectionSet
from libertem.io.dataset.base import (
    BasePartition,
    BufferedBackend,
    DataSetMeta,
    Decoder,
    DirectBackend,
    DtypeConversionDecoder,
    FileSet,
    IOBackend,
    MMapBackend,
    Partition,
    TilingScheme,
    WritablePartition,
)
from libertem.io.dataset.base.backends.rawio import RawFile
from libertem.io.dataset.base.blocks import FrameBlock, ReadOrder

Array = npt.NDArray[Any]
Store = Callable[..., Any]

EIGHT = np.arange(8 * 20, dtype=np.uint16).reshape(8, 4, 5)
ROI = np.zeros((2, 4), dtype=bool)
ROI[(0, 0, 1), (1, 3, 2)] = True


def direct_io_works() -> bool:
    """Not on all file systems."""
    with tempfile.NamedTemporaryFile() as file:
        try:
            RawFile(file.name, direct=True).close()
        except (RuntimeError, DataSetException):
            return False
    return True


BACKENDS: list[IOBackend] = [
    MMapBackend(),
    MMapBackend(enable_readahead_hints=True),
    BufferedBackend(),
    BufferedBackend(max_buffer_size=300),
]
if direct_io_works():
    BACKENDS += [DirectBackend(), DirectBackend(max_buffer_size=9000)]

DTYPES = ["?", "u1", "i1", "<u2", ">u2", "<i2", ">i2", "<u4", ">i4", "<i8", ">u8"]
DTYPES += ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "<c8", ">c8", "c16"]


def place(tile: Any) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    return tile.tile_slice.origin, tile.shape, tile.scheme_idx


def random_images(seed: int, dtype: Any, shape: tuple[int, ...]) -> Array:
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if kind.kind in "ui":
        return np.frombuffer(rng.bytes(int(np.prod(shape)) * kind.itemsize), kind).reshape(shape)
    values = rng.normal(0, 100, shape)
    return (values + 1j * rng.normal(0, 100, shape) if kind.kind == "c" else values).astype(kind)


class TestOrderOfTiles:
    """The examples of the contract."""

    def test_slices_run_fastest(self, store: Store) -> None:
        stored = store(EIGHT)
        first, second = stored.partitions(2)
        scheme = stored.scheme(3, 2, 5)
        assert [place(tile) for tile in first.get_tiles(scheme)] == [
            ((0, 0, 0), (3, 2, 5), 0),
            ((0, 2, 0), (3, 2, 5), 1),
            ((3, 0, 0), (1, 2, 5), 0),
            ((3, 2, 0), (1, 2, 5), 1),
        ]
        assert [tile.tile_slice.origin[0] for tile in second.get_tiles(scheme)] == [4, 4, 7, 7]

    def test_slices_at_the_border_are_smaller(self, store: Store) -> None:
        stored = store(EIGHT)
        tiles = stored.partitions(2)[0].get_tiles(stored.scheme(4, 3, 5))
        assert [place(tile) for tile in tiles] == [((0, 0, 0), (4, 3, 5), 0), ((0, 3, 0), (4, 1, 5), 1)]

    def test_a_deeper_scheme_is_clamped(self, store: Store) -> None:
        stored = store(EIGHT)
        (tile,) = stored.partitions(2)[1].get_tiles(stored.scheme(100, 4, 5))
        assert place(tile) == ((4, 0, 0), (4, 4, 5), 0)

    @pytest.mark.parametrize("roi", [ROI, ROI.reshape(-1), ROI.astype(int) * 3, sparse.COO.from_numpy(ROI)])
    def test_origins_count_selected_positions(self, store: Store, roi: Any) -> None:
        stored = store(EIGHT)
        places = [
            [place(tile) for tile in partition.get_tiles(stored.scheme(2, 2, 5), roi=roi)]
            for partition in stored.partitions(2)
        ]
        assert places == [
            [((0, 0, 0), (2, 2, 5), 0), ((0, 2, 0), (2, 2, 5), 1)],
            [((2, 0, 0), (1, 2, 5), 0), ((2, 2, 0), (1, 2, 5), 1)],
        ]

    @pytest.mark.parametrize(
        ("offset", "origins", "starts"),
        [(3, [[(0, 2), (2, 2)], [(4, 1)]], [3, 7]), (-3, [[(3, 1)], [(4, 2), (6, 2)]], [-3, 1])],
    )
    def test_blank_positions_are_not_delivered(
        self, store: Store, offset: int, origins: list[list[tuple[int, int]]], starts: list[int]
    ) -> None:
        stored = store(EIGHT, sync_offset=offset)
        partitions = stored.partitions(2)
        assert [p._start_frame for p in partitions] == starts
        assert [p.slice.origin[0] for p in partitions] == [0, 4]
        assert origins == [
            [(t.tile_slice.origin[0], t.shape[0]) for t in p.get_tiles(stored.scheme(2, 4, 5))]
            for p in partitions
        ]

    def test_selected_blanks_own_a_place(self, store: Store) -> None:
        stored = store(EIGHT, sync_offset=-3)
        tiles = [list(p.get_tiles(stored.scheme(4, 4, 5), roi=ROI)) for p in stored.partitions(2)]
        assert [[place(t)[:2] for t in part] for part in tiles] == [
            [((1, 0, 0), (1, 4, 5))],
            [((2, 0, 0), (1, 4, 5))],
        ]
        np.testing.assert_array_equal(tiles[1][0].data[0], EIGHT[3])

    @pytest.mark.parametrize(
        ("offset", "starts", "origins"),
        [(-5, [-5, -3, -1, 1], [[], [], [5], [6]]), (5, [5, 7, 9, 11], [[0], [2], [], []])],
    )
    def test_partitions_without_images_yield_nothing(
        self, store: Store, offset: int, starts: list[int], origins: list[list[int]]
    ) -> None:
        stored = store(EIGHT, sync_offset=offset)
        partitions = stored.partitions(4)
        assert [p._start_frame for p in partitions] == starts
        tiles = [list(p.get_tiles(stored.scheme(2, 4, 5))) for p in partitions]
        assert [[t.tile_slice.origin[0] for t in part] for part in tiles] == origins

    def test_a_scheme_for_partitions_gives_one_tile(self, store: Store) -> None:
        stored = store(EIGHT)
        scheme = stored.scheme(3, 4, 5, intent="partition")
        assert [t.shape for p in stored.partitions(2) for t in p.get_tiles(scheme)] == [(4, 4, 5)] * 2


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    """Everything that can be different about files, tiles, masks and partitions."""
    sig = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
    n = draw(st.integers(1, 20))
    positions = draw(st.integers(1, 25))
    native = draw(st.sampled_from(DTYPES))
    # Frame headers of odd length leave the pixels misaligned.
    unit = draw(st.sampled_from([1, np.dtype(native).itemsize]))
    return {
        "images": random_images(draw(st.integers(0, 99)), native, (n, *sig)),
        "tileshape": (draw(st.integers(1, n + 2)), *(draw(st.integers(1, full)) for full in sig)),
        "partitions": draw(st.integers(1, min(4, positions))),
        "roi": draw(
            st.none() | st.lists(st.booleans(), min_size=positions, max_size=positions).map(np.array)
        ),
        "dest": np.dtype(draw(st.sampled_from([native, "u1", "<u2", ">u2", "i8", "f2", "f4", "f8", "c8"]))),
        "backend": draw(st.sampled_from(BACKENDS)),
        "files": {
            "borders": sorted(draw(st.sets(st.integers(1, n - 1), max_size=4))) if n > 1 else [],
            "sync_offset": draw(st.integers(1 - n, n - 1)),
            "n_positions": positions,
            "file_header": draw(st.integers(0, 9)),
            "frame_header": unit * draw(st.integers(0, 3)),
            "frame_footer": unit * draw(st.integers(0, 3)),
            "trailing": draw(st.integers(0, 9)),
        },
    }


def documented_path(partition: BasePartition, scheme: TilingScheme, dest: Any, roi: Any) -> Iterator[Any]:
    if partition._fileset is not None:
        yield from partition._get_decoded_tiles(scheme, dest, roi, "numpy")


def fast_path(partition: BasePartition, scheme: TilingScheme, dest: Any, roi: Any) -> Iterator[Any]:
    assert partition._fileset is None or partition._frames(roi) is not None
    yield from partition.get_tiles(scheme, dest_dtype=dest, roi=roi)


def compare(stored: Any, case: dict[str, Any], path: Any, corrections: CorrectionSet | None = None) -> None:
    """All tiles of all partitions against what NumPy cuts out of the images."""
    dest, roi, tileshape = case["dest"], case["roi"], case["tileshape"]
    for partition in stored.partitions(case["partitions"], case["backend"]):
        partition.set_corrections(corrections)
        expected = list(stored.expected(partition.slice, tileshape, roi))
        n_tiles = 0
        with np.errstate(all="ignore"):
            for tile in path(partition, stored.scheme(*tileshape), dest, roi):
                want = expected[n_tiles]
                n_tiles += 1
                assert place(tile) == (want.origin, want.pixels.shape, want.scheme_idx)
                assert tile.dtype == dest
                pixels = want.pixels.astype(dest)
                if corrections is None:
                    np.testing.assert_array_equal(tile.data, pixels)
                    continue
                dark = tile.tile_slice.get(corrections.get_dark_frame(), sig_only=True)
                gain = tile.tile_slice.get(corrections.get_gain_map(), sig_only=True)
                np.testing.assert_allclose(tile.data, (pixels - dark) * gain, rtol=1e-4, atol=1e-3)
        assert n_tiles == len(expected)


@pytest.mark.parametrize("path", [fast_path, documented_path])
class TestPixels:
    """The fast way from files to tiles and the documented one, against plain NumPy."""

    @settings(deadline=None, max_examples=150)
    @given(case=cases())
    def test_tiles_are_what_numpy_cuts_and_converts(
        self, store: Store, path: Any, case: dict[str, Any]
    ) -> None:
        assume(case["images"].dtype.kind != "c" or case["dest"].kind == "c")
        compare(store(case["images"], **case["files"]), case, path)

    @settings(deadline=None, max_examples=30)
    @given(case=cases(), dest=st.sampled_from(["f4", "f8", "c8"]))
    def test_corrections_are_applied(self, store: Store, path: Any, case: dict[str, Any], dest: str) -> None:
        sig = case["images"].shape[1:]
        rng = np.random.default_rng(3)
        case["dest"] = np.dtype(dest)
        # Values that float32 can hold with some digits to spare.
        case["images"] = rng.integers(0, 100, case["images"].shape).astype("u1")
        corrections = CorrectionSet(dark=rng.normal(size=sig), gain=rng.normal(size=sig))
        compare(store(case["images"], **case["files"]), case, path, corrections)

    @pytest.mark.parametrize("backend", BACKENDS, ids=str)
    @pytest.mark.parametrize("depth", [1, 3, 7])
    def test_frames_larger_than_buffers_with_large_gaps_between_them(
        self, store: Store, path: Any, backend: IOBackend, depth: int
    ) -> None:
        images = random_images(1, ">u2", (21, 70, 90))
        stored = store(images, borders=(5, 6, 15), file_header=13, frame_header=40_001, sync_offset=2)
        roi = np.zeros(21, dtype=bool)
        roi[[0, 1, 3, 4, 9, 10, 11, 18]] = True
        for mask in (None, roi):
            case = {
                "dest": np.dtype("f4"),
                "roi": mask,
                "tileshape": (depth, 32, 90),
                "partitions": 2,
                "backend": backend,
            }
            compare(stored, case, path)


def test_complex_data_is_not_read_as_real(store: Store) -> None:
    stored = store(EIGHT.astype(np.complex64))
    with pytest.raises(DataSetException, match="complex data cannot be read as real numbers"):
        list(stored.partitions()[0].get_tiles(stored.scheme(8, 4, 5), dest_dtype="f4"))


def test_tiles_of_mapped_files_are_read_only_views(store: Store) -> None:
    stored = store(EIGHT, sync_offset=2, file_header=8)
    for tile in stored.partitions()[0].get_tiles(stored.scheme(8, 3, 5), dest_dtype="u2"):
        assert not tile.data.flags.owndata
        assert not tile.data.flags.writeable


def test_files_are_only_delivered_as_numpy_arrays(store: Store) -> None:
    stored = store(EIGHT)
    partition, scheme = stored.partitions()[0], stored.scheme(8, 4, 5)
    for backend in (None, "numpy", "cuda"):
        (tile,) = partition.get_tiles(scheme, array_backend=backend)
        assert type(tile.data) is np.ndarray
    with pytest.raises(DataSetException, match=r"NumPy arrays: found sparse\.COO"):
        list(partition.get_tiles(scheme, array_backend="sparse.COO"))


class Refusing(BasePartition):
    def validate_tiling_scheme(self, tiling_scheme: TilingScheme) -> None:
        raise ValueError("only whole frames")


def test_a_partition_may_refuse_a_scheme(store: Store) -> None:
    stored = store(EIGHT)
    with pytest.raises(ValueError, match="only whole frames"):
        list(stored.partitions(cls=Refusing)[0].get_tiles(stored.scheme(8, 2, 5)))


class TestMacrotile:
    def test_has_the_extent_of_the_partition(self, store: Store) -> None:
        tiles = [p.get_macrotile(dest_dtype="u2") for p in store(EIGHT).partitions(2)]
        assert [place(t) for t in tiles] == [((0, 0, 0), (4, 4, 5), 0), ((4, 0, 0), (4, 4, 5), 0)]
        np.testing.assert_array_equal(tiles[1].data, EIGHT[4:])

    def test_has_only_existing_frames(self, store: Store) -> None:
        images = np.arange(16 * 2, dtype=np.uint16).reshape(16, 2)
        tile = store(images, sync_offset=-2).partitions()[0].get_macrotile()
        assert place(tile) == ((2, 0), (14, 2), 0)
        assert tile.dtype == np.float32

    def test_has_only_selected_frames(self, store: Store) -> None:
        tile = store(EIGHT).partitions(2)[1].get_macrotile(roi=ROI)
        assert place(tile)[:2] == ((2, 0, 0), (1, 4, 5))
        np.testing.assert_array_equal(tile.data[0], EIGHT[6])

    @pytest.mark.parametrize("sig", [(20,), (4, 5), (2, 2, 5)])
    def test_may_be_empty(self, store: Store, sig: tuple[int, ...]) -> None:
        partition = store(EIGHT.reshape(8, *sig), sync_offset=5).partitions(2)[1]
        assert partition.slice.origin[0] == 4
        tile = partition.get_macrotile(dest_dtype="f8")
        assert place(tile) == ((4, *(0 for _ in sig)), (0, *sig), 0)
        assert tile.dtype == np.float64

    def test_may_be_empty_at_a_compressed_origin(self, store: Store) -> None:
        roi = np.array([1, 1, 0, 1, 0, 0, 0, 0], dtype=bool)
        tile = store(EIGHT).partitions(2)[1].get_macrotile(roi=roi)
        assert place(tile)[:2] == ((3, 0, 0), (0, 4, 5))


class TestPartition:
    meta = DataSetMeta(shape=Shape((2, 4, 4, 5), sig_dims=2), raw_dtype="u1", dtype="f4")

    def make(self, start: int = 4) -> Partition:
        where = Slice((start, 0, 0), Shape((4, 4, 5), sig_dims=2))
        return Partition(meta=self.meta, partition_slice=where, io_backend=None, decoder=None)

    def test_the_navigation_axis_is_flat(self) -> None:
        with pytest.raises(ValueError, match="nav dims should be flat"):
            Partition(self.meta, Slice((0, 0, 0, 0), Shape((1, 4, 4, 5), sig_dims=2)), None, None)

    def test_knows_what_it_is_a_part_of(self) -> None:
        partition = self.make()
        assert partition.meta is self.meta
        assert partition.shape == Shape((4, 4, 5), sig_dims=2)
        assert partition.dtype == np.float32
        assert partition.get_io_backend() is None

    def test_counts_selected_frames_blanks_included(self) -> None:
        assert self.make().get_frame_count() == 4
        assert self.make(0).get_frame_count(ROI) == 2
        assert self.make().get_frame_count(sparse.COO.from_numpy(ROI)) == 1
        assert self.make(0).shape_for_roi(ROI) == Shape((2, 4, 5), sig_dims=2)

    def test_has_a_name_when_numbered(self) -> None:
        partition = self.make()
        partition.set_idx(7)
        assert partition.get_ident() == "part-7"

    def test_leaves_reading_to_subclasses(self, store: Store) -> None:
        partition = self.make()
        for call in (
            lambda: partition.get_tiles(store(EIGHT).scheme(1, 4, 5)),
            lambda: partition.set_corrections(CorrectionSet()),
            lambda: partition.set_io_backend(MMapBackend()),
            partition.get_locations,
        ):
            with pytest.raises(NotImplementedError):
                call()
        partition.set_worker_context(object())
        assert partition.get_frame_blocks(ReadOrder.for_kernels(20), None) is None

    def test_writing_is_left_to_subclasses(self) -> None:
        partition = WritablePartition(self.meta, self.make().slice, None, None)
        for call in (partition.get_write_handle, partition.delete):
            with pytest.raises(NotImplementedError):
                call()


class TestBasePartition:
    @pytest.mark.parametrize("n", [0, -2])
    def test_has_at_least_one_frame(self, store: Store, n: int) -> None:
        stored = store(EIGHT)
        with pytest.raises(ValueError, match=f"invalid number of frames: {n}"):
            BasePartition(
                stored.meta, Slice((0, 0, 0), Shape((1, 4, 5), 2)), stored.fileset, 0, n, MMapBackend()
            )

    def test_keeps_only_its_files(self, store: Store) -> None:
        stored = store(np.zeros((12, 3)), borders=(6,))
        partitions = stored.partitions(3)
        assert [[f.start_idx for f in p._fileset] for p in partitions] == [[0], [0, 6], [6]]

    def test_file_indices_refer_to_its_own_files(self, store: Store) -> None:
        stored = store(np.zeros((12, 3)), borders=(6,))
        ranges = [p._get_read_ranges(stored.scheme(4, 3))[1] for p in stored.partitions(3)]
        assert [r[0, :, 0].tolist() for r in ranges] == [[0] * 4, [0, 0, 1, 1], [0] * 4]

    @pytest.mark.parametrize("offset", [5, -5])
    def test_has_no_files_if_it_has_no_images(self, store: Store, offset: int) -> None:
        partitions = store(EIGHT, sync_offset=offset).partitions(4)
        assert [p._fileset is None for p in partitions].count(True) == 2

    def test_shows_its_images(self, store: Store) -> None:
        assert [repr(p) for p in store(EIGHT, sync_offset=-3).partitions(2)] == [
            "<BasePartition [-3:1]>",
            "<BasePartition [1:5]>",
        ]

    def test_can_be_read_anywhere(self, store: Store) -> None:
        assert store(EIGHT).partitions()[0].get_locations() is None

    def test_asks_its_backend_for_the_size_of_tiles(self, store: Store) -> None:
        stored = store(EIGHT)
        assert stored.partitions()[0].get_max_io_size() == 2**20
        backend = BufferedBackend(max_buffer_size=12345)
        (partition,) = stored.partitions(backend=backend)
        assert partition.get_max_io_size() == 12345
        assert partition.get_io_backend() is backend

    def test_is_small_when_sent_to_a_worker(self, store: Store) -> None:
        (partition,) = store(EIGHT).partitions()
        partition.set_worker_context(lambda: None)  # cannot be pickled
        assert len(pickle.dumps(partition)) < 1500
        partition = pickle.loads(pickle.dumps(partition))
        np.testing.assert_array_equal(partition.get_macrotile("u2").data, EIGHT)


class Plus100(Decoder):
    def do_clear(self) -> bool:
        return True

    def get_decode(self, native_dtype: Any, read_dtype: Any) -> Any:
        def decode(
            inp: Array,
            out: Array,
            idx: int,
            native: Any,
            rr: Array,
            origin: Array,
            shape: Array,
            ds_shape: Array,
        ) -> None:
            assert ds_shape.tolist() == [8, 4, 5]
            assert inp.nbytes == rr[2] - rr[1]
            out[idx] += inp.view(native) + 100

        return decode


class Mirrored(FileSet):
    """Image i is stored in the place of image 7 - i."""

    def get_read_ranges(self, *args: Any, **kwargs: Any) -> Any:
        slices, ranges, indices = super().get_read_ranges(*args, **kwargs)
        ranges = ranges.copy()
        ranges[..., 1:] = 320 - 40 - ranges[..., 1:] // 40 * 40 + ranges[..., 1:] % 40
        ranges[..., 2] = ranges[..., 1] + 40
        return slices, ranges, indices


class TestOverrides:
    """Whoever changes a part of the documented way is asked, also where there is a faster one."""

    @pytest.mark.parametrize("backend", BACKENDS, ids=str)
    def test_decoder(self, store: Store, backend: IOBackend) -> None:
        stored = store(EIGHT)
        (partition,) = stored.partitions(backend=backend, decoder=Plus100())
        assert partition.get_frame_blocks(ReadOrder.for_kernels(20), None) is None
        tiles = [tile.data.copy() for tile in partition.get_tiles(stored.scheme(8, 4, 5))]
        np.testing.assert_array_equal(tiles[0], EIGHT + 100.0)

    @pytest.mark.parametrize("backend", BACKENDS, ids=str)
    def test_read_ranges(self, store: Store, backend: IOBackend) -> None:
        stored = store(EIGHT)
        stored.fileset = Mirrored(list(stored.fileset))
        (partition,) = stored.partitions(backend=backend)
        (tile,) = partition.get_tiles(stored.scheme(8, 4, 5))
        np.testing.assert_array_equal(tile.data, EIGHT[::-1])

    def test_decoder_for_plain_pixels_changes_nothing(self, store: Store) -> None:
        stored = store(EIGHT)
        (partition,) = stored.partitions(decoder=DtypeConversionDecoder())
        assert partition.get_frame_blocks(ReadOrder.for_kernels(20), None) is not None


def frames_of(blocks: Iterator[FrameBlock], dtype: np.dtype[Any], sig_px: int) -> dict[int, Array]:
    """Frames by their rank, put together from blocks."""
    native = dtype.newbyteorder("=")
    frames: dict[int, Array] = {}
    missing: dict[int, int] = {}
    for block in blocks:
        rank = block.first
        for run in block.runs:
            assert (run.buffer.dtype, run.buffer.ndim) == (native, 1)
            assert run.buffer.flags.aligned
            for start in run.starts.tolist():
                pixels = run.buffer[start : start + block.n_px].copy()
                assert pixels.shape == (block.n_px,)
                frame = frames.setdefault(rank, np.zeros(sig_px, native))
                frame[block.px_start : block.px_stop] = pixels.byteswap() if block.swapped else pixels
                missing[rank] = missing.get(rank, sig_px) - block.n_px
                rank += 1
        assert rank == block.first + block.n_frames
    assert set(missing.values()) <= {0}
    return frames


class TestFrameBlocks:
    """What compiled UDFs get instead of tiles."""

    @settings(deadline=None, max_examples=80)
    @given(case=cases(), for_tiles=st.booleans())
    def test_blocks_hold_each_selected_frame_once(
        self, store: Store, case: dict[str, Any], for_tiles: bool
    ) -> None:
        images, roi = case["images"], case["roi"]
        stored = store(images, **case["files"])
        sig_px = int(np.prod(images.shape[1:]))
        order = ReadOrder.for_kernels(sig_px)
        if for_tiles:
            order = ReadOrder.for_scheme(stored.scheme(*case["tileshape"]))
        frames: dict[int, Array] = {}
        for partition in stored.partitions(case["partitions"], case["backend"]):
            frames.update(frames_of(partition.get_frame_blocks(order, roi), images.dtype, sig_px))
        offset = case["files"]["sync_offset"]
        selected = np.flatnonzero(np.ones(stored.n_positions) if roi is None else roi)
        expected = {
            rank: images[i + offset].reshape(-1)
            for rank, i in enumerate(selected)
            if 0 <= i + offset < len(images)
        }
        assert frames.keys() == expected.keys()
        for rank, pixels in expected.items():
            np.testing.assert_array_equal(frames[rank], pixels)

    @settings(deadline=None, max_examples=60)
    @given(case=cases())
    def test_the_same_tiles_can_be_cut_from_blocks(self, store: Store, case: dict[str, Any]) -> None:
        assume(case["images"].dtype.kind != "c" or case["dest"].kind == "c")
        stored = store(case["images"], **case["files"])

        def cut(partition: BasePartition, scheme: TilingScheme, dest: Any, roi: Any) -> Iterator[Any]:
            blocks = partition.get_frame_blocks(ReadOrder.for_scheme(scheme), roi)
            cutter = partition.make_tile_cutter(scheme, dest, roi)
            assert blocks is not None
            for block in blocks:
                assert cutter is not None
                yield from cutter.cut(block)

        compare(stored, case, cut)

    def test_blocks_are_not_corrected_but_tiles_cut_from_them_are(self, store: Store) -> None:
        stored = store(EIGHT)
        (partition,) = stored.partitions()
        partition.set_corrections(CorrectionSet(dark=np.full((4, 5), 3.0)))
        scheme = stored.scheme(8, 4, 5)
        blocks = partition.get_frame_blocks(ReadOrder.for_scheme(scheme), None)
        cutter = partition.make_tile_cutter(scheme, "f4", None)
        assert blocks is not None
        assert cutter is not None
        (block,) = blocks
        assert block.runs[0].buffer[block.runs[0].starts[1]] == EIGHT[1, 0, 0]
        (tile,) = cutter.cut(block)
        np.testing.assert_array_equal(tile.data, EIGHT - 3.0)

    def test_nothing_is_read_past_a_partition_with_its_own_tiles(self, store: Store) -> None:
        class Own(BasePartition):
            def get_tiles(self, *args: Any, **kwargs: Any) -> Any:
                return iter(())

        (partition,) = store(EIGHT).partitions(cls=Own)
        assert partition.get_frame_blocks(ReadOrder.for_kernels(20), None) is None

    def test_partitions_without_images_have_no_blocks(self, store: Store) -> None:
        partition = store(EIGHT, sync_offset=5).partitions(4)[3]
        blocks = partition.get_frame_blocks(ReadOrder.for_kernels(20), None)
        assert blocks is not None
        assert list(blocks) == []
