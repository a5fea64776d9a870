"""Buffered and direct reading of any range of a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libertem.exceptions import DataSetException
from libertem.io.dataset.base import File
from libertem.io.dataset.base.backend_buffered import BufferedFile, DirectBufferedFile

CONTENT = np.random.default_rng(2).integers(0, 256, 30_000, dtype=np.uint8)


@pytest.fixture(scope="module", params=[BufferedFile, DirectBufferedFile])
def opened(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BufferedFile]:
    path: Path = tmp_path_factory.mktemp("buffered") / "f.bin"
    path.write_bytes(CONTENT.tobytes())
    desc = File(str(path), 0, 1, np.uint8, (CONTENT.size,))
    try:
        file = request.param(desc)
    except (RuntimeError, DataSetException) as err:
        pytest.skip(f"no direct I/O here: {err}")
    yield file
    file.close()


@given(st.integers(0, CONTENT.size), st.integers(0, CONTENT.size))
def test_any_range_is_read_whatever_its_alignment(opened: BufferedFile, a: int, b: int) -> None:
    start, stop = min(a, b), max(a, b)
    np.testing.assert_array_equal(opened.read(start, stop), CONTENT[start:stop])


@pytest.mark.parametrize(("start", "stop"), [(29_999, 30_001), (30_000, 30_001), (40_000, 40_100)])
def test_ranges_beyond_the_end_are_refused(opened: BufferedFile, start: int, stop: int) -> None:
    with pytest.raises(DataSetException, match="the file ends before its data"):
        opened.read(start, stop)
