"""Every ready-made UDF gives the same results whatever kind of array the data set delivers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libertem.common.arrays import CPU_BACKENDS, NUMPY, SPARSE_COO, SPARSE_DOK, SPARSE_GCXS
from libertem.exceptions import UDFException
from libertem.udf import UDF
from libertem.udf.auto import AutoUDF
from libertem.udf.com import CoMUDF
from libertem.udf.crystallinity import CrystallinityUDF
from libertem.udf.FEM import FEMUDF
from libertem.udf.logsum import LogsumUDF
from libertem.udf.masks import ApplyMasksUDF
from libertem.udf.noop import NoOpUDF
from libertem.udf.raw import PickUDF
from libertem.udf.record import RecordUDF
from libertem.udf.stddev import StdDevUDF
from libertem.udf.sum import SumUDF
from libertem.udf.sumsigudf import SumSigUDF

pytestmark = pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")

Array = np.ndarray[Any, Any]

SHAPE = (3, 4, 6, 7)
ROI = np.random.default_rng(1).random(SHAPE[:2]) < 0.5
MASKS = np.random.default_rng(2).random((3, *SHAPE[2:])) * [[[1]], [[-1]], [[0.5]]]
THIN = np.where(MASKS > 0.4, MASKS, 0)


def sparse_masks() -> Any:
    import sparse

    return sparse.COO.from_numpy(THIN)


READY_MADE: dict[str, Callable[[], UDF]] = {
    "sum": SumUDF,
    "sum of integers": lambda: SumUDF(dtype="u2"),
    "sumsig": SumSigUDF,
    "logsum": LogsumUDF,
    "std": StdDevUDF,
    "masks": lambda: ApplyMasksUDF(lambda: MASKS, mask_count=3),
    "complex masks": lambda: ApplyMasksUDF(lambda: MASKS * 1j, mask_count=3),
    "sparse masks": lambda: ApplyMasksUDF(sparse_masks, mask_count=3),
    "masks as csc": lambda: ApplyMasksUDF(lambda: MASKS, mask_count=3, use_sparse="scipy.sparse.csc"),
    "shifted masks": lambda: ApplyMasksUDF(lambda: MASKS, mask_count=3, shifts=(1, -2)),
    "com": lambda: CoMUDF.with_params(r=3.0, regression=1),
    "pick": PickUDF,
    "map": lambda: AutoUDF(f=lambda frame: np.asarray(frame).max(axis=0)),
    "fem": lambda: FEMUDF(center=(3, 3), rad_in=1, rad_out=3),
    "crystallinity": lambda: CrystallinityUDF(rad_in=1, rad_out=3, real_center=(3, 3), real_rad=1),
    "noop": NoOpUDF,
}
"""All but `RecordUDF`, which has a test of its own: it writes a file."""

# `sparse` compiles for seconds before it does anything.
COMPILED = (SPARSE_COO, SPARSE_DOK, SPARSE_GCXS)
BACKENDS = [
    pytest.param(name, marks=pytest.mark.slow) if name in COMPILED else name for name in sorted(CPU_BACKENDS)
]


@pytest.fixture(scope="module")
def counts() -> Array:
    """Few electrons, one frame without any, and a border that is always empty."""
    frames = np.random.default_rng(0).poisson(0.4, SHAPE).astype("u2")
    frames[1, 2] = 0
    frames[..., 0] = 0
    return frames


def as_arrays(result: Any) -> dict[str, Array]:
    return {name: np.asarray(buffer.data) for name, buffer in result.items()}


def check(result: Any, expected: Any) -> None:
    found, wanted = as_arrays(result), as_arrays(expected)
    assert set(found) == set(wanted)
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype, name
        np.testing.assert_allclose(found[name], array, rtol=2e-6, atol=1e-6, err_msg=name)


@pytest.fixture(scope="module")
def expected(counts: Array) -> Any:
    """Results for dense arrays, each computed once."""
    from libertem.api import Context

    context, known = Context.make_with("inline"), {}

    def get(name: str, roi: Array | None = None) -> Any:
        if (name, roi is None) not in known:
            ds = context.load("memory", data=counts, num_partitions=3, array_backends=[NUMPY])
            known[name, roi is None] = context.run_udf(ds, READY_MADE[name](), roi=roi)
        return known[name, roi is None]

    return get


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", sorted(READY_MADE))
def test_results_do_not_depend_on_the_kind_of_array(
    inline: Any, counts: Array, expected: Any, name: str, backend: str
) -> None:
    ds = inline.load("memory", data=counts, num_partitions=3, array_backends=[backend])
    check(inline.run_udf(ds, READY_MADE[name](), roi=ROI), expected(name, ROI))


@pytest.mark.parametrize("backend", BACKENDS)
def test_udfs_that_take_different_kinds_share_a_run(
    inline: Any, counts: Array, expected: Any, backend: str
) -> None:
    """Each of them gets its own kind, and all the same frames. No ROI here."""
    ds = inline.load("memory", data=counts, num_partitions=3, array_backends=[backend])
    names = sorted(READY_MADE)
    results = inline.run_udf(ds, [READY_MADE[name]() for name in names])
    for name, result in zip(names, results, strict=True):
        # One input dtype for all of them, so results may have a wider one.
        found, wanted = as_arrays(result), as_arrays(expected(name))
        for key, array in wanted.items():
            np.testing.assert_allclose(found[key], array, rtol=2e-6, atol=1e-6, err_msg=f"{name}: {key}")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["sum", "sumsig", "logsum", "masks", "sparse masks", "com"])
def test_the_choice_can_be_restricted(
    inline: Any, counts: Array, expected: Any, name: str, backend: str
) -> None:
    ds = inline.load("memory", data=counts, num_partitions=3)
    if backend not in READY_MADE[name]().get_backends():
        with pytest.raises((RuntimeError, UDFException), match="Could not find backends"):
            inline.run_udf(ds, READY_MADE[name](), backends=backend)
        return
    check(inline.run_udf(ds, READY_MADE[name](), backends=backend), expected(name))


@pytest.mark.parametrize("backend", BACKENDS)
def test_recording_writes_dense_frames(inline: Any, counts: Array, backend: str, tmp_path: Path) -> None:
    ds = inline.load("memory", data=counts, num_partitions=3, array_backends=[backend])
    inline.run_udf(ds, RecordUDF(str(tmp_path / "x.npy")))
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), counts)


@pytest.mark.parametrize("kind", ["sparse.COO", "sparse.GCXS"])
@pytest.mark.parametrize("name", sorted(READY_MADE))
@pytest.mark.slow
def test_sparse_data_gives_what_dense_data_gives(
    inline: Any, counts: Array, expected: Any, name: str, kind: str
) -> None:
    import sparse

    data = sparse.COO.from_numpy(counts)
    ds = inline.load(
        "memory", data=data.asformat("gcxs") if kind == "sparse.GCXS" else data, num_partitions=3
    )
    check(inline.run_udf(ds, READY_MADE[name](), roi=ROI), expected(name, ROI))


def test_shifts_per_frame_reach_sparse_frames(inline: Any, counts: Array) -> None:
    shifts = np.random.default_rng(3).integers(-7, 8, (*SHAPE[:2], 2))
    aux = ApplyMasksUDF.aux_data(shifts.reshape(-1), kind="nav", extra_shape=(2,), dtype=int)
    udfs = [ApplyMasksUDF(lambda: MASKS, mask_count=3, shifts=aux) for _ in range(2)]
    dense = inline.load("memory", data=counts, num_partitions=3, array_backends=[NUMPY])
    thin = inline.load("memory", data=counts, num_partitions=3, array_backends=["scipy.sparse.csr_matrix"])
    check(inline.run_udf(thin, udfs[1], roi=ROI), inline.run_udf(dense, udfs[0], roi=ROI))
