"""Building blocks of what notebooks show, and the small pictures in it."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from libertem.common import html
from libertem.common.png import encode_png, grey_image, shrink


def _pixels(png: bytes) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(png)))


@given(
    npst.arrays(
        np.uint8,
        st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(1, 4)),
        elements=st.integers(0, 255),
    )
)
def test_another_library_reads_the_pixels_back(pixels: npt.NDArray[np.uint8]) -> None:
    read = _pixels(encode_png(pixels))
    np.testing.assert_array_equal(read.reshape(pixels.shape), pixels)


def test_grey_goes_from_the_lowest_to_the_highest_value() -> None:
    image = grey_image(np.array([[0, 50, 100]], dtype=np.uint16))
    assert image[..., 0].tolist() == [[0, 128, 255]]
    assert image[..., 1].tolist() == [[255, 255, 255]]


def test_logarithmic_grey_has_the_same_step_for_each_decade() -> None:
    image = grey_image(np.array([[1.0, 10, 100, 1000, 10000]]), logarithmic=True)
    assert image[0, :, 0].tolist() == [0, 64, 128, 191, 255]


def test_what_is_not_valid_is_transparent() -> None:
    values = np.array([[1.0, np.nan, np.inf, 4.0]])
    image = grey_image(values, np.array([[True, True, True, False]]))
    assert image[0, :, 1].tolist() == [255, 0, 0, 0]
    assert not grey_image(np.full((2, 2), np.nan))[..., 1].any()


def test_a_hot_pixel_does_not_hide_the_rest() -> None:
    values = np.tile(np.arange(100.0), (100, 1))
    values[3, 4] = 1e9
    assert int(grey_image(values)[0, 50, 0]) == pytest.approx(128, abs=3)


@pytest.mark.parametrize("logarithmic", [False, True])
@pytest.mark.parametrize(
    "values",
    [
        np.zeros((3, 3)),
        np.full((3, 3), -2.5),
        np.eye(3) * -1,
        np.ones((3, 3), dtype=bool),
        np.array([[1 + 1j, 2j]]),
        np.array([[np.iinfo(np.uint64).max, 0]], dtype=np.uint64),
        np.array([[-np.finfo(np.float64).max, np.finfo(np.float64).max]]),
    ],
)
def test_any_numbers_make_a_picture(values: npt.NDArray[Any], logarithmic: bool) -> None:
    image = grey_image(values, logarithmic=logarithmic)
    assert image.shape == (*values.shape, 2)
    assert image[..., 1].all()


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12))
def test_shrinking_keeps_the_mean_of_each_square(height: int, width: int, longest: int) -> None:
    values = np.arange(height * width, dtype=np.float64).reshape(height, width)
    small = shrink(values, longest)
    assert max(small.shape) <= max(longest, 1)
    step = -(-max(height, width) // longest)
    assert small[0, 0] == pytest.approx(values[:step, :step].mean())
    assert small[-1, -1] == pytest.approx(
        values[(small.shape[0] - 1) * step :, (small.shape[1] - 1) * step :].mean()
    )


def test_shrinking_leaves_out_what_is_not_finite() -> None:
    values = np.array([[1.0, np.nan, np.nan, np.nan], [3.0, np.inf, np.nan, np.nan]])
    small = shrink(values, 2)
    assert small[0, 0] == 2
    assert np.isnan(small[0, 1])


def test_large_arrays_make_small_pictures() -> None:
    tag = html.picture(np.random.default_rng(0).random((3000, 1500)), alt="noise")
    data = re.search(r'base64,([^"]+)"', tag)
    assert data is not None
    height, width = _pixels(base64.b64decode(data[1])).shape[:2]
    assert height <= 2 * html.PICTURE_PX
    assert width == pytest.approx(height / 2, abs=1)
    assert 'height="144" width="72"' in tag


def test_texts_are_not_taken_for_markup() -> None:
    shown = html.box(
        "<b>",
        html.facts([("<i>", "<script>")]),
        html.table(["<u>"], [["&"]]),
        html.folded("<s>", "x"),
        remark="<p>",
    )
    for tag in ("<b>", "<i>", "<script>", "<u>", "<s>", "<p>"):
        assert tag not in shown
    assert "&lt;script&gt;" in shown
    assert "<td>&amp;</td>" in shown
    assert html.facts([("x", html.Html("<code>y</code>"))]).count("<code>") == 1


def test_names_of_pictures_cannot_leave_their_attribute() -> None:
    for shown in (html.picture(np.ones((2, 2)), alt='"><b>'), html.curve(np.arange(3), alt='"><b>')):
        assert "<b>" not in shown


def test_a_curve_keeps_a_peak_that_is_one_point_wide() -> None:
    values = np.zeros(100_000)
    values[54_321] = 1
    shown = html.curve(values, alt="spectrum")
    heights = [float(point.split(",")[1]) for point in re.findall(r'points="([^"]+)"', shown)[0].split()]
    assert min(heights) == 0
    assert len(heights) < 1000


@pytest.mark.parametrize("values", [np.array([]), np.full(5, np.nan), np.zeros(5), np.arange(3) * 1j])
def test_any_numbers_make_a_curve(values: npt.NDArray[Any]) -> None:
    assert html.curve(values, alt="x").startswith("<svg")


@pytest.mark.parametrize(
    ("shape", "n_pictures", "n_curves"),
    [
        ((30, 40), 1, 0),
        ((30, 40, 2), 2, 0),
        ((1, 30, 40), 1, 0),
        ((50,), 0, 1),
        ((30, 40, 9), 0, 0),
        ((2, 3), 0, 0),
    ],
)
def test_a_result_is_shown_as_far_as_it_can_be(
    shape: tuple[int, ...], n_pictures: int, n_curves: int
) -> None:
    shown = html.look(np.ones(shape), True, alt="result")
    assert shown.count("<img") == n_pictures
    assert shown.count("<svg") == n_curves


def test_few_numbers_are_written() -> None:
    assert ">0.5<" in html.look(np.array([0.5]), True, alt="x")
    assert "[1 2 3]" in html.look(np.arange(1, 4), True, alt="x")
    assert html.look(np.array(["a", "b"], dtype=object), True, alt="x") == ""


def test_values_are_shown_in_short() -> None:
    assert html.text_of(np.zeros((100, 100), dtype=np.uint8)) == "ndarray of uint8, (100, 100)"
    assert html.text_of(list(range(1000))) == "list of 1000"
    assert html.text_of("x" * 1000).endswith(" ...")
    assert html.text_of(np.sqrt) == "sqrt"
    assert html.text_of(None) == "None"


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (999_900, "1 MB"), (2.5e12, "2.5 TB")],
)
def test_numbers_of_bytes_have_units(n_bytes: float, text: str) -> None:
    assert html.byte_count(n_bytes) == text


def test_what_fails_shows_nothing() -> None:
    assert html.never_failing(lambda: 1 / 0) is None  # type: ignore[arg-type, return-value]  # on purpose
    assert html.never_failing(lambda: "x") == "x"
