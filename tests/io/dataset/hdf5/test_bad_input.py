"""Files that are damaged or incomplete: clear errors, and nothing is silently zero."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from libertem.api import Context
from libertem.exceptions import DataSetException
from libertem.executor.concurrent import ConcurrentJobExecutor
from libertem.executor.inline import InlineJobExecutor
from libertem.io.dataset import load
from libertem.io.dataset.hdf5 import chunktable
from libertem.testing.writers.hdf5 import FILTERS, write_dectris, write_hdf5
from libertem.udf.sum import SumUDF

EXECUTOR = InlineJobExecutor()
RAMP = np.arange(1, 361, dtype="u2").reshape(3, 4, 5, 6)


def load_h5(path: Path, **kwargs: Any) -> Any:
    return load("hdf5", path=path, executor=EXECUTOR, **kwargs)


def total(ds: Any) -> npt.NDArray[Any]:
    return np.asarray(Context(executor=EXECUTOR).run_udf(dataset=ds, udf=SumUDF())["intensity"].data)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.h5"


# --- cut off ---


@pytest.mark.parametrize("chunks", [None, (1, 1, 5, 6)])
def test_files_that_end_anywhere_are_refused(chunks: Any, path: Path) -> None:
    whole = write_hdf5(path, RAMP, chunks=chunks, filters="gzip").read_bytes()
    for n in (0, 1, 8, 50, 100, 2000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:n])
        with pytest.raises(
            DataSetException, match=r"x\.h5: (not an HDF5 file|cannot be opened as HDF5 file)"
        ):
            load_h5(path)


def test_a_file_that_is_cut_off_after_loading_is_noticed(path: Path) -> None:
    whole = write_hdf5(path, RAMP, chunks=(1, 1, 5, 6), filters="gzip").read_bytes()
    ds = load_h5(path)
    total(ds)
    path.write_bytes(whole[:-100])
    with pytest.raises(DataSetException, match=r"x\.h5"):
        total(ds)


def test_a_master_file_with_a_data_file_that_is_cut_off_says_so(tmp_path: Path) -> None:
    path = write_dectris(tmp_path, [RAMP[0], RAMP[1]])
    part = tmp_path / "scan_data_000002.h5"
    part.write_bytes(part.read_bytes()[:-10])
    with pytest.raises(DataSetException, match=r"found 1 of 2.*scan_data_000002\.h5"):
        load_h5(path)


@pytest.mark.parametrize("few", [False, True])
def test_addresses_behind_the_end_of_the_file_are_refused(
    few: bool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_hdf5(path, RAMP, chunks=(1, 4, 5, 6), filters="gzip")
    with h5py.File(path) as file:
        chunk = file["data"].id.get_chunk_info(1)
    raw = path.read_bytes()
    address = chunk.byte_offset.to_bytes(8, "little")
    assert raw.count(address) == 1
    path.write_bytes(raw.replace(address, (1 << 63).to_bytes(8, "little")))
    ds = load_h5(path)
    monkeypatch.setattr(chunktable, "FEW_CHUNKS", 0 if few else 64)
    with pytest.raises(DataSetException, match=r"x\.h5: a chunk is said to lie behind the end of the file"):
        total(ds)


# --- damaged chunks ---


@pytest.mark.parametrize("name", [name for name in FILTERS if name not in ("none", "shuffle", "bitshuffle")])
@pytest.mark.parametrize("threads", [False, True])
@pytest.mark.filterwarnings("ignore:Loading compressed HDF5:RuntimeWarning")
def test_a_damaged_chunk_is_an_error_that_names_the_file(name: str, threads: bool, path: Path) -> None:
    data = np.random.default_rng(0).poisson(3, (8, 32, 32)).astype("u2")
    write_hdf5(path, data, chunks=(1, 32, 32), filters=name)
    with h5py.File(path) as file:
        chunk = file["data"].id.get_chunk_info(5)
    raw = bytearray(path.read_bytes())
    middle = slice(chunk.byte_offset + 8, chunk.byte_offset + chunk.size)
    raw[middle] = bytes(255 - byte for byte in raw[middle])
    path.write_bytes(raw)
    executor = ConcurrentJobExecutor.make_local(n_threads=2) if threads else EXECUTOR
    ctx = Context(executor=executor)
    ds = ctx.load("hdf5", path=path)
    if name == "scale-offset":
        # It stores numbers with fewer bits: other bits are other numbers, as without any filter.
        assert (ctx.run_udf(dataset=ds, udf=SumUDF())["intensity"].data != data.sum(axis=0)).any()
        return
    with pytest.raises(DataSetException, match=r"x\.h5: /data, chunk at byte \d+"):
        ctx.run_udf(dataset=ds, udf=SumUDF())
    if threads:
        ctx.close()


@pytest.mark.parametrize("filters", ["fletcher32", "gzip-shuffle-fletcher32"])
def test_a_wrong_checksum_is_noticed_although_the_rest_is_fine(filters: str, path: Path) -> None:
    write_hdf5(path, RAMP, chunks=(1, 4, 5, 6), filters=filters)
    with h5py.File(path) as file:
        chunk = file["data"].id.get_chunk_info(1)
    raw = bytearray(path.read_bytes())
    raw[chunk.byte_offset + chunk.size - 1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DataSetException, match=r"checksum of a chunk is wrong.*copy it again"):
        total(load_h5(path))


# --- what cannot be data ---


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda file: file.create_dataset("d", (2, 3, 4), h5py.string_dtype()), "no numbers.*object"),
        (lambda file: file.create_dataset("d", (2, 3, 4), "S5"), r"no numbers.*\|S5"),
        (lambda file: file.create_dataset("d", (2, 3, 4), [("a", "u1"), ("b", "f4")]), "no numbers.*'a'"),
        (lambda file: file.create_dataset("d", (2, 3, 4), h5py.vlen_dtype("u2")), "no numbers.*object"),
        (lambda file: file.create_dataset("d", (2, 3, 4), h5py.ref_dtype), "no numbers.*object"),
        (lambda file: file.create_dataset("d", (0, 3, 4), "u2"), "contains no frames"),
        (lambda file: file.create_dataset("d", (2, 0, 3, 4), "u2"), "contains no frames"),
        (lambda file: file.create_dataset("d", (2, 3, 0, 4), "u2"), r"impossible shape.*\(2, 3, 0, 4\)"),
        (lambda file: file.create_dataset("d", (2, 3, 4, 0), "u2"), "impossible shape"),
    ],
)
def test_arrays_that_hold_no_frames_are_refused(make: Any, message: str, path: Path) -> None:
    with h5py.File(path, "w") as file:
        make(file)
    with pytest.raises(DataSetException, match=message):
        load_h5(path, ds_path="d")
    with pytest.raises(DataSetException, match="Unable to infer dataset"):
        load_h5(path)


# --- links ---


@pytest.mark.parametrize("link", ["soft", "circle", "self", "external", "external_path", "deep/er"])
def test_links_that_lead_nowhere_are_named(link: str, path: Path) -> None:
    write_hdf5(path.with_name("other.h5"), RAMP)
    with h5py.File(path, "w") as file:
        file["soft"] = h5py.SoftLink("/nothing")
        file["circle"] = h5py.SoftLink("/back")
        file["back"] = h5py.SoftLink("/circle")
        file["self"] = h5py.ExternalLink("x.h5", "/self")
        file["external"] = h5py.ExternalLink("gone.h5", "/data")
        file["external_path"] = h5py.ExternalLink("other.h5", "/nothing")
        file["deep/er"] = h5py.SoftLink("nothing")
    with pytest.raises(
        DataSetException, match=rf"x\.h5: ds_path is a link that leads nowhere: found '{link}'"
    ):
        load_h5(path, ds_path=link)
    with pytest.raises(DataSetException, match=r"Unable to infer.*found links that lead nowhere: .*gone\.h5"):
        load_h5(path)


def test_a_master_file_without_any_data_file_names_them(tmp_path: Path) -> None:
    path = write_dectris(tmp_path, [RAMP[0], RAMP[1]])
    for k in (1, 2):
        (tmp_path / f"scan_data_00000{k}.h5").unlink()
    with pytest.raises(DataSetException, match=r"lead nowhere: .*scan_data_000001\.h5.*scan_data_000002\.h5"):
        load_h5(path)
    with pytest.raises(DataSetException, match=r"found 0 of 2 in /entry/data.*scan_data_000001\.h5"):
        load_h5(path, ds_path="entry/data")


# --- pixels in other files ---


def make_external(path: Path, *names: str) -> None:
    each = RAMP.nbytes // len(names)
    with h5py.File(path, "w") as file:
        file.create_dataset("data", RAMP.shape, "u2", external=[(name, 7, each) for name in names])


def write_raw(path: Path, part: int = 0, n_parts: int = 1) -> None:
    path.write_bytes(b"\xff" * 7 + np.array_split(RAMP.reshape(-1), n_parts)[part].tobytes())


def test_one_external_file_is_read_like_any_raw_file(path: Path) -> None:
    """It is found beside the HDF5 file, too, where HDF5 does not look."""
    make_external(path, "pixels.raw")
    write_raw(path.with_name("pixels.raw"))
    for backend in ("mmap", "buffered"):
        ds = load_h5(path, io_backend=backend)
        assert {fact["name"]: fact["value"] for fact in ds.diagnostics}["Stored as"] == "one piece"
        np.testing.assert_array_equal(total(ds), RAMP.sum(axis=(0, 1)))


def test_several_external_files_are_left_to_hdf5(path: Path) -> None:
    names = [os.fspath(path.with_name(f"{k}.raw")) for k in range(2)]
    make_external(path, *names)
    for k, name in enumerate(names):
        write_raw(Path(name), k, 2)
    np.testing.assert_array_equal(total(load_h5(path)), RAMP.sum(axis=(0, 1)))
    make_external(path, "0.raw", "1.raw")
    with pytest.raises(
        DataSetException, match=r"does not find an external file.*0\.raw.*HDF5_EXTFILE_PREFIX"
    ):
        load_h5(path)


def test_external_files_that_are_missing_or_too_short_are_named(path: Path) -> None:
    make_external(path, "pixels.raw")
    with pytest.raises(
        DataSetException, match=r"x\.h5: an external file with the pixels is missing.*pixels\.raw"
    ):
        load_h5(path)
    write_raw(path.with_name("pixels.raw"), 0, 2)
    with pytest.raises(
        DataSetException, match=r"shorter than the data.*pixels\.raw with 367 bytes.*727 bytes"
    ):
        load_h5(path)


def make_virtual(path: Path, *sources: str) -> None:
    layout = h5py.VirtualLayout(shape=RAMP.shape, dtype="u2")
    for k, source in enumerate(sources):
        layout[k] = h5py.VirtualSource(source, "data", shape=RAMP[k].shape)
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("data", layout, fillvalue=9)


def test_missing_sources_of_virtual_data_are_reported(path: Path) -> None:
    make_virtual(path, "0.h5", "1.h5", "2.h5")
    with pytest.raises(DataSetException, match=r"all sources .* are missing: .*0\.h5: data, 1\.h5: data"):
        load_h5(path)
    write_hdf5(path.with_name("0.h5"), RAMP[0])
    write_hdf5(path.with_name("2.h5"), RAMP[2], ds_path="another")
    message = r"2 of 3 sources .* missing \(1\.h5: data, 2\.h5: data\): their pixels show the fill value 9"
    with pytest.warns(RuntimeWarning, match=message):
        ds = load_h5(path)
    np.testing.assert_array_equal(total(ds), RAMP[0].sum(axis=0) + 8 * 9)


@pytest.mark.filterwarnings("error")
def test_virtual_data_with_all_sources_give_no_warning(path: Path) -> None:
    folder = path.parent / "parts"
    folder.mkdir()
    make_virtual(path, "parts/0.h5", os.fspath(folder / "1.h5"), ".")
    for k in range(2):
        write_hdf5(folder / f"{k}.h5", RAMP[k])
    with h5py.File(path, "r+") as file:
        file.move("data", "scan")
        file["data"] = RAMP[2]
    np.testing.assert_array_equal(total(load_h5(path)), RAMP.sum(axis=(0, 1)))
