"""What is peculiar to arrays in memory; the suite of formats has the rest."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import jsonschema
import numpy as np
import numpy.typing as npt
import psutil
import pytest
import sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from libertem.api import Context
from libertem.common import Shape
from libertem.common.math import prod
from libertem.exceptions import DataSetException
from libertem.executor.inline import InlineJobExecutor
from libertem.io.corrections import CorrectionSet
from libertem.io.dataset.base import MMapBackend, Negotiator, TilingScheme
from libertem.io.dataset.base.backends.mmap import BLOCK_BYTES
from libertem.io.dataset.base.blocks import ReadOrder
from libertem.io.dataset.memory import (
    MemBackend,
    MemBackendImpl,
    MemDatasetParams,
    MemoryDataSet,
    MemoryFile,
    MemPartition,
)
from libertem.io.dataset.memory.images import preferences
from libertem.udf.base import UDF
from libertem.udf.sum import SumUDF
from libertem.udf.sumsigudf import SumSigUDF

Array = npt.NDArray[Any]

DATA = np.arange(160, dtype=np.float32).reshape(2, 4, 4, 5)
IMAGES = DATA.reshape(8, 4, 5)


def scheme_for(ds: MemoryDataSet, *tileshape: int, intent: Any = None) -> TilingScheme:
    return TilingScheme.make_for_shape(Shape(tileshape, ds.shape.sig_dims), ds.shape, intent=intent)


def tiles_of(ds: MemoryDataSet, *tileshape: int, **kwargs: Any) -> Iterator[Any]:
    for partition in ds.get_partitions():
        yield from partition.get_tiles(scheme_for(ds, *tileshape), **kwargs)


class TestShapes:
    @pytest.mark.parametrize(
        ("arguments", "shape", "sig_dims", "images", "blank"),
        [
            ({}, (2, 4, 4, 5), 2, 8, 0),
            ({"sig_dims": 1}, (2, 4, 4, 5), 1, 32, 0),
            ({"sig_dims": 3}, (2, 4, 4, 5), 3, 2, 0),
            ({"nav_shape": (2,)}, (2, 4, 4, 5), 3, 2, 0),
            ({"nav_shape": (4, 2)}, (4, 2, 4, 5), 2, 8, 0),
            ({"nav_shape": (3, 3)}, (3, 3, 4, 5), 2, 8, 1),
            ({"sig_shape": (20,)}, (2, 4, 4, 20), 1, 8, 24),
            ({"nav_shape": (8,), "sig_shape": (20,)}, (8, 20), 1, 8, 0),
        ],
    )
    def test_come_from_the_array_and_the_arguments(
        self, arguments: dict[str, Any], shape: tuple[int, ...], sig_dims: int, images: int, blank: int
    ) -> None:
        ds = MemoryDataSet(data=DATA, num_partitions=1, **arguments)
        assert (ds.shape.to_tuple(), ds.shape.sig_dims, ds.sig_dims) == (shape, sig_dims, sig_dims)
        assert ds._image_count == images
        assert ds.get_sync_offset_info()["frames_inserted_end"] == blank

    def test_have_to_agree_with_sig_dims(self) -> None:
        with pytest.raises(ValueError, match=r"Length of sig_shape \(20,\) not matching sig_dims 2\."):
            MemoryDataSet(data=DATA, sig_shape=(20,), sig_dims=2)

    def test_have_to_divide_the_array(self) -> None:
        with pytest.raises(ValueError, match="Data size is not a multiple of sig shape"):
            MemoryDataSet(data=DATA, sig_shape=(3, 3))

    @pytest.mark.parametrize("sig_dims", [0, -1, 5])
    def test_have_a_signal_axis(self, sig_dims: int) -> None:
        with pytest.raises(DataSetException, match="the array needs a signal axis"):
            MemoryDataSet(data=DATA, sig_dims=sig_dims)

    def test_have_a_navigation_axis(self) -> None:
        with pytest.raises(DataSetException, match="the array needs a navigation axis"):
            MemoryDataSet(data=np.zeros((4, 5)))

    @pytest.mark.parametrize("name", ["nav_shape", "sig_shape", "tileshape", "base_shape"])
    def test_are_positive(self, name: str) -> None:
        with pytest.raises(DataSetException, match=f"{name} has to consist of positive integers"):
            MemoryDataSet(data=DATA, **{name: (-1, 2)})

    @pytest.mark.parametrize("name", ["tileshape", "base_shape"])
    def test_of_tiles_have_one_navigation_axis(self, name: str) -> None:
        with pytest.raises(ValueError, match=rf"{name} needs 3 entries \(depth, \*sig\), found \(4, 5\)"):
            MemoryDataSet(data=DATA, **{name: (4, 5)})

    @pytest.mark.parametrize("offset", [8, -8])
    def test_show_at_least_one_image(self, offset: int) -> None:
        with pytest.raises(DataSetException, match=r"\(-8, 8\)"):
            MemoryDataSet(data=DATA, sync_offset=offset)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": None, "io_backend": MMapBackend()}, "alternative I/O backends"),
        ({"data": None, "sig_shape": (3,), "sig_dims": 2}, "created from either"),
        ({"sig_shape": (3,), "sig_dims": 2}, "not matching sig_dims"),
        ({"sig_shape": (3, 3), "tileshape": (4, 5)}, "not a multiple of sig shape"),
        ({"tileshape": (4, 5), "sync_offset": 8}, "tileshape needs 3 entries"),
    ],
)
def test_of_several_errors_the_documented_one_is_first(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, DataSetException), match=message):
        MemoryDataSet(**{"data": DATA, **arguments})


def test_parameters_keep_their_places() -> None:
    expected = [
        *("tileshape", "num_partitions", "data", "sig_dims", "check_cast", "tiledelay", "datashape"),
        *("base_shape", "force_need_decode", "io_backend", "nav_shape", "sig_shape", "sync_offset"),
        "array_backends",
    ]
    assert list(inspect.signature(MemoryDataSet).parameters) == expected


class TestData:
    def test_is_public(self) -> None:
        assert MemoryDataSet(data=DATA).data is DATA

    def test_is_the_third_argument(self) -> None:
        assert MemoryDataSet(None, 2, DATA).data is DATA

    @pytest.mark.parametrize("shape", [(2, 4, 4, 5), [2, 4, 4, 5], Shape((2, 4, 4, 5), 2)])
    def test_may_be_zeros(self, shape: Any) -> None:
        ds = MemoryDataSet(datashape=shape, num_partitions=1)
        assert (ds.shape.to_tuple(), ds.dtype) == ((2, 4, 4, 5), np.float32)
        assert not ds.data.any()

    def test_has_to_be_given(self) -> None:
        with pytest.raises(DataSetException, match=r"can be created from either data .* or datashape"):
            MemoryDataSet()

    def test_may_be_a_list(self) -> None:
        ds = MemoryDataSet(data=[[[1, 2], [3, 4]]], num_partitions=1)
        assert ds.shape.to_tuple() == (1, 2, 2)
        assert isinstance(ds.data, np.ndarray)

    @pytest.mark.parametrize("kind", ["csr_matrix", "coo_array"])
    def test_may_not_be_a_matrix_without_frames(self, kind: str) -> None:
        scipy_sparse = pytest.importorskip("scipy.sparse")
        with pytest.raises(TypeError, match=r"cannot hold frames, convert the data to sparse\.COO"):
            MemoryDataSet(data=getattr(scipy_sparse, kind)(np.eye(4)), sig_dims=1)

    def test_has_no_io_backend(self) -> None:
        with pytest.raises(
            ValueError, match="MemoryDataSet currently doesn't support alternative I/O backends"
        ) as caught:
            MemoryDataSet(data=DATA, io_backend=MMapBackend())
        assert isinstance(caught.value, DataSetException)


class TestDataSet:
    def test_needs_no_initialization(self) -> None:
        ds = MemoryDataSet(data=DATA, num_partitions=1)
        assert ds.initialize(InlineJobExecutor()) is ds
        assert ds.check_valid() is True
        assert ds.meta is not None
        assert ds.meta.dtype == ds.dtype == np.float32

    def test_has_a_backend_of_its_own(self) -> None:
        ds = MemoryDataSet(data=DATA)
        assert type(ds.get_io_backend()) is MemBackend
        assert type(ds.get_io_backend().get_impl()) is MemBackendImpl
        assert MemoryDataSet.get_supported_io_backends() == []
        assert MemBackend not in MMapBackend.registry.values()

    def test_has_a_partition_per_physical_core(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 8 if logical else 3)
        assert MemoryDataSet(data=DATA).num_partitions == 3

    @pytest.mark.parametrize(("logical", "expected"), [(4, 4), (None, 1)])
    def test_counts_cores_where_it_can(
        self, monkeypatch: pytest.MonkeyPatch, logical: int | None, expected: int
    ) -> None:
        monkeypatch.setattr(psutil, "cpu_count", lambda **kwargs: None if kwargs else logical)
        assert MemoryDataSet(data=DATA).get_num_partitions() == expected

    def test_has_no_more_partitions_than_frames_by_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(psutil, "cpu_count", lambda **_: 32)
        assert len(list(MemoryDataSet(data=DATA).get_partitions())) == 8

    @pytest.mark.parametrize(("n", "expected"), [(0, 1), (3, 3)])
    def test_takes_the_number_of_partitions_as_it_is(self, n: int, expected: int) -> None:
        ds = MemoryDataSet(data=DATA, num_partitions=n)
        assert ds.get_num_partitions() == ds.num_partitions == n
        partitions = list(ds.get_partitions())
        assert len(partitions) == expected
        assert {type(p) for p in partitions} == {MemPartition}

    def test_warns_of_too_many_partitions(self) -> None:
        ds = MemoryDataSet(data=DATA, num_partitions=100)
        with pytest.warns(RuntimeWarning, match="fewer frames than specified partitions"):
            assert len(list(ds.get_partitions())) == 8

    def test_recognizes_arrays(self) -> None:
        executor = InlineJobExecutor()
        detected = MemoryDataSet.detect_params(DATA, executor)
        assert isinstance(detected, dict)
        assert detected["parameters"]["data"] is DATA
        assert detected["info"] == {}
        assert MemoryDataSet.detect_params("f.bin", executor) is False

    def test_has_no_name_for_a_cache(self) -> None:
        with pytest.raises(TypeError):
            MemoryDataSet(data=DATA).get_cache_key()

    def test_shows_what_all_data_sets_show(self) -> None:
        ds = MemoryDataSet(data=DATA, num_partitions=2)
        assert repr(ds) == "<MemoryDataSet of float32 shape=(2, 4, 4, 5)>"
        assert [entry["name"] for entry in ds.diagnostics][:2] == ["Partition shape", "Number of partitions"]
        assert len(ds.diagnostics) == 6

    def test_dense_arrays_need_nothing_heavy(self) -> None:
        script = (
            "import sys, numpy as np\n"
            "from libertem.io.dataset.memory import MemoryDataSet\n"
            "ds = MemoryDataSet(data=np.zeros((8, 4, 5)), num_partitions=2, tileshape=(3, 4, 5))\n"
            "for p in ds.get_partitions(): list(p.get_tiles())\n"
            "heavy = {'numba', 'scipy', 'sparse', 'sparseconverter', 'psutil'}\n"
            "print(*heavy & sys.modules.keys())"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout.split() == []


def rank(native: str, other: str) -> int:
    """The rule of the format sheet."""
    import sparseconverter

    def device(backend: str) -> str:
        return str(sparseconverter.get_device_class(backend))

    result = 5
    if other == native:
        result -= 2
    if (other in sparseconverter.SPARSE_BACKENDS) == (native in sparseconverter.SPARSE_BACKENDS):
        result -= 2
    if device(other) == device(native):
        result -= 1
    return result


class TestArrayBackends:
    @pytest.mark.parametrize("native", ["numpy", "sparse.COO", "sparse.GCXS", "cupy"])
    def test_follow_rank_and_cost(self, native: str) -> None:
        import sparseconverter

        cost = sparseconverter.conversion_cost
        expected = sorted(
            sparseconverter.BACKENDS, key=lambda other: (rank(native, other), cost(native, other))
        )
        assert list(preferences(native)) == expected

    @pytest.mark.parametrize(
        ("data", "first"),
        [
            (DATA, ("numpy", "numpy.matrix", "cuda", "cupy")),
            (sparse.COO.from_numpy(DATA), ("sparse.COO", "scipy.sparse.csr_matrix")),
            (sparse.GCXS.from_numpy(DATA), ("sparse.GCXS",)),
        ],
    )
    def test_start_with_that_of_the_data(self, data: Any, first: tuple[str, ...]) -> None:
        ds = MemoryDataSet(data=data, num_partitions=1)
        assert tuple(ds.array_backends[: len(first)]) == first
        assert ds.meta is not None
        assert ds.meta.array_backends == ds.array_backends
        assert len(ds.array_backends) == 16

    def test_can_be_chosen(self) -> None:
        ds = MemoryDataSet(data=DATA, array_backends=["scipy.sparse.csr_matrix"], num_partitions=1)
        assert ds.array_backends == ("scipy.sparse.csr_matrix",)
        (tile,) = tiles_of(ds, 8, 4, 5)
        assert type(tile.data).__name__ == "csr_matrix"
        assert tile.data.shape == (8, 20)
        np.testing.assert_array_equal(tile.data.toarray(), IMAGES.reshape(8, 20))

    @pytest.mark.parametrize(
        ("backend", "kind"),
        [("numpy", np.ndarray), ("sparse.COO", sparse.COO), ("sparse.GCXS", sparse.GCXS)],
    )
    @pytest.mark.parametrize("layout", ["C", "COO", "GCXS", "DOK"])
    def test_can_be_asked_for(self, layout: str, backend: str, kind: type) -> None:
        ds = MemoryDataSet(data=lay_out(IMAGES, (2, 4), layout), num_partitions=2)
        for tile in tiles_of(ds, 3, 2, 5, array_backend=backend):
            assert type(tile.data) is kind
            dense = tile.data if kind is np.ndarray else tile.data.todense()
            np.testing.assert_array_equal(dense, IMAGES[tile.tile_slice.get()])


DTYPES = ["?", "u1", "<u2", ">u2", "<i2", ">i4", "<i8", "f2", "f4", ">f4", "f8", "c8"]


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    sig = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    nav = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=2)))
    n = int(np.prod(nav))
    shown = draw(st.just(nav) | st.lists(st.integers(1, 4), min_size=1, max_size=2).map(tuple))
    positions = int(np.prod(shown))
    native = draw(st.sampled_from(DTYPES))
    dest = draw(st.sampled_from([native, "f4", "f8", "c8", ">f8"]))
    return {
        "images": np.random.default_rng(draw(st.integers(0, 9))).integers(0, 99, (n, *sig)).astype(native),
        "nav": nav,
        "nav_shape": shown,
        "dest": "c16" if native == "c8" else dest,
        "tileshape": (draw(st.integers(1, 17)), *(draw(st.integers(1, full)) for full in sig)),
        "offset": draw(st.integers(1 - n, n - 1)),
        "partitions": draw(st.integers(1, positions)),
        "layout": draw(st.sampled_from(["C", "F", "strided", "COO", "read-only"])),
        "roi": draw(
            st.none()
            | st.lists(st.booleans(), min_size=positions, max_size=positions).map(
                lambda mask: np.array(mask).reshape(shown)
            )
        ),
        "corrected": draw(st.booleans()),
        "knobs": draw(st.booleans()),
    }


def lay_out(images: Array, nav: tuple[int, ...], layout: str) -> Any:
    """The images in an array of any kind."""
    data = images.reshape(*nav, *images.shape[1:])
    if layout == "F":
        return np.asfortranarray(data)
    if layout == "strided":
        wide = np.zeros((*data.shape[:-1], 2 * data.shape[-1]), data.dtype)
        wide[..., ::2] = data
        return wide[..., ::2]
    if layout in ("COO", "GCXS", "DOK"):
        return getattr(sparse, layout).from_numpy(data.astype(data.dtype.newbyteorder("=")))
    data = data.copy()
    data.flags.writeable = layout != "read-only"
    return data


def expected_tiles(case: dict[str, Any], start: int, stop: int) -> Iterator[tuple[tuple[int, ...], Array]]:
    """Origin and stored pixels of each tile of a partition, in order."""
    images, offset, tileshape = case["images"], case["offset"], case["tileshape"]
    roi = None if case["roi"] is None else case["roi"].reshape(-1)
    shown = [i for i in range(start, stop) if (roi is None or roi[i]) and 0 <= i + offset < len(images)]
    grid = np.ndindex(*(-(-full // s) for full, s in zip(images.shape[1:], tileshape[1:], strict=True)))
    corners = [tuple(c * s for c, s in zip(cell, tileshape[1:], strict=True)) for cell in grid]
    for row in range(0, len(shown), tileshape[0]):
        block = shown[row : row + tileshape[0]]
        frames = images[np.array(block) + offset]
        first = block[0] if roi is None else int(roi[: block[0]].sum())
        for corner in corners:
            index = tuple(slice(c, c + s) for c, s in zip(corner, tileshape[1:], strict=True))
            yield (first, *corner), frames[(slice(None), *index)]


class TestTiles:
    @settings(max_examples=200)
    @given(cases())
    def test_are_gathered_sliced_converted_and_corrected_in_the_same_way_for_all_arrays(
        self, case: dict[str, Any]
    ) -> None:
        images, dest, sig = case["images"], np.dtype(case["dest"]), case["images"].shape[1:]
        data = lay_out(images, case["nav"], case["layout"])
        corrections = None
        if case["corrected"] and dest.str in ("<f4", "<f8", "<c8", "<c16"):
            corrections = CorrectionSet(dark=np.full(sig, 3.0), gain=np.full(sig, 2.0))
        ds = MemoryDataSet(
            data=data,
            sig_dims=len(sig),
            nav_shape=case["nav_shape"],
            sync_offset=case["offset"],
            num_partitions=case["partitions"],
            tileshape=case["tileshape"] if case["knobs"] else None,
        )
        for partition in ds.get_partitions():
            partition.set_corrections(corrections)
            start = partition.slice.origin[0]
            expected = list(expected_tiles(case, start, start + partition.slice.shape[0]))
            scheme = None if case["knobs"] else scheme_for(ds, *case["tileshape"])
            tiles = list(partition.get_tiles(scheme, dest, case["roi"], "numpy"))
            assert len(tiles) == len(expected)
            for tile, (origin, stored) in zip(tiles, expected, strict=True):
                pixels = stored.astype(dest)
                if corrections is not None:
                    pixels = (pixels - 3) * 2
                assert (tile.tile_slice.origin, tile.shape) == (origin, pixels.shape)
                assert (tile.dtype, tile.c_contiguous) == (dest, True)
                np.testing.assert_array_equal(tile.data, pixels)
        unchanged = data.todense() if hasattr(data, "todense") else data
        np.testing.assert_array_equal(unchanged, images.reshape(*case["nav"], *sig))

    def test_other_frames_can_be_cut_from_scattered_memory(self) -> None:
        data = np.asfortranarray(DATA)
        ds = MemoryDataSet(data=data, nav_shape=(4,), sig_shape=(40,), num_partitions=2)
        tiles = [tile.data for tile in tiles_of(ds, 3, 40)]
        np.testing.assert_array_equal(np.concatenate(tiles), DATA.reshape(4, 40))

    def test_may_come_from_a_single_scattered_frame(self) -> None:
        frame = np.asfortranarray(IMAGES[0])
        ds = MemoryDataSet(data=frame, nav_shape=(1,), sig_shape=(4, 5), num_partitions=1)
        (tile,) = tiles_of(ds, 1, 4, 5)
        np.testing.assert_array_equal(tile.data, IMAGES[:1])

    def test_are_read_only_views_where_possible(self) -> None:
        data = DATA.copy()
        ds = MemoryDataSet(data=data, num_partitions=1, sync_offset=1)
        (tile,) = tiles_of(ds, 8, 4, 5)
        assert np.shares_memory(tile.data, data)
        assert not tile.data.flags.writeable
        assert data.flags.writeable

    @pytest.mark.parametrize(("tileshape", "dest"), [((8, 4, 3), "f4"), ((8, 4, 5), "f8")])
    def test_are_copies_otherwise(self, tileshape: tuple[int, ...], dest: str) -> None:
        ds = MemoryDataSet(data=DATA, num_partitions=1)
        for tile in tiles_of(ds, *tileshape, dest_dtype=dest):
            assert not np.shares_memory(tile.data, DATA)
            assert tile.c_contiguous

    def test_show_what_was_written_to_the_array_meanwhile(self) -> None:
        for data in (DATA.copy(), np.asfortranarray(DATA)):
            ds = MemoryDataSet(data=data, num_partitions=1)
            next(tiles_of(ds, 8, 4, 5))
            data[...] = 7
            (tile,) = tiles_of(ds, 8, 4, 5)
            assert (tile.data == 7).all()

    def test_corrections_leave_the_array_alone(self) -> None:
        data = np.ones((2, 4, 4, 5), dtype=np.float32)
        corrections = CorrectionSet(dark=np.ones((4, 5)))
        with Context(executor=InlineJobExecutor()) as ctx:
            ds = ctx.load("memory", data=data, num_partitions=2)
            for _ in range(2):
                result = ctx.run_udf(dataset=ds, udf=SumUDF(), corrections=corrections)
                assert not result["intensity"].data.any()
        assert (data == 1).all()

    def test_corrected_tiles_are_as_sparse_as_others(self) -> None:
        ds = MemoryDataSet(data=sparse.COO.from_numpy(DATA), num_partitions=2)
        for partition in ds.get_partitions():
            partition.set_corrections(CorrectionSet(dark=np.ones((4, 5))))
            for tile in partition.get_tiles(scheme_for(ds, 3, 4, 5)):
                assert type(tile.data) is sparse.COO
                np.testing.assert_array_equal(tile.data.todense(), IMAGES[tile.tile_slice.get()] - 1)

    def test_complex_data_is_not_made_real(self) -> None:
        ds = MemoryDataSet(data=DATA.astype(np.complex64), num_partitions=1)
        with pytest.raises(DataSetException, match="complex data cannot be read as real numbers"):
            list(tiles_of(ds, 8, 4, 5, dest_dtype="f4"))

    def test_need_a_scheme_or_a_tileshape(self) -> None:
        (partition,) = MemoryDataSet(data=DATA, num_partitions=1).get_partitions()
        with pytest.raises(TypeError, match="needs a tiling_scheme"):
            list(partition.get_tiles())


class TestKnobs:
    def test_tileshape_replaces_the_scheme(self) -> None:
        ds = MemoryDataSet(data=DATA, num_partitions=2, tileshape=(3, 2, 5))
        assert ds.tileshape == Shape((3, 2, 5), sig_dims=2)
        for partition in ds.get_partitions():
            for scheme in (None, scheme_for(ds, 8, 4, 5)):
                shapes = [tile.shape for tile in partition.get_tiles(scheme)]
                assert shapes == [(3, 2, 5), (3, 2, 5), (1, 2, 5), (1, 2, 5)]

    def test_tileshape_keeps_the_intent(self) -> None:
        ds = MemoryDataSet(data=DATA, num_partitions=2, tileshape=(3, 4, 5))
        partition = next(ds.get_partitions())
        tiles = partition.get_tiles(scheme_for(ds, 8, 4, 5, intent="partition"))
        assert [tile.shape for tile in tiles] == [(4, 4, 5)]

    def test_tileshape_does_not_apply_to_whole_partitions(self) -> None:
        ds = MemoryDataSet(data=DATA, num_partitions=2, tileshape=(3, 2, 5), sync_offset=-1)
        first, second = ds.get_partitions()
        assert (first.get_macrotile().tile_slice.origin, first.get_macrotile().shape) == (
            (1, 0, 0),
            (3, 4, 5),
        )
        np.testing.assert_array_equal(second.get_macrotile().data, IMAGES[3:7])
        assert len(list(first.get_tiles())) == 2

    @pytest.mark.parametrize(
        ("arguments", "base", "adjusted"),
        [
            ({}, (1, 1, 5), (7, 4, 5)),
            ({"base_shape": (1, 2, 5)}, (1, 2, 5), (7, 4, 5)),
            ({"tileshape": (3, 2, 5)}, (3, 2, 5), (3, 2, 5)),
            ({"tileshape": (3, 2, 5), "base_shape": (1, 4, 5)}, (3, 2, 5), (3, 2, 5)),
        ],
    )
    def test_they_take_part_in_the_negotiation(
        self, arguments: dict[str, Any], base: tuple[int, ...], adjusted: tuple[int, ...]
    ) -> None:
        ds = MemoryDataSet(data=DATA, **arguments)
        assert ds.get_base_shape(None) == base
        assert ds.adjust_tileshape((7, 4, 5), None) == adjusted

    @pytest.mark.parametrize("name", ["tileshape", "base_shape"])
    def test_tiles_larger_than_a_frame_are_refused(self, name: str) -> None:
        ds = MemoryDataSet(data=DATA, num_partitions=1, **{name: (1, 8, 5)})
        udf = SumUDF()
        with pytest.raises(ValueError, match="larger than a frame"):
            Negotiator().get_scheme([udf], ds, "f4", Shape((8, 4, 5), 2))

    def test_tiles_larger_than_the_partition_are_refused(self) -> None:
        ds = MemoryDataSet(data=DATA, num_partitions=2, tileshape=(100, 4, 5))
        with pytest.raises(ValueError, match="does not fit into size"):
            Negotiator().get_scheme([SumUDF()], ds, "f4", Shape((4, 4, 5), 2))

    @pytest.mark.parametrize("method", ["process_frame", "process_partition"])
    @pytest.mark.filterwarnings("ignore:the data set changed the tile shape:UserWarning")
    def test_parts_of_frames_are_refused_where_whole_ones_are_needed(self, method: str) -> None:
        udf = type("Whole", (UDF,), {method: lambda self, part: None, "get_result_buffers": lambda self: {}})
        ds = MemoryDataSet(data=DATA, num_partitions=2, tileshape=(2, 2, 5))
        message = r"tileshape .* is incompatible with base shape \(1, 4, 5\)"
        with Context(executor=InlineJobExecutor()) as ctx, pytest.raises(ValueError, match=message):
            ctx.run_udf(dataset=ds, udf=udf())

    def test_forced_decoding_limits_tiles_to_a_mebibyte(self) -> None:
        data, partition = np.zeros((16, 1024, 256), dtype=np.float32), Shape((16, 1024, 256), 2)
        negotiated = Negotiator().get_scheme(
            [SumUDF()], MemoryDataSet(data=data, force_need_decode=True), "f4", partition
        )
        assert prod(negotiated.shape) * 4 == 1 << 20
        for forced in (False, True):
            ds = MemoryDataSet(data=data, tileshape=partition, force_need_decode=forced)
            if forced:
                with pytest.raises(ValueError, match="does not fit into size"):
                    Negotiator().get_scheme([SumUDF()], ds, "f4", partition)
            else:
                assert Negotiator().get_scheme([SumUDF()], ds, "f4", partition).shape == partition

    def test_decoding_can_be_forced(self) -> None:
        assert MemoryDataSet(data=DATA).need_decode("f4", None, None) is False
        assert MemoryDataSet(data=DATA, force_need_decode=True).need_decode("f4", None, None) is True

    @pytest.mark.parametrize(
        ("read_dtype", "arguments"), [("f8", {}), ("f4", {"sync_offset": -1})], ids=["dtype", "offset"]
    )
    def test_copies_count_as_decoding(self, read_dtype: str, arguments: dict[str, Any]) -> None:
        assert MemoryDataSet(data=DATA, **arguments).need_decode(read_dtype, None, None) is True

    def test_scattered_frames_count_as_decoding(self) -> None:
        assert MemoryDataSet(data=np.asfortranarray(DATA)).need_decode("f4", None, None) is True

    def test_tiles_can_be_delayed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        delays: list[float] = []
        monkeypatch.setattr(time, "sleep", delays.append)
        ds = MemoryDataSet(data=DATA, num_partitions=1, tiledelay=0.25, check_cast=False)
        assert len(list(tiles_of(ds, 4, 4, 5))) == 2
        assert delays == [0.25, 0.25]
        assert ds.check_cast is False


class TestFrameBlocks:
    """Compiled UDFs take plain arrays as they are."""

    @pytest.mark.parametrize("dtype", ["?", "u1", "i2", "u4", "i8", "f4", "f8"])
    def test_are_the_array_itself(self, dtype: str) -> None:
        data = DATA.astype(dtype)
        ds = MemoryDataSet(data=data, num_partitions=2, sync_offset=1)
        ranks = []
        for partition in ds.get_partitions():
            blocks = partition.get_frame_blocks(ReadOrder.for_kernels(20), None)
            assert blocks is not None
            for block in blocks:
                (run,) = block.runs
                assert np.shares_memory(run.buffer, data)
                assert not run.buffer.flags.writeable
                assert (block.px_start, block.px_stop, block.swapped) == (0, 20, False)
                for rank, start in enumerate(run.starts, start=block.first):
                    ranks.append(rank)
                    np.testing.assert_array_equal(
                        run.buffer[start : start + 20], data.reshape(-1, 20)[rank + 1]
                    )
        assert ranks == list(range(7))

    def test_have_a_limited_size(self) -> None:
        data = np.zeros((4096, 8, 1024), dtype=np.uint8)
        (partition,) = MemoryDataSet(data=data, num_partitions=1).get_partitions()
        for order in (
            ReadOrder.for_kernels(8192),
            ReadOrder.for_scheme(scheme_for_shape((100, 8, 1024), data)),
        ):
            blocks = partition.get_frame_blocks(order, None)
            assert blocks is not None
            sizes = [block.n_frames for block in blocks]
            assert sum(sizes) == 4096
            assert all(size % order.depth == 0 for size in sizes[:-1])
            assert max(sizes) * 8192 <= BLOCK_BYTES

    def test_hold_selected_frames(self) -> None:
        ds = MemoryDataSet(data=DATA, num_partitions=1, sync_offset=-2)
        roi = np.array([[1, 0, 1, 1], [0, 0, 0, 1]], dtype=bool)
        (partition,) = ds.get_partitions()
        (block,) = partition.get_frame_blocks(ReadOrder.for_kernels(20), roi) or ()
        assert block.first == 1
        assert block.runs[0].starts.tolist() == [0, 20, 100]

    @pytest.mark.parametrize(
        "arguments",
        [
            {"tileshape": (1, 4, 5)},
            {"base_shape": (1, 4, 5)},
            {"tiledelay": 0.0},
            {"force_need_decode": True},
            {"data": np.asfortranarray(DATA)},
            {"data": DATA.astype(">f4")},
            {"data": DATA.astype("c8")},
            {"data": sparse.COO.from_numpy(DATA)},
            {"array_backends": ["sparse.COO"]},
        ],
    )
    def test_are_not_offered_where_somebody_wants_tiles(self, arguments: dict[str, Any]) -> None:
        (partition,) = MemoryDataSet(**{"data": DATA, "num_partitions": 1, **arguments}).get_partitions()
        assert partition.get_frame_blocks(ReadOrder.for_kernels(20), None) is None
        assert partition.make_tile_cutter(scheme_for_shape((4, 4, 5), IMAGES), "f4", None) is None

    def test_are_not_offered_past_tiles_of_a_subclass(self) -> None:
        class Own(MemPartition):
            def get_tiles(self, *args: Any, **kwargs: Any) -> Any:
                return iter(())

        (partition,) = MemoryDataSet(data=DATA, num_partitions=1).get_partitions()
        partition.__class__ = Own
        assert partition.get_frame_blocks(ReadOrder.for_kernels(20), None) is None

    def test_do_not_exist_where_everything_is_blank(self) -> None:
        partitions = list(MemoryDataSet(data=DATA, num_partitions=4, sync_offset=5).get_partitions())
        blocks = partitions[3].get_frame_blocks(ReadOrder.for_kernels(20), None)
        assert blocks is not None
        assert list(blocks) == []

    @settings(max_examples=50)
    @given(cases())
    def test_can_be_cut_into_the_same_tiles(self, case: dict[str, Any]) -> None:
        images = case["images"].real.astype("u2")
        sig = images.shape[1:]
        ds = MemoryDataSet(
            data=lay_out(images, case["nav"], "C"),
            sig_dims=len(sig),
            nav_shape=case["nav_shape"],
            sync_offset=case["offset"],
            num_partitions=case["partitions"],
        )
        scheme = scheme_for(ds, *case["tileshape"])
        for partition in ds.get_partitions():
            cutter = partition.make_tile_cutter(scheme, "f4", case["roi"])
            blocks = partition.get_frame_blocks(ReadOrder.for_scheme(scheme), case["roi"])
            assert blocks is not None
            cut = []
            for block in blocks:
                assert cutter is not None
                cut += [(t.tile_slice, t.scheme_idx, t.data.copy()) for t in cutter.cut(block)]
            tiles = list(partition.get_tiles(scheme, "f4", case["roi"], "numpy"))
            assert [tile[:2] for tile in cut] == [(t.tile_slice, t.scheme_idx) for t in tiles]
            for (_, _, pixels), tile in zip(cut, tiles, strict=True):
                assert pixels.flags.c_contiguous
                np.testing.assert_array_equal(pixels, tile.data)


def scheme_for_shape(tileshape: tuple[int, ...], data: Array) -> TilingScheme:
    return TilingScheme.make_for_shape(Shape(tileshape, 2), Shape(data.shape, 2))


class TestPickling:
    @pytest.mark.parametrize("layout", ["C", "F", "COO"])
    @pytest.mark.parametrize("offset", [0, 3, -3])
    def test_a_partition_takes_only_its_part_along(self, layout: str, offset: int) -> None:
        images = np.arange(100 * 50, dtype=np.float64).reshape(100, 5, 10)
        data = lay_out(images, (10, 10), layout)
        ds = MemoryDataSet(data=data, num_partitions=10, sync_offset=offset)
        for number, partition in enumerate(ds.get_partitions()):
            raw = pickle.dumps(partition)
            assert len(raw) < 10 * 50 * 8 * (4 if layout == "COO" else 1) + 4000
            copy = pickle.loads(raw)
            tile = copy.get_macrotile("f8", array_backend="numpy")
            start = max(0, 10 * number + offset)
            np.testing.assert_array_equal(tile.data, images[start : 10 * number + 10 + offset])
            assert repr(copy) == repr(partition)

    def test_a_copy_still_offers_blocks(self) -> None:
        partition = list(MemoryDataSet(data=DATA, num_partitions=2).get_partitions())[1]
        copy = pickle.loads(pickle.dumps(partition))
        (block,) = copy.get_frame_blocks(ReadOrder.for_kernels(20), None)
        assert block.runs[0].starts.tolist() == [0, 20, 40, 60]
        assert block.runs[0].buffer.size == 80

    def test_a_partition_without_images_takes_nothing_along(self) -> None:
        data = np.zeros((8, 100, 100))
        partition = list(MemoryDataSet(data=data, num_partitions=4, sync_offset=5).get_partitions())[3]
        assert len(pickle.dumps(partition)) < 4000
        assert (
            list(pickle.loads(pickle.dumps(partition)).get_tiles(scheme_for_shape((8, 100, 100), data))) == []
        )

    def test_a_data_set_travels(self) -> None:
        ds = pickle.loads(pickle.dumps(MemoryDataSet(data=DATA, num_partitions=2)))
        np.testing.assert_array_equal(ds.data, DATA)
        assert len(list(ds.get_partitions())) == 2


def test_a_file_of_images_can_be_cropped() -> None:
    file = MemoryFile(DATA, 0, 8, (4, 5)).crop(3, 6)
    assert (file.start_idx, file.end_idx, file.num_frames) == (3, 6, 3)
    np.testing.assert_array_equal(file.take(np.array([3, 5])), IMAGES[[3, 5]])


class TestRuns:
    """The same results whatever kind of array it is, and whichever way the data takes."""

    @pytest.mark.parametrize("layout", ["C", "F", "strided", "COO", "GCXS"])
    @pytest.mark.parametrize("knobs", [{}, {"tileshape": (3, 2, 5)}, {"force_need_decode": True}])
    @pytest.mark.parametrize("offset", [0, 3, -3])
    @pytest.mark.filterwarnings("ignore:the data set changed the tile shape:UserWarning")
    def test_sums_are_those_of_numpy(self, layout: str, knobs: dict[str, Any], offset: int) -> None:
        roi = np.array([[1, 1, 0, 1], [0, 1, 1, 1]], dtype=bool)
        with Context(executor=InlineJobExecutor(debug=True)) as ctx:
            ds = ctx.load(
                "memory",
                data=lay_out(IMAGES, (2, 4), layout),
                num_partitions=3,
                sync_offset=offset,
                **knobs,
            )
            frames, total = ctx.run_udf(dataset=ds, udf=[SumSigUDF(), SumUDF()], roi=roi)
        shown = [i for i in np.flatnonzero(roi) if 0 <= i + offset < 8]
        np.testing.assert_array_equal(total["intensity"].data, IMAGES[np.array(shown) + offset].sum(axis=0))
        expected = np.full(8, np.nan)
        expected[roi.reshape(-1)] = 0
        expected[shown] = IMAGES[np.array(shown) + offset].sum(axis=(1, 2))
        np.testing.assert_array_equal(frames["intensity"].data.reshape(-1), expected)


class TestJson:
    MESSAGE = {"type": "MEMORY", "tileshape": [1, 2, 2], "num_partitions": 2}

    def test_parameters_fit_the_constructor(self) -> None:
        assert MemoryDataSet.get_msg_converter() is MemDatasetParams
        params = MemDatasetParams().to_python(
            {
                **self.MESSAGE,
                "datashape": [2, 2, 4, 4],
                "sig_dims": 2,
                "check_cast": True,
                "crop_frames": False,
                "tiledelay": 0.5,
                "nav_shape": [2, 2],
                "sig_shape": [4, 4],
                "sync_offset": 1,
                "array_backend": "numpy",
            }
        )
        ds = MemoryDataSet(**params)
        assert ds.shape.to_tuple() == (2, 2, 4, 4)
        assert ds.array_backends == ("numpy",)

    @pytest.mark.parametrize("missing", list(MESSAGE))
    def test_some_are_required(self, missing: str) -> None:
        with pytest.raises(jsonschema.ValidationError, match=missing):
            MemDatasetParams().to_python({k: v for k, v in self.MESSAGE.items() if k != missing})
