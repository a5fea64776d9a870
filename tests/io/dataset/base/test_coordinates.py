from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import sparse
from hypothesis import given
from hypothesis import strategies as st

from libertem.common import Shape, Slice
from libertem.io.dataset.base import _roi_to_nd_indices, get_coordinates
from libertem.io.dataset.base.roi import roi_for_partition
from libertem.io.dataset.memory import MemoryDataSet

DATASET = Shape((2, 4, 4, 5), sig_dims=2)
ROI = np.zeros((2, 4), dtype=bool)
ROI[(0, 0, 1), (1, 3, 2)] = True


def frames(start: int, n: int) -> Slice:
    return Slice((start, 0, 0), Shape((n, 4, 5), sig_dims=2))


def test_coordinates_of_a_slice() -> None:
    coordinates = get_coordinates(frames(3, 3), DATASET)
    assert coordinates.tolist() == [[0, 3], [1, 0], [1, 1]]
    assert coordinates.dtype == np.int64


@pytest.mark.parametrize("roi", [ROI, ROI.reshape(-1), sparse.COO.from_numpy(ROI)])
def test_coordinates_on_the_compressed_axis(roi: npt.NDArray[np.bool_]) -> None:
    assert get_coordinates(frames(0, 2), DATASET, roi).tolist() == [[0, 1], [0, 3]]
    assert get_coordinates(frames(2, 1), DATASET, roi).tolist() == [[1, 2]]


@pytest.mark.parametrize("roi", [None, np.zeros((2, 4), dtype=bool)])
def test_coordinates_of_nothing_are_integers(roi: npt.NDArray[np.bool_] | None) -> None:
    coordinates = get_coordinates(frames(0, 0), DATASET, roi)
    assert coordinates.shape == (0, 2)
    assert coordinates.dtype == np.int64


@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.data())
def test_coordinates_agree_with_argwhere(nav: list[int], data: st.DataObject) -> None:
    n = int(np.prod(nav))
    roi = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n))).reshape(nav)
    positions = np.argwhere(roi)
    start = data.draw(st.integers(0, len(positions)))
    stop = data.draw(st.integers(start, len(positions)))
    where = Slice((start, 0), Shape((stop - start, 7), sig_dims=1))
    result = get_coordinates(where, Shape((*nav, 7), sig_dims=1), roi)
    np.testing.assert_array_equal(result, positions[start:stop])


def test_selected_positions_inside_a_slice() -> None:
    part = Slice((0, 1, 0, 0), Shape((2, 2, 4, 5), sig_dims=2))
    assert list(_roi_to_nd_indices(ROI, part)) == [(0, 1), (1, 2)]


@pytest.mark.parametrize("roi", [ROI, ROI.reshape(-1), sparse.COO.from_numpy(ROI)])
def test_a_partition_has_its_part_of_the_mask(roi: npt.NDArray[np.bool_]) -> None:
    first, second = MemoryDataSet(data=np.zeros((2, 4, 4, 5)), num_partitions=2).get_partitions()
    assert roi_for_partition(roi, first).tolist() == [False, True, False, True]
    assert roi_for_partition(roi, second).tolist() == [False, False, True, False]
