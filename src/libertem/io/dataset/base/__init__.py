"""Contract of data sets and the machinery that they share. Start here to support a new format."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from libertem.exceptions import DataSetException
from libertem.io.dataset.base.backends.buffered import BufferedBackend
from libertem.io.dataset.base.backends.contract import IOBackend
from libertem.io.dataset.base.backends.direct import DirectBackend
from libertem.io.dataset.base.backends.mmap import MMapBackend
from libertem.io.dataset.base.coordinates import _roi_to_nd_indices, get_coordinates
from libertem.io.dataset.base.dataset import DataSet, WritableDataSet
from libertem.io.dataset.base.decode import Decoder, DtypeConversionDecoder
from libertem.io.dataset.base.files import File, FileSet, FileTree
from libertem.io.dataset.base.meta import DataSetMeta, PartitionStructure
from libertem.io.dataset.base.negotiation import Negotiator
from libertem.io.dataset.base.packing import PackedDecoder, Packing
from libertem.io.dataset.base.partition import BasePartition, Partition, WritablePartition
from libertem.io.dataset.base.ranges import default_get_read_ranges
from libertem.io.dataset.base.scheme import TilingScheme
from libertem.io.dataset.base.tile import DataTile

if TYPE_CHECKING:
    from libertem.io.dataset.base.decode import decode_swap_2, decode_swap_4, decode_swap_8
    from libertem.io.dataset.base.range_hooks import make_get_read_ranges

__all__ = [
    "BasePartition",
    "BufferedBackend",
    "DataSet",
    "DataSetException",
    "DataSetMeta",
    "DataTile",
    "Decoder",
    "DirectBackend",
    "DtypeConversionDecoder",
    "File",
    "FileSet",
    "FileTree",
    "IOBackend",
    "MMapBackend",
    "Negotiator",
    "PackedDecoder",
    "Packing",
    "Partition",
    "PartitionStructure",
    "TilingScheme",
    "WritableDataSet",
    "WritablePartition",
    "_roi_to_nd_indices",
    "decode_swap_2",
    "decode_swap_4",
    "decode_swap_8",
    "default_get_read_ranges",
    "get_coordinates",
    "make_get_read_ranges",
]

# Compiled functions: numba, which they load, takes a third of a second.
_COMPILED = {
    "decode_swap_2": "decode",
    "decode_swap_4": "decode",
    "decode_swap_8": "decode",
    "make_get_read_ranges": "range_hooks",
}


def __getattr__(name: str) -> Any:
    if name in _COMPILED:
        return getattr(import_module(f"{__name__}.{_COMPILED[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_COMPILED})
