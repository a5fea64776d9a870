from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libertem.common import Shape
from libertem.exceptions import DataSetException
from libertem.io.dataset.base import TilingScheme, default_get_read_ranges
from libertem.io.dataset.base.ranges import contiguous_runs

ONE_FILE = np.array([[0, 8, 0, 0]], dtype=np.int64)


def read_ranges(tileshape: tuple[int, ...], sig: tuple[int, ...] = (4, 5), **kwargs: Any) -> Any:
    """Ranges of eight images of uint16 in one file."""
    scheme = TilingScheme.make_for_shape(
        Shape(tileshape, sig_dims=len(sig)), Shape((8, *sig), sig_dims=len(sig))
    )
    arguments: dict[str, Any] = {
        "start_at_frame": 0,
        "stop_before_frame": 8,
        "roi_nonzero": None,
        "depth": tileshape[0],
        "slices_arr": scheme.slices_array,
        "fileset_arr": ONE_FILE,
        "sig_shape": sig,
        "bpp": 16,
    }
    return default_get_read_ranges(**{**arguments, **kwargs})


def pairs(ranges: npt.NDArray[np.int64]) -> list[list[tuple[int, int]]]:
    """Bytes of each tile without padding."""
    return [[(int(a), int(b)) for _, a, b in tile if b] for tile in ranges]


def test_tiles_of_a_partition() -> None:
    slices, ranges, indices = read_ranges((3, 2, 5), stop_before_frame=4)
    assert slices.tolist() == [
        [[0, 0, 0], [3, 2, 5]],
        [[0, 2, 0], [3, 2, 5]],
        [[3, 0, 0], [1, 2, 5]],
        [[3, 2, 0], [1, 2, 5]],
    ]
    assert pairs(ranges) == [
        [(0, 20), (40, 60), (80, 100)],
        [(20, 40), (60, 80), (100, 120)],
        [(120, 140)],
        [(140, 160)],
    ]
    assert indices.tolist() == [0, 1, 0, 1]
    assert {a.dtype for a in (slices, ranges, indices)} == {np.dtype(np.int64)}


@pytest.mark.parametrize(
    ("start", "stop", "origins", "expected"),
    [
        (0, 4, [0, 0], [[(40, 60), (120, 140)], [(60, 80), (140, 160)]]),
        (4, 8, [2, 2], [[(240, 260)], [(260, 280)]]),
    ],
)
def test_tiles_of_a_selection(
    start: int, stop: int, origins: list[int], expected: list[list[tuple[int, int]]]
) -> None:
    slices, ranges, _ = read_ranges(
        (2, 2, 5), start_at_frame=start, stop_before_frame=stop, roi_nonzero=np.array([1, 3, 6])
    )
    assert slices[:, 0, 0].tolist() == origins
    assert pairs(ranges) == expected


@pytest.mark.parametrize(
    ("offset", "start", "stop", "tiles", "expected"),
    [
        (3, 3, 7, [(0, 2), (2, 2)], [[(120, 160), (160, 200)], [(200, 240), (240, 280)]]),
        (3, 7, 8, [(4, 1)], [[(280, 320)]]),
        (-3, -3, 1, [(3, 1)], [[(0, 40)]]),
        (-3, 1, 5, [(4, 2), (6, 2)], [[(40, 80), (80, 120)], [(120, 160), (160, 200)]]),
    ],
)
def test_partitions_at_the_borders_of_the_scan(
    offset: int,
    start: int,
    stop: int,
    tiles: list[tuple[int, int]],
    expected: list[list[tuple[int, int]]],
) -> None:
    slices, ranges, _ = read_ranges(
        (2, 4, 5), start_at_frame=start, stop_before_frame=stop, sync_offset=offset
    )
    assert [(t[0][0], t[1][0]) for t in slices.tolist()] == tiles
    assert pairs(ranges) == expected


@pytest.mark.parametrize(
    ("start", "stop", "origin", "expected"), [(-3, 1, 1, (0, 40)), (1, 5, 2, (120, 160))]
)
def test_selected_blanks_keep_their_place(
    start: int, stop: int, origin: int, expected: tuple[int, int]
) -> None:
    slices, ranges, _ = read_ranges(
        (2, 4, 5),
        start_at_frame=start,
        stop_before_frame=stop,
        sync_offset=-3,
        roi_nonzero=np.array([1, 3, 6]),
    )
    assert slices[:, 0, 0].tolist() == [origin]
    assert pairs(ranges) == [[expected]]


def test_only_as_many_ranges_as_the_deepest_tile_has() -> None:
    _, ranges, _ = read_ranges((4, 4, 5), stop_before_frame=2)
    assert ranges.shape == (1, 2, 3)


@pytest.mark.parametrize("kwargs", [{"stop_before_frame": 0}, {"roi_nonzero": np.array([], dtype=np.int64)}])
def test_no_frames_make_no_tiles(kwargs: dict[str, Any]) -> None:
    slices, ranges, indices = read_ranges((4, 2, 5), **kwargs)
    assert (slices.shape, ranges.shape, indices.shape) == ((0, 2, 3), (0, 4, 3), (0,))


@pytest.mark.parametrize(
    ("bpp", "expected"), [(12, [(0, 24), (48, 72), (96, 120)]), (1, [(0, 2), (4, 6), (8, 10)])]
)
def test_packed_pixels_on_byte_borders(bpp: int, expected: list[tuple[int, int]]) -> None:
    _, ranges, _ = read_ranges((3, 2, 8), sig=(4, 8), bpp=bpp, stop_before_frame=3)
    assert pairs(ranges)[0] == expected


@pytest.mark.parametrize("bpp", [1, 12])
def test_packed_pixels_between_byte_borders_are_refused(bpp: int) -> None:
    with pytest.raises(DataSetException, match="byte boundary"):
        read_ranges((1, 1, 3), sig=(2, 3), bpp=bpp)


def test_files_are_counted_by_the_column_of_indices() -> None:
    files = np.array([[4, 6, 5, 10], [6, 9, 7, 20]])
    _, ranges, _ = read_ranges((4, 4, 5), start_at_frame=5, stop_before_frame=8, fileset_arr=files)
    assert ranges[0].tolist() == [[5, 50, 90], [7, 20, 60], [7, 60, 100]]


@pytest.mark.parametrize("files", [[[0, 3, 0, 0]], [[2, 8, 0, 0]], [[0, 3, 0, 0], [4, 8, 1, 0]]])
def test_frames_without_a_file_are_refused(files: list[list[int]]) -> None:
    with pytest.raises(DataSetException, match="no file holds a frame: found frame"):
        read_ranges((4, 4, 5), fileset_arr=np.array(files))


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_runs_are_the_pixels_of_a_region(sig: list[int], data: st.DataObject) -> None:
    shape = [data.draw(st.integers(1, full)) for full in sig]
    origin = [data.draw(st.integers(0, full - s)) for full, s in zip(sig, shape, strict=True)]
    starts, length = contiguous_runs(origin, shape, sig)
    numbers = np.arange(np.prod(sig)).reshape(sig)
    region = numbers[tuple(slice(o, o + s) for o, s in zip(origin, shape, strict=True))]
    np.testing.assert_array_equal((starts[:, np.newaxis] + np.arange(length)).reshape(-1), region.reshape(-1))


@pytest.mark.parametrize(
    ("origin", "shape", "n_runs"),
    [((0, 0), (4, 5), 1), ((1, 0), (2, 5), 1), ((1, 2), (1, 3), 1), ((0, 1), (3, 2), 3)],
)
def test_regions_are_cut_as_little_as_possible(
    origin: tuple[int, ...], shape: tuple[int, ...], n_runs: int
) -> None:
    assert len(contiguous_runs(origin, shape, (4, 5))[0]) == n_runs


@st.composite
def layouts(draw: st.DrawFn) -> dict[str, Any]:
    """Images in files, a tiling, a mask and partitions."""
    sig = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    n = draw(st.integers(1, 16))
    positions = draw(st.integers(1, 20))
    return {
        "sig": sig,
        "n": n,
        "tileshape": (draw(st.integers(1, 18)), *(draw(st.integers(1, full)) for full in sig)),
        "borders": sorted(draw(st.sets(st.integers(1, n - 1), max_size=4))) if n > 1 else [],
        "offset": draw(st.integers(1 - n, n - 1)),
        "cuts": sorted(draw(st.sets(st.integers(1, positions), max_size=3)) | {0, positions}),
        "roi": draw(st.none() | st.lists(st.booleans(), min_size=positions, max_size=positions)),
        "header": draw(st.integers(0, 5)),
        "footer": draw(st.integers(0, 5)),
    }


@given(layouts())
def test_ranges_hold_the_pixels_of_their_tiles_and_no_tile_is_missing(case: dict[str, Any]) -> None:
    """Follow each range into files of pixel numbers: nothing is read twice, left out, or out of bounds."""
    sig, n, offset, roi = case["sig"], case["n"], case["offset"], case["roi"]
    images = np.arange(n * int(np.prod(sig)), dtype=np.uint16).reshape(n, *sig)
    edges = [0, *case["borders"], n]
    files = []
    for start, stop in itertools.pairwise(edges):
        raw = b"file header"
        for image in images[start:stop]:
            raw += b"<" * case["header"] + image.tobytes() + b">" * case["footer"]
        files.append(raw)
    table = np.array([(a, b, i, 11) for i, (a, b) in enumerate(itertools.pairwise(edges))])
    grid = TilingScheme.make_for_shape(Shape(case["tileshape"], len(sig)), Shape((n, *sig), len(sig)))
    positions = case["cuts"][-1]
    selected = [i for i in range(positions) if roi is None or roi[i]]
    result = np.full((len(selected), *sig), -1)
    for start, stop in itertools.pairwise(case["cuts"]):
        slices, ranges, indices = default_get_read_ranges(
            start_at_frame=start + offset,
            stop_before_frame=min(stop + offset, n),
            roi_nonzero=None if roi is None else np.flatnonzero(roi),
            depth=case["tileshape"][0],
            slices_arr=grid.slices_array,
            fileset_arr=table,
            sig_shape=sig,
            bpp=16,
            sync_offset=offset,
            frame_header_bytes=case["header"],
            frame_footer_bytes=case["footer"],
        )
        for (origin, shape), tile, idx in zip(slices, ranges, indices, strict=True):
            assert [origin[1:].tolist(), shape[1:].tolist()] == grid.slices_array[idx].tolist()
            assert 1 <= shape[0] <= case["tileshape"][0]
            used = [row for row in tile.tolist() if row[1] or row[2]]
            assert tile.tolist() == used + [[0, 0, 0]] * (len(tile) - len(used))
            pixels = b"".join(files[f][a:b] for f, a, b in used)
            assert len(pixels) == sum(b - a for _, a, b in used)
            region = result[tuple(slice(o, o + s) for o, s in zip(origin, shape, strict=True))]
            assert (region == -1).all()
            region[:] = np.frombuffer(pixels, np.uint16).reshape(shape)
    for row, i in enumerate(selected):
        expected = images[i + offset] if 0 <= i + offset < n else np.full(sig, -1)
        np.testing.assert_array_equal(result[row], expected)


def test_a_million_tiles() -> None:
    frames = np.array([[0, 1_000_000, 0, 0]])
    slices, ranges, _ = read_ranges((1, 4, 5), stop_before_frame=1_000_000, fileset_arr=frames)
    assert slices.shape[0] == 1_000_000
    assert ranges[-1, 0].tolist() == [0, 39_999_960, 40_000_000]
