"""User-defined functions (UDFs): what to derive from, and ready-made ones in the submodules."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from libertem.exceptions import UDFRunCancelled
from libertem.udf.auto import AutoUDF
from libertem.udf.contract import (
    UDF,
    UDFFrameMixin,
    UDFPartitionMixin,
    UDFPostprocessMixin,
    UDFPreprocessMixin,
    UDFTileMixin,
)
from libertem.udf.data import UDFData, check_cast
from libertem.udf.meta import UDFMeta

__all__ = [
    "UDF",
    "AutoUDF",
    "UDFData",
    "UDFFrameMixin",
    "UDFMeta",
    "UDFPartitionMixin",
    "UDFPostprocessMixin",
    "UDFPreprocessMixin",
    "UDFRunCancelled",
    "UDFTileMixin",
    "check_cast",
]


def __getattr__(name: str) -> ModuleType:
    # Submodules load when first used: `libertem.udf.masks` without an import of its own.
    if any(name == module.name for module in pkgutil.iter_modules(__path__)):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
