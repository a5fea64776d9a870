"""Look at a data set: virtual detectors, centre of mass and mean frame, all in one pass.

Run as ``python -m libertem.contrib.demo --data PATH`` on a data set of your own, or without ``--data`` on a
simulated scan. One picture is drawn. Needs matplotlib. The command ``libertem view`` does the same for files.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from libertem.api import Context, DataSet
from libertem.exceptions import DataSetException
from libertem.interact.survey import DirectBeam, Findings, analyse, draw, find_direct_beam
from libertem.testing.simulate import write_particle_scan

__all__ = ["DirectBeam", "Findings", "analyse", "draw", "find_direct_beam", "main"]

PICTURE = "demo.png"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _simulated(folder: Path, scan: tuple[int, int]) -> Path:
    """Where the simulated scan lies; simulated now if it does not exist yet."""
    folder = folder / f"particle_{scan[0]}x{scan[1]}"
    # The writer leaves the XML file for last: where one is, the scan is complete.
    for finished in folder.glob("*.xml"):
        return finished
    _say(f"simulating a scan of {scan[0]} x {scan[1]} positions in {folder} ...")
    return write_particle_scan(folder, scan)


def _report(dataset: DataSet, findings: Findings) -> None:
    shape = dataset.shape
    gigabytes = shape.size * np.dtype(dataset.dtype).itemsize / 1e9
    if findings.com is None:
        _say("no centre of mass: it needs a scan of two dimensions and images as frames")
    if findings.beam is None:
        _say("no virtual detectors: frames are not images")
    else:
        beam = findings.beam
        _say(f"direct beam at y={beam.cy:.1f}, x={beam.cx:.1f}, radius {beam.radius:.1f} px")
    _say(
        f"processed {shape.nav.size} frames, {gigabytes:.3g} GB, in {findings.seconds:.3f} s: "
        f"{gigabytes / findings.seconds:.2g} GB/s"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo with the given command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m libertem.contrib.demo", description=__doc__)
    parser.add_argument(
        "--data", help="any file of a data set whose type can be detected (default: simulate)"
    )
    parser.add_argument("--out", type=Path, default=Path("demo-output"), help="folder for pictures and data")
    parser.add_argument(
        "--scan", type=int, nargs=2, default=(64, 64), metavar=("Y", "X"), help="size of the simulated scan"
    )
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.data or _simulated(options.out, tuple(options.scan))
    with Context() as ctx:
        try:
            dataset = ctx.load("auto", path=str(path))
        except DataSetException as err:
            sys.stderr.write(f"{err}\n")
            return 1
        _say(f"{path}: scan {tuple(dataset.shape.nav)}, frames {tuple(dataset.shape.sig)}, {dataset.dtype}")
        findings = analyse(ctx, dataset)
    _report(dataset, findings)
    picture = options.out / PICTURE
    draw(findings, picture)
    _say(f"picture: {picture}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
