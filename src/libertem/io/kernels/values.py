"""Read stored pixels as numbers inside kernels: byte order, and accumulators that hold them exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from libertem.common.jit import inline_jit

__all__ = ["stored", "swap_bytes"]


def swap_bytes(x: Any) -> Any:
    """`x` with its bytes in the other order. Only for kernels, and for integers."""
    raise NotImplementedError("only to be called from compiled code")


@overload(swap_bytes, inline="always")
def _swap_bytes(x: Any) -> Any:
    integer: Any = x if isinstance(x, types.Integer) else types.int8
    signed = integer.signed
    if integer.bitwidth == 16:

        def swap_16(x: Any) -> Any:
            u = np.uint16(x)
            u = np.uint16((u << np.uint16(8)) | (u >> np.uint16(8)))
            return np.int16(u) if signed else u

        return swap_16
    if integer.bitwidth == 32:

        def swap_32(x: Any) -> Any:
            u = np.uint32(x)
            low = np.uint32(0x00FF00FF)
            u = np.uint32(((u & low) << np.uint32(8)) | ((u >> np.uint32(8)) & low))
            u = np.uint32((u << np.uint32(16)) | (u >> np.uint32(16)))
            return np.int32(u) if signed else u

        return swap_32

    # One byte has no order; floats are never read swapped.
    def same(x: Any) -> Any:
        return x

    return same


@inline_jit
def stored(x: Any, swapped: bool) -> Any:
    """The value of a stored pixel. Compilers move the question out of the loop."""
    return swap_bytes(x) if swapped else x
