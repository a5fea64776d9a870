from __future__ import annotations

import datetime
import gc
import json
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libertem.common.shape import Shape
from libertem.exceptions import MissingFileError
from libertem.io.dataset.base.lazymetadata import LazyMetadata
from libertem.io.dataset.base.metadata import (
    Axis,
    Metadata,
    Quantity,
    Timestamp,
    axis_of,
    fill_axes,
    make_metadata,
    plain_header,
    quantity_of,
    timestamp_at,
    timestamp_of,
)

SHAPE = Shape((4, 5, 6, 7), sig_dims=2)


def axes(*names: str) -> tuple[Axis, ...]:
    return tuple(Axis(name, 1e-9, "m", source="step") for name in names)


def test_axes_of_another_number_of_dimensions_are_left_out() -> None:
    metadata = Metadata(nav_axes=axes("time"), sig_axes=axes("ky", "kx"))
    fitted = metadata.fitted(SHAPE)
    assert fitted.nav_axes == ()
    assert fitted.sig_axes == metadata.sig_axes


def test_every_axis_of_a_data_set_has_an_entry() -> None:
    found = Metadata(nav_axes=axes("y", "x")).axes(SHAPE)
    assert [axis.name for axis in found] == ["y", "x", "ky", "kx"]
    assert [axis.is_calibrated for axis in found] == [True, True, False, False]


def test_quantities_become_si_exactly_where_possible() -> None:
    found = quantity_of(25, "nm", "PixelSize", needs="m")
    assert found == Quantity(2.5e-8, "m", "PixelSize")
    assert str(found) == "25 nm"
    assert float(quantity_of("300", "kV", "HT", needs="V") or 0) == 300e3


@pytest.mark.parametrize(
    ("value", "unit"), [(25, "mrad"), (25, ""), ("n/a", "nm"), (np.nan, "nm"), (None, "nm")]
)
def test_what_is_no_such_quantity_is_none(value: Any, unit: str) -> None:
    assert quantity_of(value, unit, "field", needs="m") is None


def test_axis_keeps_its_offset_in_si() -> None:
    assert axis_of("ky", 0.1, "1/nm", "Scale", offset=-6.4) == Axis("ky", 1e8, "1/m", -6.4e9, "Scale")


@pytest.mark.parametrize(("step", "unit"), [(0, "nm"), (0.1, "px"), ("", "nm")])
def test_axis_without_step_or_unit_is_none(step: Any, unit: str) -> None:
    assert axis_of("x", step, unit, "Scale") is None


def test_units_that_are_not_of_this_library_are_refused() -> None:
    with pytest.raises(ValueError, match="found 'nm'"):
        Quantity(1.0, "nm", "x")
    with pytest.raises(ValueError, match="found 'px'"):
        Axis("x", 1.0, "px")


def test_all_but_the_header_is_plain_data() -> None:
    metadata = Metadata(
        voltage=Quantity(3e5, "V", "HT"),
        acquired=Timestamp(datetime.datetime(2020, 2, 29, 12, 0), "Date"),
        detector="Merlin",
        nav_axes=axes("y", "x"),
        extra={"beam_current": Quantity(1e-12, "A", "I")},
        header={"HT": "300"},
    )
    plain = json.loads(json.dumps(metadata.to_dict()))
    assert plain["voltage"] == {"value": 3e5, "unit": "V", "source": "HT"}
    assert plain["acquired"]["value"] == "2020-02-29T12:00:00"
    assert [axis["name"] for axis in plain["nav_axes"]] == ["y", "x"]
    assert set(plain) == {"voltage", "acquired", "detector", "nav_axes", "beam_current"}
    assert pickle.loads(pickle.dumps(metadata)) == metadata


HEADER_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.just(np.float32(np.inf))
    | st.just(np.arange(100))
    | st.just(np.array([b"ab", b"c"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.text(max_size=4), HEADER_VALUES, max_size=4))
def test_any_header_becomes_json(fields: dict[str, Any]) -> None:
    json.dumps(plain_header(fields), allow_nan=False)


def test_long_arrays_of_headers_are_described() -> None:
    header = plain_header(
        {"map": np.zeros((100, 2), dtype="u2"), "name": b"Medipix\0\0junk", "list": range(3)}
    )
    assert header["map"] == "array of uint16, shape (100, 2)"
    assert header["name"] == "Medipix"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2021-05-07T16:51:10.905800928Z", "2021-05-07T16:51:10.905800+00:00"),
        ("2021-05-07 18:51:10.9", "2021-05-07T18:51:10.900000"),
        ("2021-05-07T18:51:10+02:00", "2021-05-07T18:51:10+02:00"),
        ("2021-05-07T18:51:10-0330", "2021-05-07T18:51:10-03:30"),
    ],
)
def test_times_with_the_year_first_are_understood(text: str, expected: str) -> None:
    found = timestamp_of(text, "DateTime")
    assert found == Timestamp(datetime.datetime.fromisoformat(expected), "DateTime")


@pytest.mark.parametrize(
    "text", ["07/05/2021 18:56:38", "2021-06-31 10:00:00", "2021-05-07T18:51:10+99:00", None, 5]
)
def test_other_times_are_not(text: Any) -> None:
    assert timestamp_of(text, "DateTime") is None


def test_seconds_since_1970_are_utc() -> None:
    found = timestamp_at(1_500_000_000.5, "ITime")
    assert found is not None
    assert found.value.isoformat() == "2017-07-14T02:40:00.500000+00:00"


@pytest.mark.parametrize("seconds", [0, -1, 1e300, np.nan, "n/a", None])
def test_other_numbers_of_seconds_are_no_time(seconds: Any) -> None:
    assert timestamp_at(seconds, "ITime") is None


@given(st.text(max_size=40), st.floats(), st.text(max_size=6))
def test_any_field_is_understood_or_left_out(text: str, number: float, unit: str) -> None:
    assert isinstance(timestamp_of(text, "field"), Timestamp | None)
    assert isinstance(timestamp_at(number, "field"), Timestamp | None)
    assert isinstance(axis_of("x", number, unit, "field", offset=text), Axis | None)


def test_an_axis_in_amperes_is_one_in_angstroms() -> None:
    found = axis_of("x", 2, "A", "Units")
    assert found == Axis("x", 2e-10, "m", 0.0, "Units")


def test_metadata_are_made_of_what_makes_sense() -> None:
    found = make_metadata(
        [
            ("voltage", 0, "kV", "HT"),
            ("voltage", "200", "kV", "High tension"),
            ("voltage", 300, "kV", "later"),
            ("camera_length", 135, "x", "CL"),
            ("exposure_time", 5, "mrad", "Exposure"),
            ("magnification", 1000, "", "Mag"),
            ("stage_x", 10**400, "nm", "X"),
        ],
        detector="Toy",
    )
    assert found.voltage == Quantity(200e3, "V", "High tension")
    assert (found.camera_length, found.exposure_time, found.detector) == (None, None, "Toy")
    assert found.extra == {"magnification": Quantity(1000.0, "", "Mag")}


def test_axes_without_calibration_are_filled_in_beside_others() -> None:
    (step,) = axes("kx")
    assert fill_axes([None, step], "k") == (Axis("ky", 1.0), step)
    assert fill_axes([None, None], "k") == ()


def test_numbers_that_python_does_not_have_become_texts() -> None:
    assert plain_header({"long": np.longdouble(1.5)}) in ({"long": "1.5"}, {"long": 1.5})


class Workers:
    """An executor that says what it was asked for."""

    def __init__(self) -> None:
        self.calls = 0

    def run_function(self, fn: Any, *args: Any) -> Any:
        self.calls += 1
        return Metadata(detector="there")


def missing() -> Metadata:
    raise MissingFileError("no such file", path="x")


def test_metadata_are_read_once() -> None:
    reads = []
    lazy = LazyMetadata()
    for _ in range(2):
        assert lazy.get(lambda: reads.append(1) or Metadata(detector="here")).detector == "here"  # type: ignore[func-returns-value]
    assert reads == [1]


def test_metadata_of_files_on_workers_are_read_there() -> None:
    workers = Workers()
    lazy = LazyMetadata(workers)
    assert [lazy.get(missing).detector for _ in range(2)] == ["there", "there"]
    assert workers.calls == 1


def test_metadata_of_files_that_are_gone_raise() -> None:
    lazy = LazyMetadata(Workers())  # the executor does not live on
    gc.collect()
    with pytest.raises(MissingFileError, match="no such file"):
        lazy.get(missing)


def test_copies_read_metadata_again() -> None:
    lazy = LazyMetadata(Workers())
    lazy.get(lambda: Metadata(detector="here"))
    copy = pickle.loads(pickle.dumps(lazy))
    assert copy.get(lambda: Metadata(detector="copy")).detector == "copy"


def test_executors_that_cannot_be_referred_to_are_not_used() -> None:
    class Bare(tuple[int, ...]):
        __slots__ = ()

    with pytest.raises(MissingFileError):
        LazyMetadata(Bare()).get(missing)  # type: ignore[arg-type]
