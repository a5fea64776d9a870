"""What a run returns: results of all UDFs, computed from merged buffers when somebody asks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from libertem.common.buffers import ArrayWithMask, BufferWrapper, PreallocBufferWrapper
from libertem.common.html import never_failing
from libertem.exceptions import UDFException
from libertem.udf.describe import all_results_html, results_html

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.udf.contract import UDF

__all__ = ["UDFResultDict", "UDFResults", "collect_results"]

UDFResultDict: TypeAlias = Mapping[str, BufferWrapper]


class ShownResults(dict[str, BufferWrapper]):
    """The dict of results that a run returns, which notebooks show as a table."""

    def _repr_html_(self) -> str | None:
        return never_failing(lambda: results_html(self))


class ShownRun(tuple[UDFResultDict, ...]):
    """The tuple of results that a run of several UDFs returns, which notebooks show as tables."""

    __slots__ = ()

    def _repr_html_(self) -> str | None:
        return never_failing(lambda: all_results_html(self))


class UDFResults:
    """Results of all UDFs of a run, and how much of the data set they cover.

    Parameters
    ----------
    buffers : iterable of dict
        One per UDF: names with buffers.
    damage : BufferWrapper
        Kind ``'nav'``, bool: which scan positions have been merged. Updated in place during a run.
    """

    def __init__(self, buffers: Any, damage: BufferWrapper) -> None:
        self._buffers = ShownRun(buffers)
        self.damage = damage

    @property
    def buffers(self) -> tuple[UDFResultDict, ...]:
        """One dict per UDF."""
        return self._buffers

    def _repr_html_(self) -> str | None:
        return never_failing(lambda: all_results_html(self.buffers, covered=self.damage.data))


class UDFResultsLazy(UDFResults):
    """Results that are computed when `buffers` is first read."""

    def __init__(self, compute: Callable[[], tuple[UDFResultDict, ...]], damage: BufferWrapper) -> None:
        super().__init__((), damage)
        self._compute: Callable[[], tuple[UDFResultDict, ...]] | None = compute

    @property
    def buffers(self) -> tuple[UDFResultDict, ...]:
        """One dict per UDF."""
        if self._compute is not None:
            self._buffers = ShownRun(self._compute())
            self._compute = None
        return self._buffers


def collect_results(udf: UDF, valid: npt.NDArray[np.bool_], *, copy_needed: bool) -> UDFResultDict:
    """Ask a UDF for its results and wrap them.

    Parameters
    ----------
    udf : UDF
        On the main process, with merged buffers as `results`.
    valid : array of bool
        Which scan positions (of the ROI) have been merged.
    copy_needed : bool
        Detach the results from the buffers, which the run goes on to change.

    Raises
    ------
    UDFException
        If the UDF returns something that it did not declare like that.
    """
    udf.meta.set_valid_nav_mask(valid)
    returned = dict(udf.get_results())
    declared = udf.get_result_buffers()
    for name, buffer in declared.items():
        merged = udf.results.get_buffer(name)
        buffer.set_shape_ds(udf.meta.dataset_shape, udf.meta.roi)
        if name not in returned and buffer.use is None:
            returned[name] = merged.raw_data
    results = ShownResults()
    for name, value in returned.items():
        if name not in declared:
            raise UDFException(f"get_results returned '{name}', which get_result_buffers does not declare")
        results[name] = _wrap(name, value, declared[name], valid, copy_needed=copy_needed)
    return results


def _wrap(
    name: str,
    value: Any,
    declared: BufferWrapper,
    valid: npt.NDArray[np.bool_],
    *,
    copy_needed: bool,
) -> BufferWrapper:
    if declared.use == "private":
        raise UDFException(f"get_results returned '{name}', which is declared with use='private'")
    mask: Any = True
    own_mask = isinstance(value, ArrayWithMask)
    if own_mask:
        value, mask = value.arr, value.mask
    elif declared.kind == "nav":
        mask = valid.copy() if copy_needed else valid
    arr = np.asarray(value)
    if arr.dtype.kind != declared.dtype.kind:
        raise UDFException(
            f"the returned ndarray '{name}' has a different dtype kind ({arr.dtype.kind}) "
            f"than declared ({declared.dtype.kind})"
        )
    if copy_needed:
        arr = copy.deepcopy(arr) if arr.dtype.hasobject else arr.copy()
    nav_shape = _nav_shape(declared)
    if declared._roi is not None and arr.shape == nav_shape + declared.extra_shape != declared.shape:
        # Results for the whole scan are taken as they are, although only a part of it was processed.
        if not own_mask:
            full = np.zeros(nav_shape, dtype=bool)
            full[declared._roi] = mask
            mask = full.reshape(nav_shape + (1,) * len(declared.extra_shape))
        return PreallocBufferWrapper(arr, declared, mask)
    if own_mask:
        mask = mask.reshape(declared.shape)
    return PreallocBufferWrapper(arr.reshape(declared.shape), declared, mask)


def _nav_shape(declared: BufferWrapper) -> tuple[int, ...]:
    ds_shape = declared._ds_shape
    return () if ds_shape is None else ds_shape.nav.to_tuple()
