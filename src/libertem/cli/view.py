"""``libertem view``: draw what one wants to see of a data set first."""

from __future__ import annotations

import argparse
import os

from libertem.cli.command import DONE
from libertem.cli.opening import opened, refuse_to_overwrite, say, say_json, wants_progress, warn
from libertem.interact.figure import check_extension, plot
from libertem.interact.survey import Findings, analyse, draw

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Draw a picture into a file."""
    output = f"{os.path.basename(options.path)}.png" if options.output is None else options.output
    # Before anything is read, which may take a while.
    check_extension(output)
    refuse_to_overwrite(output, options)
    folder = os.path.dirname(output) or "."
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{output}: there is no folder {folder} (make it first)")
    progress = wants_progress(options)
    with opened(options) as (ctx, dataset, notices):
        warn(notices, options)
        findings = None
        if options.at is not None:
            plot(ctx, dataset, options.at, path=output, progress=progress)
        else:
            findings = analyse(ctx, dataset, progress=progress)
    if findings is not None:
        draw(findings, output, title=os.path.basename(options.path))
    if options.json:
        say_json({"output": output, **_numbers(findings)})
        return DONE
    if findings is not None and findings.beam is not None:
        beam = findings.beam
        say(f"direct beam at y={beam.cy:.1f}, x={beam.cx:.1f}, radius {beam.radius:.1f} px")
    say(f"picture: {output}")
    return DONE


def _numbers(findings: Findings | None) -> dict[str, object]:
    if findings is None:
        return {}
    beam = findings.beam
    return {
        "maps": list(findings.maps),
        "centre_of_mass": findings.com is not None,
        "direct_beam": None if beam is None else {"cy": beam.cy, "cx": beam.cx, "radius": beam.radius},
        "example_position": list(findings.example[0]),
        "seconds": findings.seconds,
    }
