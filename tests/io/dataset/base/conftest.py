"""Frames in files, made without the library, and what plain NumPy says about tiles of them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from libertem.common import Shape, Slice
from libertem.io.dataset.base import (
    BasePartition,
    DataSetMeta,
    Decoder,
    File,
    FileSet,
    IOBackend,
    MMapBackend,
    TilingScheme,
)

Array = npt.NDArray[Any]


@dataclass
class ExpectedTile:
    """What one tile has to be."""

    origin: tuple[int, ...]
    scheme_idx: int
    pixels: Array
    """As stored."""


@dataclass
class Stored:
    """Images in files."""

    images: Array
    fileset: FileSet
    sync_offset: int
    n_positions: int

    @property
    def meta(self) -> DataSetMeta:
        sig = self.images.shape[1:]
        return DataSetMeta(
            shape=Shape((self.n_positions, *sig), sig_dims=len(sig)),
            raw_dtype=self.images.dtype,
            image_count=len(self.images),
            sync_offset=self.sync_offset,
        )

    def partitions(
        self,
        n: int = 1,
        backend: IOBackend | None = None,
        decoder: Decoder | None = None,
        cls: type[BasePartition] = BasePartition,
    ) -> list[BasePartition]:
        return [
            cls(
                meta=self.meta,
                partition_slice=part_slice,
                fileset=self.fileset,
                start_frame=start,
                num_frames=stop - start,
                io_backend=MMapBackend() if backend is None else backend,
                decoder=decoder,
            )
            for part_slice, start, stop in BasePartition.make_slices(self.meta.shape, n, self.sync_offset)
        ]

    def scheme(self, *tileshape: int, intent: Any = None) -> TilingScheme:
        shape = Shape(tileshape, sig_dims=len(tileshape) - 1)
        return TilingScheme.make_for_shape(shape, self.meta.shape, intent=intent)

    def expected(
        self, part: Slice, tileshape: Sequence[int], roi: Array | None = None
    ) -> Iterator[ExpectedTile]:
        """Tiles of a partition: blocks of frames, all slices of a grid in C order for each."""
        ranks = np.arange(self.n_positions) if roi is None else np.cumsum(roi) - 1
        shown = [
            i
            for i in range(part.origin[0], part.origin[0] + part.shape[0])
            if (roi is None or roi.reshape(-1)[i]) and 0 <= i + self.sync_offset < len(self.images)
        ]
        sig = self.images.shape[1:]
        grid = np.ndindex(*(-(-full // step) for full, step in zip(sig, tileshape[1:], strict=True)))
        corners = [tuple(c * s for c, s in zip(cell, tileshape[1:], strict=True)) for cell in grid]
        for first in range(0, len(shown), tileshape[0]):
            block = shown[first : first + tileshape[0]]
            frames = self.images[np.array(block) + self.sync_offset]
            for idx, corner in enumerate(corners):
                region = tuple(slice(c, c + s) for c, s in zip(corner, tileshape[1:], strict=True))
                yield ExpectedTile((int(ranks[block[0]]), *corner), idx, frames[(slice(None), *region)])


Store = Callable[..., Stored]


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Write images to files: headers and footers of given sizes, cut at the image numbers `borders`."""
    folder: Path = tmp_path_factory.mktemp("stored")
    numbers = itertools.count()

    def write(
        images: Array,
        borders: Sequence[int] = (),
        file_header: int = 0,
        frame_header: int = 0,
        frame_footer: int = 0,
        trailing: int = 0,
        sync_offset: int = 0,
        n_positions: int | None = None,
    ) -> Stored:
        files = []
        edges = [0, *borders, len(images)]
        for start, stop in itertools.pairwise(edges):
            path = folder / f"{next(numbers)}.bin"
            with open(path, "wb") as file:
                file.write(b"\xa5" * file_header)
                for image in images[start:stop]:
                    file.write(b"\xb6" * frame_header + image.tobytes() + b"\xc7" * frame_footer)
                file.write(b"\xd8" * trailing)
            files.append(
                File(
                    path=str(path),
                    start_idx=start,
                    end_idx=stop,
                    native_dtype=images.dtype,
                    sig_shape=images.shape[1:],
                    file_header=file_header,
                    frame_header=frame_header,
                    frame_footer=frame_footer,
                )
            )
        fileset = FileSet(files, frame_header_bytes=frame_header, frame_footer_bytes=frame_footer)
        return Stored(images, fileset, sync_offset, len(images) if n_positions is None else n_positions)

    return write


@pytest.fixture
def open_files() -> Callable[[], int]:
    """Count the open files of this process."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    return lambda: len(os.listdir("/proc/self/fd"))
