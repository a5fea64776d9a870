"""Face: names around UDFs at their historic path."""

from libertem.common.buffers import AuxBufferWrapper, BufferWrapper
from libertem.exceptions import UDFException, UDFRunCancelled
from libertem.io.dataset.base.tile import DataTile
from libertem.udf.backends import TileConverter, get_resources_for_backends
from libertem.udf.contract import (
    UDF,
    UDFFrameMixin,
    UDFMergeAllMixin,
    UDFPartitionMixin,
    UDFPostprocessMixin,
    UDFPreprocessMixin,
    UDFTileMixin,
)
from libertem.udf.data import MergeAttrMapping, UDFData, check_cast
from libertem.udf.meta import UDFMeta
from libertem.udf.noop import NoOpUDF
from libertem.udf.results import UDFResultDict, UDFResults
from libertem.udf.runner import UDFRunner
from libertem.udf.task import UDFParams, UDFTask

__all__ = [
    "UDF",
    "AuxBufferWrapper",
    "BufferWrapper",
    "DataTile",
    "MergeAttrMapping",
    "NoOpUDF",
    "TileConverter",
    "UDFData",
    "UDFException",
    "UDFFrameMixin",
    "UDFMergeAllMixin",
    "UDFMeta",
    "UDFParams",
    "UDFPartitionMixin",
    "UDFPostprocessMixin",
    "UDFPreprocessMixin",
    "UDFResultDict",
    "UDFResults",
    "UDFRunCancelled",
    "UDFRunner",
    "UDFTask",
    "UDFTileMixin",
    "check_cast",
    "get_resources_for_backends",
]
