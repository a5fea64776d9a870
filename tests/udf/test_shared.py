"""What tasks of a run share is made once, and never too late or for the wrong run."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cloudpickle
import numpy as np

from libertem.api import Context
from libertem.executor.concurrent import ConcurrentJobExecutor
from libertem.io.dataset.memory import MemoryDataSet
from libertem.udf.com import CoMUDF
from libertem.udf.masks import ApplyMasksUDF
from libertem.udf.shared import Shared


def make_ds(size: int = 8) -> MemoryDataSet:
    data = np.random.default_rng(0).random((4, 4, size, size)).astype("f4")
    return MemoryDataSet(data=data, num_partitions=8, sig_dims=2)


def test_threads_that_ask_at_the_same_time_get_one_object() -> None:
    shared, barrier, made = Shared(), threading.Barrier(4), []

    def make() -> object:
        made.append(1)
        return object()

    def ask(_: int) -> object:
        barrier.wait()
        return shared.get("key", make)

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(ask, range(4)))) == len(made) == 1


def test_values_stay_in_their_process() -> None:
    shared = Shared()
    shared.get("key", lambda: "here")
    assert cloudpickle.loads(cloudpickle.dumps(shared)).get("key", lambda: "there") == "there"


def test_masks_are_made_once_on_the_main_process_and_once_for_all_tasks() -> None:
    calls = []

    def factory() -> Any:
        calls.append(1)
        return np.ones((8, 8), dtype="f4")

    with Context(executor=ConcurrentJobExecutor.make_local(2)) as ctx:
        ctx.run_udf(dataset=make_ds(), udf=ApplyMasksUDF(mask_factories=[factory]))
    assert len(calls) == 2


def test_one_instance_serves_data_sets_of_different_shapes() -> None:
    udf = CoMUDF()
    with Context.make_with("inline") as ctx:
        for size in (8, 6):
            ds = make_ds(size)
            frames = ds.data.reshape(16, size, size).astype("f8")
            expected = (frames.sum(axis=2) @ np.arange(size)) / frames.sum(axis=(1, 2))
            result = ctx.run_udf(dataset=ds, udf=udf)["raw_com"].raw_data[:, 0]
            np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_masks_that_change_during_a_run_are_used() -> None:
    ds = make_ds()
    with Context.make_with("inline") as ctx:
        steps = ctx.run_udf_iter(
            dataset=ds, udf=ApplyMasksUDF(mask_factories=[lambda: np.ones((8, 8), dtype="f4")])
        )
        next(steps)
        steps.update_parameters_experimental([{"mask_factories": [lambda: np.full((8, 8), 2, dtype="f4")]}])
        for step in steps:
            result = step.buffers[0]["intensity"].raw_data[:, 0]
    expected = ds.data.reshape(16, -1).sum(axis=1) * np.repeat([1, 2], [2, 14])
    np.testing.assert_allclose(result, expected, rtol=1e-5)
