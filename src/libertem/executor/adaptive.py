"""The default executor: threads for compiled code, processes for Python.

Every run starts in threads of this process, which costs nothing. Compiled UDFs stay there. Where Python code
runs for each tile, the run is watched, and it moves to worker processes if

* it would go on for more than half a second,
* the threads stand in each other's way, that is, together they use less than three quarters of their cores
  (the interpreter lets one of them compute at a time) although no other program has them, and
* sending the data, if it lies in memory, would not take longer than what is gained.

The processes are started then, and kept for later runs: a run with the same UDFs that would take threads as
long begins there. Partitions that are being processed meanwhile are
started over there, unless half of them is done before the processes are ready. What cannot be pickled stays
in one thread, with a warning.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

from libertem.common.backend import get_use_cuda
from libertem.common.taskcomm import NoopCommHandler
from libertem.exceptions import ExecutorError, ResourceError
from libertem.executor.concurrent import ConcurrentJobExecutor

if TYPE_CHECKING:
    from libertem.common.protocols import TaskProtocol
    from libertem.common.taskcomm import TaskCommHandler
    from libertem.executor.moving import MovingRun
    from libertem.executor.processes import ProcessPool

__all__ = ["AdaptiveJobExecutor"]


class AdaptiveJobExecutor(ConcurrentJobExecutor):
    """Runs tasks in threads, or in processes where Python code would keep threads from running side by side.

    UDFs that need CUDA run in one process per device.

    Parameters
    ----------
    client : concurrent.futures.Executor
        Pool of threads. There are as many worker processes as threads.
    is_local : bool
        Whether `close` shuts down the pool.
    main_process_gpu : bool or int, optional
        GPU for merging results on the main process.
    """

    def __init__(
        self,
        client: Executor,
        is_local: bool = False,
        main_process_gpu: bool | int | None = None,
    ) -> None:
        super().__init__(client, is_local, main_process_gpu)
        self._pools: dict[str, ProcessPool] = {}
        self._moving: dict[Any, MovingRun] = {}
        self._paces: dict[Any, float] = {}

    def run_tasks(
        self,
        tasks: Sequence[TaskProtocol],
        params_handle: Any,
        cancel_id: Any,
        task_comm_handler: TaskCommHandler,
    ) -> Iterator[tuple[Any, TaskProtocol]]:
        """Run tasks where they run best; yields results as they are finished."""
        need_cuda = bool(tasks) and "CUDA" in tasks[0].get_resources() and get_use_cuda() is None
        if not need_cuda and not self._may_move(tasks, params_handle, task_comm_handler):
            yield from super().run_tasks(tasks, params_handle, cancel_id, task_comm_handler)
            return

        from libertem.executor.moving import MovingRun

        key, n_frames = _kind_of_work(tasks, params_handle)
        run = MovingRun(
            tasks,
            params_handle,
            task_comm_handler,
            client=self.client,
            n_threads=self._n_threads(),
            pool=self._pool("cuda" if need_cuda else "python"),
            only_processes=need_cuda,
            expected_seconds=self._paces.get(key, 0.0) * n_frames,
        )
        self._moving[cancel_id] = run
        self._runs[cancel_id] = run.stop
        try:
            yield from run
            if run.seconds_in_threads is not None:
                self._paces[key] = run.seconds_in_threads / n_frames
        finally:
            self._moving.pop(cancel_id, None)
            self._runs.pop(cancel_id, None)

    def _may_move(self, tasks: Sequence[TaskProtocol], params: Any, handler: TaskCommHandler) -> bool:
        """Whether it makes sense to watch a run."""
        if self._n_threads() < 2 or len(tasks) < 2 or get_use_cuda() is not None:
            return False
        # Live data does not reach processes.
        if not isinstance(handler, NoopCommHandler):
            return False
        runs_python = getattr(tasks[0], "runs_python", None)
        return runs_python is not None and bool(runs_python(params))

    def _pool(self, kind: str) -> ProcessPool:
        """Worker processes; nothing is started here."""
        from libertem.executor.processes import ProcessPool, WorkerSpec

        if self._closed:
            raise ExecutorError("the executor has been closed")
        if kind not in self._pools:
            if kind == "python":
                specs = [WorkerSpec(f"python-{i}") for i in range(self._n_threads())]
            else:
                specs = [
                    WorkerSpec(f"cuda-{i}", env={"LIBERTEM_USE_CUDA": str(i), "LIBERTEM_USE_CPU": None})
                    for i in _cuda_devices()
                ]
            self._pools[kind] = ProcessPool(specs)
        return self._pools[kind]

    def scatter_update_patch(self, handle: Any, patch: Any) -> None:
        """Change parameters, also the copies in processes."""
        super().scatter_update_patch(handle, patch)
        for run in list(self._moving.values()):
            if run.params is handle:
                run.patch(patch)

    def close(self) -> None:
        """End the processes, and the threads if their pool belongs to this executor."""
        super().close()
        self._closed = True
        for pool in self._pools.values():
            pool.close()


def _kind_of_work(tasks: Sequence[TaskProtocol], params: Any) -> tuple[Any, int]:
    """What runs have in common that need the same time per frame, and the number of frames.

    Parameters of UDFs are not looked at: a wrong guess costs little, and is corrected by the run.
    """
    roi = getattr(params, "roi", None)
    n_frames = sum(task.get_partition().get_frame_count(roi) for task in tasks)
    classes = tuple(getattr(tasks[0], "udf_classes", ()))
    return (classes, tasks[0].get_partition().slice.shape.sig.to_tuple()), n_frames


def _cuda_devices() -> list[int]:
    from libertem.utils.devices import detect_cudas

    cudas = detect_cudas()
    if not cudas:
        raise ResourceError("a UDF runs on CUDA devices only, but none was found")
    return cudas
