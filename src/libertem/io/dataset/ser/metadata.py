"""What a SER file, and the EMI file beside it, say about the experiment.

| field | known as |
|-------|----------|
| CalibrationDelta, CalibrationOffset of a dimension with units | ``nav_axes`` |
| time of the first tag | ``acquired``, in UTC |
| settings in the EMI file with units | ``voltage``, ``camera_length``, ``stage_x``, ... |
| ``CameraNamePath`` of the EMI file | ``detector`` |

Of the files that have positions in their tags, these are half a step further: offsets belong to the edges
of scan positions, and are left as they are.

The calibration of elements has no unit, and stays in the raw header.
"""

from __future__ import annotations

import struct

import numpy as np

from libertem.io.dataset.base.backends.rawio import RawFile
from libertem.io.dataset.base.metadata import (
    Axis,
    Metadata,
    axis_names,
    axis_of,
    fill_axes,
    make_metadata,
    plain_header,
    timestamp_at,
)
from libertem.io.dataset.ser.elements import read_calibrations
from libertem.io.dataset.ser.emi import read_object_info
from libertem.io.dataset.ser.header import SERHeader

__all__ = ["read_metadata"]

TIME = struct.Struct("<2HI")
POSITION = struct.Struct("<2d")


def read_metadata(path: str, header: SERHeader, first_offset: int) -> Metadata:
    """Read what the files say; `first_offset` is the byte where the first element starts.

    Raises
    ------
    DataSetException
        If the SER file is gone.
    """
    with RawFile(path) as file:
        calibrations = read_calibrations(file, first_offset, header.element_dims)
        tag = _read_tag(file, header)
    info = read_object_info(path)
    fields = {
        "SeriesVersion": header.version,
        "TagTypeID": header.tags,
        "TotalNumberElements": header.n_planned,
        "ValidNumberElements": header.n_valid,
        "Dimensions": [
            {
                "DimensionSize": dimension.size,
                "CalibrationOffset": dimension.coordinate,
                "CalibrationDelta": dimension.step,
                "CalibrationElement": dimension.element,
                "Description": dimension.description,
                "Units": dimension.units,
            }
            for dimension in header.dimensions
        ],
        "first element": dict(zip(("X", "Y"), calibrations, strict=False)),
        "first tag": tag,
    }
    return make_metadata(
        info.quantities,
        acquired=timestamp_at(tag.get("time"), "time"),
        detector=info.camera,
        nav_axes=_nav_axes(header),
        header=plain_header(fields if info.header is None else {**fields, "emi": info.header}),
    )


def _nav_axes(header: SERHeader) -> tuple[Axis, ...]:
    dimensions = header.dimensions[::-1]
    names = axis_names(len(dimensions))
    return fill_axes(
        [
            axis_of(name, dimension.step, dimension.units, "CalibrationDelta", offset=dimension.start)
            for name, dimension in zip(names, dimensions, strict=True)
        ]
    )


def _read_tag(file: RawFile, header: SERHeader) -> dict[str, float]:
    """Time and position of the first element; empty if the tag is not to be found."""
    dtype = header.offset_dtype
    place = np.empty(dtype.itemsize, dtype=np.uint8)
    file.read_into(place, header.table_offset + header.n_planned * dtype.itemsize)
    offset = int(place.view(dtype)[0])
    raw = np.empty(TIME.size + POSITION.size, dtype=np.uint8)
    size = min(raw.size, file.size() - offset)
    if not header.tags.startswith("time") or size < TIME.size or offset < header.header_stop:
        return {}
    file.read_into(raw[:size], offset)
    _, _, time = TIME.unpack_from(raw.data)
    if header.tags == "time" or size < raw.size:
        return {"time": time}
    x, y = POSITION.unpack_from(raw.data, TIME.size)
    return {"time": time, "PositionX": x, "PositionY": y}
