"""The header of SEQ files, and where their frames lie.

| offset | bytes | type | meaning |
|-------:|------:|------|---------|
|      0 |     4 | <u4  | magic, ``ED FE 00 00`` |
|      4 |    24 | UTF-16 | ``Norpix seq`` |
|     28 |     4 | <i4  | version: 5 for StreamPix 6 to 8, 3 or 4 before |
|     36 |   512 | UTF-16 | description; anything may stand behind the first NUL |
|    548 |     8 | <u4  | width, height |
|    556 |     8 | <u4  | bits per stored pixel, and how many of them are significant |
|    568 |     4 | <u4  | image format, 100 is monochrome |
|    572 |     4 | <u4  | number of frames when the file was created; often wrong |
|    580 |     4 | <u4  | bytes from one frame to the next |
|    620 |     4 | <u4  | compression, 0 is none |

All fields are in `HEADER_DTYPE`. The first frame is at byte 8192 from version 5 on, before that at byte 1024;
the header says 1024 in both cases. Each frame consists of

| bytes | meaning |
|------:|---------|
| height · width · bits / 8 | pixels, little-endian and unsigned, row after row |
| 8, before version 5: 6 | time: <u4 seconds since 1970, <u2 milliseconds, from version 5 <u2 microseconds |
| up to the next frame | padding; together with the time it may have an odd number of bytes |

Sources: readers of PIMS and whisk; files of StreamPix 4, 6 and 8.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from libertem.exceptions import HeaderError

__all__ = ["HEADER_BYTES", "SEQHeader", "parse_header"]

HEADER_DTYPE = np.dtype(
    [
        ("magic", "<u4"),
        ("name", "V24"),
        ("version", "<i4"),
        ("header_size", "<i4"),
        ("description", "V512"),
        ("width", "<u4"),
        ("height", "<u4"),
        ("bit_depth", "<u4"),
        ("bit_depth_real", "<u4"),
        ("image_size_bytes", "<u4"),
        ("image_format", "<u4"),
        ("allocated_frames", "<u4"),
        ("origin", "<u4"),
        ("true_image_size", "<u4"),
        ("suggested_frame_rate", "<f8"),
        ("description_format", "<i4"),
        ("reference_frame", "<u4"),
        ("fixed_size", "<u4"),
        ("flags", "<u4"),
        ("bayer_pattern", "<i4"),
        ("time_offset_us", "<i4"),
        ("extended_header_size", "<i4"),
        ("compression_format", "<u4"),
        ("reference_time_s", "<i4"),
        ("reference_time_ms", "<u2"),
        ("reference_time_us", "<u2"),
    ]
)
TEXTS = ("name", "description")

MAGIC = 0xFEED
HEADER_BYTES = 1024
LONG_HEADER_BYTES = 8192
LONG_HEADER_VERSION = 5

MONOCHROME = 100
UNCOMPRESSED = 0
BIT_DEPTHS = (8, 16, 32, 64)
COMPRESSIONS = {1: "JPEG", 2: "RLE", 3: "Huffman", 4: "LZ", 8: "H.264", 9: "wavelets"}

REPLACEMENT = "\ufffd"


@dataclass(frozen=True)
class SEQHeader:
    """The facts of a SEQ header."""

    fields: dict[str, Any]
    """All fields by name, in the order of the file."""

    sig_shape: tuple[int, int]
    """(height, width) of one frame."""

    bit_depth: int
    """Bits per stored pixel."""

    image_format: int
    """`MONOCHROME`, or something that cannot be read."""

    compression_format: int
    """`UNCOMPRESSED`, or something that cannot be read."""

    image_offset: int
    """Byte where the first frame starts."""

    frame_stride: int
    """Bytes from one frame to the next."""

    @property
    def pixel_bytes(self) -> int:
        """Bytes of the pixels of one frame."""
        return self.sig_shape[0] * self.sig_shape[1] * self.bit_depth // 8

    @property
    def footer_bytes(self) -> int:
        """Bytes from the last pixel of a frame to the next frame."""
        return self.frame_stride - self.pixel_bytes

    @property
    def time_stamp(self) -> struct.Struct:
        """What follows the pixels of a frame: seconds, milliseconds, and from version 5 on microseconds."""
        return struct.Struct("<I2H" if self.fields["version"] >= LONG_HEADER_VERSION else "<IH")

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""
        return np.dtype(f"<u{self.bit_depth // 8}")

    @property
    def has_readable_texts(self) -> bool:
        """Whether name and description are what they should be: UTF-16."""
        return not any(REPLACEMENT in str(self.fields[name]) for name in TEXTS)

    def frames_in(self, file_size: int) -> int:
        """Number of whole frames, footers included, that a file of `file_size` bytes has room for."""
        return max(0, file_size - self.image_offset) // self.frame_stride

    def check_supported(self, path: str) -> None:
        """Refuse pixels that cannot be read.

        Raises
        ------
        HeaderError
            If they are compressed, coloured or have an odd number of bits.
        """
        hint = "export the sequence as uncompressed monochrome images of 8 or 16 bit"
        if self.compression_format != UNCOMPRESSED:
            kind = COMPRESSIONS.get(self.compression_format, "unknown")
            raise HeaderError(
                "Only uncompressed images are supported in .seq files",
                path=path,
                found=f"compression {self.compression_format} ({kind})",
                expected=UNCOMPRESSED,
                hint=hint,
            )
        if self.image_format != MONOCHROME:
            raise HeaderError(
                "Non-monochrome images are not supported",
                path=path,
                found=f"image format {self.image_format}",
                expected=MONOCHROME,
                hint=hint,
            )
        if self.bit_depth not in BIT_DEPTHS:
            raise HeaderError(
                f"unsupported bit depth: {self.bit_depth}",
                path=path,
                found=f"{self.bit_depth} bits per pixel",
                expected=f"one of {BIT_DEPTHS}",
                hint=hint,
            )


def parse_header(raw: bytes, *, path: str) -> SEQHeader:
    """Turn the first bytes of a SEQ file into a `SEQHeader`.

    Parameters
    ----------
    raw : bytes
        At least the first `HEADER_BYTES` bytes of the file.
    path : str
        Where `raw` came from. Named in errors, never opened.

    Raises
    ------
    HeaderError
        If this is no SEQ file, or frames of that size cannot be. What is in the pixels is not judged, see
        `SEQHeader.check_supported`.
    """
    _check_magic(raw, path)
    record = np.frombuffer(raw, dtype=HEADER_DTYPE, count=1)[0]
    fields: dict[str, Any] = {
        name: _decode_text(record[name].tobytes()) if name in TEXTS else record[name].item()
        for name in HEADER_DTYPE.names or ()
    }
    header = SEQHeader(
        fields=fields,
        sig_shape=(fields["height"], fields["width"]),
        bit_depth=fields["bit_depth"],
        image_format=fields["image_format"],
        compression_format=fields["compression_format"],
        image_offset=LONG_HEADER_BYTES if fields["version"] >= LONG_HEADER_VERSION else HEADER_BYTES,
        frame_stride=fields["true_image_size"],
    )
    if min(header.sig_shape) < 1:
        raise HeaderError(
            "impossible size of frames in the header",
            path=path,
            found=f"{header.sig_shape[1]} columns, {header.sig_shape[0]} rows",
            expected="positive numbers",
            hint="the header is damaged",
        )
    # Compressed frames are smaller than their pixels.
    smallest = header.pixel_bytes if header.compression_format == UNCOMPRESSED else 1
    if header.frame_stride < max(1, smallest):
        raise HeaderError(
            "frames are further apart than the header says: true_image_size is too small",
            path=path,
            found=f"{header.frame_stride} bytes",
            expected=f"at least {smallest} for {header.sig_shape} pixels of {header.bit_depth} bits",
            hint="the header is damaged, or the recording was not finished",
        )
    return header


def _check_magic(raw: bytes, path: str) -> None:
    magic = MAGIC.to_bytes(4, "little")
    if raw[: len(magic)] != magic:
        raise HeaderError(
            "The format of this .seq file is unrecognized",
            path=path,
            found=repr(raw[: len(magic)]),
            expected=repr(magic),
            hint="name the type yourself if it is something else",
        )
    if len(raw) < HEADER_BYTES:
        raise HeaderError(
            "the file ends inside its header",
            path=path,
            found=f"{len(raw)} bytes",
            expected=f"at least {HEADER_BYTES}",
            hint="copy the file again: the transfer probably broke off",
        )


def _decode_text(raw: bytes) -> str:
    """Text up to the first NUL. Real files have uninitialized memory behind it."""
    units = np.frombuffer(raw, dtype="<u2")
    ends = np.flatnonzero(units == 0)
    stop = int(ends[0]) if ends.size else len(units)
    return units[:stop].tobytes().decode("utf-16-le", "replace")
