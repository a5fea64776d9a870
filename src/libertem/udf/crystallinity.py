"""Crystallinity: how much of each frame is periodic with certain distances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.buffers import BufferWrapper
from libertem.masks import circular
from libertem.udf.contract import UDF

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["CrystallinityUDF", "run_analysis_crystall"]


class CrystallinityUDF(UDF):
    """Sum over a ring of the magnitude of the Fourier transform of each frame.

    Parameters
    ----------
    rad_in, rad_out : float
        Radii of the ring, in pixels of the Fourier transform: rad_in < distance <= rad_out.
    real_center : (float, float) or None
        Centre (y, x) of a disk that is set to 0 before, to cover the direct beam.
    real_rad : float or None
        Its radius. Nothing is covered if one of both is None.
    """

    def __init__(
        self,
        rad_in: float,
        rad_out: float,
        real_center: tuple[float, float] | None,
        real_rad: float | None,
    ) -> None:
        super().__init__(rad_in=rad_in, rad_out=rad_out, real_center=real_center, real_rad=real_rad)

    def get_result_buffers(self) -> dict[str, BufferWrapper]:
        """``intensity``: the sum, of navigation shape."""
        if self.meta.dataset_shape.sig.dims != 2:
            raise ValueError(
                "CrystallinityUDF needs two signal dimensions, "
                f"found {self.meta.dataset_shape.sig.to_tuple()} (give sig_shape when loading)"
            )
        if self.meta.input_dtype.kind == "c":
            raise TypeError(f"CrystallinityUDF needs real numbers, found {self.meta.input_dtype}")
        return {"intensity": self.buffer(kind="nav", dtype="float32")}

    def get_task_data(self) -> dict[str, Any]:
        """What is left of the frame, and the ring, for the half of the transform that is calculated."""
        height, width = self.meta.dataset_shape.sig
        image = (width / 2, height / 2, width, height)
        p = self.params
        ring = circular(*image, p.rad_out).astype(np.int8) - circular(*image, p.rad_in)
        visible = None
        if p.real_center is not None and p.real_rad is not None:
            y, x = p.real_center
            visible = ~circular(x, y, width, height, p.real_rad)
        return {"ring": np.fft.fftshift(ring)[:, : width // 2 + 1], "visible": visible}

    def process_frame(self, frame: npt.NDArray[Any]) -> None:
        """Transform and add up."""
        if self.task_data.visible is not None:
            frame = np.where(self.task_data.visible, frame, 0)
        magnitude = np.abs(np.fft.rfft2(frame))
        self.results.intensity[:] = np.sum(magnitude * self.task_data.ring, dtype=np.float64)


def run_analysis_crystall(
    ctx: Any,
    dataset: Any,
    rad_in: float,
    rad_out: float,
    real_center: tuple[float, float] | None = None,
    real_rad: float | None = None,
    roi: Any = None,
    progress: bool = False,
) -> Any:
    """Run `CrystallinityUDF` over a data set."""
    udf = CrystallinityUDF(rad_in=rad_in, rad_out=rad_out, real_center=real_center, real_rad=real_rad)
    return ctx.run_udf(dataset=dataset, udf=udf, roi=roi, progress=progress)
