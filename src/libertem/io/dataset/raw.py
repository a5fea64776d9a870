"""Raw binary files: frames back to back, nothing else.

| offset | bytes | type | meaning |
|-------:|------:|------|---------|
| 0 | n · prod(sig_shape) · itemsize | any fixed-size dtype | frames in C order |

Bytes at the end that do not make up a frame are ignored. The file says nothing about itself, so dtype and
shapes have to be given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.math import prod
from libertem.exceptions import DataSetException, ShapeError
from libertem.io.dataset.base.backends.contract import IOBackend
from libertem.io.dataset.base.backends.direct import DirectBackend
from libertem.io.dataset.base.files import File, FileSet
from libertem.io.dataset.base.framefile import (
    FrameFacts,
    FrameFileDataSet,
    FrameFileParams,
    file_size,
    renamed_parameter,
)
from libertem.io.dataset.base.partition import BasePartition

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["RAWDatasetParams", "RawFile", "RawFileDataSet", "RawFileSet", "RawPartition"]


def _make_schema() -> dict[str, Any]:
    schema = FrameFileParams.make_schema("RAW")
    schema["properties"]["dtype"] = {"type": "string"}
    # The file says nothing about itself.
    schema["required"] += ["dtype", "nav_shape", "sig_shape"]
    return schema


class RAWDatasetParams(FrameFileParams):
    """JSON parameters of raw files."""

    SCHEMA = _make_schema()

    def convert_to_python(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments for `RawFileDataSet`."""
        names = ["path", "dtype", "nav_shape", "sig_shape", "sync_offset"]
        return {name: raw[name] for name in names if name in raw}


class RawFile(File):
    """A raw file."""


class RawFileSet(FileSet):
    """The one file of a raw data set."""


class RawPartition(BasePartition):
    """Frames of a raw file."""


class RawFileDataSet(FrameFileDataSet):
    """Read a single file of raw binary data: frames in C order, no headers.

    Parameters
    ----------
    path : str or path-like
        The file.
    dtype : dtype
        As stored, with byte order where it matters, for example ``'>u2'``.
    nav_shape : sequence of int
        Shape of the scan, any number of axes. Frames that the file lacks are blank.
    sig_shape : sequence of int
        Shape of a frame, any number of axes.
    sync_offset : int
        Frames to skip (> 0) or blanks to insert (< 0) at the start.
    io_backend : IOBackend, optional
        How to read.
    num_partitions : int, optional
        Overrides the number of partitions.
    scan_size, detector_size, detector_size_raw, crop_detector_to, tileshape, enable_direct
        Deprecated.

    Raises
    ------
    DataSetException
        If the shapes do not fit the file.

    Examples
    --------
    >>> ds = ctx.load("raw", path="f.raw", dtype="u2", nav_shape=(4, 4), sig_shape=(8, 8))  # doctest: +SKIP
    """

    partition_class = RawPartition

    def __init__(
        self,
        path: Any,
        dtype: npt.DTypeLike,
        scan_size: Any = None,
        detector_size: Any = None,
        enable_direct: bool = False,
        detector_size_raw: Any = None,
        crop_detector_to: Any = None,
        tileshape: Any = None,
        nav_shape: Any = None,
        sig_shape: Any = None,
        sync_offset: int = 0,
        io_backend: IOBackend | None = None,
        num_partitions: int | None = None,
    ) -> None:
        nav_shape = renamed_parameter("scan_size", scan_size, "nav_shape", nav_shape)
        detector_size = _uncropped(detector_size, detector_size_raw, crop_detector_to)
        sig_shape = renamed_parameter("detector_size", detector_size, "sig_shape", sig_shape)
        renamed_parameter("tileshape", tileshape, "nothing", None)
        if enable_direct:
            if io_backend is not None:
                raise ValueError("can't specify io_backend and enable_direct at the same time")
            io_backend = renamed_parameter("enable_direct", DirectBackend(), "io_backend", None)
        for name, value in (("nav_shape", nav_shape), ("sig_shape", sig_shape)):
            if value is None:
                raise TypeError(f"missing 1 required argument: '{name}'")
        super().__init__(path, nav_shape, sig_shape, sync_offset, io_backend, num_partitions)
        self._dtype = np.dtype(dtype)
        if self._dtype.itemsize == 0 or self._dtype.hasobject or self._dtype.fields is not None:
            raise DataSetException("pixels need a plain dtype of fixed size", path=path, found=self._dtype)

    def _get_filesize(self) -> int:
        return file_size(self._path)

    def _inspect(self) -> FrameFacts:
        assert self._nav_shape is not None
        assert self._sig_shape is not None
        file_px = self._get_filesize() // self._dtype.itemsize
        sig_px = prod(self._sig_shape)
        if sig_px > file_px:
            raise ShapeError(
                f"sig_shape must be less than size: {file_px}",
                path=self._path,
                found=f"{self._sig_shape} = {sig_px} px",
            )
        return FrameFacts(
            dtype=self._dtype,
            image_count=file_px // sig_px,
            nav_shape=self._nav_shape,
            sig_shape=self._sig_shape,
        )

    def _get_fileset(self) -> FileSet:
        return RawFileSet(
            [
                RawFile(
                    path=self._path,
                    start_idx=0,
                    end_idx=self._image_count,
                    sig_shape=self.shape.sig,
                    native_dtype=self._initialized().raw_dtype,
                )
            ]
        )

    @classmethod
    def get_msg_converter(cls) -> type[RAWDatasetParams]:
        """Converter of JSON parameters."""
        return RAWDatasetParams


def _uncropped(detector_size: Any, detector_size_raw: Any, crop_detector_to: Any) -> Any:
    """Detector size from the parameters of a cropping that no longer exists."""
    cropped = renamed_parameter("crop_detector_to", crop_detector_to, "sig_shape", None)
    if cropped is None:
        return detector_size
    if detector_size is not None:
        raise ValueError("cannot specify both detector_size and crop_detector_to")
    if detector_size_raw is None or tuple(detector_size_raw) != tuple(cropped):
        raise ValueError("RawFileDataSet can't crop detector anymore, please use EMPAD DataSet")
    return cropped
