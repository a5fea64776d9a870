"""Face: corrections of plain arrays at their historic path."""

from libertem.io.corrections.detector import (
    CorrectError,
    RepairDescriptor,
    RepairValueError,
    correct,
    correct_dot_masks,
    environments,
)

__all__ = [
    "CorrectError",
    "RepairDescriptor",
    "RepairValueError",
    "correct",
    "correct_dot_masks",
    "environments",
]
