"""The suite for data sets, tried out on TOY, a format that somebody else could have added.

The test class is the example in the documentation of the suite. The reader is written here, with nothing but
documented classes, and then broken in several ways: the suite has to notice each of them.
"""

from __future__ import annotations

import inspect
import re
import struct
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import libertem.testing
from libertem.common.math import prod
from libertem.common.protocols import ExecutorProtocol
from libertem.common.shape import Shape
from libertem.exceptions import DataSetException
from libertem.io.corrections.corrset import CorrectionSet
from libertem.io.dataset.base.backends.contract import IOBackend
from libertem.io.dataset.base.dataset import DataSet
from libertem.io.dataset.base.files import File, FileSet
from libertem.io.dataset.base.framefile import read_head
from libertem.io.dataset.base.meta import DataSetMeta
from libertem.io.dataset.base.partition import BasePartition
from libertem.io.dataset.base.scan import check_shape
from libertem.io.dataset.base.scheme import TilingScheme
from libertem.io.dataset.base.tile import DataTile
from libertem.io.dataset.registry import register_dataset_cls, unregister_dataset_cls
from libertem.testing import dataset_suite
from libertem.testing.dataset_suite import DataSetTests

HEADER = struct.Struct("<4s3I")


def read_header(path: str) -> tuple[int, int, int]:
    """Number of frames, height and width."""
    head = read_head(path, HEADER.size)
    if len(head.raw) < HEADER.size or not head.raw.startswith(b"TOY1"):
        raise DataSetException("not a TOY file", path=path, found=head.raw[:4], expected=b"TOY1")
    _, width, height, n = HEADER.unpack(head.raw)
    expected = HEADER.size + 2 * n * height * width
    if min(n, height, width) < 1 or head.size < expected:
        raise DataSetException("the file is too short", path=path, found=head.size, expected=expected)
    return n, height, width


class ToyDataSet(DataSet):
    """Reads TOY files."""

    file_header: ClassVar[int] = HEADER.size
    partition_class: ClassVar[type[BasePartition]] = BasePartition

    def __init__(
        self,
        path: Any,
        nav_shape: Any = None,
        sync_offset: int | None = 0,
        io_backend: IOBackend | None = None,
        num_partitions: int | None = None,
    ) -> None:
        super().__init__(io_backend=io_backend, num_partitions=num_partitions)
        self._path = str(path)
        self._nav_shape = None if nav_shape is None else check_shape(nav_shape, "nav_shape")
        self._sync_offset = sync_offset

    def initialize(self, executor: ExecutorProtocol) -> ToyDataSet:
        n, height, width = executor.run_function(read_header, self._path)
        nav_shape = self._nav_shape or (n,)
        self._image_count = n
        self._nav_shape_product = prod(nav_shape)
        self._sync_offset_info = self.get_sync_offset_info()
        self._meta = DataSetMeta(
            shape=Shape((*nav_shape, height, width), sig_dims=2),
            raw_dtype="<u2",
            image_count=n,
            sync_offset=self._sync_offset or 0,
        )
        return self

    @property
    def dtype(self) -> np.dtype[Any]:
        assert self._meta is not None
        return self._meta.dtype

    @property
    def shape(self) -> Shape:
        assert self._meta is not None
        return self._meta.shape

    @classmethod
    def get_supported_extensions(cls) -> set[str]:
        return {"toy"}

    @classmethod
    def detect_params(cls, path: Any, executor: ExecutorProtocol) -> dict[str, Any] | bool:
        try:
            n, *_ = executor.run_function(read_header, path)
        except (DataSetException, TypeError):
            return False
        return {"parameters": {"path": path, "nav_shape": (n,)}, "info": {"image_count": n}}

    def _fileset(self) -> FileSet:
        file = File(self._path, 0, self._image_count, "<u2", self.shape.sig, file_header=self.file_header)
        return FileSet([file])

    def check_valid(self) -> bool:
        with self.get_io_backend().get_impl().open_files(self._fileset()):
            return True

    def get_partitions(self) -> Iterator[BasePartition]:
        assert self._meta is not None
        for part_slice, start, stop in self.get_slices():
            yield self.partition_class(
                meta=self._meta,
                partition_slice=part_slice,
                fileset=self._fileset(),
                start_frame=start,
                num_frames=stop - start,
                io_backend=self.get_io_backend(),
                decoder=self.get_decoder(),
            )

    def get_cache_key(self) -> Any:
        return {"path": self._path, "shape": tuple(self.shape), "sync_offset": self._sync_offset}


@pytest.fixture(autouse=True)
def _toy_is_registered() -> Iterator[None]:
    register_dataset_cls("toy", ToyDataSet)
    yield
    unregister_dataset_cls("toy")


def documented_example() -> type[DataSetTests]:
    """The test class in the documentation of the suite."""
    assert dataset_suite.__doc__ is not None
    block = re.search(r"code-block:: python\n\n(.*?)\n\n(?=\S)", dataset_suite.__doc__, re.DOTALL)
    assert block is not None
    names: dict[str, Any] = {}
    exec(textwrap.dedent(block[1]), names)
    example: type[DataSetTests] = names["TestToy"]
    return example


TestToy = documented_example()


class ToySuite(TestToy):  # type: ignore[valid-type, misc]  # a class made at run time
    """Tests any reader of TOY files, registered or not; not collected."""

    filetype = ToyDataSet


# --- readers with one fault each ---


class WrongOffset(ToyDataSet):
    file_header = HEADER.size - 2


class Transposes(ToyDataSet):
    @property
    def shape(self) -> Shape:
        *nav, height, width = super().shape
        return Shape((*nav, width, height), sig_dims=2)


class _SkippingPartition(BasePartition):
    def get_tiles(self, tiling_scheme: TilingScheme, *args: Any, **kwargs: Any) -> Iterator[DataTile]:
        for tile in super().get_tiles(tiling_scheme, *args, **kwargs):
            if tile.tile_slice.origin[0] != 4:
                yield tile


class SkipsAFrame(ToyDataSet):
    partition_class = _SkippingPartition


class _RepeatingPartition(BasePartition):
    def get_tiles(self, tiling_scheme: TilingScheme, *args: Any, **kwargs: Any) -> Iterator[DataTile]:
        for tile in super().get_tiles(tiling_scheme, *args, **kwargs):
            yield tile
            if tile.tile_slice.origin[0] == 4:
                yield tile


class RepeatsAFrame(ToyDataSet):
    partition_class = _RepeatingPartition


class _GreedyPartition(BasePartition):
    def get_tiles(
        self,
        tiling_scheme: TilingScheme,
        dest_dtype: Any = "float32",
        roi: Any = None,
        array_backend: str | None = None,
    ) -> Iterator[DataTile]:
        return super().get_tiles(tiling_scheme, dest_dtype, None, array_backend)


class IgnoresRoi(ToyDataSet):
    partition_class = _GreedyPartition


class IgnoresSyncOffset(ToyDataSet):
    def initialize(self, executor: ExecutorProtocol) -> ToyDataSet:
        super().initialize(executor)
        assert self._meta is not None
        self._sync_offset = self._meta.sync_offset = 0
        return self


class _UncorrectedPartition(BasePartition):
    def set_corrections(self, corrections: CorrectionSet | None) -> None:
        """Forget them."""


class IgnoresCorrections(ToyDataSet):
    partition_class = _UncorrectedPartition


class _NativePartition(BasePartition):
    def get_tiles(self, tiling_scheme: TilingScheme, *args: Any, **kwargs: Any) -> Iterator[DataTile]:
        return super().get_tiles(tiling_scheme, **{**kwargs, "dest_dtype": "<u2"})


class IgnoresDestDtype(ToyDataSet):
    partition_class = _NativePartition


class ReadsPixelsWhenLoaded(ToyDataSet):
    def initialize(self, executor: ExecutorProtocol) -> ToyDataSet:
        read_head(self._path, 1 << 30)
        super().initialize(executor)
        return self


class CarriesPixels(ToyDataSet):
    def initialize(self, executor: ExecutorProtocol) -> ToyDataSet:
        self._pixels = np.fromfile(self._path, dtype="<u2")
        super().initialize(executor)
        return self


class LeavesFilesOpen(ToyDataSet):
    opened: ClassVar[list[Any]] = []

    def get_partitions(self) -> Iterator[BasePartition]:
        self.opened.append(open(self._path, "rb"))  # noqa: SIM115  # this is the fault
        yield from super().get_partitions()


class DetectsEverything(ToyDataSet):
    @classmethod
    def detect_params(cls, path: Any, executor: ExecutorProtocol) -> dict[str, Any] | bool:
        return {"parameters": {"path": path}}


class DetectsNothing(ToyDataSet):
    @classmethod
    def detect_params(cls, path: Any, executor: ExecutorProtocol) -> dict[str, Any] | bool:
        return False


class FillsMissingFramesWithZeros(ToyDataSet):
    def initialize(self, executor: ExecutorProtocol) -> ToyDataSet:
        path = Path(self._path)
        raw = path.read_bytes()
        if len(raw) > HEADER.size:
            _, width, height, n = HEADER.unpack(raw[: HEADER.size])
            path.write_bytes(raw.ljust(HEADER.size + 2 * n * height * width, b"\0"))
        super().initialize(executor)
        return self


class WritesToTheFile(ToyDataSet):
    def get_partitions(self) -> Iterator[BasePartition]:
        with Path(self._path).open("ab") as file:
            file.write(b"seen")
        yield from super().get_partitions()


class HidesWhatIsMissing(ToyDataSet):
    def initialize(self, executor: ExecutorProtocol) -> ToyDataSet:
        try:
            super().initialize(executor)
        except DataSetException as err:
            raise DataSetException("something went wrong") from err
        return self


class LetsErrorsOfStructEscape(ToyDataSet):
    def initialize(self, executor: ExecutorProtocol) -> ToyDataSet:
        super().initialize(executor)
        raw = Path(self._path).read_bytes()
        struct.unpack(f"{HEADER.size + 2 * prod(self.shape)}x", raw)
        return self


FAULTS: list[tuple[type[ToyDataSet], str]] = [
    (WrongOffset, "test_pixels_are_those_written"),
    (Transposes, "test_pixels_are_those_written"),
    (SkipsAFrame, "test_content_does_not_depend_on_tiles_and_partitions"),
    (RepeatsAFrame, "test_content_does_not_depend_on_tiles_and_partitions"),
    (IgnoresRoi, "test_roi_selects_frames"),
    (IgnoresRoi, "test_forms_of_roi_give_the_same_result"),
    (IgnoresSyncOffset, "test_sync_offset_moves_frames"),
    (IgnoresCorrections, "test_corrections_equal_numpy"),
    (IgnoresCorrections, "test_runs_apply_corrections"),
    (IgnoresDestDtype, "test_pixels_are_converted_as_numpy_does"),
    (ReadsPixelsWhenLoaded, "test_loading_reads_no_pixels"),
    (CarriesPixels, "test_loading_reads_no_pixels"),
    (CarriesPixels, "test_data_sets_can_be_sent_to_workers"),
    (LeavesFilesOpen, "test_runs_leave_no_files_open"),
    (DetectsEverything, "test_foreign_files_are_not_detected"),
    (DetectsEverything, "test_what_is_no_file_is_not_detected"),
    (DetectsNothing, "test_own_files_are_detected"),
    (FillsMissingFramesWithZeros, "test_truncated_files_never_give_other_pixels"),
    (WritesToTheFile, "test_writing_into_tiles_changes_nothing_else"),
    (HidesWhatIsMissing, "test_a_missing_file_is_reported_as_such"),
    (LetsErrorsOfStructEscape, "test_bytes_behind_the_end_are_never_pixels"),
]

FAILURES = (AssertionError, DataSetException, ValueError, struct.error, pytest.fail.Exception)


def run_test(suite: DataSetTests, name: str, folder: Path) -> None:
    """Run a test of the suite with the first dtype, I/O backend and executor, without pytest around it."""
    arguments = {argument: values[0] for argument, values in suite.parameters().items()}
    test = getattr(suite, name)
    with suite.make_context("inline") as ctx:
        arguments |= {"tmp_path": folder, "ctx": ctx}
        test(**{argument: arguments[argument] for argument in inspect.signature(test).parameters})


@pytest.mark.parametrize(("reader", "test"), FAULTS, ids=[f"{cls.__name__}-{test}" for cls, test in FAULTS])
def test_a_fault_is_noticed(reader: type[ToyDataSet], test: str, tmp_path: Path) -> None:
    suite = ToySuite()
    (tmp_path / "sound").mkdir()
    run_test(suite, test, tmp_path / "sound")
    suite.filetype = reader
    (tmp_path / "faulty").mkdir()
    try:
        with pytest.raises(FAILURES):
            run_test(suite, test, tmp_path / "faulty")
    finally:
        while LeavesFilesOpen.opened:
            LeavesFilesOpen.opened.pop().close()


def test_messages_say_what_differs_and_where(tmp_path: Path) -> None:
    suite = ToySuite()
    suite.filetype = WrongOffset
    with pytest.raises(AssertionError, match=r"12 of 12 frames have other pixels, the first one frame 0 at"):
        run_test(suite, "test_pixels_are_those_written", tmp_path)


def test_a_data_set_class_can_be_tested_without_a_name(tmp_path: Path) -> None:
    unregister_dataset_cls("toy")
    try:
        run_test(ToySuite(), "test_pixels_are_those_written", tmp_path)
    finally:
        register_dataset_cls("toy", ToyDataSet)


def test_the_suite_is_not_collected_where_it_is_imported() -> None:
    assert not DataSetTests.__name__.startswith("Test")
    assert libertem.testing.DataSetTests is DataSetTests


def test_names_that_are_not_there_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = libertem.testing.nothing
