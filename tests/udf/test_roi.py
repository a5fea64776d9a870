"""Regions of interest in all the forms that users may write."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse
import sparse

from libertem.common.shape import Shape
from libertem.udf.roi import as_roi
from libertem.udf.sumsigudf import SumSigUDF

SHAPE = Shape((2, 3, 4, 4), sig_dims=2)
MASK = np.array([[1, 0, 1], [0, 1, 1]], dtype=bool)


def roi_of(value: Any, shape: Shape = SHAPE) -> Any:
    found = as_roi(value, shape)
    assert found is not None
    assert found.dtype == np.dtype(bool)
    assert found.shape == shape.nav.to_tuple()
    return found.tolist()


def test_no_roi_stays_none() -> None:
    assert as_roi(None, SHAPE) is None


@pytest.mark.parametrize("shape", [(2, 3), (6,), (3, 2), (6, 1)])
def test_masks_may_have_any_shape_with_the_right_number_of_elements(shape: tuple[int, ...]) -> None:
    assert roi_of(MASK.reshape(shape)) == MASK.tolist()


@pytest.mark.parametrize("dtype", ["i8", "f4", "u1"])
def test_other_dtypes_are_cast_with_a_warning(dtype: str) -> None:
    message = f"ROI dtype is {np.dtype(dtype)}, expected bool. Attempting cast to bool."
    with pytest.warns(UserWarning, match=message):
        assert roi_of(MASK.astype(dtype)) == MASK.tolist()


@pytest.mark.parametrize(
    "make", [sparse.COO, scipy.sparse.csr_matrix, scipy.sparse.coo_matrix, scipy.sparse.csc_array]
)
def test_sparse_masks_are_accepted(make: Any) -> None:
    assert roi_of(make(MASK)) == MASK.tolist()


@pytest.mark.parametrize(
    ("value", "positions"),
    [
        ((1, 2), [(1, 2)]),
        ([1, 2], [(1, 2)]),
        ((np.int64(0), np.uint8(1)), [(0, 1)]),
        ([((0, 0), True), ((1, 2), True)], [(0, 0), (1, 2)]),
        ((((0, 0), True), ((1, 2), True)), [(0, 0), (1, 2)]),
        ([([1, 1], np.True_)], [(1, 1)]),
    ],
)
def test_positions_are_set(value: Any, positions: Any) -> None:
    expected = np.zeros((2, 3), dtype=bool)
    for position in positions:
        expected[position] = True
    assert roi_of(value) == expected.tolist()


def test_positions_that_are_false_stand_for_everything_else() -> None:
    expected = np.ones((2, 3), dtype=bool)
    expected[0, 0] = expected[1, 2] = False
    assert roi_of([((0, 0), False), ((1, 2), False)]) == expected.tolist()


def test_positions_work_in_one_dimension() -> None:
    line = Shape((4, 2, 2), sig_dims=2)
    assert roi_of((2,), line) == [False, False, True, False]
    assert roi_of([((0,), True), ((3,), True)], line) == [True, False, False, True]
    assert roi_of([(1, False)], line) == [True, False, True, True]


def test_mixed_truth_values_are_refused() -> None:
    with pytest.raises(ValueError, match="same truth value"):
        as_roi([((0, 0), True), ((1, 2), False)], SHAPE)


@pytest.mark.parametrize("value", [(1,), (1, 2, 0), (5, 5), [((0, 7), True)]])
def test_positions_that_do_not_exist_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="roi: position"):
        as_roi(value, SHAPE)


def test_a_wrong_number_of_elements_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"roi: incompatible shapes: \(2, 2\) \(roi\) vs \(2, 3\) \(dataset\)"
    ):
        as_roi(np.ones((2, 2), dtype=bool), SHAPE)


def test_the_mask_is_copied() -> None:
    mask = MASK.copy()
    found = as_roi(mask, SHAPE)
    assert found is not None
    mask[:] = False
    assert found.tolist() == MASK.tolist()


def test_later_changes_of_the_mask_have_no_effect_on_a_run(inline: Any, ds: Any) -> None:
    mask = np.ones((2, 3), dtype=bool)
    steps = inline.run_udf_iter(dataset=ds, udf=SumSigUDF(), roi=mask)
    next(steps)
    mask[:] = False
    *_, last = steps
    assert last.buffers[0]["intensity"].data.tolist() == [[120, 376, 632], [888, 1144, 1400]]


@pytest.mark.parametrize(
    ("roi", "raw"),
    [
        ((1, 2), [1400]),
        ([((0, 0), True), ((1, 2), True)], [120, 1400]),
        ([((0, 0), False)], [376, 632, 888, 1144, 1400]),
    ],
)
def test_runs_follow_the_worked_example(ctx: Any, ds: Any, roi: Any, raw: Any) -> None:
    assert ctx.run_udf(dataset=ds, udf=SumSigUDF(), roi=roi)["intensity"].raw_data.tolist() == raw


def test_the_helper_of_the_data_set_makes_masks(ctx: Any, ds: Any) -> None:
    result = ctx.run_udf(dataset=ds, udf=SumSigUDF(), roi=ds.roi[0, 1:])["intensity"]
    np.testing.assert_array_equal(result.data, [[np.nan, 376, 632], [np.nan] * 3])
