"""Data that a UDF gets beside the frames, cut like them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from libertem.udf import UDF


class UsesAux(UDF):
    def get_result_buffers(self) -> dict[str, Any]:
        self.note("declare")
        return {"sum": self.buffer(kind="nav", extra_shape=(2,), dtype="int64")}

    def note(self, hook: str) -> None:
        where = "main" if self.meta.array_backend is None else "worker"
        notes = self.params.notes.setdefault((where, hook), [])
        notes.append((self.params.plain.shape, self.params.extra.shape))

    def get_task_data(self) -> dict[str, Any]:
        self.note("task data")
        return {}

    def preprocess(self) -> None:
        self.note("preprocess")

    def postprocess(self) -> None:
        self.note("postprocess")

    def merge(self, dest: Any, src: Any) -> None:
        self.note("merge")
        np.testing.assert_array_equal(self.params.plain, src.sum[:, 0])
        dest.sum = src.sum

    def get_results(self) -> Any:
        self.note("results")
        return super().get_results()


class FrameAux(UsesAux):
    def process_frame(self, frame: Any) -> None:
        self.note("process")
        self.results.sum[:] = self.params.plain[0], self.params.extra.sum()


class TileAux(UsesAux):
    def process_tile(self, tile: Any) -> None:
        self.note("process")
        self.results.sum[:, 0] = self.params.plain
        self.results.sum[:, 1] = self.params.extra.sum(axis=(1, 2))


class PartitionAux(UsesAux):
    def process_partition(self, partition: Any) -> None:
        self.note("process")
        self.results.sum[:, 0] = self.params.plain
        self.results.sum[:, 1] = self.params.extra.sum(axis=(1, 2))


PLAIN = np.arange(10, 16).reshape((2, 3))
EXTRA = np.arange(36).reshape((2, 3, 3, 2))


def aux_params() -> dict[str, Any]:
    return {
        "plain": UDF.aux_data(PLAIN, kind="nav", dtype=PLAIN.dtype),
        "extra": UDF.aux_data(EXTRA.reshape(-1), kind="nav", extra_shape=(3, 2), dtype=EXTRA.dtype),
        "notes": {},
    }


@pytest.mark.parametrize("cls", [FrameAux, TileAux, PartitionAux])
@pytest.mark.parametrize("with_roi", [False, True])
def test_auxiliary_data_is_cut_like_the_frames(ctx: Any, ds: Any, cls: Any, with_roi: bool) -> None:
    roi = np.array([[1, 0, 1], [0, 1, 1]], dtype=bool) if with_roi else None
    result = ctx.run_udf(dataset=ds, udf=cls(**aux_params()), roi=roi)["sum"].raw_data
    selection = np.ones((2, 3), dtype=bool) if roi is None else roi
    np.testing.assert_array_equal(result[:, 0], PLAIN[selection])
    np.testing.assert_array_equal(result[:, 1], EXTRA[selection].sum(axis=(1, 2)))


@pytest.mark.parametrize("cls", [FrameAux, TileAux, PartitionAux])
@pytest.mark.parametrize("with_roi", [False, True])
def test_auxiliary_data_has_the_documented_shape_in_each_hook(
    inline: Any, ds: Any, cls: Any, with_roi: bool
) -> None:
    params = aux_params()
    roi = np.array([[1, 0, 1], [0, 1, 1]], dtype=bool) if with_roi else None
    inline.run_udf(dataset=ds, udf=cls(**params), roi=roi)
    n_part, n_ds = (2, 4) if with_roi else (3, 6)
    notes = params["notes"]

    def shapes(n: int) -> set[Any]:
        return {((n,), (n, 3, 2))}

    for hook in ("declare", "task data", "preprocess", "postprocess"):
        assert set(notes[("worker", hook)]) == shapes(n_part), hook
    assert set(notes[("main", "declare")]) == shapes(6)
    assert set(notes[("main", "results")]) == shapes(6)
    assert set(notes[("main", "preprocess")]) == shapes(n_ds)
    assert set(notes[("main", "merge")]) == shapes(n_part)
    frame = {((1,), (3, 2))}
    assert set(notes[("worker", "process")]) == (frame if cls is FrameAux else shapes(n_part))


@pytest.mark.parametrize("base", ["frame", "tile"])
def test_auxiliary_data_of_other_kinds_follows_the_signal_or_stays_whole(
    ctx: Any, make_ds: Any, base: str
) -> None:
    data = np.ones((2, 2, 200, 60), dtype=np.float32)
    weights = np.random.default_rng(1).random((200, 60))

    class Weighted(UDF):
        def get_result_buffers(self) -> dict[str, Any]:
            return {"sum": self.buffer(kind="nav", dtype="float64")}

        def get_tiling_preferences(self) -> Any:
            return {"depth": 1, "total_size": 1}

        def add(self, part: Any, axis: Any) -> None:
            assert self.params.whole.tolist() == [1.0, 2.0]
            assert self.params.one.shape[-1] == 1
            self.results.sum[:] += (part * self.params.weights).sum(axis=axis)

    class Frames(Weighted):
        def process_frame(self, frame: Any) -> None:
            self.add(frame, None)

    class Tiles(Weighted):
        def process_tile(self, tile: Any) -> None:
            self.add(tile, (1, 2))

    udf = (Frames if base == "frame" else Tiles)(
        weights=UDF.aux_data(weights, kind="sig", dtype=np.float64),
        whole=UDF.aux_data(np.array([1.0, 2.0]), kind="single", extra_shape=(2,), dtype=np.float64),
        one=UDF.aux_data(np.arange(4), kind="nav", extra_shape=(1,), dtype=np.int64),
    )
    result = ctx.run_udf(dataset=make_ds(data), udf=udf)["sum"].data
    np.testing.assert_allclose(result, weights.sum())


def test_auxiliary_data_knows_what_it_is() -> None:
    aux = UDF.aux_data(EXTRA, kind="nav", extra_shape=(3, 2), dtype=EXTRA.dtype)
    assert (aux.kind, aux.extra_shape, aux.dtype) == ("nav", (3, 2), EXTRA.dtype)
    assert aux.raw_data.shape == (6, 3, 2)


def test_auxiliary_data_has_to_be_of_the_declared_dtype() -> None:
    with pytest.raises(AssertionError, match="found int64, declared float32"):
        UDF.aux_data(PLAIN, kind="nav")


def test_auxiliary_data_has_to_consist_of_whole_pieces() -> None:
    with pytest.raises(ValueError, match=r"does not consist of pieces of \(4,\)"):
        UDF.aux_data(PLAIN, kind="nav", extra_shape=(4,), dtype=PLAIN.dtype)


def test_auxiliary_data_can_size_the_result_buffers(ctx: Any, ds: Any) -> None:
    class Sized(UDF):
        def get_result_buffers(self) -> dict[str, Any]:
            return {"c": self.buffer(kind="nav", extra_shape=(self.params.centers.shape[-2], 2), dtype="i8")}

        def get_task_data(self) -> dict[str, Any]:
            return {"n": self.params.centers.shape[-2]}

        def process_frame(self, frame: Any) -> None:
            assert self.task_data.n == 3
            self.results.c[:] = self.params.centers

    centers = UDF.aux_data(EXTRA, kind="nav", extra_shape=(3, 2), dtype=EXTRA.dtype)
    np.testing.assert_array_equal(ctx.run_udf(dataset=ds, udf=Sized(centers=centers))["c"].data, EXTRA)
