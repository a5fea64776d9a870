"""Frames back to back: NumPy files, and raw ones with a description beside them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from libertem.common.new_file import complete_or_nothing
from libertem.interact.saving.contract import Box, Output, Put, Writer

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["NPYWriter", "RawWriter", "put_frames"]


@contextmanager
def put_frames(path: str, output: Output, first_byte: int) -> Iterator[Put]:
    """Write boxes, which are runs of frames, to their place in a file that exists."""
    # Not mapped: a full disk would end the process instead of raising an error.
    with open(path, "r+b") as file:

        def put(box: Box, frames: npt.NDArray[Any]) -> None:
            start = np.ravel_multi_index(tuple(s.start for s in box), output.nav_shape)
            file.seek(first_byte + int(start) * output.frame_bytes)
            file.write(np.ascontiguousarray(frames).reshape(-1).view(np.uint8).data)

        yield put


class NPYWriter(Writer):
    """NumPy's own format. It has no place for metadata."""

    def _write_header(self, file: BinaryIO) -> None:
        header = {
            "descr": np.lib.format.dtype_to_descr(self.output.dtype),
            "fortran_order": False,
            "shape": self.output.shape,
        }
        np.lib.format.write_array_header_1_0(file, header)

    @contextmanager
    def open(self, path: str) -> Iterator[Put]:
        """The header, then frames."""
        with open(path, "r+b") as file:
            self._write_header(file)
            first_byte = file.tell()
            file.truncate(first_byte + self.output.n_bytes)
        with put_frames(path, self.output, first_byte) as put:
            yield put


class RawWriter(Writer):
    """Nothing but pixels, and a ``.json`` with all the rest."""

    @contextmanager
    def new_target(self, target: str, *, overwrite: bool) -> Iterator[str]:
        """Both files; the description is there before the pixels."""
        beside = os.path.splitext(target)[0] + ".json"
        text = json.dumps(self._sidecar(target), indent=2, ensure_ascii=False).encode()
        with (
            complete_or_nothing(target, self.min_bytes, overwrite=overwrite) as path,
            complete_or_nothing(beside, len(text), overwrite=overwrite) as unfinished,
        ):
            yield path
            with open(unfinished, "r+b") as file:
                file.write(text)

    def _sidecar(self, target: str) -> dict[str, Any]:
        load = {
            "filetype": "raw",
            "path": os.path.basename(target),
            "dtype": self.output.dtype.str,
            "nav_shape": self.output.nav_shape,
            "sig_shape": self.output.sig_shape,
        }
        return {"load": load, **self.output.description()}

    @contextmanager
    def open(self, path: str) -> Iterator[Put]:
        """Frames."""
        with put_frames(path, self.output, 0) as put:
            yield put
