"""Promises of the distribution as a whole."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import libertem

ROOT = Path(__file__).parents[1]

# Each of them takes a good part of a second to import, or more memory than a small run needs.
HEAVY = (
    "cupy",
    "dask",
    "distributed",
    "h5py",
    "hdf5plugin",
    "imagecodecs",
    "matplotlib",
    "numba",
    "scipy",
    "sparse",
    "sparseconverter",
)


def test_the_version_is_that_of_the_project_file() -> None:
    declared = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert declared is not None
    assert libertem.__version__ == declared[1]


@pytest.mark.parametrize("module", ["libertem.api", "libertem.io.dataset"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(sys.modules.keys() & {set(HEAVY)!r}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []


def test_the_readme_says_that_this_is_not_the_original_project() -> None:
    assert "independent implementation" in (ROOT / "README.md").read_text(encoding="utf-8")
