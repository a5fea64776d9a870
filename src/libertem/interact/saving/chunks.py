"""Options of formats that cut arrays into chunks."""

from __future__ import annotations

from typing import Any

from libertem.interact.saving.contract import Output

__all__ = ["check_chunks", "default_chunks"]

CHUNK_BYTES = 1 << 20
"""Small frames share a chunk up to this size."""


def default_chunks(output: Output) -> tuple[int, ...]:
    """Whole frames, several of a row where they are small."""
    per_chunk = max(1, CHUNK_BYTES // max(1, output.frame_bytes))
    nav = output.nav_shape
    return (*(1 for _ in nav[:-1]), *(min(per_chunk, n) for n in nav[-1:]), *output.sig_shape)


def check_chunks(chunks: Any, output: Output) -> tuple[int, ...]:
    """Chunks as a user gave them.

    Raises
    ------
    ValueError
        If they do not fit the shape.
    """
    shape = output.shape
    try:
        found = tuple(int(extent) for extent in chunks)
    except (TypeError, ValueError):
        found = ()
    if len(found) != len(shape) or not all(1 <= c <= n for c, n in zip(found, shape, strict=True)):
        raise ValueError(
            f"chunks: found {chunks!r}, expected {len(shape)} numbers from 1 to the extents of {shape}"
        )
    return found
