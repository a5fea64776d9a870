"""How the inputs are written, which of their files hold the pixels, and what `Context.load` is told.

Nothing holds more than a few slabs of frames in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from benchmarks.frames import SEED, Frames
from libertem.testing.writers.blo import write_blo
from libertem.testing.writers.dm import image_tags, write_dm
from libertem.testing.writers.empad import write_empad
from libertem.testing.writers.frms6 import write_frms6
from libertem.testing.writers.k2is import write_k2is
from libertem.testing.writers.mib import MIBSpec, write_mib
from libertem.testing.writers.mrc import MODES, make_mrc_header, write_mrc
from libertem.testing.writers.npy import write_npy_header
from libertem.testing.writers.raw_csr import SparseFrames, write_raw_csr
from libertem.testing.writers.seq import write_seq
from libertem.testing.writers.ser import write_ser
from libertem.testing.writers.tvips import make_scan, write_tvips

__all__ = [
    "BLO",
    "CORRECTED_RAW",
    "CSR_SHAPE",
    "DM4",
    "DM4_STACK",
    "EMPAD",
    "FRMS6",
    "K2IS",
    "MIB_FILES",
    "MRC",
    "NPY",
    "RAW",
    "SEQ",
    "SER",
    "TVIPS",
    "Format",
    "csr",
    "csr_frame_bytes",
    "mib",
    "references",
]

NavShape = tuple[int, int]
FRMS6_FILE_BYTES = 128 << 20  # real files hold about a thousand frames
N_DARK_FRAMES = 4  # as many as the smallest scan has frames: with more the reference miscounts them
N_EXCLUDED = 100
CSR_SHAPE = (256, 256)
CSR_PIECE = 1 << 23  # about so many values are written at once


@dataclass(frozen=True)
class Format:
    """What has to be known of a kind of file."""

    write: Callable[[Frames, NavShape, Path], object]
    """Writes frames of a scan into an empty folder."""

    pixels: str
    """Pattern of the names of the files with pixels."""

    load: str
    """Pattern of the name of what is loaded."""

    takes: tuple[Literal["nav_shape", "sig_shape", "dtype"], ...] = ()
    """Arguments of `Context.load`. What headers say is not repeated: the reference refuses some of it."""

    is_stack: bool = False
    """Whether a list of files is loaded."""

    corrections: str | None = None
    """Name of a file with corrections that runs are given."""


# --- plain numbers ---


def _write_slabs(path: Path, frames: Frames, header: bytes = b"") -> None:
    with path.open("wb") as file:
        file.write(header)
        for slab in frames.slabs():
            file.write(slab.data)


def _write_raw(frames: Frames, nav_shape: NavShape, home: Path) -> None:
    _write_slabs(home / "scan.raw", frames)


def _write_npy(frames: Frames, nav_shape: NavShape, home: Path) -> None:
    shape = (*nav_shape, *frames.sig_shape)
    text = f"{{'descr': '{frames.dtype.str}', 'fortran_order': False, 'shape': {shape}, }}"
    _write_slabs(home / "scan.npy", frames, write_npy_header(text))


def _write_mrc(frames: Frames, nav_shape: NavShape, home: Path) -> None:
    # MZ (at byte 36) is 1 in older files of Direct Electron servers; the reference reads no others.
    shape, patches = (len(frames), *frames.sig_shape), {36: (1).to_bytes(4, "little")}
    header = make_mrc_header(shape, MODES[frames.dtype.str[1:]], patches=patches)
    _write_slabs(home / "scan.mrc", frames, header)


def _write_corrected_raw(frames: Frames, nav_shape: NavShape, home: Path) -> None:
    _write_raw(frames, nav_shape, home)
    dark, gain = references(frames)
    excluded = np.random.default_rng(SEED).choice(dark.size, N_EXCLUDED, replace=False)
    coords = np.unravel_index(np.sort(excluded), dark.shape)
    np.savez(home / "corrections.npz", dark=dark, gain=gain, excluded=coords)


def references(frames: Frames) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """A dark frame and a gain map."""
    dark = frames.noise(N_DARK_FRAMES).mean(axis=0, dtype=np.float32)
    gain = np.random.default_rng(SEED).uniform(0.9, 1.1, size=frames.sig_shape).astype(np.float32)
    return dark, gain


RAW = Format(_write_raw, "scan.raw", "scan.raw", takes=("nav_shape", "sig_shape", "dtype"))
CORRECTED_RAW = Format(
    _write_corrected_raw, RAW.pixels, RAW.load, takes=RAW.takes, corrections="corrections.npz"
)
NPY = Format(_write_npy, "scan.npy", "scan.npy")
MRC = Format(_write_mrc, "scan.mrc", "scan.mrc", takes=("nav_shape",))


# --- files of cameras ---


def mib(spec: MIBSpec) -> Format:
    """All frames in one file of an encoding."""
    return Format(partial(_write_mib, spec), "*.mib", "default.mib", takes=("nav_shape",))


def _write_mib(spec: MIBSpec, frames: Frames, nav_shape: NavShape, home: Path) -> None:
    write_mib(home, frames.slabs(), spec)


def _write_mib_files(frames: Frames, nav_shape: NavShape, home: Path) -> None:
    write_mib(home, frames.slabs(), MIBSpec("U08"), frames_per_file=1)


def _write_empad(frames: Frames, nav_shape: NavShape, home: Path) -> None:
    write_empad(home, frames.slabs(), nav_shape)


def _write_k2is(frames: Frames, nav_shape: NavShape, home: Path) -> None:
    # A time series: the reference opens no short scans.
    write_k2is(home, frames.slabs(), len(frames))


def _write_frms6(frames: Frames, nav_shape: NavShape, home: Path) -> None:
    write_frms6(home, frames.slabs(FRMS6_FILE_BYTES), nav_shape, dark=frames.noise(N_DARK_FRAMES))


def _write_seq(frames: Frames, nav_shape: NavShape, home: Path) -> None:
    write_seq(home / "scan.seq", frames.slabs())
    # Those of cameras claim to hold 32766 images, which the reference believes.
    for name, image in zip(("dark", "gain"), references(frames), strict=True):
        write_mrc(home / f"scan.seq.{name}.mrc", image[np.newaxis])


def _write_blo(frames: Frames, nav_shape: NavShape, home: Path) -> None:
    write_blo(home / "scan.blo", frames.slabs(), nav_shape)


def _write_ser(frames: Frames, nav_shape: NavShape, home: Path) -> None:
    write_ser(home / "scan.ser", frames, nav_shape=nav_shape)


def _write_tvips(frames: Frames, nav_shape: NavShape, home: Path) -> None:
    write_tvips(home / "scan_000.tvips", frames.slabs(), make_scan(nav_shape))


EMPAD = Format(_write_empad, "*.raw", "*.xml")
MIB_FILES = Format(_write_mib_files, "*.mib", "default0.mib", takes=("nav_shape",))
K2IS = Format(_write_k2is, "*.bin", "*.gtg", takes=("nav_shape",))
FRMS6 = Format(_write_frms6, "scan_*[!0]*.frms6", "scan.hdr")  # number 0 holds dark frames
SEQ = Format(_write_seq, "scan.seq", "scan.seq", takes=("nav_shape",))
BLO = Format(_write_blo, "scan.blo", "scan.blo")
SER = Format(_write_ser, "scan.ser", "scan.ser")
TVIPS = Format(_write_tvips, "*.tvips", "*.tvips", takes=("nav_shape",))


# --- Digital Micrograph ---


def _write_dm4(frames: Frames, nav_shape: NavShape, home: Path) -> None:
    # The writer takes all pixels as one array; a map keeps them out of memory.
    path = home / "pixels.tmp"
    _write_slabs(path, frames)
    pixels = np.memmap(path, dtype=frames.dtype, mode="r", shape=(*nav_shape, *frames.sig_shape))
    write_dm(home / "scan.dm4", image_tags(pixels, format="Diffraction image", order_flag=True))
    del pixels
    path.unlink()


def _write_dm4_stack(frames: Frames, nav_shape: NavShape, home: Path) -> None:
    for number, frame in enumerate(frames):
        write_dm(home / f"{number:05}.dm4", image_tags(frame))


DM4 = Format(_write_dm4, "scan.dm4", "scan.dm4")
DM4_STACK = Format(_write_dm4_stack, "*.dm4", "*.dm4", takes=("nav_shape",), is_stack=True)


# --- sparse ---


def csr_frame_bytes(spacing: int) -> int:
    """Bytes of a frame that stores one of `spacing` pixels."""
    # Index and value of each stored pixel, one number of the frame.
    return math.prod(CSR_SHAPE) // spacing * (4 + 4) + 8


def csr(spacing: int) -> Format:
    """Frames of which one of `spacing` pixels is stored, at random places."""
    return Format(partial(_write_csr, spacing), "*.dat", "scan.toml")


def _write_csr(spacing: int, frames: Frames, nav_shape: NavShape, home: Path) -> None:
    pieces = _sparse_pieces(spacing, len(frames))
    write_raw_csr(home / "scan.toml", pieces, nav_shape, frames.sig_shape, data_dtype="<f4")


def _sparse_pieces(spacing: int, n_frames: int) -> Iterator[SparseFrames]:
    rng = np.random.default_rng(SEED)
    per_frame = math.prod(CSR_SHAPE) // spacing
    first_columns = spacing * np.arange(per_frame, dtype=np.int32)
    step = max(1, CSR_PIECE // per_frame)
    for start in range(0, n_frames, step):
        n = min(step, n_frames - start)
        columns = first_columns + rng.integers(spacing, size=(n, per_frame), dtype=np.int32)
        values = rng.integers(1, 5, size=columns.size, dtype=np.uint8)
        yield SparseFrames(np.full(n, per_frame), columns.reshape(-1), values)
