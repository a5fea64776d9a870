"""Blocks of transposed files; the data sets that read them are tested with their formats."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libertem.api import Context
from libertem.common.shape import Shape
from libertem.exceptions import DataSetException, UnsupportedBackendError
from libertem.io.corrections.corrset import CorrectionSet
from libertem.io.dataset.base import IOBackend, MMapBackend, TilingScheme
from libertem.io.dataset.base import transposed as module
from libertem.io.dataset.base.backends.contract import IOBackendImpl
from libertem.io.dataset.base.blocks import FrameBlock, ReadOrder
from libertem.io.dataset.base.transposed import TransposedLayout
from libertem.testing.suite.reading import read
from libertem.testing.writers.dm import image_tags, write_dm
from libertem.udf import UDF
from libertem.udf.com import CoMUDF
from libertem.udf.masks import ApplyMasksUDF
from libertem.udf.stddev import StdDevUDF
from libertem.udf.sum import SumUDF
from libertem.udf.sumsigudf import SumSigUDF

NAV, SIG = (9, 14), (10, 12)
KINDS = ("hybrid", "fortran")


@pytest.fixture
def ctx() -> Any:
    with Context.make_with("inline") as ctx:
        yield ctx


def make_frames(
    nav: tuple[int, ...] = NAV, sig: tuple[int, ...] = SIG, dtype: str = "<u2"
) -> npt.NDArray[Any]:
    return np.random.default_rng(0).integers(0, 100, (*nav, *sig)).astype(dtype)


def load(ctx: Context, folder: Path, kind: str, frames: npt.NDArray[Any], **kwargs: Any) -> Any:
    """Data set with these frames, ``(y, x, *sig)``, from a transposed file."""
    if kind == "hybrid":
        path = write_dm(folder / "x.dm4", image_tags(np.moveaxis(frames, (0, 1), (-2, -1))))
    else:
        path = folder / "x.npy"
        np.save(path, np.asfortranarray(frames))
    name = "dm" if kind == "hybrid" else "npy"
    return ctx.load(name, path=path, transposed="direct", **kwargs)


def collect(
    blocks: Any, n_frames: int, n_px: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], list[FrameBlock]]:
    """Pixels, how often each was there, and the blocks."""
    pixels, counts = np.zeros((n_frames, n_px)), np.zeros((n_frames, n_px), dtype=int)
    seen = []
    for block in blocks:
        seen.append(block)
        (run,) = block.runs
        here = run.buffer[run.starts[:, np.newaxis] + np.arange(block.n_px)]
        where = slice(block.first, block.first + block.n_frames), slice(block.px_start, block.px_stop)
        pixels[where] = here.byteswap() if block.swapped else here
        counts[where] += 1
    return pixels, counts, seen


def test_a_layout_says_where_images_and_pixels_are() -> None:
    dtype = np.dtype("<u2")
    hybrid = TransposedLayout(100, dtype, (2, 3), (2, 2), is_reversed=False)
    assert (hybrid.plane_bytes, hybrid.keeps_order) == (12, True)
    assert hybrid.columns(np.arange(6)).tolist() == [0, 1, 2, 3, 4, 5]
    assert hybrid.plane_offsets(1, 4).tolist() == [112, 124, 136]
    fortran = TransposedLayout(100, dtype, (2, 3), (2, 2), is_reversed=True)
    assert not fortran.keeps_order
    # (y, x) is at x * height + y.
    assert fortran.columns(np.arange(6)).tolist() == [0, 2, 4, 1, 3, 5]
    assert fortran.plane_offsets(0, 4).tolist() == [100, 124, 112, 136]
    assert TransposedLayout(0, dtype, (1, 6), (2, 2), is_reversed=True).keeps_order


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scratch", [1, 5000, 1 << 20])
@pytest.mark.parametrize("backend", ["mmap", "buffered", "direct"])
def test_kernels_get_every_pixel_once(
    kind: str, scratch: int, backend: str, tmp_path: Path, ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SCRATCH_BYTES", scratch)
    monkeypatch.setattr(module, "SCATTERED_SCRATCH_BYTES", scratch)
    monkeypatch.setattr(module, "MAX_GAP", 20)
    frames = make_frames()
    ds = load(ctx, tmp_path, kind, frames, num_partitions=2, io_backend=backend)
    flat = frames.reshape(-1, math.prod(SIG))
    rng = np.random.default_rng(1)
    for roi in (
        None,
        rng.random(NAV) < 0.3,
        np.arange(126).reshape(NAV) % 50 == 3,
        np.zeros(NAV, dtype=bool),
    ):
        wanted = flat if roi is None else flat[roi.reshape(-1)]
        blocks = [
            block
            for partition in ds.get_partitions()
            for block in list_blocks(partition, ReadOrder.for_kernels(flat.shape[1]), roi)
        ]
        pixels = np.sum([block[0] for block in blocks], axis=0) if blocks else np.zeros(wanted.shape)
        counts = np.sum([block[1] for block in blocks], axis=0) if blocks else np.zeros(wanted.shape)
        np.testing.assert_array_equal(pixels[: wanted.shape[0]], wanted)
        assert (counts[: wanted.shape[0]] == 1).all()
        assert not counts[wanted.shape[0] :].any()


def list_blocks(partition: Any, order: ReadOrder, roi: Any) -> list[tuple[Any, Any]]:
    pixels, counts, blocks = collect(partition.get_frame_blocks(order, roi), math.prod(NAV), math.prod(SIG))
    # The standard deviation relies on it: parts of frames are the same for all of them.
    borders = sorted({(block.px_start, block.px_stop) for block in blocks})
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(borders))
    return [(pixels, counts)] if blocks else []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", [1, 700, 3000, 1 << 28])
def test_tiles_do_not_depend_on_the_memory(kind: str, limit: int, tmp_path: Path, ctx: Context) -> None:
    frames = make_frames()
    ds = load(ctx, tmp_path, kind, frames, num_partitions=2, transposed_bytes=limit)
    for shape in ((1, *SIG), (5, *SIG), (4, 3, 12), (200, 10, 12), (3, 4, 5)):
        scheme = TilingScheme.make_for_shape(Shape(shape, sig_dims=2), ds.shape)
        for roi in (None, np.arange(126).reshape(NAV) % 4 == 1):
            wanted = frames.reshape(-1, *SIG) if roi is None else frames[roi]
            out, counts = np.zeros(wanted.shape), np.zeros(wanted.shape, dtype=int)
            for partition in ds.get_partitions():
                first = partition.slice.adjust_for_roi(roi).origin[0]
                for tile in partition.get_tiles(scheme, dest_dtype="float64", roi=roi):
                    out[tile.tile_slice.get()] = tile.data
                    counts[tile.tile_slice.get()] += 1
                    assert (tile.tile_slice.origin[0] - first) % shape[0] == 0
            np.testing.assert_array_equal(out, wanted)
            assert (counts == 1).all()


def test_frames_that_fit_come_in_the_usual_order(tmp_path: Path, ctx: Context) -> None:
    ds = load(ctx, tmp_path, "hybrid", make_frames(), transposed_bytes=4000)
    # Checks the order of tiles on the way: 4 frames of 240 bytes fit.
    np.testing.assert_array_equal(read(ds, tile_shape=(4, 2, 12)).pixels, make_frames().reshape(-1, *SIG))


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@given(
    nav=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    sig=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    dtype=st.sampled_from(["u1", "<u2", ">i4", "<f8", "<c16"]),
    sync=st.integers(-5, 5),
    parts=st.integers(1, 3),
    limit=st.sampled_from([1, 100, 1 << 20]),
)
def test_any_array_in_fortran_order_is_read(
    nav: list[int], sig: list[int], dtype: str, sync: int, parts: int, limit: int, tmp_path: Path
) -> None:
    n = math.prod(nav)
    frames = (np.arange(n * math.prod(sig)) % 251).reshape(*nav, *sig).astype(dtype)
    path = tmp_path / "x.npy"
    np.save(path, np.asfortranarray(frames))
    sync = min(max(sync, 1 - n), n - 1)
    with Context.make_with("inline") as ctx:
        ds = ctx.load(
            "npy",
            path=path,
            sig_dims=len(sig),
            transposed="direct",
            transposed_bytes=limit,
            sync_offset=sync,
            num_partitions=min(parts, n),
        )
        tile_shape = (2, *(1 for _ in sig[:-1]), sig[-1])
        scheme = TilingScheme.make_for_shape(Shape(tile_shape, sig_dims=len(sig)), ds.shape)
        out = np.zeros((n, *sig), dtype=dtype)
        for partition in ds.get_partitions():
            for tile in partition.get_tiles(scheme, dest_dtype=dtype):
                out[tile.tile_slice.get()] = tile.data
    expected = np.zeros((n, *sig), dtype=dtype)
    shown = [i for i in range(n) if 0 <= i + sync < n]
    expected[shown] = frames.reshape(n, *sig)[[i + sync for i in shown]]
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["<u2", "<f4"])
def test_udfs_give_the_results_of_whole_frames(kind: str, dtype: str, tmp_path: Path, ctx: Context) -> None:
    frames = make_frames(dtype=dtype)
    masks = np.random.default_rng(3).random((3, *SIG)).astype("f4")
    excluded = np.zeros(SIG, dtype=bool)
    excluded[3, 4] = excluded[0, 0] = True
    corrections = CorrectionSet(dark=masks[0], gain=masks[1] + 1, excluded_pixels=excluded)
    direct = load(ctx, tmp_path, kind, frames, num_partitions=2, transposed_bytes=5000)
    usual = ctx.load("memory", data=frames, sig_dims=2, num_partitions=3)
    roi = np.random.default_rng(2).random(NAV) < 0.4
    for kwargs in ({}, {"roi": roi}, {"corrections": corrections}, {"roi": roi, "corrections": corrections}):
        udfs = [
            SumUDF(),
            SumSigUDF(),
            StdDevUDF(),
            ApplyMasksUDF(lambda: masks, mask_count=3, mask_dtype="f4"),
            CoMUDF.with_params(cy=4, cx=5),
            MaxOfPartition(),
        ]
        for chosen in ([udf] for udf in udfs), [udfs]:
            for some in chosen:
                results = [ctx.run_udf(dataset=ds, udf=some, **kwargs) for ds in (direct, usual)]
                for found, expected in zip(*results, strict=True):
                    for name in expected:
                        np.testing.assert_allclose(
                            found[name].raw_data, expected[name].raw_data, rtol=1e-4, atol=1e-4, err_msg=name
                        )


class MaxOfPartition(UDF):
    def get_result_buffers(self) -> Any:
        return {"most": self.buffer(kind="nav", dtype="float32")}

    def process_partition(self, partition: Any) -> None:
        self.results.most[:] = partition.max(axis=(1, 2))


def test_memory_is_bounded(tmp_path: Path, ctx: Context) -> None:
    frames = make_frames((64, 64), (32, 32))
    limit = 1 << 20
    for backend in ("mmap", "buffered"):
        ds = load(
            ctx, tmp_path, "hybrid", frames, num_partitions=1, transposed_bytes=limit, io_backend=backend
        )
        for udf in (SumUDF(), FrameMax()):
            ctx.run_udf(dataset=ds, udf=udf, roi=np.arange(4096).reshape(64, 64) == 0)  # compiles
            tracemalloc.start()
            try:
                ctx.run_udf(dataset=ds, udf=udf)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            # A map is not counted; the other backend has a buffer, which holds 8 MiB at most.
            assert peak < (5 if backend == "mmap" else 14) * limit


class FrameMax(UDF):
    def get_result_buffers(self) -> Any:
        return {"most": self.buffer(kind="nav", dtype="float32")}

    def process_frame(self, frame: Any) -> None:
        self.results.most[:] = frame.max()


def test_partitions_are_few_if_planes_are_short(tmp_path: Path, ctx: Context) -> None:
    ds = load(ctx, tmp_path, "hybrid", make_frames())
    ds.MAX_PARTITION_SIZE = 16
    ds.set_num_cores(2)
    assert len(list(ds.get_partitions())) == 2
    wide = load(ctx, tmp_path, "hybrid", make_frames((512, 512), (2, 2)))
    wide.MAX_PARTITION_SIZE = 16
    wide.set_num_cores(2)
    assert len(list(wide.get_partitions())) == 512 * 512 * 2 // module.LONG_RUN


class NoBlocks(IOBackend):
    def get_impl(self) -> IOBackendImpl:
        return IOBackendImpl()


def test_what_cannot_be_delivered_is_refused(tmp_path: Path, ctx: Context) -> None:
    with pytest.raises(UnsupportedBackendError, match=r"x\.npy: transposed files need"):
        load(ctx, tmp_path, "fortran", make_frames(), io_backend=NoBlocks())
    ds = load(ctx, tmp_path, "fortran", make_frames(), io_backend=MMapBackend())
    partition = next(ds.get_partitions())
    scheme = TilingScheme.make_for_shape(Shape((2, *SIG), sig_dims=2), ds.shape)
    with pytest.raises(DataSetException, match=r"NumPy arrays: found sparse\.COO"):
        next(partition.get_tiles(scheme, array_backend="sparse.COO"))
    with pytest.raises(NotImplementedError, match="no read ranges"):
        partition._get_read_ranges(scheme)
