"""Ask the processor for pixels before they are needed.

Kernels go through several frames side by side, a piece of each at a time. Processors foresee that badly: a
kernel that has much to compute per pixel sees only a few cache lines ahead, and waits for memory.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from libertem.common.jit import intrinsic

__all__ = ["PREFETCH_BYTES", "prefetch"]

PREFETCH_BYTES = 512
"""Fetched at a time: without a loop, whose branches would cost more than the hints."""

CACHE_LINE = 64

HINT = "llvm.prefetch.p0"
BYTES = ir.IntType(8).as_pointer()


@intrinsic
def prefetch(typingctx: Any, pixels: Any, first: Any) -> Any:
    """Fetch `PREFETCH_BYTES` of an array from an element on; that may be outside: a hint never faults."""
    signature = types.void(pixels, first)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        start = builder.bitcast(builder.gep(data, [args[1]]), BYTES)
        int32 = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [BYTES, int32, int32, int32])
        hint = builder.module.globals.get(HINT)
        if hint is None:
            hint = ir.Function(builder.module, kind, HINT)
        # For reading, into all levels of the cache, data rather than code.
        how = [ir.Constant(int32, value) for value in (0, 3, 1)]
        for offset in range(0, PREFETCH_BYTES, CACHE_LINE):
            line = builder.gep(start, [ir.Constant(ir.IntType(64), offset)])
            builder.call(hint, [line, *how])
        return context.get_dummy_value()

    return signature, generate
