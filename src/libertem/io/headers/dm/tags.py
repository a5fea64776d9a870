"""What a tag tree of Digital Micrograph holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

__all__ = ["ByteOrder", "DMArray", "DMTags", "DMValue", "Names"]

ByteOrder: TypeAlias = Literal["<", ">"]
Names: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DMArray:
    """Where an array lies in the file."""

    offset: int
    """Byte where it starts; not aligned to anything."""

    dtype: np.dtype[Any]
    """Of its elements, with byte order. Structs are structured dtypes."""

    count: int
    """Number of elements. Arrays of arrays are flat."""

    raw: bytes | None = field(default=None, repr=False)
    """The content of small arrays."""

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.count * self.dtype.itemsize


DMValue: TypeAlias = bool | int | float | str | tuple[bool | int | float, ...] | DMArray
"""What a data tag holds. Structs are tuples, small arrays of type 4 are texts."""


class DMTags:
    """The tags of a file.

    A path names the groups from the root on, joined by dots, or as a tuple if a name contains dots. Entries
    without a name are called ``"0"``, ``"1"``, ... in their group. Of entries with the same name, the first
    counts.

    Parameters
    ----------
    version : int
        3 or 4.
    byte_order : str
        Of values and pixels, ``"<"`` or ``">"``.
    root : dict
        The root group: by name values, or dicts that are groups.
    """

    def __init__(self, version: int, byte_order: ByteOrder, root: dict[str, Any]) -> None:
        self.version = version
        self.byte_order = byte_order
        self._root = root

    def _find(self, path: str | Names) -> Any:
        names = (tuple(path.split(".")) if path else ()) if isinstance(path, str) else path
        node: Any = self._root
        for name in names:
            node = node.get(name) if isinstance(node, dict) else None
        return node

    def get(self, path: str | Names) -> DMValue | None:
        """Value of a data tag, None if there is none with that path."""
        found = self._find(path)
        if isinstance(found, dict) or found is None:
            return None
        return self._decode(found)

    def get_array(self, path: str | Names) -> DMArray | None:
        """Place of an array, be it small, text or large; None if there is none with that path."""
        found = self._find(path)
        return found if isinstance(found, DMArray) else None

    def names(self, path: str | Names = ()) -> tuple[str, ...]:
        """Names of the entries of a group in file order; none if there is no group with that path."""
        found = self._find(path)
        return tuple(found) if isinstance(found, dict) else ()

    def __iter__(self) -> Iterator[tuple[Names, DMValue]]:
        """All data tags with their paths, in file order."""
        stack: list[tuple[Names, Iterator[tuple[str, Any]]]] = [((), iter(self._root.items()))]
        while stack:
            names, entries = stack[-1]
            for name, entry in entries:
                if isinstance(entry, dict):
                    stack.append(((*names, name), iter(entry.items())))
                    break
                yield (*names, name), self._decode(entry)
            else:
                stack.pop()

    def _decode(self, entry: Any) -> DMValue:
        if isinstance(entry, DMArray) and entry.raw is not None and entry.dtype.str[1:] == "u2":
            return entry.raw.decode("utf-16-le" if self.byte_order == "<" else "utf-16-be", "replace")
        value: DMValue = entry
        return value
