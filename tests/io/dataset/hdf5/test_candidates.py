from __future__ import annotations

import itertools
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


def facts(ds: Any) -> dict[str, Any]:
    return {fact["name"]: fact["value"] for fact in ds.get_diagnostics()}


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


# --- the one that is meant ---


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({"big": (50, 60, 70), "scan": (2, 3, 5, 6)}, "scan"),
        ({"a": (2, 3, 5, 6), "b": (3, 3, 5, 6)}, "b"),
        ({"a": (2, 3, 5, 6), "b": (50, 60, 70)}, "a"),
        ({"a": (2, 3, 5, 6), "b": (3, 3, 5, 6), "big": (50, 60, 70)}, "big"),
        ({"kernel": (1, 1, 5, 6), "stack": (10, 5, 6)}, "stack"),
        ({"spectra": (9, 9, 1, 1), "stack": (10, 5, 6)}, "stack"),
        ({"frames": (2, 3, 4, 5, 6), "stack": (10, 50, 60)}, "frames"),
        ({"empty": (0, 3, 5, 6), "stack": (10, 5, 6)}, "stack"),
    ],
)
def test_the_only_scan_is_preferred_to_larger_stacks(
    shapes: dict[str, tuple[int, ...]], expected: str, path: Path
) -> None:
    with h5py.File(path, "w") as file:
        for name, shape in shapes.items():
            file[name] = np.zeros(shape, "u1")
    assert detect(path)["parameters"]["ds_path"] == expected
    assert facts(load_h5(path))["Data set"] == expected


def write_default(path: Path, shapes: dict[str, tuple[int, ...]], signal: Any, **attrs: Any) -> None:
    """A NeXus file with an entry of several data sets."""
    with h5py.File(path, "w") as file:
        file.attrs["default"] = np.bytes_(b"entry")
        group = file.create_group("entry/process/result")
        file["entry"].attrs["default"] = "process/result"
        group.attrs["NX_class"] = "NXdata"
        if signal is not None:
            group.attrs["signal"] = signal
        for name, shape in shapes.items():
            file[f"entry/{name}"] = np.zeros(shape, "u1")
        for name, value in attrs.items():
            group[name].attrs["signal"] = value


STACKS = {"process/result/shown": (3, 5, 6), "process/result/larger": (9, 5, 6), "raw": (99, 5, 6)}


@pytest.mark.parametrize("signal", ["shown", np.bytes_(b"shown"), np.array(["shown"], dtype=object)])
def test_what_a_nexus_file_shows_is_preferred_to_larger_stacks(signal: Any, path: Path) -> None:
    write_default(path, STACKS, signal)
    assert detect(path)["parameters"]["ds_path"] == "entry/process/result/shown"


@pytest.mark.parametrize("mark", [1, np.int32(1), "1", np.bytes_(b"1")])
def test_old_nexus_files_mark_the_data_set_itself(mark: Any, path: Path) -> None:
    write_default(path, STACKS, None, shown=mark)
    assert detect(path)["parameters"]["ds_path"] == "entry/process/result/shown"


@pytest.mark.parametrize("signal", ["gone", "", 5, None])
def test_a_nexus_file_that_shows_nothing_is_like_any_other(signal: Any, path: Path) -> None:
    write_default(path, STACKS, signal)
    assert detect(path)["parameters"]["ds_path"] == "entry/raw"


def test_a_scan_is_preferred_to_a_stack_that_is_shown(path: Path) -> None:
    write_default(path, {**STACKS, "scan": (3, 4, 5, 6)}, "shown")
    assert detect(path)["parameters"]["ds_path"] == "entry/scan"


def test_one_of_several_scans_is_shown(path: Path) -> None:
    write_default(path, {"process/result/shown": (3, 4, 5, 6), "raw": (9, 4, 5, 6)}, "shown")
    assert detect(path)["parameters"]["ds_path"] == "entry/process/result/shown"


def test_the_chain_of_defaults_may_be_a_circle(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["default"] = "a"
        file.create_group("a/b").attrs["default"] = "/a"
        file["a"].attrs["default"] = "b"
        file["data"] = RAMP
    assert detect(path)["parameters"]["ds_path"] == "data"


def test_what_is_shown_is_found_behind_links_to_other_files(path: Path) -> None:
    write_hdf5(path.with_name("other.h5"), RAMP[0], ds_path="deep/data")
    write_default(path, {"process/result/x": (99, 5, 6)}, "shown")
    with h5py.File(path, "r+") as file:
        file["entry/process/result/shown"] = h5py.ExternalLink("other.h5", "/deep/data")
    assert facts(load_h5(path))["Data set"] == "entry/process/result/shown"
    with mock.patch("libertem.io.dataset.hdf5.current_time", side_effect=itertools.count(0, 30)):
        assert facts(load_h5(path, ds_path=None))["Data set"] == "/entry/process/result/shown"


# --- bounded time ---


@pytest.mark.parametrize("n_files", [1, 2, 3])
def test_files_that_link_to_each_other_are_walked_once(n_files: int, tmp_path: Path) -> None:
    for k in range(n_files):
        with h5py.File(tmp_path / f"{k}.h5", "w") as file:
            file[f"g/data{k}"] = RAMP
            for other in range(n_files):
                file[f"g/to{other}"] = h5py.ExternalLink(f"{other}.h5", "/")
                file[f"again{other}"] = h5py.ExternalLink(f"{other}.h5", f"/g/data{other}")
    found = names(tmp_path / "0.h5")
    assert len(found) == n_files
    assert found[0] == "g/data0"


def test_very_many_links_are_not_followed_for_longer_than_allowed(path: Path) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        for k in range(500):
            file[f"l{k:03d}"] = h5py.SoftLink("/nowhere")
        file["data"] = RAMP
    ticks = iter(range(10_000))
    with mock.patch.dict("os.environ", {"LIBERTEM_IO_HDF5_TIMEOUT_DEBUG": "100"}):
        assert list_candidates(str(path), lambda: next(ticks)) == ()
    assert 100 < next(ticks) < 110


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
