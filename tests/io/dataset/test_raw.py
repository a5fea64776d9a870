"""What is peculiar to raw files; the suite of formats has the rest."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from libertem.api import Context
from libertem.exceptions import DataSetException, MissingFileError
from libertem.executor.inline import InlineJobExecutor
from libertem.io.dataset.base import BufferedBackend, DirectBackend, FileSet, MMapBackend
from libertem.io.dataset.raw import (
    RAWDatasetParams,
    RawFile,
    RawFileDataSet,
    RawFileSet,
    RawPartition,
)
from libertem.udf.sum import SumUDF

FRAMES = np.arange(160, dtype=np.uint16).reshape(8, 4, 5)
Load = Callable[..., RawFileDataSet]


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "eight.raw"
    file.write_bytes(FRAMES.tobytes())
    return str(file)


@pytest.fixture
def load(path: str) -> Load:
    """Eight frames of (4, 5) uint16, 320 bytes."""

    def load(**kwargs: Any) -> RawFileDataSet:
        arguments = {"dtype": "u2", "nav_shape": (2, 4), "sig_shape": (4, 5), **kwargs}
        executor = InlineJobExecutor()
        ds = RawFileDataSet(path, **arguments).initialize(executor)
        assert isinstance(ds, RawFileDataSet)
        assert executor.run_function(ds.check_valid)
        return ds

    return load


def read(ds: RawFileDataSet, dtype: str = "u2") -> Any:
    return [p.get_macrotile(dtype).data for p in ds.get_partitions()]


class TestShapes:
    @pytest.mark.parametrize(
        ("nav", "sig", "images", "blank"),
        [
            ((2, 4), (4, 5), 8, 0),
            ((8,), (20,), 8, 0),
            ((4,), (2, 4, 5), 4, 0),
            ((2, 4), (3, 17), 3, 5),
            ((2, 4), (160, 1), 1, 7),
            ((5,), (4, 5), 8, 0),
            ((3, 4), (4, 5), 8, 4),
            ((2, 1, 2, 2), (4, 5), 8, 0),
        ],
    )
    def test_cut_the_file_into_frames(
        self, load: Load, nav: tuple[int, ...], sig: tuple[int, ...], images: int, blank: int
    ) -> None:
        ds = load(nav_shape=nav, sig_shape=sig)
        assert ds.shape.to_tuple() == nav + sig
        assert ds.shape.sig_dims == len(sig)
        assert ds._image_count == images
        assert ds.get_sync_offset_info()["frames_inserted_end"] == blank
        n = min(images, int(np.prod(nav)))
        expected = FRAMES.reshape(-1)[: n * int(np.prod(sig))].reshape(n, *sig)
        np.testing.assert_array_equal(np.concatenate(read(ds)), expected)

    def test_larger_than_the_file_are_refused(self, load: Load) -> None:
        with pytest.raises(DataSetException, match="sig_shape must be less than size: 160"):
            load(sig_shape=(161, 1))

    def test_of_an_empty_file_are_refused(self, tmp_path: Path) -> None:
        empty = tmp_path / "empty.raw"
        empty.touch()
        with pytest.raises(DataSetException, match="sig_shape must be less than size: 0"):
            RawFileDataSet(empty, "f4", nav_shape=(1,), sig_shape=(1,)).initialize(InlineJobExecutor())

    @pytest.mark.parametrize(("sig", "images"), [((4, 4), 256), ((3, 3), 455)])
    def test_may_have_nothing_to_do_with_the_detector(
        self, tmp_path: Path, sig: tuple[int, int], images: int
    ) -> None:
        file = tmp_path / "float.raw"
        file.write_bytes(np.zeros((64, 8, 8), dtype=np.float32).tobytes())
        ds = RawFileDataSet(file, "f4", nav_shape=(8, 8), sig_shape=sig).initialize(InlineJobExecutor())
        assert ds._image_count == images

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("nav_shape", ()),
            ("nav_shape", (-1, 2)),
            ("nav_shape", (0,)),
            ("nav_shape", (2.0, 4.0)),
            ("sig_shape", (103, -83)),
            ("sig_shape", ()),
        ],
    )
    def test_have_to_be_positive_integers(self, load: Load, name: str, value: Any) -> None:
        with pytest.raises(DataSetException, match=f"{name} has to consist of positive integers"):
            load(**{name: value})

    @pytest.mark.parametrize("name", ["nav_shape", "sig_shape"])
    def test_are_sequences(self, load: Load, name: str) -> None:
        with pytest.raises(TypeError, match="not iterable"):
            load(**{name: 4})

    @pytest.mark.parametrize("kind", [list, np.array])
    def test_may_be_any_sequence(self, load: Load, kind: Any) -> None:
        assert load(nav_shape=kind((2, 4)), sig_shape=kind((4, 5))).shape.to_tuple() == (2, 4, 4, 5)

    @pytest.mark.parametrize("offset", [7, -7, 3, -3])
    def test_may_be_offset(self, load: Load, offset: int) -> None:
        ds = load(sync_offset=offset)
        assert ds.shape.to_tuple() == (2, 4, 4, 5)
        info = ds.get_sync_offset_info()
        assert info["frames_skipped_start"] - info["frames_inserted_start"] == offset

    @pytest.mark.parametrize("offset", [8, -8])
    def test_may_not_be_offset_by_all_frames(self, load: Load, offset: int) -> None:
        with pytest.raises(DataSetException, match=r"\(-8, 8\)"):
            load(sync_offset=offset)

    @pytest.mark.parametrize("missing", ["nav_shape", "sig_shape"])
    def test_are_required(self, load: Load, missing: str) -> None:
        with pytest.raises(TypeError, match=f"missing 1 required argument: '{missing}'"):
            load(**{missing: None})


class TestDtype:
    def test_is_required(self, path: str) -> None:
        with pytest.raises(TypeError, match="dtype"):
            RawFileDataSet(path, nav_shape=(8,), sig_shape=(20,))  # type: ignore[call-arg]  # what is tested

    @pytest.mark.parametrize("dtype", ["O", [("a", "u1"), ("b", "u1")], "V0"])
    def test_is_that_of_plain_numbers(self, load: Load, dtype: Any) -> None:
        with pytest.raises(DataSetException, match="pixels need a plain dtype of fixed size"):
            load(dtype=dtype)

    def test_has_to_be_known_to_numpy(self, load: Load) -> None:
        with pytest.raises(TypeError):
            load(dtype="float7")

    @pytest.mark.parametrize("dtype", [">u2", ">i2", "<i2", np.uint16, np.dtype("u2")])
    def test_may_have_a_byte_order(self, load: Load, dtype: Any) -> None:
        ds = load(dtype=dtype)
        assert ds.dtype == ds.meta.raw_dtype == np.dtype(dtype)  # type: ignore[union-attr]  # initialized
        expected = np.frombuffer(FRAMES.tobytes(), dtype).reshape(FRAMES.shape)
        np.testing.assert_array_equal(np.concatenate(read(ds, "f4")), expected)


class TestTrailingBytes:
    @pytest.mark.parametrize("backend", ["mmap", "buffered"])
    @pytest.mark.parametrize("trailing", [1, 2, 4, 20, 39])
    def test_are_ignored(self, path: str, load: Load, trailing: int, backend: str) -> None:
        with open(path, "ab") as file:
            file.write(b"\xff" * trailing)
        ds = load(io_backend=backend)
        assert ds._image_count == 8
        np.testing.assert_array_equal(np.concatenate(read(ds)), FRAMES)


class TestDeprecatedParameters:
    def test_scan_size(self, load: Load) -> None:
        with pytest.warns(FutureWarning, match="scan_size"):
            assert load(nav_shape=None, scan_size=(8,)).shape.nav.to_tuple() == (8,)
        with (
            pytest.warns(FutureWarning),
            pytest.raises(ValueError, match="cannot specify both scan_size and nav_shape"),
        ):
            load(scan_size=(8,))

    def test_detector_size(self, load: Load) -> None:
        with pytest.warns(FutureWarning, match="detector_size"):
            assert load(sig_shape=None, detector_size=(20,)).shape.sig.to_tuple() == (20,)
        with (
            pytest.warns(FutureWarning),
            pytest.raises(ValueError, match="cannot specify both detector_size and sig_shape"),
        ):
            load(detector_size=(20,))

    def test_cropping_to_the_whole_detector(self, load: Load) -> None:
        with pytest.warns(FutureWarning) as caught:
            ds = load(sig_shape=None, crop_detector_to=(4, 5), detector_size_raw=(4, 5))
        assert ds.shape.sig.to_tuple() == (4, 5)
        assert len(caught) == 2

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"crop_detector_to": (4, 4), "detector_size_raw": (4, 5)}, "please use EMPAD DataSet"),
            ({"crop_detector_to": (4, 5), "detector_size": (4, 5)}, "cannot specify both"),
        ],
    )
    def test_any_other_cropping_is_refused(self, load: Load, arguments: dict[str, Any], message: str) -> None:
        with pytest.warns(FutureWarning), pytest.raises(ValueError, match=message):
            load(sig_shape=None, **arguments)

    def test_tileshape_has_no_effect(self, load: Load) -> None:
        with pytest.warns(FutureWarning, match="tileshape"):
            load(tileshape=(1, 4, 5))

    def test_enable_direct(self, path: str) -> None:
        arguments = {"dtype": "u2", "nav_shape": (8,), "sig_shape": (20,), "enable_direct": True}
        if DirectBackend.platform_supported():
            with pytest.warns(FutureWarning, match="enable_direct"):
                ds = RawFileDataSet(path, **arguments)
            assert isinstance(ds.get_io_backend(), DirectBackend)
        with pytest.raises(ValueError, match="can't specify io_backend and enable_direct at the same time"):
            RawFileDataSet(path, **arguments, io_backend=MMapBackend())


class TestErrors:
    def test_a_missing_file(self, tmp_path: Path) -> None:
        ds = RawFileDataSet(tmp_path / "none.raw", "u2", nav_shape=(8,), sig_shape=(20,))
        with pytest.raises(MissingFileError, match=r"none\.raw"):
            ds.initialize(InlineJobExecutor())

    def test_a_directory(self, tmp_path: Path) -> None:
        ds = RawFileDataSet(tmp_path, "u2", nav_shape=(8,), sig_shape=(20,))
        with pytest.raises(DataSetException, match=str(tmp_path)):
            ds.initialize(InlineJobExecutor())

    def test_a_file_that_vanished(self, load: Load, path: str) -> None:
        ds = load()
        os.remove(path)
        with pytest.raises(DataSetException, match=path):
            ds.check_valid()


class TestReading:
    def test_one_file_covers_all_images(self, load: Load, path: str) -> None:
        (file,) = load(nav_shape=(5,))._get_fileset()
        assert type(file) is RawFile
        assert (file.path, file.start_idx, file.end_idx, file.sig_shape) == (path, 0, 8, (4, 5))

    def test_partitions_are_raw_partitions(self, load: Load) -> None:
        (first, second) = load(num_partitions=2).get_partitions()
        assert type(first) is RawPartition
        assert type(first._fileset) is RawFileSet
        assert repr(second) == "<RawPartition [4:8]>"

    def test_plain_pixels_need_no_copy(self, load: Load) -> None:
        assert load(io_backend=MMapBackend()).need_decode("u2", None, None) is False
        assert load(sync_offset=-1, io_backend=MMapBackend()).need_decode("u2", None, None) is True

    def test_more_partitions_than_frames_are_reduced(self, load: Load) -> None:
        with pytest.warns(RuntimeWarning, match="fewer frames than specified partitions"):
            assert len(list(load(num_partitions=100).get_partitions())) == 8

    def test_subclasses_may_have_many_files(self, tmp_path: Path) -> None:
        """As many as one per frame."""

        class ManyFiles(RawFileDataSet):
            def _get_filesize(self) -> int:
                return FRAMES.nbytes

            def get_num_partitions(self) -> int:
                return 2

            def _get_fileset(self) -> FileSet:
                return FileSet(
                    [RawFile(str(tmp_path / str(i)), i, i + 1, np.uint16, self.shape.sig) for i in range(8)]
                )

        for i, frame in enumerate(FRAMES):
            (tmp_path / str(i)).write_bytes(frame.tobytes())
        ds = ManyFiles(tmp_path / "not there", "u2", nav_shape=(8,), sig_shape=(4, 5))
        ds.initialize(InlineJobExecutor())
        assert ds.check_valid()
        np.testing.assert_array_equal(read(ds), FRAMES.reshape(2, 4, 4, 5))

    def test_a_context_loads_it_by_name(self, path: str) -> None:
        with Context(executor=InlineJobExecutor(debug=True)) as ctx:
            ds = ctx.load("raw", path, "u2", nav_shape=(2, 4), sig_shape=(4, 5), io_backend=None)
            result = ctx.run_udf(dataset=ds, udf=SumUDF())["intensity"].data
        np.testing.assert_array_equal(result, FRAMES.sum(axis=0))


class TestFacts:
    def test_are_shown(self, load: Load, path: str) -> None:
        ds = load(sync_offset=1)
        assert ds.array_backends == ("numpy", "cuda")
        assert ds.get_diagnostics() == [{"name": "dtype", "value": "uint16"}]
        assert repr(ds) == "<RawFileDataSet of uint16 shape=(2, 4, 4, 5)>"
        key = ds.get_cache_key()
        assert key == {"path": path, "shape": (2, 4, 4, 5), "dtype": "uint16", "sync_offset": 1}
        json.dumps(key)

    def test_byte_order_is_part_of_the_dtype(self, load: Load) -> None:
        assert load(dtype=">u2").get_diagnostics() == [{"name": "dtype", "value": ">u2"}]

    def test_there_is_nothing_to_recognize(self, path: str) -> None:
        assert RawFileDataSet.get_supported_extensions() == set()
        with pytest.raises(NotImplementedError):
            RawFileDataSet.detect_params(path, InlineJobExecutor())

    def test_a_pickle_is_small(self, load: Load) -> None:
        ds = load(io_backend=BufferedBackend())
        assert len(pickle.dumps(ds)) < 2048
        assert len(pickle.dumps(next(iter(ds.get_partitions())))) < 1500
        assert pickle.loads(pickle.dumps(ds)).shape == ds.shape


class TestJson:
    MESSAGE = {"type": "RAW", "path": "f.raw", "dtype": "u2", "nav_shape": [2, 4], "sig_shape": [4, 5]}

    def test_parameters_are_handed_on(self) -> None:
        assert RawFileDataSet.get_msg_converter() is RAWDatasetParams
        expected = {key: value for key, value in self.MESSAGE.items() if key != "type"}
        assert RAWDatasetParams().to_python(self.MESSAGE) == expected
        assert RAWDatasetParams().to_python({**self.MESSAGE, "sync_offset": 2}) == {
            **expected,
            "sync_offset": 2,
        }

    @pytest.mark.parametrize(("name", "cls"), [("mmap", MMapBackend), ("buffered", BufferedBackend)])
    def test_backends_become_objects(self, name: str, cls: type) -> None:
        params = RAWDatasetParams().to_python({**self.MESSAGE, "io_backend": name})
        assert type(params["io_backend"]) is cls

    @pytest.mark.parametrize(
        "change",
        [
            {"type": "NPY"},
            {"nav_shape": [2]},
            {"sig_shape": [0, 5]},
            {"dtype": 2},
            {"io_backend": "doesn't exist"},
            {"path": None},
        ],
    )
    def test_others_are_refused(self, change: dict[str, Any]) -> None:
        with pytest.raises(jsonschema.ValidationError):
            RAWDatasetParams().to_python({**self.MESSAGE, **change})

    @pytest.mark.parametrize("missing", list(MESSAGE))
    def test_all_but_the_last_are_required(self, missing: str) -> None:
        with pytest.raises(jsonschema.ValidationError, match=missing):
            RAWDatasetParams().to_python({k: v for k, v in self.MESSAGE.items() if k != missing})
