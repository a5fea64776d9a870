"""Partitions of HDF5 data sets that are not one plain array in the file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.arrays import for_backend
from libertem.common.math import flat_nonzero
from libertem.io.dataset.base.blocks import FrameBlock, ReadOrder
from libertem.io.dataset.base.partition import BasePartition
from libertem.io.dataset.base.ranges import ReadRanges, select_frames
from libertem.io.dataset.base.scheme import TilingScheme
from libertem.io.dataset.base.tile import DataTile
from libertem.io.dataset.base.tiles import TileCutter
from libertem.io.dataset.hdf5.frames import StoredFrames

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["H5Partition"]


class H5Partition(BasePartition):
    """Frames that have to be decoded from chunks, or read with HDF5. There are no read ranges."""

    def _frames(self, roi: npt.NDArray[np.bool_] | None) -> StoredFrames | None:
        if self._fileset is None:
            return None
        selected = None if roi is None else flat_nonzero(roi)
        images, first = select_frames(self._start_frame, self._stop_frame(), selected, self.meta.sync_offset)
        return StoredFrames(
            fileset=self._fileset,
            images=images,
            first=first,
            dtype=self.meta.raw_dtype,
            sig_shape=self.meta.shape.sig.to_tuple(),
        )

    def _read_blocks(self, frames: Any, order: ReadOrder) -> Iterator[FrameBlock]:
        yield from frames.read_blocks(None, order)

    def _get_decoded_tiles(
        self,
        scheme: TilingScheme,
        dest_dtype: npt.DTypeLike,
        roi: npt.NDArray[np.bool_] | None,
        array_backend: str,
    ) -> Iterator[DataTile]:
        """Tiles as arrays of another kind than NumPy's."""
        frames = self._frames(roi)
        assert frames is not None
        cutter = TileCutter(frames, scheme, dest_dtype, self._corrections)
        for block in frames.read_blocks(None, ReadOrder.for_scheme(scheme)):
            for tile in cutter.cut(block):
                yield DataTile(for_backend(tile.data, array_backend), tile.tile_slice, tile.scheme_idx)

    def _get_read_ranges(
        self, tiling_scheme: TilingScheme, roi: npt.NDArray[np.bool_] | None = None
    ) -> ReadRanges:
        raise NotImplementedError("chunks of HDF5 files have no read ranges")
