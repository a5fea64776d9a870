from __future__ import annotations

import struct
import tracemalloc
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libertem.exceptions import HeaderError
from libertem.io.headers.mrc import HEADER_BYTES, MRCHeader, fei_scan_shape, parse_header
from libertem.testing.writers.mrc import make_mrc_header

# The worked example of the fact sheet: 6 frames of 4 x 5 pixels of uint16.
LITTLE = {
    0x000: "05 00 00 00  04 00 00 00  06 00 00 00  06 00 00 00",
    0x01C: "05 00 00 00  04 00 00 00  06 00 00 00  00 00 20 41  00 00 00 41",
    0x030: "00 00 40 41  00 00 B4 42  00 00 B4 42  00 00 B4 42",
    0x040: "01 00 00 00  02 00 00 00  03 00 00 00",
    0x06C: "AC 4E 00 00",
    0x0D0: "4D 41 50 20  44 44 00 00  00 00 80 BF",
}
BIG = {0x000: "00 00 00 05  00 00 00 04  00 00 00 06  00 00 00 06", 0x0D0: "4D 41 50 20  11 11 00 00"}
EXAMPLE_SIZE = 1264


def from_hex(parts: dict[int, str]) -> bytes:
    raw = bytearray(HEADER_BYTES)
    for offset, text in parts.items():
        part = bytes.fromhex(text)
        raw[offset : offset + len(part)] = part
    return bytes(raw)


def parse(raw: bytes, file_size: int = EXAMPLE_SIZE) -> MRCHeader:
    return parse_header(raw, path="x.mrc", file_size=file_size)


def i4(value: int, byte_order: str = "<") -> bytes:
    return struct.pack(f"{byte_order}i", value)


@pytest.mark.parametrize(("raw", "dtype"), [(from_hex(LITTLE), "<u2"), (from_hex(BIG), ">u2")])
def test_the_worked_example_gives_its_facts(raw: bytes, dtype: str) -> None:
    header = parse(raw)
    assert header.sig_shape == (4, 5)
    assert header.section_count == 6
    assert header.dtype == np.dtype(dtype)
    assert header.data_offset == 1024
    assert header.sections_in(EXAMPLE_SIZE) == 6
    assert header.extended_type == ""


@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize(
    ("mode", "dtype"), [(0, "i1"), (1, "i2"), (2, "f4"), (4, "c8"), (6, "u2"), (12, "f2")]
)
def test_the_mode_gives_the_dtype_in_the_byte_order_of_the_file(
    mode: int, dtype: str, byte_order: Literal["<", ">"]
) -> None:
    header = parse(make_mrc_header((2, 3, 4), mode, byte_order=byte_order), file_size=5000)
    assert header.dtype == np.dtype(byte_order + dtype)
    assert header.byte_order == byte_order


@pytest.mark.parametrize(
    ("byte_order", "stamp"),
    [
        ("<", b"\x44\x44"),
        ("<", b"\x44\x41"),
        ("<", b"\x11\x11"),
        ("<", b"\0\0"),
        ("<", b"zz"),
        (">", b"\x11\x11"),
        (">", b"\x44\x44"),
        (">", b"\0\0"),
        (">", b"zz"),
    ],
)
def test_the_byte_order_is_found_with_any_stamp(byte_order: Literal["<", ">"], stamp: bytes) -> None:
    raw = make_mrc_header((6, 4, 5), 6, byte_order=byte_order, patches={208: bytes(4), 212: stamp})
    assert parse(raw).byte_order == byte_order


@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_without_stamp_sizes_decide_where_the_mode_reads_the_same_in_both_orders(
    byte_order: Literal["<", ">"],
) -> None:
    raw = make_mrc_header((6, 4, 5), 0, byte_order=byte_order, patches={212: b"\0\0"})
    assert parse(raw, file_size=1024 + 6 * 20).sig_shape == (4, 5)


@pytest.mark.parametrize(
    ("flags", "stamp", "dtype"),
    [(0, 1146047817, "u1"), (1, 1146047817, "i1"), (6, 1146047817, "u1"), (0, 0, "i1")],
)
def test_bytes_have_a_sign_unless_imod_says_otherwise(flags: int, stamp: int, dtype: str) -> None:
    raw = make_mrc_header((2, 3, 4), 0, patches={152: i4(stamp), 156: i4(flags)})
    assert parse(raw, file_size=2000).dtype == np.dtype(dtype)


def test_the_grid_does_not_matter() -> None:
    raw = make_mrc_header((6, 4, 5), 6, patches={28: bytes(12)})
    assert parse(raw).sig_shape == (4, 5)


def test_data_start_after_the_extended_header() -> None:
    raw = make_mrc_header((6, 4, 5), 6, extended_bytes=81, extended_type=b"SERI")
    header = parse(raw, file_size=1105 + 7 * 40 - 1)
    assert (header.extended_type, header.extended_bytes, header.data_offset) == ("SERI", 81, 1105)
    assert header.sections_in(1105 + 7 * 40 - 1) == 6


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "x.mrc: not an MRC file: it ends inside the header: found 0 bytes, expected at least 1024"),
        (bytes(100), "found 100 bytes"),
        (bytes(1024), "not an MRC file: found mode 0 and stamp b'.x00.x00', expected a mode out of"),
        (b"II*\0" * 256, "not an MRC file"),
        (make_mrc_header((6, 4, 5), 7), "not an MRC file: found mode 7"),
        (make_mrc_header((6, 4, 0), 6), "found 0 columns, 4 rows, expected positive"),
        (make_mrc_header((6, -4, 5), 6), "found 5 columns, -4 rows"),
        (
            make_mrc_header((6, 4, 5), 6, extended_bytes=-1),
            "extended header: found -1 bytes, expected 0 to 240",
        ),
        (make_mrc_header((6, 4, 5), 6, extended_bytes=241), "found 241 bytes"),
        (make_mrc_header((6, 4, 5), 3), "mode 3 .complex numbers of 16 bit integers.*save the data"),
        (make_mrc_header((6, 4, 5), 16), "mode 16 .RGB"),
        (make_mrc_header((6, 4, 5), 101), "mode 101 .4 bit"),
    ],
)
def test_what_cannot_be_read_raises_and_tells_why(raw: bytes, message: str) -> None:
    with pytest.raises(HeaderError, match=message):
        parse(raw)


def test_absurd_sizes_cost_nothing() -> None:
    tracemalloc.start()
    header = parse(make_mrc_header((2**31 - 1, 2**31 - 1, 2**31 - 1), 4))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert header.frame_bytes == (2**31 - 1) ** 2 * 8
    assert header.sections_in(EXAMPLE_SIZE) == 0
    assert peak < 1e6


@given(st.binary(min_size=HEADER_BYTES - 3, max_size=HEADER_BYTES + 700), st.integers(0, 1 << 40))
def test_any_bytes_parse_or_raise_the_family(raw: bytes, file_size: int) -> None:
    try:
        header = parse(raw, file_size)
    except HeaderError:
        return
    fei_scan_shape(raw, header)


@given(
    st.dictionaries(st.integers(0, 253).map(lambda n: 4 * n), st.binary(min_size=4, max_size=4), max_size=4),
    st.sampled_from(["<", ">"]),
    st.integers(0, 5000),
)
def test_damaged_headers_parse_or_raise_the_family(
    patches: dict[int, bytes], byte_order: Literal["<", ">"], file_size: int
) -> None:
    raw = make_mrc_header((6, 4, 5), 6, byte_order=byte_order, extended_bytes=9, patches=patches)
    try:
        header = parse(raw, file_size)
    except HeaderError:
        return
    assert min(header.sig_shape) > 0
    assert header.data_offset >= HEADER_BYTES
    n = header.sections_in(file_size)
    assert n == 0 or header.data_offset + n * header.frame_bytes <= file_size


@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("kind", [b"FEI1", b"FEI2"])
def test_fei_records_give_the_scan_shape(byte_order: Literal["<", ">"], kind: bytes) -> None:
    area = struct.pack(f"{byte_order}4i", 10, 20, 10 + 73, 20 + 186)  # left, top, right, bottom
    record = (bytes(587) + area).ljust(768, b"\0")
    raw = (
        make_mrc_header((1, 2, 2), 6, byte_order=byte_order, extended_bytes=768, extended_type=kind) + record
    )
    assert fei_scan_shape(raw, parse(raw, file_size=len(raw))) == (186, 73)


@pytest.mark.parametrize(
    ("kind", "extended_bytes", "right"),
    [(b"SERI", 768, 5), (b"FEI1", 600, 5), (b"FEI1", 768, 0), (b"FEI1", 768, -5)],
)
def test_other_extended_headers_give_no_scan_shape(kind: bytes, extended_bytes: int, right: int) -> None:
    record = (bytes(587) + struct.pack("<4i", 0, 0, right, 5)).ljust(768, b"\0")
    raw = make_mrc_header((1, 2, 2), 6, extended_bytes=extended_bytes, extended_type=kind) + record
    assert fei_scan_shape(raw, parse(raw, file_size=len(raw))) is None
