"""`Negotiator`: finds tiles that suit both the UDFs and the data set."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.math import prod
from libertem.common.protocols import CorrectionsProtocol, TilingSize, UDFMethod, UDFProtocol
from libertem.common.shape import Shape
from libertem.exceptions import UDFException
from libertem.io.dataset.base.scheme import TilingIntent, TilingScheme

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.dataset.base.dataset import DataSet

__all__ = ["Negotiator"]

DEFAULT_DEPTH = 32
BEST_FIT_BYTES = 2**20
"""Tiles that are decoded, or that a UDF wants to fit a cache, are this large."""


@dataclass(frozen=True)
class _Wish:
    """What the UDFs of a run want together."""

    depth: int
    size: int
    intent: TilingIntent


class Negotiator:
    """Tile shape negotiator."""

    def get_scheme(
        self,
        udfs: Sequence[UDFProtocol],
        dataset: DataSet,
        read_dtype: npt.DTypeLike,
        approx_partition_shape: Shape,
        roi: npt.NDArray[np.bool_] | None = None,
        corrections: CorrectionsProtocol | None = None,
    ) -> TilingScheme:
        """Find a tiling scheme for a run.

        Parameters
        ----------
        udfs : sequence of UDF
            All UDFs of the run; one scheme serves them all.
        dataset : DataSet
            Initialized data set.
        read_dtype : dtype
            In which the UDFs receive the data.
        approx_partition_shape : Shape
            Of a typical partition, with a flat navigation axis.
        roi : array of bool, optional
        corrections : CorrectionSet, optional

        Raises
        ------
        ValueError
            If no UDF is given, or the data set insists on an impossible tile shape.
        UDFException
            If a UDF names an unknown method.
        """
        itemsize = np.dtype(read_dtype).itemsize
        need_decode = dataset.need_decode(read_dtype, roi, corrections)
        if need_decode:
            io_max_size = dataset.get_max_io_size() or BEST_FIT_BYTES
        else:
            # Nothing is copied, so that tiles can be as large as the partition.
            io_max_size = itemsize * prod(approx_partition_shape)
        sig_shape = approx_partition_shape.sig.to_tuple()
        intent = self._get_intent(udfs)
        base = sig_shape if intent != "tile" else tuple(dataset.get_base_shape(roi)[1:])
        wish = self._combine(udfs, intent, approx_partition_shape, base, itemsize, io_max_size)
        size_px = wish.size // itemsize
        excluded = corrections is not None and corrections.have_corrections()
        if corrections is not None and excluded:
            base = corrections.adjust_tileshape(tile_shape=base, sig_shape=sig_shape, base_shape=base)
        if any(b > s for b, s in zip(base, sig_shape, strict=True)):
            raise ValueError(f"the base shape {base} of the data set is larger than a frame {sig_shape}")
        min_factors = self._signal_factors(base, sig_shape, dataset.get_min_sig_size())
        min_base = tuple(b * f for b, f in zip(base, min_factors, strict=True))
        depth = min(wish.depth, max(1, size_px // prod(min_base)))
        factors = self._tile_factors(base, approx_partition_shape, size_px, depth, min_factors)
        full_base = (1, *base)
        tileshape = tuple(b * f for b, f in zip(full_base, factors, strict=True))
        tileshape = self._ask_dataset(dataset, tileshape, roi, sig_shape, corrections)
        self.validate(tileshape, sig_shape, wish.size, io_max_size, itemsize, full_base, corrections)
        return TilingScheme.make_for_shape(
            tileshape=Shape(tileshape, sig_dims=len(sig_shape)),
            dataset_shape=dataset.shape,
            intent=intent,
            debug={
                "min_factors": [depth, *min_factors],
                "factors": factors,
                "tileshape": tileshape,
                "size": wish.size,
                "size_px": size_px,
                "full_base_shape": full_base,
                "need_decode": need_decode,
                "depth": depth,
            },
        )

    def _get_intent(self, udfs: Sequence[UDFProtocol]) -> TilingIntent:
        if not udfs:
            raise ValueError("empty list of UDFs - nothing to do!")
        methods = {udf.get_method() for udf in udfs}
        unknown = [m for m in methods if not isinstance(m, UDFMethod)]
        if unknown:
            raise UDFException(f"unknown UDF method {unknown[0]!r}, expected a member of UDFMethod")
        if UDFMethod.PARTITION in methods:
            return "partition"
        return "frame" if UDFMethod.FRAME in methods else "tile"

    def _get_udf_size_pref(self, udf: UDFProtocol) -> float:
        size: Any = udf.get_tiling_preferences().get("total_size", math.inf)
        if size is TilingSize.SIZE_BEST_FIT:
            return BEST_FIT_BYTES
        return float(size)

    def _get_udf_depth_pref(self, udf: UDFProtocol) -> float:
        depth: Any = udf.get_tiling_preferences().get("depth", TilingSize.DEPTH_DEFAULT)
        if depth is TilingSize.DEPTH_DEFAULT:
            return DEFAULT_DEPTH
        return float(depth)

    def _combine(
        self,
        udfs: Sequence[UDFProtocol],
        intent: TilingIntent,
        partition: Shape,
        base: tuple[int, ...],
        itemsize: int,
        io_max_size: int,
    ) -> _Wish:
        n_frames = partition[0]
        frame_bytes = itemsize * prod(partition.sig)
        depths, sizes = [], []
        for udf in udfs:
            method = udf.get_method()
            if method is UDFMethod.PARTITION:
                depths.append(n_frames)
                sizes.append(n_frames * frame_bytes)
            elif method is UDFMethod.FRAME:
                depths.append(1)
                sizes.append(max(BEST_FIT_BYTES, frame_bytes))
            else:
                depths.append(max(1, int(min(self._get_udf_depth_pref(udf), n_frames))))
                wanted = int(min(self._get_udf_size_pref(udf), io_max_size))
                sizes.append(max(wanted, itemsize * prod(base)))
        size = max(sizes) if intent == "partition" else min(sizes)
        return _Wish(depth=max(depths), size=size, intent=intent)

    def _signal_factors(self, base: tuple[int, ...], sig_shape: tuple[int, ...], min_px: int) -> list[int]:
        if _is_row(base, sig_shape):
            return _grow_from_last(base, sig_shape, min_px, [1] * len(base))
        return self._get_scale_factors(base, sig_shape, min_px)

    def _tile_factors(
        self,
        base: tuple[int, ...],
        partition: Shape,
        size_px: int,
        depth: int,
        min_factors: list[int],
    ) -> list[int]:
        full_base = (1, *base)
        sig_shape = partition.sig.to_tuple()
        if not _is_row(base, sig_shape):
            return self._get_scale_factors(full_base, partition, size_px, (depth, *min_factors))
        # Depth first, then the signal axes from last to first, so that tiles stay contiguous in a frame.
        px = prod(b * f for b, f in zip(base, min_factors, strict=True))
        deepest = max(1, partition[0])
        factor = min(max(int(max(1.0, size_px / (px * depth)) * depth), depth), deepest)
        return [factor, *_grow_from_last(base, sig_shape, size_px // factor, min_factors)]

    def _get_scale_factors(
        self,
        shape: Sequence[int],
        containing_shape: Sequence[int],
        size: int,
        min_factors: Sequence[int] | None = None,
    ) -> list[int]:
        """Multiply `shape` by whole factors, first axis first, up to `size` elements."""
        factors = [1] * len(tuple(shape)) if min_factors is None else [int(f) for f in min_factors]
        max_factors = [c // s for c, s in zip(containing_shape, shape, strict=True)]
        volume = prod(s * f for s, f in zip(shape, factors, strict=True))
        rest: float = max(1.0, size / volume)
        for i, most in enumerate(max_factors):
            factors[i] = min(max(math.floor(rest * factors[i]), factors[i]), most)
            volume = prod(s * f for s, f in zip(shape, factors, strict=True))
            rest = max(1, size // volume)
        return factors

    def _ask_dataset(
        self,
        dataset: DataSet,
        tileshape: tuple[int, ...],
        roi: Any,
        sig_shape: tuple[int, ...],
        corrections: CorrectionsProtocol | None,
    ) -> tuple[int, ...]:
        adjusted = tuple(int(extent) for extent in dataset.adjust_tileshape(tileshape, roi))
        for new, old, full in zip(adjusted[1:], tileshape[1:], sig_shape, strict=True):
            if new in (old, full):
                continue
            message = f"the data set changed the tile shape {tileshape} to {adjusted}"
            if corrections is not None and corrections.get_excluded_pixels() is not None:
                raise ValueError(f"{message}, which may separate excluded pixels from their neighbours")
            warnings.warn(message, UserWarning, stacklevel=3)
            break
        return adjusted

    def validate(
        self,
        shape: Sequence[int],
        ds_sig_shape: Sequence[int],
        size: int,
        io_max_size: int,
        itemsize: int,
        base_shape: Sequence[int],
        corrections: CorrectionsProtocol | None,
    ) -> None:
        """Check the result of a negotiation.

        Raises
        ------
        ValueError
            If the tile shape exceeds the frame or the size limit, or is not made of base shapes.
        """
        sig = tuple(shape)[1:]
        if any(extent > full for extent, full in zip(sig, ds_sig_shape, strict=True)):
            raise ValueError(f"The tileshape {tuple(shape)} is larger than a frame {tuple(ds_sig_shape)}")
        limit = max(size, io_max_size) // itemsize
        if prod(shape) > limit:
            message = f"shape {tuple(shape)} does not fit into size {limit} pixels"
            excluded = corrections is not None and corrections.get_excluded_pixels() is not None
            if not (excluded and shape[0] == 1):
                raise ValueError(message)
            warnings.warn(f"{message}, excluded pixels require it", UserWarning, stacklevel=3)
        fits = [shape[0] % base_shape[0] == 0] + [
            extent % base == 0 or extent == full
            for extent, base, full in zip(sig, tuple(base_shape)[1:], ds_sig_shape, strict=True)
        ]
        if not all(fits):
            raise ValueError(
                f"The tileshape {tuple(shape)} is incompatible with base shape {tuple(base_shape)}"
            )


def _is_row(base: tuple[int, ...], sig_shape: tuple[int, ...]) -> bool:
    """Whether `base` can grow from the last axis, which keeps tiles contiguous in a frame."""
    split = next((i for i, extent in enumerate(base) if extent != 1), len(base) - 1)
    return all(extent == full for extent, full in zip(base[split + 1 :], sig_shape[split + 1 :], strict=True))


def _grow_from_last(
    base: tuple[int, ...], sig_shape: tuple[int, ...], size: int, min_factors: Sequence[int]
) -> list[int]:
    """Multiply `base` by whole factors, last axis first, an axis only if all later ones are full."""
    factors = list(min_factors)
    for axis in range(len(base) - 1, -1, -1):
        rest = max(1, size // prod(b * f for b, f in zip(base, factors, strict=True)))
        factors[axis] = min(rest * factors[axis], sig_shape[axis] // base[axis])
        if base[axis] * factors[axis] < sig_shape[axis]:
            break
    return factors
