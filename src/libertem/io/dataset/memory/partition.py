"""Tiles and frame blocks from arrays in memory."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.arrays import CUDA, NUMPY, for_backend, is_sparse, to_dense
from libertem.common.math import flat_nonzero, prod
from libertem.common.shape import Shape
from libertem.common.slice import Slice
from libertem.io.dataset.base.backends.contract import IOBackend, IOBackendImpl
from libertem.io.dataset.base.backends.mmap import BLOCK_BYTES, MIN_KERNEL_FRAMES
from libertem.io.dataset.base.blocks import FrameBlock, FrameRun, FrameTable, ReadOrder
from libertem.io.dataset.base.decode import check_conversion
from libertem.io.dataset.base.files import FileSet
from libertem.io.dataset.base.partition import BasePartition
from libertem.io.dataset.base.ranges import select_frames
from libertem.io.dataset.base.scheme import TilingScheme
from libertem.io.dataset.base.tile import DataTile
from libertem.io.dataset.base.tiles import TileCutter
from libertem.io.dataset.memory.images import MemoryFile, cut_sparse

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Knobs", "MemBackend", "MemBackendImpl", "MemPartition"]


class MemBackend(IOBackend):
    """Stands where data sets in files have their I/O backend."""

    def get_impl(self) -> MemBackendImpl:
        """Knows when tiles have to be copied."""
        return MemBackendImpl()


class MemBackendImpl(IOBackendImpl):
    """Reads nothing: `MemPartition` has the array."""


@dataclass(frozen=True)
class Knobs:
    """What tests can set to see tiles of a certain kind."""

    tileshape: Shape | None = None
    tiledelay: float | None = None
    only_tiles: bool = False
    """Whether somebody wants to see tiles, also where they are not needed."""


class MemPartition(BasePartition):
    """Some images of an array. In another process, it holds only these.

    Parameters
    ----------
    *args, **kwargs
        As for `BasePartition`; `fileset` has one `MemoryFile`.
    knobs : Knobs
        How the data set was told to cut tiles.
    """

    def __init__(self, *args: Any, knobs: Knobs, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._knobs = knobs

    def _images(self) -> MemoryFile:
        assert self._fileset is not None
        file = self._fileset[0]
        assert isinstance(file, MemoryFile)
        return file

    def _select(self, roi: Any) -> tuple[npt.NDArray[np.int64], int]:
        """Images to deliver, and the place of the first one on the compressed navigation axis."""
        selected = None if roi is None else flat_nonzero(roi)
        return select_frames(self._start_frame, self._stop_frame(), selected, self.meta.sync_offset)

    def get_tiles(
        self,
        tiling_scheme: TilingScheme | None = None,
        dest_dtype: npt.DTypeLike = "float32",
        roi: npt.NDArray[np.bool_] | None = None,
        array_backend: str | None = None,
    ) -> Iterator[DataTile]:
        """All tiles of the partition, see `BasePartition.get_tiles`.

        Tiles are read-only views of the array if they can be, else copies. A data set with a `tileshape`
        uses that instead of `tiling_scheme`, which may then be left out.
        """
        scheme = self._scheme(tiling_scheme).adjust_for_partition(self)
        self.validate_tiling_scheme(scheme)
        check_conversion(self.meta.dtype, dest_dtype)
        if self._fileset is None:
            return
        backend = self.meta.array_backends[0] if array_backend is None else array_backend
        images, first = self._select(roi)
        for row in range(0, images.shape[0], scheme.depth):
            frames = self._images().take(images[row : row + scheme.depth])
            for idx, sig_slice in scheme.slices:
                where = Slice(
                    origin=(first + row, *sig_slice.origin),
                    shape=Shape((frames.shape[0], *sig_slice.shape), sig_dims=sig_slice.shape.dims),
                )
                data = self._convert(frames, where, np.dtype(dest_dtype))
                yield DataTile(for_backend(data, backend), tile_slice=where, scheme_idx=idx)
                if self._knobs.tiledelay:
                    time.sleep(self._knobs.tiledelay)

    def _scheme(self, tiling_scheme: TilingScheme | None) -> TilingScheme:
        if self._knobs.tileshape is not None:
            return TilingScheme.make_for_shape(
                tileshape=self._knobs.tileshape,
                dataset_shape=self.meta.shape,
                intent=None if tiling_scheme is None else tiling_scheme.intent,
            )
        if tiling_scheme is None:
            raise TypeError("a data set without tileshape needs a tiling_scheme to make tiles")
        return tiling_scheme

    def _convert(self, frames: Any, where: Slice, dtype: np.dtype[Any]) -> Any:
        """A part of some frames as it was asked for. Nobody else's array is changed by corrections."""
        part = cut_sparse(frames, where, dtype) if is_sparse(frames) else where.get(frames, sig_only=True)
        if self._has_corrections():
            assert self._corrections is not None
            corrected = np.array(to_dense(part), dtype=dtype, order="C")
            self._corrections.apply(corrected, where)
            return corrected
        if isinstance(part, np.ndarray):
            return part.astype(dtype, order="C", copy=False)
        return part if part.dtype == dtype else part.astype(dtype)

    def _has_corrections(self) -> bool:
        return self._corrections is not None and self._corrections.have_corrections()

    def get_macrotile(
        self,
        dest_dtype: npt.DTypeLike = "float32",
        roi: npt.NDArray[np.bool_] | None = None,
        array_backend: str | None = None,
    ) -> DataTile:
        """All existing and selected frames of the partition as one tile."""
        if self._knobs.tileshape is None:
            return super().get_macrotile(dest_dtype, roi, array_backend)
        whole = copy.copy(self)
        whole._knobs = Knobs()
        return whole.get_macrotile(dest_dtype, roi, array_backend)

    # --- compiled UDFs ---

    def _flat_pixels(self) -> npt.NDArray[Any] | None:
        """All pixels, for kernels; None if somebody wants to see tiles, or kernels could not read them."""
        if (
            type(self).get_tiles is not MemPartition.get_tiles
            or self._knobs.only_tiles
            or not {NUMPY, CUDA}.intersection(self.meta.array_backends)
        ):
            return None
        plain = self.meta.dtype.kind in "biuf" and self.meta.dtype.isnative
        return self._images().flat if plain else None

    def get_frame_blocks(
        self, order: ReadOrder, roi: npt.NDArray[np.bool_] | None
    ) -> Iterator[FrameBlock] | None:
        """The array itself, for compiled UDFs; None if it has to be converted first."""
        if self._fileset is None:
            return iter(())
        pixels = self._flat_pixels()
        return None if pixels is None else self._cut_blocks(pixels, order, roi)

    def _cut_blocks(
        self, pixels: npt.NDArray[Any], order: ReadOrder, roi: npt.NDArray[np.bool_] | None
    ) -> Iterator[FrameBlock]:
        images, first = self._select(roi)
        sig_px = prod(self.meta.shape.sig)
        starts = (images - self._images().start_idx) * sig_px
        (slab,) = order.whole_frames().slabs
        unit = order.depth if order.for_tiles else MIN_KERNEL_FRAMES
        step = max(1, BLOCK_BYTES // (unit * sig_px * pixels.itemsize)) * unit
        for row in range(0, starts.shape[0], step):
            yield FrameBlock(
                first=first + row,
                runs=(FrameRun(pixels, starts[row : row + step]),),
                px_start=0,
                px_stop=sig_px,
                swapped=False,
                slab=slab,
            )

    def make_tile_cutter(
        self, scheme: TilingScheme, dest_dtype: npt.DTypeLike, roi: npt.NDArray[np.bool_] | None
    ) -> TileCutter | None:
        """What cuts the blocks of `get_frame_blocks` into tiles."""
        if self._fileset is None or self._flat_pixels() is None:
            return None
        images, first = self._select(roi)
        table = FrameTable(
            fileset=self._fileset,
            files=np.zeros_like(images),
            offsets=(images - self._images().start_idx) * self._images().frame_stride_bytes,
            first=first,
            dtype=self.meta.dtype,
            sig_shape=self.meta.shape.sig.to_tuple(),
        )
        return _ContiguousCutter(table, scheme, dest_dtype, self._corrections)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        if self._fileset is not None:
            file = self._images()
            start, stop = max(self._start_frame, file.start_idx), min(self._stop_frame(), file.end_idx)
            state["_fileset"] = FileSet([file.crop(start, stop)])
        return state


class _ContiguousCutter(TileCutter):
    """Tiles like those of `MemPartition.get_tiles`: always C-contiguous."""

    def _data(self, *args: Any) -> npt.NDArray[Any]:
        return np.ascontiguousarray(super()._data(*args))
