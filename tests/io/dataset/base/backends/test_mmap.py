from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libertem.exceptions import DataSetException
from libertem.io.dataset.base import File, MMapBackend
from libertem.io.dataset.base.backend_mmap import MMapBackendImpl, MMapFile, MMapFileBase

Store = Callable[..., Any]
IMAGES = np.arange(8 * 20, dtype=np.uint16).reshape(8, 4, 5)


def documented_tiles(stored: Any, tileshape: tuple[int, ...], **kwargs: Any) -> list[Any]:
    (partition,) = stored.partitions(**kwargs)
    return list(partition._get_decoded_tiles(stored.scheme(*tileshape), np.dtype("u2"), None, "numpy"))


def test_an_open_file_shows_its_bytes_and_its_frames(store: Store) -> None:
    stored = store(IMAGES, file_header=6, frame_header=4, frame_footer=2, trailing=3)
    file = MMapFile(stored.fileset[0])
    assert file.desc is stored.fileset[0]
    assert file.raw.size == 6 + 8 * (4 + 40 + 2) + 3
    np.testing.assert_array_equal(file.array, IMAGES.reshape(8, 20))
    assert not file.array.flags.writeable
    file.close()


def test_the_last_footer_of_a_file_may_be_missing(store: Store) -> None:
    stored = store(IMAGES, frame_footer=10)
    path = Path(stored.fileset[0].path)
    path.write_bytes(path.read_bytes()[:-10])
    (tile,) = stored.partitions()[0].get_tiles(stored.scheme(8, 4, 5), dest_dtype="u2")
    np.testing.assert_array_equal(tile.data, IMAGES)


def test_plain_tiles_are_views_on_the_documented_path_too(store: Store) -> None:
    tiles = documented_tiles(store(IMAGES, sync_offset=1), (8, 3, 5))
    assert [t.shape for t in tiles] == [(7, 3, 5), (7, 1, 5)]
    assert not any(t.data.flags.owndata or t.data.flags.writeable or t.c_contiguous for t in tiles[:1])
    np.testing.assert_array_equal(tiles[0].data, IMAGES[1:, :3])


def test_a_tile_that_spans_two_files_is_complete(store: Store) -> None:
    images = np.arange(12 * 6, dtype=np.uint16).reshape(12, 2, 3)
    tiles = documented_tiles(store(images, borders=(6,)), (4, 2, 3))
    assert [t.tile_slice.origin[0] for t in tiles] == [0, 4, 8]


def test_frame_headers_of_odd_length_are_read_on_the_documented_path_too(store: Store) -> None:
    (tile,) = documented_tiles(store(IMAGES, frame_header=3), (8, 4, 5))
    np.testing.assert_array_equal(tile.data, IMAGES)


def test_files_may_hold_their_frames_elsewhere(store: Store) -> None:
    """As a private backend does that keeps its data in memory."""

    class InMemory(MMapFileBase):
        @property
        def raw(self) -> Any:
            return IMAGES.reshape(-1).view(np.uint8)

        @property
        def array(self) -> Any:
            return IMAGES.reshape(8, 20)

    class Impl(MMapBackendImpl):
        def _open(self, file: File) -> MMapFileBase:
            return InMemory(file)

    stored = store(np.zeros_like(IMAGES))
    with Impl().open_files(stored.fileset) as files:
        assert [type(file) for file in files] == [InMemory]
        np.testing.assert_array_equal(files[0].array, IMAGES.reshape(8, 20))
        files[0].close()


def test_opening_checks_that_all_frames_are_there(store: Store) -> None:
    stored = store(IMAGES)
    path = Path(stored.fileset[0].path)
    path.write_bytes(path.read_bytes()[:-1])
    with (
        pytest.raises(DataSetException, match="found 319 bytes, expected at least 320 bytes for 8 frames"),
        MMapBackend().get_impl().open_files(stored.fileset),
    ):
        pass


def test_hints_are_only_hints(store: Store) -> None:
    stored = store(IMAGES)
    (partition,) = stored.partitions(backend=MMapBackend(enable_readahead_hints=True))
    np.testing.assert_array_equal(partition.get_macrotile("u2").data, IMAGES)
