"""Finding the scan in what image headers say."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

__all__ = ["MAX_SCAN_START", "ScanGuess", "guess_from_rotator", "infer_scan"]

MAX_SCAN_START = 4096
"""Where the search for the start of the scan and the end of its first row ends, in frames."""


@dataclass(frozen=True)
class ScanGuess:
    """What image headers say about the scan."""

    sync_offset: int
    """Frame of the first scan position."""

    nav_shape: tuple[int, ...]
    """(height, width), or (all frames,) if no second row was found."""


def infer_scan(positions: Iterable[tuple[int, int] | None], image_count: int) -> ScanGuess | None:
    """Find start and width of a scan.

    It starts with the frame before the first at (0, 1) that comes after some frame at (0, 0), and a row ends
    where x decreases. The number of rows follows from the number of frames: those after the scan count, too.

    Parameters
    ----------
    positions : iterable of (y, x) or None
        Of consecutive frames from the first one on; None where there is none.
    image_count : int
        Number of frames.

    Returns
    -------
    ScanGuess or None
        None if no start was found.
    """
    numbered = enumerate(positions)
    origin_seen = False
    for frame_idx, position in numbered:
        if origin_seen and position == (0, 1):
            sync_offset = frame_idx - 1
            break
        origin_seen = origin_seen or position == (0, 0)
    else:
        return None
    max_x = 1
    for _, position in numbered:
        if position is None:
            continue
        if position[1] < max_x:
            n_rows = (image_count - sync_offset) // (max_x + 1)
            # A row with lost frames may be wider than all frames together.
            return ScanGuess(sync_offset, (n_rows, max_x + 1) if n_rows else (image_count,))
        max_x = max(max_x, position[1])
    return ScanGuess(sync_offset, (image_count,))


def guess_from_rotator(
    values: Iterable[int], value_at: Callable[[int], int], image_count: int
) -> ScanGuess | None:
    """Find a square scan by the numbers of its positions.

    The number is constant before the scan, runs from 1 over all positions, and falls back afterwards. This
    is good for a proposal only: lost and repeated frames, and scans that are not square, are not found.

    Parameters
    ----------
    values : iterable of int
        Of consecutive frames from the first one on, as far as the scan should be searched for.
    value_at : callable
        Value of any frame.
    image_count : int
        Number of frames.

    Returns
    -------
    ScanGuess or None
        None if there is no such scan.
    """
    start = None
    previous = None
    for frame_idx, value in enumerate(values):
        if previous is not None and value > previous:
            start = frame_idx - (previous != 0)
            break
        previous = value
    if start is None or value_at(start) != 1:
        return None
    # Bisection: from the last frame of the scan on, numbers are lower than if it went on.
    low, high = start, image_count
    while high - low > 1:
        middle = (low + high) // 2
        if value_at(middle) == middle - start + 1:
            low = middle
        else:
            high = middle
    n = low - start + 1
    side = math.isqrt(n)
    ends = high == image_count or value_at(high) <= 1
    return ScanGuess(start, (side, side)) if ends and side * side == n else None
