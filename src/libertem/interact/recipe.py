"""The line of Python that opens a data set, made from the data set."""

from __future__ import annotations

import inspect
import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.io.dataset.registry import filetypes

if TYPE_CHECKING:
    from libertem.io.dataset.base.dataset import DataSet

__all__ = ["load_call", "type_name"]

NOT_OF_THE_DATA = frozenset(
    {"io_backend", "num_partitions", "target_size", "min_num_partitions", "tileshape"}
)
"""Parameters that make no other data set: they only change how it is read."""


def type_name(dataset: DataSet) -> str | None:
    """Under which name `Context.load` knows the type of a data set; None if under none."""
    inherited = None
    for name, entry in filetypes.items():
        cls: Any = entry
        if isinstance(entry, str):
            # What has not been imported is not the type of anything. Importing all of them takes a second.
            module, _, class_name = entry.rpartition(".")
            cls = getattr(sys.modules.get(module), class_name, None)
        if cls is type(dataset):
            return name
        if isinstance(cls, type) and isinstance(dataset, cls):
            inherited = name
    # DM files, for example, are of several classes.
    return inherited


def load_call(dataset: DataSet, *, absolute: bool = False) -> str | None:
    """``load("mib", path="scan.mib", nav_shape=(64, 64))``, to be put after ``ctx.``.

    Parameters
    ----------
    dataset : DataSet
        Initialized.
    absolute : bool, optional
        Write the whole path, so that the call works from any folder.

    Returns
    -------
    str or None
        None for data that no text can describe, such as arrays in memory.
    """
    name = type_name(dataset)
    arguments = [_literal(name) or "" if name is not None else type(dataset).__name__]
    for parameter in inspect.signature(type(dataset).__init__).parameters.values():
        if parameter.name in NOT_OF_THE_DATA or parameter.name == "self":
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        value = _given(dataset, parameter.name)
        if parameter.name in ("path", "files"):
            value = _paths(value, absolute=absolute)
        text = _literal(value)
        if value is None or (text is not None and text == _literal(parameter.default)):
            # As it is without saying so, unless it has to be said: then no text describes it.
            if parameter.default is parameter.empty:
                return None
            continue
        if text is None:
            return None
        arguments.append(f"{parameter.name}={text}")
    return f"load({', '.join(arguments)})"


def _given(dataset: DataSet, name: str) -> Any:
    """Value of an argument; None if it was not given, or is not known any more."""
    attributes = vars(dataset)
    return attributes.get(f"_{name}", attributes.get(name))


def _paths(value: Any, *, absolute: bool) -> Any:
    if isinstance(value, list | tuple):
        return [_paths(one, absolute=absolute) for one in value]
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    return os.path.abspath(value) if absolute and isinstance(value, str) else value


def _literal(value: Any) -> str | None:
    """How to write a value in Python; None if that is not possible."""
    if isinstance(value, np.dtype):
        # The name does not tell the byte order, the other form is not for reading.
        value = value.name if value.isnative else value.str
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        text = repr(value)
        # As in all examples, unless there are such quotes inside.
        return text if '"' in text else f'"{text[1:-1]}"'
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        parts = [_literal(one) for one in value]
        if any(part is None for part in parts):
            return None
        inner = ", ".join(str(part) for part in parts)
        if isinstance(value, list):
            return f"[{inner}]"
        return f"({inner},)" if len(parts) == 1 else f"({inner})"
    return None
