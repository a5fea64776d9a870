"""The data set class for SEQ files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.math import make_2D_square
from libertem.exceptions import HeaderError
from libertem.io.corrections.corrset import CorrectionSet
from libertem.io.dataset.base.backends.contract import IOBackend
from libertem.io.dataset.base.files import File, FileSet
from libertem.io.dataset.base.framefile import (
    FrameFacts,
    FrameFileDataSet,
    FrameFileParams,
    read_head,
    renamed_parameter,
)
from libertem.io.dataset.base.metadata import Metadata
from libertem.io.dataset.seq.header import HEADER_BYTES, SEQHeader, parse_header
from libertem.io.dataset.seq.metadata import read_metadata
from libertem.io.dataset.seq.sidecars import Sidecars, read_sidecars

if TYPE_CHECKING:
    from libertem.common.protocols import ExecutorProtocol

__all__ = ["SEQDataSet", "SEQDatasetParams"]


@dataclass(frozen=True, kw_only=True)
class SEQFacts(FrameFacts):
    """What a SEQ file and its sidecars hold."""

    header: SEQHeader
    sidecars: Sidecars


def inspect_file(path: str) -> SEQFacts:
    """Facts about a SEQ file, from its header, its size and the files beside it."""
    header, image_count = _read_header(path)
    header.check_supported(path)
    sidecars = read_sidecars(path, header.sig_shape) if image_count > 0 else Sidecars()
    return SEQFacts(
        dtype=header.dtype,
        image_count=image_count,
        nav_shape=(),
        sig_shape=header.sig_shape,
        notices=sidecars.notices,
        header=header,
        sidecars=sidecars,
    )


def recognize_file(path: str) -> SEQFacts:
    """Facts about a SEQ file from its header, also about one that cannot be read."""
    header, image_count = _read_header(path)
    if image_count < 1 or not header.has_readable_texts:
        raise HeaderError(
            "a SEQ file without frames, or with damaged texts",
            path=path,
            found=f"{image_count} frames, name {header.fields['name']!r}",
        )
    return SEQFacts(
        dtype=np.dtype(np.uint8),
        image_count=image_count,
        nav_shape=make_2D_square((image_count,)),
        sig_shape=header.sig_shape,
        header=header,
        sidecars=Sidecars(),
    )


def _read_header(path: str) -> tuple[SEQHeader, int]:
    """Header, and number of whole frames in the file. That in the header is often wrong."""
    head = read_head(path, HEADER_BYTES)
    header = parse_header(head.raw, path=path)
    return header, header.frames_in(head.size)


class SEQDatasetParams(FrameFileParams):
    """JSON parameters of SEQ files."""

    SCHEMA = {**FrameFileParams.make_schema("SEQ"), "required": ["type", "path", "nav_shape"]}


class SEQDataSet(FrameFileDataSet):
    """Read SEQ files of Norpix StreamPix: uncompressed monochrome frames.

    A last frame that is cut off is left out. All fields of the header are in ``meta.metadata``, by the names
    of `libertem.io.dataset.seq.header.HEADER_DTYPE`.

    Dark frame, gain map and defective pixels that Direct Electron cameras put beside the file are applied to
    all computations, unless other corrections are given. See `get_correction_data`.

    Parameters
    ----------
    path : str or path-like
        The file.
    scan_size
        Deprecated, use `nav_shape`.
    nav_shape : sequence of int
        Shape of the scan, any number of axes. It has to be given: the file knows nothing about it. Frames
        that the file lacks are blank.
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
    TypeError
        If no `nav_shape` is given.
    DataSetException
        If this is no SEQ file, its pixels cannot be read, or the parameters do not fit it.

    Examples
    --------
    >>> ds = ctx.load("seq", path="/path/to/file.seq", nav_shape=(1024, 1024))  # doctest: +SKIP
    """

    _facts: SEQFacts | None

    def __init__(
        self,
        path: Any,
        scan_size: Any = None,
        nav_shape: Any = None,
        sig_shape: Any = None,
        sync_offset: int | None = 0,
        io_backend: IOBackend | None = None,
        num_partitions: int | None = None,
    ) -> None:
        nav_shape = renamed_parameter("scan_size", scan_size, "nav_shape", nav_shape)
        if nav_shape is None:
            raise TypeError(
                "missing 1 required argument: 'nav_shape' (SEQ files do not know the scan: "
                "pass nav_shape=(height, width), or (n,) for a series of n frames)"
            )
        super().__init__(path, nav_shape, sig_shape, sync_offset, io_backend, num_partitions)
        self._corrections = CorrectionSet()

    @classmethod
    def get_supported_extensions(cls) -> set[str]:
        """``.seq``."""
        return {"seq"}

    @classmethod
    def get_msg_converter(cls) -> type[SEQDatasetParams]:
        """Converter of JSON parameters."""
        return SEQDatasetParams

    @classmethod
    def recognize(cls, path: str, executor: ExecutorProtocol) -> dict[str, Any]:
        """The header, whatever the file is called. The scan shape is a square if it can be one."""
        facts = executor.run_function(recognize_file, path)
        return cls._detected(path, facts, facts.nav_shape)

    def initialize(self, executor: ExecutorProtocol) -> SEQDataSet:
        """Read header and sidecars on a worker."""
        super().initialize(executor)
        facts = self._facts
        assert facts is not None
        self._initialized().metadata = facts.header.fields
        self._corrections = self._make_corrections(facts.sidecars)
        # So that their arrays are not kept, and sent to workers, twice.
        self._facts = replace(facts, sidecars=Sidecars())
        return self

    def _make_corrections(self, sidecars: Sidecars) -> CorrectionSet:
        sig_shape = self.shape.sig.to_tuple()
        arrays = (sidecars.dark, sidecars.gain, sidecars.excluded)
        dark, gain, excluded = (None if array is None else array.reshape(sig_shape) for array in arrays)
        # Three defective rows side by side have pixels without any usable neighbour, which is no reason not
        # to read the frames.
        return CorrectionSet(dark, gain, excluded, allow_empty=True)

    def get_correction_data(self) -> CorrectionSet:
        """Dark frame, gain map and defective pixels from the files beside the SEQ file."""
        return self._corrections

    def _inspect(self) -> SEQFacts:
        return inspect_file(self._path)

    def _read_metadata(self) -> Metadata:
        assert self._facts is not None
        return read_metadata(self._path, self._facts.header)

    def _get_fileset(self) -> FileSet:
        assert self._facts is not None
        header = self._facts.header
        file = File(
            path=self._path,
            start_idx=0,
            end_idx=self._image_count,
            native_dtype=header.dtype,
            sig_shape=self.shape.sig,
            frame_footer=header.footer_bytes,
            file_header=header.image_offset,
        )
        return FileSet([file], frame_footer_bytes=header.footer_bytes)

    def get_diagnostics(self) -> list[dict[str, Any]]:
        """All fields of the header, and which corrections there are."""
        assert self._facts is not None
        header, corrections = self._facts.header, self._corrections
        excluded = corrections.get_excluded_pixels()
        return [
            *({"name": name, "value": str(value)} for name, value in header.fields.items()),
            {"name": "Footer size", "value": str(header.footer_bytes)},
            {"name": "Dark frame included", "value": str(corrections.get_dark_frame() is not None)},
            {"name": "Gain map included", "value": str(corrections.get_gain_map() is not None)},
            {"name": "Excluded pixels", "value": "no map" if excluded is None else str(excluded.nnz)},
            *({"name": "Sidecar left out", "value": notice} for notice in self._facts.notices),
            *super().get_diagnostics(),
        ]
