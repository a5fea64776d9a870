"""Decoders: from the bytes of a read range to pixels of a tile."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from libertem.exceptions import DataSetException

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.kernels.swap import decode_swap_2, decode_swap_4, decode_swap_8

__all__ = [
    "Decode",
    "Decoder",
    "DtypeConversionDecoder",
    "decode_swap_2",
    "decode_swap_4",
    "decode_swap_8",
    "default_decode",
]

Decode: TypeAlias = Callable[..., None]
"""``decode(inp, out, idx, native_dtype, rr, origin, shape, ds_shape)``, see `Decoder`."""


def default_decode(
    inp: npt.NDArray[np.uint8],
    out: npt.NDArray[Any],
    idx: int,
    native_dtype: npt.DTypeLike,
    rr: Any,
    origin: Any,
    shape: Any,
    ds_shape: Any,
) -> None:
    """Convert plain pixels as `numpy.ndarray.astype` does, byte order included.

    A read range may hold a whole row of `out`, or one of several equal pieces of it.
    """
    pixels = inp.view(native_dtype)
    pieces = out.shape[1] // pixels.shape[0]
    row, piece = divmod(idx, pieces)
    start = piece * pixels.shape[0]
    out[row, start : start + pixels.shape[0]] = pixels


class Decoder:
    """Translates stored pixels; a data set with an encoding of its own supplies a subclass."""

    def do_clear(self) -> bool:
        """Whether `out` has to be zero before the first read range of a tile is decoded."""
        return False

    def get_native_dtype(self, inp_native_dtype: npt.DTypeLike, read_dtype: npt.DTypeLike) -> npt.DTypeLike:
        """Dtype that the decode function receives as `native_dtype`."""
        return inp_native_dtype

    def get_decode(self, native_dtype: npt.DTypeLike, read_dtype: npt.DTypeLike) -> Decode:
        """The decode function.

        It is called for each read range as ``decode(inp, out, idx, native_dtype, rr, origin, shape,
        ds_shape)`` and has to write into `out`:

        * `inp` : 1D uint8, the bytes of the range
        * `out` : 2D ``(tile depth, pixels of the slice)`` in read dtype
        * `idx` : which range of the tile
        * `rr` : the row of the read ranges, additional entries included
        * `origin`, `shape` : int64 arrays, the tile slice
        * `ds_shape` : int64 array, shape of the data set
        """
        raise NotImplementedError


class DtypeConversionDecoder(Decoder):
    """Plain pixels: conversion of dtype and byte order, nothing else."""

    def _need_byteswap(self, native_dtype: npt.DTypeLike, read_dtype: npt.DTypeLike) -> bool:
        native = np.dtype(native_dtype)
        return native.itemsize > 1 and native.isnative != np.dtype(read_dtype).isnative

    def get_decode(self, native_dtype: npt.DTypeLike, read_dtype: npt.DTypeLike) -> Decode:
        """`default_decode`, for all dtypes that can be converted without losing the imaginary part."""
        check_conversion(native_dtype, read_dtype)
        return default_decode


def check_conversion(native_dtype: npt.DTypeLike, read_dtype: npt.DTypeLike) -> None:
    """Refuse what `astype` would do only with loss of meaning.

    Raises
    ------
    DataSetException
        For complex pixels that should become real ones.
    """
    native, read = np.dtype(native_dtype), np.dtype(read_dtype)
    if native.kind == "c" and read.kind != "c":
        raise DataSetException(
            "complex data cannot be read as real numbers",
            found=native,
            expected="a complex dtype to read into",
            hint="use a complex preferred input dtype",
        )


def __getattr__(name: str) -> Any:
    if name not in ("decode_swap_2", "decode_swap_4", "decode_swap_8"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from libertem.io.kernels import swap  # loads numba

    return getattr(swap, name)
