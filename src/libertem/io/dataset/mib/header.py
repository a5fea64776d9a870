"""Header of a frame in a MIB file, and what it says about the pixels behind it.

A MIB file is a repetition of records, each a header and the pixels of one frame, without anything around or
between them. The header is ASCII text, fields separated by commas, filled up with NUL to its length:

| field | example        | meaning                                                              |
|------:|----------------|----------------------------------------------------------------------|
|     0 | ``MQ1``        | always                                                               |
|     1 | ``000001``     | number of the frame in the acquisition, usually from 1 on            |
|     2 | ``00384``      | length of this header, normally 256 + 128 per chip                   |
|     3 | ``01``         | number of chips                                                      |
|  4, 5 | ``0256,0256``  | width and height; as read out, not as assembled, for raw pixels      |
|     6 | ``R64``        | ``U08 U16 U32 U64``: integers; ``R64``: as read out                  |
|     7 | ``   2x2G``    | arrangement of the chips, with G if pixels fill the gaps between them |
|     8 | ``0F``         | which chips are in use, a bit each                                   |
|     9 | ``2021-05-…``  | time stamp                                                           |
| 10-13 | ``0.001,0,0,0`` | shutter time, counter, colour mode, gain mode                       |
|     … |                | thresholds and settings of each chip; may be missing                 |
|     … | ``MQ1A``       | a newer block begins; missing in files of old software               |
|  + 1  |                | time stamp in UTC                                                    |
|  + 2  | ``1000000ns``  | exposure                                                             |
|  + 3  | ``12``         | bits of the counters: 1, 6, 12 or 24                                 |

Pixels, for a frame of ``height`` rows as stated in the header:

| kind              | on disk                                                                         |
|-------------------|---------------------------------------------------------------------------------|
| ``U08`` … ``U64`` | the assembled image, big-endian, rows from top to bottom                        |
| ``R64``           | 64-bit big-endian words of 64 (1 bit), 8 (6 bit) or 4 (12 bit) pixels of a row; |
|                   | the leftmost pixel sits in the least significant bits                           |
| ``R64``, 24 bit   | two images of 12 bit, upper and lower half; the stated width is twice the true  |
| ``R64``, 2x2      | each row holds one row of four chips: Q4, Q3, Q2, Q1. The assembled image has   |
|                   | Q1 and Q2 on top, below them Q3 and Q4, both turned by 180 degrees              |

Sources: "Medipix Software Design" of areaDetector/ADMerlin for the header; files of software 0.67 to 1.6;
published measurements of the same detector in raw and integer mode for the arrangement of the chips. The
order of the two images of 24 bit is inferred: no public recording shows it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from libertem.exceptions import DataSetException, HeaderError

__all__ = ["MAGIC", "MAX_HEADER_BYTES", "Encoding", "MIBHeader", "choose_encoding", "parse_header"]

MAGIC = b"MQ1,"

MAX_HEADER_BYTES = 1 << 14
"""Enough for 126 chips."""

N_LEADING_FIELDS = 8
"""Fields up to the layout, without which nothing can be read."""

MAX_DIGITS = 12
"""More digits than any number in a header has, and few enough that products stay small."""

INTEGER_BITS = {"U08": 8, "U16": 16, "U32": 32, "U64": 64}

RAW_DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("u1"),
    6: np.dtype("u1"),
    12: np.dtype("u2"),
    24: np.dtype("u4"),
}
"""By bits of the counters."""

PIXELS_PER_WORD = {1: 64, 6: 8, 12: 4, 24: 4}

LAYOUT = re.compile(r"(\d{1,4}|N)x(\d{1,4})(G?)", re.IGNORECASE)


@dataclass(frozen=True)
class MIBHeader:
    """The facts of a frame header, in its own terms."""

    sequence: int
    """Number of the frame in its acquisition."""

    header_bytes: int
    """Length of the header, which is where the pixels begin."""

    n_chips: int

    width: int
    """Width of the image in the file, which is that of the frame only if the pixels are integers."""

    height: int

    pixel_kind: str
    """``U08``, ``U16``, ``U32``, ``U64`` or ``R64``."""

    layout: tuple[int, int]
    """Arrangement of the chips."""

    has_gap: bool
    """Whether the layout names pixels between the chips."""

    timestamp: str
    """Local time, as the file has it; empty if it has none."""

    counter_depth: int | None
    """Bits of the counters; None in files of old software."""

    def describe(self) -> str:
        """What the pixels are, for messages."""
        depth = "unknown" if self.counter_depth is None else self.counter_depth
        gap = "G" if self.has_gap else ""
        return (
            f"{self.pixel_kind}, layout {self.layout[0]}x{self.layout[1]}{gap}, {self.n_chips} chip(s), "
            f"{depth} bit, width {self.width}, height {self.height}, header of {self.header_bytes} bytes"
        )


def parse_header(raw: bytes, *, path: str) -> MIBHeader | int:
    """Turn the first bytes of a MIB file into a `MIBHeader`.

    Parameters
    ----------
    raw : bytes
        The beginning of the file.
    path : str
        Where `raw` came from. Named in errors, never opened.

    Returns
    -------
    MIBHeader or int
        How many bytes are needed instead, if `raw` is shorter than the header.

    Raises
    ------
    HeaderError
        If this is no frame header, or a part of it cannot be understood.
    """
    if raw[: len(MAGIC)] != MAGIC[: len(raw)]:
        raise _no_header(raw, path)
    leading = _text(raw).split(",", 4)
    if len(leading) <= 3:
        if len(raw) < 64:
            return 64
        raise _missing_fields(leading, path)
    header_bytes = _number(leading, 2, "length of the header", path)
    if not len(MAGIC) < header_bytes <= MAX_HEADER_BYTES:
        raise HeaderError(
            "impossible length of the header",
            path=path,
            found=f"{header_bytes} bytes",
            expected=f"at most {MAX_HEADER_BYTES}, normally 256 + 128 per chip",
            hint="the file is damaged, or something else",
        )
    if len(raw) < header_bytes:
        return header_bytes
    return _parse_fields([field.strip() for field in _text(raw[:header_bytes]).split(",")], path)


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("ascii", "ignore")


def _parse_fields(fields: list[str], path: str) -> MIBHeader:
    if len(fields) < N_LEADING_FIELDS:
        raise _missing_fields(fields, path)
    n_chips = _number(fields, 3, "number of chips", path, minimum=1)
    layout, has_gap = _parse_layout(fields[7], n_chips, path)
    pixel_kind = fields[6].upper()
    if pixel_kind != "R64" and pixel_kind not in INTEGER_BITS:
        raise HeaderError(
            "unknown kind of pixels",
            path=path,
            found=repr(fields[6][:20]),
            expected=", ".join((*INTEGER_BITS, "R64")),
            hint="save integers of 8 bit instead" if pixel_kind == "U01" else "the file is damaged?",
        )
    return MIBHeader(
        sequence=_number(fields, 1, "sequence number", path),
        header_bytes=_number(fields, 2, "length of the header", path),
        n_chips=n_chips,
        width=_number(fields, 4, "width", path, minimum=1),
        height=_number(fields, 5, "height", path, minimum=1),
        pixel_kind=pixel_kind,
        layout=layout,
        has_gap=has_gap,
        timestamp=fields[9][:40] if len(fields) > 9 else "",
        counter_depth=_parse_counter_depth(fields, path),
    )


def _parse_layout(text: str, n_chips: int, path: str) -> tuple[tuple[int, int], bool]:
    match = LAYOUT.fullmatch(text)
    if match is None:
        raise HeaderError(
            "unknown arrangement of chips",
            path=path,
            found=repr(text[:20]),
            expected="1x1, 2x2 or Nx1, with or without G",
        )
    # Whether rows of chips really carry a letter or their number is not known; both are understood.
    rows = n_chips if match[1] in "Nn" else int(match[1])
    return (rows, int(match[2])), bool(match[3])


def _parse_counter_depth(fields: list[str], path: str) -> int | None:
    # Counted from the name of the block: the number of fields before it varies, and behind it there may be
    # a comma, a line end or nothing.
    if "MQ1A" not in fields:
        return None
    place = fields.index("MQ1A") + 3
    return (
        _number(fields, place, "counter depth", path) if fields[place : place + 1] not in ([], [""]) else None
    )


def _number(fields: list[str], place: int, name: str, path: str, *, minimum: int = 0) -> int:
    text = fields[place].strip()
    if not (text.isdecimal() and len(text) <= MAX_DIGITS and int(text) >= minimum):
        raise HeaderError(
            f"the {name} cannot be understood",
            path=path,
            found=f"{text[:20]!r} in field {place} of the frame header",
            expected=f"a number from {minimum} on",
            hint="the file is damaged?",
        )
    return int(text)


def _no_header(raw: bytes, path: str) -> HeaderError:
    if raw.startswith(b"PR1"):
        return HeaderError("profiles cannot be read, only frames", path=path, found="'PR1'", expected="'MQ1'")
    return HeaderError(
        "not a MIB file",
        path=path,
        found=repr(raw[: len(MAGIC)]),
        expected=repr(MAGIC),
        hint="if the file set picked up a file that is none of its own, pass disable_glob=True",
    )


def _missing_fields(fields: list[str], path: str) -> HeaderError:
    return HeaderError(
        "the frame header is incomplete",
        path=path,
        found=f"{len(fields)} fields",
        expected=f"at least {N_LEADING_FIELDS}, separated by commas",
        hint="the file is damaged, or something else",
    )


@dataclass(frozen=True)
class Encoding:
    """How the pixels of all frames of an acquisition are stored."""

    dtype: np.dtype[Any]
    """Of the frames; big-endian where the pixels are plain integers."""

    sig_shape: tuple[int, int]
    """(height, width) of an assembled frame."""

    image_bytes: int
    """Bytes of a frame on disk, without its header."""

    counter_depth: int
    """Bits of the counters, or of the integers if the file does not say."""

    is_raw: bool
    """Whether pixels are stored as read out, rather than as integers."""

    is_quad: bool
    """Whether four chips have to be assembled."""


def choose_encoding(header: MIBHeader, *, path: str, counter_depth: int | None = None) -> Encoding:
    """How the pixels behind a header are stored.

    Parameters
    ----------
    header : MIBHeader
        Of any frame.
    path : str
        Where it came from. Named in errors, never opened.
    counter_depth : int, optional
        From another source; only used if the header does not say it.

    Raises
    ------
    DataSetException
        If this combination cannot be read.
    """
    depth = counter_depth if header.counter_depth is None else header.counter_depth
    if header.pixel_kind != "R64":
        n_bits = INTEGER_BITS[header.pixel_kind]
        return Encoding(
            dtype=np.dtype(f">u{n_bits // 8}"),
            sig_shape=(header.height, header.width),
            image_bytes=header.height * header.width * n_bits // 8,
            counter_depth=n_bits if depth is None else depth,
            is_raw=False,
            is_quad=False,
        )
    if depth is None:
        raise DataSetException(
            "the bits per pixel of these raw data are not known",
            path=path,
            found="a frame header of old software, without MQ1A",
            expected="'Counter Depth (number)' in an .hdr file of the same name",
            hint="put the .hdr file beside the .mib files",
        )
    return _choose_raw(header, depth, path)


def _choose_raw(header: MIBHeader, depth: int, path: str) -> Encoding:
    is_quad = header.n_chips == 4 and header.layout == (2, 2)
    if depth not in RAW_DTYPES:
        raise _unsupported("raw data of this counter depth", header, "1, 6, 12 or 24 bit", path)
    if header.n_chips > 1 and not is_quad:
        raise _unsupported("raw data of this arrangement of chips", header, "one chip, or four as 2x2", path)
    if is_quad and depth == 24:
        raise _unsupported("raw data of 24 bit with more than one chip", header, "1, 6 or 12 bit", path)
    # Each row in the file holds a row of each chip, or of each of the two counters.
    parts = 4 if is_quad else 2 if depth == 24 else 1
    chip_width, rest = divmod(header.width, parts)
    if rest or chip_width % PIXELS_PER_WORD[depth]:
        raise HeaderError(
            "the width does not fit the pixel format",
            path=path,
            found=header.describe(),
            expected=f"a multiple of {parts * PIXELS_PER_WORD[depth]} pixels",
            hint="the file is damaged?",
        )
    bits = {1: 1, 6: 8}.get(depth, 16)
    return Encoding(
        dtype=RAW_DTYPES[depth],
        sig_shape=(2 * header.height, 2 * chip_width) if is_quad else (header.height, chip_width),
        image_bytes=header.height * header.width * bits // 8,
        counter_depth=depth,
        is_raw=True,
        is_quad=is_quad,
    )


def _unsupported(what: str, header: MIBHeader, expected: str, path: str) -> DataSetException:
    return DataSetException(
        f"{what} cannot be read",
        path=path,
        found=header.describe(),
        expected=expected,
        hint="save integers (U08, U16 or U32) instead",
    )
