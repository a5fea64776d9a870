"""Where the chunks of a data set lie in its file."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.math import prod
from libertem.exceptions import DataSetException
from libertem.io.dataset.base.backends.rawio import as_dataset_error
from libertem.io.dataset.hdf5.library import as_hdf5_error, open_hdf5

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.dataset.hdf5.layout import H5Piece

    Ints = npt.NDArray[np.int64]

__all__ = ["ChunkTable", "chunk_table"]

MAX_TABLES = 64
"""Tables that a process keeps; a master file has one for each of its data files."""

FEW_CHUNKS = 64
"""Asking HDF5 for a single chunk takes as long as listing some tens."""

_tables: OrderedDict[tuple[Any, ...], ChunkTable] = OrderedDict()
_lock = threading.Lock()


@dataclass(frozen=True)
class ChunkTable:
    """Chunks by their position on the chunk grid, in C order."""

    offsets: Ints
    """Byte where the chunk starts in the file; -1 if it was never written."""
    sizes: Ints
    """Stored bytes."""
    masks: Ints
    """Filters that were skipped."""
    fill: npt.NDArray[Any]
    """One element: what stands in chunks that were never written."""

    def __post_init__(self) -> None:
        for array in (self.offsets, self.sizes, self.masks, self.fill):
            array.setflags(write=False)


def chunk_table(piece: H5Piece, wanted: Ints) -> tuple[ChunkTable, Ints]:
    """Facts about some chunks of a data set.

    The table of all chunks is made once per process, unless only few are wanted.

    Parameters
    ----------
    piece : H5Piece
    wanted : array of int64
        Flat positions on the chunk grid.

    Returns
    -------
    table : ChunkTable
        Of all chunks, or of those wanted.
    rows : array of int64
        For each chunk wanted, its row in the table.
    """
    with as_dataset_error(piece.path):
        status = os.stat(piece.path)
    key = (piece.path, piece.dataset, status.st_ino, status.st_size, status.st_mtime_ns)
    n_chunks = prod(piece.layout.units.grid)
    with _lock:
        table = _tables.get(key)
        if table is None and n_chunks <= FEW_CHUNKS * max(1, wanted.size):
            # Under the lock: other threads want the same table, and h5py would not work for them meanwhile.
            table = _tables[key] = _read_all(piece, n_chunks)
            while len(_tables) > MAX_TABLES:
                _tables.popitem(last=False)
    if table is not None:
        return table, wanted
    return _read_some(piece, wanted), np.arange(wanted.size, dtype=np.int64)


def _read_all(piece: H5Piece, n_chunks: int) -> ChunkTable:
    positions: list[tuple[int, ...]] = []
    facts: list[tuple[int, int, int]] = []
    beyond: list[Any] = []
    with as_dataset_error(piece.path):
        file_bytes = os.path.getsize(piece.path)

    def visit(info: Any) -> None:
        positions.append(info.chunk_offset)
        facts.append((info.byte_offset, info.size, info.filter_mask))
        if info.byte_offset + info.size > file_bytes:
            beyond.append(info)

    with (
        open_hdf5(piece.path) as file,
        as_hdf5_error(piece.path, "the chunks of the data set cannot be listed"),
    ):
        dset = file[piece.dataset]
        fill = _fill_of(dset, piece)
        dset.id.chunk_iter(visit)
    if beyond:
        raise _behind_the_end(piece, beyond[0], file_bytes)
    table = _empty(n_chunks, fill)
    if positions:
        chunks, grid = piece.layout.chunks, piece.layout.units.grid
        with as_hdf5_error(piece.path, "a chunk is said to be where no chunk can be"):
            on_grid = np.array(positions, dtype=np.int64) // np.array(chunks)
        inside = (on_grid < np.array(grid)).all(axis=1)
        rows = np.ravel_multi_index(tuple(on_grid[inside].T), grid)
        for column, values in zip(table, np.array(facts, dtype=np.int64)[inside].T, strict=False):
            column[rows] = values
    return ChunkTable(*table)


def _read_some(piece: H5Piece, wanted: Ints) -> ChunkTable:
    chunks, grid = piece.layout.chunks, piece.layout.units.grid
    assert chunks is not None
    with as_dataset_error(piece.path):
        file_bytes = os.path.getsize(piece.path)
    with (
        open_hdf5(piece.path) as file,
        as_hdf5_error(piece.path, "the chunks of the data set cannot be found"),
    ):
        dset = file[piece.dataset]
        table = _empty(wanted.size, _fill_of(dset, piece))
        for row, position in enumerate(np.transpose(np.unravel_index(wanted, grid)).tolist()):
            coordinate = tuple(i * chunk for i, chunk in zip(position, chunks, strict=True))
            info = dset.id.get_chunk_info_by_coord(coordinate)
            if info.byte_offset is not None and info.size:
                if info.byte_offset + info.size > file_bytes:
                    raise _behind_the_end(piece, info, file_bytes)
                table[0][row], table[1][row], table[2][row] = info.byte_offset, info.size, info.filter_mask
    return ChunkTable(*table)


def _behind_the_end(piece: H5Piece, info: Any, file_bytes: int) -> DataSetException:
    return DataSetException(
        "a chunk is said to lie behind the end of the file",
        path=piece.path,
        found=f"{info.size} bytes from byte {info.byte_offset} on, of {piece.dataset}",
        expected=f"at most {file_bytes} bytes in all",
        hint="the file is damaged: copy it again",
    )


def _fill_of(dset: Any, piece: H5Piece) -> npt.NDArray[Any]:
    if dset.shape != (*piece.layout.nav_shape, *piece.layout.sig_shape) or dset.chunks != piece.layout.chunks:
        raise DataSetException(
            "the data set has changed",
            path=piece.path,
            found=f"shape {dset.shape}, chunks {dset.chunks}",
            hint="load it again",
        )
    return np.full(1, dset.fillvalue, dtype=piece.native_dtype)


def _empty(n: int, fill: npt.NDArray[Any]) -> tuple[Ints, Ints, Ints, npt.NDArray[Any]]:
    return np.full(n, -1, dtype=np.int64), np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64), fill
