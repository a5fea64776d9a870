"""The ``.hdr`` file of an acquisition: 2048 bytes of text, a line per setting.

The first line is ``HDR,``, the last one ``End``; the others are a key, a colon, a tab and the value:

| key                              | example | meaning                                                   |
|----------------------------------|---------|-----------------------------------------------------------|
| ``ScanX``, ``ScanY``             | ``28``  | width and height of the scan, from software 1.5 on        |
| ``Frames in Acquisition (Number)`` | ``65536`` | number of frames, 0 if without end                    |
| ``Frames per Trigger (Number)``  | ``256`` | width of the scan, if each line of it has its own trigger |
| ``Counter Depth (number)``       | ``12``  | bits of the counters                                      |
| ``Software Version``             | ``0.77`` |                                                          |

Other formats have files with the same extension, so the first line decides.

Source: files of software 0.67 to 1.6, with line ends of either kind.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from libertem.common.math import prod
from libertem.exceptions import DataSetException, HeaderError, ShapeError
from libertem.io.dataset.base.framefile import read_head

__all__ = ["HDR_BYTES", "AcquisitionHeader", "is_valid_hdr", "parse_hdr", "read_hdr"]

HDR_BYTES = 1 << 13
"""Real files have 2048 bytes."""

MAGIC = b"HDR"

MAX_DIGITS = 9

MAX_SCAN_POSITIONS = 1 << 32
"""More than any scan has; results for so many positions could be allocated."""


@dataclass(frozen=True)
class AcquisitionHeader:
    """The facts of an ``.hdr`` file; None where it does not say."""

    scan_shape: tuple[int, int] | None
    """(height, width), if the acquisition software knew the scan."""

    frames: int | None
    """Number of frames; 0 if the acquisition had no set end."""

    frames_per_trigger: int | None

    counter_depth: int | None
    """Bits of the counters."""

    software_version: str

    values: Mapping[str, str] = field(default_factory=dict, compare=False)
    """All lines, by key as it stands in the file."""

    def nav_shape(self, image_count: int, *, path: str) -> tuple[int, ...]:
        """Shape of the scan, ``(image_count,)`` if the numbers in the file give none.

        Raises
        ------
        ShapeError
            If the numbers are missing or absurd.
        """
        if self.scan_shape is not None:
            shape = self.scan_shape
        elif self.frames is None or self.frames_per_trigger is None:
            raise ShapeError(
                "the .hdr file does not tell the shape of the scan",
                path=path,
                expected="'Frames in Acquisition (Number)' and 'Frames per Trigger (Number)'",
                hint="pass nav_shape=(height, width)",
            )
        elif self.frames_per_trigger == 0 or self.frames < self.frames_per_trigger:
            return (image_count,)
        else:
            shape = (self.frames // self.frames_per_trigger, self.frames_per_trigger)
        if prod(shape) > MAX_SCAN_POSITIONS:
            raise ShapeError(
                "the .hdr file tells an absurd shape of the scan",
                path=path,
                found=shape,
                expected=f"{image_count} frames, as there are in the .mib files",
                hint="pass nav_shape=(height, width)",
            )
        return shape


def parse_hdr(raw: bytes, *, path: str) -> AcquisitionHeader:
    """Turn the bytes of an ``.hdr`` file into an `AcquisitionHeader`.

    Parameters
    ----------
    raw : bytes
        The file, or the beginning of it.
    path : str
        Where `raw` came from. Named in errors, never opened.

    Raises
    ------
    HeaderError
        If it does not begin as such files do.
    """
    if not raw.startswith(MAGIC):
        raise HeaderError(
            "not an .hdr file of a Merlin detector",
            path=path,
            found=repr(raw[:20]),
            expected=repr(MAGIC),
            hint="other formats use the same extension; name the type yourself, or open a .mib file",
        )
    lines = {}
    for line in raw.decode("latin-1").splitlines():
        key, colon, value = line.partition(":")
        if colon:
            lines[key.strip()] = value.strip()
    values = {key.lower(): value for key, value in lines.items()}
    height, width = (_number(values.get(key)) for key in ("scany", "scanx"))
    return AcquisitionHeader(
        scan_shape=(height, width) if height and width else None,
        frames=_number(values.get("frames in acquisition (number)")),
        frames_per_trigger=_number(values.get("frames per trigger (number)")),
        counter_depth=_number(values.get("counter depth (number)")),
        software_version=values.get("software version", "")[:40],
        values=lines,
    )


def _number(text: str | None) -> int | None:
    if text is None or not (text.isdecimal() and len(text) <= MAX_DIGITS):
        return None
    return int(text)


def read_hdr(path: str) -> AcquisitionHeader:
    """Read an ``.hdr`` file.

    Raises
    ------
    DataSetException
        If that is impossible, or the file is something else.
    """
    return parse_hdr(read_head(path, HDR_BYTES).raw, path=path)


def is_valid_hdr(path: str | os.PathLike[str]) -> bool:
    """Whether this is the ``.hdr`` file of a Merlin detector, rather than one of another format."""
    try:
        return read_head(os.fspath(path), len(MAGIC)).raw == MAGIC
    except DataSetException:
        return False
