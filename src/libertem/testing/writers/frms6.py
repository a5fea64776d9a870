"""Write the files of a pnCCD acquisition: a ``.hdr`` file and numbered ``.frms6`` files.

Source: the fact sheet of the format; made without looking at the reader.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["make_frms6_header", "make_frms6_raw", "write_frms6", "write_frms6_file", "write_frms6_hdr"]

FRAME_HEADER = np.dtype(
    [
        ("start_line", "u1"),
        ("flags", "u1"),
        ("ccd", "u1"),
        ("lines", "u1"),
        ("seconds", "<u4"),
        ("microseconds", "<u4"),
        ("index", "<u4"),
        ("temperature", "<f8"),
        ("true_start_line", "<u2"),
        ("true_lines", "<u2"),
        ("trigger", "<u4"),
        ("bunch", "<u8"),
        ("fill", "V24"),
    ]
)
assert FRAME_HEADER.itemsize == 64


def make_frms6_raw(images: npt.NDArray[Any], binning: int = 1) -> npt.NDArray[np.uint16]:
    """Frames as the sensor is read out: upper half, beside it the lower half turned by 180°.

    Parameters
    ----------
    images : numpy.ndarray
        ``(n, height, width)``, with each row `binning` times and an even number of different rows.
    binning : int
        Rows of the sensor that are stored as one.

    Raises
    ------
    ValueError
        If the images do not have such rows.
    """
    binned = images[:, ::binning]
    half = binned.shape[1] // 2
    if images.shape[1] != 2 * half * binning or (np.repeat(binned, binning, axis=1) != images).any():
        raise ValueError(f"the rows of images of shape {images.shape} are not binned by {binning}")
    upper, lower = binned[:, :half], binned[:, half:]
    return np.concatenate([upper, np.rot90(lower, 2, axes=(1, 2))], axis=2).astype("<u2")


def make_frms6_header(
    raw_shape: tuple[int, int], n_frames: int, *, patches: Mapping[int, bytes] | None = None
) -> bytes:
    """The first 1024 bytes of a file.

    Parameters
    ----------
    raw_shape : (int, int)
        Rows and columns of stored frames.
    n_frames : int
        0 in old files.
    patches : mapping, optional
        Bytes to overwrite, by offset.
    """
    height, width = raw_shape
    header = bytearray(1024)
    struct.pack_into("<HH4B", header, 0, 1024, 64, 1, width & 0xFF, height & 0xFF, 6)
    struct.pack_into("<80sHH", header, 8, b"synthetic", width, height)
    struct.pack_into("<I", header, 1020, n_frames)
    for offset, patch in (patches or {}).items():
        header[offset : offset + len(patch)] = patch
    return bytes(header)


def write_frms6_file(
    path: Path,
    raw: npt.NDArray[np.uint16],
    *,
    has_count: bool = True,
    patches: Mapping[int, bytes] | None = None,
) -> Path:
    """Store frames as made by `make_frms6_raw`.

    Parameters
    ----------
    has_count : bool
        Whether the header says how many frames there are.
    patches : mapping, optional
        Bytes of the header to overwrite, by offset.
    """
    n, height, width = raw.shape
    frames = np.empty(n, dtype=[("header", FRAME_HEADER), ("pixels", "<u2", (height, width))])
    frames["header"] = np.zeros((), dtype=FRAME_HEADER)
    frames["header"]["lines"] = height & 0xFF
    frames["header"]["seconds"] = 1600000000
    frames["header"]["microseconds"] = frames["header"]["index"] = np.arange(n)
    frames["header"]["fill"] = np.void(b"\xab" * 24)
    frames["pixels"] = raw
    with path.open("wb") as file:
        file.write(make_frms6_header((height, width), n if has_count else 0, patches=patches))
        file.write(frames.data)
    return path


def write_frms6_hdr(path: Path, values: Mapping[str, object], section: str = "measurementInfo") -> Path:
    """Store a ``.hdr`` file with one section."""
    lines = [f"[{section}]", *(f"{key}={value}" for key, value in values.items())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_frms6(
    folder: Path,
    files: Iterable[npt.NDArray[Any]],
    nav_shape: tuple[int, int],
    *,
    binning: int = 1,
    dark: npt.NDArray[Any] | None = None,
    name: str = "scan",
    has_counts: bool = True,
    values: Mapping[str, object] | None = None,
) -> Path:
    """Store a whole acquisition.

    Parameters
    ----------
    folder : Path
        Where to put the files.
    files : iterable of numpy.ndarray
        For each file the images ``(n, height, width)``, see `make_frms6_raw`.
    nav_shape : (int, int)
        Shape of the scan.
    binning : int
        Rows of the sensor that are stored as one.
    dark : numpy.ndarray, optional
        Images for the file of dark frames. It is left out without them.
    name : str
        How all names start.
    has_counts : bool
        Whether headers say how many frames there are.
    values : mapping, optional
        Keys of the ``.hdr`` file to replace.

    Returns
    -------
    Path
        The ``.hdr`` file.
    """
    n_frames, windowing = 0, "1 x 1"
    for number, images in enumerate(files, start=1):
        raw = make_frms6_raw(images, binning)
        write_frms6_file(folder / f"{name}_{number:03}.frms6", raw, has_count=has_counts)
        n_frames += len(images)
        windowing = f"1 x {images.shape[2]}"
    if dark is not None:
        write_frms6_file(folder / f"{name}_000.frms6", make_frms6_raw(dark, binning), has_count=has_counts)
    content = {
        "darkFrames": 0 if dark is None else len(dark),
        "dwellTimeMicroseconds": 1000,
        "gain": 1,
        "signalFrames": n_frames,
        "STEMImageSize": "x".join(map(str, nav_shape)),
        "readoutMode": f'"bin: {binning}, windowing: {windowing}"',
        **(values or {}),
    }
    return write_frms6_hdr(folder / f"{name}.hdr", content)
