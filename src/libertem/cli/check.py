"""``libertem check``: read everything and report damage."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence

import numpy as np

from libertem.cli.command import DONE, FAILED
from libertem.cli.opening import opened, say, say_json, wants_progress
from libertem.common.html import byte_count, product
from libertem.interact.checking import Finding, Report, check
from libertem.interact.description import Description, describe

__all__ = ["run"]

MOST_RANGES = 12
"""Of frames, that are printed. All are in the JSON."""


_LABELS = {"damage": "DAMAGE", "warning": "WARNING", "note": "note"}
_VERDICTS = {
    "damage": "damaged",
    "warning": "all that is there could be read, but see the warnings",
    "note": "no damage found",
    None: "no damage found",
}


def run(options: argparse.Namespace) -> int:
    """Check the data set; the exit status tells whether that has to worry anybody."""
    with opened(options) as (ctx, dataset, notices):
        known = describe(dataset)
        report = check(ctx, dataset, notices=notices, progress=wants_progress(options))
    if options.json:
        say_json(
            {
                "path": options.path,
                "type": known.type_name,
                "worst": report.worst,
                "n_frames": report.n_frames,
                "n_read": report.n_read,
                "seconds": report.seconds,
                "findings": [dataclasses.asdict(finding) for finding in report.findings],
            }
        )
    else:
        _print(options.path, known, report)
    return FAILED if report.worst in ("damage", "warning") else DONE


def _print(path: str, known: Description, report: Report) -> None:
    say(f"{path}: {known.type_name or known.class_name}, {known.dtype.name}")
    say(f"  {product(known.nav_shape)} positions, frames of {product(known.sig_shape)}")
    say(
        f"  read {report.n_read} of {report.n_frames} frames, {byte_count(known.n_bytes)}, "
        f"in {report.seconds:.2f} s"
    )
    for finding in report.findings:
        say(f"{_LABELS[finding.level]:7}  {finding.text}{_place(finding, known.nav_shape)}")
        for detail in finding.details:
            say(f"         {detail}")
    say(_VERDICTS[report.worst])


def _place(finding: Finding, nav_shape: Sequence[int]) -> str:
    """Numbers of frames, and the scan position of the first one."""
    if not finding.frames:
        return ""
    shown = [
        str(start) if stop - start == 1 else f"{start}-{stop - 1}"
        for start, stop in finding.frames[:MOST_RANGES]
    ]
    n_more = len(finding.frames) - len(shown)
    more = f" and {n_more} more ranges (--json has all)" if n_more else ""
    position = ", ".join(str(index) for index in np.unravel_index(finding.frames[0][0], tuple(nav_shape)))
    where = f"; the first at scan position ({position})" if len(nav_shape) > 1 else ""
    return f": {', '.join(shown)}{more}{where}"
