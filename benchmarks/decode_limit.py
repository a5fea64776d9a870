"""The yardstick for compressed chunks: the decoder alone, on all cores.

Each thread reads the stored chunks of its part one after the other and decodes them into memory that stays in its
cache, with the same libraries as everybody. Nothing is computed with the pixels.
"""  # noqa: E501

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from libertem.io.dataset.base.backends.rawio import RawFile

__all__ = ["DecodeLimit"]

Bytes = npt.NDArray[np.uint8]
Step = Callable[[Bytes, Bytes], Any]

PARTS_PER_THREAD = 8
DEFLATE, SHUFFLE, LZF, BLOSC, BITSHUFFLE = 1, 2, 32000, 32001, 32008


@dataclass(frozen=True)
class _Chunks:
    """The chunks of one data set."""

    path: str
    places: list[tuple[int, int, bool]]
    """Byte in the file, stored bytes, whether filters were applied."""
    filters: list[tuple[int, tuple[int, ...]]]
    nbytes: int
    """Of a decoded chunk."""


class DecodeLimit:
    """Read and decode all chunks of the data sets of frames.

    Parameters
    ----------
    paths : iterable of Path
        HDF5 files with one data set of at least three axes each, in chunks.
    threads : int
        Usually all cores.
    """

    def __init__(self, paths: Iterable[Path], threads: int) -> None:
        found = [_list_chunks(path) for path in paths]
        self.nbytes = sum(len(chunks.places) * chunks.nbytes for chunks in found)
        self._parts = [
            _Chunks(chunks.path, chunks.places[start:stop], chunks.filters, chunks.nbytes)
            for chunks in found
            for start, stop in itertools.pairwise(
                np.linspace(0, len(chunks.places), threads * PARTS_PER_THREAD + 1).astype(int).tolist()
            )
            if start < stop
        ]
        self._pool = ThreadPoolExecutor(threads)

    def measure(self) -> float:
        """Seconds of one pass."""
        start = time.perf_counter()
        for _ in self._pool.map(_decode, self._parts):
            pass
        return time.perf_counter() - start

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


def _list_chunks(path: Path) -> _Chunks:
    import h5py

    places: list[tuple[int, int, bool]] = []
    with h5py.File(path) as file:
        names: list[str] = []
        file.visititems(lambda name, obj: names.append(name) if getattr(obj, "ndim", 0) > 2 else None)
        (name,) = names
        dset = file[name]
        plist = dset.id.get_create_plist()
        filters = [plist.get_filter(k) for k in range(plist.get_nfilters())]
        dset.id.chunk_iter(lambda c: places.append((c.byte_offset, c.size, not c.filter_mask)))
        nbytes = int(np.prod(dset.chunks)) * dset.dtype.itemsize
    places.sort()
    return _Chunks(str(path), places, [(f[0], tuple(f[2])) for f in filters], nbytes)


def _decode(chunks: _Chunks) -> None:
    stored = np.empty(max(size for _, size, _ in chunks.places), dtype=np.uint8)
    scratch = [np.empty(chunks.nbytes, dtype=np.uint8) for _ in range(2)]
    steps = [step for f, values in reversed(chunks.filters) for step in _steps(f, values)]
    with closing(RawFile(chunks.path)) as file:
        for offset, size, is_filtered in chunks.places:
            file.read_into(stored[:size], offset)
            _undo(stored[:size], steps if is_filtered else [], scratch)


def _undo(data: Bytes, steps: Sequence[Step], scratch: Sequence[Bytes]) -> Bytes:
    """Take the steps one after the other, from memory to memory."""
    for step, out in zip(steps, itertools.cycle(scratch), strict=False):
        step(data, out)
        data = out
    return data


def _steps(filter_id: int, values: tuple[int, ...]) -> list[Step]:
    """Functions that undo a filter, one after the other."""
    import imagecodecs

    from libertem.io.dataset.hdf5 import kernels

    if filter_id == SHUFFLE:
        return [lambda data, out: kernels.unshuffle(data, values[0], out)]
    if filter_id == BITSHUFFLE:
        item, block = values[2], 8192 // values[2]
        return [
            lambda data, out: imagecodecs.lz4h5_decode(data, out=out),
            lambda data, out: kernels.bit_unshuffle(data, item, block, out),
        ]
    decode = {
        DEFLATE: imagecodecs.deflate_decode,
        LZF: imagecodecs.lzf_decode,
        BLOSC: imagecodecs.blosc_decode,
    }[filter_id]
    return [lambda data, out: decode(data, out=out)]
