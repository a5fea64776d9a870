"""Read data sets tile by tile, checking the contract of tiles on the way, and what NumPy makes of frames."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.arrays import NUMPY, to_dense
from libertem.common.math import count_nonzero
from libertem.common.shape import Shape
from libertem.io.corrections.corrset import CorrectionSet
from libertem.io.dataset.base.dataset import DataSet
from libertem.io.dataset.base.partition import Partition
from libertem.io.dataset.base.scheme import TilingScheme
from libertem.io.dataset.base.tile import DataTile

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "Delivered",
    "assert_delivered",
    "assert_same_pixels",
    "corrected",
    "make_scheme",
    "on_scan",
    "read",
    "tile_shapes",
]

MAX_SLICES = 24
"""A frame is not cut into more tiles than this: testing would only take longer."""


@dataclass(frozen=True)
class Delivered:
    """What all tiles of a run add up to."""

    pixels: npt.NDArray[Any]
    """(selected scan positions, *sig); zero where nothing was delivered."""

    counts: npt.NDArray[np.int64]
    """Of the same shape: how often a tile held this pixel."""


def make_scheme(ds: DataSet, tile_shape: Sequence[int] | None = None) -> TilingScheme:
    """Tiling scheme with the shape ``(depth, *sig)``; four whole frames by default."""
    sig = ds.shape.sig
    shape = (4, *sig) if tile_shape is None else tuple(tile_shape)
    return TilingScheme.make_for_shape(Shape(shape, sig_dims=sig.dims), ds.shape)


def read(
    ds: DataSet,
    *,
    dest_dtype: npt.DTypeLike | None = None,
    roi: Any = None,
    tile_shape: Sequence[int] | None = None,
    corrections: CorrectionSet | None = None,
    ship: bool = False,
) -> Delivered:
    """Collect all tiles of a data set.

    Parameters
    ----------
    dest_dtype : dtype, optional
        By default the one of the data set, in native byte order.
    ship : bool
        Send partitions through `pickle`, as a cluster would.
    """
    dtype = ds.dtype.newbyteorder("=") if dest_dtype is None else np.dtype(dest_dtype)
    n = ds.shape.nav.size if roi is None else count_nonzero(roi)
    pixels = np.zeros((n, *ds.shape.sig), dtype=dtype)
    counts = np.zeros(pixels.shape, dtype=np.int64)
    scheme = make_scheme(ds, tile_shape)
    for idx, partition in enumerate(ds.get_partitions()):
        part = pickle.loads(pickle.dumps(partition)) if ship else partition
        part.set_idx(idx)
        if corrections is not None:
            part.set_corrections(corrections)
        for tile in _checked_tiles(part, scheme, dtype, roi):
            place = tile.tile_slice.get()
            pixels[place] = to_dense(tile.data).reshape(tile.shape)
            counts[place] += 1
    return Delivered(pixels, counts)


def _checked_tiles(
    partition: Partition, scheme: TilingScheme, dtype: np.dtype[Any], roi: Any
) -> Iterator[DataTile]:
    """Tiles of a partition, with the assertion that each is what the contract says."""
    backends = partition.meta.array_backends
    backend = NUMPY if NUMPY in backends else backends[0]
    selected = partition.slice.adjust_for_roi(None if roi is None else to_dense(roi).reshape(-1) != 0)
    first, stop = selected.origin[0], selected.origin[0] + selected.shape[0]
    last = (-1, len(scheme) - 1)
    for tile in partition.get_tiles(scheme, dest_dtype=dtype, roi=roi, array_backend=backend):
        name = f"{tile!r} of {partition!r}"
        origin, depth = int(tile.tile_slice.origin[0]), int(tile.tile_slice.shape[0])
        assert tile.dtype == dtype, f"{name} has dtype {tile.dtype}, asked for was {dtype}"
        assert tile.shape == tuple(tile.tile_slice.shape), f"{name} has the shape {tile.shape}"
        assert tile.tile_slice.sig == scheme[tile.scheme_idx], f"{name} has another place on the frame"
        assert 0 < depth <= scheme.depth, f"{name} is {depth} frames deep, the scheme {scheme.depth}"
        assert first <= origin, f"{name} starts before its partition, which starts at {first}"
        assert origin + depth <= stop, f"{name} ends behind its partition, which stops at {stop}"
        assert _follows((origin, tile.scheme_idx), last, len(scheme)), f"{name} comes out of order"
        last = (origin, tile.scheme_idx)
        yield tile


def _follows(this: tuple[int, int], last: tuple[int, int], n_slices: int) -> bool:
    """Whether tiles come block by block, with all signal slices of a block in the order of the scheme."""
    if last[1] == n_slices - 1:
        return this[0] > last[0] and this[1] == 0
    return this == (last[0], last[1] + 1)


def on_scan(
    frames: npt.NDArray[Any], n_positions: int, sync_offset: int = 0
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Frames at their scan positions, and which positions are not blank.

    Position `i` shows frame ``i + sync_offset`` if there is such a frame.
    """
    wanted = np.arange(n_positions) + sync_offset
    present = (wanted >= 0) & (wanted < frames.shape[0])
    shown = np.zeros((n_positions, *frames.shape[1:]), dtype=frames.dtype)
    shown[present] = frames[wanted[present]]
    return shown, present


def corrected(
    frames: npt.NDArray[Any],
    dark: npt.NDArray[Any],
    gain: npt.NDArray[Any],
    excluded: Sequence[tuple[int, ...]],
) -> npt.NDArray[Any]:
    """Dark frame, gain map and excluded pixels applied with plain NumPy, in double precision."""
    precision = np.result_type(frames.dtype, np.float64)
    result = (frames.astype(precision) - dark) * gain
    usable = np.ones(frames.shape[1:], dtype=bool)
    usable[tuple(np.transpose(excluded))] = False
    source = result.copy()
    for pixel in excluded:
        around = tuple(slice(max(0, p - 1), p + 2) for p in pixel)
        result[(slice(None), *pixel)] = source[(slice(None), *around)][:, usable[around]].mean(axis=1)
    return np.asarray(result)


def assert_same_pixels(found: npt.NDArray[Any], expected: npt.NDArray[Any], what: str) -> None:
    """Compare frames, NaN equal to NaN; the message names the first frame and pixel that differ."""
    assert found.shape == expected.shape, f"{what}: shape {found.shape}, expected {expected.shape}"
    assert found.dtype == expected.dtype, f"{what}: dtype {found.dtype}, expected {expected.dtype}"
    differs = found != expected
    if found.dtype.kind in "fc":
        differs &= ~(np.isnan(found) & np.isnan(expected))
    if differs.any():
        where = tuple(np.argwhere(differs)[0].tolist())
        n_frames = int(differs.reshape(differs.shape[0], -1).any(axis=1).sum())
        raise AssertionError(
            f"{what}: {n_frames} of {found.shape[0]} frames have other pixels, the first one frame "
            f"{where[0]} at {where[1:]}: found {found[where]}, expected {expected[where]}"
        )


def assert_delivered(
    delivered: Delivered, expected: npt.NDArray[Any], present: npt.NDArray[np.bool_] | None, what: str
) -> None:
    """Compare with the frames expected at the (selected) scan positions.

    Parameters
    ----------
    present : array of bool or None
        For each position, whether it has a frame; None for all. The others must not be delivered.
    """
    times = np.ones(expected.shape[0], dtype=np.int64) if present is None else present.astype(np.int64)
    wrong = (delivered.counts != times.reshape(-1, *(1 for _ in expected.shape[1:]))).nonzero()
    if wrong[0].size:
        where = tuple(int(axis[0]) for axis in wrong)
        raise AssertionError(
            f"{what}: pixel {where[1:]} of scan position {where[0]} was delivered "
            f"{delivered.counts[where]} times, expected {times[where[0]]}"
        )
    assert_same_pixels(delivered.pixels, expected, what)


def tile_shapes(ds: DataSet) -> list[tuple[int, ...]]:
    """Different tile shapes ``(depth, *sig)`` that suit the data set: multiples of its base shape."""
    sig = ds.shape.sig.to_tuple()
    base = tuple(ds.get_base_shape(None))[1:]
    smallest = base
    # Rows, then blocks of rows, until there are not too many of them.
    for axis in reversed(range(len(sig))):
        while _n_slices(sig, smallest) > MAX_SLICES and smallest[axis] < sig[axis]:
            doubled = min(2 * smallest[axis], sig[axis])
            smallest = (*smallest[:axis], doubled, *smallest[axis + 1 :])
    uneven = _grow_first(smallest, sig, base)
    deep = ds.shape.nav.size + 3
    shapes = [(1, *sig), (3, *sig), (deep, *sig), (1, *smallest), (deep, *smallest), (5, *uneven)]
    return list(dict.fromkeys(shapes))


def _n_slices(sig: tuple[int, ...], tile: tuple[int, ...]) -> int:
    return int(np.prod([-(-s // t) for s, t in zip(sig, tile, strict=True)]))


def _grow_first(tile: tuple[int, ...], sig: tuple[int, ...], base: tuple[int, ...]) -> tuple[int, ...]:
    """A tile that does not divide the frame, so that border tiles are smaller."""
    for axis, extent in enumerate(tile):
        for larger in range(extent + base[axis], sig[axis], base[axis]):
            if sig[axis] % larger:
                return (*tile[:axis], larger, *tile[axis + 1 :])
    return tile
