"""What the tags of an image say about the experiment.

Calibration of the axis ``j``, fastest first, in the group ``ImageData.Calibrations.Dimension.j``:

| tag | meaning |
|-----|---------|
| ``Scale`` | from one element to the next |
| ``Origin`` | element at position 0 |
| ``Units`` | of the scale, as text |

Other tags have their unit in the name, such as ``Exposure (s)``; see `QUANTITIES`. Of three it is inferred:

| tag | unit | why |
|-----|------|-----|
| ``Microscope Info.Voltage`` | V | ``Formatted Voltage`` has the same with a unit |
| ``DataBar.Acquisition Time (OS)`` | 100 ns since 1601, UTC | texts differ from it by the time zone only |
| ``Microscope Info.Indicated Magnification`` | none | ``Formatted Indicated Mag`` has the same |

``STEM Camera Length`` and the stage positions have no unit anywhere. Dates in texts are written as is usual
where the computer stands. Copies of the tags of other images, as in ``ImageTags.Parent``, do not count.

Sources: sample files of DM 1.8 to GMS 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from libertem.io.headers.dm.tags import DMTags, DMValue, Names

__all__ = ["OS_TIME", "Calibration", "acquisition_time", "calibrations", "camera_name", "quantities"]

CALIBRATIONS = ("ImageData", "Calibrations", "Dimension")

QUANTITIES: tuple[tuple[str, str, str], ...] = (
    ("voltage", "Microscope Info.Voltage", "V"),
    ("exposure_time", "Acquisition.Parameters.High Level.Exposure (s)", "s"),
    ("exposure_time", "DataBar.Exposure Time (s)", "s"),
    ("dwell_time", "SI.Acquisition.Pixel time (s)", "s"),
    ("magnification", "Microscope Info.Indicated Magnification", ""),
    ("field_of_view", "Microscope Info.Field of View (µm)", "µm"),
    ("beam_current", "Microscope Info.Probe Current (nA)", "nA"),
    ("emission_current", "Microscope Info.Emission Current (µA)", "µA"),
    ("convergence_angle", "EELS.Experimental Conditions.Convergence semi-angle (mrad)", "mrad"),
    ("collection_angle", "EELS.Experimental Conditions.Collection semi-angle (mrad)", "mrad"),
)
"""Name, tag in the group ``ImageTags``, unit. Zero means that it is not known. Angles are from the axis."""

CAMERA = "Acquisition.Device.Name"

OS_TIME = "DataBar.Acquisition Time (OS)"
OS_EPOCH = -11644473600
"""Start of 1601, in seconds since 1970."""
OS_TICKS_PER_SECOND = 10_000_000


class Calibration(NamedTuple):
    """Of one axis, as in the file."""

    origin: DMValue | None
    scale: DMValue | None
    units: DMValue | None
    source: str
    """Path of the tags."""


def calibrations(tags: DMTags, image: Names, n_dims: int) -> list[Calibration]:
    """Calibrations of the axes of an image, fastest first; `image` is its path."""
    found = []
    for j in range(n_dims):
        group = (*CALIBRATIONS, str(j))
        origin, scale, units = (tags.get((*image, *group, name)) for name in ("Origin", "Scale", "Units"))
        found.append(Calibration(origin, scale, units, ".".join(group)))
    return found


def quantities(tags: DMTags, image: Names) -> Iterator[tuple[str, float, str, str]]:
    """Name, value, unit and tag of what is known."""
    for name, path, unit in QUANTITIES:
        value = _image_tag(tags, image, path)
        if isinstance(value, int | float) and value > 0:
            yield name, value, unit, path


def camera_name(tags: DMTags, image: Names) -> str | None:
    """Name of the camera, None if it is not given."""
    name = _image_tag(tags, image, CAMERA)
    return name.strip()[:200] or None if isinstance(name, str) else None


def acquisition_time(tags: DMTags, image: Names) -> float | None:
    """Seconds since 1970, UTC; None if it is not given."""
    ticks = _image_tag(tags, image, OS_TIME)
    if isinstance(ticks, int | float) and ticks > 0:
        return ticks / OS_TICKS_PER_SECOND + OS_EPOCH
    return None


def _image_tag(tags: DMTags, image: Names, path: str) -> DMValue | None:
    return tags.get((*image, "ImageTags", *path.split(".")))
