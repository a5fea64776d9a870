"""Arrays in memory as a data set: for tests, and for small data.

Nothing is stored, so there is no layout: element ``k`` of the array in C order is pixel ``k % sig_px`` of
image ``k // sig_px``. Blank positions and `sync_offset` work as with files.
"""

from libertem.io.dataset.memory.dataset import MemDatasetParams, MemoryDataSet
from libertem.io.dataset.memory.images import MemoryFile
from libertem.io.dataset.memory.partition import MemBackend, MemBackendImpl, MemPartition

__all__ = [
    "MemBackend",
    "MemBackendImpl",
    "MemDatasetParams",
    "MemPartition",
    "MemoryDataSet",
    "MemoryFile",
]
