"""Read ranges for formats with a layout of their own: `make_get_read_ranges`.

A format may replace two functions, both compiled with numba and given as they are or as dispatchers:

``px_to_bytes(bpp, frame_in_file_idx, slice_sig_size, sig_size, sig_origin, frame_footer_bytes,
frame_header_bytes, file_header_bytes, file_idx, read_ranges)``
    appends to `read_ranges` one or more tuples ``(file_idx, start, stop[, ...])`` for pixels
    ``[sig_origin, sig_origin + slice_sig_size)`` of one frame.

``read_ranges_tile_block(slices_arr, fileset_arr, slice_sig_sizes, sig_origins, inner_indices_start,
inner_indices_stop, frame_indices, sig_size, px_to_bytes, bpp, frame_header_bytes, frame_footer_bytes,
file_idxs, slice_offset, extra, sig_shape)``
    returns a list of ``(scheme index, tile slice, list of range tuples)`` for one block of frames,
    ``frame_indices[inner_indices_start:inner_indices_stop]``. The tile slice is an int64 array
    ``(2, 1 + sig_dims)`` whose navigation origin is ``slice_offset + inner_indices_start``; `file_idxs`
    holds for each frame of the block its row in `fileset_arr`.

All tuples have the same length, at least 3; entries after the third are only for the decoder.
"""

from __future__ import annotations

import hashlib
import inspect
import marshal
import os
from collections.abc import Callable, Sequence
from functools import cache
from types import FunctionType
from typing import Any, TypeAlias, cast

import numba
import numpy as np
import numpy.typing as npt

from libertem.common.jit import inline_jit
from libertem.common.math import prod
from libertem.exceptions import DataSetException
from libertem.io.dataset.base.ranges import (
    ReadRanges,
    default_get_read_ranges,
    find_files,
    no_tiles,
    select_frames,
)

__all__ = ["make_get_read_ranges"]

IntArray: TypeAlias = npt.NDArray[np.int64]
Hook: TypeAlias = Any
"""A function, compiled by numba or not."""


@inline_jit
def _default_px_to_bytes(
    bpp: int,
    frame_in_file_idx: int,
    slice_sig_size: int,
    sig_size: int,
    sig_origin: int,
    frame_footer_bytes: int,
    frame_header_bytes: int,
    file_header_bytes: int,
    file_idx: int,
    read_ranges: list[tuple[int, ...]],
) -> None:
    """Frames back to back, with headers and footers."""
    if (sig_size * bpp) % 8 or (sig_origin * bpp) % 8 or (slice_sig_size * bpp) % 8:
        raise DataSetException("a tile or frame does not lie on a byte boundary")
    start = (
        file_header_bytes
        + (frame_in_file_idx + 1) * frame_header_bytes
        + frame_in_file_idx * frame_footer_bytes
        + (frame_in_file_idx * sig_size + sig_origin) * bpp // 8
    )
    read_ranges.append((file_idx, start, start + slice_sig_size * bpp // 8))


@inline_jit
def _default_read_ranges_tile_block(
    slices_arr: IntArray,
    fileset_arr: IntArray,
    slice_sig_sizes: IntArray,
    sig_origins: IntArray,
    inner_indices_start: int,
    inner_indices_stop: int,
    frame_indices: IntArray,
    sig_size: int,
    px_to_bytes: Hook,
    bpp: int,
    frame_header_bytes: int,
    frame_footer_bytes: int,
    file_idxs: IntArray,
    slice_offset: int,
    extra: Any,
    sig_shape: tuple[int, ...],
) -> Any:
    """All signal slices of a block, frame by frame, one range for each contiguous run of pixels."""
    result = []
    nsig = slices_arr.shape[2]
    for q in range(slices_arr.shape[0]):
        # Axes from `split` on belong to one run.
        split = nsig - 1
        run_px = slices_arr[q, 1, split]
        step = 1
        while split > 0 and slices_arr[q, 1, split] == sig_shape[split]:
            step *= sig_shape[split]
            split -= 1
            run_px = step * slices_arr[q, 1, split]
        n_runs = slice_sig_sizes[q] // run_px
        read_ranges: list[tuple[int, ...]] = []
        for i in range(inner_indices_start, inner_indices_stop):
            row = file_idxs[i - inner_indices_start]
            for run in range(n_runs):
                start = sig_origins[q]
                rest = run
                stride = step * sig_shape[split]
                for axis in range(split - 1, -1, -1):
                    start += rest % slices_arr[q, 1, axis] * stride
                    rest //= slices_arr[q, 1, axis]
                    stride *= sig_shape[axis]
                px_to_bytes(
                    bpp,
                    frame_indices[i] - fileset_arr[row, 0],
                    run_px,
                    sig_size,
                    start,
                    frame_footer_bytes,
                    frame_header_bytes,
                    fileset_arr[row, 3],
                    fileset_arr[row, 2],
                    read_ranges,
                )
        tile_slice = np.empty((2, 1 + nsig), dtype=np.int64)
        tile_slice[0, 0] = slice_offset + inner_indices_start
        tile_slice[1, 0] = inner_indices_stop - inner_indices_start
        for axis in range(nsig):
            tile_slice[0, 1 + axis] = slices_arr[q, 0, axis]
            tile_slice[1, 1 + axis] = slices_arr[q, 1, axis]
        result.append((q, tile_slice, read_ranges))
    return result


def make_get_read_ranges(
    px_to_bytes: Hook = _default_px_to_bytes,
    read_ranges_tile_block: Hook = _default_read_ranges_tile_block,
) -> Callable[..., ReadRanges]:
    """Make a function like `default_get_read_ranges` for another layout of frames or files.

    Parameters
    ----------
    px_to_bytes : callable
        Finds the bytes of some pixels of a frame.
    read_ranges_tile_block : callable
        Finds all read ranges of a block of frames.

    Returns
    -------
    callable
        With the parameters and the result of `default_get_read_ranges`; `extra` is handed to
        `read_ranges_tile_block`. The rows of the read ranges are as long as the tuples of the hooks.

    Notes
    -----
    Compilation happens with the first call, once for each pair of hooks. It is kept on disk if the hooks
    are functions of a module.
    """
    if px_to_bytes is _default_px_to_bytes and read_ranges_tile_block is _default_read_ranges_tile_block:
        return default_get_read_ranges
    collect = _compile(px_to_bytes, read_ranges_tile_block)

    def get_read_ranges(
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
        """Byte ranges of the tiles of a partition, see `default_get_read_ranges`."""
        images, base = select_frames(start_at_frame, stop_before_frame, roi_nonzero, sync_offset)
        sig = tuple(int(extent) for extent in sig_shape)
        if images.shape[0] == 0:
            return no_tiles(depth, len(sig))
        strides = np.array([prod(sig[axis + 1 :]) for axis in range(len(sig))], dtype=np.int64)
        ranges: ReadRanges = collect(
            images,
            find_files(images, fileset_arr),
            base,
            depth,
            slices_arr,
            slices_arr[:, 1].prod(axis=1),
            (slices_arr[:, 0] * strides).sum(axis=1),
            fileset_arr,
            sig,
            prod(sig),
            bpp,
            frame_header_bytes,
            frame_footer_bytes,
            extra,
        )
        return ranges

    return get_read_ranges


# The names under which `_collect` calls the hooks.
_px_to_bytes: Hook = _default_px_to_bytes
_tile_block: Hook = _default_read_ranges_tile_block


def _collect(
    images: IntArray,
    file_rows: IntArray,
    base: int,
    depth: int,
    slices_arr: IntArray,
    slice_sig_sizes: IntArray,
    sig_origins: IntArray,
    fileset_arr: IntArray,
    sig_shape: tuple[int, ...],
    sig_size: int,
    bpp: int,
    frame_header_bytes: int,
    frame_footer_bytes: int,
    extra: Any,
) -> ReadRanges:
    """Call the hooks for all blocks. Compiled for each pair of hooks, see `_compile`."""
    slices = []
    indices = []
    counts = []
    found = []
    for start in range(0, images.shape[0], depth):
        stop = min(start + depth, images.shape[0])
        tiles = _tile_block(
            slices_arr,
            fileset_arr,
            slice_sig_sizes,
            sig_origins,
            start,
            stop,
            images,
            sig_size,
            _px_to_bytes,
            bpp,
            frame_header_bytes,
            frame_footer_bytes,
            file_rows[start:stop],
            base,
            extra,
            sig_shape,
        )
        for index, tile_slice, ranges in tiles:
            indices.append(index)
            slices.append(tile_slice)
            counts.append(len(ranges))
            for entries in ranges:
                found.append(entries)  # noqa: PERF402  # numba knows no extend for this type
    return _as_arrays(slices, indices, counts, found, 1 + len(sig_shape))


@inline_jit
def _as_arrays(
    slices: list[IntArray],
    indices: list[int],
    counts: list[int],
    found: list[tuple[int, ...]],
    n_dims: int,
) -> ReadRanges:
    """Tiles, and the ranges of all of them one after the other, as the arrays of the contract."""
    most = 0
    for n in counts:
        most = max(most, n)
    width = 3
    for entries in found:
        width = len(entries)
    tile_slices = np.empty((len(slices), 2, n_dims), dtype=np.int64)
    scheme_indices = np.empty(len(slices), dtype=np.int64)
    read_ranges = np.zeros((len(slices), most, width), dtype=np.int64)
    row = 0
    for t in range(len(slices)):
        scheme_indices[t] = indices[t]
        for axis in range(n_dims):
            tile_slices[t, 0, axis] = slices[t][0, axis]
            tile_slices[t, 1, axis] = slices[t][1, axis]
        for i in range(counts[t]):
            for k, entry in enumerate(found[row]):
                read_ranges[t, i, k] = entry
            row += 1
    return tile_slices, read_ranges, scheme_indices


@cache
def _compile(px_to_bytes: Hook, tile_block: Hook) -> Callable[..., ReadRanges]:
    """Compile `_collect` with other hooks under its two global names.

    numba never finds a closure over compiled functions in its cache on disk. So this compiles a copy with
    globals of its own, whose name tells numba which hooks they are.
    """
    plain: list[Any] = [getattr(hook, "py_func", hook) for hook in (px_to_bytes, tile_block)]
    stamps = [_stamp(hook) for hook in plain]
    bound = FunctionType(
        _collect.__code__,
        {
            **globals(),
            # Inlined one into the other: numba derives the type of the list from what `px_to_bytes` appends.
            "_px_to_bytes": inline_jit(plain[0]),
            "_tile_block": inline_jit(plain[1]),
        },
    )
    bound.__qualname__ = "_collect_" + hashlib.sha256(repr(stamps).encode()).hexdigest()[:24]
    # Not `common.jit.jit`, which always writes to disk: hooks without a stamp cannot be told apart there.
    compiled: Any = numba.njit(bound, nogil=True, cache=None not in stamps)
    return cast("Callable[..., ReadRanges]", compiled)


def _stamp(hook: Any) -> tuple[Any, ...] | None:
    """What changes when a function does; None if that cannot be told."""
    path = inspect.getsourcefile(hook)
    if path is None or not os.path.exists(path) or hook.__closure__ is not None:
        return None
    stat = os.stat(path)
    code = hashlib.sha256(marshal.dumps(hook.__code__)).hexdigest()
    return hook.__module__, hook.__qualname__, code, stat.st_mtime_ns, stat.st_size
