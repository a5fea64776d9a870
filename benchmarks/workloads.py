"""What is computed. Runs in the processes of both libraries, so it uses nothing but the documented API."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from libertem.masks import radial_bins
from libertem.udf import UDF
from libertem.udf.com import CoMUDF
from libertem.udf.masks import ApplyMasksUDF
from libertem.udf.raw import PickUDF
from libertem.udf.stddev import StdDevUDF
from libertem.udf.sum import SumUDF
from libertem.udf.sumsigudf import SumSigUDF

__all__ = ["WORKLOADS", "PythonFrameUDF", "TileUDF", "Workload"]

Shape = tuple[int, ...]
SEED = 4_711
ROI_FRACTION = 0.01


class TileUDF(UDF):  # type: ignore[misc, unused-ignore]  # untyped in one of the libraries
    """What a user writes with NumPy: the brightest value of each pixel, and the total of each frame."""

    def get_result_buffers(self) -> dict[str, Any]:
        return {
            "brightest": self.buffer(kind="sig", dtype=np.float32),
            "total": self.buffer(kind="nav", dtype=np.float32),
        }

    def process_tile(self, tile: npt.NDArray[Any]) -> None:
        self.results.brightest[:] = np.maximum(self.results.brightest, tile.max(axis=0))
        self.results.total[:] += tile.reshape((tile.shape[0], -1)).sum(axis=1)

    def merge(self, dest: Any, src: Any) -> None:
        dest.brightest[:] = np.maximum(dest.brightest, src.brightest)
        dest.total[:] = src.total


class PythonFrameUDF(UDF):  # type: ignore[misc, unused-ignore]  # untyped in one of the libraries
    """What a user writes in plain Python: the row at which half of the intensity is reached."""

    def get_result_buffers(self) -> dict[str, Any]:
        return {"row": self.buffer(kind="nav", dtype=np.float32)}

    def process_frame(self, frame: npt.NDArray[Any]) -> None:
        rows = [sum(row) for row in frame[:, ::8].tolist()]
        half = sum(rows) / 2
        self.results.row[:] = next(
            number for number, reached in enumerate(accumulate(rows)) if reached >= half
        )


def disc(sig_shape: Shape, number: int, count: int) -> npt.NDArray[np.float32]:
    """A virtual detector: one of `count` discs side by side."""
    height, width = sig_shape
    y, x = np.ogrid[:height, :width]
    centre = (number + 0.5) / count * width
    inside: npt.NDArray[np.bool_] = np.hypot(y - height / 2, x - centre) < height / 4
    return inside.astype(np.float32)


def masks(count: int, sig_shape: Shape) -> ApplyMasksUDF:
    """As many virtual detectors as asked for."""
    factories = [partial(disc, sig_shape, number, count) for number in range(count)]
    return ApplyMasksUDF(mask_factories=factories, mask_count=count, mask_dtype=np.dtype(np.float32))


def rings(count: int, sig_shape: Shape) -> ApplyMasksUDF:
    """A radial profile: rings around the centre, as sparse masks."""
    height, width = sig_shape
    make = partial(radial_bins, width / 2, height / 2, width, height, n_bins=count, use_sparse=True)
    return ApplyMasksUDF(mask_factories=make, mask_count=count, mask_dtype=np.dtype(np.float32))


@dataclass(frozen=True)
class Workload:
    """One call of `Context.run_udf`."""

    udfs: Callable[[Shape], list[Any]]
    """Makes the UDFs, given the shape of a frame."""

    roi: Callable[[Shape], npt.NDArray[np.bool_]] | None = None
    """Makes the ROI, given the shape of the scan."""


def some_frames(nav_shape: Shape) -> npt.NDArray[np.bool_]:
    """Frames at random places, always the same."""
    roi = np.zeros(nav_shape, dtype=bool)
    n_frames = max(1, int(roi.size * ROI_FRACTION))
    roi.flat[np.random.default_rng(SEED).choice(roi.size, n_frames, replace=False)] = True
    return roi


def one_frame(nav_shape: Shape) -> npt.NDArray[np.bool_]:
    """The frame in the middle of the scan."""
    roi = np.zeros(nav_shape, dtype=bool)
    roi.flat[roi.size // 2] = True
    return roi


WORKLOADS = {
    "sum": Workload(lambda sig: [SumUDF()]),
    "sumsig": Workload(lambda sig: [SumSigUDF()]),
    "std": Workload(lambda sig: [StdDevUDF()]),
    "masks1": Workload(lambda sig: [masks(1, sig)]),
    "masks4": Workload(lambda sig: [masks(4, sig)]),
    "masks32": Workload(lambda sig: [masks(32, sig)]),
    "masks100": Workload(lambda sig: [masks(100, sig)]),
    "rings100": Workload(lambda sig: [rings(100, sig)]),
    "com": Workload(lambda sig: [CoMUDF()]),
    "three": Workload(lambda sig: [SumUDF(), masks(4, sig), StdDevUDF()]),
    "roi": Workload(lambda sig: [SumUDF()], roi=some_frames),
    "pick": Workload(lambda sig: [PickUDF()], roi=one_frame),
    "tile": Workload(lambda sig: [TileUDF()]),
    "frame": Workload(lambda sig: [PythonFrameUDF()]),
}
