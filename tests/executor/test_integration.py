"""An executor that fits what Dask uses in this process."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dask
import dask.threaded
import numpy as np
import pytest
from distributed import Client

from libertem.api import Context
from libertem.executor.concurrent import ConcurrentJobExecutor
from libertem.executor.dask import DaskJobExecutor
from libertem.executor.inline import InlineJobExecutor
from libertem.executor.integration import get_dask_integration_executor
from libertem.udf.sum import SumUDF


def assert_works(executor: Any) -> None:
    with Context(executor=executor) as ctx:
        ds = ctx.load("memory", data=np.ones((4, 4, 2, 2), dtype=np.float32), sig_dims=2, num_partitions=4)
        result = ctx.run_udf(dataset=ds, udf=SumUDF())["intensity"]
    np.testing.assert_array_equal(result.data, np.full((2, 2), 16))


@pytest.mark.parametrize("name", ["synchronous", "sync", "single-threaded"])
def test_a_synchronous_scheduler_is_inline(name: str) -> None:
    with dask.config.set(scheduler=name):
        executor = get_dask_integration_executor()
    assert type(executor) is InlineJobExecutor
    assert_works(executor)


@pytest.mark.parametrize("name", [None, "processes"])
def test_without_anything_to_share_there_are_own_threads(name: str | None) -> None:
    with dask.config.set(scheduler=name):
        executor = get_dask_integration_executor()
    assert isinstance(executor, ConcurrentJobExecutor)
    assert executor.is_local
    assert_works(executor)


def test_the_threads_of_dask_are_shared() -> None:
    with dask.config.set(scheduler="threads"):
        executor = get_dask_integration_executor()
        assert isinstance(executor, ConcurrentJobExecutor)
        assert not executor.is_local
        assert executor.client is dask.threaded.default_pool
        assert_works(executor)
        assert dask.compute(dask.delayed(int)()) == (0,)


@pytest.mark.parametrize("key", ["pool", "scheduler"])
def test_a_pool_of_the_user_is_shared(key: str) -> None:
    with ThreadPoolExecutor(3) as pool:
        with dask.config.set({"scheduler": "threads", key: pool}):
            executor = get_dask_integration_executor()
        assert isinstance(executor, ConcurrentJobExecutor)
        assert executor.client is pool
        assert executor.get_available_workers().concurrency() == 3
        assert_works(executor)
        assert pool.submit(int).result() == 0


def test_the_default_client_is_used_and_stays_open() -> None:
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    with Client(processes=False, **options) as client:
        with Context.make_with("dask-integration") as ctx:
            assert isinstance(ctx.executor, DaskJobExecutor)
            assert ctx.executor.client is client
            assert ctx.executor.lt_resources is False
        assert_works(get_dask_integration_executor())
        assert client.submit(int).result() == 0
        # A setting of the configuration comes first, as in Dask.
        with dask.config.set(scheduler="synchronous"):
            assert type(get_dask_integration_executor()) is InlineJobExecutor
