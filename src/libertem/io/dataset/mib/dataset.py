"""The data set of Merlin detectors."""

from __future__ import annotations

import os
import warnings
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from libertem.common.math import make_2D_square
from libertem.exceptions import DataSetException, ShapeError
from libertem.io.dataset.base.backends.contract import IOBackend
from libertem.io.dataset.base.files import File, FileSet
from libertem.io.dataset.base.framefile import (
    FrameFileDataSet,
    FrameFileParams,
    check_extension,
    renamed_parameter,
)
from libertem.io.dataset.base.metadata import Metadata
from libertem.io.dataset.base.packing import Packing
from libertem.io.dataset.mib.files import MIBFacts, count_frames, inspect_acquisition
from libertem.io.dataset.mib.header import PIXELS_PER_WORD, Encoding
from libertem.io.dataset.mib.metadata import read_metadata

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.common.protocols import ExecutorProtocol

__all__ = ["MIBDataSet", "MIBDatasetParams", "MIBFile", "MIBPacking"]

EXTENSIONS = {"mib", "hdr"}


class MIBPacking(Packing):
    """Raw pixels of one chip or of four.

    Parameters
    ----------
    encoding : Encoding
        With ``is_raw``.
    """

    def __init__(self, encoding: Encoding) -> None:
        super().__init__(encoding.dtype, encoding.sig_shape, encoding.image_bytes)
        self.depth = encoding.counter_depth
        self.is_quad = encoding.is_quad

    def unpack(
        self,
        part: int,
        stored: npt.NDArray[np.uint8],
        starts: npt.NDArray[np.int64],
        first_row: int,
        out: npt.NDArray[Any],
    ) -> None:
        """Decode some rows of some frames."""
        from libertem.io.dataset.mib.kernels import unpack_24_bit, unpack_chip, unpack_quad

        height, width = self.frame_shape
        n_rows = out.shape[1]
        row_words = width // PIXELS_PER_WORD[self.depth]
        first_byte, n_words = 8 * row_words * first_row, row_words * n_rows
        flat = out.reshape(-1).view(np.uint8)
        if self.is_quad:
            unpack_quad(stored, starts, first_row, n_rows, height // 2, row_words // 2, flat, self.depth)
        elif self.depth == 24:
            unpack_24_bit(stored, starts, first_byte, self.part_bytes // 2, n_words, flat)
        else:
            unpack_chip(stored, starts, first_byte, n_words, flat, flat.size // len(starts), self.depth)


class MIBFile(NamedTuple):
    """A file and what its first header says, for programs that simulate the detector."""

    path: str
    fields: dict[str, Any]


class MIBDatasetParams(FrameFileParams):
    """JSON parameters of MIB files."""

    SCHEMA = FrameFileParams.make_schema("MIB")


class MIBDataSet(FrameFileDataSet):
    """Read data of Merlin detectors (Medipix3): one or more ``.mib`` files, usually with an ``.hdr`` file.

    Integers of 8, 16, 32 and 64 bit are read from all arrangements of chips; raw data of 1, 6 and 12 bit from
    one chip and from four as 2x2, of 24 bit from one chip.

    Parameters
    ----------
    path : str or path-like
        The ``.hdr`` file, or one of the ``.mib`` files. All files ``prefix*.mib`` are loaded, where `prefix`
        is the name of the ``.hdr`` file, or that of the ``.mib`` file without its number.
    tileshape
        Deprecated, ignored.
    scan_size
        Deprecated, use `nav_shape`.
    disable_glob : bool
        Load only the ``.mib`` file given.
    nav_shape : sequence of int, optional
        Shape of the scan, any number of axes. May be left out with an ``.hdr`` file, which tells it from
        ``ScanX`` and ``ScanY``, or from ``Frames in Acquisition`` and ``Frames per Trigger``: not for a
        trigger per scan position or a single trigger for all.
    sig_shape : sequence of int, optional
        Another shape for as many pixels as a frame has.
    sync_offset : int
        Frames to skip (> 0) or blanks to insert (< 0) at the start.
    io_backend : IOBackend, optional
        How to read.
    num_partitions : int, optional
        Overrides the number of partitions.

    Raises
    ------
    DataSetException
        If files are missing, damaged, of several acquisitions or of an unsupported kind, or the shapes do
        not fit them.
    ValueError
        If `nav_shape` is missing and `path` is no ``.hdr`` file.

    Examples
    --------
    >>> ds = ctx.load("mib", path="default.hdr")  # doctest: +SKIP
    >>> ds = ctx.load("mib", path="default64.mib", nav_shape=(256, 256))  # doctest: +SKIP
    """

    _facts: MIBFacts | None

    def __init__(
        self,
        path: Any,
        tileshape: Any = None,
        scan_size: Any = None,
        disable_glob: bool = False,
        nav_shape: Any = None,
        sig_shape: Any = None,
        sync_offset: int | None = 0,
        io_backend: IOBackend | None = None,
        num_partitions: int | None = None,
    ) -> None:
        if tileshape is not None:
            warnings.warn("tileshape argument is ignored and will be removed", FutureWarning, stacklevel=2)
        nav_shape = renamed_parameter("scan_size", scan_size, "nav_shape", nav_shape)
        super().__init__(os.fspath(path), nav_shape, sig_shape, sync_offset, io_backend, num_partitions)
        self._disable_glob = disable_glob
        is_hdr = self._path.lower().endswith(".hdr")
        if nav_shape is None and not is_hdr:
            raise ValueError(
                f"{self._path}: either nav_shape needs to be passed, or path needs to point to a .hdr file"
            )
        check_extension(self._path, EXTENSIONS)
        if disable_glob and is_hdr:
            raise DataSetException(
                "disable_glob=True loads a single file",
                path=self._path,
                found="an .hdr file",
                expected="a .mib file",
                hint="pass the path of the .mib file and nav_shape",
            )

    @classmethod
    def get_supported_extensions(cls) -> set[str]:
        """``.mib`` and ``.hdr``."""
        return EXTENSIONS

    @classmethod
    def get_msg_converter(cls) -> type[MIBDatasetParams]:
        """Converter of JSON parameters."""
        return MIBDatasetParams

    @classmethod
    def recognize(cls, path: str, executor: ExecutorProtocol) -> dict[str, Any]:
        """Files with a frame header. The scan shape is that of the ``.hdr`` file, or a square if possible."""
        check_extension(path, EXTENSIONS)
        return executor.run_function(_recognize, path)

    def _inspect(self) -> MIBFacts:
        return inspect_acquisition(
            self._path, disable_glob=self._disable_glob, needs_nav_shape=self._nav_shape is None
        )

    def _read_metadata(self) -> Metadata:
        assert self._facts is not None
        return read_metadata(self._path, self._facts)

    def _get_packing(self) -> Packing | None:
        """How raw pixels are stored, None for integers."""
        assert self._facts is not None
        return MIBPacking(self._facts.encoding) if self._facts.encoding.is_raw else None

    def _get_fileset(self) -> FileSet:
        assert self._facts is not None
        facts = self._facts
        native_dtype, sig_shape = facts.dtype, self.shape.sig.to_tuple()
        if facts.encoding.is_raw:
            native_dtype, sig_shape = np.dtype("u1"), (facts.encoding.image_bytes,)
        stops = accumulate(facts.n_frames)
        files = [
            File(
                path=os.path.join(facts.folder, name),
                start_idx=stop - n_frames,
                end_idx=stop,
                native_dtype=native_dtype,
                sig_shape=sig_shape,
                frame_header=facts.header.header_bytes,
            )
            for name, n_frames, stop in zip(facts.names, facts.n_frames, stops, strict=True)
        ]
        return FileSet(files, frame_header_bytes=facts.header.header_bytes)

    @property
    def _files_sorted(self) -> list[MIBFile]:
        """Files in the order of their frames. Programs that simulate the detector rely on it."""
        assert self._facts is not None
        fields = {
            "header_size_bytes": self._facts.header.header_bytes,
            "image_size_bytes": self._facts.encoding.image_bytes,
            "bits_per_pixel": self._facts.encoding.counter_depth,
        }
        return [MIBFile(os.path.join(self._facts.folder, name), fields) for name in self._facts.names]

    def get_diagnostics(self) -> list[dict[str, Any]]:
        """What the frame header says."""
        assert self._facts is not None
        return [
            {"name": "Bits per pixel", "value": str(self._facts.encoding.counter_depth)},
            {"name": "Data kind", "value": "r" if self._facts.encoding.is_raw else "u"},
            {"name": "Layout", "value": str(self._facts.header.layout)},
            {"name": "Number of files", "value": str(len(self._facts.names))},
            {"name": "Time stamp", "value": self._facts.header.timestamp or "unknown"},
            *super().get_diagnostics(),
        ]

    def get_cache_key(self) -> dict[str, Any]:
        """Path, shape, dtype, sync offset, and whether other files belong to the path."""
        return {**super().get_cache_key(), "disable_glob": self._disable_glob}


def _recognize(path: str) -> dict[str, Any]:
    encoding, image_count, hdr = count_frames(path)
    nav_shape = make_2D_square((image_count,))
    if hdr is not None:
        try:
            nav_shape = hdr.nav_shape(image_count, path=path)
        except ShapeError:
            # The user has to say it then; the type is clear nevertheless.
            pass
    return {
        "parameters": {"path": path, "nav_shape": nav_shape, "sig_shape": encoding.sig_shape},
        "info": {"image_count": image_count, "native_sig_shape": encoding.sig_shape},
    }
