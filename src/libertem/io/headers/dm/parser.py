"""Parse the tag tree of Digital Micrograph: DM3 and DM4 files, and the ``.gtg`` files of K2 IS cameras.

Words of the structure (W) are big-endian, of 32 bit in version 3 and 64 bit in version 4. Values have the
byte order that the header says.

| part | layout |
|------|--------|
| file | version u4, length W, byte order of values u4 (1 little, 0 big), root group |
| group | sorted u1, open u1, number of entries W, entries |
| entry | kind u1 (20 group, 21 data), bytes of the name u2, name, [bytes that follow u8], group or data |
| data | ``%%%%``, number of info words W, info words, value |

| info words | value |
|------------|-------|
| ``t`` | scalar of type t |
| ``18, n`` | string of n bytes |
| ``20, t, n`` | array of n scalars; text is an array of type 4, UTF-16 without terminator |
| ``15, L, f, (l, t) · f`` | struct of f scalars; the names have no characters (l = 0) |
| ``20, 15, L, f, (l, t) · f, n`` | array of n structs |
| ``20, 20, t, m, n`` | array of n arrays of m scalars |
| ``20, 18, m, n`` | array of n strings of m bytes |

Only version 4 has the number in brackets. Entries of lists have no name. Behind the root group stand eight
zeros. The length in the header is not used: writers do not agree on what it counts.

Gatan has not published the format. Sources: C. Boothroyd, "Digital Micrograph file format"; G. Jefferis, "DM3
format"; that sizes in version 4 are exact was seen in all sample files.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from libertem.exceptions import HeaderError
from libertem.io.headers.dm.tags import ByteOrder, DMArray, DMTags, DMValue, Names

__all__ = ["parse_tags"]

VERSIONS = (3, 4)
BYTE_ORDERS: dict[int, ByteOrder] = {0: ">", 1: "<"}
GROUP, DATA = 20, 21
DELIMITER = b"%%%%"

SCALARS = {2: "h", 3: "i", 4: "H", 5: "I", 6: "f", 7: "d", 8: "?", 9: "b", 10: "B", 11: "q", 12: "Q"}
"""Format by encoded type, in letters that `struct` and NumPy share."""

WINDOW_BYTES = 8 << 10
"""Bytes read at a time: most files have less than that in front of the pixels."""

JUMP_BYTES = 2 << 10
"""Bytes read after an array was left out; then more and more."""

AHEAD_BYTES = 256
"""What most entries need at most."""

MAX_VALUE_BYTES = 1 << 10
"""Larger arrays stay in the file."""

# Far beyond any real file, and little enough that hostile ones are refused quickly and in little memory.
MAX_DEPTH = 64
MAX_INFO_WORDS = 1 << 8
MAX_STRUCTS = 1 << 8
MAX_ENTRIES = 100_000
MAX_CONTENT_BYTES = 8 << 20
MAX_READ_BYTES = 32 << 20


def parse_tags(
    read: Callable[[int, int], bytes],
    size: int,
    *,
    path: str,
    keep: Callable[[Names], bool] | None = None,
) -> DMTags:
    """Read the tag tree of a file.

    Parameters
    ----------
    read : callable
        ``read(offset, n)`` gives `n` bytes of the file. Is not asked for what lies behind `size`, nor for the
        content of large arrays.
    size : int
        Size of the file.
    path : str
        Where the bytes come from. Named in errors, never opened.
    keep : callable, optional
        Asked with the path of each group whether its content is of interest; that of others stays away. In
        version 4 they are jumped over, which saves time.

    Raises
    ------
    HeaderError
        If this is no tag tree, or it is damaged or absurdly large.
    """
    return _Parser(_Window(read, size, path), keep).parse()


class _Window:
    """The part of a file around the current position."""

    def __init__(self, read: Callable[[int, int], bytes], size: int, path: str) -> None:
        self._read = read
        self.size = size
        self.path = path
        self.pos = 0
        self._raw = b""
        self._start = 0
        self._next_bytes = WINDOW_BYTES
        self._read_bytes = 0

    def ahead(self, n: int) -> tuple[bytes, int]:
        """Bytes of the file, and the index of the current position in them.

        At least `n` bytes follow it, or all that there are.
        """
        idx = self.pos - self._start
        if idx >= 0 and idx + n <= len(self._raw):
            return self._raw, idx
        left = max(0, self.size - self.pos)
        if idx < 0 or idx + min(n, left) > len(self._raw):
            if idx > len(self._raw):
                self._next_bytes = JUMP_BYTES
            self._fetch(min(left, max(n, self._next_bytes)))
            self._next_bytes = min(WINDOW_BYTES, 2 * self._next_bytes)
        return self._raw, self.pos - self._start

    def take(self, n: int) -> bytes:
        """The next `n` bytes."""
        raw, idx = self.ahead(n)
        taken = raw[idx : idx + n]
        if len(taken) < n:
            raise self.cut_off()
        self.pos += n
        return taken

    def _fetch(self, length: int) -> None:
        self._read_bytes += length
        if self._read_bytes > MAX_READ_BYTES:
            raise self.error("the tag tree is too large", "more", f"{MAX_READ_BYTES} bytes at most")
        self._raw = self._read(self.pos, length)
        self._start = self.pos
        if len(self._raw) < length:
            raise self.cut_off()

    def error(self, problem: str, found: object, expected: object) -> HeaderError:
        """Error that says what is wrong at the current position."""
        return HeaderError(
            problem,
            path=self.path,
            found=f"{found} at byte {self.pos}",
            expected=expected,
            hint="the file is damaged; copy it again",
        )

    def cut_off(self) -> HeaderError:
        """Error that says that the file ends too early."""
        return HeaderError(
            "the file ends inside its tags",
            path=self.path,
            found=f"{self.size} bytes",
            expected="more",
            hint="copy the file again: the transfer probably broke off",
        )


@dataclass(frozen=True, slots=True)
class _Type:
    """What the info words say about a value."""

    dtype: np.dtype[Any]
    count: int
    unpack: struct.Struct | None = None
    """Reads a scalar or struct; None for strings and arrays."""
    is_string: bool = False


@dataclass(slots=True)
class _Group:
    """A group that is being read."""

    names: Names
    content: dict[str, Any] | None
    """What has been read; None if it is not of interest."""
    left: int
    """Number of entries to come."""
    end: int
    """None of its bytes lies behind this one."""
    unnamed: int = 0


class _Parser:
    """Reads one tree. With a stack of its own: damaged files may be nested more deeply than Python allows."""

    def __init__(self, window: _Window, keep: Callable[[Names], bool] | None) -> None:
        self._window = window
        self._keep = keep
        self._entries = 0
        self._content_bytes = 0
        self._scalar_types: dict[bytes, _Type] = {}
        self._field_types: dict[tuple[tuple[int, ...], bool], _Type] = {}

    def parse(self) -> DMTags:
        self._parse_header()
        root: dict[str, Any] = {}
        stack = [self._open_group((), root, self._window.size)]
        while stack:
            group = stack[-1]
            if group.left == 0:
                stack.pop()
                if stack and self._version == 4 and self._window.pos != group.end:
                    raise self._window.error(
                        "a group does not have the size that it claims", "its end", group.end
                    )
            elif (child := self._parse_entry(group)) is not None:
                stack.append(child)
                if len(stack) > MAX_DEPTH:
                    raise self._window.error("tags are nested too deeply", len(stack), f"{MAX_DEPTH} at most")
        return DMTags(self._version, self._byte_order, root)

    def _parse_header(self) -> None:
        window = self._window
        raw, _ = window.ahead(AHEAD_BYTES)
        self._version = int.from_bytes(raw[:4], "big")
        if len(raw) < 4 or self._version not in VERSIONS:
            raise HeaderError(
                "not a DM3 or DM4 file",
                path=window.path,
                found=f"{raw[:4]!r}",
                expected=f"{bytes([0, 0, 0, 3])!r} or {bytes([0, 0, 0, 4])!r}",
                hint="name the type yourself if it is something else",
            )
        self._word_letter = word = "I" if self._version == 3 else "Q"
        self._word = struct.Struct(f">{word}")
        self._group_head = struct.Struct(f">2B{word}")
        self._data_head = struct.Struct(f">4s{word}")
        self._min_entry_bytes = (3 if self._version == 3 else 11) + self._group_head.size
        window.take(4 + self._word.size)
        code = int.from_bytes(window.take(4), "big")
        if code not in BYTE_ORDERS:
            raise window.error("unknown byte order", code, "1 (little endian) or 0 (big endian)")
        self._byte_order = BYTE_ORDERS[code]

    def _open_group(self, names: Names, content: dict[str, Any] | None, end: int) -> _Group:
        _, _, count = self._group_head.unpack(self._window.take(self._group_head.size))
        room = max(0, end - self._window.pos) // self._min_entry_bytes
        if count > room:
            where = ".".join(names)[:100] or "the root group"
            raise self._window.error(f"impossible number of entries in {where!r}", count, f"{room} at most")
        return _Group(names, content, count, end)

    def _parse_entry(self, group: _Group) -> _Group | None:
        """Read one entry. If it is a group whose entries have to be visited: that."""
        window = self._window
        group.left -= 1
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            raise window.error("there are too many tags", "more", f"{MAX_ENTRIES} at most")
        kind, name, end = self._parse_entry_head(group)
        if kind == DATA:
            value = self._parse_value(end, keep=group.content is not None)
            if group.content is not None:
                group.content.setdefault(name, value)
            return None
        names = (*group.names, name)
        content: dict[str, Any] | None = {}
        if group.content is not None:
            group.content.setdefault(name, content)
        if group.content is None or (self._keep is not None and not self._keep(names)):
            content = None
            if self._version == 4:
                window.pos = end
                return None
        return self._open_group(names, content, end)

    def _parse_entry_head(self, group: _Group) -> tuple[int, str, int]:
        """Kind, name, and the byte behind the entry or, in version 3, behind the group."""
        window = self._window
        raw, idx = window.ahead(AHEAD_BYTES)
        head = raw[idx : idx + 3]
        if len(head) < 3:
            raise window.cut_off()
        kind, length = head[0], head[1] << 8 | head[2]
        if kind not in (GROUP, DATA):
            raise window.error("neither a group nor a data tag", f"kind {kind}", f"{GROUP} or {DATA}")
        n_bytes = 3 + length + (0 if self._version == 3 else 8)
        if idx + n_bytes > len(raw):
            raw, idx = window.ahead(n_bytes)
            if idx + n_bytes > len(raw):
                raise window.cut_off()
        window.pos += n_bytes
        if length:
            self._count_content(length)
            name = raw[idx + 3 : idx + 3 + length].decode("latin-1")
        else:
            name = str(group.unnamed)
            group.unnamed += 1
        if self._version == 3:
            return kind, name, group.end
        end = int.from_bytes(raw[idx + 3 + length : idx + n_bytes], "big") + window.pos
        if end > group.end:
            raise window.error(f"the entry {name[:100]!r} is larger than its group", f"end {end}", group.end)
        return kind, name, end

    def _count_content(self, n_bytes: int) -> None:
        self._content_bytes += n_bytes
        if self._content_bytes > MAX_CONTENT_BYTES:
            raise self._window.error("the tags are too long", "more", f"{MAX_CONTENT_BYTES} bytes at most")

    def _parse_value(self, end: int, *, keep: bool) -> DMValue:
        window = self._window
        type_ = self._parse_type()
        offset, n_bytes = window.pos, type_.count * type_.dtype.itemsize
        if offset + n_bytes > end:
            if end == window.size:
                raise window.cut_off()
            raise window.error(
                "a value is larger than its tag", f"{n_bytes} bytes", f"{end - offset} bytes at most"
            )
        if self._version == 4 and offset + n_bytes != end:
            raise window.error(
                "a value does not have the size that its tag claims", f"{n_bytes} bytes", end - offset
            )
        raw = None
        if keep and n_bytes <= MAX_VALUE_BYTES:
            self._count_content(n_bytes)
            raw = window.take(n_bytes)
        window.pos = offset + n_bytes
        if raw is not None and type_.is_string:
            return raw.decode("latin-1")
        if raw is None or type_.unpack is None:
            return DMArray(offset, type_.dtype, type_.count, raw)
        values: tuple[Any, ...] = type_.unpack.unpack(raw)
        return values if type_.dtype.fields else values[0]

    def _parse_type(self) -> _Type:
        window = self._window
        raw, idx = window.ahead(AHEAD_BYTES)
        if len(raw) - idx < self._data_head.size:
            raise window.cut_off()
        delimiter, n_words = self._data_head.unpack_from(raw, idx)
        if delimiter != DELIMITER:
            raise window.error("lost track of the tags", repr(delimiter), repr(DELIMITER))
        if not 1 <= n_words <= MAX_INFO_WORDS:
            raise window.error(
                "impossible description of a value", f"{n_words} words", f"1 to {MAX_INFO_WORDS}"
            )
        window.pos += self._data_head.size
        info = window.take(n_words * self._word.size)
        type_ = self._scalar_types.get(info)
        if type_ is not None:
            return type_
        self._count_content(len(info))
        words = struct.unpack(f">{n_words}{self._word_letter}", info)
        type_ = self._decode_type(words)
        if n_words == 1:
            self._scalar_types[info] = type_
        return type_

    def _decode_type(self, words: tuple[int, ...]) -> _Type:
        match words:
            case (code,) if code in SCALARS:
                return self._fields((code,))
            case (18, n):
                return _Type(np.dtype("u1"), n, is_string=True)
            case (20, 18, m, n):
                return _Type(np.dtype("u1"), m * n)
            case (20, code, n) if code in SCALARS:
                return _Type(self._fields((code,)).dtype, n)
            case (20, 20, code, m, n) if code in SCALARS:
                return _Type(self._fields((code,)).dtype, m * n)
            case (15, *fields):
                return self._struct(fields, words)
            case (20, 15, *fields, n):
                return _Type(self._struct(fields, words).dtype, n)
        raise self._unknown_type(words)

    def _struct(self, fields: list[int], words: tuple[int, ...]) -> _Type:
        """The struct with the description ``L, f, (l, t) · f``."""
        codes = tuple(fields[3::2])
        if len(fields) < 4 or fields[1] != len(codes) or len(fields) != 2 + 2 * len(codes):
            raise self._unknown_type(words)
        if not all(code in SCALARS for code in codes):
            raise self._unknown_type(words)
        return self._fields(codes, is_struct=True)

    def _fields(self, codes: tuple[int, ...], *, is_struct: bool = False) -> _Type:
        """One scalar, or several in a struct."""
        key = (codes, is_struct)
        if key not in self._field_types:
            if len(self._field_types) > MAX_STRUCTS:
                raise self._window.error(
                    "there are too many kinds of values", "more", f"{MAX_STRUCTS} at most"
                )
            letters = [SCALARS[code] for code in codes]
            # By its string, because NumPy has two dtypes for the same integers.
            dtypes = [np.dtype(np.dtype(self._byte_order + letter).str) for letter in letters]
            dtype = np.dtype([(f"f{i}", of) for i, of in enumerate(dtypes)]) if is_struct else dtypes[0]
            unpack = struct.Struct(self._byte_order + "".join(letters))
            self._field_types[key] = _Type(dtype, 1, unpack)
        return self._field_types[key]

    def _unknown_type(self, words: tuple[int, ...]) -> HeaderError:
        return self._window.error(
            "unknown type of a value", str(words[:8]), "a description as in the documentation"
        )
