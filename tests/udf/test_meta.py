"""What a UDF can read from `self.meta`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from libertem.common.slice import Slice
from libertem.io.corrections import CorrectionSet
from libertem.io.dataset.base.scheme import TilingScheme
from libertem.udf import UDF

ROI = np.array([[1, 0, 1], [0, 1, 1]], dtype=bool)


class Watcher(UDF):
    """Passes itself to the function `look` in every hook."""

    def look(self, hook: str) -> None:
        self.params.look("main" if self.meta.array_backend is None else hook, self)

    def get_result_buffers(self) -> dict[str, Any]:
        self.look("declare")
        return {"n": self.buffer(kind="nav")}

    def get_task_data(self) -> dict[str, Any]:
        self.look("task data")
        return {}

    def preprocess(self) -> None:
        self.look("preprocess")

    def postprocess(self) -> None:
        self.look("postprocess")

    def merge(self, dest: Any, src: Any) -> None:
        self.params.look("merge", self)

    def get_results(self) -> Any:
        self.params.look("results", self)
        return {}


class FrameWatcher(Watcher):
    def process_frame(self, frame: Any) -> None:
        self.look("process")


class TileWatcher(Watcher):
    def process_tile(self, tile: Any) -> None:
        assert tuple(tile.shape) == tuple(self.meta.slice.shape)
        self.look("process")


class PartitionWatcher(Watcher):
    def process_partition(self, partition: Any) -> None:
        assert tuple(partition.shape) == tuple(self.meta.slice.shape)
        self.look("process")


def watch(ctx: Any, ds: Any, cls: Any, value: Any, **kwargs: Any) -> dict[str, list[Any]]:
    """Values of `value(udf)` in each hook."""
    seen: dict[str, list[Any]] = {}

    def look(hook: str, udf: UDF) -> None:
        seen.setdefault(hook, []).append(value(udf))

    ctx.run_udf(dataset=ds, udf=cls(look=look), **kwargs)
    return seen


def corner(s: Slice) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return s.origin, s.shape.to_tuple()


def test_slices_of_frames_follow_the_worked_example(inline: Any, ds: Any) -> None:
    def value(udf: UDF) -> Any:
        place = udf.meta.slice
        return None if place is None else (corner(place), udf.meta.coordinates.tolist())

    seen = watch(inline, ds, FrameWatcher, value, roi=ROI)
    assert seen["process"] == [
        (((0, 0, 0), (1, 4, 4)), [[0, 0]]),
        (((1, 0, 0), (1, 4, 4)), [[0, 2]]),
        (((2, 0, 0), (1, 4, 4)), [[1, 1]]),
        (((3, 0, 0), (1, 4, 4)), [[1, 2]]),
    ]
    partitions = [
        (((0, 0, 0), (2, 4, 4)), [[0, 0], [0, 2]]),
        (((2, 0, 0), (2, 4, 4)), [[1, 1], [1, 2]]),
    ]
    for hook in ("declare", "task data", "preprocess"):
        assert seen[hook] == partitions
    # The last unit that was processed.
    assert seen["postprocess"] == [seen["process"][1], seen["process"][3]]
    assert set(seen["main"]) == set(seen["merge"]) == set(seen["results"]) == {None}


@pytest.mark.parametrize("cls", [TileWatcher, PartitionWatcher])
def test_slices_of_larger_units_cover_the_partition(inline: Any, ds: Any, cls: Any) -> None:
    seen = watch(inline, ds, cls, lambda udf: udf.meta.slice and corner(udf.meta.slice), roi=ROI)
    assert seen["process"] == [((0, 0, 0), (2, 4, 4)), ((2, 0, 0), (2, 4, 4))]


def test_coordinates_are_of_int64_and_lead_to_the_frame(ctx: Any, ds: Any, data: Any) -> None:
    class Check(UDF):
        def get_result_buffers(self) -> dict[str, Any]:
            return {"ok": self.buffer(kind="nav", dtype=bool)}

        def process_tile(self, tile: Any) -> None:
            coordinates = self.meta.coordinates
            assert coordinates.dtype == np.int64
            assert coordinates.shape == (len(tile), 2)
            self.results.ok[:] = [
                np.array_equal(data[tuple(place)], frame)
                for place, frame in zip(coordinates, tile, strict=True)
            ]

    assert ctx.run_udf(dataset=ds, udf=Check(), roi=ROI)["ok"].raw_data.all()


def test_places_are_unknown_on_the_main_process(inline: Any, ds: Any) -> None:
    def value(udf: UDF) -> None:
        if udf.meta.array_backend is None:
            for name in ("coordinates", "sig_slice", "partition_shape"):
                with pytest.raises(ValueError, match="only known while"):
                    getattr(udf.meta, name)

    watch(inline, ds, FrameWatcher, value)


def test_the_partition_shape_has_the_roi_applied(inline: Any, ds: Any) -> None:
    def value(udf: UDF) -> Any:
        return None if udf.meta.slice is None else udf.meta.partition_shape

    seen = watch(inline, ds, FrameWatcher, value, roi=ROI)
    assert {shape.to_tuple() for shape in seen["process"]} == {(2, 4, 4)}
    assert {shape.nav.dims for shape in seen["process"]} == {1}
    assert seen["process"][0].sig.to_tuple() == (4, 4)


def test_facts_about_the_data_are_the_same_everywhere(inline: Any, make_ds: Any, data: Any) -> None:
    corrections = CorrectionSet(dark=np.zeros((4, 4)))

    def value(udf: UDF) -> Any:
        meta = udf.meta
        assert meta.corrections is not None
        return (
            meta.dataset_shape.to_tuple(),
            meta.dataset_dtype,
            meta.input_dtype,
            meta.device_class,
            meta.corrections.have_corrections(),
            None if meta.roi is None else meta.roi.tolist(),
        )

    ds = make_ds(data.astype(">u2"))
    seen = watch(inline, ds, FrameWatcher, value, roi=ROI, corrections=corrections)
    expected = ((2, 3, 4, 4), np.dtype(">u2"), np.dtype("f4"), "cpu", True, ROI.tolist())
    assert [v for values in seen.values() for v in values] == [expected] * sum(map(len, seen.values()))
    plain = watch(inline, ds, FrameWatcher, value)
    assert plain["process"][0] == (*expected[:4], False, None)


def test_threads_and_array_kind_are_known_on_workers_only(contexts: Any, ds: Any) -> None:
    def value(udf: UDF) -> Any:
        return udf.meta.threads_per_worker, udf.meta.array_backend

    seen = watch(contexts["threads"], ds, FrameWatcher, value)
    assert set(seen["process"]) == {(1, "numpy")}
    assert set(seen["main"]) == set(seen["merge"]) == {(None, None)}
    seen = watch(contexts["inline"], ds, FrameWatcher, value)
    assert seen["process"][0][0] >= 1


def test_tiles_know_their_place_in_the_tiling_scheme(inline: Any, make_ds: Any) -> None:
    def value(udf: UDF) -> Any:
        meta = udf.meta
        if meta.slice is None:
            assert meta.tiling_scheme is None
            assert meta.tiling_scheme_idx == 0
            return None
        assert isinstance(meta.tiling_scheme, TilingScheme)
        assert meta.sig_slice == meta.slice.sig
        return meta.tiling_scheme_idx, meta.sig_slice, meta.tiling_scheme[meta.tiling_scheme_idx]

    class Small(TileWatcher):
        def get_tiling_preferences(self) -> Any:
            return {"depth": 1, "total_size": 1}

    ds = make_ds(np.zeros((2, 3, 200, 100), dtype=np.float32))
    seen = watch(inline, ds, Small, value)
    assert len({idx for idx, _, _ in seen["process"]}) > 1
    assert all(sig_slice == of_scheme for _, sig_slice, of_scheme in seen["process"])


def test_the_valid_mask_follows_the_merges(inline: Any, ds: Any) -> None:
    def value(udf: UDF) -> Any:
        short, full = udf.meta.get_valid_nav_mask(), udf.meta.get_valid_nav_mask(full_nav=True)
        return None if short is None else (short.tolist(), full.tolist())

    seen = watch(inline, ds, FrameWatcher, value, roi=ROI)
    f, t = False, True
    assert seen["merge"] == [([f] * 4, [f] * 6), ([t, t, f, f], [t, f, t, f, f, f])]
    assert seen["results"] == [([t] * 4, [t, f, t, f, t, t])]
    assert set(seen["process"]) == {None}


def test_the_valid_mask_without_roi_covers_the_scan(inline: Any, ds: Any) -> None:
    def value(udf: UDF) -> Any:
        return udf.meta.get_valid_nav_mask().sum(), udf.meta.get_valid_nav_mask(full_nav=True).shape

    def look(hook: str, udf: UDF) -> None:
        if hook in ("merge", "results"):
            seen.append(value(udf))

    seen: list[Any] = []
    inline.run_udf(dataset=ds, udf=FrameWatcher(look=look))
    assert seen == [(0, (6,)), (3, (6,)), (6, (6,))]


# --- tiling preferences ---


class Depths(UDF):
    def get_result_buffers(self) -> dict[str, Any]:
        return {"depth": self.buffer(kind="nav", dtype="int64"), "px": self.buffer(kind="nav", dtype="int64")}

    def get_preferred_input_dtype(self) -> Any:
        return self.params.get("dtype", np.float32)

    def get_tiling_preferences(self) -> Any:
        assert self.meta.device_class == "cpu"
        assert self.meta.threads_per_worker is None
        return self.params.get("preferences", super().get_tiling_preferences())


class TileDepths(Depths):
    def process_tile(self, tile: Any) -> None:
        self.results.depth[:] = len(tile)
        self.results.px[:] += tile[0].size


class FrameDepths(Depths):
    def process_frame(self, frame: Any) -> None:
        assert self.meta.tiling_scheme is not None
        self.results.depth[:] = self.meta.tiling_scheme.depth
        self.results.px[:] += frame.size


class PartitionDepths(Depths):
    def process_partition(self, partition: Any) -> None:
        self.results.depth[:] = len(partition)
        self.results.px[:] += partition[0].size


@pytest.fixture
def large(make_ds: Any) -> Any:
    return make_ds(np.zeros((8, 8, 64, 128), dtype=np.uint16), num_partitions=1)


MIB = 1 << 20


@pytest.mark.parametrize(
    ("preferences", "dtype", "min_depth", "max_bytes"),
    [
        ({}, "f4", 32, MIB),
        ({"depth": UDF.TILE_DEPTH_DEFAULT, "total_size": UDF.TILE_SIZE_MAX}, "f4", 32, MIB),
        ({"depth": UDF.TILE_DEPTH_DEFAULT, "total_size": UDF.TILE_SIZE_BEST_FIT}, bool, 32, MIB),
        ({"depth": UDF.TILE_DEPTH_MAX, "total_size": UDF.TILE_SIZE_MAX}, bool, 64, np.inf),
        ({"depth": 4, "total_size": 2.0**16}, "f4", 2, 2**16),
        ({"depth": 4, "total_size": 2**16}, bool, 4, 2**16),
        ({"depth": 7.5, "total_size": 1e6}, "f4", 7, 1e6),
        ({"depth": 7}, bool, 7, np.inf),
    ],
)
def test_tiles_keep_the_bounds_of_the_preferences(
    inline: Any, large: Any, preferences: Any, dtype: Any, min_depth: int, max_bytes: float
) -> None:
    sizes: list[int] = []

    class Sizes(TileDepths):
        def process_tile(self, tile: Any) -> None:
            sizes.append(tile.nbytes)
            super().process_tile(tile)

    result = inline.run_udf(dataset=large, udf=Sizes(preferences=preferences, dtype=dtype))
    assert result["depth"].data.max() >= min_depth
    assert max(sizes) <= max_bytes
    np.testing.assert_array_equal(result["px"].data, 64 * 128)


def test_partition_udfs_make_all_others_see_whole_partitions(ctx: Any, make_ds: Any) -> None:
    ds = make_ds(np.zeros((8, 8, 64, 128), dtype=np.uint16), num_partitions=2)
    tile, frame, partition = ctx.run_udf(dataset=ds, udf=[TileDepths(), FrameDepths(), PartitionDepths()])
    for result in (tile, frame, partition):
        np.testing.assert_array_equal(result["px"].data, 64 * 128)
        np.testing.assert_array_equal(result["depth"].data, 32)


def test_frame_udfs_make_all_others_see_complete_frames(ctx: Any, large: Any) -> None:
    tiny = {"depth": 1, "total_size": 1}
    tile, frame = ctx.run_udf(dataset=large, udf=[TileDepths(preferences=tiny), FrameDepths()])
    for result in (tile, frame):
        np.testing.assert_array_equal(result["px"].data, 64 * 128)


def test_one_pass_serves_all_udfs(inline: Any, array_ds: Any, data: Any) -> None:
    reads = []

    class Counting(array_ds):  # type: ignore[misc]  # a fixture
        def get_partitions(self) -> Any:
            for partition in super().get_partitions():
                tiles = partition.get_tiles

                def counted(*args: Any, tiles: Any = tiles, **kwargs: Any) -> Any:
                    for tile in tiles(*args, **kwargs):
                        reads.append(tile.size)
                        yield tile

                partition.get_tiles = counted
                yield partition

    inline.run_udf(dataset=Counting(data), udf=[TileDepths(), FrameDepths(), TileDepths()])
    assert sum(reads) == data.size
