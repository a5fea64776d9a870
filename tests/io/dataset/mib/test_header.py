from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libertem.exceptions import DataSetException, HeaderError
from libertem.io.dataset.mib.header import MAX_HEADER_BYTES, MIBHeader, choose_encoding, parse_header
from libertem.testing.writers.mib import MIBSpec, make_header

PUBLISHED = (
    b"MQ1,000001,00384,01,0256,0256,R64,   1x1,01,2021-05-07 18:51:10.905800,0.001000,0,0,0,"
    b"1.200000E+1,5.110000E+2,0.000000E+0,0.000000E+0,0.000000E+0,0.000000E+0,0.000000E+0,0.000000E+0,"
    b"3RX,023,511,000,000,000,000,000,000,175,010,200,125,100,100,093,100,099,030,128,004,255,140,128,191,"
    b"179,511,511,MQ1A,2021-05-07T16:51:10.905800928Z,1000000ns,6,"
).ljust(384, b"\0")


def parse(raw: bytes) -> MIBHeader:
    header = parse_header(raw, path="x.mib")
    assert isinstance(header, MIBHeader), f"{header} bytes are asked for"
    return header


def with_fields(raw: bytes = PUBLISHED, **fields: str) -> bytes:
    """The header with other text in some of its fields, given as ``f<number>``."""
    parts = raw.rstrip(b"\0").decode().split(",")
    for name, text in fields.items():
        parts[int(name[1:])] = text
    return ",".join(parts).encode().ljust(len(raw), b"\0")


def test_the_published_header_is_understood() -> None:
    assert parse(PUBLISHED) == MIBHeader(
        sequence=1,
        header_bytes=384,
        n_chips=1,
        width=256,
        height=256,
        pixel_kind="R64",
        layout=(1, 1),
        has_gap=False,
        timestamp="2021-05-07 18:51:10.905800",
        counter_depth=6,
    )


def test_pixels_behind_the_header_do_not_matter() -> None:
    assert parse(PUBLISHED + b",MQ1A,x,y,24," * 50) == parse(PUBLISHED)


@pytest.mark.parametrize("ending", [",", "", "\n", ",\r\n", " ", ",\n\n"])
@pytest.mark.parametrize("depth", [1, 6, 12, 24])
def test_the_counter_depth_is_found_whatever_follows_it(ending: str, depth: int) -> None:
    raw = make_header(MIBSpec("R64", depth, ending=ending), (64, 64))
    assert parse(raw).counter_depth == depth


@pytest.mark.parametrize("has_dacs", [True, False])
@pytest.mark.parametrize("has_thresholds", [True, False])
@pytest.mark.parametrize("layout", ["1x1", "2x2"])
def test_settings_of_the_chips_may_be_missing(layout: str, has_dacs: bool, has_thresholds: bool) -> None:
    spec = MIBSpec("R64", 12, layout, has_dacs=has_dacs, has_thresholds=has_thresholds)
    header = parse(make_header(spec, (64, 64), 7))
    assert (header.sequence, header.counter_depth, header.n_chips) == (7, 12, spec.chips)


def test_headers_of_old_software_do_not_tell_the_counter_depth() -> None:
    assert parse(make_header(MIBSpec("U16", has_extension=False), (64, 64))).counter_depth is None
    assert parse(PUBLISHED.replace(b"1000000ns,6,", b"1000000ns".ljust(12, b"\0"))).counter_depth is None


@pytest.mark.parametrize(
    ("text", "n_chips", "layout", "has_gap"),
    [
        ("1x1", 1, (1, 1), False),
        ("2x2", 1, (2, 2), False),
        ("2x2G", 4, (2, 2), True),
        ("Nx1", 4, (4, 1), False),
        ("Nx1G", 3, (3, 1), True),
        ("4x1", 4, (4, 1), False),
    ],
)
def test_arrangements_of_chips(text: str, n_chips: int, layout: tuple[int, int], has_gap: bool) -> None:
    header = parse(with_fields(f3=f"{n_chips:02d}", f7=f"{text:>6}"))
    assert (header.layout, header.has_gap, header.n_chips) == (layout, has_gap, n_chips)


@pytest.mark.parametrize("n_bytes", [384, 768, 1280, 340, 392])
def test_the_declared_length_counts(n_bytes: int) -> None:
    spec = MIBSpec("U16", has_dacs=False, header_bytes=n_bytes)
    raw = make_header(spec, (64, 64))
    assert parse(raw).header_bytes == n_bytes
    assert parse_header(raw[: n_bytes - 1], path="x.mib") == n_bytes


def test_the_first_bytes_ask_for_more() -> None:
    for n in range(384):
        needed = parse_header(PUBLISHED[:n], path="x.mib")
        assert isinstance(needed, int)
        assert n < needed <= 384


def test_long_sequence_numbers_shift_the_fields() -> None:
    header = parse(with_fields(f1="1234567"))
    assert (header.sequence, header.width) == (1234567, 256)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"f0": "MQ2"}, "not a MIB file"),
        ({"f0": "PR1"}, "profiles cannot be read"),
        ({"f1": "-00001"}, "sequence number cannot"),
        ({"f1": ""}, "sequence number cannot"),
        ({"f2": "00000"}, "impossible length"),
        ({"f2": "99999"}, "impossible length"),
        ({"f2": "003a4"}, "length of the header cannot"),
        ({"f2": "00020"}, "incomplete: found 5 fields"),
        ({"f3": "00"}, "number of chips cannot"),
        ({"f4": "0000"}, "width cannot"),
        ({"f5": "1e9"}, "height cannot"),
        ({"f5": "9" * 13}, "height cannot"),
        ({"f6": "U12"}, "unknown kind of pixels: found 'U12', expected U08"),
        ({"f6": "U01"}, "unknown kind of pixels: found 'U01', expected .*save integers of 8 bit"),
        ({"f7": "   ?x1"}, "unknown arrangement of chips"),
        ({"f53": "twelve"}, "counter depth cannot"),
    ],
)
def test_what_cannot_be_understood_is_named(fields: dict[str, str], problem: str) -> None:
    with pytest.raises(HeaderError, match=problem) as err:
        parse(with_fields(**fields))
    assert err.value.path == "x.mib"


@pytest.mark.parametrize("n_fields", range(1, 8))
def test_headers_that_end_too_early_are_refused(n_fields: int) -> None:
    text = b",".join(PUBLISHED.split(b",")[:n_fields])
    with pytest.raises(HeaderError, match=r"not a MIB file|incomplete|cannot be understood"):
        parse(text.ljust(384, b"\0"))


@settings(max_examples=200)
@given(st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(lambda tail: PUBLISHED[:42] + tail)))
def test_any_bytes_parse_or_raise_the_family(raw: bytes) -> None:
    try:
        header = parse_header(raw, path="x.mib")
    except HeaderError as err:
        assert "x.mib" in str(err)
    else:
        assert isinstance(header, MIBHeader) or len(raw) < header <= MAX_HEADER_BYTES


@settings(max_examples=200)
@given(st.data())
def test_damaged_headers_parse_or_raise_the_family(data: st.DataObject) -> None:
    raw = bytearray(PUBLISHED)
    for place in data.draw(st.lists(st.integers(0, 50), min_size=1, max_size=4)):
        raw[place] = data.draw(st.integers(0, 255))
    try:
        header = parse_header(bytes(raw), path="x.mib")
        if isinstance(header, MIBHeader):
            choose_encoding(header, path="x.mib")
    except DataSetException as err:
        assert "x.mib" in str(err)


# --- what the pixels are ---


@pytest.mark.parametrize(
    ("kind", "layout", "n_chips", "size"),
    [
        ("U08", "1x1", 1, (256, 256)),
        ("U16", "2x2", 4, (512, 64)),
        ("U32", "2x2G", 4, (514, 514)),
        ("U64", "Nx1G", 4, (1030, 256)),
        ("U16", "4x1", 4, (1024, 256)),
        ("U16", "2x2", 3, (512, 512)),
    ],
)
def test_integers_are_read_from_all_arrangements(
    kind: str, layout: str, n_chips: int, size: tuple[int, int]
) -> None:
    width, height = size
    raw = with_fields(f3=f"{n_chips:02d}", f4=f"{width:04d}", f5=f"{height:04d}", f6=kind, f7=layout)
    encoding = choose_encoding(parse(raw), path="x.mib")
    itemsize = int(kind[1:]) // 8
    assert encoding.dtype == np.dtype(f">u{itemsize}")
    assert encoding.sig_shape == (height, width)
    assert encoding.image_bytes == width * height * itemsize
    assert (encoding.is_raw, encoding.is_quad, encoding.counter_depth) == (False, False, 6)


def raw_header(depth: str, width: int, height: int = 256, n_chips: int = 1, layout: str = "1x1") -> MIBHeader:
    return parse(
        with_fields(f3=f"{n_chips:02d}", f4=f"{width:04d}", f5=f"{height:04d}", f7=layout, f53=depth)
    )


@pytest.mark.parametrize(
    ("header", "dtype", "sig_shape", "record_bytes"),
    [
        (raw_header("1", 256), "u1", (256, 256), 8576),
        (raw_header("6", 256), "u1", (256, 256), 65920),
        (raw_header("12", 256), "u2", (256, 256), 131456),
        (raw_header("24", 512), "u4", (256, 256), 262528),
        (raw_header("1", 256, 64), "u1", (64, 256), 2432),
        (raw_header("12", 256, 32, 1, "2x2"), "u2", (32, 256), 16768),
        (raw_header("1", 1024, 256, 4, "2x2"), "u1", (512, 512), 33152),
        (raw_header("6", 1024, 256, 4, "2x2"), "u1", (512, 512), 262528),
        (raw_header("12", 1024, 256, 4, "2x2G"), "u2", (512, 512), 524672),
        (raw_header("12", 1024, 64, 4, "2x2"), "u2", (128, 512), 131456),
    ],
)
def test_raw_pixels(header: MIBHeader, dtype: str, sig_shape: tuple[int, int], record_bytes: int) -> None:
    encoding = choose_encoding(header, path="x.mib")
    assert encoding.dtype == np.dtype(dtype)
    assert encoding.sig_shape == sig_shape
    assert encoding.is_raw
    assert encoding.image_bytes + header.header_bytes == record_bytes


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (raw_header("24", 1024, 256, 4, "2x2"), r"24 bit with more than one chip .* found R64, layout 2x2"),
        (raw_header("12", 1024, 256, 4, "Nx1"), "arrangement of chips .* found R64, layout 4x1, 4 chip"),
        (raw_header("12", 512, 256, 2, "2x2"), "arrangement of chips .* 2 chip"),
        (raw_header("12", 1024, 256, 4, "1x1"), "arrangement of chips"),
        (raw_header("8", 256), "counter depth .* 8 bit"),
        (raw_header("1", 100), "width does not fit .* multiple of 64"),
        (raw_header("12", 1026, 256, 4, "2x2"), "width does not fit .* multiple of 16"),
        (raw_header("24", 260, 256), "width does not fit .* multiple of 8"),
    ],
)
def test_raw_pixels_that_cannot_be_read_are_named(header: MIBHeader, problem: str) -> None:
    with pytest.raises(DataSetException, match=f"x.mib: .*{problem}"):
        choose_encoding(header, path="x.mib")


def test_the_counter_depth_may_come_from_elsewhere() -> None:
    integers = parse(make_header(MIBSpec("U16", has_extension=False), (64, 64)))
    assert choose_encoding(integers, path="x.mib").counter_depth == 16
    assert choose_encoding(integers, path="x.mib", counter_depth=12).counter_depth == 12
    raw = parse(make_header(MIBSpec("R64", 12, has_extension=False), (64, 64)))
    assert choose_encoding(raw, path="x.mib", counter_depth=12).dtype == np.uint16
    with pytest.raises(DataSetException, match=r"bits per pixel .* not known.*Counter Depth"):
        choose_encoding(raw, path="x.mib")


def test_the_header_outranks_other_sources() -> None:
    assert choose_encoding(parse(PUBLISHED), path="x.mib", counter_depth=12).counter_depth == 6
