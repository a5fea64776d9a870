"""Which kind of array each UDF receives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse
import sparseconverter

from libertem.common.arrays import get_backend
from libertem.io.dataset.memory import MemoryDataSet
from libertem.udf import UDF
from libertem.udf.backends import BackendChoice, choose_backends, get_resources_for_backends
from libertem.udf.com import CoMUDF
from libertem.udf.logsum import LogsumUDF
from libertem.udf.masks import ApplyMasksUDF
from libertem.udf.sum import SumUDF
from libertem.udf.sumsigudf import SumSigUDF

pytestmark = pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")

CSR = UDF.BACKEND_SCIPY_CSR
COO = UDF.BACKEND_SPARSE_COO
NUMPY = UDF.BACKEND_NUMPY
ALL = UDF.BACKEND_ALL

CPU_ONLY = [
    NUMPY,
    "numpy.matrix",
    # These compile for seconds before they do anything.
    pytest.param(UDF.BACKEND_SPARSE_COO, marks=pytest.mark.slow),
    pytest.param(UDF.BACKEND_SPARSE_GCXS, marks=pytest.mark.slow),
    pytest.param(UDF.BACKEND_SPARSE_DOK, marks=pytest.mark.slow),
    UDF.BACKEND_SCIPY_COO,
    UDF.BACKEND_SCIPY_CSR,
    UDF.BACKEND_SCIPY_CSC,
    UDF.BACKEND_SCIPY_COO_ARRAY,
    UDF.BACKEND_SCIPY_CSR_ARRAY,
    UDF.BACKEND_SCIPY_CSC_ARRAY,
]


class Kinds(UDF):
    """Adds up pixels, and checks kind and shape of the array that it receives."""

    def get_backends(self) -> Any:
        return self.params.backends

    def get_result_buffers(self) -> dict[str, Any]:
        return {
            "sum": self.buffer(kind="nav", dtype="float64"),
            "backend": self.buffer(kind="nav", dtype="U32"),
            "frame": self.buffer(kind="nav", extra_shape=self.meta.dataset_shape.sig, dtype="float64"),
        }

    def check(self, data: Any, *shape: int) -> None:
        assert get_backend(data) == self.meta.array_backend
        assert data.dtype == self.meta.input_dtype
        flat = self.meta.array_backend in self.D2_BACKENDS
        if flat:
            shape = (shape[0] if len(shape) == 3 else 1, shape[-2] * shape[-1])
        assert tuple(data.shape) == shape


class TileKinds(Kinds):
    def process_tile(self, tile: Any) -> None:
        self.check(tile, *self.meta.slice.shape)
        self.results.frame[:] = self.forbuf(tile, self.results.frame)
        self.results.sum[:] = self.results.frame.sum(axis=(1, 2))
        self.results.backend[:] = self.meta.array_backend


class FrameKinds(Kinds):
    def process_frame(self, frame: Any) -> None:
        self.check(frame, *self.meta.slice.shape.sig)
        self.results.frame[:] = self.forbuf(frame, self.results.frame)
        self.results.sum[:] = self.results.frame.sum()
        self.results.backend[:] = self.meta.array_backend


class PartitionKinds(Kinds):
    def process_partition(self, partition: Any) -> None:
        self.check(partition, *self.meta.partition_shape)
        self.results.frame[:] = self.forbuf(partition, self.results.frame)
        self.results.sum[:] = self.results.frame.sum(axis=(1, 2))
        self.results.backend[:] = self.meta.array_backend


def received(ctx: Any, ds: Any, *backends: Any, **kwargs: Any) -> list[str]:
    results = ctx.run_udf(dataset=ds, udf=[TileKinds(backends=b) for b in backends], **kwargs)
    for result in results:
        assert result["sum"].data.tolist() == [[120, 376, 632], [888, 1144, 1400]]
    return [str(result["backend"].data[0, 0]) for result in results]


# --- the worked examples ---


def test_dense_data_is_not_converted_if_the_udf_takes_it(ctx: Any, ds: Any) -> None:
    assert received(ctx, ds, (COO, NUMPY)) == [NUMPY]


def test_sparse_data_goes_to_udfs_that_take_everything(ctx: Any, array_ds: Any, data: Any) -> None:
    ds = array_ds(data, array_backends=(CSR,))
    assert received(ctx, ds, ALL) == [CSR]


@pytest.mark.parametrize("backend", [CSR, UDF.BACKEND_SCIPY_CSC, NUMPY])
def test_data_in_memory_needs_no_initialization(ctx: Any, data: Any, backend: str) -> None:
    ds = MemoryDataSet(data=data, num_partitions=2, sig_dims=2, array_backends=(backend,))
    assert received(ctx, ds, ALL) == [backend]
    assert received(ctx, ds, (NUMPY,), ALL) == [NUMPY, backend]


def test_sparse_data_is_converted_once_for_each_format(ctx: Any, array_ds: Any, data: Any) -> None:
    ds = array_ds(data, array_backends=(CSR,))
    assert received(ctx, ds, (NUMPY,), (COO, NUMPY), ALL) == [NUMPY, COO, CSR]


def test_dense_data_is_converted_where_it_has_to_be(ctx: Any, ds: Any) -> None:
    assert received(ctx, ds, (NUMPY,), (COO,), ALL) == [NUMPY, COO, NUMPY]


@pytest.mark.parametrize("backend", ["cuda", "cupy"])
def test_a_gpu_that_is_not_there_is_an_error(ctx: Any, ds: Any, backend: str) -> None:
    with pytest.raises(RuntimeError, match="Could not find backends for remaining"):
        received(ctx, ds, (backend,))


def test_unknown_backends_are_an_error(ctx: Any, ds: Any) -> None:
    with pytest.raises(ValueError, match="TileKinds returned invalid backend 'numpyy'"):
        received(ctx, ds, ("numpyy",))


def test_one_name_stands_for_itself(ctx: Any, ds: Any) -> None:
    assert received(ctx, ds, CSR) == [CSR]


def test_the_user_can_restrict_the_choice(ctx: Any, ds: Any) -> None:
    assert received(ctx, ds, ALL, backends=CSR) == [CSR]
    assert received(ctx, ds, (COO, CSR), ALL, backends=[COO, "numpy.matrix"]) == [COO, COO]
    with pytest.raises(RuntimeError, match="Could not find backends"):
        received(ctx, ds, (NUMPY,), backends=[COO])


# --- the rules ---


@pytest.mark.parametrize(
    ("wishes", "offered", "expected"),
    [
        # The order of the data set decides between formats that serve equally many UDFs.
        ([(COO, CSR)], (CSR, COO), BackendChoice(CSR, (CSR,))),
        # One format for two UDFs is better than two.
        ([(CSR, COO), (COO,)], (CSR, COO), BackendChoice(COO, (COO, COO))),
        # Sparse stays sparse, in the order of the UDF.
        ([(NUMPY, UDF.BACKEND_SCIPY_CSC, COO)], (CSR,), BackendChoice(CSR, (UDF.BACKEND_SCIPY_CSC,))),
        # Dense stays dense.
        ([(COO, "numpy.matrix")], (NUMPY,), BackendChoice(NUMPY, ("numpy.matrix",))),
        # Anything else.
        ([(COO,)], (NUMPY, "cuda"), BackendChoice(NUMPY, (COO,))),
        ([(NUMPY,)], (CSR,), BackendChoice(CSR, (NUMPY,))),
    ],
)
def test_formats_are_chosen_by_the_rules(wishes: Any, offered: Any, expected: Any) -> None:
    assert choose_backends(wishes, offered, "cpu", has_cupy=False) == expected


@pytest.mark.parametrize(
    ("wishes", "has_cupy", "expected"),
    [
        ([("numpy", "cupy")], True, ("cupy",)),
        ([("numpy", "cupy")], False, ("numpy",)),
        ([("numpy", "cuda")], False, ("cuda",)),
        ([("numpy",), ("cupy",)], True, ("numpy", "cupy")),
        ([("numpy",), ("cuda", "cupy")], True, ("numpy", "cuda")),
    ],
)
def test_gpu_workers_prefer_their_device(wishes: Any, has_cupy: bool, expected: Any) -> None:
    choice = choose_backends(wishes, ("numpy", "cuda"), "cuda", has_cupy=has_cupy)
    assert choice.udfs == expected


def test_gpu_workers_without_cupy_refuse_it() -> None:
    with pytest.raises(RuntimeError, match="this cuda worker offers"):
        choose_backends([("cupy",)], ("numpy", "cuda"), "cuda", has_cupy=False)


@pytest.mark.parametrize(
    ("udfs", "expected"),
    [
        ([("numpy",)], {"compute": 1, "CPU": 1, "ndarray": 1}),
        ([(COO, CSR)], {"compute": 1, "CPU": 1, "ndarray": 1}),
        ([("numpy", "cupy")], {"compute": 1, "ndarray": 1}),
        ([ALL], {"compute": 1, "ndarray": 1}),
        ([("cupy",)], {"compute": 1, "CUDA": 1, "ndarray": 1}),
        (["cuda"], {"compute": 1, "CUDA": 1}),
        ([("numpy", "cuda")], {"compute": 1}),
        ([("numpy", "cuda", "cupy")], {"compute": 1}),
        ([("numpy", "cuda"), ("numpy",)], {"compute": 1, "CPU": 1, "ndarray": 1}),
        ([("numpy", "cupy"), ("cuda",)], {"compute": 1, "CUDA": 1, "ndarray": 1}),
    ],
)
def test_resources_follow_from_the_backends(udfs: Any, expected: Any) -> None:
    assert get_resources_for_backends(udfs, None) == expected


def test_resources_respect_what_the_user_allows() -> None:
    assert get_resources_for_backends([("numpy", "cupy")], "numpy") == {"compute": 1, "CPU": 1, "ndarray": 1}
    assert get_resources_for_backends([("numpy", "cuda")], ["cuda"]) == {"compute": 1, "CUDA": 1}


def test_resources_that_exclude_each_other_are_an_error() -> None:
    with pytest.raises(ValueError, match="There is no common supported UDF backend"):
        get_resources_for_backends([("numpy",), ("cupy",)], None)


# --- arrays ---


@pytest.mark.parametrize("cls", [TileKinds, FrameKinds, PartitionKinds])
@pytest.mark.parametrize("backend", CPU_ONLY)
def test_all_kinds_of_arrays_reach_all_methods(
    inline: Any, ds: Any, data: Any, cls: Any, backend: str
) -> None:
    result = inline.run_udf(dataset=ds, udf=cls(backends=(backend,)))
    assert result["backend"].data[0, 0] == backend
    np.testing.assert_array_equal(result["frame"].data, data)


@pytest.mark.parametrize("backend", CPU_ONLY)
def test_data_sets_can_offer_all_kinds_of_arrays(inline: Any, array_ds: Any, data: Any, backend: str) -> None:
    ds = array_ds(data.astype(np.float32), array_backends=(backend,))
    roi = ds.roi[:, 1:]
    dense, same = inline.run_udf(
        dataset=ds, udf=[FrameKinds(backends=(NUMPY,)), TileKinds(backends=(backend,))], roi=roi
    )
    for result in (dense, same):
        np.testing.assert_array_equal(result["frame"].data[roi], data[roi])


NOT_IN_ALL = {"numpy.matrix", UDF.BACKEND_SPARSE_DOK}
SCIPY_ARRAYS = {UDF.BACKEND_SCIPY_COO_ARRAY, UDF.BACKEND_SCIPY_CSR_ARRAY, UDF.BACKEND_SCIPY_CSC_ARRAY}
EXCLUDED = {
    SumUDF: NOT_IN_ALL,
    SumSigUDF: NOT_IN_ALL,
    CoMUDF: NOT_IN_ALL,
    LogsumUDF: NOT_IN_ALL | UDF.D2_BACKENDS,
    ApplyMasksUDF: NOT_IN_ALL | SCIPY_ARRAYS,
}
MASKS = [lambda: np.ones((4, 4)), lambda: np.eye(4)]


@pytest.mark.parametrize("make", [SumUDF, SumSigUDF, LogsumUDF, CoMUDF, lambda: ApplyMasksUDF(MASKS)])
@pytest.mark.parametrize("backend", CPU_ONLY)
def test_ready_made_udfs_give_the_same_with_all_arrays(
    inline: Any, array_ds: Any, make: Any, backend: str
) -> None:
    values = np.random.default_rng(3).integers(0, 5, (2, 3, 4, 4))
    values[values < 3] = 0
    if backend not in make().get_backends():
        assert backend in EXCLUDED[make().__class__]
        return
    dense = inline.run_udf(dataset=array_ds(values), udf=make())
    for ds in (array_ds(values), array_ds(values, array_backends=(backend,))):
        result = inline.run_udf(dataset=ds, udf=make(), backends=backend)
        for name, buffer in dense.items():
            np.testing.assert_allclose(result[name].data, buffer.data, rtol=1e-6, atol=1e-6)


def test_the_documented_constants_are_those_of_sparseconverter() -> None:
    for name in ("CPU", "CUDA", "CUPY", "SPARSE", "DENSE", "ND", "D2"):
        assert getattr(UDF, f"{name}_BACKENDS") == getattr(sparseconverter, f"{name}_BACKENDS")
    s = sparseconverter
    assert (
        *(s.CUPY_SCIPY_CSR, s.CUPY_SCIPY_CSC, s.CUPY_SCIPY_COO),
        *(s.SCIPY_COO_ARRAY, s.SCIPY_CSC_ARRAY, s.SCIPY_CSR_ARRAY),
        *(s.SCIPY_CSR, s.SCIPY_CSC, s.SCIPY_COO, s.CUPY, s.NUMPY, s.SPARSE_COO, s.SPARSE_GCXS),
    ) == UDF.BACKEND_ALL
    for name in ("NUMPY", "CUPY", "CUDA", "SPARSE_COO", "SPARSE_GCXS", "SPARSE_DOK", "CUPY_SCIPY_CSC"):
        assert getattr(UDF, f"BACKEND_{name}") == getattr(s, name)


# --- forbuf ---


def test_forbuf_takes_the_type_and_shape_of_the_target() -> None:
    udf = UDF()
    target = np.zeros((4, 4))
    row = scipy.sparse.csr_matrix(np.arange(16).reshape((1, 16)))
    assert udf.forbuf(np.sum(row, axis=0), target).shape == (4, 4)
    assert type(udf.forbuf(np.sum(row, axis=0), target)) is np.ndarray
    assert type(udf.forbuf(row, target)) is np.ndarray
    np.testing.assert_array_equal(udf.forbuf(np.ones((1, 4, 4)), target), np.ones((4, 4)))


def test_forbuf_does_not_broadcast() -> None:
    with pytest.raises(ValueError, match="reshape"):
        UDF().forbuf(np.ones((1, 4)), np.zeros((4, 4)))


def test_forbuf_only_reshapes_what_it_does_not_know() -> None:
    class Strange:
        shape = (2,)

        def reshape(self, *shape: Any) -> str:
            return f"reshaped to {shape}"

    assert "reshaped" in UDF().forbuf(Strange(), np.zeros(2))
