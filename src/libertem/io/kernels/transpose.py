"""Transpose blocks of pixels: from planes, which hold one pixel of many frames each, to frames.

Pixels are moved in squares through vector registers of 16 bytes: as many pieces of planes as they have
elements are loaded, interleaved in pairs until each register holds a piece of one frame, and stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llvmlite import ir
from numba import types

from libertem.common.jit import intrinsic, jit

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["gather_items", "transpose_planes"]

BYTE = ir.IntType(8)
VECTOR_BYTES = 16
"""What all processors of the last twenty years have."""


def _place(context: Any, builder: Any, array_type: Any, array: Any, index: Any, kind: Any) -> Any:
    """Pointer to something that begins at an element of an array."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())


def _interleave(builder: Any, rows: list[Any]) -> list[Any]:
    """Transpose a square of as many vectors as they have elements."""
    n = len(rows)
    index = ir.VectorType(ir.IntType(32), n)
    halves = []
    for first in (0, n // 2):
        halves.append(ir.Constant(index, [i for k in range(n // 2) for i in (first + k, n + first + k)]))
    for _ in range(n.bit_length() - 1):
        pairs = [(rows[i], rows[i + n // 2]) for i in range(n // 2)]
        rows = [builder.shuffle_vector(a, b, half) for a, b in pairs for half in halves]
    return rows


@intrinsic
def move_square(
    typing_context: Any,
    source: Any,
    planes: Any,
    plane: Any,
    shift: Any,
    out: Any,
    rows: Any,
    row: Any,
    px: Any,
) -> Any:
    """Move a square from ``source[planes[plane + i] + shift:]`` to ``out[rows[row + k] + px:]``.

    `source` has bytes, which need not be aligned; `out` has unsigned integers. The side of the square is as
    many of these as fit a vector.
    """

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        item = context.get_value_type(signature.args[4].dtype)
        n = VECTOR_BYTES * 8 // item.width
        vector = ir.VectorType(item, n)
        long = ir.IntType(64)

        def load_index(which: int, at: Any, k: int) -> Any:
            at = builder.add(at, ir.Constant(long, k))
            return builder.load(_place(context, builder, signature.args[which], args[which], at, long))

        squares = []
        for k in range(n):
            start = builder.add(load_index(1, args[2], k), args[3])
            squares.append(
                builder.load(_place(context, builder, signature.args[0], args[0], start, vector), align=1)
            )
        for k, piece in enumerate(_interleave(builder, squares)):
            start = builder.add(load_index(5, args[6], k), args[7])
            place = _place(context, builder, signature.args[4], args[4], start, vector)
            builder.store(piece, place, align=item.width // 8)
        return context.get_dummy_value()

    where = (types.intp, types.intp)
    return types.void(source, planes, *where, out, rows, *where), build


@intrinsic
def load_item(typing_context: Any, source: Any, start: Any, out: Any) -> Any:
    """The item of the dtype of `out` that begins at byte `start` of `source`, not aligned."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        item = context.get_value_type(signature.return_type)
        return builder.load(_place(context, builder, signature.args[0], args[0], args[1], item), align=1)

    return out.dtype(source, types.intp, out), build


@jit
def transpose_planes(
    source: npt.NDArray[np.uint8],
    planes: npt.NDArray[np.int64],
    shifts: npt.NDArray[np.int64],
    out: npt.NDArray[Any],
    rows: npt.NDArray[np.int64],
    first_px: int,
) -> None:
    """Bring some frames of some planes together.

    Pixel `p` of frame `f` comes from ``source[planes[p] + shifts[f]:]`` and goes to
    ``out[rows[f] + first_px + p]``. Nothing is checked.

    Parameters
    ----------
    source : array
        1D, bytes. Need not be aligned.
    planes : array
        For each pixel the byte in `source` where its plane starts.
    shifts : array
        For each frame the byte of its pixel in a plane; ascending.
    out : array
        1D, unsigned integers of the size of a pixel.
    rows : array
        For each frame the index in `out` of its first pixel.
    first_px : int
        To be added to that.
    """
    item = out.itemsize
    side = VECTOR_BYTES // item
    n_px = planes.shape[0]
    n = shifts.shape[0]
    whole_px = n_px // side * side
    f = 0
    for p in range(0, whole_px, side):
        f = 0
        while f < n:
            if f + side <= n and shifts[f + side - 1] - shifts[f] == (side - 1) * item:
                move_square(source, planes, p, shifts[f], out, rows, f, first_px + p)
                f += side
            else:
                for i in range(p, p + side):
                    out[rows[f] + first_px + i] = load_item(source, planes[i] + shifts[f], out)
                f += 1
    for p in range(whole_px, n_px):
        for f in range(n):
            out[rows[f] + first_px + p] = load_item(source, planes[p] + shifts[f], out)


@jit
def gather_items(
    source: npt.NDArray[np.uint8],
    planes: npt.NDArray[np.int64],
    shifts: npt.NDArray[np.int64],
    out: npt.NDArray[np.uint8],
    rows: npt.NDArray[np.int64],
    first_px: int,
    item: int,
) -> None:
    """The same for items of any size: `out` has bytes, `rows` and `first_px` count items."""
    for p in range(planes.shape[0]):
        for f in range(shifts.shape[0]):
            start = planes[p] + shifts[f]
            place = (rows[f] + first_px + p) * item
            for i in range(item):
                out[place + i] = source[start + i]
