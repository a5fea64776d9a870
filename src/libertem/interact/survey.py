"""A first survey of a data set: virtual detectors, centre of mass and mean frame, all in one pass."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from libertem.masks import circular, ring
from libertem.udf.com import CoMUDF
from libertem.udf.masks import ApplyMasksUDF
from libertem.udf.raw import PickUDF
from libertem.udf.sum import SumUDF
from libertem.udf.sumsigudf import SumSigUDF
from libertem.viz.images import real_values

if TYPE_CHECKING:
    from libertem.io.dataset.base.dataset import DataSet
    from libertem.io.dataset.base.metadata import Axis
    from libertem.udf.contract import UDF

__all__ = ["DirectBeam", "Findings", "analyse", "draw", "find_direct_beam"]

Array = npt.NDArray[Any]

# Enough for a good mean frame, few enough to be nothing beside the pass over all frames.
SAMPLED_FRAMES = 97

# Between a direct disc and the nearest scattered ones, in units of its radius. The centre of mass is taken
# inside of it, so that it shows how the beam was deflected rather than which Bragg discs are excited.
DISC_MARGIN = 1.5


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

    axes: tuple[Axis, ...]
    """Calibration of the scan and of the frames."""

    seconds: float
    """Time that the pass took."""


def find_direct_beam(mean: Array) -> DirectBeam:
    """Centre of mass and radius of the brightest disc in a mean frame (height, width)."""
    # The median of 3 x 3 pixels leaves discs as they are and removes hot pixels.
    padded = np.pad(np.nan_to_num(real_values(mean)).astype(np.float64), 1, mode="edge")
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


def analyse(ctx: Any, dataset: DataSet, *, progress: Any = True) -> Findings:
    """Find the direct beam from some frames, then make a pass over all of them.

    Parameters
    ----------
    ctx : Context
        Does the work.
    dataset : DataSet
        Of any dimensions.
    progress : bool or ProgressReporter, optional
        Show the progress of the pass.
    """
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
    results = ctx.run_udf(dataset=dataset, udf=list(udfs.values()), progress=progress)
    seconds = time.perf_counter() - start
    buffers = dict(zip(udfs, results, strict=True))
    maps = real_values(np.asarray(buffers["maps"]["intensity"].data)).reshape((*nav_shape, len(names)))
    com = None
    if "com" in buffers:
        field_y, field_x = (np.asarray(buffers["com"][name].data) for name in ("field_y", "field_x"))
        # Not with the regression of the UDF, which one frame with a NaN in it spoils.
        com = (field_y - np.nanmean(field_y), field_x - np.nanmean(field_x))
    return Findings(
        maps={name: maps[..., number] for number, name in enumerate(names)},
        mean=real_values(np.asarray(buffers["mean"]["intensity"].data)) / math.prod(nav_shape),
        beam=beam,
        com=com,
        example=_pick(ctx, dataset, maps[..., -1]),
        axes=tuple(dataset.axes),
        seconds=seconds,
    )


def _pick(ctx: Any, dataset: DataSet, signal: Array) -> tuple[tuple[int, ...], Array]:
    brightest = np.unravel_index(int(np.argmax(np.nan_to_num(signal))), signal.shape)
    roi = np.zeros(signal.shape, dtype=bool)
    roi[brightest] = True
    frame = ctx.run_udf(dataset=dataset, udf=PickUDF(), roi=roi)["intensity"].data
    return tuple(int(index) for index in brightest), real_values(np.asarray(frame)[0])


def draw(findings: Findings, path: str | os.PathLike[str], *, title: str = "") -> None:
    """Draw `findings` as one picture.

    Axes that cannot be shown as an image become curves. Needs matplotlib.

    Parameters
    ----------
    findings : Findings
        From `analyse`.
    path : str or path-like
        Of the picture; its type is that of the extension.
    title : str, optional
        Above all.
    """
    # Late, so that matplotlib is loaded only when something is drawn.
    from libertem.viz.figures import (
        PlainFigure,
        draw_deflection,
        draw_frame,
        draw_map,
        outline,
        row_height,
        rulers,
    )

    position, example = findings.example
    n_nav = len(position)
    nav_shape, sig_shape = next(iter(findings.maps.values())).shape, findings.mean.shape
    scan = rulers(findings.axes[:n_nav], nav_shape, "scan")
    frame = rulers(findings.axes[n_nav:], sig_shape, "detector" if len(sig_shape) == 2 else "channel")
    panels = len(findings.maps) + 2 + (0 if findings.com is None else 2)
    n_rows = 1 if panels <= 3 else 2
    n_columns = -(-panels // n_rows)
    height = row_height(5.4, [nav_shape, sig_shape])
    figure = PlainFigure(5.4 * n_columns, height * n_rows + 0.2, title)
    axes = list(figure.subplots(n_rows, n_columns, squeeze=False).flat)
    for name, values in findings.maps.items():
        draw_map(axes.pop(0), name, values, scan)
    if findings.com is not None:
        draw_deflection(axes.pop(0), axes.pop(0), findings.com, scan)
    mean_axes = axes.pop(0)
    draw_frame(mean_axes, "mean frame", findings.mean, frame)
    if findings.beam is not None:
        beam = findings.beam
        inner, outer = _dark_radii(beam, sig_shape)
        circles = [
            ("bright field", "cyan", _bright_radius(beam)),
            ("dark field", "lime", inner),
            (None, "lime", outer),
        ]
        outline(mean_axes, frame, (beam.cy, beam.cx), circles)
    # A single frame of some thousand electrons has no more than two decades above its noise.
    place = ", ".join(str(index) for index in position)
    draw_frame(axes.pop(0), f"frame at scan position ({place})", example, frame, decades=2)
    for unused in axes:
        unused.set_axis_off()
    figure.savefig(path, dpi=110)
