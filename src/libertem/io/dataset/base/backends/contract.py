"""The contract of I/O backends, and the documented way from read ranges to tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np

from libertem.common.arrays import CUDA, NUMPY, for_backend
from libertem.common.messageconverter import MessageConverter
from libertem.common.protocols import CorrectionsProtocol
from libertem.common.shape import Shape
from libertem.common.slice import Slice
from libertem.exceptions import DataSetException, UnsupportedBackendError
from libertem.io.dataset.base.blocks import BlockSource
from libertem.io.dataset.base.decode import Decoder, DtypeConversionDecoder
from libertem.io.dataset.base.ranges import ReadRanges
from libertem.io.dataset.base.tile import DataTile

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.dataset.base.files import FileSet
    from libertem.io.dataset.base.scheme import TilingScheme

__all__ = ["Fetch", "IOBackend", "IOBackendImpl"]

Fetch: TypeAlias = "Callable[[int, int, int], npt.NDArray[np.uint8]]"
"""``fetch(file_idx, start, stop)`` returns the bytes of a read range."""

DEFAULT_MAX_IO_SIZE = 2**20


class IOBackend:
    """Selects how files are read. Small and picklable; travels with each partition.

    ``class MyBackend(IOBackend, id_="my")`` registers a backend under an id.
    """

    registry: ClassVar[dict[str, type[IOBackend]]] = {}
    id_: ClassVar[str | None] = None

    def __init_subclass__(cls, id_: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if id_ is not None:
            cls.id_ = id_
            IOBackend.registry[id_] = cls

    @classmethod
    def get_cls_by_id(cls, id_: str) -> type[IOBackend] | None:
        """Class registered under `id_`, or None."""
        return cls.registry.get(id_)

    @classmethod
    def get_supported(cls) -> list[str]:
        """Ids of all backends that work on this platform."""
        return [id_ for id_, backend in cls.registry.items() if backend.platform_supported()]

    @classmethod
    def platform_supported(cls) -> bool:
        """Whether this backend works, and has been tried, on this platform."""
        return True

    @classmethod
    def from_json(cls, msg: dict[str, Any]) -> IOBackend:
        """Not offered: parameters of backends have no JSON form."""
        raise NotImplementedError(f"{cls.__name__} has no JSON form")

    @classmethod
    def resolve(cls, choice: Any) -> IOBackend | None:
        """Backend object for what users may write: an object, a class, an id or None.

        Raises
        ------
        DataSetException
            If there is no such backend, or it does not work on this platform.
        """
        backend = cls.registry.get(choice, choice) if isinstance(choice, str) else choice
        if isinstance(backend, type) and issubclass(backend, IOBackend):
            backend = backend()
        if backend is None or isinstance(backend, IOBackend):
            if backend is not None and not backend.platform_supported():
                raise UnsupportedBackendError(
                    "this I/O backend is not offered on this platform",
                    found=backend.id_,
                    expected=f"one of {cls.get_supported()}",
                )
            return backend
        raise UnsupportedBackendError(
            "not an I/O backend", found=repr(choice), expected=f"one of {cls.get_supported()}"
        )

    def get_impl(self) -> IOBackendImpl:
        """A new object that reads; it holds buffers and is not sent anywhere."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


# Converters of JSON parameters live on a lower floor and learn here what the ids mean.
MessageConverter.io_backends = IOBackend.registry


class IOBackendImpl:
    """Reads the files of one partition."""

    def open_files(self, fileset: FileSet) -> AbstractContextManager[list[Any]]:
        """Context manager that yields one open file object per file, and closes them."""
        raise NotImplementedError

    def block_source(self) -> BlockSource | None:
        """How plain pixels are read without read ranges; None if the backend cannot do that."""
        return None

    def need_copy(
        self,
        decoder: Decoder | None,
        roi: npt.NDArray[np.bool_] | None,
        native_dtype: npt.DTypeLike,
        read_dtype: npt.DTypeLike,
        tiling_scheme: TilingScheme | None = None,
        fileset: FileSet | None = None,
        sync_offset: int = 0,
        corrections: CorrectionsProtocol | None = None,
    ) -> bool:
        """Whether tiles have to be copies; False if they can be views of a file."""
        if roi is not None or decoder is not None or sync_offset < 0:
            return True
        if np.dtype(native_dtype) != np.dtype(read_dtype):
            return True
        if tiling_scheme is not None and fileset is not None:
            depth = tiling_scheme.depth
            if any(file.num_frames < depth for file in fileset):
                return True
        return corrections is not None and corrections.have_corrections()

    def get_max_io_size(self) -> int:
        """Upper bound for the size of a tile that is copied, in bytes."""
        return DEFAULT_MAX_IO_SIZE

    def preprocess(
        self, data: npt.NDArray[Any], tile_slice: Slice, corrections: CorrectionsProtocol | None
    ) -> None:
        """Apply corrections in place; `data` is memory of the backend's own."""
        if corrections is not None and corrections.have_corrections():
            corrections.apply(data, tile_slice)

    def get_tiles(
        self,
        tiling_scheme: TilingScheme,
        fileset: FileSet,
        read_ranges: ReadRanges,
        roi: npt.NDArray[np.bool_] | None,
        native_dtype: npt.DTypeLike,
        read_dtype: npt.DTypeLike,
        decoder: Decoder | None,
        sync_offset: int,
        corrections: CorrectionsProtocol | None,
        array_backend: str | None,
    ) -> Iterator[DataTile]:
        """Read and decode the tiles that the read ranges describe, in their order."""
        raise NotImplementedError

    def _decode_tiles(
        self,
        fetchers: Iterator[tuple[range, Fetch]],
        tiling_scheme: TilingScheme,
        read_ranges: ReadRanges,
        native_dtype: npt.DTypeLike,
        read_dtype: npt.DTypeLike,
        decoder: Decoder | None,
        corrections: CorrectionsProtocol | None,
        array_backend: str | None,
    ) -> Iterator[DataTile]:
        """Decode range by range into one buffer that all tiles share.

        `fetchers` yields consecutive ranges of tile numbers, each with a function for their bytes.
        """
        _check_array_backend(array_backend)
        decoder = DtypeConversionDecoder() if decoder is None else decoder
        decode = decoder.get_decode(native_dtype=native_dtype, read_dtype=read_dtype)
        view_dtype = np.dtype(decoder.get_native_dtype(native_dtype, read_dtype))
        tile_slices, ranges, scheme_indices = read_ranges
        ds_shape = np.array(tiling_scheme.dataset_shape.to_tuple(), dtype=np.int64)
        sig_dims = tile_slices.shape[2] - 1
        sizes = tile_slices[:, 1].prod(axis=1)
        buffer = np.empty(int(sizes.max(initial=0)), dtype=read_dtype)
        for tiles, fetch in fetchers:
            for t in tiles:
                origin, shape = tile_slices[t]
                out = buffer[: sizes[t]].reshape(shape[0], -1)
                if decoder.do_clear():
                    out[:] = 0
                for idx, rr in enumerate(ranges[t]):
                    if rr[1] == rr[2] == 0:
                        break
                    inp = fetch(int(rr[0]), int(rr[1]), int(rr[2]))
                    decode(inp, out, idx, view_dtype, rr, origin, shape, ds_shape)
                tile_slice = make_tile_slice(origin, shape, sig_dims)
                data = out.reshape(tile_slice.shape.to_tuple())
                self.preprocess(data, tile_slice, corrections)
                yield DataTile(for_backend(data, array_backend or NUMPY), tile_slice, int(scheme_indices[t]))


def make_tile_slice(origin: npt.NDArray[np.int64], shape: npt.NDArray[np.int64], sig_dims: int) -> Slice:
    """Slice from rows of the tile slices array."""
    return Slice(origin=tuple(origin.tolist()), shape=Shape(tuple(shape.tolist()), sig_dims=sig_dims))


def _check_array_backend(array_backend: str | None) -> None:
    if array_backend not in (None, NUMPY, CUDA):
        raise DataSetException(
            "files are delivered as NumPy arrays", found=array_backend, expected=f"{NUMPY} or {CUDA}"
        )
