"""Which part of the sensor was recorded, according to the ``.metadata`` file of Direct Electron.

| offset | type | meaning |
|-------:|------|---------|
|      0 | <u4  | version, 1 |
|      4 | <u4  | bytes of this header, 256 |
|      8 | <u4  | number of records |
|     12 | <u4  | bytes of a record, 224 |
|    256 |      | records, one for each frame |

A record holds entries: <u4 bytes of the entry, <u4 1, <u4 type, <u4 bytes of the payload, then the
payload.
Entries of type 8 describe the readout:

| offset in payload | type | meaning |
|------------------:|------|---------|
|                 0 | <i4  | bytes of the payload, 208 |
|                 4 | <i4  | version, 16 |
|             8, 12 | <i4  | size x, y of the frame in pixels of the sensor, before binning |
|            16, 20 | <i4  | offset x, y of the frame in pixels of the sensor |
|                24 | <i4  | binning |
|                40 | <u4  | rotation in units of 90° |

`READOUT` has the others.

Software of 2020 seems to have put the payload at byte 282 of the file, without an entry around it. Which of
the two it is shows by the numbers: they have to fit the frames.

Sources: files of a Celeritas camera (2022); fields of the RosettaSciIO reader for them. No public document.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["METADATA_BYTES", "Geometry", "parse_metadata", "readout_fields"]

METADATA_BYTES = 4096
"""As much of the file as is looked at: header and first record."""

FILE_HEADER = struct.Struct("<4I")
ENTRY_HEADER = struct.Struct("<4I")
PAYLOAD = struct.Struct("<7i12xI")

READOUT_ENTRY = 8
BARE_PAYLOAD_OFFSET = 282
MAX_ENTRIES = 64

READOUT = np.dtype(
    {
        "names": [
            *("DEMetadataSize", "DEMetadataVersion", "UnbinnedFrameSizeX", "UnbinnedFrameSizeY"),
            *("OffsetX", "OffsetY", "HardwareBinning", "Bitmode", "FrameRate", "RotationMode", "FlipMode"),
            *("sensor sequence", "camera type", "sensor gain mode", "sensor gain", "magnification"),
            *("pixel size", "camera length", "diffraction pixel size", "acquisition time", "grabber name"),
        ],
        "formats": [*["<i4"] * 8, "<f8", *["<u4"] * 5, *["<f8"] * 5, "S32", "S24"],
        "offsets": [*range(0, 32, 4), 32, 40, 44, 52, 56, 60, 64, 72, 80, 88, 96, 152, 184],
        "itemsize": 208,
    }
)
"""An entry of type 8. No units are known."""

MAX_BINNING = 16
MAX_OFFSET = 1 << 16
QUARTER_TURNS = (1, 3)


@dataclass(frozen=True)
class Geometry:
    """The part of the sensor that a frame shows."""

    size: tuple[int, int]
    """(height, width) in pixels of the sensor, before binning."""

    offset: tuple[int, int]
    """(y, x) of the first pixel, before binning."""

    binning: int
    """Pixels of the sensor per pixel of a frame, along each axis."""

    rotation: int = 0
    """Of frames relative to the sensor, in units of 90°."""

    def fits(self, sig_shape: tuple[int, int]) -> bool:
        """Whether this can be the geometry of frames of that shape, perhaps turned by 90°."""
        if not 1 <= self.binning <= MAX_BINNING:
            return False
        if not all(0 <= start < MAX_OFFSET for start in self.offset):
            return False
        binned = tuple(extent // self.binning for extent in self.size)
        return binned == sig_shape or (self.rotation in QUARTER_TURNS and binned[::-1] == sig_shape)


def parse_metadata(raw: bytes, sig_shape: tuple[int, int]) -> Geometry | None:
    """Geometry in the first record of a ``.metadata`` file, None if there is none that fits the frames.

    Parameters
    ----------
    raw : bytes
        The first bytes of the file, any number.
    sig_shape : (int, int)
        Shape of the frames.
    """
    for offset in (*_readout_payloads(raw), BARE_PAYLOAD_OFFSET):
        if offset + PAYLOAD.size > len(raw):
            continue
        _, _, x, y, offset_x, offset_y, binning, rotation = PAYLOAD.unpack_from(raw, offset)
        geometry = Geometry((y, x), (offset_y, offset_x), binning, rotation)
        if geometry.fits(sig_shape):
            return geometry
    return None


def readout_fields(raw: bytes) -> dict[str, Any]:
    """What the first record of a ``.metadata`` file says about the readout, by name; empty if nothing.

    Parameters
    ----------
    raw : bytes
        The first bytes of the file, any number.
    """
    for offset in _readout_payloads(raw):
        if offset + READOUT.itemsize <= len(raw):
            record = np.frombuffer(raw, dtype=READOUT, count=1, offset=offset)[0]
            return {name: record[name].item() for name in READOUT.names or ()}
    return {}


def _readout_payloads(raw: bytes) -> Iterator[int]:
    """Where the payloads of the first record lie that describe the readout."""
    if len(raw) < FILE_HEADER.size:
        return
    _, offset, _, record_bytes = FILE_HEADER.unpack_from(raw)
    stop = min(offset + record_bytes, len(raw))
    for _ in range(MAX_ENTRIES):
        if offset + ENTRY_HEADER.size > stop:
            return
        entry_bytes, _, kind, _ = ENTRY_HEADER.unpack_from(raw, offset)
        if kind == READOUT_ENTRY:
            yield offset + ENTRY_HEADER.size
        if entry_bytes < ENTRY_HEADER.size:
            return
        offset += entry_bytes
