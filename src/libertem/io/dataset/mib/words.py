"""Words of 64 bits in bytes that need not be aligned, for kernels.

NumPy views of unaligned memory would tell the compiler something untrue about addresses. A word is read as
big-endian number and written as little-endian one, which is the order of pixels in memory on all machines
that numba supports.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from libertem.common.jit import intrinsic

__all__ = ["load_word", "reverse_bits", "store_bits", "store_word"]

BYTE = ir.IntType(8)
WORD = ir.IntType(64)
BITS = ir.VectorType(ir.IntType(1), 64)
BYTES = ir.VectorType(BYTE, 64)


def _place(context: Any, builder: Any, array_type: Any, array: Any, index: Any, kind: Any) -> Any:
    data = builder.bitcast(context.make_array(array_type)(context, builder, array).data, BYTE.as_pointer())
    return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())


@intrinsic
def load_word(typing_context: Any, array: Any, index: Any) -> Any:
    """The word that begins at byte `index` of `array`, which has to be contiguous."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _place(context, builder, signature.args[0], args[0], args[1], WORD)
        return builder.bswap(builder.load(place, align=1))

    return types.uint64(array, types.intp), build


@intrinsic
def store_word(typing_context: Any, array: Any, index: Any, word: Any) -> Any:
    """Write the bytes of `word`, the least significant one first, to byte `index` of `array` and on."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _place(context, builder, signature.args[0], args[0], args[1], WORD)
        builder.store(args[2], place, align=1)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.uint64), build


@intrinsic
def store_bits(typing_context: Any, array: Any, index: Any, word: Any) -> Any:
    """Write each bit of `word`, the least significant one first, to a byte of its own."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        # Compilers have good ways for this, three times as fast as a table of 256 words.
        values = builder.zext(builder.bitcast(args[2], BITS), BYTES)
        builder.store(values, _place(context, builder, signature.args[0], args[0], args[1], BYTES), align=1)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.uint64), build


@intrinsic
def reverse_bits(typing_context: Any, word: Any) -> Any:
    """`word` with its bits in the other order."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitreverse(args[0])

    return types.uint64(types.uint64), build
