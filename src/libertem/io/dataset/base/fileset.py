"""Face: `FileSet` at its historic path."""

from libertem.io.dataset.base.files import FileSet

__all__ = ["FileSet"]
