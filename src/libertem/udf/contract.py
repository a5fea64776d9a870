"""The contract of user-defined functions (UDFs): `UDF` and what its methods see."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from libertem.common import arrays
from libertem.common.arrays import NUMPY, make_like
from libertem.common.buffers import (
    ArrayWithMask,
    AuxBufferWrapper,
    BufferKind,
    BufferUse,
    BufferWrapper,
)
from libertem.common.html import never_failing
from libertem.common.math import flat_nonzero
from libertem.common.protocols import TilingPreferences, TilingSize, UDFMethod
from libertem.common.shape import Shape
from libertem.common.slice import Slice
from libertem.exceptions import UDFException
from libertem.io.dataset.base.tile import DataTile
from libertem.udf.data import MergeAttrMapping, UDFData, check_cast
from libertem.udf.describe import udf_html
from libertem.udf.meta import UDFMeta
from libertem.udf.shared import Shared

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.dataset.base.blocks import FrameBlock, SparseBlock

__all__ = [
    "UDF",
    "UDFFrameMixin",
    "UDFMergeAllMixin",
    "UDFPartitionMixin",
    "UDFPostprocessMixin",
    "UDFPreprocessMixin",
    "UDFTileMixin",
]


@runtime_checkable
class UDFFrameMixin(Protocol):
    """Has `process_frame`."""

    def process_frame(self, frame: Any) -> None:
        """Process one frame of signal shape."""
        ...


@runtime_checkable
class UDFTileMixin(Protocol):
    """Has `process_tile`."""

    def process_tile(self, tile: Any) -> None:
        """Process a tile: ``(frames, part of the signal)``."""
        ...


@runtime_checkable
class UDFPartitionMixin(Protocol):
    """Has `process_partition`."""

    def process_partition(self, partition: Any) -> None:
        """Process all frames of a partition at once."""
        ...


@runtime_checkable
class UDFPreprocessMixin(Protocol):
    """Has `preprocess`."""

    def preprocess(self) -> None:
        """Prepare before the data of a partition, or on the main process before the run."""
        ...


@runtime_checkable
class UDFPostprocessMixin(Protocol):
    """Has `postprocess`."""

    def postprocess(self) -> None:
        """Finish after the data of a partition."""
        ...


@runtime_checkable
class UDFMergeAllMixin(Protocol):
    """Has `merge_all`."""

    def merge_all(self, ordered_results: Any) -> Mapping[str, Any]:
        """Combine the results of all partitions at once."""
        ...


class UDF:
    """Base class of user-defined functions.

    Implement `get_result_buffers`, one of ``process_frame(self, frame)``, ``process_tile(self, tile)``
    or ``process_partition(self, partition)``, and `merge` unless all results are of kind ``'nav'``.

    Parameters
    ----------
    **kwargs
        Parameters. A fresh instance is made from them for each partition; they are `self.params` there.
    """

    BACKEND_NUMPY = arrays.NUMPY
    BACKEND_CUPY = arrays.CUPY
    BACKEND_CUDA = arrays.CUDA
    BACKEND_SPARSE_COO = arrays.SPARSE_COO
    BACKEND_SPARSE_GCXS = arrays.SPARSE_GCXS
    BACKEND_SPARSE_DOK = arrays.SPARSE_DOK
    BACKEND_SCIPY_COO = arrays.SCIPY_COO
    BACKEND_SCIPY_CSR = arrays.SCIPY_CSR
    BACKEND_SCIPY_CSC = arrays.SCIPY_CSC
    BACKEND_SCIPY_COO_ARRAY = arrays.SCIPY_COO_ARRAY
    BACKEND_SCIPY_CSR_ARRAY = arrays.SCIPY_CSR_ARRAY
    BACKEND_SCIPY_CSC_ARRAY = arrays.SCIPY_CSC_ARRAY
    BACKEND_CUPY_SCIPY_COO = arrays.CUPY_SCIPY_COO
    BACKEND_CUPY_SCIPY_CSR = arrays.CUPY_SCIPY_CSR
    BACKEND_CUPY_SCIPY_CSC = arrays.CUPY_SCIPY_CSC
    BACKEND_ALL: ClassVar[tuple[str, ...]] = (
        arrays.CUPY_SCIPY_CSR,
        arrays.CUPY_SCIPY_CSC,
        arrays.CUPY_SCIPY_COO,
        arrays.SCIPY_COO_ARRAY,
        arrays.SCIPY_CSC_ARRAY,
        arrays.SCIPY_CSR_ARRAY,
        arrays.SCIPY_CSR,
        arrays.SCIPY_CSC,
        arrays.SCIPY_COO,
        arrays.CUPY,
        arrays.NUMPY,
        arrays.SPARSE_COO,
        arrays.SPARSE_GCXS,
    )
    CPU_BACKENDS = arrays.CPU_BACKENDS
    CUDA_BACKENDS = arrays.CUDA_BACKENDS
    CUPY_BACKENDS = arrays.CUPY_BACKENDS
    SPARSE_BACKENDS = arrays.SPARSE_BACKENDS
    DENSE_BACKENDS = arrays.DENSE_BACKENDS
    ND_BACKENDS = arrays.ND_BACKENDS
    D2_BACKENDS = arrays.D2_BACKENDS

    USE_NATIVE_DTYPE = bool
    TILE_SIZE_BEST_FIT = TilingSize.SIZE_BEST_FIT
    TILE_SIZE_MAX = np.inf
    TILE_DEPTH_DEFAULT = TilingSize.DEPTH_DEFAULT
    TILE_DEPTH_MAX = np.inf
    UDF_METHOD = UDFMethod

    _needs_neighbours: ClassVar[bool] = False
    """Whether `_process_block` looks at the neighbours of excluded pixels."""

    meta: UDFMeta
    results: UDFData
    task_data: UDFData

    def __init__(self, **kwargs: Any) -> None:
        self._kwargs = kwargs
        self.params = UDFData(kwargs)
        self.task_data = UDFData({})
        self.results = UDFData({})
        self._backend: str = NUMPY
        self._shared = Shared()

    def copy(self) -> UDF:
        """A new instance with the same parameters."""
        return type(self)(**self._kwargs)

    # --- hooks ---

    def get_result_buffers(self) -> dict[str, BufferWrapper]:
        """Declare results: names with `UDF.buffer` objects. Has to be pure and cheap."""
        raise NotImplementedError(f"{type(self).__name__} has to implement get_result_buffers")

    def get_task_data(self) -> dict[str, Any]:
        """Anything that is needed once per partition; becomes `self.task_data` on the worker."""
        return {}

    def cleanup(self) -> None:
        """Release what the task data holds."""

    def merge(self, dest: Any, src: Any) -> None:
        """Merge the result of a partition, `src`, into that of the data set, `dest`.

        The default copies; it is only there for results of kind ``'nav'``.
        """
        declared = self.get_result_buffers()
        if any(b.kind != "nav" for b in declared.values() if b.use != "result_only"):
            raise NotImplementedError(
                "Default merging only works for kind='nav' buffers. "
                "Please implement a suitable custom merge function."
            )
        for name in dest:
            target, source = getattr(dest, name), getattr(src, name)
            check_cast(source, target)
            target[...] = source

    def get_results(self) -> Mapping[str, Any]:
        """Turn merged buffers into results: names with arrays. Has to be free of side effects."""
        declared = self.get_result_buffers()
        for name, buffer in declared.items():
            if buffer.use == "result_only":
                raise UDFException(
                    f"don't know how to set use='result_only' buffer '{name}'; please implement `get_results`"
                )
        return {name: self.results.get(name) for name, buffer in declared.items() if buffer.use is None}

    def get_preferred_input_dtype(self) -> npt.DTypeLike:
        """Dtype that the UDF would like to receive; `USE_NATIVE_DTYPE` for that of the data set."""
        return np.float32

    def get_backends(self) -> str | Iterable[str]:
        """Kinds of arrays that the UDF can process, best first."""
        return (NUMPY,)

    def get_method(self) -> UDFMethod:
        """Which process method receives the data: tile before frame before partition."""
        for method in (UDFMethod.TILE, UDFMethod.FRAME, UDFMethod.PARTITION):
            if hasattr(self, f"process_{method.value}"):
                return method
        raise TypeError(
            f"{type(self).__name__} has to implement process_tile, process_frame or process_partition"
        )

    def get_tiling_preferences(self) -> TilingPreferences:
        """Wishes for the shape of tiles."""
        return {"depth": self.TILE_DEPTH_DEFAULT, "total_size": self.TILE_SIZE_MAX}

    # --- helpers ---

    def buffer(
        self,
        kind: BufferKind,
        extra_shape: Any = (),
        dtype: npt.DTypeLike = "float32",
        where: Any = None,
        use: BufferUse = None,
    ) -> BufferWrapper:
        """Declare a result buffer, see `libertem.common.buffers.BufferWrapper`."""
        return BufferWrapper(kind, extra_shape, dtype, where, use)

    @classmethod
    def aux_data(
        cls, data: Any, kind: BufferKind, extra_shape: Any = (), dtype: npt.DTypeLike = "float32"
    ) -> AuxBufferWrapper:
        """Wrap data so that, as a parameter, it is cut like the frames.

        Parameters
        ----------
        data : array
            With ``prod(nav_shape) * prod(extra_shape)`` elements for kind ``'nav'``; of `dtype`.
        kind : {'nav', 'sig', 'single'}
        extra_shape : tuple of int
        dtype : dtype
        """
        aux = AuxBufferWrapper(kind, extra_shape, dtype)
        aux.set_buffer(data)
        return aux

    @staticmethod
    def with_mask(data: Any, mask: Any) -> ArrayWithMask:
        """For `get_results`: a result with the mask of what is valid in it.

        Raises
        ------
        InvalidMaskError
            If `mask` is not boolean or does not broadcast to `data`.
        """
        return ArrayWithMask.make(data, mask)

    @property
    def xp(self) -> Any:
        """Array library of the current data: `numpy`, or `cupy` on a GPU."""
        if self._backend in arrays.CUPY_BACKENDS:
            import cupy

            return cupy
        return np

    def forbuf(self, arr: Any, target: Any) -> Any:
        """`arr` as the kind of array that `target` is, in its shape. No broadcasting."""
        return make_like(arr, target)

    def _repr_html_(self) -> str | None:
        return never_failing(lambda: udf_html(self))

    # --- for the runner ---

    def _begin_blocks(self) -> None:
        """Called before the first block of a partition."""

    def _process_block(self, block: FrameBlock) -> None:
        """Reduce frames where they lie; see `libertem.udf.blocks`."""
        raise NotImplementedError

    def _process_sparse_block(self, block: SparseBlock) -> None:
        """Reduce sparse frames where they lie; see `libertem.udf.blocks`."""
        raise NotImplementedError

    def _finish_blocks(self) -> None:
        """Called after the last block of a partition."""

    def _can_process_blocks(self, stored_dtype: np.dtype[Any]) -> bool:
        """Whether `_process_block` gives the documented results for this dtype and these parameters."""
        return False

    def _can_process_sparse_blocks(self, stored_dtype: np.dtype[Any]) -> bool:
        """The same for `_process_sparse_block`."""
        return self._can_process_blocks(stored_dtype)

    def _merge_frames(self, start: int, stop: int, source: Any) -> None:
        """Merge the arrays of some frames, counted from the start of the buffers."""
        everything = self.params
        if everything._has_aux():
            roi = self.meta.roi
            frames = slice(start, stop) if roi is None else flat_nonzero(roi)[start:stop]
            self.params = everything._select_frames(frames)
        dest = {name: buffer.view_for_frames(start, stop) for name, buffer in self.results._buffers()}
        try:
            self.merge(dest=MergeAttrMapping(dest), src=source)
        finally:
            self.params = everything

    def _feed(
        self, tile: DataTile, data: Any, method: UDFMethod, tick: Callable[[float], None] | None = None
    ) -> None:
        """Hand a tile to the process method, with all views set.

        `tick` is called after each frame with the part of the tile that is done, from 0 to 1.
        """
        assert self.meta._partition_slice is not None
        where = tile.tile_slice
        start = where.origin[0] - self.meta._partition_slice.origin[0]
        n_frames = where.shape[0]
        if method is UDFMethod.FRAME:
            self._feed_frames(where, start, data, tick)
            return
        self.meta.slice = where
        self.meta.tiling_scheme_idx = tile.scheme_idx
        if method is UDFMethod.TILE:
            for container in (self.results, self.params):
                container._view_tile(start, where.sig, n_frames)
            self._call("process_tile", data)
        else:
            n_blank = self.meta.partition_shape[0] - n_frames
            if n_blank:
                raise UDFException(
                    f"process_partition needs whole partitions, but {n_blank} scan positions of this one are "
                    "blank because of the sync_offset (implement process_frame or process_tile instead)"
                )
            for container in (self.results, self.params):
                container._view_frames(start, start + n_frames)
            self._call("process_partition", data)

    def _feed_frames(self, where: Slice, start: int, data: Any, tick: Callable[[float], None] | None) -> None:
        frame_shape = Shape((1, *where.shape.sig), sig_dims=where.shape.sig.dims)
        flat = self._backend in arrays.D2_BACKENDS
        self.meta.tiling_scheme_idx = 0
        for i in range(where.shape[0]):
            self.meta.slice = Slice((where.origin[0] + i, *where.origin[1:]), frame_shape)
            self.results._view_frame(start + i)
            self.params._view_frame(start + i)
            self._call("process_frame", _rows_2d(data, i) if flat else data[i])
            if tick is not None:
                tick((i + 1) / where.shape[0])

    def _call(self, name: str, data: Any) -> None:
        try:
            getattr(self, name)(data)
        except AttributeError as err:
            if err.name in ("tile_slice", "scheme_idx") and err.obj is data:
                raise AttributeError(
                    f"{err}; use self.meta.slice instead of tile_slice, "
                    "and self.meta.tiling_scheme_idx instead of scheme_idx"
                ) from err
            raise


def _rows_2d(data: Any, i: int) -> Any:
    """One frame of a 2D-only array, as ``(1, pixels)``."""
    try:
        return data[i : i + 1]
    except (NotImplementedError, TypeError):
        # COO formats have no indexing.
        return data.tocsr()[i : i + 1].asformat(data.format)
