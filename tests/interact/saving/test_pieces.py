"""How a scan is cut for saving, and how pixels are converted."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from libertem.interact.saving.convert import Misfit, check_kinds, convert
from libertem.interact.saving.pieces import grouped, make_boxes

shapes = st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple)


@st.composite
def grids(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    nav = draw(shapes)
    return nav, tuple(draw(st.integers(1, 4)) for _ in nav)


@given(grids(), st.integers(1, 100), st.integers(1, 3000))
def test_boxes_cover_the_scan_once(
    grid: tuple[tuple[int, ...], tuple[int, ...]], frame_bytes: int, limit: int
) -> None:
    nav, granularity = grid
    seen = np.zeros(nav, dtype=int)
    boxes = make_boxes(nav, granularity, frame_bytes, limit)
    for box in boxes:
        seen[box] += 1
        assert all(s.start % step == 0 for s, step in zip(box, granularity, strict=True))
        extents = [s.stop - s.start for s in box]
        fits = math.prod(extents) * frame_bytes <= limit
        assert fits or all(e <= step for e, step in zip(extents, granularity, strict=True))
    assert (seen == 1).all()
    groups = list(grouped(boxes, 3))
    assert sorted(str(box) for group in groups for box in group) == sorted(map(str, boxes))
    assert all(1 <= len(group) <= 3 for group in groups)


@given(shapes, st.integers(1, 2000))
def test_boxes_of_frames_are_runs(nav: tuple[int, ...], limit: int) -> None:
    flat = np.arange(math.prod(nav)).reshape(nav)
    boxes = make_boxes(nav, (1,) * len(nav), 10, limit)
    np.testing.assert_array_equal(np.concatenate([flat[box].reshape(-1) for box in boxes]), flat.reshape(-1))


INTEGERS = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"]


@given(
    st.sampled_from(INTEGERS).flatmap(lambda t: npst.arrays(t, npst.array_shapes(max_side=4))),
    st.sampled_from([*INTEGERS, "?", "f2", "f4", "f8"]),
)
def test_integers_fit_or_are_refused(pixels: npt.NDArray[Any], target: str) -> None:
    dtype = np.dtype(target)
    if dtype.kind == "f":
        fits = [abs(v) <= float(np.finfo(dtype).max) for v in pixels.reshape(-1).tolist()]
    else:
        low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        fits = [low <= v <= high for v in pixels.reshape(-1).tolist()]
    if all(fits):
        converted = convert(pixels, dtype)
        assert converted.dtype == dtype
        np.testing.assert_array_equal(converted, pixels.astype(dtype))
        return
    with pytest.raises(Misfit) as caught:
        convert(pixels, dtype)
    first = fits.index(False)
    assert caught.value.index == tuple(np.unravel_index(first, pixels.shape))
    assert caught.value.value == pixels.reshape(-1)[first]


@pytest.mark.parametrize(
    ("values", "target", "bad"),
    [
        ([0.0, 255.0], "u1", None),
        ([0.0, 256.0], "u1", 1),
        ([-0.0, -1.0], "u2", 1),
        ([1.0, 1.5], "u2", 1),
        ([0.0, np.nan], "i4", 1),
        ([np.inf], "i8", 0),
        # The largest float that fits, and the number after the largest integer, which it is rounded to.
        ([float(2**63 - 1024)], "i8", None),
        ([float(2**63)], "i8", 0),
        ([float(2**64 - 2048)], "u8", None),
        ([float(2**64)], "u8", 0),
        ([-float(2**63)], "i8", None),
        ([1e300], "f4", 0),
        ([0.1, np.inf, np.nan], "f4", None),
        ([70000.0], "f2", 0),
        ([1.0, 0.0], "?", None),
        ([0.5], "?", 0),
    ],
)
def test_floats_fit_or_are_refused(values: list[float], target: str, bad: int | None) -> None:
    pixels = np.array(values)
    if bad is None:
        np.testing.assert_array_equal(convert(pixels, np.dtype(target)), pixels.astype(target))
        return
    with pytest.raises(Misfit, match=r"found .* expected") as caught:
        convert(pixels, np.dtype(target))
    assert caught.value.index == (bad,)


def test_narrow_floats_fit_wide_integers() -> None:
    # Bounds of the target are beyond those of the source.
    pixels = np.array([65504.0, -1.0], dtype="f2")
    assert convert(pixels, np.dtype("i8")).tolist() == [65504, -1]
    with pytest.raises(Misfit):
        convert(np.array([np.inf], dtype="f2"), np.dtype("i8"))


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [("c8", "f4", "imaginary part would be lost"), ("u1", "S3", "dtype of numbers"), ("u1", "O", "numbers")],
)
def test_conversions_that_make_no_sense(source: str, target: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_kinds(np.dtype(source), np.dtype(target))
    check_kinds(np.dtype("f4"), np.dtype("c16"))
