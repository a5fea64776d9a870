"""Scan arithmetic: which frame of the input belongs to which scan position.

One rule defines everything. Scan position `i` on the flat navigation axis shows image ``i + sync_offset``
if the input has such an image; otherwise the position is blank and nothing is delivered for it.
"""

from __future__ import annotations

import itertools
import operator
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from libertem.common.math import prod
from libertem.common.shape import Shape
from libertem.common.slice import Slice
from libertem.exceptions import ShapeError

__all__ = [
    "check_shape",
    "check_sync_offset",
    "fit_partition_shape",
    "integer_sync_offset",
    "make_partition_slices",
    "sync_offset_info",
]

MAX_FRAMES_PX = 1 << 62
"""More elements than this cannot be addressed with 64 bit offsets."""


def check_shape(value: Any, name: str, *, path: str | None = None) -> tuple[int, ...]:
    """`value` as a tuple of positive Python ints.

    Raises
    ------
    TypeError
        If `value` is not a sequence.
    ShapeError
        If it is empty or an entry is not a positive integer.
    """
    entries = tuple(value)
    extents = []
    for entry in entries:
        try:
            extents.append(operator.index(entry))
        except TypeError as err:
            raise ShapeError(f"{name} has to consist of positive integers", path=path, found=entries) from err
    if not extents or min(extents) < 1 or prod(extents) > MAX_FRAMES_PX:
        raise ShapeError(f"{name} has to consist of positive integers", path=path, found=entries)
    return tuple(extents)


def integer_sync_offset(sync_offset: Any, *, path: str | None = None) -> int | None:
    """`sync_offset` as an int, or None for the default of the format.

    Raises
    ------
    ShapeError
        If it is not an integer.
    """
    if sync_offset is None:
        return None
    try:
        return operator.index(sync_offset)
    except TypeError as err:
        raise ShapeError("sync_offset has to be an integer", path=path, found=repr(sync_offset)) from err


def check_sync_offset(sync_offset: Any, image_count: int, *, path: str | None = None) -> int:
    """`sync_offset` as an int; None means 0.

    Raises
    ------
    ShapeError
        If it is not an integer, or would leave no frame of the input visible.
    """
    offset = integer_sync_offset(sync_offset, path=path) or 0
    if not -image_count < offset < image_count:
        raise ShapeError(
            f"sync_offset should be in ({-image_count}, {image_count}), which is (-image_count, image_count)",
            path=path,
            found=offset,
        )
    return offset


def sync_offset_info(sync_offset: int, image_count: int, nav_px: int) -> dict[str, int]:
    """How many frames are skipped, ignored and inserted at either end of the scan."""
    return {
        "frames_skipped_start": max(0, sync_offset),
        "frames_ignored_end": max(0, image_count - nav_px - sync_offset),
        "frames_inserted_start": max(0, -sync_offset),
        "frames_inserted_end": max(0, nav_px - image_count + sync_offset),
    }


def make_partition_slices(
    shape: Shape, num_partitions: int, sync_offset: int = 0
) -> Iterator[tuple[Slice, int, int]]:
    """Cut the flat navigation axis; yields ``(slice, start_frame, stop_frame)``, frames in image numbers."""
    n_frames = shape.nav.size
    sig = shape.sig.to_tuple()
    if num_partitions > n_frames:
        warnings.warn(
            f"dataset contains fewer frames than specified partitions: {n_frames} < {num_partitions}",
            RuntimeWarning,
            stacklevel=3,
        )
        num_partitions = n_frames
    parts = max(1, num_partitions)
    # The truncation of linspace is part of the contract: boundaries equal those of the reference.
    borders = np.linspace(0, n_frames, num=parts + 1, endpoint=True, dtype=int).tolist()
    for start, stop in itertools.pairwise(borders):
        part = Slice(
            origin=(start, *(0 for _ in sig)),
            shape=Shape((stop - start, *sig), sig_dims=len(sig)),
        )
        yield part, start + sync_offset, stop + sync_offset


def fit_partition_shape(
    dataset_shape: Shape, target_size_items: float, min_num: int | None = None, num_cores: int = 1
) -> tuple[int, ...]:
    """Navigation shape of a partition of about `target_size_items` pixels, for chunked formats."""
    cores = max(1, num_cores)
    items = dataset_shape.size / target_size_items
    num = max(1, min_num or 0, cores * (items // cores + min(1, items % cores)))
    target = max(1, int(dataset_shape.size // num))
    block = prod(dataset_shape.sig)
    extents: list[int] = []
    for extent in reversed(dataset_shape.nav.to_tuple()):
        block *= extent
        if block <= target:
            extents.insert(0, extent)
            continue
        extents.insert(0, max(1, int(extent // (block / target))))
        break
    missing = dataset_shape.nav.dims - len(extents)
    return (1,) * missing + tuple(extents)
