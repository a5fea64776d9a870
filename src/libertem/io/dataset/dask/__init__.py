"""Dask arrays as a data set: partitions are blocks of the array, computed when they are read.

Nothing is stored, so there is no layout. Blocks of the array are only ever merged, never split, until each
of them holds whole frames that follow each other on the flat navigation axis:

1. blocks along signal axes are merged;
2. with ``preserve_dimensions=False``, navigation axes are sorted by their number of blocks, most first;
3. axes to the right of the first navigation axis with blocks longer than 1 are merged;
4. along the last axis that is still cut, the smallest blocks are merged with their smaller neighbours until
   all partitions have `min_size` bytes; then along the axis before it.
"""

from libertem.io.dataset.dask.chunks import merge_until_target
from libertem.io.dataset.dask.dataset import DaskDataSet, DaskDatasetParams
from libertem.io.dataset.dask.files import (
    DaskBackend,
    DaskBackendImpl,
    DaskFile,
    DaskFileSet,
    DaskPartition,
)

__all__ = [
    "DaskBackend",
    "DaskBackendImpl",
    "DaskDataSet",
    "DaskDatasetParams",
    "DaskFile",
    "DaskFileSet",
    "DaskPartition",
    "merge_until_target",
]
