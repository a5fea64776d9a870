"""libertem-blobfinder, unmodified: places of diffraction disks against those where they were drawn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from libertem.api import Context
from libertem.executor.inline import InlineJobExecutor
from libertem.executor.pipelined import PipelinedExecutor
from libertem.io.dataset.memory import MemoryDataSet
from libertem.udf.masks import ApplyMasksUDF

pytest.importorskip(
    "libertem_blobfinder", reason="libertem-blobfinder is not installed: see `make acceptance`"
)

from libertem_blobfinder.common.gridmatching import Matcher
from libertem_blobfinder.common.patterns import Circular, RadialGradient, feature_vector
from libertem_blobfinder.udf.correlation import (
    FastCorrelationUDF,
    FullFrameCorrelationUDF,
    SparseCorrelationUDF,
    run_blobfinder,
    run_fastcorrelation,
)
from libertem_blobfinder.udf.integration import IntegrationUDF
from libertem_blobfinder.udf.refinement import run_refine

NAV = (3, 4)
SIG = (128, 120)
RADIUS = 6.0
ZERO = np.array([63.4, 60.2])
A = np.array([26.3, 1.4])
B = np.array([-2.2, 25.1])
INDICES = np.array([(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)])
NOMINAL = np.round(ZERO + INDICES @ np.array([A, B])).astype(int)

Truth = npt.NDArray[np.float64]


def draw_disk(frame: npt.NDArray[Any], y: float, x: float, fine: int = 8) -> None:
    """Add a disk of height 100, with borders by the covered part of each pixel."""
    step = (np.arange(fine) + 0.5) / fine - 0.5
    ys = np.arange(SIG[0])[:, None, None, None] + step[None, :, None, None]
    xs = np.arange(SIG[1])[None, None, :, None] + step[None, None, None, :]
    frame += 100 * ((ys - y) ** 2 + (xs - x) ** 2 < RADIUS**2).mean(axis=(1, 3))


@pytest.fixture(scope="module")
def scan() -> tuple[npt.NDArray[np.float32], Truth]:
    """Frames, and (y, x) of each disk in each frame: the lattice differs a little from frame to frame."""
    rng = np.random.default_rng(7)
    frames = np.zeros((*NAV, *SIG), dtype=np.float32)
    truth = np.empty((*NAV, len(INDICES), 2))
    for nav in np.ndindex(NAV):
        zero = ZERO + rng.uniform(-1, 1, 2)
        vectors = np.array([A, B]) + rng.uniform(-0.8, 0.8, (2, 2))
        truth[nav] = zero + INDICES @ vectors
        for y, x in truth[nav]:
            draw_disk(frames[nav], y, x)
    return frames, truth


@pytest.fixture(scope="module", params=["inline", "default", "pipelined"])
def ctx(request: pytest.FixtureRequest) -> Iterator[Context]:
    if request.param == "inline":
        made = Context(executor=InlineJobExecutor(debug=True))
    elif request.param == "pipelined":
        spec = PipelinedExecutor.make_spec(cpus=2, cudas=0)
        made = Context(executor=PipelinedExecutor(spec=spec, pin_workers=False))
    else:
        made = Context()
    with made:
        yield made


@pytest.fixture(params=[np.float32, np.uint16])
def dataset(request: pytest.FixtureRequest, scan: tuple[npt.NDArray[np.float32], Truth]) -> MemoryDataSet:
    return MemoryDataSet(data=np.round(scan[0]).astype(request.param), num_partitions=3, sig_dims=2)


METHODS = {
    "fast": (FastCorrelationUDF, {}),
    "fullframe": (FullFrameCorrelationUDF, {}),
    "sparse": (SparseCorrelationUDF, {"steps": 4}),
}


@pytest.mark.parametrize("method", METHODS)
def test_disks_are_found_where_they_were_drawn(
    ctx: Context, dataset: MemoryDataSet, scan: tuple[Any, Truth], method: str
) -> None:
    cls, options = METHODS[method]
    udf = cls(peaks=NOMINAL, match_pattern=RadialGradient(radius=RADIUS, search=10), **options)
    found = ctx.run_udf(dataset=dataset, udf=udf)
    truth = scan[1]
    assert found["centers"].data.shape == truth.shape
    assert np.abs(found["centers"].data - truth).max() < 1.01
    assert np.abs(found["refineds"].data - truth).max() < 0.5
    assert (found["peak_values"].data > 0).all()
    assert (found["peak_elevations"].data > 0).all()


@pytest.mark.parametrize("upsample", [False, True])
def test_run_fastcorrelation_with_region_of_interest_and_shift(
    ctx: Context, dataset: MemoryDataSet, scan: tuple[Any, Truth], upsample: bool
) -> None:
    roi = np.zeros(NAV, dtype=bool)
    roi[1, 1:] = True
    found = run_fastcorrelation(
        ctx,
        dataset,
        NOMINAL - (3, -2),
        RadialGradient(radius=RADIUS, search=10),
        zero_shift=np.array([3, -2]),
        upsample=upsample,
        roi=roi,
    )
    assert np.isnan(found["refineds"].data[~roi]).all()
    assert np.abs(found["refineds"].data[roi] - scan[1][roi]).max() < (0.35 if upsample else 0.5)


def test_a_shift_of_each_frame_goes_with_it(
    ctx: Context, dataset: MemoryDataSet, scan: tuple[Any, Truth]
) -> None:
    shifts = np.round(scan[1][..., 4, :] - NOMINAL[4]).astype(np.float32)
    aux = FastCorrelationUDF.aux_data(data=shifts, kind="nav", dtype="float32", extra_shape=(2,))
    found = run_fastcorrelation(
        ctx, dataset, NOMINAL, RadialGradient(radius=RADIUS, search=10), zero_shift=aux
    )
    assert np.abs(found["refineds"].data - scan[1]).max() < 0.5


@pytest.mark.parametrize("correlation", METHODS)
@pytest.mark.parametrize("match", ["fast", "affine"])
def test_refinement_finds_the_lattice_of_each_frame(
    ctx: Context, dataset: MemoryDataSet, scan: tuple[Any, Truth], correlation: str, match: str
) -> None:
    result, used = run_refine(
        ctx,
        dataset,
        zero=ZERO,
        a=A,
        b=B,
        match_pattern=RadialGradient(radius=RADIUS, search=10),
        matcher=Matcher(),
        correlation=correlation,
        match=match,
        indices=np.mgrid[-1:2, -1:2],
    )
    assert len(used) == len(INDICES)
    truth = scan[1]
    lattice = {
        "zero": truth[..., 4, :],
        "a": truth[..., 7, :] - truth[..., 4, :],
        "b": truth[..., 5, :] - truth[..., 4, :],
    }
    for name, expected in lattice.items():
        assert np.abs(result[name].data - expected).max() < 0.2, name
    assert (result["error"].data < 0.5).all()


def test_peaks_are_found_without_being_told(
    ctx: Context, dataset: MemoryDataSet, scan: tuple[Any, Truth]
) -> None:
    pattern = RadialGradient(radius=RADIUS, search=12)
    roi = np.zeros(NAV, dtype=bool)
    roi[2, 1] = True
    frame, truth = np.round(scan[0][2, 1]), scan[1][2, 1]
    total, _, refineds, _, _, peaks = run_blobfinder(ctx, dataset, pattern, num_peaks=9, roi=roi)
    np.testing.assert_allclose(total, np.log(frame - frame.min() + 1), rtol=1e-5, atol=1e-5)
    # In the order of the truth.
    order = [int(np.linalg.norm(peaks - place, axis=1).argmin()) for place in truth]
    assert sorted(order) == list(range(9))
    assert np.abs(refineds.raw_data[0][order] - truth).max() < 0.5


def test_integration_follows_the_places_of_each_frame(ctx: Context) -> None:
    rng = np.random.default_rng(3)
    heights = rng.uniform(1, 9, NAV).astype(np.float32)
    frames = np.broadcast_to(heights[..., None, None], (*NAV, *SIG)).copy()
    centers = rng.integers(20, 100, (*NAV, 5, 2))
    # One place of one frame is brighter.
    y, x = centers[1, 2, 3]
    frames[1, 2, y, x] += 1000
    others = [i for i in range(5) if np.linalg.norm(centers[1, 2, i] - (y, x)) > 8]
    dataset = MemoryDataSet(data=frames, num_partitions=4, sig_dims=2)
    aux = IntegrationUDF.aux_data(data=centers, kind="nav", dtype=int, extra_shape=(5, 2))
    found = ctx.run_udf(dataset=dataset, udf=IntegrationUDF(centers=aux, pattern=Circular(radius=4)))
    sums = found["integration"].data
    assert sums.shape == (*NAV, 5)
    area = sums[0, 0, 0] / heights[0, 0]
    assert area == pytest.approx(np.pi * 16, rel=0.1)
    expected = np.broadcast_to(area * heights[..., None], sums.shape).copy()
    assert sums[1, 2, 3] - expected[1, 2, 3] == pytest.approx(1000, rel=1e-3)
    same = np.ones(sums.shape, dtype=bool)
    same[1, 2] = False
    same[1, 2, others] = True
    np.testing.assert_allclose(sums[same], expected[same], rtol=1e-4)


def test_feature_vectors_are_masks(ctx: Context, dataset: MemoryDataSet, scan: tuple[Any, Truth]) -> None:
    # The factory may be called in another process, where it has to be complete.
    stack = feature_vector(
        imageSizeX=SIG[1], imageSizeY=SIG[0], peaks=NOMINAL, match_pattern=RadialGradient(radius=RADIUS)
    )
    dense = np.asarray(stack.todense())
    udf = ApplyMasksUDF(lambda: stack, mask_count=len(NOMINAL), mask_dtype=np.float32)
    found = ctx.run_udf(dataset=dataset, udf=udf)["intensity"].data
    expected = np.einsum("abyx,nyx->abn", np.round(scan[0]).astype(np.float64), dense)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-2)
