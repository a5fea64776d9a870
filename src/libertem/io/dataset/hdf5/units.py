"""Runs of frames that consist of whole chunks: what can be read without decoding a chunk twice."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from libertem.common.math import prod

if TYPE_CHECKING:
    import numpy.typing as npt

    Ints = npt.NDArray[np.int64]

__all__ = ["ChunkPlace", "UnitGrid"]

Slices = tuple[slice, ...]


@dataclass(frozen=True)
class ChunkPlace:
    """Where a chunk lies within a unit."""

    chunk: tuple[int, ...]
    """Position on the chunk grid, relative to the first chunk of the unit."""
    nav: Slices
    """Its part of the unit, along the navigation axes behind the one that is cut."""
    sig: Slices
    """Its part of the frame."""


@dataclass(frozen=True)
class UnitGrid:
    """Cuts the stored frames into units.

    A unit is the shortest run of consecutive frames that consists of whole chunks. Along the first navigation
    axis whose chunks are longer than 1 it has the length of a chunk; it has length 1 along the axes before,
    and is complete along those behind.
    """

    nav_shape: tuple[int, ...]
    """As stored."""
    sig_shape: tuple[int, ...]
    nav_chunks: tuple[int, ...]
    sig_chunks: tuple[int, ...]

    @cached_property
    def axis(self) -> int:
        """The navigation axis that is cut."""
        last = len(self.nav_shape) - 1
        return next((k for k, extent in enumerate(self.nav_chunks) if extent != 1), last)

    @cached_property
    def inner_shape(self) -> tuple[int, ...]:
        """Shape of the navigation axes behind `axis`."""
        return self.nav_shape[self.axis + 1 :]

    @cached_property
    def inner(self) -> int:
        """Frames per step along `axis`."""
        return prod(self.inner_shape)

    @property
    def step(self) -> int:
        """Frames per unit; less at the end of `axis`."""
        return min(self.nav_chunks[self.axis], self.nav_shape[self.axis]) * self.inner

    @property
    def period(self) -> int:
        """Frames after which the cut begins anew."""
        return self.nav_shape[self.axis] * self.inner

    @cached_property
    def grid(self) -> tuple[int, ...]:
        """Number of chunks along each axis."""
        shape, chunks = self.nav_shape + self.sig_shape, self.nav_chunks + self.sig_chunks
        return tuple(-(-extent // chunk) for extent, chunk in zip(shape, chunks, strict=True))

    def starts_of(self, frames: Ints) -> Ints:
        """First frame of the unit of each frame."""
        outer, inside = np.divmod(frames, self.period)
        return np.asarray(outer * self.period + inside // self.step * self.step)

    def stops_of(self, starts: Ints) -> Ints:
        """Frames after the last ones of the units that start there."""
        return np.minimum(starts + self.step, (starts // self.period + 1) * self.period)

    def first_chunks(self, starts: Ints) -> Ints:
        """Positions on the chunk grid ``(n, axes)`` of the first chunks of units."""
        outer, inside = np.divmod(starts, self.period)
        found = np.zeros((starts.size, len(self.grid)), dtype=np.int64)
        if self.axis:
            found[:, : self.axis] = np.transpose(np.unravel_index(outer, self.nav_shape[: self.axis]))
        found[:, self.axis] = inside // self.inner // self.nav_chunks[self.axis]
        return found

    @cached_property
    def places(self) -> tuple[ChunkPlace, ...]:
        """All chunks of a unit, in the order of the file."""
        behind = self.axis + 1
        n_nav = len(self.nav_shape)
        shape, chunks = self.nav_shape + self.sig_shape, self.nav_chunks + self.sig_chunks
        found = []
        for position in itertools.product(*(range(n) for n in self.grid[behind:])):
            slices = tuple(
                slice(i * chunk, min(extent, (i + 1) * chunk))
                for i, chunk, extent in zip(position, chunks[behind:], shape[behind:], strict=True)
            )
            cut = n_nav - behind
            found.append(ChunkPlace((0,) * behind + position, slices[:cut], slices[cut:]))
        return tuple(found)

    def sig_bands(self, frame_bytes: int, limit: int) -> tuple[range, ...]:
        """Ranges of chunks along the first signal axis, so that a band of a unit has about `limit` bytes."""
        rows = self.grid[len(self.nav_shape)]
        per_row = max(1, self.step * frame_bytes // rows)
        n = max(1, limit // per_row)
        return tuple(range(first, min(rows, first + n)) for first in range(0, rows, n))
