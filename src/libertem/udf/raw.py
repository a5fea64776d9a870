"""Pick frames."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.buffers import BufferWrapper
from libertem.common.math import prod
from libertem.udf.blocks import first_row
from libertem.udf.contract import UDF

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.dataset.base.blocks import FrameBlock

__all__ = ["PickUDF"]

log = logging.getLogger(__name__)

LARGE_BYTES = 2**28


class PickUDF(UDF):
    """Load the frames that the ROI selects, in their native dtype."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def get_preferred_input_dtype(self) -> npt.DTypeLike:
        """Native."""
        return self.USE_NATIVE_DTYPE

    def get_result_buffers(self) -> dict[str, BufferWrapper]:
        """``intensity``: the frames, ``(selected frames, *sig)``."""
        sig = self.meta.dataset_shape.sig.to_tuple()
        dtype = self.meta.input_dtype
        return {
            "intensity": self.buffer(
                kind="single", extra_shape=(self._n_frames(), *sig), dtype=dtype, use="result_only"
            ),
            # Of kind 'nav', so that partitions hold and send only their own frames.
            "frames": self.buffer(kind="nav", extra_shape=sig, dtype=dtype, use="private"),
        }

    def _n_frames(self) -> int:
        if self.meta.roi is None:
            return self.meta.dataset_shape.nav.size
        return int(np.count_nonzero(self.meta.roi))

    def preprocess(self) -> None:
        """Warn about a large result."""
        n_bytes = self._n_frames() * prod(self.meta.dataset_shape.sig) * self.meta.input_dtype.itemsize
        if self.meta.slice is None and n_bytes > LARGE_BYTES:
            log.warning("PickUDF is about to load %d bytes, consider a smaller ROI", n_bytes)

    def process_tile(self, tile: npt.NDArray[Any]) -> None:
        """Copy a tile."""
        self.meta.sig_slice.get(self.results.frames, sig_only=True)[...] = tile

    def _can_process_blocks(self, stored_dtype: np.dtype[Any]) -> bool:
        # Blocks are not corrected.
        return stored_dtype == self.meta.input_dtype and not self.meta.corrections.have_corrections()

    def _process_block(self, block: FrameBlock) -> None:
        row = first_row(self, block)
        frames = self.results.frames
        flat = frames.reshape(frames.shape[0], -1)[:, block.px_start : block.px_stop]
        for run in block.runs:
            for start in run.starts.tolist():
                flat[row] = run.buffer[start : start + block.n_px]
                row += 1

    def get_results(self) -> Mapping[str, Any]:
        """The frames."""
        return {"intensity": self.results.frames}
