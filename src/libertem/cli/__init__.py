"""The command ``libertem``: look at data sets, convert and check them, without a line of Python."""

from __future__ import annotations

from libertem.cli.command import main

__all__ = ["main"]
