"""The part of `libertem.api.Context` that makes analyses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from libertem.analysis.com import COMAnalysis
from libertem.analysis.disk import DiskMaskAnalysis
from libertem.analysis.masks import MasksAnalysis
from libertem.analysis.point import PointMaskAnalysis
from libertem.analysis.radialfourier import RadialFourierAnalysis
from libertem.analysis.raw import PickFrameAnalysis
from libertem.analysis.ring import RingMaskAnalysis
from libertem.analysis.sum import SumAnalysis

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.dataset.base.dataset import DataSet

__all__ = ["MakesAnalyses"]


class MakesAnalyses:
    """Methods that make analyses, to be run with `Context.run`."""

    def create_sum_analysis(self, dataset: DataSet) -> SumAnalysis:
        """Sum of all frames.

        Parameters
        ----------
        dataset : DataSet
            What to analyze.

        Returns
        -------
        SumAnalysis
            Its results are described at `libertem.analysis.sum.SumResultSet`.
        """
        return SumAnalysis(dataset, {})

    def create_pick_analysis(
        self, dataset: DataSet, x: int, y: int | None = None, z: int | None = None
    ) -> PickFrameAnalysis:
        """Load one frame.

        Parameters
        ----------
        dataset : DataSet
            With one to three navigation dimensions.
        x, y, z : int
            Scan position, as many coordinates as there are dimensions.

        Returns
        -------
        PickFrameAnalysis
            Its results are described at `libertem.analysis.raw.PickResultSet`.
        """
        return PickFrameAnalysis(dataset, {"x": x, "y": y, "z": z})

    def create_mask_analysis(
        self,
        factories: Any,
        dataset: DataSet,
        use_sparse: bool | str | None = None,
        mask_count: int | None = None,
        mask_dtype: npt.DTypeLike | None = None,
        dtype: npt.DTypeLike | None = None,
    ) -> MasksAnalysis:
        """Sum of each frame under masks.

        Parameters
        ----------
        factories : callable or sequence of callables
            A function that returns a stack of masks, or functions that return one mask each.
        dataset : DataSet
            What to analyze.
        use_sparse, mask_count, mask_dtype : optional
            See `libertem.udf.masks.ApplyMasksUDF`.
        dtype : dtype, optional
            In which frames are read.

        Returns
        -------
        MasksAnalysis
            Its results are described at `libertem.analysis.masks.MasksResultSet`.
        """
        parameters = {
            "factories": factories,
            "use_sparse": use_sparse,
            "mask_count": mask_count,
            "mask_dtype": mask_dtype,
            "dtype": dtype,
        }
        return MasksAnalysis(dataset, parameters)

    def create_disk_analysis(
        self,
        dataset: DataSet,
        cx: float | None = None,
        cy: float | None = None,
        r: float | None = None,
    ) -> DiskMaskAnalysis:
        """Sum of each frame over a disk: bright field.

        Parameters
        ----------
        dataset : DataSet
            With two signal dimensions.
        cx, cy : float, optional
            Centre in pixels, by default that of the frame.
        r : float, optional
            Radius in pixels, by default 15 % of the shorter side.

        Returns
        -------
        DiskMaskAnalysis
            Its results are described at `libertem.analysis.masks.SingleMaskResultSet`.
        """
        return DiskMaskAnalysis(dataset, {"cx": cx, "cy": cy, "r": r})

    def create_ring_analysis(
        self,
        dataset: DataSet,
        cx: float | None = None,
        cy: float | None = None,
        ri: float | None = None,
        ro: float | None = None,
    ) -> RingMaskAnalysis:
        """Sum of each frame over a ring: annular dark field.

        Parameters
        ----------
        dataset : DataSet
            With two signal dimensions.
        cx, cy : float, optional
            Centre in pixels, by default that of the frame.
        ri, ro : float, optional
            Inner and outer radius in pixels. By default, the outer one is half of the shorter side, and the
            inner one 80 % of the outer.

        Returns
        -------
        RingMaskAnalysis
            Its results are described at `libertem.analysis.masks.SingleMaskResultSet`.
        """
        return RingMaskAnalysis(dataset, {"cx": cx, "cy": cy, "ri": ri, "ro": ro})

    def create_point_analysis(
        self, dataset: DataSet, x: int | None = None, y: int | None = None
    ) -> PointMaskAnalysis:
        """One pixel of each frame.

        Parameters
        ----------
        dataset : DataSet
            With two signal dimensions, and at most two navigation dimensions.
        x, y : int, optional
            The pixel, by default in the middle of the frame. Truncated to integers.

        Returns
        -------
        PointMaskAnalysis
            Its results are described at `libertem.analysis.masks.SingleMaskResultSet`.
        """
        return PointMaskAnalysis(dataset, {"cx": x, "cy": y})

    def create_com_analysis(
        self,
        dataset: DataSet,
        cx: float | None = None,
        cy: float | None = None,
        mask_radius: float | None = None,
        flip_y: bool = False,
        mask_radius_inner: float | None = None,
        scan_rotation: float = 0.0,
    ) -> COMAnalysis:
        """Shift of the centre of mass of each frame.

        Parameters
        ----------
        dataset : DataSet
            With two navigation and two signal dimensions.
        cx, cy : float, optional
            Reference position in pixels, by default the centre of the frame.
        mask_radius : float, optional
            Only pixels within this distance of the reference position count; by default all.
        flip_y : bool, optional
            Whether the y axis of the detector is flipped; applied before the rotation.
        mask_radius_inner : float, optional
            Pixels within this distance do not count. Needs `mask_radius`.
        scan_rotation : float, optional
            Angle that turns detector coordinates into scan coordinates, degrees.

        Returns
        -------
        COMAnalysis
            Its results are described at `libertem.analysis.com.COMResultSet`.

        Raises
        ------
        ValueError
            If there is an inner radius without an outer one, or the data set has other dimensions.
        """
        if mask_radius is None and mask_radius_inner is not None:
            raise ValueError(
                "incompatible parameters: must pass both `mask_radius` and `mask_radius_inner` "
                "for annular CoM"
            )
        parameters = {
            "cx": cx,
            "cy": cy,
            "r": mask_radius,
            "ri": mask_radius_inner,
            "scan_rotation": scan_rotation,
            "flip_y": flip_y,
        }
        return COMAnalysis(dataset, parameters)

    def create_radial_fourier_analysis(
        self,
        dataset: DataSet,
        cx: float | None = None,
        cy: float | None = None,
        ri: float | None = None,
        ro: float | None = None,
        n_bins: int | None = None,
        max_order: int | None = None,
        use_sparse: bool | str | None = None,
    ) -> RadialFourierAnalysis:
        """Fourier components of the intensity along rings: order and orientation of symmetries.

        Parameters
        ----------
        dataset : DataSet
            With two signal dimensions.
        cx, cy : float, optional
            Centre in pixels, by default that of the frame.
        ri, ro : float, optional
            Inner and outer radius in pixels; by default 0, and so that all pixels are included.
        n_bins : int, optional
            Number of rings between them, by default 1.
        max_order : int, optional
            By default 24.
        use_sparse : bool or str, optional
            See `libertem.udf.masks.ApplyMasksUDF`; by default whatever fits the rings.

        Returns
        -------
        RadialFourierAnalysis
            Its results are described at `libertem.analysis.radialfourier.RadialFourierResultSet`.
        """
        parameters = {
            "cx": cx,
            "cy": cy,
            "ri": ri,
            "ro": ro,
            "n_bins": n_bins,
            "max_order": max_order,
            "use_sparse": use_sparse,
        }
        return RadialFourierAnalysis(dataset, parameters)
