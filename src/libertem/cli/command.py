"""The command line: what can be asked for, and how it ends.

Nothing but the parser is loaded before it is known what to do: ``libertem --help`` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from libertem import __version__

__all__ = ["DONE", "FAILED", "INTERRUPTED", "WRONG_USE", "main"]

DONE = 0
FAILED = 1
"""It could not be done; or ``check`` has found damage or a warning."""
WRONG_USE = 2
"""The command line makes no sense."""
INTERRUPTED = 130
"""As shells report Ctrl-C: 128 + SIGINT."""
NOBODY_READS = 141
"""As shells report a closed pipe: 128 + SIGPIPE."""

_EPILOG = (
    "exit status: 0 if all is well; 1 if a file cannot be opened, read or written, or if check found damage "
    "or a warning; "
    "2 for a wrong command line; 130 after Ctrl-C"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        Exit status.
    """
    try:
        options = _parser().parse_args(argv)
    except SystemExit as end:
        # How argparse ends, after help or after an error that it has explained.
        return end.code if isinstance(end.code, int) else WRONG_USE
    try:
        status: int = import_module(f"libertem.cli.{options.command}").run(options)
        # While errors can still be told from success.
        sys.stdout.flush()
    except KeyboardInterrupt:
        _complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # Python would complain once more when it closes the standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOBODY_READS
    except Exception as err:
        if options.debug:
            raise
        # Late: loading it takes a moment.
        from libertem.cli.errors import sentence

        _complain(sentence(err))
        return FAILED
    return status


def _complain(text: str) -> None:
    sys.stderr.write(f"libertem: {text}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="libertem",
        description="Look at data sets of electron microscopy, convert them, check them.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"libertem {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    info = _command(commands, "info", "say what a file is, and how to open it in Python")
    info.add_argument("--header", action="store_true", help="also show the raw header of the file")

    view = _command(commands, "view", "draw mean frame, bright field, dark field and centre of mass")
    view.add_argument(
        "-o", "--output", metavar="FILE", help="picture to write: .png, .pdf, .svg (default: PATH + .png)"
    )
    view.add_argument("--at", type=_position, metavar="Y,X", help="only draw the frame at this scan position")
    view.add_argument("--overwrite", action="store_true", help="replace an existing picture")

    convert = _command(commands, "convert", "write the data to a file of another format")
    convert.add_argument(
        "output",
        metavar="OUT",
        help="file to write; its extension says the format: .npy .h5 .hdf5 .hspy .emd .zarr .tif .raw",
    )
    convert.add_argument("--overwrite", action="store_true", help="replace an existing file")
    convert.add_argument("--dtype", help="of the file to write (default: as it is)")
    convert.add_argument(
        "--option",
        type=_pair,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of the format to write, such as compression=gzip; may be given several times",
    )

    _command(commands, "check", "read everything and report damage")
    return parser


def _command(commands: Any, name: str, purpose: str) -> argparse.ArgumentParser:
    """A command with what all of them have in common."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.", epilog=_EPILOG
    )
    parser.add_argument("path", metavar="PATH", help="file of the data set")
    group = parser.add_argument_group("opening the data set")
    group.add_argument("--type", default="auto", help="such as mib, hdf5, raw (default: found out)")
    group.add_argument("--nav-shape", type=_shape, metavar="Y,X", help="shape of the scan")
    group.add_argument("--sig-shape", type=_shape, metavar="Y,X", help="shape of one frame")
    group.add_argument(
        "--param",
        type=_pair,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any other parameter of the format, such as dtype=uint16 or sync_offset=3; may be given several "
        "times",
    )
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="print JSON")
    output.add_argument("--quiet", action="store_true", help="no progress bar, no warnings")
    output.add_argument("--debug", action="store_true", help="show where an error comes from")
    return parser


def _integers(text: str, meaning: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected {meaning} such as 64,128, found {text!r}") from None


def _shape(text: str) -> tuple[int, ...]:
    shape = _integers(text, "a shape")
    if min(shape) < 1:
        raise argparse.ArgumentTypeError(f"expected a shape of positive numbers, found {text!r}")
    return shape


def _position(text: str) -> tuple[int, ...]:
    return _integers(text, "a scan position")


def _pair(text: str) -> tuple[str, Any]:
    """Name and value; a value that is no Python literal is a text."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, found {text!r}")
    # Not at the top: hardly anybody needs it.
    import ast

    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value
