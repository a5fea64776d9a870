"""The one way to compile kernels.

Kernels are compiled when first called, release the GIL and are cached on disk. numba (0.35 s) is
imported by this module, so only modules that define kernels import it, and those are loaded on first use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

__all__ = ["inline_jit", "jit"]

F = TypeVar("F", bound=Callable[..., object])

# "reassoc" lets sums run in vector lanes. NaN and infinity keep their meaning.
_FLOAT_RULES = {"reassoc", "nsz", "contract"}


def jit(fn: F) -> F:
    """Compile a kernel: no GIL, no bounds checks, cached on disk, floats summed in any order."""
    return cast("F", numba.njit(fn, nogil=True, cache=True, fastmath=_FLOAT_RULES, error_model="numpy"))


def inline_jit(fn: F) -> F:
    """Compile a helper that disappears into the kernels that call it."""
    return cast("F", numba.njit(fn, inline="always"))
