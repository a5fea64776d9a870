"""Detector corrections: dark frame, gain map, excluded pixels."""

from libertem.io.corrections.corrset import CorrectionSet

__all__ = ["CorrectionSet"]
