from __future__ import annotations

import itertools
import json
import pickle
import struct
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libertem.api import Context
from libertem.exceptions import (
    DataSetException,
    HeaderError,
    MissingFileError,
    ShapeError,
    SizeMismatchError,
)
from libertem.executor.inline import InlineJobExecutor
from libertem.io.dataset import load
from libertem.io.dataset.base.backends.rawio import io_counts
from libertem.io.dataset.base.framefile import PROBE_BYTES
from libertem.io.dataset.tvips import (
    ScanGuess,
    TVIPSDataSet,
    TVIPSHeader,
    find_series,
    guess_from_rotator,
    infer_scan,
    parse_header,
)
from libertem.testing import DataSetTests
from libertem.testing.suite.reading import assert_delivered
from libertem.testing.suite.reading import read as read_tiles
from libertem.testing.writers.tvips import ROW_DTYPE, make_scan, make_tvips_header, write_tvips

EXECUTOR = InlineJobExecutor(debug=True)
BACKENDS = ["mmap", "buffered", "direct"]


def load_tvips(path: Path | str, **kwargs: Any) -> Any:
    return load("tvips", path=path, executor=EXECUTOR, **kwargs)


def load_quietly(path: Path, **kwargs: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_tvips(path, **kwargs)


def detect(path: Path | str) -> Any:
    return TVIPSDataSet.detect_params(str(path), EXECUTOR)


def detected_scan(path: Path | str) -> tuple[tuple[int, ...], int]:
    """What detection proposes as nav_shape and sync_offset."""
    parameters = detect(path)["parameters"]
    return parameters["nav_shape"], parameters["sync_offset"]


def read(ds: Any) -> npt.NDArray[Any]:
    """The whole array in native byte order, blanks as zeros."""
    return read_tiles(ds).pixels.reshape(tuple(ds.shape))


def make_frames(n: int, dtype: str = "u2", shape: tuple[int, int] = (4, 5)) -> npt.NDArray[Any]:
    """Pixel value = index + frame number."""
    values = np.arange(n)[:, None] + np.arange(shape[0] * shape[1])
    return values.reshape(n, *shape).astype(dtype)


def write(path: Path, n: int, scan: npt.NDArray[Any] | None = None, **kwargs: Any) -> Path:
    return write_tvips(path, [make_frames(n)], scan, **kwargs)


def write_worked_example(path: Path, **kwargs: Any) -> Path:
    """3 frames before a scan of 3 x 4."""
    return write(path, 15, make_scan((3, 4), lead=3), **kwargs)


class TestTVIPS(DataSetTests):
    filetype = "tvips"
    dtypes = ("<u2", "u1")
    image_header_bytes = 108
    splits: tuple[int, ...] = ()

    def write(self, folder: Path, frames: npt.NDArray[Any]) -> dict[str, Any]:
        kwargs: dict[str, Any] = {"image_header_bytes": self.image_header_bytes, "splits": self.splits}
        return {"path": str(write_tvips(folder / "rec_000.tvips", [frames], **kwargs))}


class TestTVIPSInSeveralFiles(TestTVIPS):
    """With image headers that do not have whole pixels."""

    dtypes = ("<u2",)
    image_header_bytes = 61
    nav_shape = (4, 6)
    splits = (1, 6, 8)
    max_pickle_bytes = 4096

    def main_file(self, kwargs: dict[str, Any]) -> Path:
        return Path(kwargs["path"]).with_name("rec_003.tvips")

    def test_an_empty_file_is_refused(self, tmp_path: Path, ctx: Context, io_backend: str | None) -> None:
        """Only the first one; others without frames are part of the format."""
        frames = self.make_frames(self.n_frames)
        kwargs = self.write_frames(tmp_path, frames)
        self.main_file(kwargs).write_bytes(b"")
        ds = self.load(ctx, kwargs, io_backend=io_backend, nav_shape=(8,))
        assert_delivered(read_tiles(ds), frames[:8], None, repr(ds))
        Path(kwargs["path"]).write_bytes(b"")
        with pytest.raises(DataSetException):
            self.load(ctx, kwargs, io_backend=io_backend)


# --- content ---


def test_worked_example(tmp_path: Path) -> None:
    path = write_worked_example(tmp_path / "scanpre_000.tvips")
    content = path.read_bytes()
    assert len(content) == 2476
    for offset, expected in (
        (0x000, "00010000 02000000 05000000 04000000 10000000 00000000 00000000 01000000"),
        (0x020, "01000000 8C3C0000 C8000000 50000000 6C000000" + b"TVIPS TVIPS".hex()),
        (0x350, "04000000 00105E5F 04000000"),
        (0x380, "02000000"),
        (0x394, "0000803F 00000000"),
        (0x3BC, "04000500"),
    ):
        assert content[offset:].startswith(bytes.fromhex(expected))
    assert detect(path) == {
        "parameters": {"path": str(path), "nav_shape": (3, 4), "sig_shape": (4, 5), "sync_offset": 3},
        "info": {"image_count": 15, "native_sig_shape": (4, 5)},
    }
    ds = load_tvips(path)
    assert (tuple(ds.shape), ds.get_sync_offset_info()["frames_skipped_start"]) == ((3, 4, 4, 5), 3)
    assert read(ds).sum() == 4320
    assert read(load_tvips(path, nav_shape=(15,), sync_offset=0)).sum() == 4950


@pytest.mark.parametrize(
    ("n", "scan", "nav_shape", "sync_offset", "total"),
    [
        (12, make_scan((3, 4)), (3, 4), 0, 3600),
        (17, make_scan((3, 4), 3, 2), (3, 4), 3, 4320),
        (10, make_scan((3, 4))[:10], (2, 4), 0, None),
        (6, make_scan((1, 6)), (6,), 0, None),
        (9, make_scan((1, 9)), (9,), 0, None),
        (6, None, (6,), 0, None),
    ],
)
def test_table_of_cases(
    n: int, scan: Any, nav_shape: tuple[int, ...], sync_offset: int, total: int | None, tmp_path: Path
) -> None:
    path = write(tmp_path / "x_000.tvips", n, scan)
    ds = load_tvips(path)
    assert (tuple(ds.shape), ds.meta.sync_offset) == ((*nav_shape, 4, 5), sync_offset)
    assert detected_scan(path) == (nav_shape, sync_offset)
    shown = make_frames(n)[sync_offset:][: int(np.prod(nav_shape))]
    np.testing.assert_array_equal(read(ds).reshape(-1, 4, 5), shown)
    assert total is None or read(ds).sum() == total


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("splits", [(6, 11), (2,), (1, 2, 3, 4, 5), (4, 8, 12)])
def test_split_series_are_like_whole_ones(splits: Sequence[int], backend: str, tmp_path: Path) -> None:
    path = write_worked_example(tmp_path / "x_000.tvips", splits=splits)
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == len(splits) + 1
    for path in paths:
        ds = load_tvips(path, io_backend=backend)
        assert (tuple(ds.shape), ds.meta.sync_offset) == ((3, 4, 4, 5), 3)
        np.testing.assert_array_equal(read(ds).reshape(12, 4, 5), make_frames(15)[3:])
        assert detected_scan(path) == ((3, 4), 3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("n_bytes", [12, 13, 60, 61, 75, 76, 108, 128, 200])
@pytest.mark.parametrize(("dtype", "shape"), [("u2", (4, 5)), ("u1", (6, 4)), ("u1", (5, 3))])
def test_image_headers_of_any_length(
    dtype: str, shape: tuple[int, int], n_bytes: int, version: int, backend: str, tmp_path: Path
) -> None:
    if version == 1 and n_bytes > 12:
        n_bytes = 12
    frames = make_frames(15, dtype, shape)
    scan = make_scan((3, 4), lead=3)
    path = tmp_path / "x_000.tvips"
    write_tvips(path, [frames[:4], frames[4:]], scan, version=version, image_header_bytes=n_bytes)
    assert path.stat().st_size == 256 + 15 * (n_bytes + frames[0].nbytes)
    ds = load_tvips(path, io_backend=backend)
    if n_bytes < 76:
        assert (tuple(ds.shape), ds.meta.sync_offset) == ((15, *shape), 0)
        np.testing.assert_array_equal(read(ds), frames)
        assert detected_scan(path) == ((15,), 0)
    else:
        assert (tuple(ds.shape), ds.meta.sync_offset) == ((3, 4, *shape), 3)
        np.testing.assert_array_equal(read(ds).reshape(12, *shape), frames[3:])


def test_version_1_ignores_what_is_said_about_image_headers(tmp_path: Path) -> None:
    for claim in (-1, 0, 108, 2**31 - 1):
        path = write(tmp_path / "x_000.tvips", 12, version=1, patches={48: struct.pack("<i", claim)})
        assert read(load_tvips(path)).sum() == 3600


# --- finding the series ---


def test_foreign_series_beside_it_are_left_alone(tmp_path: Path) -> None:
    for name in ("x", "x_extra", "other", "x_000", "X"):
        write_worked_example(tmp_path / f"{name}_000.tvips", splits=(5,))
    for junk in ("x_0002.tvips", "x_02.tvips", "x_002.tvips.bak", "x_002", "x_abc.tvips", "yx_002.tvips"):
        (tmp_path / junk).write_bytes(b"junk")
    for name in ("x_000.tvips", "x_001.tvips", "x_extra_001.tvips", "x_000_000.tvips"):
        assert load_tvips(tmp_path / name).meta.image_count == 15
        assert len(find_series(str(tmp_path / name)).paths) == 2


@pytest.mark.parametrize("name", ["a[0-9]", "a*", "a?", "[", "a b", "ä", "", "%s", "x_000", "a\nb"])
def test_names_are_taken_literally(name: str, tmp_path: Path) -> None:
    folder = tmp_path / f"folder {name}"
    folder.mkdir()
    write_worked_example(folder / f"{name}_000.tvips")
    (folder / "decoy_000.tvips").write_bytes(b"junk")
    for number in (1, 2):
        (folder / f"{name}_{number:03}.tvips").write_bytes((folder / f"{name}_000.tvips").read_bytes()[256:])
    ds = load_tvips(folder / f"{name}_002.tvips")
    assert ds.meta.image_count == 45


def test_extensions_in_upper_case(tmp_path: Path) -> None:
    path = write_worked_example(tmp_path / "U_000.TVIPS", splits=(5, 9))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["U_000.TVIPS", "U_001.TVIPS", "U_002.TVIPS"]
    assert read(load_tvips(path)).sum() == 4320
    assert detect(path)


def test_paths_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_worked_example(tmp_path / "x_000.tvips", splits=(5,))
    monkeypatch.chdir(tmp_path)
    assert read(load_tvips("x_001.tvips")).sum() == 4320
    assert read(load_tvips("./x_001.tvips")).sum() == 4320


@pytest.mark.parametrize("name", ["b.tvips", "b_00.tvips", "b_0000.tvips", "000.tvips", "b_000x.tvips"])
def test_a_file_without_number_is_a_series_of_its_own(name: str, tmp_path: Path) -> None:
    path = write_worked_example(tmp_path / name)
    (tmp_path / "b_001.tvips").write_bytes(b"junk")
    assert read(load_tvips(path)).sum() == 4320
    assert detect(path)


def test_without_its_first_file_a_series_is_refused(tmp_path: Path) -> None:
    write_worked_example(tmp_path / "x_000.tvips", splits=(5, 9)).unlink()
    with pytest.raises(MissingFileError, match=r"x_000\.tvips.*first file.*found numbers 001 to 002"):
        load_tvips(tmp_path / "x_001.tvips")
    assert detect(tmp_path / "x_001.tvips") is False


def test_a_gap_ends_the_series_with_a_warning(tmp_path: Path) -> None:
    path = write(tmp_path / "x_000.tvips", 15, splits=(5, 9, 12))
    (tmp_path / "x_002.tvips").unlink()
    with pytest.warns(RuntimeWarning, match=r"x_002\.tvips is missing: reading the 2 files before it, not"):
        ds = load_tvips(path)
    np.testing.assert_array_equal(read(ds), make_frames(9))
    assert detect(tmp_path / "x_001.tvips")["info"]["image_count"] == 9
    with pytest.raises(MissingFileError, match=r"x_002\.tvips.*put it beside .*x_003\.tvips"):
        load_tvips(tmp_path / "x_003.tvips")
    assert detect(tmp_path / "x_003.tvips") is False


def test_empty_files_contribute_no_frames(tmp_path: Path) -> None:
    path = write(tmp_path / "x_000.tvips", 15, splits=(5, 9))
    (tmp_path / "x_002.tvips").rename(tmp_path / "x_003.tvips")
    (tmp_path / "x_002.tvips").write_bytes(b"")
    (tmp_path / "x_004.tvips").write_bytes(b"")
    for name in ("x_000.tvips", "x_002.tvips", "x_004.tvips"):
        ds = load_tvips(tmp_path / name)
        np.testing.assert_array_equal(read(ds), make_frames(15))
    path.write_bytes(make_tvips_header((4, 5), 16))
    np.testing.assert_array_equal(read(load_tvips(path)), make_frames(15)[5:])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write_worked_example(tmp_path / "x_000.tvips")
    with pytest.raises(MissingFileError, match=r"x_001\.tvips"):
        load_tvips(tmp_path / "x_001.tvips")
    with pytest.raises(FileNotFoundError):
        load_tvips(tmp_path / "x_001.tvips")


def test_another_extension_is_refused(tmp_path: Path) -> None:
    path = write_worked_example(tmp_path / "x_000.tvips").rename(tmp_path / "x_000.dat")
    with pytest.raises(DataSetException, match=r"x_000\.dat: unknown extension: found '\.dat'"):
        load_tvips(path)
    before = io_counts()
    assert detect(path) is False
    assert io_counts() == before


# --- finding the scan ---


def place(frames: Sequence[tuple[float, float]]) -> npt.NDArray[Any]:
    """Scan positions (y, x) for the writer."""
    rows = np.zeros(len(frames), dtype=ROW_DTYPE)
    rows["y"], rows["x"] = np.transpose(frames)
    return rows


REST = [(9.0, 9.0)]
ROW = [(0.0, 0.0), (0.0, 1.0), (0.0, 2.0)]


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ([*ROW, (1, 0), (1, 1), (1, 2)], ScanGuess(0, (2, 3))),
        # A repeated origin counts once, and other positions may come in between.
        ([(0, 0), (0, 0), *ROW, (1, 0)], ScanGuess(2, (1, 3))),
        ([(0, 0), (5, 5), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)], ScanGuess(1, (2, 3))),
        # (0, 1) before any origin does not start a scan.
        ([(0, 1), (0, 0), (0, 1), (0, 0), (0, 1)], ScanGuess(1, (2, 2))),
        ([(0, 1), (0, 1), (1, 0)], None),
        ([(0, 0), (1, 0), (2, 0)], None),
        ([(0, 0)] * 8, None),
        (ROW, ScanGuess(0, (3,))),
        # Truncation toward zero.
        ([(0.9, -0.9), (-0.5, 1.9), (0, 2), (1, 0.3)], ScanGuess(0, (1, 3))),
        # Rows are counted by frames, whatever y says.
        ([*ROW, (7, 0), (7, 1), (7, 2), *REST * 3], ScanGuess(0, (3, 3))),
        # Lost frames: the row is wider than everything together.
        ([(0, 0), (0, 1), (0, 50), (1, 0), (1, 1)], ScanGuess(0, (5,))),
        ([(0, 0), (0, 1), (0, 1e30), (1, 0), (1, 1)], ScanGuess(0, (5,))),
        # What is no number is no position.
        ([(0, 0), (np.nan, 0), (0, 1), (0, np.inf), (0, 2), (1, 0), (1, 1)], ScanGuess(1, (2, 3))),
        ([(0, 0), (np.nan, np.nan), (np.inf, -np.inf)], None),
    ],
)
def test_start_and_width_of_the_scan(positions: Any, expected: ScanGuess | None, tmp_path: Path) -> None:
    n = len(positions)
    path = write(tmp_path / "x_000.tvips", n, place(positions))
    ds = load_tvips(path)
    wanted = expected or ScanGuess(0, (n,))
    assert (ds.shape.nav.to_tuple(), ds.meta.sync_offset) == (wanted.nav_shape, wanted.sync_offset)
    if expected is not None:
        assert detected_scan(path) == (expected.nav_shape, expected.sync_offset)


def test_without_a_scan_detection_proposes_a_square(tmp_path: Path) -> None:
    path = write(tmp_path / "x_000.tvips", 16)
    assert detected_scan(path) == ((4, 4), 0)
    assert load_tvips(path).shape.nav.to_tuple() == (16,)
    assert detected_scan(write(path, 10)) == ((10,), 0)


def infer_by_the_rule(
    positions: Sequence[tuple[int, int]], n: int, limit: int
) -> tuple[int, tuple[int, ...]] | None:
    """The rule of the specification, word by word."""
    i = 0
    seen = False
    while i < min(limit, n):
        if seen and positions[i] == (0, 1):
            break
        if positions[i] == (0, 0):
            seen = True
        i += 1
    else:
        return None
    sync_offset = i - 1
    maximum = -1
    while i < min(limit, n):
        if positions[i][1] < maximum:
            rows = (n - sync_offset) // (maximum + 1)
            return sync_offset, ((rows, maximum + 1) if rows else (n,))
        maximum = max(maximum, positions[i][1])
        i += 1
    return sync_offset, (n,)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-1, 2), st.integers(-1, 4)), max_size=30),
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(0, 40),
)
def test_inference_follows_the_rule(
    before: list[tuple[int, int]], height: int, width: int, limit: int
) -> None:
    positions = [*before, *itertools.product(range(height), range(width)), (0, 0)]
    n = len(positions)
    guess = infer_scan(itertools.islice(positions, limit), n)
    expected = infer_by_the_rule(positions, n, limit)
    assert guess == (None if expected is None else ScanGuess(*expected))


@pytest.mark.parametrize(
    ("lead", "width", "expected"),
    [
        (4094, 2, ((5102,), 4094)),
        (4095, 2, ((5103,), 0)),
        (0, 4095, ((1, 4095), 0)),
        (0, 4096, ((4096 + 1008,), 0)),
        (3000, 1095, ((1, 1095), 3000)),
        (3000, 1096, ((5104,), 3000)),
    ],
)
def test_the_search_ends_after_4096_frames(lead: int, width: int, expected: Any, tmp_path: Path) -> None:
    positions = [(0, 0)] * lead + [(0, x) for x in range(width)] + [(1, x) for x in range(1008 - width % 2)]
    positions = positions[: 4096 + 1008]
    n = len(positions)
    path = write_tvips(tmp_path / "x_000.tvips", [np.zeros((n, 1, 1), dtype="u1")], place(positions))
    before = io_counts()
    ds = load_tvips(path)
    counts = io_counts() - before
    assert counts.reads <= 4097
    assert counts.read_bytes <= 256 + 8 * 4096
    nav_shape, sync_offset = expected
    if len(nav_shape) == 1:
        nav_shape = (n,)
    assert (ds.shape.nav.to_tuple(), ds.meta.sync_offset) == (nav_shape, sync_offset)
    before = io_counts()
    assert detect(path)
    assert (io_counts() - before).read_bytes <= PROBE_BYTES


def test_inference_stops_as_early_as_it_can(tmp_path: Path) -> None:
    path = write_tvips(
        tmp_path / "x_000.tvips", [np.zeros((1003, 2, 2), dtype="u1")], make_scan((100, 10), lead=3)
    )
    before = io_counts()
    load_tvips(path)
    assert (io_counts() - before).reads == 1 + 3 + 10 + 1
    before = io_counts()
    load_tvips(path, nav_shape=(50, 20), sync_offset=0)
    assert (io_counts() - before).reads == 1


@pytest.mark.parametrize(
    ("given", "nav_shape", "sync_offset"),
    [
        ({}, (3, 4), 3),
        ({"nav_shape": (2, 5)}, (2, 5), 3),
        ({"nav_shape": (5, 2), "sync_offset": None}, (5, 2), 3),
        ({"sync_offset": 0}, (3, 4), 0),
        ({"sync_offset": 5}, (3, 4), 5),
        ({"sync_offset": -4}, (3, 4), -4),
        ({"nav_shape": (15,), "sync_offset": 0}, (15,), 0),
        ({"nav_shape": (20,), "sync_offset": -2}, (20,), -2),
    ],
)
def test_what_the_user_says_goes_first(
    given: dict[str, Any], nav_shape: tuple[int, ...], sync_offset: int, tmp_path: Path
) -> None:
    ds = load_tvips(write_worked_example(tmp_path / "x_000.tvips"), **given)
    n = int(np.prod(nav_shape))
    assert (ds.shape.nav.to_tuple(), ds.meta.sync_offset) == (nav_shape, sync_offset)
    expected = np.zeros((n, 4, 5))
    for i in range(n):
        if 0 <= i + sync_offset < 15:
            expected[i] = make_frames(15)[i + sync_offset]
    np.testing.assert_array_equal(read(ds).reshape(n, 4, 5), expected)


@pytest.mark.parametrize("sync_offset", [15, -15])
def test_a_sync_offset_that_leaves_nothing_is_refused(sync_offset: int, tmp_path: Path) -> None:
    path = write_worked_example(tmp_path / "x_000.tvips")
    with pytest.raises(
        ShapeError, match=r"sync_offset should be in \(-15, 15\), which is \(-image_count, image_count\)"
    ):
        load_tvips(path, sync_offset=sync_offset)


# --- the rotator, for detection only ---


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2, 3, 4], ((2, 2), 0)),
        ([0, 0, 0, 1, 2, 3, 4, 1, 1], ((2, 2), 3)),
        ([1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1], ((3, 3), 2)),
        ([7, 7, 1, 2, 3, 4, 1, 1, 1], ((2, 2), 2)),
        ([0, 1, 2, 3, 4, 0], ((2, 2), 1)),
        # Not square, with a lost and with a repeated frame: nothing is proposed but a square of all frames.
        ([1, 2, 3, 4, 5, 6], ((6,), 0)),
        ([1, 2, 4, 5, 6], ((5,), 0)),
        ([1, 2, 2, 3, 4], ((5,), 0)),
        ([1, 2, 3, 4, 4], ((5,), 0)),
        ([0, 2, 3, 4, 5], ((5,), 0)),
        ([0, 0, 0], ((3,), 0)),
        ([5], ((1, 1), 0)),
        ([2**32 - 1, 0, 1, 2, 3, 4], ((2, 2), 2)),
    ],
)
@pytest.mark.parametrize("splits", [(), (2,)])
def test_detection_proposes_square_scans_by_the_rotator(
    values: list[int], expected: Any, splits: tuple[int, ...], tmp_path: Path
) -> None:
    rows = np.zeros(len(values), dtype=ROW_DTYPE)
    rows["rotator"] = values
    path = tmp_path / "x_000.tvips"
    for n_bytes in (52, 60, 108):
        write(path, len(values), rows, image_header_bytes=n_bytes, splits=splits)
        assert detected_scan(path) == expected
        ds = load_tvips(path)
        assert (ds.shape.nav.to_tuple(), ds.meta.sync_offset) == ((len(values),), 0)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 6), st.integers(0, 9), st.integers(0, 9))
def test_square_scans_of_any_size_are_found_by_the_rotator(side: int, lead: int, trail: int) -> None:
    values = [0] * lead + list(range(1, side * side + 1)) + [1] * trail
    guess = guess_from_rotator(values, values.__getitem__, len(values))
    # A scan of one frame has no numbers that increase, unless there is a zero before.
    assert guess == (None if side == 1 and lead == 0 else ScanGuess(lead, (side, side)))


@given(st.lists(st.integers(0, 9), max_size=40))
def test_any_rotator_is_harmless(values: list[int]) -> None:
    guess = guess_from_rotator(values, values.__getitem__, len(values))
    if guess is not None:
        n = guess.nav_shape[0] * guess.nav_shape[1]
        assert guess.sync_offset + n <= len(values)


def test_detection_reads_little_of_large_scans(tmp_path: Path) -> None:
    scan = make_scan((100, 100), lead=5, trail=5)
    scan["x"] = scan["y"] = 0
    path = write_tvips(tmp_path / "x_000.tvips", [np.zeros((10010, 1, 2), dtype="u1")], scan)
    before = io_counts()
    assert detected_scan(path) == ((100, 100), 5)
    assert (io_counts() - before).read_bytes <= PROBE_BYTES


# --- damage ---


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (0, 200, "Invalid header size 200, should be 256. Maybe not a TVIPS file?"),
        (4, 3, "Unknown TVIPS header version: 3"),
        (4, 0, "Unknown TVIPS header version: 0"),
        (16, 32, r"unknown bpp value: 32 \(should be either 8 or 16\)"),
        (8, 0, "frames without pixels: found 0 x 4 px"),
        (12, -4, "frames without pixels: found 5 x -4 px"),
        (48, 11, "image headers are too short: found 11 bytes, expected at least 12"),
    ],
)
def test_headers_that_make_no_sense_are_refused(field: int, value: int, message: str, tmp_path: Path) -> None:
    path = write_worked_example(tmp_path / "x_000.tvips", patches={field: struct.pack("<i", value)})
    with pytest.raises(HeaderError, match=rf"x_000\.tvips: .*{message}"):
        load_tvips(path)
    assert detect(path) is False


FIELDS = {
    "ISize": 0,
    "IVersion": 4,
    "IXDim": 8,
    "IYDim": 12,
    "IBPP": 16,
    "IXOff": 20,
    "IYOff": 24,
    "IXBin": 28,
    "IYBin": 32,
    "IPixelSize": 36,
    "IHT": 40,
    "IMagTotal": 44,
    "IImgHeaderBytes": 48,
    "filler": 52,
}


@pytest.mark.parametrize("value", [0, -1, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("splits", [(), (6,)])
def test_any_field_at_its_extremes_gives_an_error_or_changes_nothing(
    splits: tuple[int, ...], field: str, value: int, tmp_path: Path
) -> None:
    offset = FIELDS[field]
    patches = {offset: struct.pack("<i", value)}
    path = write_worked_example(tmp_path / "x_000.tvips", splits=splits, patches=patches)
    if 20 <= offset < 48 or offset > 48:
        ds = load_tvips(path)
        np.testing.assert_array_equal(read(ds).reshape(12, 4, 5), make_frames(15)[3:])
        json.dumps(ds.diagnostics)
    else:
        with pytest.raises(DataSetException, match=r"x_000\.tvips"):
            load_tvips(path)
        assert detect(path) is False


CUTS = sorted(
    {
        place + extra
        for place in (0, 4, 52, 256, *(256 + n * 148 for n in range(6)), 256 + 12, 256 + 108, 256 + 5 * 148)
        for extra in (-1, 0, 1)
        if 0 <= place + extra < 256 + 6 * 148
    }
)


@pytest.mark.parametrize("size", CUTS)
def test_a_single_file_cut_at_any_boundary(size: int, tmp_path: Path) -> None:
    path = write(tmp_path / "x_000.tvips", 6)
    path.write_bytes(path.read_bytes()[:size])
    left, rest = divmod(size - 256, 148)
    if left < 1:
        with pytest.raises(DataSetException, match=rf"x_000\.tvips.*found {size} bytes, expected at least"):
            load_tvips(path)
        assert detect(path) is False
        return
    if rest:
        with pytest.warns(RuntimeWarning, match=rf"x_000\.tvips: the last frame is incomplete.*{left} whole"):
            ds = load_tvips(path)
    else:
        # How many frames there were is stored nowhere.
        ds = load_tvips(path)
    np.testing.assert_array_equal(read(ds), make_frames(left))
    assert detect(path)["info"]["image_count"] == left


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("cut", [1, 40, 41, 147, 148, 149, 3 * 148])
def test_files_of_a_series_cut_at_any_boundary(number: int, cut: int, tmp_path: Path) -> None:
    write(tmp_path / "x_000.tvips", 12, splits=(4, 8))
    path = tmp_path / f"x_{number:03}.tvips"
    path.write_bytes(path.read_bytes()[:-cut])
    lost = -(-cut // 148)
    kept = np.delete(make_frames(12), slice(4 * number + 4 - lost, 4 * number + 4), axis=0)
    if cut % 148 == 0:
        np.testing.assert_array_equal(read(load_tvips(path)), kept)
    elif number == 2:
        with pytest.warns(RuntimeWarning, match=r"x_002\.tvips: the last frame is incomplete and ignored"):
            ds = load_tvips(tmp_path / "x_000.tvips")
        np.testing.assert_array_equal(read(ds), kept)
    else:
        with pytest.raises(SizeMismatchError, match=rf"{path.name}.*found .* frames and .* bytes, expected"):
            load_tvips(tmp_path / "x_002.tvips")
        assert detect(tmp_path / "x_000.tvips") is False


def test_a_last_file_of_less_than_a_frame_is_ignored(tmp_path: Path) -> None:
    write(tmp_path / "x_000.tvips", 12, splits=(4, 8))
    (tmp_path / "x_003.tvips").write_bytes(b"1234")
    with pytest.warns(RuntimeWarning, match=r"x_003\.tvips: the last frame is incomplete"):
        ds = load_tvips(tmp_path / "x_003.tvips")
    np.testing.assert_array_equal(read(ds), make_frames(12))


@pytest.mark.parametrize("splits", [(), (4,)])
@pytest.mark.parametrize("field", range(0, 108, 4))
@pytest.mark.parametrize("word", [b"\xff\xff\xff\xff", b"\xff\xff\x7f\x7f", b"\0\0\x80\xff", b"\0\0\0\x80"])
def test_any_image_header_is_harmless(
    word: bytes, field: int, splits: tuple[int, ...], tmp_path: Path
) -> None:
    path = write_worked_example(tmp_path / "x_000.tvips", splits=splits)
    for file in sorted(tmp_path.iterdir()):
        content = bytearray(file.read_bytes())
        for start in range(256 if file == path else 0, len(content), 148):
            content[start + field : start + field + 4] = word
        file.write_bytes(content)
    assert detect(path)
    ds = load_tvips(path, nav_shape=(15,), sync_offset=0)
    np.testing.assert_array_equal(read(ds), make_frames(15))
    assert load_tvips(path).meta.image_count == 15


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(st.binary(max_size=500), st.sampled_from([b"", make_tvips_header((1, 2), 8)]))
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes, start: bytes) -> None:
    path = tmp_path / "x_000.tvips"
    path.write_bytes(start + content)
    assert isinstance(detect(path), bool | dict)
    try:
        load_quietly(path)
    except DataSetException as err:
        assert "x_000.tvips" in str(err)


@given(st.binary(max_size=300), st.integers(0, 13))
def test_any_bytes_parse_or_raise_the_family(raw: bytes, n_valid: int) -> None:
    try:
        header = parse_header(make_tvips_header((4, 5), 16)[: 4 * n_valid] + raw, path="x.tvips")
    except HeaderError as err:
        assert "x.tvips" in str(err)
    else:
        assert min(*header.sig_shape, header.stride) > 0


# --- parameters ---


@pytest.mark.parametrize("sig_shape", [(20,), (5, 4), (2, 2, 5)])
def test_frames_can_be_given_another_shape(sig_shape: tuple[int, ...], tmp_path: Path) -> None:
    ds = load_tvips(write_worked_example(tmp_path / "x_000.tvips", splits=(5,)), sig_shape=sig_shape)
    assert (ds.shape.nav.to_tuple(), ds.shape.sig.to_tuple()) == ((3, 4), sig_shape)
    np.testing.assert_array_equal(read(ds), make_frames(15)[3:].reshape(3, 4, *sig_shape))


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"sig_shape": (3, 17)}, ShapeError, "sig_shape must be of size: 20"),
        ({"nav_shape": 4}, TypeError, "not iterable"),
        ({"io_backend": "doesn't exist"}, DataSetException, "not an I/O backend.*'mmap'"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(
    kwargs: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    path = write_worked_example(tmp_path / "x_000.tvips")
    with pytest.raises(error, match=message):
        load_tvips(path, **kwargs)


def test_arguments_by_position() -> None:
    ds = TVIPSDataSet("x_000.tvips", (2, 3), (4, 5), 1, None, 2)
    assert (ds._nav_shape, ds._sig_shape, ds._sync_offset) == ((2, 3), (4, 5), 1)


# --- facts ---


def test_the_header_is_given_in_si_units() -> None:
    patches = {28: struct.pack("<2i", 4, 2)}
    assert parse_header(make_tvips_header((4, 5), 16, patches=patches), path="x.tvips") == TVIPSHeader(
        version=2,
        sig_shape=(4, 5),
        bits=16,
        image_header_bytes=108,
        binning=(2, 4),
        pixel_size=pytest.approx(15500e-9),
        high_tension=200e3,
        magnification=80,
    )


def test_diagnostics_show_the_header(tmp_path: Path) -> None:
    patches = {28: struct.pack("<2i", 4, 2)}
    path = write_worked_example(tmp_path / "x_000.tvips", splits=(5,), patches=patches)
    facts = {item["name"]: item["value"] for item in load_tvips(path).diagnostics}
    for name, value in {
        "dtype": "uint16",
        "Bits per pixel": "16",
        "High tension (kV)": "200",
        "Pixel size (nm)": "15500",
        "Binning (x)": "4",
        "Binning (y)": "2",
        "File Format Version": "2",
        "Number of files": "2",
        "Image header bytes": "108",
        "Scan start found": "frame 3",
    }.items():
        assert facts[name] == value
    facts = {item["name"]: item["value"] for item in load_tvips(write(path, 4)).diagnostics}
    assert facts["Scan start found"] == "no"


def test_facts_of_a_data_set(tmp_path: Path) -> None:
    path = write_worked_example(tmp_path / "x_000.tvips")
    ds = load_tvips(path)
    assert repr(ds) == "<TVIPSDataSet of uint16 shape=(3, 4, 4, 5)>"
    key = ds.get_cache_key()
    json.dumps(key)
    assert (key["path"], key["shape"], key["sync_offset"]) == (str(path), (3, 4, 4, 5), 3)
    assert TVIPSDataSet.get_supported_extensions() == {"tvips"}
    assert len(pickle.dumps(ds)) < 2048
    np.testing.assert_array_equal(read(pickle.loads(pickle.dumps(ds))), read(ds))


def test_many_files_are_no_burden_for_messages(tmp_path: Path) -> None:
    path = write(tmp_path / "x_000.tvips", 300, splits=tuple(range(1, 300)))
    ds = load_tvips(path)
    assert len(pickle.dumps(ds)) < 4096
    np.testing.assert_array_equal(read(ds), make_frames(300))


def test_json_parameters_become_arguments() -> None:
    converter = TVIPSDataSet.get_msg_converter()()
    message = {"type": "TVIPS", "path": "x_000.tvips", "nav_shape": [2, 3], "sync_offset": 1}
    params = converter.to_python(message)
    assert params == {"path": "x_000.tvips", "nav_shape": (2, 3), "sync_offset": 1}
    assert converter.from_python(params) == message
    assert converter.to_python({"type": "TVIPS", "path": "x_000.tvips"}) == {"path": "x_000.tvips"}


def test_importing_the_module_is_cheap() -> None:
    code = (
        "import sys, libertem.io.dataset.tvips\n"
        "print(sorted({'numba', 'h5py', 'scipy', 'sparse'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
