"""The data set of an array in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.math import prod
from libertem.common.messageconverter import MessageConverter
from libertem.common.shape import Shape
from libertem.exceptions import ShapeError, UnsupportedBackendError
from libertem.io.dataset.base.backends.contract import IOBackend
from libertem.io.dataset.base.dataset import DataSet
from libertem.io.dataset.base.files import FileSet
from libertem.io.dataset.base.meta import DataSetMeta
from libertem.io.dataset.base.scan import check_shape, check_sync_offset
from libertem.io.dataset.memory.images import MemoryFile, as_array, preferences
from libertem.io.dataset.memory.partition import Knobs, MemBackend, MemPartition

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.common.protocols import CorrectionsProtocol, ExecutorProtocol

__all__ = ["MemDatasetParams", "MemoryDataSet"]


class MemDatasetParams(MessageConverter):
    """JSON parameters of arrays in memory; they can only describe an array of zeros."""

    SCHEMA = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": "http://libertem.org/MEMDatasetParams.schema.json",
        "title": "MEMDatasetParams",
        "type": "object",
        "properties": {
            "type": {"const": "MEMORY"},
            "tileshape": {"type": "array", "items": {"type": "number", "minimum": 1}},
            "datashape": {"type": "array", "items": {"type": "number", "minimum": 1}},
            "num_partitions": {"type": "number", "minimum": 1},
            "sig_dims": {"type": "number", "minimum": 1},
            "check_cast": {"type": "boolean"},
            "crop_frames": {"type": "boolean"},
            "tiledelay": {"type": "number"},
            "nav_shape": {
                "type": "array",
                "items": {"type": "number", "minimum": 1},
                "minItems": 2,
                "maxItems": 2,
            },
            "sig_shape": {
                "type": "array",
                "items": {"type": "number", "minimum": 1},
                "minItems": 2,
                "maxItems": 2,
            },
            "sync_offset": {"type": "number"},
            "array_backend": {"type": "string"},
        },
        "required": ["type", "tileshape", "num_partitions"],
    }

    def convert_to_python(self, raw_data: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments for `MemoryDataSet`; `crop_frames` has no meaning any more."""
        params = {name: raw_data[name] for name in raw_data if name not in ("type", "crop_frames")}
        if "array_backend" in params:
            params["array_backends"] = (params.pop("array_backend"),)
        return params


class MemoryDataSet(DataSet):
    """Use an array in memory as a data set, for tests and small data.

    With executors that have worker processes, each partition carries its part of the array there. The array
    is never modified. The object can be used without `initialize`.

    Parameters
    ----------
    tileshape : sequence of int, optional
        Deliver tiles of this shape, whatever is asked for; ``(depth, *sig)``.
    num_partitions : int, optional
        Number of partitions; that of the physical cores by default.
    data : array-like
        Dense, or `sparse.COO`, `sparse.GCXS`, `sparse.DOK`.
    sig_dims : int, optional
        How many axes, counted from the end, belong to the signal. 2 unless a shape is given that says
        something else.
    check_cast : bool
        Has no effect.
    tiledelay : float, optional
        Seconds to wait after each tile.
    datashape : sequence of int, optional
        Instead of `data`: an array of zeros of this shape, float32.
    base_shape : sequence of int, optional
        Let tiles consist of blocks of this shape, as in formats that store blocks; ``(depth, *sig)``.
    force_need_decode : bool
        Behave as if the data had to be decoded, which limits the size of tiles.
    io_backend
        Not supported.
    nav_shape, sig_shape : sequence of int, optional
        Other shapes than those of the array.
    sync_offset : int
        Frames to skip (> 0) or blanks to insert (< 0) at the start.
    array_backends : sequence of str, optional
        Kinds of arrays to offer, best first. All by default, that of `data` first.

    Raises
    ------
    ValueError
        If parameters contradict each other.
    DataSetException
        If they do not fit the array.

    Examples
    --------
    >>> data = np.zeros((2, 2, 64, 64), dtype=np.float32)
    >>> MemoryDataSet(data=data, num_partitions=2)
    <MemoryDataSet of float32 shape=(2, 2, 64, 64)>
    """

    def __init__(
        self,
        tileshape: Any = None,
        num_partitions: int | None = None,
        data: Any = None,
        sig_dims: int | None = None,
        check_cast: bool = True,
        tiledelay: float | None = None,
        datashape: Any = None,
        base_shape: Any = None,
        force_need_decode: bool = False,
        io_backend: IOBackend | None = None,
        nav_shape: Any = None,
        sig_shape: Any = None,
        sync_offset: int = 0,
        array_backends: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if io_backend is not None:
            raise UnsupportedBackendError("MemoryDataSet currently doesn't support alternative I/O backends")
        self.data, native = as_array(data, datashape)
        shape = _split_shape(self.data, sig_dims, nav_shape, sig_shape)
        self.sig_dims = shape.sig_dims
        sig_px = prod(shape.sig)
        if self.data.size % sig_px:
            raise ValueError(
                f"Data size is not a multiple of sig shape: {self.data.size} elements, {sig_px} px per frame"
            )
        self._image_count = self.data.size // sig_px
        self._nav_shape_product = shape.nav.size
        self.num_partitions = _default_partitions(shape) if num_partitions is None else num_partitions
        self.tileshape = _tile_shape("tileshape", tileshape, shape)
        self._base_shape = _tile_shape("base_shape", base_shape, shape)
        self.check_cast = check_cast
        self.tiledelay = tiledelay
        self.force_need_decode = force_need_decode
        self._sync_offset = check_sync_offset(sync_offset, self._image_count)
        self._sync_offset_info = self.get_sync_offset_info()
        self._array_backends = preferences(native) if array_backends is None else tuple(array_backends)
        self._meta: DataSetMeta = DataSetMeta(
            shape=shape,
            array_backends=self._array_backends,
            image_count=self._image_count,
            raw_dtype=self.data.dtype,
            sync_offset=self._sync_offset,
        )

    def initialize(self, executor: ExecutorProtocol) -> MemoryDataSet:
        """Nothing to do."""
        return self

    def check_valid(self) -> bool:
        """Nothing can be wrong any more."""
        return True

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the array."""
        return self._meta.dtype

    @property
    def shape(self) -> Shape:
        """Shape as the user sees it."""
        return self._meta.shape

    @property
    def array_backends(self) -> Sequence[str]:
        """Kinds of arrays that partitions deliver, best first."""
        return self._array_backends

    @classmethod
    def detect_params(cls, path: Any, executor: ExecutorProtocol) -> dict[str, Any] | bool:
        """Recognizes arrays by their `shape`."""
        return {"parameters": {"data": path}, "info": {}} if hasattr(path, "shape") else False

    @classmethod
    def get_supported_io_backends(cls) -> list[str]:
        """None: there are no files."""
        return []

    def get_io_backend(self) -> MemBackend:
        """Stands for the way to read."""
        return MemBackend()

    def get_num_partitions(self) -> int:
        """As given to the constructor."""
        return self.num_partitions

    def get_base_shape(self, roi: npt.NDArray[np.bool_] | None) -> tuple[int, ...]:
        """The tile shape or base shape that was asked for, else one row."""
        forced = self._base_shape if self.tileshape is None else self.tileshape
        return super().get_base_shape(roi) if forced is None else forced.to_tuple()

    def adjust_tileshape(
        self, tileshape: tuple[int, ...], roi: npt.NDArray[np.bool_] | None
    ) -> tuple[int, ...]:
        """The tile shape that was asked for, else as negotiated."""
        return tileshape if self.tileshape is None else self.tileshape.to_tuple()

    def need_decode(
        self,
        read_dtype: npt.DTypeLike,
        roi: npt.NDArray[np.bool_] | None,
        corrections: CorrectionsProtocol | None,
    ) -> bool:
        """Whether tiles are copies."""
        # Frames that are scattered in memory are copied next to each other.
        scattered = isinstance(self.data, np.ndarray) and not self.data.flags.c_contiguous
        return self.force_need_decode or scattered or super().need_decode(read_dtype, roi, corrections)

    def get_partitions(self) -> Iterator[MemPartition]:
        """All partitions in order."""
        fileset = FileSet([MemoryFile(self.data, 0, self._image_count, self.shape.sig.to_tuple())])
        forced = (self.tileshape, self._base_shape, self.tiledelay, self.force_need_decode or None)
        knobs = Knobs(self.tileshape, self.tiledelay, only_tiles=any(k is not None for k in forced))
        for part_slice, start, stop in self.get_slices():
            yield MemPartition(
                meta=self._meta,
                partition_slice=part_slice,
                fileset=fileset,
                start_frame=start,
                num_frames=stop - start,
                io_backend=self.get_io_backend(),
                knobs=knobs,
            )

    def get_cache_key(self) -> Any:
        """Arrays have no name under which results could be kept.

        Raises
        ------
        TypeError
            Always.
        """
        raise TypeError("results of a MemoryDataSet cannot be cached")

    @classmethod
    def get_msg_converter(cls) -> type[MemDatasetParams]:
        """Converter of JSON parameters."""
        return MemDatasetParams

    def __repr__(self) -> str:
        return f"<MemoryDataSet of {self.dtype} shape={self.shape}>"


def _split_shape(data: Any, sig_dims: int | None, nav_shape: Any, sig_shape: Any) -> Shape:
    """Shape of the data set, from what is given and the axes of the array."""
    nav = None if nav_shape is None else check_shape(nav_shape, "nav_shape")
    sig = None if sig_shape is None else check_shape(sig_shape, "sig_shape")
    if sig_dims is None:
        if sig is not None:
            sig_dims = len(sig)
        else:
            sig_dims = 2 if nav is None else data.ndim - len(nav)
    elif sig is not None and len(sig) != sig_dims:
        raise ValueError(f"Length of sig_shape {sig} not matching sig_dims {sig_dims}.")
    split = data.ndim - sig_dims
    if sig is None:
        if not 0 < sig_dims <= data.ndim:
            raise ShapeError(
                "the array needs a signal axis", found=data.shape, expected=f"sig_dims {sig_dims}"
            )
        sig = check_shape(data.shape[split:], "sig_shape")
    if nav is None:
        if split < 1:
            raise ShapeError(
                "the array needs a navigation axis",
                found=f"shape {data.shape} with sig_dims {sig_dims}",
                hint="pass nav_shape, or sig_dims to say which axes make up a frame",
            )
        nav = check_shape(data.shape[:split], "nav_shape")
    return Shape((*nav, *sig), sig_dims=sig_dims)


def _tile_shape(name: str, value: Any, shape: Shape) -> Shape | None:
    """`value` as the shape of a tile of a data set of `shape`."""
    if value is None:
        return None
    extents = check_shape(value, name)
    if len(extents) != shape.sig_dims + 1:
        raise ValueError(f"{name} needs {shape.sig_dims + 1} entries (depth, *sig), found {extents}")
    return Shape(extents, sig_dims=shape.sig_dims)


def _default_partitions(shape: Shape) -> int:
    """One per physical core, as long as there are frames."""
    import psutil

    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    return min(cores, shape.nav.size)
