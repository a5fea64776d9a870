"""Face: tiles and read ranges at their historic path."""

from typing import TYPE_CHECKING, Any

from libertem.io.dataset.base.ranges import default_get_read_ranges
from libertem.io.dataset.base.tile import DataTile

if TYPE_CHECKING:
    from libertem.io.dataset.base.range_hooks import make_get_read_ranges

__all__ = ["DataTile", "default_get_read_ranges", "make_get_read_ranges"]


def __getattr__(name: str) -> Any:
    if name != "make_get_read_ranges":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from libertem.io.dataset.base.range_hooks import make_get_read_ranges  # loads numba

    return make_get_read_ranges
