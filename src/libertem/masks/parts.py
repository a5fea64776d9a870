"""Stacks of masks: how they are put together, and how parts are cut from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from libertem.common.arrays import (
    CUPY,
    CUPY_SCIPY_CSC,
    CUPY_SCIPY_CSR,
    for_backend,
    is_sparse,
    result_type,
    to_dense,
    to_sparse,
)
from libertem.common.math import prod

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["CUPY_FORMS", "FORMS", "Region", "Request", "SparseForm", "build_stack", "render"]

SparseForm = Literal[
    "scipy.sparse", "scipy.sparse.csr", "scipy.sparse.csc", "sparse.pydata", "sparse.pydata.GCXS"
]
FORMS = ("scipy.sparse", "scipy.sparse.csr", "scipy.sparse.csc", "sparse.pydata", "sparse.pydata.GCXS")
CUPY_FORMS = {
    "scipy.sparse": CUPY_SCIPY_CSR,
    "scipy.sparse.csr": CUPY_SCIPY_CSR,
    "scipy.sparse.csc": CUPY_SCIPY_CSC,
}


class Region(NamedTuple):
    """Part of the signal."""

    origin: tuple[int, ...]
    extents: tuple[int, ...]

    @property
    def n_pixels(self) -> int:
        """Number of pixels."""
        return prod(self.extents)


class Request(NamedTuple):
    """What a slice of masks shall look like; serves as a cache key."""

    region: Region
    dtype: np.dtype[Any]
    form: SparseForm | Literal[False]
    transpose: bool
    on_gpu: bool
    """Whether the result is to be an array of CuPy."""


def _as_coo(mask: Any) -> Any:
    coo = to_sparse(mask)
    # Only what differs from 0 may be left out of the products.
    return coo if coo.fill_value == 0 else to_sparse(to_dense(coo))


def build_stack(raw: Any, as_sparse: bool | None) -> Any:
    """A stack in one array, from what the factories returned; sparse if all parts are, by default."""
    if hasattr(raw, "shape"):
        if as_sparse is None:
            as_sparse = is_sparse(raw)
        stack = _as_coo(raw) if as_sparse else to_dense(raw)
    else:
        masks = list(raw)
        shapes = {np.shape(mask) for mask in masks}
        if len(shapes) != 1:
            raise ValueError(f"masks have to share one shape, found {sorted(shapes)}")
        if as_sparse is None:
            as_sparse = all(is_sparse(mask) for mask in masks)
        if as_sparse:
            import sparse

            stack = sparse.stack([_as_coo(mask) for mask in masks])
        else:
            stack = np.stack([to_dense(mask) for mask in masks])
    if stack.ndim < 2:
        raise ValueError(f"a stack of masks needs the shape (n,) + sig_shape, found {stack.shape}")
    native = stack.dtype.newbyteorder("=")
    return stack if stack.dtype == native else stack.astype(native)


class _Entries(NamedTuple):
    """The elements of a 2D array that are not 0, each at most once."""

    rows: npt.NDArray[Any]
    cols: npt.NDArray[Any]
    data: npt.NDArray[Any]
    shape: tuple[int, int]

    def transposed(self) -> _Entries:
        return _Entries(self.cols, self.rows, self.data, self.shape[::-1])

    def to_dense(self) -> npt.NDArray[Any]:
        result = np.zeros(self.shape, dtype=self.data.dtype)
        result[self.rows, self.cols] = self.data
        return result

    def to_form(self, form: SparseForm) -> Any:
        if form.startswith("scipy"):
            import scipy.sparse

            coo = scipy.sparse.coo_matrix((self.data, (self.rows, self.cols)), shape=self.shape)
            result = coo.tocsc() if form == "scipy.sparse.csc" else coo.tocsr()
            result.sum_duplicates()  # sorts the indices: canonical format
            return result
        import sparse

        coo = sparse.COO(np.stack([self.rows, self.cols]), self.data, shape=self.shape)
        return sparse.GCXS.from_coo(coo) if form == "sparse.pydata.GCXS" else coo


def _cut_dense(stack: npt.NDArray[Any], region: Region) -> npt.NDArray[Any]:
    index = tuple(slice(o, o + e) for o, e in zip(region.origin, region.extents, strict=True))
    return np.ascontiguousarray(stack[(slice(None), *index)].reshape((len(stack), region.n_pixels)))


def _cut_entries(stack: Any, region: Region) -> _Entries:
    """The entries of a dense or sparse stack inside the region, with flat pixel numbers."""
    shape = (stack.shape[0], region.n_pixels)
    if isinstance(stack, np.ndarray):
        flat = _cut_dense(stack, region)
        rows, cols = np.nonzero(flat)
        return _Entries(rows, cols, flat[rows, cols], shape)
    # By hand: sparse compiles its indexing for seconds.
    pixel = np.zeros(stack.nnz, dtype=np.int64)
    inside = np.ones(stack.nnz, dtype=np.bool_)
    for coord, origin, extent in zip(stack.coords[1:], region.origin, region.extents, strict=True):
        shifted = coord.astype(np.int64) - origin
        inside &= (shifted >= 0) & (shifted < extent)
        pixel = pixel * extent + shifted
    return _Entries(stack.coords[0][inside], pixel[inside], stack.data[inside], shape)


def render(stack: Any, request: Request) -> Any:
    """Cut, convert and transpose a stack."""
    form, dtype = request.form, request.dtype
    if form is False:
        if isinstance(stack, np.ndarray):
            dense = _cut_dense(stack, request.region)
        else:
            dense = _cut_entries(stack, request.region).to_dense()
        dense = dense.astype(dtype, copy=False)
        result: Any = dense.T if request.transpose else dense
        return for_backend(result, CUPY) if request.on_gpu else result
    if request.on_gpu:
        dtype = result_type(dtype, backends=(CUPY_FORMS[form],))
    entries = _cut_entries(stack, request.region)
    entries = entries._replace(data=entries.data.astype(dtype))
    result = (entries.transposed() if request.transpose else entries).to_form(form)
    return for_backend(result, CUPY_FORMS[form]) if request.on_gpu else result
