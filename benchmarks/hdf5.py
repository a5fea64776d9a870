"""How HDF5 inputs are written: in one piece, in chunks with filters, and as master file with data files."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.formats import Format, NavShape
from benchmarks.frames import Frames
from libertem.testing.writers.hdf5 import write_dectris, write_hdf5

__all__ = ["CHUNKS", "CONTIGUOUS", "DECTRIS", "FILTERS", "SIG_SHAPE", "chunked"]

SIG_SHAPE = (256, 256)
FILTERS = {
    "gzip": "gzip",
    "gzip-shuffle": "gzip-shuffle",
    "lzf": "lzf",
    "bslz4": "bitshuffle-lz4",
    "blosc-zstd": "blosc-bitshuffle",
}
"""Names for `libertem.testing.writers.hdf5.write_hdf5`."""
CHUNKS = {"": SIG_SHAPE, "-16": (16, *SIG_SHAPE), "-sig": (16, 64, 64)}
"""One frame, 16 frames, and parts of 16 frames; by what is appended to the name of an input."""
N_DECTRIS_FILES = 8


def chunked(filters: str, chunks: tuple[int, ...]) -> Format:
    """One array in chunks; these are given along the last axes, and cut where the array is smaller."""
    return Format(partial(_write, filters, chunks), "scan.h5", "scan.h5")


def _write(
    filters: str, chunks: tuple[int, ...] | None, frames: Frames, nav_shape: NavShape, home: Path
) -> None:
    shape = (*nav_shape, *frames.sig_shape)
    n_rows, n_columns = nav_shape
    rows = (frames.slab(row * n_columns, (row + 1) * n_columns)[np.newaxis] for row in range(n_rows))
    if chunks is not None:
        whole = (1,) * (len(shape) - len(chunks)) + chunks
        chunks = tuple(min(pair) for pair in zip(whole, shape, strict=True))
    write_hdf5(home / "scan.h5", rows, shape=shape, chunks=chunks, filters=filters)


def _write_dectris(frames: Frames, nav_shape: NavShape, home: Path) -> None:
    edges = np.linspace(0, len(frames), min(N_DECTRIS_FILES, len(frames)) + 1).astype(int).tolist()
    parts = (frames.slab(start, stop) for start, stop in itertools.pairwise(edges))
    write_dectris(home, parts, triggers=(1, len(frames)))


CONTIGUOUS = Format(partial(_write, "none", None), "scan.h5", "scan.h5")
DECTRIS = Format(_write_dectris, "scan_data_*.h5", "scan_master.h5", takes=("nav_shape",))
