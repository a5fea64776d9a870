"""What the attributes of a UDF show while it processes data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from libertem.common.buffers import reshaped_view
from libertem.udf import UDF
from libertem.warnings import UseDiscouragedWarning

KINDS = {
    "nav": {"kind": "nav"},
    "nav_extra": {"kind": "nav", "extra_shape": (5, 2)},
    "nav_one": {"kind": "nav", "extra_shape": (1,)},
    "sig": {"kind": "sig"},
    "sig_extra": {"kind": "sig", "extra_shape": (2,)},
    "single": {"kind": "single"},
    "single_extra": {"kind": "single", "extra_shape": (7,)},
}


class Shapes(UDF):
    """Notes the shapes of data and of all views."""

    def get_result_buffers(self) -> dict[str, Any]:
        return {name: self.buffer(**how) for name, how in KINDS.items()}

    def note(self, hook: str, *arrays: Any) -> None:
        shapes = {name: getattr(self.results, name).shape for name in KINDS}
        self.params.shapes.setdefault(hook, []).append(shapes | {"data": tuple(a.shape for a in arrays)})

    def preprocess(self) -> None:
        self.note("preprocess" if self.meta.slice is not None else "main")

    def postprocess(self) -> None:
        self.note("postprocess")

    def cleanup(self) -> None:
        self.note("cleanup")

    def merge(self, dest: Any, src: Any) -> None:
        for name in KINDS:
            self.params.shapes.setdefault("merge", []).append(
                (getattr(dest, name).shape, getattr(src, name).shape)
            )


class FrameShapes(Shapes):
    def process_frame(self, frame: Any) -> None:
        self.note("process", frame)


class TileShapes(Shapes):
    def process_tile(self, tile: Any) -> None:
        self.note("process", tile)

    def get_tiling_preferences(self) -> Any:
        return {"depth": 2, "total_size": 1}


class PartitionShapes(Shapes):
    def process_partition(self, partition: Any) -> None:
        self.note("process", partition)


def expected(n: int, sig: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return {
        "nav": (n,),
        "nav_extra": (n, 5, 2),
        "nav_one": (n, 1),
        "sig": sig,
        "sig_extra": (*sig, 2),
        "single": (1,),
        "single_extra": (7,),
    }


@pytest.mark.parametrize("cls", [FrameShapes, TileShapes, PartitionShapes])
def test_hooks_around_the_data_see_the_whole_partition(inline: Any, ds: Any, cls: Any) -> None:
    shapes: dict[str, Any] = {}
    inline.run_udf(dataset=ds, udf=cls(shapes=shapes))
    for hook in ("preprocess", "postprocess", "cleanup"):
        assert shapes[hook] == [expected(3, (4, 4)) | {"data": ()}] * 2


def test_preprocess_on_the_main_process_sees_the_data_set(inline: Any, ds: Any) -> None:
    shapes: dict[str, Any] = {}
    inline.run_udf(dataset=ds, udf=FrameShapes(shapes=shapes))
    assert shapes["main"] == [expected(6, (4, 4)) | {"data": ()}]


def test_preprocess_on_the_main_process_sees_the_roi(inline: Any, ds: Any) -> None:
    shapes: dict[str, Any] = {}
    inline.run_udf(dataset=ds, udf=FrameShapes(shapes=shapes), roi=ds.roi[:, 1])
    assert shapes["main"] == [expected(2, (4, 4)) | {"data": ()}]
    assert shapes["preprocess"] == [expected(1, (4, 4)) | {"data": ()}] * 2


def test_views_of_a_frame_have_no_leading_axis_if_there_is_an_extra_shape(inline: Any, ds: Any) -> None:
    shapes: dict[str, Any] = {}
    inline.run_udf(dataset=ds, udf=FrameShapes(shapes=shapes))
    frame = expected(1, (4, 4)) | {"nav_extra": (5, 2), "nav_one": (1,)}
    assert shapes["process"] == [frame | {"data": ((4, 4),)}] * 6


def test_views_of_a_tile_show_its_frames_and_its_part_of_the_signal(inline: Any, make_ds: Any) -> None:
    shapes: dict[str, Any] = {}
    ds = make_ds(np.zeros((2, 3, 200, 100), dtype=np.float32))
    inline.run_udf(dataset=ds, udf=TileShapes(shapes=shapes))
    assert len(shapes["process"]) > 2 * 3
    for entry in shapes["process"]:
        ((n, *sig),) = entry["data"]
        assert n <= 3
        assert 1 <= sig[0] < 200
        assert sig[1] == 100
        assert entry == expected(n, tuple(sig)) | {"data": entry["data"]}


def test_views_of_a_partition_show_all_of_it(inline: Any, ds: Any) -> None:
    shapes: dict[str, Any] = {}
    inline.run_udf(dataset=ds, udf=PartitionShapes(shapes=shapes))
    assert shapes["process"] == [expected(3, (4, 4)) | {"data": ((3, 4, 4),)}] * 2


def test_merge_sees_the_part_of_the_task(inline: Any, ds: Any) -> None:
    shapes: dict[str, Any] = {}
    inline.run_udf(dataset=ds, udf=FrameShapes(shapes=shapes), roi=ds.roi[:, :2])
    task = [(shape, shape) for shape in expected(2, (4, 4)).values()]
    assert shapes["merge"] == task * 2


class SigSum(UDF):
    """Adds up in a signal buffer through a flat view, as third parties do."""

    def get_result_buffers(self) -> dict[str, Any]:
        return {"total": self.buffer(kind="sig", dtype="float64", extra_shape=(2,))}

    def process_tile(self, tile: Any) -> None:
        assert self.results.total.flags.c_contiguous
        flat = reshaped_view(self.results.total, (-1, 2))
        flat += tile.reshape((tile.shape[0], -1)).sum(axis=0)[:, np.newaxis]

    def merge(self, dest: Any, src: Any) -> None:
        dest.total += src.total


@pytest.mark.filterwarnings("ignore:the data set changed the tile shape")
@pytest.mark.parametrize("tileshape", [(2, 3, 4), (1, 7, 3), (3, 7, 11)])
def test_signal_views_of_tiles_are_contiguous_and_written_back(
    ctx: Any, array_ds: Any, tileshape: tuple[int, ...]
) -> None:
    class Cut(array_ds):  # type: ignore[misc]  # a fixture
        def adjust_tileshape(self, _: Any, roi: Any) -> Any:
            return tileshape

        def get_base_shape(self, roi: Any) -> Any:
            return (1, 1, 1)

        def get_min_sig_size(self) -> int:
            return 1

    data = np.random.default_rng(1).integers(0, 100, (3, 4, 7, 11)).astype(np.uint8)
    result = ctx.run_udf(dataset=Cut(data), udf=SigSum())
    np.testing.assert_array_equal(result["total"].data[..., 1], data.sum(axis=(0, 1)))


# --- data ---


class Keep(UDF):
    def get_result_buffers(self) -> dict[str, Any]:
        return {"frames": self.buffer(kind="nav", extra_shape=self.meta.dataset_shape.sig, dtype="float32")}

    def process_frame(self, frame: Any) -> None:
        assert type(frame) is np.ndarray
        assert frame.flags.c_contiguous
        assert frame.dtype == self.meta.input_dtype
        assert frame.dtype.isnative
        self.results.frames[:] = frame


@pytest.mark.parametrize("dtype", ["u2", ">u2", ">f4", "bool", "i8"])
def test_frames_are_plain_arrays_of_the_input_dtype(ctx: Any, make_ds: Any, dtype: str) -> None:
    data = np.random.default_rng(2).integers(0, 2, (2, 3, 5, 6)).astype(dtype)
    result = ctx.run_udf(dataset=make_ds(data), udf=Keep())
    np.testing.assert_array_equal(result["frames"].data, data)


def test_a_shape_can_be_an_extra_shape(inline: Any, ds: Any, data: Any) -> None:
    frames = inline.run_udf(dataset=ds, udf=Keep())["frames"]
    assert frames.extra_shape == (4, 4)
    assert type(frames.extra_shape) is tuple
    np.testing.assert_array_equal(frames.data, data)


@pytest.mark.parametrize("attribute", ["tile_slice", "scheme_idx"])
def test_attributes_that_tiles_used_to_have_point_to_meta(inline: Any, ds: Any, attribute: str) -> None:
    class Old(UDF):
        def get_result_buffers(self) -> dict[str, Any]:
            return {}

        def process_tile(self, tile: Any) -> None:
            getattr(tile, attribute)

    with pytest.raises(AttributeError, match=r"self\.meta\.slice .*self\.meta\.tiling_scheme_idx"):
        inline.run_udf(dataset=ds, udf=Old())


# --- assignment and the container ---


class Assigns(UDF):
    def get_result_buffers(self) -> dict[str, Any]:
        return {
            "whole": self.buffer(kind="nav", extra_shape=(2,), dtype="int64"),
            "added": self.buffer(kind="nav", dtype="int64"),
            "part": self.buffer(kind="nav", extra_shape=(3,), dtype="int64"),
        }

    def process_frame(self, frame: Any) -> None:
        self.results.whole = (1, 2)
        self.results.added += 3
        self.results.added += 4
        self.results.part[1:] = 5
        self.results.part[self.results.part == 0] = 6

    def merge(self, dest: Any, src: Any) -> None:
        dest.whole = src.whole
        dest.added += src.added
        dest.part[:] = src.part


def test_assignment_writes_into_the_view(ctx: Any, ds: Any) -> None:
    result = ctx.run_udf(dataset=ds, udf=Assigns())
    assert result["whole"].data.tolist() == [[[1, 2]] * 3] * 2
    assert result["added"].data.tolist() == [[7] * 3] * 2
    assert result["part"].data.tolist() == [[[6, 5, 5]] * 3] * 2


def test_unknown_and_private_names_are_attribute_errors(inline: Any, ds: Any) -> None:
    udf = Assigns()
    inline.run_udf(dataset=ds, udf=udf)
    for name in ("nothing", "_whole", "_data_"):
        with pytest.raises(AttributeError):
            getattr(udf.results, name)
    with pytest.raises(AttributeError):
        udf.results.nothing = 1


def test_the_container_is_a_kind_of_mapping(inline: Any, ds: Any) -> None:
    udf = Assigns()
    inline.run_udf(dataset=ds, udf=udf)
    results = udf.results
    assert "whole" in results
    assert "nothing" not in results
    assert list(results.keys()) == ["whole", "added", "part"]
    assert results.get("nothing") is None
    assert results.get("nothing", 3) == 3
    assert results.get("added") is results.added
    assert results.get_buffer("added").kind == "nav"
    assert dict(results.items()) == results.as_dict()
    assert list(results.values()) == list(results.as_dict().values())
    assert repr(results).startswith("<UDFData: {'whole': <BufferWrapper kind=nav")
    with pytest.warns(UseDiscouragedWarning):
        assert results["added"] is results.get_buffer("added")


def test_parameters_and_task_data_are_containers_too(ctx: Any, ds: Any) -> None:
    class Params(UDF):
        def get_result_buffers(self) -> dict[str, Any]:
            return {"n": self.buffer(kind="nav", dtype="int64")}

        def get_task_data(self) -> dict[str, Any]:
            return {"offset": self.params.get("offset", 5), "scale": np.array([2])}

        def process_frame(self, frame: Any) -> None:
            self.results.n[:] = self.task_data.offset + self.params.value * self.task_data.scale

    assert ctx.run_udf(dataset=ds, udf=Params(value=10))["n"].data[0, 0] == 25
    assert ctx.run_udf(dataset=ds, udf=Params(value=10, offset=1))["n"].data[0, 0] == 21


def test_dest_and_src_are_attribute_mappings(inline: Any, ds: Any) -> None:
    class Merging(UDF):
        def get_result_buffers(self) -> dict[str, Any]:
            return {
                "a": self.buffer(kind="sig", dtype="int64"),
                "hidden": self.buffer(kind="single", dtype="int64", use="private"),
                "late": self.buffer(kind="single", dtype="int64", use="result_only"),
            }

        def process_frame(self, frame: Any) -> None:
            assert self.results.late is None
            self.results.a += 1
            self.results.hidden[0] += 1

        def merge(self, dest: Any, src: Any) -> None:
            for mapping in (dest, src):
                assert list(mapping) == ["a", "hidden"]
                assert "a" in mapping
                assert "late" not in mapping
                with pytest.raises(AttributeError):
                    mapping.late  # noqa: B018  # the access is the test
                with pytest.warns(UseDiscouragedWarning):
                    assert mapping["a"] is mapping.a
                with pytest.warns(UseDiscouragedWarning):
                    mapping["hidden"] = mapping.hidden
                assert "'hidden': array" in repr(mapping)
            dest.a += src.a
            dest.hidden = dest.hidden + src.hidden

        def get_results(self) -> Any:
            return {"late": self.results.hidden}

    result = inline.run_udf(dataset=ds, udf=Merging())
    assert result["a"].data.tolist() == [[6] * 4] * 4
    assert result["late"].data.tolist() == [6]
    assert "hidden" not in result
