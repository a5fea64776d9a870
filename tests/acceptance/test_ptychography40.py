"""ptychography40, unmodified: single side band reconstruction of simulated scans."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from libertem.api import Context
from libertem.executor.inline import InlineJobExecutor
from libertem.executor.pipelined import PipelinedExecutor
from libertem.io.dataset.memory import MemoryDataSet

pytest.importorskip("ptychography40", reason="ptychography40 is not installed: see `make acceptance`")

from ptychography40.reconstruction.common import wavelength
from ptychography40.reconstruction.ssb import SSB_UDF, generate_masks

NAV = (16, 24)
SIG = (32, 32)
SEMICONV = 0.02
"""Radians."""
SEMICONV_PX = 8.0
"""Radius of the bright disk, in detector pixels."""
LAMBDA = 2e-12
DPIX = 12e-12
"""Scan step, m; the finest detail that is transferred has a period of lambda / (2 semiconv) = 50 pm."""


# Numba may have fewer threads than one of the executors promises.
pytestmark = pytest.mark.filterwarnings("ignore:.*NUMBA_NUM_THREADS:UserWarning")


@pytest.fixture(scope="module", params=["inline", "inline with many threads", "default", "pipelined"])
def ctx(request: pytest.FixtureRequest) -> Iterator[Context]:
    if request.param == "inline":
        made = Context(executor=InlineJobExecutor(debug=True, inline_threads=2))
    elif request.param == "inline with many threads":
        # The package has a parallel kernel for four and more.
        made = Context(executor=InlineJobExecutor(inline_threads=4))
    elif request.param == "pipelined":
        spec = PipelinedExecutor.make_spec(cpus=2, cudas=0)
        made = Context(executor=PipelinedExecutor(spec=spec, pin_workers=False))
    else:
        made = Context()
    with made:
        yield made


@pytest.fixture(scope="module")
def phase() -> npt.NDArray[np.float64]:
    """A weak phase object that repeats itself outside of the scan."""
    y = 2 * np.pi * np.arange(NAV[0])[:, None] / NAV[0]
    x = 2 * np.pi * np.arange(NAV[1])[None, :] / NAV[1]
    return 0.02 * (np.cos(2 * x) + np.sin(2 * y + 0.4) + 0.6 * np.cos(y - 3 * x + 1))


@pytest.fixture(scope="module")
def scan(phase: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Diffraction patterns of a focused probe on the object, by plane waves.

    A wave of the probe that leaves the object with the frequency q more arrives at another place of the
    detector, with a phase that tells where the probe was. One detector pixel is
    ``SEMICONV / SEMICONV_PX / LAMBDA`` in frequency.
    """
    spectrum = np.fft.fft2(np.exp(1j * phase)) / phase.size
    per_px = SEMICONV / SEMICONV_PX / LAMBDA
    qy, qx = (np.fft.fftfreq(n, DPIX) for n in NAV)
    cy, cx = SIG[0] / 2, SIG[1] / 2
    y, x = np.mgrid[: SIG[0], : SIG[1]]
    ry, rx = np.mgrid[: NAV[0], : NAV[1]]
    field = np.zeros((*NAV, *SIG), dtype=np.complex128)
    for i, j in zip(*np.nonzero(np.abs(spectrum) > 1e-6), strict=True):
        disk = (y - cy - qy[i] / per_px) ** 2 + (x - cx - qx[j] / per_px) ** 2 <= SEMICONV_PX**2
        ramp = np.exp(2j * np.pi * (qy[i] * ry + qx[j] * rx) * DPIX)
        field += spectrum[i, j] * ramp[:, :, None, None] * disk
    return (1e4 * np.abs(field) ** 2).astype(np.float32)


def make_udf(**kwargs: object) -> SSB_UDF:
    return SSB_UDF(lamb=LAMBDA, dpix=DPIX, semiconv=SEMICONV, semiconv_pix=SEMICONV_PX, cutoff=1, **kwargs)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_phase_of_the_object_is_found(
    ctx: Context, scan: npt.NDArray[np.float32], phase: npt.NDArray[np.float64], dtype: type
) -> None:
    # Its other method needs an alias that NumPy 1.24 has dropped.
    dataset = MemoryDataSet(data=scan, num_partitions=5, sig_dims=2)
    found = ctx.run_udf(dataset=dataset, udf=make_udf(method="subpix", dtype=dtype))
    assert found["phase"].data.shape == NAV
    image = found["phase"].data - found["phase"].data.mean()
    wanted = phase - phase.mean()
    likeness = (image * wanted).sum() / np.sqrt((image**2).sum() * (wanted**2).sum())
    # The sign is a convention of the package; the transfer differs a little between frequencies.
    assert abs(likeness) > 0.95


def test_the_spectrum_is_that_of_plain_numpy(ctx: Context, scan: npt.NDArray[np.float32]) -> None:
    masks = generate_masks(
        reconstruct_shape=NAV,
        mask_shape=SIG,
        dtype=np.float64,
        lamb=LAMBDA,
        dpix=DPIX,
        semiconv=SEMICONV,
        semiconv_pix=SEMICONV_PX,
        cutoff=1,
    )
    half = np.asarray(masks.todense()).reshape(-1, NAV[1], *SIG)
    spectra = np.fft.fft2(scan.astype(np.float64), axes=(0, 1))
    n = half.shape[0]
    expected = np.einsum("abyx,abyx->ab", spectra[:n], half) / np.prod(NAV)
    dataset = MemoryDataSet(data=scan, num_partitions=3, sig_dims=2)
    found = ctx.run_udf(dataset=dataset, udf=make_udf(dtype=np.float64))["fourier"].data
    # Up to a factor that is a convention of the package.
    inner = expected[1:]
    factor = (found[1:n] * inner.conj()).sum() / (np.abs(inner) ** 2).sum()
    np.testing.assert_allclose(found[1:n], factor * inner, atol=1e-4 * np.abs(found).max())


def test_the_region_of_interest_only_counts_what_is_in_it(
    ctx: Context, scan: npt.NDArray[np.float32]
) -> None:
    roi = np.random.default_rng(5).random(NAV) < 0.5
    dataset = MemoryDataSet(data=scan, num_partitions=4, sig_dims=2)
    masked = MemoryDataSet(data=scan * roi[..., None, None], num_partitions=4, sig_dims=2)
    found = ctx.run_udf(dataset=dataset, udf=make_udf(), roi=roi)["fourier"].data
    expected = ctx.run_udf(dataset=masked, udf=make_udf())["fourier"].data
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


def test_noise_gives_the_known_sums(ctx: Context) -> None:
    # Taken once from another implementation of this library's interface.
    data = np.random.default_rng(0).random((8, 8, 16, 16)).astype(np.float32)
    dataset = MemoryDataSet(data=data, num_partitions=2, sig_dims=2)
    udf = SSB_UDF(lamb=2e-12, dpix=1e-11, semiconv=0.02, semiconv_pix=4.0, cutoff=1)
    found = ctx.run_udf(dataset=dataset, udf=udf)
    assert found["fourier"].data.sum() == pytest.approx(32.28297 + 1.32631j, rel=1e-4)
    assert found["amplitude"].data.sum() == pytest.approx(45.4985, rel=1e-4)


def test_the_wavelength_at_300_kv() -> None:
    assert wavelength(300) == pytest.approx(1.9687e-12, rel=1e-4)
