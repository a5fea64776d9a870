from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from libertem.io.dataset.base import File
from libertem.io.dataset.base.backends.openfiles import MAX_OPEN, RecentFiles

Store = Callable[..., Any]


class Log:
    """Files that note when they are opened and closed."""

    def __init__(self) -> None:
        self.opened: list[int] = []
        self.closed: list[int] = []

    def __call__(self, file: File) -> Any:
        log, number = self, file.start_idx
        log.opened.append(number)

        class Opened:
            def close(self) -> None:
                log.closed.append(number)

        return Opened()


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture(scope="module")
def fileset(store: Store) -> Any:
    return store(np.zeros((100, 2), np.uint8), borders=range(1, 100)).fileset


def test_files_are_opened_on_first_use(log: Log, fileset: Any) -> None:
    with RecentFiles(log, fileset) as files:
        assert log.opened == []
        assert files[3] is files[3]
        assert log.opened == [3]
    assert log.closed == [3]


def test_only_some_are_open_at_a_time(log: Log, fileset: Any) -> None:
    with RecentFiles(log, fileset) as files:
        for idx in range(100):
            _ = files[idx]
            assert len(log.opened) - len(log.closed) <= MAX_OPEN
    assert sorted(log.closed) == log.opened == list(range(100))


def test_all_are_closed_after_an_error(log: Log, fileset: Any) -> None:
    def use() -> None:
        with RecentFiles(log, fileset) as files:
            _ = files[0], files[1]
            raise KeyError("consumer")

    with pytest.raises(KeyError):
        use()
    assert sorted(log.closed) == [0, 1]
