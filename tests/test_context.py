"""Making contexts, loading with them, and how subclasses take part in runs."""

from __future__ import annotations

import asyncio
import gc
import inspect
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import libertem
from libertem import api
from libertem.api import Context, DataSet, ResultAsyncGenerator, ResultGenerator
from libertem.exceptions import DataSetException, ExecutorSpecException
from libertem.executor.base import JobExecutor
from libertem.executor.concurrent import ConcurrentJobExecutor
from libertem.executor.inline import InlineJobExecutor
from libertem.io.corrections import CorrectionSet
from libertem.io.dataset.base import DataSet as DataSetOfBase
from libertem.io.dataset.memory import MemoryDataSet
from libertem.io.dataset.raw import RawFileDataSet
from libertem.udf import UDF
from libertem.udf.sum import SumUDF
from libertem.udf.sumsigudf import SumSigUDF
from libertem.viz.base import Dummy2DPlot
from libertem.viz.mpl import MPLLive2DPlot

DATA = np.arange(96, dtype=np.uint16).reshape((2, 3, 4, 4))
SUMS = DATA.sum(axis=(2, 3)).tolist()


@pytest.fixture
def raw(tmp_path: Path) -> dict[str, Any]:
    """Arguments that load `DATA`."""
    DATA.tofile(tmp_path / "data.raw")
    return {"path": tmp_path / "data.raw", "dtype": "u2", "nav_shape": (2, 3), "sig_shape": (4, 4)}


@pytest.fixture
def inline() -> Context:
    return Context(executor=InlineJobExecutor())


@pytest.fixture
def ds(inline: Context, raw: dict[str, Any]) -> DataSet:
    return inline.load("raw", **raw, num_partitions=2)


# --- names ---


def test_the_module_shows_the_documented_names() -> None:
    assert DataSet is DataSetOfBase
    assert {"Context", "DataSet", "ResultGenerator", "ResultAsyncGenerator"} <= set(api.__all__)
    assert libertem.api is api
    assert isinstance(libertem.__version__, str)
    assert isinstance(libertem.revision, str)


def test_submodules_are_attributes_after_importing_the_api() -> None:
    code = (
        "from libertem import api; import libertem; "
        "libertem.udf.masks.ApplyMasksUDF, libertem.udf.sum.SumUDF, libertem.udf.stddev.StdDevUDF, "
        "libertem.udf.logsum.run_logsum, libertem.masks.circular; "
        "from libertem.udf import logsum, masks, stddev"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_other_attributes_do_not_exist() -> None:
    with pytest.raises(AttributeError, match="module 'libertem' has no attribute 'nothing'"):
        libertem.nothing  # noqa: B018  # the access is the test
    with pytest.raises(AttributeError, match=r"module 'libertem\.udf' has no attribute 'nothing'"):
        libertem.udf.nothing  # noqa: B018  # the access is the test


@pytest.mark.parametrize(
    ("method", "names"),
    [
        (Context.__init__, "executor plot_class"),
        (
            Context.make_with,
            "executor_spec cpus gpus plot_class snooze_timeout main_process_gpu",
        ),
        (Context.run_udf, "dataset udf roi corrections progress backends plots sync"),
        (Context.run_udf_iter, "dataset udf roi corrections progress backends plots sync"),
        (Context.map, "dataset f roi progress corrections backends"),
        (Context.load, "filetype args io_backend kwargs"),
    ],
)
def test_signatures_are_the_documented_ones(method: Any, names: str) -> None:
    found = [name for name in inspect.signature(method).parameters if name not in ("self", "cls")]
    assert found == names.split()


# --- construction and life cycle ---


class Closable(InlineJobExecutor):
    closed = 0

    def close(self) -> None:
        self.closed += 1


def test_a_context_has_the_executor_that_it_was_given() -> None:
    executor = InlineJobExecutor()
    assert Context(executor=executor).executor is executor
    assert Context(executor, None).executor is executor


def test_the_default_executor_has_threads() -> None:
    with Context() as ctx:
        assert isinstance(ctx.executor, ConcurrentJobExecutor)


def test_subclasses_can_choose_the_default_executor() -> None:
    class Own(Context):
        def _create_local_executor(self) -> JobExecutor:
            return Closable()

    assert isinstance(Own().executor, Closable)
    assert type(Own(executor=InlineJobExecutor()).executor) is InlineJobExecutor


def test_a_context_closes_its_executor() -> None:
    executor = Closable()
    with Context(executor=executor) as ctx:
        assert isinstance(ctx, Context)
        assert executor.closed == 0
    assert executor.closed == 1


def test_a_context_that_nobody_holds_goes_away() -> None:
    ctx = Context(executor=InlineJobExecutor())
    gone = weakref.ref(ctx)
    del ctx
    gc.collect()
    assert gone() is None


def test_a_context_that_is_still_alive_is_closed_at_exit() -> None:
    code = (
        "from libertem.api import Context\n"
        "from libertem.executor.inline import InlineJobExecutor\n"
        "class Loud(InlineJobExecutor):\n"
        "    def close(self):\n"
        "        print('closed')\n"
        "ctx = Context(executor=Loud())\n"
        "print('end')\n"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.split() == ["end", "closed"]


@pytest.mark.parametrize(
    ("spec", "cls"),
    [
        ("inline", InlineJobExecutor),
        ("synchronous", InlineJobExecutor),
        ("Inline", InlineJobExecutor),
        ("threads", ConcurrentJobExecutor),
    ],
)
def test_executors_can_be_made_by_name(spec: str, cls: type) -> None:
    with Context.make_with(spec) as ctx:
        assert type(ctx.executor) is cls


@pytest.mark.parametrize(("cpus", "expected"), [(3, 3), (np.int64(2), 2), ([0, 5], 2), (range(4), 4)])
def test_the_number_of_threads_can_be_given(cpus: Any, expected: int) -> None:
    with Context.make_with("threads", cpus=cpus) as ctx:
        assert ctx.executor.get_available_workers().concurrency() == expected


def test_subclasses_make_themselves() -> None:
    class Own(Context):
        def __init__(self, executor: Any = None, plot_class: Any = None) -> None:
            super().__init__(executor, plot_class)
            self.given = plot_class

    made = Own.make_with("inline", plot_class=dict)
    assert type(made) is Own
    assert made.given is dict


def test_unknown_executors_are_refused_with_a_list() -> None:
    with pytest.raises(ExecutorSpecException, match=r"unknown executor 'none'.*inline.*threads"):
        Context.make_with("none")


@pytest.mark.parametrize("spec", ["inline", "synchronous"])
def test_cpus_are_refused_where_they_mean_nothing(spec: str) -> None:
    message = f"Executor type {spec} does not support specifying CPU workers at this time"
    with pytest.raises(ExecutorSpecException, match=message):
        Context.make_with(spec, cpus=2)


@pytest.mark.parametrize("spec", ["inline", "synchronous", "threads"])
def test_gpus_are_refused(spec: str) -> None:
    message = f"Executor type {spec} does not support specifying GPU workers at this time"
    with pytest.raises(ExecutorSpecException, match=message):
        Context.make_with(spec, gpus=1)


def test_a_gpu_for_the_main_process_has_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"cpus": [0], "cudas": [3], "has_cupy": True}
    monkeypatch.setattr("libertem.utils.devices.detect", lambda: found)
    for accepted in (None, True, False, 3):
        Context.make_with("inline", main_process_gpu=accepted)
    with pytest.raises(ExecutorSpecException, match="GPU 4 was asked for"):
        Context.make_with("inline", main_process_gpu=4)
    with pytest.raises(ValueError, match="bool, an int or None"):
        Context.make_with("inline", main_process_gpu="yes")  # type: ignore[arg-type]  # wrong on purpose
    found["has_cupy"] = False
    with pytest.raises(ExecutorSpecException, match="no GPU with CuPy"):
        Context.make_with("inline", main_process_gpu=True)


# --- loading ---


def test_a_data_set_is_loaded_by_name_or_class(inline: Context, raw: dict[str, Any]) -> None:
    for filetype in ("raw", "RAW", RawFileDataSet):
        loaded = inline.load(filetype, **raw)
        assert type(loaded) is RawFileDataSet
        assert loaded.shape.to_tuple() == (2, 3, 4, 4)


def test_positional_arguments_reach_the_data_set(inline: Context, raw: dict[str, Any]) -> None:
    loaded = inline.load("raw", raw["path"], "u2", nav_shape=(6,), sig_shape=(16,))
    assert loaded.shape.to_tuple() == (6, 16)


def test_the_number_of_partitions_follows_the_workers(raw: dict[str, Any]) -> None:
    for n in (1, 2, 3):
        with Context.make_with("threads", cpus=n) as ctx:
            assert ctx.load("raw", **raw).get_num_partitions() == n


@pytest.mark.parametrize("io_backend", ["mmap", "buffered"])
def test_the_backend_can_be_chosen(inline: Context, raw: dict[str, Any], io_backend: str) -> None:
    loaded = inline.load("raw", **raw, io_backend=io_backend)
    assert loaded.get_io_backend().id_ == io_backend
    assert inline.run_udf(dataset=loaded, udf=SumSigUDF())["intensity"].data.tolist() == SUMS


def test_what_cannot_be_loaded_is_an_error_of_the_family(inline: Context, raw: dict[str, Any]) -> None:
    with pytest.raises(DataSetException, match="missing"):
        inline.load("raw", **{**raw, "path": raw["path"].with_name("missing.raw")})
    with pytest.raises(DataSetException, match="unknown filetype: nothing"):
        inline.load("nothing", **raw)


def test_loading_lists_the_types_in_its_documentation() -> None:
    assert Context.load.__doc__ is not None
    assert "hdf5, raw" in Context.load.__doc__


def test_data_in_memory_can_be_loaded_or_used_directly(inline: Context) -> None:
    loaded = inline.load("memory", data=DATA)
    direct = MemoryDataSet(data=DATA, num_partitions=2, sig_dims=2)
    for dataset in (loaded, direct):
        assert inline.run_udf(dataset=dataset, udf=SumSigUDF())["intensity"].data.tolist() == SUMS


# --- running ---


def test_one_udf_gives_a_dict_and_several_a_tuple(inline: Context, ds: DataSet) -> None:
    assert list(inline.run_udf(ds, SumSigUDF())) == ["intensity"]
    result = inline.run_udf(ds, [SumSigUDF(), SumUDF()])
    assert isinstance(result, tuple)
    assert [list(r) for r in result] == [["intensity"]] * 2


def test_arguments_can_be_positional(inline: Context, ds: DataSet) -> None:
    result = inline.run_udf(ds, SumSigUDF(), (1, 2), CorrectionSet(), False, "numpy", None, True)
    assert result["intensity"].raw_data.tolist() == [1400]


def test_given_corrections_replace_those_of_the_data_set(inline: Context, raw: dict[str, Any]) -> None:
    class Dark(RawFileDataSet):
        def get_correction_data(self) -> CorrectionSet:
            return CorrectionSet(dark=np.ones((4, 4)))

    ds = inline.load(Dark, **raw)

    def first(**kwargs: Any) -> float:
        return float(inline.run_udf(dataset=ds, udf=SumSigUDF(), **kwargs)["intensity"].data[0, 0])

    assert first() == 120 - 16
    assert first(corrections=CorrectionSet()) == 120
    assert first(corrections=CorrectionSet(gain=np.full((4, 4), 2.0))) == 240


def test_the_class_of_plots_can_be_set(inline: Context) -> None:
    assert inline.plot_class is MPLLive2DPlot
    inline.plot_class = Dummy2DPlot
    assert inline.plot_class is Dummy2DPlot
    assert Context(executor=InlineJobExecutor(), plot_class=Dummy2DPlot).plot_class is Dummy2DPlot


# --- subclasses that take part in runs ---


class Proxy:
    """What another package may put in place of the results: it watches how the run ends."""

    def __init__(self, results: Any, log: list[str]) -> None:
        self._results = results
        self._log = log

    def __iter__(self) -> Proxy:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._results)
        except BaseException as err:
            self._log.append(f"ended by {type(err).__name__}")
            raise

    def close(self) -> None:
        self._log.append("closed")
        self._results.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._results, name)


class Live(Context):
    """Starts an acquisition before each run."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.log: list[str] = []
        self.calls: list[dict[str, Any]] = []

    def _run_sync(self, **kwargs: Any) -> Any:
        self.log.append("start")
        self.calls.append(kwargs)
        result = super()._run_sync(**kwargs)
        if kwargs["iterate"]:
            return Proxy(result, self.log)
        self.log.append("ended")
        return result


@pytest.fixture
def live() -> Live:
    return Live(executor=InlineJobExecutor())


ARGUMENTS = {"dataset", "udf", "roi", "corrections", "progress", "backends", "plots", "iterate"}


class Value(UDF):
    def get_result_buffers(self) -> dict[str, Any]:
        return {"v": self.buffer(kind="nav", dtype="int64")}

    def process_frame(self, frame: Any) -> None:
        self.results.v[:] = self.params.v


def test_a_run_goes_through_the_override(live: Live, ds: DataSet) -> None:
    assert live.run_udf(ds, SumSigUDF())["intensity"].data.tolist() == SUMS
    assert live.log == ["start", "ended"]
    assert set(live.calls[0]) == ARGUMENTS
    assert live.calls[0]["iterate"] is False


def test_map_goes_through_run_udf(live: Live, ds: DataSet) -> None:
    assert live.map(ds, np.sum).data.tolist() == SUMS
    assert live.log == ["start", "ended"]


def test_an_iteration_goes_through_the_override(live: Live, ds: DataSet) -> None:
    steps = live.run_udf_iter(ds, Value(v=1))
    assert type(steps) is Proxy
    assert set(live.calls[0]) == ARGUMENTS
    assert live.calls[0]["iterate"] is True
    next(steps)
    steps.update_parameters_experimental([{"v": 2}])
    (last,) = steps
    assert last.buffers[0]["v"].data.tolist() == [[1] * 3, [2] * 3]
    assert live.log == ["start", "ended by StopIteration"]


def test_without_an_override_iterations_have_the_documented_type(inline: Context, ds: DataSet) -> None:
    assert isinstance(inline.run_udf_iter(ds, SumSigUDF()), ResultGenerator)
    assert isinstance(inline.run_udf_iter(ds, SumSigUDF(), sync=False), ResultAsyncGenerator)


def test_an_awaited_run_drives_the_proxy(live: Live, ds: DataSet) -> None:
    async def main() -> Any:
        return await live.run_udf(ds, SumSigUDF(), sync=False)

    assert asyncio.run(main())["intensity"].data.tolist() == SUMS
    assert live.log == ["start", "ended by StopIteration"]
    assert set(live.calls[0]) == {*ARGUMENTS, "copy_needed"}
    assert live.calls[0]["iterate"] is live.calls[0]["copy_needed"] is True


def test_an_asynchronous_iteration_drives_the_proxy(live: Live, ds: DataSet) -> None:
    async def main() -> Any:
        steps = live.run_udf_iter(ds, Value(v=1), sync=False)
        first = (await steps.__anext__()).buffers[0]["v"]
        await steps.update_parameters_experimental([{"v": 2}])
        second = (await steps.__anext__()).buffers[0]["v"]
        await steps.aclose()
        return first.data.tolist(), second.data.tolist()

    assert asyncio.run(main()) == ([[1] * 3, [0] * 3], [[1] * 3, [2] * 3])
    assert live.log == ["start", "closed"]
    assert set(live.calls[0]) == {*ARGUMENTS, "copy_needed"}


def test_errors_of_a_run_pass_the_proxy(live: Live, ds: DataSet) -> None:
    class Bad(SumSigUDF):
        def process_tile(self, tile: Any) -> None:
            raise LookupError("bad")

    async def main() -> None:
        await live.run_udf(ds, Bad(), sync=False)

    with pytest.raises(LookupError, match="bad"):
        asyncio.run(main())
    assert live.log == ["start", "ended by LookupError"]


def test_exceptions_can_be_thrown_through_the_proxy(live: Live, ds: DataSet) -> None:
    async def main() -> None:
        steps = live.run_udf_iter(ds, SumSigUDF(), sync=False)
        await steps.__anext__()
        await steps.athrow(LookupError("thrown"))

    with pytest.raises(LookupError, match="thrown"):
        asyncio.run(main())


# --- data sets used directly ---


def test_a_loaded_data_set_keeps_its_context(raw: dict[str, Any]) -> None:
    ds = Context(executor=InlineJobExecutor()).load("raw", **raw)
    gc.collect()
    assert ds[1, 2].tolist() == DATA[1, 2].tolist()
    assert ds.sum("sig").tolist() == SUMS


def test_the_context_that_has_loaded_a_data_set_works_on_it(raw: dict[str, Any]) -> None:
    class Counting(Context):
        runs = 0

        def _run_sync(self, *args: Any, **kwargs: Any) -> Any:
            self.runs += 1
            return super()._run_sync(*args, **kwargs)

    ctx = Counting(executor=InlineJobExecutor())
    ds = ctx.load("raw", **raw)
    ds.sum()
    ds[0]
    assert ctx.runs == 2


def test_a_closed_context_works_on_nothing(inline: Context, ds: DataSet) -> None:
    inline.close()
    with pytest.raises(RuntimeError, match="Context that opened this data set has been closed"):
        ds.sum()
