"""Files for the command line, and a way to run it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libertem.cli import main


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str

    def json(self) -> Any:
        """What was printed."""
        return json.loads(self.out)

    def complaint(self) -> str:
        """The one sentence about what went wrong."""
        (line,) = self.err.splitlines()
        assert line.startswith("libertem: ")
        assert "Traceback" not in line
        return line.removeprefix("libertem: ")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Run the command in this process."""

    def call(*arguments: Any) -> Ended:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ended(status, captured.out, captured.err)

    return call


@pytest.fixture
def data() -> Any:
    """A scan of 5 x 7 positions."""
    return np.random.default_rng(0).poisson(4, size=(5, 7, 16, 12)).astype(np.uint16)


@pytest.fixture
def npy(tmp_path: Path, data: Any) -> Path:
    """The scan, as NumPy file."""
    np.save(tmp_path / "scan.npy", data)
    return tmp_path / "scan.npy"


@pytest.fixture
def raw(tmp_path: Path, data: Any) -> Path:
    """The scan, as raw file, which does not say what it is."""
    data.tofile(tmp_path / "scan.raw")
    return tmp_path / "scan.raw"


RAW_OPTIONS = ("--type", "raw", "--nav-shape", "5,7", "--sig-shape", "16x12", "--param", "dtype=uint16")
