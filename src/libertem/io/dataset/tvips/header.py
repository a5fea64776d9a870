"""The series header, and where fields of image headers lie."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from libertem.common.math import prod
from libertem.exceptions import HeaderError

__all__ = [
    "HEADER_BYTES",
    "ROTATOR",
    "SCAN_POSITION",
    "ImageHeaderField",
    "TVIPSHeader",
    "image_header_fields",
    "parse_header",
    "series_header_fields",
]

HEADER_FIELDS = struct.Struct("<13i")
HEADER_NAMES = (
    *("ISize", "IVersion", "IXDim", "IYDim", "IBPP", "IXOff", "IYOff"),
    *("IXBin", "IYBin", "IPixelSize", "IHT", "IMagTotal", "IImgHeaderBytes"),
)
HEADER_BYTES = 256

IMAGE_HEADER_BYTES_V1 = 12
"""Counter, seconds and milliseconds. No version has less."""


class ImageHeaderField(NamedTuple):
    """Neighbouring numbers in the header of a frame."""

    offset: int
    """From the start of the image header, in bytes."""

    format: struct.Struct
    """How they are stored."""


ROTATOR = ImageHeaderField(48, struct.Struct("<I"))
"""Number of the scan position."""

SCAN_POSITION = ImageHeaderField(68, struct.Struct("<2f"))
"""x and y."""


IMAGE_HEADER = np.dtype(
    [
        *((name, "<u4") for name in ("ICounter", "ITime", "IMS", "LUT index")),
        ("Faraday cup", "<f4"),
        ("magnification", "<u4"),
        ("mode", "<u4"),
        *((f"stage {axis}", "<f4") for axis in ("x", "y", "z", "alpha", "beta")),
        ("rotator", "<u4"),
        *((f"DENS heating {name}", "<f4") for name in ("measured T", "set T", "power")),
        ("objective current", "<f4"),
        ("Scan_x", "<f4"),
        ("Scan_y", "<f4"),
        *((f"DENS bias {name}", "<f4") for name in ("U set", "U value", "I set", "I value")),
        *((f"DENS bias {name}", "<f4") for name in ("E set", "R", "U limit", "I limit")),
    ]
)
"""Neither all versions nor all programs write all of it."""


@dataclass(frozen=True)
class TVIPSHeader:
    """The facts of a series header, in SI units."""

    version: int
    """1 or 2."""

    sig_shape: tuple[int, int]
    """(height, width) of a frame."""

    bits: int
    """Bits per pixel."""

    image_header_bytes: int
    """Bytes before the pixels of each frame."""

    binning: tuple[int, int]
    """In y and x."""

    pixel_size: float
    """In metres."""

    high_tension: float
    """In volts."""

    magnification: int
    """Total magnification, or camera length."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""
        return np.dtype("<u2" if self.bits == 16 else "u1")

    @property
    def stride(self) -> int:
        """Bytes from one frame to the next."""
        return self.image_header_bytes + prod(self.sig_shape) * self.dtype.itemsize

    def has_field(self, field: ImageHeaderField) -> bool:
        """Whether image headers contain a field as a whole."""
        return self.image_header_bytes >= field.offset + field.format.size


def parse_header(raw: bytes, *, path: str) -> TVIPSHeader:
    """Turn the first 256 bytes of a series into a `TVIPSHeader`.

    Parameters
    ----------
    raw : bytes
        At least the first 256 bytes of the first file.
    path : str
        Where `raw` came from. Named in errors, never opened.

    Raises
    ------
    HeaderError
        If `raw` is too short or makes no sense.
    """
    if len(raw) < HEADER_BYTES:
        raise HeaderError(
            "the file ends inside its header",
            path=path,
            found=f"{len(raw)} bytes",
            expected=f"at least {HEADER_BYTES}",
            hint="copy the file again: the transfer probably broke off",
        )
    size, version, width, height, bits, _, _, *more = HEADER_FIELDS.unpack_from(raw)
    binning_x, binning_y, pixel_size, high_tension, magnification, image_header_bytes = more
    if version == 1:
        image_header_bytes = IMAGE_HEADER_BYTES_V1
    _check(size, version, bits, (width, height), image_header_bytes, path)
    return TVIPSHeader(
        version=version,
        sig_shape=(height, width),
        bits=bits,
        image_header_bytes=image_header_bytes,
        binning=(binning_y, binning_x),
        pixel_size=pixel_size * 1e-9,
        high_tension=high_tension * 1e3,
        magnification=magnification,
    )


def series_header_fields(raw: bytes) -> dict[str, int]:
    """All numbers of a series header, by name; `raw` as for `parse_header`."""
    return dict(zip(HEADER_NAMES, HEADER_FIELDS.unpack_from(raw), strict=True))


def image_header_fields(raw: bytes) -> dict[str, int | float]:
    """Fields of an image header by name, as many as it has.

    Parameters
    ----------
    raw : bytes
        The whole header, any number of bytes.
    """
    padded = raw[: IMAGE_HEADER.itemsize].ljust(IMAGE_HEADER.itemsize, b"\0")
    record = np.frombuffer(padded, dtype=IMAGE_HEADER, count=1)[0]
    # All fields have four bytes.
    names = (IMAGE_HEADER.names or ())[: len(raw) // 4]
    return {name: record[name].item() for name in names}


def _check(
    size: int, version: int, bits: int, extents: tuple[int, int], image_header_bytes: int, path: str
) -> None:
    if size != HEADER_BYTES:
        raise HeaderError(
            f"Invalid header size {size}, should be {HEADER_BYTES}. Maybe not a TVIPS file?", path=path
        )
    if version not in (1, 2):
        raise HeaderError(f"Unknown TVIPS header version: {version}", path=path, expected="1 or 2")
    if bits not in (8, 16):
        raise HeaderError(f"unknown bpp value: {bits} (should be either 8 or 16)", path=path)
    if min(extents) < 1:
        raise HeaderError(
            "the header describes frames without pixels",
            path=path,
            found=f"{extents[0]} x {extents[1]} px",
            expected="positive numbers",
            hint="the file is damaged",
        )
    if image_header_bytes < IMAGE_HEADER_BYTES_V1:
        raise HeaderError(
            "the image headers are too short",
            path=path,
            found=f"{image_header_bytes} bytes",
            expected=f"at least {IMAGE_HEADER_BYTES_V1}",
            hint="the file is damaged",
        )
