"""Decode functions for big-endian unsigned integers.

They have the documented decoder signature ``(inp, out, idx, native_dtype, rr, origin, shape, ds_shape)``:
`inp` holds the bytes of one read range, row `idx` of `out` receives the values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.jit import jit

if TYPE_CHECKING:
    import numpy.typing as npt

    Bytes = npt.NDArray[np.uint8]

__all__ = ["decode_swap_2", "decode_swap_4", "decode_swap_8"]


@jit
def decode_swap_2(
    inp: Bytes,
    out: npt.NDArray[Any],
    idx: int,
    native_dtype: Any,
    rr: Any,
    origin: Any,
    shape: Any,
    ds_shape: Any,
) -> None:
    """Read `inp` as big-endian uint16 into row `idx` of `out`."""
    for i in range(out.shape[1]):
        out[idx, i] = (inp[2 * i] << 8) | inp[2 * i + 1]


@jit
def decode_swap_4(
    inp: Bytes,
    out: npt.NDArray[Any],
    idx: int,
    native_dtype: Any,
    rr: Any,
    origin: Any,
    shape: Any,
    ds_shape: Any,
) -> None:
    """Read `inp` as big-endian uint32 into row `idx` of `out`."""
    for i in range(out.shape[1]):
        value = 0
        for k in range(4):
            value = (value << 8) | inp[4 * i + k]
        out[idx, i] = value


@jit
def decode_swap_8(
    inp: Bytes,
    out: npt.NDArray[Any],
    idx: int,
    native_dtype: Any,
    rr: Any,
    origin: Any,
    shape: Any,
    ds_shape: Any,
) -> None:
    """Read `inp` as big-endian uint64 into row `idx` of `out`."""
    for i in range(out.shape[1]):
        value = np.uint64(0)
        for k in range(8):
            value = (value << np.uint64(8)) | np.uint64(inp[8 * i + k])
        out[idx, i] = value
