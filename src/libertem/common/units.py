"""Units: what headers write, in SI; and SI, as people read it.

Headers spell units in many ways (``nm``, ``[n_m]``, ``nm^-1``, ``1/Å``, ``µs``). All are turned into a factor
and one of the few units of this library: metre, reciprocal metre, radian, second, volt, ampere, kelvin,
pascal, electron volt. The last is not SI, but accepted for use with it, and what spectra are given in.
"""

from __future__ import annotations

import math
import re

__all__ = ["UNITS", "format_quantity", "parse_unit"]

UNITS = ("m", "1/m", "rad", "s", "V", "A", "K", "eV", "Pa", "")
"""Units of this library; nothing for plain numbers."""

_PREFIXES = {
    "f": -15,
    "p": -12,
    "n": -9,
    "u": -6,
    "m": -3,
    "c": -2,
    "": 0,
    "k": 3,
    "M": 6,
    "G": 9,
}

_SHOWN_PREFIXES = {-15: "f", -12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G"}

_ALONE = {
    "Å": (1e-10, "m"),
    "Angstrom": (1e-10, "m"),
    "angstrom": (1e-10, "m"),
    "Ang": (1e-10, "m"),
    "micron": (1e-6, "m"),
    "deg": (math.pi / 180, "rad"),
    "degree": (math.pi / 180, "rad"),
    "degrees": (math.pi / 180, "rad"),
    "°": (math.pi / 180, "rad"),
    "min": (60.0, "s"),
    "h": (3600.0, "s"),
    "meter": (1.0, "m"),
    "meters": (1.0, "m"),
    "metre": (1.0, "m"),
    "second": (1.0, "s"),
    "seconds": (1.0, "s"),
    "sec": (1.0, "s"),
    "radian": (1.0, "rad"),
    "radians": (1.0, "rad"),
    "volt": (1.0, "V"),
    "volts": (1.0, "V"),
}

_PREFIXED = ("rad", "eV", "Pa", "m", "s", "V", "A", "K")

_RECIPROCAL = re.compile(r"^(?:1\s*/\s*(?P<slash>.+)|(?P<power>.+?)\s*(?:\^|\*\*)?\s*\(?-1\)?)$")


def parse_unit(text: str) -> tuple[float, str] | None:
    """Understand a unit as headers write it.

    Parameters
    ----------
    text : str
        Such as ``"nm"``, ``"1/Å"``, ``"[n_m^-1]"``, ``"µs"``, ``"mrad"``.

    Returns
    -------
    tuple of float and str, or None
        The factor to multiply numbers with, and one of `UNITS`. None if the unit is not known, or says
        nothing (``""``, ``"px"``): a number without a known unit is no calibration.

    Examples
    --------
    >>> parse_unit("nm")
    (1e-09, 'm')
    >>> parse_unit("[n_m^-1]")
    (1000000000.0, '1/m')
    >>> parse_unit("px") is None
    True
    """
    # The micro sign and the Greek letter, and both code points of the Angstrom, mean the same.
    plain = text.strip().strip("[]").replace("_", "")
    plain = plain.replace("\u00b5", "u").replace("\u03bc", "u").replace("\u212b", "Å").replace("⁻¹", "^-1")
    reciprocal = _RECIPROCAL.match(plain)
    if reciprocal is None:
        return _parse_simple(plain)
    name = (reciprocal["slash"] or reciprocal["power"]).strip(" ()")
    # Nobody means reciprocal amperes.
    inner = _parse_simple("Å" if name == "A" else name)
    if inner is None or inner[1] != "m":
        return None
    # Rounded because 1 / 1e-9 is not quite 1e9.
    return float(f"{1 / inner[0]:.15g}"), "1/m"


def _parse_simple(text: str) -> tuple[float, str] | None:
    if text in _ALONE:
        return _ALONE[text]
    for unit in _PREFIXED:
        if text.endswith(unit) and text[: -len(unit)] in _PREFIXES:
            return float(f"1e{_PREFIXES[text[: -len(unit)]]}"), unit
    return None


def format_quantity(value: float, unit: str) -> str:
    """Write a quantity as people do.

    Parameters
    ----------
    value : float
        In SI.
    unit : str
        One of `UNITS`.

    Examples
    --------
    >>> format_quantity(2.5e-11, "m")
    '25 pm'
    >>> format_quantity(1.2e8, "1/m")
    '0.12 1/nm'
    >>> format_quantity(300e3, "V")
    '300 kV'
    """
    if not unit or unit == "K" or value == 0 or not math.isfinite(value):
        return f"{value:.5g} {unit}".rstrip()
    if unit == "1/m":
        # Always per nanometre, as on the axes of diffraction patterns.
        return f"{value * 1e-9:.5g} 1/nm"
    exponent = math.floor(math.log10(abs(float(f"{value:.5g}"))) / 3) * 3
    exponent = min(max(exponent, min(_SHOWN_PREFIXES)), max(_SHOWN_PREFIXES))
    return f"{value / 10.0**exponent:.5g} {_SHOWN_PREFIXES[exponent]}{unit}"
