"""Parts of data sets as arrays, like those of NumPy."""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libertem.api import Context, DataSet
from libertem.common.shape import Shape
from libertem.interact import crop
from libertem.interact import memory as limits
from libertem.interact.crop import CropUDF
from libertem.interact.indexing import parse_key
from libertem.io.corrections import CorrectionSet
from libertem.io.dataset.base import BasePartition
from libertem.io.dataset.memory import MemoryDataSet
from libertem.io.dataset.npy import NPYDataSet
from libertem.testing.writers.raw_csr import sparse_frames, write_raw_csr

NAV, SIG = (4, 5), (6, 7)
DATA = np.random.default_rng(0).integers(0, 1000, (*NAV, *SIG)).astype("u2")


@pytest.fixture(scope="module")
def ctx() -> Iterator[Context]:
    with Context.make_with("inline") as ctx:
        yield ctx


@pytest.fixture(scope="module")
def ds(ctx: Context, tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    path = tmp_path_factory.mktemp("scan") / "scan.npy"
    np.save(path, DATA)
    return ctx.load("npy", path=path, num_partitions=3)


def assert_same(found: Any, expected: npt.NDArray[Any]) -> None:
    assert type(found) is type(expected)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)


# --- like NumPy ---


def axis_index(extent: int) -> st.SearchStrategy[Any]:
    bound = st.none() | st.integers(-extent - 2, extent + 2)
    steps = st.none() | st.integers(-4, 4).filter(bool)
    return st.integers(-extent, extent - 1) | st.builds(slice, bound, bound, steps)


@st.composite
def keys(draw: st.DrawFn, shape: tuple[int, ...]) -> Any:
    """Index expressions that NumPy takes, with and without Ellipsis and a mask."""
    n_mask = draw(st.sampled_from([0, 2]))
    n_given = draw(st.integers(n_mask, len(shape)))
    where = draw(st.none() | st.integers(1 if n_mask else 0, max(1, n_given - n_mask)))
    axes = list(range(n_mask, n_given))
    if where is not None:
        # What follows the Ellipsis belongs to the last axes.
        n_before = min(len(axes), where - (1 if n_mask else 0))
        axes = axes[:n_before] + list(range(len(shape) - len(axes) + n_before, len(shape)))
    items = [draw(axis_index(shape[axis])) for axis in axes]
    if where is not None:
        items.insert(n_before, Ellipsis)
    if n_mask:
        bits = draw(st.lists(st.booleans(), min_size=math.prod(NAV), max_size=math.prod(NAV)))
        items.insert(0, np.array(bits).reshape(NAV))
    return items[0] if len(items) == 1 and draw(st.booleans()) else tuple(items)


@settings(max_examples=150, deadline=None)
@given(keys((*NAV, *SIG)))
def test_a_part_is_what_numpy_takes_from_the_whole(ds: DataSet, key: Any) -> None:
    assert_same(ds[key], DATA[key])


@settings(max_examples=300, deadline=None)
@given(keys((*NAV, *SIG)))
def test_selections_say_what_to_read(key: Any) -> None:
    selection = parse_key(key, Shape((*NAV, *SIG), sig_dims=2))
    frames = DATA.reshape(-1, *SIG) if selection.roi is None else DATA[selection.roi]
    part = frames[(slice(None), *(slice(r.start, r.stop, r.step) for r in selection.crop))]
    np.testing.assert_array_equal(part.reshape(selection.shape)[selection.finish], DATA[key])


@pytest.mark.parametrize("key", [(1, 2, 3, 4), (np.uint8(3), np.int64(-2)), np.array(2), ()])
def test_scalars_and_integers_of_numpy(ds: DataSet, key: Any) -> None:
    assert_same(ds[key], DATA[key])


def test_the_whole_is_an_array(ds: DataSet) -> None:
    assert_same(np.asarray(ds), DATA)
    assert_same(np.asarray(ds, dtype="float64"), DATA.astype("float64"))
    assert len(ds) == NAV[0]
    with pytest.raises(ValueError, match="copy=None"):
        ds.__array__(copy=False)


def test_iteration_gives_rows(ds: DataSet) -> None:
    # By the protocol of sequences: __getitem__ until it raises IndexError.
    assert [row.tolist() for row in ds] == [row.tolist() for row in DATA]


def test_parts_belong_to_the_caller(ds: DataSet) -> None:
    part = ds[0]
    part[...] = 0
    assert_same(ds[0], DATA[0])


def test_other_numbers_of_axes(ctx: Context) -> None:
    line = ctx.load("memory", data=DATA.reshape(20, 42), sig_dims=1)
    assert_same(line[3:15:4, ::-5], DATA.reshape(20, 42)[3:15:4, ::-5])
    cube = ctx.load("memory", data=DATA.reshape(2, 2, 5, 2, 3, 7), sig_dims=3)
    assert_same(cube[1, :, ::-2, :, 1], DATA.reshape(2, 2, 5, 2, 3, 7)[1, :, ::-2, :, 1])


# --- whatever the data, and wherever it is ---


@pytest.mark.parametrize("dtype", ["u1", "bool", ">u2", ">i4", "<i8", "f4", ">f4", "f8", "c8", ">c16", "f2"])
def test_native_dtypes(ctx: Context, tmp_path: Path, dtype: str) -> None:
    data = (DATA % 100).astype(dtype)
    data.tofile(tmp_path / "a.raw")
    ds = ctx.load("raw", path=tmp_path / "a.raw", dtype=dtype, nav_shape=NAV, sig_shape=SIG)
    expected = data.astype(np.dtype(dtype).newbyteorder("="))
    assert_same(ds[1:, 2, 1:5:2, ::-3], expected[1:, 2, 1:5:2, ::-3])
    assert_same(ds[3, 4], expected[3, 4])


@pytest.mark.filterwarnings("ignore:the data set changed the tile shape")
@pytest.mark.parametrize("backend", ["sparse.COO", "scipy.sparse.csr_matrix", "numpy"])
@pytest.mark.parametrize("tileshape", [None, (2, 3, 7)])
def test_data_that_comes_in_tiles(ctx: Context, backend: str, tileshape: Any) -> None:
    ds = ctx.load(
        "memory", data=DATA, tileshape=tileshape, num_partitions=2, array_backends=(backend,), sync_offset=-3
    )
    expected = np.zeros_like(DATA)
    expected.reshape(20, *SIG)[3:] = DATA.reshape(20, *SIG)[:-3]
    assert_same(ds[:, 1:4, 2:5, ::2], expected[:, 1:4, 2:5, ::2])


def test_sparse_files(ctx: Context, tmp_path: Path) -> None:
    data = np.where(DATA % 5 == 0, DATA, 0).astype("f4")
    write_raw_csr(tmp_path / "a.toml", [sparse_frames(data.reshape(20, *SIG))], NAV, SIG)
    ds = ctx.load("raw_csr", path=tmp_path / "a.toml")
    assert_same(ds[1:3, ::-2, 1:6:2, 3], data[1:3, ::-2, 1:6:2, 3])
    assert_same(np.asarray(ds), data)


def test_data_sets_of_others_that_know_nothing_but_tiles(ctx: Context, tmp_path: Path) -> None:
    class Foreign(BasePartition):
        def get_frame_blocks(self, order: Any, roi: Any) -> None:
            return None

    class ForeignDataSet(NPYDataSet):
        partition_class = Foreign

    np.save(tmp_path / "a.npy", DATA)
    ds = ctx.load(ForeignDataSet, path=tmp_path / "a.npy")
    assert_same(ds[1:3, ::2, 1:6:2, 3], DATA[1:3, ::2, 1:6:2, 3])


def test_large_frames_that_are_read_in_parts(ctx: Context, tmp_path: Path) -> None:
    frames = np.random.default_rng(1).integers(0, 60000, (3, 1500, 1200)).astype("u2")
    frames.tofile(tmp_path / "a.raw")
    parameters = {"dtype": "u2", "nav_shape": (3,), "sig_shape": (1500, 1200), "io_backend": "buffered"}
    ds = ctx.load("raw", path=tmp_path / "a.raw", **parameters)
    assert_same(ds[1:, 100:1400:7, -50:], frames[1:, 100:1400:7, -50:])
    assert_same(ds[1], frames[1])


def test_blank_frames_are_zero(ctx: Context, tmp_path: Path) -> None:
    DATA.tofile(tmp_path / "a.raw")
    ds = ctx.load("raw", path=tmp_path / "a.raw", dtype="u2", nav_shape=(5, 5), sig_shape=SIG)
    assert_same(ds[3:, 4], np.concatenate([DATA[3:, 4], np.zeros((1, *SIG), "u2")]))


@pytest.mark.parametrize("dtype", ["u2", "f4"])
def test_corrections_that_come_with_the_data_are_applied(
    ctx: Context, tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dark = np.full(SIG, 0.5, dtype="f4")
    monkeypatch.setattr(NPYDataSet, "get_correction_data", lambda self: CorrectionSet(dark=dark))
    np.save(tmp_path / "a.npy", DATA.astype(dtype))
    part = ctx.load("npy", path=tmp_path / "a.npy")[1, :, 2]
    assert_same(part, DATA[1, :, 2].astype("f4") - np.float32(0.5))


def test_all_executors_read_the_same(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", DATA)
    for name in ("threads", "inline"):
        with Context.make_with(name) as ctx:
            assert_same(ctx.load("npy", path=tmp_path / "a.npy")[1:, 0], DATA[1:, 0])


# --- refusals ---


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        ((0, 0, 0, 0, 0), IndexError, r"too many indices: found 5, but the shape \(4, 5, 6, 7\) has 4"),
        ((..., 7, 0, 0, 0, 0), IndexError, "too many indices"),
        ((0, 5), IndexError, r"index 5 is out of range: axis 1 of \(4, 5, 6, 7\) has 5 elements"),
        (-5, IndexError, "index -5 is out of range: axis 0"),
        ((..., ...), IndexError, "single Ellipsis"),
        (np.zeros((4,), bool), IndexError, r"shape \(4,\) for axis 0, expected shape \(4, 5\)"),
        ((0, np.zeros((5,), bool)), IndexError, "for axis 1, expected .* first index"),
        ((np.zeros(NAV, bool), np.zeros(SIG, bool)), IndexError, "single array of bool, found 2"),
        (1.0, TypeError, r"found 1\.0"),
        ("1", TypeError, "found '1'"),
        (None, TypeError, "found None"),
        (True, TypeError, "found True"),
        (np.bool_(True), TypeError, r"take integers, slices, .* found"),
        ([1, 2], TypeError, r"found \[1, 2\]"),
        (np.array([1, 2]), TypeError, "found an array of int64"),
        (slice(0.5, 2), TypeError, "slice indices must be integers"),
        (slice(None, None, 0), ValueError, "slice step cannot be zero"),
    ],
)
def test_what_cannot_be_an_index(ds: DataSet, key: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ds[key]


def test_results_that_do_not_fit_into_memory_are_refused(
    ds: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ALWAYS_FITS", 100)
    monkeypatch.setattr(limits, "available_bytes", lambda: 2000)
    message = (
        r"a part of shape \(3, 5, 6, 7\) .* found 1\.2 KiB, expected at most 900 bytes "
        r"while 2\.0 KiB are available \(read fewer .* roi; use save\(\) .* to_dask"
    )
    with pytest.raises(MemoryError, match=message):
        ds[0:3]
    assert ds[0:2].shape == (2, 5, 6, 7)
    with pytest.raises(MemoryError, match="save"):
        np.asarray(ds)
    monkeypatch.setattr(limits, "available_bytes", lambda: 4000)
    with pytest.raises(MemoryError, match=r"the data set as float32 does not fit .* native"):
        np.asarray(ds, dtype="f4")


# --- without a context ---


@pytest.mark.parametrize("wish", [lambda ds: ds[0], lambda ds: np.asarray(ds), lambda ds: ds.sum()])
def test_data_sets_made_by_hand_say_how_to_load_them(wish: Any) -> None:
    with pytest.raises(RuntimeError, match=r"MemoryDataSet made by hand.*use ctx\.load\(MemoryDataSet"):
        wish(MemoryDataSet(data=DATA))


def test_the_context_does_not_travel(ds: DataSet) -> None:
    packed = pickle.dumps(ds)
    assert len(packed) < 4000
    arrived = pickle.loads(packed)
    assert arrived._interactive is None
    assert arrived.shape == ds.shape
    with pytest.raises(RuntimeError, match=r"expected one from Context\.load"):
        arrived[0]
    # The original is as before.
    assert_same(ds[0, 0], DATA[0, 0])


def test_closed_contexts_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", DATA)
    with Context.make_with("inline") as ctx:
        ds = ctx.load("npy", path=tmp_path / "a.npy")
    for wish in (lambda: ds[0], lambda: ds.sum(), lambda: ds.virtual_image()):
        with pytest.raises(RuntimeError, match=r"Context that opened this data set has been closed \(keep"):
            wish()


# --- cost ---


def test_a_frame_costs_a_frame(ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "a.npy", DATA)
    ds = ctx.load("npy", path=tmp_path / "a.npy", num_partitions=10)
    rows = []
    process = CropUDF._process_block

    def counted(self: CropUDF, block: Any) -> None:
        rows.append(block.n_frames)
        process(self, block)

    monkeypatch.setattr(CropUDF, "_process_block", counted)
    # Asking for the memory at hand takes longer than a frame.
    monkeypatch.setattr(limits, "available_bytes", lambda: pytest.fail("not for a frame"))
    assert_same(ds[2, 3], DATA[2, 3])
    assert rows == [1]


def runs_of(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of frames of each run from now on."""
    runs = []
    run_udf = ctx.run_udf

    def counted(dataset: DataSet, udf: Any, roi: Any = None) -> Any:
        runs.append(math.prod(dataset.shape.nav) if roi is None else int(np.count_nonzero(roi)))
        return run_udf(dataset=dataset, udf=udf, roi=roi)

    monkeypatch.setattr(ctx, "run_udf", counted)
    return runs


@pytest.mark.parametrize("n_workers", [1, 3])
def test_large_results_are_put_together_from_runs(
    ctx: Context, ds: DataSet, n_workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crop, "BYTES_AT_A_TIME", 6 * math.prod(SIG) * 2)
    monkeypatch.setattr(ds, "_cores", n_workers)
    runs = runs_of(ctx, monkeypatch)
    assert_same(np.asarray(ds), DATA)
    assert sum(runs) == 20
    assert max(runs) == 6
    mask = DATA[..., 0, 0] > 300
    assert_same(ds[mask, ::-1, 2:5], DATA[mask, ::-1, 2:5])
    assert_same(ds[::-1, 1:4, 1:], DATA[::-1, 1:4, 1:])


def test_chunks_are_not_decoded_again_for_each_run(
    ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", data=DATA, chunks=(*NAV, 2, 7), compression="gzip")
    ds = ctx.load("hdf5", path=tmp_path / "a.h5")
    monkeypatch.setattr(crop, "BYTES_AT_A_TIME", 100)
    runs = runs_of(ctx, monkeypatch)
    assert_same(np.asarray(ds), DATA)
    assert runs == [20]


@pytest.mark.timing
def test_a_frame_takes_five_milliseconds(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    np.zeros(256 << 20, dtype="u1").tofile(path)
    with Context() as ctx:
        ds = ctx.load("raw", path=path, dtype="u2", nav_shape=(32, 64), sig_shape=(256, 256))
        times = []
        for i in range(20):
            start = time.perf_counter()
            ds[i, i]
            times.append(time.perf_counter() - start)
    assert sorted(times)[10] < 0.005
