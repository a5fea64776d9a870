from __future__ import annotations

import numpy as np
import pytest

from libertem.common import Shape
from libertem.utils import frame_peaks
from libertem.utils.generate import cbed_frame, exclude_pixels, gradient_data, hologram_frame


def test_a_diffraction_pattern_has_disks_at_its_peaks() -> None:
    data, indices, peaks = cbed_frame(32, 40, zero=(10, 12), a=(0, 9), b=(8, 1), radius=3, all_equal=True)
    assert data.shape == (1, 32, 40)
    assert data.dtype == np.float32
    assert data.sum() == pytest.approx(len(peaks) * np.pi * 3**2, rel=0.01)
    for (y, x), (i, j) in zip(peaks, indices, strict=True):
        assert data[0, y, x] == 1
        assert (y, x) == (10 + 8 * j, 12 + 9 * i + j)
        assert 3 <= y < 29
        assert 3 <= x < 37


def test_disks_differ_by_default() -> None:
    data, indices, peaks = cbed_frame()
    assert data.shape == (1, 128, 128)
    assert len(indices) == len(peaks) == 49
    assert len({float(data[0, y, x]) for y, x in peaks}) == 49


def test_disks_keep_the_margin_and_the_given_indices() -> None:
    grid = np.mgrid[-1:2, -1:2]
    _, indices, peaks = cbed_frame(64, 64, a=(20, 0), b=(0, 20), indices=grid, margin=12)
    expected = frame_peaks(64, 64, (32, 32), (20, 0), (0, 20), 12, grid)
    np.testing.assert_array_equal(indices, expected[0])
    np.testing.assert_array_equal(peaks, expected[1])


def test_a_hologram_has_fringes() -> None:
    amp, phi = np.full((8, 9), 0.5), np.full((8, 9), 0.3)
    frame = hologram_frame(amp, phi, counts=100, sampling=4, visibility=0.5, f_angle=0)
    expected = 50 * (1.25 + 0.5 * np.cos(np.pi / 2 * np.arange(8) - 0.3))
    np.testing.assert_allclose(frame, np.broadcast_to(expected[:, np.newaxis], (8, 9)))


def test_fringes_follow_each_other_in_the_given_direction() -> None:
    frame = hologram_frame(np.ones((8, 8)), np.zeros((8, 8)))
    np.testing.assert_allclose(frame[0, :4], [2000, 1809.01699, 1309.01699, 690.98301])


def test_noise_changes_a_hologram() -> None:
    amp, phi = np.ones((64, 64)), np.zeros((64, 64))
    clean = hologram_frame(amp, phi)
    counted = hologram_frame(amp, phi, poisson_noise=1)
    np.testing.assert_array_equal(counted, counted.round())
    assert 0.8 < np.std(counted - clean) / np.sqrt(clean.mean()) < 1.2
    assert np.std(hologram_frame(amp, phi, gaussian_noise=2)) < np.std(clean)


def test_amplitude_and_phase_need_the_same_shape() -> None:
    with pytest.raises(ValueError, match="share one shape"):
        hologram_frame(np.ones((8, 8)), np.zeros((8, 9)))


def test_gradient_data_rises_from_5_to_30() -> None:
    data = gradient_data((2, 2), (2, 3))
    assert data.shape == (2, 2, 2, 3)
    assert data.dtype == np.float32
    np.testing.assert_allclose(data.ravel(), 5 + 25 * np.arange(24) / 23, rtol=1e-6)


def test_gradient_data_takes_shapes() -> None:
    shape = Shape((2, 3, 4), sig_dims=2)
    assert gradient_data(shape.nav, shape.sig).shape == (2, 3, 4)


@pytest.mark.parametrize("sig_dims", [(16, 16), (40,), (6, 6, 6)])
def test_excluded_pixels_do_not_touch(sig_dims: tuple[int, ...]) -> None:
    coords = exclude_pixels(sig_dims, 5, rng=np.random.default_rng(1))
    assert coords is not None
    assert coords.shape == (len(sig_dims), 5)
    assert np.all(coords >= 0)
    assert np.all(coords < np.array(sig_dims)[:, np.newaxis])
    distances = np.abs(coords[:, :, np.newaxis] - coords[:, np.newaxis, :]).max(axis=0)
    assert np.all(distances[~np.eye(5, dtype=bool)] > 1)


@pytest.mark.parametrize("num_excluded", [0, None])
def test_without_excluded_pixels_there_are_no_coordinates(num_excluded: int | None) -> None:
    assert exclude_pixels((16, 16), num_excluded) is None


def test_too_many_excluded_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match="no room for 5"):
        exclude_pixels((4, 4), 5)
