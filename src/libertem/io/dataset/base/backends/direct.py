"""Direct I/O: large aligned reads that bypass the page cache, for data much larger than memory."""

from __future__ import annotations

from collections.abc import Iterator

from libertem.io.dataset.base.backends.buffered import BufferedBackendImpl, DirectBufferedFile
from libertem.io.dataset.base.backends.contract import IOBackend
from libertem.io.dataset.base.backends.overlap import overlapped
from libertem.io.dataset.base.backends.rawio import DIRECT_ALIGNMENT, direct_supported
from libertem.io.dataset.base.backends.readplan import FileCache, ReadPlanner, fill, to_block
from libertem.io.dataset.base.blocks import BlockSource, FrameBlock, FrameTable, ReadOrder

__all__ = ["DirectBackend", "DirectBackendImpl"]


class DirectBackend(IOBackend, id_="direct"):
    """Read past the page cache. Linux only so far.

    For data larger than memory on fast storage, where keeping pages in the cache only costs time.

    Parameters
    ----------
    max_buffer_size : int
        Upper bound of the memory for reading, in bytes per worker.
    """

    def __init__(self, max_buffer_size: int = 16777216) -> None:
        self._max_buffer_size = max_buffer_size

    @property
    def max_buffer_size(self) -> int:
        """Upper bound of the memory for reading, in bytes per worker."""
        return self._max_buffer_size

    @classmethod
    def platform_supported(cls) -> bool:
        """Linux. Windows has the means, but nobody has tried them with this library."""
        return direct_supported()

    def get_impl(self) -> DirectBackendImpl:
        """A new reader."""
        return DirectBackendImpl(max_buffer_size=self._max_buffer_size)


class DirectBackendImpl(BufferedBackendImpl):
    """Reader of `DirectBackend`."""

    file_class = DirectBufferedFile

    def block_source(self) -> BlockSource:
        """Blocks are read by a thread, past the page cache."""
        return _DirectBlocks(self._max_buffer_size)


class _DirectBlocks:
    """Two buffers that are filled in turn."""

    def __init__(self, max_buffer_size: int) -> None:
        self._max_buffer_size = max_buffer_size

    def read_blocks(self, table: FrameTable, order: ReadOrder) -> Iterator[FrameBlock]:
        """Blocks of half the buffer size."""
        planner = ReadPlanner(table, order, limit=self._max_buffer_size // 2, alignment=DIRECT_ALIGNMENT)
        with FileCache(table, direct=True) as files:
            for plan, buffer in overlapped(
                planner,
                lambda plan: plan.buffer_bytes,
                lambda plan, buffer: fill(plan, buffer, files, direct=True),
            ):
                yield to_block(plan, buffer, table)
