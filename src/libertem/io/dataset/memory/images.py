"""Arrays as a sequence of images, and the kinds of arrays that they can be delivered as."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.arrays import (
    BACKENDS,
    D2_BACKENDS,
    NUMPY,
    SPARSE_BACKENDS,
    get_backend,
    get_device_class,
    is_sparse,
    to_sparse,
)
from libertem.common.math import prod
from libertem.exceptions import DataSetException
from libertem.io.dataset.base.files import File
from libertem.io.dataset.base.scan import check_shape

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.common.slice import Slice

__all__ = ["MemoryFile", "as_array", "cut_sparse", "preferences"]

NUMPY_PREFERENCES = (
    "numpy",
    "numpy.matrix",
    "cuda",
    "cupy",
    "sparse.COO",
    "scipy.sparse.coo_array",
    "scipy.sparse.coo_matrix",
    "scipy.sparse.csc_matrix",
    "scipy.sparse.csr_matrix",
    "scipy.sparse.csr_array",
    "scipy.sparse.csc_array",
    "sparse.GCXS",
    "sparse.DOK",
    "cupyx.scipy.sparse.csc_matrix",
    "cupyx.scipy.sparse.csr_matrix",
    "cupyx.scipy.sparse.coo_matrix",
)
"""What `preferences` computes for NumPy arrays, so that those need no `sparseconverter`."""


def preferences(native: str) -> tuple[str, ...]:
    """All array backends, those first that are reached from `native` with least loss and effort."""
    if native == NUMPY:
        return NUMPY_PREFERENCES
    from sparseconverter import conversion_cost

    return tuple(sorted(BACKENDS, key=lambda b: (_distance(native, b), conversion_cost(native, b), b)))


def _distance(native: str, other: str) -> int:
    same_density = (other in SPARSE_BACKENDS) == (native in SPARSE_BACKENDS)
    same_device = get_device_class(other) == get_device_class(native)
    return 5 - 2 * (other == native) - 2 * same_density - same_device


def as_array(data: Any, datashape: Any) -> tuple[Any, str]:
    """The array to use, and its backend."""
    if data is None:
        if datashape is None:
            raise DataSetException(
                "MemoryDataSet can be created from either data [np.ndarray], or datashape [tuple | Shape], "
                "both arguments are None"
            )
        return np.zeros(check_shape(datashape, "datashape"), dtype=np.float32), NUMPY
    if isinstance(data, np.ndarray):
        return data, NUMPY
    backend = get_backend(data) if hasattr(data, "shape") else None
    if backend is None:
        return np.asarray(data), NUMPY
    if backend in D2_BACKENDS:
        raise TypeError(f"arrays of kind {backend} cannot hold frames, convert the data to sparse.COO first")
    return data, backend


class MemoryFile(File):
    """Images held in an array.

    Parameters
    ----------
    data : array
        Holds the images in C order; any number of axes. Never written to.
    start_idx, end_idx : int
        Half-open range of image numbers.
    sig_shape : tuple of int
        Shape of one image.
    """

    def __init__(self, data: Any, start_idx: int, end_idx: int, sig_shape: tuple[int, ...]) -> None:
        super().__init__("", start_idx, end_idx, native_dtype=data.dtype, sig_shape=sig_shape)
        shape = (self.num_frames, *sig_shape)
        if isinstance(data, np.ndarray):
            data = np.asarray(data).view()
            data.flags.writeable = False
            if data.flags.c_contiguous:
                data = data.reshape(shape)
        elif is_sparse(data):
            # The one format that frames are cut out of, see below.
            data = to_sparse(data).reshape(shape)
        else:
            data = data.reshape(shape)
        self._data = data

    @property
    def flat(self) -> npt.NDArray[Any] | None:
        """All pixels as a read-only 1D view; None if memory is not laid out like that."""
        if isinstance(self._data, np.ndarray) and self._data.flags.c_contiguous:
            return self._data.reshape(-1)
        return None

    def take(self, images: npt.NDArray[np.int64]) -> Any:
        """Array ``(n, *sig)`` with these images; a view if they follow each other in memory."""
        rows = images - self.start_idx
        if is_sparse(self._data):
            return _take_sparse(self._data, rows)
        if self._data.shape == (self.num_frames, *self.sig_shape):
            first, last = int(rows[0]), int(rows[-1])
            if last - first + 1 == rows.shape[0]:
                return self._data[first : last + 1]
            return self._data[rows]
        outer = self._data.shape[: self._data.ndim - len(self.sig_shape)]
        if outer and self._data.shape == (*outer, *self.sig_shape):
            return self._data[np.unravel_index(rows, outer)]
        px = prod(self.sig_shape)
        frames = [self._data.flat[row * px : (row + 1) * px] for row in rows.tolist()]
        return np.stack(frames).reshape(-1, *self.sig_shape)

    def crop(self, start: int, stop: int) -> MemoryFile:
        """The same with only the images ``[start, stop)``."""
        return MemoryFile(self.take(np.arange(start, stop)), start, stop, self.sig_shape)


# Indexing and converting arrays of `sparse` compiles functions for seconds, in each process. These do not.


def _take_sparse(images: Any, rows: npt.NDArray[np.int64]) -> Any:
    """Rows of a `sparse.COO`, whose coordinates are sorted."""
    import sparse

    starts = np.searchsorted(images.coords[0], rows, side="left")
    counts = np.searchsorted(images.coords[0], rows, side="right") - starts
    ends = np.cumsum(counts)
    picked = np.repeat(starts - (ends - counts), counts) + np.arange(counts.sum())
    coords = images.coords[:, picked]
    coords[0] = np.repeat(np.arange(rows.shape[0]), counts)
    return sparse.COO(
        coords,
        images.data[picked],
        shape=(rows.shape[0], *images.shape[1:]),
        has_duplicates=False,
        sorted=True,
        fill_value=images.fill_value,
    )


def cut_sparse(frames: Any, where: Slice, dtype: np.dtype[Any]) -> Any:
    """The signal part of `where` from frames in a `sparse.COO`, in another dtype."""
    import sparse

    sig = where.sig
    low = np.array(sig.origin)[:, np.newaxis]
    coords = frames.coords[1:]
    inside = ((coords >= low) & (coords < low + np.array(sig.shape)[:, np.newaxis])).all(axis=0)
    return sparse.COO(
        np.concatenate([frames.coords[:1, inside], coords[:, inside] - low]),
        frames.data[inside].astype(dtype),
        shape=where.shape.to_tuple(),
        has_duplicates=False,
        sorted=True,
        fill_value=np.asarray(frames.fill_value).astype(dtype)[()],
    )
