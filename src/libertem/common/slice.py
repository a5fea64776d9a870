"""`Slice`: a rectangular region of a data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from libertem.common.math import count_nonzero, flat_nonzero, prod
from libertem.common.shape import Shape

__all__ = ["Slice", "SliceUsageError"]


class SliceUsageError(ValueError):
    """Slices or shapes that do not fit each other were combined."""


class Slice:
    """A region given by its origin and its shape, in the same axes as the data set.

    Parameters
    ----------
    origin : sequence of int
        Index of the first element in each axis.
    shape : Shape
        Extents, and how many of them belong to the signal.

    Raises
    ------
    SliceUsageError
        If `shape` is not a `Shape`, or origin and shape differ in length.

    Examples
    --------
    >>> s = Slice(origin=(3, 1, 0), shape=Shape((2, 3, 4), sig_dims=2))
    >>> s.get()
    (slice(3, 5, None), slice(1, 4, None), slice(0, 4, None))
    >>> s.get(sig_only=True)
    (slice(1, 4, None), slice(0, 4, None))
    """

    __slots__ = ("origin", "shape")

    origin: tuple[int, ...]
    shape: Shape

    def __init__(self, origin: Sequence[int], shape: Shape) -> None:
        if not isinstance(shape, Shape):
            raise SliceUsageError(f"shape has to be a Shape, found {type(shape).__name__}")
        self.origin = tuple(origin)
        self.shape = shape
        if len(self.origin) != len(shape):
            raise SliceUsageError(f"origin {self.origin} and shape {shape} have different lengths")

    @classmethod
    def from_shape(cls, shape: Sequence[int], sig_dims: int) -> Slice:
        """The region that starts at zero and has the given shape."""
        return cls(origin=(0,) * len(tuple(shape)), shape=Shape(shape, sig_dims=sig_dims))

    @property
    def nav(self) -> Slice:
        """Only the navigation axes."""
        nav = self.shape.nav
        return Slice(origin=self.origin[: nav.dims], shape=nav)

    @property
    def sig(self) -> Slice:
        """Only the signal axes."""
        sig = self.shape.sig
        return Slice(origin=self.origin[len(self.origin) - sig.dims :], shape=sig)

    def get(self, arr: Any = None, sig_only: bool = False, nav_only: bool = False) -> Any:
        """Tuple of `slice` objects, or `arr` indexed with them.

        With `sig_only` they apply to the last axes of `arr`, with `nav_only` to the first ones.
        """
        origin, extents = self.origin, self.shape.to_tuple()
        nav_dims = self.shape.nav.dims
        if sig_only:
            origin, extents = origin[nav_dims:], extents[nav_dims:]
        elif nav_only:
            origin, extents = origin[:nav_dims], extents[:nav_dims]
        index = tuple(slice(o, o + e) for o, e in zip(origin, extents, strict=True))
        if arr is None:
            return index
        return arr[(..., *index)] if sig_only else arr[index]

    def _check_same_axes(self, other: Slice) -> None:
        if len(self.origin) != len(other.origin) or self.shape.sig_dims != other.shape.sig_dims:
            raise SliceUsageError(f"{self} and {other} have different axes")

    def intersection_with(self, other: Slice) -> Slice:
        """The common region. Its extents are 0 where there is none."""
        self._check_same_axes(other)
        starts = tuple(max(a, b) for a, b in zip(self.origin, other.origin, strict=True))
        stops = tuple(
            min(a + m, b + n)
            for a, m, b, n in zip(self.origin, self.shape, other.origin, other.shape, strict=True)
        )
        extents = tuple(max(0, stop - start) for start, stop in zip(starts, stops, strict=True))
        return Slice(origin=starts, shape=Shape(extents, sig_dims=self.shape.sig_dims))

    def is_null(self) -> bool:
        """Whether any extent is 0."""
        return any(extent == 0 for extent in self.shape)

    def shift(self, other: Slice) -> Slice:
        """The same region, with its origin counted from that of `other`."""
        self._check_same_axes(other)
        origin = tuple(a - b for a, b in zip(self.origin, other.origin, strict=True))
        return Slice(origin=origin, shape=self.shape)

    def shift_by(self, offset: Sequence[int]) -> Slice:
        """The same region, moved by `offset`."""
        if len(tuple(offset)) != len(self.origin):
            raise SliceUsageError(f"offset {tuple(offset)} does not have {len(self.origin)} entries")
        origin = tuple(a + b for a, b in zip(self.origin, offset, strict=True))
        return Slice(origin=origin, shape=self.shape)

    def clip_to(self, shape: Shape) -> Slice:
        """The part of this region that lies inside `shape`."""
        return self.intersection_with(Slice.from_shape(shape, sig_dims=self.shape.sig_dims))

    def discard_nav(self) -> Slice:
        """Origin and extents of the navigation axes set to 0; serves as a cache key."""
        nav_dims = self.shape.nav.dims
        zeros = (0,) * nav_dims
        return Slice(
            origin=zeros + self.origin[nav_dims:],
            shape=Shape(zeros + self.shape.to_tuple()[nav_dims:], sig_dims=self.shape.sig_dims),
        )

    def subslices(self, shape: Sequence[int]) -> Iterator[Slice]:
        """Cut the region into a C-order grid of pieces of the given shape; border pieces are smaller."""
        steps = tuple(shape)
        if len(steps) != len(self.origin):
            raise SliceUsageError(f"shape {steps} does not have {len(self.origin)} entries")
        stops = tuple(o + e for o, e in zip(self.origin, self.shape, strict=True))
        axes = [range(o, stop, step) for o, stop, step in zip(self.origin, stops, steps, strict=True)]
        for origin in product(*axes):
            extents = tuple(min(step, stop - o) for o, step, stop in zip(origin, steps, stops, strict=True))
            yield Slice(origin=origin, shape=Shape(extents, sig_dims=self.shape.sig_dims))

    def flatten_nav(self, containing_shape: Sequence[int]) -> Slice:
        """The same region with a flat navigation axis, inside a data set of `containing_shape`.

        Raises
        ------
        SliceUsageError
            If the region is not contiguous on the flat axis.
        """
        nav = self.nav
        nav_dims = nav.shape.dims
        container = tuple(containing_shape)[:nav_dims]
        # Contiguous: extents of 1, then one of any extent, then only full ones.
        free = next((i for i, extent in enumerate(nav.shape) if extent != 1), nav_dims)
        for i in range(free + 1, nav_dims):
            if nav.origin[i] != 0 or nav.shape[i] != container[i]:
                raise SliceUsageError(f"{self} is not contiguous within {tuple(containing_shape)}")
        start = 0
        for o, extent in zip(nav.origin, container, strict=True):
            start = start * extent + o
        sig = self.sig
        return Slice(
            origin=(start, *sig.origin),
            shape=Shape((prod(nav.shape), *sig.shape), sig_dims=self.shape.sig_dims),
        )

    def adjust_for_roi(self, roi: Any) -> Slice:
        """Translate a slice on the flat navigation axis to the axis compressed by `roi`."""
        if roi is None:
            return self
        if self.shape.nav.dims != 1:
            raise SliceUsageError(f"{self} does not have a flat navigation axis")
        start, extent = self.origin[0], self.shape[0]
        if isinstance(roi, np.ndarray | list | tuple):
            flat = np.asarray(roi).reshape(-1)
            before, inside = count_nonzero(flat[:start]), count_nonzero(flat[start : start + extent])
        else:
            selected = flat_nonzero(roi)
            before = int(np.searchsorted(selected, start))
            inside = int(np.searchsorted(selected, start + extent)) - before
        sig = self.sig
        return Slice(
            origin=(before, *sig.origin),
            shape=Shape((inside, *sig.shape), sig_dims=self.shape.sig_dims),
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Slice):
            return False
        return self.origin == other.origin and self.shape == other.shape

    def __hash__(self) -> int:
        return hash((self.origin, self.shape.to_tuple()))

    def __repr__(self) -> str:
        return f"<Slice origin={self.origin} shape={self.shape}>"

    def __getstate__(self) -> tuple[tuple[int, ...], Shape]:
        return self.origin, self.shape

    def __setstate__(self, state: tuple[tuple[int, ...], Shape]) -> None:
        self.origin, self.shape = state
