"""Kernels that copy and swap, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from libertem.io.kernels.gather import gather_rows
from libertem.io.kernels.swap import decode_swap_2, decode_swap_4, decode_swap_8

DECODERS: dict[int, Any] = {2: decode_swap_2, 4: decode_swap_4, 8: decode_swap_8}


@settings(max_examples=30, deadline=None)
@given(
    source=npst.arrays(np.uint8, st.integers(20, 200)),
    starts=st.lists(st.integers(0, 12), min_size=1, max_size=9),
)
def test_gathered_rows_are_the_pieces_in_order(source: npt.NDArray[np.uint8], starts: list[int]) -> None:
    out = np.zeros((len(starts), 8), dtype=np.uint8)
    gather_rows(source, np.array(starts, dtype=np.int64), out)
    np.testing.assert_array_equal(out, [source[s : s + 8] for s in starts])


@pytest.mark.parametrize("size", [2, 4, 8])
@pytest.mark.parametrize("read_dtype", ["same", "f8"])
def test_swap_decoders_read_big_endian_unsigned_integers(size: int, read_dtype: str) -> None:
    rng = np.random.default_rng(size)
    values = rng.integers(0, np.iinfo(f"u{size}").max, 12, dtype=f"u{size}", endpoint=True)
    out = np.zeros((3, 12), dtype=f"u{size}" if read_dtype == "same" else read_dtype)
    inp = values.astype(f">u{size}").view(np.uint8)
    where = np.zeros(3, dtype=np.int64)
    DECODERS[size](inp, out, 1, np.dtype("u1"), where, where, where, where)
    np.testing.assert_array_equal(out[1], values.astype(out.dtype))
    assert not out[[0, 2]].any()
