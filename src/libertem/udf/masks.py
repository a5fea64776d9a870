"""Apply masks: virtual detectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.arrays import CUPY_BACKENDS, D2_BACKENDS, NUMPY, SPARSE_BACKENDS, to_dense
from libertem.common.buffers import BufferWrapper
from libertem.common.protocols import UDFMethod
from libertem.common.slice import Slice
from libertem.masks.container import MaskContainer
from libertem.udf.accumulate import as_numbers, exact_dtype
from libertem.udf.blocks import first_row, swap_flag
from libertem.udf.contract import UDF
from libertem.udf.corrected import CorrectedMasks, block_corrections

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.dataset.base.blocks import FrameBlock, SparseBlock

__all__ = ["ApplyMasksUDF", "BlockProducts", "SparseProducts", "add_products"]

MAX_MASKS_IN_KERNEL = 48
"""For more masks the matrix product of a BLAS library is about as fast, and needs no copy of the masks."""

PX_PER_PRODUCT = 4096
"""Products are added up in the precision of data and masks for so many pixels, then in float64."""


class ApplyMasksUDF(UDF):
    """Multiply frames with masks and add up the products: virtual detectors.

    Parameters
    ----------
    mask_factories : callable or sequence of callables
        A function that returns a stack ``(n, *sig)`` or an iterable of masks, or functions that return one
        mask of signal shape each. Functions, so that each worker makes its own masks.
    use_torch : bool
        Kept for compatibility.
    use_sparse : None, bool or str
        None: sparse if all masks are; True: scipy CSR; False: dense; or ``'scipy.sparse'``,
        ``'scipy.sparse.csr'``, ``'scipy.sparse.csc'``, ``'sparse.pydata'``, ``'sparse.pydata.GCXS'``.
    mask_count : int, optional
        Number of masks; saves calling the factories on the main process.
    mask_dtype : dtype, optional
        Converts the masks, and decides with the input dtype on that of the result.
    preferred_dtype : dtype, optional
        Preferred input dtype instead of float32.
    backends : str or iterable of str, optional
        Limits the kinds of arrays.
    shifts : (int, int) or aux data, optional
        Moves the masks, ``(y, x)``, for all frames or, as ``UDF.aux_data(..., kind='nav',
        extra_shape=(2,))``, for each. What leaves the frame is dropped.

    Raises
    ------
    ValueError
        If `use_sparse` does not go with `shifts`, or no backend is left.

    Examples
    --------
    >>> from libertem.api import Context
    >>> ctx = Context.make_with("inline")
    >>> ds = ctx.load("memory", data=np.ones((3, 4, 8, 8), dtype=np.float32))
    >>> udf = ApplyMasksUDF(mask_factories=[lambda: np.ones((8, 8), dtype=np.float32)])
    >>> ctx.run_udf(dataset=ds, udf=udf)["intensity"].data.shape
    (3, 4, 1)
    """

    def __init__(
        self,
        mask_factories: Any,
        use_torch: bool = True,
        use_sparse: bool | str | None = None,
        mask_count: int | None = None,
        mask_dtype: npt.DTypeLike | None = None,
        preferred_dtype: npt.DTypeLike | None = None,
        backends: str | Iterable[str] | None = None,
        shifts: Any = None,
        **kwargs: Any,
    ) -> None:
        if shifts is not None and isinstance(use_sparse, str) and use_sparse.startswith("scipy.sparse"):
            raise ValueError(
                "Sparse backend scipy.sparse not supported for shifts, use sparse.pydata instead."
            )
        if backends is not None:
            wanted = (backends,) if isinstance(backends, str) else tuple(backends)
            backends = tuple(b for b in wanted if b in self._all_backends())
            if not backends:
                raise ValueError(f"No compatible backend found in {wanted}")
        super().__init__(
            mask_factories=mask_factories,
            use_torch=use_torch,
            use_sparse=use_sparse,
            mask_count=mask_count,
            mask_dtype=mask_dtype,
            preferred_dtype=preferred_dtype,
            backends=backends,
            shifts=shifts,
            **kwargs,
        )

    @classmethod
    def _all_backends(cls) -> tuple[str, ...]:
        unsupported = {cls.BACKEND_SCIPY_COO_ARRAY, cls.BACKEND_SCIPY_CSC_ARRAY, cls.BACKEND_SCIPY_CSR_ARRAY}
        return tuple(b for b in cls.BACKEND_ALL if b not in unsupported)

    def get_backends(self) -> tuple[str, ...]:
        """As given to the constructor, by default nearly all."""
        backends: tuple[str, ...] | None = self.params.backends
        return self._all_backends() if backends is None else backends

    def get_preferred_input_dtype(self) -> npt.DTypeLike:
        """As given to the constructor, by default float32."""
        preferred: npt.DTypeLike | None = self.params.preferred_dtype
        return super().get_preferred_input_dtype() if preferred is None else preferred

    def get_method(self) -> UDFMethod:
        """Tiles, or frames if masks are moved."""
        return UDFMethod.TILE if self.params.shifts is None else UDFMethod.FRAME

    @property
    def masks(self) -> MaskContainer:
        """The masks. Made when first needed, once for all tasks of a run in this process."""
        return self._shared.get(("masks", self._backend in CUPY_BACKENDS), self._make_masks)

    def _make_masks(self) -> MaskContainer:
        shifted = self.params.shifts is not None
        return MaskContainer(
            mask_factories=self.params.mask_factories,
            dtype=self.params.mask_dtype,
            use_sparse=self.params.use_sparse,
            count=self.params.mask_count,
            backend="cupy" if self._backend in CUPY_BACKENDS else NUMPY,
            default_sparse="sparse.pydata" if shifted else "scipy.sparse",
        )

    def _result_dtype(self) -> np.dtype[Any]:
        return np.result_type(self.meta.input_dtype, self.masks.dtype)

    def get_result_buffers(self) -> dict[str, BufferWrapper]:
        """``intensity``: ``(*nav, masks)``."""
        n, dtype = len(self.masks), self._result_dtype()
        return {
            "intensity": self.buffer(kind="nav", extra_shape=(n,), dtype=dtype, use="result_only"),
            "total": self.buffer(
                kind="nav", extra_shape=(n,), dtype=exact_dtype(dtype), where="device", use="private"
            ),
        }

    def process_tile(self, tile: Any) -> None:
        """Multiply the masks with a tile."""
        masks = self.masks.get_for_sig_slice(self.meta.sig_slice, transpose=True)
        add_products(self, tile, masks, self.results.total)

    def process_frame(self, frame: Any) -> None:
        """Multiply moved masks with a frame."""
        sig_shape = self.meta.dataset_shape.sig
        shifts = np.asarray(self.params.shifts).reshape(-1).astype(int)
        whole = Slice.from_shape(sig_shape, sig_dims=sig_shape.dims)
        moved = Slice(origin=tuple(shifts.tolist()), shape=whole.shape)
        of_frame = whole.intersection_with(moved)
        if of_frame.is_null():
            return
        of_masks = of_frame.shift_by(tuple((-shifts).tolist()))
        masks = self.masks.computed_masks
        if self._backend in SPARSE_BACKENDS or self._backend in D2_BACKENDS:
            # Few of these can be cut, or tell rows of pixels apart.
            frame = to_dense(frame)
        part = self.xp.asarray(of_frame.get(frame.reshape(sig_shape.to_tuple()))).reshape(-1)
        weights = to_dense(of_masks.get(masks, sig_only=True))
        weights = weights.reshape(weights.shape[0], -1).astype(self.masks.dtype, copy=False)
        self.results.total[:] += self.xp.asarray(weights) @ part

    def _can_process_blocks(self, stored_dtype: np.dtype[Any]) -> bool:
        few = len(self.masks) <= MAX_MASKS_IN_KERNEL
        return few and not self.masks.use_sparse and self._can_process_sparse_blocks(stored_dtype)

    def _can_process_sparse_blocks(self, stored_dtype: np.dtype[Any]) -> bool:
        return self.params.shifts is None and self._result_dtype() in (np.float32, np.float64)

    def _process_block(self, block: FrameBlock) -> None:
        products = self._shared.get("products", lambda: BlockProducts(self, self.masks, self._result_dtype()))
        products.add(self, block, self.results.total)

    def _process_sparse_block(self, block: SparseBlock) -> None:
        products = self._shared.get("csr", lambda: SparseProducts(self, self.masks, self._result_dtype()))
        products.add(self, block, self.results.total)

    def get_results(self) -> Mapping[str, Any]:
        """The sums in the documented dtype."""
        return {"intensity": self.results.total.astype(self._result_dtype())}


def add_products(udf: UDF, tile: Any, masks: Any, total: Any) -> None:
    """Add the products of a tile and masks ``(pixels, masks)`` to `total`, ``(frames, masks)``."""
    flat = tile.reshape((tile.shape[0], -1)) if tile.ndim > 2 else tile
    if udf.meta.array_backend in SPARSE_BACKENDS or not isinstance(masks, np.ndarray):
        total += udf.forbuf(_product(flat, masks), total)
        return
    # In pieces: float32 keeps its precision only for sums of a few thousand products.
    for start in range(0, flat.shape[1], PX_PER_PRODUCT):
        stop = start + PX_PER_PRODUCT
        total += flat[:, start:stop] @ masks[start:stop]


class BlockProducts:
    """Products of blocks and masks. To be kept: making it takes longer than many blocks.

    Parameters
    ----------
    udf : UDF
        Any UDF of the run, for metadata and corrections.
    masks : MaskContainer or array
        The masks; an array has the shape ``(masks, pixels)``.
    dtype : dtype
        float32 or float64. Products are formed in it.
    """

    def __init__(self, udf: UDF, masks: MaskContainer | npt.NDArray[Any], dtype: npt.DTypeLike) -> None:
        from libertem.udf.kernels.dots import group_masks

        stack = _whole_masks(udf, masks, dtype) if isinstance(masks, MaskContainer) else masks
        corrections = block_corrections(udf)
        self._corrected: CorrectedMasks | None = None
        if corrections is not None:
            self._corrected = corrections.correct_masks(stack, dtype)
            stack = self._corrected.weights
        # Excluded pixels of floats, which a weight of 0 does not remove.
        self._may_hold_nan = udf.meta.dataset_dtype.kind == "f"
        self._groups = group_masks(stack)

    def add(self, udf: UDF, block: FrameBlock, total: npt.NDArray[np.float64]) -> None:
        """Add the products of a block to `total`, ``(frames of the partition, masks)``."""
        from libertem.udf.kernels.dots import dot_masks

        first = row = first_row(udf, block)
        dark = left_out = None
        if self._corrected is not None:
            dark = self._corrected.dark
            if self._may_hold_nan and self._corrected.left_out.size:
                low, high = np.searchsorted(self._corrected.left_out, [block.px_start, block.px_stop])
                left_out = self._corrected.left_out[low:high] - block.px_start
        for run in block.runs:
            out = total[row : row + run.starts.shape[0]]
            where = (as_numbers(run.buffer), run.starts, block.n_px, swap_flag(block))
            dot_masks(*where, self._groups, block.px_start, out, dark, left_out)
            row += out.shape[0]
        if self._corrected is not None and block.px_start == 0:
            total[first:row] -= self._corrected.offsets


class SparseProducts:
    """Products of sparse blocks and masks. To be kept, like `BlockProducts`.

    Parameters
    ----------
    udf : UDF
        Any UDF of the run, for metadata.
    masks : MaskContainer
        The masks, dense or sparse: these stay so.
    dtype : dtype
        float32 or float64. Products are formed in it.
    """

    def __init__(self, udf: UDF, masks: MaskContainer, dtype: npt.DTypeLike) -> None:
        from libertem.udf.kernels.csr import SparseMasks, make_sparse_masks, mask_rows

        self._entries: SparseMasks | None = None
        if masks.use_sparse:
            sig = udf.meta.dataset_shape.sig
            whole = Slice.from_shape(sig, sig_dims=sig.dims)
            matrix = masks.get_for_sig_slice(whole, dtype=dtype, sparse_backend="scipy.sparse.csr")
            self._entries = make_sparse_masks(matrix)
        else:
            self._rows = mask_rows(_whole_masks(udf, masks, dtype))

    def add(self, udf: UDF, block: SparseBlock, total: npt.NDArray[np.float64]) -> None:
        """Add the products of a block to `total`, ``(frames of the partition, masks)``."""
        from libertem.udf.kernels.csr import csr_dot_masks, csr_dot_sparse_masks

        row = first_row(udf, block)
        out = total[row : row + block.n_frames]
        frames = (block.indptr, block.indices, as_numbers(block.values))
        if self._entries is None:
            csr_dot_masks(*frames, self._rows, out)
        else:
            csr_dot_sparse_masks(*frames, self._entries, out)


def _whole_masks(udf: UDF, masks: MaskContainer, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    sig = udf.meta.dataset_shape.sig
    whole = Slice.from_shape(sig, sig_dims=sig.dims)
    stack: npt.NDArray[Any] = masks.get_for_sig_slice(whole, dtype=dtype, transpose=False)
    return stack


def _product(tile: Any, masks: Any) -> Any:
    """Matrix product of arrays of which at least one is sparse; tile ``(n, px)``, masks ``(px, m)``."""
    if isinstance(tile, np.ndarray):
        # NumPy does not know the product with sparse matrices on its right side; transposed it is theirs.
        return masks.T.dot(tile.T).T
    return tile @ masks
