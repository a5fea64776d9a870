"""Face: `CorrectionSet` at its historic path."""

from libertem.io.corrections.corrset import CorrectionSet

__all__ = ["CorrectionSet"]
