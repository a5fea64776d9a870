from __future__ import annotations

import datetime
import json
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libertem.common.shape import Shape
from libertem.io.dataset.base.metadata import (
    Axis,
    Metadata,
    Quantity,
    Timestamp,
    axis_of,
    plain_header,
    quantity_of,
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
