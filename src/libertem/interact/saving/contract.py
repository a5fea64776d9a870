"""What is to be written, and what the writer of a format has to do."""

from __future__ import annotations

import dataclasses
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from libertem.common.new_file import complete_or_nothing
from libertem.io.dataset.base.metadata import Axis

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["FRAME", "Box", "Output", "Put", "Writer", "in_usual_unit"]

Box = tuple[slice, ...]
"""A part of the scan: one slice per navigation axis, with start and stop."""

Put = Callable[["Box", "npt.NDArray[Any]"], None]
"""Stores the frames of a box, ``(*box, *sig)``."""

FRAME = 1
"""Boxes may be cut after each frame."""

_USUAL = {"m": (1e9, "nm"), "1/m": (1e-9, "1/nm"), "rad": (1e3, "mrad")}
"""Units that programs of microscopists show, with the factor to get there from SI."""


def in_usual_unit(axis: Axis) -> tuple[float, float, str]:
    """Step, offset and unit of an axis as microscopists write them; elements if it is not calibrated."""
    factor, unit = _USUAL.get(axis.unit, (1.0, axis.unit))
    return axis.step * factor, axis.offset * factor, unit


@dataclass(frozen=True)
class Output:
    """An array that is to be written, and what is known about it."""

    title: str
    """Name of the file without its extension."""
    nav_shape: tuple[int, ...]
    sig_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    """In native byte order."""
    axes: tuple[Axis, ...]
    """One per axis of `shape`, with different names."""
    metadata: Mapping[str, Any]
    """JSON-compatible: what is known about the experiment, in SI."""
    header: Mapping[str, Any]
    """JSON-compatible: the header of the original file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self.nav_shape + self.sig_shape

    @property
    def frame_bytes(self) -> int:
        """Of one frame."""
        return math.prod(self.sig_shape) * self.dtype.itemsize

    @property
    def n_bytes(self) -> int:
        """Of all pixels."""
        return math.prod(self.shape) * self.dtype.itemsize

    def description(self) -> dict[str, Any]:
        """Axes and metadata as JSON-compatible data, for formats that have no place for them."""
        axes = [dataclasses.asdict(axis) for axis in self.axes]
        return {"axes": axes, "metadata": dict(self.metadata), "header": dict(self.header)}

    def as_json(self, *parts: str) -> dict[str, str]:
        """Parts of the description as texts."""
        everything = self.description()
        return {part: json.dumps(everything[part], ensure_ascii=False) for part in parts}


class Writer(ABC):
    """Writes one format.

    Parameters
    ----------
    output : Output
        What will be written.
    **options
        What the user may choose; a writer names those that it knows.

    Raises
    ------
    ValueError
        If the format cannot hold it.
    ImportError
        If a package is missing; says how to install it.
    """

    options: ClassVar[tuple[str, ...]] = ()
    """Names of options that users may give."""

    def __init__(self, output: Output, **options: Any) -> None:
        self.output = output

    @property
    def granularity(self) -> tuple[int, ...]:
        """Boxes should begin at multiples of this, one number per navigation axis."""
        return (FRAME,) * len(self.output.nav_shape)

    @property
    def min_bytes(self) -> int:
        """Space that will be needed at least; it is checked before anything is written."""
        return self.output.n_bytes

    @contextmanager
    def new_target(self, target: str, *, overwrite: bool) -> Iterator[str]:
        """Path to write to; it gets its final name when the context ends without error."""
        with complete_or_nothing(target, self.min_bytes, overwrite=overwrite) as path:
            yield path

    @abstractmethod
    def open(self, path: str) -> Any:
        """Context manager that yields a `Put`; the file is complete when it ends."""
