from __future__ import annotations

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from libertem.common.async_utils import sync_to_async


def test_arguments_go_to_the_function_and_its_result_comes_back() -> None:
    async def main() -> str:
        return await sync_to_async("{} {x}".format, None, 1, x=2)

    assert asyncio.run(main()) == "1 2"


def test_the_function_runs_in_another_thread() -> None:
    async def main() -> int:
        return await sync_to_async(threading.get_ident)

    assert asyncio.run(main()) != threading.get_ident()


def test_the_given_pool_is_used() -> None:
    async def main() -> str:
        with ThreadPoolExecutor(1, thread_name_prefix="mine") as pool:
            return (await sync_to_async(threading.current_thread, pool)).name

    assert asyncio.run(main()).startswith("mine")


def test_the_event_loop_goes_on_meanwhile() -> None:
    async def main() -> bool:
        from_loop = threading.Event()
        call = asyncio.ensure_future(sync_to_async(from_loop.wait, None, timeout=30))
        await asyncio.sleep(0)
        from_loop.set()
        return await call

    assert asyncio.run(main())


def test_context_variables_are_seen() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    async def main() -> str:
        variable.set("of the task")
        return await sync_to_async(variable.get)

    assert asyncio.run(main()) == "of the task"


def test_exceptions_keep_their_type() -> None:
    async def main() -> int:
        return await sync_to_async(int, None, "nonsense")

    with pytest.raises(ValueError, match="nonsense"):
        asyncio.run(main())


def test_the_end_of_an_iterator_does_not_hang() -> None:
    async def main() -> object:
        return await asyncio.wait_for(sync_to_async(next, None, iter(())), timeout=30)

    with pytest.raises(RuntimeError, match="StopIteration"):
        asyncio.run(main())
