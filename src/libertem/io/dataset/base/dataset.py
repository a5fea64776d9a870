"""`DataSet`: the contract that every format fulfils."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import numpy as np

from libertem.common.arrays import CUDA, NUMPY
from libertem.common.math import prod
from libertem.common.protocols import CorrectionsProtocol, ExecutorProtocol
from libertem.common.shape import Shape
from libertem.common.slice import Slice
from libertem.common.taskcomm import NoopCommHandler, TaskCommHandler
from libertem.io.corrections.corrset import CorrectionSet
from libertem.io.dataset.base.backends.buffered import BufferedBackend
from libertem.io.dataset.base.backends.contract import IOBackend
from libertem.io.dataset.base.backends.mmap import MMapBackend
from libertem.io.dataset.base.decode import Decoder
from libertem.io.dataset.base.interactive import UsableDirectly
from libertem.io.dataset.base.meta import DataSetMeta
from libertem.io.dataset.base.metadata import NO_METADATA, Axis, Metadata
from libertem.io.dataset.base.partition import BasePartition, Partition
from libertem.io.dataset.base.scan import check_sync_offset, fit_partition_shape, sync_offset_info

if TYPE_CHECKING:
    import numpy.typing as npt


__all__ = ["DataSet", "WritableDataSet"]

T = TypeVar("T")


class _RoiHelper:
    """``ds.roi[...]``: a mask of navigation shape that is True at an index expression."""

    def __init__(self, nav_shape: tuple[int, ...]) -> None:
        self._nav_shape = nav_shape

    def __getitem__(self, k: Any) -> npt.NDArray[np.bool_]:
        roi = np.zeros(self._nav_shape, dtype=bool)
        roi[k] = True
        return roi


class _hideable(Generic[T]):  # noqa: N801  # used like property
    """Property that an attribute of the instance may hide.

    Data sets of other packages, which do not know this property, may have set an attribute of that name.
    """

    def __init__(self, get: Callable[[Any], T]) -> None:
        self._get = get
        self.__doc__ = get.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> _hideable[T]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object | None, owner: type) -> _hideable[T] | T:
        return self if instance is None else self._get(instance)


class DataSet(UsableDirectly):
    """A data set: shape, dtype, and partitions that deliver tiles.

    To support a new format, subclass this and see "Writing a data set" in the documentation. The life
    cycle is: constructor (no I/O), `initialize`, `set_num_cores`, `check_valid`, then `get_partitions`.

    Parameters
    ----------
    io_backend : IOBackend, optional
        How to read files; the best for the platform by default.
    num_partitions : int, optional
        Overrides the number of partitions.
    """

    MAX_PARTITION_SIZE = 512 * 1024 * 1024

    def __init__(self, io_backend: IOBackend | None = None, num_partitions: int | None = None) -> None:
        self._cores = 1
        self._io_backend = io_backend
        self._user_num_partitions = num_partitions
        self._sync_offset: int | None = 0
        self._sync_offset_info: dict[str, int] | None = None
        self._image_count = 0
        self._nav_shape_product = 0
        self._meta: DataSetMeta | None = None

    def initialize(self, executor: ExecutorProtocol) -> DataSet:
        """Read headers and set up `meta`; all access to files goes through `executor.run_function`.

        Returns
        -------
        DataSet
            The initialized data set, normally this one. Use what is returned.
        """
        raise NotImplementedError

    def set_num_cores(self, cores: int) -> None:
        """Tell the data set for how many workers it should be cut."""
        self._cores = cores

    def check_valid(self) -> bool:
        """Check the files; runs on a worker after `initialize`.

        Raises
        ------
        DataSetException
            If something is wrong.
        """
        raise NotImplementedError

    @property
    def dtype(self) -> np.dtype[Any]:
        """Native dtype of the pixels, or the one closest to it."""
        raise NotImplementedError

    @property
    def shape(self) -> Shape:
        """Shape as the user sees it."""
        raise NotImplementedError

    @property
    def meta(self) -> DataSetMeta | None:
        """Facts about the data set; None before `initialize`."""
        return self._meta

    @property
    def array_backends(self) -> Sequence[str]:
        """Kinds of arrays that partitions can deliver, best first."""
        return (NUMPY, CUDA)

    @property
    def roi(self) -> _RoiHelper:
        """``ds.roi[2, :]`` makes a mask of navigation shape, True at that index."""
        return _RoiHelper(self.shape.nav.to_tuple())

    # --- partitions ---

    def get_partitions(self) -> Iterator[Partition]:
        """All partitions in order."""
        raise NotImplementedError

    def get_num_partitions(self) -> int:
        """How many partitions there should be: 512 MiB of float32 each, at least one per core."""
        if self._user_num_partitions is not None:
            return max(1, self._user_num_partitions)
        cores = max(1, self._cores)
        n = prod(self.shape) // (self.MAX_PARTITION_SIZE // 4)
        return cores * max(1, n // cores + min(1, n % cores))

    def get_slices(self) -> Iterator[tuple[Slice, int, int]]:
        """Place, first image and image after the last one, for each partition."""
        return BasePartition.make_slices(
            shape=self.shape,
            num_partitions=self.get_num_partitions(),
            sync_offset=self._sync_offset or 0,
        )

    def partition_shape(
        self,
        dtype: npt.DTypeLike,
        target_size: int,
        min_num_partitions: int | None = None,
        containing_shape: Shape | None = None,
    ) -> tuple[int, ...]:
        """Navigation shape of partitions of about `target_size` bytes, for chunked formats."""
        return fit_partition_shape(
            dataset_shape=self.shape if containing_shape is None else containing_shape,
            target_size_items=target_size // np.dtype(dtype).itemsize,
            min_num=self._cores if min_num_partitions is None else min_num_partitions,
            num_cores=self._cores,
        )

    # --- detection ---

    @classmethod
    def detect_params(cls, path: Any, executor: ExecutorProtocol) -> dict[str, Any] | bool:
        """Whether `path` looks like this format, and how to load it.

        Returns
        -------
        dict or False
            ``{'parameters': {...}, 'info': {...}}`` with JSON-compatible values, or False.
        """
        raise NotImplementedError

    @classmethod
    def get_supported_extensions(cls) -> set[str]:
        """File name extensions, lower case and without the dot."""
        return set()

    # --- reading ---

    @classmethod
    def get_supported_io_backends(cls) -> list[str]:
        """Ids of the I/O backends that can be chosen; empty for formats with I/O of their own."""
        return ["mmap", "buffered", "direct"]

    @classmethod
    def get_default_io_backend(cls) -> IOBackend:
        """Best for the platform."""
        return BufferedBackend() if sys.platform.startswith("win") else MMapBackend()

    def get_io_backend(self) -> IOBackend:
        """What the user chose, else the default."""
        return self.get_default_io_backend() if self._io_backend is None else self._io_backend

    def get_decoder(self) -> Decoder | None:
        """How to translate stored pixels; None for plain ones."""
        return None

    def get_base_shape(self, roi: npt.NDArray[np.bool_] | None) -> tuple[int, ...]:
        """Smallest tile; tiles are multiples of it. One row by default."""
        assert self.meta is not None
        sig = self.meta.shape.sig.to_tuple()
        return (1, *(1 for _ in sig[:-1]), sig[-1])

    def adjust_tileshape(
        self, tileshape: tuple[int, ...], roi: npt.NDArray[np.bool_] | None
    ) -> tuple[int, ...]:
        """Last word of the data set on the tile shape; has to respect corrections."""
        return tileshape

    def need_decode(
        self,
        read_dtype: npt.DTypeLike,
        roi: npt.NDArray[np.bool_] | None,
        corrections: CorrectionsProtocol | None,
    ) -> bool:
        """Whether tiles have to be copies, which should then fit a cache."""
        assert self.meta is not None
        return (
            self.get_io_backend()
            .get_impl()
            .need_copy(
                decoder=self.get_decoder(),
                roi=roi,
                native_dtype=self.meta.raw_dtype,
                read_dtype=read_dtype,
                sync_offset=self._sync_offset or 0,
                corrections=corrections,
            )
        )

    def get_min_sig_size(self) -> int:
        """Minimum number of pixels in the signal part of a tile: four pages of memory."""
        assert self.meta is not None
        return 4 * 4096 // self.meta.raw_dtype.itemsize

    def get_max_io_size(self) -> int | None:
        """Upper bound for tiles that are copied, in bytes; None for the default."""
        return None

    # --- corrections ---

    def get_correction_data(self) -> CorrectionSet:
        """Corrections that come with the data; they apply unless the user gives others."""
        return CorrectionSet()

    def supports_correction(self) -> bool:
        """Whether partitions can apply corrections."""
        return True

    # --- facts ---

    def get_metadata(self) -> Metadata:
        """What the files say about the experiment; nothing, unless a format overrides this."""
        return NO_METADATA

    @_hideable
    def metadata(self) -> Metadata:
        """What the files say about the experiment: calibrated axes, voltage, ..., in SI with their source."""
        return self.get_metadata().fitted(self.shape)

    @_hideable
    def axes(self) -> tuple[Axis, ...]:
        """Calibration of each axis, in the order of `shape`; in elements where the files do not tell."""
        return self.get_metadata().axes(self.shape)

    def get_sync_offset_info(self) -> dict[str, int]:
        """How many frames are skipped, ignored and inserted at either end.

        Raises
        ------
        DataSetException
            If `sync_offset` leaves no frame visible.
        """
        offset = check_sync_offset(self._sync_offset, self._image_count)
        return sync_offset_info(offset, self._image_count, self._nav_shape_product)

    def get_diagnostics(self) -> list[dict[str, Any]]:
        """Facts about the files as a list of ``{'name': ..., 'value': ...}``."""
        return []

    @property
    def diagnostics(self) -> list[dict[str, Any]]:
        """`get_diagnostics`, and what all data sets have in common."""
        first = next(iter(self.get_partitions()))
        info = self.get_sync_offset_info() if self._sync_offset_info is None else self._sync_offset_info
        return [
            *self.get_diagnostics(),
            {"name": "Partition shape", "value": str(first.shape)},
            {"name": "Number of partitions", "value": str(len(list(self.get_partitions())))},
            {
                "name": "Number of frames skipped at the beginning",
                "value": info["frames_skipped_start"],
            },
            {"name": "Number of frames ignored at the end", "value": info["frames_ignored_end"]},
            {
                "name": "Number of blank frames inserted at the beginning",
                "value": info["frames_inserted_start"],
            },
            {
                "name": "Number of blank frames inserted at the end",
                "value": info["frames_inserted_end"],
            },
        ]

    def get_cache_key(self) -> Any:
        """JSON-compatible value that differs for data sets with different data."""
        raise NotImplementedError

    @classmethod
    def get_msg_converter(cls) -> Any:
        """Class that translates JSON parameters into those of the constructor."""
        raise NotImplementedError

    def get_task_comm_handler(self) -> TaskCommHandler:
        """Handler that feeds tasks with live data; does nothing here."""
        return NoopCommHandler()


class WritableDataSet:
    """Marker for data sets that can be written to."""
