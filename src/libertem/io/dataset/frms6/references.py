"""Dark frame and gain map of an acquisition, in the shape of the images.

The dark frame is the mean of all frames in the file with number 0, folded like any other frame.

A gain map is a file that somebody has made from measurements:

| extension | content |
|---|---|
| ``.mat`` | MATLAB file with a matrix ``GainMap`` of (rows, columns) |
| ``.csv`` | text; columns of the image as lines, pixels separated by ``;`` |
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from libertem.exceptions import DataSetException, ShapeError
from libertem.io.dataset.base.backends.rawio import RawFile
from libertem.io.dataset.base.framefile import file_size, read_head
from libertem.io.dataset.frms6.acquisition import FRAME_HEADER_BYTES, HEADER_BYTES, FRMS6File
from libertem.io.dataset.frms6.matlab import read_matrix
from libertem.io.dataset.frms6.packing import fold_frame

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["read_dark_frame", "read_gain_map"]

GAIN_MAP_VARIABLE = "GainMap"

CHUNK_BYTES = 4 << 20
"""Dark frames that are in memory at a time."""

MAX_BYTES_PER_PIXEL = 64
"""Longer numbers than these are no numbers."""
MAX_OTHER_BYTES = 1 << 20
"""In a file besides the gain map."""


def read_dark_frame(file: FRMS6File, binning: int) -> npt.NDArray[np.float32]:
    """Mean of all dark frames, in float32 and of the shape of an image.

    Raises
    ------
    DataSetException
        If there is no dark frame.
    """
    if file.n_frames < 1:
        raise DataSetException(
            "the file for dark frames contains none",
            path=file.path,
            expected="at least one",
            hint="pass enable_offset_correction=False to read the frames without offset correction",
        )
    # Sums of integers are exact, whatever the number of frames.
    total = np.zeros(file.frame_bytes // 2, dtype=np.uint64)
    depth = min(file.n_frames, max(1, CHUNK_BYTES // file.stride))
    chunk = np.empty((depth, file.stride), dtype=np.uint8)
    with RawFile(file.path) as opened:
        for start in range(0, file.n_frames, depth):
            frames = chunk[: file.n_frames - start]
            opened.read_into(frames.reshape(-1), HEADER_BYTES + start * file.stride)
            total += frames[:, FRAME_HEADER_BYTES:].view("<u2").sum(axis=0, dtype=np.uint64)
    mean = (total / file.n_frames).astype(np.float32)
    return fold_frame(mean.reshape(file.raw_shape), binning)


def read_gain_map(path: str, sig_shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Gain map from a ``.mat`` or ``.csv`` file.

    Parameters
    ----------
    path : str
        The file.
    sig_shape : (int, int)
        Shape of an image.

    Raises
    ------
    DataSetException
        If the file cannot be read, or has no map of that shape.
    """
    extension = os.path.splitext(path)[1].lower()
    if extension not in (".mat", ".csv"):
        raise DataSetException(
            "unknown kind of gain map", path=path, found=repr(extension), expected=".mat or .csv"
        )
    limit = MAX_BYTES_PER_PIXEL * sig_shape[0] * sig_shape[1] + MAX_OTHER_BYTES
    if file_size(path) > limit:
        raise DataSetException(
            "the file is too long for a gain map",
            path=path,
            found=f"{file_size(path)} bytes",
            expected=f"at most {limit} for {sig_shape} pixels",
        )
    gain = read_matrix(path, GAIN_MAP_VARIABLE, limit) if extension == ".mat" else _read_csv(path)
    if gain.shape != sig_shape:
        raise ShapeError(
            "the gain map does not fit the frames", path=path, found=gain.shape, expected=sig_shape
        )
    return gain


def _read_csv(path: str) -> npt.NDArray[np.float64]:
    text = read_head(path, file_size(path)).raw.decode("utf-8-sig", "replace")
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            pixels = [float(cell) for cell in line.split(";") if cell.strip()]
        except ValueError as err:
            raise DataSetException(
                "the gain map has something that is no number", path=path, found=f"in line {number}, {err}"
            ) from err
        if pixels:
            lines.append(pixels)
    lengths = sorted({len(pixels) for pixels in lines})
    if len(lengths) != 1:
        raise DataSetException(
            "the lines of the gain map are not equally long",
            path=path,
            found=f"{len(lines)} lines of {lengths[:5]} numbers",
        )
    return np.array(lines, dtype=np.float64).T
