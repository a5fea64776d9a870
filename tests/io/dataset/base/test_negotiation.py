from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import sparse
from hypothesis import given
from hypothesis import strategies as st

from libertem.common import Shape
from libertem.common.math import prod
from libertem.common.protocols import TilingPreferences, TilingSize, UDFMethod
from libertem.exceptions import UDFException
from libertem.io.corrections import CorrectionSet
from libertem.io.dataset.base import (
    BufferedBackend,
    DataSet,
    DataSetMeta,
    DirectBackend,
    IOBackend,
    MMapBackend,
    Negotiator,
    TilingScheme,
)
from libertem.io.dataset.base.ranges import contiguous_runs
from libertem.io.dataset.memory import MemoryDataSet


@dataclass
class Wish:
    """What the negotiation sees of a UDF."""

    method: Any = UDFMethod.TILE
    depth: Any = TilingSize.DEPTH_DEFAULT
    total_size: Any = math.inf

    def get_method(self) -> Any:
        return self.method

    def get_tiling_preferences(self) -> TilingPreferences:
        return {"depth": self.depth, "total_size": self.total_size}


TILE = Wish()
BEST_FIT = Wish(total_size=TilingSize.SIZE_BEST_FIT)
FRAME = Wish(UDFMethod.FRAME)
PARTITION = Wish(UDFMethod.PARTITION)


class Files(DataSet):
    """A data set in files, as far as the negotiation is concerned."""

    def __init__(self, shape: Shape, dtype: Any, io_backend: IOBackend) -> None:
        super().__init__(io_backend)
        self._meta = DataSetMeta(shape=shape, raw_dtype=dtype)

    @property
    def shape(self) -> Shape:
        assert self._meta is not None
        return self._meta.shape


class Stubborn(Files):
    def adjust_tileshape(self, tileshape: tuple[int, ...], roi: Any) -> tuple[int, ...]:
        return (tileshape[0], 64, *tileshape[2:])


def negotiate(
    udfs: list[Wish],
    dtype: str = "f4",
    partition: tuple[int, ...] = (128, 128, 128),
    sig_dims: int = 2,
    read: str | None = None,
    backend: IOBackend | None = None,
    cls: type[Files] = Files,
    **kwargs: Any,
) -> TilingScheme:
    shape = Shape((2 * partition[0], *partition[1:]), sig_dims=sig_dims)
    native = np.dtype(dtype)
    if read is None:
        read = "f4" if native.itemsize <= 2 else native.str
    return Negotiator().get_scheme(
        udfs=udfs,
        dataset=cls(shape, native, MMapBackend() if backend is None else backend),
        read_dtype=read,
        approx_partition_shape=Shape(partition, sig_dims=sig_dims),
        **kwargs,
    )


ROI = np.ones((16, 16), dtype=bool)


@pytest.mark.parametrize(
    ("arguments", "udfs", "expected", "intent"),
    [
        ({}, [TILE], (128, 128, 128), "tile"),
        ({}, [BEST_FIT], (64, 32, 128), "tile"),
        ({"roi": ROI}, [TILE], (64, 32, 128), "tile"),
        ({"dtype": "u2"}, [TILE], (32, 64, 128), "tile"),
        ({"dtype": "u1"}, [TILE], (16, 128, 128), "tile"),
        ({"read": "f8"}, [TILE], (32, 32, 128), "tile"),
        ({}, [FRAME], (16, 128, 128), "frame"),
        ({}, [PARTITION], (128, 128, 128), "partition"),
        ({}, [TILE, FRAME], (16, 128, 128), "frame"),
        ({}, [TILE, BEST_FIT], (64, 32, 128), "tile"),
        ({}, [BEST_FIT, PARTITION], (128, 128, 128), "partition"),
        ({}, [FRAME, PARTITION], (128, 128, 128), "partition"),
        ({}, [Wish(depth=8, total_size=64 * 1024)], (4, 32, 128), "tile"),
        ({"roi": ROI}, [Wish(depth=1, total_size=1)], (1, 32, 128), "tile"),
        ({"partition": (2, 1024, 1024), "roi": ROI}, [TILE], (2, 128, 1024), "tile"),
        ({"partition": (64, 256, 256), "dtype": "u2"}, [TILE], (32, 32, 256), "tile"),
        ({"partition": (64, 256, 256), "dtype": "u2"}, [FRAME], (4, 256, 256), "frame"),
        ({"partition": (128, 16384), "sig_dims": 1, "roi": ROI}, [TILE], (16, 16384), "tile"),
        ({"partition": (100, 100, 60), "roi": ROI}, [TILE], (64, 68, 60), "tile"),
    ],
)
def test_worked_examples(
    arguments: dict[str, Any], udfs: list[Wish], expected: tuple[int, ...], intent: str
) -> None:
    scheme = negotiate(udfs, **arguments)
    assert scheme.shape.to_tuple() == expected
    assert scheme.intent == intent


@pytest.mark.parametrize("backend", [BufferedBackend(), DirectBackend()])
def test_backends_that_always_copy_get_tiles_of_a_mebibyte(backend: IOBackend) -> None:
    assert negotiate([TILE], backend=backend).shape.to_tuple() == (64, 32, 128)


def test_a_slice_at_the_border_is_smaller() -> None:
    scheme = negotiate([TILE], partition=(100, 100, 60), roi=ROI)
    assert [s.shape.to_tuple() for _, s in scheme.slices] == [(68, 60), (32, 60)]


@pytest.mark.parametrize(
    ("shape", "base_shape", "expected"),
    [((1024, 144, 144), None, (65, 28, 144)), ((2048, 264, 264), (1, 8, 264), (124, 8, 264))],
)
def test_arrays_in_memory(
    shape: tuple[int, ...], base_shape: tuple[int, ...] | None, expected: tuple[int, ...]
) -> None:
    ds = MemoryDataSet(datashape=shape, num_partitions=1, base_shape=base_shape)
    scheme = Negotiator().get_scheme([BEST_FIT], ds, "f4", Shape(shape, sig_dims=2))
    assert scheme.shape.to_tuple() == expected


@pytest.mark.parametrize(("excluded", "expected"), [(None, (17, 930, 16)), ((930, 16), (4, 1860, 32))])
def test_blocks_and_excluded_pixels(excluded: tuple[int, int] | None, expected: tuple[int, ...]) -> None:
    data = np.broadcast_to(np.zeros((), dtype=np.float32), (32, 1860, 2048))
    ds = MemoryDataSet(data=data, num_partitions=1, base_shape=(1, 930, 16), force_need_decode=True)
    corrections = None
    if excluded is not None:
        mask = sparse.COO(coords=np.array([excluded]).T, data=True, shape=(1860, 2048))
        corrections = CorrectionSet(excluded_pixels=mask)
    udf = Wish(depth=128, total_size=TilingSize.SIZE_BEST_FIT)
    scheme = Negotiator().get_scheme(
        [udf], ds, "f4", Shape((32, 1860, 2048), sig_dims=2), corrections=corrections
    )
    assert scheme.shape.to_tuple() == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (1024, [1, 1]),
        (930 * 16 * 16, [2, 8]),
        (930 * 16 * 128, [2, 64]),
        (930 * 16 * 129, [2, 64]),
        (2 * 1860 * 2048, [2, 128]),
    ],
)
def test_scale_factors(size: int, expected: list[int]) -> None:
    factors = Negotiator()._get_scale_factors((930, 16), (1860, 2048), size=size)
    assert factors == expected
    assert all(type(factor) is int for factor in factors)


def test_scale_factors_start_at_their_minimum() -> None:
    assert Negotiator()._get_scale_factors((1, 1, 64), (64, 8, 64), 2048, min_factors=(2, 4, 1)) == [8, 4, 1]


def test_preferences_are_translated() -> None:
    negotiator = Negotiator()
    assert negotiator._get_udf_size_pref(TILE) == math.inf
    assert negotiator._get_udf_size_pref(BEST_FIT) == 2**20
    assert negotiator._get_udf_size_pref(Wish(total_size=4096)) == 4096


@pytest.mark.parametrize(
    ("udfs", "intent"),
    [([TILE], "tile"), ([TILE, FRAME], "frame"), ([FRAME, PARTITION, TILE], "partition")],
)
def test_the_intent_is_that_of_the_most_demanding_udf(udfs: list[Wish], intent: str) -> None:
    assert Negotiator()._get_intent(udfs) == intent


def test_there_has_to_be_a_udf() -> None:
    with pytest.raises(ValueError, match="empty list of UDFs"):
        negotiate([])


def test_unknown_methods_are_refused() -> None:
    with pytest.raises(UDFException, match="unknown UDF method 'pixel'"):
        negotiate([Wish("pixel")])


def test_depth_may_be_infinite() -> None:
    assert negotiate([Wish(depth=math.inf)]).shape.to_tuple() == (128, 128, 128)
    assert negotiate([Wish(depth=math.inf)], roi=ROI).shape.to_tuple() == (64, 32, 128)


def test_three_signal_axes_are_tiled_contiguously() -> None:
    shape = (16, 64, 64, 64)
    scheme = negotiate([TILE], dtype="u2", partition=shape, sig_dims=3, roi=ROI)
    for _, part in scheme.slices:
        assert len(contiguous_runs(part.origin, part.shape.to_tuple(), shape[1:])[0]) == 1
    # 16384 bytes of uint16 at least, 1 MiB of float32 at most.
    assert prod(scheme.shape.sig) >= 8192
    assert prod(scheme.shape) <= 2**18


def test_intermediate_results_are_kept() -> None:
    debug = negotiate([TILE], roi=ROI)._debug
    assert debug == {
        "min_factors": [32, 32, 1],
        "factors": [64, 32, 1],
        "tileshape": (64, 32, 128),
        "size": 2**20,
        "size_px": 2**18,
        "full_base_shape": (1, 1, 128),
        "need_decode": True,
        "depth": 32,
    }


def test_a_data_set_that_changes_the_signal_part_is_pointed_out() -> None:
    with pytest.warns(UserWarning, match="changed the tile shape"):
        scheme = negotiate([BEST_FIT], cls=Stubborn, partition=(16, 128, 128))
    assert scheme.shape.sig.to_tuple() == (64, 128)


def test_a_data_set_may_not_separate_excluded_pixels() -> None:
    mask = np.zeros((128, 128), dtype=bool)
    mask[3, 3] = True
    with pytest.raises(ValueError, match=r"changed the tile shape .* excluded pixels"):
        negotiate(
            [BEST_FIT],
            cls=Stubborn,
            partition=(16, 128, 128),
            corrections=CorrectionSet(excluded_pixels=mask),
        )


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 16, 200), "larger than a frame"),
        ((100, 16, 128), "does not fit into size"),
        ((1, 12, 128), "incompatible with base shape"),
    ],
)
def test_impossible_shapes_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Negotiator().validate(
            shape,
            ds_sig_shape=(128, 128),
            size=2**18,
            io_max_size=2**16,
            itemsize=4,
            base_shape=(1, 8, 128),
            corrections=None,
        )


def validate_large_frame(corrections: CorrectionSet) -> None:
    Negotiator().validate((1, 8, 8), (8, 8), 100, 100, 4, (1, 8, 8), corrections)


def test_excluded_pixels_may_require_large_tiles() -> None:
    mask = np.zeros((8, 8), dtype=bool)
    mask[3, 3] = True
    with pytest.warns(UserWarning, match="excluded pixels require it"):
        validate_large_frame(CorrectionSet(excluded_pixels=mask))
    with pytest.raises(ValueError, match="does not fit"):
        validate_large_frame(CorrectionSet(dark=np.zeros((8, 8))))


def test_full_extents_need_not_be_multiples_of_the_base() -> None:
    Negotiator().validate((3, 20, 128), (20, 128), 2**20, 2**20, 4, (1, 8, 128), None)


WISHES = st.builds(
    Wish,
    st.sampled_from(list(UDFMethod)),
    st.just(TilingSize.DEPTH_DEFAULT) | st.integers(1, 200) | st.just(math.inf),
    st.just(TilingSize.SIZE_BEST_FIT) | st.integers(1, 2**22) | st.just(math.inf),
)


@given(
    st.lists(WISHES, min_size=1, max_size=3),
    st.lists(st.integers(1, 300), min_size=1, max_size=3),
    st.integers(1, 200),
    st.sampled_from(["u1", "u2", "f4", "f8"]),
    st.booleans(),
)
def test_every_negotiation_ends_with_tiles_that_cover_a_frame(
    udfs: list[Wish], sig: list[int], frames: int, dtype: str, masked: bool
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheme = negotiate(
            udfs,
            dtype=dtype,
            partition=(frames, *sig),
            sig_dims=len(sig),
            roi=np.ones(2 * frames, dtype=bool) if masked else None,
        )
    assert 1 <= scheme.depth <= frames
    covered: npt.NDArray[np.int_] = np.zeros(sig, dtype=int)
    for _, part in scheme.slices:
        part.get(covered)[...] += 1
        assert len(contiguous_runs(part.origin, part.shape.to_tuple(), sig)[0]) == 1
    assert (covered == 1).all()
    methods = {udf.method for udf in udfs}
    if methods != {UDFMethod.TILE}:
        assert scheme.shape.sig.to_tuple() == tuple(sig)
    if UDFMethod.PARTITION in methods:
        assert scheme.depth == frames


def scale(
    shape: tuple[int, ...], containing: tuple[int, ...], size: int, minimum: tuple[int, ...]
) -> tuple[int, ...]:
    """The rule of the contract for growing a shape, first axis first."""
    factors = list(minimum)
    rest: float = max(1, size / math.prod(s * f for s, f in zip(shape, factors, strict=True)))
    for i in range(len(shape)):
        factors[i] = min(max(math.floor(rest * factors[i]), factors[i]), containing[i] // shape[i])
        rest = max(1, size // math.prod(s * f for s, f in zip(shape, factors, strict=True)))
    return tuple(factors)


@given(
    st.integers(1, 300),
    st.lists(st.integers(1, 300), min_size=1, max_size=2),
    st.integers(1, 300),
    st.integers(1, 2**22),
    st.sampled_from(["u1", "u2", "f4", "f8"]),
)
def test_up_to_two_signal_axes_follow_the_rule_of_the_contract(
    frames: int, sig: list[int], depth: int, total_size: int, dtype: str
) -> None:
    item = np.dtype(dtype).itemsize
    base = (*(1 for _ in sig[1:]), sig[-1])
    io_max = item * frames * math.prod(sig)
    size_px = max(min(total_size, io_max), item * math.prod(base)) // item
    min_factors = scale(base, tuple(sig), 16384 // item, tuple(1 for _ in base))
    min_px = math.prod(b * f for b, f in zip(base, min_factors, strict=True))
    start = min(depth, frames, max(1, size_px // min_px))
    factors = scale((1, *base), (frames, *sig), size_px, (start, *min_factors))
    expected = tuple(b * f for b, f in zip((1, *base), factors, strict=True))
    udf = Wish(depth=depth, total_size=total_size)
    if math.prod(expected) > max(size_px, io_max // item):
        with pytest.raises(ValueError, match="does not fit"):
            negotiate([udf], dtype, (frames, *sig), len(sig), read=dtype)
    else:
        scheme = negotiate([udf], dtype, (frames, *sig), len(sig), read=dtype)
        assert scheme.shape.to_tuple() == expected
