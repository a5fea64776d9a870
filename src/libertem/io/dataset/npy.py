r"""Read arrays in NumPy's own file format.

| offset | bytes | type   | meaning |
|-------:|------:|--------|---------|
|      0 |     6 | bytes  | magic, ``\x93NUMPY`` |
|      6 |     2 | u1     | major and minor version: 1.0, 2.0 or 3.0 |
|      8 | 2 (version 1) or 4 | <u2, <u4 | N, length of the header |
|        |     N | text   | ``{'descr': '<u2', 'fortran_order': False, 'shape': (2, 4, 5), }`` |
|        |       | by descr | the array, without gaps |

The header is a literal of Python, but only those three entries in any order are understood: no code is
evaluated. Python 2 wrote extents with an ``L`` at the end.

Source: NumPy documentation, ``numpy.lib.format`` (NEP 1).
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from libertem.common.math import prod
from libertem.exceptions import DataSetException, HeaderError, ShapeError, SizeMismatchError
from libertem.io.dataset.base.backends.contract import IOBackend
from libertem.io.dataset.base.files import File, FileSet
from libertem.io.dataset.base.framefile import (
    PROBE_BYTES,
    FrameFileParams,
    read_head,
)
from libertem.io.dataset.base.metadata import Metadata
from libertem.io.dataset.base.transposable import DEFAULT_BYTES, TransposableDataSet, TransposableFacts
from libertem.io.dataset.base.transposed import TransposedLayout

if TYPE_CHECKING:
    from libertem.common.protocols import ExecutorProtocol

__all__ = ["NPYDataSet", "NPYDatasetParams", "NPYInfo", "parse_header", "read_npy_info"]

MAGIC = b"\x93NUMPY"
LENGTH_BYTES = {1: 2, 2: 4, 3: 4}
"""Size of the length field, by major version."""

# Only arrays of structures have long headers, and those cannot be read anyway.
MAX_HEADER_BYTES = PROBE_BYTES

ENTRY = re.compile(
    r"""
    \s* (?P<quote>['"]) (?P<key>\w+) (?P=quote) \s* : \s*
    (?: (?P<text>'[^'\n]*'|"[^"\n]*") | (?P<flag>True|False) | \( (?P<extents>[0-9L,\s]*) \) )
    \s* (?: , \s* | \Z )
    """,
    re.VERBOSE,
)
# Sixteen digits are more than any file can hold, and few enough that nothing becomes slow.
EXTENT = re.compile(r"\s*([0-9]{1,16})L?\s*")
PLAIN_DTYPE = re.compile(r"[<>=|]?(\?|[biufc][0-9]{1,2}|bool|(u?int|float|complex)[0-9]{1,3})")
STRUCTURED = re.compile(r"""['"]descr['"]\s*:\s*[\[(]""")


class NPYInfo(NamedTuple):
    """The facts of an NPY header."""

    dtype: np.dtype[Any]
    """Of the elements, with byte order."""

    shape: tuple[int, ...]
    """Of the array, in C order."""

    count: int  # type: ignore[assignment]  # documented name, hides tuple.count
    """Number of elements."""

    offset: int
    """Byte where the array starts."""


def read_npy_info(path: str) -> NPYInfo:
    """Read the header of an NPY file.

    Raises
    ------
    DataSetException
        If the file is missing, no NPY file, or holds something other than a C-ordered array of numbers.
    """
    return parse_header(read_head(path, MAX_HEADER_BYTES).raw, path=path)


def parse_header(raw: bytes, *, path: str) -> NPYInfo:
    """Turn the first bytes of an NPY file into an `NPYInfo`; see `parse_any_order`.

    Raises
    ------
    HeaderError
        If `raw` is no NPY header, or one of an array that is not made of C-ordered numbers.
    """
    info, in_fortran_order = parse_any_order(raw, path=path)
    if in_fortran_order:
        raise HeaderError(
            "only C_CONTIGUOUS arrays can be read",
            path=path,
            found=f"Fortran order, shape {info.shape}",
            hint="save it again after a conversion with np.ascontiguousarray, or pass transposed='direct'",
        )
    return info


def parse_any_order(raw: bytes, *, path: str) -> tuple[NPYInfo, bool]:
    """Turn the first bytes of an NPY file into an `NPYInfo`, and whether the array is in Fortran order.

    Parameters
    ----------
    raw : bytes
        The first `MAX_HEADER_BYTES` bytes of the file, or the whole file.
    path : str
        Where `raw` came from. Named in errors, never opened.

    Raises
    ------
    HeaderError
        If `raw` is no NPY header, or one of an array that is not made of numbers.
    """
    if not raw.startswith(MAGIC):
        raise HeaderError(
            "not a NumPy file",
            path=path,
            found=raw[: len(MAGIC)],
            expected=MAGIC,
            hint="name the type yourself if it is something else",
        )
    text, offset = _header_text(raw, path)
    entries = _parse_entries(text, path)
    shape = _parse_shape(entries["shape"], path)
    in_fortran_order = entries["fortran_order"] == "True" and sum(extent != 1 for extent in shape) > 1
    return NPYInfo(_parse_dtype(entries["descr"], path), shape, prod(shape), offset), in_fortran_order


def _header_text(raw: bytes, path: str) -> tuple[str, int]:
    """The literal without the spaces around it, and the byte where the array starts."""
    version = raw[len(MAGIC) : len(MAGIC) + 1]
    if version and version[0] not in LENGTH_BYTES:
        raise HeaderError(
            "unknown version of the NPY format", path=path, found=version[0], expected=f"{list(LENGTH_BYTES)}"
        )
    start = len(MAGIC) + 2 + (LENGTH_BYTES[version[0]] if version else 0)
    stop = start + int.from_bytes(raw[len(MAGIC) + 2 : start], "little")
    if stop > MAX_HEADER_BYTES:
        raise HeaderError(
            "the header is too long",
            path=path,
            found=f"{stop} bytes",
            expected=f"{MAX_HEADER_BYTES} at most",
            hint="only arrays of structures have long headers, convert it to an array of numbers",
        )
    if len(raw) < stop:
        raise HeaderError(
            "the file ends inside its header",
            path=path,
            found=f"{len(raw)} bytes",
            expected=f"at least {stop}",
            hint="copy the file again: the transfer probably broke off",
        )
    # Version 3 is UTF-8 for the sake of field names, which make the header useless here.
    return raw[start:stop].decode("latin-1").strip(), stop


def _parse_entries(text: str, path: str) -> dict[str, str]:
    entries = {}
    position = 1
    end = len(text) - 1
    while text[:1] == "{" and text[end:] == "}" and position < end:
        entry = ENTRY.match(text, position, end)
        if entry is None:
            break
        value = entry["text"][1:-1] if entry["text"] else entry["flag"] or entry["extents"]
        kind = "descr" if entry["text"] else "fortran_order" if entry["flag"] else "shape"
        if entry["key"] != kind:
            break
        entries[kind] = value
        position = entry.end()
    if position != end or len(entries) != 3:
        structured = STRUCTURED.search(text) is not None
        raise HeaderError(
            "only arrays of plain numbers can be read" if structured else "the header makes no sense",
            path=path,
            found=repr(text[:100]),
            expected="{'descr': '<u2', 'fortran_order': False, 'shape': (2, 4, 5), } or similar",
            hint="convert it to an array of numbers" if structured else "the file is damaged",
        )
    return entries


def _parse_shape(text: str, path: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not parts[-1].strip():
        parts.pop()
    extents = [EXTENT.fullmatch(part) for part in parts]
    # NumPy itself can have 64 axes. Without any comma the literal is a number, not a tuple.
    if len(parts) > 64 or (len(parts) == 1 and "," not in text) or None in extents:
        raise HeaderError(
            "the shape in the header makes no sense",
            path=path,
            found=f"({text[:100]})",
            expected="non-negative integers",
            hint="the file is damaged",
        )
    return tuple(int(extent[1]) for extent in extents if extent is not None)


def _parse_dtype(text: str, path: str) -> np.dtype[Any]:
    cause = None
    if PLAIN_DTYPE.fullmatch(text):
        try:
            return np.dtype(text)
        except TypeError as err:
            cause = err  # a width that NumPy lacks on this platform
    raise HeaderError(
        "only arrays of plain numbers can be read",
        path=path,
        found="Python objects" if text.lstrip("|") == "O" else f"dtype {text[:100]!r}",
        expected="bool, integer, float or complex",
        hint="convert it to an array of numbers",
    ) from cause


class NPYDatasetParams(FrameFileParams):
    """JSON parameters of NPY files."""

    SCHEMA = FrameFileParams.make_schema("NPY")


@dataclass(frozen=True, kw_only=True)
class NPYFacts(TransposableFacts):
    """What an NPY file holds, the override of `sig_shape` included."""

    offset: int
    """Byte where the first frame starts."""


class NPYDataSet(TransposableDataSet):
    """Read an array from an NPY file: the last axes are a frame, all others the scan.

    `nav_shape` and `sig_shape` override the shape in the file. Frames and pixels then are taken in C order
    from the start of the array; together they may be smaller than the array.

    Parameters
    ----------
    path : str or path-like
        The file.
    sig_dims : int or None
        Number of axes of a frame. None to go by the length of `sig_shape`.
    nav_shape : sequence of int, optional
        Shape of the scan, any number of axes.
    sig_shape : sequence of int, optional
        Shape of a frame with `sig_dims` axes.
    sync_offset : int
        Frames to skip (> 0) or blanks to insert (< 0) at the start.
    io_backend : IOBackend, optional
        How to read.
    num_partitions : int, optional
        Overrides the number of partitions.
    transposed : 'direct', optional
        Also read arrays in Fortran order, by putting frames together. `sig_shape` then has to have as many
        pixels as some of the last axes. No effect on other files.
    transposed_bytes : int
        Memory in which frames are put together, per worker. More makes reading such files faster.

    Raises
    ------
    ValueError
        If one of the last two makes no sense.
    DataSetException
        If `sig_dims` is no positive integer and cannot be inferred from `sig_shape`, if the shapes describe
        more than the file holds, if the array is not made of numbers, or if it is in Fortran order and
        `transposed` does not ask for that.

    Examples
    --------
    >>> ds = ctx.load("npy", path="f.npy")  # doctest: +SKIP
    """

    _facts: NPYFacts | None

    def __init__(
        self,
        path: Any,
        sig_dims: int | None = 2,
        nav_shape: Any = None,
        sig_shape: Any = None,
        sync_offset: int | None = 0,
        io_backend: IOBackend | None = None,
        num_partitions: int | None = None,
        *,
        transposed: Literal["direct"] | None = None,
        transposed_bytes: int = DEFAULT_BYTES,
    ) -> None:
        nav_shape, sig_shape = (_unless_empty(shape) for shape in (nav_shape, sig_shape))
        super().__init__(
            path,
            nav_shape,
            sig_shape,
            sync_offset,
            io_backend,
            num_partitions,
            transposed=transposed,
            transposed_bytes=transposed_bytes,
        )
        self._sig_dims = self._check_sig_dims(sig_dims)

    def _check_sig_dims(self, sig_dims: Any) -> int:
        if sig_dims is None and self._sig_shape is not None:
            return len(self._sig_shape)
        try:
            n = operator.index(sig_dims)
        except TypeError as err:
            raise DataSetException(
                "Must supply one of sig_dims or sig_shape to NPYDataSet",
                path=self._path,
                found=f"sig_dims={sig_dims!r}",
                expected="a positive integer",
            ) from err
        if n < 1:
            raise ShapeError("sig_dims has to be positive", path=self._path, found=n)
        if self._sig_shape is not None and len(self._sig_shape) != n:
            raise ShapeError(
                f"Mismatching sig_dims (= {n}) and sig_shape {self._sig_shape} arguments",
                path=self._path,
                hint="pass sig_dims=None to go by sig_shape",
            )
        return n

    @classmethod
    def get_supported_extensions(cls) -> set[str]:
        """``.npy``."""
        return {"npy"}

    @classmethod
    def get_msg_converter(cls) -> type[NPYDatasetParams]:
        """Converter of JSON parameters."""
        return NPYDatasetParams

    @classmethod
    def recognize(cls, path: str, executor: ExecutorProtocol) -> dict[str, Any]:
        """Magic and header; the last two axes are taken for a frame."""
        facts = _split(executor.run_function(read_npy_info, path), 2, None, path)
        return cls._detected(path, facts, facts.nav_shape)

    def _inspect(self) -> NPYFacts:
        head = read_head(self._path, MAX_HEADER_BYTES)
        info, in_fortran_order = parse_any_order(head.raw, path=self._path)
        if in_fortran_order and self._transposed is None:
            info = parse_header(head.raw, path=self._path)
        present = max(0, head.size - info.offset) // info.dtype.itemsize
        if present < info.count:
            # Only the user can say what to make of the rest of a file.
            if self._nav_shape is None or in_fortran_order:
                raise SizeMismatchError(
                    "the file is shorter than its array",
                    path=self._path,
                    found=f"{head.size} bytes",
                    expected=f"{info.offset + info.count * info.dtype.itemsize} bytes for shape {info.shape}",
                    hint="copy the file again, or pass nav_shape to read the frames that are there",
                )
            info = info._replace(count=present)
        if in_fortran_order:
            facts = _split(info, self._stored_sig_dims(info.shape), None, self._path)
            layout = TransposedLayout(
                info.offset, info.dtype, facts.nav_shape, facts.sig_shape, is_reversed=True
            )
            facts = replace(facts, sig_shape=self._fit_sig_shape(facts), layout=layout)
        else:
            facts = _split(info, self._sig_dims, self._sig_shape, self._path)
        self._check_fit(facts, info.count)
        return facts

    def _read_metadata(self) -> Metadata:
        raw = read_head(self._path, MAX_HEADER_BYTES).raw
        info, in_fortran_order = parse_any_order(raw, path=self._path)
        descr, shape = info.dtype.str, list(info.shape)
        return Metadata(header={"descr": descr, "fortran_order": in_fortran_order, "shape": shape})

    def _stored_sig_dims(self, shape: tuple[int, ...]) -> int:
        """How many axes of an array in Fortran order make up a frame with as many pixels as asked for."""
        if self._sig_shape is not None:
            for n in range(1, len(shape) + 1):
                if prod(shape[-n:]) == prod(self._sig_shape):
                    return n
        return self._sig_dims

    def _check_fit(self, facts: NPYFacts, count: int) -> None:
        nav_shape = self._fit_nav_shape(facts)
        wanted = prod(nav_shape) * prod(facts.sig_shape)
        overridden = self._nav_shape is not None or self._sig_shape is not None
        if not overridden or (facts.image_count > 0 and wanted <= count):
            return
        raise ShapeError(
            "nav_shape and sig_shape describe an array larger than that in the file",
            path=self._path,
            found=f"{nav_shape} + {facts.sig_shape} = {wanted} elements",
            expected=f"{count} at most",
            hint="pass smaller ones",
        )

    def _get_fileset(self) -> FileSet:
        assert self._facts is not None
        if self._facts.layout is not None:
            return self._transposed_fileset(self._facts.layout)
        return FileSet(
            [
                File(
                    path=self._path,
                    start_idx=0,
                    end_idx=self._image_count,
                    native_dtype=self._facts.dtype,
                    sig_shape=self.shape.sig,
                    file_header=self._facts.offset,
                )
            ]
        )


def _unless_empty(shape: Any) -> Any:
    return None if shape is None else tuple(shape) or None


def _split(info: NPYInfo, sig_dims: int, sig_shape: tuple[int, ...] | None, path: str) -> NPYFacts:
    """Facts about frames of the last `sig_dims` axes, or of another shape."""
    n_nav = len(info.shape) - sig_dims
    if info.count == 0 or (sig_shape is None and n_nav < 0):
        empty = info.count == 0 or not info.shape
        raise ShapeError(
            "the array contains no frames" if empty else "the array has fewer axes than a frame",
            path=path,
            found=f"shape {info.shape}",
            expected=f"{sig_dims} axes or more, none of them empty",
            hint="pass another sig_dims",
        )
    sig = info.shape[n_nav:] if sig_shape is None else sig_shape
    image_count = info.count // prod(sig)
    return NPYFacts(
        dtype=info.dtype,
        image_count=image_count,
        # An array with the axes of a frame is one frame, or as many as fit in it if they have another shape.
        nav_shape=info.shape[:n_nav] if n_nav > 0 else (image_count,),
        sig_shape=sig,
        offset=info.offset,
    )
