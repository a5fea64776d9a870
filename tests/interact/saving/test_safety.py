"""Files are complete or not there, and nothing gets lost."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from libertem.api import Context, DataSet
from libertem.common import new_file
from libertem.common.new_file import TEMPORARY
from libertem.exceptions import DataSetException
from libertem.interact.saving import flat, pieces

from .conftest import (
    DATA,
    RECTANGLE,
    assert_nothing_left,
    assert_saved,
)

# --- complete or not at all ---


@pytest.mark.parametrize("suffix", [".npy", ".h5", ".zarr", ".tif", ".raw"])
def test_files_are_only_overwritten_on_demand(ds: DataSet, out: Path, suffix: str) -> None:
    path = out / f"a{suffix}"
    ds.save(path, roi=RECTANGLE)
    before = sorted(p.name for p in out.iterdir())
    with pytest.raises(FileExistsError, match=rf"a\{suffix}: .* is left as it is \(use overwrite=True"):
        ds.save(path)
    assert_saved(path, DATA[1:3, 2:5])
    ds.save(path, overwrite=True)
    assert_saved(path, DATA)
    assert_nothing_left(out, *before)


def test_descriptions_are_not_overwritten_either(ds: DataSet, out: Path) -> None:
    (out / "a.json").write_text("precious")
    with pytest.raises(FileExistsError, match=r"a\.json"):
        ds.save(out / "a.raw")
    assert_nothing_left(out, "a.json")
    assert (out / "a.json").read_text() == "precious"


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".npy", {}),
        (".h5", {}),
        (".hspy", {"compression": "gzip"}),
        (".zarr", {}),
        (".tif", {}),
        (".raw", {}),
    ],
)
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.EIO, "the disk is gone")])
def test_what_breaks_off_leaves_nothing(
    ds: DataSet,
    out: Path,
    suffix: str,
    options: dict[str, Any],
    error: Any,
    small_pieces: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = out / f"a{suffix}"
    ds.save(path, roi=RECTANGLE)
    before = sorted(p.name for p in out.iterdir())
    read, calls = pieces.read_frames, []

    def broken(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 3:
            # Something is there already, but under another name.
            assert any(TEMPORARY in p.name for p in out.iterdir())
            raise error
        return read(*args)

    monkeypatch.setattr(pieces, "read_frames", broken)
    # Errors of reading are not those of writing.
    with pytest.raises(type(error) if isinstance(error, OSError) else error):
        ds.save(path, overwrite=True, **options)
    assert_nothing_left(out, *before)
    assert_saved(path, DATA[1:3, 2:5])


@pytest.mark.parametrize("suffix", [".npy", ".zarr"])
def test_what_comes_up_meanwhile_is_not_overwritten(
    ds: DataSet, out: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = out / f"a{suffix}"
    read = pieces.read_frames

    def slow(*args: Any) -> Any:
        if suffix == ".npy":
            path.write_bytes(b"of somebody else")
        else:
            path.mkdir()
            (path / "x").write_bytes(b"of somebody else")
        return read(*args)

    monkeypatch.setattr(pieces, "read_frames", slow)
    with pytest.raises(FileExistsError, match="left as it is"):
        ds.save(path)
    assert (path if suffix == ".npy" else path / "x").read_bytes() == b"of somebody else"
    assert_nothing_left(out, path.name)


def test_two_at_a_time_do_not_mix(tmp_path: Path, out: Path, small_pieces: None) -> None:
    np.save(tmp_path / "scan.npy", DATA)
    errors: list[BaseException] = []
    barrier = threading.Barrier(2)

    def save() -> None:
        with Context.make_with("inline") as ctx:
            ds = ctx.load("npy", path=tmp_path / "scan.npy")
            barrier.wait()
            try:
                ds.save(out / "a.npy")
            except FileExistsError as err:
                errors.append(err)

    threads = [threading.Thread(target=save) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 1
    assert_saved(out / "a.npy", DATA)
    assert_nothing_left(out, "a.npy")


@pytest.mark.parametrize("suffix", [".npy", ".h5", ".zarr", ".tif", ".raw"])
def test_space_is_checked_before_anything_is_written(
    ds: DataSet, out: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = DATA.nbytes - 1

    monkeypatch.setattr(new_file.shutil, "disk_usage", lambda folder: Usage)
    with pytest.raises(DataSetException, match=r"not enough space on the disk.*found 1919 bytes free"):
        ds.save(out / f"a{suffix}")
    assert_nothing_left(out)


def test_a_disk_that_fills_up_is_named(
    ds: DataSet, out: Path, small_pieces: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Full:
        def __init__(self, *args: Any) -> None: ...

        def __enter__(self) -> Any:
            def put(box: Any, frames: Any) -> None:
                raise full

            return put

        def __exit__(self, *exc: Any) -> None: ...

    monkeypatch.setattr(flat, "put_frames", Full)
    with pytest.raises(DataSetException, match=r"a\.npy: no space left for the output.*make room"):
        ds.save(out / "a.npy")
    # As HDF5 tells it.
    full = OSError(f"Can't write data (file write failed: errno = 28, '{os.strerror(errno.ENOSPC)}')")
    with pytest.raises(DataSetException, match="no space left"):
        ds.save(out / "a.npy")
    assert_nothing_left(out)


@pytest.mark.parametrize("suffix", [".npy", ".zarr"])
def test_links_are_followed(ds: DataSet, out: Path, suffix: str) -> None:
    ds.save(out / f"real{suffix}", roi=RECTANGLE)
    (out / f"link{suffix}").symlink_to(out / f"real{suffix}")
    ds.save(out / f"link{suffix}", overwrite=True)
    assert (out / f"link{suffix}").is_symlink()
    assert_saved(out / f"real{suffix}", DATA)


def test_folders_are_no_files(ds: DataSet, out: Path) -> None:
    (out / "a.npy").mkdir()
    with pytest.raises(DataSetException, match="the output exists and is no file"):
        ds.save(out / "a.npy", overwrite=True)


# --- the file of the data set itself ---


def test_a_data_set_can_replace_its_own_file(ctx: Context, ds: DataSet, tmp_path: Path) -> None:
    source = tmp_path / "scan.npy"
    mapped = np.load(source, mmap_mode="r")
    with pytest.raises(FileExistsError):
        ds.save(source)
    ds.save(source, overwrite=True, dtype="f4")
    assert_saved(source, DATA.astype("f4"))
    # Who had opened the old one still sees it.
    np.testing.assert_array_equal(mapped, DATA)


@pytest.mark.skipif(not hasattr(os, "link"), reason="no hard links here")
def test_nothing_is_lost_by_replacing_ones_own_file(ctx: Context, ds: DataSet, tmp_path: Path) -> None:
    source = tmp_path / "scan.npy"
    before = source.read_bytes()
    with pytest.raises(ValueError, match=r"read from this file, .* frames would be lost \(save under"):
        ds.save(source, overwrite=True, roi=RECTANGLE)
    moved = ctx.load("npy", path=source, sync_offset=2)
    with pytest.raises(ValueError, match="frames would be lost"):
        moved.save(source, overwrite=True)
    fewer = ctx.load("npy", path=source, nav_shape=(3, 5))
    with pytest.raises(ValueError, match="frames would be lost"):
        fewer.save(source, overwrite=True)
    # Under whatever name.
    os.link(source, tmp_path / "other.raw")
    with pytest.raises(ValueError, match="read from this file"):
        ds.save(tmp_path / "other.raw", overwrite=True, roi=RECTANGLE)
    assert source.read_bytes() == before


def test_files_that_hold_other_things_are_not_replaced(ctx: Context, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = DATA
        file["notes"] = "precious"
    ds = ctx.load("hdf5", path=tmp_path / "a.h5")
    with pytest.raises(ValueError, match="may hold other things"):
        ds.save(tmp_path / "a.h5", overwrite=True)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["notes"].asstr()[()] == "precious"
