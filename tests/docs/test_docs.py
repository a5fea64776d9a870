"""The Python code on the pages of the documentation and in the README runs."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from libertem.api import Context
from libertem.io.dataset import filetypes, unregister_dataset_cls
from libertem.testing.simulate import write_particle_scan

ROOT = Path(__file__).parents[2]
CODE_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [
    page
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if "_build" not in page.parts and CODE_BLOCK.search(page.read_text(encoding="utf-8"))
]


@pytest.fixture
def namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the blocks of a page share. They run in an empty folder and leave nothing registered or open."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    registered = set(filetypes)
    # As in a script: classes are then shipped to workers as a whole.
    names: dict[str, Any] = {"__name__": "__main__"}
    yield names
    for value in names.values():
        if isinstance(value, Context):
            value.close()
    for name in set(filetypes) - registered:
        unregister_dataset_cls(name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_code_on_the_page_runs(page: Path, namespace: dict[str, Any]) -> None:
    text = page.read_text(encoding="utf-8")
    if page.name == "README.md":
        # What `make demo` leaves behind, but smaller.
        write_particle_scan(Path("demo-output/particle_64x64"), (4, 4))
    for block in CODE_BLOCK.finditer(text):
        # Empty lines in front, so that a traceback shows the line of the page.
        before = text[: block.start(1)].count("\n")
        exec(compile("\n" * before + block[1], str(page), "exec"), namespace)


def test_every_format_has_a_row_on_the_page_of_formats() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/formats.md").read_text(encoding="utf-8"), re.MULTILINE)
    modules = {name: entry.rpartition(".")[0] for name, entry in filetypes.items() if isinstance(entry, str)}
    assert sorted(rows) == sorted(name for name, module in modules.items() if find_spec(module))


def test_the_example_of_a_data_set_passes_the_suite_that_it_shows(tmp_path: Path) -> None:
    text = (ROOT / "docs/dataset.md").read_text(encoding="utf-8")
    (tmp_path / "test_toy.py").write_text("\n".join(CODE_BLOCK.findall(text)), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib"]
    run = subprocess.run([*command, "test_toy.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-3000:]
    assert "passed" in run.stdout
