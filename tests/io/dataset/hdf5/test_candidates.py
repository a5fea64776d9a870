from __future__ import annotations

import threading
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import numpy as np
import pytest

from libertem.exceptions import DataSetException
from libertem.executor.inline import InlineJobExecutor
from libertem.io.dataset import load
from libertem.io.dataset.base.backends.rawio import io_counts
from libertem.io.dataset.hdf5 import H5DataSet
from libertem.io.dataset.hdf5.candidates import choose, list_candidates
from libertem.testing.writers.hdf5 import write_hdf5

EXECUTOR = InlineJobExecutor(debug=True)
RAMP = np.arange(360, dtype="u2").reshape(3, 4, 5, 6)


def names(path: Path) -> list[str]:
    return [candidate.name for candidate in list_candidates(str(path), lambda: 0.0)]


def detect(path: Path | str) -> Any:
    return H5DataSet.detect_params(str(path), EXECUTOR)


def load_h5(path: Path, **kwargs: Any) -> Any:
    return load("hdf5", path=path, executor=EXECUTOR, **kwargs)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.h5"


def test_objects_are_listed_by_name(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for name in ("z/a", "b", "a/c/d", "a/b"):
            file[name] = RAMP
        file["flat"] = RAMP[0, 0]
    assert names(path) == ["a/b", "a/c/d", "b", "z/a"]


def test_an_object_with_two_names_is_listed_once(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["z"] = RAMP
        file["a"] = file["z"]
        file["soft"] = h5py.SoftLink("/z")
    assert names(path) == ["a"]
    assert detect(path)["parameters"]["ds_path"] == "a"


def test_soft_and_external_links_are_followed(path: Path, tmp_path: Path) -> None:
    write_hdf5(tmp_path / "other.h5", RAMP, ds_path="deep/data")
    with h5py.File(path, "w") as file:
        file["g/external"] = h5py.ExternalLink("other.h5", "/deep/data")
        file["g/dangling"] = h5py.ExternalLink("nowhere.h5", "/data")
        file["g/broken"] = h5py.SoftLink("/nothing")
        file["g/circle"] = h5py.SoftLink("/")
        file["group"] = h5py.ExternalLink("other.h5", "/deep")
    # Once, under the name that comes first: groups are searched from the root on.
    assert names(path) == ["group/data"]
    ds = load_h5(path)
    assert tuple(ds.shape) == (3, 4, 5, 6)
    assert next(ds.get_partitions()).get_macrotile("u2").data.sum() == 64620


def test_a_soft_link_in_a_linked_group_is_found(path: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["g/real"] = RAMP
    with h5py.File(path, "w") as file:
        file["linked"] = h5py.ExternalLink("other.h5", "/g")
    assert names(path) == ["linked/real"]


def test_links_that_lead_to_each_other_end(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["a"] = h5py.SoftLink("/b")
        file["b"] = h5py.SoftLink("/a")
        file["data"] = RAMP
    assert names(path) == ["data"]


def test_only_numbers_with_three_axes_are_listed(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["bool"] = RAMP > 5
        file["complex"] = RAMP.astype("c8")
        file["half"] = RAMP.astype("f2")
        file["big"] = RAMP.astype(">i8")
        file["text"] = np.full((2, 2, 2), b"abc")
        file["pairs"] = np.zeros((2, 2, 2), dtype=[("a", "u1"), ("b", "f4")])
        file.create_dataset("vlen", (2, 2, 2), dtype=h5py.vlen_dtype("f4"))
        file.create_dataset("strings", (2, 2, 2), dtype=h5py.string_dtype())
        file["line"] = np.zeros(5)
        file["image"] = np.zeros((5, 5))
        file["scalar"] = 3
        file["nothing"] = h5py.Empty("f4")
    assert names(path) == ["big", "bool", "complex", "half"]


def test_the_largest_is_the_default(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["empty"] = np.zeros((1000, 0, 1000, 10))
        file["a"] = RAMP[:2]
        file["b"] = RAMP
        file["c"] = RAMP
    assert load_h5(path).get_diagnostics()[3] == {"name": "Data set", "value": "b"}
    default = choose(list_candidates(str(path), lambda: 0.0))
    assert default is not None
    assert (default.name, default.shape) == ("b", (3, 4, 5, 6))


@pytest.mark.parametrize(
    ("shape", "nav_shape"),
    [
        ((3, 4, 5, 6), (3, 4)),
        ((12, 5, 6), (1, 12)),
        ((2, 3, 2, 4, 5), (6, 2)),
        ((0, 4, 5, 6), (0, 4)),
    ],
)
def test_detection_gives_two_scan_axes(shape: tuple[int, ...], nav_shape: Any, path: Path) -> None:
    write_hdf5(path, np.zeros(shape, dtype="u2"))
    params = detect(path)
    assert params["parameters"] == {
        "path": str(path),
        "ds_path": "data",
        "nav_shape": nav_shape,
        "sig_shape": shape[-2:],
    }
    (entry,) = params["info"]["datasets"]
    assert entry == {
        "path": "data",
        "shape": shape,
        "compression": None,
        "chunks": None,
        "raw_nav_shape": shape[:-2],
        "nav_shape": nav_shape,
        "sig_shape": shape[-2:],
        "image_count": int(np.prod(shape[:-2])),
    }


def test_a_file_without_data_is_recognized_all_the_same(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["image"] = np.zeros((5, 5))
    assert detect(path) == {"parameters": {"path": str(path)}, "info": {"datasets": []}}
    with pytest.raises(DataSetException, match=f"Unable to infer dataset from file {path}"):
        load_h5(path)


@pytest.mark.parametrize("name", ["x", "x.emd", "x.anything"])
def test_the_extension_does_not_matter(name: str, tmp_path: Path) -> None:
    path = write_hdf5(tmp_path / name, RAMP)
    assert detect(path)["parameters"]["ds_path"] == "data"
    assert type(load("auto", path=path, executor=EXECUTOR)) is H5DataSet


@pytest.mark.parametrize("userblock", [512, 4096, 1 << 20])
def test_the_signature_is_found_behind_user_blocks(userblock: int, path: Path) -> None:
    write_hdf5(path, RAMP, userblock=userblock)
    before = io_counts()
    assert detect(path)["parameters"]["ds_path"] == "data"
    assert (io_counts() - before).read_bytes < 200
    ds = load_h5(path)
    assert next(ds.get_partitions()).get_macrotile("u2").data.sum() == 64620


@pytest.mark.parametrize("left", [0.5, -100])
def test_files_that_are_cut_off_are_not_detected(left: float, path: Path) -> None:
    raw = write_hdf5(path, RAMP).read_bytes()
    path.write_bytes(raw[: int(len(raw) * left) if left > 0 else int(left)])
    assert detect(path) is False
    with pytest.raises(DataSetException, match=r"x\.h5: cannot be opened as HDF5 file"):
        load_h5(path)


# --- bounded time ---


def test_a_walk_that_takes_too_long_is_given_up(path: Path) -> None:
    write_hdf5(path, RAMP)
    with mock.patch("libertem.io.dataset.hdf5.current_time", side_effect=[1, 30]):
        assert detect(path) == {"parameters": {"path": str(path)}, "info": {"datasets": []}}
    with (
        mock.patch("libertem.io.dataset.hdf5.current_time", side_effect=[1, 30]),
        pytest.raises(DataSetException, match="Unable to infer dataset"),
    ):
        load_h5(path)


@pytest.mark.parametrize("error", [TimeoutError("too slow"), SystemError("h5py issue 1740")])
def test_errors_of_the_walk_mean_no_candidates(error: Exception, path: Path) -> None:
    write_hdf5(path, RAMP)
    ds = load_h5(path, ds_path="data")
    with mock.patch("h5py.File.visititems", side_effect=error):
        assert detect(path)["info"] == {"datasets": []}
        assert ds.get_diagnostics()[-1] == {"name": "datasets", "value": []}


@pytest.mark.parametrize(("limit", "found"), [("100", 1), ("2", 0), ("nonsense", 0)])
def test_the_time_limit_can_be_set(
    limit: str, found: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_hdf5(path, RAMP)
    monkeypatch.setenv("LIBERTEM_IO_HDF5_TIMEOUT_DEBUG", limit)
    ticks = iter(range(0, 1000, 4))
    with mock.patch("libertem.io.dataset.hdf5.current_time", side_effect=lambda: next(ticks)):
        assert len(detect(path)["info"]["datasets"]) == found
    assert threading.active_count() < 20


def test_many_objects_are_walked_in_a_second(path: Path) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        for k in range(2000):
            file.create_group(f"g{k}")
        file["data"] = RAMP
    assert detect(path)["parameters"]["ds_path"] == "data"
