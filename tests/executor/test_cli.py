"""Clusters that are started from the command line, and what becomes of runs on them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import psutil
import pytest

from libertem.api import Context
from libertem.exceptions import DataSetException, ExecutorError
from libertem.executor import cli
from libertem.executor.dask import DaskJobExecutor
from libertem.udf import UDF
from libertem.udf.sum import SumUDF

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Workers cannot import the modules of tests.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

FRAMES = np.repeat(np.arange(20, dtype=np.float32), 16)


class Commands:
    """Processes that end with the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: list[subprocess.Popen[bytes]] = []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"

    def start(self, module: str, *arguments: str, cwd: Path | None = None) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", module, *arguments]
        with (self.folder / f"{module}.log").open("ab") as log:
            process = subprocess.Popen(command, cwd=cwd, stdout=log, stderr=log)
        self._running.append(process)
        return process

    def start_scheduler(self) -> subprocess.Popen[bytes]:
        where = ("--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard")
        return self.start("distributed.cli.dask_scheduler", *where)

    def start_plain_worker(self, cwd: Path) -> subprocess.Popen[bytes]:
        options = ("--no-nanny", "--no-dashboard", "--nthreads", "2", "--preload", "libertem.preload")
        return self.start("distributed.cli.dask_worker", self.address, *options, cwd=cwd)

    def end(self) -> None:
        for process in self._running:
            for child in (
                psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            ):
                child.kill()
            process.kill()
            process.wait()


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[Commands]:
    made = Commands(tmp_path)
    yield made
    made.end()


def load(ctx: Context, path: Any) -> Any:
    return ctx.load("raw", path=str(path), dtype="f4", nav_shape=(20,), sig_shape=(4, 4), num_partitions=10)


def assert_right(ctx: Context, ds: Any) -> None:
    result = ctx.run_udf(dataset=ds, udf=SumUDF())["intensity"]
    np.testing.assert_array_equal(result.data, np.full((4, 4), np.arange(20).sum()))


def test_libertem_worker_brings_the_workers_of_a_machine(commands: Commands, tmp_path: Path) -> None:
    FRAMES.tofile(tmp_path / "frames.raw")
    (tmp_path / "of_user.py").write_text("import os\nos.environ['OF_USER'] = 'yes'\n")
    commands.start_scheduler()
    connected = DaskJobExecutor.connect(commands.address)
    assert connected.lt_resources is False
    scratch = tmp_path / "scratch"
    worker = commands.start(
        "libertem.executor.cli",
        commands.address,
        *("--n-cpus", "1", "--cudas", "", "--name", "node", "--log-level", "warning"),
        *("--local-directory", str(scratch), "--preload", str(tmp_path / "of_user.py")),
    )
    with Context(executor=connected) as ctx:
        executor: Any = ctx.executor
        executor.client.wait_for_workers(2, timeout=60)
        assert executor.get_available_workers().names() == ["node-cpu-0", "node-service-0"]
        # Nobody knew when the executor was made.
        assert executor.lt_resources is True
        assert_right(ctx, load(ctx, tmp_path / "frames.raw"))
        values = executor.run_each_worker(
            lambda: (os.environ.get("OF_USER"), os.environ.get("LIBERTEM_USE_CPU"))
        )
        assert values == {"node-cpu-0": ("yes", "0"), "node-service-0": ("yes", None)}
        assert any(scratch.rglob("*"))
        processes = psutil.Process(worker.pid).children(recursive=True)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=30) == 0
        gone, alive = psutil.wait_procs(processes, timeout=10)
        assert gone
        assert alive == []


def test_a_plain_cluster_does_it_and_a_lost_scheduler_is_an_error(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    FRAMES.tofile(tmp_path / "frames.raw")
    gate = tmp_path / "gate"

    class Waits(UDF):
        def get_result_buffers(self) -> dict[str, Any]:
            return {"n": self.buffer(kind="nav")}

        def process_frame(self, frame: Any) -> None:
            if frame[0, 0] > 3:
                for _ in range(3000):
                    if gate.exists() or threading.Event().wait(0.01):
                        break

    scheduler = commands.start_scheduler()
    commands.start_plain_worker(cwd=elsewhere)
    with DaskJobExecutor.connect(commands.address) as executor:
        executor.client.wait_for_workers(1, timeout=60)
        ctx = Context(executor=executor)
        assert executor.lt_resources is False
        (worker,) = executor.get_available_workers()
        assert (worker.nthreads, worker.resources) == (2, {})
        assert executor.run_function(lambda: "numba" in sys.modules)
        ds = load(ctx, tmp_path / "frames.raw")
        assert_right(ctx, ds)

        # A file that the client has, but not the worker.
        monkeypatch.chdir(tmp_path)
        with pytest.raises(DataSetException, match=r"frames\.raw"):
            load(ctx, "frames.raw")
        assert_right(ctx, ds)

        steps = ctx.run_udf_iter(dataset=ds, udf=Waits())
        next(steps)
        scheduler.kill()
        scheduler.wait()
        with pytest.raises(
            ExecutorError, match=rf"scheduler at tcp://127\.0\.0\.1:{commands.port} lost part-\d"
        ):
            list(steps)
        gate.touch()

        # The same context works as soon as there is a scheduler again.
        commands.start_scheduler()
        commands.start_plain_worker(cwd=elsewhere)
        assert_right(ctx, ds)
    executor.close()


def test_a_lost_scheduler_that_stays_away_is_an_error(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libertem.executor.dask.connection.PATIENCE_SECONDS", 0.5)
    scheduler = commands.start_scheduler()
    with DaskJobExecutor.connect(commands.address) as executor:
        scheduler.kill()
        scheduler.wait()
        while executor._connection.is_up():
            threading.Event().wait(0.01)
        with pytest.raises(ExecutorError, match=r"is gone and did not come back within"):
            executor.run_function(int)


def test_connecting_to_nobody_is_an_error(commands: Commands) -> None:
    with pytest.raises(OSError, match="Timed out"):
        DaskJobExecutor.connect(commands.address, client_kwargs={"timeout": 0.2})


# --- arguments ---


@pytest.fixture
def specs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the command would start."""
    found = {"cpus": [0, 2], "cudas": [0, 1], "has_cupy": True}
    monkeypatch.setattr(cli, "detect", lambda: found)
    monkeypatch.setattr("libertem.executor.dask.cluster.detect", lambda: found)
    started: list[Any] = []

    async def run(scheduler: str, spec: Any) -> None:
        started.append((scheduler, spec))

    monkeypatch.setattr(cli, "_run", run)
    return started


def test_all_devices_are_used_by_default(specs: list[Any]) -> None:
    cli.main([])
    (scheduler, spec) = specs[0]
    host = socket.gethostname()
    assert scheduler == "tcp://localhost:8786"
    assert list(spec) == [f"{host}-{one}" for one in ("cpu-0", "cpu-2", "service-0", "cuda-0", "cuda-1")]
    options = spec[f"{host}-cuda-1"]["options"]
    assert options["local_directory"] == "dask-worker-space"
    assert options["resources"] == {"CUDA": 1, "compute": 1, "ndarray": 1}


def test_devices_can_be_chosen(specs: list[Any]) -> None:
    cli.main(
        [
            "tcp://a:1",
            "-c",
            "1",
            "-u",
            "1,1",
            "-p",
            "false",
            "-n",
            "n",
            "-l",
            "ERROR",
            "--preload",
            "a",
            "--preload",
            "b",
        ]
    )
    (scheduler, spec) = specs[0]
    assert scheduler == "tcp://a:1"
    assert list(spec) == ["n-cpu-0", "n-service-0", "n-cuda-1", "n-cuda-1-0"]
    options = spec["n-cuda-1"]["options"]
    assert options["resources"] == {"CUDA": 1, "compute": 1}
    assert options["preload"][:2] == ("a", "b")
    assert options["silence_logs"] == 40
    cli.main(["-u", ""])
    assert not any("cuda" in name for name in specs[1][1])


@pytest.mark.parametrize("wrong", [["-l", "loud"], ["-p", "maybe"], ["-c", "many"], ["-u", "a"]])
def test_wrong_arguments_are_usage_errors(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(wrong)
    assert caught.value.code == 2
    assert wrong[0] in capsys.readouterr().err


def test_other_kinds_of_clusters_are_not_offered() -> None:
    with pytest.raises(NotImplementedError, match="'ray'"):
        cli.main(["--kind", "ray"])


def test_the_command_is_installed_under_its_name() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert tomllib.loads(text)["project"]["scripts"]["libertem-worker"] == "libertem.executor.cli:main"
