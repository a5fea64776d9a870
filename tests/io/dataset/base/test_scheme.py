from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libertem.common import Shape, Slice
from libertem.io.dataset.base import Partition, TilingScheme
from libertem.io.dataset.memory import MemoryDataSet


def make(tileshape: tuple[int, ...], dataset: tuple[int, ...], intent: str | None = None) -> TilingScheme:
    return TilingScheme.make_for_shape(
        tileshape=Shape(tileshape, sig_dims=len(tileshape) - 1),
        dataset_shape=Shape(dataset, sig_dims=len(tileshape) - 1),
        intent=intent,  # type: ignore[arg-type]  # parametrized
    )


def partition(frames: int) -> Partition:
    return next(MemoryDataSet(data=np.zeros((frames, 4, 5)), num_partitions=1).get_partitions())


def test_rows_of_a_frame() -> None:
    scheme = make((3, 4, 32), (2, 8, 32, 32))
    assert len(scheme) == 8
    assert [s.origin for _, s in scheme.slices] == [(y, 0) for y in range(0, 32, 4)]
    assert all(s.shape == Shape((4, 32), sig_dims=2) for _, s in scheme.slices)
    assert [i for i, _ in scheme.slices] == list(range(8))
    assert (scheme.depth, scheme.shape, scheme.dataset_shape) == (
        3,
        Shape((3, 4, 32), 2),
        Shape((2, 8, 32, 32), 2),
    )


def test_slices_at_the_border_are_cut_off() -> None:
    scheme = make((4, 3, 5), (8, 4, 5))
    assert [(s.origin, s.shape.to_tuple()) for _, s in scheme.slices] == [((0, 0), (3, 5)), ((3, 0), (1, 5))]
    assert scheme[1] == Slice((3, 0), Shape((1, 5), 2))


def test_slices_as_an_array() -> None:
    array = make((4, 3, 5), (8, 4, 5)).slices_array
    assert array.dtype == np.int64
    assert array.tolist() == [[[0, 0], [3, 5]], [[3, 0], [1, 5]]]


@pytest.mark.parametrize("shape", [(2, 2, 4, 5), (4, 5)])
def test_the_navigation_axis_has_to_be_flat(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="tileshape should have flat navigation dimensions"):
        TilingScheme.make_for_shape(Shape(shape, sig_dims=2), Shape((2, 2, 4, 5), sig_dims=2))


def test_a_scheme_for_partitions_becomes_as_deep_as_the_partition() -> None:
    scheme = make((8, 4, 5), (8, 4, 5), "partition")
    adjusted = scheme.adjust_for_partition(partition(6))
    assert adjusted is not scheme
    assert (adjusted.depth, adjusted.intent, adjusted.slices) == (6, "partition", scheme.slices)
    assert scheme.adjust_for_partition(partition(8)) is scheme


@pytest.mark.parametrize("intent", ["tile", "frame", None])
def test_other_schemes_do_not_depend_on_the_partition(intent: str | None) -> None:
    scheme = make((8, 4, 5), (8, 4, 5), intent)
    assert scheme.adjust_for_partition(partition(6)) is scheme
    assert scheme.intent == intent


def test_schemes_are_only_equal_to_themselves() -> None:
    assert make((8, 4, 5), (8, 4, 5)) != make((8, 4, 5), (8, 4, 5))


def test_intermediate_results_of_the_negotiation_are_kept() -> None:
    shape = Shape((1, 4, 5), 2)
    assert TilingScheme.make_for_shape(shape, shape, debug={"size": 1})._debug == {"size": 1}


def test_a_scheme_survives_pickling() -> None:
    scheme = pickle.loads(pickle.dumps(make((4, 3, 5), (8, 4, 5), "frame")))
    assert (scheme.depth, len(scheme), scheme.intent) == (4, 2, "frame")


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=3))
def test_slices_cover_each_pixel_once(axes: list[tuple[int, int]]) -> None:
    sig, tile = [a for a, _ in axes], [min(a, b) for a, b in axes]
    hits = np.zeros(sig, dtype=int)
    for _, part in make((1, *tile), (1, *sig)).slices:
        part.get(hits)[...] += 1
    assert (hits == 1).all()
