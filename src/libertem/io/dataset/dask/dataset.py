"""The data set of a Dask array."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.math import prod
from libertem.common.messageconverter import MessageConverter
from libertem.common.shape import Shape
from libertem.common.slice import Slice
from libertem.exceptions import DataSetException, ShapeError, UnsupportedBackendError
from libertem.io.dataset.base.backends.contract import IOBackend
from libertem.io.dataset.base.dataset import DataSet
from libertem.io.dataset.base.meta import DataSetMeta
from libertem.io.dataset.dask.chunks import adapt_array
from libertem.io.dataset.dask.files import DaskBackend, DaskFile, DaskFileSet, DaskPartition, LazyChunk

if TYPE_CHECKING:
    from libertem.common.protocols import ExecutorProtocol

__all__ = ["DaskDataSet", "DaskDatasetParams"]

DEFAULT_MIN_SIZE = 128 << 20
"""Bytes of a partition: computing many small ones costs more than it gains."""


class DaskDatasetParams(MessageConverter):
    """JSON parameters of Dask arrays; the array itself cannot be described."""

    SCHEMA = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": "http://libertem.org/DaskDatasetParams.schema.json",
        "title": "DaskDatasetParams",
        "type": "object",
        "properties": {
            "type": {"const": "DASK"},
            "sig_dims": {"type": "number", "minimum": 1},
            "preserve_dimensions": {"type": "boolean"},
            "min_size": {"type": "number", "minimum": 0},
        },
        "required": ["type"],
    }

    def convert_to_python(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments for `DaskDataSet`."""
        return {name: raw[name] for name in ("sig_dims", "preserve_dimensions", "min_size") if name in raw}

    def convert_from_python(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """The reverse, without the array."""
        names = ("sig_dims", "preserve_dimensions", "min_size")
        return {"type": "DASK", **{name: raw[name] for name in names if raw.get(name) is not None}}


class DaskDataSet(DataSet):
    """Use a Dask array as a data set.

    Each partition is computed, in threads of the worker, when it is read. Chunks are merged until they hold
    whole frames that follow each other, and are not too small; they are never split. Best are arrays
    that are chunked along the first navigation axis only, and whose chunks can be computed one by one.

    Parameters
    ----------
    dask_array : dask.array.Array
        Shape and chunks have to be known.
    sig_dims : int
        How many axes, counted from the end, belong to the signal.
    preserve_dimensions : bool
        False allows to sort the navigation axes, those with most chunks first, so that fewer have to be
        merged. The shape of the data set, and of results, changes accordingly.
    min_size : float, optional
        Minimum size of partitions in bytes; 128 MiB by default. 0 keeps chunks that are contiguous, infinity
        makes one partition.
    io_backend
        Not supported.

    Raises
    ------
    DataSetException
        If the array cannot be used.

    Examples
    --------
    >>> import dask.array as da
    >>> from libertem.api import Context
    >>> ctx = Context.make_with("inline")
    >>> d_arr = da.ones((4, 4, 64, 64), chunks=(2, -1, -1, -1))
    >>> ctx.load("dask", dask_array=d_arr, sig_dims=2, min_size=0)
    <DaskDataSet of float64 shape=(4, 4, 64, 64), n_blocks=[2, 1, 1, 1]>
    """

    def __init__(
        self,
        dask_array: Any,
        *,
        sig_dims: int,
        preserve_dimensions: bool = True,
        min_size: float | None = None,
        io_backend: IOBackend | None = None,
    ) -> None:
        super().__init__()
        if io_backend is not None:
            raise UnsupportedBackendError("DaskDataSet currently doesn't support alternative I/O backends")
        self._sig_dims = check_array(dask_array, sig_dims)
        self._min_size: float = DEFAULT_MIN_SIZE if min_size is None else min_size
        if not self._min_size >= 0:
            raise ValueError(f"min_size has to be a number of bytes, found {min_size!r}")
        self.array = dask_array
        self._preserve_dimensions = preserve_dimensions
        self._chunks: list[LazyChunk] | None = None

    def initialize(self, executor: ExecutorProtocol) -> DaskDataSet:
        """Adapt the chunks of the array. Nothing is computed."""
        self.array = adapt_array(
            self.array,
            self._sig_dims,
            preserve_dimensions=self._preserve_dimensions,
            min_size=self._min_size,
        )
        shape = Shape(tuple(int(extent) for extent in self.array.shape), sig_dims=self._sig_dims)
        self._image_count = self._nav_shape_product = shape.nav.size
        self._sync_offset_info = self.get_sync_offset_info()
        self._meta = DataSetMeta(shape=shape, raw_dtype=self.array.dtype, image_count=self._image_count)
        return self

    def _initialized(self) -> DataSetMeta:
        if self._meta is None:
            raise RuntimeError("DaskDataSet is not initialized, use Context.load")
        return self._meta

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the array."""
        dtype: np.dtype[Any] = np.dtype(self.array.dtype)
        return dtype

    @property
    def shape(self) -> Shape:
        """Shape of the array, whose navigation axes may have been sorted."""
        return self._initialized().shape

    def check_valid(self) -> bool:
        """Check the array again. What its chunks hold turns out when they are computed."""
        check_array(self.array, self._sig_dims)
        return True

    @classmethod
    def get_supported_io_backends(cls) -> list[str]:
        """None: there are no files."""
        return []

    def get_io_backend(self) -> DaskBackend:
        """Stands for the way to read."""
        return DaskBackend()

    def get_num_partitions(self) -> int:
        """One per chunk of the adapted array."""
        return prod(self.array.numblocks)

    # The documented order of items differs from that of other data sets.
    def get_slices(self) -> Iterator[tuple[tuple[slice, ...], Slice, int, int]]:  # type: ignore[override]
        """Index of the array, place, first image and image after the last one, for each partition."""
        shape = self.shape
        sig = shape.sig.to_tuple()
        edges = [np.cumsum((0, *c)).tolist() for c in self.array.chunks]
        stop = 0
        for parts in itertools.product(*(itertools.pairwise(edge) for edge in edges)):
            index = tuple(slice(low, high) for low, high in parts)
            start, stop = stop, stop + prod(s.stop - s.start for s in index[: shape.nav.dims])
            place = Slice(
                origin=(start, *(0 for _ in sig)),
                shape=Shape((stop - start, *sig), sig_dims=len(sig)),
            )
            yield index, place, start, stop

    def _lazy_chunks(self) -> list[LazyChunk]:
        """All chunks in C order. They share one graph, made once."""
        if self._chunks is None:
            import dask

            typed: Any = dask
            (array,) = typed.optimize(self.array)
            graph = dict(array.__dask_graph__())
            shapes = itertools.product(*self.array.chunks)
            self._chunks = [
                LazyChunk(graph, (array.name, *index), shape, self.dtype)
                for index, shape in zip(np.ndindex(*self.array.numblocks), shapes, strict=True)
            ]
        return self._chunks

    def get_partitions(self) -> Iterator[DaskPartition]:
        """All partitions in order."""
        meta = self._initialized()
        sig = meta.shape.sig.to_tuple()
        for chunk, (_, place, start, stop) in zip(self._lazy_chunks(), self.get_slices(), strict=True):
            yield DaskPartition(
                meta=meta,
                partition_slice=place,
                fileset=DaskFileSet([DaskFile(chunk, start, stop, self.dtype, sig)]),
                start_frame=start,
                num_frames=stop - start,
                io_backend=self.get_io_backend(),
            )

    @classmethod
    def get_msg_converter(cls) -> type[DaskDatasetParams]:
        """Converter of JSON parameters."""
        return DaskDatasetParams

    def __repr__(self) -> str:
        return (
            f"<DaskDataSet of {self.dtype} shape={tuple(self.array.shape)}, "
            f"n_blocks={list(self.array.numblocks)}>"
        )

    def __getstate__(self) -> dict[str, Any]:
        # Made again where it is needed: the array has the same tasks.
        return {**self.__dict__, "_chunks": None}


def check_array(array: Any, sig_dims: Any) -> int:
    """`sig_dims` as an int, if array and axes can be used.

    Raises
    ------
    DataSetException
        If not.
    """
    import dask.array

    if not isinstance(array, dask.array.Array):
        raise DataSetException(
            f"Expected a Dask array as input, received {type(array)}.",
            hint="use the type memory for arrays in memory, or dask.array.from_array",
        )
    try:
        n_sig = operator.index(sig_dims)
    except TypeError as err:
        raise ShapeError(f"Expected non-negative integer sig_dims, received {sig_dims!r}.") from err
    if np.isnan(array.shape).any() or np.isnan(np.concatenate(array.chunks)).any():
        raise ShapeError(
            "the Dask array has an unknown shape or chunk sizes",
            found=f"shape {array.shape}",
            hint="call compute_chunk_sizes() of the array first, which may take long",
        )
    if not 0 < n_sig < array.ndim:
        raise ShapeError(
            f"Number of sig_dims {n_sig} not compatible with number of array dims {array.ndim}",
            expected=f"1 to {array.ndim - 1}: both frames and scan need an axis",
        )
    if not array.size or array.dtype.kind not in "biufc":
        raise DataSetException(
            "the Dask array holds no pixels", found=f"{array.dtype} {array.shape}", expected="numbers"
        )
    return n_sig
