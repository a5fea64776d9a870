"""Pixels: all of them, once, and with the values that were written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from libertem.api import Context
from libertem.common.arrays import to_dense
from libertem.exceptions import DataSetException
from libertem.io.corrections.corrset import CorrectionSet
from libertem.io.dataset.base.backends.buffered import BufferedBackend
from libertem.io.dataset.base.backends.direct import DirectBackend
from libertem.testing.suite.reading import (
    assert_delivered,
    assert_same_pixels,
    corrected,
    make_scheme,
    on_scan,
    read,
    tile_shapes,
)
from libertem.testing.suite.setup import SuiteSetup

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.dataset.base.partition import Partition

__all__ = ["ContentTests"]


def _dest_dtypes(stored: np.dtype[Any]) -> list[str]:
    """Dtypes to read into, for which `astype` is well defined."""
    if stored.kind == "c":
        return ["complex64", "complex128"]
    both = ["float32", "float64", "complex64", stored.newbyteorder("=").str, stored.str]
    return [*both, "uint8", "int64"] if stored.kind in "iub" else [*both, "int32"]


def _with_special_values(frames: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if frames.dtype.kind in "fc":
        flat = frames.reshape(-1)
        flat[1::17], flat[2::31], flat[3::37] = np.nan, -0.0, np.inf
    return frames


class ContentTests(SuiteSetup):
    """Tests of pixel values, tilings, regions of interest and corrections."""

    def test_pixels_are_those_written(
        self, tmp_path: Path, ctx: Context, dtype: str, io_backend: str | None
    ) -> None:
        """Bit for bit, NaN and infinity included."""
        frames = _with_special_values(self.make_frames(self.n_frames, dtype))
        ds = self.load(ctx, self.write_frames(tmp_path, frames), io_backend=io_backend)
        assert tuple(ds.shape) == (*self.nav_shape, *self.sig_shape), f"{ds!r} has the shape {ds.shape}"
        assert ds.shape.sig.dims == len(self.sig_shape), f"{ds!r} has {ds.shape.sig.dims} signal axes"
        expected = frames.astype(frames.dtype.newbyteorder("="))
        delivered = read(ds, dest_dtype=expected.dtype)
        assert_delivered(delivered, expected, None, f"{ds!r} read as {expected.dtype}")
        assert delivered.pixels.tobytes() == expected.tobytes(), f"{ds!r} changes the bits of some pixels"

    def test_pixels_are_converted_as_numpy_does(
        self, tmp_path: Path, ctx: Context, dtype: str, io_backend: str | None
    ) -> None:
        """Into dtypes of other kinds, widths and byte orders."""
        frames = self.make_frames(self.n_frames, dtype)
        ds = self.load(ctx, self.write_frames(tmp_path, frames), io_backend=io_backend)
        for dest in _dest_dtypes(frames.dtype):
            delivered = read(ds, dest_dtype=dest)
            assert_delivered(delivered, frames.astype(dest), None, f"{ds!r} read as {dest}")

    def test_complex_pixels_are_not_read_as_real_numbers(self, tmp_path: Path, ctx: Context) -> None:
        """Losing the imaginary part has to be asked for in other ways."""
        for number, dtype in enumerate(name for name in self.dtypes if np.dtype(name).kind == "c"):
            frames = self.make_frames(self.n_frames, dtype)
            ds = self.load(ctx, self.write_frames(tmp_path / str(number), frames))
            with pytest.raises((DataSetException, TypeError)):
                read(ds, dest_dtype="float32")

    def test_content_does_not_depend_on_tiles_and_partitions(
        self, tmp_path: Path, ctx: Context, io_backend: str | None
    ) -> None:
        """Each frame and pixel comes exactly once, whatever the cut."""
        frames = self.make_frames(self.n_frames)
        kwargs = self.write_frames(tmp_path, frames)
        for num_partitions in (1, 3, self.n_frames):
            ds = self.load(ctx, kwargs, io_backend=io_backend, num_partitions=num_partitions)
            stored = ds.dtype.newbyteorder("=")
            # With conversion, tiles are made in another way; one number of partitions shows it.
            for dest in {stored, np.result_type(stored, np.float64)} if num_partitions == 3 else {stored}:
                for tile_shape in tile_shapes(ds):
                    delivered = read(ds, dest_dtype=dest, tile_shape=tile_shape)
                    what = f"{ds!r} in {num_partitions} partitions and tiles {tile_shape}"
                    assert_delivered(delivered, frames.astype(dest), None, what)

    def test_content_does_not_depend_on_the_size_of_buffers(self, tmp_path: Path, ctx: Context) -> None:
        """Which may be smaller than a frame."""
        frames = self.make_frames(self.n_frames)
        kwargs = self.write_frames(tmp_path, frames)
        for name in (name for name in ("buffered", "direct") if name in self.io_backends):
            self.load(ctx, kwargs, io_backend=name)  # skips the test if there is no direct I/O
            for size in (1, frames[0].nbytes // 2, 3 * frames[0].nbytes):
                backend = (BufferedBackend if name == "buffered" else DirectBackend)(max_buffer_size=size)
                ds = self.load(ctx, {**kwargs, "io_backend": backend})
                for tile_shape in tile_shapes(ds)[2:5]:
                    delivered = read(ds, dest_dtype="float64", tile_shape=tile_shape)
                    what = f"{ds!r} with {name} reads of {size} bytes and tiles {tile_shape}"
                    assert_delivered(delivered, frames.astype("float64"), None, what)

    def test_io_backends_are_those_declared(self, tmp_path: Path, ctx: Context) -> None:
        """And others are refused, both with an error of the library and with `ValueError`."""
        supported = self.dataset_class().get_supported_io_backends()
        assert set(supported) == set(self.io_backends), f"get_supported_io_backends gives {supported}"
        kwargs = self.write_frames(tmp_path, self.make_frames(self.n_frames))
        for name in {"mmap", "buffered"} - set(supported):
            with pytest.raises(DataSetException) as err:
                self.load(ctx, kwargs, io_backend=name)
            assert isinstance(err.value, ValueError), f"{err.value!r} is no ValueError"

    def test_tiles_of_part_of_a_row_are_right_or_refused(
        self, tmp_path: Path, ctx: Context, io_backend: str | None
    ) -> None:
        """A cut that the data set does not offer must not deliver other pixels."""
        frames = self.make_frames(self.n_frames)
        ds = self.load(ctx, self.write_frames(tmp_path, frames), io_backend=io_backend)
        for part in {1, max(1, self.sig_shape[-1] // 2), max(1, self.sig_shape[-1] - 1)}:
            tile_shape = (2, *self.sig_shape[:-1], part)
            for dest in ("float64", ds.dtype.newbyteorder("=")):
                expected = frames.astype(np.result_type(frames.dtype, dest))
                try:
                    delivered = read(ds, dest_dtype=expected.dtype, tile_shape=tile_shape)
                except (ValueError, DataSetException):
                    continue
                assert_delivered(delivered, expected, None, f"{ds!r} in tiles {tile_shape}")

    def test_macrotile_is_the_whole_partition(
        self, tmp_path: Path, ctx: Context, io_backend: str | None
    ) -> None:
        """Its frames that exist and are selected, at their place on the scan."""
        frames = self.make_frames(self.n_frames)
        kwargs = self.write_frames(tmp_path, frames)
        roi = np.arange(self.n_frames).reshape(self.nav_shape) % 3 == 1
        # With the last offset, the first two partitions have no frames at all.
        for offset in (0, 2, -2, -(3 * self.n_frames) // 4):
            ds = self.load(ctx, kwargs, io_backend=io_backend, num_partitions=3, sync_offset=offset)
            shown, present = on_scan(frames, self.n_frames, offset)
            for partition in ds.get_partitions():
                for selection in (None, roi):
                    self._check_macrotile(partition, shown.astype("float64"), present, selection)

    def _check_macrotile(
        self,
        partition: Partition,
        shown: npt.NDArray[Any],
        present: npt.NDArray[np.bool_],
        roi: npt.NDArray[np.bool_] | None,
    ) -> None:
        selected = np.ones(self.n_frames, dtype=bool) if roi is None else roi.reshape(-1)
        inside = np.zeros_like(selected)
        inside[partition.slice.get(nav_only=True)] = True
        expected = shown[selected & inside & present]
        tile = partition.get_macrotile(dest_dtype="float64", roi=roi)
        what = f"macrotile of {partition!r} with sync_offset {partition.meta.sync_offset}, ROI {roi}"
        assert_same_pixels(to_dense(tile.data).reshape(tile.shape), expected, what)
        # Of a partition without frames: where it would start.
        first = int(np.flatnonzero(selected & inside & present if expected.size else inside)[0])
        origin = int(np.count_nonzero(selected[:first]))
        assert tile.tile_slice.origin[0] == origin, f"{what}: starts at {tile.tile_slice}, not {origin}"
        assert partition.get_frame_count(roi) == np.count_nonzero(selected & inside), (
            f"{partition!r} counts {partition.get_frame_count(roi)} frames"
        )

    def test_roi_selects_frames(self, tmp_path: Path, ctx: Context, io_backend: str | None) -> None:
        """Of all, some or no scan positions, in navigation shape or flat, as truth values or numbers."""
        frames = self.make_frames(self.n_frames)
        kwargs = self.write_frames(tmp_path, frames)
        rng = np.random.default_rng(1)
        flat = np.arange(self.n_frames)
        masks = {
            "all": flat >= 0,
            "none": flat < 0,
            "the first": flat == 0,
            "the last": flat == self.n_frames - 1,
            "every other": flat % 2 == 1,
            "a run": (flat > 1) & (flat < 6),
            "random": rng.random(self.n_frames) < 0.4,
        }
        ds = self.load(ctx, kwargs, io_backend=io_backend, num_partitions=3)
        for name, mask in masks.items():
            for roi in (mask.reshape(self.nav_shape), mask, mask.astype(np.uint8)):
                for tile_shape in (None, *tile_shapes(ds)[-2:]):
                    delivered = read(ds, roi=roi, dest_dtype="float64", tile_shape=tile_shape)
                    what = f"{ds!r} with ROI '{name}' {roi.dtype}{roi.shape}"
                    assert_delivered(delivered, frames[mask].astype("float64"), None, what)

    def test_roi_may_be_sparse(self, tmp_path: Path, ctx: Context) -> None:
        """Like a dense one."""
        sparse = pytest.importorskip("sparse")
        frames = self.make_frames(self.n_frames)
        mask = np.arange(self.n_frames) % 5 == 2
        ds = self.load(ctx, self.write_frames(tmp_path, frames))
        roi = sparse.COO.from_numpy(mask.reshape(self.nav_shape), fill_value=False)
        delivered = read(ds, roi=roi, dest_dtype="float64")
        assert_delivered(delivered, frames[mask].astype("float64"), None, f"{ds!r} with a sparse ROI")

    def test_corrections_equal_numpy(self, tmp_path: Path, ctx: Context, dtype: str) -> None:
        """Dark frame, gain map and excluded pixels, also on part of the frames and a second time."""
        frames = self.make_frames(self.n_frames, dtype)
        rng = np.random.default_rng(2)
        dark, gain = rng.normal(size=(2, *self.sig_shape))
        excluded = [tuple(0 for _ in self.sig_shape), tuple(extent // 2 for extent in self.sig_shape)]
        marked = np.zeros(self.sig_shape, dtype=bool)
        marked[tuple(np.transpose(excluded))] = True
        corrections = CorrectionSet(dark=dark, gain=gain, excluded_pixels=marked)
        expected = corrected(frames, dark, gain, excluded)
        ds = self.load(ctx, self.write_frames(tmp_path, frames), num_partitions=2)
        if not ds.supports_correction():
            pytest.skip(f"{type(ds).__name__} does not support corrections")
        mask = np.arange(self.n_frames) % 3 != 1
        for roi in (None, None, mask.reshape(self.nav_shape)):
            delivered = read(ds, dest_dtype=expected.dtype, corrections=corrections, roi=roi)
            wanted = expected if roi is None else expected[mask]
            assert (delivered.counts == 1).all(), f"{ds!r} with corrections: frames are missing or repeated"
            np.testing.assert_allclose(
                delivered.pixels, wanted, rtol=1e-9, atol=1e-9, err_msg=f"{ds!r} with corrections"
            )

    def test_writing_into_tiles_changes_nothing_else(
        self, tmp_path: Path, ctx: Context, io_backend: str | None
    ) -> None:
        """Tiles are read-only, or memory that neither the user's data nor later reads depend on."""
        frames = self.make_frames(self.n_frames)
        ds = self.load(ctx, self.write_frames(tmp_path, frames), io_backend=io_backend)
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        for dest in (ds.dtype, np.dtype("float32")):
            for partition in ds.get_partitions():
                for tile in partition.get_tiles(make_scheme(ds), dest_dtype=dest):
                    data = tile.data
                    if isinstance(data, np.ndarray) and data.flags.writeable:
                        data[...] = 1
        expected = frames.astype("float64")
        assert_delivered(read(ds, dest_dtype="float64"), expected, None, f"{ds!r} after writing into tiles")
        changed = [path.name for path, content in before.items() if path.read_bytes() != content]
        assert not changed, f"writing into tiles changed the files {changed}"
