"""Executors, small data sets, and one whose data arrives while it is processed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest

from libertem.api import Context
from libertem.common import Shape, Slice
from libertem.common.executor import TaskCommHandler, WorkerQueueEmpty
from libertem.executor.adaptive import AdaptiveJobExecutor
from libertem.executor.concurrent import ConcurrentJobExecutor
from libertem.executor.inline import InlineJobExecutor
from libertem.io.dataset.base import BasePartition, DataSet, DataSetMeta, DataTile, Partition

# Workers cannot import the modules of tests.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

MAKERS: dict[str, Callable[[], Any]] = {
    "inline": InlineJobExecutor,
    "inline-debug": lambda: InlineJobExecutor(debug=True),
    "threads": lambda: ConcurrentJobExecutor.make_local(2),
    "adaptive": lambda: AdaptiveJobExecutor.make_local(2),
}


@pytest.fixture(params=MAKERS)
def executor(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Each kind of executor."""
    made = MAKERS[request.param]()
    yield made
    made.close()


@pytest.fixture
def make_ds(tmp_path: Path) -> Callable[..., Any]:
    """Store frames that are filled with their number, and load them."""

    def make(n_frames: int = 6, num_partitions: int = 2, nav_shape: Any = None) -> Any:
        data = np.repeat(np.arange(n_frames, dtype=np.float32), 16)
        path = tmp_path / "frames.raw"
        data.tofile(path)
        return Context(executor=InlineJobExecutor()).load(
            "raw",
            path=str(path),
            dtype="f4",
            nav_shape=(n_frames,) if nav_shape is None else nav_shape,
            sig_shape=(4, 4),
            num_partitions=num_partitions,
        )

    return make


# --- live data ---


class LiveHandler(TaskCommHandler):
    """Forwards the frames of an acquisition. Does not call the constructor of its base class."""

    def __init__(self, frames: Any, log: list[Any]) -> None:
        self.frames = frames
        self.log = log
        self.before_frame: Callable[[int], None] = lambda i: None

    def start(self) -> None:
        self.log.append("start")

    def handle_task(self, task: Any, queue: Any) -> None:
        place = task.get_partition().slice
        self.log.append(("handle", task.idx))
        assert task.partition is task.get_partition()
        assert dict(task.get_resources())["compute"] == 1
        start = place.origin[0]
        queue.put({"type": "begin", "of": start})
        for i in range(start, start + place.shape[0]):
            self.before_frame(i)
            if i % 2:
                queue.put({"type": "frame"}, self.frames[i].tobytes())
            else:
                with queue.put_nocopy({"type": "frame"}, self.frames[i].nbytes) as payload:
                    payload[:] = self.frames[i].tobytes()
        queue.put({"type": "end"}, b"small")

    def done(self) -> None:
        self.log.append("done")


class LivePartition(Partition):
    def set_corrections(self, corrections: Any) -> None:
        pass

    def set_worker_context(self, worker_context: Any) -> None:
        self._context = worker_context

    def get_tiles(
        self, tiling_scheme: Any, dest_dtype: Any = "f4", roi: Any = None, array_backend: Any = None
    ) -> Iterator[DataTile]:
        queue = self._context.get_worker_queue()
        self._context.signal(self.get_ident(), "begin", {"n_messages": queue.size()})
        with queue.get() as (header, payload):
            assert header == {"type": "begin", "of": self.slice.origin[0]}
            assert payload is None
        sig = self.slice.shape.sig
        for i in range(self.slice.shape[0]):
            with queue.get(block=True, timeout=60) as (header, payload):
                assert header == {"type": "frame"}
                # Some receivers insist on bytes.
                assert type(payload) is (bytes if (self.slice.origin[0] + i) % 2 else memoryview)
                frame = np.frombuffer(payload, dtype="f4").reshape((1, *sig)).astype(dest_dtype)
                place = Slice(origin=(self.slice.origin[0] + i, 0, 0), shape=Shape((1, *sig), sig_dims=2))
                yield DataTile(frame, tile_slice=place, scheme_idx=0)
            self._context.signal(self.get_ident(), "seen", {"frame": self.slice.origin[0] + i})
        with queue.get() as (header, payload):
            assert header == {"type": "end"}
            assert payload == b"small"
        with pytest.raises(WorkerQueueEmpty), queue.get(block=False):
            pass


class LiveDataSet(DataSet):
    """Data that arrives while the run goes on; never initialized."""

    def __init__(self, frames: Any) -> None:
        super().__init__(num_partitions=3)
        shape = Shape(frames.shape, sig_dims=2)
        self._meta = DataSetMeta(shape=shape, raw_dtype=np.dtype("f4"), array_backends=("numpy",))
        self.log: list[Any] = []
        self.handler = LiveHandler(frames, self.log)

    @property
    def dtype(self) -> Any:
        return np.dtype("f4")

    @property
    def shape(self) -> Shape:
        assert self._meta is not None
        return self._meta.shape

    def get_partitions(self) -> Iterator[Partition]:
        for part_slice, _, _ in BasePartition.make_slices(self.shape, self.get_num_partitions()):
            yield LivePartition(meta=self._meta, partition_slice=part_slice, io_backend=None, decoder=None)

    def need_decode(self, read_dtype: Any, roi: Any, corrections: Any) -> bool:
        return True

    def get_base_shape(self, roi: Any) -> Any:
        return (1, *self.shape.sig)

    def get_task_comm_handler(self) -> TaskCommHandler:
        return self.handler


@pytest.fixture
def live() -> LiveDataSet:
    """Frames that are large enough for shared memory."""
    return LiveDataSet(np.random.default_rng(0).random((9, 100, 100)).astype("f4"))
