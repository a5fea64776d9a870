r"""Write arrays as NumPy files, also in ways that NumPy itself no longer does.

| bytes | content |
|------:|---------|
|     6 | ``\x93NUMPY`` |
|     2 | version |
| 2 or 4 | length of what follows up to the array, little-endian; 4 bytes from version 2 on |
|       | ``{'descr': ..., 'fortran_order': ..., 'shape': ..., }``, spaces, newline |
|       | the array; it starts at a multiple of 64 |

Source: the fact sheet of the format (NEP 1); made without looking at the reader.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt

__all__ = ["write_npy", "write_npy_header"]

ALIGNMENT = 64


def write_npy_header(text: str, version: tuple[int, int] = (1, 0)) -> bytes:
    """Everything before the array, for a given literal."""
    lead = b"\x93NUMPY" + bytes(version)
    n_length = 2 if version[0] == 1 else 4
    body = text.encode("latin-1")
    padding = -(len(lead) + n_length + len(body) + 1) % ALIGNMENT
    body += b" " * padding + b"\n"
    return lead + len(body).to_bytes(n_length, "little") + body


def write_npy(
    path: Path,
    array: npt.NDArray[Any],
    *,
    version: tuple[int, int] = (1, 0),
    python2: bool = False,
) -> Path:
    """Store an array in C order.

    Parameters
    ----------
    version : (int, int)
        Version of the format.
    python2 : bool
        Write extents as Python 2 did: with an ``L`` at the end.
    """
    extents = "".join(f"{extent}{'L' if python2 else ''}, " for extent in array.shape)
    text = f"{{'descr': '{array.dtype.str}', 'fortran_order': False, 'shape': ({extents.rstrip()}), }}"
    path.write_bytes(write_npy_header(text, version) + array.tobytes())
    return path
