"""A local cluster of worker processes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
from distributed import Nanny

from libertem.api import Context
from libertem.common.progress import ProgressReporter
from libertem.common.scheduler import Scheduler
from libertem.exceptions import ExecutorError, ExecutorSpecException, ResourceError
from libertem.executor.dask import DaskJobExecutor, cluster_spec
from libertem.executor.dask.run import _Pace
from libertem.executor.dask.snooze import Snoozer
from libertem.executor.dask.worker import Finished
from libertem.executor.inline import InlineJobExecutor
from libertem.udf import UDF
from libertem.udf.com import CoMUDF
from libertem.udf.masks import ApplyMasksUDF
from libertem.udf.raw import PickUDF
from libertem.udf.stddev import StdDevUDF
from libertem.udf.sum import SumUDF
from libertem.udf.sumsigudf import SumSigUDF

# Workers cannot import the modules of tests.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

CPU_RESOURCES = {"CPU": 1, "compute": 1, "ndarray": 1}


@pytest.fixture(scope="module")
def executor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskJobExecutor]:
    """Two workers and a service worker, with a module of the user that is loaded when they start."""
    folder = tmp_path_factory.mktemp("preload")
    (folder / "of_user.py").write_text(
        "import os\nos.environ['OF_USER'] = os.environ.get('LIBERTEM_USE_CPU', '-')\n"
    )
    spec = cluster_spec(cpus=2, cudas=[], has_cupy=False, preload=[str(folder / "of_user.py")])
    for worker in spec.values():
        worker["options"]["env"] = {"OWN_VARIABLE": "7"}
    with DaskJobExecutor.make_local(spec=spec) as made:
        yield made


@pytest.fixture(scope="module")
def frames() -> np.ndarray[Any, Any]:
    return np.random.default_rng(3).integers(0, 100, (8, 5, 6, 7)).astype(np.uint16)


@pytest.fixture
def ds(tmp_path: Path, frames: np.ndarray[Any, Any]) -> Any:
    path = tmp_path / "frames.raw"
    frames.tofile(path)
    return Context(executor=InlineJobExecutor()).load(
        "raw", path=str(path), dtype="u2", nav_shape=(8, 5), sig_shape=(6, 7), num_partitions=40
    )


@pytest.fixture
def ctx(executor: DaskJobExecutor) -> Context:
    return Context(executor=executor)


class Scaled(UDF):
    """Number of each frame times a parameter; says which worker has processed it."""

    def __init__(self, factor: int = 1) -> None:
        super().__init__(factor=factor)

    def get_result_buffers(self) -> dict[str, Any]:
        return {
            "n": self.buffer(kind="nav", dtype="int64"),
            "pid": self.buffer(kind="nav", dtype="int64"),
            "threads": self.buffer(kind="nav", dtype="int64"),
        }

    def process_frame(self, frame: Any) -> None:
        self.results.n[:] = self.params.factor * self.meta.slice.origin[0]
        self.results.pid[:] = os.getpid()
        self.results.threads[:] = self.meta.threads_per_worker


# --- specification ---


def test_workers_have_roles() -> None:
    spec = cluster_spec(cpus=[0, 3], cudas=[], has_cupy=False, name="node", num_service=2)
    assert list(spec) == ["node-cpu-0", "node-cpu-3", "node-service-0", "node-service-1"]
    assert {one["cls"] for one in spec.values()} == {Nanny}
    options = spec["node-cpu-3"]["options"]
    assert options["nthreads"] == 1
    assert options["resources"] == CPU_RESOURCES
    assert "set_up_worker('CPU', 3)" in options["preload"][0]
    assert options["preload"][-1] == "libertem.preload"
    assert spec["node-service-0"]["options"]["resources"] == {}


def test_cuda_workers_may_share_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"cpus": [0], "cudas": [0, 1], "has_cupy": True}
    monkeypatch.setattr("libertem.executor.dask.cluster.detect", lambda: found)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spec = cluster_spec(cpus=0, cudas=[0, 0, 0, 1], has_cupy=True, num_service=0)
    assert list(spec) == ["default-cuda-0", "default-cuda-0-0", "default-cuda-0-1", "default-cuda-1"]
    for name, device in zip(spec, "0001", strict=True):
        options = spec[name]["options"]
        assert options["resources"] == {"CUDA": 1, "compute": 1, "ndarray": 1}
        assert f"set_up_worker('CUDA', {device})" in options["preload"][0]
    without = cluster_spec(cpus=0, cudas=1, has_cupy=False, num_service=0)
    assert without["default-cuda-0"]["options"]["resources"] == {"CUDA": 1, "compute": 1}


def test_cuda_workers_without_a_device_are_warned_about(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"cpus": [0], "cudas": [], "has_cupy": False}
    monkeypatch.setattr("libertem.executor.dask.cluster.detect", lambda: found)
    with pytest.warns(RuntimeWarning, match="no CUDA device is visible"):
        cluster_spec(cpus=1, cudas=[0], has_cupy=False)


def test_preloads_of_the_user_come_first() -> None:
    spec = cluster_spec(cpus=1, cudas=[], has_cupy=False, preload=("hdf5plugin", "x = 1"), options={"foo": 1})
    for one in spec.values():
        assert one["options"]["preload"][:2] == ("hdf5plugin", "x = 1")
        assert one["options"]["foo"] == 1


def test_preload_is_a_part_of_the_specification() -> None:
    spec = cluster_spec(cpus=1, cudas=[], has_cupy=False)
    with pytest.raises(ValueError, match="preload is a part of spec"):
        DaskJobExecutor.make_local(spec=spec, preload=("numpy",))


# --- the cluster ---


def test_workers_are_known_by_name_and_role(executor: DaskJobExecutor) -> None:
    workers = executor.get_available_workers()
    assert workers.names() == ["default-cpu-0", "default-cpu-1", "default-service-0"]
    assert [worker.resources for worker in workers] == [CPU_RESOURCES, CPU_RESOURCES, {}]
    assert workers.hosts() == {"localhost"}
    assert Scheduler(workers).effective_worker_count() == 2
    assert executor.lt_resources is True
    assert executor.get_resource_details() == [{"host": "localhost", "cpu": 2, "cuda": 0, "service": 1}]


def test_workers_are_set_up(executor: DaskJobExecutor) -> None:
    def look() -> dict[str, Any]:
        import dask

        names = ("LIBERTEM_USE_CPU", "OF_USER", "OWN_VARIABLE", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
        return {
            **{name: os.environ.get(name) for name in names},
            "ignores_sigint": signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
            "profiles": dask.config.get("distributed.worker.profile.enabled"),
            "preloaded": "sparseconverter" in sys.modules,
        }

    found = executor.run_each_worker(look)
    common = {"OWN_VARIABLE": "7", "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "profiles": False}
    for name, cpu in (("default-cpu-0", "0"), ("default-cpu-1", "1")):
        expected = {
            **common,
            "LIBERTEM_USE_CPU": cpu,
            "OF_USER": "-",
            "ignores_sigint": True,
            "preloaded": True,
        }
        assert found[name] == expected
    assert found["default-service-0"]["LIBERTEM_USE_CPU"] is None
    assert "OWN_VARIABLE" not in os.environ


def test_the_client_is_not_the_default_of_dask(executor: DaskJobExecutor) -> None:
    from distributed import default_client

    with pytest.raises(ValueError, match="No clients found"):
        default_client()


# --- functions ---


def test_functions_run_on_workers(executor: DaskJobExecutor) -> None:
    assert executor.run_function(os.getpid) != os.getpid()
    assert executor.run_function(lambda a, b=0: a + b, 1, b=2) == 3
    assert list(executor.map(lambda i: i * i, range(20))) == [i * i for i in range(20)]
    assert executor.run_each_host(int) == {"localhost": 0}
    pids = executor.run_each_worker(os.getpid)
    assert len(set(pids.values())) == 3
    with pytest.raises(ZeroDivisionError):
        executor.run_function(lambda: 1 / 0)


def test_timeouts_of_functions_are_not_mistaken_for_those_of_the_library(executor: DaskJobExecutor) -> None:
    def late() -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        executor.run_function(late)


# --- runs ---


def test_results_equal_those_of_the_inline_executor(ctx: Context, ds: Any) -> None:
    masks = np.random.default_rng(0).random((2, 6, 7))

    def udfs() -> list[UDF]:
        return [
            SumUDF(),
            StdDevUDF(),
            SumSigUDF(),
            ApplyMasksUDF(mask_factories=lambda: masks),
            CoMUDF(),
            PickUDF(),
        ]

    with Context(executor=InlineJobExecutor()) as inline:
        for roi in (None, np.arange(40).reshape(8, 5) % 3 == 0, np.zeros((8, 5), dtype=bool)):
            expected = inline.run_udf(dataset=ds, udf=udfs(), roi=roi)
            for found, wanted in zip(ctx.run_udf(dataset=ds, udf=udfs(), roi=roi), expected, strict=True):
                assert list(found) == list(wanted)
                for name in wanted:
                    np.testing.assert_allclose(found[name].data, wanted[name].data, rtol=1e-6)


def test_all_workers_work_with_one_thread_each(ctx: Context, ds: Any) -> None:
    result = ctx.run_udf(dataset=ds, udf=Scaled(2))
    assert result["n"].raw_data.tolist() == [2 * i for i in range(40)]
    workers = ctx.executor.run_each_worker(os.getpid)
    del workers["default-service-0"]
    assert set(result["pid"].raw_data.tolist()) == set(workers.values())
    assert set(result["threads"].raw_data.tolist()) == {1}


class Merging(UDF):
    """Merges like the ready-made ones, but it is not one; and notes who has merged."""

    merged_by: list[int] = []

    def get_result_buffers(self) -> dict[str, Any]:
        return {"total": self.buffer(kind="sig", dtype="float64")}

    def process_tile(self, tile: Any) -> None:
        self.results.total += tile.sum(axis=0)

    def merge(self, dest: Any, src: Any) -> None:
        self.merged_by.append(os.getpid())
        dest.total += src.total


class OwnSum(SumUDF):
    merged_by: list[int] = []

    def merge(self, dest: Any, src: Any) -> None:
        self.merged_by.append(os.getpid())
        super().merge(dest=dest, src=src)


@pytest.fixture
def sent(executor: DaskJobExecutor, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Results that arrive on the main process."""
    arrived = []
    run_tasks = executor.run_tasks

    def watched(*args: Any) -> Iterator[Any]:
        for result, task in run_tasks(*args):
            arrived.append(result)
            yield result, task

    monkeypatch.setattr(executor, "run_tasks", watched)
    return arrived


@pytest.mark.parametrize("udfs", [[SumUDF], [StdDevUDF], [SumUDF, SumSigUDF, Scaled]])
def test_ready_made_udfs_are_merged_on_workers(
    ctx: Context, ds: Any, sent: list[Any], udfs: list[type[UDF]]
) -> None:
    with Context(executor=InlineJobExecutor()) as inline:
        expected = inline.run_udf(dataset=ds, udf=[udf() for udf in udfs])
    found = ctx.run_udf(dataset=ds, udf=[udf() for udf in udfs])
    # At most 8 for each of two workers, for 40 partitions.
    assert len(sent) <= 16
    for one, wanted in zip(found, expected, strict=True):
        for name in wanted.keys() - {"pid", "threads"}:
            np.testing.assert_allclose(one[name].data, wanted[name].data)


@pytest.mark.parametrize("udf", [Merging, OwnSum])
def test_merging_of_users_stays_on_the_main_process(
    ctx: Context, ds: Any, sent: list[Any], udf: Any, frames: np.ndarray[Any, Any]
) -> None:
    udf.merged_by.clear()
    result, _ = ctx.run_udf(dataset=ds, udf=[udf(), SumUDF()])
    assert udf.merged_by == [os.getpid()] * 40
    assert len(sent) == 40
    np.testing.assert_array_equal(next(iter(result.values())).data, frames.sum(axis=(0, 1)))


def test_iterating_shows_every_partition(ctx: Context, ds: Any, frames: np.ndarray[Any, Any]) -> None:
    covered = []
    for step in ctx.run_udf_iter(dataset=ds, udf=SumUDF()):
        done = step.damage.data
        covered.append(int(done.sum()))
        np.testing.assert_array_equal(step.buffers[0]["intensity"].data, frames[done].sum(axis=0))
    assert covered == list(range(1, 41))


def test_parameters_change_during_a_run(ctx: Context, ds: Any) -> None:
    steps = ctx.run_udf_iter(dataset=ds, udf=[Scaled(0), SumSigUDF()])
    next(steps)
    steps.update_parameters_experimental([{"factor": 10}, {}])
    for step in steps:
        last = step.buffers[0]["n"].raw_data
    # Tasks that had started, or were finished, before the change; all others know it.
    changed = [i for i, n in enumerate(last) if n == 10 * i and i]
    unchanged = [i for i, n in enumerate(last) if n == 0 and i]
    assert len(changed) + len(unchanged) == 39
    assert len(unchanged) <= 6
    assert 39 in changed
    assert set(ctx.run_udf(dataset=ds, udf=Scaled(0))["n"].raw_data) == {0}


def test_leaving_a_run_early_leaves_nothing_on_workers(ctx: Context, ds: Any) -> None:
    def kept() -> int:
        from libertem.executor.dask import worker

        return len(worker._parameters)

    for _ in range(3):
        steps = ctx.run_udf_iter(dataset=ds, udf=SumUDF())
        next(steps)
        steps.close()
    waiting = threading.Event()
    for _ in range(200):
        if not any(ctx.executor.run_each_worker(kept).values()) or waiting.wait(0.05):
            break
    assert set(ctx.executor.run_each_worker(kept).values()) == {0}
    assert ctx.executor._runs == {}  # type: ignore[attr-defined]  # of this executor


def test_runs_from_several_threads_do_not_mix(ctx: Context, ds: Any) -> None:
    results: dict[int, Any] = {}

    def run(factor: int) -> None:
        results[factor] = ctx.run_udf(dataset=ds, udf=Scaled(factor))["n"].raw_data

    threads = [threading.Thread(target=run, args=(factor,)) for factor in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for factor in range(4):
        np.testing.assert_array_equal(results[factor], np.arange(40) * factor)


def test_large_parameters_are_sent_without_complaints(ctx: Context, ds: Any) -> None:
    class Large(Scaled):
        def __init__(self, factor: int = 1, table: Any = None) -> None:
            UDF.__init__(self, factor=factor, table=table)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = ctx.run_udf(dataset=ds, udf=Large(2, np.zeros(4_000_000)))
    assert result["n"].raw_data.tolist() == [2 * i for i in range(40)]


class Recorder(ProgressReporter):
    def __init__(self) -> None:
        self.states: list[Any] = []

    def start(self, state: Any) -> None:
        self.states.append(state)

    update = end = start


@pytest.mark.parametrize("udf", [SumUDF, Scaled])
def test_progress_arrives(ctx: Context, ds: Any, udf: type[UDF]) -> None:
    reporter = Recorder()
    ctx.run_udf(dataset=ds, udf=udf(), progress=reporter)
    states = reporter.states
    assert tuple(states[0])[:5] == (0, 40, 0, 0, 40)
    assert tuple(states[-1])[:5] == (40, 40, 40, 0, 40)
    assert max(state.num_part_in_progress for state in states) > 0
    frames = [state.num_frames_complete for state in states]
    assert frames == sorted(frames)


def test_data_sets_are_opened_on_workers(ctx: Context, tmp_path: Path, frames: np.ndarray[Any, Any]) -> None:
    np.save(tmp_path / "frames.npy", frames)
    ds = ctx.load("auto", path=str(tmp_path / "frames.npy"))
    assert ds.get_num_partitions() == 2
    result = ctx.run_udf(dataset=ds, udf=SumUDF())["intensity"]
    np.testing.assert_array_equal(result.data, frames.sum(axis=(0, 1)))


# --- resources ---


class CudaOnly(Scaled):
    def get_backends(self) -> Any:
        return ("cuda",)


def test_cuda_only_udfs_need_a_cuda_worker(ctx: Context, ds: Any) -> None:
    with pytest.raises(ResourceError, match=r"no worker offers the resources .*CUDA.*default-cpu-0"):
        ctx.run_udf(dataset=ds, udf=CudaOnly())


def test_a_cluster_without_tags_refuses_cuda(executor: DaskJobExecutor, ds: Any) -> None:
    plain = DaskJobExecutor(client=executor.client, lt_resources=False)
    message = "Requesting CUDA resource on a cluster without resource management"
    with pytest.raises(ResourceError, match=message):
        Context(executor=plain).run_udf(dataset=ds, udf=CudaOnly())
    result = Context(executor=plain).run_udf(dataset=ds, udf=Scaled(2))
    assert result["n"].raw_data.tolist() == [2 * i for i in range(40)]
    plain.close()
    assert executor.run_function(int) == 0


# --- life cycle ---


def test_an_executor_on_a_foreign_client_leaves_it_open(executor: DaskJobExecutor) -> None:
    with DaskJobExecutor(client=executor.client) as other:
        assert other.lt_resources is True
    other.close()
    with pytest.raises(ExecutorError, match="the executor is closed"):
        other.run_function(int)
    assert executor.client.submit(int).result() == 0


def test_a_snoozer_wakes_up_for_use() -> None:
    log: list[str] = []
    asleep = threading.Event()

    def fall_asleep() -> None:
        log.append("sleep")
        asleep.set()

    snoozer = Snoozer(0.01, fall_asleep, lambda: log.append("wake"))
    for _ in range(2):
        assert asleep.wait(timeout=30)
        asleep.clear()
        with snoozer.awake(), snoozer.awake():
            log.append("use")
    snoozer.close()
    assert log[:6] == ["sleep", "wake", "use", "sleep", "wake", "use"]
    assert not any(thread.name == "libertem-snooze" for thread in threading.enumerate())


def test_a_snoozer_that_could_not_wake_tries_again() -> None:
    asleep = threading.Event()
    failures = [RuntimeError("no workers")]

    def wake_up() -> None:
        if failures:
            raise failures.pop()

    snoozer = Snoozer(0.01, asleep.set, wake_up)
    assert asleep.wait(timeout=30)
    with pytest.raises(RuntimeError, match="no workers"), snoozer.awake():
        pass
    with snoozer.awake():
        pass
    snoozer.close()


def test_an_idle_cluster_shrinks_and_grows_again(ds: Any) -> None:
    spec = cluster_spec(cpus=2, cudas=[], has_cupy=False, num_service=0)
    with DaskJobExecutor.make_local(spec=spec, snooze_timeout=0.01) as executor:
        cluster = executor._cluster
        assert cluster is not None

        def has_shrunk() -> bool:
            return len(cluster.scheduler_info["workers"]) == 1

        waiting = threading.Event()
        for _ in range(600):
            if has_shrunk() or waiting.wait(0.05):
                break
        assert has_shrunk()
        assert executor.get_available_workers().names() == ["default-cpu-0", "default-cpu-1"]
        result = Context(executor=executor).run_udf(dataset=ds, udf=Scaled(2))
        assert result["n"].raw_data.tolist() == [2 * i for i in range(40)]


# --- by name ---


def test_gpus_are_refused_where_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"cpus": [0], "cudas": [], "has_cupy": False}
    monkeypatch.setattr("libertem.utils.devices.detect", lambda: found)
    with pytest.raises(ExecutorSpecException, match="Cannot specify GPU workers as no GPUs detected"):
        Context.make_with("dask", gpus=1)
    with pytest.raises(ExecutorSpecException, match="neither CPU nor GPU workers"):
        Context.make_with("dask", cpus=0)


def test_clusters_are_made_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"cpus": [0, 1], "cudas": [4, 6], "has_cupy": True}
    monkeypatch.setattr("libertem.utils.devices.detect", lambda: found)
    monkeypatch.setattr("libertem.executor.dask.cluster.detect", lambda: found)
    made: list[dict[str, Any]] = []

    def make_local(**kwargs: Any) -> InlineJobExecutor:
        made.append(kwargs)
        return InlineJobExecutor()

    monkeypatch.setattr(DaskJobExecutor, "make_local", make_local)
    Context.make_with("dask")
    assert [name for name in made[-1]["spec"] if "service" not in name] == [
        "default-cpu-0",
        "default-cpu-1",
        "default-cuda-4",
        "default-cuda-6",
    ]
    assert made[-1]["client_kwargs"] == {"set_as_default": False}
    assert made[-1]["snooze_timeout"] is None
    Context.make_with("dask-make-default", cpus=[3], gpus=3, snooze_timeout=2)
    assert [name for name in made[-1]["spec"] if "service" not in name] == [
        "default-cpu-3",
        "default-cuda-4",
        "default-cuda-6",
        "default-cuda-4-0",
    ]
    assert made[-1]["client_kwargs"] == {"set_as_default": True}
    assert made[-1]["snooze_timeout"] == 120


# --- many small partitions ---


def test_short_tasks_go_together_but_are_merged_one_by_one(ctx: Context, tmp_path: Path) -> None:
    n = 200
    path = tmp_path / "many.raw"
    np.ones((n, 2, 2), dtype="f4").tofile(path)
    ds = ctx.load("raw", path=str(path), dtype="f4", nav_shape=(n,), sig_shape=(2, 2), num_partitions=n)

    class Count(UDF):
        """Merges in a way of its own, so that nothing is merged on workers."""

        def get_result_buffers(self) -> dict[str, Any]:
            return {"count": self.buffer(kind="single", dtype="int64"), "n": self.buffer(kind="nav")}

        def process_frame(self, frame: Any) -> None:
            self.results.count[:] += 1
            self.results.n[:] = 1

        def merge(self, dest: Any, src: Any) -> None:
            dest.count[:] += src.count
            dest.n[:] = src.n

    submitted = []
    executor: Any = ctx.executor
    submit = executor.client.submit

    def spy(*args: Any, **kwargs: Any) -> Any:
        submitted.append(args[0])
        return submit(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executor.client, "submit", spy)
        steps = [int(step.damage.data.sum()) for step in ctx.run_udf_iter(dataset=ds, udf=Count())]
        result = ctx.run_udf(dataset=ds, udf=Count())
    assert steps == list(range(1, n + 1))
    assert result["count"].data.tolist() == [n]
    assert len(submitted) < n


def test_batches_are_bounded_by_time_size_and_the_rest_of_the_run() -> None:
    pace = _Pace()
    assert pace.batch_size(1000, 2) == 1
    pace.note(Finished(results=[None] * 10, seconds=0.01, n_bytes=0))
    assert pace.batch_size(10_000, 2) == 100
    assert pace.batch_size(80, 2) == 10
    assert pace.batch_size(7, 2) == pace.batch_size(1, 2) == 1
    assert pace.batch_size(10_000, 0) == 100
    # Slower than before, and with larger results.
    pace.note(Finished(results=[None], seconds=0.039, n_bytes=0))
    assert pace.batch_size(10_000, 2) == 5
    pace.note(Finished(results=[None], seconds=0.0, n_bytes=1 << 26))
    assert pace.batch_size(10_000, 2) == 1
