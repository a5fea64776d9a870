"""Hooks as third-party formats write them: compiled by themselves, at module level."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libertem.common import Shape
from libertem.exceptions import DataSetException
from libertem.io.dataset.base import TilingScheme, default_get_read_ranges, make_get_read_ranges
from libertem.io.dataset.base.range_hooks import _compile, _default_read_ranges_tile_block, _stamp


@numba.njit(cache=False)
def back_to_back(
    bpp,
    frame_in_file_idx,
    slice_sig_size,
    sig_size,
    sig_origin,
    frame_footer_bytes,
    frame_header_bytes,
    file_header_bytes,
    file_idx,
    read_ranges,
):
    """The formula of the contract."""
    byte0 = (
        file_header_bytes
        + (frame_in_file_idx + 1) * frame_header_bytes
        + frame_in_file_idx * frame_footer_bytes
        + (frame_in_file_idx * sig_size * bpp) // 8
    )
    start = byte0 + (sig_origin * bpp) // 8
    read_ranges.append((file_idx, start, start + (slice_sig_size * bpp) // 8))


@numba.njit(inline="always", cache=False)
def two_halves(
    bpp,
    frame_in_file_idx,
    slice_sig_size,
    sig_size,
    sig_origin,
    frame_footer_bytes,
    frame_header_bytes,
    file_header_bytes,
    file_idx,
    read_ranges,
):
    """Two ranges per frame with an entry for the decoder."""
    start = (frame_in_file_idx * sig_size + sig_origin) * 2
    read_ranges.append((file_idx, start, start + slice_sig_size, 1))
    read_ranges.append((file_idx, start + slice_sig_size, start + 2 * slice_sig_size, 2))


@numba.njit(cache=False)
def first_and_last(
    slices_arr,
    fileset_arr,
    slice_sig_sizes,
    sig_origins,
    inner_indices_start,
    inner_indices_stop,
    frame_indices,
    sig_size,
    px_to_bytes,
    bpp,
    frame_header_bytes,
    frame_footer_bytes,
    file_idxs,
    slice_offset,
    extra,
    sig_shape,
):
    """Only the first and the last frame of a block, with everything that the hook is told."""
    result = []
    for q in range(slices_arr.shape[0]):
        tile_slice = np.zeros((2, 3), dtype=np.int64)
        tile_slice[0, 0] = inner_indices_start + slice_offset
        tile_slice[1, 0] = inner_indices_stop - inner_indices_start
        for axis in range(2):
            tile_slice[0, 1 + axis] = slices_arr[q, 0, axis]
            tile_slice[1, 1 + axis] = slices_arr[q, 1, axis]
        ranges = []
        for i in (inner_indices_start, inner_indices_stop - 1):
            row = file_idxs[i - inner_indices_start]
            px_to_bytes(
                bpp=bpp,
                frame_in_file_idx=frame_indices[i] - fileset_arr[row, 0],
                slice_sig_size=slice_sig_sizes[q],
                sig_size=sig_size,
                sig_origin=sig_origins[q],
                frame_footer_bytes=frame_footer_bytes,
                frame_header_bytes=frame_header_bytes,
                file_header_bytes=fileset_arr[row, 3] + extra[row],
                file_idx=fileset_arr[row, 2],
                read_ranges=ranges,
            )
        result.append((q, tile_slice, ranges))
    return result


def arguments(
    tileshape: tuple[int, ...] = (4, 2, 5), sig: tuple[int, ...] = (4, 5), **kwargs: Any
) -> dict[str, Any]:
    scheme = TilingScheme.make_for_shape(Shape(tileshape, len(sig)), Shape((8, *sig), len(sig)))
    return {
        "start_at_frame": 1,
        "stop_before_frame": 7,
        "roi_nonzero": None,
        "depth": tileshape[0],
        "slices_arr": scheme.slices_array,
        "fileset_arr": np.array([[0, 3, 0, 10], [3, 9, 1, 20]]),
        "sig_shape": sig,
        "bpp": 16,
        **kwargs,
    }


def test_without_hooks_nothing_is_compiled() -> None:
    assert make_get_read_ranges() is default_get_read_ranges


with_own_px_to_bytes = make_get_read_ranges(px_to_bytes=back_to_back)


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    sig = (draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    offset = draw(st.integers(-8, 8))
    start = draw(st.integers(-3, 9))
    roi = draw(st.none() | st.lists(st.booleans(), min_size=12, max_size=12))
    return arguments(
        tileshape=(draw(st.integers(1, 9)), draw(st.integers(1, sig[0])), draw(st.integers(1, sig[1]))),
        sig=sig,
        start_at_frame=start,
        stop_before_frame=draw(st.integers(start, 9)),
        roi_nonzero=None if roi is None else np.flatnonzero(roi),
        sync_offset=offset,
        frame_header_bytes=draw(st.integers(0, 9)),
        frame_footer_bytes=draw(st.integers(0, 9)),
    )


@settings(deadline=None)
@given(cases())
def test_compiled_ranges_are_those_of_the_vectorised_default(case: dict[str, Any]) -> None:
    for ours, default in zip(with_own_px_to_bytes(**case), default_get_read_ranges(**case), strict=True):
        assert ours.dtype == default.dtype
        np.testing.assert_array_equal(ours, default)


def test_compiled_ranges_of_three_signal_axes() -> None:
    case = arguments(tileshape=(2, 2, 1, 3), sig=(3, 2, 4))
    for ours, default in zip(with_own_px_to_bytes(**case), default_get_read_ranges(**case), strict=True):
        np.testing.assert_array_equal(ours, default)


def test_a_frame_may_have_several_ranges_with_more_entries() -> None:
    slices, ranges, indices = make_get_read_ranges(px_to_bytes=two_halves)(**arguments((4, 4, 5)))
    assert slices.tolist() == [[[1, 0, 0], [4, 4, 5]], [[5, 0, 0], [2, 4, 5]]]
    assert ranges.shape == (2, 8, 4)
    assert ranges[0, :4].tolist() == [[0, 40, 60, 1], [0, 60, 80, 2], [0, 80, 100, 1], [0, 100, 120, 2]]
    assert ranges[1, :2].tolist() == [[1, 80, 100, 1], [1, 100, 120, 2]]
    assert not ranges[1, 4:].any()
    assert indices.tolist() == [0, 0]


def test_a_hook_for_blocks_gets_frames_files_and_what_the_caller_adds() -> None:
    get_read_ranges = make_get_read_ranges(read_ranges_tile_block=first_and_last)
    slices, ranges, indices = get_read_ranges(
        **arguments(sync_offset=1, extra=np.array([1000, 2000]), frame_header_bytes=4)
    )
    assert slices.tolist() == [
        [[0, 0, 0], [4, 2, 5]],
        [[0, 2, 0], [4, 2, 5]],
        [[4, 0, 0], [2, 2, 5]],
        [[4, 2, 0], [2, 2, 5]],
    ]
    # Frame 1 is the second one of the first file, frame 4 the second one of the second file.
    assert ranges[:2].tolist() == [
        [[0, 1058, 1078], [1, 2068, 2088]],
        [[0, 1078, 1098], [1, 2088, 2108]],
    ]
    assert indices.tolist() == [0, 1, 0, 1]


def test_hooks_need_not_be_compiled() -> None:
    case = arguments()
    ours = make_get_read_ranges(px_to_bytes=back_to_back.py_func)(**case)
    np.testing.assert_array_equal(ours[1], default_get_read_ranges(**case)[1])


def test_no_frames_are_not_given_to_hooks() -> None:
    slices, ranges, indices = with_own_px_to_bytes(**arguments(stop_before_frame=1))
    assert (slices.shape, ranges.shape, indices.shape) == ((0, 2, 3), (0, 4, 3), (0,))


def test_frames_without_a_file_are_refused() -> None:
    with pytest.raises(DataSetException, match="no file holds a frame: found frame 9"):
        with_own_px_to_bytes(**arguments(stop_before_frame=11))


def test_the_same_hooks_are_compiled_once() -> None:
    with_own_px_to_bytes(**arguments())
    again = make_get_read_ranges(px_to_bytes=back_to_back)
    compiled = _compile(back_to_back, _default_read_ranges_tile_block)
    before = len(compiled.signatures)
    again(**arguments())
    assert len(compiled.signatures) == before


HOOK = """
import numba

@numba.njit
def px_to_bytes(bpp, frame, slice_px, sig_px, origin, footer, header, file_header, file, ranges):
    ranges.append((file, frame * 10, frame * 10 + 1))
"""

SCRIPT = """
import numpy as np
from my_format import px_to_bytes
from libertem.io.dataset.base import make_get_read_ranges
from libertem.io.dataset.base.range_hooks import _compile, _default_read_ranges_tile_block as block
get = make_get_read_ranges(px_to_bytes=px_to_bytes)
ranges = get(0, 2, None, 2, np.array([[[0], [5]]]), np.array([[0, 2, 0, 0]]), (5,), 8)[1]
print(sum(_compile(px_to_bytes, block).stats.cache_hits.values()), ranges[0, 1].tolist())
"""


def test_another_process_finds_the_compiled_hooks_on_disk(tmp_path: Path) -> None:
    (tmp_path / "my_format.py").write_text(HOOK, encoding="utf-8")
    outputs = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            cwd=tmp_path,
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for _ in range(2)
    ]
    assert outputs == ["0 [0, 10, 11]", "1 [0, 10, 11]"]


def load_hook(path: Path, source: str) -> Any:
    path.write_text(source, encoding="utf-8")
    namespace: dict[str, Any] = {"__name__": "my_format"}
    exec(compile(source, str(path), "exec"), namespace)
    return namespace["px_to_bytes"].py_func


def test_hooks_on_disk_are_told_apart_by_their_code(tmp_path: Path) -> None:
    path = tmp_path / "my_format.py"
    stamp = _stamp(load_hook(path, HOOK))
    assert stamp is not None
    assert _stamp(load_hook(path, HOOK.replace("10", "20"))) not in (stamp, None)


def test_hooks_that_cannot_be_told_apart_are_not_kept_on_disk() -> None:
    step = 10

    def closure(read_ranges: list[Any]) -> None:
        read_ranges.append((step,))

    assert _stamp(closure) is None
    assert _stamp(eval("lambda read_ranges: None")) is None
