"""Read a part of each frame: the UDF behind everything here that needs pixels rather than sums."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.buffers import BufferWrapper
from libertem.common.math import flat_nonzero
from libertem.io.corrections.corrset import CorrectionSet
from libertem.io.dataset.base.framefile import FrameFileDataSet
from libertem.udf.blocks import first_row
from libertem.udf.contract import UDF
from libertem.udf.runner import input_dtype

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.dataset.base.blocks import FrameBlock, FrameRun
    from libertem.io.dataset.base.dataset import DataSet

__all__ = ["BYTES_AT_A_TIME", "CropUDF", "dtype_of", "is_cut_anywhere", "read_frames", "workers_of"]

BYTES_AT_A_TIME = 32 << 20
"""Read in one run. Starting runs takes little time compared to that; memory of larger pieces would come fresh
from the system each time, which took longer than to fill it (half the time for 1 GiB)."""

MAX_AT_ONCE = 16
"""Workers that are kept busy; more than that read faster than anybody takes their results."""


class CropUDF(UDF):
    """Copy a part of each frame in the native dtype.

    Parameters
    ----------
    crop : tuple of range
        Rows, columns, ... of the part: one ascending range per signal axis, none of them empty.
    """

    def __init__(self, crop: tuple[range, ...]) -> None:
        super().__init__(crop=crop)

    def get_preferred_input_dtype(self) -> npt.DTypeLike:
        """Native."""
        return self.USE_NATIVE_DTYPE

    def get_result_buffers(self) -> dict[str, BufferWrapper]:
        """``pixels``: ``(frames, *crop)``; zeros where there is no frame."""
        crop_shape = tuple(len(r) for r in self.params.crop)
        return {"pixels": self.buffer(kind="nav", extra_shape=crop_shape, dtype=self.meta.input_dtype)}

    def process_tile(self, tile: npt.NDArray[Any]) -> None:
        """Copy what a tile and the part have in common."""
        target: list[slice] = [slice(None)]
        source: list[slice] = [slice(None)]
        sig = self.meta.sig_slice
        for wanted, origin, extent in zip(self.params.crop, sig.origin, sig.shape, strict=True):
            begin, end = _position(wanted, origin), _position(wanted, origin + extent)
            if begin >= end:
                return
            target.append(slice(begin, end))
            source.append(slice(wanted[begin] - origin, wanted[end - 1] - origin + 1, wanted.step))
        self.results.pixels[tuple(target)] = tile[tuple(source)]

    def _can_process_blocks(self, stored_dtype: np.dtype[Any]) -> bool:
        # Blocks are not corrected.
        return (
            stored_dtype.newbyteorder("=") == self.meta.input_dtype
            and not self.meta.corrections.have_corrections()
        )

    def _process_block(self, block: FrameBlock) -> None:
        pixels = self.results.pixels
        sig_shape = self.meta.dataset_shape.sig.to_tuple()
        index = tuple(slice(r.start, r.stop, r.step) for r in self.params.crop)
        row = first_row(self, block)
        for run in block.runs:
            for frames in _arrays(run, block.n_px):
                stored = frames.view(frames.dtype.newbyteorder()) if block.swapped else frames
                out = pixels[row : row + len(stored)]
                row += len(stored)
                if block.n_px == math.prod(sig_shape):
                    out[...] = stored.reshape((-1, *sig_shape))[(slice(None), *index)]
                    continue
                # A part of each frame that need not be a rectangle.
                wanted = self._shared.get("flat", lambda: _flat_indices(sig_shape, index))
                begin, end = np.searchsorted(wanted, [block.px_start, block.px_stop])
                flat = out.reshape(len(out), -1)
                flat[:, begin:end] = stored[:, wanted[begin:end] - block.px_start]


def _position(wanted: range, start: int) -> int:
    """How many elements of an ascending range are below `start`."""
    return min(len(wanted), max(0, -((wanted.start - start) // wanted.step)))


def _flat_indices(sig_shape: tuple[int, ...], index: tuple[slice, ...]) -> npt.NDArray[np.int64]:
    """Flat indices of a part of a frame, ascending."""
    return np.arange(math.prod(sig_shape)).reshape(sig_shape)[index].reshape(-1)


def _arrays(run: FrameRun, n_px: int) -> Iterator[npt.NDArray[Any]]:
    """Frames of a run as arrays ``(frames, n_px)``: one if they lie at equal distances, else one for each."""
    starts, buffer = run.starts, run.buffer
    step = int(starts[1] - starts[0]) if len(starts) > 1 else n_px
    if step > 0 and bool((np.diff(starts) == step).all()):
        strides = (step * buffer.itemsize, buffer.itemsize)
        first = buffer[int(starts[0]) : int(starts[-1]) + n_px]
        yield np.lib.stride_tricks.as_strided(first, (len(starts), n_px), strides, writeable=False)
        return
    for start in starts.tolist():
        yield buffer[np.newaxis, start : start + n_px]


def dtype_of(dataset: DataSet, corrections: CorrectionSet | None = None) -> np.dtype[Any]:
    """Dtype in which pixels of a data set are read: the native one, in native byte order.

    Wider where corrections come with the data, which makes floats of integers.
    """
    corrections = dataset.get_correction_data() if corrections is None else corrections
    return input_dtype([CropUDF(())], dataset.dtype, corrections)


def is_cut_anywhere(dataset: DataSet) -> bool:
    """Whether it costs nothing to read a partition in several runs.

    Where frames are decoded together, as in chunks of HDF5, each run would decode them again.
    """
    if not dataset.need_decode(dtype_of(dataset), None, None):
        return True
    cut = getattr(type(dataset), "get_partitions", None)
    return isinstance(dataset, FrameFileDataSet) and cut is FrameFileDataSet.get_partitions


def read_frames(
    ctx: Any, dataset: DataSet, roi: npt.NDArray[np.bool_] | None, crop: tuple[range, ...] | None = None
) -> npt.NDArray[Any]:
    """Read selected frames, or a part of each, in the order of the scan.

    Parameters
    ----------
    ctx : Context
        Does it, with all of its workers.
    dataset : DataSet
        What to read from.
    roi : array of bool or None
        Of navigation shape; None for all frames.
    crop : tuple of range, optional
        One ascending range per signal axis; whole frames by default.

    Returns
    -------
    numpy.ndarray
        ``(frames, *crop)``, writable, in native byte order. Blank frames are 0.
    """
    if crop is None:
        crop = tuple(range(extent) for extent in dataset.shape.sig)
    n_frames = math.prod(dataset.shape.nav) if roi is None else int(np.count_nonzero(roi))
    shape = (n_frames, *(len(r) for r in crop))
    dtype = dtype_of(dataset)
    if math.prod(shape) == 0:
        return np.empty(shape, dtype=dtype)
    n_bytes = math.prod(shape) * dtype.itemsize
    if n_bytes <= 2 * BYTES_AT_A_TIME or not is_cut_anywhere(dataset):
        pixels: npt.NDArray[Any] = ctx.run_udf(dataset=dataset, udf=CropUDF(crop), roi=roi)["pixels"].raw_data
        return pixels.reshape(shape)
    return _read_in_runs(ctx, dataset, roi, crop, np.empty(shape, dtype=dtype))


def _read_in_runs(
    ctx: Any,
    dataset: DataSet,
    roi: npt.NDArray[np.bool_] | None,
    crop: tuple[range, ...],
    out: npt.NDArray[Any],
) -> npt.NDArray[Any]:
    """Fill `out` with little more memory than that: the results of a run exist on workers, too."""
    nav_shape = dataset.shape.nav.to_tuple()
    selected = np.arange(math.prod(nav_shape)) if roi is None else flat_nonzero(roi)
    n_workers = workers_of(dataset)
    n_frames = max(1, BYTES_AT_A_TIME // n_workers // out[0].nbytes)
    starts = range(0, len(selected), n_frames)
    n_runs = -(-len(starts) // n_workers)
    for first in range(n_runs):
        # Far apart, so that different workers have them.
        parts = [slice(start, start + n_frames) for start in starts[first::n_runs]]
        mask = np.zeros(math.prod(nav_shape), dtype=bool)
        for part in parts:
            mask[selected[part]] = True
        run = ctx.run_udf(dataset=dataset, udf=CropUDF(crop), roi=mask.reshape(nav_shape))
        frames, row = run["pixels"].raw_data, 0
        for part in parts:
            n = len(selected[part])
            out[part] = frames[row : row + n]
            row += n
    return out


def workers_of(dataset: DataSet) -> int:
    """Cores as the executor told the data set; those of other packages may not remember them."""
    return min(MAX_AT_ONCE, max(1, getattr(dataset, "_cores", 1)))
