"""Antialiased rings, and the sparse entries that stacks of masks are made from."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["StackEntries", "bounding_radius", "distances", "radial_bins", "single_ring", "squared_distance"]

# A stack of rings is made sparse if its widest ring covers less than this part of the image.
SPARSE_BELOW = 0.1


def distances(
    centerX: float, centerY: float, imageSizeX: int, imageSizeY: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """(dy, dx) from the centre, shaped so that they broadcast to the image."""
    return np.arange(imageSizeY)[:, np.newaxis] - centerY, np.arange(imageSizeX)[np.newaxis, :] - centerX


def squared_distance(centerX: float, centerY: float, imageSizeX: int, imageSizeY: int) -> npt.NDArray[Any]:
    """Square of the distance of each pixel from the centre."""
    dy, dx = distances(centerX, centerY, imageSizeX, imageSizeY)
    return np.asarray(dy * dy + dx * dx)


def bounding_radius(centerX: float, centerY: float, imageSizeX: int, imageSizeY: int) -> int:
    """An integer radius at which a disk around the centre covers the whole image."""
    y = max(centerY, imageSizeY - centerY)
    x = max(centerX, imageSizeX - centerX)
    return math.ceil(math.sqrt(y * y + x * x)) + 1


class _Bins(NamedTuple):
    """`n_bins` rings of equal `width` that begin at `inner`."""

    inner: float
    width: float
    n_bins: int

    def values(self, idx: npt.NDArray[Any], distance: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Part of a pixel at `distance` that belongs to ring number `idx`."""
        centre = self.inner + (idx + 0.5) * self.width
        return np.clip(self.width / 2 + 0.5 - np.abs(distance - centre), 0, 1)

    def candidates(self, distance: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int64], int]:
        """Number of the first ring that can touch each pixel, and how many from there on can.

        Visiting all rings for all pixels would take seconds for a large image.
        """
        n_candidates = self.n_bins
        if self.width > 0:
            n_candidates = min(self.n_bins, int(1 / self.width) + 3)
        if n_candidates == self.n_bins:
            return np.zeros(distance.shape, dtype=np.int64), self.n_bins
        first = np.floor((distance - self.inner - 0.5) / self.width) - 1
        return first.astype(np.int64), n_candidates


class StackEntries(NamedTuple):
    """The pixels of a stack of masks that are not 0."""

    mask: npt.NDArray[np.int64]
    y: npt.NDArray[np.int64]
    x: npt.NDArray[np.int64]
    value: npt.NDArray[Any]

    def to_dense(self, shape: tuple[int, int, int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """NumPy array; entries have to be at different places."""
        result = np.zeros(shape, dtype=dtype)
        result[self.mask, self.y, self.x] = self.value.astype(dtype)
        return result

    def to_coo(self, shape: tuple[int, int, int], dtype: npt.DTypeLike) -> Any:
        """`sparse.COO` in which entries at the same place are added."""
        import sparse

        coords = np.stack([self.mask, self.y, self.x])
        coo = sparse.COO(coords, self.value.astype(dtype), shape=shape, prune=True)
        # Adding widens small integers.
        return coo if coo.dtype == np.dtype(dtype) else coo.astype(dtype)


def _bin_entries(distance: npt.NDArray[np.float64], bins: _Bins) -> StackEntries:
    first, n_candidates = bins.candidates(distance)
    found: list[tuple[npt.NDArray[Any], ...]] = []
    for k in range(n_candidates):
        idx = first + k
        values = bins.values(idx, distance)
        y, x = np.nonzero((values > 0) & (idx >= 0) & (idx < bins.n_bins))
        found.append((idx[y, x], y, x, values[y, x]))
    return StackEntries(*(np.concatenate(part) for part in zip(*found, strict=True)))


def _normalized(entries: StackEntries, n_bins: int) -> StackEntries:
    sums = np.bincount(entries.mask, weights=entries.value, minlength=n_bins)
    sums[np.isclose(sums, 0)] = 1
    return entries._replace(value=entries.value / sums[entries.mask])


def _with_centre(entries: StackEntries, y: int, x: int, value: float) -> StackEntries:
    """Set one pixel of the first bin."""
    others = (entries.mask != 0) | (entries.y != y) | (entries.x != x)
    centre = (0, y, x, value)
    return StackEntries(*(np.append(part[others], new) for part, new in zip(entries, centre, strict=True)))


def radial_bins(
    centerX: float,
    centerY: float,
    imageSizeX: int,
    imageSizeY: int,
    radius: float | None = None,
    radius_inner: float = 0,
    n_bins: int | None = None,
    normalize: bool = False,
    use_sparse: bool | None = None,
    dtype: npt.DTypeLike | None = None,
) -> Any:
    """A stack of antialiased rings of equal width: multiplied with a frame, it gives a radial profile.

    Parameters
    ----------
    centerX, centerY, imageSizeX, imageSizeY
        See `libertem.masks`.
    radius : float, optional
        Outer radius of the last ring; by default the `bounding_radius`.
    radius_inner : float, optional
        Inner radius of the first ring. Below 0.5, the pixel at the centre is set to ``1 - radius_inner``
        in the first ring, also after normalization.
    n_bins : int, optional
        Number of rings; by default each is about one pixel wide.
    normalize : bool, optional
        Divide each ring by its sum.
    use_sparse : bool, optional
        Return `sparse.COO` instead of a NumPy array; by default if the rings cover little of the image.
    dtype : numpy.dtype, optional
        dtype of the result, float64 by default.

    Returns
    -------
    numpy.ndarray or sparse.COO
        Shape ``(n_bins, imageSizeY, imageSizeX)``. Neighbouring rings overlap so that they sum to 1.

    Raises
    ------
    ValueError
        If `n_bins` is smaller than 1.
    """
    if radius is None:
        radius = bounding_radius(centerX, centerY, imageSizeX, imageSizeY)
    if n_bins is None:
        n_bins = max(1, round(radius - radius_inner))
    if n_bins < 1:
        raise ValueError(f"n_bins has to be at least 1, found {n_bins}")
    bins = _Bins(radius_inner, (radius - radius_inner) / n_bins, n_bins)
    if use_sparse is None:
        widest = math.pi * (radius**2 - (radius - bins.width) ** 2)
        use_sparse = widest < SPARSE_BELOW * imageSizeX * imageSizeY
    entries = _bin_entries(np.sqrt(squared_distance(centerX, centerY, imageSizeX, imageSizeY)), bins)
    if normalize:
        entries = _normalized(entries, n_bins)
    y, x = round(centerY), round(centerX)
    if radius_inner < 0.5 and 0 <= y < imageSizeY and 0 <= x < imageSizeX:
        entries = _with_centre(entries, y, x, 1 - radius_inner)
    shape = (n_bins, int(imageSizeY), int(imageSizeX))
    dtype = np.float64 if dtype is None else dtype
    return entries.to_coo(shape, dtype) if use_sparse else entries.to_dense(shape, dtype)


def single_ring(
    centerX: float, centerY: float, imageSizeX: int, imageSizeY: int, radius: float, radius_inner: float
) -> npt.NDArray[np.float64]:
    """An antialiased ring, or a disk if `radius_inner` is 0."""
    stack = radial_bins(
        centerX, centerY, imageSizeX, imageSizeY, radius, radius_inner, n_bins=1, use_sparse=False
    )
    return cast("npt.NDArray[np.float64]", stack[0])
