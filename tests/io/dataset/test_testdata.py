"""Real files with independent ground truth.

They are not part of the repository, because their licences differ. `LIBERTEM_TESTDATA` names the folder that
holds them, with a ``manifest.json`` that says for each load what a correct reader finds.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import libertem.exceptions
from libertem.executor.inline import InlineJobExecutor
from libertem.io.dataset import load

FORMATS = ("npy", "empad", "mrc", "raw")
BACKENDS = ("mmap", "buffered", "direct")
EXECUTOR = InlineJobExecutor()


def find_folder() -> Path | None:
    """The folder with the manifest, None if it is not there."""
    name = os.environ.get("LIBERTEM_TESTDATA")
    folder = Path(name) if name else None
    return folder if folder is not None and (folder / "manifest.json").is_file() else None


FOLDER = find_folder()

pytestmark = pytest.mark.skipif(
    FOLDER is None, reason="LIBERTEM_TESTDATA names no folder with a manifest.json"
)


def find_records() -> list[Any]:
    """The records of the formats that exist, each a parameter with its id."""
    if FOLDER is None:
        return []
    manifest = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))
    return [pytest.param(record, id=record["id"]) for record in manifest if record["format"] in FORMATS]


def load_record(record: dict[str, Any], backend: str) -> Any:
    """Load what a record describes."""
    assert FOLDER is not None
    kwargs = {
        name: tuple(value) if name.endswith("_shape") else value
        for name, value in record["load_kwargs"].items()
    }
    path = str(FOLDER / record["path"])
    return load(record["format"], path=path, executor=EXECUTOR, io_backend=backend, **kwargs)


def read(ds: Any, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """The whole array, blanks as zeros."""
    out = np.zeros((ds.shape.nav.size, *ds.shape.sig), dtype=dtype)
    for partition in ds.get_partitions():
        tile = partition.get_macrotile(dest_dtype=ds.dtype)
        start = tile.tile_slice.origin[0]
        out[start : start + tile.shape[0]] = tile.data
    return out.reshape(tuple(ds.shape))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("record", find_records())
def test_real_files_are_read_correctly(record: dict[str, Any], backend: str) -> None:
    if record["expect"] == "error":
        with pytest.raises(getattr(libertem.exceptions, record["error"])):
            load_record(record, backend)
        return
    ds = load_record(record, backend)
    assert ds.shape.nav.to_tuple() == tuple(record["nav_shape"])
    assert ds.shape.sig.to_tuple() == tuple(record["sig_shape"])
    assert ds.meta.image_count in [record["image_count"], *record.get("image_count_alternatives", [])]
    dtype = np.dtype(record["dtype"])
    assert ds.dtype in [dtype, *map(np.dtype, record.get("dtype_alternatives", []))]
    data = read(ds, dtype)
    for coordinates, value in record["samples"]:
        expected = complex(*value) if isinstance(value, list) else value
        assert data[tuple(coordinates)] == expected
    assert hashlib.sha256(data.astype(dtype.newbyteorder("<")).tobytes()).hexdigest() == record["sha256"]
    check_sum(data, record["sum"])


def check_sum(data: npt.NDArray[Any], expected: Any) -> None:
    """Compare the sum of all values: exactly for integers, to nine digits for floats."""
    if data.dtype.kind in "biu":
        assert int(data.sum(dtype=np.uint64 if data.dtype.kind == "u" else np.int64)) == expected
        return
    total = data.sum(dtype=np.complex128 if data.dtype.kind == "c" else np.float64)
    expected = complex(*expected) if isinstance(expected, list) else expected
    np.testing.assert_allclose(total, expected, rtol=1e-9)


@pytest.mark.parametrize("record", find_records())
def test_real_files_are_detected(record: dict[str, Any]) -> None:
    path = str(FOLDER / record["path"]) if FOLDER is not None else ""
    extension = Path(path).suffix
    if record["format"] == "raw" or record["expect"] == "error" or extension in (".raw", ".map"):
        with pytest.raises(libertem.exceptions.DataSetException, match="could not determine DataSet type"):
            load("auto", path=path, executor=EXECUTOR)
        return
    ds = load("auto", path=path, executor=EXECUTOR)
    assert type(ds).__module__ == f"libertem.io.dataset.{record['format']}"
