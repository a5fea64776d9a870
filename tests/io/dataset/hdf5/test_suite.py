"""The common suite for data sets, once for each way in which HDF5 files are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from libertem.api import Context
from libertem.exceptions import DataSetException
from libertem.testing import DataSetTests
from libertem.testing.writers.hdf5 import write_dectris, write_hdf5


class TestContiguous(DataSetTests):
    """Like raw files, with an offset."""

    filetype = "hdf5"
    dtypes: ClassVar[tuple[str, ...]] = ("<u2", ">i2", ">f4", "<c8", "?")
    sig_shape_override = "none"

    def write(self, folder: Path, frames: npt.NDArray[Any]) -> dict[str, Any]:
        return {"path": str(write_hdf5(folder / "scan.h5", frames))}


class ChunkedTests(DataSetTests):
    """No I/O backend can be chosen, although the class has them for other files."""

    filetype = "hdf5"
    dtypes: ClassVar[tuple[str, ...]] = ("<u2", ">f8")
    sig_shape_override = "none"
    io_backends = ()
    chunks: ClassVar[tuple[int, ...]] = (1, 6, 10)
    filters: ClassVar[str] = "gzip-shuffle"

    def write(self, folder: Path, frames: npt.NDArray[Any]) -> dict[str, Any]:
        path = write_hdf5(folder / "scan.h5", frames, chunks=self.chunks, filters=self.filters)
        return {"path": str(path)}

    def test_io_backends_are_those_declared(self, tmp_path: Path, ctx: Context) -> None:
        kwargs = self.write_frames(tmp_path, self.make_frames(self.n_frames))
        for name in ("mmap", "buffered"):
            with pytest.raises(DataSetException, match="doesn't support alternative I/O backends") as err:
                self.load(ctx, kwargs, io_backend=name)
            assert isinstance(err.value, ValueError)


class TestOneFramePerChunk(ChunkedTests):
    dtypes = ("<u2", "u1", ">i2", "<f4", "<c8", "?")


class TestChunksOfFramesAndParts(ChunkedTests):
    """Chunks neither divide the frames nor their number."""

    chunks = (5, 4, 7)
    filters = "bitshuffle-lz4"


class TestChunksWithoutFilter(ChunkedTests):
    dtypes = ("<u2",)
    chunks = (3, 6, 10)
    filters = "none"


@pytest.mark.filterwarnings("ignore:Loading compressed HDF5:RuntimeWarning")
class TestReadByHDF5(ChunkedTests):
    """Unusual filters are left to HDF5."""

    dtypes = ("<u2",)
    chunks = (3, 6, 5)
    filters = "scale-offset"


class TestVirtual(ChunkedTests):
    """Frames that are in another file."""

    dtypes = (">f4",)

    def write(self, folder: Path, frames: npt.NDArray[Any]) -> dict[str, Any]:
        source = write_hdf5(folder / "source.h5", frames)
        layout = h5py.VirtualLayout(shape=frames.shape, dtype=frames.dtype)
        layout[:] = h5py.VirtualSource(source.name, "data", shape=frames.shape)
        path = folder / "scan.h5"
        with h5py.File(path, "w") as file:
            file.create_virtual_dataset("data", layout)
        return {"path": str(path)}


class TestMaster(ChunkedTests):
    """Three data files of different lengths, opened by their master file."""

    dtypes = ("<u4",)
    max_pickle_bytes = 4096

    def write(self, folder: Path, frames: npt.NDArray[Any]) -> dict[str, Any]:
        parts = [part for part in np.split(frames, (5, 6)) if len(part)]
        return {"path": str(write_dectris(folder, parts))}

    def main_file(self, kwargs: dict[str, Any]) -> Path:
        return min(Path(kwargs["path"]).parent.glob("*_data_*.h5"))
