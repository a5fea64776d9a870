"""Parse the header of MRC and CCP4 files.

| offset | bytes | type | meaning |
|-------:|------:|------|---------|
|      0 |    12 | i4   | NX, NY, NZ: columns, rows, sections (frames) |
|     12 |     4 | i4   | MODE: pixel type, see `PIXEL_DTYPES` |
|     92 |     4 | i4   | NSYMBT: bytes of the extended header |
|    104 |     4 | ascii| EXTTYP: kind of extended header |
|    152 |     8 | i4   | IMOD stamp and flags; bit 0 of the flags: pixels of mode 0 have a sign |
|    208 |     4 | ascii| ``MAP``; missing in files from before 2000 |
|    212 |     2 | u1   | machine stamp: 44 44 or 44 41 is little, 11 11 is big endian |
|   1024 | NSYMBT |     | extended header |
| 1024 + NSYMBT |  |      | sections of NX · NY pixels, row after row, without gaps |

`header_fields` gives all other fields of the specification, too, by their names there.

All numbers, pixels included, have the same byte order. The stamp is missing in old and home-made files and
wrong in some others; then the order is the one in which the header makes sense.

Extended headers of type FEI1 and FEI2 hold one record per section, without padding. Of interest here are
the scan area, which the scan shape follows from, and what `fei_fields` gives:

| offset in record | bytes | type  | meaning |
|-----------------:|------:|-------|---------|
|             0, 4 |     8 | i4    | size of the record, 768 or 888 bytes; version |
|                8 |     4 | <u4   | bit mask: which of the fields are valid; none, if it is zero |
|       20, 52, 68 |    48 | ascii | type of microscope, name and version of the application |
|               84 |     8 | f8    | high tension, V |
|         156, 164 |    16 | f8    | pixel size x, y; m, or 1/m for diffraction |
|              301 |     8 | f8    | camera length, m |
|         427, 431 |     8 | i4    | binning: width, height |
|              435 |    16 | ascii | name of the camera |
|              451 |    16 | i4    | area read out: left, top, right, bottom |
|         571, 579 |    16 | f8    | dwell time, frame time, s |
|              587 |    16 | i4    | scan area: left, top, right, bottom |

Sources: MRC2014 specification (CCP-EM); IMOD ``mrc_format.txt``; FEI note on extended MRC headers (2011).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from libertem.exceptions import HeaderError

__all__ = [
    "FEI_RECORD_BYTES",
    "HEADER_BYTES",
    "MRCHeader",
    "fei_fields",
    "fei_scan_shape",
    "header_fields",
    "parse_header",
]

ByteOrder: TypeAlias = Literal["<", ">"]

HEADER_BYTES = 1024

STAMP_OFFSET = 212
STAMPS: dict[bytes, ByteOrder] = {b"\x44\x44": "<", b"\x44\x41": "<", b"\x11\x11": ">"}

IMOD_STAMP = 1146047817
IMOD_SIGNED = 1

PIXEL_DTYPES = {0: "i1", 1: "i2", 2: "f4", 4: "c8", 6: "u2", 12: "f2"}
UNSUPPORTED_MODES = {3: "complex numbers of 16 bit integers", 16: "RGB colours", 101: "4 bit integers"}
PIXEL_BITS = {3: 32, 16: 24, 101: 4} | {
    mode: np.dtype(dtype).itemsize * 8 for mode, dtype in PIXEL_DTYPES.items()
}

FEI_SCAN_AREA = 587
FEI_RECORD_BYTES = FEI_SCAN_AREA + 16
"""As much of the first record as is of interest; records have 768 bytes or more."""


class _Fields(NamedTuple):
    """The part of a header that is in use."""

    nx: int
    ny: int
    nz: int
    mode: int
    extended_bytes: int
    extended_type: bytes
    imod_stamp: int
    imod_flags: int


FIELDS = np.dtype(
    {
        "names": list(_Fields._fields),
        "formats": ["i4", "i4", "i4", "i4", "i4", "S4", "i4", "i4"],
        "offsets": [0, 4, 8, 12, 92, 104, 152, 156],
        "itemsize": HEADER_BYTES,
    }
)


SPECIFIED = np.dtype(
    [
        *((name, "i4") for name in ("NX", "NY", "NZ", "MODE", "NXSTART", "NYSTART", "NZSTART")),
        *((name, "i4") for name in ("MX", "MY", "MZ")),
        ("CELLA", "f4", 3),
        ("CELLB", "f4", 3),
        *((name, "i4") for name in ("MAPC", "MAPR", "MAPS")),
        *((name, "f4") for name in ("DMIN", "DMAX", "DMEAN")),
        ("ISPG", "i4"),
        ("NSYMBT", "i4"),
        ("EXTRA1", "V8"),
        ("EXTTYP", "S4"),
        ("NVERSION", "i4"),
        ("EXTRA2", "V16"),
        ("NINT", "i2"),
        ("NREAL", "i2"),
        ("EXTRA3", "V20"),
        ("IMODSTAMP", "i4"),
        ("IMODFLAGS", "i4"),
        *((name, "i2") for name in ("IDTYPE", "LENS", "ND1", "ND2", "VD1", "VD2")),
        ("TILTANGLES", "f4", 6),
        ("ORIGIN", "f4", 3),
        ("MAP", "S4"),
        ("MACHST", "u1", 4),
        ("RMS", "f4"),
        ("NLABL", "i4"),
        ("LABELS", "S80", 10),
    ]
)
assert SPECIFIED.itemsize == HEADER_BYTES

FEI_FIELDS = {
    "metadata size": ("i4", 0),
    "metadata version": ("i4", 4),
    "bitmask 1": ("<u4", 8),
    "microscope type": ("S16", 20),
    "application name": ("S16", 52),
    "application version": ("S16", 68),
    "high tension": ("f8", 84),
    "pixel size x": ("f8", 156),
    "pixel size y": ("f8", 164),
    "camera length": ("f8", 301),
    "binning width": ("i4", 427),
    "binning height": ("i4", 431),
    "camera name": ("S16", 435),
    "readout area left": ("i4", 451),
    "readout area top": ("i4", 455),
    "readout area right": ("i4", 459),
    "readout area bottom": ("i4", 463),
    "dwell time": ("f8", 571),
    "frame time": ("f8", 579),
    "scan size left": ("i4", FEI_SCAN_AREA),
    "scan size top": ("i4", FEI_SCAN_AREA + 4),
    "scan size right": ("i4", FEI_SCAN_AREA + 8),
    "scan size bottom": ("i4", FEI_SCAN_AREA + 12),
}
"""Type and offset by name; the types without byte order have that of the file."""


@dataclass(frozen=True)
class MRCHeader:
    """The facts of an MRC header."""

    mode: int
    """Number of the pixel type."""

    dtype: np.dtype[Any]
    """Of the pixels, with byte order."""

    sig_shape: tuple[int, int]
    """(height, width) of one section."""

    section_count: int
    """Number of sections that the file claims to hold. Some writers put a constant there, or 0."""

    extended_type: str
    """Kind of the extended header, empty if it does not say."""

    extended_bytes: int
    """Size of the extended header."""

    byte_order: ByteOrder
    """Of all numbers in the file."""

    @property
    def data_offset(self) -> int:
        """Byte where the first section starts; not aligned to anything."""
        return HEADER_BYTES + self.extended_bytes

    @property
    def frame_bytes(self) -> int:
        """Bytes of one section."""
        return self.sig_shape[0] * self.sig_shape[1] * self.dtype.itemsize

    def sections_in(self, file_size: int) -> int:
        """Number of whole sections that a file of `file_size` bytes has room for."""
        return max(0, file_size - self.data_offset) // self.frame_bytes


def parse_header(raw: bytes, *, path: str, file_size: int) -> MRCHeader:
    """Turn the first bytes of an MRC file into an `MRCHeader`.

    Parameters
    ----------
    raw : bytes
        At least the first `HEADER_BYTES` bytes of the file.
    path : str
        Where `raw` came from. Named in errors, never opened.
    file_size : int
        Size of the whole file: an extended header has to fit, and some files can be told from other
        things only by that.

    Raises
    ------
    HeaderError
        If this is no MRC file, or one with pixels that cannot be read.
    """
    if len(raw) < HEADER_BYTES:
        raise HeaderError(
            "not an MRC file: it ends inside the header",
            path=path,
            found=f"{len(raw)} bytes",
            expected=f"at least {HEADER_BYTES}",
            hint="if it should be one, copy it again: the transfer probably broke off",
        )
    order = _byte_order(raw, file_size)
    if order is None:
        raise HeaderError(
            "not an MRC file",
            path=path,
            found=f"mode {_fields(raw, '<').mode} and stamp {raw[STAMP_OFFSET : STAMP_OFFSET + 2]!r}",
            expected=f"a mode out of {sorted(PIXEL_BITS)}, and sizes that fit the file",
            hint="name the type yourself if it is something else",
        )
    fields = _fields(raw, order)
    _check(fields, path, file_size)
    return MRCHeader(
        mode=fields.mode,
        dtype=np.dtype(_pixel_dtype(fields)).newbyteorder(order),
        sig_shape=(fields.ny, fields.nx),
        section_count=fields.nz,
        extended_type=fields.extended_type.decode("ascii", "replace").strip("\0 "),
        extended_bytes=fields.extended_bytes,
        byte_order=order,
    )


def header_fields(raw: bytes, header: MRCHeader) -> dict[str, Any]:
    """All fields of the header by their names in the specification; those without meaning are left out.

    Parameters
    ----------
    raw : bytes
        The first bytes of the file, `HEADER_BYTES` or more.
    """
    record = np.frombuffer(raw, dtype=SPECIFIED.newbyteorder(header.byte_order), count=1)[0]
    names = [name for name in SPECIFIED.names or () if not name.startswith("EXTRA") and name != "LABELS"]
    labels = record["LABELS"][: max(0, int(record["NLABL"]))]
    return {**{name: record[name] for name in names}, "LABELS": labels}


def fei_fields(raw: bytes, header: MRCHeader) -> dict[str, Any]:
    """What the first record of an FEI extended header says, by name; empty if there is none.

    Parameters
    ----------
    raw : bytes
        The first bytes of the file, ``HEADER_BYTES + FEI_RECORD_BYTES`` or more.
    """
    present = min(header.extended_bytes, len(raw) - HEADER_BYTES)
    if header.extended_type not in ("FEI1", "FEI2") or present < FEI_RECORD_BYTES:
        return {}
    fields = {}
    for name, (kind, offset) in FEI_FIELDS.items():
        dtype = np.dtype(kind) if kind[0] == "<" else np.dtype(kind).newbyteorder(header.byte_order)
        value = np.frombuffer(raw, dtype=dtype, count=1, offset=HEADER_BYTES + offset)[0]
        fields[name] = value.decode("latin-1").strip() if kind[0] == "S" else value.item()
    return fields if fields["bitmask 1"] else {}


def fei_scan_shape(raw: bytes, header: MRCHeader) -> tuple[int, int] | None:
    """Scan shape according to the first record of an FEI extended header, None if there is none.

    It is a hint at best: interrupted scans have fewer sections, and in images it describes the image itself.

    Parameters
    ----------
    raw : bytes
        The first bytes of the file, ``HEADER_BYTES + FEI_RECORD_BYTES`` or more.
    """
    present = min(header.extended_bytes, len(raw) - HEADER_BYTES)
    if header.extended_type not in ("FEI1", "FEI2") or present < FEI_RECORD_BYTES:
        return None
    left, top, right, bottom = struct.unpack_from(f"{header.byte_order}4i", raw, HEADER_BYTES + FEI_SCAN_AREA)
    shape = (bottom - top, right - left)
    return shape if min(shape) > 0 else None


def _fields(raw: bytes, order: ByteOrder) -> _Fields:
    fields = np.frombuffer(raw, dtype=FIELDS.newbyteorder(order), count=1)[0]
    return _Fields(*(fields[name].item() for name in _Fields._fields))


def _byte_order(raw: bytes, file_size: int) -> ByteOrder | None:
    """Order in which the header makes sense; None if it does in neither."""
    little, big = _fields(raw, "<"), _fields(raw, ">")
    stamped = STAMPS.get(raw[STAMP_OFFSET : STAMP_OFFSET + 2])
    if stamped is None:
        if _is_plausible(little, file_size):
            return "<"
        return ">" if _is_plausible(big, file_size) else None
    if (little if stamped == "<" else big).mode in PIXEL_BITS:
        return stamped
    # Files with a wrong stamp exist. No known mode turns into another one when its bytes are swapped.
    if (big if stamped == "<" else little).mode in PIXEL_BITS:
        return ">" if stamped == "<" else "<"
    return None


def _is_plausible(fields: _Fields, file_size: int) -> bool:
    """Whether the fields describe a file that has at least one section."""
    if fields.mode not in PIXEL_BITS or fields.extended_bytes < 0:
        return False
    if min(fields.nx, fields.ny, fields.nz) < 1:
        return False
    row_bytes = -(-fields.nx * PIXEL_BITS[fields.mode] // 8)
    return HEADER_BYTES + fields.extended_bytes + row_bytes * fields.ny <= file_size


def _check(fields: _Fields, path: str, file_size: int) -> None:
    mode = fields.mode
    if mode not in PIXEL_DTYPES:
        raise HeaderError(
            f"MRC files of mode {mode} ({UNSUPPORTED_MODES[mode]}) cannot be read",
            path=path,
            found=f"mode {mode}",
            expected=f"one of {sorted(PIXEL_DTYPES)}",
            hint="save the data in another mode",
        )
    if min(fields.nx, fields.ny) < 1:
        raise HeaderError(
            "impossible size of sections in the header",
            path=path,
            found=f"{fields.nx} columns, {fields.ny} rows",
            expected="positive numbers",
            hint="the header is damaged",
        )
    if not 0 <= fields.extended_bytes <= file_size - HEADER_BYTES:
        raise HeaderError(
            "impossible size of the extended header",
            path=path,
            found=f"{fields.extended_bytes} bytes",
            expected=f"0 to {file_size - HEADER_BYTES} in a file of {file_size} bytes",
            hint="the header is damaged, or the file was cut off",
        )


def _pixel_dtype(fields: _Fields) -> str:
    # IMOD and SerialEM have always written bytes without sign, and say so by a flag of their own.
    unsigned = fields.imod_stamp == IMOD_STAMP and not fields.imod_flags & IMOD_SIGNED
    return "u1" if fields.mode == 0 and unsigned else PIXEL_DTYPES[fields.mode]
