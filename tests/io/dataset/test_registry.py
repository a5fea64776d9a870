from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libertem.exceptions import DataSetException
from libertem.executor.inline import InlineJobExecutor
from libertem.io.dataset import (
    build_extension_map,
    detect,
    filetypes,
    get_dataset_cls,
    get_extensions,
    get_search_order,
    register_dataset_cls,
    unregister_dataset_cls,
)
from libertem.io.dataset.base.backends.rawio import io_counts
from libertem.io.dataset.base.dataset import DataSet
from libertem.io.dataset.base.framefile import PROBE_BYTES
from libertem.io.dataset.npy import NPYDataSet
from libertem.testing.writers.empad import write_empad
from libertem.testing.writers.mrc import write_mrc

EXECUTOR = InlineJobExecutor(debug=True)
# The documented order.
# fmt: off
ORDER = [
    "hdf5", "raw", "raw_csr", "mib", "blo", "k2is", "ser", "frms6",
    "empad", "dm", "seq", "mrc", "tvips", "npy", "dask", "memory",
]
# fmt: on


@pytest.fixture(autouse=True)
def _registry_stays_as_it_was() -> Iterator[None]:
    saved = dict(filetypes)
    yield
    filetypes.clear()
    filetypes.update(saved)


class ToyDataSet(DataSet):
    """Recognizes files that start with TOY."""

    @classmethod
    def get_supported_extensions(cls) -> set[str]:
        return {"MyX", "npy"}

    @classmethod
    def detect_params(cls, path: Any, executor: Any) -> dict[str, Any] | bool:
        content = executor.run_function(Path(path).read_bytes)
        return {"parameters": {"path": path}} if content.startswith(b"TOY") else False


class BrokenDataSet(DataSet):
    """Fails at whatever it is asked."""

    @classmethod
    def get_supported_extensions(cls) -> set[str]:
        raise ValueError("broken")

    @classmethod
    def detect_params(cls, path: Any, executor: Any) -> dict[str, Any] | bool:
        raise IndexError("broken")


# --- names ---


def test_the_order_of_types_is_the_documented_one() -> None:
    assert list(filetypes) == ORDER


def test_names_are_found_in_any_case() -> None:
    assert get_dataset_cls("npy") is NPYDataSet
    assert get_dataset_cls("NPY") is NPYDataSet


def test_a_class_is_taken_as_it_is() -> None:
    assert get_dataset_cls(ToyDataSet) is ToyDataSet


def test_an_unknown_name_is_refused_with_those_that_exist() -> None:
    with pytest.raises(DataSetException, match="unknown filetype: Nope: expected one of hdf5, raw,"):
        get_dataset_cls("Nope")


@pytest.mark.parametrize("filetype", [5, None, ("npy",)])
def test_what_is_neither_name_nor_class_is_refused(filetype: Any) -> None:
    with pytest.raises(TypeError, match="filetype has to be"):
        get_dataset_cls(filetype)


@pytest.mark.parametrize(
    "cls", ["no_such_package.DataSet", "libertem.io.dataset.npy.NoSuchClass", "nothing", "", "."]
)
def test_a_class_that_cannot_be_imported_is_a_clear_error(cls: str) -> None:
    register_dataset_cls("bad", cls)
    with pytest.raises(DataSetException, match=r"could not load dataset: .*bad is"):
        get_dataset_cls("bad")


@pytest.mark.parametrize("cls", [ToyDataSet, "libertem.io.dataset.npy.NPYDataSet"])
def test_classes_are_registered_under_lower_case_names(cls: Any) -> None:
    register_dataset_cls("ToY", cls)
    assert list(filetypes)[-1] == "toy"
    assert issubclass(get_dataset_cls("TOY"), DataSet)
    unregister_dataset_cls("tOY")
    assert "toy" not in filetypes


def test_an_unknown_name_cannot_be_removed() -> None:
    with pytest.raises(KeyError):
        unregister_dataset_cls("toy")


def test_registering_again_replaces() -> None:
    register_dataset_cls("npy", ToyDataSet)
    assert get_dataset_cls("npy") is ToyDataSet
    assert list(filetypes) == ORDER


# --- extensions ---


def test_extensions_are_those_of_all_types_that_can_be_imported() -> None:
    assert {"mrc", "npy", "xml", "raw"} <= get_extensions()
    documented = "bin blo dm3 dm4 frms6 gtg h5 hdf5 hdr hspy mib mrc npy nxs raw seq ser toml tvips xml"
    assert get_extensions() <= set(documented.split())


def test_broken_registrations_do_not_matter() -> None:
    before = get_extensions()
    register_dataset_cls("missing", "no_such_package.DataSet")
    register_dataset_cls("broken", BrokenDataSet)
    assert get_extensions() == before


def test_the_extension_map_follows_the_registry() -> None:
    assert "myx" not in build_extension_map()
    register_dataset_cls("toy", ToyDataSet)
    assert build_extension_map()["myx"] == ["toy"]
    assert build_extension_map()["npy"] == ["npy", "toy"]
    assert "myx" in get_extensions()
    unregister_dataset_cls("toy")
    assert build_extension_map()["npy"] == ["npy"]


def test_the_extension_map_belongs_to_the_caller() -> None:
    build_extension_map()["npy"].append("x")
    assert build_extension_map()["npy"] == ["npy"]


@pytest.mark.parametrize(
    ("path", "first"),
    [
        ("a.npy", ["npy", "hdf5", "raw", "raw_csr"]),
        ("a.NPY", ["npy", "hdf5"]),
        (Path("a.b.npy"), ["npy", "hdf5"]),
        ("a.raw", ["empad", "hdf5", "raw"]),
        ("a.xml", ["empad", "hdf5", "raw"]),
        ("a.mrc", ["mrc", "hdf5"]),
        ("a.unknown", ["hdf5", "raw", "raw_csr", "mib"]),
        ("npy", ["hdf5", "raw", "raw_csr", "mib"]),
        (555, ["hdf5", "raw", "raw_csr", "mib"]),
        (None, ["hdf5", "raw", "raw_csr", "mib"]),
        (np.zeros(3), ["memory", "hdf5", "raw"]),
    ],
)
def test_types_that_fit_the_extension_come_first(path: Any, first: list[str]) -> None:
    order = get_search_order(path)
    assert order[: len(first)] == first
    assert sorted(order) == sorted(ORDER)
    rest = [name for name in order if name not in first]
    assert rest == [name for name in ORDER if name not in first]


# --- detection ---


def test_files_are_told_by_their_content(tmp_path: Path) -> None:
    npy = tmp_path / "x.npy"
    np.save(npy, np.zeros((2, 3, 4, 5), dtype="u2"))
    mrc = write_mrc(tmp_path / "x.mrc", np.zeros((9, 4, 5), dtype="f4"))
    xml = write_empad(tmp_path, [np.zeros((6, 128, 128), dtype="f4")], (2, 3))
    for path, name, nav_shape in ((npy, "npy", (2, 3)), (mrc, "mrc", (3, 3)), (xml, "empad", (2, 3))):
        for form in (path, str(path)):
            answer = detect(form, EXECUTOR)
            assert answer["type"] == name
            assert answer["parameters"]["path"] == str(path)
            assert answer["parameters"]["nav_shape"] == nav_shape
            assert all(type(extent) is int for extent in answer["parameters"]["nav_shape"])


def test_a_wrong_extension_does_not_hide_a_numpy_file(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 3, 4, 5), dtype="u2"))
    path = (tmp_path / "x.npy").rename(tmp_path / "x.mrc")
    assert detect(path, EXECUTOR)["type"] == "npy"


@pytest.mark.parametrize("extension", ["npy", "mrc", "xml", "raw", "hdr", "dm4", "ser", "dat"])
@pytest.mark.parametrize("content", [b"", b"garbage\n" * 200, bytes(70_000)], ids=["empty", "text", "zeros"])
def test_nothing_is_found_in_garbage(content: bytes, extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{extension}"
    path.write_bytes(content)
    assert detect(str(path), EXECUTOR) == {}


@pytest.mark.parametrize("path", ["no.npy", "no.hdr", 555, None, ""])
def test_nothing_is_found_where_there_is_no_file(path: Any) -> None:
    assert detect(path, EXECUTOR) == {}


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    assert detect(tmp_path, EXECUTOR) == {}


def test_each_type_reads_little_to_answer(tmp_path: Path) -> None:
    path = tmp_path / "x.dat"
    path.write_bytes(bytes(1 << 20))
    before = io_counts()
    detect(str(path), EXECUTOR)
    assert (io_counts() - before).read_bytes <= len(ORDER) * PROBE_BYTES


def test_a_type_that_fails_does_not_keep_others_from_being_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    register_dataset_cls("hdf5", BrokenDataSet)
    register_dataset_cls("missing", "no_such_package.DataSet")
    register_dataset_cls("toy", ToyDataSet)
    (tmp_path / "x.dat").write_bytes(b"TOY file")
    assert detect(tmp_path / "x.dat", EXECUTOR) == {
        "parameters": {"path": str(tmp_path / "x.dat")},
        "type": "toy",
    }
    assert capsys.readouterr() == ("", "")


# --- imports ---


def test_formats_are_imported_only_when_needed() -> None:
    code = "import sys, libertem.io.dataset; print(*[m for m in sys.modules if m.endswith(('.npy', '.mrc'))])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
