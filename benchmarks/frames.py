"""What the inputs show: a bright disc that wanders from frame to frame, and noise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Frames"]

SLAB_BYTES = 16 << 20
SEED = 20_260_101
USED_BITS = 7  # noise, disc and what tells slabs apart stay below 128
MAX_NOISE = 8


class Frames(Sequence[npt.NDArray[Any]]):
    """Any number of frames, each made when it is asked for.

    Parameters
    ----------
    sig_shape : (int, int)
        (height, width) of a frame.
    dtype : str
        With byte order.
    n_frames : int
        How many.
    bits : int
        Values are below ``2**bits``.
    """

    def __init__(self, sig_shape: tuple[int, int], dtype: str, n_frames: int, bits: int) -> None:
        self.sig_shape = sig_shape
        self.dtype = np.dtype(dtype)
        self._n_frames = n_frames
        self._shift = max(0, USED_BITS - bits)

    def __len__(self) -> int:
        return self._n_frames

    def __getitem__(self, number: Any) -> Any:
        # Iterating over a sequence ends with this error.
        if not 0 <= number < len(self):
            raise IndexError(f"found number {number}, expected 0 to {len(self) - 1}")
        return self.slab(number, number + 1)[0]

    def slab(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Some frames in a row."""
        numbers = np.arange(start, stop)
        turns = numbers // len(self._pool)
        frames = self._pool[(numbers - turns) % len(self._pool)]
        # No two slabs are equal.
        frames += (turns % 7).astype(np.uint16)[:, np.newaxis, np.newaxis]
        values: npt.NDArray[Any] = (frames >> self._shift).astype(self.dtype)
        return values

    def slabs(self, nbytes: int = SLAB_BYTES) -> Iterator[npt.NDArray[Any]]:
        """All frames, about so many bytes of 16 bit pixels at a time."""
        depth = self._depth(nbytes)
        for start in range(0, len(self), depth):
            yield self.slab(start, min(start + depth, len(self)))

    def noise(self, n_frames: int) -> npt.NDArray[np.uint16]:
        """Frames without the disc, as a camera gives them in the dark."""
        rng = np.random.default_rng(SEED)
        return rng.integers(0, MAX_NOISE, size=(n_frames, *self.sig_shape), dtype=np.uint16)

    def _depth(self, nbytes: int) -> int:
        return max(1, min(len(self), nbytes // (2 * math.prod(self.sig_shape))))

    @cached_property
    def _pool(self) -> npt.NDArray[np.uint16]:
        height, width = self.sig_shape
        n_frames = self._depth(SLAB_BYTES)
        frames = self.noise(n_frames)
        y, x = np.ogrid[:height, :width]
        shifts = np.random.default_rng(SEED + 1).uniform(-0.1, 0.1, size=(n_frames, 2))
        for frame, (dy, dx) in zip(frames, shifts, strict=True):
            distance = np.hypot(y / height - 0.5 - dy, x / width - 0.5 - dx)
            frame[distance < 0.25] += np.uint16(100)
        return frames
