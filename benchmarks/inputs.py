"""The files that are measured: what they are, and how they come to be there.

They are written when a case needs them, and stay in the data folder to be used again.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks import formats, hdf5
from benchmarks.formats import Format, mib
from benchmarks.frames import Frames
from benchmarks.storage import DISK_BYTES, FOLDER_SUFFIX, filled, is_complete
from libertem.testing.writers.empad import SIG_SHAPE as EMPAD_SHAPE
from libertem.testing.writers.mib import MIBSpec

__all__ = ["INPUTS", "Input", "Prepared", "prepare", "prepare_sparse"]

GIB = 1 << 30
OVERHEAD = 1.1  # headers, footers and padding take less than a tenth


@dataclass(frozen=True)
class Input:
    """A kind of file."""

    name: str
    """As in the names of cases."""

    filetype: str
    """As for `Context.load`."""

    dtype: str
    """Of the pixels, with byte order where they are stored as they are."""

    sig_shape: tuple[int, int]
    """(height, width) of a frame."""

    format: Format = formats.RAW
    """How it is stored."""

    kind: Literal["plain", "packed", "corrected", "sparse", "compressed"] = "plain"
    """What has to be done with the pixels, on which the targets depend."""

    bits: int = 16
    """Values are below ``2**bits``."""

    stored_frame_bytes: int | None = None
    """Bytes of the pixels of a frame in the file, if they do not follow from `dtype`."""

    share: float = 1.0
    """Part of the usual size."""

    reference_defect: str | None = None
    """Why the results of the reference are known to be wrong."""

    @property
    def frame_bytes(self) -> int:
        """Bytes of the pixels of a frame, as they are stored."""
        if self.stored_frame_bytes is not None:
            return self.stored_frame_bytes
        return math.prod(self.sig_shape) * np.dtype(self.dtype).itemsize

    def nav_shape(self, nbytes: int) -> tuple[int, int]:
        """Shape of an almost square scan that holds at least `nbytes` of pixels, or its share of that."""
        n_frames = math.ceil(nbytes * self.share / self.frame_bytes)
        columns = max(2, math.isqrt(n_frames))
        return max(2, -(-n_frames // columns)), columns


@dataclass(frozen=True)
class Prepared:
    """Files that are there, and how to load them."""

    source: Input
    """What they hold."""

    paths: tuple[Path, ...]
    """The files with the pixels."""

    arguments: dict[str, Any]
    """For `Context.load`, without the type."""

    nav_shape: tuple[int, int]
    """Rows and columns of the scan."""

    corrections: Path | None = None
    """File with corrections that runs are given."""

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels as stored, without what headers and footers take."""
        return math.prod(self.nav_shape) * self.source.frame_bytes


def _hdf5(filters: str, chunks: str) -> Input:
    form = hdf5.chunked(hdf5.FILTERS[filters], hdf5.CHUNKS[chunks])
    return Input(f"hdf5-{filters}{chunks}", "hdf5", "<u2", hdf5.SIG_SHAPE, form, "compressed")


def _mib(encoding: str, sig_shape: tuple[int, int], spec: MIBSpec, **more: Any) -> Input:
    return Input(f"mib-{encoding}", "mib", spec.dtype.str, sig_shape, mib(spec), **more)


def _raw_mib(depth: int, *, quad: bool = False, **more: Any) -> Input:
    name, side, layout = (f"quad-r{depth}", 512, "2x2") if quad else (f"r{depth}", 256, "1x1")
    stored = side * side // 8 if depth == 1 else None
    spec = MIBSpec("R64", depth, layout)
    return _mib(name, (side, side), spec, kind="packed", bits=depth, stored_frame_bytes=stored, **more)


def _csr(occupancy: str, spacing: int, **more: Any) -> Input:
    more["stored_frame_bytes"] = formats.csr_frame_bytes(spacing)
    how = formats.csr(spacing)
    return Input(f"csr-{occupancy}", "raw_csr", "<f4", formats.CSR_SHAPE, how, "sparse", **more)


R24_DEFECT = "it takes 24 bit pixels for 16 bit ones, and finds no frame but the first"
N_MIB_FILES, MIB_FILE_SHAPE = 20_000, (64, 64)
DM_SHAPE = (1024, 512)  # one file is one frame: a GiB makes 1,024 of them
K2IS_SHAPE = (1860, 2048)

INPUTS = {
    source.name: source
    for source in (
        Input("u16-256", "raw", "<u2", (256, 256)),
        Input("u8-256", "raw", "u1", (256, 256)),
        Input("u16be-256", "raw", ">u2", (256, 256)),
        Input("f32-256", "raw", "<f4", (256, 256)),
        Input("u16-64", "raw", "<u2", (64, 64)),
        Input("corrected-u16-256", "raw", "<u2", (256, 256), formats.CORRECTED_RAW, "corrected"),
        Input("npy-u16-256", "npy", "<u2", (256, 256), formats.NPY),
        Input("mrc-u16-256", "mrc", "<u2", (256, 256), formats.MRC),
        Input("empad-f32-128", "empad", "<f4", EMPAD_SHAPE, formats.EMPAD),
        _mib("u8", (256, 256), MIBSpec("U08")),
        _mib("u16", (256, 256), MIBSpec("U16")),
        _mib("u32", (256, 256), MIBSpec("U32")),
        _raw_mib(1),
        _raw_mib(6),
        _raw_mib(12),
        _raw_mib(24, reference_defect=R24_DEFECT),
        _raw_mib(1, quad=True),
        _raw_mib(6, quad=True),
        _raw_mib(12, quad=True),
        Input("frms6", "frms6", "<u2", (264, 264), formats.FRMS6, "packed"),
        Input("seq-u16-256", "seq", "<u2", (256, 256), formats.SEQ, "corrected"),
        Input("blo-u8-256", "blo", "u1", (256, 256), formats.BLO),
        Input("ser-u16-256", "ser", "<u2", (256, 256), formats.SER),
        Input("tvips-u16-256", "tvips", "<u2", (256, 256), formats.TVIPS),
        Input("hdf5-u16-256", "hdf5", "<u2", hdf5.SIG_SHAPE, hdf5.CONTIGUOUS),
        *(_hdf5(filters, chunks) for filters in hdf5.FILTERS for chunks in hdf5.CHUNKS),
        Input("arina-u16-192", "hdf5", "<u2", (192, 192), hdf5.DECTRIS, "compressed"),
        Input("dm4-u16-256", "dm", "<u2", (256, 256), formats.DM4),
        Input("dm-stack", "dm", "<u2", DM_SHAPE, formats.DM4_STACK),
        # Half a million frames, if the size is 1 GiB: 100 masks make 0.2 GB of results.
        _csr("0.1pct", 1000, share=0.25),
        _csr("1pct", 100),
        _csr("10pct", 10),
        # Files of one frame each, so many if the size is 1 GiB: only opened, never compared with the limit.
        Input(
            "mib-files",
            "mib",
            "u1",
            MIB_FILE_SHAPE,
            formats.MIB_FILES,
            share=N_MIB_FILES * math.prod(MIB_FILE_SHAPE) / GIB,
        ),
        # Last: what such frames leave behind in a process would show as memory of the others.
        Input("u16-2048", "raw", "<u2", (2048, 2048)),
        Input(
            "k2is",
            "k2is",
            "<u2",
            K2IS_SHAPE,
            formats.K2IS,
            "packed",
            bits=12,
            stored_frame_bytes=math.prod(K2IS_SHAPE) * 3 // 2,
        ),
    )
}


def prepare(source: Input, nbytes: int, folder: Path, disk_bytes: int = DISK_BYTES) -> Prepared:
    """Write the files, unless they are there already.

    Parameters
    ----------
    source : Input
        What to write.
    nbytes : int
        How many bytes of pixels at least; some inputs are smaller.
    folder : Path
        Made if it does not exist.
    disk_bytes : int
        What all inputs in `folder` may take. Others are deleted if there are too many.

    Raises
    ------
    OSError
        If the disk has too little room.
    """
    nav_shape = source.nav_shape(nbytes)
    home = folder / f"{source.name}-{nav_shape[0]}x{nav_shape[1]}{FOLDER_SUFFIX}"
    n_frames = math.prod(nav_shape)
    if is_complete(home):
        os.utime(home)
    else:
        with filled(home, int(OVERHEAD * n_frames * source.frame_bytes), disk_bytes):
            frames = Frames(source.sig_shape, source.dtype, n_frames, source.bits)
            source.format.write(frames, nav_shape, home)
    return _find(source, nav_shape, home)


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
    with (folder / source.format.load).open("wb") as file:
        file.truncate(nbytes)
    return _find(source, source.nav_shape(used_bytes), folder)


def _find(source: Input, nav_shape: tuple[int, int], home: Path) -> Prepared:
    form = source.format
    values = {"nav_shape": nav_shape, "sig_shape": source.sig_shape, "dtype": source.dtype}
    loaded = sorted(map(str, home.glob(form.load)))
    arguments: dict[str, Any] = {"files": loaded} if form.is_stack else {"path": loaded[0]}
    arguments |= {name: values[name] for name in form.takes}
    corrections = None if form.corrections is None else home / form.corrections
    return Prepared(source, tuple(sorted(home.glob(form.pixels))), arguments, nav_shape, corrections)
