"""Write DM3 and DM4 files: a header and a tree of tags, eight zeros at the end.

Source: the fact sheet of the format, with its two worked examples; made without looking at the reader.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "DATA_TYPES",
    "Data",
    "Group",
    "array",
    "image_tags",
    "make_dm",
    "number",
    "string",
    "struct_array",
    "structure",
    "text",
    "thumbnail_tags",
    "write_dm",
    "write_tags",
]

TYPES = {
    2: "i2",
    3: "i4",
    4: "u2",
    5: "u4",
    6: "f4",
    7: "f8",
    8: "u1",
    9: "i1",
    10: "u1",
    11: "i8",
    12: "u8",
}
"""Encoded types of numbers."""

DATA_TYPES: dict[str, tuple[int, int | tuple[int, int]]] = {
    "i2": (1, 2),
    "f4": (2, 6),
    "c8": (3, (6, 6)),
    "u1": (6, 10),
    "i4": (7, 3),
    "i1": (9, 9),
    "u2": (10, 4),
    "u4": (11, 5),
    "f8": (12, 7),
    "c16": (13, (7, 7)),
}
"""DataType and type of the elements of ``Data``, by dtype of the pixels; complex ones are structs."""

ByteOrder: TypeAlias = Literal["<", ">"]


@dataclass(frozen=True)
class Data:
    """A data tag."""

    info: tuple[int, ...]
    """The words that describe the value."""
    values: npt.NDArray[Any]
    """The value; is brought into the byte order of the file."""


@dataclass(frozen=True)
class Group:
    """A group with entries that need not have different names; usually a dict or a list serves as well."""

    entries: Sequence[tuple[str, Tree]]
    """Name and content; unnamed entries have an empty name."""
    is_sorted: bool = False


Tree: TypeAlias = "Data | Group | Mapping[str, Tree] | list[Tree]"
"""A tag: a group as a dict, one of unnamed entries as a list."""


# --- values ---


def number(code: int, value: float) -> Data:
    """One number of an encoded type."""
    return Data((code,), np.array([value], dtype=TYPES[code]))


def array(code: int, values: npt.ArrayLike) -> Data:
    """Array of numbers of an encoded type."""
    flat = np.asarray(values, dtype=TYPES[code]).reshape(-1)
    return Data((20, code, flat.size), flat)


def text(value: str) -> Data:
    """Text as it is usually stored: an array of UTF-16 units."""
    return array(4, np.frombuffer(value.encode("utf-16-le"), dtype="<u2"))


def string(value: str) -> Data:
    """Text as a string, which is rare."""
    raw = np.frombuffer(value.encode("latin-1"), dtype=np.uint8)
    return Data((18, raw.size), raw)


def structure(codes: Sequence[int], values: Sequence[float]) -> Data:
    """Struct of numbers."""
    return Data((15, *_fields(codes)), np.array([tuple(values)], dtype=_struct_dtype(codes)))


def struct_array(codes: Sequence[int], values: npt.NDArray[Any]) -> Data:
    """Array of structs; `values` are their bytes."""
    flat = np.ascontiguousarray(values).reshape(-1).view(_struct_dtype(codes))
    return Data((20, 15, *_fields(codes), flat.size), flat)


def _fields(codes: Sequence[int]) -> tuple[int, ...]:
    return (0, len(codes), *(word for code in codes for word in (0, code)))


def _struct_dtype(codes: Sequence[int]) -> np.dtype[Any]:
    return np.dtype([(f"f{i}", TYPES[code]) for i, code in enumerate(codes)])


# --- images ---


def image_tags(
    pixels: npt.NDArray[Any],
    *,
    format: str | None = None,
    order_flag: bool | None = None,
    tags: Mapping[str, Tree] | None = None,
    calibrated: bool = True,
    patches: Mapping[str, Tree] | None = None,
) -> dict[str, Tree]:
    """An entry of ``ImageList``.

    Parameters
    ----------
    pixels : array
        As stored: the last axis is the fastest.
    format, order_flag : optional
        Values of ``Format`` and ``Data Order Swapped``.
    tags : dict, optional
        More entries of ``ImageTags``.
    calibrated : bool
        Whether to write the calibrations of all axes.
    patches : dict, optional
        Entries of ``ImageData`` to use in place of those made from `pixels`.
    """
    native = pixels.dtype.newbyteorder("=").str[1:]
    data_type, code = DATA_TYPES[native]
    flat = np.ascontiguousarray(pixels, dtype=native)
    data = array(code, flat) if isinstance(code, int) else struct_array(code, flat)
    axis = {"Origin": number(6, 0), "Scale": number(6, 1), "Units": text("nm")}
    image: dict[str, Tree] = {"Calibrations": {"Brightness": axis, "Dimension": [axis] * pixels.ndim}}
    if not calibrated:
        image = {}
    image["Data"] = data
    image["DataType"] = number(5, data_type)
    image["Dimensions"] = [number(5, extent) for extent in reversed(pixels.shape)]
    image["PixelDepth"] = number(5, pixels.dtype.itemsize)
    image.update(patches or {})
    metadata: dict[str, Tree] = {}
    if order_flag is not None:
        metadata["Data Order Swapped"] = number(8, order_flag)
    if format is not None:
        metadata["Format"] = text(format)
    image_tags = {**({"Meta Data": metadata} if metadata else {}), **(tags or {})}
    return {"ImageData": image, "ImageTags": image_tags, "Name": text("image")}


def thumbnail_tags(shape: tuple[int, int] = (2, 3)) -> dict[str, Tree]:
    """An entry of ``ImageList`` like the small picture with which most files begin."""
    return image_tags(np.full(shape, 0x7F3F1F, dtype="i4"), patches={"DataType": number(5, 23)})


# --- files ---


def write_dm(
    path: Path,
    *images: Mapping[str, Tree],
    version: int = 4,
    byte_order: ByteOrder = "<",
    thumbnail: bool = True,
    before: Mapping[str, Tree] | None = None,
    after: Mapping[str, Tree] | None = None,
) -> Path:
    """Write a file with images as from `image_tags`.

    Parameters
    ----------
    version : int
        3 or 4.
    byte_order : str
        Of the values.
    thumbnail : bool
        Whether a thumbnail comes first.
    before, after : dict, optional
        Other tags of the root group, on either side of the images.
    """
    head: list[Mapping[str, Tree]] = [thumbnail_tags()] if thumbnail else []
    tree: dict[str, Tree] = {**(before or {}), "ImageList": [*head, *images], **(after or {})}
    if thumbnail:
        tree["Thumbnails"] = [{"ImageIndex": number(5, 0)}]
    return write_tags(path, tree, version=version, byte_order=byte_order)


def write_tags(path: Path, root: Tree, *, version: int = 4, byte_order: ByteOrder = "<") -> Path:
    """Write a file with any tags."""
    with path.open("wb") as file:
        for piece in _file(root, version, byte_order):
            file.write(piece)
    return path


def make_dm(root: Tree, *, version: int = 4, byte_order: ByteOrder = "<") -> bytes:
    """Content of a file with any tags."""
    return b"".join(_file(root, version, byte_order))


def _file(root: Tree, version: int, byte_order: ByteOrder) -> Iterator[bytes | memoryview]:
    pieces = _body(root, version, byte_order)
    length = sum(len(piece) for piece in pieces)
    # Version 3 counts the word of the byte order as well; that is so in most files.
    head = struct.pack(">II", 3, length + 4) if version == 3 else struct.pack(">IQ", version, length)
    yield head + struct.pack(">I", 1 if byte_order == "<" else 0)
    yield from pieces
    yield bytes(8)


def _body(tag: Tree, version: int, byte_order: ByteOrder) -> list[bytes | memoryview]:
    """The tag without its name, in pieces: pixels are not copied."""
    if isinstance(tag, Data):
        values = tag.values.astype(tag.values.dtype.newbyteorder(byte_order), copy=False)
        words = _words(version, len(tag.info), *tag.info)
        return [b"%%%%" + words, values.reshape(-1).view(np.uint8).data]
    if isinstance(tag, Mapping):
        tag = Group(list(tag.items()), is_sorted=True)
    elif isinstance(tag, list):
        tag = Group([("", entry) for entry in tag])
    pieces: list[bytes | memoryview] = [bytes([tag.is_sorted, 0]) + _words(version, len(tag.entries))]
    for name, entry in tag.entries:
        body = _body(entry, version, byte_order)
        encoded = name.encode("latin-1")
        head = struct.pack(">BH", 21 if isinstance(entry, Data) else 20, len(encoded)) + encoded
        if version == 4:
            head += struct.pack(">Q", sum(len(piece) for piece in body))
        pieces += [head, *body]
    return pieces


def _words(version: int, *values: int) -> bytes:
    return struct.pack(f">{len(values)}{'I' if version == 3 else 'Q'}", *values)
