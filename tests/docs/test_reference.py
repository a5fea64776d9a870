"""What users may import stands in the reference; what stands there exists and has a description."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

REFERENCE = Path(__file__).parents[2] / "docs/api"
ENTRY = re.compile(r"^   ~?(libertem[\w.]+)$", re.MULTILINE)
ENTRIES = sorted({name for page in REFERENCE.glob("*.md") for name in ENTRY.findall(page.read_text("utf-8"))})

# Modules that users import from. All others are either listed as a whole, or are the inside of the library.
FACES = [
    "libertem.api",
    "libertem.analysis",
    "libertem.cli",
    "libertem.common",
    "libertem.contrib.convert_transposed",
    "libertem.contrib.daskadapter",
    "libertem.exceptions",
    "libertem.executor.dask",
    "libertem.executor.pipelined",
    "libertem.io.corrections",
    "libertem.io.dataset",
    "libertem.io.dataset.base",
    "libertem.io.dataset.base.interactive",
    "libertem.io.dataset.base.metadata",
    "libertem.masks",
    "libertem.testing",
    "libertem.udf",
    "libertem.utils",
    "libertem.viz",
    "libertem.warnings",
]
# Data rather than something to call, described where they are used.
DESCRIBED_ELSEWHERE = {
    "libertem.io.dataset.filetypes",
    "libertem.masks.MaskArrayType",
    "libertem.masks.MaskFactoriesType",
}


def find(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return getattr(importlib.import_module(module), attribute)


def _listed() -> set[int]:
    listed = set()
    for entry in map(find, ENTRIES):
        listed.add(id(entry))
        if isinstance(entry, ModuleType):
            listed.update(id(getattr(entry, name)) for name in entry.__all__)
    return listed


@pytest.mark.parametrize("name", ENTRIES)
def test_entries_exist_and_are_described(name: str) -> None:
    assert (find(name).__doc__ or "").strip()


@pytest.mark.parametrize("face", FACES)
def test_public_names_are_in_the_reference(face: str) -> None:
    listed = _listed()
    module = importlib.import_module(face)
    names = [name for name in module.__all__ if not name.startswith("_")]
    missing = [name for name in names if id(getattr(module, name)) not in listed]
    assert [name for name in missing if f"{face}.{name}" not in DESCRIBED_ELSEWHERE] == []
