"""Fluctuation electron microscopy (FEM): how much the intensity varies around a ring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.buffers import BufferWrapper
from libertem.masks import ring
from libertem.udf.accumulate import as_numbers, exact_dtype
from libertem.udf.blocks import first_row, swap_flag
from libertem.udf.contract import UDF
from libertem.udf.corrected import block_corrections

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.dataset.base.blocks import FrameBlock

__all__ = ["FEMUDF", "run_fem"]


class FEMUDF(UDF):
    """Standard deviation of the pixels in a ring, for each frame.

    Parameters
    ----------
    center : (float, float)
        Centre of the ring, **(y, x)**. Older documentation has it the other way round, but this is how it has
        always been used.
    rad_in, rad_out : float
        Radii of the ring in pixels: rad_in < distance <= rad_out.
    """

    def __init__(self, center: tuple[float, float], rad_in: float, rad_out: float) -> None:
        super().__init__(center=center, rad_in=rad_in, rad_out=rad_out)

    def get_result_buffers(self) -> dict[str, BufferWrapper]:
        """``intensity``: the standard deviation, of navigation shape; NaN if the ring has no pixels."""
        if self.meta.dataset_shape.sig.dims != 2:
            raise ValueError(
                f"FEMUDF needs two signal dimensions, found {self.meta.dataset_shape.sig.to_tuple()} "
                "(give sig_shape when loading)"
            )
        return {
            "intensity": self.buffer(kind="nav", dtype="float32", use="result_only"),
            "n_px": self.buffer(kind="nav", dtype="int64", use="private"),
            "sum": self.buffer(kind="nav", dtype=self._sum_dtype(), use="private"),
            "varsum": self.buffer(kind="nav", dtype="float64", use="private"),
        }

    def _sum_dtype(self) -> np.dtype[Any]:
        return exact_dtype(np.result_type(self.meta.input_dtype, np.float32))

    @property
    def _ring(self) -> npt.NDArray[np.bool_]:
        """The mask. Made once for all tasks of a run."""
        return self._shared.get("ring", self._make_ring)

    def _make_ring(self) -> npt.NDArray[np.bool_]:
        height, width = self.meta.dataset_shape.sig
        y, x = self.params.center
        return ring(x, y, width, height, self.params.rad_out, self.params.rad_in)

    def process_tile(self, tile: npt.NDArray[Any]) -> None:
        """Combine the pixels of a tile with what is there."""
        part = self.meta.sig_slice.get(self._ring, sig_only=True)
        n = int(np.count_nonzero(part))
        if n == 0:
            return
        values = tile[:, part].astype(self._sum_dtype())
        total = values.sum(axis=1)
        values -= (total / n)[:, np.newaxis]
        squares = (values * values.conj()).real.sum(axis=1)
        before = self.results.n_px
        delta = total / n - self.results.sum / np.maximum(before, 1)
        self.results.varsum += squares + (delta * delta.conj()).real * (before * n / (before + n))
        self.results.sum += total
        self.results.n_px += n

    def _can_process_blocks(self, stored_dtype: np.dtype[Any]) -> bool:
        return block_corrections(self) is None

    def _begin_blocks(self) -> None:
        self._segments = _segments(self._ring)

    def _process_block(self, block: FrameBlock) -> None:
        from libertem.udf.kernels.spread import spread

        row = first_row(self, block)
        segments = np.clip(self._segments, block.px_start, block.px_stop) - block.px_start
        segments = segments[segments[:, 0] < segments[:, 1]]
        n = int(np.diff(segments).sum())
        for run in block.runs:
            part = slice(row, row + run.starts.shape[0])
            before = int(self.results.n_px[row])
            sums, varsums = self.results.sum[part], self.results.varsum[part]
            spread(as_numbers(run.buffer), run.starts, segments, swap_flag(block), before, sums, varsums)
            self.results.n_px[part] += n
            row = part.stop

    def get_results(self) -> Mapping[str, Any]:
        """The standard deviation in the documented dtype."""
        n = self.results.n_px
        # Blank frames, and those that are still to come, have no deviation.
        variance = np.full(n.shape, 0.0 if self._ring.any() else np.nan)
        np.divide(self.results.varsum, n, out=variance, where=n > 0)
        return {"intensity": np.sqrt(variance).astype(np.float32)}


def _segments(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Runs of True in the flat mask: ``(n, 2)``, first index and the one behind the last."""
    edges = np.flatnonzero(np.diff(mask.reshape(-1).astype(np.int8), prepend=0, append=0))
    return edges.astype(np.int64).reshape((-1, 2))


def run_fem(
    ctx: Any,
    dataset: Any,
    center: tuple[float, float],
    rad_in: float,
    rad_out: float,
    roi: Any = None,
) -> Any:
    """Run `FEMUDF` over a data set."""
    return ctx.run_udf(dataset=dataset, udf=FEMUDF(center=center, rad_in=rad_in, rad_out=rad_out), roi=roi)
