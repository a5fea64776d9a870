"""Correct plain arrays of frames, or the masks that are going to be multiplied with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from libertem.common.arrays import is_sparse, to_dense, to_sparse
from libertem.common.math import prod
from libertem.io.corrections.repair import (
    RepairDescriptor,
    RepairValueError,
    as_coordinates,
    environments,
)
from libertem.io.corrections.tile import Maps, check_dtype, correct_tile

if TYPE_CHECKING:
    import scipy.sparse as sp

__all__ = [
    "CorrectError",
    "RepairDescriptor",
    "RepairValueError",
    "correct",
    "correct_dot_masks",
    "environments",
]


class CorrectError(Exception):
    """The memory layout of an array does not allow correcting it."""


def correct(
    buffer: npt.NDArray[Any],
    dark_image: npt.ArrayLike | None = None,
    gain_map: npt.ArrayLike | None = None,
    excluded_pixels: npt.ArrayLike | None = None,
    repair_descriptor: RepairDescriptor | None = None,
    inplace: bool = False,
    sig_shape: Sequence[int] | None = None,
    allow_empty: bool = False,
) -> npt.NDArray[Any]:
    """Subtract a dark frame, multiply by a gain map and replace excluded pixels by their neighbours' mean.

    Parameters
    ----------
    buffer : array
        Frames of shape ``(*nav, *sig)``, C-contiguous.
    dark_image, gain_map : array-like, optional
        Of shape ``sig``.
    excluded_pixels : array-like of int, optional
        Coordinates of shape ``(sig_dims, n)``.
    repair_descriptor : RepairDescriptor, optional
        Instead of `excluded_pixels`, to spare the search for neighbours.
    inplace : bool
        Overwrite `buffer`, which has to be float or complex, and return it. Otherwise a copy is returned
        with the common dtype of float32 and `buffer`.
    sig_shape : sequence of int, optional
        Needed if neither `gain_map` nor `dark_image` is given, ignored otherwise.
    allow_empty : bool
        Accept excluded pixels without a usable neighbour. They keep their corrected value.

    Raises
    ------
    ValueError
        If shapes do not fit each other; its subclass `RepairValueError` for pixels that cannot be repaired.
    TypeError
        If the dtype does not allow correcting in place.
    CorrectError
        If `buffer` is not C-contiguous.
    """
    if repair_descriptor is not None and excluded_pixels is not None:
        raise ValueError("give either repair_descriptor or excluded_pixels, not both")
    dark = None if dark_image is None else np.asarray(dark_image)
    gain = None if gain_map is None else np.asarray(gain_map)
    sig = _find_sig_shape(dark, gain, sig_shape)
    if not inplace:
        buffer = np.array(buffer, dtype=np.result_type(np.float32, np.asarray(buffer).dtype))
    check_dtype(buffer.dtype)
    if not buffer.flags.c_contiguous:
        raise CorrectError("For in-place operation, the buffer given must be C-contiguous")
    if excluded_pixels is not None:
        repair_descriptor = RepairDescriptor(sig, excluded_pixels, allow_empty)
    sig_of_others = {
        "buffer": buffer.shape[max(0, buffer.ndim - len(sig)) :],
        "dark_image": sig if dark is None else dark.shape,
        "repair_descriptor": sig if repair_descriptor is None else repair_descriptor.sig_shape,
    }
    for name, found in sig_of_others.items():
        if found != sig:
            raise ValueError(f"{name} has signal shape {found}, expected {sig}")
    correct_tile(np.asarray(buffer), len(sig), Maps.for_dtype(dark, gain, buffer.dtype), repair_descriptor)
    return buffer


def _find_sig_shape(
    dark: npt.NDArray[Any] | None, gain: npt.NDArray[Any] | None, sig_shape: Sequence[int] | None
) -> tuple[int, ...]:
    for array in (gain, dark):
        if array is not None:
            return array.shape
    if sig_shape is None:
        raise ValueError("need either `dark_image`, `gain_map`, or `sig_shape`")
    return tuple(int(extent) for extent in sig_shape)


def correct_dot_masks(
    masks: Any,
    gain_map: npt.ArrayLike | None,
    excluded_pixels: npt.ArrayLike | None = None,
    allow_empty: bool = False,
) -> Any:
    """Change masks so that their dot products with raw frames equal those with corrected frames.

    The mask value of each excluded pixel is spread evenly over the neighbours that would replace it,
    then all values are multiplied by the gain map. A dark frame adds a constant that is left to the caller.

    Parameters
    ----------
    masks : array
        Of shape ``(*stack, *sig)``, dense or sparse.
    gain_map : array-like or None
        Of shape ``sig``. None stands for ones; the first axis of `masks` is then the stack.
    excluded_pixels : array-like of int, optional
        Coordinates of shape ``(sig_dims, n)``.
    allow_empty : bool
        Accept excluded pixels without a usable neighbour. They keep their value.

    Returns
    -------
    array
        Of the shape of `masks`, at least float32; `sparse.COO` for sparse masks.
    """
    gain = np.ones(masks.shape[1:], np.float32) if gain_map is None else np.asarray(gain_map)
    sig = gain.shape
    if masks.shape[len(masks.shape) - len(sig) :] != sig:
        raise ValueError(f"masks of shape {masks.shape} do not fit a gain map of shape {sig}")
    coordinates = as_coordinates(() if excluded_pixels is None else excluded_pixels, sig)
    # A pixel that is listed twice must not be spread twice.
    descriptor = RepairDescriptor(sig, np.unique(coordinates, axis=1), allow_empty)
    dtype = np.result_type(masks.dtype, gain.dtype, np.float32)
    # As a matrix, one column per pixel of the frame. Sums are taken in double precision.
    stack_shape = (prod(masks.shape) // gain.size, gain.size)
    moves = _moves(descriptor, gain.reshape(-1))
    if is_sparse(masks):
        stack = to_sparse(masks)
        if stack.fill_value == 0:
            product = (stack.reshape(stack_shape).to_scipy_sparse().tocsr() @ moves).astype(dtype)
            return to_sparse(product).reshape(masks.shape)
    dense = to_dense(masks).reshape(stack_shape) @ moves
    return dense.astype(dtype).reshape(masks.shape)


def _moves(descriptor: RepairDescriptor, gain: npt.NDArray[Any]) -> sp.csr_array[Any]:
    """The matrix, pixels by pixels, that multiplies flat masks from the right to correct them."""
    import scipy.sparse as sp

    counts = descriptor.repair_counts
    is_used = np.arange(descriptor.repair_flat.shape[1]) < counts[:, np.newaxis]
    numbers = np.repeat(np.arange(counts.size), counts)
    stays = np.setdiff1d(np.arange(gain.size), descriptor.exclude_flat[counts > 0])
    source = np.concatenate((stays, descriptor.exclude_flat[numbers]))
    target = np.concatenate((stays, descriptor.repair_flat[is_used]))
    share = np.concatenate((np.ones(stays.size), 1 / counts[numbers]))
    return sp.csr_array((share * gain[target], (source, target)), shape=(gain.size, gain.size))
