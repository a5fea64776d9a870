"""Categories of the warnings that are the library's own."""

from __future__ import annotations

__all__ = ["UseDiscouragedWarning"]


class UseDiscouragedWarning(FutureWarning):
    """Something works, but there is a better way that will outlive it."""
