"""Face: buffered reading at its historic path."""

from libertem.io.dataset.base.backends.buffered import (
    BufferedBackend,
    BufferedBackendImpl,
    BufferedFile,
    DirectBufferedFile,
)

__all__ = ["BufferedBackend", "BufferedBackendImpl", "BufferedFile", "DirectBufferedFile"]
