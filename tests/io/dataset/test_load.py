from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libertem.common.messageconverter import MessageConverter
from libertem.common.scheduler import Worker, WorkerSet
from libertem.common.shape import Shape
from libertem.exceptions import DataSetException, MissingFileError
from libertem.executor.inline import InlineJobExecutor
from libertem.io.dataset import filetypes, load, register_dataset_cls
from libertem.io.dataset.base.backends.contract import IOBackend
from libertem.io.dataset.base.backends.mmap import MMapBackend
from libertem.io.dataset.base.dataset import DataSet
from libertem.io.dataset.base.meta import DataSetMeta
from libertem.io.dataset.npy import NPYDataSet
from libertem.testing.writers.empad import write_empad
from libertem.testing.writers.mrc import write_mrc
from libertem.testing.writers.npy import write_npy

EXECUTOR = InlineJobExecutor(debug=True)
ARRAY = np.arange(2 * 3 * 4 * 5, dtype="u2").reshape(2, 3, 4, 5)


@pytest.fixture(autouse=True)
def _registry_stays_as_it_was() -> Iterator[None]:
    saved = dict(filetypes)
    yield
    filetypes.clear()
    filetypes.update(saved)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_npy(tmp_path / "x.npy", ARRAY)


class WorkersExecutor(InlineJobExecutor):
    """Claims to have certain workers, and remembers what it was asked to do."""

    def __init__(self, *workers: Worker) -> None:
        super().__init__()
        self.workers = WorkerSet(workers)
        self.calls: list[str] = []

    def run_function(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.calls.append(fn.__name__)
        return super().run_function(fn, *args, **kwargs)

    def get_available_workers(self) -> WorkerSet:
        return self.workers


class RecordingDataSet(DataSet):
    """Remembers its parameters."""

    valid = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.args, self.kwargs = args, kwargs

    def initialize(self, executor: Any) -> RecordingDataSet:
        other = type(self)(*self.args, **self.kwargs)
        other._meta = DataSetMeta(shape=Shape((1, 1, 1), sig_dims=2), raw_dtype="f4")
        return other

    def check_valid(self) -> bool:
        assert self._meta is not None, "has to come after initialize"
        return self.valid


class InvalidDataSet(RecordingDataSet):
    """Finds itself invalid."""

    valid = False


class NoBackendDataSet(RecordingDataSet):
    """Has no parameter io_backend."""

    def __init__(self, path: str) -> None:
        super().__init__(path=path)


def as_coroutine(filetype: Any, *args: Any, **kwargs: Any) -> DataSet:
    """Load asynchronously."""

    async def wait() -> DataSet:
        executor = EXECUTOR.ensure_async()
        return await load(filetype, *args, enable_async=True, executor=executor, **kwargs)

    return asyncio.run(wait())


def at_once(filetype: Any, *args: Any, **kwargs: Any) -> DataSet:
    """Load synchronously."""
    return load(filetype, *args, executor=EXECUTOR, **kwargs)


both_ways = pytest.mark.parametrize("load_it", [at_once, as_coroutine])


# --- parameters ---


@both_ways
def test_parameters_go_to_the_class_unchanged(load_it: Callable[..., Any]) -> None:
    ds = load_it(RecordingDataSet, 1, Path("x"), a=2, io_backend=None)
    assert ds.args == (1, Path("x"))
    assert ds.kwargs == {"a": 2, "io_backend": None}


@both_ways
def test_the_data_set_that_initialize_returns_is_the_result(load_it: Callable[..., Any]) -> None:
    assert load_it(RecordingDataSet).meta is not None


@both_ways
def test_names_and_positional_parameters(load_it: Callable[..., Any], path: Path) -> None:
    assert load_it("npy", str(path), 1).shape.sig.to_tuple() == (5,)
    assert tuple(load_it("NPY", path=path).shape) == (2, 3, 4, 5)
    assert tuple(load_it(NPYDataSet, path=path).shape) == (2, 3, 4, 5)


@both_ways
def test_unexpected_parameters_are_refused(load_it: Callable[..., Any], path: Path) -> None:
    with pytest.raises(TypeError, match="unexpected"):
        load_it("npy", path=path, unexpected=1)


def test_a_class_without_io_backend_is_told_so() -> None:
    with pytest.raises(TypeError, match="io_backend"):
        at_once(NoBackendDataSet, path="x", io_backend=None)


@pytest.mark.parametrize("choice", ["mmap", MMapBackend, MMapBackend()])
def test_io_backends_may_be_named(choice: Any) -> None:
    ds: Any = at_once(RecordingDataSet, io_backend=choice)
    assert isinstance(ds.kwargs["io_backend"], MMapBackend)


@pytest.mark.parametrize("choice", ["doesn't exist", 5, object])
def test_what_is_no_io_backend_is_refused(choice: Any) -> None:
    with pytest.raises(DataSetException, match="not an I/O backend"):
        at_once(RecordingDataSet, io_backend=choice)


def test_an_io_backend_of_another_platform_is_refused() -> None:
    class ElsewhereBackend(IOBackend):
        @classmethod
        def platform_supported(cls) -> bool:
            return False

    with pytest.raises(DataSetException, match="not offered on this platform"):
        at_once(RecordingDataSet, io_backend=ElsewhereBackend)


def test_converters_of_json_know_the_io_backends() -> None:
    assert MessageConverter.io_backends is IOBackend.registry


# --- checks ---


@both_ways
def test_an_invalid_data_set_is_refused(load_it: Callable[..., Any]) -> None:
    with pytest.raises(DataSetException, match=r"invalid dataset.*False"):
        load_it(InvalidDataSet)


@both_ways
def test_an_unknown_type_is_refused(load_it: Callable[..., Any]) -> None:
    with pytest.raises(DataSetException, match="unknown filetype: nope"):
        load_it("nope", path="x")


@both_ways
def test_neither_name_nor_class_is_refused(load_it: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="filetype has to be"):
        load_it(5, path="x")


def test_files_are_looked_at_by_workers_only(path: Path) -> None:
    executor = WorkersExecutor(Worker("a", "localhost", {"CPU": 1}, 1))
    load("npy", path=path, executor=executor)
    assert executor.calls == ["_inspect", "check_valid"]


@pytest.mark.parametrize(
    ("workers", "n_partitions"),
    [
        ([({"CPU": 1}, 1)], 1),
        ([({"CPU": 1}, 1)] * 3, 3),
        ([({"CPU": 1}, 2)] * 2, 4),
        ([({"CPU": 1}, 1), ({"CUDA": 1}, 1), ({"CUDA": 1}, 1), ({}, 1)], 2),
        ([({"CUDA": 1}, 1), ({}, 4)], 1),
        ([({}, 2), ({}, 3)], 5),
    ],
)
def test_there_are_as_many_partitions_as_workers(
    workers: list[tuple[dict[str, float], int]], n_partitions: int, path: Path
) -> None:
    executor = WorkersExecutor(
        *(Worker(f"w{i}", "localhost", resources, n) for i, (resources, n) in enumerate(workers))
    )
    ds = load("npy", path=path, executor=executor)
    assert len(list(ds.get_partitions())) == n_partitions


# --- auto ---


@both_ways
@pytest.mark.parametrize("auto", ["auto", "AUTO"])
def test_types_are_detected(auto: str, load_it: Callable[..., Any], path: Path, tmp_path: Path) -> None:
    mrc = write_mrc(tmp_path / "x.mrc", ARRAY[0])
    xml = write_empad(tmp_path, [np.zeros((6, 128, 128), dtype="f4")], (2, 3))
    assert repr(load_it(auto, path)) == "<NPYDataSet of uint16 shape=(2, 3, 4, 5)>"
    assert repr(load_it(auto, path=str(path), io_backend=None)) == "<NPYDataSet of uint16 shape=(2, 3, 4, 5)>"
    # Only the type is used: MRC files are one-dimensional unless the user says otherwise.
    assert repr(load_it(auto, path=mrc)) == "<MRCDataSet of uint16 shape=(3, 4, 5)>"
    assert repr(load_it(auto, path=xml)) == "<EMPADFileDataSet of float32 shape=(2, 3, 128, 128)>"


@both_ways
def test_parameters_of_the_user_go_to_the_detected_type(load_it: Callable[..., Any], path: Path) -> None:
    ds = load_it("auto", path, 1, nav_shape=(4,), io_backend="buffered")
    assert tuple(ds.shape) == (4, 5)
    assert ds.get_io_backend().id_ == "buffered"


@both_ways
def test_a_path_is_needed(load_it: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="path"):
        load_it("auto")
    with pytest.raises(DataSetException, match="please specify the `path` argument to allow auto detection"):
        load_it("auto", path=None)


def test_a_refusal_tells_what_was_tried_and_why_not(tmp_path: Path) -> None:
    path = tmp_path / "x.dat"
    path.write_bytes(b"something else")
    with pytest.raises(DataSetException) as info:
        at_once("auto", path=path)
    sentence = str(info.value)
    assert sentence.startswith(f"could not determine DataSet type for file '{path}'")
    assert "\n  npy: not a NumPy file: found b'someth', expected b'\\x93NUMPY'" in sentence
    assert "\n  mrc: another extension: found '.dat', expected .mrc" in sentence
    assert "\n  empad: another extension: found '.dat', expected .xml" in sentence
    assert 'name the type yourself, as in ctx.load("raw", ...)' in sentence
    assert "raw: " not in sentence


class SilentDataSet(RecordingDataSet):
    """Says no without a reason."""

    @classmethod
    def detect_params(cls, path: Any, executor: Any) -> bool:
        return False


class FailingDataSet(RecordingDataSet):
    """Fails when asked."""

    @classmethod
    def detect_params(cls, path: Any, executor: Any) -> bool:
        raise IndexError("list index out of range")


def test_a_refusal_shows_types_that_give_no_reason_or_fail(tmp_path: Path) -> None:
    register_dataset_cls("silent", SilentDataSet)
    register_dataset_cls("failing", FailingDataSet)
    register_dataset_cls("unasked", RecordingDataSet)
    (tmp_path / "x.dat").write_bytes(b"something else")
    with pytest.raises(DataSetException) as info:
        at_once("auto", path=tmp_path / "x.dat")
    sentence = str(info.value)
    assert "\n  silent: does not recognize the file\n" in sentence
    assert "\n  failing: list index out of range\n" in sentence
    assert "unasked" not in sentence


def test_a_refusal_shows_what_is_wrong_with_a_file_of_a_known_type(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.asfortranarray(ARRAY))
    with pytest.raises(DataSetException, match=r"could not determine DataSet type.*\n  npy: only C_CONTIG"):
        at_once("auto", path=tmp_path / "x.npy")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "no.npy")
    with pytest.raises(MissingFileError) as info:
        at_once("auto", path=path)
    assert str(info.value) == f"could not determine DataSet type for file '{path}': the file does not exist"


def test_a_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataSetException, match=r"could not determine.*not a file: found a directory"):
        at_once("auto", path=tmp_path)


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="permissions do not bind this user")
def test_a_file_without_permission_is_named(path: Path) -> None:
    path.chmod(0)
    with pytest.raises(PermissionError, match=r"could not determine.*no permission"):
        at_once("auto", path=path)


def test_what_is_no_path_is_refused() -> None:
    with pytest.raises(DataSetException, match=r"could not determine .* '555': found int, expected a path"):
        at_once("auto", path=555)


@both_ways
def test_arrays_are_loaded_as_they_are(load_it: Callable[..., Any]) -> None:
    register_dataset_cls("memory", RecordingDataSet)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ds = load_it("auto", ARRAY, sig_dims=2, io_backend=None)
    assert ds.args == ()
    assert ds.kwargs["data"] is ARRAY or np.array_equal(ds.kwargs["data"], ARRAY)
    assert ds.kwargs["sig_dims"] == 2


def test_dask_arrays_are_loaded_as_such() -> None:
    lazy = type("Array", (), {"shape": (2, 3, 4), "__module__": "dask.array.core"})()
    register_dataset_cls("dask", RecordingDataSet)
    ds: Any = load("auto", path=lazy, sig_dims=2, executor=InlineJobExecutor())
    assert ds.args == (lazy,)
    assert ds.kwargs == {"sig_dims": 2}
