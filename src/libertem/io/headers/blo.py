"""Parse the header of blockfiles (NanoMegas ASTAR, TopSPIN).

A file starts with a header of 240 bytes without padding. Its byte order is that of the pixels;
little-endian in all files seen.

| offset | bytes | type     | meaning                                                             |
|-------:|------:|----------|---------------------------------------------------------------------|
|      0 |     6 | ascii    | ID, ``IMGBLO``                                                      |
|      6 |     2 | u2       | magic: 0x0102, or 0x0103 (format 1.3)                               |
|      8 |     4 | u4       | where the virtual bright field image starts; the note ends there    |
|     12 |     4 | u4       | where the frame records start                                       |
|     16 |     4 | u4       | unknown                                                             |
|     20 |     2 | u2       | DP_SZ: height and width of a frame, pixels                          |
|     22 |     2 | u2       | DP_rotation: rotation of the frames; its unit is not known          |
|     24 |     4 | u2, u2   | NX, NY: width and height of the scan                                |
|     28 |     2 | u2       | Scan_rotation, degrees · 100                                        |
|     30 |    16 | f8, f8   | SX, SY: scan step, nm                                               |
|     46 |     4 | u4       | Beam_energy, eV                                                     |
|     50 |     2 | u2       | SDP: detector scale, pixels per cm · 100                            |
|     52 |     4 | u4       | Camera_length, mm · 10                                              |
|     56 |     8 | f8       | Acquisition_time, days since a date that is not known               |
|     64 |   176 | 22 of f8 | centering and distortion                                            |
|    240 |       | text     | note, padded with NUL                                               |

Sources: files written by instruments and by RosettaSciIO. No public document describes the format.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Any, Literal

from libertem.common.math import prod
from libertem.exceptions import HeaderError

__all__ = [
    "HEAD_BYTES",
    "IDENTIFIER",
    "MAGIC_CLASSIC",
    "RECORD_HEADER_BYTES",
    "BloHeader",
    "ByteOrder",
    "header_fields",
    "parse_header",
]

ByteOrder = Literal["<", ">"]

HEADER_FIELDS = "6sH3I5H2dIHId22d"
FIELD_NAMES = (
    "ID",
    "MAGIC",
    "Data_offset_1",
    "Data_offset_2",
    "unknown",
    "DP_SZ",
    "DP_rotation",
    "NX",
    "NY",
    "Scan_rotation",
    "SX",
    "SY",
    "Beam_energy",
    "SDP",
    "Camera_length",
    "Acquisition_time",
    *(f"Centering_N{i}" for i in range(8)),
    *(f"Distortion_N{i}" for i in range(14)),
)
HEADER_BYTES = 240

HEAD_BYTES = 32 << 10
"""Header and note; notes of instruments end at 4096."""

IDENTIFIER = b"IMGBLO"
MAGIC_CLASSIC, MAGIC_1_3 = 0x0102, 0x0103

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


def header_fields(raw: bytes, byte_order: ByteOrder) -> dict[str, Any]:
    """All fields of a header by name, and the whole note.

    Parameters
    ----------
    raw : bytes
        As for `parse_header`, which has accepted it.
    byte_order : str
        ``"<"`` or ``">"``.
    """
    fields = dict(zip(FIELD_NAMES, struct.unpack_from(byte_order + HEADER_FIELDS, raw), strict=True))
    note = raw[HEADER_BYTES : fields["Data_offset_1"]].partition(b"\0")[0].decode("utf-8", "ignore")
    return {**fields, "note": note.strip()}
