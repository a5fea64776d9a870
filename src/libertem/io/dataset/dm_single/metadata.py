"""What the tags of an image say about the experiment; see `libertem.io.headers.dm.experiment`."""

from __future__ import annotations

from dataclasses import replace

from libertem.exceptions import HeaderError
from libertem.io.dataset.base.metadata import (
    NO_METADATA,
    Axis,
    Metadata,
    axis_names,
    axis_of,
    fill_axes,
    make_metadata,
    plain_header,
    timestamp_at,
)
from libertem.io.dataset.dm_single.files import open_tags
from libertem.io.headers.dm import DMTags, Names, parse_tags, tags_to_dict
from libertem.io.headers.dm.experiment import (
    OS_TIME,
    Calibration,
    acquisition_time,
    calibrations,
    camera_name,
    quantities,
)

__all__ = ["read_metadata"]


def read_metadata(path: str, index: int, *, sig_dims: int, is_transposed: bool = False) -> Metadata:
    """What the tags of an image say about the experiment; if those are damaged, only its calibration.

    Parameters
    ----------
    index : int
        Place of the image in the file.
    sig_dims : int
        Number of signal axes.
    is_transposed : bool
        Whether they are the slowest axes.
    """
    tags = _read_tags(path)
    if tags is None or index >= len(tags.names("ImageList")):
        return NO_METADATA
    image = ("ImageList", tags.names("ImageList")[index])
    n_dims = len(tags.names((*image, "ImageData", "Dimensions")))
    stored = calibrations(tags, image, n_dims)[::-1]
    n_first = sig_dims if is_transposed else n_dims - sig_dims
    nav, sig = (stored[n_first:], stored[:n_first]) if is_transposed else (stored[:n_first], stored[n_first:])
    return make_metadata(
        quantities(tags, image),
        acquired=timestamp_at(acquisition_time(tags, image), OS_TIME),
        detector=camera_name(tags, image),
        nav_axes=_axes(nav, ""),
        sig_axes=_axes(sig, "k"),
        header=plain_header(tags_to_dict(tags, image, leave_out=("ImageData", "Data"))),
    )


def _read_tags(path: str) -> DMTags | None:
    # In version 4, loading jumps over most tags: damage there is no reason to know nothing.
    for keep in (_is_about_images, _is_calibration):
        try:
            with open_tags(path) as (read, size):
                return parse_tags(read, size, path=path, keep=keep)
        except HeaderError:
            continue
    return None


def _is_about_images(names: Names) -> bool:
    return names[0] == "ImageList"


def _is_calibration(names: Names) -> bool:
    return names[0] == "ImageList" and names[2:3] in ((), ("ImageData",))


def _axes(calibrated: list[Calibration], prefix: str) -> tuple[Axis, ...]:
    names = axis_names(len(calibrated), prefix)
    return fill_axes([_axis(name, axis) for name, axis in zip(names, calibrated, strict=True)], prefix)


def _axis(name: str, calibration: Calibration) -> Axis | None:
    origin, scale, units, source = calibration
    if not (isinstance(scale, int | float) and isinstance(units, str)):
        return None
    # An EELS file whose other tags say that it starts at 300 eV has Origin -300, Scale 1.
    offset = 0.0 - origin * scale if isinstance(origin, int | float) else 0.0
    axis = axis_of(name, scale, units, source, offset=offset)
    return replace(axis, name="energy") if axis is not None and axis.unit == "eV" else axis
