"""libertem-holo, unmodified: waves reconstructed from holograms of known amplitude and phase."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from libertem.api import Context
from libertem.executor.inline import InlineJobExecutor
from libertem.executor.pipelined import PipelinedExecutor
from libertem.io.dataset.memory import MemoryDataSet

pytest.importorskip("libertem_holo", reason="libertem-holo is not installed: see `make acceptance`")

from libertem_holo.base.filters import butterworth_disk, remove_dead_pixels
from libertem_holo.base.generate import hologram_frame
from libertem_holo.base.mask import disk_aperture
from libertem_holo.base.reconstr import reconstruct_frame
from libertem_holo.base.utils import HoloParams, get_slice_fft
from libertem_holo.udf import HoloReconstructUDF

N_FRAMES = 6
SIG = (64, 96)
CARRIER = (14, -20)
"""Fringes per height and width of a frame."""

SIDEBAND = (CARRIER[0] % SIG[0], CARRIER[1] % SIG[1])
"""The package takes the wave there for the conjugate one."""

Images = npt.NDArray[np.float64]


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


@pytest.fixture(scope="module")
def waves() -> tuple[Images, Images]:
    """Amplitudes and phases, smooth and periodic, so that nothing of them lies outside of the aperture."""
    y = 2 * np.pi * np.arange(SIG[0])[:, None] / SIG[0]
    x = 2 * np.pi * np.arange(SIG[1])[None, :] / SIG[1]
    strength = np.linspace(0.1, 0.6, N_FRAMES)[:, None, None]
    amplitudes = 1 + 0.3 * strength * np.cos(y - x)
    phases = strength * (np.sin(y) + np.cos(2 * x + 0.5))
    return amplitudes, phases


@pytest.fixture(scope="module")
def holograms(waves: tuple[Images, Images]) -> Images:
    """What an object wave and a tilted plane wave give together: |exp(i carrier) + A exp(i phase)|²."""
    amplitudes, phases = waves
    y, x = np.mgrid[: SIG[0], : SIG[1]]
    carrier = 2 * np.pi * (CARRIER[0] * y / SIG[0] + CARRIER[1] * x / SIG[1])
    return 100 * (1 + amplitudes**2 + 2 * amplitudes * np.cos(phases - carrier))


def make_aperture(shape: tuple[int, int]) -> Images:
    """Passes 9 frequencies in all directions, in the order of `numpy.fft`."""
    ky = np.fft.fftfreq(shape[0], 1 / shape[0])[:, None]
    kx = np.fft.fftfreq(shape[1], 1 / shape[1])[None, :]
    return (ky**2 + kx**2 <= 81).astype(np.float64)


@pytest.mark.parametrize("precision", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint16])
def test_the_wave_is_that_of_the_hologram(
    ctx: Context, waves: tuple[Images, Images], holograms: Images, precision: bool, dtype: type
) -> None:
    rounded = np.round(holograms * 100) if dtype is np.uint16 else holograms
    dataset = MemoryDataSet(data=rounded.astype(dtype), num_partitions=3, sig_dims=2)
    udf = HoloReconstructUDF(
        out_shape=SIG,
        sb_position=SIDEBAND,
        aperture=make_aperture(SIG),
        precision=precision,
    )
    wave = ctx.run_udf(dataset=dataset, udf=udf)["wave"].data
    assert wave.shape == (N_FRAMES, *SIG)
    assert wave.dtype == (np.complex128 if precision else np.complex64)
    amplitudes, phases = waves
    np.testing.assert_allclose(np.angle(wave), phases, atol=2e-3)
    scale = np.abs(wave) / amplitudes
    np.testing.assert_allclose(scale, scale.mean(), rtol=2e-3)


def test_a_smaller_wave_is_the_same_wave_with_larger_pixels(
    ctx: Context, waves: tuple[Images, Images], holograms: Images
) -> None:
    dataset = MemoryDataSet(data=holograms.astype(np.float32), num_partitions=2, sig_dims=2)
    shape = (SIG[0] // 2, SIG[1] // 2)
    udf = HoloReconstructUDF(out_shape=shape, sb_position=SIDEBAND, aperture=make_aperture(shape))
    wave = ctx.run_udf(dataset=dataset, udf=udf)["wave"].data
    np.testing.assert_allclose(np.angle(wave), waves[1][:, ::2, ::2], atol=2e-3)


def test_from_a_file_to_a_phase_with_estimated_parameters(ctx: Context, tmp_path: Path) -> None:
    y, x = np.mgrid[:128, :128]
    phase = 0.8 * np.exp(-((y - 60) ** 2 + (x - 70) ** 2) / 400)
    stack = np.stack([hologram_frame(np.ones((128, 128)), factor * phase) for factor in (0, 1, 2)])
    np.save(tmp_path / "stack.npy", stack.astype(np.float32))
    dataset = ctx.load("npy", tmp_path / "stack.npy")
    params = HoloParams.from_hologram(stack[0], central_band_mask_radius=8, out_shape=(128, 128))
    udf = HoloReconstructUDF(
        out_shape=params.out_shape, sb_position=params.sb_position, aperture=params.aperture
    )
    roi = np.array([True, False, True])
    wave = ctx.run_udf(dataset=dataset, udf=udf, roi=roi)["wave"].raw_data
    # As without this library.
    part = get_slice_fft(params.out_shape, (128, 128))
    for image, frame in zip(wave, stack[[0, 2]], strict=True):
        expected = reconstruct_frame(frame, params.sb_position, params.aperture, part)
        np.testing.assert_allclose(image, expected, atol=1e-4 * np.abs(expected).max())
    # The filter against streaks distorts the phase a little.
    found = np.angle(wave[1] / wave[0])
    likeness = np.corrcoef(found.ravel(), phase.ravel())[0, 1]
    assert abs(likeness) > 0.97


def test_smooth_apertures_fit(ctx: Context, waves: tuple[Images, Images], holograms: Images) -> None:
    dataset = MemoryDataSet(data=holograms.astype(np.float32), num_partitions=2, sig_dims=2)
    for aperture in (
        butterworth_disk(shape=SIG, radius=11),
        disk_aperture(out_shape=SIG, radius=11),
    ):
        udf = HoloReconstructUDF(
            out_shape=SIG,
            sb_position=SIDEBAND,
            aperture=np.fft.fftshift(aperture),
        )
        wave = ctx.run_udf(dataset=dataset, udf=udf)["wave"].data
        np.testing.assert_allclose(np.angle(wave), waves[1], atol=0.05)


def test_bright_pixels_are_repaired_by_this_library() -> None:
    rng = np.random.default_rng(4)
    frame = rng.normal(100, 1, (40, 40)).astype(np.float32)
    damaged = frame.copy()
    damaged[[5, 20, 33], [7, 21, 30]] = 1e5
    repaired = remove_dead_pixels(damaged)
    assert np.abs(repaired - frame).max() < 10


def test_the_old_place_names_the_new_one() -> None:
    with pytest.raises(ImportError, match="libertem_holo"):
        import libertem.udf.holography  # noqa: F401
