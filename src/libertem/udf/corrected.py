"""Corrections for compiled UDFs, which take frames as they are stored.

Correcting every pixel of every frame would cost more than most reductions. Instead:

* sums over frames are corrected once at the end of a partition; the sum of an excluded pixel is the mean of
  the sums of its neighbours;
* products with masks have the gain in the masks, and the weights of excluded pixels in those of their
  neighbours; the dark frame is subtracted in registers;
* sums of squared deviations are corrected at the end, too, but for excluded pixels: their values are computed
  for each frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.slice import Slice
from libertem.io.corrections.corrset import CorrectionSet
from libertem.udf.accumulate import as_numbers

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.common.shape import Shape
    from libertem.io.dataset.base.blocks import FrameBlock
    from libertem.udf.contract import UDF

__all__ = [
    "BlockCorrections",
    "CorrectedMasks",
    "ExcludedPixels",
    "block_corrections",
    "have_linear_form",
]

_EMPTY = np.empty(0, dtype=np.float64)


def have_linear_form(corrections: CorrectionSet | None) -> bool:
    """Whether compiled UDFs know how to correct: always, unless dark frame or gain map are complex."""
    if corrections is None:
        return True
    maps = (corrections.get_dark_frame(), corrections.get_gain_map())
    return all(array is None or array.dtype.kind in "biuf" for array in maps)


def block_corrections(udf: UDF) -> BlockCorrections | None:
    """Corrections of the run that a UDF takes part in; None if there are none. Made once per process."""
    corrections = udf.meta.corrections
    if corrections is None or not corrections.have_corrections():
        return None
    sig = udf.meta.dataset_shape.sig
    made: BlockCorrections = udf._shared.get("corrections", lambda: BlockCorrections.make(corrections, sig))
    return made


@dataclass(frozen=True)
class BlockCorrections:
    """Corrections in flat float64 arrays."""

    dark: npt.NDArray[np.float64]
    """One value per pixel, or empty."""
    gain: npt.NDArray[np.float64]
    """Likewise."""
    excluded: npt.NDArray[np.int64]
    """Flat indices, ascending."""
    neighbours: npt.NDArray[np.int64]
    """``(excluded, most)``, see `counts`. A pixel without usable neighbours stands in for itself."""
    counts: npt.NDArray[np.int64]
    """How many entries of each row of `neighbours` are valid; at least one."""

    @classmethod
    def make(cls, corrections: CorrectionSet, sig: Shape) -> BlockCorrections:
        """Convert a set of corrections.

        Raises
        ------
        ValueError
            If it does not have the signal shape.
        """
        maps = (corrections.get_dark_frame(), corrections.get_gain_map())
        for array in maps:
            if array is not None and array.shape != sig.to_tuple():
                raise ValueError(f"corrections of shape {array.shape} do not fit frames of shape {sig}")
        dark, gain = (
            _EMPTY if array is None else array.reshape(-1).astype(np.float64, copy=False) for array in maps
        )
        descriptor = corrections.repair_descriptor(Slice.from_shape(sig, sig_dims=sig.dims))
        if descriptor is None:
            none = np.empty(0, dtype=np.int64)
            return cls(dark, gain, none, np.empty((0, 1), dtype=np.int64), none)
        order = np.argsort(descriptor.exclude_flat)
        excluded, counts = descriptor.exclude_flat[order], descriptor.repair_counts[order].copy()
        neighbours = descriptor.repair_flat[order].copy()
        neighbours[counts == 0, 0] = excluded[counts == 0]
        counts[counts == 0] = 1
        return cls(dark, gain, excluded, neighbours, counts)

    def find_excluded(self, block: FrameBlock) -> slice:
        """Which of the excluded pixels are in a block."""
        low, high = np.searchsorted(self.excluded, [block.px_start, block.px_stop])
        return slice(int(low), int(high))

    def repaired(self, block: FrameBlock) -> npt.NDArray[np.float64]:
        """Values ``(frames, excluded)`` of the excluded pixels in a block."""
        from libertem.udf.kernels.repair import mean_of_neighbours

        inside = self.find_excluded(block)
        out = np.empty((block.n_frames, inside.stop - inside.start), dtype=np.float64)
        if out.size == 0:
            return out
        row = 0
        for run in block.runs:
            stop = row + run.starts.shape[0]
            mean_of_neighbours(
                as_numbers(run.buffer),
                run.starts,
                block.px_start,
                True if block.swapped else None,
                self.neighbours[inside],
                self.counts[inside],
                self.dark,
                self.gain,
                out[row:stop],
            )
            row = stop
        return out

    def correct_sums(self, sums: npt.NDArray[np.float64], n_frames: int) -> None:
        """Turn sums over frames as stored into sums over corrected frames; not for excluded pixels."""
        flat = sums.reshape(-1)
        if n_frames and self.dark.size:
            flat -= n_frames * self.dark
        if n_frames and self.gain.size:
            flat *= self.gain

    def repair_sums(self, sums: npt.NDArray[np.float64]) -> None:
        """Replace excluded pixels in corrected sums over frames: sums of means are means of sums."""
        flat = sums.reshape(-1)
        if self.excluded.size:
            valid = np.arange(self.neighbours.shape[1]) < self.counts[:, np.newaxis]
            flat[self.excluded] = np.where(valid, flat[self.neighbours], 0).sum(axis=1) / self.counts

    def left_out(self) -> npt.NDArray[np.int64]:
        """Excluded pixels whose own values do not count."""
        found: npt.NDArray[np.int64] = self.excluded[self.neighbours[:, 0] != self.excluded]
        return found

    def correct_masks(self, masks: npt.NDArray[Any], dtype: npt.DTypeLike) -> CorrectedMasks:
        """Masks ``(masks, pixels)`` that give the products of corrected frames; see `CorrectedMasks`."""
        weights = masks.astype(np.float64)
        shares = weights[:, self.excluded] / self.counts
        weights[:, self.excluded] = 0
        for k in range(self.neighbours.shape[1]):
            used = self.counts > k
            # Row by row, because a pixel may be the neighbour of several.
            for row, share in zip(weights, shares[:, used], strict=True):
                np.add.at(row, self.neighbours[used, k], share)
        if self.gain.size:
            weights *= self.gain
        dark, offsets = None, np.zeros(masks.shape[0])
        left_out = self.left_out()
        # Whatever stands there, it must not get into sums by way of 0 times infinity.
        weights[:, left_out] = 0
        if self.dark.size:
            exact = self.dark.copy()
            exact[left_out] = 0
            dark = exact.astype(dtype)
            # What rounding the dark frame leaves over is the same for all frames.
            rest = exact - dark
            rest[~np.isfinite(rest)] = 0
            if rest.any():
                offsets = weights @ rest
        return CorrectedMasks(weights.astype(dtype), dark, offsets, left_out)


@dataclass(frozen=True)
class CorrectedMasks:
    """Products of corrected frames are ``(frame - dark) @ weights - offsets``.

    What belongs to an excluded pixel is spread over the neighbours that replace it.
    """

    weights: npt.NDArray[Any]
    """``(masks, pixels)``."""
    dark: npt.NDArray[Any] | None
    """One value per pixel; None if there is no dark frame."""
    offsets: npt.NDArray[np.float64]
    """One value per mask."""
    left_out: npt.NDArray[np.int64]
    """Pixels of weight 0 that may hold anything, NaN included."""


class ExcludedPixels:
    """Sums over frames, and of squared deviations, of the values that replace excluded pixels.

    Parameters
    ----------
    corrections : BlockCorrections
        Of the run.
    """

    def __init__(self, corrections: BlockCorrections) -> None:
        n = corrections.excluded.size
        self.corrections = corrections
        self.n_frames = 0
        self.sums = np.zeros(n)
        self.varsums = np.zeros(n)
        self._seen = np.zeros(n)

    @classmethod
    def of(cls, udf: UDF) -> ExcludedPixels | None:
        """For the corrections of a run; None if there are none."""
        corrections = block_corrections(udf)
        return None if corrections is None else cls(corrections)

    def add(self, block: FrameBlock) -> None:
        """Count the frames of a block, and add the excluded pixels in it."""
        n = block.n_frames
        if block.px_start == 0:
            self.n_frames += n
        inside = self.corrections.find_excluded(block)
        if inside.stop == inside.start or n == 0:
            return
        values = self.corrections.repaired(block)
        sums = values.sum(axis=0)
        before = self._seen[inside]
        # Combined about the means of both parts, as for all other pixels.
        delta = sums / n - np.divide(self.sums[inside], before, out=np.zeros_like(sums), where=before > 0)
        self.varsums[inside] += ((values - sums / n) ** 2).sum(axis=0) + delta**2 * before * n / (before + n)
        self.sums[inside] += sums
        self._seen[inside] += n
