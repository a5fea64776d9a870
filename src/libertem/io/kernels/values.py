"""Read stored pixels as numbers inside kernels: byte order, and accumulators that hold them exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

__all__ = ["stored", "swap_bytes"]


def swap_bytes(x: Any) -> Any:
    """`x` with its bytes in the other order. Only for kernels, and for integers."""
    raise NotImplementedError("only to be called from compiled code")


@overload(swap_bytes)
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


def stored(x: Any, swapped: Any) -> Any:
    """The value of a stored pixel. Only for kernels.

    `swapped` is True if the other byte order was stored, False or None if not. With None no question is left
    in the compiled loop: compilers find vector instructions more often.
    """
    raise NotImplementedError("only to be called from compiled code")


@overload(stored)
def _stored(x: Any, swapped: Any) -> Any:
    # numba wants the same annotations as above.
    def as_it_is(x: Any, swapped: Any) -> Any:
        return x

    def in_other_order(x: Any, swapped: Any) -> Any:
        return swap_bytes(x) if swapped else x

    return as_it_is if isinstance(swapped, types.NoneType) else in_other_order
