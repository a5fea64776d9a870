"""Data sets as Dask arrays, for whoever wants to go on with Dask."""

from libertem.io.dataset.base.lazy import make_dask_array, to_dask

__all__ = ["make_dask_array", "to_dask"]
