"""The data set of SER files."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.math import prod
from libertem.exceptions import DataSetException, ShapeError, UnsupportedBackendError
from libertem.io.dataset.base.backends.contract import IOBackend
from libertem.io.dataset.base.backends.rawio import RawFile
from libertem.io.dataset.base.files import File, FileSet
from libertem.io.dataset.base.framefile import (
    FrameFacts,
    FrameFileDataSet,
    FrameFileParams,
    check_extension,
    read_head,
)
from libertem.io.dataset.base.metadata import Metadata
from libertem.io.dataset.base.packing import Packing
from libertem.io.dataset.ser.elements import ElementHeader, ElementTable, make_table, read_element_header
from libertem.io.dataset.ser.header import HEAD_BYTES, SERHeader, parse_header
from libertem.io.dataset.ser.metadata import read_metadata

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.common.protocols import ExecutorProtocol

__all__ = ["ElementPacking", "SERDataSet", "SERDatasetParams", "SERFacts", "inspect_file"]


@dataclass(frozen=True, kw_only=True)
class SERFacts(FrameFacts):
    """What a SER file holds."""

    header: SERHeader
    table: ElementTable


def inspect_file(path: str, *, thorough: bool = False) -> SERFacts:
    """Facts about a SER file; see `make_table` for what is looked at."""
    header = _read_header(path)
    with RawFile(path) as file:
        table = make_table(file, header, thorough=thorough)
    lack = f"{path}: the header promises {header.n_valid} frames, the file holds {table.count} whole ones"
    return SERFacts(
        dtype=table.element.dtype.newbyteorder("="),
        image_count=table.count,
        nav_shape=header.nav_shape,
        sig_shape=table.element.shape,
        notices=(f"{lack}: reading those",) if table.count < header.n_valid else (),
        header=header,
        table=table,
    )


def _read_header(path: str) -> SERHeader:
    head = read_head(path, HEAD_BYTES)
    header = parse_header(head.raw, path=path, file_size=head.size)
    if header.n_valid < 1:
        raise DataSetException(
            "no data found in file",
            path=path,
            found=f"0 valid of {header.n_planned} planned elements",
            hint="TIA stores a single spectrum in the .emi file, which cannot be read",
        )
    return header


def recognize_file(path: str) -> tuple[SERHeader, ElementHeader]:
    """Header of a SER file and of its first element."""
    header = _read_header(path)
    with RawFile(path) as file:
        raw = np.empty(header.offset_dtype.itemsize, dtype=np.uint8)
        file.read_into(raw, header.table_offset)
        offset = int(raw.view(header.offset_dtype)[0])
        return header, read_element_header(file, 0, offset, header.element_dims)


class ElementPacking(Packing):
    """Elements with their headers, so that each can be checked before its pixels are used.

    Parameters
    ----------
    element : ElementHeader
        What all elements have to be.
    path : str
        The file they come from.
    """

    def __init__(self, element: ElementHeader, path: str) -> None:
        height, width = element.shape if len(element.shape) == 2 else (1, *element.shape)
        super().__init__(element.dtype.newbyteorder("="), (height, width), element.element_bytes)
        self._element = element
        self._path = path

    def unpack(
        self,
        part: int,
        stored: npt.NDArray[np.uint8],
        starts: npt.NDArray[np.int64],
        first_row: int,
        out: npt.NDArray[Any],
    ) -> None:
        """Turn images upright.

        Raises
        ------
        DataSetException
            If an element has another type or shape.
        """
        from libertem.io.dataset.ser.kernels import copy_rows_upwards  # loads numba

        differs = copy_rows_upwards(
            stored,
            starts,
            self._element.shape_offset,
            np.frombuffer(self._element.stored_shape(), dtype=np.uint8),
            self.frame_shape[0],
            first_row,
            out.view(np.uint8),
        )
        if differs >= 0:
            # The whole file, to say which element it is.
            inspect_file(self._path, thorough=True)
            raise DataSetException(
                "an element differs from the first one",
                path=self._path,
                expected=self._element,
                hint="was the file changed while it was read?",
            )
        if not self._element.dtype.isnative:
            out.byteswap(inplace=True)


class SERDatasetParams(FrameFileParams):
    """JSON parameters of SER files."""

    SCHEMA = FrameFileParams.make_schema("SER")


class SERDataSet(FrameFileDataSet):
    """Read SER files of TIA (ES Vision): images or spectra, as a series or a scan.

    A file that holds fewer whole elements than its header says is read as far as it goes, with a warning. An
    acquisition that was stopped keeps its planned scan shape; positions that were not reached are blank.

    Parameters
    ----------
    path : str or path-like
        The ``.ser`` file.
    emipath
        Deprecated and ignored: the EMI file is not needed.
    nav_shape : sequence of int, optional
        Shape of the scan, any number of axes; by default as planned for the acquisition. Frames that the
        file lacks are blank.
    sig_shape : sequence of int, optional
        Another shape for as many pixels as a frame has.
    sync_offset : int
        Frames to skip (> 0) or blanks to insert (< 0) at the start.
    io_backend : IOBackend, optional
        Has to be None: this format offers no choice.
    num_partitions : int, optional
        Overrides the number of partitions.

    Raises
    ------
    DataSetException
        If this is no SER file, is damaged or empty, if its elements differ, or the parameters do not fit it.

    Examples
    --------
    >>> ds = ctx.load("ser", path="scan_1.ser")  # doctest: +SKIP
    """

    _facts: SERFacts | None

    def __init__(
        self,
        path: Any,
        emipath: Any = None,
        nav_shape: Any = None,
        sig_shape: Any = None,
        sync_offset: int | None = 0,
        io_backend: IOBackend | None = None,
        num_partitions: int | None = None,
    ) -> None:
        if emipath is not None:
            warnings.warn("emipath is not used, leave it out", DeprecationWarning, stacklevel=2)
        super().__init__(path, nav_shape, sig_shape, sync_offset, io_backend, num_partitions)

    @classmethod
    def _check_backend(cls, io_backend: Any) -> IOBackend | None:
        backend = super()._check_backend(io_backend)
        if backend is not None:
            raise UnsupportedBackendError(f"{cls.__name__} does not support alternative I/O backends")
        return backend

    @classmethod
    def get_supported_io_backends(cls) -> list[str]:
        """None: there is no choice."""
        return []

    @classmethod
    def get_supported_extensions(cls) -> set[str]:
        """``.ser``."""
        return {"ser"}

    @classmethod
    def get_msg_converter(cls) -> type[SERDatasetParams]:
        """Converter of JSON parameters."""
        return SERDatasetParams

    @classmethod
    def recognize(cls, path: str, executor: ExecutorProtocol) -> dict[str, Any]:
        """Extension, then the headers of the file and its first element."""
        check_extension(path, cls.get_supported_extensions())
        header, element = executor.run_function(recognize_file, path)
        nav_shape = header.nav_shape or (header.n_valid,)
        return {
            "parameters": {"path": path, "nav_shape": nav_shape, "sig_shape": element.shape},
            "info": {"image_count": prod(nav_shape), "native_sig_shape": element.shape},
        }

    def _inspect(self) -> SERFacts:
        return inspect_file(self._path)

    def _fit_nav_shape(self, facts: FrameFacts) -> tuple[int, ...]:
        if self._nav_shape is None and not facts.nav_shape:
            assert isinstance(facts, SERFacts)
            raise ShapeError(
                "the dimensions in the header do not fit the number of elements",
                path=self._path,
                found=f"sizes {[dimension.size for dimension in facts.header.dimensions]}",
                expected=f"a product of {facts.header.n_planned}",
                hint="pass nav_shape=(height, width)",
            )
        return super()._fit_nav_shape(facts)

    def _read_metadata(self) -> Metadata:
        assert self._facts is not None
        return read_metadata(self._path, self._facts.header, int(self._facts.table.runs[0, 1]))

    def _get_packing(self) -> Packing:
        assert self._facts is not None
        return ElementPacking(self._facts.table.element, self._path)

    def _get_fileset(self) -> FileSet:
        # Each run of elements with equal distances counts as a file; nearly always that is one.
        assert self._facts is not None
        table = self._facts.table
        element_bytes = table.element.element_bytes
        footer = table.stride - element_bytes
        ends = [*table.runs[1:, 0].tolist(), table.count]
        files = [
            File(self._path, start, stop, np.uint8, (element_bytes,), footer, 0, offset)
            for (start, offset), stop in zip(table.runs.tolist(), ends, strict=True)
        ]
        return FileSet(files, frame_footer_bytes=footer)

    def get_diagnostics(self) -> list[dict[str, Any]]:
        """Dtype, what the header says, and whether elements have equal distances."""
        assert self._facts is not None
        header, table = self._facts.header, self._facts.table
        kind = "images" if header.element_dims == 2 else "spectra"
        n_runs = len(table.runs)
        return [
            *super().get_diagnostics(),
            {"name": "SER version", "value": f"0x{header.version:04x}"},
            {"name": "Elements", "value": f"{kind}, {header.n_valid} of {header.n_planned} planned"},
            {"name": "Tags", "value": header.tags},
            {
                "name": "Dimensions, fast axis first",
                "value": [
                    {"name": d.description, "value": f"{d.size}, step {d.step:g} {d.units}".rstrip()}
                    for d in header.dimensions
                ],
            },
            {"name": "Equal distances", "value": "yes" if n_runs == 1 else f"no, {n_runs} runs"},
        ]

    def get_cache_key(self) -> dict[str, Any]:
        """Path, shape and sync offset."""
        return {"path": self._path, "shape": self.shape.to_tuple(), "sync_offset": self._sync_offset}

    def __repr__(self) -> str:
        return f"<SERDataSet for {self._path}>"
