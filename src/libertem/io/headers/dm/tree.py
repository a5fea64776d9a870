"""A tag tree as plain data, without pixels and of bounded size."""

from __future__ import annotations

from typing import Any

import numpy as np

from libertem.io.headers.dm.tags import DMArray, DMTags, DMValue, Names

__all__ = ["tags_to_dict"]

MAX_TAGS = 5000
MAX_CHARACTERS = 128 << 10
"""Real files have some hundred tags with a few kB of text; copies of parents are what makes them grow."""

LONGEST_ARRAY = 64
"""Longer arrays are described by type and number of elements."""

REMARK = "(more tags)"


def tags_to_dict(tags: DMTags, path: str | Names = (), *, leave_out: Names = ()) -> dict[str, Any]:
    """Tags below a path as nested dicts.

    Parameters
    ----------
    tags : DMTags
        The tree.
    path : str or tuple of str
        Group to start from, as for `DMTags.get`.
    leave_out : tuple of str
        One tag below that, such as the pixels: few pixels of 16 bit look like a text.

    Returns
    -------
    dict
        Names as in the file. What exceeds the bounds is left out, with a remark on the highest level.
    """
    start = tuple(path.split(".")) if isinstance(path, str) else path
    root: dict[str, Any] = {}
    n_tags = n_characters = 0
    for names, value in tags:
        if names[: len(start)] != start or names[len(start) :] == leave_out:
            continue
        plain = _plain(value)
        n_tags += 1
        n_characters += sum(map(len, names)) + (len(plain) if isinstance(plain, str | list) else 8)
        if n_tags > MAX_TAGS or n_characters > MAX_CHARACTERS:
            root[REMARK] = True
            break
        group = root
        for name in names[len(start) : -1]:
            group = group.setdefault(name, {})
        group[names[-1]] = plain
    return root


def _plain(value: DMValue) -> Any:
    if isinstance(value, tuple):
        return list(value)
    if not isinstance(value, DMArray):
        return value
    if value.raw is None or value.count > LONGEST_ARRAY:
        return f"array of {value.count} {value.dtype}"
    return np.frombuffer(value.raw, dtype=value.dtype).tolist()
