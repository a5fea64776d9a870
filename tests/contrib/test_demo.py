"""The demo on data with known content."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from libertem.api import Context
from libertem.contrib.demo import analyse, draw, find_direct_beam, main
from libertem.testing.simulate import DISC_RADIUS_PX, PATTERN_CENTER, ParticleScan
from libertem.testing.writers.empad import write_empad

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def ctx() -> Any:
    with Context.make_with("inline") as ctx:
        yield ctx


def _disc(center: tuple[float, float], shape: tuple[int, int], radius: float) -> npt.NDArray[np.float32]:
    y, x = np.indices(shape)
    distance = np.hypot(y - center[0], x - center[1])
    return np.clip(radius + 0.5 - distance, 0, 1).astype(np.float32)


def test_the_direct_beam_is_found_in_spite_of_a_hot_pixel_and_background() -> None:
    mean = 3 + 100 * _disc((20.3, 41.6), (64, 80), radius=6)
    mean[60, 3] = 1e6
    beam = find_direct_beam(mean)
    assert (beam.cy, beam.cx) == pytest.approx((20.3, 41.6), abs=0.1)
    assert beam.radius == pytest.approx(6, abs=0.5)


def test_a_flat_mean_gives_the_middle_of_the_frame() -> None:
    beam = find_direct_beam(np.ones((32, 64)))
    assert (beam.cy, beam.cx) == (15.5, 31.5)


def test_the_numbers_are_those_of_numpy(ctx: Any) -> None:
    scan = ParticleScan((6, 8))
    frames = np.concatenate(list(scan.slabs())).reshape(scan.shape)
    findings = analyse(ctx, ctx.load("memory", data=frames, sig_dims=2))
    beam = findings.beam
    assert beam is not None
    assert (beam.cy, beam.cx) == pytest.approx(PATTERN_CENTER, abs=0.3)
    assert beam.radius == pytest.approx(DISC_RADIUS_PX, abs=1)
    y, x = np.indices((128, 128))
    distance = np.hypot(y - beam.cy, x - beam.cx)
    expected = (frames * (distance <= 1.25 * beam.radius)).sum(axis=(2, 3))
    np.testing.assert_allclose(findings.maps["bright field"], expected, rtol=1e-5)
    np.testing.assert_allclose(findings.mean, frames.mean(axis=(0, 1)), rtol=1e-4, atol=1e-4)
    assert findings.maps["annular dark field"].shape == (6, 8)
    position, frame = findings.example
    assert position == np.unravel_index(np.argmax(findings.maps["annular dark field"]), (6, 8))
    np.testing.assert_array_equal(frame, frames[position])


def test_the_center_of_mass_shows_how_the_beam_moves(ctx: Any) -> None:
    shifts = np.linspace(-1, 1, 20).reshape((4, 5))
    frames = np.stack([_disc((16 + dy, 16), (32, 32), radius=5) for dy in shifts.ravel()])
    findings = analyse(ctx, ctx.load("memory", data=frames.reshape((4, 5, 32, 32)), sig_dims=2))
    assert findings.com is not None
    field_y, field_x = findings.com
    np.testing.assert_allclose(field_y, shifts, atol=0.05)
    np.testing.assert_allclose(field_x, 0, atol=0.05)


@pytest.mark.parametrize(
    ("shape", "sig_dims"),
    [((7, 16, 16), 2), ((3, 4, 50), 1), ((2, 3, 4, 16, 16), 2), ((1, 5, 16, 16), 2), ((4, 5, 2, 8, 8), 3)],
)
def test_other_dimensions_are_drawn_as_far_as_they_go(
    ctx: Any, tmp_path: Path, shape: tuple[int, ...], sig_dims: int
) -> None:
    data = np.random.default_rng(0).poisson(4, size=shape).astype(np.uint16)
    findings = analyse(ctx, ctx.load("memory", data=data, sig_dims=sig_dims))
    assert findings.com is None
    assert (findings.beam is None) == (sig_dims != 2)
    assert {values.shape for values in findings.maps.values()} == {shape[:-sig_dims]}
    draw(findings, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(PNG)


def test_one_frame_with_a_missing_value_spoils_nothing_else(ctx: Any, tmp_path: Path) -> None:
    data = np.random.default_rng(0).poisson(4, size=(5, 6, 16, 16)).astype(np.float32)
    data[2, 3, 8, 8] = np.nan
    findings = analyse(ctx, ctx.load("memory", data=data, sig_dims=2))
    assert findings.com is not None
    for values in (*findings.maps.values(), *findings.com):
        assert np.isfinite(values).sum() >= 29
    draw(findings, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(PNG)


def test_the_command_simulates_once_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--out", str(tmp_path / "out"), "--scan", "6", "8"]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    assert "simulating" in first
    assert "scan (6, 8), frames (128, 128), float32" in first
    assert "GB/s" in first
    assert (tmp_path / "out/demo.png").read_bytes().startswith(PNG)
    assert main(arguments) == 0
    assert "simulating" not in capsys.readouterr().out


def test_the_command_takes_data_of_the_user(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_empad(tmp_path / "data", ParticleScan((2, 3)).slabs(), (2, 3))
    assert main(["--data", str(path), "--out", str(tmp_path)]) == 0
    assert "processed 6 frames" in capsys.readouterr().out


def test_the_command_says_what_is_wrong_with_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("no frames here")
    assert main(["--data", str(tmp_path / "notes.txt"), "--out", str(tmp_path)]) == 1
    assert "notes.txt" in capsys.readouterr().err


def test_the_demo_needs_no_test_tools() -> None:
    # `make demo` installs the library and matplotlib, no more.
    code = "import sys; sys.modules.update(pytest=None, hypothesis=None); import libertem.contrib.demo"
    subprocess.run([sys.executable, "-c", code], check=True)
