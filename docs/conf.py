"""Configuration of the documentation build."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version as installed_version
from pathlib import Path
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
exclude_patterns = ["_build", "_figures"]
templates_path = ["_templates"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"libertem {release}"
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["pages.css"]

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
_CODE_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# Pages whose code makes the pictures that they show.
PAGES_WITH_FIGURES = ("tutorial",)


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


def make_figures(app: Any) -> None:
    """Run the code of pages in `_figures/<page>/`, unless that has been done since the page was changed."""
    for name in PAGES_WITH_FIGURES:
        page = Path(app.srcdir, f"{name}.md")
        folder = Path(app.srcdir, "_figures", name)
        script = folder / "page.py"
        code = "\n".join(_CODE_BLOCK.findall(page.read_text(encoding="utf-8")))
        if script.exists() and script.read_text(encoding="utf-8") == code:
            continue
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        run = subprocess.run(
            [sys.executable, "-c", code],
            cwd=folder,
            env={**os.environ, "MPLBACKEND": "Agg"},
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode != 0:
            raise RuntimeError(f"the code of {page} fails:\n{run.stderr}")
        script.write_text(code, encoding="utf-8")


def setup(app: Any) -> None:
    """Hook into the build."""
    app.connect("builder-inited", make_figures)
    # Before numpydoc, which has priority 500.
    app.connect("autodoc-process-docstring", show_verbatim, priority=400)
