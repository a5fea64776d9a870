"""Errors in one sentence, in the words of the command line."""

from __future__ import annotations

import re

from libertem.exceptions import DataSetException

__all__ = ["sentence"]

# What the library advises to write in Python, and what that is here.
_ADVICE = (
    ('as in ctx.load("raw", ...)', "as in --type raw"),
    ("pass nav_shape=(height, width)", "give --nav-shape HEIGHT,WIDTH"),
    ("leave nav_shape out", "leave --nav-shape out"),
    ("leave sig_shape out", "leave --sig-shape out"),
    ("overwrite=True", "--overwrite"),
)

# How Python says that arguments do not fit a constructor, and what that means here.
_WRONG_ARGUMENTS = (
    (
        re.compile(r"^\S+\(\) missing \d+ required [\w -]*arguments?: (.*)$"),
        r"this type needs more to be known: \1 (give --param NAME=VALUE)",
    ),
    (
        re.compile(r"^\S+\(\) got an unexpected keyword argument ('\w+').*$"),
        r"this type has no parameter \1 (given with --param)",
    ),
)

_EXPECTED = (DataSetException, OSError, ValueError, TypeError, IndexError, ImportError, MemoryError)
"""Kinds of errors that tell people what they have to know. Others are mistakes of this library."""


def sentence(err: BaseException) -> str:
    """What went wrong, in one line."""
    text = str(err).strip() or type(err).__name__
    if isinstance(err, DataSetException):
        # The long list of what each type says about the file is for --debug.
        before, listed, _ = text.partition(" The types that were tried:")
        if listed:
            hint = f" ({err.hint}; --debug shows what each type says)" if err.hint else ""
            text = f"{before.rstrip('.')}{hint}"
    elif isinstance(err, MemoryError) and text == "MemoryError":
        text = "there is not enough memory"
    elif not isinstance(err, _EXPECTED):
        text = f"unexpected {type(err).__name__}: {text} (--debug shows where it comes from)"
    for pattern, here in _WRONG_ARGUMENTS:
        text = pattern.sub(here, text)
    for python, here in _ADVICE:
        text = text.replace(python, here)
    return " ".join(text.split())
