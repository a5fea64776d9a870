"""Write sparse data in CSR form: a TOML file, and three files without headers.

Source: the fact sheet of the format; made without looking at the reader.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["SparseFrames", "sparse_frames", "write_raw_csr"]

TOML = """\
[params]
filetype = "{filetype}"
nav_shape = {nav_shape}
sig_shape = {sig_shape}

[{filetype}]
indptr_file = "{stem}.indptr.dat"
indptr_dtype = "{indptr_dtype}"
indices_file = "{stem}.indices.dat"
indices_dtype = "{indices_dtype}"
data_file = "{stem}.data.dat"
data_dtype = "{data_dtype}"
"""


class SparseFrames(NamedTuple):
    """Some frames of which only a few pixels are stored."""

    counts: npt.NDArray[Any]
    """Number of stored pixels of each frame."""

    columns: npt.NDArray[Any]
    """Flat index in the frame, for each stored pixel."""

    values: npt.NDArray[Any]
    """Value of each stored pixel."""


def sparse_frames(frames: npt.NDArray[Any]) -> SparseFrames:
    """The pixels of `frames`, ``(n, *sig)``, that are not zero. NaN and -0.0 are stored."""
    flat = frames.reshape(frames.shape[0], math.prod(frames.shape[1:]))
    stored = flat != 0
    if flat.dtype.kind in "fc":
        stored |= np.signbit(flat.real) | np.signbit(flat.imag)
    rows, columns = np.nonzero(stored)
    return SparseFrames(np.bincount(rows, minlength=flat.shape[0]), columns, flat[rows, columns])


def write_raw_csr(
    path: Path,
    pieces: Iterable[SparseFrames],
    nav_shape: Sequence[int],
    sig_shape: Sequence[int],
    *,
    indptr_dtype: str = "<i8",
    indices_dtype: str = "<i4",
    data_dtype: str = "<f4",
    filetype: str = "raw_csr",
) -> Path:
    """Store frames, piece by piece.

    Parameters
    ----------
    path : Path
        Of the TOML file; the others get names that begin like it.
    pieces : iterable of SparseFrames
        All frames in order.
    nav_shape, sig_shape : sequence of int
        As to be written to the TOML file.
    indptr_dtype, indices_dtype, data_dtype : str
        Of the three files.
    filetype : str
        As to be written, also as the name of the second table.
    """
    toml = TOML.format(
        filetype=filetype,
        nav_shape=[int(extent) for extent in nav_shape],
        sig_shape=[int(extent) for extent in sig_shape],
        stem=path.stem,
        indptr_dtype=indptr_dtype,
        indices_dtype=indices_dtype,
        data_dtype=data_dtype,
    )
    path.write_text(toml, encoding="utf-8")
    names = [path.with_name(f"{path.stem}.{role}.dat") for role in ("indptr", "indices", "data")]
    n_values = 0
    with names[0].open("wb") as indptr, names[1].open("wb") as indices, names[2].open("wb") as data:
        np.zeros(1, dtype=indptr_dtype).tofile(indptr)
        for piece in pieces:
            edges = n_values + np.cumsum(piece.counts, dtype=np.int64)
            edges.astype(indptr_dtype).tofile(indptr)
            piece.columns.astype(indices_dtype).tofile(indices)
            piece.values.astype(data_dtype).tofile(data)
            n_values += int(np.sum(piece.counts, dtype=np.int64))
    return path
