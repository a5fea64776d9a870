"""Fourier analysis of the intensity around rings: order and orientation of symmetries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.analysis.base import AnalysisResult, AnalysisResultSet, BaseAnalysis, need_dims
from libertem.analysis.masks import given
from libertem.analysis.views import map_result
from libertem.masks import bounding_radius, polar_map, radial_bins
from libertem.udf.masks import ApplyMasksUDF
from libertem.viz.images import rgb_from_2dvector

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.udf.results import UDFResultDict

__all__ = ["RadialFourierAnalysis", "RadialFourierResultSet"]

DEFAULT_MAX_ORDER = 24

DOMINANT_ABOVE = 0.2
"""A component dominates only where it has at least this part of the largest one in its bin."""


class RadialFourierResultSet(AnalysisResultSet):
    """Fourier components for each ring ``b`` and order ``o``.

    ``dominant_<b>``: order of the strongest component, 0 where all are weak. ``absolute_<b>_<o>`` and
    ``phase_<b>_<o>``: modulus and phase. ``complex_<b>_<o>``: the component, from order 1 on divided by the
    intensity of the ring. `raw_results` holds all components, ``(bins, orders, *nav)``.
    """


class RadialFourierAnalysis(BaseAnalysis):
    """Fourier components of the intensity along rings.

    The component of order o of a ring is the sum of all pixels, multiplied with the ring (antialiased, see
    `libertem.masks.radial_bins`) and exp(i·o·φ), where φ is the angle from x towards y.

    Parameters
    ----------
    dataset : DataSet
        With two signal dimensions.
    parameters : dict
        ``cx``, ``cy``: centre, by default that of the frame. ``ri``, ``ro``: inner and outer radius, by
        default 0 and so that all pixels are included. ``n_bins``: number of rings between them, by default 1.
        ``max_order``: by default 24. ``use_sparse``: see `libertem.udf.masks.ApplyMasksUDF`; by default as
        `libertem.masks.radial_bins` finds best.
    """

    def get_parameters(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """With defaults."""
        need_dims(self.dataset, sig=2)
        height, width = self.dataset.shape.sig
        cx, cy = given(parameters, "cx", width / 2), given(parameters, "cy", height / 2)
        return {
            "cx": cx,
            "cy": cy,
            "ri": given(parameters, "ri", 0),
            "ro": given(parameters, "ro", bounding_radius(cx, cy, width, height)),
            "n_bins": given(parameters, "n_bins", 1),
            "max_order": given(parameters, "max_order", DEFAULT_MAX_ORDER),
            "use_sparse": parameters.get("use_sparse"),
        }

    def get_mask_factory(self) -> Callable[[], Any]:
        """Function that draws the masks. Travels to workers."""
        p = self.parameters
        height, width = self.dataset.shape.sig
        return partial(
            _ring_harmonics,
            (p["cx"], p["cy"], width, height),
            (p["ri"], p["ro"], p["n_bins"]),
            p["max_order"],
            None if p["use_sparse"] is None else bool(p["use_sparse"]),
        )

    def get_udf(self) -> ApplyMasksUDF:
        """Apply cosines and sines: real masks are more than twice as fast as complex ones."""
        p = self.parameters
        return ApplyMasksUDF(
            mask_factories=self.get_mask_factory(),
            use_sparse=p["use_sparse"],
            mask_count=2 * p["n_bins"] * (p["max_order"] + 1),
            mask_dtype=np.float32,
        )

    def get_udf_results(self, udf_results: UDFResultDict, roi: Any, damage: Any) -> RadialFourierResultSet:
        """All views of all components."""
        n_bins, n_orders = self.parameters["n_bins"], self.parameters["max_order"] + 1
        sums = np.moveaxis(udf_results["intensity"].data, -1, 0)
        sums = sums.reshape((n_bins, n_orders, 2, *sums.shape[1:]))
        raw = sums[:, :, 0] + np.asarray(1j, dtype=np.complex64) * sums[:, :, 1]
        modulus = np.abs(raw)
        normalized = raw.copy()
        # Outside of the ROI all is NaN.
        with np.errstate(invalid="ignore"):
            normalized[:, 1:] /= np.maximum(1, modulus[:, :1])
        found: list[AnalysisResult] = []
        for b in range(n_bins):
            found.append(_dominant(b, modulus[b], damage))
            found += [_absolute(b, o, modulus[b, o], damage) for o in range(n_orders)]
        for make, values in ((_phase, np.angle(raw)), (_complex, normalized)):
            found += [make(b, o, values[b, o], damage) for b in range(n_bins) for o in range(n_orders)]
        return RadialFourierResultSet(found, raw_results=raw)


def _ring_harmonics(
    image: tuple[float, float, int, int],
    bins: tuple[float, float, int],
    max_order: int,
    use_sparse: bool | None,
) -> Any:
    """Rings times cosines and sines of multiples of the angle: ``(bins · orders · 2, height, width)``."""
    inner, outer, n_bins = bins
    rings = radial_bins(
        *image, radius=outer, radius_inner=inner, n_bins=n_bins, use_sparse=use_sparse, dtype=np.float32
    )
    _, angle = polar_map(*image)
    harmonics = [
        wave.astype(np.float32)
        for order in range(max_order + 1)
        for wave in (np.cos(order * angle), np.sin(order * angle))
    ]
    if isinstance(rings, np.ndarray):
        return np.stack([ring * wave for ring in rings for wave in harmonics])
    import sparse

    # Entry by entry: a product with a dense array may turn the zeros in between into negative ones.
    return sparse.stack(
        [
            sparse.COO(ring.coords, ring.data * wave[tuple(ring.coords)], shape=ring.shape)
            for ring in rings
            for wave in harmonics
        ]
    )


def _dominant(b: int, modulus: npt.NDArray[Any], damage: Any) -> AnalysisResult:
    nav_shape = modulus.shape[1:]
    orders = np.zeros(nav_shape, dtype=np.int64)
    harmonics = np.nan_to_num(modulus[1:], nan=0.0)
    if harmonics.size:
        strongest = harmonics.max(axis=0)
        weak = strongest < DOMINANT_ABOVE * strongest.max(initial=0)
        orders = np.where(weak | (strongest == 0), 0, harmonics.argmax(axis=0) + 1)
    title, desc = f"dominant order of bin {b}", "Dominant Fourier component"
    return map_result(orders, f"dominant_{b}", title, desc, damage)


def _absolute(b: int, order: int, data: npt.NDArray[Any], damage: Any) -> AnalysisResult:
    title, desc = f"absolute of bin {b} order {order}", "Absolute value of Fourier component"
    return map_result(data, f"absolute_{b}_{order}", title, desc, damage)


def _phase(b: int, order: int, data: npt.NDArray[Any], damage: Any) -> AnalysisResult:
    title, desc = f"phase of bin {b} order {order}", "Phase of Fourier component"
    return map_result(data, f"phase_{b}_{order}", title, desc, damage)


def _complex(b: int, order: int, data: npt.NDArray[Any], damage: Any) -> AnalysisResult:
    return AnalysisResult(
        raw_data=data,
        visualized=lambda: rgb_from_2dvector(y=data.imag, x=data.real),
        key=f"complex_{b}_{order}",
        title=f"bin {b} order {order}",
        desc="Fourier component",
    )
