"""Simulate a 4D-STEM scan: a twinned gold particle on a holey film of amorphous carbon.

The scan is plausible rather than quantitative. Each frame is the sum of

* a direct disc and the Bragg discs of face-centred cubic gold along [110], excited as in the two-beam case,
  so that they oscillate with thickness (thickness fringes) and die with the mistilt of the grain,
* the halo of amorphous carbon and the thermal diffuse scattering of gold,

shifted by the gradient of the mean inner potential, which bends the beam towards thicker places, and counted
as electrons with Poisson statistics and a little readout noise.

Lengths are nanometres, spatial frequencies 1/nm, the beam has 300 keV. Positions in the specimen and on
the detector are (y, x).

Source: textbook relations (J. C. H. Spence and J. M. Zuo, "Electron Microdiffraction").
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from libertem.testing.writers.empad import SIG_SHAPE, write_empad

__all__ = ["Grain", "ParticleScan", "Specimen", "write_particle_scan"]

Floats = npt.NDArray[np.float64]

# The beam: 300 keV.
WAVE_NUMBER = 508.0
INTERACTION = 6.53e-3  # phase per volt and nanometre

# The detector: 5 pixels per 1/nm; a convergence angle of 3.2 mrad gives discs that do not overlap.
PX_PER_FREQUENCY = 5.0
DISC_RADIUS_PX = 8.0
PATTERN_CENTER = (62.4, 65.3)  # never the middle of the sensor, so that nobody may assume it
READOUT_NOISE = 0.02

# Gold, from tables; the mean free path stands for all losses out of the discs.
LATTICE_CONSTANT = 0.4078
EXTINCTION_111 = 18.0
GOLD_POTENTIAL = 25.0
GOLD_FREE_PATH = 90.0
CARBON_FREE_PATH = 100.0
CARBON_THICKNESS = 10.0
MAX_INDEX = 5.2  # |hkl| of the outermost reflections that reach the sensor

FIELD_OF_VIEW = 40.0
PROBE_SIZE = 0.8

# A disc, its soft edge and the largest deflection fit into this half window around its rounded centre,
# and discs that hang over the edge of the sensor are drawn on a margin that is cut off.
WINDOW = math.ceil(DISC_RADIUS_PX) + 1
MARGIN = 2 * WINDOW


@dataclass(frozen=True)
class Grain:
    """A crystal: the reflections that it can excite."""

    frequencies: Floats
    """(n, 2) positions of the reflections, 1/nm."""

    tilt: tuple[float, float]
    """How far the zone axis is off the beam, in radians."""

    def intensities(self, thickness: Floats) -> Floats:
        """(n_positions, n) diffracted fractions of the beam behind each `thickness`."""
        length = np.hypot(*self.frequencies.T)
        excitation = -(length**2) / (2 * WAVE_NUMBER) - self.frequencies @ np.asarray(self.tilt)
        extinction = EXTINCTION_111 * (length * LATTICE_CONSTANT / math.sqrt(3)) ** 1.4
        effective = np.hypot(excitation, 1 / extinction)
        fringes = np.sin(np.pi * thickness[:, np.newaxis] * effective) ** 2
        return np.asarray(fringes / (extinction * effective) ** 2)


@dataclass(frozen=True)
class Specimen:
    """What the beam meets at each scan position; flat arrays in scan order."""

    gold: Floats
    """Thickness of gold, nm."""

    carbon: Floats
    """Thickness of carbon, nm."""

    grain: npt.NDArray[np.int64]
    """Which of the grains the gold belongs to."""

    deflection: Floats
    """(n, 2) shift of the pattern, in pixels."""


def _gold_110(rotation: float, *, twinned: bool = False) -> Floats:
    """Reflections of the [110] zone axis, rotated by degrees; or those of its twin on (1-11)."""
    indices = [
        (float(l_index), math.sqrt(2) * h_index)
        for h_index in range(-4, 5)
        for l_index in range(-6, 7)
        if (h_index - l_index) % 2 == 0 and 0 < 2 * h_index**2 + l_index**2 <= MAX_INDEX**2
    ]
    points = np.array(indices)
    if twinned:
        normal = np.array([1.0, math.sqrt(2)]) / math.sqrt(3)
        points = 2 * np.outer(points @ normal, normal) - points
    angle = math.radians(rotation)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return np.asarray(points @ turn.T / LATTICE_CONSTANT)


# The twin plane of the large particle lies across (1-11), whose direction at this rotation is:
_ROTATION = 12.0
_TWIN_NORMAL_ANGLE = math.atan2(math.sqrt(2), 1.0) + math.radians(_ROTATION)

GRAINS = (
    Grain(_gold_110(_ROTATION), tilt=(1.0e-3, -0.6e-3)),
    Grain(_gold_110(_ROTATION, twinned=True), tilt=(-5.0e-3, 3.5e-3)),
    Grain(_gold_110(55.0), tilt=(0.5e-3, 2.5e-3)),
)


def _rounded_hexagon(y: Floats, x: Floats, radius: float, rotation: float) -> Floats:
    """Height of a faceted, rounded particle of `radius`, whose middle is as thick as it is wide."""
    facets = [rotation + k * math.pi / 3 for k in range(3)]
    distance = sum(np.abs(y * math.cos(a) + x * math.sin(a)) ** 8 for a in facets) ** (1 / 8) / radius
    return np.asarray(2 * radius * np.sqrt(np.clip(1 - distance**2, 0, None)))


def _gold_thickness(y: Floats, x: Floats) -> Floats:
    large = _rounded_hexagon(y - 1.5, x + 3.0, 11.0, _TWIN_NORMAL_ANGLE)
    small = _rounded_hexagon(y + 9.0, x - 12.5, 4.5, 0.3)
    return large + small


def _carbon_thickness(y: Floats, x: Floats, rng: np.random.Generator) -> Floats:
    """A film that is slightly rough, with a hole in the lower right corner."""
    rough = np.zeros_like(y)
    for frequency_y, frequency_x, phase in rng.uniform((-1.2, -1.2, 0), (1.2, 1.2, 6.28), size=(60, 3)):
        rough += np.cos(2 * np.pi * (frequency_y * y + frequency_x * x) + phase)
    distance = np.hypot(y - 22.0, x - 22.0) - 15.0
    film = 1 / (1 + np.exp(-np.clip(distance / 0.4, -50, 50)))
    return np.asarray(CARBON_THICKNESS * film * np.clip(1 + 0.025 * rough, 0, None))


@dataclass(frozen=True)
class ParticleScan:
    """A scan over the specimen, made row by row when it is asked for.

    A frame depends on the scan and its seed only, not on how many frames are made at a time.
    """

    nav_shape: tuple[int, int] = (64, 64)
    """Rows and columns of the scan. The field of view is the same for every number of them."""

    electrons: float = 12_000
    """Dose per scan position."""

    seed: int = 4
    """Of the film's roughness and of the noise."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole data set: scan rows and columns, detector rows and columns."""
        return self.nav_shape + SIG_SHAPE

    @cached_property
    def specimen(self) -> Specimen:
        """The truth behind the frames."""
        step = FIELD_OF_VIEW / max(self.nav_shape)
        rows, columns = (step * (np.arange(n) - (n - 1) / 2) for n in self.nav_shape)
        y, x = (axis.ravel() for axis in np.meshgrid(rows, columns, indexing="ij"))
        half = PROBE_SIZE / 2
        slope = np.stack(
            [
                _gold_thickness(y + half, x) - _gold_thickness(y - half, x),
                _gold_thickness(y, x + half) - _gold_thickness(y, x - half),
            ],
            axis=-1,
        )
        phase_gradient = INTERACTION * GOLD_POTENTIAL * slope / PROBE_SIZE
        beyond_twin_plane = (y - 1.5) * math.cos(_TWIN_NORMAL_ANGLE) + (x + 3) * math.sin(_TWIN_NORMAL_ANGLE)
        grain = np.where(beyond_twin_plane > 1.0, 1, 0)
        grain[(x > 6.5) & (y < -3.0)] = 2
        return Specimen(
            gold=_gold_thickness(y, x),
            carbon=_carbon_thickness(y, x, np.random.default_rng(self.seed)),
            grain=grain,
            deflection=phase_gradient / (2 * np.pi) * PX_PER_FREQUENCY,
        )

    def expected_row(self, row: int) -> Floats:
        """Mean number of electrons in each pixel of the frames of one scan row, without noise."""
        specimen = self.specimen
        n_columns = self.nav_shape[1]
        here = slice(row * n_columns, (row + 1) * n_columns)
        gold, carbon = specimen.gold[here], specimen.carbon[here]
        center = np.asarray(PATTERN_CENTER) + specimen.deflection[here]

        unscattered = np.exp(-gold / GOLD_FREE_PATH - carbon / CARBON_FREE_PATH)
        frames = _diffuse(center, 1 - np.exp(-gold / GOLD_FREE_PATH), 1 - np.exp(-carbon / CARBON_FREE_PATH))
        frames = np.pad(frames, ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)))
        in_discs = np.ones(n_columns)
        for number, grain in enumerate(GRAINS):
            inside = np.flatnonzero((specimen.grain[here] == number) & (gold > 0))
            bragg = grain.intensities(gold[inside])
            # The reflections share what one beam has to give, however many of them are excited.
            in_discs[inside] = 1 / (1 + bragg.sum(axis=1))
            bragg *= (in_discs * unscattered)[inside, np.newaxis]
            for frequency, strength in zip(grain.frequencies, bragg.T, strict=True):
                _add_discs(frames, inside, center[inside] + PX_PER_FREQUENCY * frequency, strength)
        _add_discs(frames, np.arange(n_columns), center, in_discs * unscattered)
        return np.asarray(self.electrons * frames[:, MARGIN:-MARGIN, MARGIN:-MARGIN])

    def row(self, row: int) -> npt.NDArray[np.float32]:
        """The frames of one scan row as the detector would store them, shape (n, 128, 128)."""
        rng = np.random.default_rng([self.seed, row])
        expected = self.expected_row(row)
        noise = rng.standard_normal(expected.shape, dtype=np.float32)
        return np.asarray(rng.poisson(expected) + np.float32(READOUT_NOISE) * noise, dtype=np.float32)

    def slabs(self) -> Iterator[npt.NDArray[np.float32]]:
        """Yield all frames in scan order, one scan row at a time."""
        for row in range(self.nav_shape[0]):
            yield self.row(row)


def _add_discs(
    frames: Floats, which: npt.NDArray[np.int64], center: Floats, strength: npt.NDArray[Any]
) -> None:
    """Add to each of the frames `which` a disc with a soft edge, of integral `strength`."""
    near = np.rint(center).astype(np.int64)
    fits = np.all((near > -WINDOW) & (near < np.asarray(SIG_SHAPE) + WINDOW), axis=1)
    which, center, near, strength = which[fits], center[fits], near[fits], strength[fits]
    window = np.arange(-WINDOW, WINDOW + 1)
    y = near[:, :1] + window
    x = near[:, 1:] + window
    distance = np.hypot((y - center[:, :1])[:, :, np.newaxis], (x - center[:, 1:])[:, np.newaxis, :])
    disc = np.clip(DISC_RADIUS_PX + 0.5 - distance, 0, 1)
    disc *= (strength / (np.pi * DISC_RADIUS_PX**2))[:, np.newaxis, np.newaxis]
    pixels = (
        which[:, np.newaxis, np.newaxis],
        (y + MARGIN)[:, :, np.newaxis],
        (x + MARGIN)[:, np.newaxis, :],
    )
    frames[pixels] += disc


def _diffuse(center: Floats, from_gold: Floats, from_carbon: Floats) -> Floats:
    """Diffuse intensity around each `center`, for these scattered fractions."""
    moved = np.column_stack([np.ones(len(center)), center - np.asarray(PATTERN_CENTER)])
    weights = np.hstack([from_gold[:, np.newaxis] * moved, from_carbon[:, np.newaxis] * moved])
    return np.clip(np.tensordot(weights, _diffuse_basis(), axes=1), 0, None)


@cache
def _diffuse_basis() -> Floats:
    """Profile of gold and its negative derivatives along y and x, then those of carbon.

    The profiles are smooth compared to the deflections, so that their first derivatives move them.
    """
    y, x = np.indices(SIG_SHAPE, dtype=np.float64)
    q = np.hypot(y - PATTERN_CENTER[0], x - PATTERN_CENTER[1]) / PX_PER_FREQUENCY
    thermal = 1 / (q**2 + 4.0**2) ** 1.5
    # The two maxima of amorphous carbon, over what the film scatters to small angles.
    halo = (
        0.3 * np.exp(-((q / 3.0) ** 2))
        + np.exp(-(((q - 4.9) / 0.9) ** 2))
        + 0.35 * np.exp(-(((q - 8.6) / 1.4) ** 2))
    )
    on_sensor = ((thermal, 0.5), (halo, 0.8))
    return np.concatenate(
        [np.stack([profile, *np.gradient(-profile)]) * (part / profile.sum()) for profile, part in on_sensor]
    )


def write_particle_scan(folder: Path, nav_shape: tuple[int, int] = (64, 64), *, seed: int = 4) -> Path:
    """Simulate a `ParticleScan` and store it as EMPAD files, without holding more than a row in memory.

    Returns the XML file, which can be loaded with ``ctx.load("auto", path=...)``. A scan of 64 by 64
    positions takes some seconds and 270 MB on disk.
    """
    scan = ParticleScan(nav_shape, seed=seed)
    return write_empad(folder, scan.slabs(), nav_shape)
