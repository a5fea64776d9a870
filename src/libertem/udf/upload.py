"""Bring tiles to a GPU: many at once, as they are stored, through pinned memory; converted on the device.

A tile fits a CPU cache, which is far too little for a transfer to a GPU. So tiles are collected in pinned
memory, from which the GPU fetches by itself, and cut again on the device. They travel in the dtype of the
files, which mostly has fewer bytes than that of the computation.

No part of this library has been run on a GPU yet: tests use a stand-in for CuPy, see the documentation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.arrays import CUDA, CUPY, CUPY_BACKENDS, NUMPY
from libertem.common.backend import get_use_cuda

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.corrections.corrset import CorrectionSet
    from libertem.io.dataset.base.tile import DataTile

__all__ = ["UPLOAD_BYTES", "Uploader", "select_device", "upload_dtype", "uploads"]

UPLOAD_BYTES = 64 << 20
"""Of one transfer: with so many bytes, its fixed costs do not count."""


def select_device(backends: Iterable[str]) -> AbstractContextManager[Any]:
    """Makes the GPU of this worker the current one of CuPy, if one of the backends is on it."""
    device = get_use_cuda()
    if device is None or not CUPY_BACKENDS.intersection(backends):
        return nullcontext()
    context: AbstractContextManager[Any] = import_module("cupy").cuda.Device(device)
    return context


def uploads(source: str, backends: Sequence[str]) -> bool:
    """Whether tiles of `source` can take the way of this module to UDFs with these backends."""
    return source in (NUMPY, CUDA) and bool(backends) and all(backend == CUPY for backend in backends)


def upload_dtype(
    stored: np.dtype[Any], wanted: np.dtype[Any], corrections: CorrectionSet | None
) -> np.dtype[Any]:
    """What tiles are uploaded in: as stored, unless that is larger or has to be corrected first."""
    corrected = corrections is not None and corrections.have_corrections()
    if corrected or stored.kind not in "biuf" or stored.itemsize > wanted.itemsize:
        return wanted
    return stored.newbyteorder("=")


class Uploader:
    """Collects tiles and uploads them together.

    Parameters
    ----------
    stored : dtype
        Of the tiles, see `upload_dtype`.
    wanted : dtype
        Of the arrays on the device.
    """

    def __init__(self, stored: np.dtype[Any], wanted: np.dtype[Any]) -> None:
        self._xp: Any = import_module("cupy")
        self._stored = stored
        self._wanted = wanted
        self._pinned: npt.NDArray[Any] | None = None

    def upload(self, tiles: Iterable[DataTile]) -> Iterator[tuple[DataTile, Any]]:
        """The tiles in their order, each with its pixels on the device in the shape of the tile."""
        waiting: list[DataTile] = []
        n_px = 0
        for tile in tiles:
            if waiting and n_px + tile.size > self._capacity(0):
                yield from self._flush(waiting, n_px)
                waiting, n_px = [], 0
            # Copied at once: the memory of a tile may be used again for the next one.
            self._buffer(n_px + tile.size)[n_px : n_px + tile.size] = tile.data.reshape(-1)
            waiting.append(tile)
            n_px += tile.size
        yield from self._flush(waiting, n_px)

    def _capacity(self, needed: int) -> int:
        return max(needed, UPLOAD_BYTES // self._stored.itemsize)

    def _buffer(self, n_px: int) -> npt.NDArray[Any]:
        if self._pinned is None or self._pinned.size < n_px:
            # Larger than usual only for a single tile that is.
            size = self._capacity(n_px)
            memory = self._xp.cuda.alloc_pinned_memory(size * self._stored.itemsize)
            self._pinned = np.frombuffer(memory, dtype=self._stored, count=size)
        return self._pinned

    def _flush(self, tiles: Sequence[DataTile], n_px: int) -> Iterator[tuple[DataTile, Any]]:
        if not tiles:
            return
        device = self._xp.empty(n_px, dtype=self._stored)
        # Returns when the pinned memory can be written to again.
        device.set(self._buffer(n_px)[:n_px])
        pixels = device.astype(self._wanted, copy=False)
        start = 0
        for tile in tiles:
            yield tile, pixels[start : start + tile.size].reshape(tile.shape)
            start += tile.size
