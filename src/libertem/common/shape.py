"""`Shape`: the shape of a data set, split into navigation and signal axes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

from libertem.common.math import prod

__all__ = ["Shape"]


class Shape(Sequence[int]):
    """A tuple of extents of which the last `sig_dims` belong to the signal (detector) axes.

    Parameters
    ----------
    shape : sequence of int
        All extents, navigation axes first.
    sig_dims : int
        How many axes, counted from the end, belong to the signal.

    Examples
    --------
    >>> s = Shape((5, 6, 16, 17), sig_dims=2)
    >>> s.nav, s.sig, s.size
    ((5, 6), (16, 17), 8160)
    >>> s.flatten_nav()
    (30, 16, 17)
    >>> (3,) + s
    (5, 6, 3, 16, 17)
    """

    __slots__ = ("_nav_shape", "_sig_dims", "_sig_shape")

    def __init__(self, shape: Sequence[int] | Shape, sig_dims: int) -> None:
        extents = tuple(shape)
        self._sig_dims = sig_dims
        split = max(0, len(extents) - sig_dims)
        self._nav_shape = extents[:split]
        self._sig_shape = extents[split:]

    @property
    def nav(self) -> Shape:
        """The navigation part, with ``sig_dims == 0``."""
        return Shape(self._nav_shape, sig_dims=0)

    @property
    def sig(self) -> Shape:
        """The signal part; all of its axes are signal axes."""
        return Shape(self._sig_shape, sig_dims=self._sig_dims)

    @property
    def dims(self) -> int:
        """Number of axes."""
        return len(self)

    @property
    def nav_dims(self) -> int:
        """Number of navigation axes."""
        return len(self._nav_shape)

    @property
    def sig_dims(self) -> int:
        """Number of signal axes."""
        return self._sig_dims

    @property
    def size(self) -> int:
        """Number of elements. 0, not 1, for an empty shape."""
        extents = self.to_tuple()
        return prod(extents) if extents else 0

    def to_tuple(self) -> tuple[int, ...]:
        """All extents as a plain tuple."""
        return self._nav_shape + self._sig_shape

    def flatten_nav(self) -> Shape:
        """The same shape with a single navigation axis."""
        if not self._nav_shape:
            return self
        return Shape((prod(self._nav_shape), *self._sig_shape), sig_dims=self._sig_dims)

    def flatten_sig(self) -> Shape:
        """The same shape with a single signal axis."""
        return Shape((*self._nav_shape, prod(self._sig_shape)), sig_dims=1)

    def __len__(self) -> int:
        return len(self._nav_shape) + len(self._sig_shape)

    def __iter__(self) -> Iterator[int]:
        return iter(self.to_tuple())

    @overload
    def __getitem__(self, k: int) -> int: ...

    @overload
    def __getitem__(self, k: slice) -> tuple[int, ...]: ...

    def __getitem__(self, k: int | slice) -> int | tuple[int, ...]:
        return self.to_tuple()[k]

    def __add__(self, other: object) -> Shape:
        if not isinstance(other, tuple):
            raise NotImplementedError(f"can only add a tuple to a Shape, not {type(other).__name__}")
        return Shape(self.to_tuple() + other, sig_dims=self._sig_dims + len(other))

    def __radd__(self, other: object) -> Shape:
        if not isinstance(other, tuple):
            raise NotImplementedError(f"can only add a Shape to a tuple, not {type(other).__name__}")
        return Shape(self._nav_shape + other + self._sig_shape, sig_dims=self._sig_dims)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Shape):
            return NotImplemented
        return self._sig_dims == other._sig_dims and self.to_tuple() == other.to_tuple()

    def __hash__(self) -> int:
        return hash((self.to_tuple(), self._sig_dims))

    def __repr__(self) -> str:
        return repr(self.to_tuple())

    def __getstate__(self) -> dict[str, Any]:
        return {"shape": self.to_tuple(), "sig_dims": self._sig_dims}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["shape"], state["sig_dims"])  # type: ignore[misc]  # no other way with __slots__
