"""Figures that are repeated on other pages are those of the page about performance."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CASES = {
    "raw, 16 bit": "u16-256",
    "the same with dark frame, gain map and excluded pixels": "corrected-u16-256",
    "Merlin, integers of 8 bit": "mib-u8",
    "Merlin, integers of 16 bit": "mib-u16",
    "Merlin, raw data of 6 bit": "mib-r6",
    "SEQ, 16 bit, with dark frame and gain map": "seq-u16-256",
}


def rows(page: str) -> dict[str, list[str]]:
    """Cells of the rows of all tables of a page, by their first cell; of equal ones, the first."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
        if line.startswith("|"):
            first, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            found.setdefault(first, cells)
    return found


@pytest.mark.parametrize(("row", "case"), CASES.items())
def test_ratios_of_the_readme_were_measured(row: str, case: str) -> None:
    measured = rows("docs/performance.md")
    claimed = rows("README.md")[row]
    for cell, workload in zip(claimed, ("sum", "masks4", "com"), strict=True):
        ours_to_reference = float(measured[f"{workload}/{case}"][5])
        assert float(cell) == pytest.approx(ours_to_reference, abs=0.051)


def test_links_of_the_readme_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
