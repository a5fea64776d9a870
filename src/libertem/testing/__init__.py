"""Test suites and synthetic data for authors of formats and UDFs.

`DataSetTests` is the suite that tests of a format inherit, see `libertem.testing.dataset_suite`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from libertem.testing.dataset_suite import DataSetTests, FilelessDataSetTests

__all__ = ["DataSetTests", "FilelessDataSetTests"]


def __getattr__(name: str) -> Any:
    # The suite needs pytest, which users of synthetic data do not have to install.
    if name in __all__:
        return getattr(import_module("libertem.testing.dataset_suite"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
