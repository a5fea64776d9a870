from __future__ import annotations

import json
import pickle
import struct
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
from libertem.io.dataset.blo import BloDataSet, BloHeader, parse_header
from libertem.testing import DataSetTests
from libertem.testing.suite.reading import read as read_tiles
from libertem.testing.writers.blo import NOTE_8_BIT, NOTE_16_BIT, make_blo_header, write_blo

EXECUTOR = InlineJobExecutor(debug=True)

HEADER_8_BIT = bytes.fromhex(
    "494d47424c4f 0201 00010000 10010000 45000200 0200 0000 0200 0100 0000"
    "000000000000f03f 000000000000f03f 400d0300 6400 08070000 00000000e066e540"
) + bytes(176)
WORKED_8_BIT = (
    HEADER_8_BIT
    + bytes(16)
    + b"\x10\x20"
    + bytes(14)
    + bytes.fromhex("aa5500000000 01020304 aa5501000000 05060708")
)
WORKED_16_BIT = (
    HEADER_8_BIT[:6]
    + bytes.fromhex("0301 10010000 20010000")
    + HEADER_8_BIT[16:]
    + b"Blo Bit Depth: 16 bits\r\n".ljust(32, b"\0")
    + b"\x10\x20"
    + bytes(14)
    + bytes.fromhex("aa5500000000 e903ea03eb03ec03 aa5501000000 ed03ee03ef03f003")
)


def load_blo(path: Path, **kwargs: Any) -> Any:
    return load("blo", path=path, executor=EXECUTOR, **kwargs)


def load_quietly(path: Path, **kwargs: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_blo(path, **kwargs)


def read(ds: Any) -> npt.NDArray[Any]:
    """The whole array in native byte order, blanks as zeros."""
    return read_tiles(ds).pixels.reshape(tuple(ds.shape))


def make_frames(dtype: str = "u1", n: int = 6, size: int = 5) -> npt.NDArray[Any]:
    rng = np.random.default_rng(3)
    return rng.integers(0, np.iinfo(dtype).max, size=(n, size, size), dtype=np.dtype(dtype).newbyteorder("="))


class BloSuite(DataSetTests):
    filetype = "blo"
    sig_shape = (6, 6)
    endianess = "<"

    def write(self, folder: Path, frames: npt.NDArray[Any]) -> dict[str, Any]:
        path = folder / "scan.blo"
        write_blo(path, [frames], (1, len(frames)), byte_order=self.endianess)  # type: ignore[arg-type]
        return {"path": str(path), "endianess": self.endianess}


class TestBlo(BloSuite):
    dtypes = ("u1", "<u2")


class TestBlo16Bit(BloSuite):
    dtypes = ("<u2",)


class TestBloBigEndian(BloSuite):
    """No such file is known, and none is recognized."""

    dtypes = (">u2",)
    endianess = ">"
    detectable = False


# --- content ---


@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize(
    ("content", "dtype", "first"), [(WORKED_8_BIT, "u1", 1), (WORKED_16_BIT, "u2", 1001)]
)
def test_worked_examples(content: bytes, dtype: str, first: int, byte_order: str, tmp_path: Path) -> None:
    assert len(content) == (292 if dtype == "u1" else 316)
    path = tmp_path / "x.blo"
    frames = np.arange(first, first + 8, dtype=dtype).reshape(2, 2, 2)
    if byte_order == "<":
        path.write_bytes(content)
    else:
        note = "" if dtype == "u1" else NOTE_16_BIT
        offsets = (256, 272) if dtype == "u1" else (272, 288)
        write_blo(path, [frames], (1, 2), byte_order=">", note=note, offsets=offsets)
        assert path.stat().st_size == len(content)
    ds = load_blo(path, endianess=byte_order)
    assert ds.meta.raw_dtype == np.dtype(dtype).newbyteorder(byte_order)
    np.testing.assert_array_equal(read(ds), frames.reshape(1, 2, 2, 2))


def test_the_writer_makes_the_worked_examples(tmp_path: Path) -> None:
    for content, dtype, first, note, offsets in (
        (WORKED_8_BIT, "u1", 1, "", (256, 272)),
        (WORKED_16_BIT, "u2", 1001, NOTE_16_BIT, (272, 288)),
    ):
        frames = np.arange(first, first + 8, dtype=dtype).reshape(2, 2, 2)
        path = write_blo(tmp_path / "x.blo", [frames], (1, 2), note=note, offsets=offsets)
        written = bytearray(path.read_bytes())
        written[offsets[0] : offsets[0] + 2] = b"\x10\x20"  # the bright field image, of which nothing is said
        assert bytes(written) == content


@pytest.mark.parametrize("backend", ["mmap", "buffered", "direct"])
@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("offsets", [None, (4096, 4109), (271, 277)])
def test_odd_sizes_and_places_read_back(
    offsets: tuple[int, int] | None, dtype: str, byte_order: Any, backend: str, tmp_path: Path
) -> None:
    frames = make_frames(dtype)
    slabs = [frames[:4], frames[4:]]
    path = write_blo(tmp_path / "x.blo", slabs, (3, 2), offsets=offsets, byte_order=byte_order)
    ds = load_blo(path, endianess=byte_order, io_backend=backend)
    assert tuple(ds.shape) == (3, 2, 5, 5)
    np.testing.assert_array_equal(read(ds).reshape(6, 5, 5), frames)
    np.testing.assert_array_equal(read_tiles(ds, dest_dtype="f4").pixels, frames.astype("f4"))


def test_trailing_bytes_and_further_records_do_not_matter(tmp_path: Path) -> None:
    frames = make_frames(n=7)
    path = write_blo(tmp_path / "x.blo", [frames], (3, 2))
    with path.open("ab") as file:
        file.write(b"1234567")
    ds = load_blo(path)
    assert ds.meta.image_count == 6
    np.testing.assert_array_equal(read(ds).reshape(6, 5, 5), frames[:6])


def test_the_identifier_matters_for_detection_only(tmp_path: Path) -> None:
    path = write_blo(tmp_path / "x.blo", [make_frames()], (3, 2), patches={0: b"ABCDEF"})
    np.testing.assert_array_equal(read(load_blo(path)).reshape(6, 5, 5), make_frames())
    assert BloDataSet.detect_params(str(path), EXECUTOR) is False
    with pytest.raises(HeaderError, match=r"x\.blo: not a blockfile: found b'ABCDEF', expected b'IMGBLO'"):
        BloDataSet.recognize(str(path), EXECUTOR)


# --- bit depth ---


@pytest.mark.parametrize(
    ("magic", "note", "dtype"),
    [
        (0x0102, "", "u1"),
        (0x0102, NOTE_16_BIT, "u1"),
        (0x0103, "", "u1"),
        (0x0103, NOTE_8_BIT, "u1"),
        (0x0103, NOTE_16_BIT, "u2"),
        (0x0103, "\r\nPrecession angle : 1\r\n  BLO BIT DEPTH:\t 16   Bits \r\nmore", "u2"),
        (0x0103, "Precession\nBlo Bit Depth: unknown\nBlo Bit Depth: 16 bits\nBlo Bit Depth: 8 bits", "u2"),
        (0x0103, "Blo Bit Depth: 16 bits per pixel", "u1"),
        (0x0103, "Not Blo Bit Depth: 16 bits", "u1"),
        (0x0103, "Blo Bit Depth: " + 5000 * "9" + " bits", "u1"),
    ],
)
def test_magic_and_note_give_the_bit_depth(magic: int, note: str, dtype: str, tmp_path: Path) -> None:
    frames = make_frames(dtype)
    offsets = (8192, 8208)
    path = write_blo(tmp_path / "x.blo", [frames], (3, 2), magic=magic, note=note, offsets=offsets)
    ds = load_blo(path)
    assert ds.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(read(ds).reshape(6, 5, 5), frames)


def test_a_note_that_is_no_text_is_harmless(tmp_path: Path) -> None:
    patches = {240: b"\xff\xfe\r\n\0\xe9 Blo Bit Depth: 16 bits", 300: b"\nblo bit depth: 16 bits\r\n"}
    path = write_blo(tmp_path / "x.blo", [make_frames("u2")], (3, 2), note="", patches=patches)
    assert load_blo(path).dtype == np.dtype("u2")


@pytest.mark.parametrize(("n", "trailing"), [(6, 0), (6, 1000), (4, 0)])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("bits", [0, 4, 12, 10, 32])
def test_other_bit_depths_are_decided_by_the_file(
    bits: int, dtype: str, n: int, trailing: int, tmp_path: Path
) -> None:
    frames = make_frames(dtype, n)
    note = f"Blo Bit Depth: {bits} bits\r\n"
    path = write_blo(tmp_path / "x.blo", [frames], (3, 2), magic=0x0103, note=note)
    path.write_bytes(path.read_bytes() + bytes(trailing))
    with pytest.warns(RuntimeWarning) as caught:
        ds = load_blo(path)
    depth, *others = [str(warning.message) for warning in caught]
    assert f"bit depth of {bits}, the frames seem to have {8 * int(dtype[1])} bit" in depth
    assert len(others) == (n < 6)
    assert ds.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(read(ds).reshape(6, 5, 5)[:n], frames)


@pytest.mark.parametrize(
    ("bits", "dtype", "expected"), [(12, "u1", "u1"), (12, "u2", "u2"), (4, "u1", "u1"), (32, "u2", "u2")]
)
def test_without_marks_the_size_decides(bits: int, dtype: str, expected: str, tmp_path: Path) -> None:
    note = f"Blo Bit Depth: {bits} bits"
    path = write_blo(tmp_path / "x.blo", [make_frames(dtype)], (3, 2), magic=0x0103, note=note)
    content = bytearray(path.read_bytes())
    for n in range(6):
        start = 4112 + n * (6 + make_frames(dtype)[0].nbytes)
        content[start : start + 2] = b"\0\0"
    path.write_bytes(content)
    with pytest.warns(RuntimeWarning, match=f"bit depth of {bits}"):
        assert load_blo(path).dtype == np.dtype(expected)


def test_a_single_frame_of_unknown_depth_is_decided_by_the_size(tmp_path: Path) -> None:
    for dtype in ("u1", "u2"):
        path = write_blo(
            tmp_path / "x.blo",
            [make_frames(dtype, 1)],
            (1, 1),
            magic=0x0103,
            note="Blo Bit Depth: 12 bits",
        )
        with pytest.warns(RuntimeWarning, match="bit depth of 12"):
            assert load_blo(path).dtype == np.dtype(dtype)


def test_a_missing_bit_depth_is_decided_by_a_size_that_fits_16_bits(tmp_path: Path) -> None:
    path = write_blo(tmp_path / "x.blo", [make_frames("u2")], (3, 2), note="")
    with pytest.warns(RuntimeWarning, match="gives no bit depth, the frames seem to have 16 bit"):
        ds = load_blo(path)
    np.testing.assert_array_equal(read(ds).reshape(6, 5, 5), make_frames("u2"))


@pytest.mark.parametrize(("dtype", "note"), [("u1", NOTE_16_BIT), ("u2", NOTE_8_BIT)])
def test_a_wrong_bit_depth_is_noticed(dtype: str, note: str, tmp_path: Path) -> None:
    path = write_blo(tmp_path / "x.blo", [make_frames(dtype)], (3, 2), magic=0x0103, note=note)
    with pytest.warns(RuntimeWarning, match="the frames seem to have"):
        ds = load_blo(path)
    np.testing.assert_array_equal(read(ds).reshape(6, 5, 5), make_frames(dtype))


def test_an_aborted_scan_of_16_bits_with_the_size_of_8_bits_is_not_mistaken(tmp_path: Path) -> None:
    frames = make_frames("u2", n=5, size=3)
    path = write_blo(tmp_path / "x.blo", [frames], (8, 1), offsets=(4096, 4112))
    assert path.stat().st_size == 4112 + 8 * (6 + 9)
    with pytest.warns(RuntimeWarning, match="8 frames, the file holds 5") as caught:
        ds = load_blo(path)
    assert len(caught) == 1
    np.testing.assert_array_equal(read(ds)[:5, 0], frames)


# --- damage ---


def test_an_aborted_scan_is_read_with_a_warning_as_far_as_it_goes(tmp_path: Path) -> None:
    frames = make_frames()
    path = write_blo(tmp_path / "x.blo", [frames[:4]], (3, 2))
    with pytest.warns(RuntimeWarning, match=r"x\.blo: the header promises 6 frames, the file holds 4"):
        ds = load_blo(path)
    assert (ds.meta.image_count, tuple(ds.shape)) == (4, (3, 2, 5, 5))
    assert ds.get_sync_offset_info()["frames_inserted_end"] == 2
    np.testing.assert_array_equal(read(ds).reshape(6, 5, 5), [*frames[:4], *np.zeros((2, 5, 5))])
    shifted = load_quietly(path, sync_offset=-3)
    np.testing.assert_array_equal(read(shifted).reshape(6, 5, 5)[3:], frames[:3])
    with pytest.raises(ShapeError, match=r"\(-4, 4\), which is \(-image_count, image_count\)"):
        load_quietly(path, sync_offset=4)


STRIDE = {"u1": 31, "u2": 56}


CUTS = [
    (dtype, place + extra)
    for dtype, stride in STRIDE.items()
    for place in (0, 6, 8, 16, 64, 240, 4096, 4102, *(4112 + n * stride for n in range(7)), 4118 + 2 * stride)
    for extra in (-1, 0, 1)
    if 0 <= place + extra < 4112 + 6 * stride
]


@pytest.mark.parametrize(("dtype", "size"), CUTS)
def test_files_cut_at_any_boundary(dtype: str, size: int, tmp_path: Path) -> None:
    frames = make_frames(dtype)
    path = write_blo(tmp_path / "x.blo", [frames], (3, 2))
    path.write_bytes(path.read_bytes()[:size])
    left = max(0, size - 4112) // STRIDE[dtype]
    if left == 0:
        with pytest.raises(DataSetException, match=rf"x\.blo.*found {size} bytes, expected"):
            load_blo(path)
        assert BloDataSet.detect_params(str(path), EXECUTOR) is False
        return
    with pytest.warns(RuntimeWarning, match=f"promises 6 frames, the file holds {left} whole ones"):
        ds = load_blo(path)
    np.testing.assert_array_equal(read(ds).reshape(6, 5, 5)[:left], frames[:left])
    assert not read(ds).reshape(6, 5, 5)[left:].any()
    assert BloDataSet.detect_params(str(path), EXECUTOR)


FIELDS = {
    "ID": (0, 6),
    "MAGIC": (6, 2),
    "Data_offset_1": (8, 4),
    "Data_offset_2": (12, 4),
    "unknown": (16, 4),
    "DP_SZ": (20, 2),
    "DP_rotation": (22, 2),
    "NX": (24, 2),
    "NY": (26, 2),
    "Scan_rotation": (28, 2),
    "SX": (30, 8),
    "SY": (38, 8),
    "Beam_energy": (46, 4),
    "SDP": (50, 2),
    "Camera_length": (52, 4),
    "Acquisition_time": (56, 8),
    "Centering_N0": (64, 8),
    "Distortion_N13": (232, 8),
}
WITHOUT_EFFECT = set(FIELDS) - {"MAGIC", "Data_offset_1", "Data_offset_2", "DP_SZ", "NX", "NY"}


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("extreme", ["zeros", "ones", "largest", "sign"])
@pytest.mark.parametrize("field", FIELDS)
def test_any_field_at_its_extremes_gives_an_error_or_a_warning(
    field: str, extreme: str, dtype: str, tmp_path: Path
) -> None:
    offset, n_bytes = FIELDS[field]
    value = {
        "zeros": bytes(n_bytes),
        "ones": b"\xff" * n_bytes,
        "largest": b"\xff" * (n_bytes - 1) + b"\x7f",
        "sign": bytes(n_bytes - 1) + b"\x80",
    }[extreme]
    path = write_blo(tmp_path / "x.blo", [make_frames(dtype)], (3, 2), patches={offset: value})
    if field in WITHOUT_EFFECT:
        ds = load_blo(path)
        np.testing.assert_array_equal(read(ds).reshape(6, 5, 5), make_frames(dtype))
        json.dumps(ds.diagnostics)
    elif field in ("NX", "NY") and extreme != "zeros":
        # More scan positions than frames: those there are stay right.
        with pytest.warns(RuntimeWarning, match="the file holds 6 whole ones"):
            ds = load_blo(path)
        assert ds.meta.image_count == 6
        roi = np.zeros(ds.shape.nav.size, dtype=bool)
        roi[:6] = True
        np.testing.assert_array_equal(read_tiles(ds, roi=roi).pixels, make_frames(dtype))
    else:
        with pytest.raises(DataSetException, match=rf"x\.blo.*{'magic' if field == 'MAGIC' else 'found'}"):
            load_blo(path)
        assert BloDataSet.detect_params(str(path), EXECUTOR) is False


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"", HeaderError, "found 0 bytes, expected at least 240"),
        (WORKED_8_BIT[:239], HeaderError, "found 239 bytes, expected at least 240"),
        (bytes(300), HeaderError, "invalid magic number: 0x0000: expected 0x0102 or 0x0103"),
        (WORKED_8_BIT[:7] + b"\x04" + WORKED_8_BIT[8:], HeaderError, "invalid magic number: 0x0402"),
        (WORKED_8_BIT[:281], SizeMismatchError, r"found 281 bytes, expected 282 or more for a frame of \(2"),
    ],
)
def test_what_cannot_be_read_is_refused(
    content: bytes, error: type[Exception], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.blo"
    path.write_bytes(content)
    with pytest.raises(error, match=rf"x\.blo.*{message}"):
        load_blo(path)
    assert BloDataSet.detect_params(str(path), EXECUTOR) is False


@pytest.mark.parametrize(("written", "read_as"), [("<", ">"), (">", "<")])
def test_the_other_byte_order_is_suggested(written: Any, read_as: Any, tmp_path: Path) -> None:
    path = write_blo(tmp_path / "x.blo", [make_frames("u2")], (3, 2), byte_order=written)
    with pytest.raises(HeaderError, match=r"invalid magic number: 0x0301.*pass another endianess"):
        load_blo(path, endianess=read_as)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"no\.blo"):
        load_blo(tmp_path / "no.blo")
    with pytest.raises(FileNotFoundError):
        load_blo(tmp_path / "no.blo")


# --- parameters ---


@pytest.mark.parametrize("nav_shape", [(6,), (2, 3), (1, 2, 3), (4,), (5, 2)])
def test_any_scan_shape_can_be_given(nav_shape: tuple[int, ...], tmp_path: Path) -> None:
    frames = make_frames()
    ds = load_blo(write_blo(tmp_path / "x.blo", [frames], (3, 2)), nav_shape=nav_shape)
    n = int(np.prod(nav_shape))
    expected = np.concatenate([frames, np.zeros_like(frames)])[:n]
    assert tuple(ds.shape.nav) == nav_shape
    np.testing.assert_array_equal(read(ds).reshape(n, 5, 5), expected)


def test_tileshape_has_no_effect_but_a_warning(tmp_path: Path) -> None:
    path = write_blo(tmp_path / "x.blo", [make_frames()], (3, 2))
    with pytest.warns(FutureWarning, match="tileshape argument is deprecated"):
        ds = load_blo(path, tileshape=(1, 10**9, 10**9, 10**9))
    np.testing.assert_array_equal(read(ds).reshape(6, 5, 5), make_frames())


@pytest.mark.parametrize("endianess", ["=", "little", "", None, 1])
def test_other_byte_orders_are_refused(endianess: Any) -> None:
    with pytest.raises(ValueError, match="endianess has to be '<' or '>'"):
        BloDataSet("x.blo", endianess=endianess)


def test_arguments_by_position() -> None:
    ds = BloDataSet("x.blo", None, ">", (2, 3), (4, 5), 1, None, 2)
    assert (ds._endianess, ds._nav_shape, ds._sig_shape, ds._sync_offset) == (">", (2, 3), (4, 5), 1)


def test_a_sig_shape_of_other_size_is_refused(tmp_path: Path) -> None:
    path = write_blo(tmp_path / "x.blo", [make_frames()], (3, 2))
    with pytest.raises(ShapeError, match=r"sig_shape must be of size: 25: found \(3, 17\)"):
        load_blo(path, sig_shape=(3, 17))


@pytest.mark.parametrize("sync_offset", [6, -6, 100])
def test_a_sync_offset_that_leaves_nothing_is_refused(sync_offset: int, tmp_path: Path) -> None:
    path = write_blo(tmp_path / "x.blo", [make_frames()], (3, 2))
    with pytest.raises(
        ShapeError,
        match=r"sync_offset should be in \(-6, 6\), which is \(-image_count, image_count\)",
    ):
        load_blo(path, sync_offset=sync_offset)


# --- detection ---


@pytest.mark.parametrize("name", ["x.blo", "x.BLO", "x.dat", "x"])
def test_detection_does_not_need_the_extension(name: str, tmp_path: Path) -> None:
    path = str(write_blo(tmp_path / name, [make_frames("u2")], (3, 2)))
    assert BloDataSet.detect_params(path, EXECUTOR) == {
        "parameters": {"path": path, "nav_shape": (3, 2), "sig_shape": (5, 5), "endianess": "<"},
        "info": {"image_count": 6, "native_sig_shape": (5, 5)},
    }


def test_detection_reads_little_of_strange_files(tmp_path: Path) -> None:
    path = write_blo(
        tmp_path / "x.blo",
        [make_frames("u2", 600, 32)],
        (600, 1),
        note="Blo Bit Depth: 12 bits",
        offsets=(200_000, 200_600),
    )
    before = io_counts()
    assert BloDataSet.detect_params(str(path), EXECUTOR)
    assert (io_counts() - before).read_bytes <= PROBE_BYTES


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(st.binary(max_size=600), st.sampled_from([b"", WORKED_8_BIT[:8], WORKED_16_BIT[:16]]))
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes, start: bytes) -> None:
    path = tmp_path / "x.blo"
    path.write_bytes(start + content)
    assert isinstance(BloDataSet.detect_params(str(path), EXECUTOR), bool | dict)
    try:
        load_quietly(path)
    except DataSetException as err:
        assert "x.blo" in str(err)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400), st.sampled_from(["<", ">"]))
def test_any_bytes_parse_or_raise_the_family(raw: bytes, byte_order: Any) -> None:
    for start in (b"", WORKED_8_BIT[:16], HEADER_8_BIT):
        try:
            header = parse_header(start + raw, path="x.blo", byte_order=byte_order)
        except HeaderError as err:
            assert "x.blo" in str(err)
        else:
            assert min(*header.nav_shape, *header.sig_shape) > 0


# --- facts ---


def test_the_header_is_given_in_si_units(tmp_path: Path) -> None:
    patches = {28: struct.pack("<H2d", 4550, 2.5, 1.25)}
    ds = load_blo(write_blo(tmp_path / "x.blo", [make_frames()], (3, 2), patches=patches))
    assert ds.header == BloHeader(
        identifier=b"IMGBLO",
        magic=0x0102,
        data_offset=4112,
        nav_shape=(3, 2),
        sig_shape=(5, 5),
        scan_step=(pytest.approx(1.25e-9), pytest.approx(2.5e-9)),
        scan_rotation=45.5,
        beam_energy=200e3,
        camera_length=pytest.approx(0.18),
        note="Precession angle :",
        stated_bits=None,
    )


def test_diagnostics_show_the_header(tmp_path: Path) -> None:
    path = write_blo(tmp_path / "x.blo", [make_frames("u2", 4)], (3, 2))
    facts = {item["name"]: item["value"] for item in load_quietly(path).diagnostics}
    assert facts["dtype"] == "uint16"
    assert facts["Magic number"] == "0x0103"
    assert facts["Bits per pixel"] == "16"
    assert (facts["Frames according to the header"], facts["Frames in the file"]) == (6, 4)
    assert facts["Note"] == "Blo Bit Depth: 16 bits"
    assert (facts["High tension (kV)"], facts["Camera length (mm)"]) == ("200", "180")


def test_before_it_is_initialized_a_data_set_asks_for_that() -> None:
    ds = BloDataSet("x.blo")
    for name in ("header", "shape", "dtype"):
        with pytest.raises(RuntimeError, match=r"call initialize\(\)"):
            getattr(ds, name)


@pytest.mark.parametrize("note", ["", 3000 * "Long note. "])
def test_facts_of_a_data_set(note: str, tmp_path: Path) -> None:
    path = write_blo(tmp_path / "x.blo", [make_frames()], (3, 2), note=note, offsets=(40_000, 40_006))
    ds = load_blo(path, sync_offset=1)
    assert repr(ds) == "<BloDataSet of uint8 shape=(3, 2, 5, 5)>"
    key = ds.get_cache_key()
    assert key == {"path": str(path), "endianess": "<", "shape": (3, 2, 5, 5), "sync_offset": 1}
    json.dumps(key)
    assert BloDataSet.get_supported_extensions() == {"blo"}
    assert len(pickle.dumps(ds.meta)) < 512
    assert len(pickle.dumps(ds._get_fileset())) < 1024
    assert len(pickle.dumps(ds)) < 2048
    np.testing.assert_array_equal(read(pickle.loads(pickle.dumps(ds))), read(ds))


def test_loading_needs_one_small_read(tmp_path: Path) -> None:
    path = write_blo(tmp_path / "x.blo", [make_frames("u1", 600, 64)], (600, 1))
    before = io_counts()
    load_blo(path)
    assert (io_counts() - before).reads == 1


def test_json_parameters_become_arguments() -> None:
    converter = BloDataSet.get_msg_converter()()
    params = converter.to_python({"type": "BLO", "path": "x.blo", "nav_shape": [2, 3], "sync_offset": 1})
    assert params == {"path": "x.blo", "nav_shape": (2, 3), "sync_offset": 1}
    assert converter.from_python(params) == {
        "type": "BLO",
        "path": "x.blo",
        "nav_shape": [2, 3],
        "sync_offset": 1,
    }


def test_importing_the_module_is_cheap() -> None:
    code = (
        "import sys, libertem.io.dataset.blo\n"
        "print(sorted({'numba', 'h5py', 'scipy', 'sparse'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_header_of_the_writer_can_be_patched() -> None:
    header = make_blo_header((3, 2), 5, patches={6: b"\x03\x01", 240: b"Blo Bit Depth: 8 bits"})
    assert parse_header(header, path="x.blo").stated_bits == 8
