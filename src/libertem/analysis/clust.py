"""Group scan positions whose frames look alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.analysis.base import AnalysisResultSet, BaseAnalysis, need_dims
from libertem.analysis.masks import given
from libertem.analysis.views import map_result
from libertem.masks import polar_map
from libertem.udf.masks import ApplyMasksUDF

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.udf.results import UDFResultDict

__all__ = ["ClusterAnalysis"]

DEFAULT_CLUSTERS = 5
DEFAULT_RINGS = 4
DEFAULT_SECTORS = 16

SEED = 0
"""Of the random numbers that pick the first cluster centres: the same data gives the same result."""


class ClusterAnalysis(BaseAnalysis):
    """Sort scan positions into clusters of similar frames.

    Frames are compared by what falls into each cell of a polar grid: `n_rings` rings of `n_sectors` sectors.
    The square roots of the counts, which have the same noise everywhere, are clustered with k-means. The
    result is called ``intensity``: numbers from 1 for the largest cluster, and 0 where nothing was measured.

    Parameters
    ----------
    dataset : DataSet
        With two signal dimensions, and real pixels.
    parameters : dict
        ``n_clust``: number of clusters, by default 5. ``cx``, ``cy``: centre of the grid, by default that of
        the frame. ``ri``, ``ro``: inner and outer radius, by default 0 and half of the shorter side.
        ``n_rings``, ``n_sectors``: by default 4 and 16.
    """

    def get_parameters(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """With defaults."""
        need_dims(self.dataset, sig=2)
        if np.dtype(self.dataset.dtype).kind == "c":
            raise ValueError(f"ClusterAnalysis needs real numbers, found {self.dataset.dtype}")
        height, width = self.dataset.shape.sig
        found = {
            "n_clust": int(given(parameters, "n_clust", DEFAULT_CLUSTERS)),
            "cx": given(parameters, "cx", width / 2),
            "cy": given(parameters, "cy", height / 2),
            "ri": given(parameters, "ri", 0),
            "ro": given(parameters, "ro", min(height, width) / 2),
            "n_rings": int(given(parameters, "n_rings", DEFAULT_RINGS)),
            "n_sectors": int(given(parameters, "n_sectors", DEFAULT_SECTORS)),
        }
        for name in ("n_clust", "n_rings", "n_sectors"):
            if found[name] < 1:
                raise ValueError(f"{name} has to be at least 1, found {found[name]}")
        return found

    def get_mask_factory(self) -> Callable[[], npt.NDArray[np.bool_]]:
        """Function that draws the cells. Travels to workers."""
        p = self.parameters
        height, width = self.dataset.shape.sig
        radii = np.linspace(p["ri"], p["ro"], p["n_rings"] + 1)
        return partial(_polar_cells, (p["cx"], p["cy"], width, height), radii, p["n_sectors"])

    def get_udf(self) -> ApplyMasksUDF:
        """Add up each cell."""
        return ApplyMasksUDF(
            mask_factories=self.get_mask_factory(),
            use_sparse=False,
            mask_count=self.parameters["n_rings"] * self.parameters["n_sectors"],
            mask_dtype=np.float32,
        )

    def get_udf_results(self, udf_results: UDFResultDict, roi: Any, damage: Any) -> AnalysisResultSet:
        """One map."""
        cells = udf_results["intensity"].data
        measured = np.isfinite(cells).all(axis=-1)
        clusters = np.zeros(measured.shape, dtype=np.int64)
        clusters[measured] = _cluster(np.sqrt(np.maximum(cells[measured], 0)), self.parameters["n_clust"])
        return AnalysisResultSet(
            [map_result(clusters, "intensity", "intensity", "clusters of similar frames", damage)]
        )


def _polar_cells(
    image: tuple[float, float, int, int], radii: npt.NDArray[np.float64], n_sectors: int
) -> npt.NDArray[np.bool_]:
    """Masks ``(rings · sectors, height, width)`` that do not overlap."""
    radius, angle = polar_map(*image)
    sector = np.floor((angle / (2 * np.pi) % 1) * n_sectors).astype(np.int64) % n_sectors
    cells = np.zeros((len(radii) - 1, n_sectors, *radius.shape), dtype=bool)
    for cell, inner, outer in zip(cells, radii[:-1], radii[1:], strict=True):
        cell[:] = (sector == np.arange(n_sectors)[:, np.newaxis, np.newaxis]) & (
            (radius >= inner) & (radius < outer)
        )
    return cells.reshape((-1, *radius.shape))


def _cluster(features: npt.NDArray[Any], n_clusters: int) -> npt.NDArray[np.int64]:
    """Number from 1 of the cluster that each row belongs to; the largest cluster comes first."""
    from scipy.cluster.vq import kmeans2

    distinct = len(np.unique(features, axis=0))
    if distinct == 0:
        return np.zeros(0, dtype=np.int64)
    rng = np.random.default_rng(SEED)
    # Rows that are equal cannot be told apart.
    _, labels = kmeans2(features.astype(np.float64), min(n_clusters, distinct), minit="++", seed=rng)
    _, numbers, counts = np.unique(labels, return_inverse=True, return_counts=True)
    rank = np.empty(len(counts), dtype=np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(1, len(counts) + 1)
    return rank[numbers.reshape(-1)]
