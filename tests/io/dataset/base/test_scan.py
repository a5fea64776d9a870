from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libertem.common import Shape
from libertem.exceptions import DataSetException, ShapeError
from libertem.io.dataset.base import Partition
from libertem.io.dataset.base.scan import (
    check_shape,
    check_sync_offset,
    fit_partition_shape,
    make_partition_slices,
    sync_offset_info,
)


@pytest.mark.parametrize(
    "value",
    [(2, 4), [2, 4], np.array([2, 4]), np.array([2, 4], dtype=np.uint8), Shape((2, 4), 0), iter((2, 4))],
)
def test_any_sequence_of_integers_is_a_shape(value: Any) -> None:
    shape = check_shape(value, "nav_shape")
    assert shape == (2, 4)
    assert all(type(extent) is int for extent in shape)


@pytest.mark.parametrize(
    "value", [(), (0,), (-1, 2), (103, -83), (2.0, 4.0), ("2",), (None,), (1 << 40, 1 << 40)]
)
def test_shapes_consist_of_positive_integers(value: Any) -> None:
    with pytest.raises(ShapeError, match=r"f\.raw: nav_shape .* found"):
        check_shape(value, "nav_shape", path="f.raw")


def test_a_number_is_no_shape() -> None:
    with pytest.raises(TypeError):
        check_shape(4, "nav_shape")


@pytest.mark.parametrize("offset", [-7, -1, 0, 1, 7, np.int16(3)])
def test_offsets_that_leave_an_image_visible_are_valid(offset: int) -> None:
    assert check_sync_offset(offset, 8) == offset


@pytest.mark.parametrize("offset", [-8, 8, 180000000, -180000000])
def test_offsets_that_leave_no_image_visible_are_refused(offset: int) -> None:
    with pytest.raises(
        DataSetException, match=r"sync_offset should be in \(-8, 8\), which is \(-image_count, image_count\)"
    ):
        check_sync_offset(offset, 8)


def test_without_images_every_offset_is_refused() -> None:
    with pytest.raises(DataSetException, match=r"\(0, 0\)"):
        check_sync_offset(0, 0)


def test_no_offset_means_zero() -> None:
    assert check_sync_offset(None, 8) == 0


@pytest.mark.parametrize("offset", [1.0, "1", (1,)])
def test_offsets_are_integers(offset: Any) -> None:
    with pytest.raises(DataSetException, match="integer"):
        check_sync_offset(offset, 8)


@pytest.mark.parametrize(
    ("nav", "offset", "skipped", "ignored", "inserted_start", "inserted_end"),
    [
        (8, 3, 3, 0, 0, 3),
        (8, -3, 0, 3, 3, 0),
        (12, 0, 0, 0, 0, 4),
        (5, 0, 0, 3, 0, 0),
        (8, 0, 0, 0, 0, 0),
    ],
)
def test_offset_info_counts_frames_at_both_ends(
    nav: int, offset: int, skipped: int, ignored: int, inserted_start: int, inserted_end: int
) -> None:
    assert sync_offset_info(offset, image_count=8, nav_px=nav) == {
        "frames_skipped_start": skipped,
        "frames_ignored_end": ignored,
        "frames_inserted_start": inserted_start,
        "frames_inserted_end": inserted_end,
    }


@given(st.integers(1, 30), st.integers(1, 30), st.data())
def test_offset_info_agrees_with_counting(images: int, nav: int, data: st.DataObject) -> None:
    offset = data.draw(st.integers(1 - images, images - 1))
    info = sync_offset_info(offset, images, nav)
    shown = [i + offset for i in range(nav) if 0 <= i + offset < images]
    if shown:
        assert info["frames_skipped_start"] == shown[0]
        assert info["frames_ignored_end"] == images - 1 - shown[-1]
        assert info["frames_inserted_start"] == shown[0] - offset
        assert info["frames_inserted_end"] == nav - 1 - (shown[-1] - offset)


@pytest.mark.parametrize(
    ("frames", "parts", "sizes"),
    [
        (10, 3, [3, 3, 4]),
        (10, 4, [2, 3, 2, 3]),
        (17, 5, [3, 3, 4, 3, 4]),
        (8, 1, [8]),
        (8, 0, [8]),
    ],
)
def test_partitions_have_the_documented_sizes(frames: int, parts: int, sizes: list[int]) -> None:
    slices = list(make_partition_slices(Shape((frames, 4, 5), 2), parts))
    assert [part.shape[0] for part, _, _ in slices] == sizes


def test_borders_are_truncated_in_double_precision() -> None:
    slices = list(make_partition_slices(Shape((30, 4, 5), 2), 22))
    assert slices[11][0].origin == (14, 0, 0)  # exactly it would be 15


def test_partitions_are_slices_of_the_flat_navigation_axis() -> None:
    first, second = Partition.make_slices(Shape((2, 4, 4, 5), sig_dims=2), 2, sync_offset=-3)
    assert (first[0].origin, first[0].shape, first[1:]) == ((0, 0, 0), Shape((4, 4, 5), 2), (-3, 1))
    assert (second[0].origin, second[0].shape, second[1:]) == ((4, 0, 0), Shape((4, 4, 5), 2), (1, 5))
    assert type(second[0].origin[0]) is int


def test_more_partitions_than_frames_are_reduced_with_a_warning() -> None:
    with pytest.warns(RuntimeWarning, match="dataset contains fewer frames than specified partitions"):
        slices = list(make_partition_slices(Shape((3, 4, 5), 2), 5))
    assert [part.shape[0] for part, _, _ in slices] == [1, 1, 1]


@given(st.integers(1, 500), st.integers(1, 60), st.integers(-50, 50), st.integers(1, 3))
def test_partitions_cover_each_frame_once(frames: int, parts: int, offset: int, sig_dims: int) -> None:
    shape = Shape((frames, *range(3, 3 + sig_dims)), sig_dims=sig_dims)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        slices = list(make_partition_slices(shape, parts, offset))
    starts = [part.origin[0] for part, _, _ in slices]
    stops = [part.origin[0] + part.shape[0] for part, _, _ in slices]
    assert starts[0] == 0
    assert stops[-1] == frames
    assert starts[1:] == stops[:-1]
    sizes = [stop - start for start, stop in zip(starts, stops, strict=True)]
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 2
    assert [image for _, image, _ in slices] == [start + offset for start in starts]
    assert [image for _, _, image in slices] == [stop + offset for stop in stops]
    assert all(part.shape.sig == shape.sig for part, _, _ in slices)


@pytest.mark.parametrize(
    ("nav", "target", "min_num", "cores", "expected"),
    [
        ((15,), 262144, 2, 2, (7,)),
        ((15,), 512, 1, 1, (2,)),
        ((1, 15), 512, 1, 1, (1, 2)),
        ((15, 15), 7680, 1, 1, (2, 15)),
        ((128, 15, 15), 7680, 1, 1, (1, 2, 15)),
        ((2,), 512, 3, 1, (1,)),
        ((15,), 4, 1, 1, (1,)),
        ((15, 15), 57600, 1, 8, (1, 15)),
        ((15, 15), 57600, 1, 4, (3, 15)),
        ((15, 15), 57600, 8, 1, (1, 15)),
        ((15, 15), 57600, 4, 1, (3, 15)),
    ],
)
def test_partition_shape_fits_the_target(
    nav: tuple[int, ...], target: int, min_num: int, cores: int, expected: tuple[int, ...]
) -> None:
    shape = Shape((*nav, 16, 16), sig_dims=2)
    assert fit_partition_shape(shape, target, min_num=min_num, num_cores=cores) == expected


def test_partitions_hold_a_frame_however_many_are_asked_for() -> None:
    assert fit_partition_shape(Shape((2, 2, 2), 1), 1, min_num=1000, num_cores=1) == (1, 1)
