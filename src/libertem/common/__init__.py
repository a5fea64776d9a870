"""Shapes, slices, buffers and other small things that everything else is built from."""

from libertem.common.shape import Shape
from libertem.common.slice import Slice, SliceUsageError

__all__ = ["Shape", "Slice", "SliceUsageError"]
