from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from libertem.io.dataset.base import BufferedBackend
from libertem.io.dataset.base.backends.rawio import RawFile
from libertem.io.dataset.base.blocks import ReadOrder

Store = Callable[..., Any]
IMAGES = np.random.default_rng(4).integers(0, 1000, (300, 32, 32), dtype=np.uint16)


def read(store: Store, max_buffer_size: int) -> Any:
    stored = store(IMAGES, borders=(7, 120))
    (partition,) = stored.partitions(backend=BufferedBackend(max_buffer_size))
    result = np.zeros_like(IMAGES)
    for tile in partition.get_tiles(stored.scheme(10, 32, 32), dest_dtype="u2"):
        result[tile.tile_slice.get()] = tile.data
    return result


@pytest.mark.parametrize("max_buffer_size", [1 << 12, 1 << 17, 1 << 24])
def test_without_advice_a_thread_reads_ahead(
    store: Store, monkeypatch: pytest.MonkeyPatch, max_buffer_size: int
) -> None:
    monkeypatch.setattr(RawFile, "advise_willneed", lambda *_: False)
    np.testing.assert_array_equal(read(store, max_buffer_size), IMAGES)
    assert not [t for t in threading.enumerate() if t.name == "libertem-read-ahead"]


def test_the_system_is_asked_for_the_next_blocks_before_the_current_one_is_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[str, str, int, int]] = []
    read_into = RawFile.read_into

    def advise(self: RawFile, offset: int, length: int) -> bool:
        events.append(("advise", self.path, offset, length))
        return True

    def logged(self: RawFile, out: Any, offset: int, *, needed: int | None = None) -> None:
        events.append(("read", self.path, offset, out.nbytes))
        read_into(self, out, offset, needed=needed)

    monkeypatch.setattr(RawFile, "advise_willneed", advise)
    monkeypatch.setattr(RawFile, "read_into", logged)
    window = 1 << 17
    np.testing.assert_array_equal(read(store, window), IMAGES)
    advised = [event[1:] for event in events[1:] if event[0] == "advise"]
    reads = [event[1:] for event in events if event[0] == "read"]
    assert advised == reads
    ahead = largest = 0
    for kind, _, _, length in events[1:]:
        ahead += length if kind == "advise" else -length
        assert ahead >= 0
        largest = max(largest, ahead)
    assert window <= largest <= 2 * window


def test_blocks_for_kernels_stay_in_the_cache(store: Store) -> None:
    stored = store(np.zeros((300, 64, 64), np.uint16))
    (partition,) = stored.partitions(backend=BufferedBackend())
    blocks = partition.get_frame_blocks(ReadOrder.for_kernels(64 * 64), None)
    sizes = [block.n_frames * block.n_px * 2 for block in blocks]
    assert sum(sizes) == 300 * 64 * 64 * 2
    assert max(sizes) <= 1 << 20
