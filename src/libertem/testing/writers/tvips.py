"""Write image series as TVIPS cameras do: one or more files, each with whole frames.

| bytes | content |
|------:|---------|
|   256 | series header, in the first file only |
|     H | image header of a frame: 12 bytes in version 1; of version 2, as many fields as fit |
|       | pixels, little-endian; the next frame follows at once |

Source: the fact sheet of the format; made without looking at the reader.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["make_scan", "make_tvips_header", "write_tvips"]

ROW_DTYPE = np.dtype([("y", "f4"), ("x", "f4"), ("rotator", "u4")])

FIELDS = {
    "counter": ("<u4", 0),
    "time": ("<u4", 4),
    "milliseconds": ("<u4", 8),
    "rotator": ("<u4", 48),
    "x": ("<f4", 68),
    "y": ("<f4", 72),
}

START_TIME = 0x5F5E1000


def make_scan(nav_shape: tuple[int, int], lead: int = 0, trail: int = 0) -> npt.NDArray[Any]:
    """Scan positions of frames: structured array with the fields y, x and rotator.

    Parameters
    ----------
    nav_shape : (int, int)
        Rows and columns of the scan.
    lead, trail : int
        Frames before and after it, at (0, 0).
    """
    height, width = nav_shape
    rows = np.zeros(lead + height * width + trail, dtype=ROW_DTYPE)
    scan = rows[lead : lead + height * width]
    scan["y"], scan["x"] = np.divmod(np.arange(height * width), width)
    scan["rotator"] = np.arange(1, height * width + 1)
    rows["rotator"][lead + height * width :] = 1
    return rows


def make_tvips_header(
    sig_shape: tuple[int, int],
    bits: int,
    *,
    version: int = 2,
    image_header_bytes: int = 108,
    patches: Mapping[int, bytes] | None = None,
) -> bytes:
    """The 256 bytes at the start of the first file.

    Parameters
    ----------
    sig_shape : (int, int)
        Rows and columns of a frame.
    bits : int
        Bits per pixel.
    version : int
        1 or 2.
    image_header_bytes : int
        What version 2 says about image headers.
    patches : mapping, optional
        Bytes to overwrite, by offset.
    """
    height, width = sig_shape
    numbers = (256, version, width, height, bits, 0, 0, 1, 1, 15500, 200, 80, image_header_bytes)
    header = bytearray(struct.pack("<13i", *numbers) + b"TVIPS " * 34)
    for offset, patch in (patches or {}).items():
        header[offset : offset + len(patch)] = patch
    return bytes(header)


def write_tvips(
    path: Path,
    slabs: Iterable[npt.NDArray[Any]],
    scan: npt.NDArray[Any] | None = None,
    *,
    version: int = 2,
    image_header_bytes: int = 108,
    splits: Sequence[int] = (),
    patches: Mapping[int, bytes] | None = None,
) -> Path:
    """Store frames of 8 or 16 bit unsigned integers.

    Parameters
    ----------
    path : Path
        The first file. Its name should end in ``_000.tvips``.
    slabs : iterable of numpy.ndarray
        The frames in order, any number at a time: arrays (n, height, width), all of one dtype.
    scan : numpy.ndarray, optional
        Scan position of each frame, as `make_scan` gives it; zeros by default.
    version : int
        1 or 2. Image headers of version 1 have 12 bytes.
    image_header_bytes : int
        Size of the image headers of version 2.
    splits : sequence of int
        Numbers of the frames that start another file.
    patches : mapping, optional
        Bytes of the series header to overwrite, by offset.

    Returns
    -------
    Path
        The first file.
    """
    if version == 1:
        image_header_bytes = 12
    target = path
    n_files = 1
    for first, slab in _cut(slabs, splits):
        if first == 0:
            header = make_tvips_header(
                slab.shape[1:],
                8 * slab.dtype.itemsize,
                version=version,
                image_header_bytes=image_header_bytes,
                patches=patches,
            )
            target.write_bytes(header)
        if first in splits:
            target = path.with_name(f"{path.stem[:-3]}{n_files:03}{path.suffix}")
            target.write_bytes(b"")
            n_files += 1
        with target.open("ab") as file:
            file.write(_records(slab, first, scan, image_header_bytes).data)
    return path


def _cut(slabs: Iterable[npt.NDArray[Any]], splits: Sequence[int]) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Parts of slabs that lie in one file, with the number of their first frame."""
    first = 0
    for slab in slabs:
        borders = [split - first for split in splits if first < split < first + len(slab)]
        for start, stop in itertools.pairwise([0, *borders, len(slab)]):
            yield first + start, slab[start:stop]
        first += len(slab)


def _records(
    slab: npt.NDArray[Any], first: int, scan: npt.NDArray[Any] | None, image_header_bytes: int
) -> npt.NDArray[Any]:
    pixels = np.dtype((f"<u{slab.dtype.itemsize}", slab.shape[1:]))
    present = {
        name: (kind, offset) for name, (kind, offset) in FIELDS.items() if offset + 4 <= image_header_bytes
    }
    record = np.dtype(
        {
            "names": [*present, "pixels"],
            "formats": [*(kind for kind, _ in present.values()), pixels],
            "offsets": [*(offset for _, offset in present.values()), image_header_bytes],
            "itemsize": image_header_bytes + pixels.itemsize,
        }
    )
    frames = np.arange(first, first + len(slab))
    content: dict[str, Any] = {
        "pixels": slab,
        "counter": frames,
        "time": START_TIME,
        "milliseconds": frames % 1000,
    }
    if scan is not None:
        content.update({name: scan[name][first : first + len(slab)] for name in ROW_DTYPE.fields or ()})
    records = np.zeros(len(slab), dtype=record)
    for name in ("pixels", *present):
        records[name] = content.get(name, 0)
    return records
