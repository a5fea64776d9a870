"""Virtual detectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse

from libertem.udf import UDF
from libertem.udf.masks import ApplyMasksUDF

ONES_AND_EYE = [lambda: np.ones((4, 4)), lambda: np.eye(4)]


def test_masks_follow_the_worked_example(ctx: Any, ds: Any) -> None:
    result = ctx.run_udf(dataset=ds, udf=ApplyMasksUDF(ONES_AND_EYE))["intensity"]
    assert (result.kind, result.extra_shape) == ("nav", (2,))
    assert result.data.tolist() == [
        [[120, 30], [376, 94], [632, 158]],
        [[888, 222], [1144, 286], [1400, 350]],
    ]


@pytest.mark.parametrize(
    "factories",
    [
        lambda: np.stack([np.ones((4, 4)), np.eye(4)]),
        lambda: [np.ones((4, 4)), np.eye(4)],
        ONES_AND_EYE,
        tuple(ONES_AND_EYE),
        [lambda: scipy.sparse.csr_matrix(np.ones((4, 4))), lambda: scipy.sparse.csr_matrix(np.eye(4))],
        [lambda: np.ones((4, 4)), lambda: scipy.sparse.csr_matrix(np.eye(4))],
    ],
)
def test_factories_may_make_a_stack_or_single_masks(ctx: Any, ds: Any, factories: Any) -> None:
    result = ctx.run_udf(dataset=ds, udf=ApplyMasksUDF(factories))["intensity"]
    assert result.data[1, 2].tolist() == [1400, 350]


@pytest.mark.parametrize(
    ("mask", "mask_dtype", "expected"),
    [
        ("f4", None, "f4"),
        ("f8", None, "f8"),
        ("bool", None, "f4"),
        ("c8", None, "c8"),
        ("f8", "f4", "f4"),
        ("bool", "c16", "c16"),
    ],
)
def test_the_result_has_the_common_dtype_of_data_and_masks(
    ctx: Any, make_ds: Any, data: Any, mask: str, mask_dtype: Any, expected: str
) -> None:
    ds = make_ds(data.astype("f4"))
    udf = ApplyMasksUDF(lambda: np.eye(4, dtype=mask)[np.newaxis], mask_dtype=mask_dtype)
    result = ctx.run_udf(dataset=ds, udf=udf)["intensity"]
    assert result.dtype == result.data.dtype == np.dtype(expected)
    np.testing.assert_array_equal(result.data[..., 0], np.trace(data, axis1=2, axis2=3))


def test_products_are_plain_without_conjugation(ctx: Any, make_ds: Any) -> None:
    rng = np.random.default_rng(1)
    data = (rng.random((2, 3, 4, 5)) + 1j * rng.random((2, 3, 4, 5))).astype(np.complex64)
    masks = rng.random((3, 4, 5)) + 1j * rng.random((3, 4, 5))
    result = ctx.run_udf(dataset=make_ds(data), udf=ApplyMasksUDF(lambda: masks))["intensity"]
    np.testing.assert_allclose(result.data, np.einsum("abij,mij->abm", data, masks), rtol=1e-6)


@pytest.mark.parametrize(
    "use_sparse",
    [
        None,
        True,
        False,
        "scipy.sparse",
        "scipy.sparse.csr",
        "scipy.sparse.csc",
        pytest.param("sparse.pydata", marks=pytest.mark.slow),
        pytest.param("sparse.pydata.GCXS", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("sparse_masks", [False, True])
def test_all_forms_of_masks_give_the_same(
    inline: Any, make_ds: Any, use_sparse: Any, sparse_masks: bool
) -> None:
    rng = np.random.default_rng(2)
    data = rng.integers(0, 2**16, (3, 4, 30, 20)).astype("u2")
    masks = rng.random((3, 30, 20)).astype("f4")
    masks[masks < 0.7] = 0
    make = scipy.sparse.csr_matrix if sparse_masks else np.asarray
    factories = [lambda mask=mask: make(mask) for mask in masks]
    result = inline.run_udf(dataset=make_ds(data), udf=ApplyMasksUDF(factories, use_sparse=use_sparse))
    expected = np.einsum("abij,mij->abm", data, masks.astype("f8"))
    np.testing.assert_allclose(result["intensity"].data, expected, rtol=1e-6)


def test_large_frames_keep_their_precision(ctx: Any, make_ds: Any) -> None:
    # In float32 the sum over a million pixels would be off by far more.
    data = np.full((2, 2, 1024, 1024), 1001, dtype="u2")
    masks = np.ones((2, 1024, 1024), dtype="f4")
    result = ctx.run_udf(dataset=make_ds(data), udf=ApplyMasksUDF(lambda: masks, mask_count=2))
    np.testing.assert_allclose(result["intensity"].data, 1001 * 2**20, rtol=1e-7)


def test_a_count_saves_calling_the_factory_on_the_main_process(inline: Any, ds: Any) -> None:
    calls = []

    def factory() -> Any:
        calls.append(1)
        return np.ones((2, 4, 4))

    udf = ApplyMasksUDF(factory, mask_count=2, mask_dtype="f4")
    inline.executor.get_udf_runner().inspect_udf(udf, ds)
    assert not calls
    inline.run_udf(dataset=ds, udf=udf)
    # Once for all tasks of the run.
    assert len(calls) == 1


def test_the_preferred_dtype_and_further_parameters_are_kept(inline: Any, ds: Any) -> None:
    udf = ApplyMasksUDF(ONES_AND_EYE, mask_dtype="f4", preferred_dtype="f8", something=3)
    inline.run_udf(dataset=ds, udf=udf)
    assert udf.meta.input_dtype == np.float64
    assert udf.params.something == 3
    assert ApplyMasksUDF(ONES_AND_EYE).get_preferred_input_dtype() == np.float32


def test_backends_can_be_restricted(inline: Any, ds: Any) -> None:
    allowed = ("numpy", "scipy.sparse.csr_array")
    assert ApplyMasksUDF(ONES_AND_EYE, backends=allowed).get_backends() == ("numpy",)
    assert ApplyMasksUDF(ONES_AND_EYE, backends="numpy").get_backends() == ("numpy",)
    with pytest.raises(ValueError, match="No compatible backend found in"):
        ApplyMasksUDF(ONES_AND_EYE, backends=["scipy.sparse.csr_array"])
    assert set(UDF.BACKEND_ALL) - set(ApplyMasksUDF(ONES_AND_EYE).get_backends()) == {
        "scipy.sparse.coo_array",
        "scipy.sparse.csr_array",
        "scipy.sparse.csc_array",
    }


# --- moved masks ---


def two_points() -> Any:
    mask = np.zeros((1, 4, 4))
    mask[0, 1, 1] = 1
    mask[0, 0, 2] = 10
    return mask


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        (None, 25),
        ((0, 0), 25),
        ((1, 0), 69),
        ((0, 1), 36),
        ((2, -1), 102),
        ((-1.9, 0.9), 1),
        ((4, 0), 0),
        ((-100, 100), 0),
    ],
)
@pytest.mark.parametrize("use_sparse", [None, False, pytest.param(True, marks=pytest.mark.slow)])
def test_shifts_follow_the_worked_examples(
    ctx: Any, ds: Any, shift: Any, expected: int, use_sparse: Any
) -> None:
    udf = ApplyMasksUDF(two_points, shifts=shift, use_sparse=use_sparse)
    result = ctx.run_udf(dataset=ds, udf=udf, roi=(0, 0))["intensity"]
    assert result.raw_data.tolist() == [[expected]]


@pytest.mark.parametrize("roi", [None, np.array([[0, 1, 1], [1, 0, 1]], dtype=bool)])
def test_each_frame_can_have_its_own_shift(ctx: Any, ds: Any, data: Any, roi: Any) -> None:
    shifts = np.random.default_rng(3).integers(-3, 4, (2, 3, 2))
    aux = UDF.aux_data(shifts, kind="nav", extra_shape=(2,), dtype=shifts.dtype)
    result = ctx.run_udf(dataset=ds, udf=ApplyMasksUDF(two_points, shifts=aux), roi=roi)["intensity"]
    padded = np.zeros((12, 12))
    padded[4:8, 4:8] = two_points()[0]
    for place in np.argwhere(np.ones((2, 3)) if roi is None else roi):
        y, x = shifts[tuple(place)]
        moved = padded[4 - y : 8 - y, 4 - x : 8 - x]
        assert result.data[(*place, 0)] == (data[tuple(place)] * moved).sum()


def test_shifts_choose_the_method() -> None:
    assert ApplyMasksUDF(two_points).get_method() is UDF.UDF_METHOD.TILE
    assert ApplyMasksUDF(two_points, shifts=(1, 1)).get_method() is UDF.UDF_METHOD.FRAME


@pytest.mark.parametrize("use_sparse", ["scipy.sparse", "scipy.sparse.csr", "scipy.sparse.csc"])
def test_scipy_cannot_shift(use_sparse: str) -> None:
    message = r"Sparse backend scipy\.sparse not supported for shifts, use sparse\.pydata instead\."
    with pytest.raises(ValueError, match=message):
        ApplyMasksUDF(two_points, shifts=(1, 1), use_sparse=use_sparse)
