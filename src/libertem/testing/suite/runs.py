"""UDF runs against plain NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from libertem.api import Context
from libertem.common.buffers import BufferWrapper
from libertem.io.corrections.corrset import CorrectionSet
from libertem.io.dataset.base.dataset import DataSet
from libertem.testing.suite.reading import assert_same_pixels, corrected, on_scan
from libertem.testing.suite.setup import SuiteSetup
from libertem.udf.contract import UDF
from libertem.udf.masks import ApplyMasksUDF
from libertem.udf.raw import PickUDF
from libertem.udf.sum import SumUDF

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["RunTests"]


class _Totals(UDF):
    """Sum of each frame, and of all frames; subclasses choose how they receive the data."""

    def get_result_buffers(self) -> dict[str, BufferWrapper]:
        return {
            "frames": self.buffer(kind="nav", dtype="complex128"),
            "pixels": self.buffer(kind="sig", dtype="complex128"),
        }

    def merge(self, dest: Any, src: Any) -> None:
        dest.frames[:] = src.frames
        dest.pixels += src.pixels

    def _add(self, data: npt.NDArray[Any]) -> None:
        self.results.frames[:] += data.reshape(data.shape[0], -1).sum(axis=1, dtype="complex128")
        self.results.pixels[:] += data.sum(axis=0, dtype="complex128")


class _TotalsByTile(_Totals):
    def process_tile(self, tile: Any) -> None:
        self._add(np.asarray(tile))


class _TotalsByFrame(_Totals):
    def process_frame(self, frame: Any) -> None:
        self.results.frames[:] += np.asarray(frame).sum(dtype="complex128")
        self.results.pixels[:] += np.asarray(frame)


class _TotalsByPartition(_Totals):
    def process_partition(self, partition: Any) -> None:
        self._add(np.asarray(partition))


def _close(found: Any, expected: npt.NDArray[Any], scale: float, what: str) -> None:
    """Compare sums; `scale` is the sum of magnitudes, which rounding errors grow with."""
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-6, atol=1e-6 * scale, err_msg=what)


class RunTests(SuiteSetup):
    """Tests of `Context.run_udf` over the data set."""

    def test_sum_masks_and_pick_equal_numpy(self, tmp_path: Path, dtype: str, executor: str) -> None:
        """Over several partitions."""
        frames = self.make_frames(self.n_frames, dtype)
        with self.make_context(executor) as ctx:
            ds = self.load(ctx, self.write_frames(tmp_path, frames), num_partitions=3)
            self._check_ready_made(ctx, ds, frames, np.ones(self.n_frames, dtype=bool), None)

    def test_io_backends_give_the_same_results(self, tmp_path: Path, io_backend: str | None) -> None:
        """Also for regions of interest and scans with blank positions."""
        frames = self.make_frames(self.n_frames)
        kwargs = self.write_frames(tmp_path, frames)
        mask = np.arange(self.n_frames) % 3 != 0
        with self.make_context("inline") as ctx:
            for offset in (0, 3, -3):
                ds = self.load(ctx, kwargs, io_backend=io_backend, sync_offset=offset, num_partitions=2)
                shown, present = on_scan(frames, self.n_frames, offset)
                self._check_ready_made(ctx, ds, shown, present, None)
                self._check_ready_made(ctx, ds, shown, present, mask)

    def _check_ready_made(
        self,
        ctx: Context,
        ds: DataSet,
        shown: npt.NDArray[Any],
        present: npt.NDArray[np.bool_],
        mask: npt.NDArray[np.bool_] | None,
    ) -> None:
        """Compare results for the frames `shown` on the scan, as far as they are `present` and in `mask`."""
        masks = np.random.default_rng(3).random((2, *self.sig_shape), dtype=np.float32)
        # Picking is a run of its own: in one with others it would get their dtype.
        udfs = [SumUDF(), ApplyMasksUDF(mask_factories=lambda: masks, mask_count=2)]
        roi = None if mask is None else mask.reshape(self.nav_shape)
        total, products = ctx.run_udf(dataset=ds, udf=udfs, roi=roi)
        picked = ctx.run_udf(dataset=ds, udf=PickUDF(), roi=roi)
        selected = np.ones(self.n_frames, dtype=bool) if mask is None else mask
        used = present[selected]
        native = shown[selected].astype(shown.dtype.newbyteorder("="))
        exact = native.astype(np.result_type(native, np.float64))
        scale = float(np.abs(exact).sum())
        what = f"{ds!r} with sync_offset {ds.get_sync_offset_info()} and ROI {roi}"
        _close(total["intensity"].data, exact[used].sum(axis=0), scale, f"sum of {what}")
        expected = exact.reshape(len(exact), -1) @ masks.reshape(2, -1).T
        found = products["intensity"].raw_data.reshape(len(exact), 2)
        _close(found[used], expected[used], scale, f"masks on {what}")
        assert_same_pixels(picked["intensity"].data[used], native[used], f"frames picked from {what}")

    def test_udfs_of_all_methods_equal_numpy(self, tmp_path: Path, executor: str) -> None:
        """By tile, by frame and by partition; frames that do not exist are not processed.

        Partitions with blank positions cannot be processed as a whole.
        """
        frames = self.make_frames(self.n_frames)
        kwargs = self.write_frames(tmp_path, frames)
        with self.make_context(executor) as ctx:
            for offset in (0, 2, -2):
                udfs: list[UDF] = [_TotalsByTile(), _TotalsByFrame()]
                if offset == 0:
                    udfs.append(_TotalsByPartition())
                ds = self.load(ctx, kwargs, sync_offset=offset, num_partitions=3)
                shown, _ = on_scan(frames.astype("complex128"), self.n_frames, offset)
                scale = float(np.abs(shown).sum())
                for udf, result in zip(udfs, ctx.run_udf(dataset=ds, udf=udfs), strict=True):
                    what = f"{type(udf).__name__} over {ds!r} with sync_offset {offset}"
                    sums = shown.reshape(self.n_frames, -1).sum(axis=1).reshape(self.nav_shape)
                    _close(result["frames"].data, sums, scale, what)
                    _close(result["pixels"].data, shown.sum(axis=0), scale, what)

    def test_forms_of_roi_give_the_same_result(self, tmp_path: Path, ctx: Context) -> None:
        """A mask, one position, or a list of positions."""
        frames = self.make_frames(self.n_frames)
        ds = self.load(ctx, self.write_frames(tmp_path, frames))
        position = tuple(extent - 1 for extent in self.nav_shape)
        one = ds.roi[position]
        others = frames[:-1].astype("complex128").sum(axis=0)
        for roi, expected in (
            (one, frames[-1]),
            (position, frames[-1]),
            ([(position, True)], frames[-1]),
            ([(position, False)], others),
            (~one, others),
        ):
            total = ctx.run_udf(dataset=ds, udf=_TotalsByTile(), roi=roi)["pixels"].data
            _close(total, expected, float(np.abs(expected).sum()), f"ROI {roi}")

    def test_runs_apply_corrections(self, tmp_path: Path, io_backend: str | None, executor: str) -> None:
        """Once, before any UDF sees the data."""
        frames = self.make_frames(self.n_frames)
        rng = np.random.default_rng(4)
        dark, gain = rng.random((2, *self.sig_shape)).astype(np.float32)
        pixel = tuple(extent // 2 for extent in self.sig_shape)
        marked = np.zeros(self.sig_shape, dtype=bool)
        marked[pixel] = True
        expected = corrected(frames, dark, gain, [pixel]).sum(axis=0)
        scale = float(np.abs(frames.astype("complex128")).sum())
        corrections = CorrectionSet(dark=dark, gain=gain, excluded_pixels=marked)
        with self.make_context(executor) as ctx:
            kwargs = self.write_frames(tmp_path, frames)
            ds = self.load(ctx, kwargs, io_backend=io_backend, num_partitions=2)
            if not ds.supports_correction():
                pytest.skip(f"{type(ds).__name__} does not support corrections")
            udfs = [SumUDF(), _TotalsByTile(), _TotalsByFrame()]
            for _ in range(2):
                total, by_tile, by_frame = ctx.run_udf(dataset=ds, udf=udfs, corrections=corrections)
                for found in (total["intensity"], by_tile["pixels"], by_frame["pixels"]):
                    _close(found.data, expected, scale, f"{ds!r} with corrections")
