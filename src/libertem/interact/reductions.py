"""Sums, means and virtual detectors: ``ds.sum()``, ``ds.mean("sig")``, ``ds.virtual_image(radius=10)``."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.arrays import is_sparse
from libertem.masks import circular, ring
from libertem.udf.masks import ApplyMasksUDF
from libertem.udf.roi import as_roi
from libertem.udf.sum import SumUDF
from libertem.udf.sumsigudf import SumSigUDF

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.common.shape import Shape
    from libertem.io.dataset.base.dataset import DataSet

__all__ = ["reduce", "virtual_image"]

DEFAULT_RADIUS = 0.15
"""Of the shorter side of a frame, as in `libertem.analysis.disk`."""


def reduce(ctx: Any, dataset: DataSet, over: str, *, mean: bool, roi: Any, progress: Any) -> npt.NDArray[Any]:
    """Sum or mean, see `libertem.io.dataset.base.interactive.UsableDirectly.sum`."""
    if over not in ("nav", "sig"):
        raise ValueError(
            f"what to add up over: found {over!r}, expected 'nav' (the scan, which gives a frame) "
            "or 'sig' (the detector, which gives an image of the scan)"
        )
    mask = as_roi(roi, dataset.shape)
    udf = SumUDF() if over == "nav" else SumSigUDF()
    total: npt.NDArray[Any] = ctx.run_udf(dataset=dataset, udf=udf, roi=mask, progress=progress)[
        "intensity"
    ].data
    if not mean:
        return total
    if over == "sig":
        n = math.prod(dataset.shape.sig)
    else:
        n = math.prod(dataset.shape.nav) if mask is None else int(np.count_nonzero(mask))
    if n == 0:
        raise ValueError("the roi selects no scan position, of which there is no mean")
    # Divided in double precision: integers up to 2**53 are exact there.
    exact = np.result_type(total.dtype, np.float64)
    return (total.astype(exact) / n).astype(total.dtype)


def virtual_image(
    ctx: Any,
    dataset: DataSet,
    mask: Any,
    *,
    cy: float | None,
    cx: float | None,
    radius: float | None,
    radius_inner: float,
    roi: Any,
    progress: Any,
) -> npt.NDArray[Any]:
    """Virtual detector, see `libertem.io.dataset.base.interactive.UsableDirectly.virtual_image`."""
    if mask is None:
        factory = _geometric(dataset.shape, cy, cx, radius, radius_inner)
        dtype = np.dtype(np.float32)
    else:
        if any(value is not None for value in (cy, cx, radius)) or radius_inner != 0:
            raise ValueError(
                "a virtual detector is a mask, or a disk or ring: found a mask together with cy, cx, radius "
                "or radius_inner, expected one of both"
            )
        factory, dtype = _given(mask, dataset.shape)
    udf = ApplyMasksUDF(mask_factories=[factory], mask_count=1, mask_dtype=dtype)
    image: npt.NDArray[Any] = ctx.run_udf(dataset=dataset, udf=udf, roi=roi, progress=progress)[
        "intensity"
    ].data
    return image[..., 0]


def _geometric(
    shape: Shape, cy: float | None, cx: float | None, radius: float | None, radius_inner: float
) -> Callable[[], npt.NDArray[Any]]:
    """Function that makes a disk or ring."""
    sig_shape = shape.sig.to_tuple()
    if len(sig_shape) != 2:
        raise ValueError(
            f"disks and rings need frames with two axes: found frames of shape {sig_shape} "
            f"(pass a mask of that shape, for example np.ones({sig_shape}))"
        )
    height, width = sig_shape
    cy = height / 2 if cy is None else float(cy)
    cx = width / 2 if cx is None else float(cx)
    radius = min(height, width) * DEFAULT_RADIUS if radius is None else float(radius)
    radius_inner = float(radius_inner)
    if not all(math.isfinite(value) for value in (cy, cx)):
        raise ValueError(f"the centre of a virtual detector has to be finite: found cy={cy}, cx={cx}")
    if not 0 <= radius_inner < radius < math.inf:
        raise ValueError(
            f"radii of a virtual detector: found radius={radius}, radius_inner={radius_inner}, "
            "expected 0 <= radius_inner < radius (in pixels)"
        )
    if radius_inner:
        return partial(ring, cx, cy, width, height, radius, radius_inner)
    return partial(circular, cx, cy, width, height, radius)


def _given(mask: Any, shape: Shape) -> tuple[Callable[[], Any], np.dtype[Any]]:
    """Function that makes the mask of the user, and the precision to multiply in."""
    array = mask() if callable(mask) else mask
    if not is_sparse(array):
        array = np.asarray(array)
    sig_shape = shape.sig.to_tuple()
    if tuple(array.shape) != sig_shape:
        hint = "for several masks, use ApplyMasksUDF" if len(array.shape) > len(sig_shape) else ""
        if tuple(array.shape) == shape.nav.to_tuple():
            hint = "to select scan positions, use roi="
        raise ValueError(
            f"the mask has to have the shape of a frame: found {tuple(array.shape)}, expected {sig_shape}"
            + (f" ({hint})" if hint else "")
        )
    if array.dtype.kind not in "biufc":
        raise TypeError(f"the mask has to consist of numbers: found {array.dtype}")
    dtype = np.dtype(np.complex64 if array.dtype.kind == "c" else np.float32)
    return (mask if callable(mask) else partial(_same, array)), dtype


def _same(array: Any) -> Any:
    return array
