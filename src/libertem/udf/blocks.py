"""When a UDF may take frames where they lie in a file, instead of tiles.

A ready-made UDF can define `_process_block` beside its process method. It gets
`libertem.io.dataset.base.blocks.FrameBlock` objects: memory with the stored pixels and the places of frames
in it, which a kernel reduces without a copy. `self.results` then shows the whole partition, and the rows of
kind ``'nav'`` results that belong to a block start at ``block.first`` minus the start of the partition.
Blocks are not corrected: the UDF does that, see `libertem.udf.corrected`. `_begin_blocks` and
`_finish_blocks` are called before the first and after the last block of a partition.

`_process_sparse_block` is the same for `libertem.io.dataset.base.blocks.SparseBlock` objects.

The hooks and the process method have to give the same results; the test suite runs both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.udf.corrected import have_linear_form

if TYPE_CHECKING:
    from libertem.io.dataset.base.blocks import FrameBlock, SparseBlock
    from libertem.udf.contract import UDF

__all__ = ["REAL_PIXELS", "first_row", "swap_flag", "takes_blocks"]

REAL_PIXELS = frozenset(np.dtype(t) for t in ("bool", "u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"))
"""Dtypes (native byte order) that the kernels take. 64 bit integers lose digits as float64."""

_DECIDES_ON_DATA = (
    "process_tile",
    "process_frame",
    "process_partition",
    "get_method",
    "get_preferred_input_dtype",
    "get_tiling_preferences",
    "get_result_buffers",
    "get_task_data",
    "get_backends",
    "preprocess",
)
"""A subclass that defines one of these expects to be asked; then nothing is taken past it."""


def takes_blocks(udf: UDF, stored_dtype: np.dtype[Any], *, sparse: bool = False) -> bool:
    """Whether `_process_block` may be used for this UDF, pixels of this dtype, and the corrections.

    With `sparse`, whether `_process_sparse_block` may.
    """
    if not have_linear_form(udf.meta.corrections):
        return False
    hook = "_process_sparse_block" if sparse else "_process_block"
    for cls in type(udf).__mro__:
        if hook in cls.__dict__:
            break
        if any(name in cls.__dict__ for name in _DECIDES_ON_DATA):
            return False
    if stored_dtype.newbyteorder("=") not in REAL_PIXELS:
        return False
    if not stored_dtype.isnative and stored_dtype.kind == "f":
        # Swapping bytes of floats does not go through a floating point register; tiles are converted.
        return False
    return udf._can_process_sparse_blocks(stored_dtype) if sparse else udf._can_process_blocks(stored_dtype)


def first_row(udf: UDF, block: FrameBlock | SparseBlock) -> int:
    """Row of the first frame of a block in results of kind ``'nav'``."""
    partition_slice = udf.meta._partition_slice
    assert partition_slice is not None
    return block.first - partition_slice.origin[0]


def swap_flag(block: FrameBlock) -> bool | None:
    """What kernels get as `swapped`: True or None, which leads to code without the question."""
    return True if block.swapped else None
