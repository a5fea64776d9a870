"""Runs that are awaited, or stepped from a coroutine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from libertem.exceptions import UDFRunCancelled
from libertem.udf import UDF
from libertem.udf.noop import NoOpUDF
from libertem.udf.runner import UDFRunner
from libertem.udf.sumsigudf import SumSigUDF

SUMS = [[120, 376, 632], [888, 1144, 1400]]


class Live(UDF):
    def get_result_buffers(self) -> dict[str, Any]:
        return {"n": self.buffer(kind="nav", dtype="int64")}

    def process_frame(self, frame: Any) -> None:
        self.results.n[:] = 1


class Value(UDF):
    """Writes its parameter `v`; multiplies by `factor` in the end."""

    def get_result_buffers(self) -> dict[str, Any]:
        return {"v": self.buffer(kind="nav", dtype="int64")}

    def process_frame(self, frame: Any) -> None:
        self.results.v[:] = self.params.v

    def get_results(self) -> Any:
        return {"v": self.results.v * self.params.get("factor", 1)}


def run_async(make: Callable[[], Any]) -> Any:
    return asyncio.run(make())


def test_a_run_can_be_awaited(ctx: Any, ds: Any) -> None:
    async def main() -> Any:
        single = await ctx.run_udf(dataset=ds, udf=SumSigUDF(), sync=False)
        several = await ctx.run_udf(dataset=ds, udf=(SumSigUDF(), NoOpUDF()), sync=False)
        return single, several

    single, several = run_async(main)
    assert single["intensity"].data.tolist() == SUMS
    assert isinstance(several, tuple)
    assert several[0]["intensity"].data.tolist() == SUMS
    assert several[1] == {}


def test_asynchronous_runs_of_one_executor_do_not_mix(ctx: Any, ds: Any) -> None:
    async def main() -> Any:
        runs = [ctx.run_udf(dataset=ds, udf=Value(v=v), sync=False) for v in range(4)]
        return await asyncio.gather(*runs)

    assert [result["v"].data[1, 2] for result in run_async(main)] == [0, 1, 2, 3]


def test_asynchronous_results_are_copies(contexts: Any, ds: Any) -> None:
    async def main() -> Any:
        steps = contexts["inline"].run_udf_iter(dataset=ds, udf=Live(), sync=False)
        return [step.buffers[0]["n"] async for step in steps]

    first, second = run_async(main)
    assert first.data.tolist() == [[1] * 3, [0] * 3]
    assert first.valid_mask.tolist() == [[True] * 3, [False] * 3]
    assert second.data.tolist() == [[1] * 3, [1] * 3]


def test_asynchronous_iteration_can_be_left_and_closed(ctx: Any, ds: Any) -> None:
    async def main() -> Any:
        steps = ctx.run_udf_iter(dataset=ds, udf=SumSigUDF(), sync=False)
        async for _ in steps:
            break
        await steps.aclose()
        with pytest.raises(StopAsyncIteration):
            await steps.__anext__()
        return await ctx.run_udf(dataset=ds, udf=SumSigUDF(), sync=False)

    assert run_async(main)["intensity"].data.tolist() == SUMS


def test_asynchronous_runs_take_parameters_and_exceptions(contexts: Any, ds: Any) -> None:
    async def main() -> Any:
        steps = contexts["inline"].run_udf_iter(dataset=ds, udf=Value(v=0), sync=False)
        await steps.__anext__()
        await steps.update_parameters_experimental([{"v": 7}])
        result = (await steps.__anext__()).buffers[0]["v"].data
        with pytest.raises(KeyError, match="from outside"):
            await steps.athrow(KeyError("from outside"))
        return result

    assert run_async(main).tolist() == [[0] * 3, [7] * 3]


def test_errors_reach_the_awaiting_code(ctx: Any, ds: Any) -> None:
    class Bad(Live):
        def process_frame(self, frame: Any) -> None:
            raise ValueError("bad frame")

    async def main() -> None:
        await ctx.run_udf(dataset=ds, udf=Bad(), sync=False)

    with pytest.raises(ValueError, match="bad frame"):
        run_async(main)


def test_a_runner_can_be_stepped_from_a_coroutine(ctx: Any, ds: Any) -> None:
    async def main() -> Any:
        steps = UDFRunner([SumSigUDF()]).run_for_dataset_async(ds, ctx.executor.ensure_async(), "id")
        return [step.buffers[0]["intensity"].data.sum() async for step in steps]

    assert run_async(main)[-1] == np.sum(SUMS)


def test_a_run_can_be_cancelled_by_its_id(contexts: Any, ds: Any) -> None:
    executor = contexts["threads"].executor

    async def main() -> None:
        steps = UDFRunner([SumSigUDF()]).run_for_dataset_async(ds, executor.ensure_async(), "my id")
        async for _ in steps:
            executor.cancel("my id")

    with pytest.raises(UDFRunCancelled, match=r"UDF run cancelled after [12] partitions"):
        run_async(main)
