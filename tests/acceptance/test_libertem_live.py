"""libertem-live, unmodified: what comes from a detector, real in all but the light, against the data sent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from libertem.executor.inline import InlineJobExecutor
from libertem.executor.pipelined import PipelinedExecutor
from libertem.testing.writers.mib import MIBSpec, write_hdr, write_mib
from libertem.udf import UDF
from libertem.udf.masks import ApplyMasksUDF
from libertem.udf.sum import SumUDF
from libertem.udf.sumsigudf import SumSigUDF
from libertem.viz.base import Dummy2DPlot

pytest.importorskip("libertem_live", reason="libertem-live is not installed: see `make acceptance`")

from libertem_live.api import Hooks, LiveContext
from libertem_live.detectors.merlin.sim import CameraSim
from libertem_live.udf.monitor import PartitionMonitorUDF, SignalMonitorUDF
from libertem_live.udf.record import RecordUDF

NAV = (12, 16)
SIG = (64, 64)

Frames = npt.NDArray[np.uint16]


def make_context(kind: str) -> Any:
    if kind == "inline":
        executor: Any = InlineJobExecutor(debug=False, inline_threads=2)
    elif kind == "pipelined":
        spec = PipelinedExecutor.make_spec(cpus=range(2), cudas=[])
        executor = PipelinedExecutor(spec=spec, pin_workers=False)
    else:
        executor = None
    return LiveContext(executor=executor, plot_class=Dummy2DPlot)


@pytest.fixture(scope="module", params=["inline", "pipelined", "default"])
def ctx(request: pytest.FixtureRequest) -> Iterator[Any]:
    with make_context(request.param) as made:
        yield made


@pytest.fixture(scope="module")
def frames() -> Frames:
    return np.random.default_rng(11).integers(0, 4000, (*NAV, *SIG), dtype=np.uint16)


@pytest.fixture
def acquire(ctx: Any, frames: Frames) -> Iterator[Any]:
    """Make acquisitions of `frames` in six partitions."""
    with ctx.make_connection("memory").open(data=frames, extra_kwargs={"num_partitions": 6}) as conn:
        yield lambda **kwargs: ctx.make_acquisition(conn=conn, nav_shape=NAV, **kwargs)


# --- a detector in memory ---


def test_several_udfs_see_the_frames_that_were_sent(ctx: Any, acquire: Any, frames: Frames) -> None:
    weights = np.random.default_rng(2).random(SIG)
    udfs = [SumUDF(), SumSigUDF(), ApplyMasksUDF([lambda: weights])]
    total, per_frame, masked = ctx.run_udf(dataset=acquire(), udf=udfs)
    exact = frames.astype(np.float64)
    np.testing.assert_allclose(total["intensity"].data, exact.sum(axis=(0, 1)), rtol=1e-6)
    np.testing.assert_allclose(per_frame["intensity"].data, exact.sum(axis=(2, 3)), rtol=1e-6)
    expected = np.einsum("abyx,yx->ab", exact, weights)
    np.testing.assert_allclose(masked["intensity"].data[..., 0], expected, rtol=1e-5)


def test_a_region_of_interest_leaves_out_the_rest(ctx: Any, acquire: Any, frames: Frames) -> None:
    roi = np.zeros(NAV, dtype=bool)
    roi[3:7, 2:9] = True
    found = ctx.run_udf(dataset=acquire(), udf=SumUDF(), roi=roi)["intensity"].data
    np.testing.assert_allclose(found, frames[roi].astype(np.float64).sum(axis=0), rtol=1e-6)


def test_results_grow_in_the_order_of_the_scan(ctx: Any, acquire: Any, frames: Frames) -> None:
    n_done = []
    sums = frames.astype(np.float64).sum(axis=(2, 3)).ravel()
    for result in ctx.run_udf_iter(dataset=acquire(), udf=SumSigUDF()):
        damage = np.asarray(result.damage.data).ravel()
        n_done.append(int(damage.sum()))
        assert damage[: n_done[-1]].all()
        now = result.buffers[0]["intensity"].raw_data
        np.testing.assert_allclose(now[: n_done[-1]], sums[: n_done[-1]], rtol=1e-6)
    assert n_done == [32, 64, 96, 128, 160, 192]


def test_async_iteration_with_a_change_of_parameters(ctx: Any, acquire: Any, frames: Frames) -> None:
    async def run() -> Any:
        steps = ctx.run_udf_iter(dataset=acquire(), udf=Scaled(factor=1.0), sync=False)
        n = 0
        async for result in steps:
            last = result.buffers[0]["sums"]
            n += 1
            if n == 1:
                await steps.update_parameters_experimental([{"factor": 10.0}])
        return n, last.raw_data

    n, found = asyncio.run(run())
    sums = frames.astype(np.float64).sum(axis=(2, 3)).ravel()
    assert n == 6
    factors = found / sums
    # Some tasks were under way already.
    np.testing.assert_allclose(factors[:32], 1, rtol=1e-6)
    np.testing.assert_allclose(factors[-32:], 10, rtol=1e-6)
    assert len(np.unique(np.round(factors, 3))) == 2


class Scaled(UDF):
    def get_result_buffers(self) -> Any:
        return {"sums": self.buffer(kind="nav", dtype="float64")}

    def process_frame(self, frame: Any) -> None:
        self.results.sums[:] = self.params.factor * frame.sum(dtype="float64")


def test_a_recording_is_what_was_sent(ctx: Any, acquire: Any, frames: Frames, tmp_path: Path) -> None:
    ctx.run_udf(dataset=acquire(), udf=RecordUDF(str(tmp_path / "scan.npy")))
    recorded = np.load(tmp_path / "scan.npy")
    assert recorded.dtype == frames.dtype
    np.testing.assert_array_equal(recorded, frames)


def test_monitors_show_what_came_last(ctx: Any, acquire: Any, frames: Frames) -> None:
    last, part = ctx.run_udf(dataset=acquire(), udf=[SignalMonitorUDF(), PartitionMonitorUDF()], plots=True)
    np.testing.assert_array_equal(last["intensity"].data, frames[-1, -1])
    in_last = frames.reshape(-1, *SIG)[-32:].astype(np.float64).sum(axis=0)
    np.testing.assert_allclose(part["intensity"].data, in_last, rtol=1e-6)


def test_the_trigger_comes_once_and_not_for_a_look_ahead(ctx: Any, acquire: Any) -> None:
    calls: list[tuple[int, ...]] = []

    class Trigger(Hooks):
        def on_ready_for_data(self, env: Any) -> None:
            calls.append(tuple(env.aq.shape.nav))

    acquisition = acquire(hooks=Trigger())
    ctx.executor.get_udf_runner().dry_run([SumUDF()], acquisition, None)
    assert calls == []
    ctx.run_udf(dataset=acquisition, udf=SumUDF())
    assert calls == [NAV]


def test_leaving_early_leaves_a_context_that_works(ctx: Any, acquire: Any, frames: Frames) -> None:
    for _ in ctx.run_udf_iter(dataset=acquire(), udf=SumUDF()):
        break
    found = ctx.run_udf(dataset=acquire(), udf=SumUDF())["intensity"].data
    np.testing.assert_allclose(found, frames.astype(np.float64).sum(axis=(0, 1)), rtol=1e-6)


def test_files_can_be_loaded_too(ctx: Any, frames: Frames, tmp_path: Path) -> None:
    np.save(tmp_path / "scan.npy", frames)
    found = ctx.run_udf(dataset=ctx.load("auto", path=str(tmp_path / "scan.npy")), udf=SumUDF())
    np.testing.assert_allclose(found["intensity"].data, frames.astype(np.float64).sum(axis=(0, 1)), rtol=1e-6)


# --- a simulated detector that sends through sockets ---


@pytest.fixture(
    scope="module", params=[("U16", 12), ("U08", 6), ("R64", 12)], ids=lambda param: str(param[0])
)
def merlin(
    request: pytest.FixtureRequest, frames: Frames, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Any, Frames]]:
    """A simulator of a Merlin detector, and the frames that it sends."""
    kind, depth = request.param
    folder = tmp_path_factory.mktemp("merlin")
    # Chips have 256 columns and rows.
    sent = np.random.default_rng(6).integers(0, 1 << depth, (4, 8, 256, 256), dtype=np.uint16)
    sent = sent.astype(np.uint8 if kind == "U08" else np.uint16)
    write_mib(folder, sent.reshape(-1, 256, 256), MIBSpec(kind, depth))
    path = write_hdr(folder / "default.hdr", 32, 8, depth=depth)
    simulator = CameraSim(
        str(path),
        (4, 8),
        host="127.0.0.1",
        data_port=0,
        control_port=0,
        trigger_port=0,
        initial_params={"IMAGEX": "256", "IMAGEY": "256", "COUNTERDEPTH": str(depth)},
    )
    simulator.start()
    simulator.wait_for_listen()
    yield simulator, sent
    simulator.maybe_raise()
    simulator.stop()


@pytest.fixture
def merlin_connection(ctx: Any, merlin: tuple[Any, Frames]) -> Iterator[Any]:
    simulator = merlin[0]
    api_host, api_port = simulator.control_t.sockname
    data_host, data_port = simulator.server_t.sockname
    builder = ctx.make_connection("merlin")
    with builder.open(api_host=api_host, api_port=api_port, data_host=data_host, data_port=data_port) as conn:
        yield conn


def test_frames_of_a_merlin_detector_are_processed_while_they_come(
    ctx: Any, merlin: tuple[Any, Frames], merlin_connection: Any
) -> None:
    sent = merlin[1].astype(np.float64)
    for _ in range(2):
        aq = ctx.make_acquisition(conn=merlin_connection, nav_shape=(4, 8), frames_per_partition=8)
        steps = list(ctx.run_udf_iter(dataset=aq, udf=[SumUDF(), SumSigUDF()]))
        assert len(steps) == 4
        total, per_frame = steps[-1].buffers
        np.testing.assert_allclose(total["intensity"].data, sent.sum(axis=(0, 1)), rtol=1e-6)
        np.testing.assert_allclose(per_frame["intensity"].data, sent.sum(axis=(2, 3)), rtol=1e-6)


def test_an_error_in_the_middle_of_a_stream_is_that_of_the_udf(
    ctx: Any, merlin: tuple[Any, Frames], merlin_connection: Any
) -> None:
    aq = ctx.make_acquisition(conn=merlin_connection, nav_shape=(4, 8), frames_per_partition=8)
    with pytest.raises(ValueError, match="no good"):
        ctx.run_udf(dataset=aq, udf=FailsLater())
    aq = ctx.make_acquisition(conn=merlin_connection, nav_shape=(4, 8), frames_per_partition=8)
    found = ctx.run_udf(dataset=aq, udf=SumUDF())["intensity"].data
    np.testing.assert_allclose(found, merlin[1].astype(np.float64).sum(axis=(0, 1)), rtol=1e-6)


class FailsLater(UDF):
    def get_result_buffers(self) -> Any:
        return {"x": self.buffer(kind="nav", dtype="float32")}

    def process_frame(self, frame: Any) -> None:
        if self.meta.coordinates[0, 0] == 2:
            raise ValueError("no good")
