"""Which files belong together, in which order, and what is wrong with them."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from libertem.exceptions import DataSetException, HeaderError, MissingFileError
from libertem.executor.inline import InlineJobExecutor
from libertem.io.dataset import load
from libertem.io.dataset.base.backends.rawio import io_counts
from libertem.io.dataset.base.framefile import PROBE_BYTES
from libertem.io.dataset.mib import MIBDataSet
from libertem.io.dataset.mib.files import find_files, inspect_acquisition
from libertem.testing.writers.mib import MIBSpec, encode_records, write_hdr, write_mib

EXECUTOR = InlineJobExecutor()
SMALL = MIBSpec("U08")


def constant_frames(n: int, first: int = 1) -> npt.NDArray[np.uint8]:
    return np.repeat(np.arange(first, first + n, dtype=np.uint8), 12).reshape(n, 3, 4)


def load_mib(path: Path, nav_shape: Any, **kwargs: Any) -> Any:
    return load("mib", path=path, nav_shape=nav_shape, executor=EXECUTOR, **kwargs)


def first_pixels(ds: Any) -> list[int]:
    """The upper left pixel of each frame, blanks as zeros."""
    out = np.zeros(ds.shape.nav.size, dtype=np.int64)
    for partition in ds.get_partitions():
        tile = partition.get_macrotile(dest_dtype="int64")
        start = tile.tile_slice.origin[0]
        out[start : start + tile.shape[0]] = tile.data[:, 0, 0]
    return out.tolist()


def write_numbered(folder: Path, starts: dict[str, tuple[int, int]]) -> None:
    """Write files with that first sequence number and number of frames; pixels are the sequence numbers."""
    for name, (first, n) in starts.items():
        write_mib(folder, constant_frames(n, first), SMALL, names=[name], first_sequence=first)


# --- which files ---


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a.hdr", {"a.mib", "a1.mib", "a12.MIB", "abc.mib"}),
        ("a.HDR", {"a.mib", "a1.mib", "a12.MIB", "abc.mib"}),
        ("a1.mib", {"a.mib", "a1.mib", "a12.MIB", "abc.mib"}),
        ("a12.MIB", {"a.mib", "a1.mib", "a12.MIB", "abc.mib"}),
        ("a99.mib", {"a.mib", "a1.mib", "a12.MIB", "abc.mib"}),
        ("a1.hdr", {"a1.mib", "a12.MIB"}),
        ("abc.mib", {"abc.mib"}),
        ("7.mib", {"a.mib", "a1.mib", "a12.MIB", "abc.mib", "b.mib", "7.mib"}),
    ],
)
def test_files_with_the_same_prefix_belong_together(path: str, expected: set[str], tmp_path: Path) -> None:
    for name in ("a.mib", "a1.mib", "a12.MIB", "abc.mib", "b.mib", "7.mib", "a1.txt", "a.mib.txt", "._a.mib"):
        (tmp_path / name).touch()
    folder, names = find_files(str(tmp_path / path))
    assert folder == str(tmp_path)
    assert set(names) == expected
    assert find_files(str(tmp_path / path), disable_glob=True) == (folder, [path])


@pytest.mark.parametrize(
    "stem", ["scan [1]", "what*", "really?", "µ-Ångström", "two words", "[a-z]", "x.y", "~", "100%"]
)
def test_names_may_contain_any_characters(stem: str, tmp_path: Path) -> None:
    folder = tmp_path / stem
    folder.mkdir()
    frames = constant_frames(3)
    write_mib(folder, frames, SMALL, names=[f"{stem}_1.mib", f"{stem}_2.mib"], frames_per_file=[2])
    write_mib(folder, frames, SMALL, names=["z_1.mib"])
    write_hdr(folder / f"{stem}_.hdr", 3, 3)
    for path in (f"{stem}_1.mib", f"{stem}_.hdr"):
        assert first_pixels(load_mib(folder / path, (3,))) == [1, 2, 3]


def test_paths_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_numbered(tmp_path, {"a1.mib": (1, 2)})
    monkeypatch.chdir(tmp_path)
    assert first_pixels(load_mib(Path("a1.mib"), (2,))) == [1, 2]


def test_the_order_is_that_of_the_sequence_numbers(tmp_path: Path) -> None:
    write_numbered(tmp_path, {"x10.mib": (4, 2), "x2.mib": (1, 3), "x1.mib": (6, 1)})
    for name in ("x1.mib", "x2.mib", "x10.mib"):
        assert first_pixels(load_mib(tmp_path / name, (6,))) == [1, 2, 3, 4, 5, 6]


def test_the_first_sequence_number_may_be_any(tmp_path: Path) -> None:
    write_numbered(tmp_path, {"x1.mib": (100, 2), "x2.mib": (102, 1)})
    assert first_pixels(load_mib(tmp_path / "x1.mib", (4,))) == [100, 101, 102, 0]


def test_only_one_file_if_asked_for(tmp_path: Path) -> None:
    write_numbered(tmp_path, {"a.mib": (1, 2), "a1.mib": (1, 3), "a2.mib": (1, 4)})
    for name, n in (("a.mib", 2), ("a1.mib", 3), ("a2.mib", 4)):
        ds = load_mib(tmp_path / name, (4,), disable_glob=True)
        assert first_pixels(ds) == [*range(1, n + 1), 0, 0][:4]
        assert ds.get_cache_key()["disable_glob"] is True


# --- what is wrong with them ---


def test_missing_files_are_named(tmp_path: Path) -> None:
    write_hdr(tmp_path / "x.hdr", 3, 3)
    with pytest.raises(MissingFileError, match=r"no files found.*x\*\.mib"):
        load_mib(tmp_path / "x.hdr", None)
    with pytest.raises(MissingFileError, match="no files found"):
        load_mib(tmp_path / "y1.mib", (3,))
    with pytest.raises(MissingFileError, match=r"y1.mib: the file does not exist"):
        load_mib(tmp_path / "y1.mib", (3,), disable_glob=True)


def test_gaps_are_named(tmp_path: Path) -> None:
    write_numbered(tmp_path, {"x1.mib": (1, 3), "x3.mib": (8, 2)})
    with pytest.raises(DataSetException, match=r"frames 4 to 7 are missing.*8 to 9 in x3.*1 to 3 in x1"):
        load_mib(tmp_path / "x1.mib", (9,))


def test_a_truncated_file_between_others_is_a_gap(tmp_path: Path) -> None:
    write_numbered(tmp_path, {"x1.mib": (1, 3), "x2.mib": (4, 2)})
    os.truncate(tmp_path / "x1.mib", 3 * 396 - 1)
    with pytest.raises(DataSetException, match="frames 3 to 3 are missing"):
        load_mib(tmp_path / "x1.mib", (5,))


def test_overlapping_acquisitions_are_refused(tmp_path: Path) -> None:
    write_numbered(tmp_path, {"x1.mib": (1, 3), "x2.mib": (1, 2)})
    with pytest.raises(DataSetException, match=r"overlap.*1 to 3 in x1.*disable_glob=True"):
        load_mib(tmp_path / "x1.mib", (5,))
    write_numbered(tmp_path, {"y1.mib": (1, 3), "y2.mib": (3, 2)})
    with pytest.raises(DataSetException, match="overlap"):
        load_mib(tmp_path / "y1.mib", (5,))


@pytest.mark.parametrize("left", [0, 1, 4, 100, 383, 384, 395])
def test_a_file_without_a_complete_frame_at_the_end_is_ignored(left: int, tmp_path: Path) -> None:
    write_numbered(tmp_path, {"x1.mib": (1, 3), "x2.mib": (4, 2), "x3.mib": (6, 1)})
    os.truncate(tmp_path / "x3.mib", left)
    for name in ("x1.mib", "x3.mib"):
        ds = load_mib(tmp_path / name, (6,))
        assert first_pixels(ds) == [1, 2, 3, 4, 5, 0]
        assert ds.meta.image_count == 5


@pytest.mark.parametrize("left", [0, 100, 384, 395])
def test_a_file_without_a_complete_frame_at_the_start_shifts_nothing(left: int, tmp_path: Path) -> None:
    write_numbered(tmp_path, {"x1.mib": (1, 3), "x2.mib": (4, 2)})
    os.truncate(tmp_path / "x1.mib", left)
    with pytest.raises(DataSetException, match=r"missing.*copy"):
        load_mib(tmp_path / "x2.mib", (5,))


def test_an_incomplete_file_of_another_acquisition_is_ignored(tmp_path: Path) -> None:
    write_numbered(tmp_path, {"x1.mib": (1, 3), "x2.mib": (2, 1)})
    os.truncate(tmp_path / "x2.mib", 390)
    assert first_pixels(load_mib(tmp_path / "x1.mib", (3,))) == [1, 2, 3]


@pytest.mark.parametrize("left", [0, 1, 100, 384, 395])
def test_files_without_any_complete_frame_are_refused(left: int, tmp_path: Path) -> None:
    write_numbered(tmp_path, {"x1.mib": (1, 2), "x2.mib": (3, 1)})
    for name in ("x1.mib", "x2.mib"):
        os.truncate(tmp_path / name, left)
    with pytest.raises(HeaderError, match=f"x1.mib: no complete frames in 2 files: found {left} bytes"):
        load_mib(tmp_path / "x1.mib", (3,))
    assert MIBDataSet.detect_params(str(tmp_path / "x1.mib"), EXECUTOR) is False


@pytest.mark.parametrize("n_bytes", [1, 12, 395])
def test_bytes_behind_the_last_frame_are_ignored(n_bytes: int, tmp_path: Path) -> None:
    write_numbered(tmp_path, {"x1.mib": (1, 3)})
    with (tmp_path / "x1.mib").open("ab") as file:
        file.write(b"\xaa" * n_bytes)
    ds = load_mib(tmp_path / "x1.mib", (4,))
    assert first_pixels(ds) == [1, 2, 3, 0]


def test_foreign_files_under_the_same_prefix_are_named(tmp_path: Path) -> None:
    write_numbered(tmp_path, {"x1.mib": (1, 3)})
    (tmp_path / "x_other.mib").write_bytes(b"something else" * 100)
    with pytest.raises(HeaderError, match=r"x_other.mib: not a MIB file.*disable_glob=True"):
        load_mib(tmp_path / "x1.mib", (3,))
    (tmp_path / "x_other.mib").unlink()
    (tmp_path / "x_folder.mib").mkdir()
    with pytest.raises(DataSetException, match=r"x_folder.mib: not a file"):
        load_mib(tmp_path / "x1.mib", (3,))


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        (MIBSpec("U16"), (3, 4)),
        (MIBSpec("U08"), (4, 4)),
        (MIBSpec("U08", layout="2x2"), (3, 4)),
        (MIBSpec("U08", header_bytes=400), (3, 4)),
        (MIBSpec("U08", depth=1), (3, 4)),
    ],
)
def test_files_of_different_kind_do_not_belong_together(
    spec: MIBSpec, shape: tuple[int, int], tmp_path: Path
) -> None:
    write_numbered(tmp_path, {"x1.mib": (1, 3)})
    write_mib(tmp_path, np.zeros((2, *shape), dtype="u1"), spec, names=["x2.mib"], first_sequence=4)
    with pytest.raises(HeaderError, match=r"x2.mib: .* not belong to the same .* as in x1.mib"):
        load_mib(tmp_path / "x1.mib", (5,))


@pytest.mark.parametrize(("width", "height"), [(4, 2), (2, 3), (5, 3), (4, 4)])
def test_a_wrong_frame_size_is_noticed_at_the_second_header(width: int, height: int, tmp_path: Path) -> None:
    write_numbered(tmp_path, {"x1.mib": (1, 5)})
    raw = bytearray((tmp_path / "x1.mib").read_bytes())
    raw[20:29] = f"{width:04d},{height:04d}".encode()
    (tmp_path / "x1.mib").write_bytes(raw)
    with pytest.raises(HeaderError, match=r"x1.mib: the frames have another size than the first header says"):
        load_mib(tmp_path / "x1.mib", (5,))


def test_claims_beyond_the_size_of_the_file_allocate_nothing(tmp_path: Path) -> None:
    write_numbered(tmp_path, {"x1.mib": (1, 2)})
    raw = (tmp_path / "x1.mib").read_bytes()
    (tmp_path / "x1.mib").write_bytes(raw[:20] + b"99999999,99999999" + raw[29:])
    with pytest.raises(HeaderError, match="no complete frames in the file"):
        load_mib(tmp_path / "x1.mib", (2,))


@pytest.mark.parametrize("size", [0, 1, 3, 34, 383, 384, 385, 395, 396, 397, 780, 791, 792])
def test_files_cut_anywhere_load_what_is_complete(size: int, tmp_path: Path) -> None:
    write_numbered(tmp_path, {"x1.mib": (1, 2)})
    os.truncate(tmp_path / "x1.mib", size)
    if size < 396:
        with pytest.raises(HeaderError, match="no complete frames"):
            load_mib(tmp_path / "x1.mib", (2,))
    else:
        assert first_pixels(load_mib(tmp_path / "x1.mib", (2,))) == [1, 2 if size == 792 else 0]


def test_headers_longer_than_the_first_read_are_read_again(tmp_path: Path) -> None:
    spec = MIBSpec("U08", layout="Nx1", n_chips=12)
    write_mib(tmp_path, constant_frames(4), spec, names=["x1.mib", "x2.mib"], frames_per_file=[2])
    facts = inspect_acquisition(str(tmp_path / "x1.mib"))
    assert facts.header.header_bytes == 256 + 12 * 128
    assert facts.header.counter_depth == 6
    assert first_pixels(load_mib(tmp_path / "x1.mib", (4,))) == [1, 2, 3, 4]


# --- old software ---


@pytest.mark.parametrize("path", ["scan.hdr", "scan7.mib"])
def test_the_hdr_file_tells_the_counter_depth_of_old_raw_files(path: str, tmp_path: Path) -> None:
    spec = MIBSpec("R64", 12, has_extension=False)
    frames = np.arange(64, dtype=np.uint16).reshape(2, 4, 8)
    write_mib(tmp_path, frames, spec, names=["scan7.mib"])
    with pytest.raises(DataSetException, match=r"scan7.mib: the bits per pixel .* not known"):
        load_mib(tmp_path / "scan7.mib", (2,))
    write_hdr(tmp_path / "scan.hdr", 2, 2, depth=12)
    ds = load_mib(tmp_path / path, (2,))
    assert ds.dtype == np.uint16
    assert first_pixels(ds) == [0, 32]


# --- many files ---


def write_single_frames(folder: Path, n: int) -> list[Path]:
    records = encode_records(np.arange(n * 4, dtype=np.uint16).reshape(n, 2, 2), MIBSpec("U16"))
    paths = [folder / f"scan{i}.mib" for i in range(n)]
    for path, record in zip(paths, records, strict=True):
        path.write_bytes(record.data)
    return paths


def test_a_thousand_files_of_one_frame(tmp_path: Path) -> None:
    n = 1000
    paths = write_single_frames(tmp_path, n)
    before = io_counts()
    ds = load_mib(paths[3], (n,))
    after = io_counts()
    assert (after - before).reads <= n + 2  # one per file, and those of `check_valid`
    assert (after - before).read_bytes <= n * 1024
    assert first_pixels(ds) == list(range(0, 4 * n, 4))
    assert len(pickle.dumps(ds)) < 60 * n


def test_detection_of_many_files_reads_little(tmp_path: Path) -> None:
    n = 900
    paths = write_single_frames(tmp_path, n)
    write_hdr(tmp_path / "scan.hdr", n, 45)
    for path, nav_shape in ((paths[0], (30, 30)), (tmp_path / "scan.hdr", (20, 45))):
        before = io_counts()
        answer = MIBDataSet.detect_params(str(path), EXECUTOR)
        assert (io_counts() - before).read_bytes <= PROBE_BYTES
        assert answer == {
            "parameters": {"path": str(path), "nav_shape": nav_shape, "sig_shape": (2, 2)},
            "info": {"image_count": n, "native_sig_shape": (2, 2)},
        }


def test_very_many_files_are_worth_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("libertem.io.dataset.mib.files.MANY_FILES", 5)
    paths = write_single_frames(tmp_path, 6)
    with pytest.warns(RuntimeWarning, match=r"Saving data in many small files \(here: 6\).*Images Per File"):
        load_mib(paths[0], (6,))
