from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse
import sparse

from libertem.common import Shape, Slice
from libertem.io.dataset.base import DataTile

WHERE = Slice(origin=(4, 0, 2), shape=Shape((2, 2, 3), sig_dims=2))
DATA = np.arange(12, dtype=np.uint16).reshape(2, 2, 3)


def test_a_tile_knows_its_place() -> None:
    tile = DataTile(DATA, tile_slice=WHERE, scheme_idx=7)
    assert tile.data is DATA
    assert (tile.tile_slice, tile.scheme_idx) == (WHERE, 7)
    assert (tile.shape, tile.size, tile.dtype) == ((2, 2, 3), 12, np.dtype("u2"))
    assert type(tile.shape) is tuple
    assert repr(tile) == "<DataTile <Slice origin=(4, 0, 2) shape=(2, 2, 3)> scheme_idx=7>"


def test_a_tile_can_be_made_from_a_tile() -> None:
    assert DataTile(DataTile(DATA, WHERE, 0), WHERE, 1).data is DATA


def test_flat_data_is_a_view() -> None:
    flat = DataTile(DATA, WHERE, 0).flat_data
    assert flat.shape == (2, 6)
    assert np.shares_memory(flat, DATA)


@pytest.mark.parametrize(("data", "expected"), [(DATA, True), (np.zeros((2, 2, 6))[..., ::2], False)])
def test_a_tile_says_whether_it_is_contiguous(data: Any, expected: bool) -> None:
    assert DataTile(data, WHERE, 0).c_contiguous is expected


def test_sparse_tiles_do_not_know_about_contiguity() -> None:
    assert DataTile(sparse.COO.from_numpy(DATA), WHERE, 0).c_contiguous is None


@pytest.mark.parametrize("shape", [(2, 2, 4), (2, 6), (12,), (1, 2, 2, 3)])
def test_dense_data_has_to_have_the_shape_of_the_slice(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"Mismatching shape .* expected \(2, 2, 3\)"):
        DataTile(np.zeros(shape), WHERE, 0)


def test_sparse_data_with_axes_has_to_have_the_shape_of_the_slice() -> None:
    assert DataTile(sparse.COO.from_numpy(DATA), WHERE, 0).flat_data.shape == (2, 6)
    with pytest.raises(ValueError, match="Mismatching shape"):
        DataTile(sparse.COO.from_numpy(DATA.reshape(2, 6)), WHERE, 0)


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("kind", [scipy.sparse.csr_matrix, scipy.sparse.csc_array, np.matrix])
def test_two_dimensional_formats_are_flattened(kind: Any) -> None:
    tile = DataTile(kind(DATA.reshape(2, 6)), WHERE, 0)
    assert tile.shape == (2, 2, 3)
    assert tile.data.shape == (2, 6)
    with pytest.raises(ValueError, match="Mismatching shape"):
        DataTile(kind(DATA.reshape(4, 3)), WHERE, 0)
