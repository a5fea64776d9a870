"""The kernel of fluctuations against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from libertem.udf.kernels.spread import spread

SEGMENTS = np.array([[2, 5], [9, 10], [14, 20]])


def twin(frames: Any, segments: Any) -> tuple[Any, Any]:
    """Sums, and sums of squared deviations, of some pixels."""
    parts = np.concatenate([frames[:, start:stop] for start, stop in segments], axis=1).astype("f8")
    return parts.sum(axis=1), ((parts - parts.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)


@pytest.mark.parametrize(
    ("dtype", "swapped"),
    [
        *((dtype, None) for dtype in ("u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8")),
        *((dtype, True) for dtype in ("u1", "u2", "i2", "u4", "i4")),
    ],
)
def test_the_kernel_agrees_with_numpy(dtype: str, swapped: bool | None) -> None:
    pixels = np.random.default_rng(1).integers(0, 100, 200).astype(dtype)
    starts = np.array([150, 3, 60])
    memory = pixels.byteswap() if swapped else pixels
    sums, varsums = np.zeros(3), np.zeros(3)
    spread(memory, starts, SEGMENTS, swapped, 0, sums, varsums)
    expected = twin(np.stack([pixels[start : start + 20] for start in starts]), SEGMENTS)
    np.testing.assert_allclose([sums, varsums], expected, rtol=1e-12)


def test_parts_of_a_frame_are_combined() -> None:
    pixels = 1e6 + np.random.default_rng(2).random(100)
    starts = np.array([0, 50])
    sums, varsums = np.zeros(2), np.zeros(2)
    n_px = 0
    for part in (SEGMENTS[:1], SEGMENTS[:0], SEGMENTS[1:]):
        spread(pixels, starts, part, None, n_px, sums, varsums)
        n_px += int(np.diff(part).sum())
    expected = twin(pixels.reshape((2, 50)), SEGMENTS)
    np.testing.assert_allclose([sums, varsums], expected, rtol=1e-9)
