"""Face: `MaskContainer` at its historic path."""

from libertem.masks.container import MaskContainer

__all__ = ["MaskContainer"]
