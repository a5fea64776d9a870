"""What reading costs: system calls, bytes, memory, open files and threads; and what is left behind."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libertem.exceptions import DataSetException
from libertem.io.dataset.base import (
    BasePartition,
    BufferedBackend,
    DirectBackend,
    IOBackend,
    MMapBackend,
    TilingScheme,
)
from libertem.io.dataset.base.backends.rawio import DIRECT_ALIGNMENT, IOCounts, RawFile, io_counts
from libertem.io.dataset.base.blocks import ReadOrder

Store = Callable[..., Any]
ReadPath = Callable[[BasePartition, TilingScheme, Any], Iterator[Any]]

SIG = (64, 64)
IMAGES = np.random.default_rng(3).integers(0, 1000, (200, *SIG), dtype=np.uint16)
FRAME_BYTES = 64 * 64 * 2


def direct_io_works() -> bool:
    with tempfile.NamedTemporaryFile() as file:
        try:
            RawFile(file.name, direct=True).close()
        except (RuntimeError, DataSetException):
            return False
    return True


BUFFER = 1 << 18
READING: list[IOBackend] = [BufferedBackend(BUFFER)]
if direct_io_works():
    READING.append(DirectBackend(BUFFER))
ALL = [MMapBackend(), *READING]


def tiles(partition: BasePartition, scheme: TilingScheme, roi: Any = None) -> Iterator[Any]:
    return partition.get_tiles(scheme, roi=roi)


def documented_tiles(partition: BasePartition, scheme: TilingScheme, roi: Any = None) -> Iterator[Any]:
    return partition._get_decoded_tiles(scheme, np.dtype("f4"), roi, "numpy")


def blocks(partition: BasePartition, scheme: TilingScheme, roi: Any = None) -> Iterator[Any]:
    found = partition.get_frame_blocks(ReadOrder.for_kernels(partition.shape.sig.size), roi)
    assert found is not None
    return found


PATHS = [tiles, documented_tiles, blocks]


def count(run: Iterator[Any]) -> IOCounts:
    before = io_counts()
    for _ in run:
        pass
    return io_counts() - before


@pytest.fixture
def largest_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of all reads."""
    sizes: list[int] = []
    original = RawFile.read_into

    def read_into(self: RawFile, out: Any, offset: int, *, needed: int | None = None) -> None:
        sizes.append(out.nbytes)
        original(self, out, offset, needed=needed)

    monkeypatch.setattr(RawFile, "read_into", read_into)
    return sizes


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("backend", READING, ids=str)
class TestReads:
    @pytest.mark.parametrize("tileshape", [(16, 64, 64), (16, 8, 64), (7, 64, 64)])
    def test_a_full_scan_reads_each_byte_about_once_in_large_pieces(
        self,
        store: Store,
        backend: IOBackend,
        path: ReadPath,
        tileshape: tuple[int, ...],
        largest_read: list[int],
    ) -> None:
        stored = store(IMAGES, file_header=77, frame_header=4, frame_footer=6)
        (partition,) = stored.partitions(backend=backend)
        counts = count(path(partition, stored.scheme(*tileshape), None))
        assert IMAGES.nbytes <= counts.read_bytes <= 1.1 * IMAGES.nbytes
        assert counts.read_bytes / counts.reads >= BUFFER / 8
        assert max(largest_read) <= 1.25 * BUFFER + 2 * DIRECT_ALIGNMENT
        assert counts.maps == 0

    def test_one_frame_costs_one_frame(self, store: Store, backend: IOBackend, path: ReadPath) -> None:
        stored = store(IMAGES, file_header=77)
        (partition,) = stored.partitions(backend=backend)
        roi = np.zeros(len(IMAGES), dtype=bool)
        roi[117] = True
        counts = count(path(partition, stored.scheme(16, 64, 64), roi))
        assert counts.reads == 1
        assert FRAME_BYTES <= counts.read_bytes <= FRAME_BYTES + 2 * DIRECT_ALIGNMENT

    def test_scattered_frames_do_not_cost_what_lies_between_them(
        self, store: Store, backend: IOBackend, path: ReadPath
    ) -> None:
        stored = store(IMAGES)
        (partition,) = stored.partitions(backend=backend)
        roi = np.arange(len(IMAGES)) % 10 == 0
        counts = count(path(partition, stored.scheme(16, 64, 64), roi))
        assert counts.read_bytes <= 20 * (FRAME_BYTES + 2 * DIRECT_ALIGNMENT)

    def test_a_partition_reads_only_its_part(self, store: Store, backend: IOBackend, path: ReadPath) -> None:
        stored = store(IMAGES, borders=(90,))
        partition = stored.partitions(10, backend=backend)[4]
        counts = count(path(partition, stored.scheme(16, 64, 64), None))
        assert counts.read_bytes <= 20 * FRAME_BYTES + 4 * DIRECT_ALIGNMENT

    def test_small_frames_with_gaps_between_them_stay_within_the_buffer(
        self, store: Store, backend: IOBackend, path: ReadPath, largest_read: list[int]
    ) -> None:
        stored = store(np.zeros((2000, 4, 4), dtype=np.uint8), frame_header=1000)
        (partition,) = stored.partitions(backend=backend)
        counts = count(path(partition, stored.scheme(100, 4, 4), None))
        assert 2000 * 16 <= counts.read_bytes <= 1.2 * 2000 * 1016
        assert max(largest_read) <= 1.25 * BUFFER + 2 * DIRECT_ALIGNMENT


@pytest.mark.parametrize("path", PATHS)
def test_mapped_files_are_not_read(store: Store, path: ReadPath) -> None:
    stored = store(IMAGES, borders=(50, 120))
    (partition,) = stored.partitions(backend=MMapBackend())
    counts = count(path(partition, stored.scheme(16, 64, 64), None))
    assert counts == IOCounts(reads=0, read_bytes=0, maps=3)


def test_single_frames_of_many_files_are_read_not_mapped(store: Store) -> None:
    stored = store(IMAGES[:40], borders=range(1, 40))
    (partition,) = stored.partitions(backend=MMapBackend())
    counts = count(tiles(partition, stored.scheme(16, 64, 64)))
    assert (counts.reads, counts.read_bytes, counts.maps) == (40, 40 * FRAME_BYTES, 0)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("backend", ALL, ids=str)
class TestNothingIsLeftBehind:
    @pytest.fixture(autouse=True)
    def nothing_left(self, open_files: Callable[[], int]) -> Iterator[None]:
        files, threads = open_files(), threading.active_count()
        yield
        assert open_files() == files
        assert threading.active_count() == threads

    def run(self, store: Store, backend: IOBackend, path: ReadPath, **kwargs: Any) -> Iterator[Any]:
        stored = store(IMAGES, borders=(50, 120), **kwargs)
        (partition,) = stored.partitions(backend=backend)
        return path(partition, stored.scheme(16, 8, 64), None)

    def test_after_the_last_tile(self, store: Store, backend: IOBackend, path: ReadPath) -> None:
        for _ in self.run(store, backend, path):
            pass

    def test_when_a_generator_is_abandoned(self, store: Store, backend: IOBackend, path: ReadPath) -> None:
        run = self.run(store, backend, path)
        assert next(run) is not None
        next(run, None)
        del run

    def test_when_a_generator_is_never_started(
        self, store: Store, backend: IOBackend, path: ReadPath
    ) -> None:
        self.run(store, backend, path)

    def test_when_the_consumer_fails(self, store: Store, backend: IOBackend, path: ReadPath) -> None:
        def consume() -> None:
            for _ in self.run(store, backend, path):
                raise KeyError("consumer")

        with pytest.raises(KeyError) as caught:
            consume()
        del caught

    def test_when_a_file_is_gone(self, store: Store, backend: IOBackend, path: ReadPath) -> None:
        stored = store(IMAGES, borders=(50, 120))
        (partition,) = stored.partitions(backend=backend)
        os.remove(stored.fileset[2].path)
        with pytest.raises(FileNotFoundError, match="the file does not exist") as caught:
            list(path(partition, stored.scheme(16, 8, 64), None))
        assert isinstance(caught.value, DataSetException)
        del caught


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("backend", ALL, ids=str)
@pytest.mark.parametrize("keep", [0, 1, 4096, 200 * FRAME_BYTES // 2, 200 * FRAME_BYTES - 1])
def test_a_file_that_shrank_after_loading_is_an_error(
    store: Store, backend: IOBackend, path: ReadPath, keep: int
) -> None:
    stored = store(IMAGES)
    (partition,) = stored.partitions(backend=backend)
    file = Path(stored.fileset[0].path)
    os.truncate(file, keep)
    with pytest.raises(DataSetException, match=str(file)):
        list(path(partition, stored.scheme(16, 64, 64), None))


@pytest.fixture(scope="module")
def frame_per_file(store: Store) -> Any:
    return store(np.arange(600 * 6, dtype=np.uint16).reshape(600, 2, 3), borders=range(1, 600))


class TestManyFiles:
    """One file per frame, and more of them than a process may have open."""

    LIMIT = 100

    @pytest.fixture(autouse=True)
    def few_descriptors(self, open_files: Callable[[], int]) -> Iterator[None]:
        resource = pytest.importorskip("resource")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_files() + self.LIMIT, hard))
        yield
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    @pytest.mark.parametrize("path", [tiles, documented_tiles])
    @pytest.mark.parametrize("backend", ALL, ids=str)
    @pytest.mark.parametrize("tileshape", [(16, 2, 3), (500, 1, 3)])
    def test_all_frames_are_read(
        self,
        frame_per_file: Any,
        backend: IOBackend,
        path: ReadPath,
        tileshape: tuple[int, ...],
    ) -> None:
        stored = frame_per_file
        result = np.zeros(stored.images.shape)
        for partition in stored.partitions(2, backend=backend):
            for tile in path(partition, stored.scheme(*tileshape), None):
                result[tile.tile_slice.get()] = tile.data
        np.testing.assert_array_equal(result, stored.images)
