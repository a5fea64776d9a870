"""Read blockfiles of NanoMegas (ASTAR, TopSPIN): scanning electron diffraction.

Behind the header, see `libertem.io.headers.blo`, come a virtual bright field image, padding, and the frame
records. A frame record:

| offset | bytes | type     | meaning                                        |
|-------:|------:|----------|------------------------------------------------|
|      0 |     2 |          | ``AA 55``                                      |
|      2 |     4 | u4       | number of the frame, from 0                    |
|      6 |       | u1 or u2 | pixels of the frame, row by row                |

Pixels have 8 bits, unless the magic is 0x0103 and a line of the note says ``Blo Bit Depth: 16 bits``.

Sources: files written by instruments and by RosettaSciIO. No public document describes the format.
"""

from __future__ import annotations

import struct
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.math import prod
from libertem.exceptions import HeaderError, SizeMismatchError
from libertem.io.dataset.base.backends.contract import IOBackend
from libertem.io.dataset.base.backends.rawio import RawFile
from libertem.io.dataset.base.files import File, FileSet
from libertem.io.dataset.base.framefile import FrameFacts, FrameFileDataSet, FrameFileParams, read_head
from libertem.io.dataset.base.metadata import Metadata, axis_of, fill_axes, make_metadata, plain_header
from libertem.io.headers.blo import (
    HEAD_BYTES,
    IDENTIFIER,
    MAGIC_CLASSIC,
    RECORD_HEADER_BYTES,
    BloHeader,
    ByteOrder,
    header_fields,
    parse_header,
)

if TYPE_CHECKING:
    from libertem.common.protocols import ExecutorProtocol

__all__ = ["BloDataSet", "BloDatasetParams", "BloHeader", "parse_header"]

RECORD_MARK = b"\xaa\x55"


@dataclass(frozen=True, kw_only=True)
class BloFacts(FrameFacts):
    """What a blockfile holds."""

    header: BloHeader


def inspect_file(path: str, byte_order: ByteOrder) -> BloFacts:
    """Facts about a blockfile, from its header and size."""
    head = read_head(path, HEAD_BYTES)
    header = parse_header(head.raw, path=path, byte_order=byte_order)
    itemsize, notices = find_itemsize(header, path=path, file_size=head.size, byte_order=byte_order)
    first_end = header.data_offset + header.record_bytes(itemsize)
    if head.size < first_end:
        raise SizeMismatchError(
            "the file ends before its first frame is complete",
            path=path,
            found=f"{head.size} bytes",
            expected=f"{first_end} or more for a frame of {header.sig_shape} at byte {header.data_offset}",
            hint="copy the file again: the transfer probably broke off",
        )
    claimed = prod(header.nav_shape)
    present = (head.size - header.data_offset) // header.record_bytes(itemsize)
    if present < claimed:
        notices.append(
            f"{path}: the header promises {claimed} frames, the file holds {present} whole ones:"
            " reading those, the other scan positions are blank"
        )
    return BloFacts(
        dtype=np.dtype(f"{byte_order}u{itemsize}"),
        image_count=min(claimed, present),
        nav_shape=header.nav_shape,
        sig_shape=header.sig_shape,
        notices=tuple(notices),
        header=header,
    )


def find_itemsize(
    header: BloHeader, *, path: str, file_size: int, byte_order: ByteOrder
) -> tuple[int, list[str]]:
    """Bytes per pixel, and what the user has to know about it.

    Where the note says neither 8 nor 16 bits, or the file has exactly the size for the other of them, the
    second frame record tells by its place, or else the size of the file.
    """
    if header.magic == MAGIC_CLASSIC:
        return 1, []
    bits = header.stated_bits
    sizes = {itemsize: header.whole_file_bytes(itemsize) for itemsize in (1, 2)}
    if bits is None or bits in (8, 16):
        stated = 2 if bits == 16 else 1
        if file_size != sizes[3 - stated]:
            return stated, []
        itemsize = stated if bits is not None else 2
    else:
        preferred = (2, 1) if bits > 8 else (1, 2)
        itemsize = next((size for size in preferred if sizes[size] <= file_size), preferred[0])
    marked = [size for size in (1, 2) if _is_second_record_there(header, size, path, file_size, byte_order)]
    if len(marked) == 1:
        itemsize = marked[0]
    if bits == 8 * itemsize:
        return itemsize, []
    said = "no bit depth" if bits is None else f"a bit depth of {bits}"
    notice = f"{path}: the note gives {said}, the frames seem to have {8 * itemsize} bit: reading those"
    return itemsize, [notice]


def _is_second_record_there(
    header: BloHeader, itemsize: int, path: str, file_size: int, byte_order: ByteOrder
) -> bool:
    """Whether the record of frame 1 starts where it does with pixels of that size."""
    start = header.data_offset + header.record_bytes(itemsize)
    found = np.zeros(RECORD_HEADER_BYTES, dtype=np.uint8)
    if start + found.size <= file_size:
        with RawFile(path) as file:
            file.read_into(found, start)
    return found.tobytes() == RECORD_MARK + struct.pack(f"{byte_order}I", 1)


def recognize_file(path: str) -> BloFacts:
    """Facts about a file that calls itself a blockfile in its first bytes."""
    facts = inspect_file(path, "<")
    if facts.header.identifier != IDENTIFIER:
        raise HeaderError(
            "not a blockfile", path=path, found=repr(facts.header.identifier), expected=repr(IDENTIFIER)
        )
    return facts


def read_metadata(path: str, byte_order: ByteOrder) -> Metadata:
    """What the header says about the experiment."""
    raw = read_head(path, HEAD_BYTES).raw
    parse_header(raw, path=path, byte_order=byte_order)
    fields = header_fields(raw, byte_order)
    scale = fields["SDP"]
    pixel = [axis_of(name, 100 / scale, "cm", "SDP") for name in ("ky", "kx")] if scale else []
    return make_metadata(
        [
            ("voltage", fields["Beam_energy"], "V", "Beam_energy"),
            ("camera_length", fields["Camera_length"] / 10, "mm", "Camera_length"),
            ("scan_rotation", fields["Scan_rotation"] / 100, "deg", "Scan_rotation"),
        ],
        nav_axes=fill_axes([axis_of("y", fields["SY"], "nm", "SY"), axis_of("x", fields["SX"], "nm", "SX")]),
        sig_axes=fill_axes(pixel, "k"),
        header=plain_header(fields),
    )


class BloDatasetParams(FrameFileParams):
    """JSON parameters of blockfiles."""

    SCHEMA = FrameFileParams.make_schema("BLO")


class BloDataSet(FrameFileDataSet):
    """Read blockfiles of NanoMegas: diffraction patterns of 8 or 16 bits.

    A file that holds fewer whole frames than its header says is read as far as it goes, with a warning.

    Parameters
    ----------
    path : str or path-like
        The file.
    tileshape
        Deprecated and without effect.
    endianess : str
        Byte order of header and pixels, ``"<"`` (little) or ``">"`` (big).
    nav_shape : sequence of int, optional
        Shape of the scan, any number of axes; by default as in the file. Frames that the file lacks are
        blank.
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
        If this is no blockfile, has no frames, or the parameters do not fit it.
    ValueError
        If `endianess` is neither ``"<"`` nor ``">"``.

    Examples
    --------
    >>> ds = ctx.load("blo", path="f.blo")  # doctest: +SKIP
    """

    _facts: BloFacts | None

    def __init__(
        self,
        path: Any,
        tileshape: Any = None,
        endianess: ByteOrder = "<",
        nav_shape: Any = None,
        sig_shape: Any = None,
        sync_offset: int | None = 0,
        io_backend: IOBackend | None = None,
        num_partitions: int | None = None,
    ) -> None:
        if tileshape is not None:
            warnings.warn("tileshape argument is deprecated, it has no effect", FutureWarning, stacklevel=2)
        if endianess not in ("<", ">"):
            raise ValueError(f"endianess has to be '<' or '>', found {endianess!r}")
        super().__init__(path, nav_shape, sig_shape, sync_offset, io_backend, num_partitions)
        self._endianess: ByteOrder = endianess

    @classmethod
    def get_supported_extensions(cls) -> set[str]:
        """``.blo``."""
        return {"blo"}

    @classmethod
    def get_msg_converter(cls) -> type[BloDatasetParams]:
        """Converter of JSON parameters."""
        return BloDatasetParams

    @classmethod
    def recognize(cls, path: str, executor: ExecutorProtocol) -> dict[str, Any]:
        """Header and size, whatever the extension."""
        facts = executor.run_function(recognize_file, path)
        detected = cls._detected(path, facts, facts.nav_shape)
        detected["parameters"]["endianess"] = "<"
        return detected

    @property
    def header(self) -> BloHeader:
        """The facts of the header. Raises `RuntimeError` before the data set is initialized."""
        self._initialized()
        assert self._facts is not None
        return self._facts.header

    def _inspect(self) -> BloFacts:
        return inspect_file(self._path, self._endianess)

    def _read_metadata(self) -> Metadata:
        return read_metadata(self._path, self._endianess)

    def _get_fileset(self) -> FileSet:
        assert self._facts is not None
        file = File(
            path=self._path,
            start_idx=0,
            end_idx=self._image_count,
            native_dtype=self._facts.dtype,
            sig_shape=self.shape.sig,
            frame_header=RECORD_HEADER_BYTES,
            file_header=self._facts.header.data_offset,
        )
        return FileSet([file], frame_header_bytes=RECORD_HEADER_BYTES)

    def get_diagnostics(self) -> list[dict[str, Any]]:
        """Dtype, and what the header says."""
        header = self.header
        step_y, step_x = header.scan_step
        return [
            *super().get_diagnostics(),
            {"name": "Magic number", "value": f"{header.magic:#06x}"},
            {"name": "Bits per pixel", "value": str(8 * self._initialized().raw_dtype.itemsize)},
            {"name": "Frames according to the header", "value": prod(header.nav_shape)},
            {"name": "Frames in the file", "value": self._image_count},
            {"name": "Scan step y, x (nm)", "value": f"{step_y * 1e9:g}, {step_x * 1e9:g}"},
            {"name": "Scan rotation (degrees)", "value": f"{header.scan_rotation:g}"},
            {"name": "High tension (kV)", "value": f"{header.beam_energy * 1e-3:g}"},
            {"name": "Camera length (mm)", "value": f"{header.camera_length * 1e3:g}"},
            {"name": "Note", "value": header.note},
        ]

    def get_cache_key(self) -> dict[str, Any]:
        """Path, byte order, shape and sync offset."""
        return {
            "path": self._path,
            "endianess": self._endianess,
            "shape": self.shape.to_tuple(),
            "sync_offset": self._sync_offset,
        }
