"""Every UDF gives the same results on every executor, and these are what plain NumPy computes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import numpy as np
import pytest
import scipy.sparse
import sparse

from libertem.api import Context
from libertem.common.taskcomm import NoopCommHandler
from libertem.executor.adaptive import AdaptiveJobExecutor
from libertem.executor.concurrent import ConcurrentJobExecutor
from libertem.executor.dask import DaskJobExecutor, cluster_spec
from libertem.executor.delayed import DelayedJobExecutor
from libertem.executor.inline import InlineJobExecutor
from libertem.executor.integration import get_dask_integration_executor
from libertem.executor.moving import MovingRun
from libertem.executor.pipelined import PipelinedExecutor
from libertem.io.corrections import CorrectionSet
from libertem.udf import UDF
from libertem.udf.auto import AutoUDF
from libertem.udf.com import CoMUDF, RegressionOptions
from libertem.udf.crystallinity import CrystallinityUDF
from libertem.udf.FEM import FEMUDF
from libertem.udf.logsum import LogsumUDF
from libertem.udf.masks import ApplyMasksUDF
from libertem.udf.noop import NoOpUDF
from libertem.udf.raw import PickUDF
from libertem.udf.record import RecordUDF
from libertem.udf.stddev import StdDevUDF
from libertem.udf.sum import SumUDF
from libertem.udf.sumsigudf import SumSigUDF

# Workers cannot import the modules of tests.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

NAV, SIG = (6, 7), (12, 10)
N_PARTITIONS = 5
FRAMES = np.random.default_rng(11).integers(1, 4000, (*NAV, *SIG)).astype(np.uint16)
FLAT = FRAMES.reshape((-1, *SIG))
ROI = np.random.default_rng(12).random(NAV) < 0.4
NOTHING = np.zeros(NAV, dtype=bool)


# --- executors ---


class ProcessesOnly(AdaptiveJobExecutor):
    """The default executor as it is after a run has moved: everything runs in its worker processes."""

    def run_tasks(self, tasks: Any, params_handle: Any, cancel_id: Any, task_comm_handler: Any) -> Any:
        run = MovingRun(
            tasks,
            params_handle,
            task_comm_handler,
            client=self.client,
            n_threads=2,
            pool=self._pool("python"),
            only_processes=True,
        )
        assert isinstance(task_comm_handler, NoopCommHandler)
        self._moving[cancel_id], self._runs[cancel_id] = run, run.stop
        try:
            yield from run
        finally:
            del self._moving[cancel_id], self._runs[cancel_id]


@contextmanager
def make_integrated() -> Iterator[Any]:
    with dask.config.set(scheduler="threads", num_workers=2):
        yield get_dask_integration_executor()


@contextmanager
def make_delayed() -> Iterator[Any]:
    with dask.config.set(scheduler="threads", num_workers=2):
        yield DelayedJobExecutor()


def make_dask() -> Any:
    return DaskJobExecutor.make_local(spec=cluster_spec(cpus=2, cudas=[], has_cupy=False, num_service=0))


EXECUTORS: dict[str, Callable[[], Any]] = {
    "inline": InlineJobExecutor,
    "threads": partial(ConcurrentJobExecutor.make_local, 2),
    "adaptive": partial(AdaptiveJobExecutor.make_local, 2),
    "processes": partial(ProcessesOnly.make_local, 2),
    "pipelined": lambda: PipelinedExecutor(spec=PipelinedExecutor.make_spec(cpus=2, cudas=[])),
    "dask": make_dask,
    "dask-integration": make_integrated,
    "delayed": make_delayed,
}


@pytest.fixture(scope="module", params=EXECUTORS)
def ctx(request: pytest.FixtureRequest) -> Iterator[Context]:
    """A context of each kind of executor; all tests share its workers."""
    with EXECUTORS[request.param]() as executor:
        yield Context(executor=executor)


def is_delayed(ctx: Context) -> bool:
    return isinstance(ctx.executor, DelayedJobExecutor)


# --- data sets ---


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("data") / "frames.raw"
    FRAMES.tofile(file)
    return str(file)


@pytest.fixture
def ds(path: str) -> Any:
    return load(Context(executor=InlineJobExecutor()), path)


def load(ctx: Context, path: str, **kwargs: Any) -> Any:
    arguments = {"dtype": "u2", "nav_shape": NAV, "sig_shape": SIG, "num_partitions": N_PARTITIONS, **kwargs}
    return ctx.load("raw", path=path, **arguments)


# --- ready-made UDFs ---


def disc(radius: float) -> np.ndarray[Any, Any]:
    y, x = np.ogrid[: SIG[0], : SIG[1]]
    return ((y - 6) ** 2 + (x - 5) ** 2 <= radius**2).astype(np.float32)


def dense_masks() -> np.ndarray[Any, Any]:
    return np.stack([disc(2), disc(4) - disc(2), np.ones(SIG, dtype=np.float32)])


def products(frames: Any, masks: Any) -> Any:
    return np.einsum("nyx,myx->nm", frames.astype(float), masks.astype(float))


def shifted(frames: Any, y: int, x: int) -> Any:
    """Products with a disc that is moved down and right."""
    moved = np.zeros(SIG)
    moved[y:, x:] = disc(3)[: SIG[0] - y, : SIG[1] - x]
    return products(frames, moved[np.newaxis])


def com_field(frames: Any) -> Any:
    y, x = np.mgrid[: SIG[0], : SIG[1]]
    f = frames.astype(float)
    total = f.sum(axis=(1, 2))
    return np.stack([(f * y).sum(axis=(1, 2)) / total - 6, (f * x).sum(axis=(1, 2)) / total - 5], axis=-1)


def com_without_plane(frames: Any) -> Any:
    """Shifts minus the plane over the scan that fits them best."""
    field = com_field(frames)
    y, x = np.mgrid[: NAV[0], : NAV[1]]
    plane = np.stack([np.ones(y.size), y.ravel(), x.ravel()], axis=-1)
    coefficients = np.linalg.lstsq(plane, field, rcond=None)[0]
    return {"field": field - plane @ coefficients, "regression": coefficients}


def fem(frames: Any) -> Any:
    ring = disc(4).astype(bool) & ~disc(2).astype(bool)
    return frames[:, ring].astype(float).std(axis=1)


def crystallinity(frames: Any) -> Any:
    y, x = np.ogrid[: SIG[0], : SIG[1]]
    distance = (y - SIG[0] / 2) ** 2 + (x - SIG[1] / 2) ** 2
    ring = np.fft.fftshift((distance <= 16).astype(float) - (distance <= 1))[:, : SIG[1] // 2 + 1]
    outside = (y - 6) ** 2 + (x - 5) ** 2 > 4
    return (np.abs(np.fft.rfft2(frames * outside)) * ring).sum(axis=(1, 2))


def deviations(frames: Any) -> dict[str, Any]:
    f = frames.astype(float)
    return {
        "sum": f.sum(axis=0),
        "mean": f.mean(axis=0),
        "var": f.var(axis=0),
        "std": f.std(axis=0),
        "varsum": f.var(axis=0) * len(f),
        "num_frames": [len(f)],
    }


@dataclass(frozen=True)
class Case:
    """UDFs, and what they should compute."""

    make: Callable[[], Any]
    """One UDF."""
    expected: Callable[[Any], dict[str, Any]]
    """Raw results, given the frames that are selected."""


def per_frame(name: str, f: Callable[[Any], Any]) -> Callable[[Any], dict[str, Any]]:
    return lambda frames: {name: f(frames)}


READY_MADE: dict[str, Case] = {
    "sum": Case(SumUDF, lambda f: {"intensity": f.sum(axis=0, dtype=float)}),
    "sumsig": Case(SumSigUDF, per_frame("intensity", lambda f: f.sum(axis=(1, 2), dtype=float))),
    "stddev": Case(StdDevUDF, deviations),
    "logsum": Case(
        LogsumUDF,
        lambda f: {"logsum": np.log(f - f.min(axis=(1, 2), keepdims=True).astype(float) + 1).sum(axis=0)},
    ),
    "com": Case(CoMUDF, lambda f: {"raw_shifts": com_field(f), "raw_com": np.add(com_field(f), (6, 5))}),
    "masks": Case(
        lambda: ApplyMasksUDF(mask_factories=dense_masks),
        per_frame("intensity", lambda f: products(f, dense_masks())),
    ),
    "masks-sparse": Case(
        lambda: ApplyMasksUDF(mask_factories=lambda: sparse.COO(dense_masks())),
        per_frame("intensity", lambda f: products(f, dense_masks())),
    ),
    "masks-scipy": Case(
        lambda: ApplyMasksUDF(
            mask_factories=[lambda: scipy.sparse.csr_matrix(disc(2)), partial(disc, 4)], use_sparse=True
        ),
        per_frame("intensity", lambda f: products(f, np.stack([disc(2), disc(4)]))),
    ),
    "masks-shifted": Case(
        lambda: ApplyMasksUDF(mask_factories=[partial(disc, 3)], shifts=(2, 1)),
        per_frame("intensity", lambda f: shifted(f, 2, 1)),
    ),
    "fem": Case(lambda: FEMUDF(center=(6, 5), rad_in=2, rad_out=4), lambda f: {"intensity": fem(f)}),
    "crystallinity": Case(
        lambda: CrystallinityUDF(rad_in=1, rad_out=4, real_center=(6, 5), real_rad=2),
        lambda f: {"intensity": crystallinity(f)},
    ),
    "auto": Case(
        lambda: AutoUDF(f=lambda frame: frame.max(axis=0)), per_frame("result", lambda f: f.max(axis=1))
    ),
    "noop": Case(NoOpUDF, lambda f: {}),
    "pick": Case(PickUDF, lambda f: {"intensity": f}),
}


# --- UDFs as users write them ---


class PerFrame(UDF):
    """Uses parameters per frame, coordinates, task data and the hooks around a partition."""

    def get_result_buffers(self) -> dict[str, Any]:
        return {
            "weighted": self.buffer(kind="nav", dtype="float64"),
            "place": self.buffer(kind="nav", extra_shape=(2,), dtype="int64"),
            "brightest": self.buffer(kind="nav", dtype="float64", where="device"),
            "doubled": self.buffer(kind="nav", dtype="float64", use="result_only"),
            "private": self.buffer(kind="nav", dtype="float64", use="private"),
        }

    def get_task_data(self) -> dict[str, Any]:
        return {"one": np.ones(self.meta.partition_shape.sig)}

    def preprocess(self) -> None:
        self.results.weighted[:] = 0.5

    def process_frame(self, frame: Any) -> None:
        self.results.weighted[:] += (frame * self.task_data.one).sum() * self.params.weight
        self.results.place[:] = self.meta.coordinates[0]
        self.results.private[:] = frame.max()

    def postprocess(self) -> None:
        self.results.brightest[:] = self.results.private

    def get_results(self) -> dict[str, Any]:
        return {
            "weighted": self.results.weighted,
            "place": self.results.place,
            "brightest": self.results.brightest,
            "doubled": 2 * self.results.brightest,
        }


WEIGHTS = np.arange(FLAT.shape[0], dtype=np.float64) / 7


def make_per_frame() -> PerFrame:
    return PerFrame(weight=PerFrame.aux_data(WEIGHTS, kind="nav", dtype="float64"))


def expect_per_frame(selected: Any) -> dict[str, Any]:
    frames = FLAT[selected]
    brightest = frames.max(axis=(1, 2)).astype(float)
    return {
        "weighted": 0.5 + frames.sum(axis=(1, 2), dtype=float) * WEIGHTS[selected],
        "place": np.argwhere(np.ones(NAV))[selected],
        "brightest": brightest,
        "doubled": 2 * brightest,
    }


class PerTile(UDF):
    """Merges three kinds of buffers in ways of its own, at once and one after the other."""

    def get_result_buffers(self) -> dict[str, Any]:
        return {
            "brightest": self.buffer(kind="sig", dtype="float64"),
            "n_frames": self.buffer(kind="single", dtype="int64"),
            "total": self.buffer(kind="nav", dtype="float64"),
        }

    def process_tile(self, tile: Any) -> None:
        self.results.brightest[:] = np.maximum(self.results.brightest, tile.max(axis=0))
        self.results.total[:] += tile.sum(axis=(1, 2))

    def postprocess(self) -> None:
        self.results.n_frames[:] = self.meta.partition_shape[0]

    def merge(self, dest: Any, src: Any) -> None:
        dest.brightest[:] = np.maximum(dest.brightest, src.brightest)
        dest.n_frames[:] += src.n_frames
        dest.total[:] = src.total


class PerTileAtOnce(PerTile):
    """The same for executors that merge everything at once."""

    def merge_all(self, ordered_results: Any) -> dict[str, Any]:
        results = list(ordered_results.values())
        return {
            "brightest": np.stack([r.brightest for r in results]).max(axis=0),
            "n_frames": np.stack([r.n_frames for r in results]).sum(axis=0),
            "total": np.concatenate([r.total for r in results]),
        }


def expect_per_tile(frames: Any) -> dict[str, Any]:
    return {
        "brightest": frames.max(axis=0, initial=0),
        "n_frames": [len(frames)],
        "total": frames.sum(axis=(1, 2), dtype=float),
    }


class PerPartition(UDF):
    """Sees whole partitions in the dtype of the file."""

    def get_preferred_input_dtype(self) -> Any:
        return self.USE_NATIVE_DTYPE

    def get_result_buffers(self) -> dict[str, Any]:
        return {"median": self.buffer(kind="nav", dtype="float64")}

    def process_partition(self, partition: Any) -> None:
        assert partition.dtype == self.meta.input_dtype
        assert partition.shape == tuple(self.meta.partition_shape)
        self.results.median[:] = np.median(partition, axis=(1, 2))


class Scaled(UDF):
    """A parameter that may change during the run."""

    def get_result_buffers(self) -> dict[str, Any]:
        return {"value": self.buffer(kind="nav", dtype="float64")}

    def process_frame(self, frame: Any) -> None:
        self.results.value[:] = frame.sum() * self.params.factor


CUSTOM: dict[str, Case] = {
    "tile": Case(PerTile, expect_per_tile),
    "tile-at-once": Case(PerTileAtOnce, expect_per_tile),
    "partition": Case(PerPartition, per_frame("median", lambda f: np.median(f, axis=(1, 2)).astype(float))),
}
CASES = READY_MADE | CUSTOM


# --- comparing ---


def assert_results(found: Any, expected: dict[str, Any]) -> None:
    assert set(expected) <= set(found), f"found {set(found)}"
    for name, right in expected.items():
        raw = np.asarray(found[name].raw_data)
        np.testing.assert_allclose(raw, right, rtol=2e-5, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("roi", [None, ROI], ids=["all", "roi"])
def test_results_are_those_of_numpy(ctx: Context, ds: Any, name: str, roi: Any) -> None:
    case = CASES[name]
    frames = FLAT if roi is None else FRAMES[roi]
    expected = case.expected(frames)
    if name == "com" and roi is not None:
        # Of the whole scan, with nothing outside of the ROI.
        expected = {}
        shifts = ctx.run_udf(dataset=ds, udf=case.make(), roi=roi)["raw_shifts"].data
        np.testing.assert_allclose(shifts[roi], com_field(frames), atol=1e-4)
        assert np.isnan(shifts[~roi]).all()
    assert_results(ctx.run_udf(dataset=ds, udf=case.make(), roi=roi), expected)


@pytest.mark.parametrize("roi", [None, ROI], ids=["all", "roi"])
def test_parameters_per_frame_and_hooks(ctx: Context, ds: Any, roi: Any) -> None:
    selected = np.flatnonzero(np.ones(NAV) if roi is None else roi)
    result = ctx.run_udf(dataset=ds, udf=make_per_frame(), roi=roi)
    assert list(result) == ["weighted", "place", "brightest", "doubled"]
    assert_results(result, expect_per_frame(selected))


def test_a_mask_may_move_with_each_frame(ctx: Context, ds: Any) -> None:
    shifts = np.stack([np.arange(len(FLAT)) % 3, np.arange(len(FLAT)) % 2], axis=-1)
    aux = ApplyMasksUDF.aux_data(shifts, kind="nav", extra_shape=(2,), dtype="int64")
    udf = ApplyMasksUDF(mask_factories=[partial(disc, 3)], shifts=aux)
    expected = np.concatenate([shifted(FLAT[i : i + 1], *shifts[i].tolist()) for i in range(len(FLAT))])
    assert_results(ctx.run_udf(dataset=ds, udf=udf), {"intensity": expected})


@pytest.mark.parametrize("regression", [RegressionOptions.SUBTRACT_MEAN, RegressionOptions.SUBTRACT_LINEAR])
def test_centre_of_mass_with_regression(ctx: Context, ds: Any, regression: Any) -> None:
    result = ctx.run_udf(dataset=ds, udf=CoMUDF.with_params(regression=regression))
    if regression == RegressionOptions.SUBTRACT_LINEAR:
        expected = com_without_plane(FLAT)
    else:
        expected = {"field": com_field(FLAT) - com_field(FLAT).mean(axis=0)}
    field = expected["field"].reshape((*NAV, 2))
    assert_results(result, expected | {"magnitude": np.hypot(*np.moveaxis(expected["field"], -1, 0))})
    divergence = np.gradient(field[..., 0], axis=0) + np.gradient(field[..., 1], axis=1)
    np.testing.assert_allclose(result["divergence"].data, divergence, atol=1e-4)
    curl = np.gradient(field[..., 0], axis=1) - np.gradient(field[..., 1], axis=0)
    np.testing.assert_allclose(result["curl"].data, curl, atol=1e-4)


def test_all_udfs_of_a_run_share_the_data(ctx: Context, ds: Any) -> None:
    names = [name for name in CASES if name != "pick"]
    found = ctx.run_udf(dataset=ds, udf=[CASES[name].make() for name in names], roi=ROI)
    for name, result in zip(names, found, strict=True):
        if name != "com":
            assert_results(result, CASES[name].expected(FRAMES[ROI]))


def test_an_empty_roi_has_empty_results(ctx: Context, ds: Any) -> None:
    sums, tiles = ctx.run_udf(dataset=ds, udf=[SumUDF(), PerTile()], roi=NOTHING)
    assert not np.asarray(sums["intensity"].data).any()
    assert tiles["total"].raw_data.shape == (0,)


def test_corrections_reach_every_udf(ctx: Context, ds: Any) -> None:
    rng = np.random.default_rng(13)
    dark, gain = rng.integers(0, 50, SIG).astype(float), rng.random(SIG) + 0.5
    corrections = CorrectionSet(dark=dark, gain=gain)
    corrected = (FLAT - dark) * gain
    names = ["sum", "sumsig", "stddev", "masks", "tile"]
    found = ctx.run_udf(dataset=ds, udf=[CASES[name].make() for name in names], corrections=corrections)
    for name, result in zip(names, found, strict=True):
        assert_results(result, CASES[name].expected(corrected))


def test_excluded_pixels_are_replaced_by_their_neighbours(ctx: Context, path: str, ds: Any) -> None:
    excluded = sparse.COO(coords=[[4], [5]], data=1, shape=SIG)
    repaired = FLAT.astype(float)
    around = np.ones((3, 3), dtype=bool)
    around[1, 1] = False
    repaired[:, 4, 5] = repaired[:, 3:6, 4:7][:, around].mean(axis=1)
    result = ctx.run_udf(dataset=ds, udf=SumUDF(), corrections=CorrectionSet(excluded_pixels=excluded))
    assert_results(result, {"intensity": repaired.sum(axis=0)})


def test_a_file_with_all_frames_is_written(ctx: Context, ds: Any, tmp_path: Path) -> None:
    file = tmp_path / "frames.npy"
    assert ctx.run_udf(dataset=ds, udf=RecordUDF(str(file))) == {}
    written = np.load(file)
    assert written.dtype == FRAMES.dtype
    np.testing.assert_array_equal(written, FRAMES)


def test_functions_are_mapped_over_frames(ctx: Context, ds: Any) -> None:
    result = ctx.map(dataset=ds, f=np.ptp, roi=ROI)
    np.testing.assert_array_equal(result.raw_data, np.ptp(FRAMES[ROI], axis=(1, 2)))


def test_positions_without_frames_stay_empty(ctx: Context, path: str) -> None:
    shifted_ds = load(Context(executor=InlineJobExecutor()), path, sync_offset=-3)
    sums, deviation = ctx.run_udf(dataset=shifted_ds, udf=[SumSigUDF(), StdDevUDF()])
    expected = np.concatenate([np.zeros(3), FLAT[:-3].sum(axis=(1, 2), dtype=float)])
    assert_results(sums, {"intensity": expected})
    assert_results(deviation, deviations(FLAT[:-3]))


def test_data_in_memory_is_brought_to_the_workers(ctx: Context) -> None:
    ds = ctx.load("memory", data=FRAMES, sig_dims=2, num_partitions=3)
    found = ctx.run_udf(dataset=ds, udf=[SumUDF(), make_per_frame()], roi=ROI)
    assert_results(found[0], READY_MADE["sum"].expected(FRAMES[ROI]))
    assert_results(found[1], expect_per_frame(np.flatnonzero(ROI)))


# --- while it runs ---


def test_each_partition_is_seen_once(ctx: Context, ds: Any) -> None:
    if is_delayed(ctx):
        pytest.skip("nothing is computed during the run")
    seen = []
    for step in ctx.run_udf_iter(dataset=ds, udf=[SumSigUDF(), PerTile()], roi=ROI):
        valid = step.damage.raw_data
        frames = FRAMES[ROI][valid]
        np.testing.assert_allclose(step.buffers[0]["intensity"].raw_data[valid], frames.sum(axis=(1, 2)))
        assert_results(step.buffers[1], {"brightest": frames.max(axis=0), "n_frames": [len(frames)]})
        seen.append(int(valid.sum()))
    assert seen == sorted(set(seen))
    assert seen[-1] == ROI.sum()
    assert len(seen) == N_PARTITIONS


def test_parameters_change_for_tasks_that_start_later(ctx: Context, path: str) -> None:
    if is_delayed(ctx):
        pytest.skip("nothing is computed during the run")
    ds = load(Context(executor=InlineJobExecutor()), path, num_partitions=len(FLAT))
    steps = ctx.run_udf_iter(dataset=ds, udf=Scaled(factor=1.0))
    next(steps)
    steps.update_parameters_experimental([{"factor": 3.0}])
    *_, last = steps
    factors = last.buffers[0]["value"].raw_data / FLAT.sum(axis=(1, 2), dtype=float)
    assert set(factors) == {1.0, 3.0}
    # However many tasks had begun before, most of them had not.
    assert (factors == 3.0).sum() > len(FLAT) / 2


def test_a_run_may_use_what_another_one_has_found(ctx: Context, ds: Any) -> None:
    """As in an analysis of several steps; and instances can be used again."""
    udf = SumSigUDF()
    total = ctx.run_udf(dataset=ds, udf=udf)["intensity"].data
    bright = np.asarray(total) > np.median(total)
    again = ctx.run_udf(dataset=ds, udf=udf, roi=bright)["intensity"].raw_data
    np.testing.assert_allclose(again, FRAMES[bright].sum(axis=(1, 2)))
    np.testing.assert_allclose(total, FRAMES.sum(axis=(2, 3)))


def test_errors_arrive_and_the_next_run_works(ctx: Context, ds: Any) -> None:
    def fail(frame: Any) -> Any:
        # Not in the main process, where the function is tried with a frame of ones.
        if frame.min() == frame.max() == 1:
            return 0.0
        raise ValueError("the detector is upside down")

    with pytest.raises(ValueError, match="upside down"):
        np.asarray(ctx.run_udf(dataset=ds, udf=AutoUDF(f=fail))["result"].data)
    assert_results(ctx.run_udf(dataset=ds, udf=SumUDF()), READY_MADE["sum"].expected(FLAT))


def as_arrays(results: Sequence[Any]) -> list[dict[str, Any]]:
    return [{name: np.asarray(buffer.data) for name, buffer in result.items()} for result in results]


def test_results_equal_those_of_the_inline_executor(ctx: Context, ds: Any) -> None:
    """Everything about them: names, order, shapes, dtypes and values, also outside of the ROI."""
    names = [name for name in CASES if name != "pick"]

    def run(context: Context) -> list[dict[str, Any]]:
        return as_arrays(context.run_udf(dataset=ds, udf=[CASES[name].make() for name in names], roi=ROI))

    expected = run(Context(executor=InlineJobExecutor()))
    for name, found, wanted in zip(names, run(ctx), expected, strict=True):
        assert list(found) == list(wanted), name
        for key, array in wanted.items():
            assert (found[key].dtype, found[key].shape) == (array.dtype, array.shape), (name, key)
            np.testing.assert_allclose(found[key], array, rtol=1e-6, atol=1e-6, err_msg=f"{name} {key}")
