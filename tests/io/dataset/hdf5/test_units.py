from __future__ import annotations

from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libertem.io.dataset.hdf5.units import UnitGrid


def make_grid(nav: tuple[int, ...], chunks: tuple[int, ...]) -> UnitGrid:
    return UnitGrid(nav, (4, 6), chunks, (4, 3))


@pytest.mark.parametrize(
    ("nav", "chunks", "step"),
    [
        ((64, 64), (1, 4), 4),
        ((64, 64), (2, 64), 128),
        ((64, 64), (2, 4), 128),
        ((64, 64), (64, 1), 4096),
        ((64, 64), (1, 1), 1),
        ((16, 64, 64), (1, 2, 1), 128),
        ((16, 64, 64), (2, 1, 1), 2 * 4096),
        ((128, 128), (32, 32), 32 * 128),
        ((5,), (7,), 5),
    ],
)
def test_units_are_as_short_as_chunks_allow(nav: tuple[int, ...], chunks: tuple[int, ...], step: int) -> None:
    assert make_grid(nav, chunks).step == step


extents = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 6)), min_size=1, max_size=3)


@settings(max_examples=100, deadline=None)
@given(extents)
def test_units_consist_of_whole_chunks_and_cover_all_frames(axes: list[tuple[int, int]]) -> None:
    nav, chunks = tuple(n for n, _ in axes), tuple(c for _, c in axes)
    grid = make_grid(nav, chunks)
    frames = np.arange(prod(nav), dtype=np.int64)
    starts = grid.starts_of(frames)
    unique = np.unique(starts)
    stops = grid.stops_of(unique)
    assert unique[0] == 0
    np.testing.assert_array_equal(unique[1:], stops[:-1])
    assert stops[-1] == frames.size
    # Which chunk holds each frame (of those that hold the first pixel).
    position = np.array(np.unravel_index(frames, nav)).T // np.array(chunks)
    owner = {tuple(p): set() for p in position.tolist()}
    for p, start in zip(position.tolist(), starts.tolist(), strict=True):
        owner[tuple(p)].add(start)
    assert all(len(found) == 1 for found in owner.values())


@settings(max_examples=60, deadline=None)
@given(extents)
def test_places_lead_each_pixel_to_its_chunk(axes: list[tuple[int, int]]) -> None:
    nav, chunks = tuple(n for n, _ in axes), tuple(c for _, c in axes)
    grid = make_grid(nav, chunks)
    # Each pixel holds the flat number of its chunk.
    full = nav + grid.sig_shape
    on_grid = [np.arange(n) // c for n, c in zip(full, chunks + grid.sig_chunks, strict=True)]
    numbers = np.ravel_multi_index(np.meshgrid(*on_grid, indexing="ij"), grid.grid)
    flat = numbers.reshape(-1, *grid.sig_shape)
    starts = np.unique(grid.starts_of(np.arange(len(flat), dtype=np.int64)))
    firsts = grid.first_chunks(starts)
    for start, stop, first in zip(starts, grid.stops_of(starts), firsts, strict=True):
        unit = flat[start:stop].reshape(-1, *grid.inner_shape, *grid.sig_shape)
        seen = np.zeros(unit.shape, dtype=int)
        for place in grid.places:
            chunk = np.ravel_multi_index(tuple(first + np.array(place.chunk)), grid.grid)
            where = (slice(None), *place.nav, *place.sig)
            assert (unit[where] == chunk).all()
            seen[where] += 1
        assert (seen == 1).all()


def test_bands_cover_all_chunks_of_a_frame() -> None:
    grid = UnitGrid((8,), (10, 6), (4,), (3, 6))
    assert grid.sig_bands(120, 10**9) == (range(4),)
    assert grid.sig_bands(120, 1) == (range(1), range(1, 2), range(2, 3), range(3, 4))
    assert grid.sig_bands(120, 4 * 120 // 2) == (range(2), range(2, 4))
