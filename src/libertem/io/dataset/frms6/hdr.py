"""The ``.hdr`` file of an acquisition: INI text with the section ``[measurementInfo]``.

| key, in any case | value |
|---|---|
| ``STEMImageSize`` | ``AxB``, shape of the scan. Taken as rows x columns; only square scans have been seen |
| ``signalFrames`` | number of frames in all files but that of the dark frames |
| ``readoutMode`` | ``"bin: b, windowing: i x j"`` with the quotes; rows binned by b |
| ``darkFrames``, ``dwellTimeMicroseconds``, ``gain`` | integers, for information |
| others | kept for information |

No public document describes it.
"""

from __future__ import annotations

import configparser
import re
from dataclasses import dataclass
from typing import Any

from libertem.exceptions import HeaderError

__all__ = ["MAX_HDR_BYTES", "Hdr", "parse_hdr"]

MAX_HDR_BYTES = 32 << 10
"""Real files have less than 1 KiB."""

SECTION = "measurementInfo"
COUNTS = ("signalframes", "darkframes", "dwelltimemicroseconds", "gain")
BINNINGS = (1, 2, 4)

# Fifteen digits are more than anything has, and few enough that nothing becomes slow.
INTEGER = re.compile(r"[+-]?[0-9]{1,15}")
# No scan has lines of 100000 positions.
SCAN_SIZE = re.compile(r"\s*0*([1-9][0-9]{0,4})\s*[xX]\s*0*([1-9][0-9]{0,4})\s*")
READOUT_MODE = re.compile(
    r'"\s*bin\s*:\s*([0-9]{1,9})\s*,\s*windowing\s*:\s*([0-9]{1,9})\s*x\s*([0-9]{1,9})\s*"'
)


@dataclass(frozen=True)
class Hdr:
    """The facts of a ``.hdr`` file."""

    nav_shape: tuple[int, int]
    """Shape of the scan."""

    n_frames: int
    """Number of frames of the scan that were recorded."""

    binning: int
    """Rows of the sensor that were added up to one."""

    values: dict[str, Any]
    """All keys in lower case with their values; those that are known are parsed."""


def parse_hdr(raw: bytes, *, path: str) -> Hdr:
    """Turn the bytes of a ``.hdr`` file into an `Hdr`.

    Parameters
    ----------
    raw : bytes
        The whole file.
    path : str
        Where `raw` came from. Named in errors, never opened.

    Raises
    ------
    HeaderError
        If it is no such file, a key is missing, or a value cannot be understood.
    """
    values: dict[str, Any] = dict(_read_section(raw, path))
    for key in ("stemimagesize", "readoutmode", *COUNTS):
        if key not in values:
            raise HeaderError(
                f"{key} missing from section {SECTION} of .hdr file {path}",
                path=path,
                found=f"the keys {', '.join(values)[:200]}",
                expected=f"{key}=...",
            )
    size = _match(SCAN_SIZE, values, "stemimagesize", path, "the form 256x256")
    mode = _match(READOUT_MODE, values, "readoutmode", path, '"bin: 1, windowing: 1 x 264" with the quotes')
    for key in COUNTS:
        values[key] = int(_match(INTEGER, values, key, path, "an integer")[0])
    binning, win_i, win_j = (int(number) for number in mode.groups())
    if binning not in BINNINGS:
        raise HeaderError("impossible binning", path=path, found=binning, expected=f"one of {BINNINGS}")
    values["stemimagesize"] = nav_shape = (int(size[1]), int(size[2]))
    values["readoutmode"] = {"bin": binning, "win_i": win_i, "win_j": win_j}
    return Hdr(nav_shape, values["signalframes"], binning, values)


def _read_section(raw: bytes, path: str) -> dict[str, str]:
    # Raw, because percent signs have no meaning here.
    parser = configparser.RawConfigParser(delimiters=("=",))
    try:
        parser.read_string(raw.decode("utf-8-sig", "replace"))
    except configparser.Error as err:
        raise HeaderError(
            "not the .hdr file of a pnCCD acquisition",
            path=path,
            found=f"{raw[:20]!r}, {type(err).__name__}",
            expected=f"INI text with a section [{SECTION}]",
            hint="name the type yourself if it is something else",
        ) from err
    if not parser.has_section(SECTION):
        raise HeaderError(
            f"{SECTION} missing from .hdr file {path}",
            path=path,
            found=f"the sections {', '.join(parser.sections())[:200] or 'none'}",
            expected=f"[{SECTION}]",
        )
    return dict(parser.items(SECTION))


def _match(
    pattern: re.Pattern[str], values: dict[str, Any], key: str, path: str, expected: str
) -> re.Match[str]:
    match = pattern.fullmatch(values[key])
    if match is None:
        what = "readout mode" if key == "readoutmode" else key
        raise HeaderError(f"could not parse {what}", path=path, found=values[key][:100], expected=expected)
    return match
