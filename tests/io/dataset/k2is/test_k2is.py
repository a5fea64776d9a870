from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest

from libertem.api import Context
from libertem.common.shape import Shape
from libertem.exceptions import DataSetException, ShapeError
from libertem.executor.inline import InlineJobExecutor
from libertem.io.dataset import load
from libertem.io.dataset.base.negotiation import Negotiator
from libertem.io.dataset.base.scheme import TilingScheme
from libertem.io.dataset.k2is import K2ISDataSet, K2ISDatasetParams
from libertem.testing import DataSetTests
from libertem.testing.writers.k2is import K2ISStream, write_k2is
from libertem.udf.masks import ApplyMasksUDF
from libertem.udf.sum import SumUDF

EXECUTOR = InlineJobExecutor(debug=True)
FRAME_SHAPE = (1860, 2048)

QUICK = (
    "pixels_are_those_written",
    "a_missing_file_is_reported_as_such",
    "a_directory_is_refused",
    "an_empty_file_is_refused",
    "a_file_that_shrinks_after_loading_raises",
    "damaged_headers_raise_errors_of_the_library",
    "detection_reads_little",
    "diagnostics_are_names_and_values",
    "foreign_files_are_not_detected",
    "foreign_files_are_not_loaded",
    "impossible_arguments_are_refused",
    "io_backends_are_those_declared",
    "loading_reads_no_pixels",
    "no_other_type_claims_own_files",
    "partitions_follow_each_other",
    "runs_leave_no_files_open",
    "sync_offset_is_visible_in_diagnostics",
    "sync_offset_that_hides_all_frames_is_refused",
    "what_is_no_file_is_not_detected",
)


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """Emptied at once: pytest would keep gigabytes."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def make_frames(n: int, seed: int = 0) -> npt.NDArray[np.uint16]:
    raw = np.random.default_rng(seed).bytes(2 * n * 1860 * 2048)
    return np.frombuffer(raw, dtype=np.uint16).reshape(n, *FRAME_SHAPE) >> 4


class TestK2IS(DataSetTests):
    """The sensor has a fixed size, so that all tests of the suite together take minutes.

    They pass: set LIBERTEM_WHOLE_SUITE to run them. Normally, those run that depend on the format, rather
    than on what it shares with other packed formats.
    """

    filetype = "k2is"
    sig_shape = FRAME_SHAPE
    nav_shape = (2, 4)
    max_pickle_bytes = 4096
    executors: ClassVar[tuple[str, ...]] = ("threads",)

    def make_frames(self, n: int, dtype: str | None = None, *, seed: int = 0) -> npt.NDArray[Any]:
        return make_frames(n, seed)

    def make_large(self) -> npt.NDArray[Any]:
        return self.make_frames(3)

    def write(self, folder: Path, frames: npt.NDArray[Any]) -> dict[str, Any]:
        # Any tags are those of a time series, so that foreign content of the .gtg file can be right.
        return {"path": str(write_k2is(folder, [frames], len(frames)).with_name("Capture52_3.bin"))}

    def _damages(self, size: int) -> Iterator[tuple[int, bytes]]:
        yield from (damage for damage in super()._damages(min(size, 40)) if damage[0] % 8 == 0)

    def test_a_file_that_shrinks_after_loading_raises(
        self, tmp_path: Path, ctx: Context, io_backend: str | None
    ) -> None:
        for left in (0, 715520, 2 * 715520 - 1):
            kwargs = self.write_frames(tmp_path / str(left), self.make_frames(2))
            ds = self.load(ctx, kwargs, io_backend=io_backend, nav_shape=(2,))
            os.truncate(self.main_file(kwargs), left)
            with pytest.raises(DataSetException):
                read(ds)
            with pytest.raises(DataSetException):
                ctx.run_udf(dataset=ds, udf=SumUDF())


if "LIBERTEM_WHOLE_SUITE" not in os.environ:
    for name in dir(TestK2IS):
        if name.startswith("test_") and name.removeprefix("test_") not in QUICK:
            setattr(TestK2IS, name, None)


def read(ds: Any, tile_shape: tuple[int, ...] | None = None, dtype: Any = "uint16") -> npt.NDArray[Any]:
    """All frames, from tiles of that shape."""
    shape = Shape(tile_shape or (2, *ds.shape.sig), sig_dims=ds.shape.sig.dims)
    scheme = TilingScheme.make_for_shape(tileshape=shape, dataset_shape=ds.shape)
    out = np.full((ds.shape.nav.size, *ds.shape.sig), 0xBEEF, dtype=dtype)
    for partition in ds.get_partitions():
        for tile in partition.get_tiles(scheme, dest_dtype=dtype):
            out[tile.tile_slice.get()] = tile.data
    return out


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, npt.NDArray[np.uint16]]]:
    """Three frames, recorded at odd times, of which two are whole."""
    folder = tmp_path_factory.mktemp("recording")
    frames = make_frames(3)
    stream = K2ISStream(leading=(0, 1, 2, 3, 30, 31, 7, 8), tail=b"x" * 999)
    yield write_k2is(folder, [frames[:1], frames[1:]], 3, stream=stream), frames[1:]
    shutil.rmtree(folder)


def load_k2is(path: Path, **kwargs: Any) -> Any:
    return load("k2is", path=path, executor=EXECUTOR, **kwargs)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("tile_shape", [None, (1, 930, 16), (2, 930, 2048), (1, 1860, 48), (2, 1860, 1024)])
def test_tiles_of_whole_blocks_make_up_the_frames(
    tile_shape: Any, dtype: str, recording: tuple[Path, npt.NDArray[np.uint16]]
) -> None:
    ds = load_k2is(recording[0])
    np.testing.assert_array_equal(read(ds, tile_shape, dtype), recording[1].astype(dtype))


@pytest.mark.parametrize(
    "tile_shape", [(1, 465, 16), (1, 931, 2048), (2, 1860, 8), (1, 930, 24), (1, 1, 2048)]
)
def test_other_tiles_are_refused(
    tile_shape: tuple[int, ...], recording: tuple[Path, npt.NDArray[np.uint16]]
) -> None:
    ds = load_k2is(recording[0])
    with pytest.raises(
        ValueError, match=r"Invalid tiling scheme: needs to be aligned to blocksize \(930, 16\)"
    ):
        read(ds, tile_shape)


def test_tiles_are_negotiated_from_blocks(recording: tuple[Path, npt.NDArray[np.uint16]]) -> None:
    ds = load_k2is(recording[0], nav_shape=(32,))
    assert ds.get_base_shape(None) == (1, 930, 16)
    scheme = TilingScheme.make_for_shape(tileshape=Shape((1, 930, 16), sig_dims=2), dataset_shape=ds.shape)
    assert len(scheme) == 256
    udf = ApplyMasksUDF(mask_factories=[lambda: np.ones(FRAME_SHAPE)])
    shape = Shape((32, *FRAME_SHAPE), sig_dims=2)
    negotiated = Negotiator().get_scheme([udf], ds, np.float32, shape, None, None)
    assert tuple(negotiated.shape) == (17, 930, 16)


@pytest.mark.parametrize("sig_shape", [(2048, 1860), (3809280,), (1860, 8, 256)])
def test_frames_can_have_another_shape(
    sig_shape: tuple[int, ...], recording: tuple[Path, npt.NDArray[np.uint16]]
) -> None:
    ds = load_k2is(recording[0], sig_shape=sig_shape)
    assert tuple(ds.shape) == (2, *sig_shape)
    np.testing.assert_array_equal(read(ds), recording[1].reshape(2, *sig_shape))


@pytest.mark.parametrize("sig_shape", [(1792, 1920), (1860, 2047)])
def test_frames_cannot_have_another_size(
    sig_shape: tuple[int, ...], recording: tuple[Path, npt.NDArray[np.uint16]]
) -> None:
    with pytest.raises(ShapeError, match="sig_shape must be of size: 3809280"):
        load_k2is(recording[0], sig_shape=sig_shape)


def test_ready_made_udfs_equal_numpy(recording: tuple[Path, npt.NDArray[np.uint16]]) -> None:
    path, frames = recording

    def make_mask() -> npt.NDArray[np.float32]:
        return np.random.default_rng(2).random(FRAME_SHAPE, dtype=np.float32)

    with Context(executor=InlineJobExecutor()) as ctx:
        ds = ctx.load("k2is", path=path)
        masks = ApplyMasksUDF(mask_factories=[make_mask])
        total, products = ctx.run_udf(dataset=ds, udf=[SumUDF(), masks])
    np.testing.assert_array_equal(total["intensity"].data, frames.sum(axis=0, dtype=np.int64))
    expected = (frames * make_mask().astype(np.float64)).sum(axis=(1, 2))
    np.testing.assert_allclose(products["intensity"].data[:, 0], expected, rtol=1e-6)


def test_facts_of_a_data_set(recording: tuple[Path, npt.NDArray[np.uint16]]) -> None:
    path, frames = recording
    ds = load_k2is(path, sync_offset=1)
    assert repr(ds) == "<K2ISDataSet of uint16 shape=(2, 1860, 2048)>"
    key = json.loads(json.dumps(ds.get_cache_key()))
    assert (key["path"], key["shape"], key["sync_offset"]) == (str(path), [2, 1860, 2048], 1)
    assert K2ISDataSet.get_supported_extensions() == {"gtg", "bin"}
    copy = pickle.loads(pickle.dumps(ds))
    np.testing.assert_array_equal(read(copy)[0], frames[1])
    fresh = pickle.loads(pickle.dumps(K2ISDataSet(path, num_partitions=2))).initialize(EXECUTOR)
    assert fresh.check_valid()
    assert len(list(fresh.get_partitions())) == 2


def test_json_parameters_become_arguments() -> None:
    converter = K2ISDataSet.get_msg_converter()()
    assert isinstance(converter, K2ISDatasetParams)
    message = {"type": "K2IS", "path": "x.gtg", "nav_shape": [2, 3], "sync_offset": -1}
    params = converter.to_python(message)
    assert params == {"path": "x.gtg", "nav_shape": (2, 3), "sync_offset": -1}
    assert converter.from_python({**params, "sig_shape": None}) == message
