"""Look at a data set: virtual detectors, centre of mass and mean pattern, all in one pass.

Run as ``python -m libertem.contrib.demo --data PATH`` on a data set of your own, or without ``--data`` on a
simulated scan. One picture is drawn. Needs matplotlib.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from libertem.api import Context, DataSet
from libertem.exceptions import DataSetException
from libertem.masks import circular, ring
from libertem.testing.simulate import write_particle_scan
from libertem.udf import UDF
from libertem.udf.com import CoMUDF
from libertem.udf.masks import ApplyMasksUDF
from libertem.udf.raw import PickUDF
from libertem.udf.sum import SumUDF
from libertem.udf.sumsigudf import SumSigUDF

__all__ = ["DirectBeam", "Findings", "analyse", "draw", "find_direct_beam", "main"]

Array = npt.NDArray[Any]

# Enough for a good mean pattern, few enough to be nothing beside the pass over all frames.
SAMPLED_FRAMES = 97

# Between a direct disc and the nearest scattered ones, in units of its radius. The centre of mass is taken
# inside of it, so that it shows how the beam was deflected rather than which Bragg discs are excited.
DISC_MARGIN = 1.5

PICTURE = "demo.png"


@dataclass(frozen=True)
class DirectBeam:
    """Where the undiffracted beam meets the detector, in pixels."""

    cy: float
    cx: float
    radius: float


@dataclass(frozen=True)
class Findings:
    """What the pass over a data set gave."""

    maps: dict[str, Array]
    """One number per scan position, of the shape of the scan."""

    mean: Array
    """The mean frame."""

    beam: DirectBeam | None
    """None if frames are not images."""

    com: tuple[Array, Array] | None
    """Deflection along y and x in pixels, for scans of two dimensions."""

    example: tuple[tuple[int, ...], Array]
    """The scan position with most scattering (else: most intensity), and its frame."""

    seconds: float
    """Time that the pass took."""


def find_direct_beam(mean: Array) -> DirectBeam:
    """Centre of mass and radius of the brightest disc in a mean frame (height, width)."""
    # The median of 3 x 3 pixels leaves discs as they are and removes hot pixels.
    padded = np.pad(np.nan_to_num(_real(mean)).astype(np.float64), 1, mode="edge")
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(padded, (3, 3)), axis=(2, 3))
    low = np.median(smooth)
    # With a narrow edge, where half of the intensity is reached is the edge of the disc.
    weight = np.clip(smooth - (low + smooth.max()) / 2, 0, None)
    if not weight.any():
        return DirectBeam(cy=(mean.shape[0] - 1) / 2, cx=(mean.shape[1] - 1) / 2, radius=min(mean.shape) / 8)
    y, x = np.indices(mean.shape)
    total = weight.sum()
    return DirectBeam(
        cy=float((weight * y).sum() / total),
        cx=float((weight * x).sum() / total),
        radius=max(1.5, math.sqrt(np.count_nonzero(weight) / math.pi)),
    )


def _sample(nav_shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Select a few scan positions, spread evenly."""
    roi = np.zeros(nav_shape, dtype=bool)
    roi.reshape(-1)[np.linspace(0, roi.size - 1, min(SAMPLED_FRAMES, roi.size), dtype=np.int64)] = True
    return roi


def _bright_radius(beam: DirectBeam) -> float:
    return (1 + DISC_MARGIN) / 2 * beam.radius


def _dark_radii(beam: DirectBeam, sig_shape: tuple[int, ...]) -> tuple[float, float]:
    inner = DISC_MARGIN * beam.radius
    inscribed = min(beam.cy, beam.cx, sig_shape[0] - 1 - beam.cy, sig_shape[1] - 1 - beam.cx)
    return inner, max(inscribed, 1.2 * inner)


def _detectors(beam: DirectBeam, sig_shape: tuple[int, ...]) -> dict[str, Callable[[], Array]]:
    height, width = sig_shape
    inner, outer = _dark_radii(beam, sig_shape)
    return {
        "bright field": partial(circular, beam.cx, beam.cy, width, height, radius=_bright_radius(beam)),
        "annular dark field": partial(
            ring, beam.cx, beam.cy, width, height, radius=outer, radius_inner=inner
        ),
    }


def _choose_udfs(dataset: DataSet, beam: DirectBeam | None) -> tuple[list[str], dict[str, UDF]]:
    """Names of the maps that the UDF called "maps" makes, and all UDFs for one run."""
    nav_shape, sig_shape = tuple(dataset.shape.nav), tuple(dataset.shape.sig)
    udfs: dict[str, UDF] = {"mean": SumUDF()}
    if beam is None:
        return ["total intensity"], {**udfs, "maps": SumSigUDF()}
    detectors = _detectors(beam, sig_shape)
    udfs["maps"] = ApplyMasksUDF(list(detectors.values()), mask_count=len(detectors), mask_dtype=np.float32)
    # The gradients that belong to the centre of mass need two neighbours along each axis.
    if len(nav_shape) == 2 and min(nav_shape) > 1 and np.dtype(dataset.dtype).kind != "c":
        udfs["com"] = CoMUDF.with_params(cy=beam.cy, cx=beam.cx, r=DISC_MARGIN * beam.radius)
    return list(detectors), udfs


def analyse(ctx: Context, dataset: DataSet) -> Findings:
    """Find the direct beam from some frames, then make a pass over all of them."""
    nav_shape = tuple(dataset.shape.nav)
    sample = _sample(nav_shape)
    beam = None
    if dataset.shape.sig.dims == 2:
        sampled = ctx.run_udf(dataset=dataset, udf=SumUDF(), roi=sample)["intensity"].data
        beam = find_direct_beam(np.asarray(sampled))
    names, udfs = _choose_udfs(dataset, beam)
    # A short run first: compiling kernels, once per installation, is no part of the time of the pass.
    ctx.run_udf(dataset=dataset, udf=list(udfs.values()), roi=sample)
    start = time.perf_counter()
    results = ctx.run_udf(dataset=dataset, udf=list(udfs.values()), progress=True)
    seconds = time.perf_counter() - start
    buffers = dict(zip(udfs, results, strict=True))
    maps = _real(np.asarray(buffers["maps"]["intensity"].data)).reshape((*nav_shape, len(names)))
    com = None
    if "com" in buffers:
        field_y, field_x = (np.asarray(buffers["com"][name].data) for name in ("field_y", "field_x"))
        # Not with the regression of the UDF, which one frame with a NaN in it spoils.
        com = (field_y - np.nanmean(field_y), field_x - np.nanmean(field_x))
    return Findings(
        maps={name: maps[..., number] for number, name in enumerate(names)},
        mean=_real(np.asarray(buffers["mean"]["intensity"].data)) / math.prod(nav_shape),
        beam=beam,
        com=com,
        example=_pick(ctx, dataset, maps[..., -1]),
        seconds=seconds,
    )


def _real(values: Array) -> Array:
    """What can be drawn: the modulus of complex numbers, all others as they are."""
    return np.abs(values) if np.iscomplexobj(values) else values


def _pick(ctx: Context, dataset: DataSet, signal: Array) -> tuple[tuple[int, ...], Array]:
    brightest = np.unravel_index(int(np.argmax(np.nan_to_num(signal))), signal.shape)
    roi = np.zeros(signal.shape, dtype=bool)
    roi[brightest] = True
    frame = ctx.run_udf(dataset=dataset, udf=PickUDF(), roi=roi)["intensity"].data
    return tuple(int(index) for index in brightest), _real(np.asarray(frame)[0])


def draw(findings: Findings, path: Path) -> None:
    """Draw `findings` as one picture.

    Axes that cannot be shown as an image become curves over their flattened index.
    """
    from matplotlib.figure import Figure

    position, example = findings.example
    figure = Figure(figsize=(15, 9), layout="constrained")
    axes = list(figure.subplots(2, 3).flat)
    for name, values in findings.maps.items():
        _draw_map(axes.pop(0), name, values)
    if findings.com is not None:
        _draw_com(axes.pop(0), axes.pop(0), *findings.com)
    mean_axes = axes.pop(0)
    _draw_frame(mean_axes, "mean pattern", findings.mean, decades=4)
    if findings.beam is not None:
        _outline_detectors(mean_axes, findings.beam, findings.mean.shape)
    # A single pattern of some thousand electrons has no more than two decades above its noise.
    _draw_frame(axes.pop(0), f"pattern at scan position {position}", example, decades=2)
    for unused in axes:
        unused.set_axis_off()
    figure.savefig(path, dpi=110)


def _draw_map(axes: Any, name: str, values: Array) -> None:
    axes.set_title(name)
    if values.ndim == 2:
        low, high = np.nanpercentile(values, (0.5, 99.5))
        image = axes.imshow(values, cmap="gray", vmin=low, vmax=high)
        axes.figure.colorbar(image, ax=axes, shrink=0.8)
        axes.set(xlabel="scan x", ylabel="scan y")
    else:
        axes.plot(values.reshape(-1))
        axes.set_xlabel("scan position")


def _draw_com(hue_axes: Any, magnitude_axes: Any, field_y: Array, field_x: Array) -> None:
    magnitude = np.hypot(field_y, field_x)
    limit = float(np.nanpercentile(magnitude, 99.5)) or 1.0
    hue_axes.set_title(f"centre of mass: direction, full colour at {limit:.2g} px")
    hue_axes.imshow(_color_of(field_y, field_x, limit))
    hue_axes.set(xlabel="scan x", ylabel="scan y")
    wheel = hue_axes.inset_axes((0.84, 0.84, 0.15, 0.15))
    y, x = np.mgrid[-1:1:101j, -1:1:101j]
    disc = np.hypot(y, x) <= 1
    wheel.imshow(np.dstack([_color_of(y, x, 1.0), disc]))
    wheel.set_axis_off()
    magnitude_axes.set_title("centre of mass: deflection in px")
    image = magnitude_axes.imshow(magnitude, cmap="inferno", vmin=0, vmax=limit)
    magnitude_axes.figure.colorbar(image, ax=magnitude_axes, shrink=0.8)
    magnitude_axes.set(xlabel="scan x", ylabel="scan y")


def _color_of(y: Array, x: Array, limit: float) -> Array:
    """Red, green and blue: the hue is the direction, black is no deflection."""
    from matplotlib.colors import hsv_to_rgb

    hue = np.arctan2(y, x) / (2 * np.pi) % 1
    value = np.clip(np.hypot(y, x) / limit, 0, 1)
    hsv = np.stack([hue, np.ones_like(hue), value], axis=-1)
    return np.asarray(hsv_to_rgb(np.nan_to_num(hsv)))


def _draw_frame(axes: Any, name: str, frame: Array, *, decades: int) -> None:
    frame = np.nan_to_num(frame)
    axes.set_title(f"{name} (logarithmic)")
    if frame.ndim != 2:
        axes.plot(frame.reshape(-1))
        axes.set_yscale("symlog")
        axes.set_xlabel("channel")
        return
    from matplotlib.colors import LogNorm

    high = max(float(frame.max()), float(np.finfo(np.float32).tiny))
    low = high / 10**decades
    image = axes.imshow(np.maximum(frame, low), cmap="inferno", norm=LogNorm(low, high))
    axes.figure.colorbar(image, ax=axes, shrink=0.8)
    axes.set(xlabel="detector x", ylabel="detector y")


def _outline_detectors(axes: Any, beam: DirectBeam, sig_shape: tuple[int, ...]) -> None:
    from matplotlib.patches import Circle

    for name, color, radius in (
        ("bright field", "cyan", _bright_radius(beam)),
        ("dark field", "lime", _dark_radii(beam, sig_shape)[0]),
        (None, "lime", _dark_radii(beam, sig_shape)[1]),
    ):
        axes.add_patch(Circle((beam.cx, beam.cy), radius, fill=False, color=color, lw=1, label=name))
    axes.legend(loc="upper right", fontsize="small")


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
