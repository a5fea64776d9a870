"""What makes a data set useful without a UDF: ``ds[10, 20]``, ``ds.sum()``, ``ds.plot()``, ``ds.save(...)``.

Data sets lie below everything that computes, draws or saves. They therefore hand such wishes on to the
`Interactive` object that `libertem.api.Context.load` has put in: the context that opened a data set is the
one that works on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    import os

    import numpy as np
    import numpy.typing as npt

__all__ = ["Interactive", "UsableDirectly"]

D = TypeVar("D", contravariant=True)
"""Type of data sets."""


class Interactive(Protocol[D]):
    """What can be done with a data set interactively; the methods are those of `UsableDirectly`."""

    def get(self, dataset: D, key: Any) -> npt.NDArray[Any]:
        """``dataset[key]``."""
        ...

    def as_array(self, dataset: D, dtype: npt.DTypeLike | None) -> npt.NDArray[Any]:
        """``np.asarray(dataset)``."""
        ...

    def reduce(
        self, dataset: D, over: Literal["nav", "sig"], *, mean: bool, roi: Any, progress: Any
    ) -> npt.NDArray[Any]:
        """Sum or mean."""
        ...

    def virtual_image(self, dataset: D, mask: Any, **options: Any) -> npt.NDArray[Any]:
        """Virtual detector."""
        ...

    def plot(self, dataset: D, position: Any, **options: Any) -> Any:
        """Figure."""
        ...

    def save(self, dataset: D, path: Any, **options: Any) -> None:
        """File."""
        ...

    def to_dask(self, dataset: D, **options: Any) -> Any:
        """Lazy array."""
        ...

    def html(self, dataset: D) -> str:
        """What a notebook shows."""
        ...


class UsableDirectly:
    """Array-like use of data sets that were opened with `Context.load`."""

    _interactive: Interactive[Any] | None = None

    def _need_interactive(self, wish: str) -> tuple[Interactive[Any], Any]:
        if self._interactive is None:
            name = type(self).__name__
            raise RuntimeError(
                f"{wish} needs a data set that was opened by a Context: found a {name} made by hand, "
                f"expected one from Context.load (use ctx.load({name}, ...) instead of {name}(...))"
            )
        return self._interactive, self

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Read a part: ``ds[10, 20]`` is a frame, ``ds[3:7, 9:12]`` are frames, ``ds[..., 5]`` is a column.

        Parameters
        ----------
        key : int, slice, Ellipsis, array of bool, or a tuple of these
            As for NumPy arrays of the shape of the data set, but for lists of integers and new axes. An array
            of bool has navigation shape and selects scan positions.

        Returns
        -------
        numpy.ndarray
            A copy, in the native dtype. Corrections that come with the data set are applied; with them it is
            float32, or wider if the native dtype needs it.

        Raises
        ------
        IndexError
            If there are too many indices, or one is out of range.
        MemoryError
            If the result would not fit into memory.
        """
        tools, dataset = self._need_interactive("reading a part")
        return tools.get(dataset, key)

    def __len__(self) -> int:
        return int(self.shape[0])  # type: ignore[attr-defined]  # DataSet has it

    def __bool__(self) -> bool:
        # Whatever its length, which a data set made by hand does not know yet.
        return True

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("a data set cannot be an array without being read: use copy=None or True")
        tools, dataset = self._need_interactive("making an array")
        return tools.as_array(dataset, dtype)

    def sum(
        self, over: Literal["nav", "sig"] = "nav", *, roi: Any = None, progress: Any = False
    ) -> npt.NDArray[Any]:
        """Sum of all frames, or the sum of each frame.

        Parameters
        ----------
        over : {'nav', 'sig'}, optional
            Over the scan, which gives a frame of signal shape; or over the detector, which gives an image of
            navigation shape.
        roi : optional
            Which scan positions, as for `Context.run_udf`.
        progress : bool or ProgressReporter, optional
            Show a progress bar.

        Returns
        -------
        numpy.ndarray
            As from `libertem.udf.sum.SumUDF` or `libertem.udf.sumsigudf.SumSigUDF`. With `roi`, sums of
            frames outside of it are NaN.
        """
        tools, dataset = self._need_interactive("sum()")
        return tools.reduce(dataset, over, mean=False, roi=roi, progress=progress)

    def mean(
        self, over: Literal["nav", "sig"] = "nav", *, roi: Any = None, progress: Any = False
    ) -> npt.NDArray[Any]:
        """Mean frame, or the mean of each frame; as `sum`, divided by the number of frames or pixels.

        Blank frames that `sync_offset` or `nav_shape` put in count as frames.
        """
        tools, dataset = self._need_interactive("mean()")
        return tools.reduce(dataset, over, mean=True, roi=roi, progress=progress)

    def virtual_image(
        self,
        mask: npt.NDArray[Any] | Callable[[], Any] | None = None,
        *,
        cy: float | None = None,
        cx: float | None = None,
        radius: float | None = None,
        radius_inner: float = 0.0,
        roi: Any = None,
        progress: Any = False,
    ) -> npt.NDArray[Any]:
        """Image of a virtual detector: for each scan position, the sum of its frame times a mask.

        Parameters
        ----------
        mask : array or callable, optional
            Of signal shape, or a function that makes such an array (dense or sparse). Without it, a disk or
            ring.
        cy, cx : float, optional
            Centre in pixels; the middle of the frame by default.
        radius : float, optional
            In pixels; 0.15 of the shorter side by default, as `Context.create_disk_analysis` has it.
        radius_inner : float, optional
            Inner radius in pixels, for a ring.
        roi, progress : optional
            As for `sum`.

        Returns
        -------
        numpy.ndarray
            Of navigation shape, float32 (complex64 for complex data, float64 for wide integers).
        """
        tools, dataset = self._need_interactive("virtual_image()")
        return tools.virtual_image(
            dataset, mask, cy=cy, cx=cx, radius=radius, radius_inner=radius_inner, roi=roi, progress=progress
        )

    def plot(
        self,
        position: Any = None,
        *,
        path: str | os.PathLike[str] | None = None,
        log: bool = True,
        progress: Any = False,
    ) -> Any:
        """Look at it: the mean frame and the image of total intensity, or a single frame. Needs matplotlib.

        Parameters
        ----------
        position : int or tuple of int, optional
            Scan position; then only that frame is read and drawn.
        path : str or path-like, optional
            Save the figure to this file (``.png``, ``.pdf``, ``.svg``).
        log : bool, optional
            Draw frames logarithmically.
        progress : bool or ProgressReporter, optional
            Show a progress bar.

        Returns
        -------
        matplotlib.figure.Figure
            Notebooks show it. Axes are in the units of the file where it gives them.
        """
        tools, dataset = self._need_interactive("plot()")
        return tools.plot(dataset, position, path=path, log=log, progress=progress)

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        dtype: npt.DTypeLike | None = None,
        roi: Any = None,
        progress: Any = False,
        **options: Any,
    ) -> None:
        """Write the data to a file of another format, with what is known about axes and the microscope.

        The file appears when it is complete; an existing one is not touched before, and only if told so.

        Parameters
        ----------
        path : str or path-like
            ``.npy``; ``.h5``, ``.hdf5``, ``.hspy`` or ``.emd``; ``.zarr`` (needs zarr); ``.tif`` or ``.tiff``
            (needs tifffile); ``.raw`` or ``.bin`` (with a ``.json`` beside it).
        overwrite : bool, optional
            Replace an existing file.
        dtype : dtype, optional
            The native one by default. Values that do not fit are an error.
        roi : optional
            Which scan positions; a rectangle stays one, others become a flat navigation axis.
        progress : bool or ProgressReporter, optional
            Show a progress bar.
        **options
            Of the format: ``compression="gzip"``, ``chunks=(...)`` for HDF5 and Zarr.

        Raises
        ------
        FileExistsError
            If there is such a file and it is not to be overwritten.
        ValueError
            If the extension is not known, or the data cannot be saved like that.
        """
        tools, dataset = self._need_interactive("save()")
        tools.save(dataset, path, overwrite=overwrite, dtype=dtype, roi=roi, progress=progress, **options)

    def to_dask(self, *, dtype: npt.DTypeLike | None = None, roi: npt.NDArray[np.bool_] | None = None) -> Any:
        """Lazy array for Dask; nothing is read before it is computed.

        Parameters
        ----------
        dtype : dtype, optional
            The native one by default.
        roi : array of bool, optional
            Which scan positions; the navigation axes are flat then.

        Returns
        -------
        dask.array.Array
            Of the shape of the data set. Its tasks open the files where they run.
        """
        tools, dataset = self._need_interactive("to_dask()")
        return tools.to_dask(dataset, dtype=dtype, roi=roi)

    def _repr_html_(self) -> str | None:
        # None: the notebook falls back to the plain representation.
        return None if self._interactive is None else self._interactive.html(self)
