"""Which hooks of a UDF are called when, where and with what."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from libertem.exceptions import UDFException
from libertem.udf import (
    UDF,
    UDFFrameMixin,
    UDFPartitionMixin,
    UDFPostprocessMixin,
    UDFPreprocessMixin,
    UDFTileMixin,
)


class Recorder(UDF):
    """Notes every call of a hook in the list `calls`."""

    def __init__(self, calls: list[Any], **kwargs: Any) -> None:
        super().__init__(calls=calls, **kwargs)
        calls.append("init")

    def note(self, name: str) -> None:
        where = "main" if self.meta.array_backend is None else "worker"
        self.params.calls.append((where, name))

    def get_result_buffers(self) -> dict[str, Any]:
        self.note("get_result_buffers")
        return {"n": self.buffer(kind="nav", dtype="int64")}

    def get_task_data(self) -> dict[str, Any]:
        self.note("get_task_data")
        assert self.results.n.shape == (self.meta.partition_shape[0],)
        return {"seen": [0]}

    def preprocess(self) -> None:
        self.note("preprocess")

    def process_frame(self, frame: Any) -> None:
        self.note("process_frame")
        self.task_data.seen[0] += 1
        self.results.n[:] = self.task_data.seen[0]

    def postprocess(self) -> None:
        self.note("postprocess")

    def cleanup(self) -> None:
        self.note("cleanup")

    def merge(self, dest: Any, src: Any) -> None:
        self.note("merge")
        super().merge(dest=dest, src=src)

    def get_results(self) -> Any:
        self.note("get_results")
        return super().get_results()


def without_declarations(calls: list[Any]) -> list[Any]:
    return [c for c in calls if c != "init" and c[1] != "get_result_buffers"]


def test_hooks_run_in_the_documented_order(inline: Any, ds: Any) -> None:
    calls: list[Any] = []
    inline.run_udf(dataset=ds, udf=Recorder(calls))
    partition = [
        ("worker", "get_task_data"),
        ("worker", "preprocess"),
        *[("worker", "process_frame")] * 3,
        ("worker", "postprocess"),
        ("worker", "cleanup"),
        ("main", "merge"),
    ]
    assert without_declarations(calls) == [
        ("main", "preprocess"),
        *partition,
        *partition,
        ("main", "get_results"),
    ]


def test_a_task_declares_its_buffers_before_it_gets_task_data(inline: Any, ds: Any) -> None:
    calls: list[Any] = []
    inline.run_udf(dataset=ds, udf=Recorder(calls))
    on_worker = [c for c in calls if c[0] == "worker"]
    assert on_worker[:2] == [("worker", "get_result_buffers"), ("worker", "get_task_data")]
    assert on_worker.count(("worker", "get_result_buffers")) == 2
    assert calls[1] == ("main", "get_result_buffers")


def test_every_task_constructs_a_fresh_instance(ctx: Any, ds: Any) -> None:
    calls: list[Any] = []
    results = ctx.run_udf(dataset=ds, udf=Recorder(calls))
    assert calls.count("init") == 3
    # The count of frames starts again in each task.
    assert results["n"].data.tolist() == [[1, 2, 3], [1, 2, 3]]


def test_attributes_set_in_the_constructor_exist_on_workers(ctx: Any, ds: Any) -> None:
    class Limited(UDF):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self._limit = kwargs["__limit"]

        def get_result_buffers(self) -> dict[str, Any]:
            return {"limit": self.buffer(kind="nav", dtype="int64")}

        def process_frame(self, frame: Any) -> None:
            self.results.limit[:] = self._limit

    params = {"__limit": 7}
    udf = Limited(**params)
    assert udf._kwargs == {"__limit": 7}
    assert ctx.run_udf(dataset=ds, udf=udf)["limit"].data.tolist() == [[7] * 3] * 2


def test_a_constructor_has_to_accept_what_it_passes_on(inline: Any, ds: Any) -> None:
    class Strict(UDF):
        def __init__(self) -> None:
            super().__init__(hidden=1)

        def get_result_buffers(self) -> dict[str, Any]:
            return {}

        def process_frame(self, frame: Any) -> None:
            pass

    with pytest.raises(TypeError, match="hidden"):
        inline.run_udf(dataset=ds, udf=Strict())


def test_copy_makes_an_instance_with_the_same_parameters() -> None:
    udf = Recorder([], a=1)
    copied = udf.copy()
    assert type(copied) is Recorder
    assert copied is not udf
    assert copied._kwargs == udf._kwargs


def test_an_unused_instance_can_be_copied_deeply(inline: Any, ds: Any) -> None:
    udf = copy.deepcopy(Recorder([], a=[1]))
    assert udf.params.a == [1]
    assert inline.run_udf(dataset=ds, udf=udf)["n"].data[0, 0] == 1


def test_an_instance_can_run_again_and_earlier_results_stay(ctx: Any, ds: Any, make_ds: Any) -> None:
    udf = Recorder([])
    first = ctx.run_udf(dataset=ds, udf=udf)
    other = make_ds(np.zeros((4, 2, 2), dtype=np.uint8), num_partitions=1)
    second = ctx.run_udf(dataset=other, udf=udf)
    assert first["n"].data.tolist() == [[1, 2, 3], [1, 2, 3]]
    assert second["n"].data.tolist() == [1, 2, 3, 4]


def test_meta_is_readable_after_a_run(inline: Any, ds: Any) -> None:
    udf = Recorder([])
    inline.run_udf(dataset=ds, udf=udf)
    assert udf.meta.input_dtype == np.float32
    assert udf.meta.dataset_shape.to_tuple() == (2, 3, 4, 4)


def test_the_instance_of_the_user_merges_and_gets_results(ctx: Any, ds: Any) -> None:
    class Counting(Recorder):
        merged = 0

        def merge(self, dest: Any, src: Any) -> None:
            self.merged += 1
            super().merge(dest=dest, src=src)

        def get_results(self) -> Any:
            return {"n": self.results.n * self.merged}

    udf = Counting([])
    assert ctx.run_udf(dataset=ds, udf=udf)["n"].data.tolist() == [[2, 4, 6], [2, 4, 6]]


def test_task_data_is_empty_on_the_main_process(inline: Any, ds: Any) -> None:
    udf = Recorder([])
    inline.run_udf(dataset=ds, udf=udf)
    assert list(udf.task_data.keys()) == []


def test_dtype_and_backends_can_be_asked_for_before_a_run() -> None:
    class Early(UDF):
        def get_preferred_input_dtype(self) -> Any:
            return self.params.dtype

        def get_backends(self) -> Any:
            return (self.params.backend,)

    udf = Early(dtype="u1", backend="numpy")
    assert udf.get_preferred_input_dtype() == "u1"
    assert udf.get_backends() == ("numpy",)
    assert udf.xp is np


# --- which method ---


class AllMethods(UDF):
    def get_result_buffers(self) -> dict[str, Any]:
        return {"how": self.buffer(kind="nav", dtype="U9")}

    def process_tile(self, tile: Any) -> None:
        self.results.how[:] = "tile"

    def process_frame(self, frame: Any) -> None:
        self.results.how[:] = "frame"

    def process_partition(self, partition: Any) -> None:
        self.results.how[:] = "partition"


class Chosen(AllMethods):
    def get_method(self) -> Any:
        return self.params.method


@pytest.mark.parametrize("method", UDF.UDF_METHOD)
def test_get_method_selects_a_method(ctx: Any, ds: Any, method: Any) -> None:
    result = ctx.run_udf(dataset=ds, udf=Chosen(method=method))
    assert set(result["how"].data.reshape(-1)) == {method.value}


def test_tiles_are_taken_before_frames_before_partitions(inline: Any, ds: Any) -> None:
    assert AllMethods().get_method() is UDF.UDF_METHOD.TILE
    assert inline.run_udf(dataset=ds, udf=AllMethods())["how"].data[0, 0] == "tile"


def test_a_udf_needs_a_process_method(inline: Any, ds: Any) -> None:
    class Empty(UDF):
        def get_result_buffers(self) -> dict[str, Any]:
            return {}

    with pytest.raises(TypeError, match="process_tile, process_frame or process_partition"):
        inline.run_udf(dataset=ds, udf=Empty())


def test_the_declared_method_has_to_exist(inline: Any, ds: Any) -> None:
    class Wrong(UDF):
        def get_result_buffers(self) -> dict[str, Any]:
            return {}

        def process_tile(self, tile: Any) -> None:
            pass

        def get_method(self) -> Any:
            return self.UDF_METHOD.FRAME

    with pytest.raises(UDFException, match=r"UDF declared method .* but does not implement process_frame"):
        inline.run_udf(dataset=ds, udf=Wrong())


def test_get_method_has_to_return_a_member(inline: Any, ds: Any) -> None:
    with pytest.raises(UDFException, match=r"UDF.get_method\(\) returned unrecognized value"):
        inline.run_udf(dataset=ds, udf=Chosen(method="tile"))


def test_result_buffers_have_to_be_declared(inline: Any, ds: Any) -> None:
    class Undeclared(UDF):
        def process_tile(self, tile: Any) -> None:
            pass

    with pytest.raises(NotImplementedError):
        inline.run_udf(dataset=ds, udf=Undeclared())


def test_mixins_recognize_any_object_with_the_method() -> None:
    assert isinstance(AllMethods(), UDFTileMixin)
    assert isinstance(AllMethods(), UDFFrameMixin)
    assert isinstance(AllMethods(), UDFPartitionMixin)
    assert not isinstance(AllMethods(), UDFPreprocessMixin)
    assert not isinstance(AllMethods(), UDFPostprocessMixin)
    assert isinstance(Recorder([]), UDFPreprocessMixin)
    assert isinstance(Recorder([]), UDFPostprocessMixin)
    assert not isinstance(Recorder([]), UDFTileMixin)


def test_classes_made_by_multiple_inheritance_can_cooperate_in_postprocess(ctx: Any, ds: Any) -> None:
    class A(UDF):
        def postprocess(self) -> None:
            self.results.n[:] += 1

    class B(A):
        def postprocess(self) -> None:
            super().postprocess()
            self.results.n[:] *= 10

    class Frames(UDF):
        def get_result_buffers(self) -> dict[str, Any]:
            return {"n": self.buffer(kind="nav", dtype="int64")}

        def process_frame(self, frame: Any) -> None:
            self.results.n[:] = 1

    cls = type("AdHoc", (B, Frames), {})
    assert ctx.run_udf(dataset=ds, udf=cls())["n"].data.tolist() == [[20] * 3] * 2
