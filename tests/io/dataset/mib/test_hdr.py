from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libertem.exceptions import HeaderError, ShapeError
from libertem.io.dataset.mib import is_valid_hdr
from libertem.io.dataset.mib.hdr import AcquisitionHeader, parse_hdr
from libertem.testing.writers.mib import make_hdr


def parse(raw: bytes) -> AcquisitionHeader:
    return parse_hdr(raw, path="x.hdr")


@pytest.mark.parametrize("line_end", ["\r\n", "\n"])
def test_numbers_are_found(line_end: str) -> None:
    header = parse(make_hdr(65536, 256, scan=(28, 20), depth=6, line_end=line_end))
    assert header == AcquisitionHeader(
        scan_shape=(20, 28),
        frames=65536,
        frames_per_trigger=256,
        counter_depth=6,
        software_version="0.77.0.16",
    )


def test_the_first_version_of_the_format_had_no_tabs() -> None:
    header = parse(b"HDR,\nFrames in Acquisition (Number): 8 \nFrames per Trigger (Number):4\nno colon\n")
    assert (header.frames, header.frames_per_trigger) == (8, 4)


@pytest.mark.parametrize(
    ("frames", "per_trigger", "scan", "expected"),
    [
        (65536, 256, None, (256, 256)),
        (8, 1, None, (8, 1)),
        (9, 9, None, (1, 9)),
        (7, 3, None, (2, 3)),
        (560, 1, (28, 20), (20, 28)),
        (560, 0, (28, 20), (20, 28)),
        (None, None, (28, 20), (20, 28)),
        (9, 0, None, (5,)),
        (0, 4, None, (5,)),
        (0, 0, None, (5,)),
        (3, 4, None, (5,)),
        (8, 4, (0, 20), (2, 4)),
    ],
)
def test_shape_of_the_scan(
    frames: int | None, per_trigger: int | None, scan: tuple[int, int] | None, expected: tuple[int, ...]
) -> None:
    header = parse(make_hdr(frames, per_trigger, scan=scan))
    assert header.nav_shape(5, path="x.hdr") == expected


@pytest.mark.parametrize(("frames", "per_trigger"), [(None, 4), (8, None), ("many", 4), ("9" * 10, 1)])
def test_missing_numbers_have_to_be_given_by_the_user(
    frames: int | str | None, per_trigger: int | None
) -> None:
    with pytest.raises(ShapeError, match=r"x.hdr: .* shape of the scan.*pass nav_shape"):
        parse(make_hdr(frames, per_trigger)).nav_shape(5, path="x.hdr")


def test_absurd_numbers_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"x.hdr: .* absurd .* found \(999999999, 999999999\)"):
        parse(make_hdr(1, 1, scan=(999999999, 999999999))).nav_shape(5, path="x.hdr")


@pytest.mark.parametrize("raw", [b"", b"HD", b"[measurementInfo]\n", b"\0HDR", b"hdr,\t\r\n"])
def test_other_files_are_refused(raw: bytes, tmp_path: Path) -> None:
    with pytest.raises(HeaderError, match=r"x.hdr: not an .hdr file of a Merlin detector: found"):
        parse(raw)
    (tmp_path / "x.hdr").write_bytes(raw)
    assert is_valid_hdr(str(tmp_path / "x.hdr")) is False


def test_own_files_are_recognized(tmp_path: Path) -> None:
    (tmp_path / "x.hdr").write_bytes(make_hdr(1, 1))
    assert is_valid_hdr(str(tmp_path / "x.hdr")) is True
    assert is_valid_hdr(str(tmp_path / "y.hdr")) is False
    assert is_valid_hdr(tmp_path) is False


@given(st.binary(max_size=300))
def test_any_bytes_parse_or_raise_the_family(raw: bytes) -> None:
    for content in (raw, b"HDR" + raw, make_hdr(4, 2)[:300] + raw):
        try:
            assert isinstance(parse(content), AcquisitionHeader)
        except HeaderError as err:
            assert "x.hdr" in str(err)
