"""Make a UDF from a function of one frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from libertem.common.buffers import BufferWrapper
from libertem.common.math import flat_nonzero
from libertem.udf.contract import UDF

__all__ = ["AutoUDF"]


class AutoUDF(UDF):
    """Apply a function to each frame.

    Parameters
    ----------
    f : callable
        Takes a frame. What it returns for a frame of ones decides shape and dtype of the result.
    monitor : bool
        Also return the result of the last frame that has been processed, as ``monitor``.
    """

    def __init__(self, f: Callable[[Any], Any], monitor: bool = False) -> None:
        super().__init__(f=f, monitor=monitor)

    def get_result_buffers(self) -> dict[str, BufferWrapper]:
        """``result``, of navigation shape; ``monitor`` on demand."""
        example = np.array(
            self.params.f(np.ones(self.meta.dataset_shape.sig.to_tuple(), dtype=self.meta.input_dtype))
        )
        buffers = {"result": self.buffer(kind="nav", extra_shape=example.shape, dtype=example.dtype)}
        if self.params.monitor:
            buffers["monitor"] = self.buffer(
                kind="single", extra_shape=example.shape, dtype=example.dtype, use="result_only"
            )
        return buffers

    def process_frame(self, frame: Any) -> None:
        """Call the function."""
        self.results.result[:] = self.params.f(frame)

    def get_results(self) -> Mapping[str, Any]:
        """Results, with the last one as ``monitor``."""
        result = self.results.result
        if not self.params.monitor:
            return {"result": result}
        if len(result) == 0:
            return {"result": result, "monitor": np.zeros_like(result, shape=(1, *result.shape[1:]))}
        mask = self.meta.get_valid_nav_mask()
        last = 0 if mask is None or not mask.any() else flat_nonzero(mask)[-1]
        return {"result": result, "monitor": result[last : last + 1]}
