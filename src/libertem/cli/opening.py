"""Open the data set that a command line names, and talk about it."""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from libertem.api import Context, DataSet

__all__ = ["opened", "refuse_to_overwrite", "say", "say_json", "wants_progress", "warn"]


@contextmanager
def opened(
    options: argparse.Namespace, *, threads: bool = True
) -> Iterator[tuple[Context, DataSet, list[str]]]:
    """The data set, the context that it was opened with, and what had to be said about it.

    Parameters
    ----------
    options : argparse.Namespace
        From the command line.
    threads : bool, optional
        Use all cores; not worth starting where only headers are read.

    Raises
    ------
    DataSetException
        If the data set cannot be opened.
    """
    arguments: dict[str, Any] = {"path": options.path, **dict(options.param)}
    for name in ("nav_shape", "sig_shape"):
        if getattr(options, name) is not None:
            arguments[name] = getattr(options, name)
    with Context() if threads else Context.make_with("inline") as ctx:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            dataset = ctx.load(options.type, **arguments)
        # Each sentence once. What is deprecated concerns programs.
        notices = dict.fromkeys(
            str(one.message) for one in caught if not issubclass(one.category, DeprecationWarning)
        )
        yield ctx, dataset, list(notices)


def wants_progress(options: argparse.Namespace) -> bool:
    """Whether somebody looks at the standard error, where progress bars are drawn."""
    return not options.quiet and sys.stderr.isatty()


def refuse_to_overwrite(path: str, options: argparse.Namespace) -> None:
    """Leave alone what exists, unless told otherwise, and the data set itself in any case.

    Raises
    ------
    FileExistsError
        If there is something at `path`.
    ValueError
        If it is the file that is read.
    """
    if not os.path.lexists(path):
        return
    if os.path.exists(options.path) and os.path.exists(path) and os.path.samefile(path, options.path):
        raise ValueError(f"{path}: this is the file that is to be read (choose another name)")
    if not options.overwrite:
        raise FileExistsError(f"{path}: exists already (use --overwrite to replace it)")


def warn(notices: Sequence[str], options: argparse.Namespace) -> None:
    """Tell what had to be said about a data set."""
    if not options.quiet:
        for notice in notices:
            sys.stderr.write(f"libertem: warning: {notice}\n")


def say(line: str = "") -> None:
    """A line on the standard output, whatever letters the terminal knows."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(line.encode(encoding, "replace").decode(encoding) + "\n")


def say_json(content: Any) -> None:
    """JSON on the standard output; numbers that JSON does not know become None."""
    sys.stdout.write(json.dumps(_plain(content), indent=2, allow_nan=False) + "\n")


def _plain(content: Any) -> Any:
    if isinstance(content, dict):
        return {str(name): _plain(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    if isinstance(content, float) and (content != content or abs(content) == float("inf")):
        return None
    return content
