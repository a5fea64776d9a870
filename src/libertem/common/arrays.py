"""Names of array backends, and conversions that load `sparseconverter` only when they are needed.

The constants repeat those of the public package `sparseconverter`, whose import takes half a second;
a test compares them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "BACKENDS",
    "CPU_BACKENDS",
    "CUDA",
    "CUDA_BACKENDS",
    "CUPY",
    "CUPY_BACKENDS",
    "CUPY_SCIPY_COO",
    "CUPY_SCIPY_CSC",
    "CUPY_SCIPY_CSR",
    "D2_BACKENDS",
    "DENSE_BACKENDS",
    "ND_BACKENDS",
    "NUMPY",
    "NUMPY_MATRIX",
    "SCIPY_COO",
    "SCIPY_COO_ARRAY",
    "SCIPY_CSC",
    "SCIPY_CSC_ARRAY",
    "SCIPY_CSR",
    "SCIPY_CSR_ARRAY",
    "SPARSE_BACKENDS",
    "SPARSE_COO",
    "SPARSE_DOK",
    "SPARSE_GCXS",
    "ArrayBackend",
    "for_backend",
    "get_backend",
    "get_device_class",
    "is_sparse",
    "make_like",
    "result_type",
    "sparse_to_coo",
    "to_dense",
    "to_sparse",
]

ArrayBackend = Literal[
    "numpy",
    "numpy.matrix",
    "cuda",
    "cupy",
    "sparse.COO",
    "sparse.GCXS",
    "sparse.DOK",
    "scipy.sparse.coo_matrix",
    "scipy.sparse.csr_matrix",
    "scipy.sparse.csc_matrix",
    "scipy.sparse.coo_array",
    "scipy.sparse.csr_array",
    "scipy.sparse.csc_array",
    "cupyx.scipy.sparse.coo_matrix",
    "cupyx.scipy.sparse.csr_matrix",
    "cupyx.scipy.sparse.csc_matrix",
]

NUMPY: Literal["numpy"] = "numpy"
NUMPY_MATRIX: Literal["numpy.matrix"] = "numpy.matrix"
CUDA: Literal["cuda"] = "cuda"
CUPY: Literal["cupy"] = "cupy"
SPARSE_COO: Literal["sparse.COO"] = "sparse.COO"
SPARSE_GCXS: Literal["sparse.GCXS"] = "sparse.GCXS"
SPARSE_DOK: Literal["sparse.DOK"] = "sparse.DOK"
SCIPY_COO: Literal["scipy.sparse.coo_matrix"] = "scipy.sparse.coo_matrix"
SCIPY_CSR: Literal["scipy.sparse.csr_matrix"] = "scipy.sparse.csr_matrix"
SCIPY_CSC: Literal["scipy.sparse.csc_matrix"] = "scipy.sparse.csc_matrix"
SCIPY_COO_ARRAY: Literal["scipy.sparse.coo_array"] = "scipy.sparse.coo_array"
SCIPY_CSR_ARRAY: Literal["scipy.sparse.csr_array"] = "scipy.sparse.csr_array"
SCIPY_CSC_ARRAY: Literal["scipy.sparse.csc_array"] = "scipy.sparse.csc_array"
CUPY_SCIPY_COO: Literal["cupyx.scipy.sparse.coo_matrix"] = "cupyx.scipy.sparse.coo_matrix"
CUPY_SCIPY_CSR: Literal["cupyx.scipy.sparse.csr_matrix"] = "cupyx.scipy.sparse.csr_matrix"
CUPY_SCIPY_CSC: Literal["cupyx.scipy.sparse.csc_matrix"] = "cupyx.scipy.sparse.csc_matrix"

_SCIPY_2D = frozenset({SCIPY_COO, SCIPY_CSR, SCIPY_CSC, SCIPY_COO_ARRAY, SCIPY_CSR_ARRAY, SCIPY_CSC_ARRAY})
_CUPY_2D = frozenset({CUPY_SCIPY_COO, CUPY_SCIPY_CSR, CUPY_SCIPY_CSC})
_SPARSE_ND = frozenset({SPARSE_COO, SPARSE_GCXS, SPARSE_DOK})

CPU_BACKENDS: frozenset[str] = frozenset({NUMPY, NUMPY_MATRIX}) | _SPARSE_ND | _SCIPY_2D
CUPY_BACKENDS: frozenset[str] = frozenset({CUPY}) | _CUPY_2D
CUDA_BACKENDS: frozenset[str] = CUPY_BACKENDS | {CUDA}
BACKENDS: frozenset[str] = CPU_BACKENDS | CUDA_BACKENDS
ND_BACKENDS: frozenset[str] = frozenset({NUMPY, CUDA, CUPY}) | _SPARSE_ND
D2_BACKENDS: frozenset[str] = frozenset({NUMPY_MATRIX}) | _SCIPY_2D | _CUPY_2D
SPARSE_BACKENDS: frozenset[str] = _SPARSE_ND | _SCIPY_2D | _CUPY_2D
DENSE_BACKENDS: frozenset[str] = frozenset({NUMPY, NUMPY_MATRIX, CUDA, CUPY})

# Formats that cannot hold every dtype: scipy has no float16, cupyx no integers.
_PLAIN: frozenset[str] = frozenset({NUMPY, CUDA, CUPY, NUMPY_MATRIX})


def get_backend(arr: Any) -> str | None:
    """Name of the backend that `arr` belongs to, or None for other objects."""
    if type(arr) is np.ndarray:
        return NUMPY
    if _is_cupy(arr):
        return CUPY
    from sparseconverter import get_backend as impl

    backend: str | None = impl(arr)
    return backend


def _cupy() -> Any:
    return import_module("cupy")


def _is_cupy(arr: Any) -> bool:
    """Whether `arr` is a dense array of CuPy; there is none before CuPy is loaded."""
    return "cupy" in sys.modules and isinstance(arr, _loaded("cupy", "ndarray"))


def get_device_class(backend: str) -> str:
    """``'cpu'``, ``'cuda'`` or ``'cupy'``."""
    if backend not in BACKENDS:
        raise ValueError(f"unknown array backend {backend!r}")
    if backend in CPU_BACKENDS:
        return "cpu"
    return "cuda" if backend == CUDA else "cupy"


def for_backend(arr: Any, backend: str) -> Any:
    """`arr` as an array of the given backend; 2D-only formats flatten all axes but the first."""
    if type(arr) is np.ndarray and backend in (NUMPY, CUDA):
        return arr
    if type(arr) is np.ndarray and backend == CUPY:
        return _cupy().asarray(arr)
    if _is_cupy(arr) and backend in (NUMPY, CUDA, CUPY):
        return arr if backend == CUPY else arr.get()
    if backend == SPARSE_COO and is_sparse(arr):
        # sparseconverter goes through functions of `sparse` that first compile for ten seconds.
        return to_sparse(arr)
    from sparseconverter import for_backend as impl

    return impl(arr, backend)


def make_like(arr: Any, target: Any) -> Any:
    """`arr` converted to the array type of `target` and reshaped to its shape. No broadcasting."""
    if type(arr) is np.ndarray and type(target) is np.ndarray:
        return arr.reshape(target.shape)
    if _is_cupy(target) and (_is_cupy(arr) or type(arr) is np.ndarray):
        return for_backend(arr, CUPY).reshape(target.shape)
    from sparseconverter import make_like as impl

    return impl(arr, target, strict=False)


def result_type(*dtypes: npt.DTypeLike, backends: Iterable[str] = ()) -> np.dtype[Any]:
    """Common dtype in native byte order, widened where one of the backends cannot hold it."""
    result = np.result_type(*dtypes).newbyteorder("=")
    others = [backend for backend in backends if backend not in _PLAIN]
    if others:
        from sparseconverter import result_type as impl

        result = np.dtype(impl(result, *others))
    return result


def _loaded(module: str, name: str) -> Any:
    """A class of an optional package, or an empty tuple if nobody has imported all of the package yet."""
    package = sys.modules.get(module)
    return () if package is None else getattr(package, name, ())


def is_sparse(arr: Any) -> bool:
    """Whether `arr` is an array of `sparse` or `scipy.sparse`."""
    # An object of these packages cannot exist before the package is loaded. Another thread may be loading it.
    if isinstance(arr, _loaded("sparse", "SparseArray")):
        return True
    issparse = getattr(sys.modules.get("scipy.sparse"), "issparse", None)
    return issparse is not None and bool(issparse(arr))


def to_dense(a: Any) -> npt.NDArray[Any]:
    """`a` as a NumPy array, whatever kind of array it was."""
    if type(a) is np.ndarray:
        return a
    if isinstance(a, _loaded("sparse", "SparseArray")):
        return np.asarray(a.todense())
    if is_sparse(a):
        return np.asarray(a.toarray())
    if type(a).__module__.startswith("cupy"):
        return np.asarray(for_backend(a, NUMPY))
    return np.array(a)


def to_sparse(a: Any, shape: Sequence[int] | None = None) -> Any:
    """`a` as `sparse.COO`.

    Parameters
    ----------
    a : array-like
        Dense or sparse array; or, with `shape`, a tuple of ints (one position that is set), or a list
        of ``(coordinates, bool)`` pairs: the positions given take the truth value, all others its opposite.
    shape : sequence of int, optional
        Needed for coordinates.

    Raises
    ------
    ValueError
        If truth values are mixed, or `a` is a list or tuple of another form or with positions outside.
    """
    import sparse

    if isinstance(a, sparse.COO):
        return a
    if isinstance(a, sparse.SparseArray):
        return a.asformat("coo")
    if is_sparse(a):
        return sparse.COO.from_scipy_sparse(a)
    if isinstance(a, list | tuple) and shape is not None:
        return _coo_from_coordinates(a, tuple(shape))
    return sparse.COO.from_numpy(np.asarray(a))


def _is_position_with_truth(entry: Any) -> bool:
    return isinstance(entry, list | tuple) and len(entry) == 2 and isinstance(entry[1], bool | np.bool_)


def _coo_from_coordinates(a: list[Any] | tuple[Any, ...], shape: tuple[int, ...]) -> Any:
    import sparse

    truth = True
    if a and all(isinstance(entry, int | np.integer) and not isinstance(entry, bool) for entry in a):
        positions = [tuple(a)]
    else:
        if not all(_is_position_with_truth(entry) for entry in a):
            raise ValueError(f"expected one position or pairs of a position and a bool, found {a!r}")
        truths = {bool(value) for _, value in a}
        if len(truths) > 1:
            raise ValueError("all positions have to carry the same truth value, found True and False")
        truth = truths.pop() if truths else True
        positions = [tuple(np.atleast_1d(coordinates).tolist()) for coordinates, _ in a]
    if any(len(position) != len(shape) for position in positions):
        raise ValueError(f"positions need {len(shape)} coordinates each, found {positions}")
    coords = np.array(positions, dtype=np.int64).reshape(-1, len(shape)).T
    data = np.full(coords.shape[1], truth)
    return sparse.COO(coords=coords, data=data, shape=shape, fill_value=np.bool_(not truth))


def sparse_to_coo(a: Any, shape: Sequence[int] | None = None) -> Any:
    """Like `to_sparse`, but None and dense arrays are returned as they are."""
    if a is None or isinstance(a, np.ndarray):
        return a
    return to_sparse(a, shape)
