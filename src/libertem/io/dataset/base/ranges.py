"""Read ranges: which bytes of which file make up which tile.

Vectorised, and free of numba: `range_hooks` adds the compiled variant for formats with their own layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from libertem.common.math import prod
from libertem.exceptions import DataSetException

__all__ = [
    "ReadRanges",
    "contiguous_runs",
    "default_get_read_ranges",
    "find_files",
    "locate_frames",
    "no_tiles",
    "select_frames",
]

IntArray: TypeAlias = npt.NDArray[np.int64]

ReadRanges: TypeAlias = tuple[IntArray, IntArray, IntArray]
"""``(tile_slices, read_ranges, scheme_indices)``, see `default_get_read_ranges`."""


def contiguous_runs(
    origin: Sequence[int], shape: Sequence[int], sig_shape: Sequence[int]
) -> tuple[IntArray, int]:
    """Cut a region of a frame into runs of pixels that lie next to each other.

    Returns
    -------
    starts : array of int64
        Flat index of the first pixel of each run, ascending.
    length : int
        Pixels per run, the same for all.
    """
    strides = np.cumprod([1, *list(sig_shape)[:0:-1]])[::-1]
    # Axes behind `split` are covered in full, so they belong to one run.
    split = len(sig_shape) - 1
    while split > 0 and shape[split] == sig_shape[split]:
        split -= 1
    starts = np.array([sum(int(o) * int(s) for o, s in zip(origin, strides, strict=True))], dtype=np.int64)
    for axis in range(split):
        steps = np.arange(shape[axis], dtype=np.int64) * int(strides[axis])
        starts = (starts[:, np.newaxis] + steps).reshape(-1)
    return starts, prod(int(extent) for extent in shape[split:])


def select_frames(
    start_at_frame: int, stop_before_frame: int, roi_nonzero: IntArray | None, sync_offset: int
) -> tuple[IntArray, int]:
    """Images to read, and the place of the first one on the (compressed) navigation axis."""
    first = max(0, start_at_frame)
    if roi_nonzero is None:
        base = abs(sync_offset) if start_at_frame < 0 else start_at_frame - sync_offset
        return np.arange(first, max(first, stop_before_frame), dtype=np.int64), base
    images = roi_nonzero + sync_offset
    lower = abs(sync_offset) if start_at_frame < 0 else start_at_frame - sync_offset
    base = int(np.searchsorted(roi_nonzero, lower))
    lo, hi = np.searchsorted(images, [first, stop_before_frame])
    return images[lo:hi], base


def _bytes_of(px: IntArray | int, bpp: int, what: str) -> Any:
    bits = px * bpp
    if np.any(np.asarray(bits) % 8):
        raise DataSetException(
            f"{what} does not lie on a byte boundary",
            found=f"{bpp} bits per pixel",
            expected="tiles and frames that fill whole bytes",
            hint="formats with packed pixels need their own base shape or get_read_ranges",
        )
    return bits // 8


def default_get_read_ranges(
    start_at_frame: int,
    stop_before_frame: int,
    roi_nonzero: IntArray | None,
    depth: int,
    slices_arr: IntArray,
    fileset_arr: IntArray,
    sig_shape: Sequence[int],
    bpp: int,
    sync_offset: int = 0,
    extra: Any = None,
    frame_header_bytes: int = 0,
    frame_footer_bytes: int = 0,
) -> ReadRanges:
    """Byte ranges of the tiles of a partition, for frames stored back to back.

    Parameters
    ----------
    start_at_frame, stop_before_frame : int
        Half-open range of image numbers; may start below 0.
    roi_nonzero : array of int64 or None
        Flat indices of the selected scan positions.
    depth : int
        Frames per tile.
    slices_arr : array ``(n_slices, 2, sig_dims)``
        Origins and shapes of the signal slices of the tiling scheme.
    fileset_arr : array ``(n_files, 4)``
        As from `FileSet.get_as_arr`.
    sig_shape : tuple of int
        Shape of a frame.
    bpp : int
        Bits per pixel.
    extra : object
        Only of use to formats with their own hooks.

    Returns
    -------
    tile_slices : array ``(n_tiles, 2, 1 + sig_dims)``
        Origin and shape of each tile; the navigation axis is flat and compressed by the ROI.
    read_ranges : array ``(n_tiles, max_ranges, 3)``
        File index, first byte, byte after the last. A signal slice that is not contiguous in the
        frame has several ranges per frame. Rows of zeros fill up shorter tiles.
    scheme_indices : array ``(n_tiles,)``
        Which signal slice.

    Raises
    ------
    DataSetException
        If a tile or frame does not start and end on a byte, or no file holds a frame.
    """
    nsig = len(sig_shape)
    n_slices = slices_arr.shape[0]
    images, base = select_frames(start_at_frame, stop_before_frame, roi_nonzero, sync_offset)
    n = images.shape[0]
    if n == 0:
        return no_tiles(depth, nsig)
    file_rows, byte0 = locate_frames(
        images, fileset_arr, prod(sig_shape), bpp, frame_header_bytes, frame_footer_bytes
    )
    block_starts = np.arange(0, n, depth, dtype=np.int64)
    block_lengths = np.minimum(depth, n - block_starts)
    runs = [contiguous_runs(origin.tolist(), shape.tolist(), sig_shape) for origin, shape in slices_arr]
    max_depth = int(block_lengths.max())
    max_rr = max_depth * max(starts.shape[0] for starts, _ in runs)
    ranges = np.zeros((block_starts.shape[0], n_slices, max_rr, 3), dtype=np.int64)
    # Rows of a last, shorter block point at frame 0 here and are cleared below.
    rows = block_starts[:, np.newaxis] + np.arange(max_depth)
    missing = rows >= n
    rows[missing] = 0
    for q, (starts, length) in enumerate(runs):
        n_runs = starts.shape[0]
        first = byte0[rows][..., np.newaxis] + _bytes_of(starts, bpp, "a tile")
        part = np.empty((*first.shape, 3), dtype=np.int64)
        part[..., 0] = fileset_arr[file_rows[rows], 2][..., np.newaxis]
        part[..., 1] = first
        part[..., 2] = first + _bytes_of(length, bpp, "a tile")
        part[missing] = 0
        ranges[:, q, : max_depth * n_runs] = part.reshape(rows.shape[0], -1, 3)
    tile_slices = np.empty((block_starts.shape[0], n_slices, 2, 1 + nsig), dtype=np.int64)
    tile_slices[:, :, 0, 0] = (base + block_starts)[:, np.newaxis]
    tile_slices[:, :, 1, 0] = block_lengths[:, np.newaxis]
    tile_slices[:, :, :, 1:] = slices_arr
    return (
        tile_slices.reshape(-1, 2, 1 + nsig),
        ranges.reshape(-1, max_rr, 3),
        np.tile(np.arange(n_slices, dtype=np.int64), block_starts.shape[0]),
    )


def no_tiles(depth: int, sig_dims: int) -> ReadRanges:
    """Read ranges of a partition without existing or selected frames."""
    return (
        np.zeros((0, 2, 1 + sig_dims), dtype=np.int64),
        np.zeros((0, depth, 3), dtype=np.int64),
        np.zeros((0,), dtype=np.int64),
    )


def find_files(images: IntArray, fileset_arr: IntArray) -> IntArray:
    """For each image the row of its file in `fileset_arr`.

    Raises
    ------
    DataSetException
        If no file holds an image.
    """
    rows = np.searchsorted(fileset_arr[:, 0], images, side="right") - 1
    outside = (rows < 0) | (images >= fileset_arr[np.maximum(rows, 0), 1])
    if np.any(outside):
        raise DataSetException("no file holds a frame", found=f"frame {int(images[outside][0])}")
    return rows


def locate_frames(
    images: IntArray,
    fileset_arr: IntArray,
    sig_px: int,
    bpp: int,
    frame_header_bytes: int,
    frame_footer_bytes: int,
) -> tuple[IntArray, IntArray]:
    """For each image the row of its file in `fileset_arr`, and the byte where its pixels start."""
    rows = find_files(images, fileset_arr)
    inside = images - fileset_arr[rows, 0]
    frame_bytes = _bytes_of(sig_px, bpp, "a frame")
    byte0 = (
        fileset_arr[rows, 3]
        + (inside + 1) * frame_header_bytes
        + inside * frame_footer_bytes
        + inside * frame_bytes
    )
    return rows, byte0
