"""Numbers as colours."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from libertem import viz
from libertem.viz import encode_image, rgb_from_2dvector, visualize_simple
from libertem.viz.images import robust_limits

Array = np.ndarray[Any, Any]


# --- limits ---


def test_limits_are_the_extremes_unless_these_are_far_off() -> None:
    assert robust_limits(np.arange(10)) == (0, 9)
    assert robust_limits(np.arange(1000)) == (0, 999)
    low, high = robust_limits(np.append(np.arange(1000.0), 1e9))
    assert (low, high) == (0, 999)
    assert robust_limits(np.append(-np.arange(1000.0), -1e9)) == (-999, 0)
    # Nine times the width of the others is no outlier yet.
    assert robust_limits(np.append(np.arange(1000.0), 9990)) == (0, 9990)


def test_limits_ignore_what_is_not_valid() -> None:
    values = np.array([np.nan, 5, np.inf, 7, 100])
    assert robust_limits(values, values != 100) == (5, 7)


def test_limits_are_never_equal() -> None:
    assert robust_limits(np.array([np.nan])) == (1, np.nextafter(1, 2)) == robust_limits(np.zeros(0))
    low, high = robust_limits(np.full(3, 7.0))
    assert low < 7 < high
    assert high - low < 1e-14


@given(npst.arrays(np.float64, st.integers(0, 20), elements=st.floats(width=32)))
def test_limits_lie_within_the_data(values: Array) -> None:
    low, high = robust_limits(values)
    assert low < high
    finite = values[np.isfinite(values)]
    if finite.size:
        assert np.nextafter(min(finite.min(), 0), -np.inf) <= low
        assert high <= np.nextafter(max(finite.max(), 0), np.inf)


# --- scalars ---


def test_scalars_are_spread_over_the_colour_map() -> None:
    values = np.arange(10.0).reshape((2, 5))
    expected = mpl.colormaps["gist_earth"](values / 9, bytes=True)
    assert visualize_simple(values).tolist() == expected.tolist()
    grey = visualize_simple(values, colormap="gray")
    assert grey[..., 0].tolist() == mpl.colormaps["gray"](values / 9, bytes=True)[..., 0].tolist()
    assert visualize_simple(values, colormap=mpl.colormaps["gray"]).tolist() == grey.tolist()


def test_the_range_can_be_given() -> None:
    values = np.arange(10.0)
    found = visualize_simple(values, "gray", vmin=2, vmax=5)[:, 0]
    assert found[:3].tolist() == [0] * 3
    assert found[5:].tolist() == [255] * 5
    assert 0 < found[3] < found[4] < 255


def test_the_logarithm_starts_at_the_lowest_valid_value() -> None:
    values = np.array([-5.0, 0, 9, 99])
    valid = values >= 0
    found = visualize_simple(values, "gray", logarithmic=True, damage=valid)[:, 0]
    logs = np.log(np.array([1, 1, 10, 100]))
    assert found.tolist() == mpl.colormaps["gray"](logs / logs.max(), bytes=True)[:, 0].tolist()


def test_what_is_not_finite_is_transparent() -> None:
    found = visualize_simple(np.array([1, np.nan, 2, -np.inf]))
    assert found[[1, 3]].tolist() == [[0] * 4] * 2
    assert found[[0, 2], 3].tolist() == [255] * 2
    assert visualize_simple(np.full((2, 2), np.nan)).tolist() == np.zeros((2, 2, 4)).tolist()


@pytest.mark.parametrize("dtype", ["bool", "u1", "u2", "i4", ">f4"])
def test_any_real_numbers_can_be_shown(dtype: str) -> None:
    values = np.array([[0, 1], [1, 0]]).astype(dtype)
    assert visualize_simple(values, "gray")[..., 0].tolist() == [[0, 255], [255, 0]]


# --- vectors ---


def test_directions_are_hues_of_equal_lightness() -> None:
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    found = rgb_from_2dvector(y=np.sin(angles), x=np.cos(angles)).astype(float)
    assert len(np.unique(found, axis=0)) == 12
    linear = np.where(found / 255 > 0.04045, ((found / 255 + 0.055) / 1.055) ** 2.4, found / 255 / 12.92)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert np.ptp(luminance) < 0.03


def test_lengths_are_saturations() -> None:
    found = rgb_from_2dvector(y=np.zeros(4), x=np.array([0, 1, 2, 4.0])).astype(int)
    assert np.ptp(found[0]) <= 1
    spread = np.ptp(found, axis=1)
    assert (np.diff(spread) > 0).all()
    longer = rgb_from_2dvector(y=np.zeros(4), x=np.array([0, 1, 2, 4.0]), vmax=2).astype(int)
    assert longer[3].tolist() == longer[2].tolist() == found[3].tolist()


def test_vectors_that_are_not_finite_are_black() -> None:
    found = rgb_from_2dvector(y=np.array([np.nan, 0, np.inf]), x=np.array([0, 1, 1.0]))
    assert found[[0, 2]].tolist() == [[0] * 3] * 2
    assert found[1].any()
    assert rgb_from_2dvector(y=np.zeros((2, 2)), x=np.zeros((2, 2))).shape == (2, 2, 3)


def test_the_colour_map_of_angles_is_closed() -> None:
    cyclic = viz.libertem_cyclic
    first, last = np.array(cyclic(0.0)), np.array(cyclic(1.0))
    assert np.abs(first - last).max() < 0.03
    assert cyclic is viz.libertem_cyclic
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = viz.nothing


# --- files ---


def test_images_are_png_files() -> None:
    image = np.zeros((2, 3, 4), dtype=np.uint8)
    assert encode_image(image).read(8) == b"\x89PNG\r\n\x1a\n"
    assert encode_image(image, {"format": "jpg"}).read(2) == b"\xff\xd8"


def test_matplotlib_loads_when_something_is_shown() -> None:
    code = (
        "import sys, libertem.api, libertem.viz; "
        "print({'matplotlib', 'PIL', 'scipy', 'numba'} & sys.modules.keys())"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert out.stdout.strip() == "set()"
