"""Show rows as one table, or as data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from benchmarks.rows import ALL_CORES, LIMIT, ONE_THREAD, REFERENCE, Row

__all__ = ["as_json", "as_markdown"]

COLUMNS = (
    "case",
    "limit",
    "ours, 1 thread",
    "ours, all cores",
    "reference",
    "ours / limit",
    "ours / reference",
    "spread: limit, ours, reference",
    "peak RssAnon + RssShmem, MB: ours, reference",
    "target",
    "verdict",
)
NONE = "-"
SCALES = {"ms": 1e3, "s": 1.0}


def as_markdown(rows: Sequence[Row], environment: dict[str, str], notes: Sequence[str]) -> str:
    """The table, between what was measured and how to read it."""
    lines = [", ".join(f"{name} {value}" for name, value in environment.items()), ""]
    lines.append(f"| {' | '.join(COLUMNS)} |")
    lines.append(f"|---|{'--:|' * 8}---|---|")
    lines += [f"| {' | '.join(_cells(row))} |" for row in rows]
    lines += ["", *(f"* {note}" for note in notes), ""]
    return "\n".join(lines)


def _cells(row: Row) -> list[str]:
    cells = [row.case]
    cells += [_amount(row, who) for who in (LIMIT, ONE_THREAD, ALL_CORES, REFERENCE)]
    cells += [_number(row.speed_against(other), "{:.2f}") for other in (LIMIT, REFERENCE)]
    measured = [who for who in (LIMIT, ALL_CORES, REFERENCE) if row.spread(who) is not None]
    cells.append(", ".join(_number(row.spread(who), "{:.0%}") for who in measured) or NONE)
    peaks = [row.anon_bytes[who] for who in (ALL_CORES, REFERENCE) if who in row.anon_bytes]
    cells.append(", ".join(f"{peak / 1e6:.0f}" for peak in peaks) or NONE)
    cells += [row.target or NONE, row.verdict or NONE]
    return [cell.replace("|", "\\|").replace("\n", " ") for cell in cells]


def _amount(row: Row, who: str) -> str:
    median = row.median(who)
    if not median or not row.unit:
        return NONE
    if row.unit == "GB/s":
        return f"{row.nbytes / median / 1e9:.2f} GB/s"
    return f"{median * SCALES[row.unit]:.3g} {row.unit}"


def _number(value: float | None, form: str) -> str:
    return NONE if value is None else form.format(value)


def as_json(rows: Sequence[Row], environment: dict[str, str], notes: Sequence[str]) -> str:
    """Everything that was measured, each single sample too."""
    return json.dumps(
        {"environment": environment, "notes": list(notes), "rows": [_as_dict(row) for row in rows]}, indent=1
    )


def _as_dict(row: Row) -> dict[str, Any]:
    return {
        "case": row.case,
        "nbytes": row.nbytes,
        "seconds": row.seconds,
        "medians": {who: row.median(who) for who in row.seconds},
        "ours_to_limit": row.speed_against(LIMIT),
        "ours_to_reference": row.speed_against(REFERENCE),
        "anon_bytes": row.anon_bytes,
        "target": row.target,
        "verdict": row.verdict,
        "sound": row.is_sound,
    }
