"""Add up weighted rows of a matrix in vector registers, for kernels.

Left to itself, the compiler keeps the sums of many masks in scalar registers or in memory. In vector
registers they stay from the first stored pixel of a frame to the last one, and several are added to at once.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from libertem.common.jit import intrinsic

__all__ = ["add_rows_1", "add_rows_2", "add_rows_4", "add_rows_8", "add_rows_16", "add_rows_32"]

REGISTER_BYTES = 32
"""Of AVX2; where registers are shorter or longer, the compiler splits or joins."""

CHAINS = 4
"""Registers that are added to in turn hide that an addition takes four cycles."""

INT32, INT64 = ir.IntType(32), ir.IntType(64)

FLAGS = ("contract", "reassoc")
"""Multiply and add in one instruction, in any order; NaN and infinity keep their meaning."""


class _Rows:
    """Writes the machine code of one step: fetch a stored pixel and the row of its weights, multiply, add.

    Parameters
    ----------
    context, builder, signature, args
        As the compiler passes them to an intrinsic, see `_make`.
    width : int
        Lanes.
    """

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any, width: int) -> None:
        self._context, self._builder, self._types = context, builder, signature.args
        self.item = context.get_value_type(self._types[4].dtype)
        self.item_bytes = context.get_abi_sizeof(self.item)
        self.vector = ir.VectorType(self.item, width)
        self._indices = self.data(0, args)
        self._values = self.data(1, args)
        self._weights = builder.gep(self.data(4, args), [args[5]])
        masks = context.make_array(self._types[4])(context, builder, args[4])
        self._row_items = builder.extract_value(masks.shape, 1)

    def data(self, which: int, args: Any) -> Any:
        """Pointer to the first element of an argument."""
        return self._context.make_array(self._types[which])(self._context, self._builder, args[which]).data

    def new_total(self) -> Any:
        """Pointer to a vector of zeros, which the compiler turns into a register."""
        allocate: Any = cgutils.alloca_once
        total = allocate(self._builder, self.vector)
        self._builder.store(ir.Constant(self.vector, None), total)
        return total

    def add(self, k: Any, total: Any) -> None:
        """Add what belongs to the stored pixel `k` to the vector at `total`."""
        context, builder = self._context, self._builder
        index = builder.load(builder.gep(self._indices, [k]))
        px = context.cast(builder, index, self._types[0].dtype, types.uint64)
        row = builder.gep(self._weights, [builder.mul(px, self._row_items)])
        weights = builder.load(builder.bitcast(row, self.vector.as_pointer()), align=self.item_bytes)
        value = context.unpack_value(builder, self._types[1].dtype, builder.gep(self._values, [k]))
        value = context.cast(builder, value, self._types[1].dtype, self._types[4].dtype)
        product = builder.fmul(self._everywhere(value), weights, flags=FLAGS)
        builder.store(builder.fadd(builder.load(total), product, flags=FLAGS), total)

    def _everywhere(self, value: Any) -> Any:
        first = self._builder.insert_element(ir.Constant(self.vector, None), value, ir.Constant(INT32, 0))
        zeros = ir.Constant(ir.VectorType(INT32, self.vector.count), None)
        return self._builder.shuffle_vector(first, first, zeros)


def _make(width: int) -> Any:
    def add_rows(
        typing_context: Any,
        indices: Any,
        values: Any,
        start: Any,
        stop: Any,
        masks: Any,
        column: Any,
        lanes: Any,
    ) -> Any:
        """Set `lanes` to the sum of ``values[k] * masks[indices[k], column:column + width]``.

        For ``start <= k < stop``. All arrays are C-contiguous; `masks` and `lanes` have the same real dtype,
        in which everything is computed. Nothing is checked.
        """

        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            rows = _Rows(context, builder, signature, args, width)
            n_chains = max(1, CHAINS * REGISTER_BYTES // max(REGISTER_BYTES, width * rows.item_bytes))
            totals = [rows.new_total() for _ in range(n_chains)]
            start, stop = args[2], args[3]
            one, step = ir.Constant(INT64, 1), ir.Constant(INT64, n_chains)
            rest = builder.sub(stop, builder.srem(builder.sub(stop, start), step))
            with cgutils.for_range_slice(builder, start, rest, step, inc=True) as (k, _):
                for i, total in enumerate(totals):
                    rows.add(builder.add(k, ir.Constant(INT64, i)), total)
            with cgutils.for_range_slice(builder, rest, stop, one, inc=True) as (k, _):
                rows.add(k, totals[0])
            result = builder.load(totals[0])
            for total in totals[1:]:
                result = builder.fadd(result, builder.load(total))
            out = builder.bitcast(rows.data(6, args), rows.vector.as_pointer())
            builder.store(result, out, align=rows.item_bytes)
            return context.get_dummy_value()

        where = (types.intp, types.intp)
        return types.void(indices, values, *where, masks, types.intp, lanes), build

    return intrinsic(add_rows)


add_rows_1 = _make(1)
add_rows_2 = _make(2)
add_rows_4 = _make(4)
add_rows_8 = _make(8)
add_rows_16 = _make(16)
add_rows_32 = _make(32)
