"""Mean, variance and standard deviation over all frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.buffers import BufferWrapper
from libertem.udf.accumulate import as_numbers, lanes_for
from libertem.udf.blocks import swap_flag
from libertem.udf.contract import UDF
from libertem.udf.corrected import ExcludedPixels
from libertem.udf.groups import associative

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.dataset.base.blocks import FrameBlock

__all__ = ["StdDevUDF", "consolidate_result", "run_stddev"]


class StdDevUDF(UDF):
    """Sum, mean, variance and standard deviation over all frames, for each pixel, in one pass.

    The algorithm is numerically stable: parts are combined about their own means.

    Parameters
    ----------
    dtype : dtype, optional
        Precision of the calculation; float64 by default.
    use_numba : bool
        Kept for compatibility; kernels are compiled where the data allows it.
    """

    _needs_neighbours = True

    def __init__(self, dtype: npt.DTypeLike | None = None, use_numba: bool = True, **kwargs: Any) -> None:
        super().__init__(dtype=dtype, use_numba=use_numba, **kwargs)

    def _base_dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float64 if self.params.dtype is None else self.params.dtype)

    def _sum_dtype(self) -> np.dtype[Any]:
        return np.result_type(self.meta.input_dtype, self._base_dtype())

    def get_result_buffers(self) -> dict[str, BufferWrapper]:
        """Sums that are merged, and what follows from them."""
        base, sums = self._base_dtype(), self._sum_dtype()
        return {
            "varsum": self.buffer(kind="sig", dtype=base),
            "num_frames": self.buffer(kind="single", dtype="int64"),
            "sum": self.buffer(kind="sig", dtype=sums),
            "var": self.buffer(kind="sig", dtype=base, use="result_only"),
            "std": self.buffer(kind="sig", dtype=base, use="result_only"),
            "mean": self.buffer(kind="sig", dtype=sums, use="result_only"),
        }

    def preprocess(self) -> None:
        """Frames are counted per signal slice; all slices see the same frames."""
        self._frames_seen: dict[int, int] = {}

    def process_tile(self, tile: npt.NDArray[Any]) -> None:
        """Combine a tile with what is there."""
        key = self.meta.tiling_scheme_idx
        before = self._frames_seen.get(key, 0)
        n = tile.shape[0]
        total = tile.sum(axis=0, dtype=self._sum_dtype())
        deviation = tile - total / n
        squares = (deviation * deviation.conj()).real.sum(axis=0, dtype=self._base_dtype())
        self.results.varsum[...], self.results.sum[...] = _combine(
            before, self.results.sum, self.results.varsum, n, total, squares
        )
        self._frames_seen[key] = before + n
        self.results.num_frames[0] = max(self._frames_seen.values())

    def _can_process_blocks(self, stored_dtype: np.dtype[Any]) -> bool:
        return self._base_dtype() == np.float64 and self._sum_dtype() == np.float64

    def _begin_blocks(self) -> None:
        self._excluded = ExcludedPixels.of(self)

    def _process_block(self, block: FrameBlock) -> None:
        from libertem.udf.kernels.moments import moments, power_sums, scratch_for_squares

        where = slice(block.px_start, block.px_stop)
        sums, varsums = self.results.sum.reshape(-1)[where], self.results.varsum.reshape(-1)[where]
        before = self._frames_seen.get(block.px_start, 0)
        for run in block.runs:
            pixels = as_numbers(run.buffer)
            frames = (pixels, run.starts, block.n_px, swap_flag(block), before)
            if pixels.dtype.kind in "iu" and pixels.dtype.itemsize <= 2:
                lanes = lanes_for(pixels.dtype, sums.dtype)
                squares = scratch_for_squares(pixels.dtype, lanes.shape[0])
                power_sums(*frames, lanes, squares, sums, varsums)
            else:
                moments(*frames, sums, varsums)
            before += run.starts.shape[0]
        self._frames_seen[block.px_start] = before
        self.results.num_frames[0] = max(self._frames_seen.values())
        if self._excluded is not None:
            self._excluded.add(block)

    def _finish_blocks(self) -> None:
        if self._excluded is None:
            return
        corrections = self._excluded.corrections
        corrections.correct_sums(self.results.sum, self._excluded.n_frames)
        varsums = self.results.varsum.reshape(-1)
        if corrections.gain.size:
            varsums *= corrections.gain**2
        self.results.sum.reshape(-1)[corrections.excluded] = self._excluded.sums
        varsums[corrections.excluded] = self._excluded.varsums

    @associative
    def merge(self, dest: Any, src: Any) -> None:
        """Combine the result of a partition with what is there."""
        n0, n1 = int(dest.num_frames[0]), int(src.num_frames[0])
        if n1 == 0:
            return
        arrays = (dest.sum, dest.varsum, src.sum, src.varsum)
        if n0 and all(array.dtype == np.float64 and array.flags.c_contiguous for array in arrays):
            from libertem.udf.kernels.moments import merge_moments

            sums0, varsums0, sums1, varsums1 = (array.reshape(-1) for array in arrays)
            merge_moments(n0, sums0, varsums0, n1, sums1, varsums1)
        else:
            dest.varsum[...], dest.sum[...] = _combine(n0, dest.sum, dest.varsum, n1, src.sum, src.varsum)
        dest.num_frames[0] = n0 + n1

    def get_results(self) -> Mapping[str, Any]:
        """Mean, variance and standard deviation; NaN where there are no frames."""
        n = int(self.results.num_frames[0])
        with np.errstate(divide="ignore", invalid="ignore"):
            var = (self.results.varsum / n if n else self.results.varsum * np.nan).astype(self._base_dtype())
            mean = self.results.sum / n if n else self.results.sum * np.nan
        return {
            "varsum": self.results.varsum,
            "num_frames": self.results.num_frames,
            "sum": self.results.sum,
            "var": var,
            "std": np.sqrt(var),
            "mean": mean.astype(self._sum_dtype()),
        }


def _combine(
    n0: int, sum0: Any, varsum0: Any, n1: int, sum1: Any, varsum1: Any
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Sums of squared deviations, and sums, of two parts together."""
    if n0 == 0:
        return varsum1, sum1
    delta = sum1 / n1 - sum0 / n0
    weight = n0 * (n1 / (n0 + n1))
    return varsum0 + varsum1 + (delta * delta.conj()).real * weight, sum0 + sum1


def run_stddev(
    ctx: Any, dataset: Any, roi: Any = None, progress: bool = False, use_numba: bool = True
) -> dict[str, Any]:
    """Run `StdDevUDF` over a data set; results as plain arrays."""
    udf = StdDevUDF(use_numba=use_numba)
    return consolidate_result(ctx.run_udf(dataset=dataset, roi=roi, udf=udf, progress=progress))


def consolidate_result(udf_result: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the result of `StdDevUDF` into plain arrays, and `num_frames` into a number."""
    result: dict[str, Any] = {name: np.asarray(buffer.data) for name, buffer in udf_result.items()}
    result["num_frames"] = result["num_frames"][0]
    return result
