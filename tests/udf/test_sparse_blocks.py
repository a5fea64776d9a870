"""Compiled UDFs on sparse frames give what they give on tiles, and what NumPy gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sparse

from libertem.api import Context
from libertem.executor.inline import InlineJobExecutor
from libertem.testing.writers.raw_csr import sparse_frames, write_raw_csr
from libertem.udf import UDF
from libertem.udf.com import CoMUDF
from libertem.udf.masks import ApplyMasksUDF
from libertem.udf.sum import SumUDF
from libertem.udf.sumsigudf import SumSigUDF

Array = np.ndarray[Any, Any]

SIG, NAV = (12, 10), (5, 8)
RNG = np.random.default_rng(5)
MASKS = RNG.random((6, *SIG)).astype(np.float32)


class Counts:
    blocks = 0

    def _process_sparse_block(self, block: Any) -> None:
        Counts.blocks += 1
        super()._process_sparse_block(block)  # type: ignore[misc]  # of the UDF it is mixed with


class ThroughTiles:
    def process_tile(self, tile: Any) -> None:
        super().process_tile(tile)  # type: ignore[misc]  # of the UDF it is mixed with


def make_udfs(path: type) -> list[UDF]:
    kinds: list[Any] = [SumUDF, SumSigUDF, ApplyMasksUDF, CoMUDF]
    sums, sumsig, masks, com = (type(kind.__name__, (path, kind), {}) for kind in kinds)
    return [
        sums(),
        sumsig(),
        masks(lambda: MASKS, mask_count=len(MASKS), mask_dtype=np.float32),
        com.with_params(r=5.0, ri=1.0),
    ]


class Tiles(UDF):
    """Sees tiles only."""

    def get_backends(self) -> Any:
        return (self.BACKEND_SCIPY_CSR, self.BACKEND_NUMPY)

    def get_result_buffers(self) -> dict[str, Any]:
        return {"n": self.buffer(kind="nav", dtype="float64")}

    def process_tile(self, tile: Any) -> None:
        self.results.n[:] += np.asarray(tile.sum(axis=1)).ravel()


def load(folder: Path, dtype: str, **kwargs: Any) -> tuple[Context, Any, Array]:
    frames = RNG.integers(1, 100, (40, *SIG)).astype(dtype) * (RNG.random((40, *SIG)) < 0.1)
    frames[7:11] = 0
    pieces = [sparse_frames(frames.astype(dtype))]
    path = write_raw_csr(folder / "events.toml", pieces, NAV, SIG, data_dtype=dtype)
    ctx = Context(executor=InlineJobExecutor())
    return ctx, ctx.load("raw_csr", path=path, num_partitions=3, **kwargs), frames


def check(results: Any, frames: Array) -> None:
    sums, sumsig, masks, _ = results
    wide = frames.astype("f8")
    np.testing.assert_allclose(sums["intensity"].data, wide.sum(axis=0), rtol=1e-6)
    np.testing.assert_allclose(sumsig["intensity"].raw_data, wide.sum(axis=(1, 2)), rtol=1e-6)
    products = np.einsum("fij,mij->fm", wide, MASKS.astype("f8"))
    np.testing.assert_allclose(masks["intensity"].raw_data, products, rtol=3e-6)


def compare(first: Any, second: Any) -> None:
    for mine, other in zip(first, second, strict=True):
        for name, buffer in mine.items():
            assert buffer.data.dtype == other[name].data.dtype
            np.testing.assert_allclose(buffer.raw_data, other[name].raw_data, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "<i4", "<f4", "<f8", "?"])
def test_both_ways_agree_with_numpy(tmp_path: Path, dtype: str) -> None:
    ctx, ds, frames = load(tmp_path, dtype)
    Counts.blocks = 0
    blocks = ctx.run_udf(ds, make_udfs(Counts))
    assert Counts.blocks > 0
    tiles = ctx.run_udf(ds, make_udfs(ThroughTiles))
    check(blocks, frames)
    check(tiles, frames)
    compare(blocks, tiles)


@pytest.mark.parametrize("sync_offset", [0, 3, -3])
def test_roi_and_blanks(tmp_path: Path, sync_offset: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from libertem.io.dataset.raw_csr import dataset

    monkeypatch.setattr(dataset, "BLOCK_BYTES", 200)
    ctx, ds, frames = load(tmp_path, "<u2", sync_offset=sync_offset)
    roi = np.zeros(40, dtype=bool)
    roi[3:37:2] = True
    blocks = ctx.run_udf(ds, make_udfs(Counts), roi=roi.reshape(NAV))
    check(blocks, frames[np.flatnonzero(roi) + sync_offset])
    compare(blocks, ctx.run_udf(ds, make_udfs(ThroughTiles), roi=roi.reshape(NAV)))


def test_together_with_tiles(tmp_path: Path) -> None:
    ctx, ds, frames = load(tmp_path, "<u2")
    *blocks, tiles = ctx.run_udf(ds, [*make_udfs(Counts), Tiles()], progress=True)
    check(blocks, frames)
    np.testing.assert_array_equal(tiles["n"].raw_data, frames.sum(axis=(1, 2)))


def test_many_masks_and_sparse_masks_take_blocks_too(tmp_path: Path) -> None:
    ctx, ds, frames = load(tmp_path, "<u2")
    Counts.blocks = 0
    masks: Any = type("Masks", (Counts, ApplyMasksUDF), {})
    stack = np.tile(MASKS, (12, 1, 1))
    many = ctx.run_udf(ds, masks(lambda: stack, mask_count=72, mask_dtype=np.float32))
    thin = ctx.run_udf(ds, masks(lambda: MASKS, mask_count=6, mask_dtype=np.float32, use_sparse=True))
    # Two runs over three partitions each.
    assert Counts.blocks == 6
    products = np.einsum("fij,mij->fm", frames.astype("f8"), MASKS.astype("f8"))
    np.testing.assert_allclose(many["intensity"].raw_data, np.tile(products, 12), rtol=3e-6)
    np.testing.assert_allclose(thin["intensity"].raw_data, products, rtol=3e-6)


@pytest.mark.parametrize("use_sparse", ["sparse.pydata", "sparse.pydata.GCXS", "scipy.sparse.csc", None])
def test_sparse_masks_of_any_kind(tmp_path: Path, use_sparse: str | None) -> None:
    ctx, ds, frames = load(tmp_path, "<u2")
    weights = np.where(MASKS > 0.8, MASKS, 0)

    def make() -> Any:
        return sparse.COO.from_numpy(weights)

    udf = ApplyMasksUDF(make, mask_count=6, mask_dtype=np.float32, use_sparse=use_sparse)
    products = np.einsum("fij,mij->fm", frames.astype("f8"), weights.astype("f8"))
    np.testing.assert_allclose(ctx.run_udf(ds, udf)["intensity"].raw_data, products, rtol=3e-6)
