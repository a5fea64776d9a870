"""Sum over the pixels of each frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.buffers import BufferWrapper
from libertem.udf.accumulate import add_sum, as_numbers, exact_dtype
from libertem.udf.blocks import first_row, swap_flag
from libertem.udf.contract import UDF
from libertem.udf.corrected import block_corrections
from libertem.udf.masks import BlockProducts

if TYPE_CHECKING:
    from libertem.io.dataset.base.blocks import FrameBlock, SparseBlock

__all__ = ["SumSigUDF", "run_sumsig"]


class SumSigUDF(UDF):
    """Sum over the pixels of each frame.

    Integers are added up exactly, floats in float64; the result is then converted to float32, or to the
    input dtype where that is wider.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def get_backends(self) -> tuple[str, ...]:
        """All."""
        return self.BACKEND_ALL

    def _result_dtype(self) -> np.dtype[Any]:
        return np.result_type(self.meta.input_dtype, np.float32)

    def get_result_buffers(self) -> dict[str, BufferWrapper]:
        """``intensity``: the sum, of navigation shape."""
        return {
            "intensity": self.buffer(kind="nav", dtype=self._result_dtype(), use="result_only"),
            "total": self.buffer(
                kind="nav", dtype=exact_dtype(self.meta.input_dtype), where="device", use="private"
            ),
        }

    def process_tile(self, tile: Any) -> None:
        """Add up a tile."""
        add_sum(self, tile, self.results.total, axis=1)

    def _can_process_blocks(self, stored_dtype: np.dtype[Any]) -> bool:
        return self.meta.input_dtype.kind in "biuf"

    def _process_block(self, block: FrameBlock) -> None:
        from libertem.udf.kernels.sums import sum_pixels

        if block_corrections(self) is not None:
            products = self._shared.get("products", self._make_products)
            products.add(self, block, self.results.total[:, np.newaxis])
            return
        row = first_row(self, block)
        for run in block.runs:
            n = run.starts.shape[0]
            pixels = as_numbers(run.buffer)
            # Integers are added up as integers, also where the total is a float.
            exact = np.zeros(n, dtype=exact_dtype(pixels.dtype))
            sum_pixels(pixels, run.starts, block.n_px, swap_flag(block), exact)
            self.results.total[row : row + n] += exact.astype(self.results.total.dtype)
            row += n

    def _process_sparse_block(self, block: SparseBlock) -> None:
        from libertem.udf.kernels.csr import csr_sum_pixels

        values = as_numbers(block.values)
        exact = np.zeros(block.n_frames, dtype=exact_dtype(values.dtype))
        csr_sum_pixels(block.indptr, values, exact)
        row = first_row(self, block)
        self.results.total[row : row + block.n_frames] += exact.astype(self.results.total.dtype)

    def _make_products(self) -> BlockProducts:
        """Corrected pixels are no integers any more; float64 adds them up as precisely as it can be done."""
        ones = np.ones((1, self.meta.dataset_shape.sig.size))
        return BlockProducts(self, ones, np.float64)

    def get_results(self) -> Mapping[str, Any]:
        """The sum in the documented dtype."""
        return {"intensity": self.results.total.astype(self._result_dtype())}


def run_sumsig(ctx: Any, dataset: Any) -> Any:
    """Run `SumSigUDF` over a data set."""
    return ctx.run_udf(dataset=dataset, udf=SumSigUDF())
