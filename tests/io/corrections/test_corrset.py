from __future__ import annotations

import itertools
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse as sp
import sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from libertem.common import Shape, Slice
from libertem.corrections import CorrectionSet as FaceOfPackage
from libertem.corrections.corrset import CorrectionSet as FaceOfModule
from libertem.io.corrections import CorrectionSet
from libertem.io.corrections.detector import RepairValueError

Array = npt.NDArray[Any]


def oracle(frames: Array, dark: Array | None, gain: Array | None, excluded: Array | None) -> Array:
    """Correct whole frames the slow way; pixels without usable neighbours keep their value."""
    given = [a.dtype for a in (dark, gain) if a is not None]
    wide = frames.astype(np.result_type(frames.dtype, *given))
    if dark is not None:
        wide = wide - dark
    if gain is not None:
        wide = wide * gain
    result = wide.astype(frames.dtype)
    if excluded is None:
        return result
    source = result.astype(np.result_type(result.dtype, np.float64))
    for pixel in zip(*np.nonzero(excluded), strict=True):
        around = itertools.product(*[(p - 1, p, p + 1) for p in pixel])
        usable = [
            source[(..., *q)]
            for q in around
            if all(0 <= c < n for c, n in zip(q, excluded.shape, strict=True)) and not excluded[q]
        ]
        if usable:
            # As real numbers: NumPy divides complex ones less precisely.
            total = np.ascontiguousarray(sum(usable))
            result[(..., *pixel)] = (total.view(np.float64) / len(usable)).view(total.dtype)
    return result


def whole(frames: Array, sig_dims: int = 2) -> Slice:
    return Slice.from_shape(frames.shape, sig_dims=sig_dims)


def excluding(shape: tuple[int, ...], *pixels: tuple[int, ...]) -> Any:
    return sparse.COO(coords=np.array(pixels).T, data=1, shape=shape)


def applied(corrections: CorrectionSet, frames: Array, sig_dims: int = 2) -> Array:
    frames = frames.copy()
    corrections.apply(frames, whole(frames, sig_dims))
    return frames


FRAME = np.arange(25, dtype=np.float32).reshape(1, 5, 5)

# --- values -----------------------------------------------------------------------------------------


def test_all_paths_name_one_class() -> None:
    assert FaceOfPackage is CorrectionSet
    assert FaceOfModule is CorrectionSet


def test_dark_is_subtracted_before_gain_is_multiplied() -> None:
    gain = np.full((5, 5), 2)
    gain[0, 0] = 3
    result = applied(CorrectionSet(dark=np.ones((5, 5)), gain=gain), FRAME)
    np.testing.assert_array_equal(result[0, 0], [-3, 0, 2, 4, 6])


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        ([(2, 2)], [12.0]),
        ([(0, 0)], [4.0]),
        ([(0, 2)], [5.0]),
        ([(2, 2), (2, 3)], [np.float32(11.857142), np.float32(13.142858)]),
    ],
)
def test_excluded_pixels_become_the_mean_of_usable_neighbours(
    pixels: list[tuple[int, int]], expected: list[float]
) -> None:
    result = applied(CorrectionSet(excluded_pixels=excluding((5, 5), *pixels)), FRAME)
    assert [result[0][pixel] for pixel in pixels] == expected


def test_repair_uses_corrected_neighbours() -> None:
    corrections = CorrectionSet(
        dark=np.ones((5, 5)), gain=np.full((5, 5), 2), excluded_pixels=excluding((5, 5), (2, 2))
    )
    assert applied(corrections, FRAME)[0, 2, 2] == 22


def test_pixels_without_neighbours_keep_their_value_if_allowed() -> None:
    block = np.zeros((5, 5), dtype=bool)
    block[:3, :3] = True
    result = applied(CorrectionSet(excluded_pixels=block, allow_empty=True), FRAME)[0]
    np.testing.assert_array_equal(result[:2, :2], [[0, 1], [5, 6]])
    np.testing.assert_array_equal(result[:2, 2], [5.5, 8])
    np.testing.assert_allclose(result[2, :3], [15.5, 16, 14.4], rtol=1e-7)


def test_pixels_without_neighbours_are_refused_at_construction() -> None:
    block = np.zeros((5, 5), dtype=bool)
    block[:3, :3] = True
    with pytest.raises(RepairValueError, match=r"number \[\[0\]\s+\[1\]\s+\[3\]\s+\[4\]\]"):
        CorrectionSet(excluded_pixels=block)


def test_one_and_three_dimensional_signals_are_repaired() -> None:
    line = np.arange(10, dtype=np.float32).reshape(1, 10)
    result = applied(CorrectionSet(excluded_pixels=excluding((10,), (0,), (5,))), line, sig_dims=1)
    assert result[0, 0] == 1
    assert result[0, 5] == 5
    cube = np.arange(27, dtype=np.float32).reshape(1, 3, 3, 3)
    centre = CorrectionSet(excluded_pixels=excluding((3, 3, 3), (1, 1, 1)))
    assert applied(centre, cube, sig_dims=3)[0, 1, 1, 1] == 13


def test_nan_in_a_neighbour_propagates() -> None:
    frame = FRAME.copy()
    frame[0, 1, 1] = np.nan
    corrections = CorrectionSet(excluded_pixels=excluding((5, 5), (2, 2), (4, 4)))
    result = applied(corrections, frame)
    assert np.isnan(result[0, 2, 2])
    assert result[0, 4, 4] == (18 + 19 + 23) / 3


def test_nan_in_the_excluded_pixel_disappears() -> None:
    frame = FRAME.copy()
    frame[0, 2, 2] = np.nan
    assert applied(CorrectionSet(excluded_pixels=excluding((5, 5), (2, 2))), frame)[0, 2, 2] == 12


@pytest.mark.parametrize("map_dtype", ["u1", "i4", "f2", "f4", "f8", ">f8", ">i2"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_products_are_rounded_once_from_the_common_type(dtype: str, map_dtype: str) -> None:
    rng = np.random.default_rng(3)
    frames = rng.normal(size=(3, 70, 70)).astype(dtype) * 1000
    dark, gain = (rng.random((2, 70, 70)) * 100).astype(map_dtype)
    expected = oracle(frames, dark, gain, None)
    np.testing.assert_array_equal(applied(CorrectionSet(dark, gain), frames), expected)
    np.testing.assert_array_equal(applied(CorrectionSet(dark), frames), oracle(frames, dark, None, None))
    np.testing.assert_array_equal(applied(CorrectionSet(gain=gain), frames), oracle(frames, None, gain, None))


@pytest.mark.parametrize("map_dtype", ["f4", "f8", "c8", "c16"])
@pytest.mark.parametrize("dtype", ["c8", "c16"])
def test_complex_data_is_corrected(dtype: str, map_dtype: str) -> None:
    rng = np.random.default_rng(4)
    real, imag = rng.integers(-50, 50, (2, 3, 6, 7))
    frames = (real + 1j * imag).astype(dtype)
    dark, gain = rng.integers(-5, 5, (2, 6, 7)).astype(map_dtype)
    if np.dtype(map_dtype).kind == "c":
        gain = gain * (2 - 1j)
    excluded = rng.random((6, 7)) < 0.2
    corrections = CorrectionSet(dark, gain, excluded)
    np.testing.assert_allclose(applied(corrections, frames), oracle(frames, dark, gain, excluded), rtol=1e-6)


def test_neighbours_are_summed_in_double_precision() -> None:
    frame = np.ones((1, 3, 3), dtype=np.float32)
    frame[0, 0, 0] = 2.0**25
    frame[0, 2, 2] = -(2.0**25)
    result = applied(CorrectionSet(excluded_pixels=excluding((3, 3), (1, 1))), frame)
    assert result[0, 1, 1] == 6 / 8


# --- excluded pixels in any form ----------------------------------------------------------------------

MASK = np.zeros((4, 6), dtype=bool)
MASK[(0, 2, 3), (5, 1, 0)] = True


@pytest.mark.parametrize(
    "excluded",
    [
        MASK,
        MASK.astype(np.float32) * -7,
        MASK.tolist(),
        sparse.COO(MASK),
        sparse.COO(coords=np.nonzero(MASK), data=1, shape=Shape((4, 6), sig_dims=2)),
        sparse.COO(coords=np.nonzero(MASK), data=0, shape=(4, 6)),
        sparse.COO(coords=np.nonzero(~MASK), data=False, shape=(4, 6), fill_value=np.bool_(True)),
        sparse.DOK(MASK),
        sparse.GCXS(MASK),
        sp.csr_matrix(MASK),
        sp.coo_array(MASK),
    ],
    ids=lambda excluded: type(excluded).__name__,
)
def test_excluded_pixels_may_be_any_kind_of_array(excluded: Any) -> None:
    stored = CorrectionSet(excluded_pixels=excluded).get_excluded_pixels()
    assert isinstance(stored, sparse.COO)
    assert stored.shape == (4, 6)
    np.testing.assert_array_equal(stored.todense(), MASK)


def test_getters_return_what_was_given() -> None:
    dark, gain = np.random.default_rng(0).random((2, 4, 6))
    corrections = CorrectionSet(dark=dark, gain=gain)
    np.testing.assert_array_equal(corrections.get_dark_frame(), dark)
    np.testing.assert_array_equal(corrections.get_gain_map(), gain)
    assert corrections.get_excluded_pixels() is None
    assert CorrectionSet().get_dark_frame() is None
    assert CorrectionSet().get_gain_map() is None


def test_have_corrections_asks_whether_anything_was_given() -> None:
    assert not CorrectionSet().have_corrections()
    assert CorrectionSet(dark=np.zeros((2, 2))).have_corrections()
    assert CorrectionSet(gain=np.ones((2, 2))).have_corrections()
    assert CorrectionSet(excluded_pixels=np.zeros((2, 2), dtype=bool)).have_corrections()


def test_nothing_excluded_changes_nothing() -> None:
    corrections = CorrectionSet(excluded_pixels=np.zeros((5, 5), dtype=bool))
    np.testing.assert_array_equal(applied(corrections, FRAME), FRAME)
    assert corrections.adjust_tileshape((1, 3), (5, 5), (1, 1)) == (1, 3)


def test_an_empty_set_leaves_any_data_alone() -> None:
    integers = np.arange(6).reshape(1, 2, 3)
    np.testing.assert_array_equal(applied(CorrectionSet(), integers), np.arange(6).reshape(1, 2, 3))


def test_later_changes_of_the_arrays_have_no_effect() -> None:
    dark = np.ones((5, 5))
    corrections = CorrectionSet(dark=dark)
    dark[:] = 100
    np.testing.assert_array_equal(applied(corrections, FRAME), FRAME - 1)


# --- refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kwargs", "names"),
    [
        ({"dark": np.ones((4, 5)), "gain": np.ones((5, 4))}, ("dark (4, 5)", "gain (5, 4)")),
        ({"dark": np.ones((4, 5)), "excluded_pixels": MASK}, ("dark (4, 5)", "excluded_pixels (4, 6)")),
        ({"gain": np.ones(6), "excluded_pixels": MASK}, ("gain (6,)", "excluded_pixels (4, 6)")),
    ],
)
def test_shapes_that_differ_are_refused_at_construction(
    kwargs: dict[str, Any], names: tuple[str, str]
) -> None:
    with pytest.raises(ValueError, match="signal shape") as caught:
        CorrectionSet(**kwargs)
    assert all(name in str(caught.value) for name in names)


@pytest.mark.parametrize("name", ["dark", "gain", "excluded_pixels"])
def test_other_frame_shapes_are_refused_before_a_run(name: str) -> None:
    corrections = CorrectionSet(**{name: np.eye(5)})
    with pytest.raises(ValueError, match=r"\(5, 5\).*\(6, 5\)"):
        corrections.adjust_tileshape((1, 5), (6, 5), (1, 1))
    with pytest.raises(ValueError, match=r"\(6, 5\).*\(5, 5\)"):
        corrections.apply(np.zeros((1, 6, 5)), Slice.from_shape((1, 6, 5), sig_dims=2))
    with pytest.raises(ValueError, match=r"\(5,\).*\(5, 5\)"):
        corrections.apply(np.zeros((1, 5)), Slice.from_shape((1, 5), sig_dims=1))


def test_a_tile_that_does_not_fit_its_slice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 4, 5\).*\(5, 5\)"):
        CorrectionSet(dark=np.ones((5, 5))).apply(np.zeros((1, 4, 5)), whole(FRAME))


@pytest.mark.parametrize("dtype", ["u2", "i8", "?", "f2", "O"])
def test_tiles_that_cannot_hold_corrected_values_are_refused(dtype: str) -> None:
    with pytest.raises(TypeError, match="In-place correction only supported for floating point data"):
        applied(CorrectionSet(dark=np.ones((5, 5))), FRAME.astype(dtype))


def test_complex_maps_cannot_correct_real_data() -> None:
    with pytest.raises(TypeError, match="complex"):
        applied(CorrectionSet(dark=np.ones((5, 5), dtype=np.complex64)), FRAME)


def test_other_arrays_than_numpy_are_refused() -> None:
    with pytest.raises(TypeError, match="csr_matrix"):
        CorrectionSet(dark=np.ones(5)).apply(sp.csr_matrix((1, 5)), Slice.from_shape((1, 5), 1))


def test_read_only_tiles_are_refused_and_stay_as_they_are() -> None:
    frame = FRAME.copy()
    frame.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        CorrectionSet(dark=np.ones((5, 5))).apply(frame, whole(frame))
    np.testing.assert_array_equal(frame, FRAME)


# --- tile shapes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sig", "pixels", "tile", "base", "expected"),
    [
        ((64, 64), [(0, 0), (16, 32)], (16, 16), (1, 1), (15, 15)),
        ((64, 64), [(0, 0), (16, 32)], (16, 64), (8, 1), (24, 64)),
        ((64, 64), [(0, 0), (16, 32)], (1, 64), (1, 64), (3, 64)),
        ((5, 5), [(2, 2)], (2, 2), (1, 1), (4, 4)),
        ((1860, 9), [(930, 0)], (1, 9), (1, 9), (4, 9)),
        ((1860, 9), [(930, 0)], (2, 9), (1, 9), (4, 9)),
        ((1860, 9), [(930, 0)], (16, 9), (1, 9), (16, 9)),
        ((1860, 9), [(930, 0)], (930, 9), (1, 9), (929, 9)),
        ((1860, 9), [(930, 0)], (1000, 9), (1, 9), (1000, 9)),
        ((1860, 9), [(930, 0)], (930, 9), (930, 9), (1860, 9)),
        # More than a third of the rows hold excluded pixels, exactly a third of the columns do.
        ((5, 6), [(1, 0), (3, 3)], (1, 1), (1, 1), (5, 5)),
        ((1, 8), [(0, 0)], (1, 1), (1, 1), (1, 2)),
    ],
)
def test_tile_shapes_of_the_sheets(
    sig: tuple[int, ...],
    pixels: list[tuple[int, ...]],
    tile: tuple[int, ...],
    base: tuple[int, ...],
    expected: tuple[int, ...],
) -> None:
    corrections = CorrectionSet(excluded_pixels=excluding(sig, *pixels))
    assert corrections.adjust_tileshape(tile, sig, base) == expected


def test_tile_shapes_stay_without_excluded_pixels() -> None:
    for corrections in (CorrectionSet(), CorrectionSet(dark=np.ones((64, 64)))):
        assert corrections.adjust_tileshape((3, 7), (64, 64), (1, 1)) == (3, 7)


def is_legal(tile: tuple[int, ...], excluded: Array) -> bool:
    """Whether no border of the grid of tiles lies next to an excluded pixel."""
    return all(
        border not in (p, p + 1)
        for axis, positions in enumerate(np.nonzero(excluded))
        for border in range(tile[axis], excluded.shape[axis], tile[axis])
        for p in positions
    )


@given(st.data())
def test_adjusted_tiles_never_separate_an_excluded_pixel_from_its_neighbours(data: st.DataObject) -> None:
    sig = tuple(data.draw(st.lists(st.integers(1, 90), min_size=1, max_size=2)))
    excluded = np.zeros(sig, dtype=bool)
    for _ in range(data.draw(st.integers(1, 4))):
        excluded[tuple(data.draw(st.integers(0, n - 1)) for n in sig)] = True
    base = tuple(data.draw(st.integers(1, n)) for n in sig)
    tile = tuple(
        min(n, b * data.draw(st.integers(1, max(1, n // b)))) for n, b in zip(sig, base, strict=True)
    )
    corrections = CorrectionSet(excluded_pixels=excluded, allow_empty=True)
    result = corrections.adjust_tileshape(tile, sig, base)
    assert is_legal(result, excluded)
    for r, n, b in zip(result, sig, base, strict=True):
        assert 0 < r <= n
        assert r == n or r % b == 0


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_correcting_tiles_of_any_legal_shape_equals_correcting_whole_frames(data: st.DataObject) -> None:
    sig = data.draw(
        st.one_of(
            st.tuples(st.integers(1, 12)),
            st.tuples(st.integers(1, 8), st.integers(1, 8)),
            st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
        )
    )
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    # Small integers: all sums and products are exact, so the order of evaluation cannot matter.
    frames = rng.integers(-99, 99, (5, *sig)).astype(data.draw(st.sampled_from(["f4", "f8", "c8", "c16"])))
    dark, gain = (
        rng.integers(-9, 9, sig).astype(dtype) if dtype else None
        for dtype in data.draw(st.tuples(*[st.sampled_from(["", "i2", "f4", "f8"])] * 2))
    )
    excluded = rng.random(sig) < data.draw(st.sampled_from([0, 0.02, 0.05, 0.3]))
    corrections = CorrectionSet(dark, gain, excluded, allow_empty=True)
    expected = oracle(frames, dark, gain, excluded)
    depth = data.draw(st.integers(1, 5))
    for tile_shape in itertools.product(*[range(1, n + 1) for n in sig]):
        if not is_legal(tile_shape, excluded):
            continue
        tiled = frames.copy()
        for part in whole(frames, len(sig)).subslices((depth, *tile_shape)):
            # A copy for some of the tiles, so that both strided and contiguous ones occur.
            tile = part.get(tiled)
            if data.draw(st.booleans()) if tile_shape == sig else sum(part.origin) % 2:
                tile = tile.copy()
            corrections.apply(tile, part)
            tiled[part.get()] = tile
        np.testing.assert_array_equal(tiled, expected)


# --- life of the object -----------------------------------------------------------------------------------


def test_pickling_keeps_the_corrections_and_drops_the_caches() -> None:
    rng = np.random.default_rng(5)
    dark, gain = rng.random((2, 64, 64)).astype(np.float32)
    excluded = rng.random((64, 64)) < 0.05
    corrections = CorrectionSet(dark, gain, excluded)
    size = len(pickle.dumps(corrections))
    frames = rng.random((2, 64, 64))
    expected = applied(corrections, frames)
    corrections.get_excluded_pixels()
    assert len(pickle.dumps(corrections)) == size
    copied = pickle.loads(pickle.dumps(corrections))
    np.testing.assert_array_equal(applied(copied, frames), expected)
    np.testing.assert_array_equal(copied.get_excluded_pixels().todense(), excluded)


def test_pickling_keeps_that_empty_environments_are_allowed() -> None:
    corrections = CorrectionSet(excluded_pixels=np.ones((2, 2)), allow_empty=True)
    copied = pickle.loads(pickle.dumps(corrections))
    np.testing.assert_array_equal(applied(copied, np.ones((1, 2, 2))), np.ones((1, 2, 2)))


def test_one_set_serves_several_threads() -> None:
    rng = np.random.default_rng(6)
    frames = rng.integers(0, 99, (40, 32, 32)).astype(np.float32)
    excluded = np.zeros((32, 32), dtype=bool)
    excluded[3::9, 3] = True
    dark = rng.integers(0, 9, (32, 32))
    expected = oracle(frames, dark, None, excluded)
    corrections = CorrectionSet(dark=dark, excluded_pixels=excluded)
    rows = corrections.adjust_tileshape((9, 32), (32, 32), (1, 32))[0]
    parts = list(whole(frames).subslices((1, rows, 32)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda part: corrections.apply(part.get(frames), part), parts))
    np.testing.assert_array_equal(frames, expected)


def test_repair_descriptor_describes_a_part_of_the_signal() -> None:
    corrections = CorrectionSet(excluded_pixels=excluding((8, 8), (1, 1), (6, 6)))
    part = Slice(origin=(0, 4, 4), shape=Shape((2, 4, 4), sig_dims=2))
    descriptor = corrections.repair_descriptor(part)
    assert descriptor is not None
    np.testing.assert_array_equal(descriptor.exclude_flat, [2 * 4 + 2])
    assert CorrectionSet().repair_descriptor(Slice.from_shape((), sig_dims=0)) is None


@pytest.mark.parametrize(
    "statement",
    [
        "import libertem.io.corrections, libertem.corrections.detector",
        "CorrectionSet().apply(tile, where)",
        "CorrectionSet(dark=tile[0], gain=tile[0]).adjust_tileshape((1, 4), (4, 4), (1, 1))",
        "pickle.loads(pickle.dumps(CorrectionSet(excluded_pixels=np.eye(4)))).have_corrections()",
    ],
)
def test_descriptions_of_corrections_load_no_heavy_package(statement: str) -> None:
    assert_not_loaded(statement, "numba scipy sparse")


@pytest.mark.parametrize("name", ["dark", "gain", "excluded_pixels"])
def test_correcting_pixels_loads_no_sparse_package(name: str) -> None:
    # numba itself loads the extensions of all installed packages with the first function that it compiles.
    statement = f"""
import numba.core.entrypoints
numba.core.entrypoints._already_initialized = True
CorrectionSet({name}=np.eye(4)).apply(tile, where)
"""
    assert_not_loaded(statement, "scipy.sparse sparse sparseconverter")


def assert_not_loaded(statement: str, unwanted: str) -> None:
    script = f"""
import pickle
import sys
import numpy as np
from libertem.common import Slice
from libertem.io.corrections import CorrectionSet
tile, where = np.ones((2, 4, 4), np.float32), Slice.from_shape((2, 4, 4), 2)
{statement}
loaded = [name for name in {unwanted.split()} if name in sys.modules]
sys.exit(f"loaded: {{loaded}}" if loaded else 0)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
