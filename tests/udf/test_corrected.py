"""Compiled UDFs correct blocks as whole frames are corrected by a plain NumPy oracle."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libertem.api import Context
from libertem.executor.inline import InlineJobExecutor
from libertem.io.corrections import CorrectionSet
from libertem.io.dataset.base.backends.buffered import BufferedBackend
from libertem.udf import UDF
from libertem.udf.com import CoMUDF
from libertem.udf.corrected import ExcludedPixels
from libertem.udf.masks import ApplyMasksUDF
from libertem.udf.stddev import StdDevUDF
from libertem.udf.sum import SumUDF
from libertem.udf.sumsigudf import SumSigUDF

Array = np.ndarray[Any, Any]

SIG = (9, 12)
NAV = (5, 7)
N = 35
RNG = np.random.default_rng(3)
DARK = 40 * RNG.random(SIG)
GAIN = 0.5 + RNG.random(SIG)
MASKS = RNG.random((6, *SIG)).astype(np.float32)
EXCLUDED = np.zeros(SIG, dtype=bool)
EXCLUDED[[0, 0, 4, 4, 5, 8], [0, 11, 5, 6, 5, 3]] = True

DTYPES = ("u1", "<u2", ">u2", "<i2", "<u4", "<f4", "<f8")


def correct(frames: Array, dark: Array | None, gain: Array | None, excluded: Array | None) -> Array:
    """The definition of the contract, pixel by pixel."""
    frames = frames.astype(np.float64)
    if dark is not None:
        frames = frames - dark
    if gain is not None:
        frames = frames * gain
    if excluded is None:
        return frames
    repaired = frames.copy()
    for y, x in np.argwhere(excluded):
        around = [
            (y + dy, x + dx)
            for dy, dx in product((-1, 0, 1), repeat=2)
            if 0 <= y + dy < frames.shape[1]
            and 0 <= x + dx < frames.shape[2]
            and not excluded[y + dy, x + dx]
        ]
        if around:
            repaired[:, y, x] = np.mean([frames[:, y, x] for y, x in around], axis=0)
    return repaired


def make_frames(dtype: str) -> Array:
    kind = np.dtype(dtype)
    high = {"u1": 255, "u2": 60000, "i2": 30000, "u4": 2**31}.get(kind.str[1:], 1000)
    return (RNG.random((N, *SIG)) * high).astype(kind)


def compiled_udfs() -> list[UDF]:
    return [
        SumUDF(),
        SumSigUDF(),
        StdDevUDF(),
        ApplyMasksUDF(lambda: MASKS, mask_count=len(MASKS), mask_dtype=np.float32),
        CoMUDF.with_params(cy=3.0, cx=6.0),
    ]


class Tiles(UDF):
    """Keeps tiles as Python sees them."""

    def get_result_buffers(self) -> dict[str, Any]:
        sig = tuple(self.meta.dataset_shape.sig)
        return {"frames": self.buffer(kind="nav", extra_shape=sig, dtype="float64")}

    def process_tile(self, tile: Any) -> None:
        self.results.frames[(slice(None), *self.meta.sig_slice.get())] = tile


def check(results: Any, expected: Array) -> None:
    flat = expected.reshape(len(expected), -1)
    sums, sumsig, stddev, masks, com = results
    scale = np.abs(flat).sum(axis=0).max()
    np.testing.assert_allclose(sums["intensity"].data.ravel(), flat.sum(axis=0), rtol=1e-6, atol=1e-7 * scale)
    np.testing.assert_allclose(
        sumsig["intensity"].raw_data, flat.sum(axis=1), rtol=1e-6, atol=1e-7 * np.abs(flat).sum(axis=1).max()
    )
    assert stddev["num_frames"].data[0] == len(expected)
    np.testing.assert_allclose(stddev["sum"].data, expected.sum(axis=0), rtol=1e-10, atol=1e-12 * scale)
    np.testing.assert_allclose(stddev["var"].data, expected.var(axis=0), rtol=1e-9)
    weights = MASKS.reshape(len(MASKS), -1).astype(np.float64)
    np.testing.assert_allclose(
        masks["intensity"].raw_data, flat @ weights.T, rtol=3e-6, atol=1e-6 * (np.abs(flat) @ weights.T).max()
    )
    y, x = np.indices(SIG)
    total = expected.sum(axis=(1, 2))
    centres = np.stack([(expected * c).sum(axis=(1, 2)) / total for c in (y, x)], axis=-1)
    np.testing.assert_allclose(com["raw_com"].raw_data, centres, rtol=1e-4)


def load(ctx: Context, folder: Path, frames: Array, **kwargs: Any) -> Any:
    path = folder / "frames.raw"
    path.write_bytes(frames.tobytes())
    return ctx.load("raw", path=path, dtype=frames.dtype, nav_shape=NAV, sig_shape=SIG, **kwargs)


@pytest.fixture
def ctx() -> Context:
    return Context(executor=InlineJobExecutor())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("parts", ["d", "g", "e", "dg", "de", "ge", "dge"])
def test_all_combinations(ctx: Context, tmp_path: Path, dtype: str, parts: str) -> None:
    frames = make_frames(dtype)
    dark, gain = DARK if "d" in parts else None, GAIN if "g" in parts else None
    excluded = EXCLUDED if "e" in parts else None
    ds = load(ctx, tmp_path, frames, num_partitions=3)
    if excluded is not None and frames.dtype.kind == "f":
        frames[:, EXCLUDED] = np.nan
        (tmp_path / "frames.raw").write_bytes(frames.tobytes())
    corrections = CorrectionSet(dark=dark, gain=gain, excluded_pixels=excluded)
    check(ctx.run_udf(ds, compiled_udfs(), corrections=corrections), correct(frames, dark, gain, excluded))


def test_blocks_are_really_taken(ctx: Context, tmp_path: Path) -> None:
    ds = load(ctx, tmp_path, make_frames("<u2"))
    corrections = CorrectionSet(dark=DARK, gain=GAIN, excluded_pixels=EXCLUDED)

    class CountingSum(SumUDF):
        blocks = 0

        def _process_block(self, block: Any) -> None:
            CountingSum.blocks += 1
            super()._process_block(block)

    ctx.run_udf(ds, CountingSum(), corrections=corrections)
    assert CountingSum.blocks > 0


@pytest.mark.parametrize(
    "backend", ["mmap", "buffered", "direct", BufferedBackend(max_buffer_size=3000)], ids=str
)
@pytest.mark.parametrize("sync_offset", [0, 4, -4])
def test_backends_roi_and_blanks(ctx: Context, tmp_path: Path, backend: Any, sync_offset: int) -> None:
    frames = make_frames("<u2")
    ds = load(ctx, tmp_path, frames, io_backend=backend, sync_offset=sync_offset, num_partitions=4)
    roi = np.zeros(N, dtype=bool)
    roi[4:31:3] = True
    corrections = CorrectionSet(dark=DARK, gain=GAIN, excluded_pixels=EXCLUDED)
    results = ctx.run_udf(ds, compiled_udfs(), corrections=corrections, roi=roi.reshape(NAV))
    images = np.flatnonzero(roi) + sync_offset
    assert images.min() >= 0
    assert images.max() < N
    check(results, correct(frames[images], DARK, GAIN, EXCLUDED))


@pytest.mark.parametrize("dtype", ["<u2", "<f4"])
def test_parts_of_frames(ctx: Context, tmp_path: Path, dtype: str) -> None:
    """Only what looks at neighbours in each frame makes blocks hold whole ones."""
    frames = make_frames(dtype)
    ds = load(ctx, tmp_path, frames, io_backend=BufferedBackend(max_buffer_size=1000))
    corrections = CorrectionSet(dark=DARK, gain=GAIN, excluded_pixels=EXCLUDED)
    results = [ctx.run_udf(ds, udf, corrections=corrections) for udf in compiled_udfs()]
    check(results, correct(frames, DARK, GAIN, EXCLUDED))


def test_together_with_tiles(ctx: Context, tmp_path: Path) -> None:
    frames = make_frames("<u2")
    ds = load(ctx, tmp_path, frames)
    corrections = CorrectionSet(dark=DARK, gain=GAIN, excluded_pixels=EXCLUDED)
    *results, tiles = ctx.run_udf(ds, [*compiled_udfs(), Tiles()], corrections=corrections)
    expected = correct(frames, DARK, GAIN, EXCLUDED)
    check(results, expected)
    np.testing.assert_allclose(tiles["frames"].raw_data, expected, rtol=1e-4, atol=1e-3)


def test_pixels_without_neighbours_keep_their_value(ctx: Context, tmp_path: Path) -> None:
    frames = make_frames("<u2")
    ds = load(ctx, tmp_path, frames)
    excluded = np.zeros(SIG, dtype=bool)
    excluded[:4, :4] = True
    corrections = CorrectionSet(dark=DARK, gain=GAIN, excluded_pixels=excluded, allow_empty=True)
    check(ctx.run_udf(ds, compiled_udfs(), corrections=corrections), correct(frames, DARK, GAIN, excluded))


def test_memory_data_sets(ctx: Context) -> None:
    frames = make_frames("<f4")
    before = frames.copy()
    ds = ctx.load("memory", data=frames.reshape((*NAV, *SIG)))
    corrections = CorrectionSet(dark=DARK, gain=GAIN, excluded_pixels=EXCLUDED)
    for _ in range(2):
        check(
            ctx.run_udf(ds, compiled_udfs(), corrections=corrections), correct(frames, DARK, GAIN, EXCLUDED)
        )
    np.testing.assert_array_equal(frames, before)


def test_a_small_difference_to_a_large_dark_frame_keeps_its_precision(ctx: Context, tmp_path: Path) -> None:
    dark = 50000 + 100 * RNG.random(SIG)
    frames = np.rint(dark + RNG.normal(0, 3, (N, *SIG))).astype("<u2")
    ds = load(ctx, tmp_path, frames)
    udf = ApplyMasksUDF(lambda: MASKS, mask_count=len(MASKS), mask_dtype=np.float32)
    result = ctx.run_udf(ds, udf, corrections=CorrectionSet(dark=dark))["intensity"].raw_data
    expected = np.einsum("fyx,myx->fm", frames - dark, MASKS.astype(np.float64))
    np.testing.assert_allclose(result, expected, atol=1e-5 * np.abs(frames - dark).max() * SIG[0] * SIG[1])


def test_wrong_shapes_are_refused(ctx: Context, tmp_path: Path) -> None:
    ds = load(ctx, tmp_path, make_frames("<u2"))
    for udf in (SumUDF(), SumSigUDF(), StdDevUDF()):
        with pytest.raises(ValueError, match="shape"):
            ctx.run_udf(ds, udf, corrections=CorrectionSet(dark=np.zeros((9, 13))))


@settings(max_examples=30)
@given(st.data())
def test_deviations_of_excluded_pixels_do_not_depend_on_blocks(data: st.DataObject) -> None:
    values = data.draw(
        st.lists(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=2), min_size=1, max_size=20)
    )
    rows = np.array(values)

    class Stub:
        excluded = np.array([0, 1])

        def find_excluded(self, block: Any) -> slice:
            return slice(0, 2)

        def repaired(self, block: Any) -> Array:
            return block.values

    class Block:
        px_start = 0

        def __init__(self, part: Array) -> None:
            self.values = part
            self.n_frames = len(part)

    sums = ExcludedPixels(Stub())  # type: ignore[arg-type]  # has what it needs
    cuts = sorted(data.draw(st.sets(st.integers(0, len(rows)), max_size=4)))
    for part in np.split(rows, cuts):
        sums.add(Block(part))  # type: ignore[arg-type]  # likewise
    assert sums.n_frames == len(rows)
    np.testing.assert_allclose(sums.sums, rows.sum(axis=0), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(sums.varsums, rows.var(axis=0) * len(rows), rtol=1e-9, atol=1e-6)
