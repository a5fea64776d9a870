"""Face: `File` at its historic path."""

from libertem.io.dataset.base.files import File, OffsetsSizes

__all__ = ["File", "OffsetsSizes"]
