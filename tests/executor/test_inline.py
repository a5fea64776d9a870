"""Everything in the calling thread."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from libertem.api import Context
from libertem.common.executor import JobCancelledError
from libertem.common.progress import ProgressReporter
from libertem.exceptions import ExecutorSpecException, UDFRunCancelled
from libertem.executor.inline import InlineJobExecutor
from libertem.udf import UDF
from libertem.udf.sumsigudf import SumSigUDF

# --- tasks ---


class Seen(UDF):
    def get_result_buffers(self) -> dict[str, Any]:
        return {"threads": self.buffer(kind="nav", dtype="int64")}

    def process_frame(self, frame: Any) -> None:
        self.params.seen.append((int(frame[0, 0]), threading.current_thread()))
        self.results.threads[:] = self.meta.threads_per_worker


def test_partitions_run_in_order_in_the_calling_thread(make_ds: Any) -> None:
    seen: list[Any] = []
    Context(executor=InlineJobExecutor()).run_udf(dataset=make_ds(num_partitions=3), udf=Seen(seen=seen))
    assert seen == [(i, threading.current_thread()) for i in range(6)]


def test_tasks_may_use_all_cores_or_as_many_threads_as_given(make_ds: Any) -> None:
    ds = make_ds()
    limited = Context(executor=InlineJobExecutor(inline_threads=1)).run_udf(dataset=ds, udf=Seen(seen=[]))
    assert set(limited["threads"].data) == {1}
    free = Context(executor=InlineJobExecutor()).run_udf(dataset=ds, udf=Seen(seen=[]))
    assert min(free["threads"].data) >= 1


def test_there_is_one_worker() -> None:
    (worker,) = InlineJobExecutor().get_available_workers()
    assert (worker.name, worker.host, worker.nthreads) == ("inline", "localhost", 1)
    assert worker.resources == {"compute": 1, "CPU": 1}


def test_further_arguments_are_tolerated() -> None:
    assert InlineJobExecutor(False, None, None, "something", other=1).run_function(abs, -1) == 1


def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(ExecutorSpecException):
        InlineJobExecutor(main_process_gpu=True)
    with pytest.raises(ValueError, match="main_gpu"):
        InlineJobExecutor(main_process_gpu="yes")  # type: ignore[arg-type]  # wrong on purpose


def test_debugging_finds_what_cannot_travel(make_ds: Any) -> None:
    udf = Seen(seen=[], lock=threading.Lock())
    ds = make_ds()
    Context(executor=InlineJobExecutor()).run_udf(dataset=ds, udf=udf)
    with pytest.raises(TypeError, match="lock"):
        Context(executor=InlineJobExecutor(debug=True)).run_udf(dataset=ds, udf=udf)
    with pytest.raises(TypeError, match="lock"):
        InlineJobExecutor(debug=True).run_function(threading.Lock)


# --- progress ---


class Recorder(ProgressReporter):
    def __init__(self) -> None:
        self.calls: list[Any] = []

    def start(self, state: Any) -> None:
        self.calls.append(("start", *state[:5]))

    def update(self, state: Any) -> None:
        self.calls.append(("update", *state[:5]))

    def end(self, state: Any) -> None:
        self.calls.append(("end", *state[:5]))


def test_progress_follows_the_worked_example(make_ds: Any) -> None:
    reporter = Recorder()
    Context(executor=InlineJobExecutor()).run_udf(dataset=make_ds(), udf=SumSigUDF(), progress=reporter)
    assert reporter.calls == [
        ("start", 0, 6, 0, 0, 2),
        ("update", 0, 6, 0, 1, 2),
        ("update", 3, 6, 1, 0, 2),
        ("update", 3, 6, 1, 1, 2),
        ("update", 6, 6, 2, 0, 2),
        ("end", 6, 6, 2, 0, 2),
    ]


def test_there_is_at_most_one_message_per_second_within_a_partition(
    make_ds: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Step(Seen):
        def process_tile(self, tile: Any) -> None:
            clock[0] += 0.4

        def get_tiling_preferences(self) -> Any:
            return {"depth": 1, "total_size": 64}

    clock = [0.0]
    monkeypatch.setattr("libertem.udf.progress.time.monotonic", lambda: clock[0])
    reporter = Recorder()
    ds = make_ds(n_frames=8, num_partitions=1)
    Context(executor=InlineJobExecutor()).run_udf(dataset=ds, udf=Step(seen=[]), progress=reporter)
    # The clock stands at 0.4 after the first frame, which starts the second.
    assert reporter.calls[1:-2] == [("update", n, 8, 0, 1, 1) for n in (0, 4, 7)]


# --- live data ---


def test_data_is_forwarded_before_each_task(live: Any) -> None:
    messages = []
    live.handler.subscribe("begin", lambda topic, message: messages.append((topic, message)))
    context = Context(executor=InlineJobExecutor(debug=True))
    result = context.run_udf(dataset=live, udf=SumSigUDF())["intensity"]
    np.testing.assert_allclose(result.data, live.handler.frames.sum(axis=(1, 2)), rtol=1e-5)
    assert live.log == ["start", ("handle", 0), ("handle", 1), ("handle", 2), "done"]
    # All frames of a task lie in the queue before it begins, between a first and a last message.
    assert messages == [("begin", {"n_messages": 5, "ident": f"part-{i}"}) for i in range(3)]


def test_progress_works_with_handlers_of_live_data(live: Any) -> None:
    reporter = Recorder()
    Context(executor=InlineJobExecutor()).run_udf(dataset=live, udf=SumSigUDF(), progress=reporter)
    assert reporter.calls[0] == ("start", 0, 9, 0, 0, 3)
    assert reporter.calls[-1] == ("end", 9, 9, 3, 0, 3)


def test_a_handler_can_cancel_the_run(live: Any) -> None:
    def stop(i: int) -> None:
        if i == 3:
            raise JobCancelledError("the detector stopped")

    live.handler.before_frame = stop
    context = Context(executor=InlineJobExecutor())
    with pytest.raises(UDFRunCancelled, match=r"^UDF run cancelled after 1 partitions$"):
        context.run_udf(dataset=live, udf=SumSigUDF())
    assert live.log[-1] == "done"
    live.handler.before_frame = lambda i: None
    result = context.run_udf(dataset=live, udf=SumSigUDF())["intensity"]
    np.testing.assert_allclose(result.data, live.handler.frames.sum(axis=(1, 2)), rtol=1e-5)


def test_a_task_does_not_see_what_a_failed_one_left(live: Any) -> None:
    class Fails(SumSigUDF):
        def process_tile(self, tile: Any) -> None:
            raise ValueError("boom")

    context = Context(executor=InlineJobExecutor())
    with pytest.raises(ValueError, match="boom"):
        context.run_udf(dataset=live, udf=Fails())
    assert live.log == ["start", ("handle", 0), "done"]
    result = context.run_udf(dataset=live, udf=SumSigUDF())["intensity"]
    np.testing.assert_allclose(result.data, live.handler.frames.sum(axis=(1, 2)), rtol=1e-5)


def test_a_dry_run_does_not_start_the_acquisition(live: Any) -> None:
    InlineJobExecutor().get_udf_runner().dry_run([SumSigUDF()], live, None)
    assert live.log == []
