from __future__ import annotations

import subprocess
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import sparse
import sparseconverter

import libertem.common.sparse
from libertem.common import arrays

DENSE = np.array([[0, 1, 0], [2, 0, 3]])

CONSTANTS = [
    "NUMPY", "NUMPY_MATRIX", "CUDA", "CUPY", "SPARSE_COO", "SPARSE_GCXS", "SPARSE_DOK", "SCIPY_COO",
    "SCIPY_CSR", "SCIPY_CSC", "SCIPY_COO_ARRAY", "SCIPY_CSR_ARRAY", "SCIPY_CSC_ARRAY", "CUPY_SCIPY_COO",
    "CUPY_SCIPY_CSR", "CUPY_SCIPY_CSC",
]  # fmt: skip
SETS = [
    "BACKENDS", "CPU_BACKENDS", "CUDA_BACKENDS", "CUPY_BACKENDS", "ND_BACKENDS", "D2_BACKENDS",
    "SPARSE_BACKENDS", "DENSE_BACKENDS",
]  # fmt: skip

pytestmark = pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")

FORMS: dict[str, Any] = {
    arrays.NUMPY: DENSE,
    arrays.NUMPY_MATRIX: np.asmatrix(DENSE),
    arrays.SPARSE_COO: sparse.COO.from_numpy(DENSE),
    arrays.SPARSE_GCXS: sparse.GCXS.from_numpy(DENSE),
    arrays.SPARSE_DOK: sparse.DOK.from_numpy(DENSE),
    arrays.SCIPY_COO: scipy.sparse.coo_matrix(DENSE),
    arrays.SCIPY_CSR: scipy.sparse.csr_matrix(DENSE),
    arrays.SCIPY_CSC: scipy.sparse.csc_matrix(DENSE),
    arrays.SCIPY_COO_ARRAY: scipy.sparse.coo_array(DENSE),
    arrays.SCIPY_CSR_ARRAY: scipy.sparse.csr_array(DENSE),
    arrays.SCIPY_CSC_ARRAY: scipy.sparse.csc_array(DENSE),
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_are_those_of_sparseconverter(name: str) -> None:
    assert getattr(arrays, name) == getattr(sparseconverter, name)


@pytest.mark.parametrize("name", SETS)
def test_sets_are_those_of_sparseconverter(name: str) -> None:
    assert getattr(arrays, name) == getattr(sparseconverter, name)


def test_no_backend_of_sparseconverter_is_missing() -> None:
    assert {getattr(arrays, name) for name in CONSTANTS} == sparseconverter.BACKENDS


@pytest.mark.parametrize("backend", sorted(sparseconverter.BACKENDS))
def test_device_classes_are_those_of_sparseconverter(backend: str) -> None:
    assert arrays.get_device_class(backend) == sparseconverter.get_device_class(backend)


def test_an_unknown_backend_has_no_device_class() -> None:
    with pytest.raises(ValueError, match="'torch'"):
        arrays.get_device_class("torch")


@pytest.mark.parametrize("backend", FORMS)
def test_get_backend_names_the_kind_of_array(backend: str) -> None:
    assert arrays.get_backend(FORMS[backend]) == backend


def test_get_backend_of_anything_else_is_none() -> None:
    assert arrays.get_backend("text") is None


# Not all pairs: the conversions are those of sparseconverter, and some compile for seconds.
@pytest.mark.parametrize("backend", FORMS)
def test_for_backend_keeps_the_values(backend: str) -> None:
    np.testing.assert_array_equal(arrays.for_backend(FORMS[backend], arrays.NUMPY), DENSE)
    result = arrays.for_backend(DENSE, backend)
    assert arrays.get_backend(result) == backend
    np.testing.assert_array_equal(arrays.to_dense(result), DENSE)


def test_for_backend_returns_numpy_arrays_as_they_are() -> None:
    assert arrays.for_backend(DENSE, arrays.NUMPY) is DENSE
    assert arrays.for_backend(DENSE, arrays.CUDA) is DENSE


def test_for_backend_flattens_all_axes_but_the_first_for_2d_formats() -> None:
    tile = np.arange(24).reshape(2, 3, 4)
    result = arrays.for_backend(tile, arrays.SCIPY_CSR)
    assert result.shape == (2, 12)
    np.testing.assert_array_equal(result.toarray(), tile.reshape(2, 12))


def test_make_like_takes_type_and_shape_from_the_target() -> None:
    target = np.zeros((1, 2, 3))
    for source in FORMS.values():
        result = arrays.make_like(source, target)
        assert type(result) is np.ndarray
        np.testing.assert_array_equal(result, DENSE.reshape(1, 2, 3))
    assert isinstance(arrays.make_like(DENSE, sparse.COO.from_numpy(target)), sparse.COO)


def test_result_type_promotes_in_native_byte_order() -> None:
    assert arrays.result_type(">u2", np.int8) == np.dtype(np.int32)
    assert arrays.result_type(">f4").isnative
    assert arrays.result_type(np.uint8, backends=[arrays.NUMPY, arrays.SPARSE_COO]) == np.uint8


def test_result_type_widens_where_cupy_cannot_hold_a_dtype() -> None:
    assert arrays.result_type(np.uint8, backends=[arrays.CUPY_SCIPY_CSR]) == np.float32
    assert arrays.result_type(bool, backends=[arrays.CUPY_SCIPY_CSC]) == np.float32
    assert arrays.result_type(bool, backends=[arrays.CUPY_SCIPY_CSR]) == np.bool_


@pytest.mark.parametrize("backend", FORMS)
def test_is_sparse_knows_sparse_and_scipy(backend: str) -> None:
    assert arrays.is_sparse(FORMS[backend]) == (backend in sparseconverter.SPARSE_BACKENDS)


def test_nothing_is_sparse_while_another_thread_imports_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sparse", "scipy.sparse"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    assert not arrays.is_sparse(np.zeros(3))
    np.testing.assert_array_equal(arrays.to_dense([1, 2]), [1, 2])


@pytest.mark.parametrize("backend", FORMS)
def test_to_dense_gives_a_plain_numpy_array(backend: str) -> None:
    result = arrays.to_dense(FORMS[backend])
    assert type(result) is np.ndarray
    np.testing.assert_array_equal(result, DENSE)


def test_to_dense_of_anything_else_is_what_numpy_makes_of_it() -> None:
    np.testing.assert_array_equal(arrays.to_dense([[0, 1], [2, 3]]), [[0, 1], [2, 3]])
    assert arrays.to_dense(7).shape == ()


def test_to_dense_keeps_the_fill_value() -> None:
    filled = sparse.COO(np.array([[1]]), np.array([7]), shape=(3,), fill_value=5)
    np.testing.assert_array_equal(arrays.to_dense(filled), [5, 7, 5])


@pytest.mark.parametrize("backend", FORMS)
def test_to_sparse_gives_coo(backend: str) -> None:
    result = arrays.to_sparse(FORMS[backend])
    assert isinstance(result, sparse.COO)
    np.testing.assert_array_equal(result.todense(), DENSE)


def test_to_sparse_takes_one_position() -> None:
    np.testing.assert_array_equal(arrays.to_sparse((1, 2), shape=(2, 3)).todense(), [[0, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(arrays.to_sparse((2,), shape=(4,)).todense(), [0, 0, 1, 0])


def test_to_sparse_takes_positions_that_are_set() -> None:
    result = arrays.to_sparse([((0, 1), True), ((1, 0), True)], shape=(2, 2))
    np.testing.assert_array_equal(result.todense(), [[False, True], [True, False]])


def test_to_sparse_takes_positions_that_are_left_out() -> None:
    result = arrays.to_sparse([((0, 1), False)], shape=(2, 2))
    np.testing.assert_array_equal(result.todense(), [[True, False], [True, True]])
    assert result.nnz == 1


def test_to_sparse_takes_an_empty_list_as_nothing_selected() -> None:
    assert not arrays.to_sparse([], shape=(2, 2)).todense().any()


def test_to_sparse_refuses_mixed_truth_values() -> None:
    with pytest.raises(ValueError, match="same truth value"):
        arrays.to_sparse([((0, 1), False), ((1, 1), True)], shape=(2, 2))


@pytest.mark.parametrize(
    "a", [[(0, 1), (1, 1)], ((0, 1), False), [True, False], [((0, 1),)], ["ab"]], ids=repr
)
def test_to_sparse_refuses_lists_of_another_form(a: Any) -> None:
    with pytest.raises(ValueError, match="expected one position or pairs"):
        arrays.to_sparse(a, shape=(2, 2))


def test_to_sparse_refuses_positions_outside() -> None:
    with pytest.raises(ValueError, match="bounds"):
        arrays.to_sparse((2, 0), shape=(2, 2))


def test_to_sparse_refuses_positions_with_the_wrong_number_of_coordinates() -> None:
    with pytest.raises(ValueError, match="2 coordinates"):
        arrays.to_sparse([((0, 1, 2), True)], shape=(2, 2))


def test_sparse_to_coo_leaves_none_and_dense_arrays_alone() -> None:
    assert arrays.sparse_to_coo(None) is None
    assert arrays.sparse_to_coo(DENSE) is DENSE
    assert isinstance(arrays.sparse_to_coo(scipy.sparse.csr_matrix(DENSE)), sparse.COO)
    assert isinstance(arrays.sparse_to_coo((0, 1), shape=(2, 2)), sparse.COO)


def test_the_historic_path_hands_on_the_same_functions() -> None:
    for name in ("is_sparse", "sparse_to_coo", "to_dense", "to_sparse"):
        assert getattr(libertem.common.sparse, name) is getattr(arrays, name)


def test_dense_work_loads_no_sparse_package() -> None:
    script = """
import sys
import numpy as np
from libertem.common import arrays
a = np.ones((2, 3))
arrays.for_backend(a, arrays.NUMPY), arrays.get_backend(a), arrays.to_dense(a), arrays.is_sparse(a)
arrays.make_like(a, np.zeros((1, 2, 3))), arrays.result_type("u2", "f4", backends=[arrays.NUMPY, arrays.CUDA])
loaded = {"scipy", "sparse", "sparseconverter", "numba"} & set(sys.modules)
sys.exit(f"loaded {sorted(loaded)}" if loaded else 0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
