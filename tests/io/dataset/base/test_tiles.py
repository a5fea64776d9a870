"""`TileCutter` on blocks made by hand; `test_partition` has those of the I/O backends."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from libertem.common import Shape
from libertem.exceptions import DataSetException
from libertem.io.corrections import CorrectionSet
from libertem.io.dataset.base import File, FileSet, TilingScheme
from libertem.io.dataset.base.blocks import FrameBlock, FrameRun, FrameTable, Slab
from libertem.io.dataset.base.tiles import TileCutter

SIG = (4, 5)
PIXELS = np.arange(400, dtype=np.uint16)
PIXELS.flags.writeable = False


def make_cutter(
    tileshape: tuple[int, ...] = (4, 4, 5), dest: str = "u2", stored: str = "u2", corrections: Any = None
) -> TileCutter:
    scheme = TilingScheme.make_for_shape(Shape(tileshape, 2), Shape((20, *SIG), 2))
    table = FrameTable(
        fileset=FileSet([File("f.bin", 0, 20, stored, SIG)]),
        files=np.zeros(20, dtype=np.int64),
        offsets=np.arange(20, dtype=np.int64),
        first=0,
        dtype=np.dtype(stored),
        sig_shape=SIG,
    )
    return TileCutter(table, scheme, dest, corrections)


def make_block(*starts: list[int], first: int = 10, n_slices: int = 1, **kwargs: Any) -> FrameBlock:
    runs = tuple(FrameRun(PIXELS, np.array(run, dtype=np.int64)) for run in starts)
    slab = Slab(kwargs.get("px_start", 0), kwargs.get("px_stop", 20), range(n_slices))
    return FrameBlock(
        first=first, runs=runs, px_start=slab.px_start, px_stop=slab.px_stop, swapped=False, slab=slab
    )


def frame(start: int) -> npt.NDArray[np.uint16]:
    return PIXELS[start : start + 20].reshape(SIG)


def test_frames_at_regular_distances_are_viewed() -> None:
    (tile,) = make_cutter().cut(make_block([0, 30, 60]))
    assert np.shares_memory(tile.data, PIXELS)
    assert not tile.data.flags.writeable
    np.testing.assert_array_equal(tile.data, [frame(0), frame(30), frame(60)])


def test_a_single_frame_is_viewed() -> None:
    tiles = list(make_cutter((1, 4, 5)).cut(make_block([0, 7])))
    assert [t.tile_slice.origin[0] for t in tiles] == [10, 11]
    assert all(np.shares_memory(t.data, PIXELS) for t in tiles)


@pytest.mark.parametrize("starts", [[0, 21, 60], [60, 30, 0]])
def test_other_frames_are_gathered(starts: list[int]) -> None:
    (tile,) = make_cutter().cut(make_block(starts))
    np.testing.assert_array_equal(tile.data, [frame(start) for start in starts])


def test_a_tile_can_combine_runs() -> None:
    (tile,) = make_cutter().cut(make_block([0, 20], [100], [200]))
    np.testing.assert_array_equal(tile.data, [frame(start) for start in (0, 20, 100, 200)])


def test_tiles_are_as_deep_as_the_scheme() -> None:
    tiles = list(make_cutter((2, 4, 5)).cut(make_block([0, 20], [100, 120, 140])))
    assert [(t.tile_slice.origin[0], t.shape[0]) for t in tiles] == [(10, 2), (12, 2), (14, 1)]


def test_only_the_slices_in_the_block_are_cut() -> None:
    cutter = make_cutter((4, 2, 5))
    block = make_block([0, 40], px_start=10)
    second = FrameBlock(10, block.runs, 10, 20, swapped=False, slab=Slab(10, 20, range(1, 2)))
    (tile,) = cutter.cut(second)
    assert (tile.tile_slice.origin, tile.scheme_idx) == ((10, 2, 0), 1)
    np.testing.assert_array_equal(tile.data[1], PIXELS[40:50].reshape(2, 5))


def test_converted_tiles_share_their_memory() -> None:
    cutter = make_cutter((1, 4, 5), dest="f4")
    tiles = [t.data for t in cutter.cut(make_block([0, 20]))]
    assert tiles[0].dtype == np.float32
    assert tiles[0].ctypes.data == tiles[1].ctypes.data


def test_corrections_are_applied_to_copies() -> None:
    corrections = CorrectionSet(dark=np.ones(SIG))
    (tile,) = make_cutter((4, 2, 5), "f4", corrections=corrections).cut(make_block([0, 20]))
    np.testing.assert_array_equal(tile.data[0], frame(0)[:2] - 1.0)
    assert not np.shares_memory(tile.data, PIXELS)


def test_empty_corrections_change_nothing() -> None:
    (tile,) = make_cutter(corrections=CorrectionSet()).cut(make_block([0, 20]))
    assert np.shares_memory(tile.data, PIXELS)


def test_complex_pixels_are_not_made_real() -> None:
    with pytest.raises(DataSetException, match="complex data cannot be read as real numbers"):
        make_cutter(stored="c8", dest="f4")
