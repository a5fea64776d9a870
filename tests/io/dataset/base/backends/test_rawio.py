from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from libertem.exceptions import DataSetException, FileAccessError, MissingFileError
from libertem.io.dataset.base.backends.rawio import (
    DIRECT_ALIGNMENT,
    IOCounts,
    RawFile,
    aligned_buffer,
    as_dataset_error,
    direct_supported,
    io_counts,
)

CONTENT = np.random.default_rng(1).bytes(3 * DIRECT_ALIGNMENT + 100)


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "f.bin"
    file.write_bytes(CONTENT)
    return str(file)


def read(file: RawFile, offset: int, n: int) -> bytes:
    out = np.zeros(n, dtype=np.uint8)
    file.read_into(out, offset)
    return out.tobytes()


@pytest.mark.parametrize(("offset", "n"), [(0, 10), (7, 5000), (12000, 388), (0, len(CONTENT)), (50, 0)])
def test_any_range_can_be_read(path: str, offset: int, n: int) -> None:
    with RawFile(path) as file:
        assert file.size() == len(CONTENT)
        assert read(file, offset, n) == CONTENT[offset : offset + n]


def test_a_file_that_ends_before_its_data_is_reported(path: str) -> None:
    with (
        RawFile(path) as file,
        pytest.raises(
            DataSetException,
            match=r"f\.bin: the file ends before .* found 12388 bytes, expected at least 12400",
        ),
    ):
        read(file, 12300, 100)


def test_more_than_needed_may_be_missing(path: str) -> None:
    out = np.zeros(4096, dtype=np.uint8)
    with RawFile(path) as file:
        file.read_into(out, 3 * DIRECT_ALIGNMENT, needed=100)
    assert out[:100].tobytes() == CONTENT[-100:]


class SlowDisk:
    """Transfers a few bytes at a time, as network file systems may; refuses what direct I/O refuses."""

    def __init__(self, at_most: int) -> None:
        self.at_most = at_most
        self.offsets: list[int] = []

    def __call__(self, out: memoryview, offset: int) -> int:
        self.offsets.append(offset)
        part = CONTENT[offset : offset + min(self.at_most, len(out))]
        out[: len(part)] = part
        return len(part)


@pytest.mark.parametrize("at_most", [1000, 4096, 5000])
@pytest.mark.parametrize("direct", [False, True])
def test_short_reads_are_continued(
    path: str, monkeypatch: pytest.MonkeyPatch, at_most: int, direct: bool
) -> None:
    disk = SlowDisk(at_most)
    out = np.zeros(2 * DIRECT_ALIGNMENT, dtype=np.uint8)
    with RawFile(path) as file:
        monkeypatch.setattr(file, "_read_once", disk)
        monkeypatch.setattr(file, "_direct", direct)
        file.read_into(out, DIRECT_ALIGNMENT)
    assert out.tobytes() == CONTENT[DIRECT_ALIGNMENT : 3 * DIRECT_ALIGNMENT]
    if direct and at_most >= DIRECT_ALIGNMENT:
        assert all(offset % DIRECT_ALIGNMENT == 0 for offset in disk.offsets)


def test_platforms_without_positional_reads_seek(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "preadv", raising=False)
    with RawFile(path) as file:
        assert read(file, 300, 50) == CONTENT[300:350]
        assert read(file, 100, 50) == CONTENT[100:150]


def test_platforms_without_advice_say_so(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    with RawFile(path) as file:
        assert file.advise_willneed(0, 100) is False


def test_a_map_outlives_the_file(path: str) -> None:
    with RawFile(path) as file:
        mapped = file.map()
    assert mapped.tobytes() == CONTENT
    assert not mapped.flags.writeable


def test_an_empty_file_cannot_be_mapped(tmp_path: Path) -> None:
    empty = tmp_path / "empty.bin"
    empty.touch()
    with RawFile(str(empty)) as file, pytest.raises(DataSetException, match=r"empty\.bin: the file is empty"):
        file.map()


def test_reads_are_counted_when_a_file_is_closed(path: str) -> None:
    before = io_counts()
    file = RawFile(path)
    read(file, 0, 100)
    read(file, 50, 100)
    file.map()
    assert io_counts() - before == IOCounts(maps=1)
    file.close()
    file.close()
    assert io_counts() - before == IOCounts(reads=2, read_bytes=200, maps=1)


def test_descriptors_are_closed(path: str) -> None:
    file = RawFile(path)
    fd = file.fileno()
    file.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@pytest.mark.parametrize("n", [0, 1, 4096, 4097, 1 << 20])
def test_buffers_start_on_a_page(n: int) -> None:
    buffer = aligned_buffer(n)
    assert buffer.size >= n
    assert buffer.ctypes.data % DIRECT_ALIGNMENT == 0
    assert buffer.flags.writeable


@pytest.mark.parametrize(
    ("error", "kind", "builtin"),
    [
        (FileNotFoundError(2, "gone"), MissingFileError, FileNotFoundError),
        (PermissionError(13, "locked"), FileAccessError, PermissionError),
        (IsADirectoryError(21, "a directory"), DataSetException, Exception),
        (OSError(5, "broken"), DataSetException, Exception),
    ],
)
def test_errors_of_the_system_become_those_of_the_library(
    error: OSError, kind: type[Exception], builtin: type[Exception]
) -> None:
    with pytest.raises(kind, match=r"f\.bin") as caught, as_dataset_error("f.bin"):
        raise error
    assert isinstance(caught.value, builtin)
    assert caught.value.__cause__ is error


def test_errors_of_the_library_stay_what_they_are() -> None:
    error = DataSetException("too short")
    with pytest.raises(DataSetException) as caught, as_dataset_error("f.bin"):
        raise error
    assert caught.value is error


def test_a_missing_file_is_both_kinds_of_error(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"none\.bin: the file does not exist") as caught:
        RawFile(str(tmp_path / "none.bin"))
    assert isinstance(caught.value, FileNotFoundError)


def test_platforms_without_direct_io_say_so(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "O_DIRECT", raising=False)
    assert not direct_supported()
    with pytest.raises(RuntimeError, match=r"Direct I/O not supported on this platform\."):
        RawFile(path, direct=True)


def test_large_reads_are_cut_into_pieces(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("libertem.io.dataset.base.backends.rawio._MAX_READ", 1000)
    before = io_counts()
    with RawFile(path) as file:
        assert read(file, 0, 2500) == CONTENT[:2500]
    assert (io_counts() - before).reads == 3
