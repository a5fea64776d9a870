"""What a data set knows about the experiment: calibrated axes, microscope settings, the raw header.

Everything is in SI and says which field of the file it came from. Nothing is guessed: what a file does not
say is None, and a number whose unit is not known is found in the raw header only.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.units import UNITS, format_quantity, parse_unit

if TYPE_CHECKING:
    from libertem.common.shape import Shape

__all__ = [
    "NO_METADATA",
    "Axis",
    "Metadata",
    "Quantity",
    "Timestamp",
    "axis_names",
    "axis_of",
    "fill_axes",
    "make_metadata",
    "plain_header",
    "quantity_of",
    "timestamp_at",
    "timestamp_of",
]

LONGEST_LIST = 64
"""Longer arrays in raw headers are described, not copied: a header is there to be looked at."""

LONGEST_TEXT = 64 << 10
"""Longer texts in raw headers are cut, with a remark."""

ISO_8601 = re.compile(
    r"\s*(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,12}))?\s*(Z|[+-]\d\d:?\d\d)?\s*", re.ASCII
)
"""Year first: any other order of day, month and year differs from country to country."""

EPOCH = datetime.datetime(1970, 1, 1)


@dataclass(frozen=True)
class Quantity:
    """A number with a unit, and where it was found."""

    value: float
    """In SI."""
    unit: str
    """Metre, reciprocal metre, radian, second, volt, ... as in `libertem.common.units.UNITS`."""
    source: str
    """Field of the file, in the words of the format."""

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"unit of a quantity: found {self.unit!r}, expected one of {UNITS}")

    def __float__(self) -> float:
        return float(self.value)

    def __str__(self) -> str:
        return format_quantity(self.value, self.unit)


@dataclass(frozen=True)
class Timestamp:
    """A point in time, and where it was found."""

    value: datetime.datetime
    """Without time zone if the file does not tell it: then it is the local time of the microscope."""
    source: str
    """Field of the file, in the words of the format."""

    def __str__(self) -> str:
        return self.value.isoformat(sep=" ", timespec="seconds")


@dataclass(frozen=True)
class Axis:
    """Calibration of one axis: element ``i`` lies at ``offset + i * step``."""

    name: str
    """Such as ``"y"``, ``"x"``, ``"ky"``, ``"time"``, ``"energy"``."""
    step: float
    """From one element to the next, in SI; in elements if not calibrated. Negative if positions decrease."""
    unit: str = ""
    """As in `Quantity`; empty if not calibrated."""
    offset: float = 0.0
    """Position of element 0, in the same unit."""
    source: str = ""
    """Field of the file; empty if not calibrated."""

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"unit of an axis: found {self.unit!r}, expected one of {UNITS}")

    @property
    def is_calibrated(self) -> bool:
        """Whether the file gave a step with a unit."""
        return bool(self.unit)

    def __str__(self) -> str:
        if not self.is_calibrated:
            return f"{self.name}: not calibrated"
        return f"{self.name}: {format_quantity(self.step, self.unit)} per element"


@dataclass(frozen=True)
class Metadata:
    """What a file says about the experiment; None or empty where it says nothing."""

    voltage: Quantity | None = None
    """Acceleration voltage, in volts."""
    camera_length: Quantity | None = None
    """In metres."""
    exposure_time: Quantity | None = None
    """Time that one frame was exposed, in seconds."""
    frame_period: Quantity | None = None
    """Time from the start of a frame to that of the next, in seconds."""
    acquired: Timestamp | None = None
    """When the acquisition started; or the file was written, if no more is known (see its `source`)."""
    detector: str | None = None
    """Name of the camera, as the file gives it."""
    nav_axes: tuple[Axis, ...] = ()
    """Calibration of the scan, outermost axis first; empty if unknown."""
    sig_axes: tuple[Axis, ...] = ()
    """Calibration of the detector: metres, reciprocal metres or radians; empty if unknown."""
    extra: Mapping[str, Quantity] = field(default_factory=dict)
    """Other quantities, by names in the words of this library, such as ``"beam_current"``."""
    header: Mapping[str, Any] = field(default_factory=dict)
    """The raw header in the words of the file, JSON-compatible; see `plain_header`."""

    def fitted(self, shape: Shape) -> Metadata:
        """For a data set of that shape: axes that do not belong to it are left out."""
        nav = self.nav_axes if len(self.nav_axes) == shape.nav.dims else ()
        sig = self.sig_axes if len(self.sig_axes) == shape.sig.dims else ()
        return dataclasses.replace(self, nav_axes=nav, sig_axes=sig)

    def axes(self, shape: Shape) -> tuple[Axis, ...]:
        """One per axis of a data set; not calibrated where the file does not tell."""
        fitted = self.fitted(shape)
        return (
            *(fitted.nav_axes or _bare_axes(shape.nav.dims, "")),
            *(fitted.sig_axes or _bare_axes(shape.sig.dims, "k")),
        )

    def quantities(self) -> Iterator[tuple[str, Quantity | Timestamp | str]]:
        """Names and values of all that is known, axes and raw header left out."""
        for name in ("acquired", "detector", "voltage", "camera_length", "exposure_time", "frame_period"):
            value = getattr(self, name)
            if value is not None:
                yield name, value
        yield from self.extra.items()

    def to_dict(self) -> dict[str, Any]:
        """All but the raw header, as plain JSON-compatible data."""
        known: dict[str, Any] = {}
        for name, value in self.quantities():
            if isinstance(value, Quantity):
                known[name] = {"value": value.value, "unit": value.unit, "source": value.source}
            elif isinstance(value, Timestamp):
                known[name] = {"value": value.value.isoformat(), "source": value.source}
            else:
                known[name] = {"value": value}
        for name in ("nav_axes", "sig_axes"):
            if getattr(self, name):
                known[name] = [dataclasses.asdict(axis) for axis in getattr(self, name)]
        return known


NO_METADATA = Metadata()


MAIN_QUANTITIES = {"voltage": "V", "camera_length": "m", "exposure_time": "s", "frame_period": "s"}
"""Fields of `Metadata` and their units; nothing else than positive numbers makes sense there."""


def make_metadata(found: Iterable[tuple[str, Any, str, str]], **known: Any) -> Metadata:
    """Metadata from what a header says.

    Parameters
    ----------
    found : iterable of (name, value, unit, source)
        Name in the words of this library; the others as found. What is no number with a known unit is left
        out, also what has another unit than a field of that name. Of several with the same name, the first
        counts.
    known
        Other fields of `Metadata`.
    """
    quantities: dict[str, Quantity] = {}
    for name, value, unit, source in found:
        known_unit = parse_unit(unit)
        needs = MAIN_QUANTITIES.get(name, "" if known_unit is None else known_unit[1])
        quantity = quantity_of(value, unit, source, needs=needs)
        if quantity is not None and (name not in MAIN_QUANTITIES or quantity.value > 0):
            quantities.setdefault(name, quantity)
    main: dict[str, Any] = {name: quantities.pop(name, None) for name in MAIN_QUANTITIES}
    return Metadata(**main, extra=quantities, **known)


def axis_names(n_dims: int, prefix: str = "") -> tuple[str, ...]:
    """Names of scan axes, or with prefix ``"k"`` of detector axes, outermost first."""
    names = ("y", "x") if n_dims == 2 else ("x",) if n_dims == 1 else tuple(str(i) for i in range(n_dims))
    return tuple(prefix + name for name in names)


def fill_axes(axes: Sequence[Axis | None], prefix: str = "") -> tuple[Axis, ...]:
    """All of the axes, those that are None not calibrated; none at all if that would be all of them."""
    if all(axis is None for axis in axes):
        return ()
    bare = _bare_axes(len(axes), prefix)
    return tuple(other if axis is None else axis for axis, other in zip(axes, bare, strict=True))


def _bare_axes(n_dims: int, prefix: str) -> tuple[Axis, ...]:
    return tuple(Axis(name=name, step=1.0) for name in axis_names(n_dims, prefix))


def quantity_of(value: Any, unit: str, source: str, *, needs: str) -> Quantity | None:
    """Quantity of what a header says; None if that is no such quantity.

    Parameters
    ----------
    value : float
        As found.
    unit : str
        As found, in any spelling that `libertem.common.units.parse_unit` knows.
    source : str
        Where it was found.
    needs : str
        Unit that it has to have, one of `UNITS`.
    """
    known = ("", "") if needs == "" and not unit else parse_unit(unit)
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    if known is None or known[1] != needs or not math.isfinite(number):
        return None
    factor = float(known[0] or 1.0)
    inverse = round(1 / factor)
    # Powers of ten are exact as long as they are not negative: 25 nm are 2.5e-08 and not the number after it.
    exact = factor < 1 and math.isclose(inverse * factor, 1.0, rel_tol=1e-15)
    scaled = number / inverse if exact else number * factor
    return Quantity(scaled, needs, source) if math.isfinite(scaled) else None


def axis_of(name: str, step: Any, unit: str, source: str, *, offset: Any = 0.0) -> Axis | None:
    """Axis of what a header says; None if the unit is not known or the step is no number other than zero.

    Parameters
    ----------
    name : str
        In the words of this library.
    step, offset : float
        As found; the offset is the position of element 0.
    unit : str
        As found. ``A`` is an Ångström here: no axis is calibrated in amperes.
    source : str
        Where it was found.
    """
    unit = "Å" if unit.strip() == "A" else unit
    known = parse_unit(unit)
    if known is None:
        return None
    found = quantity_of(step, unit, source, needs=known[1])
    start = quantity_of(offset, unit, source, needs=known[1])
    if found is None or found.value == 0:
        return None
    return Axis(name, found.value, known[1], 0.0 if start is None else start.value, source)


def timestamp_of(text: Any, source: str) -> Timestamp | None:
    """Time of an ISO 8601 text, as in ``2021-05-07T16:51:10.905800928Z``; None if it is something else.

    Parameters
    ----------
    text : str
        As found. Digits beyond microseconds are cut off; without time zone it is taken for local time.
    source : str
        Where it was found.
    """
    match = ISO_8601.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    *date_and_time, fraction, zone = match.groups()
    year, month, day, hour, minute, second = map(int, date_and_time)
    microsecond = int((fraction or "").ljust(6, "0")[:6])
    try:
        when = datetime.datetime(year, month, day, hour, minute, second, microsecond)
        return Timestamp(when.replace(tzinfo=_zone(zone)), source)
    except ValueError:
        # The 31st of June, or a time zone of 99 hours.
        return None


def _zone(text: str | None) -> datetime.timezone | None:
    if text is None:
        return None
    if text == "Z":
        return datetime.timezone.utc
    offset = datetime.timedelta(hours=int(text[1:3]), minutes=int(text[-2:]))
    return datetime.timezone(-offset if text[0] == "-" else offset)


def timestamp_at(seconds: Any, source: str) -> Timestamp | None:
    """Time that a file counts in seconds since 1970, in UTC; None if it says nothing (0) or nonsense.

    Parameters
    ----------
    seconds : float
        As found.
    source : str
        Where it was found.
    """
    try:
        when = EPOCH + datetime.timedelta(seconds=float(seconds))
    except (TypeError, ValueError, OverflowError):
        return None
    known = when > EPOCH
    return Timestamp(when.replace(tzinfo=datetime.timezone.utc), source) if known else None


def plain_header(fields: Mapping[Any, Any]) -> dict[str, Any]:
    """Raw header as JSON-compatible data that is cheap to carry around.

    Parameters
    ----------
    fields : mapping
        Names and values as parsed: numbers, NumPy scalars and arrays, bytes, texts, nested mappings and
        lists.

    Returns
    -------
    dict
        Long arrays are described by their dtype and shape, bytes are decoded up to the first NUL.
    """
    return {str(name): _plain(value) for name, value in fields.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, np.generic):
        item = value.item()
        # Python has no counterpart to some, such as long doubles.
        return str(item) if isinstance(item, np.generic) else _plain(item)
    if isinstance(value, np.ndarray | list | tuple):
        return _plain_list(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return _plain(bytes(value).split(b"\0", 1)[0].decode("latin-1"))
    if isinstance(value, str):
        return (
            value if len(value) <= LONGEST_TEXT else f"{value[:LONGEST_TEXT]} ... ({len(value)} characters)"
        )
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(value)


def _plain_list(values: Any) -> Any:
    if isinstance(values, np.ndarray):
        if values.size > LONGEST_LIST:
            return f"array of {values.dtype}, shape {values.shape}"
        values = values.tolist()
    if not isinstance(values, list | tuple):
        return _plain(values)
    if len(values) > LONGEST_LIST:
        return f"list of {len(values)} values"
    return [_plain(value) for value in values]
