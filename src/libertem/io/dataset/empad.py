"""Read data of the EMPAD detector, first generation: an XML file that names a raw file.

Raw file, 66560 bytes per frame, no file header:

| offset in frame | bytes | type | meaning |
|----------------:|------:|------|---------|
|               0 | 65536 | <f4  | image, 128 rows of 128 pixels; background already subtracted |
|           65536 |  1024 | <f4  | footer, two rows of unknown content |

Children of the root of the XML file:

| element | meaning |
|---------|---------|
| ``raw_file``, attribute ``filename`` | the raw file; only the last part of the path counts |
| ``type`` | ``scan`` (also if missing) or ``series`` |
| ``count`` | frames of a series |
| ``scan_parameters`` with ``mode`` ``acquire`` or ``search`` | ``scan_resolution_x``, ``scan_resolution_y`` |
| ``scan_parameters`` without ``mode`` | ``series_count``, frames of a series |
| ``pix_x``, ``pix_y`` | size of the scan, old software only |
| ``timestamp``, attribute ``isoformat`` | when the acquisition was, in local time |
| ``iom_measurements`` | answers of the microscope: ``source.get_voltage``, ``optics.get_cameralength``, ... |

These contradict each other: the raw file may belong to the preview (search) or to none of the parameters.
The size of the raw file decides which of them is right.

That voltage and camera length are in volts and metres is inferred: software of the same manufacturer gives
the same numbers with these units. The units of exposure time, screen current and calibrations are not known.

Sources: files of software versions 0.51 and 1.2.2; nothing of this is documented publicly.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.math import prod
from libertem.exceptions import (
    DataSetException,
    FileAccessError,
    HeaderError,
    MissingFileError,
    SizeMismatchError,
)
from libertem.io.dataset.base.backends.contract import IOBackend
from libertem.io.dataset.base.files import File, FileSet
from libertem.io.dataset.base.framefile import (
    PROBE_BYTES,
    FrameFacts,
    FrameFileDataSet,
    FrameFileParams,
    check_extension,
    read_head,
    renamed_parameter,
)
from libertem.io.dataset.base.metadata import NO_METADATA, Metadata, make_metadata, plain_header, timestamp_of
from libertem.io.headers.xmltree import parse_xml, xml_to_dict

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from libertem.common.protocols import ExecutorProtocol

__all__ = [
    "EMPADDataSet",
    "EMPADDatasetParams",
    "EMPADHeader",
    "ShapeCandidate",
    "get_params_from_xml",
    "parse_header",
]

PIXEL_DTYPE = np.dtype("<f4")
SIG_SHAPE = (128, 128)
IMAGE_BYTES = prod(SIG_SHAPE) * PIXEL_DTYPE.itemsize
FOOTER_BYTES = 2 * 128 * PIXEL_DTYPE.itemsize
FRAME_BYTES = IMAGE_BYTES + FOOTER_BYTES

MAX_XML_BYTES = 1 << 20
"""Real files have about 4 KiB."""

# Fifteen digits are more than any scan has, and few enough that nothing becomes slow.
NUMBER = re.compile(r"\s*0*([1-9][0-9]{0,14})\s*")
SCAN_NAME = re.compile(r"scan(?:_.*)?_x([0-9]{1,9})_y([0-9]{1,9})\.raw", re.IGNORECASE)
SERIES_NAME = re.compile(r"series(?:_.*)?_x([0-9]{1,9})\.raw", re.IGNORECASE)


@dataclass(frozen=True)
class ShapeCandidate:
    """A scan shape that the XML file mentions."""

    source: str
    """Where it stands."""

    nav_shape: tuple[int, ...]
    """(height, width) of a scan, or (frames,) of a series."""

    @property
    def raw_bytes(self) -> int:
        """Size of the raw file that goes with it."""
        return prod(self.nav_shape) * FRAME_BYTES


@dataclass(frozen=True)
class EMPADHeader:
    """The facts of the XML file."""

    raw_name: str
    """Name of the raw file, without folder."""

    candidates: tuple[ShapeCandidate, ...]
    """All scan shapes mentioned, most trustworthy first. At least one."""

    software_version: str
    """Of the acquisition software; empty if not given."""


def parse_header(raw: bytes, *, path: str) -> EMPADHeader:
    """Turn the bytes of an XML file into an `EMPADHeader`.

    Parameters
    ----------
    raw : bytes
        The whole file.
    path : str
        Where `raw` came from. Named in errors, never opened.

    Raises
    ------
    HeaderError
        If it is not well-formed, declares entities, does not name a raw file, or gives no scan shape.
    """
    root = parse_xml(raw, path=path, hint="name the type yourself if it is something else")
    kind = (root.findtext("type") or "scan").strip()
    if kind not in ("scan", "series"):
        raise HeaderError(
            "unknown type of acquisition", path=path, found=repr(kind[:100]), expected="scan or series"
        )
    raw_name = _raw_name(root, path)
    candidates = tuple(_candidates(root, kind, raw_name))
    if not candidates:
        raise HeaderError(
            "no scan shape in the XML file",
            path=path,
            expected="scan_parameters with scan_resolution_x and scan_resolution_y, or count",
            hint="open the .raw file and pass nav_shape",
        )
    version = (root.findtext("software_version") or "").strip()
    return EMPADHeader(raw_name=raw_name, candidates=candidates, software_version=version[:100])


def _raw_name(root: Element, path: str) -> str:
    element = root.find("raw_file")
    stored = "" if element is None else element.get("filename", "")
    # Whole paths of the acquisition computer occur, with separators of either kind.
    name = re.split(r"[/\\]", stored)[-1].strip()
    if name in ("", ".", ".."):
        raise HeaderError(
            "the XML file does not name a raw file",
            path=path,
            found=f"root element {root.tag[:100]!r}, raw_file {stored[:100]!r}",
            expected="an element raw_file with an attribute filename",
            hint="it is probably not the XML file of an EMPAD acquisition",
        )
    return name


def _candidates(root: Element, kind: str, raw_name: str) -> Iterator[ShapeCandidate]:
    blocks = root.findall("scan_parameters")
    by_mode = {block.get("mode"): block for block in reversed(blocks)}
    first = ("count", [root.findtext("count")]) if kind == "series" else _resolution(by_mode, "acquire")
    name = SCAN_NAME.fullmatch(raw_name) or SERIES_NAME.fullmatch(raw_name)
    series = by_mode.get(None)
    for source, texts in (
        first,
        _resolution(by_mode, "search"),
        ("pix_x and pix_y", [root.findtext("pix_y"), root.findtext("pix_x")]),
        ("raw file name", [] if name is None else list(reversed(name.groups()))),
        ("series_count", [None if series is None else series.findtext("series_count")]),
    ):
        numbers = [NUMBER.fullmatch(text or "") for text in texts]
        if numbers and None not in numbers:
            yield ShapeCandidate(source, tuple(int(number[1]) for number in numbers if number is not None))


def _resolution(by_mode: dict[str | None, Element], mode: str) -> tuple[str, list[str | None]]:
    block = by_mode.get(mode)
    if block is None:
        return mode, [None]
    return mode, [block.findtext(f"scan_resolution_{axis}") for axis in "yx"]


@dataclass(frozen=True, kw_only=True)
class EMPADFacts(FrameFacts):
    """What an acquisition holds."""

    raw_path: str
    """Where the frames are."""

    source: str
    """Where the scan shape stands."""

    software_version: str = ""


def inspect_files(path: str, max_xml_bytes: int) -> EMPADFacts:
    """Facts about an acquisition, from its XML file or from the size of its raw file alone."""
    if path.lower().endswith(".raw"):
        n_frames = _raw_size(path) // FRAME_BYTES
        return _facts(path, n_frames, (), "parameter")
    header = _read_header(path, max_xml_bytes)
    raw_path = os.path.join(os.path.dirname(path), header.raw_name)
    size = _raw_size(raw_path)
    for candidate in header.candidates:
        if candidate.raw_bytes == size:
            nav_shape = candidate.nav_shape
            return _facts(raw_path, prod(nav_shape), nav_shape, candidate.source, header.software_version)
    expected = [f"{c.raw_bytes} bytes for {c.nav_shape} ({c.source})" for c in header.candidates]
    second_generation = size % IMAGE_BYTES == 0 and size % FRAME_BYTES != 0
    raise SizeMismatchError(
        f"the size of {header.raw_name} fits no scan shape in the XML file",
        path=path,
        found=f"{size} bytes",
        expected=" or ".join(expected),
        hint="open the .raw file and pass nav_shape to read the frames that are there"
        + (
            "; this could be data of the second generation, which has no footers" if second_generation else ""
        ),
    )


def _facts(
    raw_path: str, n_frames: int, nav_shape: tuple[int, ...], source: str, software_version: str = ""
) -> EMPADFacts:
    return EMPADFacts(
        dtype=PIXEL_DTYPE,
        image_count=n_frames,
        nav_shape=nav_shape,
        sig_shape=SIG_SHAPE,
        raw_path=raw_path,
        source=source,
        software_version=software_version,
    )


def _read_header(path: str, max_bytes: int) -> EMPADHeader:
    try:
        head = read_head(path, max_bytes)
        if head.size > max_bytes:
            raise HeaderError(
                "the XML file is too long",
                path=path,
                found=f"{head.size} bytes",
                expected=f"{max_bytes} at most",
                hint="open the .raw file and pass nav_shape",
            )
        return parse_header(head.raw, path=path)
    except DataSetException as err:
        raise type(err)(
            f"could not initialize EMPAD file; error: {err.problem}",
            path=path,
            found=err.found,
            expected=err.expected,
            hint=err.hint,
        ) from err


def _raw_size(path: str) -> int:
    try:
        return read_head(path, 0).size
    except (MissingFileError, FileAccessError) as err:
        hint = "the XML file contains the name of the raw file: if that was renamed, open it with nav_shape"
        raise type(err)(f"could not open file {path}: {err.problem}", path=path, hint=hint) from err


def get_params_from_xml(path: str, scan_parameters_mode: str = "acquire") -> tuple[str, tuple[int, ...]]:
    """Path of the raw file and scan shape according to an XML file, without a look at the raw file.

    Parameters
    ----------
    path : str
        The XML file.
    scan_parameters_mode : str
        ``"acquire"`` or ``"search"``; makes no difference for a series.

    Raises
    ------
    DataSetException
        If the XML file does not have these parameters.
    """
    path = os.fspath(path)
    header = _read_header(path, MAX_XML_BYTES)
    for candidate in header.candidates:
        if candidate.source in ("count", scan_parameters_mode):
            return os.path.join(os.path.dirname(path), header.raw_name), candidate.nav_shape
    raise HeaderError(
        "the XML file has no such scan parameters",
        path=path,
        found=[candidate.source for candidate in header.candidates],
        expected=scan_parameters_mode,
    )


def read_metadata(path: str) -> Metadata:
    """What the XML file says about the experiment; nothing, if `path` is a raw file."""
    if path.lower().endswith(".raw"):
        return NO_METADATA
    root = parse_xml(read_head(path, MAX_XML_BYTES).raw, path=path)
    measured = {child.tag: child.text for child in root.findall("iom_measurements/*")}
    acquired = root.find("timestamp")
    return make_metadata(
        (
            (name, measured.get(tag), unit, tag)
            for name, tag, unit in (
                ("voltage", "source.get_voltage", "V"),
                ("camera_length", "optics.get_cameralength", "m"),
            )
        ),
        acquired=None if acquired is None else timestamp_of(acquired.get("isoformat"), "timestamp isoformat"),
        header=plain_header({root.tag: xml_to_dict(root)}),
    )


class EMPADDatasetParams(FrameFileParams):
    """JSON parameters of EMPAD files."""

    SCHEMA = FrameFileParams.make_schema("EMPAD")


class EMPADDataSet(FrameFileDataSet):
    """Read data of the EMPAD detector, first generation.

    An acquisition is a pair of files, ``.xml`` and ``.raw``. The XML file contains the name of the raw file:
    if that was renamed, open the raw file itself.

    Parameters
    ----------
    path : str or path-like
        The XML file, or the raw file together with `nav_shape`.
    scan_size
        Deprecated, use `nav_shape`.
    nav_shape : sequence of int, optional
        Shape of the scan, or ``(number of frames,)`` for a series. By default as in the XML file.
    sig_shape : sequence of int, optional
        Another shape for the 16384 pixels of a frame.
    sync_offset : int
        Frames to skip (> 0) or blanks to insert (< 0) at the start.
    io_backend : IOBackend, optional
        How to read.
    num_partitions : int, optional
        Overrides the number of partitions.

    Raises
    ------
    DataSetException
        If the files are damaged or do not belong together, or the shapes do not fit them.

    Examples
    --------
    >>> ds = ctx.load("empad", path="acquisition_1.xml")  # doctest: +SKIP
    >>> ds = ctx.load("empad", path="scan_x4_y4.raw", nav_shape=(4, 4))  # doctest: +SKIP
    """

    _facts: EMPADFacts | None

    def __init__(
        self,
        path: Any,
        scan_size: Any = None,
        nav_shape: Any = None,
        sig_shape: Any = None,
        sync_offset: int | None = 0,
        io_backend: IOBackend | None = None,
        num_partitions: int | None = None,
    ) -> None:
        nav_shape = renamed_parameter("scan_size", scan_size, "nav_shape", nav_shape)
        super().__init__(os.fspath(path), nav_shape, sig_shape, sync_offset, io_backend, num_partitions)
        extension = os.path.splitext(self._path)[1]
        if extension.lower() not in (".xml", ".raw"):
            raise DataSetException(
                "path should either be .xml or .raw", path=self._path, found=repr(extension)
            )

    @classmethod
    def get_supported_extensions(cls) -> set[str]:
        """``.xml`` and ``.raw``."""
        return {"xml", "raw"}

    @classmethod
    def get_msg_converter(cls) -> type[EMPADDatasetParams]:
        """Converter of JSON parameters."""
        return EMPADDatasetParams

    @classmethod
    def recognize(cls, path: str, executor: ExecutorProtocol) -> dict[str, Any]:
        """XML files that name a raw file of the right size. Raw files say nothing about themselves."""
        check_extension(path, {"xml"})
        facts = executor.run_function(inspect_files, path, PROBE_BYTES)
        return cls._detected(path, facts, facts.nav_shape)

    def _inspect(self) -> EMPADFacts:
        return inspect_files(self._path, MAX_XML_BYTES)

    def _read_metadata(self) -> Metadata:
        return read_metadata(self._path)

    def _get_fileset(self) -> FileSet:
        assert self._facts is not None
        file = File(
            path=self._facts.raw_path,
            start_idx=0,
            end_idx=self._image_count,
            native_dtype=PIXEL_DTYPE,
            sig_shape=self.shape.sig,
            frame_footer=FOOTER_BYTES,
        )
        return FileSet([file], frame_footer_bytes=FOOTER_BYTES)

    def get_diagnostics(self) -> list[dict[str, Any]]:
        """Dtype, raw file and origin of the scan shape."""
        assert self._facts is not None
        return [
            *super().get_diagnostics(),
            {"name": "Raw file", "value": self._facts.raw_path},
            {"name": "Scan shape taken from", "value": self._facts.source},
            {"name": "Software version", "value": self._facts.software_version or "unknown"},
        ]

    def get_cache_key(self) -> dict[str, Any]:
        """Path of the raw file, shape and sync offset."""
        assert self._facts is not None
        return {
            "path_raw": self._facts.raw_path,
            "shape": self.shape.to_tuple(),
            "sync_offset": self._sync_offset,
        }

    def __repr__(self) -> str:
        if self._meta is None:
            return super().__repr__()
        return f"<EMPADFileDataSet of {self.dtype} shape={self.shape}>"
