"""Ways to look at an array of results: linear, logarithmic, and the parts of complex numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.analysis.base import AnalysisResult
from libertem.viz.images import rgb_from_2dvector, visualize_simple

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

__all__ = ["complex_views", "lin_view", "log_view", "map_result", "views"]

Damage = Any
"""True, or an array of bool: which elements are valid."""


def map_result(
    data: npt.NDArray[Any],
    key: str,
    title: str,
    desc: str,
    damage: Damage = True,
    *,
    logarithmic: bool = False,
    colormap: str | None = None,
) -> AnalysisResult:
    """A result that is shown through a colour map, which happens when somebody looks."""
    return AnalysisResult(
        raw_data=data,
        visualized=lambda: visualize_simple(data, colormap, logarithmic=logarithmic, damage=damage),
        key=key,
        title=title,
        desc=desc,
    )


def lin_view(data: npt.NDArray[Any], key: str, title: str, desc: str, damage: Damage) -> AnalysisResult:
    """Real numbers as they are."""
    return map_result(data, key, f"{title} [lin]", f"{desc} lin-scaled", damage)


def log_view(data: npt.NDArray[Any], key: str, title: str, desc: str, damage: Damage) -> AnalysisResult:
    """Real numbers, on a logarithmic scale where they are shown."""
    return map_result(data, key, f"{title} [log]", f"{desc} log-scaled", damage, logarithmic=True)


def complex_views(
    data: npt.NDArray[Any],
    keys: tuple[str, str],
    base: str,
    title: str,
    desc: str,
    damage: Damage,
) -> list[AnalysisResult]:
    """Six views of complex numbers.

    Parameters
    ----------
    data : array
        Complex.
    keys : tuple of str
        For the magnitude, shown linearly and logarithmically.
    base : str
        The others are called ``<base>_real`` and so on.
    title, desc : str
        The view is appended in brackets.
    damage : array of bool or bool
        Which elements are valid.
    """
    magnitude = np.abs(data)

    def view(key: str, name: str, part: npt.NDArray[Any], **options: Any) -> AnalysisResult:
        return map_result(part, key, f"{title} [{name}]", f"{desc} [{name}]", damage, **options)

    return [
        view(keys[0], "magn", magnitude),
        view(keys[1], "log(magn)", magnitude, logarithmic=True),
        view(f"{base}_real", "real", data.real),
        view(f"{base}_imag", "imag", data.imag),
        view(f"{base}_angle", "angle", np.angle(data)),
        AnalysisResult(
            raw_data=data,
            visualized=lambda: rgb_from_2dvector(y=data.imag, x=data.real),
            key=f"{base}_complex",
            title=f"{title} [complex]",
            desc=f"{desc} [complex]",
        ),
    ]


def views(
    data: npt.NDArray[Any], desc: str, damage: Damage, *, default: Callable[..., AnalysisResult]
) -> list[AnalysisResult]:
    """Results called ``intensity...``: two views of real numbers, six of complex ones.

    Parameters
    ----------
    data : array
        The numbers.
    desc : str
        What they are.
    damage : array of bool or bool
        Which elements are valid.
    default : callable
        `lin_view` or `log_view`: the one that is called ``intensity`` and, for real numbers, comes first.
    """
    keys = ("intensity_lin", "intensity") if default is log_view else ("intensity", "intensity_log")
    if data.dtype.kind == "c":
        return complex_views(data, keys, "intensity", "intensity", desc, damage)
    lin, log = (
        view(data, key, "intensity", desc, damage)
        for view, key in zip((lin_view, log_view), keys, strict=True)
    )
    return [log, lin] if default is log_view else [lin, log]
