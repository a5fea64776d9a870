"""Cut frame blocks into tiles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from libertem.common.math import prod
from libertem.common.protocols import CorrectionsProtocol
from libertem.common.shape import Shape
from libertem.common.slice import Slice
from libertem.io.dataset.base.blocks import FrameBlock, FrameRun, Frames
from libertem.io.dataset.base.decode import check_conversion
from libertem.io.dataset.base.tile import DataTile

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.dataset.base.scheme import TilingScheme

__all__ = ["TileCutter"]


class TileCutter:
    """Makes contract tiles from frame blocks: views where possible, else converted copies.

    Parameters
    ----------
    frames : Frames
        Those in the blocks.
    scheme : TilingScheme
        Adjusted to the partition.
    dest_dtype : dtype
        Of the tiles.
    corrections : CorrectionSet, optional
        Applied to the copies.
    """

    def __init__(
        self,
        frames: Frames,
        scheme: TilingScheme,
        dest_dtype: npt.DTypeLike,
        corrections: CorrectionsProtocol | None,
    ) -> None:
        self._stored = frames.dtype
        self._dest = np.dtype(dest_dtype)
        check_conversion(self._stored, self._dest)
        self._scheme = scheme
        self._corrections = (
            corrections if corrections is not None and corrections.have_corrections() else None
        )
        self._copy = self._corrections is not None or self._stored != self._dest
        sig_shape = frames.sig_shape
        item = self._stored.itemsize
        self._strides = tuple(prod(sig_shape[axis + 1 :]) * item for axis in range(len(sig_shape)))
        self._out: npt.NDArray[Any] | None = None
        self._scratch: npt.NDArray[np.uint8] | None = None

    def cut(self, block: FrameBlock) -> Iterator[DataTile]:
        """Tiles of a block: `depth` frames at a time, all signal slices of the slab for each."""
        n_frames = block.n_frames
        for row in range(0, n_frames, self._scheme.depth):
            stop = min(n_frames, row + self._scheme.depth)
            parts = list(_rows(block.runs, row, stop))
            for idx in block.slab.slices:
                sig_slice = self._scheme[idx]
                tile_slice = Slice(
                    origin=(block.first + row, *sig_slice.origin),
                    shape=Shape((stop - row, *sig_slice.shape), sig_dims=len(sig_slice.origin)),
                )
                data = self._data(block, parts, tile_slice)
                yield DataTile(data, tile_slice=tile_slice, scheme_idx=idx)

    def _data(self, block: FrameBlock, parts: list[_Part], where: Slice) -> npt.NDArray[Any]:
        shape = where.shape.to_tuple()
        if not self._copy and len(parts) == 1:
            return self._view(block, parts[0], where)
        out = self._output(shape)
        row = 0
        for part in parts:
            stop = row + part.starts.shape[0]
            np.copyto(out[row:stop], self._view(block, part, where), casting="unsafe")
            row = stop
        if self._corrections is not None:
            self._corrections.apply(out, where)
        return out

    def _output(self, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        size = prod(shape)
        if self._out is None or self._out.size < size:
            self._out = np.empty(size, dtype=self._dest)
        return self._out[:size].reshape(shape)

    def _view(self, block: FrameBlock, part: _Part, where: Slice) -> npt.NDArray[Any]:
        """Pixels of some frames of one run, as stored."""
        item = self._stored.itemsize
        origin = sum(o * s for o, s in zip(where.origin[1:], self._strides, strict=True))
        offset = origin - block.px_start * item
        shape = (part.starts.shape[0], *where.shape.to_tuple()[1:])
        if part.stride is not None:
            return np.ndarray(
                shape,
                dtype=self._stored,
                buffer=part.run.buffer.data,
                offset=int(part.starts[0]) * item + offset,
                strides=(part.stride * item, *self._strides),
            )
        # From the first to the last pixel of the slice, which may leave some in between unused.
        span = item + sum((e - 1) * s for e, s in zip(shape[1:], self._strides, strict=True))
        rows = self._gather(part.run, part.starts * item + offset, span)
        return np.ndarray(shape, dtype=self._stored, buffer=rows.data, strides=(span, *self._strides))

    def _gather(self, run: FrameRun, starts: npt.NDArray[np.int64], n_bytes: int) -> npt.NDArray[np.uint8]:
        from libertem.io.kernels.gather import gather_rows  # loads numba

        size = starts.shape[0] * n_bytes
        if self._scratch is None or self._scratch.size < size:
            self._scratch = np.empty(size, dtype=np.uint8)
        rows = self._scratch[:size].reshape(starts.shape[0], n_bytes)
        gather_rows(run.buffer.view(np.uint8), starts, rows)
        return rows


class _Part(NamedTuple):
    """Some frames of one run."""

    run: FrameRun
    starts: npt.NDArray[np.int64]
    stride: int | None
    """Distance between frames if it is the same for all."""


def _rows(runs: tuple[FrameRun, ...], row: int, stop: int) -> Iterator[_Part]:
    """The parts of the runs that hold frames ``[row, stop)`` of a block."""
    first = 0
    for run in runs:
        n = run.starts.shape[0]
        lo, hi = max(row - first, 0), min(stop - first, n)
        if lo < hi:
            yield _Part(run, run.starts[lo:hi], _regular_stride(run.starts[lo:hi]))
        first += n


def _regular_stride(starts: npt.NDArray[np.int64]) -> int | None:
    """Distance between frames if it is the same for all, else None."""
    if starts.shape[0] == 1:
        return 0
    steps = np.diff(starts)
    return int(steps[0]) if steps[0] >= 0 and np.all(steps == steps[0]) else None
