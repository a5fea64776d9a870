"""The template for formats with whole frames in files; the suite of formats runs it with files."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libertem.exceptions import DataSetException, MissingFileError, ShapeError, UnsupportedBackendError
from libertem.executor.inline import InlineJobExecutor
from libertem.io.dataset.base import BufferedBackend, File, FileSet, MMapBackend
from libertem.io.dataset.base.backends.rawio import io_counts
from libertem.io.dataset.base.framefile import (
    PROBE_BYTES,
    FrameFacts,
    FrameFileDataSet,
    check_extension,
    file_size,
    read_head,
    renamed_parameter,
)


class ToyDataSet(FrameFileDataSet):
    """Frames of (2, 3) bytes; the scan shape is in the extension."""

    def _inspect(self) -> FrameFacts:
        n = file_size(self._path) // 6
        nav = os.path.splitext(self._path)[1][1:]
        return FrameFacts(
            dtype=np.dtype("u1"),
            image_count=n,
            nav_shape=tuple(int(extent) for extent in nav.split("x")) if nav else (),
            sig_shape=(2, 3),
        )

    def _get_fileset(self) -> FileSet:
        return FileSet([File(self._path, 0, self._image_count, "u1", self.shape.sig)])


class OnlyMapped(ToyDataSet):
    @classmethod
    def get_supported_io_backends(cls) -> list[str]:
        return ["mmap"]


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "scan.2x4"
    file.write_bytes(bytes(range(48)))
    return str(file)


def load(*args: Any, **kwargs: Any) -> ToyDataSet:
    ds = ToyDataSet(*args, **kwargs).initialize(InlineJobExecutor())
    assert isinstance(ds, ToyDataSet)
    return ds


class TestShapes:
    def test_come_from_the_file(self, path: str) -> None:
        ds = load(path)
        assert (ds.shape.to_tuple(), ds.shape.sig_dims, ds.dtype) == ((2, 4, 2, 3), 2, np.dtype("u1"))

    @pytest.mark.parametrize("nav", [(8,), [3, 2], np.array([2, 2, 2]), (100,)])
    def test_can_be_overridden_for_the_scan(self, path: str, nav: Any) -> None:
        assert load(path, nav_shape=nav).shape.nav.to_tuple() == tuple(nav)

    @pytest.mark.parametrize("sig", [(6,), (3, 2), (1, 2, 3)])
    def test_can_be_overridden_for_frames_of_the_same_size(self, path: str, sig: tuple[int, ...]) -> None:
        ds = load(path, sig_shape=sig)
        assert (ds.shape.sig.to_tuple(), ds.shape.sig_dims) == (sig, len(sig))

    def test_of_frames_of_another_size_are_refused(self, path: str) -> None:
        with pytest.raises(ShapeError, match=r"sig_shape must be of size: 6: found \(2, 2\) = 4 px"):
            load(path, sig_shape=(2, 2))

    def test_have_to_come_from_somewhere(self, tmp_path: Path) -> None:
        file = tmp_path / "scan"
        file.write_bytes(bytes(48))
        with pytest.raises(ShapeError, match=r"need to set or detect nav_shape!: found 8 frames"):
            load(file)
        assert load(file, nav_shape=(8,)).shape.to_tuple() == (8, 2, 3)

    @pytest.mark.parametrize("name", ["nav_shape", "sig_shape"])
    @pytest.mark.parametrize("value", [(), (0,), (-1, 2), (2.0, 4.0)])
    def test_are_checked_by_the_constructor(self, name: str, value: Any) -> None:
        with pytest.raises(DataSetException, match=f"none: {name} has to consist of positive integers"):
            ToyDataSet("none", **{name: value})


class TestInitialize:
    def test_counts_what_the_offset_does(self, path: str) -> None:
        ds = load(path, sync_offset=-3)
        assert (ds._image_count, ds._nav_shape_product, ds._sync_offset) == (8, 8, -3)
        assert ds._sync_offset_info == ds.get_sync_offset_info()
        assert ds.meta is not None
        assert (ds.meta.image_count, ds.meta.sync_offset) == (8, -3)

    @pytest.mark.parametrize("offset", [8, -8, 180000000])
    def test_refuses_offsets_that_show_nothing(self, path: str, offset: int) -> None:
        with pytest.raises(DataSetException, match=r"sync_offset should be in \(-8, 8\)"):
            load(path, sync_offset=offset)

    def test_refuses_empty_files(self, tmp_path: Path) -> None:
        file = tmp_path / "scan.1"
        file.touch()
        with pytest.raises(DataSetException, match=r"scan\.1: the data set contains no frames"):
            load(file)

    def test_warns_of_what_is_missing(self, path: str) -> None:
        class Incomplete(ToyDataSet):
            def _inspect(self) -> FrameFacts:
                return FrameFacts(np.dtype("u1"), 8, (8,), (2, 3), notices=("frames 6 to 7 are missing",))

        with pytest.warns(RuntimeWarning, match="frames 6 to 7 are missing"):
            Incomplete(path).initialize(InlineJobExecutor())

    def test_has_to_come_first(self, path: str) -> None:
        ds = ToyDataSet(path)
        assert repr(ds) == f"<ToyDataSet of {path!r}, not initialized>"
        with pytest.raises(RuntimeError, match="ToyDataSet is not initialized"):
            _ = ds.shape

    def test_survives_pickling_before_and_after(self, path: str) -> None:
        executor = InlineJobExecutor(debug=True)
        ds = ToyDataSet(path).initialize(executor)
        assert executor.run_function(ds.check_valid) is True


class TestBackends:
    @pytest.mark.parametrize("choice", ["buffered", BufferedBackend, BufferedBackend()])
    def test_can_be_chosen(self, path: str, choice: Any) -> None:
        assert isinstance(ToyDataSet(path, io_backend=choice).get_io_backend(), BufferedBackend)

    def test_that_do_not_exist_are_refused(self, path: str) -> None:
        with pytest.raises(DataSetException, match="not an I/O backend"):
            ToyDataSet(path, io_backend="doesn't exist")  # type: ignore[arg-type]  # a mistake

    def test_that_the_format_cannot_use_are_refused(self, path: str) -> None:
        OnlyMapped(path, io_backend=MMapBackend())
        with pytest.raises(
            UnsupportedBackendError, match="OnlyMapped currently doesn't support alternative I/O backends"
        ):
            OnlyMapped(path, io_backend=BufferedBackend())


class TestValidity:
    def test_a_good_file_is_valid(self, path: str) -> None:
        assert load(path).check_valid() is True

    @pytest.mark.parametrize("backend", ["mmap", "buffered"])
    def test_a_file_that_vanished_is_not(self, path: str, backend: str) -> None:
        ds = load(path, io_backend=backend)
        os.remove(path)
        with pytest.raises(MissingFileError):
            ds.check_valid()

    def test_a_file_that_shrank_is_not(self, path: str) -> None:
        ds = load(path)
        os.truncate(path, 40)
        with pytest.raises(DataSetException, match="shorter than its frames"):
            ds.check_valid()


def test_partitions_are_those_of_the_data_set(path: str) -> None:
    ds = load(path, num_partitions=3, sync_offset=1, io_backend=BufferedBackend())
    partitions = list(ds.get_partitions())
    assert [p.slice.origin[0] for p in partitions] == [0, 2, 5]
    assert [p._start_frame for p in partitions] == [1, 3, 6]
    assert {type(p.get_io_backend()) for p in partitions} == {BufferedBackend}


def test_what_people_and_caches_see(path: str) -> None:
    ds = load(path, sync_offset=2)
    assert ds.get_diagnostics() == [{"name": "dtype", "value": "uint8"}]
    assert ds.get_cache_key() == {
        "path": path,
        "shape": (2, 4, 2, 3),
        "dtype": "uint8",
        "sync_offset": 2,
    }
    assert repr(ds) == "<ToyDataSet of uint8 shape=(2, 4, 2, 3)>"


def test_renamed_parameters_still_work_with_a_warning() -> None:
    with pytest.warns(FutureWarning, match="scan_size argument is deprecated, use nav_shape instead"):
        assert renamed_parameter("scan_size", (2, 4), "nav_shape", None) == (2, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert renamed_parameter("scan_size", None, "nav_shape", (8,)) == (8,)
    with (
        pytest.warns(FutureWarning),
        pytest.raises(ValueError, match="cannot specify both scan_size and nav_shape"),
    ):
        renamed_parameter("scan_size", (2, 4), "nav_shape", (8,))


class TestLookingAtFiles:
    def test_only_the_first_bytes_are_read(self, tmp_path: Path) -> None:
        file = tmp_path / "large.bin"
        file.write_bytes(b"head" + bytes(1 << 20))
        before = io_counts()
        head = read_head(str(file))
        assert (head.raw[:4], len(head.raw), head.size) == (b"head", PROBE_BYTES, 4 + (1 << 20))
        assert (io_counts() - before).read_bytes == PROBE_BYTES

    def test_a_short_file_is_read_completely(self, path: str) -> None:
        assert read_head(path).raw == bytes(range(48))

    @pytest.mark.parametrize("look", [read_head, file_size])
    def test_what_is_no_file_is_refused(self, tmp_path: Path, look: Any) -> None:
        with pytest.raises(MissingFileError, match=r"none\.bin"):
            look(str(tmp_path / "none.bin"))
        with pytest.raises(DataSetException, match="not a file: found a directory"):
            look(str(tmp_path))
        with pytest.raises(DataSetException, match="not a possible path"):
            look("a\0b")
        with pytest.raises(TypeError, match="path has to be a string"):
            look(3)

    def test_extensions_are_compared_without_case(self) -> None:
        check_extension("F.MRC", {"mrc"})
        with pytest.raises(DataSetException, match=r"found '\.raw', expected \.mrc or \.st"):
            check_extension("f.raw", ["st", "mrc"])
