"""What the first frame header and the ``.hdr`` file say about the experiment.

| field of the frame header | example | known as |
|---------------------------|---------|----------|
| extended time stamp | ``2021-05-07T16:51:10.905800928Z`` | ``acquired``, in UTC |
| time stamp | ``2021-05-07 18:51:10.905800`` | ``acquired`` of older software, in local time |
| exposure | ``1000000ns`` | ``exposure_time`` |
| shutter open time | ``0.001000``, in seconds | ``exposure_time`` of older software |
| threshold 0 to 7 | ``2.000000E+0``, in keV | ``threshold_0`` to ``threshold_7`` |

| key of the ``.hdr`` file | example | known as |
|--------------------------|---------|----------|
| ``Readout System`` | ``Merlin Quad`` | ``detector`` |
| ``Sensor Bias (V)`` | ``120 V`` | ``sensor_bias`` |

The date in the ``.hdr`` file is written as is usual where the computer stands, and stays there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from libertem.exceptions import DataSetException
from libertem.io.dataset.base.framefile import read_head
from libertem.io.dataset.base.metadata import Metadata, make_metadata, plain_header, timestamp_of
from libertem.io.dataset.mib.files import MIBFacts, find_hdr
from libertem.io.dataset.mib.hdr import read_hdr

__all__ = ["describe", "parse_fields", "read_metadata"]

LEADING_FIELDS = (
    "header id",
    "acquisition sequence number",
    "data offset",
    "number of chips",
    "pixel dimension X",
    "pixel dimension Y",
    "pixel depth in file",
    "sensor layout",
    "chip select",
    "time stamp",
    "shutter open time",
    "counter",
    "colour mode",
    "gain mode",
)
EXTENSION = "MQ1A"
EXTENSION_FIELDS = ("extended time stamp", "exposure", "counter depth")
CHIP_SETTINGS = "3RX"
N_THRESHOLDS = 8

NANOSECONDS = re.compile(r"([0-9]{1,18})ns")
VOLTS = re.compile(r"([+-]?[0-9]{1,9}(?:\.[0-9]{0,9})?)\s*V")


def read_metadata(path: str, facts: MIBFacts) -> Metadata:
    """Read the header of the first frame, and the ``.hdr`` file if there is one.

    Raises
    ------
    DataSetException
        If the file with the first frame is gone.
    """
    head = read_head(os.path.join(facts.folder, facts.names[0]), facts.header.header_bytes)
    try:
        hdr = read_hdr(path) if path.lower().endswith(".hdr") else find_hdr(path)
    except DataSetException:
        hdr = None
    return describe(parse_fields(head.raw), {} if hdr is None else hdr.values)


def parse_fields(raw: bytes) -> dict[str, Any]:
    """Fields of a frame header by name, as texts; those that are not there are left out.

    Parameters
    ----------
    raw : bytes
        The header; anything else gives nonsense, but no error.
    """
    text = raw.partition(b"\0")[0].decode("ascii", "ignore")
    fields = [field.strip() for field in text.split(",")]
    named: dict[str, Any] = dict(zip(LEADING_FIELDS, fields, strict=False))
    rest = fields[len(LEADING_FIELDS) :]
    if EXTENSION in rest:
        place = rest.index(EXTENSION)
        named.update(zip(EXTENSION_FIELDS, rest[place + 1 :], strict=False))
        rest = rest[:place]
    place = rest.index(CHIP_SETTINGS) if CHIP_SETTINGS in rest else len(rest)
    named.update({f"threshold {i}": field for i, field in enumerate(rest[:place][:N_THRESHOLDS])})
    if place < len(rest):
        chips = ",".join(rest[place + 1 :]).split(f",{CHIP_SETTINGS},")
        named["DACs"] = [chip.strip(",") for chip in chips]
    return {name: field for name, field in named.items() if field}


def describe(fields: Mapping[str, Any], hdr: Mapping[str, str]) -> Metadata:
    """Metadata from the fields of a frame header and the lines of an ``.hdr`` file."""
    return make_metadata(
        _quantities(fields, hdr),
        acquired=timestamp_of(fields.get("extended time stamp"), "extended time stamp")
        or timestamp_of(fields.get("time stamp"), "time stamp"),
        detector=hdr.get("Readout System", "")[:200] or None,
        header=plain_header({"frame header": fields, **({"hdr": hdr} if hdr else {})}),
    )


def _quantities(fields: Mapping[str, Any], hdr: Mapping[str, str]) -> Iterator[tuple[str, Any, str, str]]:
    exposure = NANOSECONDS.fullmatch(fields.get("exposure", ""))
    if exposure is not None:
        yield "exposure_time", exposure[1], "ns", "exposure"
    yield "exposure_time", fields.get("shutter open time"), "s", "shutter open time"
    for i in range(N_THRESHOLDS):
        value = fields.get(f"threshold {i}", "")
        # Those that are not in use are zero.
        if value.strip("0.E+-"):
            yield f"threshold_{i}", value, "keV", f"threshold {i}"
    bias = VOLTS.fullmatch(hdr.get("Sensor Bias (V)", ""))
    if bias is not None:
        yield "sensor_bias", bias[1], "V", "Sensor Bias (V)"
