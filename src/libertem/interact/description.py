"""What is known about a data set, in the words in which it is shown in notebooks and on the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from libertem.common.html import byte_count, dtype_text, product
from libertem.common.math import prod
from libertem.common.units import format_quantity
from libertem.interact.recipe import load_call, type_name
from libertem.io.dataset.base.metadata import NO_METADATA, Axis, Metadata

if TYPE_CHECKING:
    from libertem.io.dataset.base.dataset import DataSet

__all__ = ["Description", "describe"]

T = TypeVar("T")


@dataclass(frozen=True)
class Description:
    """What is known about a data set."""

    type_name: str | None
    """For `Context.load`; None if it is not registered."""
    class_name: str
    """Name of the class."""
    path: str | None
    """As it was given; None for arrays in memory."""
    nav_shape: tuple[int, ...]
    """Of the scan."""
    sig_shape: tuple[int, ...]
    """Of one frame."""
    dtype: np.dtype[Any]
    """Native dtype."""
    axes: tuple[Axis, ...]
    """One for each axis."""
    metadata: Metadata
    """What the files say."""
    sync_offset: int
    """Frames skipped (> 0) or blanks inserted (< 0) at the start."""
    sync: Mapping[str, int]
    """Numbers of frames that were skipped, ignored and inserted."""
    image_count: int | None
    """Frames in the files; None if unknown."""
    corrections: tuple[str, ...]
    """What comes with the data and is applied."""
    load: str | None
    """``load(...)``, to be put after ``ctx.``; None if no text can say it."""

    @property
    def n_frames(self) -> int:
        """Number of scan positions."""
        return prod(self.nav_shape)

    @property
    def n_bytes(self) -> int:
        """Size in the native dtype."""
        return self.n_frames * prod(self.sig_shape) * self.dtype.itemsize

    def summary(self) -> list[tuple[str, str]]:
        """Names and values, one line each."""
        frames = "frame" if self.n_frames == 1 else "frames"
        unit = "px" if len(self.sig_shape) == 2 else "channels" if len(self.sig_shape) == 1 else "values"
        rows = [
            ("scan", f"{product(self.nav_shape)} positions" if self.n_frames > 1 else "1 position"),
            ("frames", f"{product(self.sig_shape)} {unit}"),
            ("dtype", dtype_text(self.dtype)),
            ("size", f"{byte_count(self.n_bytes)} ({self.n_frames} {frames})"),
        ]
        n_nav = len(self.nav_shape)
        for name, axes, shape in (
            ("scan axes", self.axes[:n_nav], self.nav_shape),
            ("frame axes", self.axes[n_nav:], self.sig_shape),
        ):
            rows.append((name, _axes_text(axes, shape)))
        if self.path is not None:
            rows.append(("file", self.path))
        rows.append(("sync offset", self._sync_text()))
        if self.corrections:
            rows.append(("corrections", ", ".join(self.corrections)))
        return rows

    def _sync_text(self) -> str:
        words = (
            ("frames_skipped_start", "skipped at the start"),
            ("frames_ignored_end", "ignored at the end"),
            ("frames_inserted_start", "blank ones inserted at the start"),
            ("frames_inserted_end", "blank ones inserted at the end"),
        )
        parts = [f"{self.sync[name]} {text}" for name, text in words if self.sync.get(name)]
        return f"{self.sync_offset}" + (f": {', '.join(parts)}" if parts else "")

    def to_dict(self) -> dict[str, Any]:
        """All but the raw header, as plain JSON-compatible data."""
        return {
            "type": self.type_name,
            "class": self.class_name,
            "path": self.path,
            "nav_shape": list(self.nav_shape),
            "sig_shape": list(self.sig_shape),
            "dtype": self.dtype.str if self.dtype.names is None else str(self.dtype),
            "n_frames": self.n_frames,
            "n_bytes": self.n_bytes,
            "axes": [dataclasses.asdict(axis) for axis in self.axes],
            "metadata": self.metadata.to_dict(),
            "sync_offset": self.sync_offset,
            "sync": dict(self.sync),
            "image_count": self.image_count,
            "corrections": list(self.corrections),
            "load": self.load,
        }


def _axes_text(axes: tuple[Axis, ...], shape: tuple[int, ...]) -> str:
    if not any(axis.is_calibrated for axis in axes):
        return "not calibrated"
    if all((axis.step, axis.unit) == (axes[0].step, axes[0].unit) for axis in axes):
        names = ", ".join(axis.name for axis in axes)
        return f"{names}: {format_quantity(axes[0].step, axes[0].unit)} per element, {_extents(axes, shape)}"
    return "; ".join(
        f"{axis}, {_extents((axis,), (n,))}" if axis.is_calibrated else str(axis)
        for axis, n in zip(axes, shape, strict=True)
    )


def _extents(axes: tuple[Axis, ...], shape: tuple[int, ...]) -> str:
    extents = (format_quantity(abs(axis.step) * n, axis.unit) for axis, n in zip(axes, shape, strict=True))
    return f"{product(extents)} in all"


def describe(dataset: DataSet, *, absolute: bool = False) -> Description:
    """Collect what is known; what a data set of a third party cannot tell is left out.

    Parameters
    ----------
    dataset : DataSet
        Initialized.
    absolute : bool, optional
        Write the whole path into the call that loads it.
    """
    shape = dataset.shape
    # Data sets of others may have attributes of these names that are something else.
    found: Any = _ask(lambda: dataset.metadata, None)
    metadata = found if isinstance(found, Metadata) else NO_METADATA
    axes: Any = _ask(lambda: tuple(dataset.axes), None)
    if axes is None or [isinstance(axis, Axis) for axis in axes] != [True] * len(tuple(shape)):
        axes = metadata.axes(shape)
    path = getattr(dataset, "_path", getattr(dataset, "path", None))
    meta = _ask(lambda: dataset.meta, None)
    return Description(
        type_name=type_name(dataset),
        class_name=type(dataset).__name__,
        path=None if path is None else str(path),
        nav_shape=tuple(int(n) for n in shape.nav),
        sig_shape=tuple(int(n) for n in shape.sig),
        dtype=np.dtype(dataset.dtype),
        axes=axes,
        metadata=metadata,
        sync_offset=int(_ask(lambda: dataset._sync_offset, None) or 0),
        sync=_ask(lambda: dict(dataset.get_sync_offset_info()), {}),
        image_count=getattr(meta, "image_count", None),
        corrections=_ask(lambda: _corrections(dataset), ()),
        load=_ask(lambda: load_call(dataset, absolute=absolute), None),
    )


def _ask(question: Callable[[], T], otherwise: T) -> T:
    try:
        return question()
    except Exception:  # whatever a data set of a third party does: the rest is still worth showing
        return otherwise


def _corrections(dataset: DataSet) -> tuple[str, ...]:
    corrections = dataset.get_correction_data()
    if corrections is None or not corrections.have_corrections():
        return ()
    found = []
    if corrections.get_dark_frame() is not None:
        found.append("dark frame")
    if corrections.get_gain_map() is not None:
        found.append("gain map")
    # How many they are is not asked: counting them loads a package that takes half a second.
    if corrections.excludes_pixels():
        found.append("excluded pixels")
    return tuple(found)
