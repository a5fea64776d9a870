"""What is different about files whose frames have to be put together from planes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from libertem.api import Context
from libertem.io.dataset.base.backends.rawio import io_counts
from libertem.testing.dataset_suite import DataSetTests
from libertem.testing.suite.reading import assert_delivered, read, tile_shapes

__all__ = ["TransposedTests"]

MIN_READ = 4096
"""Bytes that are read for any value."""


class TransposedTests(DataSetTests):
    """The suite for data sets made with ``transposed="direct"``; `write` has to give that argument."""

    detectable = False
    nav_shape = (4, 5)
    max_pickle_bytes = 3072

    def test_every_byte_is_read_at_most_once(self, tmp_path: Path, ctx: Context) -> None:
        """For each partition and each row of pixels: small gaps take less time than more calls."""
        kwargs = self.write_frames(tmp_path, self.make_frames(self.n_frames))
        size = self.main_file(kwargs).stat().st_size
        ds = self.load(ctx, kwargs, io_backend="buffered", num_partitions=3)
        for tile_shape in tile_shapes(ds):
            before = io_counts()
            read(ds, tile_shape=tile_shape)
            n_bytes = (io_counts() - before).read_bytes
            limit = 3 * self.sig_shape[0] * size
            assert 0 < n_bytes <= limit, f"{n_bytes} bytes were read of {size}, with tiles {tile_shape}"

    def test_one_frame_costs_one_frame(self, tmp_path: Path, ctx: Context, io_backend: str | None) -> None:
        """No: it costs a page of each plane, or the file if that is smaller."""
        frames = self.make_large()
        n = frames.shape[0]
        kwargs = self.write_frames(tmp_path, frames)
        ds = self.load(ctx, kwargs, io_backend=io_backend, nav_shape=(n,), num_partitions=2)
        roi = np.zeros(n, dtype=bool)
        roi[2 * n // 3] = True
        before = io_counts()
        delivered = read(ds, roi=roi, dest_dtype="float64")
        n_bytes = (io_counts() - before).read_bytes
        assert_delivered(delivered, frames[roi].astype("float64"), None, f"one frame of {ds!r}")
        limit = frames[0].size * 2 * MIN_READ + self.max_load_bytes
        assert n_bytes <= limit, f"{n_bytes} bytes were read for one value of {frames[0].size} planes"
