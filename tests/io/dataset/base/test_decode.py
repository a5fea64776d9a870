from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from libertem.exceptions import DataSetException
from libertem.io.dataset.base import (
    Decoder,
    DtypeConversionDecoder,
    decode_swap_2,
    decode_swap_4,
    decode_swap_8,
)
from libertem.io.dataset.base.decode import default_decode

NOTHING: dict[str, Any] = {"rr": None, "origin": None, "shape": None, "ds_shape": None}


def decode(stored: Any, read_dtype: str) -> Any:
    """One frame, the documented way."""
    pixels = np.asarray(stored)
    decoder = DtypeConversionDecoder()
    out = np.empty((1, pixels.size), dtype=read_dtype)
    fn = decoder.get_decode(pixels.dtype, np.dtype(read_dtype))
    view = decoder.get_native_dtype(pixels.dtype, np.dtype(read_dtype))
    fn(np.frombuffer(pixels.tobytes(), np.uint8), out, 0, view, **NOTHING)
    return out[0]


@pytest.mark.parametrize(
    ("stored", "native", "read", "expected"),
    [
        ([-2, 1], ">i2", "f4", [-2, 1]),
        ([-2, 1], ">i4", "f8", [-2, 1]),
        ([1.5, -2], ">f4", "f4", [1.5, -2]),
        ([1.5, -2], ">f8", "f4", [1.5, -2]),
        ([1.5 - 2j], ">c8", "c8", [1.5 - 2j]),
        ([1, 2, 3, 258], "<u2", "u1", [1, 2, 3, 2]),
        ([1, 2, 3.75], "<f4", "u1", [1, 2, 3]),
        ([0, 2, 258], "<u2", "?", [False, True, True]),
        ([1.5, -2], "f2", "f4", [1.5, -2]),
        ([1, 258], "<u2", ">u2", [1, 258]),
        ([1, 258], ">u2", ">u2", [1, 258]),
        ([True, False], "?", "f4", [1, 0]),
        ([1.5 - 2j], "c8", "c16", [1.5 - 2j]),
        ([1.5, -2], "f4", "c8", [1.5, -2]),
        ([255, 3], "u1", "f4", [255, 3]),
    ],
)
def test_documented_conversions(stored: list[Any], native: str, read: str, expected: list[Any]) -> None:
    result = decode(np.array(stored, dtype=native), read)
    assert result.dtype == np.dtype(read)
    assert result.tolist() == expected


INTEGERS = ["?", "u1", "i1", "<u2", ">u2", "<i2", ">i2", "<u4", ">i4", "<i8", ">u8"]


@given(
    st.sampled_from(INTEGERS).flatmap(lambda dtype: npst.arrays(dtype, 9)),
    st.sampled_from([*INTEGERS, "f2", "f4", "f8", ">f4", "c8", "c16"]),
)
def test_conversion_is_that_of_numpy(stored: Any, read: str) -> None:
    with np.errstate(over="ignore"):
        expected = stored.astype(read)
        np.testing.assert_array_equal(decode(stored, read), expected)


@given(
    st.sampled_from(["<f2", ">f2", "<f4", ">f4", "<f8", ">f8", ">c8"]).flatmap(
        lambda dtype: npst.arrays(dtype, 9)
    ),
    st.sampled_from(["f4", "f8", "c8", "c16", ">f8"]),
)
def test_floats_keep_their_values(stored: Any, read: str) -> None:
    if stored.dtype.kind == "c" and np.dtype(read).kind != "c":
        read = "c16"
    with np.errstate(all="ignore"):
        expected = stored.astype(read)
        np.testing.assert_array_equal(decode(stored, read), expected)


def test_complex_pixels_do_not_lose_their_imaginary_part() -> None:
    with pytest.raises(
        DataSetException, match="complex data cannot be read as real numbers: found complex64"
    ):
        DtypeConversionDecoder().get_decode(np.dtype("c8"), np.dtype("f4"))


def test_a_frame_may_come_in_equal_pieces() -> None:
    out = np.zeros((2, 6), dtype=np.float32)
    for idx in range(6):
        default_decode(np.array([idx, 10 + idx], np.uint8), out, idx, np.uint8, **NOTHING)
    assert out.tolist() == [[0, 10, 1, 11, 2, 12], [3, 13, 4, 14, 5, 15]]


@pytest.mark.parametrize(
    ("native", "read", "expected"),
    [
        (">u2", "f4", True),
        ("<u2", "f4", False),
        ("u1", "f4", False),
        ("<u2", "u1", False),
        (">u2", ">u2", False),
    ],
)
def test_it_is_known_whether_bytes_are_swapped(native: str, read: str, expected: bool) -> None:
    assert DtypeConversionDecoder()._need_byteswap(native, read) is expected


@pytest.mark.parametrize(("fn", "itemsize"), [(decode_swap_2, 2), (decode_swap_4, 4), (decode_swap_8, 8)])
@pytest.mark.parametrize("read", ["f4", "f8", "u8"])
def test_swapping_decoders_read_big_endian_unsigned_integers(fn: Any, itemsize: int, read: str) -> None:
    values = np.random.default_rng(1).integers(0, 2 ** (8 * itemsize), 7, dtype=np.uint64)
    stored = values.astype(f">u{itemsize}")
    out = np.zeros((3, 7), dtype=read)
    fn(np.frombuffer(stored.tobytes(), np.uint8), out, 1, np.uint8, *[np.zeros(3, np.int64)] * 4)
    np.testing.assert_array_equal(out[1], values.astype(read))
    assert not out[[0, 2]].any()


def test_a_decoder_leaves_buffers_and_dtypes_alone_unless_it_says_so() -> None:
    decoder = Decoder()
    assert decoder.do_clear() is False
    assert decoder.get_native_dtype(np.dtype("<u2"), np.dtype("f4")) == np.dtype("<u2")
    with pytest.raises(NotImplementedError):
        decoder.get_decode("u1", "f4")
