"""Refuse results that do not fit into memory."""

from __future__ import annotations

from libertem.common.memory import available_bytes, format_bytes

__all__ = ["check_fits"]

SHARE = 0.45
"""Of the available memory. While a result is put together, each part of it exists twice for some time."""

ALWAYS_FITS = 16 << 20
"""For so many bytes nobody is asked: that would take as long as reading a frame."""


def check_fits(n_bytes: int, what: str, hint: str) -> None:
    """Refuse what would not leave enough memory for everything else.

    Parameters
    ----------
    n_bytes : int
        Size of a result.
    what : str
        Its name in the sentence.
    hint : str
        What to do instead.

    Raises
    ------
    MemoryError
        With a sentence that says how much is needed, and how much is there.
    """
    if n_bytes <= ALWAYS_FITS:
        return
    available = available_bytes()
    if n_bytes > SHARE * available:
        raise MemoryError(
            f"{what} does not fit into memory: found {format_bytes(n_bytes)}, expected at most "
            f"{format_bytes(SHARE * available)} while {format_bytes(available)} are available ({hint})"
        )
