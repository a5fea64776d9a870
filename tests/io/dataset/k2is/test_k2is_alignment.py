"""Which frames are found: sectors that start and end differently, shutter, damage. Pixels are holes."""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libertem.common.shape import Shape
from libertem.exceptions import DataSetException, HeaderError, MissingFileError, ShapeError
from libertem.executor.inline import InlineJobExecutor
from libertem.io.dataset import load
from libertem.io.dataset.base.backends.rawio import io_counts
from libertem.io.dataset.base.framefile import PROBE_BYTES
from libertem.io.dataset.base.scheme import TilingScheme
from libertem.io.dataset.k2is import K2ISDataSet
from libertem.io.dataset.k2is.blocks import parse_header
from libertem.testing.writers.k2is import BLOCK_BYTES, K2ISStream, make_gtg, write_sparse_k2is

EXECUTOR = InlineJobExecutor(debug=True)

LEADING, TRAILING = (0, 3, 32, 33, 40, 1, 2, 5), (0, 1, 2, 33, 5, 6, 7, 8)
MISALIGNED = K2ISStream(first_active=5, leading=LEADING, trailing=TRAILING)
"""Of 14 frames, 2 to 11 are whole."""

GTG = """
00 00 00 03 00 00 00 4E 00 00 00 01 01 00 00 00 00 01 14 00 0D 53 49 20 44 69 6D 65 6E 73 69 6F 6E 73 01 00
00 00 00 02 15 00 06 53 69 7A 65 20 58 25 25 25 25 00 00 00 01 00 00 00 05 03 00 00 00 15 00 06 53 69 7A 65
20 59 25 25 25 25 00 00 00 01 00 00 00 05 02 00 00 00 00 00 00 00 00 00 00 00
"""
FIRST_BLOCK = """
FF FF 00 55 00 00 00 00 01 01 00 00 00 00 00 00 00 00 03 E8 01 00 07 44 00 00 00 64 00 F0 00 00 00 FF 03 A1
00 00 57 58
"""
LAST_BLOCK = """
FF FF 00 55 00 00 00 00 01 01 00 00 00 00 00 00 00 00 04 07 01 00 07 44 00 00 00 64 00 00 03 A2 00 0F 07 43
00 00 57 58
"""


# Files with thousands of holes: a disk takes longer to delete them than all tests together.
RAM = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with TemporaryDirectory(dir=RAM) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def scan() -> Iterator[Path]:
    """14 frames, active from 5 on."""
    with TemporaryDirectory(dir=RAM) as folder:
        yield write_sparse_k2is(Path(folder), 14, scan_shape=(2, 3), stream=K2ISStream(first_active=5))


@pytest.fixture(scope="module")
def small() -> Iterator[Path]:
    """3 frames."""
    with TemporaryDirectory(dir=RAM) as folder:
        yield write_sparse_k2is(Path(folder), 3)


def load_k2is(path: Path, **kwargs: Any) -> Any:
    return load("k2is", path=path, executor=EXECUTOR, **kwargs)


def detect(path: Path) -> Any:
    return K2ISDataSet.detect_params(path, EXECUTOR)


def shown(ds: Any) -> list[int]:
    """Which frame of the stream each scan position shows, -1 for none: from both ends of the first row."""
    frames = [-1] * ds.shape.nav.size
    for position, frame in tiles(ds):
        frames[position] = frame
    return frames


def tiles(ds: Any, roi: Any = None) -> Iterator[tuple[int, int]]:
    """Place and frame of the stream, frame by frame."""
    shape = Shape((1, *ds.shape.sig), sig_dims=ds.shape.sig.dims)
    scheme = TilingScheme.make_for_shape(tileshape=shape, dataset_shape=ds.shape)
    for partition in ds.get_partitions():
        for tile in partition.get_tiles(scheme, dest_dtype=ds.dtype, roi=roi):
            row = np.asarray(tile.data)[0, 0]
            assert row[0] == row[-1] != 0
            yield tile.tile_slice.origin[0], int(row[0]) - 1


def sector_file(gtg: Path, sector: int) -> Path:
    return gtg.with_name(f"Capture52_{sector + 1}.bin")


def patch(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


def remove_blocks(path: Path, start: int, stop: int) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[: start * BLOCK_BYTES] + raw[stop * BLOCK_BYTES :])


def patch_headers(path: Path, at: int, change: Callable[[int], bytes]) -> None:
    """Write ``change(block)`` into the headers of all blocks."""
    for block in range(path.stat().st_size // BLOCK_BYTES):
        patch(path, block * BLOCK_BYTES + at, change(block))


# --- the writer, against the examples of the specification ---


def test_the_writer_makes_the_files_of_the_specification(tmp_path: Path) -> None:
    gtg = write_sparse_k2is(tmp_path, 1, scan_shape=(2, 3))
    assert gtg.read_bytes() == bytes.fromhex(GTG)
    raw = sector_file(gtg, 2).read_bytes()
    assert raw[:40] == bytes.fromhex(FIRST_BLOCK)
    assert raw[31 * BLOCK_BYTES :][:40] == bytes.fromhex(LAST_BLOCK)
    assert len(raw) == 32 * BLOCK_BYTES


def test_headers_are_parsed() -> None:
    first = parse_header(bytes.fromhex(FIRST_BLOCK), path="x.bin")
    assert (first.is_active, first.block_count, first.frame_id, first.place) == (True, 1000, 100, (0, 240))
    last = parse_header(bytes.fromhex(LAST_BLOCK), path="x.bin")
    assert (last.is_active, last.block_count, last.frame_id, last.place) == (True, 1031, 100, (930, 0))


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda raw: b"\xff\xff\x00\x55" + raw))
def test_any_bytes_are_a_header_or_raise_the_family(raw: bytes) -> None:
    try:
        parse_header(raw, path="x.bin")
    except HeaderError as err:
        assert "x.bin" in str(err)


# --- alignment ---


def test_frames_that_are_whole_in_all_sectors_count(tmp_path: Path) -> None:
    ds = load_k2is(write_sparse_k2is(tmp_path, 14, scan_shape=(2, 3), stream=MISALIGNED))
    assert tuple(ds.shape) == (2, 3, 1860, 2048)
    assert ds.dtype == np.uint16
    assert (ds.meta.image_count, ds.meta.sync_offset) == (10, 3)
    assert shown(ds) == [4, 5, 6, 7, 8, 9]


def test_diagnostics_tell_where_the_frames_lie(tmp_path: Path) -> None:
    ds = load_k2is(write_sparse_k2is(tmp_path, 14, scan_shape=(2, 3), stream=MISALIGNED))
    firsts = [BLOCK_BYTES * (4 * 32 - drop) for drop in LEADING]
    lasts = [BLOCK_BYTES * (12 * 32 - 1 - drop) for drop in LEADING]
    assert ds.diagnostics[:8] == [
        {"name": "first block offsets for all sectors", "value": ", ".join(map(str, firsts))},
        {"name": "last block offsets for all sectors", "value": ", ".join(map(str, lasts))},
        {"name": "number of frames before sync (from first sector)", "value": "10"},
        {"name": "number of frames after sync (from first sector)", "value": "7"},
        {"name": "first frame id before sync (from first sector)", "value": "100"},
        {"name": "first frame id after sync (from first sector)", "value": "104"},
        {"name": "last frame id before sync (from first sector)", "value": "113"},
        {"name": "last frame id after sync (from first sector)", "value": "111"},
    ]
    assert [fact["value"] for fact in ds.diagnostics[-4:]] == [3, 1, 0, 0]


@pytest.mark.parametrize(
    ("leading", "trailing", "frames"),
    [
        ((0,) * 8, (0,) * 8, range(6)),
        ((64,) * 8, (32,) * 8, range(2, 5)),
        ((0, 64, 32, 96, 0, 0, 0, 32), (0, 32, 0, 0, 64, 0, 0, 0), range(3, 4)),
        ((1,) * 8, (1,) * 8, range(1, 5)),
        ((31,) * 8, (31,) * 8, range(1, 5)),
        ((64, 65, 64, 64, 64, 64, 64, 64), (0,) * 8, range(3, 6)),
    ],
)
@pytest.mark.parametrize("tail", [0, 3, 40, 5000])
def test_recording_starts_and_ends_at_any_block(
    leading: Sequence[int], trailing: Sequence[int], frames: range, tail: int, tmp_path: Path
) -> None:
    stream = K2ISStream(
        leading=leading, trailing=trailing, tail=bytes.fromhex(FIRST_BLOCK).ljust(tail)[:tail]
    )
    ds = load_k2is(write_sparse_k2is(tmp_path, 6, stream=stream))
    assert ds.meta.image_count == len(frames)
    assert shown(ds) == list(frames)


@pytest.mark.parametrize("n_bytes", [1, 7, 40, 9001, BLOCK_BYTES - 1])
def test_files_may_start_within_a_block(n_bytes: int, tmp_path: Path) -> None:
    gtg = write_sparse_k2is(tmp_path, 4)
    for sector in (0, 5):
        path = sector_file(gtg, sector)
        # The sync word occurs in pixels, too, and even a whole header.
        junk = (bytes.fromhex(LAST_BLOCK) + b"\xff\xff\x00\x55")[1:] * 600
        path.write_bytes(junk[:n_bytes] + path.read_bytes())
    assert shown(load_k2is(gtg)) == [0, 1, 2, 3]
    assert detect(gtg) is False


def test_a_damaged_first_block_costs_its_frame(tmp_path: Path) -> None:
    gtg = write_sparse_k2is(tmp_path, 4)
    patch(sector_file(gtg, 3), 0, b"\0\0\0\0")
    assert shown(load_k2is(gtg)) == [1, 2, 3]


def test_frame_ids_may_start_again(tmp_path: Path) -> None:
    ids = [70000, 70001, 70002, 0, 1, 2, 3, 4]
    stream = K2ISStream(first_active=5, frame_ids=ids, leading=LEADING)
    ds = load_k2is(write_sparse_k2is(tmp_path, 8, scan_shape=(1, 3), stream=stream))
    assert shown(ds) == [4, 5, 6]


# --- the start of the scan ---


@pytest.mark.parametrize(
    ("sync_offset", "frames"),
    [
        (None, [4, 5, 6, 7, 8, 9]),
        (5, [4, 5, 6, 7, 8, 9]),
        (6, [5, 6, 7, 8, 9, 10]),
        (7, [6, 7, 8, 9, 10, 11]),
        (2, [1, 2, 3, 4, 5, 6]),
        (1, [0, 1, 2, 3, 4, 5]),
        (0, [-1, 0, 1, 2, 3, 4]),
        (-1, [-1, -1, 0, 1, 2, 3]),
        (-2, [-1, -1, -1, 0, 1, 2]),
        (13, [12, 13, -1, -1, -1, -1]),
        (-13, [-1, -1, -1, -1, -1, -1]),
    ],
)
@pytest.mark.parametrize("num_partitions", [1, 4])
def test_scans_start_one_frame_before_the_sync_offset(
    sync_offset: int | None, frames: list[int], num_partitions: int, scan: Path
) -> None:
    ds = load_k2is(scan, sync_offset=sync_offset, num_partitions=num_partitions)
    assert ds.meta.sync_offset == (5 if sync_offset is None else sync_offset)
    assert shown(ds) == frames
    roi = np.array([[False, True, False], [True, False, True]])
    selected = [frames[position] for position in (1, 3, 5)]
    assert list(tiles(ds, roi)) == [(place, frame) for place, frame in enumerate(selected) if frame >= 0]


def test_a_scan_larger_than_the_recording_ends_with_blanks(scan: Path) -> None:
    assert shown(load_k2is(scan, nav_shape=(3, 5))) == [*range(4, 14), -1, -1, -1, -1, -1]


def test_a_sync_offset_out_of_range_is_refused(scan: Path) -> None:
    for offset in (14, -14, 10**9):
        with pytest.raises(ShapeError, match=r"sync_offset should be in \(-14, 14\), which is"):
            load_k2is(scan, sync_offset=offset)


def test_a_time_series_starts_with_the_sync_offset(tmp_path: Path) -> None:
    gtg = write_sparse_k2is(tmp_path, 8, stream=K2ISStream(first_active=3))
    assert shown(load_k2is(gtg)) == [3, 4, 5, 6, 7]
    assert shown(load_k2is(gtg, nav_shape=(3,), sync_offset=0)) == [0, 1, 2]
    assert shown(load_k2is(gtg, nav_shape=(3,), sync_offset=-1)) == [-1, 0, 1]


def test_a_scan_that_is_active_from_the_start_loses_nothing(tmp_path: Path) -> None:
    gtg = write_sparse_k2is(tmp_path, 7, scan_shape=(2, 3))
    assert shown(load_k2is(gtg)) == [0, 1, 2, 3, 4, 5]
    assert shown(load_k2is(**detect(gtg)["parameters"])) == [0, 1, 2, 3, 4, 5]
    assert shown(load_k2is(gtg, sync_offset=0)) == [-1, 0, 1, 2, 3, 4]


@pytest.mark.parametrize("scan_shape", [(1, 1), None])
def test_one_frame_is_enough(scan_shape: Any, tmp_path: Path) -> None:
    gtg = write_sparse_k2is(tmp_path, 1, scan_shape=scan_shape)
    assert shown(load_k2is(gtg)) == [0]
    assert shown(load_k2is(**detect(gtg)["parameters"])) == [0]


@pytest.mark.parametrize("scan_shape", [(1, 3), None])
def test_a_shutter_that_never_opens_gives_a_warning(scan_shape: Any, tmp_path: Path) -> None:
    gtg = write_sparse_k2is(tmp_path, 3, scan_shape=scan_shape, stream=K2ISStream(first_active=3))
    with pytest.warns(RuntimeWarning, match="no frame has the shutter flag"):
        ds = load_k2is(gtg)
    assert shown(ds) == [0, 1, 2]


@pytest.mark.parametrize("first_active", [0, 1, 66, 129])
def test_the_shutter_is_found_wherever_it_opens(first_active: int, tmp_path: Path) -> None:
    # Other bits than the lowest say nothing.
    stream = K2ISStream(first_active=first_active, flags=(2, 3))
    gtg = write_sparse_k2is(tmp_path, 130, stream=stream)
    before = io_counts()
    answer = detect(gtg)
    assert (io_counts() - before).read_bytes <= PROBE_BYTES
    assert answer["parameters"]["sync_offset"] == first_active
    assert answer["info"]["image_count"] == 130


def test_a_shutter_that_closes_before_the_end_does_not_hide_the_scan(tmp_path: Path) -> None:
    gtg = write_sparse_k2is(tmp_path, 8, stream=K2ISStream(first_active=3))
    for sector in range(8):
        patch_headers(sector_file(gtg, sector), 9, lambda block: bytes([3 * 32 <= block < 6 * 32]))
    assert detect(gtg)["parameters"]["sync_offset"] == 3


def test_a_scan_with_too_few_frames_gives_a_warning_unless_asked_for(tmp_path: Path) -> None:
    gtg = write_sparse_k2is(tmp_path, 5, scan_shape=(2, 3), stream=K2ISStream(first_active=2))
    with pytest.warns(RuntimeWarning, match="6 positions, the files hold 4 frames of it"):
        ds = load_k2is(gtg)
    assert shown(ds) == [1, 2, 3, 4, -1, -1]
    assert shown(load_k2is(gtg, sync_offset=2)) == [1, 2, 3, 4, -1, -1]
    assert shown(load_k2is(gtg, nav_shape=(6,))) == [1, 2, 3, 4, -1, -1]


# --- recordings that cannot be aligned ---


@pytest.mark.parametrize(("start", "stop"), [(100, 101), (100, 132), (70, 140)])
@pytest.mark.parametrize("sector", [0, 6])
def test_blocks_lost_by_a_sector_are_an_error(start: int, stop: int, sector: int, tmp_path: Path) -> None:
    gtg = write_sparse_k2is(tmp_path, 6)
    remove_blocks(sector_file(gtg, sector), start, stop)
    frame = start // 32
    message = (
        f"_{sector + 1}.bin: .* lost .*found {192 - stop + start} blocks, incomplete from frame {frame} "
    )
    with pytest.raises(DataSetException, match=message):
        load_k2is(gtg)
    assert detect(gtg) is False


def test_frames_lost_by_all_sectors_give_a_warning(tmp_path: Path) -> None:
    gtg = write_sparse_k2is(tmp_path, 6)
    for sector in range(8):
        remove_blocks(sector_file(gtg, sector), 64, 128)
    with pytest.warns(RuntimeWarning, match="lost 2 frames"):
        ds = load_k2is(gtg)
    assert shown(ds) == [0, 1, 4, 5]


def test_parts_of_frames_lost_by_all_sectors_are_an_error(tmp_path: Path) -> None:
    gtg = write_sparse_k2is(tmp_path, 4)
    for sector in range(8):
        remove_blocks(sector_file(gtg, sector), 50, 55)
    with pytest.raises(DataSetException, match="does not consist of whole frames"):
        load_k2is(gtg)


def test_counts_that_start_again_in_all_sectors_do_no_harm(tmp_path: Path) -> None:
    gtg = write_sparse_k2is(tmp_path, 4)
    for sector in range(8):
        patch_headers(sector_file(gtg, sector), 16, lambda block: struct.pack(">I", block % 64 + 7))
    assert shown(load_k2is(gtg)) == [0, 1, 2, 3]


@pytest.mark.parametrize("offset", [-(10**6), 10**6, 10**9])
def test_counts_of_another_recording_are_an_error(offset: int, tmp_path: Path) -> None:
    gtg = write_sparse_k2is(tmp_path, 6, stream=K2ISStream(first_block_count=2 * 10**6))
    patch_headers(sector_file(gtg, 4), 16, lambda block: struct.pack(">I", 2 * 10**6 + offset + block))
    before = io_counts()
    with pytest.raises(
        DataSetException, match=r"cannot be synchronized: found block counts .*_5\.bin|_5\.bin: the"
    ):
        load_k2is(gtg)
    assert (io_counts() - before).read_bytes < 8192


@pytest.mark.parametrize(
    ("at", "content", "message"),
    [
        (24, struct.pack(">I", 5), "found frame id 5, .*expected frame id 100"),
        (28, struct.pack(">HH", 0, 0), r"found frame id 100, first pixel \(0, 0\), expected .*\(0, 160\)"),
        (9, b"\x00", "disagree about the frame with which the scan starts"),
        (20, struct.pack(">HH", 128, 930), r"another size: found \(930, 128\), expected \(1860, 256\)"),
    ],
)
def test_a_sector_that_contradicts_the_others_is_an_error(
    at: int, content: bytes, message: str, tmp_path: Path
) -> None:
    gtg = write_sparse_k2is(tmp_path, 3)
    if at == 20:
        patch_headers(sector_file(gtg, 5), at, lambda _: content)
    else:
        # The shutter flag counts in the first block of a frame, frame id and place in any.
        patch(sector_file(gtg, 5), at + (0 if at == 9 else 5 * BLOCK_BYTES), content)
    with pytest.raises(HeaderError, match=rf"_6\.bin.*{message}"):
        load_k2is(gtg)
    assert detect(gtg) is False


@pytest.mark.parametrize(
    "stream",
    [
        K2ISStream(leading=(10,) * 8, trailing=(10,) * 8),
        K2ISStream(leading=(0, 32, 0, 0, 0, 0, 0, 0), trailing=(40, 0, 0, 0, 0, 0, 0, 0)),
        K2ISStream(leading=(63,) * 8),
    ],
)
def test_a_recording_without_a_whole_frame_is_an_error(stream: K2ISStream, tmp_path: Path) -> None:
    gtg = write_sparse_k2is(tmp_path, 2, stream=stream)
    with pytest.raises(DataSetException, match=r"whole frame|cannot be synchronized"):
        load_k2is(gtg)
    assert detect(gtg) is False


@pytest.mark.parametrize(
    "size", [0, 1, 39, 40, BLOCK_BYTES - 1, BLOCK_BYTES, 31 * BLOCK_BYTES, 32 * BLOCK_BYTES - 1]
)
@pytest.mark.parametrize("sector", [0, 7])
def test_a_sector_with_less_than_a_frame_is_an_error(size: int, sector: int, tmp_path: Path) -> None:
    gtg = write_sparse_k2is(tmp_path, 2)
    with sector_file(gtg, sector).open("r+b") as file:
        file.truncate(size)
    with pytest.raises(DataSetException, match=r"Capture52_\d\.bin: "):
        load_k2is(gtg)
    assert detect(gtg) is False


@pytest.mark.parametrize("n_blocks", [33, 63, 64, 65, 95])
def test_a_truncated_sector_shortens_the_recording(n_blocks: int, tmp_path: Path) -> None:
    gtg = write_sparse_k2is(tmp_path, 3)
    with sector_file(gtg, 2).open("r+b") as file:
        file.truncate(n_blocks * BLOCK_BYTES)
    assert shown(load_k2is(gtg)) == list(range(n_blocks // 32))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    damages=st.lists(
        st.tuples(
            st.integers(0, 7),
            st.sampled_from([0, 1, 15, 31, 32, 33, 63, 64, 94, 95]),
            st.integers(0, 39),
            st.sampled_from([b"\0", b"\xff", b"\x01", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\x00\x55"]),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_damaged_headers_raise_the_family_or_load_whole_frames(damages: Any, small: Path) -> None:
    originals = {}
    for sector, block, at, content in damages:
        path = sector_file(small, sector)
        originals.setdefault((path, block), path.read_bytes()[block * BLOCK_BYTES :][:60])
        patch(path, block * BLOCK_BYTES + at, content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds = K2ISDataSet(str(small), nav_shape=(3,)).initialize(EXECUTOR)
        assert 1 <= ds.meta.image_count <= 3
        assert ds.check_valid()
    except DataSetException:
        assert detect(small) is False
    finally:
        for (path, block), original in originals.items():
            patch(path, block * BLOCK_BYTES, original)


@pytest.mark.parametrize("content", [b"\xff\xff\x00\x55" * 300_000, bytes(1 << 20), b"\xff" * 100_000])
def test_garbage_is_refused_quickly(content: bytes, tmp_path: Path) -> None:
    gtg = write_sparse_k2is(tmp_path, 1)
    for sector in range(8):
        sector_file(gtg, sector).write_bytes(content)
    with pytest.raises(HeaderError, match=r"Capture52_1\.bin"):
        load_k2is(gtg)
    assert detect(gtg) is False


# --- nine files ---


@pytest.mark.parametrize("name", ["Capture52_.gtg", "Capture52_1.bin", "Capture52_8.bin"])
def test_any_of_the_files_opens_the_recording(name: str, tmp_path: Path) -> None:
    write_sparse_k2is(tmp_path, 5, scan_shape=(2, 2))
    path = tmp_path / name
    assert shown(load_k2is(path)) == [0, 1, 2, 3]
    assert detect(path) == {
        "parameters": {
            "path": str(path),
            "nav_shape": (2, 2),
            "sig_shape": (1860, 2048),
            "sync_offset": 1,
        },
        "info": {"image_count": 5, "native_sig_shape": (1860, 2048)},
    }


def test_names_may_hold_wildcards_and_capitals(tmp_path: Path) -> None:
    folder = tmp_path / "[a]*"
    gtg = write_sparse_k2is(folder, 2, name="x[1]_")
    for path in [gtg, *folder.glob("*.bin")]:
        path.rename(path.with_suffix(path.suffix.upper()))
    assert shown(load_k2is(folder / "x[1]_.GTG")) == [0, 1]
    assert shown(load_k2is(folder / "x[1]_3.BIN")) == [0, 1]


def test_sectors_have_to_be_complete(tmp_path: Path) -> None:
    gtg = write_sparse_k2is(tmp_path, 2)
    extra = tmp_path / "Capture52_9.bin"
    extra.write_bytes(b"")
    with pytest.raises(DataSetException, match=r"expected 8 files at .*Capture52_\*\.bin, found 9"):
        load_k2is(gtg)
    extra.unlink()
    sector_file(gtg, 3).unlink()
    with pytest.raises(DataSetException, match=r"expected 8 files at .*Capture52_\*\.bin, found 7"):
        load_k2is(sector_file(gtg, 0))
    assert detect(gtg) is False


def test_a_missing_gtg_file_is_reported_as_such(tmp_path: Path) -> None:
    gtg = write_sparse_k2is(tmp_path, 2)
    gtg.unlink()
    for path in (gtg, sector_file(gtg, 0)):
        with pytest.raises(MissingFileError, match=r"Capture52_\.gtg"):
            load_k2is(path)
        assert detect(path) is False


@pytest.mark.parametrize("name", ["x.dm4", "x", "x.bin.txt"])
def test_other_extensions_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataSetException, match=f"unknown extension: {Path(name).suffix}"):
        load_k2is(tmp_path / name)
    assert detect(tmp_path / name) is False


@pytest.mark.parametrize("version", [3, 4])
def test_both_versions_of_tags_are_read(version: int, tmp_path: Path) -> None:
    gtg = write_sparse_k2is(tmp_path, 8)
    assert load_k2is(gtg).shape.nav.to_tuple() == (8,)
    gtg.write_bytes(make_gtg((1, 3), version=version))
    assert load_k2is(gtg).shape.nav.to_tuple() == (1, 3)
    gtg.write_bytes(make_gtg(version=version))
    assert load_k2is(gtg).shape.nav.to_tuple() == (8,)


@pytest.mark.parametrize("scan_shape", [(0, 3), (5000, 5000), (4_000_000_000, 4_000_000_000)])
def test_absurd_scan_shapes_are_refused(scan_shape: tuple[int, int], tmp_path: Path) -> None:
    gtg = write_sparse_k2is(tmp_path, 2)
    gtg.write_bytes(make_gtg(scan_shape))
    with pytest.raises(HeaderError, match=r"\.gtg: absurd scan"):
        load_k2is(gtg)
    assert detect(gtg) is False


@pytest.mark.parametrize(
    "content", [b"", b"abc", bytes(98), bytes.fromhex(GTG)[:60], bytes.fromhex(GTG)[:17]]
)
def test_damaged_tags_are_refused(content: bytes, tmp_path: Path) -> None:
    gtg = write_sparse_k2is(tmp_path, 2)
    gtg.write_bytes(content)
    with pytest.raises(HeaderError, match=r"\.gtg"):
        load_k2is(sector_file(gtg, 0))
    assert detect(gtg) is False


def test_a_scan_shape_behind_long_tags_is_left_to_loading(tmp_path: Path) -> None:
    gtg = write_sparse_k2is(tmp_path, 5)
    # A group with another number before the one that counts, 5000 times.
    number = struct.pack(">BH1s4s2I", 21, 1, b"n", b"%%%%", 1, 5) + b"\x07\0\0\0"
    root = bytes.fromhex(GTG)[12:]
    entries = struct.pack(">I", 5001) + number * 5000 + root[6:]
    gtg.write_bytes(bytes.fromhex(GTG)[:12] + root[:2] + entries)
    before = io_counts()
    answer = detect(gtg)
    assert (io_counts() - before).read_bytes <= PROBE_BYTES
    assert answer["parameters"] == {"path": str(gtg), "sig_shape": (1860, 2048)}
    with pytest.warns(RuntimeWarning, match="6 positions"):
        ds = load_k2is(**answer["parameters"])
    assert ds.shape.nav.to_tuple() == (2, 3)


@pytest.mark.parametrize(("n_frames", "nav_shape"), [(1, (1, 1)), (4, (2, 2)), (5, (5,))])
def test_detection_squares_a_time_series(n_frames: int, nav_shape: tuple[int, ...], tmp_path: Path) -> None:
    gtg = write_sparse_k2is(tmp_path, 2 + n_frames, stream=K2ISStream(first_active=2))
    parameters = detect(gtg)["parameters"]
    assert (parameters["nav_shape"], parameters["sync_offset"]) == (nav_shape, 2)
    assert shown(load_k2is(**parameters)) == list(range(2, 2 + n_frames))


def test_loading_reads_headers_only(tmp_path: Path) -> None:
    gtg = write_sparse_k2is(
        tmp_path, 150, stream=K2ISStream(first_active=120, leading=LEADING, trailing=TRAILING)
    )
    before = io_counts()
    ds = load_k2is(gtg)
    assert (io_counts() - before).read_bytes <= PROBE_BYTES
    assert ds.meta.image_count == 146
