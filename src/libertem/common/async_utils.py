"""Call blocking code from asynchronous code."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

__all__ = ["sync_to_async"]

T = TypeVar("T")


async def sync_to_async(fn: Callable[..., T], pool: Executor | None = None, *args: Any, **kwargs: Any) -> T:
    """Call ``fn(*args, **kwargs)`` in a thread and await its result.

    The call sees the context variables of the awaiting task. Cancelling the awaiting task does not stop a
    call that already runs.

    Parameters
    ----------
    pool : concurrent.futures.Executor, optional
        Threads to use; those of the event loop by default.

    Raises
    ------
    RuntimeError
        In place of a `StopIteration` out of `fn`, as a generator would.
    """
    context = contextvars.copy_context()

    def call() -> T:
        try:
            return context.run(fn, *args, **kwargs)
        except StopIteration as err:
            # asyncio cannot carry it: before Python 3.12 the await would hang.
            raise RuntimeError(f"{fn!r} raised StopIteration") from err

    import asyncio  # 40 ms, and few programs are asynchronous

    return await asyncio.get_running_loop().run_in_executor(pool, call)
