from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libertem.common.units import UNITS, format_quantity, parse_unit


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nm", (1e-9, "m")),
        ("[n_m]", (1e-9, "m")),
        ("Å", (1e-10, "m")),
        ("\u212b", (1e-10, "m")),
        ("µm", (1e-6, "m")),
        ("μm", (1e-6, "m")),
        ("1/nm", (1e9, "1/m")),
        ("[n_m^-1]", (1e9, "1/m")),
        ("nm⁻¹", (1e9, "1/m")),
        ("A^-1", (1e10, "1/m")),
        ("1 / Å", (1e10, "1/m")),
        ("mrad", (1e-3, "rad")),
        ("deg", (math.pi / 180, "rad")),
        ("kV", (1e3, "V")),
        ("pA", (1e-12, "A")),
        ("keV", (1e3, "eV")),
        ("min", (60.0, "s")),
        ("mbar", None),
        ("px", None),
        ("", None),
        ("1/s", None),
        ("1/1/nm", None),
    ],
)
def test_units_as_headers_write_them(text: str, expected: tuple[float, str] | None) -> None:
    assert parse_unit(text) == expected


@given(st.text(max_size=12))
def test_any_text_is_a_known_unit_or_none(text: str) -> None:
    found = parse_unit(text)
    assert found is None or (found[0] > 0 and found[1] in UNITS)


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (2.5e-11, "m", "25 pm"),
        (0.999999999, "m", "1 m"),
        (5e-3, "rad", "5 mrad"),
        (3e5, "V", "300 kV"),
        (-2e-6, "s", "-2 µs"),
        (1.2e8, "1/m", "0.12 1/nm"),
        (0.0, "m", "0 m"),
        (1e-20, "s", "1e-05 fs"),
        (293.0, "K", "293 K"),
        (1.5, "", "1.5"),
        (math.nan, "m", "nan m"),
    ],
)
def test_quantities_are_written_with_prefixes(value: float, unit: str, expected: str) -> None:
    assert format_quantity(value, unit) == expected


@given(st.floats(1e-14, 1e10), st.sampled_from(["m", "s", "V", "rad"]))
def test_what_is_written_means_the_value(value: float, unit: str) -> None:
    number, _, written = format_quantity(value, unit).partition(" ")
    known = parse_unit(written)
    assert known is not None
    assert known[1] == unit
    assert math.isclose(float(number) * known[0], value, rel_tol=1e-4)
