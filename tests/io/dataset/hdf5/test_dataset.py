from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from math import prod
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import numpy.typing as npt
import pytest

from libertem.api import Context
from libertem.exceptions import DataSetException, MissingFileError, ShapeError, UnsupportedBackendError
from libertem.executor.inline import InlineJobExecutor
from libertem.io.dataset import load
from libertem.io.dataset.base.backends.rawio import io_counts
from libertem.io.dataset.base.scheme import TilingScheme
from libertem.io.dataset.hdf5 import H5DataSet, HDF5DatasetParams, chunktable, frames
from libertem.io.dataset.hdf5.filters import ChunkDecoder
from libertem.testing.suite.reading import assert_delivered, on_scan, read
from libertem.testing.writers.hdf5 import (
    write_berkeley_emd,
    write_hdf5,
    write_hspy,
    write_nexus,
    write_py4dstem,
)
from libertem.udf.contract import UDF
from libertem.udf.masks import ApplyMasksUDF
from libertem.udf.stddev import StdDevUDF
from libertem.udf.sum import SumUDF

EXECUTOR = InlineJobExecutor(debug=True)
RAMP = np.arange(360, dtype="u2").reshape(3, 4, 5, 6)


def load_h5(path: Path, **kwargs: Any) -> Any:
    return load("hdf5", path=path, executor=EXECUTOR, **kwargs)


def whole(ds: Any, dtype: npt.DTypeLike = None) -> npt.NDArray[Any]:
    return read(ds, dest_dtype=dtype).pixels.reshape(tuple(ds.shape))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.h5"


# --- programs that write HDF5 files ---


@pytest.mark.parametrize("write", [write_py4dstem, write_berkeley_emd, write_hspy, write_nexus])
def test_the_data_of_different_programs_are_found(write: Any, path: Path) -> None:
    for ds in (load_h5(write(path, RAMP)), load("auto", path=path, executor=EXECUTOR)):
        assert tuple(ds.shape) == RAMP.shape
        np.testing.assert_array_equal(whole(ds), RAMP)


def test_a_link_in_the_nexus_data_group_can_be_named(path: Path) -> None:
    write_nexus(path, RAMP, soft_link=True)
    np.testing.assert_array_equal(whole(load_h5(path, ds_path="entry/data/counts")), RAMP)
    np.testing.assert_array_equal(whole(load_h5(path)), RAMP)


def test_velox_stacks_are_taken_as_they_are(path: Path) -> None:
    write_hdf5(path, RAMP[0], ds_path="Data/Image/abc/Data", chunks=(4, 5, 1))
    ds = load_h5(path)
    assert (ds.shape.nav.to_tuple(), ds.shape.sig.to_tuple()) == ((4,), (5, 6))
    np.testing.assert_array_equal(whole(ds), RAMP[0])


# --- unusual storage ---


def make_external(file: Any) -> None:
    names = [f"{file.filename}.{k}.raw" for k in range(2)]
    for name, part in zip(names, np.split(RAMP.reshape(-1), 2), strict=True):
        Path(name).write_bytes(b"\0" * 7 + part.tobytes())
    file.create_dataset("data", RAMP.shape, "u2", external=[(name, 7, RAMP.nbytes // 2) for name in names])


def make_compact(file: Any) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple(RAMP.shape)
    kind = h5py.h5t.py_create(RAMP.dtype)
    dset = h5py.h5d.create(file.id, b"data", kind, space, plist)
    dset.write(h5py.h5s.ALL, h5py.h5s.ALL, RAMP)


def make_odd_precision(file: Any) -> None:
    kind = h5py.h5t.STD_U16LE.copy()
    kind.set_precision(12)
    dset = h5py.h5d.create(file.id, b"data", kind, h5py.h5s.create_simple(RAMP.shape))
    dset.write(h5py.h5s.ALL, h5py.h5s.ALL, RAMP)


def make_virtual(file: Any) -> None:
    write_hdf5(Path(f"{file.filename}.source"), RAMP)
    layout = h5py.VirtualLayout(shape=RAMP.shape, dtype="u2")
    layout[:] = h5py.VirtualSource(f"{file.filename}.source", "data", shape=RAMP.shape)
    file.create_virtual_dataset("data", layout)


@pytest.mark.parametrize("make", [make_external, make_compact, make_odd_precision, make_virtual])
@pytest.mark.parametrize("sync_offset", [0, 2, -2])
def test_what_only_hdf5_can_read(make: Any, sync_offset: int, path: Path) -> None:
    with h5py.File(path, "w") as file:
        make(file)
    ds = load_h5(path, sync_offset=sync_offset)
    assert "only HDF5 can read" in ds.get_diagnostics()[4]["value"]
    shown, present = on_scan(RAMP.reshape(-1, 5, 6), 12, sync_offset)
    assert_delivered(read(ds), shown, present, repr(ds))
    mask = np.arange(12) % 5 == 1
    assert_delivered(read(ds, roi=mask), shown[mask], present[mask], repr(ds))
    total = Context(executor=EXECUTOR).run_udf(dataset=ds, udf=SumUDF())["intensity"].data
    np.testing.assert_array_equal(total, shown.sum(axis=0))


def test_virtual_data_with_holes_show_the_fill_value(path: Path) -> None:
    write_hdf5(path.with_name("source.h5"), RAMP)
    layout = h5py.VirtualLayout(shape=(6, 4, 5, 6), dtype="u2")
    layout[:3] = h5py.VirtualSource("source.h5", "data", shape=RAMP.shape)
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("data", layout, fillvalue=7)
    ds = load_h5(path)
    assert whole(ds).sum() == 67140


@pytest.mark.parametrize("chunks", [(1, 1, 5, 6), (2, 3, 2, 4)])
def test_chunks_that_were_never_written_show_the_fill_value(chunks: Any, path: Path) -> None:
    expected = np.full(RAMP.shape, 9, dtype="u2")
    expected[1] = RAMP[1]
    with h5py.File(path, "w") as file:
        dset = file.create_dataset("data", RAMP.shape, "u2", chunks=chunks, fillvalue=9, compression="gzip")
        dset[1] = RAMP[1]
    np.testing.assert_array_equal(whole(load_h5(path)), expected)


def test_data_that_were_never_written_show_the_fill_value(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("data", RAMP.shape, "i4", fillvalue=-3)
    assert (whole(load_h5(path)) == -3).all()


def test_data_that_can_grow_have_whole_chunks_at_their_edges(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=RAMP, chunks=(2, 3, 5, 4), maxshape=(None,) * 4, shuffle=True)
    np.testing.assert_array_equal(whole(load_h5(path)), RAMP)


def test_files_that_are_being_written_can_be_read(path: Path) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        dset = file.create_dataset("data", data=RAMP, chunks=(1, 4, 5, 6), maxshape=(None, 4, 5, 6))
        file.swmr_mode = True
        code = (
            "import sys; from libertem.api import Context; from libertem.udf.sum import SumUDF\n"
            "ctx = Context.make_with('inline'); ds = ctx.load('hdf5', path=sys.argv[1])\n"
            "print(ds.get_diagnostics()[4]['value'])\n"
            "print(int(ctx.run_udf(dataset=ds, udf=SumUDF())['intensity'].data.sum()))"
        )
        dset.flush()
        command = [sys.executable, "-c", code, os.fspath(path)]
        # Locks between processes; not all file systems have them.
        run = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = run.stdout.splitlines()
    assert lines[-1] == "64620"


@pytest.mark.parametrize("dtype", ["?", "i1", "u4", ">u4", "i8", "u8", "f2", ">f4", "f8", "c8", ">c16"])
@pytest.mark.parametrize("chunks", [None, (1, 3, 5, 6), (2, 3, 5, 4)])
def test_all_numbers_are_read(dtype: str, chunks: Any, path: Path) -> None:
    data = (RAMP % 120).astype(dtype)
    ds = load_h5(write_hdf5(path, data, chunks=chunks, filters="gzip-shuffle"))
    assert ds.dtype == np.dtype(dtype)
    native = data.astype(data.dtype.newbyteorder("="))
    np.testing.assert_array_equal(whole(ds), native)


# --- shapes, offsets, chunks ---

MATRIX = [
    ((9,), (3,), (3, 3)),
    ((4, 4), (2, 2), (2, 8)),
    ((4, 4, 2), (1, 3, 2), (32,)),
    ((16,), (10,), (4, 4)),
    ((9, 9), (3, 9), (4, 4)),
    ((9, 9), (4, 5), (16, 16)),
    ((25,), (3,), (5, 5)),
    ((5, 5), (5, 1), (10, 10)),
]


@pytest.mark.parametrize(("stored", "nav_chunks", "nav_shape"), MATRIX)
@pytest.mark.parametrize("sync_offset", [-5, 0, 5])
def test_frames_are_taken_in_the_order_of_storage(
    stored: Any, nav_chunks: Any, nav_shape: Any, sync_offset: int, path: Path
) -> None:
    n = prod(nav_shape)
    data = np.random.default_rng(0).integers(0, 1000, (*stored, 4, 6)).astype("u2")
    write_hdf5(path, data, chunks=(*nav_chunks, 3, 4), filters="lzf")
    flat = data.reshape(-1, 4, 6)
    shown, present = on_scan(flat, n, sync_offset)
    roi = np.random.default_rng(1).random(n) < 0.3
    for size in (None, 4 * 48):
        ds = load_h5(path, nav_shape=nav_shape, sync_offset=sync_offset, target_size=size)
        assert_delivered(read(ds), shown, present, repr(ds))
        assert_delivered(read(ds, roi=roi, tile_shape=(3, 2, 6)), shown[roi], present[roi], repr(ds))
        for selected in (None, roi):
            total = Context(executor=EXECUTOR).run_udf(dataset=ds, udf=SumUDF(), roi=selected)
            expected = shown if selected is None else shown[roi]
            np.testing.assert_array_equal(total["intensity"].data, expected.sum(axis=0))


@pytest.mark.parametrize("sig_dims", [1, 2, 3])
def test_any_number_of_signal_axes(sig_dims: int, path: Path) -> None:
    for chunks in (None, (2, 3, 2, 6)):
        ds = load_h5(write_hdf5(path, RAMP, chunks=chunks), sig_dims=sig_dims)
        assert ds.shape.sig.to_tuple() == RAMP.shape[-sig_dims:]
        np.testing.assert_array_equal(whole(ds), RAMP)
        assert ds.meta["ds_raw_shape"].to_tuple() == RAMP.shape
        assert ds.meta["ds_raw_shape"].sig_dims == sig_dims


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"sig_shape": (6, 5)}, ShapeError, "sig reshaping currently not supported with HDF5 files"),
        ({"nav_shape": (-1, 2)}, ShapeError, "nav_shape has to consist of positive integers"),
        ({"nav_shape": 4}, TypeError, "not iterable"),
        ({"sync_offset": 12}, ShapeError, r"sync_offset should be in \(-12, 12\), which is"),
        ({"sig_dims": 4}, DataSetException, "2D HDF5 files are currently not supported"),
        ({"sig_dims": 5}, DataSetException, "fewer axes than a frame"),
        ({"sig_dims": 0}, DataSetException, "sig_dims has to be a positive integer"),
        ({"sig_dims": 1.5}, DataSetException, "sig_dims has to be a positive integer"),
        (
            {"ds_path": "nope"},
            DataSetException,
            r"x\.h5: there is no such data set.*nope.*one of chunked, data",
        ),
        ({"ds_path": "data/x"}, DataSetException, r"x\.h5: "),
        ({"ds_path": "soft"}, DataSetException, "a link that leads nowhere"),
        ({"ds_path": "external"}, DataSetException, r"a link to gone\.h5"),
        ({"ds_path": "type"}, DataSetException, "names no data set"),
        ({"ds_path": "group"}, DataSetException, "group without data sets of frames"),
        ({"ds_path": ""}, DataSetException, r"x\.h5: "),
        ({"ds_path": "a\0b"}, DataSetException, r"x\.h5: "),
        ({"ds_path": 5}, TypeError, "ds_path has to be a string"),
        ({"ds_path": "text"}, DataSetException, "no numbers"),
        ({"ds_path": "pairs"}, DataSetException, "no numbers"),
        ({"ds_path": "vlen"}, DataSetException, "no numbers"),
        ({"ds_path": "scalar"}, DataSetException, "fewer axes"),
        ({"ds_path": "line"}, DataSetException, "fewer axes"),
        ({"ds_path": "image"}, DataSetException, "2D HDF5 files"),
        ({"ds_path": "nothing"}, DataSetException, "fewer axes"),
        ({"ds_path": "no_frames"}, DataSetException, "contains no frames"),
        ({"ds_path": "no_pixels"}, DataSetException, "impossible shape"),
        ({"io_backend": "doesn't exist"}, DataSetException, "not an I/O backend"),
        (
            {"ds_path": "chunked", "io_backend": "mmap"},
            UnsupportedBackendError,
            r"H5DataSet currently doesn't support alternative I/O backends.*chunks \(gzip\)",
        ),
    ],
)
def test_parameters_that_do_not_fit_are_refused(
    kwargs: Any, error: type[Exception], message: str, path: Path
) -> None:
    with h5py.File(path, "w") as file:
        file["data"] = RAMP
        file["soft"] = h5py.SoftLink("/nowhere")
        file["external"] = h5py.ExternalLink("gone.h5", "/data")
        file["type"] = np.dtype("f4")
        file.create_group("group")["image"] = RAMP[0, 0]
        file["text"] = np.full((2, 2, 2), b"abc")
        file["pairs"] = np.zeros((2, 2, 2), dtype=[("a", "u1"), ("b", "f4")])
        file.create_dataset("vlen", (2, 2, 2), dtype=h5py.vlen_dtype("f4"))
        file["scalar"] = 3
        file["line"] = np.zeros(5)
        file["image"] = RAMP[0, 0]
        file["nothing"] = h5py.Empty("f4")
        file["no_frames"] = np.zeros((0, 4, 5))
        file["no_pixels"] = np.zeros((3, 0, 5))
        file.create_dataset("chunked", data=RAMP, chunks=(1, 1, 5, 6), compression="gzip")
    with pytest.raises(error, match=message):
        load_h5(path, **kwargs)


def test_missing_files_and_directories_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"gone\.h5"):
        load_h5(tmp_path / "gone.h5")
    with pytest.raises(DataSetException, match="found a directory"):
        load_h5(tmp_path)


def test_a_filter_that_is_not_installed_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "data", data=RAMP.astype("f4"), chunks=(1, 4, 5, 6), **hdf5plugin.Zfp(reversible=True)
        )
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda filter_id: False)
    with pytest.raises(DataSetException, match=r"zfp \(id 32013\).*pip install hdf5plugin"):
        load_h5(path)


def test_a_tileshape_is_ignored(path: Path) -> None:
    write_hdf5(path, RAMP)
    with pytest.warns(FutureWarning, match="tileshape argument is ignored"):
        load_h5(path, tileshape=(1, 5, 6))


def test_pixels_that_lie_together_are_not_copied(path: Path) -> None:
    ds = load_h5(write_hdf5(path, RAMP, userblock=512), io_backend="mmap")
    scheme = TilingScheme.make_for_shape(tileshape=ds.shape.flatten_nav(), dataset_shape=ds.shape)
    (tile,) = next(iter(ds.get_partitions())).get_tiles(scheme, dest_dtype=ds.dtype)
    assert not tile.data.flags.owndata
    assert ds.get_diagnostics()[4]["value"] == "one piece"


# --- partitions and chunks ---


class _Frames(UDF):
    """A UDF that gets tiles."""

    def get_result_buffers(self) -> Any:
        return {"total": self.buffer(kind="sig", dtype="f8")}

    def merge(self, dest: Any, src: Any) -> None:
        dest.total += src.total

    def process_tile(self, tile: Any) -> None:
        self.results.total += tile.sum(axis=0, dtype="f8")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the chunks that were decoded so far."""
    calls: list[int] = []
    decode = ChunkDecoder.decode

    def count(self: ChunkDecoder, stored: Any, mask: int, out: Any) -> None:
        calls.append(1)
        decode(self, stored, mask, out)

    monkeypatch.setattr(ChunkDecoder, "decode", count)
    return calls


@pytest.mark.parametrize(
    "chunks", [(1, 1, 16, 8), (1, 3, 16, 8), (2, 3, 16, 8), (4, 8, 8, 8), (8, 1, 5, 3), (3, 3, 16, 8)]
)
def test_no_chunk_is_decoded_twice(chunks: Any, path: Path, decoded: list[int]) -> None:
    data = np.random.default_rng(0).integers(0, 99, (8, 8, 16, 8)).astype("u2")
    write_hdf5(path, data, chunks=chunks, filters="gzip")
    n_chunks = prod(-(-n // c) for n, c in zip(data.shape, chunks, strict=True))
    ctx = Context(executor=EXECUTOR)
    for cores in (1, 3):
        ds = load_h5(path)
        ds.set_num_cores(cores)
        assert ds.get_diagnostics()[5] == {"name": "Chunks decoded more than once", "value": "no"}
        for udfs in ([SumUDF()], [_Frames()], [SumUDF(), _Frames(), StdDevUDF()]):
            decoded.clear()
            ctx.run_udf(dataset=ds, udf=udfs)
            assert len(decoded) == n_chunks


def test_partitions_consist_of_whole_chunks(path: Path) -> None:
    write_hdf5(path, np.zeros((10, 7, 5, 6), "u1"), chunks=(3, 2, 5, 6))
    ds = load_h5(path, sync_offset=4, nav_shape=(80,))
    for cores, borders in ((1, [0]), (2, [0, 38]), (8, [0, 17, 38, 59])):
        ds.set_num_cores(cores)
        assert [p.slice.origin[0] for p in ds.get_partitions()] == borders
        assert sum(p.slice.shape[0] for p in ds.get_partitions()) == 80


def test_a_number_of_partitions_that_splits_chunks_is_reported(path: Path, decoded: list[int]) -> None:
    write_hdf5(path, RAMP, chunks=(3, 4, 5, 6), filters="gzip")
    ds = load_h5(path, num_partitions=2)
    assert ds.get_diagnostics()[5]["value"].startswith("yes, those at 1 borders of partitions")
    np.testing.assert_array_equal(whole(ds), RAMP)
    assert len(decoded) == 2


@pytest.mark.parametrize("parameter", ["target_size", "min_num_partitions"])
def test_sizes_of_partitions_can_be_given(parameter: str, path: Path) -> None:
    ds = load_h5(
        write_hdf5(path, RAMP, chunks=(1, 1, 5, 6)),
        **{parameter: 3 * 60 if parameter == "target_size" else 4},
    )
    assert len(list(ds.get_partitions())) == 4


@pytest.mark.filterwarnings("ignore:Loading compressed HDF5:RuntimeWarning")
def test_little_memory_means_several_passes_with_hdf5(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(0).integers(0, 99, (6, 7, 5, 6)).astype("u2")
    write_hdf5(path, data, chunks=(4, 3, 5, 4), filters="scale-offset")
    monkeypatch.setattr(frames, "unit_memory", lambda: 10 * 60)
    ds = load_h5(path)
    np.testing.assert_array_equal(whole(ds), data)
    roi = np.arange(42) % 4 == 1
    assert_delivered(read(ds, roi=roi), data.reshape(-1, 5, 6)[roi], None, repr(ds))


def test_little_memory_means_several_passes(
    path: Path, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = np.random.default_rng(0).integers(0, 99, (6, 7, 5, 6)).astype("u2")
    write_hdf5(path, data, chunks=(4, 3, 5, 4), filters="gzip")
    monkeypatch.setattr(frames, "unit_memory", lambda: 10 * 60)
    ds = load_h5(path)
    assert ds.get_diagnostics()[5]["value"].startswith("yes, 3 times: 28 frames that share chunks")
    np.testing.assert_array_equal(whole(ds), data)
    assert len(decoded) > 2 * 3 * 2
    roi = np.arange(42) % 4 == 1
    assert_delivered(read(ds, roi=roi), data.reshape(-1, 5, 6)[roi], None, repr(ds))
    with h5py.File(path, "a") as file:
        del file["data"]
        dset = file.create_dataset("data", data.shape, "u2", chunks=(4, 3, 5, 4), fillvalue=3)
        dset[:4, 3:] = data[:4, 3:]
        expected = dset[()]
    np.testing.assert_array_equal(whole(load_h5(path)), expected)


@pytest.mark.parametrize("access", ["gzip", "scale-offset"])
@pytest.mark.filterwarnings("ignore:Loading compressed HDF5:RuntimeWarning")
def test_units_that_are_larger_than_caches_are_read_in_bands(
    access: str, path: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[int]
) -> None:
    data = np.random.default_rng(0).integers(0, 99, (5, 6, 10, 8)).astype("u2")
    write_hdf5(path, data, chunks=(3, 4, 4, 3), filters=access)
    monkeypatch.setattr(frames, "MAX_KERNEL_BYTES", 1)
    ds = load_h5(path)
    masks = np.random.default_rng(1).random((2, 10, 8))
    udfs = [SumUDF(), StdDevUDF(), ApplyMasksUDF(mask_factories=lambda: masks, mask_count=2)]
    total, std, products = Context(executor=EXECUTOR).run_udf(dataset=ds, udf=udfs)
    np.testing.assert_array_equal(total["intensity"].data, data.sum(axis=(0, 1)))
    np.testing.assert_allclose(std["std"].data, data.std(axis=(0, 1)), rtol=1e-5)
    np.testing.assert_allclose(products["intensity"].data, np.einsum("abyx,myx->abm", data, masks), rtol=1e-5)
    assert len(decoded) == (2 * 2 * 3 * 3 if access == "gzip" else 0)


def test_one_frame_of_many_chunks_needs_no_list_of_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.arange(1000 * 6, dtype="u2").reshape(1000, 2, 3)
    write_hdf5(path, data, chunks=(1, 2, 3), filters="gzip")
    monkeypatch.setattr(chunktable, "_read_all", None)
    ds = load_h5(path)
    roi = np.arange(1000) == 777
    before = io_counts()
    assert_delivered(read(ds, roi=roi), data[roi], None, repr(ds))
    assert (io_counts() - before).read_bytes < 100


def test_another_file_of_the_same_name_is_noticed(path: Path) -> None:
    write_hdf5(path, RAMP, chunks=(1, 4, 5, 6), filters="gzip")
    ds = load_h5(path)
    np.testing.assert_array_equal(whole(ds), RAMP)
    write_hdf5(path, RAMP[::-1], chunks=(1, 4, 5, 6), filters="gzip")
    np.testing.assert_array_equal(whole(ds), RAMP[::-1])
    write_hdf5(path, RAMP[:2], chunks=(1, 4, 5, 6), filters="gzip")
    with pytest.raises(DataSetException, match="the data set has changed"):
        read(ds)
    with pytest.raises(DataSetException, match="it has changed"):
        ds.check_valid()


def test_header_claims_are_compared_with_the_file(path: Path) -> None:
    """A data set of 10 TB in a small file, of which only the size was damaged."""
    with h5py.File(path, "w") as file:
        file["data"] = np.zeros((10, 5, 6), "u1")
    raw = path.read_bytes()
    claim = (10).to_bytes(8, "little") + (5).to_bytes(8, "little")
    assert raw.count(claim) >= 1
    path.write_bytes(raw.replace(claim, (10 << 40).to_bytes(8, "little") + claim[8:]))
    with pytest.raises(DataSetException, match=r"x\.h5"):
        load_h5(path)


# --- facts ---


def test_facts_of_a_data_set(path: Path) -> None:
    write_hdf5(path, RAMP, ds_path="a/b c\u00e4", chunks=(1, 2, 5, 6), filters="gzip-shuffle")
    with pytest.raises(RuntimeError, match="call initialize"):
        _ = H5DataSet(path).shape
    fresh = pickle.loads(pickle.dumps(H5DataSet(path)))
    assert "not initialized" in repr(fresh)
    ds = load_h5(path)
    assert repr(ds) == "<H5DataSet of uint16 shape=(3, 4, 5, 6)>"
    assert len(pickle.dumps(ds)) < 1050 + len(str(path))
    key = json.loads(json.dumps(ds.get_cache_key()))
    assert (key["path"], key["ds_path"]) == (str(path), "a/b c\u00e4")
    facts = {fact["name"]: fact["value"] for fact in ds.diagnostics}
    assert facts["dtype"] == "uint16"
    assert facts["chunks"] == "(1, 2, 5, 6)"
    assert facts["compression"] == "shuffle, gzip"
    assert facts["Stored as"] == "chunks (shuffle, gzip), decoded in threads"
    size, shape, kind = facts["datasets"][0]["value"]
    assert facts["datasets"][0]["name"] == "a/b c\u00e4"
    assert (size["value"], shape["value"], kind["value"]) == ("720", "(3, 4, 5, 6)", "uint16")


def test_the_reader_opens_the_data_set_with_h5py(path: Path) -> None:
    ds = load_h5(write_hdf5(path, RAMP))
    with pickle.loads(pickle.dumps(ds.get_reader())).get_h5ds() as dset:
        assert isinstance(dset, h5py.Dataset)
        np.testing.assert_array_equal(dset[1], RAMP[1])
    with pytest.raises(DataSetException, match="no such data set"):
        load_h5(path, ds_path="/x")


def test_json_parameters() -> None:
    message = {"type": "HDF5", "path": "x.h5", "ds_path": "data", "nav_shape": [2, 6], "sync_offset": 1}
    converter = H5DataSet.get_msg_converter()()
    assert isinstance(converter, HDF5DatasetParams)
    params = converter.to_python(message)
    assert params == {"path": "x.h5", "ds_path": "data", "nav_shape": (2, 6), "sync_offset": 1}
    assert converter.from_python(params) == message


def test_hdf5_support_brings_the_filters(path: Path) -> None:
    write_hdf5(path, RAMP, chunks=(1, 4, 5, 6))
    code = (
        "import sys; import libertem.io.dataset.hdf5 as hdf5\n"
        "heavy = {'h5py', 'hdf5plugin', 'numba', 'scipy', 'sparse', 'imagecodecs'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "from libertem.api import Context\n"
        "Context.make_with('inline').load('hdf5', path=sys.argv[1])\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, os.fspath(path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["[]", "['h5py', 'hdf5plugin']"]


def test_without_hdf5plugin_common_files_are_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hdf5plugin", None)
    write = {"chunks": (1, 4, 5, 6), "compression": "gzip"}
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=RAMP, **write)
    np.testing.assert_array_equal(whole(load_h5(path)), RAMP)
