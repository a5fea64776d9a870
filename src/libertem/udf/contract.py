"""The contract of user-defined functions (UDFs): `UDF` and what its methods see."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
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
from libertem.common.protocols import TilingPreferences, TilingSize, UDFMethod
from libertem.common.shape import Shape
from libertem.common.slice import Slice
from libertem.exceptions import UDFException
from libertem.io.corrections.corrset import CorrectionSet
from libertem.io.dataset.base.coordinates import get_coordinates
from libertem.io.dataset.base.scheme import TilingScheme
from libertem.io.dataset.base.tile import DataTile
from libertem.warnings import UseDiscouragedWarning

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.dataset.base.blocks import FrameBlock

__all__ = [
    "UDF",
    "MergeAttrMapping",
    "UDFData",
    "UDFFrameMixin",
    "UDFMergeAllMixin",
    "UDFMeta",
    "UDFPartitionMixin",
    "UDFPostprocessMixin",
    "UDFPreprocessMixin",
    "UDFTileMixin",
    "check_cast",
]


def check_cast(fromvar: Any, tovar: Any) -> None:
    """Make sure that values can go from one array or dtype to another without loss.

    Raises
    ------
    TypeError
        If not.
    """
    source = np.dtype(getattr(fromvar, "dtype", fromvar))
    target = np.dtype(getattr(tovar, "dtype", tovar))
    if not np.can_cast(source, target, casting="safe"):
        raise TypeError(f"Unsafe automatic casting from {source} to {target}")


class UDFData:
    """Container behind `UDF.results`, `UDF.params` and `UDF.task_data`.

    Attributes are arrays for the unit that is being processed. Assigning to an attribute writes into
    the array.
    """

    _data: dict[str, Any]
    _views: dict[str, Any]

    def __init__(self, data: Mapping[str, Any]) -> None:
        object.__setattr__(self, "_data", dict(data))
        object.__setattr__(self, "_views", {})

    def __getattr__(self, k: str) -> Any:
        if k.startswith("_"):
            # Also while an instance is copied or unpickled, and has no content yet.
            raise AttributeError(k)
        if k not in self._data:
            raise AttributeError(f"{k!r} is not there, have: {sorted(self._data)}")
        return self._view_or_data(k)

    def __setattr__(self, k: str, v: Any) -> None:
        target = getattr(self, k)
        # After ``self.results.x += y`` the array is assigned to itself.
        if target is not v:
            target[...] = v

    def _view_or_data(self, k: str) -> Any:
        if k in self._views:
            return self._views[k]
        value = self._data[k]
        return value.raw_data if isinstance(value, BufferWrapper | AuxBufferWrapper) else value

    def get(self, k: str, default: Any = None) -> Any:
        """Value of `k`, or `default`."""
        return self._view_or_data(k) if k in self._data else default

    def get_buffer(self, name: str) -> Any:
        """The buffer behind an attribute."""
        return self._data[name]

    def set_buffer(self, name: str, value: Any) -> None:
        """Add or replace a buffer."""
        self._data[name] = value
        self._views.pop(name, None)

    def __getitem__(self, k: str) -> Any:
        warnings.warn(
            f"use the attribute .{k}, or .get_buffer({k!r}) for the buffer itself",
            UseDiscouragedWarning,
            stacklevel=2,
        )
        return self._data[k]

    def __contains__(self, k: object) -> bool:
        return k in self._data

    def keys(self) -> Iterable[str]:
        """Names."""
        return self._data.keys()

    def values(self) -> Iterable[Any]:
        """Buffers or plain values."""
        return self._data.values()

    def items(self) -> Iterable[tuple[str, Any]]:
        """Names with buffers or plain values."""
        return self._data.items()

    def as_dict(self) -> dict[str, Any]:
        """Names with buffers or plain values, as a new dict."""
        return dict(self._data)

    def __repr__(self) -> str:
        return f"<UDFData: {self._data}>"

    # --- for the runner; names without underscore are those of users ---

    def _has_aux(self) -> bool:
        """Whether there is auxiliary data."""
        return any(isinstance(value, AuxBufferWrapper) for value in self._data.values())

    def _select_frames(self, frames: npt.NDArray[np.int64] | slice) -> UDFData:
        """The same, with auxiliary data for some scan positions only (flat indices)."""
        return UDFData(
            {
                name: value.select(frames) if isinstance(value, AuxBufferWrapper) else value
                for name, value in self._data.items()
            }
        )

    def _buffers(self) -> Iterator[tuple[str, BufferWrapper | AuxBufferWrapper]]:
        """Everything that is cut like the data. Buffers that are only filled in the end show None."""
        for name, value in self._data.items():
            is_result = isinstance(value, BufferWrapper) and value.use != "result_only"
            if is_result or isinstance(value, AuxBufferWrapper):
                yield name, value

    def _view_frames(self, start: int, stop: int) -> None:
        """Attributes show some frames."""
        for name, buffer in self._buffers():
            self._views[name] = buffer.view_for_frames(start, stop)

    def _view_frame(self, idx: int) -> None:
        """Attributes show one frame."""
        for name, buffer in self._buffers():
            self._views[name] = buffer.view_for_frame(idx)

    def _view_tile(self, start: int, sig_slice: Slice, n_frames: int) -> None:
        """Attributes show the frames and pixels of a tile."""
        for name, buffer in self._buffers():
            self._views[name] = buffer.view_for_tile(start, sig_slice, n_frames)

    def _view_all(self) -> None:
        """Attributes show everything again."""
        for _, buffer in self._buffers():
            buffer.flush()
        self._views.clear()


class MergeAttrMapping:
    """Arrays as attributes: what `UDF.merge` receives as `dest` and `src`."""

    _dict: dict[str, Any]

    def __init__(self, dict_input: Mapping[str, Any]) -> None:
        object.__setattr__(self, "_dict", dict(dict_input))

    def __iter__(self) -> Iterator[str]:
        return iter(self._dict)

    def __contains__(self, k: object) -> bool:
        return k in self._dict

    def __len__(self) -> int:
        return len(self._dict)

    def __getattr__(self, k: str) -> Any:
        if k.startswith("_"):
            # Also while an instance is copied or unpickled, and has no content yet.
            raise AttributeError(k)
        if k not in self._dict:
            raise AttributeError(f"{k!r} is not there, have: {sorted(self._dict)}")
        return self._dict[k]

    def __setattr__(self, k: str, v: Any) -> None:
        target = getattr(self, k)
        if target is not v:
            target[...] = v

    def __getitem__(self, k: str) -> Any:
        warnings.warn(f"use the attribute .{k}", UseDiscouragedWarning, stacklevel=2)
        return self._dict[k]

    def __setitem__(self, k: str, v: Any) -> None:
        warnings.warn(f"use the attribute .{k}", UseDiscouragedWarning, stacklevel=2)
        self._dict[k][...] = v

    def keys(self) -> Iterable[str]:
        """Names."""
        return self._dict.keys()

    def __repr__(self) -> str:
        return f"<MergeAttrMapping: {self._dict}>"


class UDFMeta:
    """What a UDF can know about the run and the unit that it is processing: `UDF.meta`."""

    def __init__(
        self,
        dataset_shape: Shape,
        dataset_dtype: npt.DTypeLike,
        input_dtype: npt.DTypeLike,
        roi: npt.NDArray[np.bool_] | None = None,
        corrections: CorrectionSet | None = None,
        tiling_scheme: TilingScheme | None = None,
        partition_slice: Slice | None = None,
        device_class: str = "cpu",
        threads_per_worker: int | None = None,
        array_backend: str | None = None,
        valid_nav_mask: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        self._dataset_shape = dataset_shape
        self._dataset_dtype = np.dtype(dataset_dtype)
        self._input_dtype = np.dtype(input_dtype)
        self._roi = roi
        self._corrections = CorrectionSet() if corrections is None else corrections
        self._tiling_scheme = tiling_scheme
        self._partition_slice = partition_slice
        self._slice = partition_slice
        self._tiling_scheme_idx = 0
        self._device_class = device_class
        self._threads_per_worker = threads_per_worker
        self._array_backend = array_backend
        self._valid_nav_mask = valid_nav_mask
        self._partition_coordinates: npt.NDArray[np.int64] | None = None

    @property
    def slice(self) -> Slice | None:
        """Place of the current unit. The navigation axis is flat and compressed by the ROI."""
        return self._slice

    @slice.setter
    def slice(self, new_slice: Slice | None) -> None:
        self._slice = new_slice

    @property
    def partition_shape(self) -> Shape:
        """Shape of the partition with the ROI applied.

        Raises
        ------
        ValueError
            Outside of a partition.
        """
        if self._partition_slice is None:
            raise ValueError("partition_shape is only known while a partition is processed")
        return self._partition_slice.shape

    @property
    def dataset_shape(self) -> Shape:
        """Shape of the data set; the ROI has no influence."""
        return self._dataset_shape

    @property
    def tiling_scheme(self) -> TilingScheme | None:
        """How the data is cut; None on the main process."""
        return self._tiling_scheme

    @property
    def tiling_scheme_idx(self) -> int:
        """Index of the signal part of the current tile in the tiling scheme."""
        return self._tiling_scheme_idx

    @tiling_scheme_idx.setter
    def tiling_scheme_idx(self, new_idx: int) -> None:
        self._tiling_scheme_idx = new_idx

    @property
    def sig_slice(self) -> Slice:
        """Signal part of the current unit."""
        if self._slice is None:
            raise ValueError("sig_slice is only known while data is processed")
        return self._slice.sig

    @property
    def roi(self) -> npt.NDArray[np.bool_] | None:
        """Mask of navigation shape, or None."""
        return self._roi

    @property
    def dataset_dtype(self) -> np.dtype[Any]:
        """Native dtype of the data set."""
        return self._dataset_dtype

    @property
    def input_dtype(self) -> np.dtype[Any]:
        """Dtype of the data that the UDF receives."""
        return self._input_dtype

    @property
    def corrections(self) -> CorrectionSet:
        """Corrections that were applied to the data."""
        return self._corrections

    @property
    def device_class(self) -> str:
        """``'cpu'`` or ``'cuda'``."""
        return self._device_class

    @property
    def threads_per_worker(self) -> int | None:
        """How many threads the UDF may use; None for no limit."""
        return self._threads_per_worker

    @property
    def array_backend(self) -> str | None:
        """Kind of array that the UDF receives; None on the main process."""
        return self._array_backend

    @property
    def coordinates(self) -> npt.NDArray[np.int64]:
        """Scan positions of the frames of the current unit, int64 ``(frames, nav_dims)``."""
        if self._slice is None or self._partition_slice is None:
            raise ValueError("coordinates are only known while data is processed")
        if self._partition_coordinates is None:
            self._partition_coordinates = get_coordinates(
                self._partition_slice, self._dataset_shape, self._roi
            )
        start = self._slice.origin[0] - self._partition_slice.origin[0]
        return self._partition_coordinates[start : start + self._slice.shape[0]]

    def get_valid_nav_mask(self, full_nav: bool = False) -> npt.NDArray[np.bool_] | None:
        """Which scan positions have been merged; None while processing.

        Parameters
        ----------
        full_nav : bool
            Of the whole flat navigation axis, instead of only the ROI.
        """
        if self._valid_nav_mask is None or not full_nav or self._roi is None:
            return self._valid_nav_mask
        full = np.zeros(self._dataset_shape.nav.size, dtype=bool)
        full[self._roi.reshape(-1)] = self._valid_nav_mask
        return full

    def set_valid_nav_mask(self, mask: npt.NDArray[np.bool_] | None) -> None:
        """Tell the UDF what has been merged."""
        self._valid_nav_mask = mask


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

    meta: UDFMeta
    results: UDFData
    task_data: UDFData

    def __init__(self, **kwargs: Any) -> None:
        self._kwargs = kwargs
        self.params = UDFData(kwargs)
        self.task_data = UDFData({})
        self.results = UDFData({})
        self._backend: str = NUMPY

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

    # --- for the runner ---

    def _process_block(self, block: FrameBlock) -> None:
        """Reduce frames where they lie; see `libertem.udf.blocks`."""
        raise NotImplementedError

    def _can_process_blocks(self, stored_dtype: np.dtype[Any]) -> bool:
        """Whether `_process_block` gives the documented results for this dtype and these parameters."""
        return False

    def _feed(self, tile: DataTile, data: Any, method: UDFMethod) -> None:
        """Hand a tile to the process method, with all views set."""
        assert self.meta._partition_slice is not None
        where = tile.tile_slice
        start = where.origin[0] - self.meta._partition_slice.origin[0]
        n_frames = where.shape[0]
        if method is UDFMethod.FRAME:
            self._feed_frames(where, start, data)
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

    def _feed_frames(self, where: Slice, start: int, data: Any) -> None:
        frame_shape = Shape((1, *where.shape.sig), sig_dims=where.shape.sig.dims)
        flat = self._backend in arrays.D2_BACKENDS
        self.meta.tiling_scheme_idx = 0
        for i in range(where.shape[0]):
            self.meta.slice = Slice((where.origin[0] + i, *where.origin[1:]), frame_shape)
            self.results._view_frame(start + i)
            self.params._view_frame(start + i)
            self._call("process_frame", _rows_2d(data, i) if flat else data[i])

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
