"""Load and process pixelated electron microscopy data."""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["__version__", "revision"]

__version__ = "0.17.0"

revision = f"v{__version__}"
"""Tag of the source that this version was made from."""

# Notebooks import only `libertem.api` and then write `libertem.udf.sum.SumUDF`.
_LAZY = frozenset({"analysis", "masks", "udf"})


def __getattr__(name: str) -> ModuleType:
    if name in _LAZY:
        try:
            return importlib.import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as err:
            if err.name != f"{__name__}.{name}":
                raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
