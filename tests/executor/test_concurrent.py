"""Threads of this process."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from libertem.api import Context
from libertem.exceptions import UDFRunCancelled
from libertem.executor.concurrent import ConcurrentJobExecutor
from libertem.udf import UDF
from libertem.udf.sumsigudf import SumSigUDF
from libertem.utils.devices import detect


class Calls(UDF):
    def get_result_buffers(self) -> dict[str, Any]:
        return {"n": self.buffer(kind="nav", dtype="float64")}

    def process_frame(self, frame: Any) -> None:
        self.params.f(int(frame[0, 0]))
        self.results.n[:] = frame[0, 0]


def worker_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("libertem-worker")]


def test_tasks_run_at_the_same_time(make_ds: Any) -> None:
    # Each of the two frames waits until the other one is being processed.
    barrier = threading.Barrier(2, timeout=30)
    with ConcurrentJobExecutor.make_local(2) as executor:
        context = Context(executor=executor)
        udf = Calls(f=lambda i: barrier.wait())
        result = context.run_udf(dataset=make_ds(n_frames=2, num_partitions=2), udf=udf)
    assert result["n"].data.tolist() == [0, 1]


def test_results_come_as_they_are_finished(make_ds: Any) -> None:
    second_merged = threading.Event()

    def f(i: int) -> None:
        assert i != 0 or second_merged.wait(timeout=30)

    with ConcurrentJobExecutor.make_local(2) as executor:
        steps = Context(executor=executor).run_udf_iter(
            dataset=make_ds(n_frames=2, num_partitions=2), udf=Calls(f=f)
        )
        assert next(steps).damage.data.tolist() == [False, True]
        second_merged.set()
        assert next(steps).damage.data.tolist() == [True, True]


def test_tasks_use_one_thread_each(make_ds: Any) -> None:
    class Threads(Calls):
        def process_frame(self, frame: Any) -> None:
            self.results.n[:] = self.meta.threads_per_worker

    with ConcurrentJobExecutor.make_local(2) as executor:
        result = Context(executor=executor).run_udf(dataset=make_ds(), udf=Threads(f=None))
    assert set(result["n"].data) == {1}


def test_all_threads_are_one_worker() -> None:
    with ConcurrentJobExecutor.make_local(3) as executor:
        (worker,) = executor.get_available_workers()
    assert (worker.name, worker.host, worker.nthreads) == ("concurrent", "localhost", 3)
    assert worker.resources == {"compute": 1, "CPU": 1}


def test_there_is_a_thread_per_core_by_default() -> None:
    with ConcurrentJobExecutor.make_local() as executor:
        assert executor.get_available_workers().concurrency() == len(detect()["cpus"])


def test_no_threads_are_left_after_close(make_ds: Any) -> None:
    before = set(threading.enumerate())
    executor = ConcurrentJobExecutor.make_local(2)
    Context(executor=executor).run_udf(dataset=make_ds(), udf=SumSigUDF())
    assert set(threading.enumerate()) - before
    executor.close()
    executor.close()
    assert set(threading.enumerate()) - before == set()


def test_a_closed_executor_is_unusable(make_ds: Any) -> None:
    executor = ConcurrentJobExecutor.make_local(2)
    ds = make_ds()
    executor.close()
    with pytest.raises(RuntimeError, match="shutdown"):
        Context(executor=executor).run_udf(dataset=ds, udf=SumSigUDF())


def test_a_foreign_pool_is_left_alone(make_ds: Any) -> None:
    with ThreadPoolExecutor(max_workers=2) as pool:
        executor = ConcurrentJobExecutor(client=pool)
        Context(executor=executor).run_udf(dataset=make_ds(), udf=SumSigUDF())
        executor.close()
        assert pool.submit(int, 3).result() == 3


def test_leaving_a_run_early_waits_for_its_tasks(make_ds: Any) -> None:
    running = []

    def f(i: int) -> None:
        running.append(i)
        running.remove(i)

    with ConcurrentJobExecutor.make_local(2) as executor:
        ds = make_ds(n_frames=40, num_partitions=20)
        for _ in range(10):
            steps = Context(executor=executor).run_udf_iter(dataset=ds, udf=Calls(f=f))
            next(steps)
            steps.close()
            assert running == []
            assert executor._runs == {}


def test_a_run_can_be_cancelled_from_another_thread(make_ds: Any) -> None:
    started = threading.Event()

    def f(i: int) -> None:
        started.set()
        assert cancelled.wait(timeout=30)

    cancelled = threading.Event()
    ds = make_ds(n_frames=40, num_partitions=10)

    with ConcurrentJobExecutor.make_local(2) as executor:

        def cancel() -> None:
            started.wait(timeout=30)
            for cancel_id in list(executor._runs):
                executor.cancel(cancel_id)
            cancelled.set()

        canceller = threading.Thread(target=cancel)
        canceller.start()
        with pytest.raises(UDFRunCancelled, match=r"^UDF run cancelled after [0-2] partitions$"):
            Context(executor=executor).run_udf(dataset=ds, udf=Calls(f=f))
        canceller.join()
        result = Context(executor=executor).run_udf(dataset=ds, udf=SumSigUDF())["intensity"]
        np.testing.assert_array_equal(result.data, 16 * np.arange(40))


def test_runs_from_several_threads_do_not_mix(make_ds: Any) -> None:
    ds = make_ds(n_frames=20, num_partitions=5)
    results: dict[int, Any] = {}

    class Scaled(UDF):
        def get_result_buffers(self) -> dict[str, Any]:
            return {"n": self.buffer(kind="nav", dtype="float64")}

        def process_frame(self, frame: Any) -> None:
            self.results.n[:] = frame[0, 0] * self.params.factor

    with ConcurrentJobExecutor.make_local(2) as executor:
        context = Context(executor=executor)

        def run(factor: int) -> None:
            results[factor] = context.run_udf(dataset=ds, udf=Scaled(factor=factor))["n"].data

        threads = [threading.Thread(target=run, args=(factor,)) for factor in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for factor in range(6):
        np.testing.assert_array_equal(results[factor], np.arange(20) * factor)


def test_only_a_few_unmerged_results_wait(make_ds: Any) -> None:
    seen: list[int] = []
    ds = make_ds(n_frames=100, num_partitions=100)
    with ConcurrentJobExecutor.make_local(2) as executor:
        steps = Context(executor=executor).run_udf_iter(dataset=ds, udf=Calls(f=seen.append))
        for n_merged, _ in enumerate(steps, start=1):
            assert len(seen) - n_merged < 3 * 2 * 2
