"""The common suite for data sets, run on formats whose files need no more than a few lines to write.

The writers follow the published layouts and share no code with the readers.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, ClassVar

import numpy.typing as npt

from libertem.testing import DataSetTests, FilelessDataSetTests
from libertem.testing.writers.empad import write_empad

PLAIN_DTYPES = ("u1", "i1", "<u2", ">u2", ">i2", "<u4", ">i4", "<i8", "<f2", "<f4", ">f4", ">f8", "<c8", "?")
FEW_DTYPES = ("u1", "<u2", ">i2", "<i4", "<f4", ">f8", "<c8", "?")


class TestRaw(DataSetTests):
    filetype = "raw"
    dtypes = PLAIN_DTYPES
    has_nav_shape = False
    sig_shape_override = "reinterpret"
    detectable = False

    def write(self, folder: Path, frames: npt.NDArray[Any]) -> dict[str, Any]:
        path = folder / "frames.raw"
        path.write_bytes(frames.tobytes())
        return {"path": str(path), "dtype": frames.dtype.str, "sig_shape": self.sig_shape}


class TestNPY(DataSetTests):
    filetype = "npy"
    dtypes = FEW_DTYPES
    larger_nav_shape = "refused"
    sig_shape_override = "reinterpret"

    def write(self, folder: Path, frames: npt.NDArray[Any]) -> dict[str, Any]:
        path = folder / "frames.npy"
        # Written out, because NumPy's own writer keeps no big-endian single bytes and the like apart.
        header = f"{{'descr': '{frames.dtype.str}', 'fortran_order': False, 'shape': {frames.shape}, }}"
        padded = header.ljust((-(len(header) + 11) % 64) + len(header)) + "\n"
        start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded.encode()
        assert len(start) % 64 == 0
        path.write_bytes(start + frames.tobytes())
        return {"path": str(path)}

    def sig_arguments(self, sig_shape: Any) -> dict[str, Any]:
        return {"sig_shape": sig_shape, "sig_dims": None}


class TestEMPAD(DataSetTests):
    """Opened by the XML file, which is checked against the size of the raw file."""

    filetype = "empad"
    dtypes = ("<f4",)
    sig_shape = (128, 128)
    nav_shape = (2, 4)

    def write(self, folder: Path, frames: npt.NDArray[Any]) -> dict[str, Any]:
        return {"path": str(write_empad(folder, [frames], (1, frames.shape[0])))}

    def main_file(self, kwargs: dict[str, Any]) -> Path:
        (raw,) = Path(kwargs["path"]).parent.glob("*.raw")
        return raw


class TestEMPADRaw(TestEMPAD):
    """Opened by the raw file, which says nothing about itself."""

    has_nav_shape = False
    detectable = False

    def write(self, folder: Path, frames: npt.NDArray[Any]) -> dict[str, Any]:
        return {"path": str(self.main_file(super().write(folder, frames)))}


class TestMRC(DataSetTests):
    filetype = "mrc"
    dtypes: ClassVar[tuple[str, ...]] = ("i1", "<i2", ">i2", "<u2", ">u2", "<f2", "<f4", ">f4", "<c8")
    extended_header = b""

    def write(self, folder: Path, frames: npt.NDArray[Any]) -> dict[str, Any]:
        mode = {"i1": 0, "i2": 1, "f4": 2, "c8": 4, "u2": 6, "f2": 12}[frames.dtype.str[1:]]
        n, height, width = frames.shape
        order = ">" if frames.dtype.str[0] == ">" else "<"
        header = bytearray(1024)
        struct.pack_into(f"{order}4i", header, 0, width, height, n, mode)
        struct.pack_into(f"{order}3i", header, 28, width, height, n)
        struct.pack_into(f"{order}3i", header, 64, 1, 2, 3)
        struct.pack_into(f"{order}i", header, 92, len(self.extended_header))
        struct.pack_into(f"{order}i", header, 108, 20140)
        header[208:212] = b"MAP "
        header[212:216] = b"\x11\x11\0\0" if order == ">" else b"\x44\x44\0\0"
        path = folder / "stack.mrc"
        path.write_bytes(bytes(header) + self.extended_header + frames.tobytes())
        return {"path": str(path)}


class TestMRCWithOddHeader(TestMRC):
    """Frames do not start at a multiple of the pixel size."""

    dtypes = ("<u2", ">f4")
    extended_header = b"\x2a" * 77


class TestMemory(FilelessDataSetTests):
    filetype = "memory"
    dtypes = FEW_DTYPES
    io_backends = ()
    sig_shape_override = "reinterpret"

    def write(self, folder: Path, frames: npt.NDArray[Any]) -> dict[str, Any]:
        return {"data": frames.copy(), "sig_dims": len(self.sig_shape)}

    def sig_arguments(self, sig_shape: Any) -> dict[str, Any]:
        return {"sig_shape": sig_shape, "sig_dims": None}
