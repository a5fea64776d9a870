"""Executors and small data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libertem.api import Context
from libertem.executor.adaptive import AdaptiveJobExecutor
from libertem.executor.concurrent import ConcurrentJobExecutor
from libertem.executor.inline import InlineJobExecutor

MAKERS: dict[str, Callable[[], Any]] = {
    "inline": InlineJobExecutor,
    "inline-debug": lambda: InlineJobExecutor(debug=True),
    "threads": lambda: ConcurrentJobExecutor.make_local(2),
    "adaptive": lambda: AdaptiveJobExecutor.make_local(2),
}


@pytest.fixture(params=MAKERS)
def executor(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Each kind of executor."""
    made = MAKERS[request.param]()
    yield made
    made.close()


@pytest.fixture
def make_ds(tmp_path: Path) -> Callable[..., Any]:
    """Store frames that are filled with their number, and load them."""

    def make(n_frames: int = 6, num_partitions: int = 2, nav_shape: Any = None) -> Any:
        data = np.repeat(np.arange(n_frames, dtype=np.float32), 16)
        path = tmp_path / "frames.raw"
        data.tofile(path)
        return Context(executor=InlineJobExecutor()).load(
            "raw",
            path=str(path),
            dtype="f4",
            nav_shape=(n_frames,) if nav_shape is None else nav_shape,
            sig_shape=(4, 4),
            num_partitions=num_partitions,
        )

    return make
