"""Options of formats, and what cannot be saved."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

from libertem.api import Context, DataSet
from libertem.exceptions import MissingFileError
from libertem.interact.saving import zarr_store

from .conftest import (
    DATA,
    NAV,
    SIG,
    assert_nothing_left,
    assert_saved,
)

# --- options ---


@pytest.mark.parametrize("compression", ["gzip", "lzf", "bitshuffle", "zstd", "lz4", "blosc"])
def test_compressed_hdf5(ctx: Context, ds: DataSet, out: Path, compression: str, small_pieces: None) -> None:
    ds.save(out / "a.h5", compression=compression)
    again = ctx.load("hdf5", path=out / "a.h5")
    np.testing.assert_array_equal(np.asarray(again), DATA)
    with h5py.File(out / "a.h5") as file:
        assert file["entry/data/data"].chunks == (1, 5, *SIG)


@pytest.mark.parametrize("compression", ["gzip", "zstd", "lz4", "blosc"])
def test_compressed_zarr(ds: DataSet, out: Path, compression: str, small_pieces: None) -> None:
    ds.save(out / "a.zarr", compression=compression, chunks=(2, 3, 4, 8))
    assert_saved(out / "a.zarr", DATA)
    array = zarr.open_array(out / "a.zarr", mode="r")
    assert array.chunks == (2, 3, 4, 8)


def test_no_chunk_is_written_twice(
    ds: DataSet, out: Path, small_pieces: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes: list[Any] = []
    opened = zarr_store.ZarrWriter.open

    class Spy:
        def __init__(self, writer: Any, path: str) -> None:
            self.inner = opened(writer, path)

        def __enter__(self) -> Any:
            put = self.inner.__enter__()

            def spy(box: Any, frames: Any) -> None:
                boxes.append(box)
                put(box, frames)

            return spy

        def __exit__(self, *exc: Any) -> Any:
            return self.inner.__exit__(*exc)

    monkeypatch.setattr(zarr_store.ZarrWriter, "open", lambda writer, path: Spy(writer, path))
    ds.save(out / "a.zarr", chunks=(3, 2, *SIG))
    assert_saved(out / "a.zarr", DATA)
    assert len(boxes) == 6
    assert all(box[0].start % 3 == 0 and box[1].start % 2 == 0 for box in boxes)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("a.npy", {"compression": "gzip"}, TypeError, "as .npy has no option compression: expected none"),
        ("a.h5", {"level": 3}, TypeError, "no option level: expected compression or chunks"),
        ("a.h5", {"compression": "zip"}, ValueError, "found 'zip', expected None or one of gzip, lzf"),
        ("a.zarr", {"compression": "lzf"}, ValueError, "found 'lzf', expected None or one of gzip, zstd"),
        ("a.h5", {"chunks": (1, 1)}, ValueError, r"found \(1, 1\), expected 4 numbers"),
        ("a.zarr", {"chunks": (1, 1, 6, 9)}, ValueError, r"extents of \(4, 5, 6, 8\)"),
        ("a.h5", {"chunks": "big"}, ValueError, "found 'big'"),
        ("a.h5", {"chunks": 3}, ValueError, "found 3"),
        ("a.mrc", {}, ValueError, r"found '\.mrc', expected one of \.npy, \.h5"),
        ("a", {}, ValueError, "found 'none'"),
        ("a.npy", {"dtype": "S4"}, ValueError, "expected a dtype of numbers"),
        ("a.tif", {"dtype": "i8"}, ValueError, "TIFF files do not hold int64 .use dtype="),
        ("a.npy", {"roi": np.zeros(NAV, dtype=bool)}, ValueError, "nothing to save"),
        ("no/a.npy", {}, MissingFileError, "folder of the output does not exist"),
        ("no/a.zarr", {}, MissingFileError, "folder of the output does not exist"),
    ],
)
def test_what_cannot_be_saved(
    ds: DataSet, out: Path, name: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ds.save(out / name, **options)
    assert_nothing_left(out)


def test_tiff_pages_are_frames(ctx: Context, out: Path) -> None:
    with pytest.raises(ValueError, match=r"pages of TIFF files have two axes: found .* \(48,\)"):
        ctx.load("memory", data=DATA.reshape(4, 5, 48), sig_dims=1).save(out / "a.tif")
    with pytest.raises(ValueError, match="one to three scan axes"):
        ctx.load("memory", data=DATA.reshape(2, 2, 1, 5, *SIG)).save(out / "a.tif")


@pytest.mark.parametrize(("suffix", "package"), [(".zarr", "zarr"), (".tif", "tifffile")])
def test_missing_packages_are_named(
    ds: DataSet, out: Path, suffix: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"pip install {package}, or libertem\[save\]"):
        ds.save(out / f"a{suffix}")
    assert_nothing_left(out)
