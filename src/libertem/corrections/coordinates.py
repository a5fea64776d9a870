"""Face: coordinate transformations of `libertem.common.transforms` at their historic path."""

from libertem.common.transforms import (
    flip_x,
    flip_y,
    identity,
    rotate,
    rotate_deg,
    scale,
    scale_rotate_flip_y,
)

__all__ = ["flip_x", "flip_y", "identity", "rotate", "rotate_deg", "scale", "scale_rotate_flip_y"]
