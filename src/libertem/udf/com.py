"""Centre of mass: how far the beam is deflected at each scan position."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np

from libertem.common.arrays import CUPY_BACKENDS, NUMPY
from libertem.common.buffers import BufferWrapper
from libertem.masks import circular, ring
from libertem.masks.container import MaskContainer
from libertem.udf.accumulate import exact_dtype
from libertem.udf.com_math import (
    GuessResult,
    apply_correction,
    center_shifts,
    com_masks_factory,
    com_masks_generic,
    coordinate_check,
    curl_2d,
    divergence,
    fit_plane,
    guess_corrections,
    magnitude,
    plane,
)
from libertem.udf.contract import UDF
from libertem.udf.masks import BlockProducts, SparseProducts, add_products

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.dataset.base.blocks import FrameBlock, SparseBlock

__all__ = [
    "CoMParams",
    "CoMUDF",
    "GuessResult",
    "RegressionOptions",
    "apply_correction",
    "center_shifts",
    "com_masks_factory",
    "com_masks_generic",
    "coordinate_check",
    "curl_2d",
    "divergence",
    "guess_corrections",
    "magnitude",
]


class RegressionOptions(IntEnum):
    """What `CoMUDF` subtracts from the field."""

    NO_REGRESSION = -1
    """Nothing."""
    SUBTRACT_MEAN = 0
    """Its mean over all processed scan positions."""
    SUBTRACT_LINEAR = 1
    """The plane that fits it best: removes descan error."""


RegressionOptionsT: TypeAlias = "npt.NDArray[Any] | RegressionOptions | Literal[-1, 0, 1]"


class CoMParams(NamedTuple):
    """Parameters of `CoMUDF`."""

    cy: float | None = None
    """Reference position on the detector, pixels; half of the height, rounded down, by default."""
    cx: float | None = None
    """Likewise, half of the width."""
    r: float = float("inf")
    """Radius of the disk around the reference position in which pixels count."""
    ri: float | None = 0.0
    """Radius of a smaller disk in which they do not."""
    scan_rotation: float = 0.0
    """Angle that turns detector coordinates into scan coordinates, degrees."""
    flip_y: bool = False
    """Whether the y axis of the detector is flipped; applied before the rotation."""
    regression: RegressionOptionsT = RegressionOptions.NO_REGRESSION
    """One of `RegressionOptions`, or what to subtract: rows are offset, change per y step and change per x
    step, columns y and x."""


class CoMUDF(UDF):
    """Centre of mass of each frame, relative to a reference position, and the field that follows from it.

    Parameters
    ----------
    com_params : CoMParams
        See there; `with_params` takes them one by one.

    Examples
    --------
    >>> from libertem.api import Context
    >>> ctx = Context.make_with("inline")
    >>> ds = ctx.load("memory", data=np.eye(16, dtype=np.float32).reshape((4, 4, 4, 4)))
    >>> ctx.run_udf(dataset=ds, udf=CoMUDF.with_params(cy=0, cx=0))["raw_com"].data[2, 1]
    array([2., 1.], dtype=float32)
    """

    def __init__(self, com_params: CoMParams = CoMParams()) -> None:  # noqa: B008  # immutable
        super().__init__(com_params=com_params)

    @classmethod
    def with_params(
        cls,
        *,
        cy: float | None = None,
        cx: float | None = None,
        r: float = float("inf"),
        ri: float | None = 0.0,
        scan_rotation: float = 0.0,
        flip_y: bool = False,
        regression: RegressionOptionsT = RegressionOptions.NO_REGRESSION,
    ) -> CoMUDF:
        """Make the UDF from single parameters, see `CoMParams`.

        Raises
        ------
        ValueError
            If `ri` is not smaller than `r`.
        """
        if ri is not None and ri >= r:
            raise ValueError(f"the inner radius ri={ri} has to be less than the outer radius r={r}")
        return cls(CoMParams(cy, cx, r, ri, scan_rotation, flip_y, regression))

    def get_params(self) -> CoMParams:
        """The parameters, with the reference position filled in."""
        params: CoMParams = self.params.com_params
        height, width = self.meta.dataset_shape.sig
        return params._replace(
            cy=height // 2 if params.cy is None else params.cy,
            cx=width // 2 if params.cx is None else params.cx,
        )

    def get_backends(self) -> tuple[str, ...]:
        """All."""
        return self.BACKEND_ALL

    def _result_dtype(self) -> np.dtype[Any]:
        return np.result_type(self.meta.input_dtype, np.float32)

    def get_result_buffers(self) -> dict[str, BufferWrapper]:
        """Vectors and maps of navigation shape, and the coefficients of the regression."""
        self._check()
        dtype = self._result_dtype()
        sums = exact_dtype(dtype)
        vectors = ("raw_shifts", "raw_com", "field")
        components = ("field_y", "field_x")
        maps = ("magnitude", "divergence", "curl")
        return {
            "raw_mask_result": self.buffer(
                kind="nav", extra_shape=(3,), dtype=sums, where="device", use="private"
            ),
            **{n: self.buffer("nav", extra_shape=(2,), dtype=dtype, use="result_only") for n in vectors},
            **{n: self.buffer("nav", dtype=dtype, use="result_only") for n in components},
            "regression": self.buffer("single", extra_shape=(3, 2), dtype=sums, use="result_only"),
            **{n: self.buffer("nav", dtype=dtype, use="result_only") for n in maps},
        }

    def _check(self) -> None:
        shape = self.meta.dataset_shape
        if shape.nav.dims != 2 or shape.sig.dims != 2:
            raise ValueError(
                f"CoMUDF needs two navigation and two signal dimensions, found {shape.nav.dims} "
                f"and {shape.sig.dims} (give nav_shape and sig_shape when loading)"
            )
        own_maps = type(self).get_field_results is CoMUDF.get_field_results
        if own_maps and min(shape.nav) < 2:
            raise ValueError(
                f"CoMUDF needs at least two scan positions in each direction for gradients, "
                f"found {shape.nav.to_tuple()}"
            )
        _checked_regression(self.params.com_params.regression)

    # --- on the worker ---

    @property
    def masks(self) -> MaskContainer:
        """The selection mask, and its products with y and x. Made once for all tasks of a run."""
        return self._shared.get(("masks", self._backend in CUPY_BACKENDS), self._make_container)

    def _make_container(self) -> MaskContainer:
        double = exact_dtype(self._result_dtype()) == self._result_dtype()
        return MaskContainer(
            mask_factories=partial(_make_masks, self.get_params(), *self.meta.dataset_shape.sig),
            dtype=np.float64 if double else np.float32,
            use_sparse=False,
            count=3,
            backend="cupy" if self._backend in CUPY_BACKENDS else NUMPY,
        )

    def process_tile(self, tile: Any) -> None:
        """Add up a tile under the masks."""
        masks = self.masks.get_for_sig_slice(self.meta.sig_slice, transpose=True)
        add_products(self, tile, masks, self.results.raw_mask_result)

    def _can_process_blocks(self, stored_dtype: np.dtype[Any]) -> bool:
        return self._result_dtype().kind == "f"

    def _process_block(self, block: FrameBlock) -> None:
        # From a container of their own, which goes at once: masks of large frames are large.
        products = self._shared.get("products", self._make_products)
        products.add(self, block, self.results.raw_mask_result)

    def _make_products(self) -> BlockProducts:
        masks = self._make_container()
        return BlockProducts(self, masks, masks.dtype)

    def _process_sparse_block(self, block: SparseBlock) -> None:
        products = self._shared.get("csr", self._make_sparse_products)
        products.add(self, block, self.results.raw_mask_result)

    def _make_sparse_products(self) -> SparseProducts:
        masks = self._make_container()
        return SparseProducts(self, masks, masks.dtype)

    # --- on the main process ---

    def get_results(self) -> Mapping[str, Any]:
        """All results, from the sums under the masks."""
        params = self.get_params()
        assert params.cy is not None
        assert params.cx is not None
        sums = self._unfold(self.results.raw_mask_result)
        raw_y, raw_x = center_shifts(sums[..., 0], sums[..., 1], sums[..., 2], params.cy, params.cx)
        # The sums outside of the ROI are NaN.
        valid = self._unfold(self.meta.get_valid_nav_mask(full_nav=False), fill=False)
        field_y, field_x = apply_correction(raw_y, raw_x, params.scan_rotation, params.flip_y)
        # Detectors deliver frames with NaN; one of them must not spoil the regression of all.
        valid &= np.isfinite(field_y) & np.isfinite(field_x)
        regression = self._get_regression(field_y, field_x, valid)
        for column, component in enumerate((field_y, field_x)):
            component[valid] -= plane(regression[:, column], component.shape)[valid]
        results = {
            "raw_shifts": np.stack([raw_y, raw_x], axis=-1),
            "raw_com": np.stack([raw_y + params.cy, raw_x + params.cx], axis=-1),
            "field": np.stack([field_y, field_x], axis=-1),
            "field_y": field_y,
            "field_x": field_x,
        }
        return {
            **{name: self._fold(result) for name, result in results.items()},
            "regression": regression,
            **{name: self._fold(res) for name, res in self.get_field_results(field_y, field_x).items()},
        }

    def get_field_results(self, field_y: npt.NDArray[Any], field_x: npt.NDArray[Any]) -> dict[str, Any]:
        """Derive results from the field. Override it, together with `get_result_buffers`, to add some.

        Parameters
        ----------
        field_y, field_x : array
            Of navigation shape; NaN outside of the ROI.

        Returns
        -------
        dict
            At least ``magnitude``, ``divergence`` and ``curl``, of navigation shape.
        """
        return {
            "magnitude": magnitude(field_y, field_x),
            "divergence": divergence(field_y, field_x),
            "curl": curl_2d(field_y, field_x),
        }

    def _get_regression(
        self, field_y: npt.NDArray[Any], field_x: npt.NDArray[Any], valid: npt.NDArray[np.bool_]
    ) -> npt.NDArray[Any]:
        option = _checked_regression(self.params.com_params.regression)
        regression = np.zeros((3, 2), dtype=exact_dtype(self._result_dtype()))
        if not isinstance(option, RegressionOptions):
            regression[:] = option
        elif option is RegressionOptions.SUBTRACT_MEAN and valid.any():
            regression[0] = field_y[valid].mean(), field_x[valid].mean()
        elif option is RegressionOptions.SUBTRACT_LINEAR:
            regression[:, 0], regression[:, 1] = fit_plane(field_y, valid), fit_plane(field_x, valid)
        return regression

    def _unfold(self, flat: Any, fill: Any = np.nan) -> npt.NDArray[Any]:
        """From the scan positions of the ROI to the whole scan."""
        nav_shape = self.meta.dataset_shape.nav.to_tuple()
        full: npt.NDArray[Any] = np.full(nav_shape + flat.shape[1:], fill, dtype=flat.dtype)
        full[self._selection()] = flat.reshape((-1, *flat.shape[1:]))
        return full

    def _fold(self, full: Any) -> Any:
        """The way back, in the documented dtype."""
        if not isinstance(full, np.ndarray):
            return full
        return full[self._selection()].astype(self._result_dtype())

    def _selection(self) -> npt.NDArray[np.bool_]:
        roi = self.meta.roi
        return np.ones(self.meta.dataset_shape.nav.to_tuple(), dtype=bool) if roi is None else roi


def _make_masks(params: CoMParams, height: int, width: int) -> npt.NDArray[Any]:
    """The selection mask, and its products with y and x."""
    assert params.cy is not None
    assert params.cx is not None
    selection = circular(params.cx, params.cy, width, height, params.r)
    if params.ri is not None and not np.isclose(params.ri, 0):
        selection = ring(params.cx, params.cy, width, height, params.r, params.ri)
    return np.stack([make() for make in com_masks_generic(height, width, lambda: selection)])


def _checked_regression(option: Any) -> RegressionOptions | npt.NDArray[Any]:
    """The option, or the coefficients to subtract.

    Raises
    ------
    ValueError
        If it is neither.
    """
    if isinstance(option, int | np.integer):
        try:
            return RegressionOptions(int(option))
        except ValueError as err:
            raise ValueError(
                f"unrecognized regression option {option}, expected one of {list(RegressionOptions)}"
            ) from err
    coefficients = np.asarray(option)
    if coefficients.shape != (3, 2):
        raise ValueError(f"regression needs the shape (3, 2), found {coefficients.shape}: {option!r}")
    return coefficients
