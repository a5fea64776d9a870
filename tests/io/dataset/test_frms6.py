from __future__ import annotations

import io
import json
import os
import pickle
import re
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from libertem.api import Context
from libertem.common.shape import Shape
from libertem.exceptions import DataSetException, HeaderError, MissingFileError, ShapeError
from libertem.executor.inline import InlineJobExecutor
from libertem.io.corrections.corrset import CorrectionSet
from libertem.io.dataset import load
from libertem.io.dataset.base.scheme import TilingScheme
from libertem.io.dataset.frms6 import FRMS6DataSet, FRMS6DatasetParams, references
from libertem.io.dataset.frms6.acquisition import parse_header
from libertem.io.dataset.frms6.hdr import parse_hdr
from libertem.io.dataset.frms6.packing import Folding, fold_frame
from libertem.io.dataset.frms6.references import read_gain_map
from libertem.testing import DataSetTests
from libertem.testing.suite.reading import read
from libertem.testing.writers.frms6 import (
    make_frms6_header,
    make_frms6_raw,
    write_frms6,
    write_frms6_file,
    write_frms6_hdr,
)
from libertem.udf.raw import PickUDF
from libertem.udf.sum import SumUDF

EXECUTOR = InlineJobExecutor(debug=True)
BACKENDS = ["mmap", "buffered", "direct"]

MINIMAL = """[measurementInfo]
darkFrames=2
dwellTimeMicroseconds=1000
gain=1
signalFrames=6
STEMImageSize=2x3
readoutMode="bin: 1, windowing: 1 x 8"
"""


def make_images(n: int, binning: int = 1, sig_shape: tuple[int, int] = (8, 6), *, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    binned = rng.integers(0, 1 << 16, (n, sig_shape[0] // binning, sig_shape[1]), dtype=np.uint16)
    return np.repeat(binned, binning, axis=1)


def write_scan(folder: Path, binning: int = 1, **kwargs: Any) -> tuple[Path, Any, Any]:
    """Six images in files of one, two and three, and two dark frames."""
    folder.mkdir(exist_ok=True)
    images, dark = make_images(6, binning), make_images(2, binning, seed=1)
    files = [images[:1], images[1:3], images[3:]]
    return write_frms6(folder, files, (2, 3), binning=binning, dark=dark, **kwargs), images, dark


def load_frms6(path: Path, **kwargs: Any) -> Any:
    return load("frms6", path=path, executor=EXECUTOR, **kwargs)


def load_raw(path: Path, **kwargs: Any) -> Any:
    return load_frms6(path, enable_offset_correction=False, **kwargs)


def pixels(ds: Any, dtype: npt.DTypeLike = "uint16") -> npt.NDArray[Any]:
    return read(ds, dest_dtype=dtype).pixels


# --- the common suite ---


class TestFRMS6(DataSetTests):
    """Pixels as they are stored, in several files."""

    filetype = "frms6"
    dtypes = ("<u2",)
    binning = 1
    max_pickle_bytes = 3072
    parameters_given: ClassVar[dict[str, Any]] = {"enable_offset_correction": False}

    def write(self, folder: Path, frames: npt.NDArray[Any]) -> dict[str, Any]:
        files = np.split(frames, (1, len(frames) // 2))
        # Files that are detected are loaded with their dark frames.
        dark = np.zeros_like(frames[:2])
        path = write_frms6(folder, files, (1, len(frames)), binning=self.binning, dark=dark)
        return {"path": str(path), **self.parameters_given}

    def main_file(self, kwargs: dict[str, Any]) -> Path:
        return Path(kwargs["path"]).with_name("scan_003.frms6")


class TestFRMS6Binned(TestFRMS6):
    """Each row four times; tiles can only have multiples of four rows."""

    sig_shape = (16, 5)
    binning = 4

    def make_frames(self, n: int, dtype: str | None = None, *, seed: int = 0) -> npt.NDArray[Any]:
        return make_images(n, 4, (16, 5), seed=seed)


class TestFRMS6Corrected(TestFRMS6Binned):
    """Dark frames of zeros are subtracted: the values stay, the dtype does not."""

    parameters_given: ClassVar[dict[str, Any]] = {}

    def _check_ready_made(self, ctx: Context, ds: Any, shown: npt.NDArray[Any], *rest: Any) -> None:
        super()._check_ready_made(ctx, ds, shown.astype(np.float32), *rest)


# --- folding ---


def folded_by_hand(raw: npt.NDArray[Any], binning: int) -> npt.NDArray[Any]:
    """Pixel by pixel, as the fact sheet says."""
    n, rows, columns = raw.shape
    out = np.empty((n, 2 * rows * binning, columns // 2), dtype=raw.dtype)
    for y in range(out.shape[1]):
        k = y // binning
        for x in range(out.shape[2]):
            out[:, y, x] = raw[:, k, x] if k < rows else raw[:, 2 * rows - 1 - k, columns - 1 - x]
    return out


def unpack(raw: npt.NDArray[Any], binning: int, first_row: int, n_rows: int, gap: int) -> npt.NDArray[Any]:
    """Rows of frames that lie in a buffer with `gap` bytes before each."""
    folding = Folding(raw.shape[1:], binning)
    content = np.full((len(raw), gap + folding.part_bytes), 0xAB, dtype=np.uint8)
    content[:, gap:] = raw.reshape(len(raw), -1).view(np.uint8)
    stored = content.reshape(-1)[:]
    stored.flags.writeable = False
    starts = np.arange(len(raw), dtype=np.int64) * content.shape[1] + gap
    out = np.full((len(raw), n_rows, folding.frame_shape[1]), 0xCDEF, dtype=np.uint16)
    folding.unpack(0, stored, starts, first_row, out)
    return out


@pytest.mark.parametrize(
    ("binning", "raw", "image"),
    [
        (1, [[1, 2, 3, 4], [5, 6, 7, 8]], [[1, 2], [5, 6], [8, 7], [4, 3]]),
        (2, [[1, 2, 3, 4]], [[1, 2], [1, 2], [4, 3], [4, 3]]),
        (
            4,
            [[1, 2, 3, 4], [5, 6, 7, 8]],
            [[1, 2]] * 4 + [[5, 6]] * 4 + [[8, 7]] * 4 + [[4, 3]] * 4,
        ),
    ],
)
def test_worked_examples_of_folding(binning: int, raw: Any, image: Any) -> None:
    frames = np.array([raw], dtype=np.uint16)
    assert unpack(frames, binning, 0, len(image), 0)[0].tolist() == image
    assert fold_frame(frames[0], binning).tolist() == image
    np.testing.assert_array_equal(make_frms6_raw(np.array([image]), binning), frames)


@pytest.mark.parametrize(
    ("binning", "image_row", "raw_row", "lower"),
    [
        (1, 131, 131, False),
        (1, 132, 131, True),
        (1, 263, 0, True),
        (4, 4 * 32, 32, False),
        (4, 4 * 33, 32, True),
        (4, 4 * 65 + 3, 0, True),
    ],
)
def test_rows_of_a_full_sensor(binning: int, image_row: int, raw_row: int, lower: bool) -> None:
    raw = make_images(1, 1, (132 // binning, 528))
    row = unpack(raw, binning, image_row, 1, 0)[0, 0]
    stored = raw[0, raw_row]
    np.testing.assert_array_equal(row, stored[:263:-1] if lower else stored[:264])


@given(st.data())
def test_any_rows_can_be_unpacked(data: st.DataObject) -> None:
    binning = data.draw(st.sampled_from([1, 2, 4]))
    half_rows, width, n = (data.draw(st.integers(1, most)) for most in (5, 40, 3))
    raw = make_images(n, 1, (half_rows, 2 * width), seed=data.draw(st.integers(0, 3)))
    height = 2 * half_rows * binning
    first = data.draw(st.integers(0, height - 1))
    n_rows = data.draw(st.integers(1, height - first))
    expected = folded_by_hand(raw, binning)
    found = unpack(raw, binning, first, n_rows, data.draw(st.integers(0, 9)))
    np.testing.assert_array_equal(found, expected[:, first : first + n_rows])
    np.testing.assert_array_equal(fold_frame(raw[0], binning), expected[0])


def test_the_packing_is_small_when_sent() -> None:
    folding = Folding((132, 528), 2)
    assert (folding.frame_shape, folding.part_bytes, folding.dtype) == ((528, 264), 139392, np.uint16)
    copy = pickle.loads(pickle.dumps(folding))
    assert (copy.half_rows, copy.binning, copy.unit_px) == (132, 2, 528)
    assert len(pickle.dumps(folding)) < 400


# --- files ---


def test_the_bytes_of_the_worked_examples(tmp_path: Path) -> None:
    header = make_frms6_header((33, 528), 1000)
    assert header[:8] == bytes.fromhex("00 04 40 00 01 10 21 06")
    assert header[88:92] == bytes.fromhex("10 02 21 00")
    assert header[1020:] == bytes.fromhex("E8 03 00 00")
    images = np.array([[[1, 2], [5, 6], [8, 7], [4, 3]]])
    write_frms6(tmp_path, [images], (1, 1))
    content = (tmp_path / "scan_001.frms6").read_bytes()
    assert len(content) == 1104
    assert content[1088:] == bytes.fromhex("01 00 02 00 03 00 04 00 05 00 06 00 07 00 08 00")
    np.testing.assert_array_equal(pixels(load_raw(tmp_path / "scan.hdr")), images)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("has_counts", [True, False])
@pytest.mark.parametrize("binning", [1, 2, 4])
def test_images_are_unfolded_and_unbinned(
    binning: int, has_counts: bool, backend: str, tmp_path: Path
) -> None:
    path, images, _ = write_scan(tmp_path, binning, has_counts=has_counts)
    ds = load_raw(path, io_backend=backend)
    assert tuple(ds.shape) == (2, 3, 8, 6)
    assert ds.dtype == ds.meta.raw_dtype == np.uint16
    assert ds.meta.image_count == 6
    np.testing.assert_array_equal(pixels(ds), images)
    np.testing.assert_array_equal(pixels(ds, "float32"), images.astype("float32"))


@pytest.mark.parametrize("name", ["scan.hdr", "scan_000.frms6", "scan_001.frms6", "scan_003.frms6"])
def test_any_file_of_the_acquisition_opens_it(name: str, tmp_path: Path) -> None:
    path, images, _ = write_scan(tmp_path)
    np.testing.assert_array_equal(pixels(load_raw(path.with_name(name))), images)


def test_extensions_may_be_upper_case(tmp_path: Path) -> None:
    path, images, _ = write_scan(tmp_path)
    for file in list(tmp_path.iterdir()):
        file.rename(file.with_suffix(file.suffix.upper()))
    for name in ("scan.HDR", "scan_002.FRMS6"):
        np.testing.assert_array_equal(pixels(load_raw(path.with_name(name))), images)


def test_other_acquisitions_in_the_folder_do_not_matter(tmp_path: Path) -> None:
    path, images, _ = write_scan(tmp_path)
    write_scan(tmp_path, 2, name="scan_b")
    write_scan(tmp_path, 4, name="scan_1")
    (tmp_path / "scan_last.frms6").write_bytes(b"nothing")
    np.testing.assert_array_equal(pixels(load_raw(path)), images)
    np.testing.assert_array_equal(pixels(load_raw(tmp_path / "scan_1_002.frms6")), make_images(6, 4))


def test_names_may_look_like_patterns(tmp_path: Path) -> None:
    path, images, _ = write_scan(tmp_path, name="sc[a]n*")
    np.testing.assert_array_equal(pixels(load_raw(path)), images)


def test_files_are_sorted_by_number(tmp_path: Path) -> None:
    path, images, _ = write_scan(tmp_path)
    (tmp_path / "scan_001.frms6").rename(tmp_path / "scan_1.frms6")
    np.testing.assert_array_equal(pixels(load_raw(path)), images)


def test_a_relative_path_stays_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, images, _ = write_scan(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("scan.hdr", "scan_001.frms6"):
        np.testing.assert_array_equal(pixels(load_raw(Path(name))), images)


def test_the_dark_file_never_has_signal_frames(tmp_path: Path) -> None:
    path, images, dark = write_scan(tmp_path)
    np.testing.assert_array_equal(pixels(load_raw(path)), images)
    (tmp_path / "scan_000.frms6").unlink()
    np.testing.assert_array_equal(pixels(load_raw(path)), images)
    with pytest.raises(
        MissingFileError,
        match=r"dark frames is missing: found scan_001\.frms6.*enable_offset_correction=False",
    ):
        load_frms6(path)
    write_frms6_file(tmp_path / "scan_000.frms6", make_frms6_raw(dark)[:0])
    with pytest.raises(DataSetException, match=r"scan_000\.frms6: the file for dark frames contains none"):
        load_frms6(path)


def test_trailing_bytes_do_not_matter_if_the_number_of_frames_is_known(tmp_path: Path) -> None:
    path, images, _ = write_scan(tmp_path)
    for file in tmp_path.glob("*.frms6"):
        file.write_bytes(file.read_bytes() + b"12345")
    np.testing.assert_array_equal(pixels(load_raw(path)), images)


def test_frames_beyond_signalframes_are_ignored(tmp_path: Path) -> None:
    path, images, _ = write_scan(tmp_path, values={"signalFrames": 4})
    ds = load_raw(path)
    assert ds.meta.image_count == 4
    np.testing.assert_array_equal(pixels(ds)[:4], images[:4])
    assert not pixels(ds)[4:].any()


def test_missing_frames_at_the_end_stay_blank(tmp_path: Path) -> None:
    path, images, _ = write_scan(tmp_path)
    (tmp_path / "scan_003.frms6").unlink()
    with pytest.warns(
        RuntimeWarning, match=r"scan\.hdr: signalframes promises 6 .* 3: frames 3 to 5 are missing"
    ):
        ds = load_raw(path)
    delivered = read(ds)
    np.testing.assert_array_equal(delivered.pixels[:3], images[:3])
    assert not delivered.counts[3:].any()


def test_blank_frames_are_not_corrected(tmp_path: Path) -> None:
    path, images, dark = write_scan(tmp_path)
    ds = load_frms6(path, sync_offset=-2)
    with Context(executor=InlineJobExecutor()) as ctx:
        total = ctx.run_udf(dataset=ds, udf=SumUDF())["intensity"].data
    expected = (images[:4] - dark.astype(np.float64).mean(axis=0)).sum(axis=0)
    np.testing.assert_allclose(total, expected, atol=0.1)


@pytest.mark.parametrize("sync_offset", [-5, -2, 1, 2, 5])
def test_the_sync_offset_crosses_files(sync_offset: int, tmp_path: Path) -> None:
    path, images, _ = write_scan(tmp_path)
    delivered = read(load_raw(path, sync_offset=sync_offset, num_partitions=3))
    for position in range(6):
        there = 0 <= position + sync_offset < 6
        assert (delivered.counts[position] == there).all()
        if there:
            np.testing.assert_array_equal(delivered.pixels[position], images[position + sync_offset])


# --- errors about files ---


def damage(name: str, offset: int, content: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        raw = bytearray((folder / name).read_bytes())
        raw[offset : offset + len(content)] = content
        (folder / name).write_bytes(raw)

    return change


def cut(name: str, size: int) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / name, size)


def remove(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (remove("scan.hdr"), MissingFileError, r"does not exist"),
        (
            remove("scan_000.frms6", "scan_001.frms6", "scan_002.frms6", "scan_003.frms6"),
            MissingFileError,
            r"no \.frms6 files beside the \.hdr file",
        ),
        (remove("scan_001.frms6", "scan_002.frms6", "scan_003.frms6"), MissingFileError, "only dark frames"),
        (remove("scan_002.frms6"), MissingFileError, r"number 2 is missing: found scan_003\.frms6"),
        (remove("scan_000.frms6", "scan_001.frms6"), MissingFileError, "number 1 is missing"),
        (
            damage("scan_002.frms6", 7, b"\x05"),
            HeaderError,
            r"validity of .*scan_002\.frms6.*\(1024, 64, 5\)",
        ),
        (damage("scan_001.frms6", 0, b"\0\0"), HeaderError, r"validity of .*scan_001\.frms6.*\(0, 64, 6\)"),
        (damage("scan_001.frms6", 2, b"\x41"), HeaderError, r"\(1024, 65, 6\)"),
        (damage("scan_003.frms6", 88, b"\x0b\0"), HeaderError, "found 11 columns.*an even number"),
        (damage("scan_003.frms6", 88, b"\0\0"), HeaderError, "found 0 columns"),
        (damage("scan_003.frms6", 90, b"\0\0"), HeaderError, "12 columns, 0 rows"),
        (
            damage("scan_003.frms6", 88, b"\x04\0"),
            DataSetException,
            r"different sizes: found \(4, 4\) pixels",
        ),
        (damage("scan_003.frms6", 88, b"\xfe\xff\xff\xff"), DataSetException, "shorter than its frames"),
        (damage("scan_003.frms6", 1020, b"\x04"), DataSetException, "found 1504 bytes, expected 1664 for 4"),
        (damage("scan_003.frms6", 1020, b"\xff" * 4), DataSetException, "shorter than its frames"),
        (cut("scan_003.frms6", 1503), DataSetException, "found 1503 bytes, expected 1504 for 3 frames"),
        (cut("scan_000.frms6", 1100), DataSetException, r"scan_000\.frms6: the file is shorter"),
        (cut("scan_001.frms6", 1023), HeaderError, "ends inside its header: found 1023 bytes"),
        (cut("scan_001.frms6", 0), HeaderError, "ends inside its header"),
    ],
)
def test_damaged_acquisitions_are_refused(
    change: Callable[[Path], None], error: type[Exception], message: str, tmp_path: Path
) -> None:
    path, *_ = write_scan(tmp_path)
    change(tmp_path)
    with pytest.raises(error, match=message):
        load_frms6(path)


def test_without_a_count_the_size_has_to_fit(tmp_path: Path) -> None:
    path, *_ = write_scan(tmp_path, has_counts=False)
    file = tmp_path / "scan_003.frms6"
    file.write_bytes(file.read_bytes() + b"1")
    with pytest.raises(DataSetException, match=r"scan_003\.frms6: could not determine number of frames"):
        load_raw(path)


def test_two_files_with_the_same_number_are_refused(tmp_path: Path) -> None:
    path, *_ = write_scan(tmp_path)
    (tmp_path / "scan_02.frms6").write_bytes((tmp_path / "scan_002.frms6").read_bytes())
    with pytest.raises(DataSetException, match="two files have the number 2"):
        load_raw(path)


def test_a_missing_hdr_file_is_named(tmp_path: Path) -> None:
    write_scan(tmp_path)
    (tmp_path / "scan.hdr").unlink()
    with pytest.raises(MissingFileError, match=r"Could not find \.hdr file .*scan\.hdr"):
        load_raw(tmp_path / "scan_001.frms6")


@pytest.mark.parametrize("name", ["scan.xyz", "scan", "scan.hdr.gz"])
def test_other_extensions_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataSetException, match=f"unknown extension: {re.escape(Path(name).suffix)}"):
        load_raw(tmp_path / name)


@given(st.binary(max_size=100), st.integers(0, 1024), st.integers(0, 1 << 40))
@example(b"\xff\xff\xff\xff", 88, 1 << 40)
def test_any_header_parses_or_raises_the_family(noise: bytes, start: int, size: int) -> None:
    raw = bytearray(make_frms6_header((4, 12), 3))
    raw[start : start + len(noise)] = noise
    raw = raw[:1024]
    try:
        file = parse_header(bytes(raw), path="x.frms6", file_size=size)
    except DataSetException as err:
        assert "x.frms6" in str(err)
        return
    assert 1024 + file.n_frames * file.stride <= size


# --- the .hdr file ---


def test_the_minimal_hdr_is_parsed() -> None:
    hdr = parse_hdr(MINIMAL.encode(), path="x.hdr")
    assert (hdr.nav_shape, hdr.n_frames, hdr.binning) == ((2, 3), 6, 1)
    assert hdr.values == {
        "darkframes": 2,
        "dwelltimemicroseconds": 1000,
        "gain": 1,
        "signalframes": 6,
        "stemimagesize": (2, 3),
        "readoutmode": {"bin": 1, "win_i": 1, "win_j": 8},
    }


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("STEMImageSize=2x3", "stemimagesize = 2X3"),
        ("gain=1", "GAIN=1\ncomment=100%"),
        ("gain=1", "gain=1\n[another section]\nx=y\n[measurementInfo2]\nz=1"),
        ("bin: 1, windowing: 1 x 8", " bin:1 ,windowing :  1x8 "),
        ("[measurementInfo]", "\ufeff[measurementInfo]"),
        ("\n", "\r\n"),
    ],
)
def test_harmless_variants_of_hdr(old: str, new: str) -> None:
    text = MINIMAL.replace(old, new) if "another" not in new else MINIMAL + new[len("gain=1") :]
    hdr = parse_hdr(text.encode(), path="x.hdr")
    assert (hdr.nav_shape, hdr.n_frames, hdr.binning) == ((2, 3), 6, 1)


def test_percent_signs_and_other_keys_are_kept() -> None:
    hdr = parse_hdr((MINIMAL + "Comment=100% of %(gain)s\n").encode(), path="x.hdr")
    assert hdr.values["comment"] == "100% of %(gain)s"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "[measurementInfo]",
            "[somethingElse]",
            "found the sections somethingElse",
        ),
        ("[measurementInfo]", "", r"not the \.hdr file"),
        (MINIMAL, "", "measurementInfo missing from .hdr file"),
        ('"', "", "could not parse readout mode: found bin: 1"),
        ("windowing", "window", "could not parse readout mode"),
        ("bin: 1,", "bin: 3,", "impossible binning: found 3, expected one of"),
        ("bin: 1,", "bin: 0,", "impossible binning"),
        ("2x3", "2", "could not parse stemimagesize: found 2, expected the form 256x256"),
        ("2x3", "0x3", "could not parse stemimagesize"),
        ("2x3", "999999x999999", "could not parse stemimagesize"),
        (
            "signalFrames=6",
            "signalFrames=6.5",
            "could not parse signalframes: found 6.5, expected an integer",
        ),
        ("gain=1", "gain=", "could not parse gain"),
        ("darkFrames=2\n", "", "darkframes missing from section measurementInfo"),
        ("dwellTimeMicroseconds=1000\n", "", "dwelltimemicroseconds missing"),
        ("gain=1\n", "", "gain missing"),
        ("signalFrames=6\n", "", "signalframes missing"),
        ("STEMImageSize=2x3\n", "", "stemimagesize missing"),
        ("readoutMode", "readMode", "readoutmode missing"),
        ("gain=1", "gain=1\nGain=2", r"not the \.hdr file.*DuplicateOptionError"),
    ],
)
def test_hdr_files_that_cannot_be_used_are_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    path, *_ = write_scan(tmp_path)
    path.write_text(MINIMAL.replace(old, new))
    with pytest.raises(HeaderError, match=rf"scan\.hdr.*{message}|{message}.*scan\.hdr"):
        load_raw(path)
    assert FRMS6DataSet.detect_params(path, EXECUTOR) is False


def test_a_scan_without_frames_is_refused(tmp_path: Path) -> None:
    for count in (0, -3):
        path, *_ = write_scan(tmp_path, values={"signalFrames": count})
        with pytest.raises(DataSetException, match="contains no frames"):
            load_raw(path)


@given(st.text(max_size=60), st.binary(max_size=60))
def test_any_hdr_parses_or_raises_the_family(text: str, noise: bytes) -> None:
    for raw in (noise, text.encode("utf-8", "replace"), MINIMAL.encode() + noise):
        try:
            parse_hdr(raw, path="x.hdr")
        except HeaderError as err:
            assert "x.hdr" in str(err)


# --- corrections ---


@pytest.mark.parametrize("binning", [1, 2, 4])
def test_the_mean_of_the_dark_frames_is_subtracted(binning: int, tmp_path: Path) -> None:
    path, images, dark = write_scan(tmp_path, binning)
    ds = load_frms6(path)
    assert (ds.dtype, ds.meta.dtype, ds.meta.raw_dtype) == (np.float32, np.float32, np.uint16)
    corrections = ds.get_correction_data()
    mean = dark.astype(np.float64).mean(axis=0)
    assert corrections.get_dark_frame().dtype == np.float32
    np.testing.assert_array_equal(corrections.get_dark_frame(), mean.astype(np.float32))
    assert corrections.get_gain_map() is None
    with Context(executor=InlineJobExecutor()) as ctx:
        picked = ctx.run_udf(dataset=ds, udf=PickUDF(), roi=np.ones((2, 3), dtype=bool))
        raw = ctx.run_udf(dataset=ds, udf=SumUDF(), corrections=CorrectionSet())["intensity"].data
    found = picked["intensity"].data
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, images - mean.astype(np.float32))
    assert raw.dtype == np.float32
    np.testing.assert_array_equal(raw, images.sum(axis=0, dtype=np.float32))


def test_the_number_of_dark_frames_does_not_depend_on_the_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, dark = make_images(6), make_images(50, seed=1)
    path = write_frms6(tmp_path, [images], (2, 3), dark=dark, values={"darkFrames": 3})
    expected = dark.astype(np.float64).mean(axis=0).astype(np.float32)
    for size in (references.CHUNK_BYTES, 1000, 1):
        monkeypatch.setattr(references, "CHUNK_BYTES", size)
        found = load_frms6(path).get_correction_data().get_dark_frame()
        np.testing.assert_array_equal(found, expected)


def test_dark_frames_are_read_in_pieces(tmp_path: Path) -> None:
    dark = np.full((64, 66, 264), 9, dtype=np.uint16)
    dark[::2] = 65535
    dark = np.repeat(dark, 4, axis=1)
    path = write_frms6(tmp_path, [dark[:1]], (1, 1), binning=4, dark=np.concatenate([dark] * 8))
    load_frms6(path)
    tracemalloc.start()
    try:
        ds = load_frms6(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (ds.get_correction_data().get_dark_frame() == (65535 + 9) / 2).all()
    assert path.with_name("scan_000.frms6").stat().st_size > 17 << 20
    assert peak < 9 << 20


def test_corrections_are_made_once(tmp_path: Path) -> None:
    path, *_ = write_scan(tmp_path)
    ds = load_frms6(path)
    corrections = ds.get_correction_data()
    (tmp_path / "scan_000.frms6").unlink()
    assert ds.get_correction_data() is corrections
    copy = pickle.loads(pickle.dumps(ds)).get_correction_data()
    np.testing.assert_array_equal(copy.get_dark_frame(), corrections.get_dark_frame())
    assert max(len(pickle.dumps(partition)) for partition in ds.get_partitions()) < 3072


def write_gain(path: Path, gain: npt.NDArray[Any]) -> Path:
    if path.suffix == ".mat":
        from scipy.io import savemat

        savemat(path, {"GainMap": gain, "other": 1}, appendmat=False)
    else:
        lines = [";".join(map(repr, map(float, column))) + ";" for column in gain.T]
        path.write_text("\n".join(lines) + "\n\n")
    return path


@pytest.mark.parametrize("name", ["gain.mat", "gain.csv"])
@pytest.mark.parametrize("enabled", [True, False])
def test_gain_maps_are_applied(name: str, enabled: bool, tmp_path: Path) -> None:
    path, images, dark = write_scan(tmp_path, 2)
    gain = np.random.default_rng(5).random((8, 6))
    gain_path = write_gain(tmp_path / name, gain)
    ds = load_frms6(path, gain_map_path=gain_path, enable_offset_correction=enabled)
    assert ds.dtype == (np.float32 if enabled else np.uint16)
    np.testing.assert_array_equal(ds.get_correction_data().get_gain_map(), gain)
    with Context(executor=InlineJobExecutor()) as ctx:
        total = ctx.run_udf(dataset=ds, udf=SumUDF())["intensity"].data
    assert total.dtype == np.float32
    expected = ((images - (dark.mean(axis=0) if enabled else 0)) * gain).sum(axis=0)
    np.testing.assert_allclose(total, expected, rtol=1e-5, atol=0.1)


def test_corrections_follow_the_shape_of_the_images(tmp_path: Path) -> None:
    path, images, dark = write_scan(tmp_path, 2)
    ds = load_frms6(path, sig_shape=(48,))
    with Context(executor=InlineJobExecutor()) as ctx:
        total = ctx.run_udf(dataset=ds, udf=SumUDF())["intensity"].data
    expected = (images - dark.mean(axis=0)).sum(axis=0).reshape(48)
    np.testing.assert_allclose(total, expected, atol=0.1)


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        (
            "gain.txt",
            b"",
            DataSetException,
            r"gain\.txt: unknown kind of gain map: found '\.txt'.*\.mat or \.csv",
        ),
        ("gain.mat", None, MissingFileError, "does not exist"),
        ("gain.csv", None, MissingFileError, "does not exist"),
        ("gain.mat", b"", DataSetException, "MATLAB file of the gain map cannot be read"),
        ("gain.mat", b"MATLAB 5.0" + bytes(500), DataSetException, "cannot be read|no matrix"),
        ("gain.csv", b"", DataSetException, "lines of the gain map are not equally long: found 0 lines"),
        ("gain.csv", b"1;2\n3;4;5\n", DataSetException, r"found 2 lines of \[2, 3\] numbers"),
        ("gain.csv", b"1;2\n3;x\n", DataSetException, "no number: found in line 2.*'x'"),
        ("gain.csv", b"1;2;3;\n4;5;6;\n", ShapeError, r"found \(3, 2\), expected \(8, 6\)"),
        ("gain.csv", b"\xff\xfe\0", DataSetException, "no number"),
        ("gain.csv", b" " * 2000000, DataSetException, "too long for a gain map"),
    ],
)
def test_gain_maps_that_cannot_be_used_are_refused(
    name: str, content: bytes | None, error: type[Exception], message: str, tmp_path: Path
) -> None:
    path, *_ = write_scan(tmp_path)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=message):
        load_frms6(path, gain_map_path=str(tmp_path / name))


def test_a_matlab_file_needs_the_right_variable(tmp_path: Path) -> None:
    from scipy.io import savemat

    path, *_ = write_scan(tmp_path)
    for content in ({"Gain": np.ones((8, 6))}, {"GainMap": "text"}, {"GainMap": np.ones((8, 6)) * 1j}):
        savemat(tmp_path / "gain.mat", content)
        with pytest.raises(DataSetException, match=r"no matrix GainMap of real|not consist of numbers"):
            load_frms6(path, gain_map_path=tmp_path / "gain.mat")
    savemat(tmp_path / "gain.mat", {"GainMap": np.ones((6, 8))})
    with pytest.raises(ShapeError, match="does not fit the frames"):
        load_frms6(path, gain_map_path=tmp_path / "gain.mat")


def matlab_bytes(**options: Any) -> bytes:
    from scipy.io import savemat

    stream = io.BytesIO()
    savemat(stream, {"before": [1, 2], "GainMap": np.arange(48.0).reshape(8, 6), "text": "x"}, **options)
    return stream.getvalue()


MATLAB_FILES = [matlab_bytes(), matlab_bytes(do_compression=True), matlab_bytes(format="4")]


@pytest.mark.parametrize("content", MATLAB_FILES, ids=["v6", "v7", "v4"])
def test_matlab_files_of_all_levels_are_read(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "gain.mat").write_bytes(content)
    gain = read_gain_map(str(tmp_path / "gain.mat"), (8, 6))
    np.testing.assert_array_equal(gain, np.arange(48.0).reshape(8, 6))


def test_a_type_of_numbers_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    """It would end the process in scipy."""
    content = bytearray(MATLAB_FILES[0])
    start = content.index(b"GainMap") + 8
    content[start : start + 4] = struct.pack("<I", 0x0001CC82)
    (tmp_path / "gain.mat").write_bytes(content)
    with pytest.raises(DataSetException, match=r"gain\.mat: .* cannot be read.*unknown type of numbers"):
        read_gain_map(str(tmp_path / "gain.mat"), (8, 6))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.sampled_from(MATLAB_FILES), st.integers(0, 700), st.binary(min_size=1, max_size=8))
def test_damaged_matlab_files_give_a_map_or_the_family(
    tmp_path: Path, content: bytes, start: int, noise: bytes
) -> None:
    damaged = bytearray(content)
    damaged[start : start + len(noise)] = noise
    (tmp_path / "gain.mat").write_bytes(damaged)
    try:
        assert read_gain_map(str(tmp_path / "gain.mat"), (8, 6)).shape == (8, 6)
    except DataSetException as err:
        assert "gain.mat" in str(err)


# --- tiles ---


@pytest.mark.parametrize(
    ("sig_shape", "base"),
    [
        ((8, 6), (1, 2, 6)),
        ((48,), (1, 12)),
        ((6, 8), (1, 3, 8)),
        ((2, 4, 6), (1, 1, 4, 6)),
        ((4, 12), (1, 1, 12)),
        ((24, 2), (1, 6, 2)),
        ((3, 16), (1, 3, 16)),
    ],
)
def test_the_smallest_tile_is_a_binned_row(
    sig_shape: tuple[int, ...], base: tuple[int, ...], tmp_path: Path
) -> None:
    path, images, _ = write_scan(tmp_path, 2)
    ds = load_raw(path, sig_shape=sig_shape)
    assert ds.get_base_shape(None) == base
    expected = images.reshape(6, *sig_shape)
    np.testing.assert_array_equal(read(ds, tile_shape=(2, *base[1:])).pixels, expected)


@pytest.mark.parametrize(
    "tile_shape", [(1, 1, 6), (1, 3, 6), (6, 2, 3), (1, 2, 1), (1, 8, 3), (2, 5, 6)], ids=str
)
def test_tiles_that_split_binned_rows_are_refused(tile_shape: tuple[int, ...], tmp_path: Path) -> None:
    path, *_ = write_scan(tmp_path, 2)
    ds = load_raw(path)
    scheme = TilingScheme.make_for_shape(Shape(tile_shape, sig_dims=2), ds.shape)
    with pytest.raises(ValueError, match=r"Invalid tiling scheme: needs to be divisible by binning \(2\)"):
        list(next(iter(ds.get_partitions())).get_tiles(scheme, dest_dtype="float32"))


# --- parameters and facts ---


def test_dest_dtype_has_no_effect(tmp_path: Path) -> None:
    path, images, _ = write_scan(tmp_path)
    with pytest.warns(DeprecationWarning, match="dest_dtype"):
        ds = load_raw(path, dest_dtype="float64")
    assert ds.dtype == np.uint16
    np.testing.assert_array_equal(pixels(ds), images)


def test_parameters_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path, *_ = write_scan(tmp_path)
    with pytest.raises(ShapeError, match="sig_shape must be of size: 48"):
        load_raw(path, sig_shape=(7, 7))
    for offset in (6, -6):
        with pytest.raises(ShapeError, match=r"sync_offset should be in \(-6, 6\), which is"):
            load_raw(path, sync_offset=offset)


def test_diagnostics_show_the_hdr(tmp_path: Path) -> None:
    path, *_ = write_scan(tmp_path, 2)
    diagnostics = load_frms6(path).diagnostics
    assert diagnostics[0] == {"name": "Offset correction available and enabled", "value": "True"}
    facts = {item["name"]: item["value"] for item in diagnostics}
    assert facts["stemimagesize"] == "(2, 3)"
    assert facts["readoutmode"] == "{'bin': 2, 'win_i': 1, 'win_j': 6}"
    assert (facts["signalframes"], facts["gain"]) == ("6", "1")
    assert load_raw(path).diagnostics[0]["value"] == "False"


def test_facts_of_a_data_set(tmp_path: Path) -> None:
    path, *_ = write_scan(tmp_path)
    ds = load_frms6(path, sync_offset=1)
    assert repr(ds) == "<FRMS6DataSet of float32 shape=(2, 3, 8, 6)>"
    key = json.loads(json.dumps(ds.get_cache_key()))
    assert (key["path"], key["shape"], key["sync_offset"]) == (str(path), [2, 3, 8, 6], 1)
    assert key != load_raw(path, sync_offset=1).get_cache_key()
    assert FRMS6DataSet.get_supported_extensions() == {"frms6", "hdr"}


def test_json_parameters_become_arguments() -> None:
    converter = FRMS6DataSet.get_msg_converter()()
    assert isinstance(converter, FRMS6DatasetParams)
    message = {
        "type": "FRMS6",
        "path": "x.hdr",
        "nav_shape": [2, 3],
        "enable_offset_correction": False,
        "gain_map_path": "gain.mat",
    }
    params = converter.to_python(message)
    assert params == {
        "path": "x.hdr",
        "nav_shape": (2, 3),
        "enable_offset_correction": False,
        "gain_map_path": "gain.mat",
    }
    assert converter.from_python(params) == message


# --- detection ---


def test_detection_gives_the_shapes(tmp_path: Path) -> None:
    path, *_ = write_scan(tmp_path, 4, values={"STEMImageSize": "5x7"})
    for name in ("scan.hdr", "scan_000.frms6", "scan_002.frms6"):
        found = str(path.with_name(name))
        assert FRMS6DataSet.detect_params(found, EXECUTOR) == {
            "parameters": {"path": found, "nav_shape": (5, 7), "sig_shape": (8, 6)},
            "info": {"image_count": 35, "native_sig_shape": (8, 6)},
        }


def test_hdr_files_of_others_are_declined(tmp_path: Path) -> None:
    path, *_ = write_scan(tmp_path)
    for content in ("HDR,\t\nTime and Date Stamp:\t24/05/2019\nFrames in Acquisition:\t65536\nEnd", "x=1\n"):
        path.write_text(content)
        assert FRMS6DataSet.detect_params(str(path), EXECUTOR) is False


def test_detection_needs_all_kinds_of_files(tmp_path: Path) -> None:
    path = write_frms6_hdr(tmp_path / "scan.hdr", {"gain": 1})
    assert FRMS6DataSet.detect_params(str(path), EXECUTOR) is False
    path, *_ = write_scan(tmp_path / "whole")
    (tmp_path / "whole" / "scan_000.frms6").write_bytes(struct.pack("<HH", 1024, 64))
    assert FRMS6DataSet.detect_params(str(path), EXECUTOR) is False


def test_claims_are_checked_before_anything_is_allocated(tmp_path: Path) -> None:
    path, *_ = write_scan(tmp_path, values={"signalFrames": 10**14, "STEMImageSize": "99999x99999"})
    for number in range(4):
        damage(f"scan_{number:03}.frms6", 88, b"\xfe\xff\xff\xff")(tmp_path)
        damage(f"scan_{number:03}.frms6", 1020, b"\xff\xff\xff\xff")(tmp_path)
    before = time.monotonic()
    with pytest.raises(DataSetException, match="shorter than its frames"):
        load_frms6(path)
    assert time.monotonic() - before < 1
