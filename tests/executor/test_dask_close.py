"""What is left of a cluster after it was closed. In a file of its own, where no other cluster lives."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import psutil
import pytest

from libertem.api import Context
from libertem.exceptions import ExecutorError, UDFRunCancelled
from libertem.executor.dask import DaskJobExecutor, cluster_spec
from libertem.executor.inline import InlineJobExecutor
from libertem.udf import UDF
from libertem.udf.sum import SumUDF

# Workers cannot import the modules of tests.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

# Of Dask and tqdm, for the rest of the process.
_THREADS_OF_OTHERS = ("Dask-Offload", "Dask-Callback", "tqdm", "asyncio_")


class Waits(UDF):
    """Creates a file, and waits for another one to be created."""

    def __init__(self, started: str, opened: str) -> None:
        super().__init__(started=started, opened=opened)

    def get_result_buffers(self) -> dict[str, Any]:
        return {"n": self.buffer(kind="nav")}

    def process_frame(self, frame: Any) -> None:
        Path(self.params.started).touch()
        wait_for(Path(self.params.opened))


def wait_for(path: Path) -> None:
    waiting = threading.Event()
    for _ in range(3000):
        if path.exists() or waiting.wait(0.01):
            return
    raise AssertionError(f"{path} was not created")


def possessions() -> dict[str, Any]:
    """What this process has that should not grow."""
    process = psutil.Process()
    names = {thread.name for thread in threading.enumerate()}
    mapped = {entry.path for entry in process.memory_maps()} if hasattr(process, "memory_maps") else set()
    return {
        "children": {child.pid for child in process.children(recursive=True)} - {tracker()},
        "threads": {name for name in names if not name.startswith(_THREADS_OF_OTHERS)},
        "shared memory": {path for path in mapped if path.startswith("/dev/shm/")},
    }


def tracker() -> int | None:
    """Process of `multiprocessing` that lives as long as this one."""
    from multiprocessing import resource_tracker

    pid: int | None = getattr(resource_tracker._resource_tracker, "_pid", None)  # type: ignore[attr-defined]  # private
    return pid


def n_open_files() -> int:
    return psutil.Process().num_fds() if hasattr(psutil.Process, "num_fds") else 0


@pytest.fixture
def ds(tmp_path: Path) -> Any:
    np.ones((8, 4, 4), dtype=np.float32).tofile(tmp_path / "frames.raw")
    return Context(executor=InlineJobExecutor()).load(
        "raw",
        path=str(tmp_path / "frames.raw"),
        dtype="f4",
        nav_shape=(8,),
        sig_shape=(4, 4),
        num_partitions=8,
    )


def make_executor() -> DaskJobExecutor:
    return DaskJobExecutor.make_local(spec=cluster_spec(cpus=1, cudas=[], has_cupy=False, num_service=0))


def test_closing_leaves_nothing_behind_also_during_a_run(ds: Any, tmp_path: Path) -> None:
    before = possessions()
    with make_executor() as executor:
        assert possessions()["children"] > before["children"]
        result = Context(executor=executor).run_udf(dataset=ds, udf=SumUDF())["intensity"]
        np.testing.assert_array_equal(result.data, np.full((4, 4), 8))
    assert possessions() == before
    n_files = n_open_files()

    executor = make_executor()
    started = tmp_path / "started"

    def close() -> None:
        wait_for(started)
        executor.close()

    udf = Waits(str(started), str(tmp_path / "opened"))
    with ThreadPoolExecutor(1) as pool:
        closed = pool.submit(close)
        with pytest.raises(UDFRunCancelled):
            Context(executor=executor).run_udf(dataset=ds, udf=udf)
        closed.result()
    executor.close()
    with pytest.raises(ExecutorError, match="the executor is closed"):
        Context(executor=executor).run_udf(dataset=ds, udf=udf)
    assert possessions() == before
    assert n_open_files() <= n_files


def test_a_context_that_is_closed_while_it_iterates_ends_the_run(ds: Any) -> None:
    with Context(executor=make_executor()) as ctx:
        steps = ctx.run_udf_iter(dataset=ds, udf=SumUDF())
        next(steps)
        ctx.close()
        with pytest.raises(UDFRunCancelled, match=r"^UDF run cancelled after \d partitions$"):
            list(steps)
