"""Sum over the logarithm of all frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from libertem.common.arrays import D2_BACKENDS
from libertem.common.buffers import BufferWrapper
from libertem.udf.contract import UDF
from libertem.udf.groups import associative

__all__ = ["LogsumUDF", "run_logsum"]


class LogsumUDF(UDF):
    """Sum over the natural logarithm of all frames, for each pixel: ``ln(frame - frame.min() + 1)``.

    Shows weak features beside strong ones. Added up in float64.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def get_backends(self) -> tuple[str, ...]:
        """All that allow arithmetic with numbers."""
        return tuple(b for b in self.BACKEND_ALL if b not in D2_BACKENDS)

    def get_result_buffers(self) -> dict[str, BufferWrapper]:
        """``logsum``: the sum, of signal shape."""
        return {
            "logsum": self.buffer(kind="sig", dtype="float32", use="result_only"),
            "total": self.buffer(kind="sig", dtype="float64", where="device", use="private"),
        }

    def process_frame(self, frame: Any) -> None:
        """Add a frame."""
        total = self.results.total
        total += self.forbuf(np.log(frame - frame.min() + 1), total)

    @associative
    def merge(self, dest: Any, src: Any) -> None:
        """Add the sum of a partition."""
        dest.total += src.total

    def get_results(self) -> Mapping[str, Any]:
        """The sum in the documented dtype."""
        return {"logsum": self.results.total.astype(np.float32)}


def run_logsum(ctx: Any, dataset: Any, roi: Any = None) -> Any:
    """Run `LogsumUDF` over a data set."""
    return ctx.run_udf(dataset=dataset, udf=LogsumUDF(), roi=roi)
