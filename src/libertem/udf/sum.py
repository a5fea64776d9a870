"""Sum over all frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.buffers import BufferWrapper
from libertem.udf.accumulate import add_sum, as_numbers, exact_dtype, lanes_for
from libertem.udf.blocks import swap_flag
from libertem.udf.contract import UDF
from libertem.udf.corrected import block_corrections
from libertem.udf.groups import associative

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.dataset.base.blocks import FrameBlock, SparseBlock

__all__ = ["SumUDF"]


class SumUDF(UDF):
    """Sum over all frames, for each pixel.

    Integers are added up exactly, floats in float64; the result is then converted to the input dtype.

    Parameters
    ----------
    dtype : dtype
        Preferred input dtype. With integers the result wraps around as usual.

    Examples
    --------
    >>> from libertem.api import Context
    >>> ctx = Context.make_with("inline")
    >>> ds = ctx.load("memory", data=np.ones((3, 4, 8, 8), dtype=np.uint16))
    >>> ctx.run_udf(dataset=ds, udf=SumUDF())["intensity"].data[0, 0]
    np.float32(12.0)
    """

    def __init__(self, dtype: npt.DTypeLike = "float32", **kwargs: Any) -> None:
        super().__init__(dtype=dtype, **kwargs)

    def get_preferred_input_dtype(self) -> npt.DTypeLike:
        """As given to the constructor."""
        preferred: npt.DTypeLike = self.params.dtype
        return preferred

    def get_backends(self) -> tuple[str, ...]:
        """All."""
        return self.BACKEND_ALL

    def get_result_buffers(self) -> dict[str, BufferWrapper]:
        """``intensity``: the sum, of signal shape."""
        dtype = self.meta.input_dtype
        return {
            "intensity": self.buffer(kind="sig", dtype=dtype, use="result_only"),
            "total": self.buffer(kind="sig", dtype=exact_dtype(dtype), where="device", use="private"),
        }

    def process_tile(self, tile: Any) -> None:
        """Add a tile."""
        add_sum(self, tile, self.results.total, axis=0)

    def _can_process_blocks(self, stored_dtype: np.dtype[Any]) -> bool:
        return self.meta.input_dtype.kind in "iuf"

    def _begin_blocks(self) -> None:
        self._n_frames = 0

    def _process_block(self, block: FrameBlock) -> None:
        from libertem.udf.kernels.sums import sum_frames

        total = self.results.total.reshape(-1)[block.px_start : block.px_stop]
        for run in block.runs:
            pixels = as_numbers(run.buffer)
            lanes = lanes_for(pixels.dtype, total.dtype)
            sum_frames(pixels, run.starts, block.n_px, swap_flag(block), lanes, total)
        if block.px_start == 0:
            self._n_frames += block.n_frames

    def _process_sparse_block(self, block: SparseBlock) -> None:
        from libertem.udf.kernels.csr import csr_sum_frames

        total = self.results.total.reshape(-1)
        csr_sum_frames(block.indptr, block.indices, as_numbers(block.values), total)

    def _finish_blocks(self) -> None:
        corrections = block_corrections(self)
        if corrections is not None:
            corrections.correct_sums(self.results.total, self._n_frames)
            corrections.repair_sums(self.results.total)

    @associative
    def merge(self, dest: Any, src: Any) -> None:
        """Add the sum of a partition."""
        dest.total += src.total

    def get_results(self) -> Mapping[str, Any]:
        """The sum in the input dtype."""
        return {"intensity": self.results.total.astype(self.meta.input_dtype)}
