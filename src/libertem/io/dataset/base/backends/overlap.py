"""Read the next block while the current one is processed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from libertem.io.dataset.base.backends.rawio import aligned_buffer

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["overlapped"]

P = TypeVar("P")

N_BUFFERS = 2
"""One is processed while the other is filled."""


class _Buffer:
    """Memory that grows to the largest block."""

    def __init__(self) -> None:
        self._memory: npt.NDArray[np.uint8] | None = None

    def at_least(self, size: int) -> npt.NDArray[np.uint8]:
        if self._memory is None or self._memory.size < size:
            self._memory = None  # give it back before asking for more
            self._memory = aligned_buffer(size)
        return self._memory


def overlapped(
    plans: Iterable[P],
    size_of: Callable[[P], int],
    load: Callable[[P, npt.NDArray[np.uint8]], None],
) -> Iterator[tuple[P, npt.NDArray[np.uint8]]]:
    """Yield ``(plan, filled buffer)`` in order; a thread of this partition fills the other buffer.

    Parameters
    ----------
    plans : iterable
        What to load.
    size_of : callable
        Bytes that a plan needs.
    load : callable
        Fills a buffer; runs in the other thread. Its exceptions are raised here.
    """
    free: SimpleQueue[_Buffer | None] = SimpleQueue()
    ready: SimpleQueue[tuple[P, _Buffer, npt.NDArray[np.uint8]] | BaseException | None] = SimpleQueue()
    for _ in range(N_BUFFERS):
        free.put(_Buffer())

    def fill_buffers() -> None:
        try:
            for plan in plans:
                buffer = free.get()
                if buffer is None:
                    return
                memory = buffer.at_least(size_of(plan))
                load(plan, memory)
                ready.put((plan, buffer, memory))
            ready.put(None)
        except BaseException as err:  # raised again by the consumer below
            ready.put(err)

    thread = threading.Thread(target=fill_buffers, name="libertem-read-ahead", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            plan, buffer, memory = item
            yield plan, memory
            free.put(buffer)
    finally:
        # Also when the consumer leaves early: no thread outlives its partition.
        free.put(None)
        thread.join()
