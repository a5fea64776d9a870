"""I/O backends: memory map, buffered and direct reading."""

# The order of registration is documented: users see it in lists of backends.
from libertem.io.dataset.base.backends.mmap import MMapBackend  # isort: skip
from libertem.io.dataset.base.backends.buffered import BufferedBackend  # isort: skip
from libertem.io.dataset.base.backends.direct import DirectBackend  # isort: skip

__all__ = ["BufferedBackend", "DirectBackend", "MMapBackend"]
