"""Write the nine files of a K2 IS camera: eight sectors and the tags.

A sector's file is nothing but blocks of 22360 bytes, 32 per frame: a header of 40 bytes, big-endian, and 930
rows of 16 pixels with 12 bit each. The blocks of a frame come right to left, the upper half first.

Recording starts and ends at any block, and in each file at another one: `leading` and `trailing` leave out
blocks.

Source: the fact sheet of the format; made without looking at the reader.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

__all__ = [
    "BLOCK_BYTES",
    "BLOCK_HEADER",
    "K2ISStream",
    "make_gtg",
    "pack_sector",
    "write_k2is",
    "write_sparse_k2is",
]

N_SECTORS = 8
BLOCK_BYTES = 0x5758
BLOCK_ROWS, BLOCK_COLUMNS = 930, 16
BLOCKS_PER_FRAME = 32
FRAME_SHAPE = (1860, 2048)

BLOCK_HEADER = np.dtype(
    [
        ("sync", ">u4"),
        ("unknown_4", "V4"),
        ("version", "u1"),
        ("flags", "u1"),
        ("unknown_10", "V6"),
        ("block_count", ">u4"),
        ("width", ">u2"),
        ("height", ">u2"),
        ("frame_id", ">u4"),
        ("first_x", ">u2"),
        ("first_y", ">u2"),
        ("last_x", ">u2"),
        ("last_y", ">u2"),
        ("block_size", ">u4"),
    ]
)
"""Of each block; its size is 40 bytes."""


@dataclass(frozen=True)
class K2ISStream:
    """What the headers of a stream say, and what of it was recorded."""

    first_active: int = 0
    """Frame from which on the shutter flag is set."""

    flags: tuple[int, int] = (0, 1)
    """Flags before and from then on."""

    frame_ids: Sequence[int] | None = None
    """One for each frame; counted from 100 by default."""

    first_block_count: int = 1000
    """Count of the first block of the stream, recorded or not."""

    leading: Sequence[int] = (0,) * N_SECTORS
    """For each sector, how many blocks of the stream came before recording began."""

    trailing: Sequence[int] = (0,) * N_SECTORS
    """For each sector, how many blocks of the stream came after it ended."""

    tail: bytes = b""
    """Bytes behind the last block: the beginning of one more."""

    def headers(self, n_frames: int) -> npt.NDArray[Any]:
        """Headers ``(n_frames, 32)`` of the whole stream."""
        headers = np.zeros((n_frames, BLOCKS_PER_FRAME), dtype=BLOCK_HEADER)
        block = np.arange(BLOCKS_PER_FRAME)
        frame = np.arange(n_frames)[:, np.newaxis]
        ids = range(100, 100 + n_frames) if self.frame_ids is None else self.frame_ids
        headers["sync"] = 0xFFFF0055
        headers["version"] = 1
        headers["flags"] = np.where(frame < self.first_active, *self.flags)
        headers["block_count"] = self.first_block_count + frame * BLOCKS_PER_FRAME + block
        headers["width"], headers["height"] = 256, 1860
        headers["frame_id"] = np.array(ids[:n_frames])[:, np.newaxis]
        headers["first_x"] = BLOCK_COLUMNS * (15 - block % 16)
        headers["first_y"] = BLOCK_ROWS * (block // 16)
        headers["last_x"] = headers["first_x"] + BLOCK_COLUMNS - 1
        headers["last_y"] = headers["first_y"] + BLOCK_ROWS - 1
        headers["block_size"] = BLOCK_BYTES
        return headers

    def recorded(self, sector: int, n_frames: int) -> slice:
        """Blocks of the stream that are in the file of a sector."""
        return slice(self.leading[sector], n_frames * BLOCKS_PER_FRAME - self.trailing[sector])


def make_gtg(scan_shape: tuple[int, int] | None = None, *, version: int = 3) -> bytes:
    """Content of a ``.gtg`` file, a tag file of Digital Micrograph.

    Parameters
    ----------
    scan_shape : (int, int), optional
        Rows and columns of the scan. Without, the tags are those of a time series: they say nothing about it.
    version : int
        3 or 4.
    """
    word = {3: ">I", 4: ">Q"}[version]

    def entry(kind: int, name: bytes, content: bytes) -> bytes:
        size = struct.pack(">Q", len(content)) if version == 4 else b""
        return struct.pack(">BH", kind, len(name)) + name + size + content

    def group(*entries: bytes) -> bytes:
        return b"\x01\x00" + struct.pack(word, len(entries)) + b"".join(entries)

    def number(name: bytes, value: int) -> bytes:
        return entry(
            21, name, b"%%%%" + struct.pack(word, 1) + struct.pack(word, 5) + struct.pack("<I", value)
        )

    if scan_shape is None:
        root = group(entry(20, b"X", group(number(b"a", 1))))
    else:
        numbers = number(b"Size X", scan_shape[1]), number(b"Size Y", scan_shape[0])
        root = group(entry(20, b"SI Dimensions", group(*numbers)))
    return struct.pack(">I", version) + struct.pack(word, len(root)) + struct.pack(">I", 1) + root + bytes(8)


def pack_sector(frames: npt.NDArray[np.uint16], sector: int) -> npt.NDArray[np.uint8]:
    """Stored pixels ``(n, 32, 22320)`` of one sector of `frames` (n, 1860, 2048)."""
    columns = frames[:, :, 256 * sector : 256 * sector + 256]
    blocks = columns.reshape(-1, 2, BLOCK_ROWS, 16, BLOCK_COLUMNS)[:, :, :, ::-1].transpose(0, 1, 3, 2, 4)
    pixels = blocks.reshape(-1, BLOCKS_PER_FRAME, BLOCK_ROWS * BLOCK_COLUMNS)
    low, high = pixels[..., ::2], pixels[..., 1::2]
    packed = np.empty((*low.shape, 3), dtype=np.uint8)
    packed[..., 0] = low & 0xFF
    packed[..., 1] = (low >> 8) | ((high & 0xF) << 4)
    packed[..., 2] = high >> 4
    return packed.reshape(-1, BLOCKS_PER_FRAME, BLOCK_BYTES - BLOCK_HEADER.itemsize)


def write_k2is(
    folder: Path,
    slabs: Iterable[npt.NDArray[np.uint16]],
    n_frames: int,
    *,
    scan_shape: tuple[int, int] | None = None,
    stream: K2ISStream | None = None,
    name: str = "Capture52_",
) -> Path:
    """Store frames with all their pixels.

    Parameters
    ----------
    folder : Path
        Where to put the files; made if it does not exist.
    slabs : iterable of numpy.ndarray
        The frames in order, any number at a time: uint16 arrays of shape (n, 1860, 2048), values below 4096.
    n_frames : int
        How many they are together.
    scan_shape : (int, int), optional
        Rows and columns of the scan; without, the files are those of a time series.
    stream : K2ISStream, optional
        What the headers say, and which blocks are left out.
    name : str
        Name of the files without number and extension.

    Returns
    -------
    Path
        The ``.gtg`` file.
    """
    stream = K2ISStream() if stream is None else stream
    paths = _start(folder, name)
    headers = stream.headers(n_frames)
    start = 0
    for slab in slabs:
        stop = start + len(slab)
        for sector, path in enumerate(paths):
            blocks = np.empty((len(slab), BLOCKS_PER_FRAME, BLOCK_BYTES), dtype=np.uint8)
            blocks[..., :40] = headers[start:stop, :, np.newaxis].view(np.uint8)
            blocks[..., 40:] = pack_sector(slab, sector)
            kept = stream.recorded(sector, n_frames)
            first, last = (max(0, edge - start * BLOCKS_PER_FRAME) for edge in (kept.start, kept.stop))
            with path.open("ab") as file:
                file.write(blocks.reshape(-1, BLOCK_BYTES)[first:last].data)
        start = stop
    if start != n_frames:
        raise ValueError(f"found {start} frames, expected {n_frames}")
    return _finish(paths, name, stream, scan_shape)


def write_sparse_k2is(
    folder: Path,
    n_frames: int,
    *,
    scan_shape: tuple[int, int] | None = None,
    stream: K2ISStream | None = None,
    name: str = "Capture52_",
) -> Path:
    """Store frames whose pixels are holes in the files, which costs next to no space and time.

    All pixels of frame `i` are zero, but for the first one and the last one of the first row, which are
    ``i + 1``. See `write_k2is` for the parameters.
    """
    stream = K2ISStream() if stream is None else stream
    paths = _start(folder, name)
    headers = stream.headers(n_frames).reshape(-1)
    for sector, path in enumerate(paths):
        kept = stream.recorded(sector, n_frames)
        with path.open("wb") as file:
            for number, header in enumerate(headers[kept], start=kept.start):
                _write_sparse_block(file, header.tobytes(), sector, number)
                file.seek((number + 1 - kept.start) * BLOCK_BYTES)
            file.truncate()
    return _finish(paths, name, stream, scan_shape)


def _write_sparse_block(file: BinaryIO, header: bytes, sector: int, number: int) -> None:
    frame, block = divmod(number, BLOCKS_PER_FRAME)
    marker = frame + 1
    first_px = struct.pack("<H", marker) if (sector, block) == (0, 15) else b""
    file.write(header + first_px)
    if (sector, block) == (7, 0):
        # The last pixel of a row is the upper half of its last three bytes.
        file.seek(24 - 3, 1)
        file.write((marker << 12).to_bytes(3, "little"))


def _start(folder: Path, name: str) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}{number}.bin" for number in range(1, N_SECTORS + 1)]
    for path in paths:
        path.write_bytes(b"")
    return paths


def _finish(paths: list[Path], name: str, stream: K2ISStream, scan_shape: tuple[int, int] | None) -> Path:
    for path in paths:
        with path.open("ab") as file:
            file.write(stream.tail)
    gtg = paths[0].parent / f"{name}.gtg"
    gtg.write_bytes(make_gtg(scan_shape))
    return gtg
