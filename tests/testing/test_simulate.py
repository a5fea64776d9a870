"""The simulated scan against the relations that it claims to follow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from libertem.testing.simulate import (
    DISC_RADIUS_PX,
    EXTINCTION_111,
    GRAINS,
    LATTICE_CONSTANT,
    PATTERN_CENTER,
    PX_PER_FREQUENCY,
    Grain,
    ParticleScan,
    write_particle_scan,
)

SCAN = ParticleScan((24, 24))
TWIN_ROW = 12  # crosses the large particle


def _center_of_mass(frames: npt.NDArray[np.float64], radius: float) -> npt.NDArray[np.float64]:
    y, x = np.indices((128, 128))
    near = np.hypot(y - PATTERN_CENTER[0], x - PATTERN_CENTER[1]) < radius
    weight = frames * near
    total = weight.sum(axis=(1, 2))
    return np.stack([(weight * y).sum(axis=(1, 2)) / total, (weight * x).sum(axis=(1, 2)) / total], axis=-1)


@pytest.fixture(scope="module")
def expected() -> npt.NDArray[np.float64]:
    return np.concatenate([SCAN.expected_row(row) for row in range(24)])


def test_a_frame_does_not_depend_on_the_frames_before_it() -> None:
    scan = ParticleScan((3, 8))
    np.testing.assert_array_equal(list(scan.slabs())[2], scan.row(2))


def test_frames_are_what_a_detector_stores(expected: npt.NDArray[np.float64]) -> None:
    frames = SCAN.row(TWIN_ROW)
    assert (frames.dtype, frames.shape) == (np.float32, (24, 128, 128))
    assert frames.min() < 0, "readout noise after background correction"
    means = expected.reshape((24, 24, 128, 128))[TWIN_ROW]
    bright = means > 20
    relative = (frames - means)[bright] / np.sqrt(means[bright])
    assert abs(relative.mean()) < 0.05
    assert abs(relative.std() - 1) < 0.05, "Poisson statistics"


def test_electrons_are_lost_but_not_made(expected: npt.NDArray[np.float64]) -> None:
    counts = expected.sum(axis=(1, 2))
    assert counts.max() < SCAN.electrons * 1.01
    assert counts.min() > SCAN.electrons * 0.7


def test_the_hole_shows_the_direct_disc_alone(expected: npt.NDArray[np.float64]) -> None:
    hole = expected[-1]
    y, x = np.indices((128, 128))
    outside = np.hypot(y - PATTERN_CENTER[0], x - PATTERN_CENTER[1]) > DISC_RADIUS_PX + 1
    assert hole[outside].sum() < 1e-3 * SCAN.electrons
    np.testing.assert_allclose(_center_of_mass(hole[np.newaxis], 12)[0], PATTERN_CENTER, atol=0.01)


def test_the_direct_disc_moves_by_the_deflection(expected: npt.NDArray[np.float64]) -> None:
    moved = _center_of_mass(expected, 1.5 * DISC_RADIUS_PX) - PATTERN_CENTER
    assert np.abs(SCAN.specimen.deflection).max() > 0.5
    np.testing.assert_allclose(moved, SCAN.specimen.deflection, atol=0.15)


def test_the_beam_is_deflected_towards_thicker_places() -> None:
    thickness = SCAN.specimen.gold.reshape((24, 24))
    slope = (thickness[2:, 1:-1] - thickness[:-2, 1:-1]).ravel()
    deflection = SCAN.specimen.deflection[:, 0].reshape((24, 24))[1:-1, 1:-1].ravel()
    assert np.corrcoef(slope, deflection)[0, 1] > 0.6


def test_bragg_discs_stand_at_the_reflections_of_their_grain(expected: npt.NDArray[np.float64]) -> None:
    specimen = SCAN.specimen
    for number, grain in enumerate(GRAINS):
        inside = np.flatnonzero((specimen.grain == number) & (specimen.gold > 3))
        assert inside.size
        frame = expected[inside].mean(axis=0)
        length = np.hypot(*grain.frequencies.T)
        for y, x in PATTERN_CENTER + PX_PER_FREQUENCY * grain.frequencies[length < 4.5]:
            assert frame[round(y), round(x)] > 2 * np.median(frame)


def test_the_twins_share_the_reflections_of_their_boundary() -> None:
    parent, twin = (GRAINS[number].frequencies for number in (0, 1))
    apart = np.linalg.norm(parent[:, np.newaxis] - twin, axis=-1).min(axis=1)
    length = np.hypot(*parent.T) * LATTICE_CONSTANT
    # Of the four {111} in this zone, the two that are normal to the twin plane.
    assert np.count_nonzero(apart[np.isclose(length, np.sqrt(3))] < 1e-9) == 2
    # Where the twin has {002}, the parent has nothing within the radius of a disc, nearly.
    assert apart[np.isclose(length, 2)].min() * PX_PER_FREQUENCY > 0.8 * DISC_RADIUS_PX


def test_intensities_oscillate_with_thickness_by_the_extinction_length() -> None:
    length = np.sqrt(3) / LATTICE_CONSTANT
    # A tilt that brings the reflection exactly to the Bragg condition.
    grain = Grain(np.array([[length, 0.0]]), tilt=(-length / (2 * 508.0), 0.0))
    thickness = np.array([0, 0.25, 0.5, 1.0]) * EXTINCTION_111
    np.testing.assert_allclose(grain.intensities(thickness)[:, 0], [0, 0.5, 1, 0], atol=1e-9)


def test_a_tilt_makes_reflections_weaker() -> None:
    length = np.sqrt(3) / LATTICE_CONSTANT
    thickness = np.linspace(0, 40, 100)
    grains = [Grain(np.array([[length, 0.0]]), tilt=(tilt, 0.0)) for tilt in (0.0, 5e-3, 15e-3)]
    strongest = [float(grain.intensities(thickness).max()) for grain in grains]
    assert strongest == sorted(strongest, reverse=True)


def test_a_written_scan_holds_the_simulated_frames(tmp_path: Path) -> None:
    path = write_particle_scan(tmp_path, (2, 3))
    raw = np.fromfile(tmp_path / "scan_x3_y2.raw", dtype="<f4").reshape((2, 3, 130, 128))
    assert path.name == "acquisition_1.xml"
    np.testing.assert_array_equal(raw[1, :, :128], ParticleScan((2, 3)).row(1))
