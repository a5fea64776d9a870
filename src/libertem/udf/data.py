"""Containers of arrays that UDFs see as attributes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.buffers import AuxBufferWrapper, BufferWrapper
from libertem.common.slice import Slice
from libertem.warnings import UseDiscouragedWarning

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["MergeAttrMapping", "UDFData", "check_cast"]


def check_cast(fromvar: Any, tovar: Any) -> None:
    """Make sure that values can go from one array or dtype to another without loss.

    Raises
    ------
    TypeError
        If not.
    """
    source = np.dtype(getattr(fromvar, "dtype", fromvar))
    target = np.dtype(getattr(tovar, "dtype", tovar))
    if not np.can_cast(source, target, casting="safe"):
        raise TypeError(f"Unsafe automatic casting from {source} to {target}")


class UDFData:
    """Container behind `UDF.results`, `UDF.params` and `UDF.task_data`.

    Attributes are arrays for the unit that is being processed. Assigning to an attribute writes into
    the array.
    """

    _data: dict[str, Any]
    _views: dict[str, Any]

    def __init__(self, data: Mapping[str, Any]) -> None:
        object.__setattr__(self, "_data", dict(data))
        object.__setattr__(self, "_views", {})

    def __getattr__(self, k: str) -> Any:
        if k.startswith("_"):
            # Also while an instance is copied or unpickled, and has no content yet.
            raise AttributeError(k)
        if k not in self._data:
            raise AttributeError(f"{k!r} is not there, have: {sorted(self._data)}")
        return self._view_or_data(k)

    def __setattr__(self, k: str, v: Any) -> None:
        target = getattr(self, k)
        # After ``self.results.x += y`` the array is assigned to itself.
        if target is not v:
            target[...] = v

    def _view_or_data(self, k: str) -> Any:
        if k in self._views:
            return self._views[k]
        value = self._data[k]
        return value.raw_data if isinstance(value, BufferWrapper | AuxBufferWrapper) else value

    def get(self, k: str, default: Any = None) -> Any:
        """Value of `k`, or `default`."""
        return self._view_or_data(k) if k in self._data else default

    def get_buffer(self, name: str) -> Any:
        """The buffer behind an attribute."""
        return self._data[name]

    def set_buffer(self, name: str, value: Any) -> None:
        """Add or replace a buffer."""
        self._data[name] = value
        self._views.pop(name, None)

    def __getitem__(self, k: str) -> Any:
        warnings.warn(
            f"use the attribute .{k}, or .get_buffer({k!r}) for the buffer itself",
            UseDiscouragedWarning,
            stacklevel=2,
        )
        return self._data[k]

    def __contains__(self, k: object) -> bool:
        return k in self._data

    def keys(self) -> Iterable[str]:
        """Names."""
        return self._data.keys()

    def values(self) -> Iterable[Any]:
        """Buffers or plain values."""
        return self._data.values()

    def items(self) -> Iterable[tuple[str, Any]]:
        """Names with buffers or plain values."""
        return self._data.items()

    def as_dict(self) -> dict[str, Any]:
        """Names with buffers or plain values, as a new dict."""
        return dict(self._data)

    def __repr__(self) -> str:
        return f"<UDFData: {self._data}>"

    # --- for the runner; names without underscore are those of users ---

    def _has_aux(self) -> bool:
        """Whether there is auxiliary data."""
        return any(isinstance(value, AuxBufferWrapper) for value in self._data.values())

    def _select_frames(self, frames: npt.NDArray[np.int64] | slice) -> UDFData:
        """The same, with auxiliary data for some scan positions only (flat indices)."""
        return UDFData(
            {
                name: value.select(frames) if isinstance(value, AuxBufferWrapper) else value
                for name, value in self._data.items()
            }
        )

    def _buffers(self) -> Iterator[tuple[str, BufferWrapper | AuxBufferWrapper]]:
        """Everything that is cut like the data. Buffers that are only filled in the end show None."""
        for name, value in self._data.items():
            is_result = isinstance(value, BufferWrapper) and value.use != "result_only"
            if is_result or isinstance(value, AuxBufferWrapper):
                yield name, value

    def _view_frames(self, start: int, stop: int) -> None:
        """Attributes show some frames."""
        for name, buffer in self._buffers():
            self._views[name] = buffer.view_for_frames(start, stop)

    def _view_frame(self, idx: int) -> None:
        """Attributes show one frame."""
        for name, buffer in self._buffers():
            self._views[name] = buffer.view_for_frame(idx)

    def _view_tile(self, start: int, sig_slice: Slice, n_frames: int) -> None:
        """Attributes show the frames and pixels of a tile."""
        for name, buffer in self._buffers():
            self._views[name] = buffer.view_for_tile(start, sig_slice, n_frames)

    def _view_all(self) -> None:
        """Attributes show everything again."""
        for _, buffer in self._buffers():
            buffer.flush()
        self._views.clear()


class MergeAttrMapping:
    """Arrays as attributes: what `UDF.merge` receives as `dest` and `src`."""

    _dict: dict[str, Any]

    def __init__(self, dict_input: Mapping[str, Any]) -> None:
        object.__setattr__(self, "_dict", dict(dict_input))

    def __iter__(self) -> Iterator[str]:
        return iter(self._dict)

    def __contains__(self, k: object) -> bool:
        return k in self._dict

    def __len__(self) -> int:
        return len(self._dict)

    def __getattr__(self, k: str) -> Any:
        if k.startswith("_"):
            # Also while an instance is copied or unpickled, and has no content yet.
            raise AttributeError(k)
        if k not in self._dict:
            raise AttributeError(f"{k!r} is not there, have: {sorted(self._dict)}")
        return self._dict[k]

    def __setattr__(self, k: str, v: Any) -> None:
        target = getattr(self, k)
        if target is not v:
            target[...] = v

    def __getitem__(self, k: str) -> Any:
        warnings.warn(f"use the attribute .{k}", UseDiscouragedWarning, stacklevel=2)
        return self._dict[k]

    def __setitem__(self, k: str, v: Any) -> None:
        warnings.warn(f"use the attribute .{k}", UseDiscouragedWarning, stacklevel=2)
        self._dict[k][...] = v

    def keys(self) -> Iterable[str]:
        """Names."""
        return self._dict.keys()

    def __repr__(self) -> str:
        return f"<MergeAttrMapping: {self._dict}>"
