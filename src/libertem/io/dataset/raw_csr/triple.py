"""The three arrays of a CSR matrix with one row per frame: mapped, checked and cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from libertem.exceptions import DataSetException
from libertem.io.dataset.base.backends.rawio import RawFile

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["CSRDescriptor", "CSRTriple", "RowReader", "map_files"]

WRONG_FILE_HINT = "is the file complete, and are dtypes and shapes right in the TOML file?"


class CSRTriple(NamedTuple):
    """A CSR matrix with one row per frame.

    Frame ``j`` has the value ``data[k]`` at pixel ``indices[k]``, for ``indptr[j] <= k < indptr[j + 1]``.
    """

    indptr: npt.NDArray[Any]
    indices: npt.NDArray[Any]
    data: npt.NDArray[Any]


class CSRDescriptor(NamedTuple):
    """Where the three arrays are; dtypes as written in the TOML file."""

    indptr_file: str
    indptr_dtype: str
    indices_file: str
    indices_dtype: str
    data_file: str
    data_dtype: str


def map_files(descriptor: CSRDescriptor, image_count: int, n_values: int) -> CSRTriple:
    """Map the three files into memory, read-only.

    Raises
    ------
    DataSetException
        If a file is shorter than it was when the data set was loaded.
    """
    return CSRTriple(
        _map(descriptor.indptr_file, descriptor.indptr_dtype, image_count + 1),
        _map(descriptor.indices_file, descriptor.indices_dtype, n_values),
        _map(descriptor.data_file, descriptor.data_dtype, n_values),
    )


def _map(path: str, dtype: str, n_entries: int) -> npt.NDArray[Any]:
    n_bytes = n_entries * np.dtype(dtype).itemsize
    with RawFile(path) as file:
        if file.size() < n_bytes:
            raise DataSetException(
                "the file has become shorter",
                path=path,
                found=f"{file.size()} bytes",
                expected=f"at least {n_bytes} bytes for {n_entries} entries",
                hint="was it truncated after the data set was loaded?",
            )
        # An empty file cannot be mapped.
        return file.map()[:n_bytes].view(dtype) if n_bytes else np.empty(0, dtype=dtype)


class RowReader:
    """Cuts frames out of the three arrays, and never hands on a place outside of them.

    Parameters
    ----------
    triple : CSRTriple
        With one row per frame. Never written to.
    sig_px : int
        Pixels per frame.
    descriptor : CSRDescriptor, optional
        The files, to name them in errors.
    """

    def __init__(self, triple: CSRTriple, sig_px: int, descriptor: CSRDescriptor | None = None) -> None:
        self._triple = CSRTriple(*(_read_only(array) for array in triple))
        self._sig_px = sig_px
        self._descriptor = descriptor

    @property
    def image_count(self) -> int:
        """Number of frames."""
        return int(self._triple.indptr.shape[0]) - 1

    def locate(self, images: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """First value, and value after the last one, for each frame.

        Raises
        ------
        DataSetException
            If that is impossible; names the frame and the place in the file.
        """
        indptr = self._triple.indptr
        if images[-1] - images[0] + 1 == images.shape[0]:
            # Values beyond int64 become negative, and are refused.
            edges = indptr[images[0] : images[-1] + 2].astype(np.int64)
            starts, stops = edges[:-1], edges[1:]
        else:
            starts, stops = indptr[images].astype(np.int64), indptr[images + 1].astype(np.int64)
        wrong = (starts < 0) | (stops < starts) | (stops > self._triple.data.shape[0])
        if wrong.any():
            raise self._pointer_error(int(images[int(np.argmax(wrong))]))
        return starts, stops

    def read(self, images: npt.NDArray[np.int64]) -> CSRTriple:
        """Some frames as a CSR matrix of their own, with column indices in native byte order.

        Parameters
        ----------
        images : array of int64
            Numbers of the frames, ascending and not empty.

        Returns
        -------
        CSRTriple
            `indptr` is int64 and starts at 0. The others are views, unless there are frames left out.

        Raises
        ------
        DataSetException
            If a frame has pixels that do not exist; names the frame and the place in the file.
        """
        starts, stops = self.locate(images)
        indptr = np.zeros(images.shape[0] + 1, dtype=np.int64)
        np.cumsum(stops - starts, out=indptr[1:])
        borders = np.flatnonzero(stops[:-1] != starts[1:]) + 1
        lows = starts[np.concatenate([[0], borders])].tolist()
        highs = stops[np.concatenate([borders - 1, [-1]])].tolist()
        runs = [slice(low, high) for low, high in zip(lows, highs, strict=True)]
        indices = _join(self._triple.indices, runs)
        if not indices.dtype.isnative:
            indices = indices.astype(indices.dtype.newbyteorder("="))
        outside = _first_outside(indices, self._sig_px)
        if outside is not None:
            row = int(np.searchsorted(indptr, outside, side="right")) - 1
            place = int(starts[row]) + outside - int(indptr[row])
            raise self._column_error(int(images[row]), place, int(indices[outside]))
        return CSRTriple(indptr, indices, _join(self._triple.data, runs))

    def _pointer_error(self, image: int) -> DataSetException:
        start, stop = (int(value) for value in self._triple.indptr[image : image + 2])
        where = self._descriptor
        return DataSetException(
            f"impossible index pointers of frame {image}",
            path=None if where is None else where.indptr_file,
            found=f"values {start} to {stop} at byte {image * self._triple.indptr.itemsize}",
            expected=f"an ascending range within 0 to {self._triple.data.shape[0]}",
            hint=WRONG_FILE_HINT,
        )

    def _column_error(self, image: int, place: int, column: int) -> DataSetException:
        where = self._descriptor
        return DataSetException(
            f"frame {image} has a pixel outside of the frame",
            path=None if where is None else where.indices_file,
            found=f"column index {column} at byte {place * self._triple.indices.itemsize}",
            expected=f"0 to {self._sig_px - 1}",
            hint=WRONG_FILE_HINT,
        )


def _read_only(array: Any) -> npt.NDArray[Any]:
    view: npt.NDArray[Any] = np.asarray(array).view()
    view.flags.writeable = False
    return view


def _join(array: npt.NDArray[Any], runs: list[slice]) -> npt.NDArray[Any]:
    return array[runs[0]] if len(runs) == 1 else np.concatenate([array[run] for run in runs])


def _first_outside(columns: npt.NDArray[Any], n_px: int) -> int | None:
    """Place of the first column index that is no pixel."""
    if not columns.size:
        return None
    # One pass for both ends: negative numbers look larger than all that the dtype can hold otherwise.
    unsigned = columns.view(columns.dtype.str.replace("i", "u"))
    limit = min(n_px, int(np.iinfo(columns.dtype).max) + 1)
    return None if int(unsigned.max()) < limit else int(np.argmax(unsigned >= limit))
