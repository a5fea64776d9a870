"""Face: the contract of I/O backends at its historic path."""

from libertem.io.dataset.base.backends.contract import IOBackend, IOBackendImpl

__all__ = ["IOBackend", "IOBackendImpl"]
