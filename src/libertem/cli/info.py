"""``libertem info``: say what a file is, and how to open it in Python."""

from __future__ import annotations

import argparse
from typing import Any

from libertem.cli.command import DONE
from libertem.cli.opening import opened, say, say_json, warn
from libertem.interact.description import Description, describe

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Print what is known about the data set; only headers are read."""
    with opened(options, threads=False) as (_, dataset, notices):
        known = describe(dataset, absolute=True)
    line = None if known.load is None else f"import libertem.api as lt; ds = lt.Context().{known.load}"
    if options.json:
        content = {**known.to_dict(), "load": line, "notices": notices}
        if options.header:
            content["header"] = dict(known.metadata.header)
        say_json(content)
        return DONE
    warn(notices, options)
    _print(known)
    if options.header:
        _print_header(known.metadata.header)
    if line is not None:
        say("\nto open it in Python:")
        say(f"  {line}")
    return DONE


def _print(known: Description) -> None:
    rows = [("type", f"{known.type_name or '(not registered)'} ({known.class_name})"), *known.summary()]
    for name, value in known.metadata.quantities():
        source = getattr(value, "source", "")
        rows.append((name.replace("_", " "), f"{value}   [{source}]" if source else str(value)))
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        say(f"{name:{width}}  {text}")


def _print_header(header: Any, indent: str = "  ") -> None:
    if indent == "  ":
        say("\nraw header:" if header else "\nraw header: nothing")
    for name, value in header.items():
        if isinstance(value, dict):
            say(f"{indent}{name}:")
            _print_header(value, indent + "  ")
        else:
            say(f"{indent}{name}: {value}")
