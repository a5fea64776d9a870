"""Data sets as lazy arrays: ``ds.to_dask()``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.interact.crop import dtype_of
from libertem.io.dataset.base import lazy
from libertem.udf.roi import as_roi

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.dataset.base.dataset import DataSet

__all__ = ["to_dask"]


def to_dask(dataset: DataSet, *, dtype: npt.DTypeLike | None = None, roi: Any = None) -> Any:
    """Lazy array, see `libertem.io.dataset.base.interactive.UsableDirectly.to_dask`.

    Corrections that come with the data are applied: the array is what ``np.asarray(dataset)`` would be.
    """
    corrections = dataset.get_correction_data()
    wanted = dtype_of(dataset, corrections) if dtype is None else np.dtype(dtype)
    return lazy.to_dask(dataset, dtype=wanted, roi=as_roi(roi, dataset.shape), corrections=corrections)
