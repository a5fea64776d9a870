"""`MaskContainer`: a stack of masks that is cut, flattened and converted to what a kernel needs."""

from __future__ import annotations

import logging
import pickle
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, cast

import numpy as np

from libertem.common.arrays import NUMPY, get_device_class
from libertem.common.math import prod
from libertem.common.slice import Slice
from libertem.masks.parts import CUPY_FORMS, FORMS, Region, Request, SparseForm, build_stack, render

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["MaskArrayType", "MaskContainer", "MaskFactoriesType"]

logger = logging.getLogger(__name__)

# Dense arrays, those of `sparse`, `scipy.sparse` and CuPy: they have no base class in common.
MaskArrayType: TypeAlias = Any
MaskFactoriesType: TypeAlias = Callable[[], MaskArrayType] | Sequence[Callable[[], MaskArrayType]]

# A factory travels to a worker with each task: it should describe the masks, not carry them.
LARGE_FACTORY_BYTES = 1 << 20

# Size of the cache. The tiles of one tiling scheme together are one stack, so this is enough for two
# schemes with two forms (transposed or not, CSR or CSC) of each; small stacks get more than they need.
CACHED_STACKS = 4
CACHED_ELEMENTS = 1 << 24
# What remembering a part costs beside its elements.
PART_OVERHEAD_ELEMENTS = 256


class _HasSlices(Protocol):
    """What is needed of a tiling scheme."""

    def __getitem__(self, idx: int) -> Slice: ...


class _TooLarge(Exception):
    """Ends the pickling of a factory."""


class _SizeLimit:
    """A file that refuses to hold more than `LARGE_FACTORY_BYTES`."""

    def __init__(self) -> None:
        self.size = 0

    def write(self, data: Any) -> int:
        """Count the bytes and throw them away."""
        n_bytes = memoryview(data).nbytes
        self.size += n_bytes
        if self.size > LARGE_FACTORY_BYTES:
            raise _TooLarge
        return n_bytes


# Each task makes containers from the same factories: once is enough for the test, and for the warning.
_known_factories: weakref.WeakSet[Callable[[], MaskArrayType]] = weakref.WeakSet()


def _warn_if_large(factory: Callable[[], MaskArrayType]) -> None:
    try:
        if factory in _known_factories:
            return
        _known_factories.add(factory)
    except TypeError:
        logger.debug("the mask factory %r cannot be remembered", factory)
    import cloudpickle

    try:
        cloudpickle.dump(factory, _SizeLimit())
    except _TooLarge:
        logger.warning(
            "the mask factory %r pickles to more than %d bytes, which travel with every task: "
            "create large arrays inside the factory, or load them there from a file",
            factory,
            LARGE_FACTORY_BYTES,
        )
    except (pickle.PicklingError, TypeError, ValueError, AttributeError, RuntimeError):
        # An executor without worker processes can use it all the same.
        logger.debug("the mask factory %r cannot be pickled", factory, exc_info=True)


def _checked_form(
    value: bool | str | None, default: SparseForm, name: str
) -> SparseForm | Literal[False] | None:
    if value is None or value is False:
        return value
    if value is True:
        return default
    if value not in FORMS:
        raise ValueError(f"{name} not an allowed value: {value}")
    return cast("SparseForm", value)


def _checked_factories(mask_factories: MaskFactoriesType) -> MaskFactoriesType:
    if callable(mask_factories):
        return mask_factories
    if not isinstance(mask_factories, Iterable):
        raise TypeError(f"mask_factories has to be callable or a sequence, found {mask_factories!r}")
    factories = tuple(mask_factories)
    strange = [factory for factory in factories if not callable(factory)]
    if strange:
        raise TypeError(
            f"mask_factories has to hold callables that return masks, found {type(strange[0]).__name__}"
            " (wrap an array in a function, as in lambda: array)"
        )
    if not factories:
        raise ValueError("mask_factories is empty, expected at least one")
    return factories


class MaskContainer:
    """A stack of masks that hands out its parts as 2D arrays, ready to be multiplied with tiles.

    Factories run only when their masks are needed. May be used by several threads. What it hands out is
    cached and shared: treat it as read-only. Caches are bounded, and left behind when it is pickled.

    Parameters
    ----------
    mask_factories : callable or sequence of callables
        One function that returns the whole stack, shape ``(n,) + sig_shape``, or an iterable of masks; or
        one function for each mask. Arrays of NumPy, `sparse` or `scipy.sparse`.
    dtype : numpy.dtype, optional
        dtype of the parts handed out; by default that of the stack.
    use_sparse : bool or str, optional
        None: sparse if all masks are; True: as `default_sparse`; False: dense; or the name of a format:
        ``'scipy.sparse'`` or ``'scipy.sparse.csr'``, ``'scipy.sparse.csc'``, ``'sparse.pydata'`` (COO),
        ``'sparse.pydata.GCXS'``.
    count : int, optional
        Number of masks, to avoid running the factories for it.
    backend : str, optional
        Library of the parts: ``'numpy'`` (default; together with SciPy and `sparse`) or ``'cupy'``.
    default_sparse : str, optional
        The format that ``use_sparse=True`` stands for.

    Raises
    ------
    ValueError
        If `use_sparse`, `default_sparse` or `backend` are not known, or there are no factories.
    TypeError
        If `mask_factories` is not made of callables.

    Examples
    --------
    >>> from libertem.common import Shape, Slice
    >>> masks = MaskContainer([lambda: np.ones((4, 4)), lambda: np.eye(4)])
    >>> masks.get(Slice(origin=(5, 1, 0), shape=Shape((2, 3, 4), sig_dims=2))).shape
    (12, 2)
    """

    def __init__(
        self,
        mask_factories: MaskFactoriesType,
        dtype: npt.DTypeLike | None = None,
        use_sparse: bool | SparseForm | None = None,
        count: int | None = None,
        backend: str | None = None,
        default_sparse: SparseForm = "scipy.sparse",
    ) -> None:
        if default_sparse not in FORMS:
            raise ValueError(f"default_sparse not an allowed value: {default_sparse}")
        self.mask_factories = _checked_factories(mask_factories)
        self._dtype = None if dtype is None else np.dtype(dtype).newbyteorder("=")
        self._form = _checked_form(use_sparse, default_sparse, "use_sparse")
        self._count = count
        self.backend = NUMPY if backend is None else backend
        get_device_class(self.backend)
        self._default_sparse = default_sparse
        self._forget()
        factories = self.mask_factories
        for factory in (factories,) if callable(factories) else factories:
            _warn_if_large(factory)

    def _forget(self) -> None:
        self._stack: Any = None
        self._cache: OrderedDict[Request, Any] = OrderedDict()
        self._cached_elements = 0
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        left_behind = ("_stack", "_cache", "_cached_elements", "_lock")
        return {name: value for name, value in self.__dict__.items() if name not in left_behind}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def __len__(self) -> int:
        if self._count is not None:
            return self._count
        if not callable(self.mask_factories):
            return len(self.mask_factories)
        return int(self.computed_masks.shape[0])

    @property
    def computed_masks(self) -> Any:
        """The whole stack, shape ``(n,) + sig_shape``: `numpy.ndarray`, or `sparse.COO` if it is sparse."""
        with self._lock:
            if self._stack is None:
                factories = self.mask_factories
                raw = factories() if callable(factories) else [factory() for factory in factories]
                as_sparse = None if self._form is None else self._form is not False
                self._stack = build_stack(raw, as_sparse)
                if self._form is None:
                    self._form = False if isinstance(self._stack, np.ndarray) else self._default_sparse
            return self._stack

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype asked for, or else that of the stack."""
        if self._dtype is not None:
            return self._dtype
        return cast("np.dtype[Any]", self.computed_masks.dtype)

    @property
    def use_sparse(self) -> SparseForm | Literal[False]:
        """The sparse format of the parts handed out, or False if they are dense."""
        if self._form is None:
            _ = self.computed_masks
        return cast("SparseForm | Literal[False]", self._form)

    def get(
        self,
        key: Slice,
        dtype: npt.DTypeLike | None = None,
        sparse_backend: bool | SparseForm | None = None,
        transpose: bool = True,
        backend: str | None = None,
    ) -> Any:
        """The masks inside a region, with the pixels on one axis.

        Parameters
        ----------
        key : Slice
            The region. Its navigation part is ignored.
        dtype, sparse_backend, backend : optional
            In place of what the container was made with (where `sparse_backend` is called `use_sparse`).
        transpose : bool, optional
            Shape ``(n_pixels, n_masks)`` if true, ``(n_masks, n_pixels)`` otherwise.

        Returns
        -------
        array
            The same object again for the same request. SciPy matrices are in canonical format.

        Raises
        ------
        TypeError
            If `key` is not a `Slice`.
        ValueError
            If an option is not known, or the masks do not cover the region.
        """
        if not isinstance(key, Slice):
            raise TypeError(f"MaskContainer.get() takes a Slice, found {type(key).__name__}")
        nav_dims = key.shape.nav_dims
        form = _checked_form(sparse_backend, self._default_sparse, "sparse_backend")
        request = Request(
            region=Region(key.origin[nav_dims:], key.shape.to_tuple()[nav_dims:]),
            dtype=self.dtype if dtype is None else np.dtype(dtype).newbyteorder("="),
            form=self.use_sparse if form is None else form,
            transpose=bool(transpose),
            on_gpu=get_device_class(self.backend if backend is None else backend) == "cupy",
        )
        with self._lock:
            part = self._cache.get(request)
            if part is None:
                self._check(request)
                part = render(self.computed_masks, request)
                self._remember(request, part)
            else:
                self._cache.move_to_end(request)
            return part

    def get_for_sig_slice(self, sig_slice: Slice, *args: Any, **kwargs: Any) -> Any:
        """Like `get`, for a slice without navigation part."""
        return self.get(sig_slice, *args, **kwargs)

    def get_for_idx(self, scheme: _HasSlices, idx: int, *args: Any, **kwargs: Any) -> Any:
        """Like `get`, for the slice with number `idx` of a tiling scheme."""
        return self.get(scheme[idx], *args, **kwargs)

    def _check(self, request: Request) -> None:
        (origin, extents), sig_shape = request.region, self.computed_masks.shape[1:]
        fits = len(origin) == len(sig_shape) and all(
            o >= 0 and o + e <= size for o, e, size in zip(origin, extents, sig_shape, strict=True)
        )
        if not fits:
            raise ValueError(
                f"masks of shape {sig_shape} do not cover the region with origin {origin} and shape {extents}"
            )
        if request.on_gpu and request.form and request.form not in CUPY_FORMS:
            raise ValueError(f"{request.form} is not available with CuPy, use one of {sorted(CUPY_FORMS)}")

    def _remember(self, request: Request, part: Any) -> None:
        """Add to the cache, and forget what was not used for longest if that makes it too large."""
        n_masks, *sig_shape = self.computed_masks.shape
        self._cache[request] = part
        self._cached_elements += n_masks * request.region.n_pixels + PART_OVERHEAD_ELEMENTS
        limit = max(CACHED_ELEMENTS, CACHED_STACKS * n_masks * prod(sig_shape))
        while self._cached_elements > limit:
            forgotten, _ = self._cache.popitem(last=False)
            self._cached_elements -= n_masks * forgotten.region.n_pixels + PART_OVERHEAD_ELEMENTS
