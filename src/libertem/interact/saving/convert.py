"""Convert pixels to another dtype, and refuse those that do not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Misfit", "check_kinds", "convert"]


class Misfit(ValueError):
    """A value does not fit.

    Parameters
    ----------
    index : tuple of int
        Of the first one in the array.
    value : number
        As found.
    reason : str
        What is expected.
    """

    def __init__(self, index: tuple[int, ...], value: Any, reason: str) -> None:
        super().__init__(f"value at {index}: found {value}, expected {reason}")
        self.index = index
        self.value = value
        self.reason = reason


def check_kinds(source: np.dtype[Any], target: np.dtype[Any]) -> None:
    """Refuse conversions that make no sense whatever the values are.

    Raises
    ------
    ValueError
        If `target` holds no numbers, or real ones for complex data.
    """
    if target.kind not in "biufc" or target.itemsize > 16:
        raise ValueError(f"cannot save as {target}: expected a dtype of numbers")
    if source.kind == "c" and target.kind != "c":
        raise ValueError(
            f"cannot save complex pixels as {target}: their imaginary part would be lost "
            "(use a complex dtype, or compute the magnitude with a UDF)"
        )


def convert(pixels: npt.NDArray[Any], target: np.dtype[Any]) -> npt.NDArray[Any]:
    """Pixels in another dtype; floats may be rounded, everything else has to fit.

    Raises
    ------
    Misfit
        If a value is out of range, or is no integer where one is needed.
    """
    if pixels.dtype == target or np.can_cast(pixels.dtype, target, casting="safe"):
        return pixels.astype(target, copy=False)
    if target.kind == "b":
        _refuse(pixels, (pixels != 0) & (pixels != 1), "0 or 1")
        return pixels.astype(target)
    if target.kind in "iu":
        info = np.iinfo(target)
        if pixels.dtype == np.float16:
            # So that the bounds do not overflow.
            pixels = pixels.astype(np.float32)
        # Compared as Python integers or exact floats: no bound is rounded into the range.
        fits = _at_least(pixels, info.min) & _at_most(pixels, info.max)
        _refuse(pixels, ~fits, f"{info.min} to {info.max} for {target}")
        if pixels.dtype.kind == "f":
            _refuse(pixels, pixels != np.rint(pixels), f"integers for {target}")
        return pixels.astype(target)
    with np.errstate(over="ignore"):
        converted = pixels.astype(target)
    _refuse(pixels, np.isinf(converted) & np.isfinite(pixels), f"at most {np.finfo(target).max} for {target}")
    return converted


def _at_least(pixels: npt.NDArray[Any], bound: int) -> Any:
    if pixels.dtype.kind == "f":
        # Exact: the smallest integers are powers of two, or zero.
        return pixels >= float(bound)
    return pixels >= max(bound, int(np.iinfo(pixels.dtype).min))


def _at_most(pixels: npt.NDArray[Any], bound: int) -> Any:
    if pixels.dtype.kind == "f":
        # The number after the largest integer is a power of two.
        return pixels < float(bound + 1)
    return pixels <= min(bound, int(np.iinfo(pixels.dtype).max))


def _refuse(pixels: npt.NDArray[Any], wrong: npt.NDArray[Any], reason: str) -> None:
    if wrong.any():
        index = tuple(int(i) for i in np.unravel_index(int(wrong.argmax()), pixels.shape))
        raise Misfit(index, pixels[index], reason)
