"""The common suite, for each family of pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt

from libertem.testing import DataSetTests
from libertem.testing.writers.mib import MIBSpec, write_hdr, write_mib


class MIBTests(DataSetTests):
    """A single file, without an ``.hdr`` file."""

    filetype = "mib"
    has_nav_shape = False
    spec = MIBSpec()

    def write(self, folder: Path, frames: npt.NDArray[Any]) -> dict[str, Any]:
        (path,) = write_mib(folder, frames, self.spec)
        return {"path": str(path)}

    def make_frames(self, n: int, dtype: str | None = None, *, seed: int = 0) -> npt.NDArray[Any]:
        frames = super().make_frames(n, dtype, seed=seed)
        return frames & frames.dtype.type(self.spec.max_value) if self.spec.kind == "R64" else frames


class TestIntegers(MIBTests):
    dtypes = ("u1", ">u2", ">u4", ">u8")

    def write(self, folder: Path, frames: npt.NDArray[Any]) -> dict[str, Any]:
        # 340 bytes: pixels of 8 bytes then begin at odd places.
        spec = MIBSpec(f"U{8 * frames.dtype.itemsize:02d}", has_dacs=False, header_bytes=340)
        (path,) = write_mib(folder, frames, spec)
        return {"path": str(path)}


class TestSeveralFiles(MIBTests):
    """Opened by the ``.hdr`` file. The order of the names is not that of the frames."""

    dtypes = (">u2",)
    has_nav_shape = True
    max_pickle_bytes = 4096

    def write(self, folder: Path, frames: npt.NDArray[Any]) -> dict[str, Any]:
        names = ("scan2.mib", "scan10.mib", "scan1.MIB")
        n = max(1, frames.shape[0] // 3)
        write_mib(folder, frames, names=names, frames_per_file=[n, n + 1 if frames.shape[0] > 4 else n])
        return {"path": str(write_hdr(folder / "scan.hdr", frames.shape[0], 1))}

    def main_file(self, kwargs: dict[str, Any]) -> Path:
        # The one in the middle: a set without its end is a shorter one.
        return Path(kwargs["path"]).parent / "scan10.mib"


class TestRaw12Bit(MIBTests):
    dtypes = ("u2",)
    sig_shape = (6, 8)
    spec = MIBSpec("R64", 12)


class TestRaw24Bit(MIBTests):
    dtypes = ("u4",)
    sig_shape = (6, 8)
    spec = MIBSpec("R64", 24)


class TestRawQuad1Bit(MIBTests):
    dtypes = ("u1",)
    sig_shape = (4, 128)
    spec = MIBSpec("R64", 1, "2x2")


class TestRawQuad6Bit(MIBTests):
    """In several files, so that blocks hold several pieces of memory."""

    dtypes = ("u1",)
    sig_shape = (6, 16)
    spec = MIBSpec("R64", 6, "2x2")
    max_pickle_bytes = 4096

    def write(self, folder: Path, frames: npt.NDArray[Any]) -> dict[str, Any]:
        names = ("scan2.mib", "scan10.mib", "scan1.mib")
        write_mib(folder, frames, self.spec, names=names, frames_per_file=[6, 1])
        return {"path": str(folder / "scan2.mib")}
