"""Data and executors for tests of UDFs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libertem.api import Context
from libertem.common.arrays import NUMPY, for_backend
from libertem.common.shape import Shape
from libertem.common.slice import Slice
from libertem.executor.concurrent import ConcurrentJobExecutor
from libertem.executor.inline import InlineJobExecutor
from libertem.io.dataset.base.dataset import DataSet
from libertem.io.dataset.base.meta import DataSetMeta
from libertem.io.dataset.base.partition import BasePartition, Partition
from libertem.io.dataset.base.tile import DataTile

EXECUTORS = ("inline", "inline-debug", "threads")


@pytest.fixture(scope="session")
def contexts() -> Iterator[dict[str, Context]]:
    made = {
        "inline": Context(executor=InlineJobExecutor()),
        "inline-debug": Context(executor=InlineJobExecutor(debug=True)),
        "threads": Context(executor=ConcurrentJobExecutor.make_local(2)),
    }
    yield made
    for ctx in made.values():
        ctx.close()


@pytest.fixture(params=EXECUTORS)
def ctx(request: pytest.FixtureRequest, contexts: dict[str, Context]) -> Context:
    """A context; the test runs once for each executor."""
    return contexts[request.param]


@pytest.fixture
def inline(contexts: dict[str, Context]) -> Context:
    """A context that runs partitions in order."""
    return contexts["inline"]


MakeDataSet = Callable[..., DataSet]


@pytest.fixture
def make_ds(tmp_path: Path, contexts: dict[str, Context]) -> MakeDataSet:
    """Store an array, and load it as raw data set."""

    def make(
        data: np.ndarray[Any, Any], sig_dims: int = 2, num_partitions: int | None = 2, **kwargs: Any
    ) -> DataSet:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.raw"
        data.tofile(path)
        arguments = {
            "nav_shape": data.shape[:-sig_dims],
            "sig_shape": data.shape[-sig_dims:],
            "dtype": data.dtype,
            "num_partitions": num_partitions,
            **kwargs,
        }
        return contexts["inline"].load("raw", path=str(path), **arguments)

    return make


@pytest.fixture
def data() -> np.ndarray[Any, Any]:
    """The data of the examples in the documentation."""
    return np.arange(96, dtype=np.uint16).reshape((2, 3, 4, 4))


@pytest.fixture
def ds(make_ds: MakeDataSet, data: np.ndarray[Any, Any]) -> DataSet:
    """The data of the examples, in two partitions."""
    return make_ds(data)


class ArrayPartition(Partition):
    """Frames of an array, in the format that is asked for, as a third party might write it."""

    def __init__(self, frames: np.ndarray[Any, Any], **kwargs: Any) -> None:
        super().__init__(io_backend=None, decoder=None, **kwargs)
        self._frames = frames

    def set_corrections(self, corrections: Any) -> None:
        self._corrections = corrections

    def get_tiles(
        self, tiling_scheme: Any, dest_dtype: Any = "f4", roi: Any = None, array_backend: Any = None
    ) -> Iterator[DataTile]:
        assert array_backend is None or array_backend in self.meta.array_backends
        scheme = tiling_scheme.adjust_for_partition(self)
        where = self.slice.adjust_for_roi(roi)
        frames = self._frames
        if roi is not None:
            start = self.slice.origin[0]
            frames = frames[roi.reshape(-1)[start : start + self.slice.shape[0]]]
        sig_dims = self.slice.shape.sig.dims
        for first in range(0, len(frames), scheme.depth):
            part = frames[first : first + scheme.depth]
            for idx in range(len(scheme)):
                sig = scheme[idx]
                tile_slice = Slice(
                    origin=(where.origin[0] + first, *sig.origin),
                    shape=Shape((len(part), *sig.shape), sig_dims=sig_dims),
                )
                cut = sig.get(part, sig_only=True).astype(dest_dtype)
                yield DataTile(for_backend(cut, array_backend or NUMPY), tile_slice, idx)


class ArrayDataSet(DataSet):
    """An array in memory that offers certain formats; usable without `initialize`."""

    def __init__(
        self,
        data: np.ndarray[Any, Any],
        num_partitions: int = 2,
        sig_dims: int = 2,
        array_backends: tuple[str, ...] = (NUMPY,),
    ) -> None:
        super().__init__(num_partitions=num_partitions)
        self._data = data
        self._backends = array_backends
        self._meta = DataSetMeta(
            shape=Shape(data.shape, sig_dims=sig_dims),
            raw_dtype=data.dtype,
            array_backends=array_backends,
            image_count=int(np.prod(data.shape[:-sig_dims])),
        )

    @property
    def dtype(self) -> Any:
        return self._data.dtype

    @property
    def shape(self) -> Shape:
        assert self._meta is not None
        return self._meta.shape

    @property
    def array_backends(self) -> tuple[str, ...]:
        return self._backends

    def check_valid(self) -> bool:
        return True

    def get_partitions(self) -> Iterator[Partition]:
        flat = self._data.reshape((-1, *self.shape.sig))
        for part_slice, start, stop in BasePartition.make_slices(self.shape, self.get_num_partitions()):
            yield ArrayPartition(flat[start:stop], meta=self._meta, partition_slice=part_slice)


@pytest.fixture
def array_ds() -> Callable[..., ArrayDataSet]:
    """Make a data set from an array that offers certain array formats."""
    return ArrayDataSet
