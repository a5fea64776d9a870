"""How a data set of an HDF5 file is stored, and in which way it is read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from libertem.common.math import prod
from libertem.exceptions import DataSetException
from libertem.io.dataset.base.files import File
from libertem.io.dataset.hdf5.candidates import is_pixel_dtype
from libertem.io.dataset.hdf5.external import check_sources, find_raw_files
from libertem.io.dataset.hdf5.filters import BLOSC2, Filter, filter_name, why_not_decodable, why_unusual
from libertem.io.dataset.hdf5.library import as_hdf5_error, import_h5py
from libertem.io.dataset.hdf5.units import UnitGrid

if TYPE_CHECKING:
    from libertem.common.shape import Shape

__all__ = ["H5Piece", "Layout", "describe"]

MAX_ELEMENTS = 1 << 62
"""More cannot be addressed with 64 bit offsets."""

READ_BYTES = 1 << 20
"""Data sets without chunks that HDF5 has to read are read in portions of about this size."""


@dataclass(frozen=True)
class Layout:
    """How the elements of a data set are stored."""

    nav_shape: tuple[int, ...]
    """As stored."""
    sig_shape: tuple[int, ...]
    chunks: tuple[int, ...] | None
    filters: tuple[Filter, ...]
    access: Literal["mapped", "chunks", "library"]
    """As a raw file; chunk by chunk past HDF5; or with HDF5, which has a lock."""
    reason: str = ""
    """Why HDF5 has to do it."""
    notice: str = ""
    """What the user should know when loading it."""

    @cached_property
    def units(self) -> UnitGrid:
        """Runs of frames that can be read on their own."""
        n_nav = len(self.nav_shape)
        if self.chunks is not None:
            return UnitGrid(self.nav_shape, self.sig_shape, self.chunks[:n_nav], self.chunks[n_nav:])
        # As if rows of frames were chunks; the size of pixels hardly matters here.
        along = max(1, min(self.nav_shape[-1], READ_BYTES // (4 * max(1, prod(self.sig_shape)))))
        return UnitGrid(self.nav_shape, self.sig_shape, (1,) * (n_nav - 1) + (along,), self.sig_shape)

    def __getstate__(self) -> dict[str, Any]:
        # Units are cheap to make again and large to send; the notice has been given when data are shipped.
        return {name: value for name, value in self.__dict__.items() if name not in ("units", "notice")}


class H5Piece(File):
    """The frames of one data set in one file.

    Parameters
    ----------
    path, start_idx, end_idx, native_dtype, sig_shape
        As for `File`.
    file_header : int
        Where the pixels start, if they are stored in one piece.
    dataset : str
        Path of the data set in the file.
    layout : Layout
        How it is stored.
    """

    def __init__(
        self,
        path: str,
        start_idx: int,
        end_idx: int,
        native_dtype: np.dtype[Any],
        sig_shape: Shape | tuple[int, ...],
        *,
        file_header: int,
        dataset: str,
        layout: Layout,
    ) -> None:
        super().__init__(path, start_idx, end_idx, native_dtype, sig_shape, file_header=file_header)
        self.dataset = dataset
        self.layout = layout

    def at(self, start_idx: int) -> H5Piece:
        """The same frames with other numbers."""
        stop_idx = start_idx + self.num_frames
        return _make_piece(
            self.path,
            start_idx,
            stop_idx,
            self.native_dtype,
            self.file_header_bytes,
            self.dataset,
            self.layout,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # A master file has thousands of them: without the names of attributes, messages are half as long.
        first, stop = self.start_idx, self.end_idx
        return _make_piece, (
            self.path,
            first,
            stop,
            self.native_dtype,
            self.file_header_bytes,
            self.dataset,
            self.layout,
        )


def _make_piece(
    path: str,
    start_idx: int,
    end_idx: int,
    dtype: np.dtype[Any],
    file_header: int,
    dataset: str,
    layout: Layout,
) -> H5Piece:
    return H5Piece(
        path,
        start_idx,
        end_idx,
        dtype,
        layout.sig_shape,
        file_header=file_header,
        dataset=dataset,
        layout=layout,
    )


def describe(dset: Any, sig_dims: int, *, path: str) -> H5Piece:
    """Facts about an open data set.

    Parameters
    ----------
    dset : h5py.Dataset
    sig_dims : int
        How many axes, counted from the end, make up a frame.
    path : str
        File that the user named; for errors.

    Raises
    ------
    DataSetException
        If it cannot be read as frames.
    """
    with as_hdf5_error(path, "a data set of the file is damaged"):
        dtype = _dtype_of(dset, path)
        n_nav = _count_nav_axes(dset, sig_dims, path)
        layout, place = _layout_of(dset, dtype, n_nav, path)
    if layout.access == "library":
        _require_filters(layout, path)
    return H5Piece(
        _same(place.path, path),
        0,
        prod(layout.nav_shape),
        dtype,
        layout.sig_shape,
        file_header=place.offset,
        dataset=dset.name,
        layout=layout,
    )


def _same(found: str, known: str) -> str:
    """`known` instead of an equal string: pickle writes each object once."""
    return known if found == known else found


def _count_nav_axes(dset: Any, sig_dims: int, path: str) -> int:
    shape = dset.shape
    where = f"{dset.name} of shape {shape}"
    if shape is None or len(shape) < sig_dims:
        raise DataSetException(
            "the data set has fewer axes than a frame",
            path=path,
            found=where,
            expected=f"sig_dims {sig_dims}",
        )
    if len(shape) == sig_dims:
        raise DataSetException(
            "2D HDF5 files are currently not supported",
            path=path,
            found=where,
            expected=f"one axis more than the {sig_dims} of a frame",
        )
    n_nav = len(shape) - sig_dims
    if prod(shape) > MAX_ELEMENTS or 0 in shape[n_nav:]:
        raise DataSetException("the data set has an impossible shape", path=path, found=where)
    return n_nav


def _dtype_of(dset: Any, path: str) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = dset.dtype
    except TypeError as err:
        raise DataSetException(f"the data set has no numbers: {err}", path=path, found=dset.name) from err
    if not is_pixel_dtype(dtype):
        raise DataSetException(
            "the data set has no numbers",
            path=path,
            found=f"{dset.name} of {dtype}",
            expected="integers, floats, complex numbers or booleans",
        )
    # Without the metadata in which h5py keeps names of enumerations.
    return np.dtype(dtype.str)


class _Place(NamedTuple):
    """Where a data set is, and how it is read."""

    access: Literal["mapped", "chunks", "library"]
    reason: str
    path: str
    offset: int = 0
    """Byte where pixels start if they are in one piece."""
    notice: str = ""


def _layout_of(dset: Any, dtype: np.dtype[Any], n_nav: int, path: str) -> tuple[Layout, _Place]:
    nav_shape, sig_shape = dset.shape[:n_nav], dset.shape[n_nav:]
    plist = dset.id.get_create_plist()
    filters = []
    for k in range(plist.get_nfilters()):
        filter_id, _, values, _ = plist.get_filter(k)
        filters.append(Filter(filter_id, tuple(values)))
    place = _place_of(dset, dtype, plist, tuple(filters), path)
    how = (place.access, place.reason, place.notice)
    return Layout(nav_shape, sig_shape, dset.chunks, tuple(filters), *how), place


def _place_of(dset: Any, dtype: np.dtype[Any], plist: Any, filters: tuple[Filter, ...], path: str) -> _Place:
    h5py = import_h5py()
    own = os.fsdecode(dset.file.filename)
    # Numbers of odd precision and the like are converted by HDF5.
    is_plain = h5py.h5t.py_create(dset.dtype, logical=True) == dset.id.get_type()
    if dset.is_virtual:
        return _Place("library", "it is a virtual data set", own, notice=check_sources(dset, path))
    if plist.get_external_count():
        return _place_of_raw(dset, dtype, plist, own, is_plain=is_plain)
    if dset.file.swmr_mode or dset.file.driver not in ("sec2", "stdio", "windows"):
        return _Place("library", "the file is being written, or has an unusual form", own)
    if not is_plain:
        return _Place("library", "its numbers are stored in an unusual form", own)
    kind = plist.get_layout()
    if kind == h5py.h5d.CONTIGUOUS:
        return _place_of_one_piece(dset, dtype, own)
    if kind != h5py.h5d.CHUNKED:
        return _Place("library", "its pixels are stored in the header", own)
    if not hasattr(dset.id, "chunk_iter"):
        return _Place("library", "this version of HDF5 cannot list chunks", own)
    reason = why_not_decodable(filters) or _why_unusual(dset, filters)
    return _Place("chunks", "", own) if reason is None else _Place("library", reason, own)


def _place_of_one_piece(dset: Any, dtype: np.dtype[Any], own: str) -> _Place:
    offset = dset.id.get_offset()
    if offset is None:
        return _Place("library", "nothing has been written yet", own)
    size = os.path.getsize(own)
    expected = offset + prod(dset.shape) * dtype.itemsize
    if size < expected:
        raise DataSetException(
            "the file is shorter than its data",
            path=own,
            found=f"{size} bytes",
            expected=f"at least {expected} bytes",
        )
    return _Place("mapped", "", own, int(offset))


def _place_of_raw(dset: Any, dtype: np.dtype[Any], plist: Any, own: str, *, is_plain: bool) -> _Place:
    """Pixels in raw files: one of them is read as such, several are left to HDF5 if it finds them."""
    parts = find_raw_files(plist, own, prod(dset.shape) * dtype.itemsize)
    if len(parts) == 1 and is_plain:
        return _Place("mapped", "", parts[0].path, parts[0].offset)
    beside = next((part for part in parts if part.is_beside), None)
    if beside is not None:
        raise DataSetException(
            "HDF5 does not find an external file that is there",
            path=own,
            found=beside.path,
            hint="set the environment variable HDF5_EXTFILE_PREFIX to '${ORIGIN}', before Python starts",
        )
    return _Place("library", "its pixels are in external files", own)


def _why_unusual(dset: Any, filters: tuple[Filter, ...]) -> str | None:
    """What the first chunk tells, and filters do not. One program has written all chunks."""
    if all(f.id != BLOSC2 for f in filters) or not dset.id.get_num_chunks():
        return None
    mask, stored = dset.id.read_direct_chunk(dset.id.get_chunk_info(0).chunk_offset)
    return why_unusual(filters, stored, mask)


def _require_filters(layout: Layout, path: str) -> None:
    available = import_h5py().h5z.filter_avail
    for f in layout.filters:
        if not available(f.id):
            raise DataSetException(
                "a filter is needed to read the data set that is not installed",
                path=path,
                found=f"{filter_name(f.id)} (id {f.id})",
                hint="pip install hdf5plugin, or import the package that brings this filter",
            )
