"""Face: `FileTree` at its historic path."""

from libertem.io.dataset.base.files import FileTree

__all__ = ["FileTree"]
