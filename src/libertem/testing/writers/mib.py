"""Write MIB files: records of a text header and the pixels of a frame, and the ``.hdr`` file beside them.

Source: the fact sheet of the format; made without looking at the reader.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["MIBSpec", "encode_records", "make_hdr", "make_header", "pack_words", "write_hdr", "write_mib"]

DACS = "3RX," + ",".join(f"{value:03d}" for value in range(1, 28))
THRESHOLDS = ",".join(["1.200000E+1", "5.110000E+2", *["0.000000E+0"] * 6])

RAW_BITS = {1: 1, 6: 8, 12: 16, 24: 16}
"""Bits that a pixel takes in a word, by bits of the counters."""


@dataclass(frozen=True)
class MIBSpec:
    """How frames are to be stored."""

    kind: str = "U16"
    """``U08``, ``U16``, ``U32``, ``U64``, or ``R64`` for raw pixels."""

    depth: int | None = None
    """Bits of the counters: 1, 6, 12 or 24; by default what fits integers of this kind."""

    layout: str = "1x1"
    """``2x2`` with four chips makes a quad."""

    n_chips: int | None = None
    """By default as many as the layout names."""

    header_bytes: int | None = None
    """By default 256 + 128 per chip."""

    has_thresholds: bool = True

    has_dacs: bool = True

    has_extension: bool = True
    """Whether the header has the block ``MQ1A``, which tells the depth."""

    ending: str = ","
    """What follows the text of the header."""

    @property
    def chips(self) -> int:
        """Number of chips."""
        if self.n_chips is not None:
            return self.n_chips
        rows, _, columns = self.layout.rstrip("G").partition("x")
        return int(rows) * int(columns)

    @property
    def counter_depth(self) -> int:
        """Bits of the counters."""
        return {"U08": 6, "U16": 12}.get(self.kind, 24) if self.depth is None else self.depth

    @property
    def is_quad(self) -> bool:
        """Whether the chips of each frame are to be interleaved."""
        return self.kind == "R64" and self.chips == 4

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the frames, in native byte order."""
        if self.kind != "R64":
            return np.dtype(f"u{int(self.kind[1:]) // 8}")
        return np.dtype({1: "u1", 6: "u1", 12: "u2", 24: "u4"}[self.counter_depth])

    @property
    def max_value(self) -> int:
        """Largest value of a pixel."""
        bits = self.counter_depth if self.kind == "R64" else int(self.kind[1:])
        return (1 << bits) - 1


def make_header(spec: MIBSpec, sig_shape: tuple[int, int], sequence: int = 1) -> bytes:
    """The header of a frame."""
    height, width = sig_shape
    if spec.is_quad:
        height, width = height // 2, width * 2
    elif spec.kind == "R64" and spec.counter_depth == 24:
        width *= 2
    length = 256 + 128 * spec.chips if spec.header_bytes is None else spec.header_bytes
    mask = (1 << spec.chips) - 1
    parts = [
        f"MQ1,{sequence:06d},{length:05d},{spec.chips:02d},{width:04d},{height:04d},{spec.kind}",
        f"{spec.layout:>6},{mask:02X},2021-05-07 18:51:10.905800,0.001000,0,0,0",
        THRESHOLDS if spec.has_thresholds else "",
        *([DACS] * spec.chips if spec.has_dacs else []),
    ]
    if spec.has_extension:
        parts.append(f"MQ1A,2021-05-07T16:51:10.905800928Z,1000000ns,{spec.counter_depth}")
    text = (",".join(parts) + spec.ending).encode("ascii")
    if len(text) > length:
        raise ValueError(f"the header takes {len(text)} bytes, more than {length}")
    return text.ljust(length, b"\0")


def pack_words(pixels: npt.NDArray[Any], depth: int) -> npt.NDArray[np.uint8]:
    """Store rows ``(..., width)`` as big-endian words whose first pixel is in the lowest bits."""
    bits = RAW_BITS[depth]
    words = pixels.reshape(*pixels.shape[:-1], -1, 64 // bits)[..., ::-1]
    if bits == 1:
        packed = np.packbits(words.astype(np.uint8), axis=-1, bitorder="big")
    else:
        packed = np.ascontiguousarray(words, dtype=f">u{bits // 8}").view(np.uint8)
    return packed.reshape(*pixels.shape[:-1], -1)


def encode_frames(frames: npt.NDArray[Any], spec: MIBSpec) -> npt.NDArray[np.uint8]:
    """Stored bytes ``(n, image_bytes)`` of `frames` (n, height, width)."""
    n, height, width = frames.shape
    if spec.kind != "R64":
        stored = np.ascontiguousarray(frames, dtype=spec.dtype.newbyteorder(">"))
        return stored.view(np.uint8).reshape(n, -1)
    if spec.is_quad:
        y, x = height // 2, width // 2
        chips = [
            frames[:, y:, x:][:, ::-1, ::-1],  # Q4
            frames[:, y:, :x][:, ::-1, ::-1],  # Q3
            frames[:, :y, x:],  # Q2
            frames[:, :y, :x],  # Q1
        ]
        frames = np.stack(chips, axis=2)
    if spec.counter_depth != 24:
        return pack_words(frames, spec.counter_depth).reshape(n, -1)
    halves = [pack_words(half, 24).reshape(n, -1) for half in (frames >> 12, frames & 0xFFF)]
    return np.concatenate(halves, axis=1)


def encode_records(frames: npt.NDArray[Any], spec: MIBSpec, first_sequence: int = 1) -> npt.NDArray[np.uint8]:
    """Records ``(n, record_bytes)`` of `frames` (n, height, width)."""
    images = encode_frames(frames, spec)
    sig_shape = (frames.shape[1], frames.shape[2])
    header = make_header(spec, sig_shape, first_sequence)
    records = np.empty((frames.shape[0], len(header) + images.shape[1]), dtype=np.uint8)
    records[:, : len(header)] = np.frombuffer(header, dtype=np.uint8)
    for i in range(frames.shape[0]):
        records[i, 4:10] = np.frombuffer(f"{first_sequence + i:06d}".encode(), dtype=np.uint8)
    records[:, len(header) :] = images
    return records


def write_mib(
    folder: Path,
    frames: npt.NDArray[Any] | Iterable[npt.NDArray[Any]],
    spec: MIBSpec | None = None,
    *,
    names: Sequence[str] = ("default.mib",),
    frames_per_file: int | Sequence[int] | None = None,
    first_sequence: int = 1,
) -> list[Path]:
    """Store frames in one or more ``.mib`` files.

    Parameters
    ----------
    folder : Path
        Where the files go.
    frames : array or iterable of arrays
        ``(n, height, width)``; may be handed over in pieces.
    spec : MIBSpec, optional
        How to store them; 16 bit integers of one chip by default.
    names : sequence of str
        Of the files. With a single name and several files, numbers are put before its extension.
    frames_per_file : int or sequence of int, optional
        Number of frames in each file but the last one; by default all in one.
    first_sequence : int
        Number of the first frame.
    """
    spec = MIBSpec() if spec is None else spec
    pieces = [frames] if isinstance(frames, np.ndarray) else frames
    sizes = _file_sizes(frames_per_file)
    paths: list[Path] = []
    room = 0
    sequence = first_sequence
    for piece in pieces:
        while piece.shape[0]:
            if room == 0:
                room = next(sizes)
                paths.append(folder / _file_name(names, len(paths), frames_per_file is None))
                paths[-1].write_bytes(b"")
            with paths[-1].open("ab") as file:
                for records in _in_portions(piece[:room], spec, sequence):
                    file.write(records.data)
            n_written = min(room, piece.shape[0])
            piece, room, sequence = piece[n_written:], room - n_written, sequence + n_written
    return paths


def _file_sizes(frames_per_file: int | Sequence[int] | None) -> Iterator[int]:
    no_end = itertools.repeat(1 << 62)
    if frames_per_file is None:
        return no_end
    if isinstance(frames_per_file, int):
        return itertools.repeat(frames_per_file)
    return itertools.chain(frames_per_file, no_end)


def _in_portions(
    frames: npt.NDArray[Any], spec: MIBSpec, sequence: int, portion: int = 64
) -> Iterator[npt.NDArray[np.uint8]]:
    for start in range(0, frames.shape[0], portion):
        yield encode_records(frames[start : start + portion], spec, sequence + start)


def _file_name(names: Sequence[str], idx: int, single: bool) -> str:
    if len(names) > 1 or single:
        return names[idx]
    stem, dot, extension = names[0].rpartition(".")
    return f"{stem}{idx}{dot}{extension}"


def make_hdr(
    frames: int | str | None,
    per_trigger: int | str | None,
    *,
    scan: tuple[int, int] | None = None,
    depth: int = 12,
    line_end: str = "\r\n",
) -> bytes:
    """Content of an ``.hdr`` file.

    Parameters
    ----------
    frames, per_trigger : int or None
        Frames in the acquisition, and per trigger; lines are left out for None.
    scan : (int, int), optional
        ScanX and ScanY, as software from 1.5 on writes them.
    depth : int
        Bits of the counters.
    line_end : str
        Copies with other line ends exist.
    """
    lines = [
        "HDR,\t",
        "Time and Date Stamp (day, mnth, yr, hr, min, s):\t07/05/2021 18:51:10",
        "Chip ID:\tW559_G11, - , - , - ",
        "Assembly Size (NX1, 2X2):\t   1x1",
        f"Counter Depth (number):\t{depth}",
        "DACs:\t068,511; ; ; ",
        "Dead Time File:\tDummy (C:\\<NUL>\\)",
    ]
    if frames is not None:
        lines.append(f"Frames in Acquisition (Number):\t{frames}")
    if per_trigger is not None:
        lines.append(f"Frames per Trigger (Number):\t{per_trigger}")
    if scan is not None:
        lines += [f"ScanX:\t{scan[0]}", f"ScanY:\t{scan[1]}"]
    lines += ["Sensor Bias (\u00b5V):\t120 V", "Software Version:\t0.77.0.16", "End\t"]
    return line_end.join(lines).encode("latin-1").ljust(2048)


def write_hdr(path: Path, frames: int | None, per_trigger: int | None, **kwargs: Any) -> Path:
    """Write an ``.hdr`` file with the content of `make_hdr`."""
    path.write_bytes(make_hdr(frames, per_trigger, **kwargs))
    return path
