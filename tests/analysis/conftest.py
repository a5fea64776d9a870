"""Data for tests of analyses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libertem.api import Context
from libertem.executor.concurrent import ConcurrentJobExecutor
from libertem.executor.inline import InlineJobExecutor
from libertem.io.dataset.base.dataset import DataSet

REAL_DTYPES = ("u1", "u2", ">u2", "i4", "f4", "f8")
SHAPE = (4, 5, 9, 12)

Array = np.ndarray[Any, Any]
Load = Callable[..., DataSet]


@pytest.fixture(scope="session")
def contexts() -> Iterator[dict[str, Context]]:
    made = {
        "inline": Context(executor=InlineJobExecutor(debug=True)),
        "threads": Context(executor=ConcurrentJobExecutor.make_local(2)),
    }
    yield made
    for ctx in made.values():
        ctx.close()


@pytest.fixture
def ctx(contexts: dict[str, Context]) -> Context:
    """A context whose tasks travel through pickle."""
    return contexts["inline"]


@pytest.fixture
def load(ctx: Context, tmp_path: Path) -> Load:
    """Store an array, and load it in three partitions."""

    def load(data: Array, sig_dims: int = 2) -> DataSet:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.raw"
        data.tofile(path)
        nav_shape, sig_shape = data.shape[:-sig_dims], data.shape[-sig_dims:]
        return ctx.load(
            "raw",
            path=path,
            dtype=data.dtype,
            nav_shape=nav_shape,
            sig_shape=sig_shape,
            num_partitions=min(3, int(np.prod(nav_shape))),
        )

    return load


def counts(dtype: str = "u2", shape: tuple[int, ...] = SHAPE) -> Array:
    """Random data; complex if the dtype is."""
    rng = np.random.default_rng(7)
    data: Array = rng.integers(0, 100, shape).astype(dtype)
    if data.dtype.kind == "c":
        data += (1j * rng.integers(-50, 50, shape)).astype(dtype)
    return data


def some_positions(shape: tuple[int, ...] = SHAPE[:2]) -> Array:
    """A ROI that skips a whole partition."""
    roi = np.zeros(shape, dtype=bool)
    roi.reshape(-1)[[1, 2, 17, 19]] = True
    return roi


def squared_distance(cy: float, cx: float, shape: tuple[int, ...] = SHAPE[2:]) -> Array:
    """Of each pixel from a centre."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    distance: Array = (y - cy) ** 2 + (x - cx) ** 2
    return distance
