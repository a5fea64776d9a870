"""The EMI file of TIA, for what it says about the experiment. Loading never opens it.

It is a binary document that contains XML: an element ``ObjectInfo`` for each SER file, in the order of their
numbers; the last ones may be missing. All children are optional:

| element | meaning |
|---------|---------|
| ``ExperimentalDescription/Root/Data`` | ``Label``, ``Value``, ``Unit`` of a setting, see `QUANTITIES` |
| ``AcquireInfo/CameraNamePath`` | name of the camera |
| ``AcquireDate`` | as text, in local time |

Sources: those of the header; files of TIA 4.7.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from libertem.exceptions import HeaderError
from libertem.io.headers.xmltree import parse_xml, xml_to_dict

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

__all__ = ["ObjectInfo", "find_emi", "parse_object_info", "read_object_info"]

SER_NAME = re.compile(r"(.*)_([0-9]{1,6})", re.DOTALL)

START, STOP = b"<ObjectInfo>", b"</ObjectInfo>"
MAX_XML_BYTES = 1 << 20
"""Real ones have less than 10 KiB."""

QUANTITIES = {
    "High tension": "voltage",
    "Camera length": "camera_length",
    "Magnification": "magnification",
    "Emission": "emission_current",
    "Defocus": "defocus",
    "Stage X": "stage_x",
    "Stage Y": "stage_y",
    "Stage Z": "stage_z",
    "Stage A": "stage_alpha",
    "Stage B": "stage_beta",
}
"""Name by label."""


class ObjectInfo(NamedTuple):
    """What an EMI file says about one SER file."""

    quantities: tuple[tuple[str, str, str, str], ...] = ()
    """Name, value, unit and source."""

    camera: str | None = None

    header: Any = None
    """All of the XML as plain data."""


def find_emi(path: str) -> tuple[str, int] | None:
    """EMI file that goes with a SER file, and the number of the latter; None if there is none."""
    folder, name = os.path.split(path)
    match = SER_NAME.fullmatch(os.path.splitext(name)[0])
    if match is None or int(match[2]) < 1:
        return None
    candidates = (os.path.join(folder, match[1] + extension) for extension in (".emi", ".EMI"))
    found = next(filter(os.path.isfile, candidates), None)
    return None if found is None else (found, int(match[2]))


def read_object_info(path: str) -> ObjectInfo:
    """What the EMI file beside a SER file says about it; nothing if it cannot be read."""
    found = find_emi(path)
    if found is None:
        return ObjectInfo()
    emi, number = found
    try:
        with open(emi, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            raw = _find(content, number)
    except (OSError, ValueError):
        # ValueError: an empty file cannot be mapped.
        return ObjectInfo()
    try:
        return ObjectInfo() if raw is None else parse_object_info(raw, path=emi)
    except HeaderError:
        return ObjectInfo()


def _find(content: mmap.mmap, number: int) -> bytes | None:
    stop = 0
    for _ in range(number):
        start = content.find(START, stop)
        stop = content.find(STOP, start) + len(STOP)
        if start < 0 or stop < len(STOP):
            return None
    return content[start:stop] if stop - start <= MAX_XML_BYTES else None


def parse_object_info(raw: bytes, *, path: str) -> ObjectInfo:
    """Turn the bytes of an element ``ObjectInfo`` into facts.

    Raises
    ------
    HeaderError
        If it is not well-formed.
    """
    root = parse_xml(raw, path=path)
    camera = (root.findtext("AcquireInfo/CameraNamePath") or "").strip()
    return ObjectInfo(tuple(_quantities(root)), camera[:200] or None, xml_to_dict(root))


def _quantities(root: Element) -> Iterator[tuple[str, str, str, str]]:
    for setting in root.findall("ExperimentalDescription/Root/Data"):
        label, value, unit = ((setting.findtext(tag) or "").strip() for tag in ("Label", "Value", "Unit"))
        if label in QUANTITIES:
            yield QUANTITIES[label], value, "" if unit.lower() == "x" else unit, label
