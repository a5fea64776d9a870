"""Run tasks on a Dask cluster: on this machine, or on many."""

from libertem.executor.dask.cluster import cluster_spec
from libertem.executor.dask.executor import DaskJobExecutor

__all__ = ["DaskJobExecutor", "cluster_spec"]
