"""Sums, means and virtual detectors of a data set, without UDFs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import sparse

from libertem.api import Context, DataSet
from libertem.common.progress import ProgressReporter, ProgressState

NAV, SIG = (4, 5), (8, 10)
DATA = np.random.default_rng(0).integers(0, 1000, (*NAV, *SIG)).astype("u2")
ROI = np.random.default_rng(1).integers(0, 2, NAV).astype(bool)
Y, X = np.indices(SIG)


@pytest.fixture(scope="module")
def ctx() -> Iterator[Context]:
    with Context.make_with("inline") as ctx:
        yield ctx


@pytest.fixture(scope="module")
def ds(ctx: Context, tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    path = tmp_path_factory.mktemp("scan") / "scan.npy"
    np.save(path, DATA)
    return ctx.load("npy", path=path, num_partitions=3)


def test_sums(ds: DataSet) -> None:
    total = ds.sum()
    assert total.dtype == np.float32
    np.testing.assert_array_equal(total, DATA.sum(axis=(0, 1)))
    np.testing.assert_array_equal(ds.sum("sig"), DATA.sum(axis=(2, 3)))


def test_sums_of_a_region(ds: DataSet) -> None:
    np.testing.assert_array_equal(ds.sum(roi=ROI), DATA[ROI].sum(axis=0))
    image = ds.sum(over="sig", roi=ROI)
    np.testing.assert_array_equal(image[ROI], DATA[ROI].sum(axis=(1, 2)))
    assert np.isnan(image[~ROI]).all()
    # All forms that run_udf takes.
    np.testing.assert_array_equal(ds.sum(roi=(1, 2)), DATA[1, 2])


def test_means(ds: DataSet) -> None:
    mean = ds.mean()
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, DATA.mean(axis=(0, 1)), rtol=1e-6)
    np.testing.assert_allclose(ds.mean("sig"), DATA.mean(axis=(2, 3)), rtol=1e-6)
    np.testing.assert_allclose(ds.mean(roi=ROI), DATA[ROI].mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(ds.mean("sig", roi=ROI)[ROI], DATA[ROI].mean(axis=(1, 2)), rtol=1e-6)


def test_blank_frames_count_for_the_mean(ctx: Context, tmp_path: Path) -> None:
    DATA.tofile(tmp_path / "a.raw")
    ds = ctx.load("raw", path=tmp_path / "a.raw", dtype="u2", nav_shape=(8, 5), sig_shape=SIG)
    np.testing.assert_allclose(ds.mean(), DATA.sum(axis=(0, 1)) / 40, rtol=1e-6)


@pytest.mark.parametrize(("dtype", "expected"), [("c8", "c8"), ("f8", "f8"), ("i4", "f8"), (">u2", "f4")])
def test_results_are_as_wide_as_the_data_needs(
    ctx: Context, tmp_path: Path, dtype: str, expected: str
) -> None:
    data = (DATA * (1 + 2j) if dtype == "c8" else DATA).astype(dtype)
    data.tofile(tmp_path / "a.raw")
    ds = ctx.load("raw", path=tmp_path / "a.raw", dtype=dtype, nav_shape=NAV, sig_shape=SIG)
    reference = data.astype(np.result_type(np.dtype(dtype).newbyteorder("="), "f8"))
    mask = np.random.default_rng(0).random(SIG)
    for found, wanted in (
        (ds.sum(), reference.sum(axis=(0, 1))),
        (ds.mean("sig"), reference.mean(axis=(2, 3))),
        (ds.virtual_image(mask), (reference * mask).sum(axis=(2, 3))),
    ):
        assert found.dtype == expected
        np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize("mean", [False, True])
def test_directions_are_named_if_there_is_no_such(ds: DataSet, mean: bool) -> None:
    wish = ds.mean if mean else ds.sum
    with pytest.raises(ValueError, match=r"found 'x', expected 'nav' .* or 'sig'"):
        wish("x")  # type: ignore[arg-type]  # on purpose
    with pytest.raises(ValueError, match="found 0"):
        wish(0)  # type: ignore[arg-type]  # on purpose


def test_there_is_no_mean_of_nothing(ds: DataSet) -> None:
    nothing = np.zeros(NAV, dtype=bool)
    assert not ds.sum(roi=nothing).any()
    with pytest.raises(ValueError, match="selects no scan position"):
        ds.mean(roi=nothing)


class Counting(ProgressReporter):
    def __init__(self) -> None:
        self.calls: list[str] = []

    def start(self, state: ProgressState) -> None:
        self.calls.append("start")

    def update(self, state: ProgressState) -> None: ...

    def end(self, state: ProgressState) -> None:
        self.calls.append("end")


def test_progress_is_reported(ds: DataSet) -> None:
    reporter = Counting()
    ds.sum(progress=reporter)
    ds.virtual_image(progress=reporter)
    assert reporter.calls == ["start", "end"] * 2


# --- virtual detectors ---


def disk(cy: float, cx: float, radius: float) -> Any:
    return (Y - cy) ** 2 + (X - cx) ** 2 <= radius**2


def test_the_default_is_a_disk_in_the_middle(ctx: Context, ds: DataSet) -> None:
    image = ds.virtual_image()
    assert image.shape == NAV
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, DATA[:, :, disk(4, 5, 0.15 * 8)].sum(axis=-1), rtol=1e-6)
    same = ctx.run(ctx.create_disk_analysis(ds)).intensity.raw_data
    np.testing.assert_allclose(image, same, rtol=1e-6)


def test_disks_and_rings(ds: DataSet) -> None:
    image = ds.virtual_image(cy=2.5, cx=7, radius=3)
    np.testing.assert_allclose(image, DATA[:, :, disk(2.5, 7, 3)].sum(axis=-1), rtol=1e-6)
    image = ds.virtual_image(cy=2.5, cx=7, radius=3, radius_inner=1.5)
    between = disk(2.5, 7, 3) & ~disk(2.5, 7, 1.5)
    np.testing.assert_allclose(image, DATA[:, :, between].sum(axis=-1), rtol=1e-6)


MASK = np.where(disk(3, 3, 2), Y + 0.25, 0).astype("f4")


@pytest.mark.parametrize(
    "mask",
    [
        MASK,
        MASK.tolist(),
        lambda: MASK,
        scipy.sparse.csr_matrix(MASK),
        sparse.COO.from_numpy(MASK),
        lambda: sparse.COO.from_numpy(MASK),
    ],
    ids=["array", "list", "callable", "scipy", "sparse", "callable sparse"],
)
def test_masks_of_all_kinds(ds: DataSet, mask: Any) -> None:
    image = ds.virtual_image(mask)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, (DATA * MASK).sum(axis=(2, 3)), rtol=1e-5)


def test_complex_masks(ds: DataSet) -> None:
    image = ds.virtual_image(MASK * 1j)
    assert image.dtype == np.complex64
    np.testing.assert_allclose(image, (DATA * MASK * 1j).sum(axis=(2, 3)), rtol=1e-5)


def test_only_a_region(ds: DataSet) -> None:
    image = ds.virtual_image(MASK, roi=ROI)
    np.testing.assert_allclose(image[ROI], (DATA[ROI] * MASK).sum(axis=(1, 2)), rtol=1e-5)
    assert np.isnan(image[~ROI]).all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"mask": np.ones((3, 3))}, ValueError, r"found \(3, 3\), expected \(8, 10\)"),
        ({"mask": lambda: np.ones(7)}, ValueError, r"found \(7,\), expected \(8, 10\)"),
        ({"mask": np.ones((2, 8, 10))}, ValueError, "use ApplyMasksUDF"),
        ({"mask": ROI}, ValueError, r"expected \(8, 10\) \(to select scan positions, use roi="),
        ({"mask": np.full(SIG, "a")}, TypeError, "consist of numbers"),
        ({"mask": MASK, "radius": 3}, ValueError, "found a mask together with"),
        ({"radius": -1}, ValueError, r"found radius=-1\.0"),
        ({"radius": 2, "radius_inner": 2}, ValueError, "expected 0 <= radius_inner < radius"),
        ({"radius": np.nan}, ValueError, "expected 0 <="),
        ({"cy": np.inf}, ValueError, "has to be finite"),
    ],
)
def test_detectors_that_make_no_sense(
    ds: DataSet, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ds.virtual_image(**arguments)


def test_spectra_take_masks_but_no_disks(ctx: Context) -> None:
    ds = ctx.load("memory", data=DATA.reshape(20, 80), sig_dims=1)
    with pytest.raises(ValueError, match=r"frames of shape \(80,\) \(pass a mask of that shape"):
        ds.virtual_image()
    image = ds.virtual_image(MASK.reshape(-1))
    np.testing.assert_allclose(image, (DATA * MASK).sum(axis=(2, 3)).reshape(-1), rtol=1e-5)
