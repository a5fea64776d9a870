"""What HDF5 files say about the experiment, in the conventions of the programs that write them.

| written by | axes | settings |
|---|---|---|
| EMD (Berkeley: ``dim1``, ...; emdfile and py4DSTEM: ``dim0``, ...) | arrays of positions beside the data, attribute ``units`` | |
| HyperSpy | groups ``axis-0``, ... beside the data, attributes ``scale``, ``offset``, ``units`` | group ``metadata`` |
| NeXus | attribute ``axes`` of the NXdata group names arrays of positions, attribute ``units`` | |
| Velox | | JSON text ``Metadata`` beside the data |
| DECTRIS master files | pixel sizes | ``/entry/instrument/detector`` and ``detectorSpecific`` |

Sources: EMD 0.2 and 1.0, HyperSpy "Metadata structure", NeXus NXdata, NXdetector and NXmx; Velox as seen in
sample files, no public document describes it.
"""  # noqa: E501

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from typing import Any

import numpy as np

from libertem.io.dataset.base.metadata import (
    Axis,
    Metadata,
    axis_names,
    axis_of,
    fill_axes,
    make_metadata,
    plain_header,
    timestamp_at,
    timestamp_of,
)
from libertem.io.dataset.hdf5.candidates import attribute
from libertem.io.dataset.hdf5.library import LIBRARY_ERRORS, import_h5py
from libertem.io.dataset.hdf5.masters import DETECTOR, SPECIFIC

__all__ = ["describe_experiment"]

MAX_POSITIONS = 1 << 20
"""Longer arrays are no positions of an axis."""

MAX_FIELDS = 500
"""Fields of a group that are put into the raw header."""

MAX_JSON_BYTES = 1 << 20

IRREGULAR = 1e-3
"""Steps may differ by this part of them: positions are rounded, often to 32 bit."""

Found = tuple[str, Any, str, str]
"""Name, value, unit and source, as `make_metadata` wants it."""


def describe_experiment(file: Any, obj: Any, n_nav: int, n_sig: int) -> Metadata:
    """What a file says about one of its data sets.

    Parameters
    ----------
    file : h5py.File
    obj : h5py.Dataset or h5py.Group
        The data set, or the group of data sets that follow each other.
    n_nav, n_sig : int
        How many axes belong to the scan and to the frame.
    """
    h5py = import_h5py()
    known = _of_master(file) if isinstance(obj, h5py.Group) else _Known()
    if isinstance(obj, h5py.Dataset):
        group = obj.parent
        known = _of_hyperspy(group) or _of_velox(group) or known
        names = (*axis_names(n_nav), *axis_names(n_sig, "k"))
        axes = _axes(group, obj, names)
        known.fields["nav_axes"] = fill_axes(axes[:n_nav])
        known.fields["sig_axes"] = fill_axes(axes[n_nav:], "k")
        known.header = {**_attributes(obj), **_attributes(group), **known.header}
    header = plain_header({**_attributes(file), **known.header})
    return make_metadata(known.found, header=header, **known.fields)


class _Known:
    """What is known so far."""

    def __init__(self) -> None:
        self.found: list[Found] = []
        self.fields: dict[str, Any] = {}
        self.header: dict[str, Any] = {}


# --- axes ---


def _axes(group: Any, dset: Any, names: tuple[str, ...]) -> list[Axis | None]:
    """Calibration of each axis of a data set, in the first convention that knows any."""
    for convention in (_hyperspy_axis, _emd_axis, _nexus_axis):
        axes = [convention(group, dset, k, name) for k, name in enumerate(names)]
        if any(axis is not None for axis in axes):
            return axes
    return [None] * len(names)


def _hyperspy_axis(group: Any, dset: Any, k: int, name: str) -> Axis | None:
    found = _member(group, f"axis-{k}")
    if found is None or attribute(found, "size") != dset.shape[k]:
        return None
    unit, offset = attribute(found, "units"), attribute(found, "offset")
    offset = 0.0 if offset is None else offset
    return axis_of(name, attribute(found, "scale"), _text(unit), f"axis-{k}: scale", offset=offset)


def _emd_axis(group: Any, dset: Any, k: int, name: str) -> Axis | None:
    # Early versions count from 1, later ones from 0.
    label = f"dim{k if 'dim0' in group else k + 1}"
    return _axis_at(group, label, dset.shape[k], name)


def _nexus_axis(group: Any, dset: Any, k: int, name: str) -> Axis | None:
    labels = _names(group, "axes") or _names(dset, "axes")
    if len(labels) != len(dset.shape) or labels[k] == ".":
        return None
    return _axis_at(group, labels[k], dset.shape[k], name)


def _axis_at(group: Any, label: str, extent: int, name: str) -> Axis | None:
    """Axis from an array of positions, of which there may be only the first two."""
    positions = _member(group, label)
    try:
        shape = positions.shape
        if len(shape) != 1 or shape[0] not in (2, extent) or not 2 <= shape[0] <= MAX_POSITIONS:
            return None
        values = np.asarray(positions[()], dtype=np.float64)
    except LIBRARY_ERRORS:
        return None
    if not np.isfinite(values).all():
        return None
    step = (values[-1] - values[0]) / (values.size - 1)
    if (abs(np.diff(values) - step) > IRREGULAR * abs(step)).any():
        return None
    return axis_of(name, step, _text(attribute(positions, "units")), label, offset=values[0])


# --- settings ---


def _of_hyperspy(group: Any) -> _Known | None:
    tem = _member(group, "metadata/Acquisition_instrument/TEM")
    general = _member(group, "metadata/General")
    if tem is None and general is None:
        return None
    known = _Known()
    fields = (
        ("voltage", "beam_energy", "kV"),
        ("camera_length", "camera_length", "mm"),
        ("convergence_angle", "convergence_angle", "mrad"),
        ("beam_current", "beam_current", "nA"),
        ("exposure_time", "Camera/exposure", "s"),
    )
    where = "metadata.Acquisition_instrument.TEM"
    for name, path, unit in fields:
        holder, _, key = path.rpartition("/")
        source = f"{where}.{path.replace('/', '.')}"
        known.found.append((name, attribute(_member(tem, holder) if holder else tem, key), unit, source))
    when = f"{attribute(general, 'date')}T{attribute(general, 'time')}"
    known.fields["acquired"] = timestamp_of(when, "metadata.General.date, time")
    detector = attribute(_member(tem, "Camera"), "name") or None
    known.fields["detector"] = detector if isinstance(detector, str) else None
    known.header = {
        "Acquisition_instrument.TEM": _attributes(tem),
        "General": _attributes(general),
    }
    return known


def _of_velox(group: Any) -> _Known | None:
    try:
        column = _member(group, "Metadata")
        if column is None or column.ndim != 2 or column.dtype != np.uint8 or column.shape[0] > MAX_JSON_BYTES:
            return None
        header = json.loads(bytes(column[:, 0]).split(b"\0", 1)[0])
    except LIBRARY_ERRORS:
        return None
    if not isinstance(header, dict):
        return None
    known = _Known()
    known.header = header
    fields = (
        ("voltage", "Optics/AccelerationVoltage", "V"),
        ("camera_length", "Optics/CameraLength", "m"),
        ("convergence_angle", "Optics/BeamConvergence", "rad"),
        ("defocus", "Optics/Defocus", "m"),
        ("dwell_time", "Scan/DwellTime", "s"),
    )
    known.found = [(name, _at(header, path), unit, path.replace("/", ".")) for name, path, unit in fields]
    start = "Acquisition/AcquisitionStartDatetime/DateTime"
    known.fields["acquired"] = timestamp_at(_at(header, start), start.replace("/", "."))
    detector = _at(header, "BinaryResult/Detector")
    known.fields["detector"] = detector if isinstance(detector, str) else None
    return known


def _of_master(file: Any) -> _Known:
    known = _Known()
    fields = (
        ("exposure_time", "count_time", "s"),
        ("frame_period", "frame_time", "s"),
        ("detector_distance", "detector_distance", "m"),
        ("threshold_energy", "threshold_energy", "eV"),
        ("photon_energy", "detectorSpecific/photon_energy", "eV"),
        ("sensor_thickness", "sensor_thickness", "m"),
    )
    for name, path, unit in fields:
        value = _scalar(file, f"{DETECTOR}/{path}")
        # Writers put 0 where nobody has entered a number.
        if value:
            stated = _text(attribute(_member(file, f"{DETECTOR}/{path}"), "units"))
            known.found.append((name, value, stated or unit, f"{DETECTOR}/{path}"))
    axes = [
        axis_of(name, _scalar(file, f"{DETECTOR}/{field}"), "m", f"{DETECTOR}/{field}")
        for name, field in (("ky", "y_pixel_size"), ("kx", "x_pixel_size"))
    ]
    known.fields["sig_axes"] = fill_axes(axes, "k")
    detector, date = _scalar(file, f"{DETECTOR}/description"), f"{SPECIFIC}/data_collection_date"
    known.fields["detector"] = detector if isinstance(detector, str) else None
    known.fields["acquired"] = timestamp_of(_scalar(file, date), date)
    known.header = {DETECTOR: _scalars(file, DETECTOR), SPECIFIC: _scalars(file, SPECIFIC)}
    return known


# --- looking into files, whatever is there ---


def _member(group: Any, path: str) -> Any:
    """Member of a group, None if there is none."""
    try:
        return None if group is None or path not in group else group[path]
    except LIBRARY_ERRORS:
        return None


def _scalar(file: Any, path: str) -> Any:
    """Number or text of a data set of one element, None if there is none."""
    try:
        found = file[path]
        value = found[()] if found.size == 1 else None
    except LIBRARY_ERRORS:
        return None
    value = value.item() if isinstance(value, np.generic | np.ndarray) else value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _scalars(file: Any, path: str) -> dict[str, Any]:
    """All numbers and texts of a group."""
    group = _member(file, path)
    names = islice([] if group is None else group, MAX_FIELDS)
    found = {name: _scalar(group, name) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _attributes(obj: Any) -> dict[str, Any]:
    try:
        names = list(islice([] if obj is None else obj.attrs, MAX_FIELDS))
    except LIBRARY_ERRORS:
        return {}
    found = {name: attribute(obj, name) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _names(obj: Any, name: str) -> list[str]:
    """An attribute with several texts."""
    value = attribute(obj, name)
    if isinstance(value, str):
        # NeXus before 2014, with and without brackets.
        return value.strip("[]").replace(",", ":").split(":")
    if not isinstance(value, np.ndarray) or value.ndim != 1:
        return []
    return [
        item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in value.tolist()
    ]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _at(header: Mapping[str, Any], path: str) -> Any:
    """Value in a nested mapping, None if there is none."""
    value: Any = header
    for name in path.split("/"):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
