"""Face: direct I/O at its historic path."""

from libertem.io.dataset.base.backends.direct import DirectBackend

__all__ = ["DirectBackend"]
