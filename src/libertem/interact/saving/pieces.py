"""Cut a scan into boxes that fit into memory, and read them, in parallel and in the best order."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.buffers import get_bbox_slice
from libertem.common.math import flat_nonzero
from libertem.interact.crop import read_frames
from libertem.interact.saving.contract import Box

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.dataset.base.dataset import DataSet

__all__ = ["Frames", "grouped", "make_boxes"]


def make_boxes(
    nav_shape: tuple[int, ...], granularity: tuple[int, ...], frame_bytes: int, limit: int
) -> list[Box]:
    """Boxes of at most `limit` bytes, if at all possible, that cover the scan; in C order.

    Their borders are multiples of `granularity`. If that is one frame, each box is one run of frames.
    """
    extents = [min(step, n) for step, n in zip(granularity, nav_shape, strict=True)]
    for axis in reversed(range(len(nav_shape))):
        size = max(1, frame_bytes * math.prod(extents))
        extents[axis] = min(nav_shape[axis], extents[axis] * max(1, limit // size))
        if extents[axis] < nav_shape[axis]:
            break
    axes = [
        [slice(start, min(n, start + extent)) for start in range(0, n, extent)]
        for n, extent in zip(nav_shape, extents, strict=True)
    ]
    return list(itertools.product(*axes))


def grouped(boxes: Sequence[Box], n: int) -> Iterator[list[Box]]:
    """Groups of at most `n` boxes that lie far apart, so that these belong to different partitions."""
    n_groups = max(1, math.ceil(len(boxes) / n))
    for first in range(n_groups):
        group = list(boxes[first::n_groups])
        if group:
            yield group


@dataclass(frozen=True)
class Frames:
    """The frames that are to be saved."""

    dataset: DataSet
    positions: npt.NDArray[np.int64]
    """Flat index of each frame in the data set, in the shape of the new scan."""
    origin: tuple[int, ...] | None
    """Scan position of the first one; None if they are no rectangle."""

    @classmethod
    def select(cls, dataset: DataSet, roi: npt.NDArray[np.bool_] | None) -> Frames:
        """All frames, a rectangle, or single ones along a flat axis.

        Raises
        ------
        ValueError
            If there is none.
        """
        nav_shape = dataset.shape.nav.to_tuple()
        everything = np.arange(math.prod(nav_shape)).reshape(nav_shape)
        if roi is None:
            return cls(dataset, everything, (0,) * len(nav_shape))
        if not roi.any():
            raise ValueError("the roi selects no scan position: there is nothing to save")
        bounds = get_bbox_slice(roi)
        if roi[bounds].all():
            return cls(dataset, everything[bounds], tuple(int(s.start) for s in bounds))
        return cls(dataset, flat_nonzero(roi), None)

    @property
    def are_all(self) -> bool:
        """Whether no frame is left out."""
        return self.positions.size == math.prod(self.dataset.shape.nav)

    def read(self, ctx: Any, boxes: Sequence[Box]) -> list[npt.NDArray[Any]]:
        """Frames of some boxes, in one run; each in the shape of the box and a frame."""
        indices = [self.positions[box] for box in boxes]
        roi = np.zeros(self.dataset.shape.nav.to_tuple(), dtype=bool)
        for index in indices:
            roi.reshape(-1)[index.reshape(-1)] = True
        frames = read_frames(ctx, self.dataset, roi)
        selected = flat_nonzero(roi)
        parts = []
        for index in indices:
            rank = np.searchsorted(selected, index.reshape(-1))
            first, last = int(rank[0]), int(rank[-1])
            # Without a copy if no other box is in between.
            alone = last - first + 1 == rank.size
            part = frames[first : last + 1] if alone else frames[rank]
            parts.append(part.reshape(index.shape + part.shape[1:]))
        return parts

    def place(self, box: Box, index: tuple[int, ...]) -> tuple[int, ...]:
        """Index in the data set of an element of a box."""
        nav_dims = self.positions.ndim
        flat = int(self.positions[box][index[:nav_dims]])
        nav = np.unravel_index(flat, self.dataset.shape.nav.to_tuple())
        return (*(int(i) for i in nav), *index[nav_dims:])
