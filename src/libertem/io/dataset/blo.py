"""Read blockfiles of NanoMegas (ASTAR, TopSPIN): scanning electron diffraction.

The file starts with a header of 240 bytes without padding. Its byte order is that of the pixels;
little-endian in all files seen.

| offset | bytes | type     | meaning                                                             |
|-------:|------:|----------|---------------------------------------------------------------------|
|      0 |     6 | ascii    | ID, ``IMGBLO``                                                      |
|      6 |     2 | u2       | magic: 0x0102, or 0x0103 (format 1.3)                               |
|      8 |     4 | u4       | where the virtual bright field image starts; the note ends there    |
|     12 |     4 | u4       | where the frame records start                                       |
|     16 |     4 | u4       | unknown                                                             |
|     20 |     2 | u2       | height and width of a frame, pixels                                 |
|     22 |     2 | u2       | rotation of the frames                                              |
|     24 |     4 | u2, u2   | NX, NY: width and height of the scan                                |
|     28 |     2 | u2       | rotation of the scan, degrees · 100                                 |
|     30 |    16 | f8, f8   | SX, SY: scan step, nm                                               |
|     46 |     4 | u4       | beam energy, eV                                                     |
|     50 |     2 | u2       | detector scale, pixels per cm · 100                                 |
|     52 |     4 | u4       | camera length, mm · 10                                              |
|     56 |     8 | f8       | time of acquisition, days                                           |
|     64 |   176 | 22 of f8 | centering and distortion                                            |
|    240 |       | text     | note, padded with NUL                                               |

A frame record:

| offset | bytes | type     | meaning                                        |
|-------:|------:|----------|------------------------------------------------|
|      0 |     2 |          | ``AA 55``                                      |
|      2 |     4 | u4       | number of the frame, from 0                    |
|      6 |       | u1 or u2 | pixels of the frame, row by row                |

Pixels have 8 bits, unless the magic is 0x0103 and a line of the note says ``Blo Bit Depth: 16 bits``.

Sources: files written by instruments and by RosettaSciIO. No public document describes the format.
"""

from __future__ import annotations

import re
import struct
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from libertem.common.math import prod
from libertem.exceptions import HeaderError, SizeMismatchError
from libertem.io.dataset.base.backends.contract import IOBackend
from libertem.io.dataset.base.backends.rawio import RawFile
from libertem.io.dataset.base.files import File, FileSet
from libertem.io.dataset.base.framefile import FrameFacts, FrameFileDataSet, FrameFileParams, read_head

if TYPE_CHECKING:
    from libertem.common.protocols import ExecutorProtocol

__all__ = ["BloDataSet", "BloDatasetParams", "BloHeader", "parse_header"]

ByteOrder = Literal["<", ">"]

# Centering and distortion are of no use here and stay raw.
HEADER_FIELDS = "6sH3I5H2dIHId176s"
HEADER_BYTES = 240

HEAD_BYTES = 32 << 10
"""Header and note; notes of instruments end at 4096."""

IDENTIFIER = b"IMGBLO"
MAGIC_CLASSIC, MAGIC_1_3 = 0x0102, 0x0103

RECORD_MARK = b"\xaa\x55"
RECORD_HEADER_BYTES = 6

# Nine digits are more than any bit depth has, and few enough that nothing becomes slow.
BIT_DEPTH = re.compile(r"blo bit depth:\s*([0-9]{1,9})\s+bits", re.IGNORECASE)

NOTE_CHARS = 500
"""How much of the note is kept: it travels with the data set."""


@dataclass(frozen=True)
class BloHeader:
    """The facts of a blockfile header, in SI units."""

    identifier: bytes
    """``IMGBLO`` in all files seen."""

    magic: int
    """Version of the format."""

    data_offset: int
    """Where the first frame record starts, in bytes."""

    nav_shape: tuple[int, int]
    """(height, width) of the scan."""

    sig_shape: tuple[int, int]
    """(height, width) of a frame."""

    scan_step: tuple[float, float]
    """Distance of scan positions in y and x, in metres."""

    scan_rotation: float
    """Rotation of the scan in degrees."""

    beam_energy: float
    """In electronvolts."""

    camera_length: float
    """In metres."""

    note: str
    """Beginning of the text in the file."""

    stated_bits: int | None
    """Bits per pixel according to the note, None if it does not say."""

    def record_bytes(self, itemsize: int) -> int:
        """Bytes of a frame record with pixels of `itemsize` bytes."""
        return RECORD_HEADER_BYTES + prod(self.sig_shape) * itemsize

    def whole_file_bytes(self, itemsize: int) -> int:
        """Where the last record of a complete scan ends."""
        return self.data_offset + prod(self.nav_shape) * self.record_bytes(itemsize)


def parse_header(raw: bytes, *, path: str, byte_order: ByteOrder = "<") -> BloHeader:
    """Turn the beginning of a blockfile into a `BloHeader`.

    Parameters
    ----------
    raw : bytes
        The first 240 bytes and as much of the note as is there.
    path : str
        Where `raw` came from. Named in errors, never opened.
    byte_order : str
        ``"<"`` or ``">"``.

    Raises
    ------
    HeaderError
        If `raw` is too short, has another magic, or describes no frames.
    """
    if len(raw) < HEADER_BYTES:
        raise HeaderError(
            "the file ends inside its header",
            path=path,
            found=f"{len(raw)} bytes",
            expected=f"at least {HEADER_BYTES}",
            hint="copy the file again: the transfer probably broke off",
        )
    fields = struct.unpack_from(byte_order + HEADER_FIELDS, raw)
    identifier, magic, note_end, data_offset, _, dp_size, _, nx, ny, rotation, sx, sy, energy = fields[:13]
    _check_magic(magic, path)
    _check_geometry(dp_size, nx, ny, note_end, data_offset, path)
    note = raw[HEADER_BYTES:note_end].decode("utf-8", "ignore").strip("\0")
    lines = [line.strip() for line in note.splitlines()]
    return BloHeader(
        identifier=identifier,
        magic=magic,
        data_offset=data_offset,
        nav_shape=(ny, nx),
        sig_shape=(dp_size, dp_size),
        scan_step=(sy * 1e-9, sx * 1e-9),
        scan_rotation=rotation / 100,
        beam_energy=float(energy),
        camera_length=fields[14] * 1e-4,
        note="\n".join(filter(None, lines))[:NOTE_CHARS],
        stated_bits=next((int(found[1]) for found in map(BIT_DEPTH.fullmatch, lines) if found), None),
    )


def _check_magic(magic: int, path: str) -> None:
    known = (MAGIC_CLASSIC, MAGIC_1_3)
    if magic in known:
        return
    swapped = int.from_bytes(magic.to_bytes(2, "little"), "big")
    raise HeaderError(
        f"invalid magic number: {magic:#06x}",
        path=path,
        expected=" or ".join(f"{number:#06x}" for number in known),
        hint="it is stored in the other byte order: pass another endianess"
        if swapped in known
        else "it is no blockfile, or damaged",
    )


def _check_geometry(dp_size: int, nx: int, ny: int, note_end: int, data_offset: int, path: str) -> None:
    if min(dp_size, nx, ny) < 1:
        raise HeaderError(
            "the header describes no frames",
            path=path,
            found=f"{nx} x {ny} frames of {dp_size} x {dp_size} px",
            expected="positive numbers",
            hint="the file is damaged",
        )
    if not HEADER_BYTES <= note_end <= data_offset:
        raise HeaderError(
            "the parts of the file overlap according to its header",
            path=path,
            found=f"image from byte {note_end}, frames from byte {data_offset}",
            expected=f"the image after byte {HEADER_BYTES}, the frames after the image",
            hint="the file is damaged",
        )


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
