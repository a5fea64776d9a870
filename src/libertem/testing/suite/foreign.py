"""Files of other types, to be refused: the beginnings of common formats, and things that are no format."""

from __future__ import annotations

import io
import struct

import numpy as np

__all__ = ["foreign_files"]


def _npy() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros((2, 3, 8, 8), dtype=np.float32))
    return stream.getvalue()


def _mrc() -> bytes:
    header = bytearray(1024)
    struct.pack_into("<4i", header, 0, 8, 8, 4, 6)
    struct.pack_into("<6i", header, 28, 8, 8, 4, 0, 0, 0)
    header[208:216] = b"MAP DD\0\0"
    return bytes(header) + bytes(4 * 8 * 8 * 2)


def _mib() -> bytes:
    text = "MQ1,000001,00384,01,0256,0256,U16,   1x1,01,2020-01-01 00:00:00.000000,0.001,0,0,0,1.2E+2,"
    return text.encode().ljust(384, b"\0") + bytes(2 * 256 * 256)


def foreign_files() -> dict[str, bytes]:
    """Contents of files by name. Where a format has a name in the registry, it is that name."""
    rng = np.random.default_rng(5)
    zeros = bytes(4096)
    return {
        "empty": b"",
        "one byte": b"\x01",
        "zeros": zeros,
        "ones": b"\xff" * 4096,
        "noise": rng.bytes(70_000),
        "more noise": rng.bytes(4099),
        "text": b"first line\nsecond line = 3\n" * 50,
        "latin text": "temp\xe9rature = 20 \xb0C\n".encode("latin-1") * 50,
        "xml": b"<?xml version='1.0'?>\n<html><body><p>nothing here</p></body></html>\n",
        "broken xml": b"<root><raw_file filename='x.raw'>",
        "json": b'{"type": "RAW", "path": "x.raw"}',
        "png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\1\0\0\0\1\0\x08\0\0\0\0" + zeros,
        "tiff": struct.pack("<2sHI", b"II", 42, 8) + zeros,
        "zip": b"PK\x03\x04" + zeros,
        "gzip": b"\x1f\x8b\x08\0\0\0\0\0" + zeros,
        "hdf5": b"\x89HDF\r\n\x1a\n" + zeros,
        "npy": _npy(),
        "mrc": _mrc(),
        "mib": _mib(),
        "dm": struct.pack(">III", 3, 4096, 1) + zeros,
        "ser": struct.pack("<HHH", 0x4949, 0x0197, 0x0220) + zeros,
        "seq": struct.pack("<I20sII", 0xFEED, "Norpix seq".encode("utf-16-le"), 5, 1024) + zeros,
        "blo": struct.pack("<6sHII", b"IMGBLO", 0x102, 1000, 2000) + zeros,
        "tvips": struct.pack("<IIII", 256, 2, 8, 8) + zeros,
        "raw_csr": b'[params]\nfiletype = "raw_csr"\nnav_shape = [2, 2]\nsig_shape = [4, 4]\n',
    }
