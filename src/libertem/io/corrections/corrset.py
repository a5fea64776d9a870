"""`CorrectionSet`: what has to be done to raw frames before they are used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import count, islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from libertem.common.arrays import is_sparse, to_dense, to_sparse
from libertem.io.corrections.repair import RepairDescriptor
from libertem.io.corrections.tile import Maps, check_dtype, correct_tile

if TYPE_CHECKING:
    from libertem.common.slice import Slice

__all__ = ["CorrectionSet"]

_Part = tuple[tuple[slice, ...], RepairDescriptor | None]

# Parts of the frame whose neighbours are kept: as many as a tiling of large frames has.
_MAX_PARTS = 4096

# Above this share of excluded positions along an axis, tiles are not cut along it.
_CROWDED = 1 / 3


class CorrectionSet:
    """Dark frame, gain map and excluded pixels, to be applied while data are read.

    For every frame, ``(x - dark) * gain`` is evaluated for all pixels; then each excluded pixel is replaced
    by the mean of those direct neighbours (8 in two dimensions) that are inside the frame and not excluded.

    The arrays are copied: changing them afterwards has no effect.

    Parameters
    ----------
    dark : array, optional
        Subtracted. Has the signal shape, like the others.
    gain : array, optional
        Multiplied.
    excluded_pixels : array, optional
        Sparse or dense; pixels that are not 0 are excluded. The values of stored elements of a sparse
        array are irrelevant.
    allow_empty : bool
        Accept excluded pixels without a usable neighbour. They keep their dark- and gain-corrected value.

    Raises
    ------
    ValueError
        If shapes differ.
    RepairValueError
        If an excluded pixel has no usable neighbour, unless `allow_empty`.

    Examples
    --------
    >>> from libertem.common import Slice
    >>> corrections = CorrectionSet(excluded_pixels=[[True, False], [False, False]])
    >>> tile = np.array([[[100.0, 1.0], [2.0, 3.0]]])
    >>> corrections.apply(tile, Slice.from_shape((1, 2, 2), sig_dims=2))
    >>> tile.tolist()
    [[[2.0, 1.0], [2.0, 3.0]]]
    """

    def __init__(
        self,
        dark: npt.ArrayLike | None = None,
        gain: npt.ArrayLike | None = None,
        excluded_pixels: Any = None,
        allow_empty: bool = False,
    ) -> None:
        self._dark = None if dark is None else np.array(to_dense(dark), order="C")
        self._gain = None if gain is None else np.array(to_dense(gain), order="C")
        self._excluded: npt.NDArray[np.int64] | None = None
        self._allow_empty = allow_empty
        shapes = {
            name: array.shape
            for name, array in (("dark", self._dark), ("gain", self._gain))
            if array is not None
        }
        if excluded_pixels is not None:
            self._excluded, shapes["excluded_pixels"] = _find_excluded(excluded_pixels)
        if len(set(shapes.values())) > 1:
            found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise ValueError(f"corrections have to share the signal shape, found {found}")
        self._sig_shape: tuple[int, ...] = next(iter(shapes.values()), ())
        self._make_caches()
        if self._excluded is not None:
            # Refuses pixels that cannot be repaired.
            self._part((0,) * len(self._sig_shape), self._sig_shape)

    def _make_caches(self) -> None:
        # Bound to the arrays instead of self: that would be a circle, which keeps large arrays alive.
        # Unlimited, as there are only four dtypes that can be corrected.
        self._maps: Callable[[np.dtype[Any]], Maps] = lru_cache(maxsize=None)(
            partial(Maps.for_dtype, self._dark, self._gain)
        )
        self._part: Callable[[tuple[int, ...], tuple[int, ...]], _Part] = lru_cache(maxsize=_MAX_PARTS)(
            partial(_make_part, self._sig_shape, self._excluded, self._allow_empty)
        )
        self._excluded_coo: Any = None

    def __getstate__(self) -> dict[str, Any]:
        caches = ("_maps", "_part", "_excluded_coo")
        return {name: value for name, value in self.__dict__.items() if name not in caches}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._make_caches()

    def get_dark_frame(self) -> npt.NDArray[Any] | None:
        """The dark frame, or None."""
        return self._dark

    def get_gain_map(self) -> npt.NDArray[Any] | None:
        """The gain map, or None."""
        return self._gain

    def get_excluded_pixels(self) -> Any:
        """Excluded pixels as a boolean `sparse.COO`, or None."""
        if self._excluded is None:
            return None
        if self._excluded_coo is None:
            import sparse

            values = np.ones(self._excluded.shape[1], dtype=np.bool_)
            self._excluded_coo = sparse.COO(self._excluded, values, shape=self._sig_shape)
        return self._excluded_coo

    def excludes_pixels(self) -> bool:
        """Whether there is any excluded pixel."""
        return self._excluded is not None and self._excluded.size > 0

    def have_corrections(self) -> bool:
        """Whether any of the three was given, even if it changes nothing."""
        return self._dark is not None or self._gain is not None or self._excluded is not None

    def apply(self, data: npt.NDArray[Any], tile_slice: Slice) -> None:
        """Correct a tile in place.

        Parameters
        ----------
        data : array
            Float or complex frames, cropped to the signal part of `tile_slice`: ``(n, *sig)``. May be a
            strided view; is not copied as a whole.
        tile_slice : Slice
            Where the tile lies in the data set. With excluded pixels it has to come from a shape that
            `adjust_tileshape` agrees with, so that no pixel is separated from its neighbours.

        Raises
        ------
        ValueError
            If the tile does not lie within the corrections, has another shape than `tile_slice`, or is
            read-only.
        TypeError
            If the dtype of the tile cannot hold corrected values.
        """
        if not self.have_corrections():
            return
        if not isinstance(data, np.ndarray):
            raise TypeError(f"only NumPy arrays can be corrected in place, found {type(data).__name__}")
        check_dtype(data.dtype)
        nav_dims = tile_slice.shape.nav_dims
        extents = tile_slice.shape.to_tuple()[nav_dims:]
        if data.shape[max(0, data.ndim - len(extents)) :] != extents:
            raise ValueError(f"a tile of shape {data.shape} does not fit the signal part {extents}")
        sig_index, descriptor = self._part(tile_slice.origin[nav_dims:], extents)
        maps = self._maps(data.dtype.newbyteorder("=")).crop(sig_index)
        correct_tile(np.asarray(data), len(extents), maps, descriptor)

    def repair_descriptor(self, sig_slice: Slice) -> RepairDescriptor | None:
        """Excluded pixels in a part of the signal and the neighbours there that replace them.

        None if the set has no excluded pixels.
        """
        sig = sig_slice.sig
        return self._part(sig.origin, sig.shape.to_tuple())[1]

    def adjust_tileshape(
        self, tile_shape: Sequence[int], sig_shape: Sequence[int], base_shape: Sequence[int]
    ) -> tuple[int, ...]:
        """Change the signal part of a tile shape so that no tile border cuts off a neighbour.

        Parameters
        ----------
        tile_shape : sequence of int
            Shape asked for.
        sig_shape : sequence of int
            Shape of the frames.
        base_shape : sequence of int
            Smallest shape that the data set can read. The result is a multiple of it, or full, in each axis.

        Raises
        ------
        ValueError
            If the corrections do not have the shape `sig_shape`.
        """
        frame, base = tuple(sig_shape), tuple(base_shape)
        if self.have_corrections() and frame != self._sig_shape:
            raise ValueError(f"corrections of shape {self._sig_shape} do not fit frames of shape {frame}")
        if self._excluded is None or self._excluded.size == 0:
            return tuple(tile_shape)
        return tuple(
            _safe_extent(np.unique(positions), int(extent), int(full), int(unit))
            for positions, extent, full, unit in zip(self._excluded, tile_shape, frame, base, strict=True)
        )


def _find_excluded(excluded_pixels: Any) -> tuple[npt.NDArray[np.int64], tuple[int, ...]]:
    """Coordinates ``(sig_dims, n)`` of the pixels that are set, and the shape of the frame."""
    if is_sparse(excluded_pixels):
        coo = to_sparse(excluded_pixels)
        if coo.fill_value == 0:
            return np.array(coo.coords, dtype=np.int64), tuple(int(extent) for extent in coo.shape)
    dense = to_dense(excluded_pixels)
    return np.ascontiguousarray(np.argwhere(dense).T, dtype=np.int64), dense.shape


def _make_part(
    sig_shape: tuple[int, ...],
    excluded: npt.NDArray[np.int64] | None,
    allow_empty: bool,
    origin: tuple[int, ...],
    extents: tuple[int, ...],
) -> _Part:
    """What has to be known about a part of the signal: its index, and how to repair it."""
    limits = zip(origin, extents, sig_shape, strict=False)
    if len(extents) != len(sig_shape) or any(o < 0 or o + n > limit for o, n, limit in limits):
        raise ValueError(
            f"a tile with signal origin {origin} and shape {extents} does not lie within"
            f" corrections of shape {sig_shape}"
        )
    sig_index = tuple(slice(o, o + n) for o, n in zip(origin, extents, strict=True))
    if excluded is None:
        return sig_index, None
    relative = excluded - np.array(origin, dtype=np.int64)[:, np.newaxis]
    inside = (relative >= 0) & (relative < np.array(extents)[:, np.newaxis])
    return sig_index, RepairDescriptor(extents, relative[:, inside.all(axis=0)], allow_empty)


def _safe_extent(excluded: npt.NDArray[np.int64], extent: int, full: int, base: int) -> int:
    """Extent of tiles along one axis whose borders are at least a pixel away from all excluded positions."""
    if full <= 1:
        return extent
    if len(excluded) > full * _CROWDED:
        return full
    # A border at b separates pixels b - 1 and b; at 0 there is none.
    forbidden = np.union1d(excluded, excluded + 1)
    forbidden = forbidden[forbidden > 0]
    last = int(forbidden[-1])
    borders = forbidden[forbidden < full]
    candidates = islice(_closest_multiples(extent, base), 1 + last // base)
    step = next((c for c in candidates if c > 0 and (borders % c).all()), None)
    if step is None:
        step = (last // base + 1) * base
    safe = extent if extent >= step and extent % step == 0 else step
    return min(safe, full)


def _closest_multiples(extent: int, base: int) -> Iterator[int]:
    """Multiples of `base`, also negative ones, in the order of their distance from `extent`."""
    start = round(extent / base) * base
    yield start
    away = -base if start >= extent else base
    for n in count(1):
        yield start + n * away
        yield start - n * away
