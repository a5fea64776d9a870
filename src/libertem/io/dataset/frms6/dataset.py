"""The data set class for FRMS6 files."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.math import prod
from libertem.exceptions import MissingFileError
from libertem.io.corrections.corrset import CorrectionSet
from libertem.io.dataset.base.backends.contract import IOBackend
from libertem.io.dataset.base.files import File, FileSet
from libertem.io.dataset.base.framefile import FrameFacts, FrameFileDataSet, FrameFileParams
from libertem.io.dataset.base.metadata import Metadata, make_metadata, plain_header
from libertem.io.dataset.base.partition import BasePartition
from libertem.io.dataset.frms6.acquisition import (
    FRAME_HEADER_BYTES,
    HEADER_BYTES,
    Acquisition,
    find_files,
    read_acquisition,
    read_hdr,
    read_header,
)
from libertem.io.dataset.frms6.packing import Folding
from libertem.io.dataset.frms6.references import read_dark_frame, read_gain_map

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.common.protocols import ExecutorProtocol
    from libertem.io.dataset.base.scheme import TilingScheme

__all__ = ["FRMS6DataSet", "FRMS6DatasetParams"]

PIXEL_DTYPE = np.dtype(np.uint16)


@dataclass(frozen=True, kw_only=True)
class FRMS6Facts(FrameFacts):
    """What an acquisition holds."""

    acquisition: Acquisition
    folding: Folding
    dark: npt.NDArray[np.float32] | None
    gain: npt.NDArray[np.float64] | None


def inspect_files(path: str, enable_offset_correction: bool, gain_map_path: str | None) -> FRMS6Facts:
    """Facts about an acquisition, from the headers of all files, the dark frames and the gain map."""
    acquisition = read_acquisition(path)
    hdr = acquisition.hdr
    folding = Folding(acquisition.raw_shape, hdr.binning)
    present = sum(file.n_frames for file in acquisition.signal)
    notices = []
    if 0 < present < hdr.n_frames:
        notices.append(
            f"{acquisition.hdr_path}: signalframes promises {hdr.n_frames} frames, the files hold {present}: "
            f"frames {present} to {hdr.n_frames - 1} are missing and stay blank"
        )
    return FRMS6Facts(
        dtype=PIXEL_DTYPE,
        declared_dtype=np.dtype(np.float32) if enable_offset_correction else None,
        image_count=min(present, hdr.n_frames),
        nav_shape=hdr.nav_shape,
        sig_shape=folding.frame_shape,
        notices=tuple(notices),
        acquisition=acquisition,
        folding=folding,
        dark=_read_dark(acquisition) if enable_offset_correction else None,
        gain=None if gain_map_path is None else read_gain_map(gain_map_path, folding.frame_shape),
    )


def _read_dark(acquisition: Acquisition) -> npt.NDArray[np.float32]:
    if acquisition.dark is None:
        raise MissingFileError(
            "the file with dark frames is missing",
            path=acquisition.hdr_path,
            found=f"{os.path.basename(acquisition.signal[0].path)} as the first file",
            expected="a file with number 0",
            hint="pass enable_offset_correction=False to read the frames without offset correction",
        )
    return read_dark_frame(acquisition.dark, acquisition.hdr.binning)


def recognize_files(path: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Shapes of scan and images, from the ``.hdr`` file and the first of the others."""
    names = find_files(path)
    hdr = read_hdr(names.hdr)
    first = read_header(next(iter(names.numbered.values())))
    return hdr.nav_shape, Folding(first.raw_shape, hdr.binning).frame_shape


class FRMS6DatasetParams(FrameFileParams):
    """JSON parameters of FRMS6 files."""

    _schema = FrameFileParams.make_schema("FRMS6")
    SCHEMA = {
        **_schema,
        "properties": {
            **_schema["properties"],
            "enable_offset_correction": {"type": "boolean"},
            "gain_map_path": {"type": "string"},
        },
    }

    def convert_to_python(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments for the data set."""
        params = super().convert_to_python(raw)
        own = ("enable_offset_correction", "gain_map_path")
        return {**params, **{name: raw[name] for name in own if name in raw}}


class FRMS6Partition(BasePartition):
    """A part of an acquisition. Tiles consist of whole binned rows."""

    def validate_tiling_scheme(self, tiling_scheme: TilingScheme) -> None:
        """Refuse tiles of other numbers of rows.

        Raises
        ------
        ValueError
            If there are any.
        """
        folding = self._packing
        assert isinstance(folding, Folding)
        sig_shape = self.meta.shape.sig.to_tuple()
        for origin, extents in tiling_scheme.slices_array.tolist():
            if not _is_whole_units(origin, extents, sig_shape, folding.unit_px):
                raise ValueError(
                    f"Invalid tiling scheme: needs to be divisible by binning ({folding.binning}), "
                    f"found a tile of {tuple(extents)} at {tuple(origin)} of {sig_shape}"
                )


def _is_whole_units(origin: list[int], extents: list[int], sig_shape: tuple[int, ...], unit_px: int) -> bool:
    """Whether a part of a frame is contiguous and made of units of so many pixels."""
    split = next((axis for axis, extent in enumerate(extents) if extent != 1), len(extents) - 1)
    if tuple(extents[split + 1 :]) != sig_shape[split + 1 :]:
        return False
    start = int(np.ravel_multi_index(origin, sig_shape))
    return start % unit_px == 0 and prod(extents) % unit_px == 0


class FRMS6DataSet(FrameFileDataSet):
    """Read FRMS6 files of the pnCCD camera (PNDetector).

    An acquisition consists of a ``.hdr`` file and several ``.frms6`` files, of which that with number 0 has
    the dark frames. Their mean is subtracted in all computations, unless other corrections are given or
    `enable_offset_correction` is switched off.

    Rows that were binned are repeated, so that pixels are square: an image has as many rows as the sensor.

    Parameters
    ----------
    path : str or path-like
        The ``.hdr`` file, or any of the ``.frms6`` files. The others are found by their names.
    enable_offset_correction : bool
        Subtract the mean of the dark frames. The dtype of the data set is then float32, else uint16.
    gain_map_path : str or path-like, optional
        A gain map to multiply with after that: a ``.mat`` file with the variable ``GainMap``, or a ``.csv``
        file with columns of the image as lines.
    dest_dtype
        Deprecated, has no effect.
    nav_shape : sequence of int, optional
        Shape of the scan, any number of axes; that of the ``.hdr`` file by default. Frames that the files
        lack are blank.
    sig_shape : sequence of int, optional
        Another shape for as many pixels as an image has.
    sync_offset : int
        Frames to skip (> 0) or blanks to insert (< 0) at the start.
    io_backend : IOBackend, optional
        How to read.
    num_partitions : int, optional
        Overrides the number of partitions.

    Raises
    ------
    DataSetException
        If files are missing, damaged or do not belong together, or the parameters do not fit them.

    Examples
    --------
    >>> ds = ctx.load("frms6", path="./path_to_file.hdr")  # doctest: +SKIP
    """

    partition_class = FRMS6Partition
    _facts: FRMS6Facts | None

    def __init__(
        self,
        path: Any,
        enable_offset_correction: bool = True,
        gain_map_path: Any = None,
        dest_dtype: Any = None,
        nav_shape: Any = None,
        sig_shape: Any = None,
        sync_offset: int | None = 0,
        io_backend: IOBackend | None = None,
        num_partitions: int | None = None,
    ) -> None:
        if dest_dtype is not None:
            warnings.warn(
                "dest_dtype is deprecated and has no effect: ask for a dtype when computing",
                DeprecationWarning,
                stacklevel=2,
            )
        super().__init__(path, nav_shape, sig_shape, sync_offset, io_backend, num_partitions)
        self._enable_offset_correction = bool(enable_offset_correction)
        self._gain_map_path = None if gain_map_path is None else os.fspath(gain_map_path)
        self._corrections = CorrectionSet()

    @classmethod
    def get_supported_extensions(cls) -> set[str]:
        """``.frms6`` and ``.hdr``."""
        return {"frms6", "hdr"}

    @classmethod
    def get_msg_converter(cls) -> type[FRMS6DatasetParams]:
        """Converter of JSON parameters."""
        return FRMS6DatasetParams

    @classmethod
    def recognize(cls, path: str, executor: ExecutorProtocol) -> dict[str, Any]:
        """The ``.hdr`` file and the header of one other file."""
        nav_shape, sig_shape = executor.run_function(recognize_files, path)
        return {
            "parameters": {"path": path, "nav_shape": nav_shape, "sig_shape": sig_shape},
            "info": {"image_count": prod(nav_shape), "native_sig_shape": sig_shape},
        }

    def initialize(self, executor: ExecutorProtocol) -> FRMS6DataSet:
        """Read headers, dark frames and gain map on a worker."""
        super().initialize(executor)
        facts = self._initialized_facts()
        sig_shape = self.shape.sig.to_tuple()
        dark, gain = (
            None if array is None else array.reshape(sig_shape) for array in (facts.dark, facts.gain)
        )
        self._corrections = CorrectionSet(dark=dark, gain=gain)
        # So that their arrays are not kept, and sent to workers, twice.
        self._facts = replace(facts, dark=None, gain=None)
        return self

    def _initialized_facts(self) -> FRMS6Facts:
        assert self._facts is not None
        return self._facts

    def get_correction_data(self) -> CorrectionSet:
        """Mean of the dark frames, and the gain map."""
        return self._corrections

    def get_base_shape(self, roi: npt.NDArray[np.bool_] | None) -> tuple[int, ...]:
        """One binned row; with another `sig_shape`, the least rows that are a multiple of it."""
        rows, *rest = self.shape.sig.to_tuple()
        row_px = prod(rest)
        unit_px = self._get_packing().unit_px
        return (1, min(rows, unit_px // math.gcd(unit_px, row_px)), *rest)

    def _inspect(self) -> FRMS6Facts:
        return inspect_files(self._path, self._enable_offset_correction, self._gain_map_path)

    def _read_metadata(self) -> Metadata:
        values = self._initialized_facts().acquisition.hdr.values
        source = "dwelltimemicroseconds"
        dwell_time = [("dwell_time", values[source], "us", source)] if values[source] > 0 else []
        return make_metadata(dwell_time, header=plain_header(values))

    def _get_packing(self) -> Folding:
        return self._initialized_facts().folding

    def _get_fileset(self) -> FileSet:
        files = []
        start = 0
        for file in self._initialized_facts().acquisition.signal:
            stop = min(start + file.n_frames, self._image_count)
            if stop > start:
                files.append(
                    File(
                        path=file.path,
                        start_idx=start,
                        end_idx=stop,
                        native_dtype=np.uint8,
                        sig_shape=(file.frame_bytes,),
                        frame_header=FRAME_HEADER_BYTES,
                        file_header=HEADER_BYTES,
                    )
                )
            start = stop
        return FileSet(files, frame_header_bytes=FRAME_HEADER_BYTES)

    def get_diagnostics(self) -> list[dict[str, Any]]:
        """Whether dark frames are subtracted, and all keys of the ``.hdr`` file."""
        acquisition = self._initialized_facts().acquisition
        enabled = str(self._corrections.get_dark_frame() is not None)
        return [
            {"name": "Offset correction available and enabled", "value": enabled},
            *({"name": key, "value": str(value)} for key, value in acquisition.hdr.values.items()),
            {"name": "Gain map", "value": str(self._gain_map_path or "none")},
            *super().get_diagnostics(),
        ]

    def get_cache_key(self) -> dict[str, Any]:
        """Also which corrections come with the data."""
        return {
            **super().get_cache_key(),
            "enable_offset_correction": self._enable_offset_correction,
            "gain_map_path": self._gain_map_path,
        }
