"""`UDFMeta`: what a UDF can know about the run and the unit that it is processing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.shape import Shape
from libertem.common.slice import Slice
from libertem.io.corrections.corrset import CorrectionSet
from libertem.io.dataset.base.coordinates import get_coordinates
from libertem.io.dataset.base.scheme import TilingScheme

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["UDFMeta"]


class UDFMeta:
    """What a UDF can know about the run and the unit that it is processing: `UDF.meta`."""

    def __init__(
        self,
        dataset_shape: Shape,
        dataset_dtype: npt.DTypeLike,
        input_dtype: npt.DTypeLike,
        roi: npt.NDArray[np.bool_] | None = None,
        corrections: CorrectionSet | None = None,
        tiling_scheme: TilingScheme | None = None,
        partition_slice: Slice | None = None,
        device_class: str = "cpu",
        threads_per_worker: int | None = None,
        array_backend: str | None = None,
        valid_nav_mask: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        self._dataset_shape = dataset_shape
        self._dataset_dtype = np.dtype(dataset_dtype)
        self._input_dtype = np.dtype(input_dtype)
        self._roi = roi
        self._corrections = CorrectionSet() if corrections is None else corrections
        self._tiling_scheme = tiling_scheme
        self._partition_slice = partition_slice
        self._slice = partition_slice
        self._tiling_scheme_idx = 0
        self._device_class = device_class
        self._threads_per_worker = threads_per_worker
        self._array_backend = array_backend
        self._valid_nav_mask = valid_nav_mask
        self._partition_coordinates: npt.NDArray[np.int64] | None = None

    @property
    def slice(self) -> Slice | None:
        """Place of the current unit. The navigation axis is flat and compressed by the ROI."""
        return self._slice

    @slice.setter
    def slice(self, new_slice: Slice | None) -> None:
        self._slice = new_slice

    @property
    def partition_shape(self) -> Shape:
        """Shape of the partition with the ROI applied.

        Raises
        ------
        ValueError
            Outside of a partition.
        """
        if self._partition_slice is None:
            raise ValueError("partition_shape is only known while a partition is processed")
        return self._partition_slice.shape

    @property
    def dataset_shape(self) -> Shape:
        """Shape of the data set; the ROI has no influence."""
        return self._dataset_shape

    @property
    def tiling_scheme(self) -> TilingScheme | None:
        """How the data is cut; None on the main process."""
        return self._tiling_scheme

    @property
    def tiling_scheme_idx(self) -> int:
        """Index of the signal part of the current tile in the tiling scheme."""
        return self._tiling_scheme_idx

    @tiling_scheme_idx.setter
    def tiling_scheme_idx(self, new_idx: int) -> None:
        self._tiling_scheme_idx = new_idx

    @property
    def sig_slice(self) -> Slice:
        """Signal part of the current unit."""
        if self._slice is None:
            raise ValueError("sig_slice is only known while data is processed")
        return self._slice.sig

    @property
    def roi(self) -> npt.NDArray[np.bool_] | None:
        """Mask of navigation shape, or None."""
        return self._roi

    @property
    def dataset_dtype(self) -> np.dtype[Any]:
        """Native dtype of the data set."""
        return self._dataset_dtype

    @property
    def input_dtype(self) -> np.dtype[Any]:
        """Dtype of the data that the UDF receives."""
        return self._input_dtype

    @property
    def corrections(self) -> CorrectionSet:
        """Corrections that were applied to the data."""
        return self._corrections

    @property
    def device_class(self) -> str:
        """``'cpu'`` or ``'cuda'``."""
        return self._device_class

    @property
    def threads_per_worker(self) -> int | None:
        """How many threads the UDF may use; None for no limit."""
        return self._threads_per_worker

    @property
    def array_backend(self) -> str | None:
        """Kind of array that the UDF receives; None on the main process."""
        return self._array_backend

    @property
    def coordinates(self) -> npt.NDArray[np.int64]:
        """Scan positions of the frames of the current unit, int64 ``(frames, nav_dims)``."""
        if self._slice is None or self._partition_slice is None:
            raise ValueError("coordinates are only known while data is processed")
        if self._partition_coordinates is None:
            self._partition_coordinates = get_coordinates(
                self._partition_slice, self._dataset_shape, self._roi
            )
        start = self._slice.origin[0] - self._partition_slice.origin[0]
        return self._partition_coordinates[start : start + self._slice.shape[0]]

    def get_valid_nav_mask(self, full_nav: bool = False) -> npt.NDArray[np.bool_] | None:
        """Which scan positions have been merged; None while processing.

        Parameters
        ----------
        full_nav : bool
            Of the whole flat navigation axis, instead of only the ROI.
        """
        if self._valid_nav_mask is None or not full_nav or self._roi is None:
            return self._valid_nav_mask
        full = np.zeros(self._dataset_shape.nav.size, dtype=bool)
        full[self._roi.reshape(-1)] = self._valid_nav_mask
        return full

    def set_valid_nav_mask(self, mask: npt.NDArray[np.bool_] | None) -> None:
        """Tell the UDF what has been merged."""
        self._valid_nav_mask = mask
