"""Data sets as Dask arrays: blocks are descriptions of what to read, and open the files where they run.

A block is a box of the scan whose frames follow each other in the files: whole rows, or a part of one row.
Data sets that can be cut anywhere get partitions like that. Where partitions have to follow what is stored,
as with chunks of HDF5, blocks begin and end near their borders and may be put together from several.
"""

from __future__ import annotations

import copy
import itertools
import mmap
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.arrays import D2_BACKENDS, for_backend, to_dense
from libertem.common.math import prod
from libertem.common.shape import Shape
from libertem.common.slice import Slice
from libertem.io.dataset.base.dataset import DataSet
from libertem.io.dataset.base.partition import Partition
from libertem.io.dataset.base.scheme import TilingScheme

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.corrections.corrset import CorrectionSet

    Mask = npt.NDArray[np.bool_]

__all__ = ["LazyBlock", "Piece", "make_dask_array", "to_dask"]

TILE_BYTES = 1 << 20
"""Frames that have to be decoded or converted come in pieces of this size, which fit a cache."""


@dataclass(frozen=True)
class Piece:
    """Some frames of a partition."""

    partition: Partition
    start: int
    """First scan position, on the flat navigation axis of the data set."""
    stop: int
    selected: Mask | None = None
    """Which of them; None for all."""

    @property
    def n_frames(self) -> int:
        """How many."""
        return self.stop - self.start if self.selected is None else int(np.count_nonzero(self.selected))

    def roi(self) -> Mask | None:
        """What to ask the partition for; None for everything it has."""
        origin = self.partition.slice.origin[0]
        whole = (origin, origin + self.partition.slice.shape[0]) == (self.start, self.stop)
        if whole and self.selected is None:
            return None
        roi = np.zeros(self.partition.meta.shape.nav.size, dtype=bool)
        roi[self.start : self.stop] = True if self.selected is None else self.selected
        return roi.reshape(self.partition.meta.shape.nav.to_tuple())


@dataclass(frozen=True)
class LazyBlock:
    """A task of a Dask graph: call it to read the block."""

    pieces: tuple[Piece, ...]
    shape: tuple[int, ...]
    """Of the block, signal axes included."""
    dtype: np.dtype[Any]
    depth: int | None
    """Frames that are read at once; None if they need not be copied."""
    array_backend: str | None

    def __call__(self, corrections: CorrectionSet | None = None) -> Any:
        """The frames, in the shape of the block; 0 where a scan position has none.

        Frames of a memory-mapped file that are stored as they are asked for are read-only views of it.
        """
        frames = self._view() if len(self.pieces) == 1 and self.depth is None else None
        if frames is None:
            frames = self._read(corrections)
        block = frames.reshape(self.shape)
        return block if self.array_backend is None else for_backend(block, self.array_backend)

    def _view(self) -> npt.NDArray[Any] | None:
        (piece,) = self.pieces
        tile = piece.partition.get_macrotile(dest_dtype=self.dtype, roi=piece.roi())
        if tile.shape[0] != piece.n_frames or not is_mapped(tile.data):
            return None
        data: npt.NDArray[Any] = tile.data
        return data

    def _read(self, corrections: CorrectionSet | None) -> npt.NDArray[Any]:
        sig = self.pieces[0].partition.meta.shape.sig.to_tuple()
        out = np.zeros((sum(piece.n_frames for piece in self.pieces), *sig), dtype=self.dtype)
        row = 0
        for piece in self.pieces:
            rows = out[row : row + piece.n_frames]
            self._read_piece(piece, corrections, rows)
            row += piece.n_frames
        return out

    def _read_piece(self, piece: Piece, corrections: CorrectionSet | None, out: npt.NDArray[Any]) -> None:
        # Several blocks, in several threads, may have parts of the same partition.
        partition, roi = copy.copy(piece.partition), piece.roi()
        if corrections is not None:
            partition.set_corrections(corrections)
        # Tiles count from the start of the data set, or of what is selected in it.
        first = piece.start if roi is None else 0
        sig = partition.meta.shape.sig
        depth = min(self.depth or out.shape[0], out.shape[0])
        if depth == 0:
            return
        scheme = TilingScheme.make_for_shape(
            tileshape=Shape((depth, *sig), sig_dims=sig.dims), dataset_shape=partition.meta.shape
        )
        for tile in partition.get_tiles(scheme, dest_dtype=self.dtype, roi=roi):
            where: Slice = tile.tile_slice
            start = where.origin[0] - first
            part = out[start : start + tile.shape[0]]
            where.get(part, sig_only=True)[...] = to_dense(tile.data).reshape(tile.shape)


def is_mapped(array: Any) -> bool:
    """Whether the memory of an array is a map of a file: it stays what it is as long as the array exists."""
    while isinstance(array, np.ndarray):
        array = array.base
    if isinstance(array, memoryview):
        array = array.obj
    return isinstance(array, mmap.mmap)


def to_dask(
    dataset: DataSet,
    *,
    dtype: npt.DTypeLike | None = None,
    roi: Mask | None = None,
    array_backend: str | None = None,
    corrections: CorrectionSet | None = None,
) -> Any:
    """Make a lazy Dask array of a data set. Nothing is read before it is computed.

    Parameters
    ----------
    dataset : DataSet
        Initialized, as from `Context.load`.
    dtype : dtype, optional
        Of the array; the native one by default. Only native pixels of mapped files need no copy.
    roi : array of bool, optional
        Only these frames, along a flat navigation axis.
    array_backend : str, optional
        Kind of array of the blocks; NumPy by default.
    corrections : CorrectionSet, optional
        To apply; by default none, also where the data set brings some along.

    Returns
    -------
    dask.array.Array
        Of shape ``dataset.shape``, or ``(frames, *sig)`` with a ROI. Blocks hold whole rows of the scan, or
        parts of one row, and whole frames. Their size is about ``array.chunk-size`` of the configuration of
        Dask (128 MiB by default), more where the files are stored in larger units. Blank scan positions
        are 0.

    Raises
    ------
    ValueError
        If `array_backend` cannot hold blocks with more than two axes, or `roi` has another shape.

    Examples
    --------
    >>> from libertem.api import Context
    >>> ds = Context.make_with("inline").load("memory", data=np.ones((4, 6, 8, 8), dtype="uint16"))
    >>> array = to_dask(ds)
    >>> array.shape, array.dtype.name, int(array[2:].sum())
    ((4, 6, 8, 8), 'uint16', 768)
    """
    dask: Any = import_module("dask")
    utils: Any = import_module("dask.utils")

    wanted = np.dtype(dataset.dtype if dtype is None else dtype).newbyteorder("=")
    chunk_bytes = utils.parse_bytes(dask.config.get("array.chunk-size", "128MiB"))
    depth = max(1, int(chunk_bytes) // max(1, prod(dataset.shape.sig) * wanted.itemsize))
    maker = _Maker(dataset, wanted, array_backend, corrections)
    return maker.boxes(depth) if roi is None else maker.selection(roi, depth)


def make_dask_array(
    dataset: DataSet,
    dtype: npt.DTypeLike = "float32",
    roi: Mask | None = None,
    array_backend: str | None = None,
) -> tuple[Any, dict[Any, Any]]:
    """Wrap a data set in a Dask array. Nothing is read until it is computed.

    Parameters
    ----------
    dataset : DataSet
        Initialized, as from `Context.load`.
    dtype : dtype
        Of the array.
    roi : array of bool, optional
        Only these frames, along a flat navigation axis.
    array_backend : str, optional
        Kind of array of the blocks; NumPy by default.

    Returns
    -------
    array : dask.array.Array
        ``dataset.shape``, or ``(frames, *sig)`` with a ROI; about one block per partition, of whole rows
        where that is possible. Blank scan positions are 0, and corrections are not applied.
    workers : dict
        Names of the workers that hold the data, by key of the block; empty if any worker will do. To be
        passed as `workers` to the functions of a Dask client.

    Raises
    ------
    ValueError
        If `array_backend` cannot hold blocks with more than two axes, or `roi` has another shape.

    Examples
    --------
    >>> from libertem.api import Context
    >>> ds = Context.make_with("inline").load("memory", data=np.ones((4, 6, 8, 8), dtype="uint16"))
    >>> array, workers = make_dask_array(ds)
    >>> array.shape, float(array.sum())
    ((4, 6, 8, 8), 1536.0)
    """
    maker = _Maker(dataset, np.dtype(dtype), array_backend)
    partitions = list(dataset.get_partitions())
    located = any(partition.get_locations() is not None for partition in partitions)
    if roi is None and not located:
        return maker.boxes(-(-dataset.shape.nav.size // len(partitions))), {}
    return maker.partitions(partitions, roi)


class _Maker:
    """What the arrays of a data set have in common."""

    def __init__(
        self,
        dataset: DataSet,
        dtype: np.dtype[Any],
        array_backend: str | None,
        corrections: CorrectionSet | None = None,
    ) -> None:
        if array_backend in D2_BACKENDS:
            raise ValueError(f"arrays of kind {array_backend!r} have two axes, so they hold no frames")
        self._dataset = dataset
        self._nav = dataset.shape.nav.to_tuple()
        self._sig = dataset.shape.sig.to_tuple()
        self._dtype = dtype
        self._array_backend = array_backend
        needed = corrections is not None and corrections.have_corrections()
        self._corrections = corrections if needed else None
        self._depth = self._tile_depth()

    def _tile_depth(self) -> int | None:
        dataset = self._dataset
        if not dataset.need_decode(self._dtype, None, self._corrections):
            return None
        unit = dataset.get_base_shape(None)[0]
        depth = -(-TILE_BYTES // max(1, unit * prod(self._sig) * self._dtype.itemsize)) * unit
        return int(dataset.adjust_tileshape((depth, *self._sig), None)[0])

    def boxes(self, n_frames: int) -> Any:
        """Array of the shape of the data set, in blocks of about so many frames."""
        chunks = box_chunks(self._nav, n_frames)
        partitions = cut_partitions(self._dataset, _edges(chunks))
        edges = [part.slice.origin[0] for part in partitions]
        if edges != _edges(chunks)[:-1] and len(chunks[0]) > 1 and max(chunks[0]) > 1:
            chunks = (_snap(edges, self._nav), *chunks[1:])
        edges = _edges(chunks)
        blocks = [
            self._block(_pieces(partitions, start, stop), tuple(map(len, ranges)))
            for (start, stop), ranges in zip(itertools.pairwise(edges), _ranges(chunks), strict=True)
        ]
        return self._array(blocks, chunks)

    def selection(self, roi: Mask, n_frames: int) -> Any:
        """Array of some frames, in blocks of no more than about so many."""
        edges = _edges(box_chunks(self._nav, n_frames))
        return self.partitions(cut_partitions(self._dataset, edges), roi)[0]

    def partitions(self, partitions: Sequence[Partition], roi: Mask | None) -> tuple[Any, dict[Any, Any]]:
        """Array with one block for each partition that has frames, and where these are."""
        if roi is None:
            flat = np.ones(prod(self._nav), dtype=bool)
        elif np.size(roi) != prod(self._nav):
            raise ValueError(f"roi: incompatible shapes: {np.shape(roi)} (roi) vs {self._nav} (dataset)")
        else:
            flat = np.asarray(roi, dtype=bool).reshape(-1)
        blocks, locations = [], []
        for partition in partitions:
            start = partition.slice.origin[0]
            stop = start + partition.slice.shape[0]
            selected = flat[start:stop]
            n_frames = int(np.count_nonzero(selected))
            if n_frames:
                piece = Piece(partition, start, stop, None if selected.all() else selected.copy())
                blocks.append(self._block((piece,), (n_frames,)))
                locations.append(partition.get_locations())
        array = self._array(blocks, (tuple(block.shape[0] for block in blocks) or (0,),))
        keys = ((array.name, i, *(0 for _ in self._sig)) for i in range(len(blocks)))
        workers = {key: where for key, where in zip(keys, locations, strict=True) if where is not None}
        return (array if roi is not None else array.reshape(tuple(self._dataset.shape))), workers

    def _block(self, pieces: tuple[Piece, ...], nav: tuple[int, ...]) -> LazyBlock:
        return LazyBlock(pieces, (*nav, *self._sig), self._dtype, self._depth, self._array_backend)

    def _array(self, blocks: Sequence[LazyBlock], nav_chunks: tuple[tuple[int, ...], ...]) -> Any:
        # Untyped to the outside.
        da: Any = import_module("dask.array")

        chunks = (*nav_chunks, *((extent,) for extent in self._sig))
        if not blocks:
            return da.zeros(tuple(map(sum, chunks)), dtype=self._dtype)
        name = f"libertem-{uuid.uuid4().hex}"
        keys = itertools.product([name], *(range(len(lengths)) for lengths in chunks))
        graph: dict[Any, Any] = {}
        arguments: tuple[Any, ...] = ()
        if self._corrections is not None:
            # Once for all blocks: they are as large as frames.
            arguments = (f"{name}-corrections",)
            graph[arguments[0]] = self._corrections
        # Dask sees a call, no array, and nothing that it would have to look into.
        graph |= {key: (block, *arguments) for key, block in zip(keys, blocks, strict=True)}
        meta = np.empty((0,) * len(chunks), dtype=self._dtype)
        if self._array_backend is not None:
            meta = for_backend(meta, self._array_backend)
        return da.Array(graph, name, chunks, meta=meta)


def box_chunks(nav: tuple[int, ...], n_frames: int) -> tuple[tuple[int, ...], ...]:
    """Lengths along each navigation axis of boxes of at most `n_frames` that are contiguous in the scan."""
    inner = np.cumprod((1, *nav[:0:-1]))[::-1].tolist()
    axis = next((axis for axis, frames in enumerate(inner) if frames <= n_frames), len(nav) - 1)
    n = nav[axis]
    n_parts = -(-n // max(1, n_frames // inner[axis]))
    cuts = np.linspace(0, n, n_parts + 1).astype(int).tolist()
    lengths = tuple(b - a for a, b in itertools.pairwise(cuts))
    return (*((1,) * extent for extent in nav[:axis]), lengths, *((extent,) for extent in nav[axis + 1 :]))


def _ranges(chunks: tuple[tuple[int, ...], ...]) -> list[tuple[range, ...]]:
    """The boxes, in the order of the scan."""
    axes = []
    for lengths in chunks:
        cuts = [0, *itertools.accumulate(lengths)]
        axes.append([range(a, b) for a, b in itertools.pairwise(cuts)])
    return list(itertools.product(*axes))


def _edges(chunks: tuple[tuple[int, ...], ...]) -> list[int]:
    """First scan position of each box on the flat navigation axis, and the end of the last one."""
    return [0, *itertools.accumulate(prod(map(len, box)) for box in _ranges(chunks))]


def cut_partitions(dataset: DataSet, edges: Sequence[int]) -> list[Partition]:
    """Partitions with these borders if the data set can be cut anywhere, else its own ones."""
    if type(dataset).get_slices is not DataSet.get_slices:
        return list(dataset.get_partitions())
    sig = dataset.shape.sig
    offset = dataset._sync_offset or 0
    slices = [
        (
            Slice(origin=(a, *(0 for _ in sig)), shape=Shape((b - a, *sig), sig_dims=sig.dims)),
            a + offset,
            b + offset,
        )
        for a, b in itertools.pairwise(edges)
    ]
    clone = copy.copy(dataset)
    # Data sets ask this method where to cut; those that do not have reasons of their own.
    clone.get_slices = lambda: iter(slices)  # type: ignore[method-assign]  # of one object, for this call
    partitions = list(clone.get_partitions())
    del clone.get_slices
    return partitions


def _snap(edges: Sequence[int], nav: tuple[int, ...]) -> tuple[int, ...]:
    """Lengths along the first axis: from the borders of partitions, moved to whole rows."""
    row = prod(nav[1:])
    cuts = sorted({0, nav[0], *(min(nav[0], round(edge / row)) for edge in edges)})
    return tuple(b - a for a, b in itertools.pairwise(cuts))


def _pieces(partitions: Sequence[Partition], start: int, stop: int) -> tuple[Piece, ...]:
    """What of which partition makes up a range of scan positions."""
    found = []
    for partition in partitions:
        first = partition.slice.origin[0]
        low, high = max(start, first), min(stop, first + partition.slice.shape[0])
        if low < high:
            found.append(Piece(partition, low, high))
    return tuple(found)
