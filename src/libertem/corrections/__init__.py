"""Face: detector corrections and coordinate transformations at their historic paths."""

from libertem.io.corrections.corrset import CorrectionSet

__all__ = ["CorrectionSet"]
