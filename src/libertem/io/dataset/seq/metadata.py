"""What a SEQ file and the files beside it say about the experiment.

| field | known as |
|-------|----------|
| ``FileInfo/CameraType`` of ``.Config.Metadata.xml`` | ``detector`` |
| acquisition time in the first record of ``.metadata`` | ``acquired``, in local time |

Frames have time stamps, too, but no time zone: some software seems to write UTC, and PIMS knows them as local
time. The frame rate in the header is a suggestion for the player. Both are in the raw header only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from libertem.exceptions import DataSetException
from libertem.io.dataset.base.backends.rawio import RawFile
from libertem.io.dataset.base.framefile import read_head
from libertem.io.dataset.base.metadata import Metadata, plain_header, timestamp_of
from libertem.io.dataset.seq.geometry import METADATA_BYTES, readout_fields
from libertem.io.dataset.seq.header import SEQHeader
from libertem.io.dataset.seq.sidecars import MAX_CONFIG_BYTES, find_sidecar
from libertem.io.headers.xmltree import parse_xml

__all__ = ["read_metadata"]


def read_metadata(path: str, header: SEQHeader) -> Metadata:
    """Read what the files say; sidecars that cannot be read are left out.

    Raises
    ------
    DataSetException
        If the SEQ file is gone.
    """
    file_info, readout = _read_file_info(path), _read_readout(path)
    camera = file_info.get("CameraType", "").strip()
    acquired = readout.get("acquisition time", b"").decode("ascii", "replace")
    parts = {
        "header": header.fields,
        "first frame": _read_time(path, header),
        "metadata": readout,
        "FileInfo": file_info,
    }
    return Metadata(
        acquired=timestamp_of(acquired, "acquisition time"),
        detector=camera[:200] or None,
        header=plain_header({name: part for name, part in parts.items() if part}),
    )


def _read_time(path: str, header: SEQHeader) -> dict[str, int]:
    """Time stamp behind the pixels of the first frame."""
    stamp = header.time_stamp
    offset = header.image_offset + header.pixel_bytes
    raw = np.empty(stamp.size, dtype=np.uint8)
    with RawFile(path) as file:
        if stamp.size > header.footer_bytes or offset + stamp.size > file.size():
            return {}
        file.read_into(raw, offset)
    names = ("seconds", "milliseconds", "microseconds")
    return dict(zip(names, stamp.unpack(raw.data), strict=False))


def _read_readout(path: str) -> dict[str, Any]:
    sidecar = find_sidecar(path, ".metadata")
    try:
        return {} if sidecar is None else readout_fields(read_head(sidecar, METADATA_BYTES).raw)
    except DataSetException:
        return {}


def _read_file_info(path: str) -> dict[str, str]:
    sidecar = find_sidecar(path, ".Config.Metadata.xml")
    try:
        root = None if sidecar is None else parse_xml(read_head(sidecar, MAX_CONFIG_BYTES).raw, path=sidecar)
    except DataSetException:
        return {}
    return {} if root is None else {child.tag: child.get("Value", "") for child in root.findall("FileInfo/*")}
