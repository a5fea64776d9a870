"""Clusters of similar frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from libertem.analysis import ClusterAnalysis
from libertem.api import Context
from libertem.io.dataset.base.dataset import DataSet

Array = np.ndarray[Any, Any]
Load = Callable[..., DataSet]

PHASES = np.array([[1, 1, 1, 2, 2], [1, 1, 1, 2, 2], [1, 1, 3, 3, 2], [1, 1, 3, 3, 2]])


def patterns() -> Array:
    """Frames of three crystals, which differ in the direction of their reflections, with noise."""
    y, x = np.mgrid[:32, :32]
    frames = []
    for phase in PHASES.flat:
        angle = {1: 0.3, 2: 1.4, 3: 2.5}[int(phase)]
        spots = np.zeros((32, 32))
        for sign in (1, -1):
            cy, cx = 16 + sign * 10 * np.sin(angle), 16 + sign * 10 * np.cos(angle)
            spots += 40 * ((y - cy) ** 2 + (x - cx) ** 2 <= 4)
        frames.append(spots + 2)
    rng = np.random.default_rng(3)
    data: Array = rng.poisson(np.reshape(frames, (*PHASES.shape, 32, 32))).astype("u2")
    return data


def test_crystals_are_told_apart_and_numbered_by_size(ctx: Context, load: Load) -> None:
    (result,) = ctx.run(ClusterAnalysis(load(patterns()), {"n_clust": 3, "ri": 4}))
    assert result.key == "intensity"
    assert result.raw_data.tolist() == PHASES.tolist()


def test_only_measured_positions_are_clustered(ctx: Context, load: Load) -> None:
    roi = PHASES != 1
    results = ctx.run(ClusterAnalysis(load(patterns()), {"n_clust": 2, "ri": 4}), roi=roi)
    assert results.intensity.raw_data.tolist() == np.where(roi, PHASES - 1, 0).tolist()
    nothing = ctx.run(ClusterAnalysis(load(patterns()), {}), roi=np.zeros(PHASES.shape, dtype=bool))
    assert not nothing.intensity.raw_data.any()


def test_equal_frames_are_one_cluster(ctx: Context, load: Load) -> None:
    data = np.ones((3, 4, 16, 16), dtype="f4")
    assert ctx.run(ClusterAnalysis(load(data), {})).intensity.raw_data.tolist() == [[1] * 4] * 3


def test_the_cells_cover_the_ring_once(ctx: Context, load: Load) -> None:
    analysis = ClusterAnalysis(load(patterns()), {"cx": 15.3, "cy": 17, "ri": 3, "ro": 11})
    cells = analysis.get_mask_factory()()
    assert cells.shape == (4 * 16, 32, 32)
    y, x = np.mgrid[:32, :32]
    distance = np.hypot(y - 17, x - 15.3)
    assert cells.sum(axis=0).tolist() == ((distance >= 3) & (distance < 11)).astype(int).tolist()


def test_what_makes_no_sense_is_refused(load: Load) -> None:
    for name in ("n_clust", "n_rings", "n_sectors"):
        with pytest.raises(ValueError, match=f"{name} has to be at least 1, found 0"):
            ClusterAnalysis(load(patterns()), {name: 0})
    with pytest.raises(ValueError, match="real numbers, found complex64"):
        ClusterAnalysis(load(patterns().astype("c8")), {})
