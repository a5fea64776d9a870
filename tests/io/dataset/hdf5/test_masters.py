from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from libertem.api import Context
from libertem.exceptions import DataSetException
from libertem.executor.inline import InlineJobExecutor
from libertem.io.dataset import load
from libertem.io.dataset.hdf5 import H5DataSet
from libertem.testing.suite.reading import assert_delivered, read
from libertem.testing.writers.hdf5 import write_dectris, write_hdf5
from libertem.udf.sum import SumUDF

EXECUTOR = InlineJobExecutor(debug=True)


def make_parts(*sizes: int, dtype: str = "u2") -> list[npt.NDArray[Any]]:
    frames = np.random.default_rng(0).integers(0, 1000, (sum(sizes), 8, 9)).astype(dtype)
    return np.split(frames, np.cumsum(sizes)[:-1])


def load_h5(path: Path, **kwargs: Any) -> Any:
    return load("hdf5", path=path, executor=EXECUTOR, **kwargs)


def facts(ds: Any) -> dict[str, Any]:
    return {fact["name"]: fact["value"] for fact in ds.diagnostics}


@pytest.mark.parametrize("filters", ["bitshuffle-lz4", "lz4", "none"])
def test_a_master_file_shows_all_its_data_files(filters: str, tmp_path: Path) -> None:
    parts = make_parts(5, 5, 3)
    path = write_dectris(tmp_path, parts, filters=filters)
    params = H5DataSet.detect_params(str(path), EXECUTOR)
    assert isinstance(params, dict)
    assert params["parameters"] == {
        "path": str(path),
        "ds_path": "entry/data",
        "nav_shape": (1, 13),
        "sig_shape": (8, 9),
    }
    assert params["info"]["datasets"][0]["image_count"] == 13
    for ds in (load_h5(path), load("auto", path=path, executor=EXECUTOR)):
        assert tuple(ds.shape) == (13, 8, 9)
        for ship in (False, True):
            assert_delivered(read(ds, ship=ship), np.concatenate(parts), None, repr(ds))
    assert facts(ds)["Number of data files"] == 3
    assert facts(ds)["Data set"] == "entry/data"
    assert (facts(ds)["Images per trigger"], facts(ds)["Triggers"]) == (1, 13)


def test_one_data_file_can_be_named(tmp_path: Path) -> None:
    parts = make_parts(5, 3)
    path = write_dectris(tmp_path, parts)
    ds = load_h5(path, ds_path="entry/data/data_000002")
    assert_delivered(read(ds), parts[1], None, repr(ds))
    assert not ds.get_correction_data().have_corrections()
    ds = load_h5(tmp_path / "scan_data_000001.h5")
    assert_delivered(read(ds), parts[0], None, repr(ds))


def test_more_than_nine_data_files_are_in_numeric_order(tmp_path: Path) -> None:
    parts = make_parts(*[1] * 12)
    path = write_dectris(tmp_path, parts, numbered=False)
    with h5py.File(path, "r+") as file:
        for k in range(1, 13):
            file.move(f"entry/data/data_{k:06d}", f"entry/data/data_{k}")
    assert_delivered(read(load_h5(path)), np.concatenate(parts), None, "12 files")


def test_image_numbers_count_more_than_names(tmp_path: Path) -> None:
    parts = make_parts(4, 3)
    path = write_dectris(tmp_path, parts)
    with h5py.File(path, "r+") as file:
        file.move("entry/data/data_000001", "entry/data/data_000009")
    ds = load_h5(path)
    assert_delivered(read(ds), np.concatenate(parts), None, repr(ds))


def test_missing_data_files_are_listed(tmp_path: Path) -> None:
    path = write_dectris(tmp_path, make_parts(4, 3, 2))
    (tmp_path / "scan_data_000002.h5").unlink()
    with pytest.raises(DataSetException, match=r"found 2 of 3.*scan_data_000002\.h5.*copy them"):
        load_h5(path)
    ds = load_h5(path, ds_path="entry/data/data_000003")
    assert ds.shape.nav.size == 2


def test_a_gap_in_the_image_numbers_is_reported(tmp_path: Path) -> None:
    path = write_dectris(tmp_path, make_parts(4, 3, 2))
    with h5py.File(path, "r+") as file:
        del file["entry/data/data_000002"]
    with pytest.raises(DataSetException, match="data_000003 starts with image 8, expected image 5"):
        load_h5(path)


def test_data_files_that_all_count_from_one_are_taken_by_name(tmp_path: Path) -> None:
    parts = make_parts(4, 3)
    path = write_dectris(tmp_path, parts)
    with h5py.File(tmp_path / "scan_data_000002.h5", "r+") as file:
        file["entry/data/data"].attrs["image_nr_low"] = 1
    ds = load_h5(path)
    assert_delivered(read(ds), np.concatenate(parts), None, repr(ds))


def test_data_files_of_different_shape_are_refused(tmp_path: Path) -> None:
    path = write_dectris(tmp_path, [np.zeros((2, 8, 9), "u2"), np.zeros((2, 8, 8), "u2")])
    with pytest.raises(DataSetException, match=r"do not belong together.*data_000002 \(2, 8, 8\)"):
        load_h5(path, ds_path="entry/data")


def test_fewer_frames_than_promised_give_a_warning(tmp_path: Path) -> None:
    path = write_dectris(tmp_path, make_parts(4, 3), triggers=(2, 5))
    with pytest.warns(RuntimeWarning, match=r"promises 10 frames \(5 triggers with 2 images each\).*hold 7"):
        ds = load_h5(path)
    assert tuple(ds.shape) == (7, 8, 9)


def test_triggers_and_images_make_a_scan(tmp_path: Path) -> None:
    ds = load_h5(write_dectris(tmp_path, make_parts(4, 2), triggers=(3, 2)))
    assert tuple(ds.shape) == (2, 3, 8, 9)
    ds = load_h5(tmp_path / "scan_master.h5", nav_shape=(6,), sync_offset=1)
    assert tuple(ds.shape) == (6, 8, 9)


def test_several_data_files_in_one_piece_each_can_be_mapped(tmp_path: Path) -> None:
    parts = make_parts(4, 2)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for k, part in enumerate(parts):
            write_hdf5(tmp_path / f"{k}.h5", part, userblock=512 * k)
            file[f"g/part{k}"] = h5py.ExternalLink(f"{k}.h5", "data")
    for backend in ("mmap", "buffered"):
        ds = load_h5(tmp_path / "x.h5", ds_path="g", io_backend=backend)
        assert facts(ds)["Stored as"] == "one piece"
        assert_delivered(read(ds), np.concatenate(parts), None, repr(ds))


def test_data_files_may_be_stored_in_different_ways(tmp_path: Path) -> None:
    parts = make_parts(4, 5, 3)
    kinds: list[dict[str, Any]] = [{}, {"chunks": (2, 4, 9), "filters": "gzip"}, {"chunks": (1, 8, 9)}]
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for k, (part, kind) in enumerate(zip(parts, kinds, strict=True)):
            write_hdf5(tmp_path / f"{k}.h5", part, **kind)
            file[f"g/part{k}"] = h5py.ExternalLink(f"{k}.h5", "data")
    ds = load_h5(tmp_path / "x.h5", ds_path="g")
    ds.set_num_cores(3)
    assert_delivered(read(ds), np.concatenate(parts), None, repr(ds))
    total = Context(executor=EXECUTOR).run_udf(dataset=ds, udf=SumUDF())["intensity"].data
    np.testing.assert_array_equal(total, np.concatenate(parts).sum(axis=0))


# --- corrections ---


def test_mask_and_flat_field_are_offered_as_corrections(tmp_path: Path) -> None:
    parts = make_parts(4, 3)
    mask = np.zeros((8, 9), "u4")
    mask[2, 3], mask[7, 8] = 1, 16
    for part in parts:
        part[:, mask != 0] = 65535
    flat = np.random.default_rng(1).uniform(0.9, 1.1, (8, 9)).astype("f4")
    path = write_dectris(tmp_path, parts, maps={"pixel_mask": mask, "flatfield": flat})
    ds = load_h5(path)
    copy = pickle.loads(pickle.dumps(ds))
    for corrections in (ds.get_correction_data(), copy.get_correction_data()):
        np.testing.assert_array_equal(corrections.get_gain_map(), flat)
        np.testing.assert_array_equal(corrections.get_excluded_pixels().todense(), mask != 0)
    assert (facts(ds)["Excluded pixels"], facts(ds)["Flat field"]) == (2, "offered as gain map")
    total = Context(executor=EXECUTOR).run_udf(dataset=ds, udf=SumUDF())["intensity"].data
    expected = (np.concatenate(parts) * flat).sum(axis=0)
    good = mask == 0
    np.testing.assert_allclose(total[good], expected[good], rtol=1e-5)
    assert total.max() < 10000
    raw = read(ds).pixels
    np.testing.assert_array_equal(raw, np.concatenate(parts))


@pytest.mark.parametrize(
    ("flat", "applied"), [(np.ones((8, 9)), 0), (np.full((8, 9), 0.5), 1), (np.full((8, 9), np.nan), 0)]
)
def test_some_flat_fields_are_not_applied(flat: Any, applied: int, tmp_path: Path) -> None:
    path = write_dectris(
        tmp_path,
        make_parts(4),
        maps={"flatfield": flat.astype("f4")},
        applied={"flatfield_correction_applied": applied},
    )
    ds = load_h5(path)
    assert ds.get_correction_data().get_gain_map() is None
    assert facts(ds)["Flat field"] == "none to be applied"


def test_pixels_that_always_show_the_sentinel_are_excluded(tmp_path: Path) -> None:
    parts = make_parts(4, 3)
    for part in parts:
        part[:, 1, 1] = 65535
    parts[0][0, 5, 5] = 65535
    ds = load_h5(write_dectris(tmp_path, parts))
    excluded = ds.get_correction_data().get_excluded_pixels().todense()
    assert np.argwhere(excluded).tolist() == [[1, 1]]


def test_pixels_that_the_detector_interpolated_are_used(tmp_path: Path) -> None:
    mask = np.zeros((8, 9), "u4")
    mask[4] = 1 << 31
    mask[4, 4] = (1 << 31) | 8
    ds = load_h5(write_dectris(tmp_path, make_parts(4, 3), maps={"pixel_mask": mask}))
    excluded = ds.get_correction_data().get_excluded_pixels().todense()
    assert np.argwhere(excluded).tolist() == [[4, 4]]


def test_maps_are_found_beside_the_specific_facts_as_well(tmp_path: Path) -> None:
    mask = np.zeros((8, 9), "u4")
    mask[2, 3] = 1
    flat = np.full((8, 9), 0.5, "f4")
    path = write_dectris(tmp_path, make_parts(4), maps={"pixel_mask": mask, "flatfield": flat})
    with h5py.File(path, "r+") as file:
        for name in ("pixel_mask", "flatfield"):
            file.move(
                f"entry/instrument/detector/detectorSpecific/{name}", f"entry/instrument/detector/{name}"
            )
    corrections = load_h5(path).get_correction_data()
    np.testing.assert_array_equal(corrections.get_excluded_pixels().todense(), mask != 0)
    np.testing.assert_array_equal(corrections.get_gain_map(), flat)


def test_old_master_files_link_from_the_entry_itself(tmp_path: Path) -> None:
    parts = make_parts(4, 3)
    path = write_dectris(tmp_path, parts)
    with h5py.File(path, "r+") as file:
        for name in ("data_000001", "data_000002"):
            file.move(f"entry/data/{name}", f"entry/{name}")
        del file["entry/data"]
    ds = load_h5(path)
    assert facts(ds)["Data set"] == "entry"
    assert facts(ds)["Triggers"] == 7
    assert_delivered(read(ds), np.concatenate(parts), None, repr(ds))


def test_gaps_between_modules_become_zero(tmp_path: Path) -> None:
    (frames,) = make_parts(4)
    mask = np.zeros((8, 9), "u4")
    mask[3:6] = 1
    frames[:, 3:6] = 65535
    ds = load_h5(write_dectris(tmp_path, [frames], maps={"pixel_mask": mask}))
    total = Context(executor=EXECUTOR).run_udf(dataset=ds, udf=SumUDF())["intensity"].data
    assert (total[4] == 0).all()
    np.testing.assert_allclose(total[:3], frames.sum(axis=0)[:3], rtol=1e-6)
    assert total.max() < 4001


@pytest.mark.parametrize("mask", [np.zeros((3, 3), "u4"), np.full((8, 9), b"x")])
def test_maps_that_do_not_fit_are_ignored(mask: Any, tmp_path: Path) -> None:
    ds = load_h5(write_dectris(tmp_path, make_parts(4), maps={"pixel_mask": mask}))
    assert not ds.get_correction_data().have_corrections()
