"""The one way to compile kernels.

Kernels are compiled when first called, release the GIL and are cached on disk. numba (0.35 s) is
imported by this module, so only modules that define kernels import it, and those are loaded on first use.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from importlib import metadata
from typing import Any, TypeVar, cast

import numba
from numba import extending
from numba.core import entrypoints

__all__ = ["inline_jit", "intrinsic", "jit"]

F = TypeVar("F", bound=Callable[..., object])

# "reassoc" lets sums run in vector lanes. NaN and infinity keep their meaning.
_FLOAT_RULES = {"reassoc", "nsz", "contract"}


def jit(fn: F) -> F:
    """Compile a kernel: no GIL, no bounds checks, cached on disk, floats summed in any order."""
    return cast("F", numba.njit(fn, nogil=True, cache=True, fastmath=_FLOAT_RULES, error_model="numpy"))


def inline_jit(fn: F) -> F:
    """Compile a helper that disappears into the kernels that call it."""
    return cast("F", numba.njit(fn, inline="always"))


def intrinsic(build: Callable[..., Any]) -> Any:
    """Make a function for kernels of one that writes machine code; the compiler passes the typing context."""
    return extending.intrinsic(build)


@cache
def _extensions() -> list[Any]:
    return list(metadata.entry_points(group="numba_extensions", name="init"))


_initialized: set[str] = set()


def _init_loaded_extensions() -> None:
    """Initialize the numba extensions of packages that are in use.

    numba asks for this whenever it looks for implementations, and would by itself import every installed
    package that has an extension: `sparse`, and with it `scipy.sparse`, for a kernel that adds integers.
    A package that is imported later is initialized at the next occasion, before an object of it can
    reach a kernel.
    """
    for extension in _extensions():
        package = extension.value.partition(":")[0].partition(".")[0]
        if package in sys.modules and extension.value not in _initialized:
            _initialized.add(extension.value)
            extension.load()()


# Private to numba; where it is gone, numba loads what it likes and everything else still works.
if hasattr(entrypoints, "init_all") and not getattr(entrypoints, "_already_initialized", True):
    entrypoints.init_all = _init_loaded_extensions
