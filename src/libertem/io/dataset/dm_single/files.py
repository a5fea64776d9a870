"""Read the tags of DM files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from libertem.io.dataset.base.backends.rawio import RawFile
from libertem.io.dataset.base.framefile import file_size
from libertem.io.headers.dm.images import DMImage, parse_images

__all__ = ["open_tags", "read_images"]


@contextmanager
def open_tags(path: str) -> Iterator[tuple[Callable[[int, int], bytes], int]]:
    """How to read bytes of a file, and its size; as `parse_tags` wants them."""
    file_size(path)
    with RawFile(path) as file:

        def read(offset: int, n_bytes: int) -> bytes:
            raw = np.empty(n_bytes, dtype=np.uint8)
            file.read_into(raw, offset)
            return raw.tobytes()

        yield read, file.size()


def read_images(path: str) -> tuple[DMImage, ...]:
    """All images in a file, thumbnails included.

    Raises
    ------
    DataSetException
        If the file cannot be read, or is no DM3 or DM4 file.
    """
    with open_tags(path) as (read, size):
        return parse_images(read, size, path=path)
