"""The common suite for data sets, run on formats whose files need no more than a few lines to write.

The writers follow the published layouts and share no code with the readers.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from libertem.common.math import prod
from libertem.exceptions import DataSetException
from libertem.io.dataset.base.decode import Decode, Decoder, check_conversion, default_decode
from libertem.io.dataset.base.files import File, FileSet, PartedFileSet
from libertem.io.dataset.base.framefile import FrameFacts, FrameFileDataSet, file_size
from libertem.io.dataset.base.packing import PackedDecoder, Packing
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


class PiecesDataSet(FrameFileDataSet):
    """Frames in several files, with bytes at the start of each file and around each frame."""

    FILE_HEADER, FRAME_HEADER, FRAME_FOOTER = 10, 6, 4
    SIG_SHAPE = (6, 10)
    DTYPE = np.dtype(">u2")

    def _pieces(self) -> list[tuple[str, int]]:
        """Path and number of frames of each file."""
        stride = self.FRAME_HEADER + 2 * prod(self.SIG_SHAPE) + self.FRAME_FOOTER
        paths = sorted(Path(self._path).parent.glob("*.piece")) or [Path(self._path)]
        sizes = [file_size(str(path)) - self.FILE_HEADER for path in paths]
        if min(sizes) < 0:
            raise DataSetException("a file ends inside its header", path=self._path)
        return [(str(path), size // stride) for path, size in zip(paths, sizes, strict=True)]

    def _inspect(self) -> FrameFacts:
        file_size(self._path)
        n = sum(count for _, count in self._pieces())
        return FrameFacts(dtype=self.DTYPE, image_count=n, nav_shape=(n,), sig_shape=self.SIG_SHAPE)

    def _get_fileset(self) -> FileSet:
        files = []
        start = 0
        for path, count in self._pieces():
            if count:
                sizes = (self.FRAME_FOOTER, self.FRAME_HEADER, self.FILE_HEADER)
                files.append(File(path, start, start + count, self.DTYPE, self.shape.sig, *sizes))
            start += count
        return FileSet(files, frame_header_bytes=self.FRAME_HEADER, frame_footer_bytes=self.FRAME_FOOTER)


class TestFramesInSeveralFiles(DataSetTests):
    """No format of ours, but what many of them have in common: tiles that cross the borders of files."""

    filetype: ClassVar[type[PiecesDataSet]] = PiecesDataSet
    dtypes = (">u2",)
    # Enough frames per file that memory maps are used, and files of one frame and two.
    nav_shape = (4, 6)
    detectable = False
    max_pickle_bytes = 4096

    def write(self, folder: Path, frames: npt.NDArray[Any]) -> dict[str, Any]:
        for number, piece in enumerate(np.split(frames, (1, 6, 8))):
            around = [b"head: " + self.encode(frame.tobytes()) + b"foot" for frame in piece]
            (folder / f"{number}.piece").write_bytes(b"file head:" + b"".join(around))
        return {"path": str(folder / "0.piece")}

    def encode(self, pixels: bytes) -> bytes:
        return pixels

    def main_file(self, kwargs: dict[str, Any]) -> Path:
        return max(Path(kwargs["path"]).parent.glob("*.piece"))


def decode_inverted(inp: npt.NDArray[np.uint8], *rest: Any) -> None:
    default_decode(~inp, *rest)


class InvertingDecoder(Decoder):
    """All bits are stored the other way round."""

    def get_decode(self, native_dtype: npt.DTypeLike, read_dtype: npt.DTypeLike) -> Decode:
        check_conversion(native_dtype, read_dtype)
        return decode_inverted


class InvertedPiecesDataSet(PiecesDataSet):
    def get_decoder(self) -> Decoder:
        return InvertingDecoder()


class TestDecodedFrames(TestFramesInSeveralFiles):
    """A decoder keeps data sets on the documented way of read ranges."""

    filetype = InvertedPiecesDataSet

    def encode(self, pixels: bytes) -> bytes:
        return bytes(255 - byte for byte in pixels)


class NibblePacking(Packing):
    """Two pixels per byte, low half first; each part holds as many rows of the frame as the others."""

    def unpack(
        self,
        part: int,
        stored: npt.NDArray[np.uint8],
        starts: npt.NDArray[np.int64],
        first_row: int,
        out: npt.NDArray[Any],
    ) -> None:
        height, width = self.frame_shape
        rows = height // self.n_parts
        for i, start in enumerate(starts):
            packed = stored[start : start + self.part_bytes]
            pixels = np.stack([packed & 15, packed >> 4], axis=-1).reshape(rows, width)
            low, high = max(first_row, part * rows), min(first_row + out.shape[1], (part + 1) * rows)
            if low < high:
                out[i, low - first_row : high - first_row] = pixels[low - part * rows : high - part * rows]


class NibblePiecesDataSet(PiecesDataSet):
    """Like its parent, with packed pixels."""

    DTYPE = np.dtype("u1")
    STORED_BYTES = 30

    def _pieces(self) -> list[tuple[str, int]]:
        stride = self.FRAME_HEADER + self.STORED_BYTES + self.FRAME_FOOTER
        paths = sorted(Path(self._path).parent.glob("*.piece")) or [Path(self._path)]
        sizes = [file_size(str(path)) - self.FILE_HEADER for path in paths]
        if min(sizes) < 0:
            raise DataSetException("a file ends inside its header", path=self._path)
        return [(str(path), size // stride) for path, size in zip(paths, sizes, strict=True)]

    def _get_packing(self) -> Packing:
        return NibblePacking("u1", self.SIG_SHAPE, self.STORED_BYTES)

    def _get_fileset(self) -> FileSet:
        fileset = super()._get_fileset()
        files = [
            File(f.path, f.start_idx, f.end_idx, "u1", (self.STORED_BYTES,), 4, 6, self.FILE_HEADER)
            for f in fileset
        ]
        return FileSet(files, frame_header_bytes=self.FRAME_HEADER, frame_footer_bytes=self.FRAME_FOOTER)


class TestPackedFrames(TestFramesInSeveralFiles):
    """Several pixels share a byte."""

    filetype = NibblePiecesDataSet
    dtypes = ("u1",)

    def make_frames(self, n: int, dtype: str | None = None, *, seed: int = 0) -> npt.NDArray[Any]:
        return super().make_frames(n, dtype, seed=seed) & 15

    def encode(self, pixels: bytes) -> bytes:
        values = np.frombuffer(pixels, dtype=np.uint8)
        return (values[::2] | values[1::2] << 4).tobytes()


class OwnDecoder(PackedDecoder):
    """Not known to the library: forces the documented way."""


class HalvesDataSet(FrameFileDataSet):
    """Packed frames, each spread over three files."""

    STORED_BYTES = 10

    def _paths(self) -> list[str]:
        return [f"{self._path[:-1]}{part}" for part in range(3)]

    def _inspect(self) -> FrameFacts:
        n = min(file_size(path) for path in self._paths()) // self.STORED_BYTES
        return FrameFacts(dtype=np.dtype("u1"), image_count=n, nav_shape=(n,), sig_shape=(6, 10))

    def _get_packing(self) -> Packing:
        return NibblePacking("u1", (6, 10), self.STORED_BYTES, n_parts=3)

    def _get_fileset(self) -> FileSet:
        return PartedFileSet(
            [
                FileSet([File(path, 0, self._image_count, "u1", (self.STORED_BYTES,))])
                for path in self._paths()
            ]
        )


class TestFramesInParts(TestPackedFrames):
    filetype: ClassVar[Any] = HalvesDataSet

    def write(self, folder: Path, frames: npt.NDArray[Any]) -> dict[str, Any]:
        for part in range(3):
            packed = self.encode(frames[:, 2 * part : 2 * part + 2].tobytes())
            (folder / f"part{part}").write_bytes(packed)
        return {"path": str(folder / "part0")}

    def main_file(self, kwargs: dict[str, Any]) -> Path:
        return Path(kwargs["path"])


class OldDecoderHalvesDataSet(HalvesDataSet):
    def get_decoder(self) -> Decoder:
        return OwnDecoder(self._get_packing())


class TestFramesInPartsTheDocumentedWay(TestFramesInParts):
    filetype = OldDecoderHalvesDataSet


class TestMemory(FilelessDataSetTests):
    filetype = "memory"
    dtypes = FEW_DTYPES
    io_backends = ()
    sig_shape_override = "reinterpret"

    def write(self, folder: Path, frames: npt.NDArray[Any]) -> dict[str, Any]:
        return {"data": frames.copy(), "sig_dims": len(self.sig_shape)}

    def sig_arguments(self, sig_shape: Any) -> dict[str, Any]:
        return {"sig_shape": sig_shape, "sig_dims": None}
