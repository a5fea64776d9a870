"""Correct tiles in place, whatever their strides."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from libertem.common.math import prod

if TYPE_CHECKING:
    from libertem.io.corrections.repair import RepairDescriptor

__all__ = ["Maps", "check_dtype", "correct_tile"]

Pixels = npt.NDArray[Any]
_Index = npt.NDArray[np.int64]

_DTYPES = tuple(np.dtype(code) for code in ("f4", "f8", "c8", "c16"))

# 16 KiB of float32: data, dark and gain of a run stay in the first-level cache.
_RUN_PX = 4096

# Pixels are repaired before the frames around them leave the second-level cache again. Larger frames
# are not worth it: both maps would have to be fetched from memory for each of them.
_BLOCK_BYTES = 1 << 19


def check_dtype(dtype: np.dtype[Any]) -> None:
    """Raise TypeError unless pixels of this dtype, in any byte order, can be corrected in place."""
    if dtype.newbyteorder("=") not in _DTYPES:
        raise TypeError(
            "In-place correction only supported for floating point data."
            f" Found {dtype}, expected float32, float64, complex64 or complex128"
        )


@dataclass(frozen=True)
class Maps:
    """Dark frame and gain map in the dtype that the corrections of some data are evaluated in."""

    dark: Pixels | None
    """Subtracted, or None."""

    gain: Pixels | None
    """Multiplied, or None."""

    dtype: np.dtype[Any]
    """Of both."""

    @classmethod
    def for_dtype(cls, dark: Pixels | None, gain: Pixels | None, dtype: np.dtype[Any]) -> Maps:
        """Convert both to the common dtype of themselves and of data of the given dtype.

        Raises
        ------
        TypeError
            If that is complex and the data are not.
        """
        given = [array.dtype for array in (dark, gain) if array is not None]
        common = np.result_type(dtype, *given)
        if common.kind == "c" and dtype.kind != "c":
            raise TypeError(f"complex dark frames or gain maps cannot correct data of dtype {dtype}")
        if common not in _DTYPES:
            # Only long doubles get here, which no compiled kernel knows.
            common = np.dtype("c16" if common.kind == "c" else "f8")
        return cls(
            dark=None if dark is None else dark.astype(common, copy=False),
            gain=None if gain is None else gain.astype(common, copy=False),
            dtype=common,
        )

    def crop(self, sig_index: tuple[slice, ...]) -> Maps:
        """The part of both that belongs to a part of the frame."""
        return Maps(
            dark=None if self.dark is None else self.dark[sig_index],
            gain=None if self.gain is None else self.gain[sig_index],
            dtype=self.dtype,
        )

    def flat(self) -> tuple[Pixels, Pixels]:
        """Both as one-dimensional C-contiguous arrays, empty for None."""
        missing = np.empty(0, dtype=self.dtype)
        dark, gain = (missing if array is None else array.reshape(-1) for array in (self.dark, self.gain))
        return np.ascontiguousarray(dark), np.ascontiguousarray(gain)


@dataclass(frozen=True)
class _Layout:
    """Where the pixels of a tile lie in a flat view of its memory. Starts and steps count elements."""

    span: int
    """Elements from the first to the last pixel."""

    frame_starts: _Index
    """First element of each frame."""

    sig_shape: tuple[int, ...]
    """Extents of one frame of the tile."""

    sig_steps: tuple[int, ...] | None
    """Distance of neighbours along each signal axis. None if each frame is one block in C order."""

    run_starts: _Index
    """First element of each run of evenly spaced pixels, relative to the frame's first one."""

    run_bounds: _Index
    """Number, in C order within the frame, of each run's first pixel; and the number of pixels."""

    run_step: int
    """Distance of the pixels of a run."""

    def flatten(self, tile: Pixels) -> Pixels:
        """View the memory of a tile of this layout as one-dimensional array."""
        if tile.flags.c_contiguous:
            return tile.reshape(-1)
        return np.lib.stride_tricks.as_strided(tile, shape=(self.span,), strides=(tile.itemsize,))

    def locate(self, sig_index: _Index) -> _Index:
        """Turn flat C-order indices within a frame into offsets from the frame's first element."""
        if self.sig_steps is None:
            return sig_index
        located = np.zeros_like(sig_index)
        for index, step in zip(np.unravel_index(sig_index, self.sig_shape), self.sig_steps, strict=True):
            located += index * step
        return located


# Tiles of a run share a few shapes, and describing one takes longer than correcting a small one.
@lru_cache(maxsize=64)
def _describe(
    shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int, sig_dims: int
) -> _Layout | None:
    """Describe how a tile lies in memory, or None if a flat view of elements cannot express it."""
    # A stride along an axis of extent 1 may have any value.
    strides = tuple(0 if extent == 1 else stride for extent, stride in zip(shape, strides, strict=True))
    if any(stride < 0 or stride % itemsize for stride in strides):
        return None
    steps = tuple(stride // itemsize for stride in strides)
    nav_dims = len(shape) - sig_dims
    sig_shape, sig_steps = shape[nav_dims:], steps[nav_dims:]
    n_px = prod(sig_shape)
    is_block = all(
        extent == 1 or step == prod(sig_shape[axis + 1 :])
        for axis, (extent, step) in enumerate(zip(sig_shape, sig_steps, strict=True))
    )
    if is_block:
        run_starts = np.arange(0, n_px, _RUN_PX, dtype=np.int64)
        run_bounds = np.append(run_starts, n_px)
    else:
        run_starts = _offsets(sig_shape[:-1], sig_steps[:-1])
        run_bounds = np.arange(run_starts.size + 1, dtype=np.int64) * sig_shape[-1]
    return _Layout(
        span=1 + sum((extent - 1) * step for extent, step in zip(shape, steps, strict=True)),
        frame_starts=_offsets(shape[:nav_dims], steps[:nav_dims]),
        sig_shape=sig_shape,
        sig_steps=None if is_block else sig_steps,
        run_starts=run_starts,
        run_bounds=run_bounds,
        run_step=1 if is_block else sig_steps[-1],
    )


def _offsets(shape: tuple[int, ...], steps: tuple[int, ...]) -> _Index:
    """Offsets of all positions of a grid in C order."""
    offsets = np.zeros(1, dtype=np.int64)
    for extent, step in zip(shape, steps, strict=True):
        offsets = np.add.outer(offsets, np.arange(extent, dtype=np.int64) * step).reshape(-1)
    return offsets


def correct_tile(tile: Pixels, sig_dims: int, maps: Maps, descriptor: RepairDescriptor | None) -> None:
    """Subtract dark, multiply by gain, repair: in place, on all frames of a tile.

    Parameters
    ----------
    tile : array
        Any navigation axes, then the signal axes. Its dtype passes `check_dtype`.
    sig_dims : int
        Number of signal axes.
    maps : Maps
        Made for the dtype of `tile` and cropped to its part of the signal.
    descriptor : RepairDescriptor or None
        Made for the same part of the signal.

    Raises
    ------
    ValueError
        If the tile is read-only.
    """
    if not tile.flags.writeable:
        raise ValueError("cannot correct a read-only array in place: hand in a copy")
    if tile.size == 0:
        return
    if descriptor is not None and descriptor.exclude_flat.size == 0:
        descriptor = None
    layout = None
    if tile.flags.aligned and tile.dtype.isnative:
        layout = _describe(tile.shape, tile.strides, tile.itemsize, sig_dims)
    if layout is None:
        _correct_through_scratch(tile, sig_dims, maps, descriptor)
    else:
        _correct_flat(layout.flatten(tile), layout, maps, descriptor)


def _correct_flat(flat: Pixels, layout: _Layout, maps: Maps, descriptor: RepairDescriptor | None) -> None:
    # Here, because it loads numba.
    from libertem.io.corrections import kernels

    have_maps = maps.dark is not None or maps.gain is not None
    dark, gain = maps.flat()
    # Real and imaginary part have their own mean: NaN or infinity in one leaves the other alone.
    parts = 2 if flat.dtype.kind == "c" else 1
    components = flat.view(flat.real.dtype)
    if descriptor is not None:
        excluded, neighbours = layout.locate(descriptor.exclude_flat), layout.locate(descriptor.repair_flat)
    depth = len(layout.frame_starts)
    block_frames = _BLOCK_BYTES // (flat.itemsize * prod(layout.sig_shape))
    if have_maps and descriptor is not None and block_frames > 1:
        depth = block_frames
    for first in range(0, len(layout.frame_starts), depth):
        frames = layout.frame_starts[first : first + depth]
        if have_maps:
            kernels.dark_and_gain(
                flat, frames, layout.run_starts, layout.run_bounds, layout.run_step, dark, gain
            )
        if descriptor is not None:
            kernels.repair(components, parts, frames, excluded, neighbours, descriptor.repair_counts)


def _correct_through_scratch(
    tile: Pixels, sig_dims: int, maps: Maps, descriptor: RepairDescriptor | None
) -> None:
    """Correct a tile in an unusual layout, one copied frame at a time."""
    nav_shape = tile.shape[: tile.ndim - sig_dims]
    scratch = np.empty(tile.shape[len(nav_shape) :], dtype=tile.dtype.newbyteorder("="))
    for position in np.ndindex(nav_shape):
        scratch[...] = tile[position]
        correct_tile(scratch, sig_dims, maps, descriptor)
        tile[position] = scratch
