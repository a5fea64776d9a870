from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from libertem.common import Shape
from libertem.exceptions import DataSetException
from libertem.io.corrections import CorrectionSet
from libertem.io.dataset.base import (
    BufferedBackend,
    DataSet,
    DataSetMeta,
    Decoder,
    IOBackend,
    MMapBackend,
    Partition,
)


class Plain(DataSet):
    """Only what the contract asks for."""

    def __init__(
        self,
        nav: tuple[int, ...] = (2, 4),
        sig: tuple[int, ...] = (4, 5),
        dtype: str = "u2",
        images: int = 8,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._image_count = images
        self._meta = DataSetMeta(Shape((*nav, *sig), sig_dims=len(sig)), raw_dtype=dtype, image_count=images)
        self._nav_shape_product = self._meta.shape.nav.size

    @property
    def shape(self) -> Shape:
        assert self._meta is not None
        return self._meta.shape

    def get_partitions(self) -> Iterator[Partition]:
        assert self._meta is not None
        for part_slice, _, _ in self.get_slices():
            yield Partition(self._meta, part_slice, None, None)


def test_the_first_argument_is_the_io_backend() -> None:
    backend = BufferedBackend()
    assert DataSet(backend).get_io_backend() is backend


def test_a_new_data_set_knows_nothing() -> None:
    ds = DataSet()
    assert (ds._cores, ds._io_backend, ds._user_num_partitions) == (1, None, None)
    assert (ds._sync_offset, ds._image_count, ds._nav_shape_product) == (0, 0, 0)
    assert ds._sync_offset_info is None
    assert ds.meta is None
    assert DataSet.MAX_PARTITION_SIZE == 536870912


@pytest.mark.parametrize(
    "call",
    [
        lambda ds: ds.dtype,
        lambda ds: ds.shape,
        lambda ds: ds.initialize(None),
        lambda ds: ds.check_valid(),
        lambda ds: ds.get_partitions(),
        lambda ds: ds.get_cache_key(),
        lambda ds: ds.detect_params("f.bin", None),
        lambda ds: ds.get_msg_converter(),
    ],
)
def test_a_format_has_to_say_the_rest(call: Any) -> None:
    with pytest.raises(NotImplementedError):
        call(DataSet())


def test_what_a_format_need_not_say() -> None:
    ds = Plain()
    assert ds.array_backends == ("numpy", "cuda")
    assert DataSet.get_supported_extensions() == set()
    assert DataSet.get_supported_io_backends() == ["mmap", "buffered", "direct"]
    assert ds.get_decoder() is None
    assert ds.get_max_io_size() is None
    assert ds.get_diagnostics() == []
    assert ds.supports_correction() is True
    assert not ds.get_correction_data().have_corrections()
    assert ds.adjust_tileshape((3, 2, 5), None) == (3, 2, 5)
    assert ds.get_task_comm_handler().handle_task(None, None) is None  # type: ignore[arg-type, func-returns-value]  # does nothing


@pytest.mark.parametrize(
    ("platform", "backend"),
    [("linux", MMapBackend), ("darwin", MMapBackend), ("win32", BufferedBackend)],
)
def test_the_default_backend_depends_on_the_platform(
    monkeypatch: pytest.MonkeyPatch, platform: str, backend: type[IOBackend]
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert type(DataSet().get_io_backend()) is backend


@pytest.mark.parametrize(
    ("sig", "expected"), [((20,), (1, 20)), ((4, 5), (1, 1, 5)), ((2, 4, 5), (1, 1, 1, 5))]
)
def test_tiles_consist_of_rows(sig: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert Plain(sig=sig).get_base_shape(None) == expected


@pytest.mark.parametrize(("dtype", "px"), [("u1", 16384), ("u2", 8192), ("f4", 4096), ("c16", 1024)])
def test_tiles_have_at_least_four_pages(dtype: str, px: int) -> None:
    assert Plain(dtype=dtype).get_min_sig_size() == px


class TestNeedDecode:
    def test_plain_pixels_are_used_as_they_are(self) -> None:
        assert Plain(io_backend=MMapBackend()).need_decode("u2", None, None) is False

    @pytest.mark.parametrize(
        ("read_dtype", "roi", "corrections"),
        [
            ("f4", None, None),
            ("u2", np.ones((2, 4), dtype=bool), None),
            ("u2", None, CorrectionSet(dark=np.zeros((4, 5)))),
        ],
    )
    def test_tiles_that_are_copies(self, read_dtype: str, roi: Any, corrections: Any) -> None:
        assert Plain(io_backend=MMapBackend()).need_decode(read_dtype, roi, corrections) is True

    def test_it_depends_on_backend_offset_and_decoder(self) -> None:
        assert Plain(io_backend=BufferedBackend()).need_decode("u2", None, None) is True
        ds = Plain(io_backend=MMapBackend())
        ds._sync_offset = -1
        assert ds.need_decode("u2", None, None) is True

        class Encoded(Plain):
            def get_decoder(self) -> Decoder:
                return Decoder()

        assert Encoded(io_backend=MMapBackend()).need_decode("u2", None, None) is True


class TestNumberOfPartitions:
    @pytest.mark.parametrize(
        ("shape", "cores", "expected"),
        [
            ((256, 256, 256, 256), 1, 32),
            ((256, 256, 256, 256), 8, 32),
            ((256, 256, 256, 256), 12, 36),
            ((16, 16, 128, 128), 8, 8),
            ((512, 512, 256, 256), 8, 128),
            ((1, 8192, 16384), 4, 4),
            ((16, 16, 128, 128), 0, 1),
        ],
    )
    def test_is_a_multiple_of_the_cores(self, shape: tuple[int, ...], cores: int, expected: int) -> None:
        ds = Plain(nav=shape[:-2], sig=shape[-2:])
        ds.set_num_cores(cores)
        assert ds.get_num_partitions() == expected

    @pytest.mark.parametrize(("given", "expected"), [(7, 7), (0, 1), (-3, 1)])
    def test_can_be_chosen(self, given: int, expected: int) -> None:
        ds = Plain(num_partitions=given)
        ds.set_num_cores(4)
        assert ds.get_num_partitions() == expected

    def test_is_limited_by_the_frames(self) -> None:
        ds = Plain(nav=(1,), sig=(8192, 16384))
        ds.set_num_cores(4)
        with pytest.warns(RuntimeWarning, match="fewer frames than specified partitions: 1 < 4"):
            assert len(list(ds.get_slices())) == 1

    def test_slices_are_shifted_by_the_offset(self) -> None:
        ds = Plain(num_partitions=2)
        ds._sync_offset = -3
        assert [images for _, *images in ds.get_slices()] == [[-3, 1], [1, 5]]


def test_partition_shape_fits_the_target_in_bytes() -> None:
    ds = Plain(nav=(15, 15), sig=(16, 16), num_partitions=1)
    assert ds.partition_shape("f4", target_size=7680 * 4) == (2, 15)
    assert ds.partition_shape("u2", target_size=57600 * 2, min_num_partitions=8) == (1, 15)
    assert ds.partition_shape("u2", 512 * 2, containing_shape=Shape((1, 15, 16, 16), 2)) == (1, 2)
    ds.set_num_cores(4)
    assert ds.partition_shape("u2", target_size=57600 * 2) == (3, 15)


@pytest.mark.parametrize("key", [np.s_[0, 1], np.s_[0], np.s_[:, 1:3], np.s_[...], np.s_[-1, ::2]])
def test_a_mask_is_made_from_an_index(key: Any) -> None:
    expected = np.zeros((2, 4), dtype=bool)
    expected[key] = True
    roi = Plain().roi[key]
    assert roi.dtype == bool
    np.testing.assert_array_equal(roi, expected)
    assert Plain().roi[key] is not roi


class TestSyncOffset:
    def test_frames_at_both_ends_are_counted(self) -> None:
        ds = Plain(nav=(2, 4), images=8)
        ds._sync_offset = 3
        assert ds.get_sync_offset_info() == {
            "frames_skipped_start": 3,
            "frames_ignored_end": 0,
            "frames_inserted_start": 0,
            "frames_inserted_end": 3,
        }

    def test_out_of_range_is_refused(self) -> None:
        ds = Plain()
        ds._sync_offset = 8
        with pytest.raises(DataSetException, match=r"sync_offset should be in \(-8, 8\)"):
            ds.get_sync_offset_info()


def test_diagnostics_of_all_data_sets() -> None:
    class WithFacts(Plain):
        def get_diagnostics(self) -> list[dict[str, Any]]:
            return [{"name": "dtype", "value": "uint16"}]

    ds = WithFacts(num_partitions=2, images=5)
    ds._sync_offset = -1
    ds._sync_offset_info = ds.get_sync_offset_info()
    assert ds.diagnostics == [
        {"name": "dtype", "value": "uint16"},
        {"name": "Partition shape", "value": "(4, 4, 5)"},
        {"name": "Number of partitions", "value": "2"},
        {"name": "Number of frames skipped at the beginning", "value": 0},
        {"name": "Number of frames ignored at the end", "value": 0},
        {"name": "Number of blank frames inserted at the beginning", "value": 1},
        {"name": "Number of blank frames inserted at the end", "value": 2},
    ]
