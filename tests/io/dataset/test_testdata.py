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
from libertem.api import Context
from libertem.common.arrays import to_dense
from libertem.common.math import prod
from libertem.contrib.convert_transposed import convert_dm4_transposed
from libertem.exceptions import DataSetException, UnsupportedBackendError
from libertem.executor.inline import InlineJobExecutor
from libertem.io.dataset import get_dataset_cls, load

FORMATS = ("npy", "empad", "mrc", "raw", "mib", "dm", "seq", "ser", "raw_csr", "blo", "tvips", "hdf5")
BACKENDS = (None, "buffered", "direct")
EXECUTOR = InlineJobExecutor()


def find_folder() -> Path | None:
    """The folder with the manifest, None if it is not there."""
    name = os.environ.get("LIBERTEM_TESTDATA")
    folder = Path(name) if name else None
    return folder if folder is not None and (folder / "manifest.json").is_file() else None


FOLDER = find_folder()

pytestmark = [
    pytest.mark.skipif(FOLDER is None, reason="LIBERTEM_TESTDATA names no folder with a manifest.json"),
    # Many real DM files do not say what they hold.
    pytest.mark.filterwarnings("ignore:.*unrecognized format:RuntimeWarning"),
]


def find_records(operation: str | None = None) -> list[Any]:
    """The records of the formats that exist, each a parameter with its id.

    Those with an operation say what comes out of that, all others what is loaded.
    """
    if FOLDER is None:
        return []
    manifest = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))
    return [
        pytest.param(record, id=record["id"])
        for record in manifest
        if record["format"] in FORMATS and record.get("operation") == operation
    ]


def load_arguments(record: dict[str, Any]) -> dict[str, Any]:
    """Arguments besides the path."""
    assert FOLDER is not None
    kwargs = {
        name: tuple(value) if name.endswith("_shape") else value
        for name, value in record["load_kwargs"].items()
    }
    if "files" in kwargs:
        kwargs["files"] = [str(FOLDER / name) for name in kwargs["files"]]
    return kwargs


def load_record(record: dict[str, Any], backend: str | None) -> Any:
    """Load what a record describes."""
    assert FOLDER is not None
    kwargs = load_arguments(record)
    if record["path"] is not None:
        kwargs["path"] = str(FOLDER / record["path"])
    return load(record["format"], executor=EXECUTOR, io_backend=backend, **kwargs)


def read(ds: Any, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """The whole array, blanks as zeros."""
    out = np.zeros((ds.shape.nav.size, *ds.shape.sig), dtype=dtype)
    for partition in ds.get_partitions():
        tile = partition.get_macrotile(dest_dtype=ds.dtype)
        start = tile.tile_slice.origin[0]
        out[start : start + tile.shape[0]] = to_dense(tile.data).reshape(tile.shape)
    return out.reshape(tuple(ds.shape))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("record", find_records())
def test_real_files_are_read_correctly(record: dict[str, Any], backend: str | None) -> None:
    if record["expect"] == "error":
        with pytest.raises(getattr(libertem.exceptions, record["error"])):
            load_record(record, backend)
        return
    try:
        ds = load_record(record, backend)
    except UnsupportedBackendError:
        if backend is None:
            raise
        pytest.skip("these data have I/O of their own")
    except DataSetException:
        if record["expect"] != "data_or_error":
            raise
        return
    check_shape(ds, record)
    check_values(ds, record)


@pytest.mark.parametrize("record", find_records("convert_dm4_transposed"))
def test_real_files_are_converted_correctly(record: dict[str, Any], tmp_path: Path) -> None:
    assert FOLDER is not None
    path = tmp_path / "converted.npy"
    with Context(executor=EXECUTOR) as ctx:
        convert_dm4_transposed(FOLDER / record["path"], path, ctx=ctx, **load_arguments(record))
    ds = load("npy", executor=EXECUTOR, path=path, sig_dims=len(record["sig_shape"]))
    check_shape(ds, record)
    check_values(ds, record)
    # The same without a conversion.
    direct = load(
        "dm",
        executor=EXECUTOR,
        path=str(FOLDER / record["path"]),
        transposed="direct",
        **load_arguments(record),
    )
    check_shape(direct, record)
    check_values(direct, record)


def check_shape(ds: Any, record: dict[str, Any]) -> None:
    """Compare shapes and frame count, unless only the bytes are fixed; and the dtype."""
    if record["expect"] == "bytes":
        assert prod(ds.shape) == prod(record["stored_shape"])
    else:
        assert ds.shape.nav.to_tuple() == tuple(record["nav_shape"])
        assert ds.shape.sig.to_tuple() == tuple(record["sig_shape"])
        assert ds.meta.image_count in [record["image_count"], *record.get("image_count_alternatives", [])]
    dtypes = [record["dtype"], *record.get("dtype_alternatives", [])]
    assert ds.dtype.newbyteorder("=") in [np.dtype(name) for name in dtypes]


def check_values(ds: Any, record: dict[str, Any]) -> None:
    """Compare all values, first of all the samples, which tell more than a hash."""
    dtype = np.dtype(record["dtype"])
    data = read(ds, dtype)
    if record["expect"] == "bytes":
        data = data.reshape(record["stored_shape"])
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
    if record["path"] is None:
        pytest.skip("a list of files is not detected")
    if record["expect"] == "bytes":
        pytest.skip("has to be told how to read it")
    path = str(FOLDER / record["path"]) if FOLDER is not None else ""
    extension = Path(path).suffix
    if record["format"] == "raw" or record["expect"] == "error" or extension in (".raw", ".map"):
        # HDF5 files are recognized as such, even if nothing in them is suitable.
        refusal = "could not determine DataSet type|Unable to infer dataset"
        with pytest.raises(libertem.exceptions.DataSetException, match=refusal):
            load("auto", path=path, executor=EXECUTOR)
        return
    # Files of some formats are recognized, but do not know the shape of the scan.
    ds = load("auto", path=path, executor=EXECUTOR, **load_arguments(record))
    assert isinstance(ds, get_dataset_cls(record["format"]))
