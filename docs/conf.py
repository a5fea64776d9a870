"""Configuration of the documentation build."""

from __future__ import annotations

import re
from importlib.metadata import version as installed_version
from typing import Any

project = "libertem"
author = "LiberTEM contributors of this independent implementation"
copyright = f"2026, {author}"  # noqa: A001  the name that Sphinx asks for
release = installed_version("libertem")
version = release

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"libertem {release}"
html_copy_source = False

# `name` in a docstring links to what has that name, and is plain code where nothing has.
default_role = "py:obj"
autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = True
# Members are listed by the template of classes.
numpydoc_show_class_members = False

_TABLE_ROW = re.compile(r"\s*\|.*\|\s*$")
_FENCE = re.compile(r"\s*```")


def show_verbatim(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Turn Markdown tables and fenced blocks, as in the layout tables of formats, into literal blocks."""
    result: list[str] = []
    literal = fenced = False
    for line in lines:
        is_fence = bool(_FENCE.match(line))
        belongs = fenced or is_fence or bool(_TABLE_ROW.match(line))
        if belongs and not literal:
            result += ["", "::", ""]
        elif literal and not belongs:
            result.append("")
        literal = belongs
        if is_fence:
            fenced = not fenced
        else:
            result.append(f"    {line}" if belongs else line)
    lines[:] = result


def setup(app: Any) -> None:
    """Hook into the build."""
    # Before numpydoc, which has priority 500.
    app.connect("autodoc-process-docstring", show_verbatim, priority=400)
