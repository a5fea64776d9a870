"""Read MRC and CCP4 files: one stack of sections, which are the frames.

| offset | bytes | type | meaning |
|-------:|------:|------|---------|
|      0 |  1024 |      | header, see `libertem.io.headers.mrc` |
|   1024 |     E |      | extended header; E stands in the header and may be odd |
| 1024 + E |     | by mode | frames of height · width pixels in C order, without gaps |

Neither the grid size (MX, MY, MZ) nor the order of the axes (MAPC, MAPR, MAPS) changes how frames are read:
all other readers ignore them, too. Frames are not flipped.

A scan shape is only guessed for detection. Direct Electron writes it to a text file of ``key = value`` lines
beside the movie: ``20240101_00012_movie.mrc`` goes with ``20240101_00012_info.txt``.

Sources: those of the header; file names and keys as found beside data of Direct Electron cameras.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from libertem.common.math import make_2D_square, prod
from libertem.exceptions import DataSetException
from libertem.io.dataset.base.files import File, FileSet
from libertem.io.dataset.base.framefile import (
    PROBE_BYTES,
    FrameFacts,
    FrameFileDataSet,
    FrameFileParams,
    check_extension,
    read_head,
)
from libertem.io.dataset.base.metadata import (
    Axis,
    Metadata,
    axis_of,
    fill_axes,
    make_metadata,
    plain_header,
)
from libertem.io.headers.mrc import (
    FEI_RECORD_BYTES,
    HEADER_BYTES,
    MRCHeader,
    fei_fields,
    fei_scan_shape,
    header_fields,
    parse_header,
)

if TYPE_CHECKING:
    from libertem.common.protocols import ExecutorProtocol

__all__ = ["MRCDataSet", "MRCDatasetParams"]

HEAD_BYTES = HEADER_BYTES + FEI_RECORD_BYTES

VOLUME = 1
"""Space group of volumes, where the distance of sections has a meaning."""

MAX_PIXEL_SIZE = 1e-3
"""No microscope has larger pixels, in metres."""
MIN_RECIPROCAL_PIXEL_SIZE = 1e3
"""A diffraction pattern with smaller pixels, in reciprocal metres, would be one of millimetres."""

MOVIE_NAME = re.compile(r"(\d{8}_[^_]+)_(?:.*_)?movie\.mrc", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class MRCFacts(FrameFacts):
    """What an MRC file holds."""

    header: MRCHeader


def inspect_file(path: str) -> MRCFacts:
    """Facts about an MRC file, from its header and size."""
    return _inspect_head(path)[0]


def _inspect_head(path: str) -> tuple[MRCFacts, bytes]:
    head = read_head(path, HEAD_BYTES)
    header = parse_header(head.raw, path=path, file_size=head.size)
    present, claimed = header.sections_in(head.size), header.section_count
    if present < 1:
        raise DataSetException(
            "the MRC file contains no frames",
            path=path,
            found=f"{head.size} bytes",
            expected=f"{header.data_offset + header.frame_bytes} or more for frames of {header.sig_shape}",
            hint="copy the file again: the transfer probably broke off",
        )
    lack = f"{path}: the header promises {claimed} frames, the file holds {present} whole ones: reading those"
    image_count = min(claimed, present) if claimed > 0 else present
    facts = MRCFacts(
        dtype=header.dtype,
        image_count=image_count,
        nav_shape=(image_count,),
        sig_shape=header.sig_shape,
        notices=(lack,) if claimed > present else (),
        header=header,
    )
    return facts, head.raw


def recognize_file(path: str) -> tuple[MRCFacts, tuple[int, ...]]:
    """Facts about an MRC file, and the likely scan shape."""
    facts, raw = _inspect_head(path)
    if facts.image_count > 1:
        for nav_shape in (fei_scan_shape(raw, facts.header), direct_electron_scan_shape(path)):
            if nav_shape is not None and prod(nav_shape) == facts.image_count:
                return facts, nav_shape
    return facts, make_2D_square((facts.image_count,))


def direct_electron_scan_shape(path: str) -> tuple[int, int] | None:
    """Scan shape in the text file that Direct Electron puts beside a movie, None if there is none."""
    movie = MOVIE_NAME.fullmatch(os.path.basename(path))
    if movie is None:
        return None
    stem = glob.escape(os.path.join(os.path.dirname(path), movie[1]))
    for sidecar in (f"{stem}_info.txt", f"{stem}_*_info.txt"):
        for name in sorted(glob.glob(sidecar)):
            head = read_head(name, PROBE_BYTES - HEAD_BYTES)
            return parse_info(head.raw)
    return None


def parse_info(raw: bytes) -> tuple[int, int] | None:
    """Scan shape in the text file of Direct Electron, None unless it says that the scan was a raster."""
    lines = raw.decode("utf-8", "replace").splitlines()
    values = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}
    if values.get("Scan - Enable") != "Enable" or values.get("Scan - Type") != "Raster":
        return None
    part = "ROI Size" if values.get("Scan - ROI Enable") == "Enable" else "Size"
    extents = [values.get(f"Scan - {part} {axis}", "") for axis in "YX"]
    if not all(re.fullmatch("[1-9][0-9]{0,8}", extent) for extent in extents):
        return None
    return int(extents[0]), int(extents[1])


def read_metadata(path: str) -> Metadata:
    """What the header and the first record of an FEI extended header say about the experiment."""
    head = read_head(path, HEAD_BYTES)
    header = parse_header(head.raw, path=path, file_size=head.size)
    fields, fei = header_fields(head.raw, header), fei_fields(head.raw, header)
    z, *cell_axes = _cell_axes(fields)
    # Cells are in Ångström by definition, which diffraction patterns of FEI software are not.
    sig_axes = [_fei_axis(fei, axis) for axis in "yx"] if fei else cell_axes
    return make_metadata(
        [
            ("voltage", fei.get("high tension"), "V", "high tension"),
            ("camera_length", fei.get("camera length"), "m", "camera length"),
            ("dwell_time", fei.get("dwell time") or None, "s", "dwell time"),
        ],
        detector=fei.get("camera name") or None,
        nav_axes=fill_axes([z if fields["ISPG"] == VOLUME else None]),
        sig_axes=fill_axes(sig_axes, "k"),
        header=plain_header({**fields, **({header.extended_type: fei} if fei else {})}),
    )


def _cell_axes(fields: Mapping[str, Any]) -> list[Axis | None]:
    """Axes z, y and x from the size of the cell; None where it has none."""
    if tuple(fields[name] for name in ("MAPC", "MAPR", "MAPS")) not in ((1, 2, 3), (0, 0, 0)):
        return [None] * 3
    axes = []
    for name, direction, extent in zip(("z", "ky", "kx"), "zyx", reversed(fields["CELLA"]), strict=True):
        n = fields[f"M{direction.upper()}"]
        # Direct Electron writes negative sizes, others zeros.
        step = float(extent) / n if extent > 0 and n > 0 else 0
        axes.append(axis_of(name, step, "Å", f"CELLA {direction} / M{direction.upper()}"))
    return axes


def _fei_axis(fei: Mapping[str, Any], axis: str) -> Axis | None:
    """Pixel size, which is in metres or, of diffraction patterns, reciprocal metres: its size tells which."""
    source = f"pixel size {axis}"
    step = fei.get(source, 0.0)
    if 0 < step < MAX_PIXEL_SIZE:
        return axis_of(f"k{axis}", step, "m", source)
    return axis_of(f"k{axis}", step, "1/m", source) if step > MIN_RECIPROCAL_PIXEL_SIZE else None


class MRCDatasetParams(FrameFileParams):
    """JSON parameters of MRC files."""

    SCHEMA = FrameFileParams.make_schema("MRC")


class MRCDataSet(FrameFileDataSet):
    """Read MRC files: sections as frames, in both byte orders and all integer, float and complex modes.

    A file that holds fewer whole frames than its header says is read as far as it goes, with a warning.

    Parameters
    ----------
    path : str or path-like
        The file.
    nav_shape : sequence of int, optional
        Shape of the scan, any number of axes; ``(number of frames,)`` by default. Frames that the file lacks
        are blank.
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
        If this is no MRC file, has no frames, or the parameters do not fit it.

    Examples
    --------
    >>> ds = ctx.load("mrc", path="f.mrc", nav_shape=(4, 4))  # doctest: +SKIP
    """

    _facts: MRCFacts | None

    @classmethod
    def get_supported_extensions(cls) -> set[str]:
        """``.mrc``."""
        return {"mrc"}

    @classmethod
    def get_msg_converter(cls) -> type[MRCDatasetParams]:
        """Converter of JSON parameters."""
        return MRCDatasetParams

    @classmethod
    def recognize(cls, path: str, executor: ExecutorProtocol) -> dict[str, Any]:
        """Extension, then header. The scan shape comes from the header or a text file, or is a square."""
        check_extension(path, cls.get_supported_extensions())
        facts, nav_shape = executor.run_function(recognize_file, path)
        return cls._detected(path, facts, nav_shape)

    def _inspect(self) -> MRCFacts:
        return inspect_file(self._path)

    def _read_metadata(self) -> Metadata:
        return read_metadata(self._path)

    def _get_fileset(self) -> FileSet:
        assert self._facts is not None
        return FileSet(
            [
                File(
                    path=self._path,
                    start_idx=0,
                    end_idx=self._image_count,
                    native_dtype=self._facts.dtype,
                    sig_shape=self.shape.sig,
                    file_header=self._facts.header.data_offset,
                )
            ]
        )

    def get_diagnostics(self) -> list[dict[str, Any]]:
        """Dtype, and what the header says."""
        assert self._facts is not None
        header = self._facts.header
        height, width = header.sig_shape
        return [
            *super().get_diagnostics(),
            {"name": "MRC mode", "value": header.mode},
            {"name": "NX, NY, NZ", "value": f"{width}, {height}, {header.section_count}"},
            {"name": "Byte order", "value": "little endian" if header.byte_order == "<" else "big endian"},
            {"name": "Extended header type", "value": header.extended_type or "none given"},
            {"name": "Extended header bytes", "value": header.extended_bytes},
        ]
