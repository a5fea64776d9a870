"""Result buffers and auxiliary data of UDFs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np

from libertem.common.arrays import NUMPY, for_backend, to_dense
from libertem.common.html import PICTURE_PX, beside, box, facts, look, never_failing, product
from libertem.common.math import prod
from libertem.common.shape import Shape
from libertem.common.slice import Slice
from libertem.exceptions import InvalidMaskError

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "ArrayWithMask",
    "AuxBufferWrapper",
    "BufferKind",
    "BufferUse",
    "BufferWrapper",
    "InvalidMaskError",
    "PreallocBufferWrapper",
    "get_bbox",
    "get_bbox_slice",
    "get_inner_slice",
    "reshaped_view",
    "to_numpy",
]

BufferKind: TypeAlias = Literal["nav", "sig", "single"]
BufferUse: TypeAlias = Literal["private", "result_only"] | None

_KINDS = ("nav", "sig", "single")


def to_numpy(arr: Any) -> npt.NDArray[Any]:
    """`arr` as a NumPy array, copied from a GPU if necessary."""
    return arr if isinstance(arr, np.ndarray) else np.asarray(for_backend(arr, NUMPY))


def reshaped_view(a: npt.NDArray[Any], shape: Sequence[int]) -> npt.NDArray[Any]:
    """View of `a` with another shape; never a copy.

    Raises
    ------
    AttributeError
        If the shape cannot be had without copying.
    """
    view = a.view()
    view.shape = tuple(shape)
    return view


def get_inner_slice(mask: npt.NDArray[np.bool_], axis: int = 0) -> tuple[slice, ...]:
    """Along `axis` the first contiguous run where the mask is True on all other axes; others in full."""
    others = tuple(i for i in range(mask.ndim) if i != axis)
    full = np.all(mask, axis=others) if others else mask
    index = [slice(None)] * mask.ndim
    hits = np.flatnonzero(full)
    if hits.size == 0:
        index[axis] = slice(0, 0)
        return tuple(index)
    start = int(hits[0])
    gaps = np.flatnonzero(~full[start:])
    stop = start + int(gaps[0]) if gaps.size else full.shape[0]
    index[axis] = slice(start, stop)
    return tuple(index)


def get_bbox(mask: npt.NDArray[np.bool_]) -> tuple[tuple[int, int], ...]:
    """``(first, last)`` index of True elements per axis, both included; empty tuple if there is none."""
    if not mask.any():
        return ()
    return tuple((int(indices.min()), int(indices.max())) for indices in np.nonzero(mask))


def get_bbox_slice(mask: npt.NDArray[np.bool_]) -> tuple[slice, ...]:
    """Slices that bound all True elements; empty ones if there is none."""
    bbox = get_bbox(mask)
    if not bbox:
        return (slice(0, 0),) * mask.ndim
    return tuple(slice(lo, hi + 1) for lo, hi in bbox)


class ArrayWithMask(NamedTuple):
    """A result together with the mask of its valid elements; see `UDF.with_mask`."""

    arr: npt.NDArray[Any]
    mask: npt.NDArray[np.bool_]

    @classmethod
    def make(cls, data: Any, mask: Any) -> ArrayWithMask:
        """Check that `mask` is boolean and broadcasts to the shape of `data`.

        Raises
        ------
        InvalidMaskError
            If it does not.
        """
        arr = np.asarray(data)
        mask_arr = np.asarray(mask)
        if mask_arr.dtype != np.dtype(bool):
            raise InvalidMaskError(f"the mask has to be of dtype bool, found {mask_arr.dtype}")
        try:
            full = np.broadcast_to(mask_arr, arr.shape)
        except ValueError as err:
            raise InvalidMaskError(
                f"the mask of shape {mask_arr.shape} does not broadcast to the data of shape {arr.shape}"
            ) from err
        return cls(arr, full)


def _fill_value(dtype: np.dtype[Any]) -> Any:
    """What stands at scan positions outside of the ROI."""
    if dtype.kind == "c":
        # Both parts: otherwise the imaginary part would look like a result.
        return complex(np.nan, np.nan)
    if dtype.kind == "f":
        return np.nan
    if dtype.kind in "mM":
        return np.array("NaT", dtype=dtype)
    return None if dtype.kind == "O" else np.zeros((), dtype=dtype)


class BufferWrapper:
    """A result buffer of a UDF: its declaration, and later its content.

    Parameters
    ----------
    kind : {'nav', 'sig', 'single'}
        One value per scan position, one per detector pixel, or neither.
    extra_shape : tuple of int or Shape
        Additional axes at the end.
    dtype : dtype
        Of the content.
    where : 'device', optional
        On workers an array of `UDF.xp` instead of NumPy.
    use : {'private', 'result_only'}, optional
        Not part of the result; or only part of the result and supplied by `UDF.get_results`.
    """

    def __init__(
        self,
        kind: BufferKind,
        extra_shape: Sequence[int] | Shape = (),
        dtype: npt.DTypeLike = "float32",
        where: Literal["device"] | None = None,
        use: BufferUse = None,
    ) -> None:
        if kind not in _KINDS:
            raise ValueError(f"unknown kind: {kind}, expected one of {', '.join(_KINDS)}")
        self._kind: BufferKind = kind
        self._extra_shape = tuple(extra_shape)
        self._dtype = np.dtype(dtype)
        self._where = where
        self._use: BufferUse = use
        self._ds_shape: Shape | None = None
        self._roi: npt.NDArray[np.bool_] | None = None
        self._shape: tuple[int, ...] | None = None
        # Of another library on workers with a GPU.
        self._data: Any = None
        self._valid: Any = True
        self._tile_views: dict[Any, npt.NDArray[Any]] = {}

    # --- declaration ---

    @property
    def kind(self) -> BufferKind:
        """``'nav'``, ``'sig'`` or ``'single'``."""
        return self._kind

    @property
    def extra_shape(self) -> tuple[int, ...]:
        """Additional axes."""
        return self._extra_shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Declared dtype."""
        return self._dtype

    @property
    def where(self) -> Literal["device"] | None:
        """``'device'`` or None."""
        return self._where

    @property
    def use(self) -> BufferUse:
        """``'private'``, ``'result_only'`` or None."""
        return self._use

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of `raw_data`."""
        if self._shape is None:
            raise RuntimeError("the shape of the buffer is not known before a run")
        return self._shape

    # --- set-up by the library ---

    def set_shape_ds(self, ds_shape: Shape, roi: npt.NDArray[np.bool_] | None = None) -> None:
        """Take the shape for a whole data set."""
        n = ds_shape.nav.size if roi is None else int(np.count_nonzero(roi))
        self._ds_shape = ds_shape
        self._roi = None if roi is None else roi.reshape(ds_shape.nav.to_tuple())
        self._set_shape(n, ds_shape.sig.to_tuple())

    def set_shape_partition(self, partition_shape: Shape) -> None:
        """Take the shape for a partition, given with the ROI applied."""
        self._set_shape(partition_shape[0], partition_shape.sig.to_tuple())

    def _set_shape(self, n_frames: int, sig_shape: tuple[int, ...]) -> None:
        if self._kind == "nav":
            self._shape = (n_frames, *self._extra_shape)
        elif self._kind == "sig":
            self._shape = sig_shape + self._extra_shape
        else:
            self._shape = self._extra_shape or (1,)

    def allocate(self, lib: Any = None) -> None:
        """Zeros of the shape set before, in NumPy or, for ``where='device'``, in `lib`."""
        xp = lib if lib is not None and self._where == "device" else np
        self._data = xp.zeros(self.shape, dtype=self._dtype)

    def set_data(self, data: Any, valid: Any = True) -> None:
        """Take content of the raw shape, and the mask of what is valid in it."""
        self._data = data
        self._valid = valid

    # --- content ---

    @property
    def raw_data(self) -> npt.NDArray[Any]:
        """Content with a flat navigation axis that holds only the ROI."""
        data: npt.NDArray[Any] = self._data
        return data

    @property
    def data(self) -> npt.NDArray[Any]:
        """Content in the shape of the data set; NaN, 0, False, '' or None outside of the ROI."""
        return self._unfold(self._data, None)

    def _unfold(self, raw: Any, fill: Any) -> npt.NDArray[Any]:
        if self._kind != "nav" or self._ds_shape is None or raw is None:
            unchanged: npt.NDArray[Any] = raw
            return unchanged
        full_shape = self._ds_shape.nav.to_tuple() + self._extra_shape
        if self._roi is None or raw.shape == full_shape:
            return np.reshape(raw, full_shape)
        fill = _fill_value(raw.dtype) if fill is None else fill
        full = np.full(full_shape, fill, dtype=raw.dtype)
        full[self._roi] = np.reshape(raw, self.shape)
        return full

    @property
    def _raw_valid(self) -> npt.NDArray[np.bool_]:
        shape = self._data.shape
        valid = np.asarray(self._valid)
        if self._kind == "nav" and valid.ndim == 1 and valid.shape[0] == shape[0] and len(shape) > 1:
            valid = valid.reshape((-1,) + (1,) * (len(shape) - 1))
        return np.broadcast_to(valid, shape)

    @property
    def valid_mask(self) -> npt.NDArray[np.bool_]:
        """Which elements of `data` come from processed frames."""
        return self._unfold(self._raw_valid, False)

    @property
    def masked_data(self) -> np.ma.MaskedArray[Any, Any]:
        """`data` with everything masked that is not valid."""
        return np.ma.array(self.data, mask=~self.valid_mask)

    @property
    def raw_masked_data(self) -> np.ma.MaskedArray[Any, Any]:
        """`raw_data` with everything masked that is not valid."""
        return np.ma.array(self.raw_data, mask=~self._raw_valid)

    @property
    def valid_slice_bounding(self) -> tuple[slice, ...]:
        """Slices that bound all valid elements of `data`."""
        return get_bbox_slice(self.valid_mask)

    def get_valid_slice_inner(self, axis: int = 0) -> tuple[slice, ...]:
        """First run along `axis` in which everything is valid; other axes in full."""
        return get_inner_slice(self.valid_mask, axis=axis)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy:
            return np.array(self.data, dtype=dtype)
        return np.asarray(self.data, dtype=dtype)

    # --- views for the UDF ---

    def view_for_frames(self, start: int, stop: int) -> Any:
        """Content for some frames, counted from the start of the buffer; all of it for other kinds."""
        return self._data[start:stop] if self._kind == "nav" else self._data

    def view_for_frame(self, idx: int) -> Any:
        """Content for one frame: without the leading axis if there is an extra shape."""
        if self._kind != "nav":
            return self._data
        return self._data[idx] if self._extra_shape else self._data[idx : idx + 1]

    def view_for_tile(self, start: int, sig_slice: Slice, n_frames: int) -> Any:
        """Content for a tile. Views of kind 'sig' are contiguous; call `flush` after the last tile."""
        if self._kind != "sig":
            return self.view_for_frames(start, start + n_frames)
        view = sig_slice.get(self._data)
        if getattr(view.flags, "c_contiguous", True):
            return view
        if sig_slice not in self._tile_views:
            self._tile_views[sig_slice] = view.copy()
        return self._tile_views[sig_slice]

    def flush(self) -> None:
        """Write contiguous copies of tile views back into the buffer."""
        for sig_slice, copy in self._tile_views.items():
            sig_slice.get(self._data)[...] = copy
        self._tile_views.clear()

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} kind={self._kind} dtype={self._dtype} extra_shape={self._extra_shape}>"
        )

    def _repr_html_(self) -> str | None:
        return never_failing(self._html)

    def _html(self) -> str:
        if self._data is None:
            return box(type(self).__name__, facts([("kind", self._kind), ("dtype", self._dtype)]))
        data = np.asarray(self.data)
        rows = [
            ("kind", self._kind),
            ("shape", product(data.shape)),
            ("dtype", self._dtype),
            ("valid", f"{100 * float(np.mean(self.valid_mask)):.4g} %"),
        ]
        shown = look(data, self.valid_mask, alt=type(self).__name__, size_px=PICTURE_PX)
        return box("Result", beside(shown, facts(rows)) if shown else facts(rows), remark="use .data")


class PreallocBufferWrapper(BufferWrapper):
    """A result whose content was supplied rather than accumulated.

    Parameters
    ----------
    data : array
        Raw content, or for 'nav' the content in the shape of the data set.
    declared : BufferWrapper
        The declaration, with its shape set.
    valid : array of bool or bool
        Which elements of `data` are valid.
    """

    def __init__(self, data: npt.NDArray[Any], declared: BufferWrapper, valid: Any = True) -> None:
        super().__init__(
            kind=declared.kind,
            extra_shape=declared.extra_shape,
            dtype=declared.dtype,
            where=declared.where,
            use=declared.use,
        )
        self._ds_shape = declared._ds_shape
        self._roi = declared._roi
        self._shape = declared.shape
        self._data = data
        self._valid = valid

    def __repr__(self) -> str:
        return super().__repr__().replace(type(self).__name__, "BufferWrapper", 1)


class AuxBufferWrapper:
    """Data that a UDF gets beside the frames, cut like them. Made by `UDF.aux_data`.

    Parameters
    ----------
    kind : {'nav', 'sig', 'single'}
        How to cut.
    extra_shape : tuple of int
        Additional axes.
    dtype : dtype
        Of the data.
    """

    def __init__(
        self, kind: BufferKind, extra_shape: Sequence[int] = (), dtype: npt.DTypeLike = "float32"
    ) -> None:
        if kind not in _KINDS:
            raise ValueError(f"unknown kind: {kind}, expected one of {', '.join(_KINDS)}")
        self._kind: BufferKind = kind
        self._extra_shape = tuple(extra_shape)
        self._dtype = np.dtype(dtype)
        self._data: npt.NDArray[Any] = np.zeros((0, *self._extra_shape), dtype=self._dtype)

    @property
    def kind(self) -> BufferKind:
        """``'nav'``, ``'sig'`` or ``'single'``."""
        return self._kind

    @property
    def extra_shape(self) -> tuple[int, ...]:
        """Additional axes."""
        return self._extra_shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the data."""
        return self._dtype

    @property
    def raw_data(self) -> npt.NDArray[Any]:
        """The data with a flat navigation axis."""
        return self._data

    def set_buffer(self, data: Any) -> None:
        """Take the data, in any shape with the right number of elements."""
        arr = to_dense(data)
        assert arr.dtype == self._dtype, f"found {arr.dtype}, declared {self._dtype}"
        if self._kind == "nav":
            per_frame = prod(self._extra_shape)
            if per_frame and arr.size % per_frame:
                raise ValueError(
                    f"auxiliary data of shape {arr.shape} does not consist of pieces of {self._extra_shape}"
                )
            arr = arr.reshape((-1, *self._extra_shape))
        self._data = arr

    def select(self, frames: npt.NDArray[np.int64] | slice | None) -> AuxBufferWrapper:
        """The same for some scan positions only (flat indices); None for all."""
        if frames is None or self._kind != "nav":
            return self
        part = AuxBufferWrapper(self._kind, self._extra_shape, self._dtype)
        part._data = self._data[frames]
        return part

    def view_for_frames(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Data for some frames."""
        return self._data[start:stop] if self._kind == "nav" else self._data

    def view_for_frame(self, idx: int) -> npt.NDArray[Any]:
        """Data for one frame: without the leading axis if there is an extra shape."""
        if self._kind != "nav":
            return self._data
        return self._data[idx] if self._extra_shape else self._data[idx : idx + 1]

    def view_for_tile(self, start: int, sig_slice: Slice, n_frames: int) -> npt.NDArray[Any]:
        """Data for a tile."""
        if self._kind == "sig":
            view: npt.NDArray[Any] = sig_slice.get(self._data)
            return view
        return self.view_for_frames(start, start + n_frames)

    def flush(self) -> None:
        """Nothing to write back."""

    def __repr__(self) -> str:
        return f"<AuxBufferWrapper kind={self._kind} dtype={self._dtype} extra_shape={self._extra_shape}>"
