"""The files that are measured: what they are, and writing them.

All of them hold the same kind of frames: a bright disc that wanders from frame to frame, and noise. They stay
in the data folder and are used again as long as their size is right.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from benchmarks.limit import CAN_DROP_CACHE, drop_cache
from libertem.testing.writers.empad import SIG_SHAPE, write_empad
from libertem.testing.writers.mrc import MODES, make_mrc_header
from libertem.testing.writers.npy import write_npy_header

__all__ = ["INPUTS", "Input", "Prepared", "prepare", "prepare_sparse", "remove_inputs"]

READ_BYTES = 8 << 20

SLAB_BYTES = 16 << 20
SEED = 20_260_101
FOLDER_SUFFIX = ".bench"
RESERVE_BYTES = 1 << 30  # left free on the disk


@dataclass(frozen=True)
class Input:
    """A kind of file."""

    name: str
    """As in the names of cases."""

    filetype: str
    """As for `Context.load`."""

    dtype: str
    """As stored, with byte order."""

    sig_shape: tuple[int, int]
    """(height, width) of a frame."""

    @property
    def frame_bytes(self) -> int:
        """Bytes of the pixels of a frame."""
        return math.prod(self.sig_shape) * np.dtype(self.dtype).itemsize

    def nav_shape(self, nbytes: int) -> tuple[int, int]:
        """Shape of an almost square scan that holds at least `nbytes` of pixels."""
        n_frames = -(-nbytes // self.frame_bytes)
        columns = max(2, math.isqrt(n_frames))
        return max(2, -(-n_frames // columns)), columns


@dataclass(frozen=True)
class Prepared:
    """A file that is there, and how to load it."""

    source: Input
    """What it holds."""

    path: Path
    """The file with the pixels."""

    arguments: dict[str, Any]
    """For `Context.load`, without the type."""

    nav_shape: tuple[int, int]
    """Rows and columns of the scan."""

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels, without what headers and footers take."""
        return math.prod(self.nav_shape) * self.source.frame_bytes


INPUTS = {
    source.name: source
    for source in (
        Input("u16-256", "raw", "<u2", (256, 256)),
        Input("u8-256", "raw", "u1", (256, 256)),
        Input("u16be-256", "raw", ">u2", (256, 256)),
        Input("f32-256", "raw", "<f4", (256, 256)),
        Input("u16-64", "raw", "<u2", (64, 64)),
        Input("npy-u16-256", "npy", "<u2", (256, 256)),
        Input("mrc-u16-256", "mrc", "<u2", (256, 256)),
        Input("empad-f32-128", "empad", "<f4", SIG_SHAPE),
        # Last: what such frames leave behind in a process would show as memory of the others.
        Input("u16-2048", "raw", "<u2", (2048, 2048)),
    )
}


def prepare(source: Input, nbytes: int, folder: Path) -> Prepared:
    """Write the file, unless it is there already.

    Parameters
    ----------
    source : Input
        What to write.
    nbytes : int
        How many bytes of pixels at least.
    folder : Path
        Made if it does not exist.

    Raises
    ------
    OSError
        If the disk has too little room.
    """
    nav_shape = source.nav_shape(nbytes)
    home = folder / f"{source.name}-{nav_shape[0]}x{nav_shape[1]}{FOLDER_SUFFIX}"
    if source.filetype == "empad":
        return _prepare_empad(source, nav_shape, home)
    header = _HEADERS[source.filetype](source, nav_shape)
    path = home / f"scan.{source.filetype}"
    # What headers say is not repeated: the reference does not take all of it.
    arguments: dict[str, Any] = {"path": str(path)}
    if source.filetype != "npy":
        arguments["nav_shape"] = nav_shape
    if source.filetype == "raw":
        arguments |= {"sig_shape": source.sig_shape, "dtype": source.dtype}
    prepared = Prepared(source, path, arguments, nav_shape)
    size = len(header) + prepared.nbytes
    if not _has_size(path, size):
        _make_room(home, size)
        with path.open("wb") as file:
            file.write(header)
            for slab in _slabs(source, math.prod(nav_shape)):
                file.write(slab.data)
            _flush(file)
        _read_back(path)
    return prepared


def _prepare_empad(source: Input, nav_shape: tuple[int, int], home: Path) -> Prepared:
    raw = home / f"scan_x{nav_shape[1]}_y{nav_shape[0]}.raw"
    xml = home / "acquisition_1.xml"
    footer_bytes = 2 * 128 * 4
    size = math.prod(nav_shape) * (source.frame_bytes + footer_bytes)
    if not (_has_size(raw, size) and xml.exists()):
        _make_room(home, size)
        write_empad(home, _slabs(source, math.prod(nav_shape)), nav_shape)
        with raw.open("rb+") as file:
            _flush(file)
        _read_back(raw)
    return Prepared(source, raw, {"path": str(xml)}, nav_shape)


def prepare_sparse(source: Input, nbytes: int, used_bytes: int, folder: Path) -> Prepared:
    """Make a large raw file of holes that takes no room on the disk.

    Parameters
    ----------
    source : Input
        What it pretends to hold.
    nbytes : int
        Size of the file.
    used_bytes : int
        How much of it the scan covers.
    folder : Path
        Is made if it does not exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "scan.raw"
    with path.open("wb") as file:
        file.truncate(nbytes)
    nav_shape = source.nav_shape(used_bytes)
    arguments = {
        "path": str(path),
        "nav_shape": nav_shape,
        "sig_shape": source.sig_shape,
        "dtype": source.dtype,
    }
    return Prepared(source, path, arguments, nav_shape)


def remove_inputs(folder: Path) -> None:
    """Delete all input files in `folder`, and nothing else."""
    for home in folder.glob(f"*{FOLDER_SUFFIX}"):
        shutil.rmtree(home)


def _has_size(path: Path, size: int) -> bool:
    return path.exists() and path.stat().st_size == size


def _make_room(home: Path, size: int) -> None:
    if home.exists():
        shutil.rmtree(home)
    home.mkdir(parents=True)
    free = shutil.disk_usage(home).free
    if free < size + RESERVE_BYTES:
        raise OSError(
            f"{free / 1e9:.1f} GB free in the data folder, {(size + RESERVE_BYTES) / 1e9:.1f} GB needed"
        )


def _flush(file: BinaryIO) -> None:
    # Pages that are not on the disk yet cannot be dropped from the cache.
    file.flush()
    os.fsync(file.fileno())


def _read_back(path: Path) -> None:
    """Leave the file in the cache as reading leaves it there, not as writing does.

    People process files that have been read before, rarely ones that the same machine has just written;
    Linux keeps the latter in smaller units, which take longer to map.
    """
    if CAN_DROP_CACHE:
        drop_cache(path)
    with path.open("rb") as file:
        while file.read(READ_BYTES):
            pass


def _slabs(source: Input, n_frames: int) -> Iterator[npt.NDArray[Any]]:
    """All frames, about `SLAB_BYTES` at a time; no two slabs are equal."""
    depth = max(1, min(n_frames, SLAB_BYTES // source.frame_bytes))
    pool = _frames(source, depth)
    dtype = np.dtype(source.dtype)
    for number, start in enumerate(range(0, n_frames, depth)):
        slab = np.roll(pool, number, axis=0) + np.uint16(number % 7)
        yield slab[: n_frames - start].astype(dtype)


def _frames(source: Input, n_frames: int) -> npt.NDArray[np.uint16]:
    height, width = source.sig_shape
    rng = np.random.default_rng(SEED)
    frames = rng.integers(0, 8, size=(n_frames, height, width), dtype=np.uint16)
    y, x = np.ogrid[:height, :width]
    shifts = rng.uniform(-0.1, 0.1, size=(n_frames, 2))
    for frame, (dy, dx) in zip(frames, shifts, strict=True):
        distance = np.hypot(y / height - 0.5 - dy, x / width - 0.5 - dx)
        frame[distance < 0.25] += np.uint16(100)
    return frames


def _no_header(source: Input, nav_shape: tuple[int, int]) -> bytes:
    return b""


def _npy_header(source: Input, nav_shape: tuple[int, int]) -> bytes:
    shape = (*nav_shape, *source.sig_shape)
    return write_npy_header(f"{{'descr': '{source.dtype}', 'fortran_order': False, 'shape': {shape}, }}")


def _mrc_header(source: Input, nav_shape: tuple[int, int]) -> bytes:
    # MZ (at byte 36) is 1 in older files of Direct Electron servers; the reference reads no others.
    shape = (math.prod(nav_shape), *source.sig_shape)
    return make_mrc_header(shape, MODES[source.dtype[1:]], patches={36: (1).to_bytes(4, "little")})


_HEADERS: dict[str, Callable[[Input, tuple[int, int]], bytes]] = {
    "raw": _no_header,
    "npy": _npy_header,
    "mrc": _mrc_header,
}
