from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libertem.common import Shape
from libertem.io.dataset.base import TilingScheme
from libertem.io.dataset.base.blocks import MIN_FRAMES_PER_BLOCK, ReadOrder, Slab


def order_for(tileshape: tuple[int, ...], sig: tuple[int, ...]) -> ReadOrder:
    return ReadOrder.for_scheme(
        TilingScheme.make_for_shape(Shape(tileshape, len(sig)), Shape((100, *sig), len(sig)))
    )


def test_slices_of_whole_rows_are_slabs() -> None:
    order = order_for((7, 2, 5), (5, 5))
    assert (order.depth, order.for_tiles) == (7, True)
    assert order.slabs == (
        Slab(0, 10, range(1)),
        Slab(10, 20, range(1, 2)),
        Slab(20, 25, range(2, 3)),
    )


def test_slices_that_interleave_share_a_slab() -> None:
    order = order_for((7, 2, 3), (4, 5))
    assert order.slabs == (Slab(0, 10, range(2)), Slab(10, 20, range(2, 4)))


def test_slabs_can_be_joined_to_whole_frames() -> None:
    order = order_for((7, 2, 3), (4, 5)).whole_frames()
    assert order == ReadOrder(7, (Slab(0, 20, range(4)),), for_tiles=True)


def test_kernels_take_whole_frames() -> None:
    assert ReadOrder.for_kernels(20) == ReadOrder(1, (Slab(0, 20, range(0)),), for_tiles=False)


def test_blocks_for_tiles_hold_whole_tiles() -> None:
    assert order_for((7, 2, 5), (4, 5)).fit(frame_px=20, itemsize=2, limit=1000) == (
        21,
        (Slab(0, 20, range(2)),),
    )


def test_deep_tiles_are_read_in_slabs_as_large_as_the_limit_allows() -> None:
    depth, slabs = order_for((100, 1, 5), (4, 5)).fit(frame_px=20, itemsize=2, limit=2000)
    assert depth == 100
    assert slabs == (Slab(0, 10, range(2)), Slab(10, 20, range(2, 4)))


def test_a_tile_is_never_cut() -> None:
    assert order_for((100, 2, 5), (4, 5)).fit(frame_px=20, itemsize=2, limit=1) == (
        100,
        (Slab(0, 10, range(1)), Slab(10, 20, range(1, 2))),
    )


@pytest.mark.parametrize(("limit", "frames"), [(400, 10), (320, MIN_FRAMES_PER_BLOCK)])
def test_kernels_get_as_many_whole_frames_as_fit(limit: int, frames: int) -> None:
    assert ReadOrder.for_kernels(20).fit(20, 2, limit) == (frames, (Slab(0, 20, range(0)),))


def test_kernels_get_parts_of_many_frames_rather_than_a_few_whole_ones() -> None:
    frames, slabs = ReadOrder.for_kernels(20).fit(20, 2, 112)
    assert frames == MIN_FRAMES_PER_BLOCK
    assert [(slab.px_start, slab.px_stop) for slab in slabs] == [(0, 7), (7, 14), (14, 20)]


@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=3),
    st.integers(1, 50),
    st.integers(1, 10_000),
)
def test_slabs_hold_each_slice_and_each_pixel_once(
    axes: list[tuple[int, int]], depth: int, limit: int
) -> None:
    sig = tuple(full for full, _ in axes)
    tile = tuple(min(full, part) for full, part in axes)
    scheme = TilingScheme.make_for_shape(Shape((depth, *tile), len(sig)), Shape((100, *sig), len(sig)))
    px = int(np.prod(sig))
    _, slabs = ReadOrder.for_scheme(scheme).fit(px, 2, limit)
    assert [i for slab in slabs for i in slab.slices] == list(range(len(scheme)))
    assert (slabs[0].px_start, slabs[-1].px_stop) == (0, px)
    assert all(a.px_stop == b.px_start for a, b in itertools.pairwise(slabs))
    numbers = np.arange(px).reshape(sig)
    for slab in slabs:
        for i in slab.slices:
            inside = scheme[i].get(numbers)
            assert slab.px_start <= inside.min()
            assert inside.max() < slab.px_stop
