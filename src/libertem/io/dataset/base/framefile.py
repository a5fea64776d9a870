"""Template for formats that store whole frames at known places in files.

A format says what its files hold (`FrameFileDataSet._inspect`), where the frames lie
(`FrameFileDataSet._get_fileset`) and how it is recognized (`FrameFileDataSet.recognize`). Overrides of
shapes, the sync offset, partitions, checks, diagnostics, cache keys and representation are the same for all
and live here.
"""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.math import prod
from libertem.common.messageconverter import MessageConverter
from libertem.common.shape import Shape
from libertem.exceptions import DataSetException, ShapeError, UnsupportedBackendError
from libertem.io.dataset.base.backends.contract import IOBackend
from libertem.io.dataset.base.backends.rawio import RawFile, as_dataset_error
from libertem.io.dataset.base.dataset import DataSet
from libertem.io.dataset.base.decode import Decoder
from libertem.io.dataset.base.files import FileSet
from libertem.io.dataset.base.lazymetadata import LazyMetadata
from libertem.io.dataset.base.meta import DataSetMeta
from libertem.io.dataset.base.metadata import NO_METADATA, Metadata
from libertem.io.dataset.base.packing import PackedDecoder, Packing
from libertem.io.dataset.base.partition import BasePartition
from libertem.io.dataset.base.scan import check_shape, check_sync_offset, integer_sync_offset

if TYPE_CHECKING:
    from libertem.common.protocols import ExecutorProtocol

__all__ = [
    "PROBE_BYTES",
    "FileHead",
    "FrameFacts",
    "FrameFileDataSet",
    "FrameFileParams",
    "check_extension",
    "file_size",
    "read_head",
    "renamed_parameter",
]

PROBE_BYTES = 64 << 10
"""No format may read more than this to recognize a file: detection asks many of them."""


@dataclass(frozen=True)
class FrameFacts:
    """What the files of a data set hold, before the user's overrides."""

    dtype: np.dtype[Any]
    """As stored, with byte order; of packed pixels, that of the decoded ones."""

    image_count: int
    """Number of whole frames present."""

    nav_shape: tuple[int, ...]
    """Scan shape according to the file; empty if it does not say."""

    sig_shape: tuple[int, ...]
    """Shape of one frame."""

    notices: tuple[str, ...] = ()
    """What the user has to know although loading goes on; given as `RuntimeWarning`."""

    declared_dtype: np.dtype[Any] | None = None
    """Dtype that the data set shows to users, if it is not `dtype`."""

    sync_offset: int = 0
    """Where the scan starts according to the file, for users who do not say (None)."""

    metadata: Metadata = NO_METADATA
    """What the files say about the experiment, if that is known without reading more of them."""


@dataclass(frozen=True)
class FileHead:
    """The first bytes of a file."""

    raw: bytes
    """As many as were asked for, or all there are."""

    size: int
    """Of the whole file, in bytes."""


def read_head(path: str, n_bytes: int = PROBE_BYTES) -> FileHead:
    """Read the first bytes of a file.

    Raises
    ------
    DataSetException
        If that is impossible, in the kind that fits. Names the path.
    TypeError
        If `path` is no string: a number would be taken for an open file.
    """
    file_size(path)
    with RawFile(path) as file:
        size = file.size()
        raw = np.empty(min(size, n_bytes), dtype=np.uint8)
        file.read_into(raw, 0)
    return FileHead(raw.tobytes(), size)


def check_extension(path: str, extensions: Iterable[str]) -> None:
    """Refuse a path by its extension.

    Raises
    ------
    DataSetException
        If the extension is not one of those given in lower case without dot.
    """
    found = os.path.splitext(path)[1]
    if found[1:].lower() not in extensions:
        expected = " or ".join(f".{extension}" for extension in sorted(extensions))
        raise DataSetException("another extension", path=path, found=repr(found), expected=expected)


def file_size(path: str) -> int:
    """Size of a regular file in bytes.

    Raises
    ------
    DataSetException
        If there is no such file, in the kind that fits. Names the path.
    TypeError
        If `path` is no string: a number would be taken for an open file.
    """
    if not isinstance(path, str):
        raise TypeError(f"path has to be a string or path-like, found {type(path).__name__}")
    with as_dataset_error(path):
        try:
            status = os.stat(path)
        except ValueError as err:
            raise DataSetException(f"not a possible path: {err}", path=path) from err
        if not stat.S_ISREG(status.st_mode):
            # Opening a pipe would wait for somebody to write to it.
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "something else"
            raise DataSetException("not a file", path=path, found=kind, expected="a regular file")
    return status.st_size


def renamed_parameter(old_name: str, old: Any, new_name: str, new: Any) -> Any:
    """Value of a parameter that used to have another name.

    Raises
    ------
    ValueError
        If both are given.
    """
    if old is None:
        return new
    warnings.warn(f"{old_name} argument is deprecated, use {new_name} instead", FutureWarning, stacklevel=3)
    if new is not None:
        raise ValueError(f"cannot specify both {old_name} and {new_name}")
    return old


class FrameFileParams(MessageConverter):
    """JSON parameters that all formats of this kind share; a subclass gives `SCHEMA`."""

    @staticmethod
    def make_schema(type_name: str) -> dict[str, Any]:
        """Schema for the data set type with that name, upper case."""
        shape = {
            "type": "array",
            "items": {"type": "number", "minimum": 1},
            "minItems": 2,
            "maxItems": 2,
        }
        return {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "$id": f"http://libertem.org/{type_name}DatasetParams.schema.json",
            "title": f"{type_name}DatasetParams",
            "type": "object",
            "properties": {
                "type": {"const": type_name},
                "path": {"type": "string"},
                "nav_shape": shape,
                "sig_shape": shape,
                "sync_offset": {"type": "number"},
                "io_backend": {"enum": ["mmap", "buffered", "direct"]},
            },
            "required": ["type", "path"],
        }

    def convert_to_python(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments for the data set."""
        params: dict[str, Any] = {"path": raw["path"]}
        params.update({name: tuple(raw[name]) for name in ("nav_shape", "sig_shape") if name in raw})
        if "sync_offset" in raw:
            params["sync_offset"] = int(raw["sync_offset"])
        return params

    def convert_from_python(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """The reverse: shapes as lists, and the type."""
        assert self.SCHEMA is not None
        message: dict[str, Any] = {"type": self.SCHEMA["properties"]["type"]["const"]}
        for name, value in raw.items():
            if value is not None:
                message[name] = list(value) if isinstance(value, tuple) else value
        return message


class FrameFileDataSet(DataSet):
    """Data set of whole frames at known places in files.

    Parameters
    ----------
    path : str or path-like
        File to open.
    nav_shape, sig_shape : sequence of int, optional
        Override what the file says.
    sync_offset : int
        Frames to skip (> 0) or blanks to insert (< 0) at the start.
    io_backend : IOBackend, optional
        How to read.
    num_partitions : int, optional
        Overrides the number of partitions.
    """

    partition_class: type[BasePartition] = BasePartition

    def __init__(
        self,
        path: Any,
        nav_shape: Any = None,
        sig_shape: Any = None,
        sync_offset: int | None = 0,
        io_backend: IOBackend | None = None,
        num_partitions: int | None = None,
    ) -> None:
        super().__init__(io_backend=self._check_backend(io_backend), num_partitions=num_partitions)
        self._path = os.fspath(path) if isinstance(path, os.PathLike) else path
        where = self._path if isinstance(self._path, str) else None
        self._nav_shape = None if nav_shape is None else check_shape(nav_shape, "nav_shape", path=where)
        self._sig_shape = None if sig_shape is None else check_shape(sig_shape, "sig_shape", path=where)
        self._sync_offset = integer_sync_offset(sync_offset, path=where)
        self._facts: FrameFacts | None = None
        self._metadata = LazyMetadata()

    @classmethod
    def _check_backend(cls, io_backend: Any) -> IOBackend | None:
        backend = IOBackend.resolve(io_backend)
        supported = cls.get_supported_io_backends()
        if backend is not None and backend.id_ in IOBackend.registry and backend.id_ not in supported:
            raise UnsupportedBackendError(
                f"{cls.__name__} currently doesn't support alternative I/O backends", found=backend.id_
            )
        return backend

    # --- what a format supplies ---

    def _inspect(self) -> FrameFacts:
        """Look into the files; runs on a worker."""
        raise NotImplementedError

    def _get_fileset(self) -> FileSet:
        """Where the frames lie."""
        raise NotImplementedError

    def _read_metadata(self) -> Metadata:
        """Read what the files say about the experiment; called once, when somebody asks for it.

        A field that is damaged or not understood is left out.
        """
        assert self._facts is not None
        return self._facts.metadata

    def _get_packing(self) -> Packing | None:
        """How pixels are packed; None for plain ones."""
        return None

    @classmethod
    def recognize(cls, path: str, executor: ExecutorProtocol) -> dict[str, Any]:
        """What `detect_params` answers, or an error that tells why the file is not of this format.

        Raises
        ------
        DataSetException
            If the first `PROBE_BYTES` speak against this format.
        NotImplementedError
            If files of this format cannot be recognized.
        """
        raise NotImplementedError(f"{cls.__name__} cannot be recognized")

    def _fit_sig_shape(self, facts: FrameFacts) -> tuple[int, ...]:
        """Shape of a frame with the user's override, which has to have as many pixels."""
        if self._sig_shape is None:
            return facts.sig_shape
        if prod(self._sig_shape) != prod(facts.sig_shape):
            raise ShapeError(
                f"sig_shape must be of size: {prod(facts.sig_shape)}",
                path=self._path,
                found=f"{self._sig_shape} = {prod(self._sig_shape)} px",
                hint=f"leave sig_shape out to use {facts.sig_shape} from the file",
            )
        return self._sig_shape

    def _fit_nav_shape(self, facts: FrameFacts) -> tuple[int, ...]:
        """Scan shape with the user's override."""
        if self._nav_shape is not None:
            return self._nav_shape
        if not facts.nav_shape:
            raise ShapeError(
                "need to set or detect nav_shape!",
                path=self._path,
                found=f"{facts.image_count} frames",
                hint="pass nav_shape=(height, width)",
            )
        return facts.nav_shape

    # --- the contract ---

    @classmethod
    def detect_params(cls, path: Any, executor: ExecutorProtocol) -> dict[str, Any] | bool:
        """Parameters if `path` is of this format, else False; `recognize` tells the reason."""
        if not isinstance(path, str | os.PathLike):
            return False
        try:
            return cls.recognize(os.fsdecode(path), executor)
        except DataSetException:
            return False

    @staticmethod
    def _detected(path: str, facts: FrameFacts, nav_shape: tuple[int, ...]) -> dict[str, Any]:
        return {
            "parameters": {"path": path, "nav_shape": nav_shape, "sig_shape": facts.sig_shape},
            "info": {"image_count": facts.image_count, "native_sig_shape": facts.sig_shape},
        }

    def initialize(self, executor: ExecutorProtocol) -> FrameFileDataSet:
        """Read headers on a worker and set up `meta`."""
        facts = executor.run_function(self._inspect)
        if facts.image_count < 1:
            raise DataSetException(
                "the data set contains no frames",
                path=self._path,
                expected=f"at least one frame of {facts.sig_shape} {facts.dtype}",
                hint="is the file empty or cut off?",
            )
        for notice in facts.notices:
            warnings.warn(notice, RuntimeWarning, stacklevel=2)
        self._facts = facts
        self._metadata = LazyMetadata(executor)
        self._image_count = facts.image_count
        shape = (*self._fit_nav_shape(facts), *self._fit_sig_shape(facts))
        sig_dims = len(self._fit_sig_shape(facts))
        self._nav_shape_product = prod(shape[: len(shape) - sig_dims])
        sync_offset = facts.sync_offset if self._sync_offset is None else self._sync_offset
        self._sync_offset = check_sync_offset(sync_offset, self._image_count, path=self._path)
        self._sync_offset_info = self.get_sync_offset_info()
        self._meta = DataSetMeta(
            shape=Shape(shape, sig_dims=sig_dims),
            raw_dtype=facts.dtype,
            dtype=facts.declared_dtype,
            sync_offset=self._sync_offset,
            image_count=self._image_count,
        )
        return self

    def _initialized(self) -> DataSetMeta:
        if self._meta is None:
            name = type(self).__name__
            raise RuntimeError(f"{name} is not initialized: use Context.load, or call initialize()")
        return self._meta

    @property
    def dtype(self) -> np.dtype[Any]:
        """Native dtype."""
        return self._initialized().dtype

    @property
    def shape(self) -> Shape:
        """Shape as the user sees it."""
        return self._initialized().shape

    def check_valid(self) -> bool:
        """Open the first and the last file as a run would."""
        fileset = self._get_fileset()
        impl = self.get_io_backend().get_impl()
        for idx in {0, len(fileset) - 1}:
            try:
                with impl.open_files(FileSet([fileset[idx]])):
                    pass
            except DataSetException:
                raise
            except (OSError, ValueError, RuntimeError) as err:
                raise DataSetException(f"invalid dataset: {err}", path=fileset[idx].path) from err
        return True

    def get_decoder(self) -> Decoder | None:
        """For packed pixels, what carries the packing and decodes on the documented path."""
        packing = self._get_packing()
        return None if packing is None else PackedDecoder(packing)

    def get_partitions(self) -> Iterator[BasePartition]:
        """All partitions in order."""
        fileset = self._get_fileset()
        for part_slice, start, stop in self.get_slices():
            yield self.partition_class(
                meta=self._initialized(),
                partition_slice=part_slice,
                fileset=fileset,
                start_frame=start,
                num_frames=stop - start,
                io_backend=self.get_io_backend(),
                decoder=self.get_decoder(),
            )

    def get_metadata(self) -> Metadata:
        """What the files say; without the calibration of axes that the user has cut in another way."""
        self._initialized()
        if self._facts is None:
            # Formats that keep no facts know nothing, unless they override this.
            return NO_METADATA
        metadata = self._metadata.get(self._read_metadata)
        # A scan may end early or late, but its rows have to be those of the file.
        if self._nav_shape is not None and self._nav_shape[1:] != self._facts.nav_shape[1:]:
            metadata = replace(metadata, nav_axes=())
        if self._sig_shape is not None and self._sig_shape != self._facts.sig_shape:
            # Frames of another size are cut out of the pixels of all frames.
            is_cut = prod(self._sig_shape) != prod(self._facts.sig_shape)
            metadata = replace(metadata, sig_axes=(), nav_axes=() if is_cut else metadata.nav_axes)
        return metadata

    def get_diagnostics(self) -> list[dict[str, Any]]:
        """The dtype as stored."""
        return [{"name": "dtype", "value": str(self._initialized().raw_dtype)}]

    def get_cache_key(self) -> dict[str, Any]:
        """Path, shape, dtype and sync offset."""
        return {
            "path": self._path,
            "shape": self.shape.to_tuple(),
            "dtype": str(self.dtype),
            "sync_offset": self._sync_offset,
        }

    def __repr__(self) -> str:
        if self._meta is None:
            return f"<{type(self).__name__} of {self._path!r}, not initialized>"
        return f"<{type(self).__name__} of {self.dtype} shape={self.shape}>"
