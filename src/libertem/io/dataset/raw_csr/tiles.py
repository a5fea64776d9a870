"""Tiles from CSR arrays: scipy matrices that share memory with the files where possible."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.arrays import D2_BACKENDS, SCIPY_CSR, for_backend
from libertem.common.math import flat_nonzero, prod
from libertem.common.shape import Shape
from libertem.common.slice import Slice
from libertem.exceptions import DataSetException
from libertem.io.dataset.base.decode import check_conversion
from libertem.io.dataset.base.ranges import contiguous_runs, select_frames
from libertem.io.dataset.base.scheme import TilingScheme
from libertem.io.dataset.base.tile import DataTile
from libertem.io.dataset.raw_csr.triple import CSRTriple, RowReader

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["pixel_ranges", "read_tiles", "read_tiles_straight", "read_tiles_with_roi"]

MAX_INT32 = (1 << 31) - 1


def pixel_ranges(scheme: TilingScheme) -> list[tuple[int, int]]:
    """Half-open range of column indices for each signal slice of a tiling scheme.

    Raises
    ------
    ValueError
        If a slice is no contiguous part of a frame.
    """
    sig_shape = scheme.dataset_shape.sig.to_tuple()
    ranges = []
    for origin, shape in scheme.slices_array.tolist():
        starts, length = contiguous_runs(origin, shape, sig_shape)
        if starts.shape[0] != 1:
            raise ValueError(
                "Cannot slice CSR data in sig dimensions, except into contiguous parts: "
                f"found {tuple(shape)} at {tuple(origin)} of frames {sig_shape}"
            )
        ranges.append((int(starts[0]), int(starts[0]) + length))
    return ranges


def read_tiles(
    reader: RowReader,
    partition_slice: Slice,
    sync_offset: int,
    tiling_scheme: TilingScheme,
    dest_dtype: npt.DTypeLike,
    roi: npt.NDArray[np.bool_] | None = None,
    array_backend: str = SCIPY_CSR,
) -> Iterator[DataTile]:
    """Tiles of the frames that belong to a part of the flat navigation axis.

    Parameters
    ----------
    reader : RowReader
        Of all frames.
    partition_slice : Slice
        Which scan positions.
    sync_offset : int
        Scan position ``i`` shows frame ``i + sync_offset``.
    tiling_scheme : TilingScheme
        How deep tiles are, and how frames are cut: into contiguous parts only.
    dest_dtype : dtype
        Of the tiles.
    roi : array of bool, optional
        One element per scan position of the data set.
    array_backend : str
        Kind of array. All others are made from `csr_matrix`.
    """
    dtype = np.dtype(dest_dtype)
    start = partition_slice.origin[0] + sync_offset
    stop = min(start + partition_slice.shape[0], reader.image_count)
    images, first = select_frames(start, stop, None if roi is None else flat_nonzero(roi), sync_offset)
    ranges = pixel_ranges(tiling_scheme)
    for row in range(0, images.shape[0], tiling_scheme.depth):
        rows = reader.read(images[row : row + tiling_scheme.depth])
        for idx, sig_slice in tiling_scheme.slices:
            tile_slice = Slice(
                origin=(first + row, *sig_slice.origin),
                shape=Shape((rows.indptr.shape[0] - 1, *sig_slice.shape), sig_dims=sig_slice.shape.dims),
            )
            part = rows if len(ranges) == 1 else _select_columns(rows, *ranges[idx])
            data = for_backend(_make_matrix(part, prod(sig_slice.shape), dtype), array_backend)
            if array_backend not in D2_BACKENDS:
                data = data.reshape(tile_slice.shape.to_tuple())
            yield DataTile(data, tile_slice=tile_slice, scheme_idx=idx)


def _select_columns(rows: CSRTriple, low: int, high: int) -> CSRTriple:
    inside = (rows.indices >= low) & (rows.indices < high)
    before = np.concatenate([[0], np.cumsum(inside)])
    return CSRTriple(before[rows.indptr], rows.indices[inside] - low, rows.data[inside])


def _make_matrix(rows: CSRTriple, n_px: int, dtype: np.dtype[Any]) -> Any:
    from scipy.sparse import csr_matrix

    check_conversion(rows.data.dtype, dtype)
    if dtype == np.float16:
        raise DataSetException(
            "sparse matrices cannot hold half precision", found=dtype, expected="float32 or wider"
        )
    matrix = csr_matrix((rows.indptr.shape[0] - 1, n_px))
    # As attributes, because the constructor makes copies of views of larger arrays.
    index_dtype = np.int32 if max(n_px, rows.indices.shape[0]) <= MAX_INT32 else np.int64
    matrix.data = rows.data.astype(dtype, copy=False)
    matrix.indices = rows.indices.astype(index_dtype, copy=False)
    matrix.indptr = rows.indptr.astype(index_dtype, copy=False)
    read_only = not (matrix.data.flags.writeable and matrix.indices.flags.writeable)
    if read_only and not matrix.has_canonical_format:
        # Some functions of scipy first sort such a matrix in place.
        matrix.data, matrix.indices = matrix.data.copy(), matrix.indices.copy()
    return matrix


def read_tiles_straight(
    triple: CSRTriple,
    partition_slice: Slice,
    sync_offset: int,
    tiling_scheme: TilingScheme,
    dest_dtype: npt.DTypeLike,
) -> Iterator[DataTile]:
    """Tiles with all frames of a partition, from arrays in memory; see `read_tiles`."""
    reader = RowReader(triple, prod(tiling_scheme.dataset_shape.sig))
    yield from read_tiles(reader, partition_slice, sync_offset, tiling_scheme, dest_dtype)


def read_tiles_with_roi(
    triple: CSRTriple,
    partition_slice: Slice,
    sync_offset: int,
    tiling_scheme: TilingScheme,
    roi: Any,
    dest_dtype: npt.DTypeLike,
) -> Iterator[DataTile]:
    """Tiles with the selected frames of a partition, from arrays in memory; see `read_tiles`."""
    reader = RowReader(triple, prod(tiling_scheme.dataset_shape.sig))
    yield from read_tiles(reader, partition_slice, sync_offset, tiling_scheme, dest_dtype, roi)
