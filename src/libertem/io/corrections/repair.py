"""Which pixels are excluded, and which neighbours replace them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from libertem.common.math import prod

__all__ = ["RepairDescriptor", "RepairValueError", "as_coordinates", "environments"]

_Index = npt.NDArray[np.int64]


class RepairValueError(ValueError):
    """An excluded pixel has no neighbour that could replace it."""


def as_coordinates(excluded_pixels: Any, sig_shape: tuple[int, ...]) -> _Index:
    """Check coordinates of shape ``(sig_dims, n)`` against the frame that they index.

    Raises
    ------
    ValueError
        If their shape does not fit `sig_shape`, they are no integers, or one lies outside of the frame.
    """
    coordinates = np.asarray(excluded_pixels)
    if coordinates.size == 0:
        return np.zeros((len(sig_shape), 0), dtype=np.int64)
    if coordinates.ndim != 2 or len(coordinates) != len(sig_shape):
        raise ValueError(
            f"excluded_pixels has shape {coordinates.shape}, but frames of shape {sig_shape}"
            f" need coordinates of shape ({len(sig_shape)}, n)"
        )
    if coordinates.dtype.kind not in "iu":
        raise ValueError(f"excluded_pixels has to hold integer coordinates, found {coordinates.dtype}")
    extents = np.array(sig_shape)[:, np.newaxis]
    if (coordinates < 0).any() or (coordinates >= extents).any():
        raise ValueError(f"excluded_pixels holds coordinates outside of frames of shape {sig_shape}")
    return coordinates.astype(np.int64)


def _cubes(coordinates: _Index, sig_shape: tuple[int, ...]) -> tuple[_Index, npt.NDArray[np.bool_]]:
    """Positions ``(dims, n, k)`` of the ``k = 3**dims - 1`` neighbours, and which are inside the frame."""
    dims = len(sig_shape)
    moves = [move for move in product((-1, 0, 1), repeat=dims) if any(move)]
    around = np.array(moves, dtype=np.int64).reshape(-1, dims).T
    positions = coordinates[:, :, np.newaxis] + around[:, np.newaxis, :]
    extents = np.array(sig_shape).reshape(-1, 1, 1)
    inside: npt.NDArray[np.bool_] = np.all((positions >= 0) & (positions < extents), axis=0)
    return positions, inside


def _pack(rows: _Index, keep: npt.NDArray[np.bool_]) -> tuple[_Index, _Index]:
    """Move the entries to keep to the start of each row, in their order, and count them. The rest is 0."""
    order = np.argsort(~keep, axis=-1, kind="stable")
    packed = np.take_along_axis(np.where(keep, rows, 0), np.broadcast_to(order, rows.shape), axis=-1)
    return packed, np.count_nonzero(keep, axis=-1).astype(np.int64)


def environments(excluded_pixels: Any, sigshape: Sequence[int]) -> tuple[_Index, _Index]:
    """Positions around pixels that lie inside the frame, whether they are themselves excluded or not.

    Parameters
    ----------
    excluded_pixels : array-like of int
        Coordinates of shape ``(dims, n)``.
    sigshape : sequence of int
        Shape of the frame.

    Returns
    -------
    tuple of two arrays
        Coordinates of shape ``(n, dims, 3**dims - 1)``, in row-major order, and how many of the last axis
        are valid for each pixel.
    """
    sig_shape = tuple(int(extent) for extent in sigshape)
    positions, inside = _cubes(as_coordinates(excluded_pixels, sig_shape), sig_shape)
    packed, counts = _pack(positions, inside)
    return packed.transpose(1, 0, 2), counts


class RepairDescriptor:
    """For each excluded pixel of a frame, or of a rectangular part of it, the neighbours that replace it.

    Parameters
    ----------
    sig_shape : sequence of int
        Shape of the frame or part.
    excluded_pixels : array-like of int, optional
        Coordinates of shape ``(sig_dims, n)``.
    allow_empty : bool
        Accept pixels without a usable neighbour. They keep their value.

    Raises
    ------
    RepairValueError
        If a pixel has no usable neighbour, unless `allow_empty`.

    Examples
    --------
    >>> d = RepairDescriptor((5, 5), excluded_pixels=[[1, 1], [1, 2]])
    >>> d.exclude_flat, d.repair_counts
    (array([6, 7]), array([7, 7]))
    >>> d.repair_flat[0, :7]
    array([ 0,  1,  2,  5, 10, 11, 12])
    """

    sig_shape: tuple[int, ...]
    """Shape of the frame that the indices refer to."""

    exclude_flat: _Index
    """Flat indices of the excluded pixels."""

    repair_flat: _Index
    """Flat indices of neighbours, ``(n, 3**sig_dims - 1)``, in row-major order; unused entries are 0."""

    repair_counts: _Index
    """How many entries of each row of `repair_flat` are valid."""

    def __init__(
        self, sig_shape: Sequence[int], excluded_pixels: Any = None, allow_empty: bool = False
    ) -> None:
        self.sig_shape = tuple(int(extent) for extent in sig_shape)
        coordinates = as_coordinates(() if excluded_pixels is None else excluded_pixels, self.sig_shape)
        self.exclude_flat = self._flatten(coordinates)
        positions, inside = _cubes(coordinates, self.sig_shape)
        neighbours = self._flatten(np.where(inside, positions, 0))
        is_excluded = np.zeros(prod(self.sig_shape), dtype=np.bool_)
        is_excluded[self.exclude_flat] = True
        self.repair_flat, self.repair_counts = _pack(neighbours, inside & ~is_excluded[neighbours])
        self.check_empty_repairs(allow_empty)

    def _flatten(self, coordinates: _Index) -> _Index:
        if coordinates.size == 0:
            return np.zeros(coordinates.shape[1:], dtype=np.int64)
        flat: _Index = np.ravel_multi_index(tuple(coordinates), self.sig_shape)
        return flat.astype(np.int64)

    def empty_repairs(self) -> _Index:
        """Numbers of the excluded pixels without a usable neighbour, as a column."""
        return np.argwhere(self.repair_counts == 0)

    def check_empty_repairs(self, allow_empty: bool) -> None:
        """Raise `RepairValueError` if there are such pixels, unless `allow_empty`."""
        empty = self.empty_repairs()
        if empty.size and not allow_empty:
            raise RepairValueError(f"Empty repair environments for pixel(s) number {empty}.")
