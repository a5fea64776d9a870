"""Defects of the sensor in the ``.Config.Metadata.xml`` file of Direct Electron.

| element below ``Configuration`` | attributes |
|---|---|
| ``BadPixels/BadPixelMap`` | ``Rows``, ``Columns``: shape of the map; ``Binning``, 1 if missing |
| its children ``Defect`` | ``Row="r"`` or ``Rows="a-b"``, ``Column="c"`` or ``Columns="a-b"``, or both |
| ``FileInfo/<Name>`` | ``Value``, for names like ``ImageSizeX``, ``ImageOffsetX``, ``ImageBinning`` |

Numbers start at 0 and count pixels of the whole sensor with the binning of the map; ranges include both ends.
A defect with only rows or only columns spans the sensor, one with both is a rectangle. What ``pattern`` means
is not documented: the whole range counts as defective then.

Whether frames are flipped relative to the sensor is not known; ``Flip`` and ``FlipMode`` are ignored.

Sources: files of Direct Electron cameras and the comments therein. No public document.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.io.dataset.seq.geometry import Geometry
from libertem.io.headers.xmltree import parse_xml

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    import numpy.typing as npt

__all__ = ["Config", "Defect", "DefectMap", "MisfitError", "excluded_pixels", "parse_config"]

NUMBER = re.compile(r"\s*([0-9]{1,9})\s*")
RANGE = re.compile(r"\s*([0-9]{1,9})\s*(?:-\s*([0-9]{1,9})\s*)?")


class MisfitError(ValueError):
    """Defects cannot be assigned to pixels of the frames."""


@dataclass(frozen=True)
class Defect:
    """A rectangle of defective pixels."""

    rows: tuple[int, int] | None
    """First and last row; None for all."""

    columns: tuple[int, int] | None
    """First and last column; None for all."""


@dataclass(frozen=True)
class DefectMap:
    """Defects of the whole sensor, for one binning."""

    shape: tuple[int, int]
    """Rows and columns of the sensor."""

    binning: int
    """Pixels of the sensor per pixel of the map, along each axis."""

    defects: tuple[Defect, ...]


@dataclass(frozen=True)
class Config:
    """The facts of a ``.Config.Metadata.xml`` file."""

    maps: tuple[DefectMap, ...] = ()

    geometry: Geometry | None = None
    """What ``FileInfo`` says about the frames; None if it does not."""

    notices: tuple[str, ...] = ()
    """Parts that could not be read."""


def parse_config(raw: bytes, *, path: str) -> Config:
    """Turn the bytes of a ``.Config.Metadata.xml`` file into a `Config`.

    Parameters
    ----------
    raw : bytes
        The whole file.
    path : str
        Where `raw` came from. Named in errors, never opened.

    Raises
    ------
    HeaderError
        If it is not well-formed or declares entities.
    """
    root = parse_xml(raw, path=path)
    maps, notices = [], []
    for element in root.findall("BadPixels/BadPixelMap"):
        try:
            defect_map, problems = _parse_map(element)
        except ValueError as err:
            notices.append(f"{path}: a map of defects was ignored: {err}")
            continue
        maps.append(defect_map)
        if problems:
            notices.append(f"{path}: {len(problems)} defects were ignored, the first one: {problems[0]}")
    return Config(tuple(maps), _parse_file_info(root), tuple(notices))


def _parse_map(element: Element) -> tuple[DefectMap, list[str]]:
    """The map, and what is wrong with defects that are not in it."""
    shape = (_number(element, "Rows"), _number(element, "Columns"))
    binning = max(1, _number(element, "Binning", "1"))
    defects, problems = [], []
    for child in element.findall("Defect"):
        try:
            defects.append(_parse_defect(child))
        except ValueError as err:
            problems.append(str(err))
    return DefectMap(shape, binning, tuple(defects)), problems


def _parse_defect(element: Element) -> Defect:
    rows, columns = (_parse_range(element, name) for name in ("Row", "Column"))
    if rows is None and columns is None:
        found = ", ".join(element.attrib)[:100] or "no attributes"
        raise ValueError(f"found a Defect with {found}, expected Row, Rows, Column or Columns")
    return Defect(rows, columns)


def _parse_range(element: Element, name: str) -> tuple[int, int] | None:
    texts = [element.attrib[key] for key in (name, f"{name}s") if key in element.attrib]
    if not texts:
        return None
    match = RANGE.fullmatch(texts[0])
    if match is None or len(texts) > 1:
        found = " and ".join(repr(text[:40]) for text in texts)
        raise ValueError(f"found {name} {found}, expected a number or a range a-b")
    ends = int(match[1]), int(match[2] or match[1])
    return min(ends), max(ends)


def _number(element: Element, name: str, default: str = "") -> int:
    text = element.get(name, default)
    match = NUMBER.fullmatch(text)
    if match is None:
        raise ValueError(f"found {name} {text[:40]!r} in {element.tag[:40]}, expected a number")
    return int(match[1])


def _parse_file_info(root: Element) -> Geometry | None:
    info = root.find("FileInfo")
    if info is None:
        return None
    values = {child.tag: child.get("Value", "") for child in info}

    def number(name: str, default: str = "") -> int:
        match = NUMBER.fullmatch(values.get(name, default))
        return int(match[1]) if match else -1

    return Geometry(
        size=(number("ImageSizeY"), number("ImageSizeX")),
        offset=(number("ImageOffsetY", "0"), number("ImageOffsetX", "0")),
        binning=number("ImageBinning", "1"),
        rotation=number("RotationMode", "0"),
    )


def excluded_pixels(
    maps: tuple[DefectMap, ...], geometry: Geometry | None, sig_shape: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    """Mark the defective pixels of a frame.

    Parameters
    ----------
    maps : tuple of DefectMap
        At least one.
    geometry : Geometry or None
        The part of the sensor that frames show. Without it, a map has to have the shape of the frames.
    sig_shape : (int, int)
        Shape of the frames.

    Raises
    ------
    MisfitError
        If no map can be assigned to the pixels of the frames.
    """
    if geometry is None:
        whole = [defect_map for defect_map in maps if defect_map.shape == sig_shape]
        if not whole:
            shapes = [defect_map.shape for defect_map in maps]
            raise MisfitError(f"nothing says which part of the sensor {shapes} the frames show")
        return _mark(whole[0], (0, 0), 1, sig_shape)
    defect_map = _choose_map(maps, geometry.binning)
    # A map of finer pixels is binned: one defective pixel spoils the binned one.
    factor = geometry.binning // defect_map.binning
    size = tuple(extent // defect_map.binning for extent in geometry.size)
    origin = (geometry.offset[0] // defect_map.binning, geometry.offset[1] // defect_map.binning)
    if tuple(extent // factor for extent in size) != sig_shape:
        raise MisfitError("frames are turned relative to the sensor, and it is not known which way")
    limits = zip(origin, sig_shape, defect_map.shape, strict=True)
    if any(start + extent * factor > full for start, extent, full in limits):
        raise MisfitError(f"frames of {size} pixels at {origin} exceed the map of {defect_map.shape}")
    return _mark(defect_map, origin, factor, sig_shape)


def _choose_map(maps: tuple[DefectMap, ...], binning: int) -> DefectMap:
    """Map with the binning of the frames, or a finer one; the largest of several."""
    usable = [defect_map for defect_map in maps if binning % defect_map.binning == 0]
    if not usable:
        found = sorted({defect_map.binning for defect_map in maps})
        raise MisfitError(f"no map for binning {binning}, only for {found}")
    return max(usable, key=lambda defect_map: (defect_map.binning, defect_map.shape[1]))


def _mark(
    defect_map: DefectMap, origin: tuple[int, int], factor: int, sig_shape: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    # Without an array of the whole sensor, whose size is only a claim.
    marked = np.zeros(sig_shape, dtype=np.bool_)
    for defect in defect_map.defects:
        marked[tuple(_place(defect, defect_map, origin, factor, sig_shape))] = True
    return marked


def _place(
    defect: Defect, defect_map: DefectMap, origin: tuple[int, int], factor: int, sig_shape: tuple[int, int]
) -> Iterator[slice[Any, Any, Any]]:
    ranges = (defect.rows, defect.columns)
    for ends, full, start, extent in zip(ranges, defect_map.shape, origin, sig_shape, strict=True):
        first, last = (0, full - 1) if ends is None else (ends[0], min(ends[1], full - 1))
        stop = min(extent, (last - start) // factor + 1)
        yield slice(max(0, (first - start) // factor), max(0, stop))
