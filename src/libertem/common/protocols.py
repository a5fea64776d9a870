"""Roles that low modules need to name although they are played by classes higher up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, TypeVar

import numpy as np

from libertem.common.shape import Shape
from libertem.common.slice import Slice

if TYPE_CHECKING:
    import numpy.typing as npt

T = TypeVar("T")

__all__ = [
    "CorrectionsProtocol",
    "DataSetProtocol",
    "ExecutorProtocol",
    "PartitionProtocol",
    "TilingPreferences",
    "TilingSize",
    "UDFMethod",
    "UDFProtocol",
]


class UDFMethod(Enum):
    """Which method of a UDF receives the data."""

    TILE = "tile"
    FRAME = "frame"
    PARTITION = "partition"


class TilingSize(Enum):
    """Symbolic values in `TilingPreferences`."""

    DEPTH_DEFAULT = "depth default"
    SIZE_BEST_FIT = "size best fit"


class TilingPreferences(TypedDict, total=False):
    """What a UDF wishes for its tiles."""

    depth: Any
    """Wanted minimum number of frames; may be infinite."""
    total_size: Any
    """Upper bound in bytes; may be infinite."""


class UDFProtocol(Protocol):
    """What the negotiation of tile shapes asks a UDF."""

    def get_method(self) -> UDFMethod:
        """Which method of the UDF receives the data."""
        ...

    def get_tiling_preferences(self) -> TilingPreferences:
        """Wishes for the shape of tiles."""
        ...


class CorrectionsProtocol(Protocol):
    """Detector corrections."""

    def have_corrections(self) -> bool:
        """Whether there is anything to apply."""
        ...

    def get_excluded_pixels(self) -> Any:
        """Mask of excluded pixels, or None."""
        ...

    def apply(self, data: npt.NDArray[Any], tile_slice: Slice) -> None:
        """Correct a tile in place."""
        ...

    def adjust_tileshape(
        self, tile_shape: tuple[int, ...], sig_shape: tuple[int, ...], base_shape: tuple[int, ...]
    ) -> tuple[int, ...]:
        """Nearest signal tile shape that allows excluded pixels to be repaired."""
        ...


class PartitionProtocol(Protocol):
    """A contiguous run of frames."""

    @property
    def slice(self) -> Slice:
        """Place on the flat navigation axis."""
        ...

    @property
    def shape(self) -> Shape:
        """Shape with a flat navigation axis."""
        ...

    def get_frame_count(self, roi: Any = None) -> int:
        """Number of selected frames."""
        ...

    def set_idx(self, idx: int) -> None:
        """Tell the partition its number."""
        ...

    def get_ident(self) -> str:
        """Name of the partition."""
        ...


class DataSetProtocol(Protocol):
    """A data set, as far as the floors below need to know."""

    @property
    def shape(self) -> Shape:
        """Shape as the user sees it."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Native dtype."""
        ...

    def get_partitions(self) -> Iterator[Any]:
        """All partitions in order."""
        ...


class ExecutorProtocol(Protocol):
    """What a data set needs of an executor: a way to run code where the files are."""

    def run_function(self, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a function on any worker and return its value."""
        ...


class TaskProtocol(Protocol):
    """One unit of work of a run; see `libertem.executor.base` for how it is called."""

    idx: int

    def get_partition(self) -> Any:
        """The partition that the task processes."""
        ...

    def get_resources(self) -> Mapping[str, int]:
        """Resources that a worker has to offer."""
        ...

    def __call__(self, params: Any, env: Any) -> Any:
        """Do the work and return the result."""
        ...
