"""The data set class for TVIPS series."""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from libertem.common.math import make_2D_square
from libertem.exceptions import DataSetException
from libertem.io.dataset.base.backends.contract import IOBackend
from libertem.io.dataset.base.files import File, FileSet
from libertem.io.dataset.base.framefile import (
    FrameFacts,
    FrameFileDataSet,
    FrameFileParams,
    check_extension,
    read_head,
)
from libertem.io.dataset.base.metadata import Metadata
from libertem.io.dataset.tvips.header import (
    HEADER_BYTES,
    ROTATOR,
    SCAN_POSITION,
    ImageHeaderField,
    TVIPSHeader,
    parse_header,
)
from libertem.io.dataset.tvips.metadata import describe
from libertem.io.dataset.tvips.scan import MAX_SCAN_START, ScanGuess, guess_from_rotator, infer_scan
from libertem.io.dataset.tvips.series import (
    Series,
    count_frames,
    file_header_bytes,
    find_series,
    read_field,
)

if TYPE_CHECKING:
    from libertem.common.protocols import ExecutorProtocol

__all__ = ["TVIPSDataSet", "TVIPSDatasetParams"]


@dataclass(frozen=True, kw_only=True)
class TVIPSFacts(FrameFacts):
    """What a series holds."""

    header: TVIPSHeader

    series: Series

    counts: tuple[int, ...]
    """Number of frames in each file."""

    guess: ScanGuess | None
    """What image headers say about the scan; None if they do not, or were not asked."""


def inspect_series(path: str, *, infer: bool = True) -> TVIPSFacts:
    """Facts about the series that a file belongs to.

    Parameters
    ----------
    infer : bool
        Whether to look for a scan in the image headers.
    """
    series = find_series(path)
    first = series.paths[0]
    head = read_head(first, HEADER_BYTES)
    header = parse_header(head.raw, path=first)
    counts, notices = count_frames(series, header)
    n = sum(counts)
    if n == 0:
        raise DataSetException(
            "the series contains no frames",
            path=first,
            found=f"{head.size} bytes",
            expected=f"at least {HEADER_BYTES + header.stride} for a frame of {header.sig_shape}",
            hint="copy the files again: the transfer probably broke off",
        )
    guess = None
    if infer and header.has_field(SCAN_POSITION):
        frames = range(min(n, MAX_SCAN_START))
        with closing(read_field(SCAN_POSITION, series, counts, header, frames)) as values:
            guess = infer_scan(map(_as_position, values), n)
    return TVIPSFacts(
        dtype=header.dtype,
        image_count=n,
        nav_shape=(n,) if guess is None else guess.nav_shape,
        sig_shape=header.sig_shape,
        notices=(*series.notices, *notices),
        sync_offset=0 if guess is None else guess.sync_offset,
        header=header,
        series=series,
        counts=tuple(counts),
        guess=guess,
    )


def _as_position(values: tuple[float, float]) -> tuple[int, int] | None:
    """(y, x) of the fields x and y."""
    x, y = values
    return (int(y), int(x)) if math.isfinite(x) and math.isfinite(y) else None


def recognize_series(path: str) -> tuple[TVIPSFacts, ScanGuess]:
    """Facts about a series, and a proposal for the scan where they do not say."""
    facts = inspect_series(path)
    guess = facts.guess
    if guess is None and facts.header.has_field(ROTATOR):
        guess = _guess_from_rotator(facts)
    return facts, guess or ScanGuess(0, make_2D_square((facts.image_count,)))


def _guess_from_rotator(facts: TVIPSFacts) -> ScanGuess | None:
    def read(frames: range) -> Generator[tuple[int, ...], None, None]:
        return read_field(ROTATOR, facts.series, facts.counts, facts.header, frames)

    def value_at(frame_idx: int) -> int:
        return next(read(range(frame_idx, frame_idx + 1)))[0]

    n = facts.image_count
    with closing(read(range(min(n, MAX_SCAN_START)))) as values:
        return guess_from_rotator((value for (value,) in values), value_at, n)


class TVIPSDatasetParams(FrameFileParams):
    """JSON parameters of TVIPS series."""

    SCHEMA = FrameFileParams.make_schema("TVIPS")


class TVIPSDataSet(FrameFileDataSet):
    """Read image series of TVIPS cameras: all files of a set, given any of them.

    Shape and start of a scan are taken from the scan positions in the image headers, if there are any.
    An incomplete frame at the end of the last file is ignored with a warning.

    Parameters
    ----------
    path : str or path-like
        Any file of the series.
    nav_shape : sequence of int, optional
        Shape of the scan, any number of axes. By default as the image headers say, or
        ``(number of frames,)``. Frames that the series lacks are blank.
    sig_shape : sequence of int, optional
        Another shape for as many pixels as a frame has.
    sync_offset : int, optional
        Frames to skip (> 0) or blanks to insert (< 0) at the start. By default as the image headers say.
    io_backend : IOBackend, optional
        How to read.
    num_partitions : int, optional
        Overrides the number of partitions.

    Raises
    ------
    DataSetException
        If this is no TVIPS series, its first file is missing, or the parameters do not fit it.

    Examples
    --------
    >>> ds = ctx.load("tvips", path="file_000.tvips", nav_shape=(16, 16))  # doctest: +SKIP
    """

    _facts: TVIPSFacts | None

    def __init__(
        self,
        path: Any,
        nav_shape: tuple[int, ...] | None = None,
        sig_shape: tuple[int, ...] | None = None,
        sync_offset: int | None = None,
        io_backend: IOBackend | None = None,
        num_partitions: int | None = None,
    ) -> None:
        super().__init__(path, nav_shape, sig_shape, sync_offset, io_backend, num_partitions)

    @classmethod
    def get_supported_extensions(cls) -> set[str]:
        """``.tvips``."""
        return {"tvips"}

    @classmethod
    def get_msg_converter(cls) -> type[TVIPSDatasetParams]:
        """Converter of JSON parameters."""
        return TVIPSDatasetParams

    @classmethod
    def recognize(cls, path: str, executor: ExecutorProtocol) -> dict[str, Any]:
        """Extension, then headers. Without scan positions the scan shape is a square, if possible."""
        check_extension(path, cls.get_supported_extensions())
        facts, guess = executor.run_function(recognize_series, path)
        detected = cls._detected(path, facts, guess.nav_shape)
        detected["parameters"]["sync_offset"] = guess.sync_offset
        return detected

    def _inspect(self) -> TVIPSFacts:
        return inspect_series(self._path, infer=self._nav_shape is None or self._sync_offset is None)

    def _read_metadata(self) -> Metadata:
        assert self._facts is not None
        facts = self._facts
        series_header = read_head(facts.series.paths[0], HEADER_BYTES).raw
        whole = ImageHeaderField(0, struct.Struct(f"{min(facts.header.image_header_bytes, 256)}s"))
        with closing(read_field(whole, facts.series, facts.counts, facts.header, range(1))) as values:
            (image_header,) = next(values)
        return describe(series_header, image_header)

    def _get_fileset(self) -> FileSet:
        assert self._facts is not None
        header, counts = self._facts.header, self._facts.counts
        paths = self._facts.series.paths
        stops = itertools.accumulate(counts)
        files = [
            File(
                path=path,
                start_idx=stop - count,
                end_idx=stop,
                native_dtype=header.dtype,
                sig_shape=self.shape.sig,
                frame_header=header.image_header_bytes,
                file_header=file_header_bytes(number),
            )
            for number, (path, count, stop) in enumerate(zip(paths, counts, stops, strict=True))
            if count > 0
        ]
        return FileSet(files, frame_header_bytes=header.image_header_bytes)

    def get_diagnostics(self) -> list[dict[str, Any]]:
        """Dtype, what the header says, and where the scan was found."""
        assert self._facts is not None
        header, guess = self._facts.header, self._facts.guess
        return [
            *super().get_diagnostics(),
            {"name": "Bits per pixel", "value": str(header.bits)},
            {"name": "High tension (kV)", "value": str(round(header.high_tension * 1e-3))},
            {"name": "Pixel size (nm)", "value": str(round(header.pixel_size * 1e9))},
            {"name": "Binning (x)", "value": str(header.binning[1])},
            {"name": "Binning (y)", "value": str(header.binning[0])},
            {"name": "File Format Version", "value": str(header.version)},
            {"name": "Number of files", "value": str(len(self._facts.counts))},
            {"name": "Image header bytes", "value": str(header.image_header_bytes)},
            {"name": "Scan start found", "value": "no" if guess is None else f"frame {guess.sync_offset}"},
        ]
