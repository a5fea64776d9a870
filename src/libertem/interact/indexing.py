"""Parts of a data set as arrays: ``ds[10, 20]``, ``ds[..., 3:7]``, ``np.asarray(ds)``."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.interact.crop import dtype_of, read_frames
from libertem.interact.memory import check_fits

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.common.shape import Shape
    from libertem.io.dataset.base.dataset import DataSet

__all__ = ["Selection", "as_array", "get", "parse_key"]

ALLOWED = "integers, slices, Ellipsis, or an array of bool of navigation shape"


@dataclass(frozen=True)
class Selection:
    """What an index expression selects, in the order in which it is read."""

    roi: npt.NDArray[np.bool_] | None
    """Of navigation shape; None for all frames."""
    nav_shape: tuple[int, ...]
    """Selected positions along each navigation axis; a single number for a mask."""
    crop: tuple[range, ...]
    """Selected pixels along each signal axis, ascending."""
    finish: tuple[Any, ...]
    """Index that drops axes and turns them round, for an array of `nav_shape` and the lengths of `crop`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what is read; also of the result, but for dropped axes."""
        return (*self.nav_shape, *(len(r) for r in self.crop))


def get(ctx: Any, dataset: DataSet, key: Any) -> npt.NDArray[Any]:
    """Read a part of a data set, see `libertem.io.dataset.base.interactive.UsableDirectly.__getitem__`."""
    selection = parse_key(key, dataset.shape)
    check_fits(
        math.prod(selection.shape) * dtype_of(dataset).itemsize,
        f"a part of shape {selection.shape}",
        "read fewer frames or a part of each; reduce with a UDF and a roi; use save() to convert, "
        "or to_dask() for a lazy array",
    )
    pixels = read_frames(ctx, dataset, selection.roi, selection.crop)
    part: npt.NDArray[Any] = pixels.reshape(selection.shape)[selection.finish]
    return part


def as_array(ctx: Any, dataset: DataSet, dtype: npt.DTypeLike | None) -> npt.NDArray[Any]:
    """All of a data set; converted like `numpy.ndarray.astype` if a dtype is given."""
    everything = get(ctx, dataset, ...)
    if dtype is None or np.dtype(dtype) == everything.dtype:
        return everything
    check_fits(
        everything.size * np.dtype(dtype).itemsize,
        f"the data set as {np.dtype(dtype)}",
        "use the native dtype, or to_dask() for a lazy array",
    )
    return everything.astype(dtype)


def parse_key(key: Any, shape: Shape) -> Selection:
    """Understand an index expression.

    Parameters
    ----------
    key : int, slice, Ellipsis, array of bool, or a tuple of these
        As NumPy takes it.
    shape : Shape
        Of the data set.

    Raises
    ------
    IndexError
        If there are too many indices, one is out of range, or a mask has another shape.
    TypeError
        If something else was given.
    """
    given = key if isinstance(key, tuple) else (key,)
    items = _fill_up(given, shape)
    n_nav = shape.nav_dims
    if isinstance(items[0], np.ndarray):
        roi: npt.NDArray[np.bool_] | None = items[0]
        nav_shape: tuple[int, ...] = (int(np.count_nonzero(items[0])),)
        finish: list[Any] = [slice(None)]
        sig_items = items[1:]
    else:
        nav = [_parse_item(item, axis, shape) for axis, item in enumerate(items[:n_nav])]
        roi = _make_roi([r for r, _ in nav], shape.nav.to_tuple())
        nav_shape = tuple(len(r) for r, _ in nav)
        finish = [last for _, last in nav]
        sig_items = items[n_nav:]
    sig = [_parse_item(item, axis, shape) for axis, item in enumerate(sig_items, n_nav)]
    finish += [last for _, last in sig]
    if any(item is Ellipsis for item in given):
        # With it, NumPy makes an array of a single element rather than a number.
        finish.append(Ellipsis)
    return Selection(roi, nav_shape, tuple(r for r, _ in sig), tuple(finish))


def _fill_up(items: tuple[Any, ...], shape: Shape) -> list[Any]:
    """One item per axis, but one for all navigation axes if it is a mask."""
    items = tuple(_checked(item) for item in items)
    masks = [item for item in items if isinstance(item, np.ndarray)]
    n_ellipsis = sum(item is Ellipsis for item in items)
    if len(masks) > 1 or n_ellipsis > 1:
        name = "Ellipsis ('...')" if n_ellipsis > 1 else "array of bool"
        raise IndexError(f"an index can only have a single {name}, found {max(n_ellipsis, len(masks))}")
    n_given = sum(item.ndim if isinstance(item, np.ndarray) else 1 for item in items) - n_ellipsis
    if n_given > shape.dims:
        raise IndexError(f"too many indices: found {n_given}, but the shape {shape} has {shape.dims} axes")
    where = next((i for i, item in enumerate(items) if item is Ellipsis), len(items))
    rest = [slice(None)] * (shape.dims - n_given)
    filled = [*items[:where], *rest, *items[where + 1 :]]
    for i, item in enumerate(filled):
        if isinstance(item, np.ndarray) and (i != 0 or item.shape != shape.nav.to_tuple()):
            raise IndexError(
                f"an array of bool selects scan positions: found one of shape {item.shape} for axis {i}, "
                f"expected shape {shape.nav} as the first index"
            )
    return filled


def _checked(item: Any) -> Any:
    """An item of a known kind, with integers as Python ones."""
    if item is Ellipsis or isinstance(item, slice):
        return item
    if isinstance(item, np.ndarray) and item.dtype == np.dtype(bool) and item.ndim:
        return item
    is_bool = isinstance(item, bool | np.bool_) or getattr(item, "dtype", None) == np.dtype(bool)
    if not is_bool and not isinstance(item, list | tuple):
        try:
            return operator.index(item)
        except TypeError:
            pass
    found = f"an array of {item.dtype}" if isinstance(item, np.ndarray) else repr(item)
    raise TypeError(
        f"data sets take {ALLOWED} as index: found {found} (for some scan positions, use such an array)"
    )


def _parse_item(item: Any, axis: int, shape: Shape) -> tuple[range, int | slice]:
    """What to read along an axis, ascending, and how to index the result."""
    extent = shape[axis]
    if isinstance(item, slice):
        wanted = range(*item.indices(extent))
        # Ranges are read in order, and have a step that says something.
        if len(wanted) < 2:
            return range(wanted.start, wanted.start + len(wanted)), slice(None)
        return (wanted, slice(None)) if wanted.step > 0 else (wanted[::-1], slice(None, None, -1))
    if not -extent <= item < extent:
        raise IndexError(f"index {item} is out of range: axis {axis} of {shape} has {extent} elements")
    position = item % extent
    return range(position, position + 1), 0


def _make_roi(wanted: list[range], nav_shape: tuple[int, ...]) -> npt.NDArray[np.bool_] | None:
    """Mask of a grid of scan positions; None if these are all."""
    if all(len(r) == extent for r, extent in zip(wanted, nav_shape, strict=True)):
        return None
    roi = np.zeros(nav_shape, dtype=bool)
    roi[tuple(slice(r.start, r.stop, r.step) for r in wanted)] = True
    return roi
