"""Face: memory-mapped reading at its historic path."""

from libertem.io.dataset.base.backends.mmap import MMapBackend, MMapBackendImpl, MMapFile, MMapFileBase

__all__ = ["MMapBackend", "MMapBackendImpl", "MMapFile", "MMapFileBase"]
