"""Blocks that are read through the page cache, for the buffered backend and for frames that no map serves."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from libertem.io.dataset.base.backends.overlap import overlapped
from libertem.io.dataset.base.backends.rawio import aligned_buffer
from libertem.io.dataset.base.backends.readplan import (
    FileCache,
    ReadPlan,
    ReadPlanner,
    fill,
    to_block,
)
from libertem.io.dataset.base.blocks import FrameBlock, FrameTable, ReadOrder

__all__ = ["BufferedBlocks"]

CACHED_BLOCK_BYTES = 1 << 20
"""Blocks for compiled UDFs: copied from the page cache and reduced before they leave the CPU's cache."""


class BufferedBlocks:
    """Blocks read through the page cache. The system fetches the next ones meanwhile."""

    def __init__(self, max_buffer_size: int) -> None:
        self._max_buffer_size = max_buffer_size

    def read_blocks(self, table: FrameTable, order: ReadOrder) -> Iterator[FrameBlock]:
        """Blocks that stay in the CPU's cache if only kernels use them, larger ones for tiles."""
        wanted = self._max_buffer_size // 2 if order.for_tiles else CACHED_BLOCK_BYTES
        planner = ReadPlanner(table, order, limit=min(wanted, self._max_buffer_size // 2), alignment=1)
        with FileCache(table, direct=False) as files:
            if len(table) and not files.get(int(table.files[0])).advise_willneed(0, 1):
                # No way to ask the system (macOS, Windows): read ahead in a thread of our own.
                for plan, buffer in overlapped(
                    planner,
                    lambda plan: plan.buffer_bytes,
                    lambda plan, buffer: fill(plan, buffer, files, direct=False),
                ):
                    yield to_block(plan, buffer, table)
                return
            buffer = aligned_buffer(0)
            for plan in _advise_ahead(planner, files, self._max_buffer_size):
                if buffer.size < plan.buffer_bytes:
                    buffer = aligned_buffer(plan.buffer_bytes)
                fill(plan, buffer, files, direct=False)
                yield to_block(plan, buffer, table)


def _advise_ahead(planner: ReadPlanner, files: FileCache, window: int) -> Iterator[ReadPlan]:
    """Hand on plans, with the reads of those within the window already under way in the system."""
    ahead: deque[ReadPlan] = deque()
    pending = 0
    plans: Iterator[Any] = iter(planner)
    while True:
        while pending < window and (plan := next(plans, None)) is not None:
            for span in plan.spans:
                files.get(span.file_idx).advise_willneed(span.start, span.stop - span.start)
            ahead.append(plan)
            pending += plan.read_bytes
        if not ahead:
            return
        current = ahead.popleft()
        pending -= current.read_bytes
        yield current
