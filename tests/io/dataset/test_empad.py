from __future__ import annotations

import json
import os
import pickle
import re
import tracemalloc
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
from libertem.io.dataset.empad import EMPADDataSet, get_params_from_xml, parse_header
from libertem.testing.writers.empad import write_empad

EXECUTOR = InlineJobExecutor(debug=True)
BACKENDS = ["mmap", "buffered", "direct"]
FRAME_BYTES = 66560
SERIES_XML = (
    '<root name="t"><type>series</type><count>{count}</count>'
    '<raw_file filename="series_x{count}.raw"/></root>'
)


def load_empad(path: Path, **kwargs: Any) -> Any:
    return load("empad", path=path, executor=EXECUTOR, **kwargs)


def read(ds: Any) -> npt.NDArray[Any]:
    """All frames, blanks as zeros, put together from the partitions."""
    out = np.zeros((ds.shape.nav.size, *ds.shape.sig), dtype="f4")
    for partition in ds.get_partitions():
        tile = partition.get_macrotile()
        start = tile.tile_slice.origin[0]
        out[start : start + tile.shape[0]] = tile.data
    return out.reshape(tuple(ds.shape))


def make_frames(n: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(5).normal(size=(n, 128, 128)).astype("f4")


def block(mode: str, nav_shape: Any) -> str:
    height, width = nav_shape
    return (
        f'<scan_parameters mode="{mode}"><scan_resolution_x>{width}</scan_resolution_x>'
        f"<scan_resolution_y>{height}</scan_resolution_y></scan_parameters>"
    )


def scan_xml(
    acquire: Any = None,
    search: Any = None,
    pix: Any = None,
    name: str = "frames.raw",
    series_count: Any = None,
    more: str = "",
) -> str:
    parts = [f'<root name="t"><raw_file filename="{name}"/>', more]
    parts += [block("search", search)] if search else []
    parts += [block("acquire", acquire)] if acquire else []
    parts += [f"<pix_y>{pix[0]}</pix_y><pix_x>{pix[1]}</pix_x>"] if pix else []
    if series_count is not None:
        parts += [f"<scan_parameters><series_count>{series_count}</series_count></scan_parameters>"]
    return "".join([*parts, "</root>"])


def write_pair(folder: Path, xml: str, n_bytes: int, raw_name: str = "frames.raw") -> Path:
    """An XML file, and a raw file of zeros that takes no space."""
    (folder / raw_name).touch()
    os.truncate(folder / raw_name, n_bytes)
    (folder / "a.xml").write_text(xml)
    return folder / "a.xml"


# --- content ---


@pytest.mark.parametrize("backend", BACKENDS)
def test_frames_are_read_without_their_footers(backend: str, tmp_path: Path) -> None:
    frames = make_frames(6)
    ds = load_empad(write_empad(tmp_path, [frames], (2, 3)), io_backend=backend)
    assert tuple(ds.shape) == (2, 3, 128, 128)
    assert ds.dtype == np.dtype("f4")
    np.testing.assert_array_equal(read(ds), frames.reshape(2, 3, 128, 128))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("xml", "shape"),
    [(scan_xml((1, 2), (1, 2)), (1, 2, 128, 128)), (SERIES_XML.format(count=2), (2, 128, 128))],
)
def test_the_worked_example(xml: str, shape: tuple[int, ...], backend: str, tmp_path: Path) -> None:
    raw_name = "frames.raw" if len(shape) == 4 else "series_x2.raw"
    path = write_pair(tmp_path, xml, 2 * FRAME_BYTES, raw_name)
    with (tmp_path / raw_name).open("r+b") as file:
        for offset, pixel in (
            (0, "00 00 c0 3f"),
            (65532, "00 00 20 40"),
            (65536, "00 00 10 c1"),
            (66564, "00 00 60 40"),
        ):
            file.seek(offset)
            file.write(bytes.fromhex(pixel))
    ds = load_empad(path, io_backend=backend)
    expected = np.zeros((2, 128, 128), dtype="f4")
    expected[0, 0, 0], expected[0, 127, 127], expected[1, 0, 1] = 1.5, 2.5, 3.5
    np.testing.assert_array_equal(read(ds), expected.reshape(shape))


def test_nan_and_negative_pixels_pass_unchanged(tmp_path: Path) -> None:
    frames = make_frames(1)
    frames[0, 3, :4] = np.nan, -np.inf, -1e30, -0.0
    read_back = read(load_empad(write_empad(tmp_path, [frames], (1, 1))))
    np.testing.assert_array_equal(read_back.view("u4"), frames[np.newaxis].view("u4"))


# --- which shape is right ---


@pytest.mark.parametrize(
    ("xml", "n_frames", "nav_shape", "source"),
    [
        (scan_xml((2, 3), (4, 5)), 6, (2, 3), "acquire"),
        (scan_xml((4, 5), (2, 3)), 6, (2, 3), "search"),
        (scan_xml(None, (2, 3)), 6, (2, 3), "search"),
        (scan_xml((9, 9), (8, 8), pix=(2, 3)), 6, (2, 3), "pix_x and pix_y"),
        (scan_xml((9, 9), name="scan_x3_y2.raw"), 6, (2, 3), "raw file name"),
        (scan_xml(name="scan_11_x3_y2.raw"), 6, (2, 3), "raw file name"),
        (scan_xml(name="series_x6.raw"), 6, (6,), "raw file name"),
        (scan_xml(series_count=6), 6, (6,), "series_count"),
        (SERIES_XML.format(count=6), 6, (6,), "count"),
        (scan_xml((2, 3), more="<type>scan</type>"), 6, (2, 3), "acquire"),
        (scan_xml(("nan", -3), (2, 3)), 6, (2, 3), "search"),
    ],
)
def test_the_size_of_the_raw_file_decides(
    xml: str, n_frames: int, nav_shape: tuple[int, ...], source: str, tmp_path: Path
) -> None:
    raw_name = parse_header(xml.encode(), path="a.xml").raw_name
    path = write_pair(tmp_path, xml, n_frames * FRAME_BYTES, raw_name)
    ds = load_empad(path)
    assert ds.shape.nav.to_tuple() == nav_shape
    assert {"name": "Scan shape taken from", "value": source} in ds.diagnostics


@pytest.mark.parametrize("n_bytes", [0, 5 * FRAME_BYTES, 6 * FRAME_BYTES - 1, 6 * FRAME_BYTES + 1])
def test_a_size_that_fits_nothing_is_refused_with_all_sizes(n_bytes: int, tmp_path: Path) -> None:
    path = write_pair(tmp_path, scan_xml((128, 17), (256, 256)), n_bytes)
    with pytest.raises(SizeMismatchError, match=r"a\.xml: .*pass nav_shape") as info:
        load_empad(path)
    sentence = str(info.value)
    sizes = (f"found {n_bytes} bytes", "144834560 bytes for (128, 17)", "4362076160 bytes for (256, 256)")
    assert all(text in sentence for text in sizes)
    assert isinstance(info.value, ValueError)
    assert EMPADDataSet.detect_params(str(path), EXECUTOR) is False


def test_a_series_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = write_pair(tmp_path, SERIES_XML.format(count=2), 3 * FRAME_BYTES, "series_x2.raw")
    with pytest.raises(ValueError, match=r"\(2,\)"):
        load_empad(path)


def test_data_of_the_second_generation_is_pointed_out(tmp_path: Path) -> None:
    path = write_pair(tmp_path, scan_xml((2, 2)), 4 * 65536)
    with pytest.raises(SizeMismatchError, match="second generation"):
        load_empad(path)


def test_absurd_claims_cost_nothing(tmp_path: Path) -> None:
    path = write_pair(tmp_path, scan_xml((10**6, 10**6)), FRAME_BYTES)
    tracemalloc.start()
    with pytest.raises(SizeMismatchError, match="66560000000000000 bytes"):
        load_empad(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6


# --- the raw file ---


@pytest.mark.parametrize("stored", ["/home/empad/x/frames.raw", r"C:\data\frames.raw", r"x/y\frames.raw"])
def test_folders_in_the_stored_name_do_not_count(stored: str, tmp_path: Path) -> None:
    path = write_pair(tmp_path, scan_xml((1, 2), name=stored), 2 * FRAME_BYTES)
    assert tuple(load_empad(path).shape) == (1, 2, 128, 128)


def test_a_missing_raw_file_is_named(tmp_path: Path) -> None:
    path = write_empad(tmp_path, [make_frames(1)], (1, 1))
    raw = tmp_path / "scan_x1_y1.raw"
    raw.rename(tmp_path / "other.raw")
    with pytest.raises(MissingFileError, match=rf"^could not open file {re.escape(str(raw))}: .*renamed"):
        load_empad(path)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("n_bytes", "nav_shape"),
    [
        (4 * FRAME_BYTES, (2, 2)),
        (4 * FRAME_BYTES, (3,)),
        (4 * FRAME_BYTES, (2, 3)),
        (4 * FRAME_BYTES + 7, (2, 2)),
        (5 * FRAME_BYTES - 1, (2, 2)),
        (5 * FRAME_BYTES - 1024, (4,)),
    ],
)
def test_a_raw_file_is_read_as_far_as_it_has_whole_frames(
    n_bytes: int, nav_shape: tuple[int, ...], backend: str, tmp_path: Path
) -> None:
    frames = make_frames(5)
    write_empad(tmp_path, [frames], (1, 5))
    path = tmp_path / "scan_x5_y1.raw"
    os.truncate(path, n_bytes)
    path = path.rename(tmp_path / "upper.RAW")
    ds = load_empad(path, nav_shape=nav_shape, io_backend=backend)
    n = int(np.prod(nav_shape))
    expected = np.zeros((n, 128, 128), dtype="f4")
    expected[: min(n, 4)] = frames[: min(n, 4)]
    np.testing.assert_array_equal(read(ds), expected.reshape(*nav_shape, 128, 128))
    assert ds.meta.image_count == 4


@pytest.mark.parametrize(
    ("n_bytes", "kwargs", "message"),
    [
        (FRAME_BYTES, {}, "need to set or detect nav_shape!"),
        (0, {"nav_shape": (1,)}, "contains no frames"),
        (FRAME_BYTES - 1024, {"nav_shape": (1,)}, "contains no frames"),
        (FRAME_BYTES, {"nav_shape": (1,), "sig_shape": (128, 127)}, "sig_shape must be of size: 16384"),
        (FRAME_BYTES, {"nav_shape": (1, -2)}, "nav_shape has to consist of positive"),
        (FRAME_BYTES, {"nav_shape": (float("nan"),)}, "nav_shape has to consist of positive"),
        (
            2 * FRAME_BYTES,
            {"nav_shape": (2,), "sync_offset": 2},
            r"sync_offset should be in \(-2, 2\), which",
        ),
    ],
)
def test_raw_files_and_parameters_that_do_not_fit_are_refused(
    n_bytes: int, kwargs: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.raw"
    path.touch()
    os.truncate(path, n_bytes)
    with pytest.raises(DataSetException, match=rf"x\.raw: .*{message}"):
        load_empad(path, **kwargs)


# --- the XML file ---


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("", "not a well-formed XML file"),
        ("<root><raw_file", "not a well-formed XML file"),
        ("\x93NUMPY", "not a well-formed XML file"),
        ('<?xml version="1.0" encoding="utf-99"?><root/>', "not a well-formed XML file"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><root>&b;</root>', "not a well-formed XML file"),
        ("<html/>", "does not name a raw file: found root element 'html'"),
        ('<root><raw_file filename="/data/"/></root>', "does not name a raw file"),
        ('<root><raw_file filename=".."/></root>', "does not name a raw file"),
        (scan_xml((1, 1), more="<type>movie</type>"), "unknown type of acquisition: found 'movie'"),
        (scan_xml(), "no scan shape in the XML file"),
        (scan_xml(("nan", 1)), "no scan shape in the XML file"),
        (scan_xml((-1, 1)), "no scan shape in the XML file"),
        (scan_xml((0, 1)), "no scan shape in the XML file"),
        (scan_xml(("9" * 5000, 1)), "no scan shape in the XML file"),
        (SERIES_XML.format(count="x"), "no scan shape in the XML file"),
    ],
)
def test_other_xml_files_are_refused(xml: str, message: str, tmp_path: Path) -> None:
    path = write_pair(tmp_path, xml, FRAME_BYTES)
    with pytest.raises(HeaderError, match=rf"a\.xml: could not initialize EMPAD file; error: .*{message}"):
        load_empad(path)
    assert EMPADDataSet.detect_params(str(path), EXECUTOR) is False


def test_a_missing_xml_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no\.xml: could not initialize EMPAD file; error: "):
        load_empad(tmp_path / "no.xml")


def test_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.xml").mkdir()
    with pytest.raises(DataSetException, match="found a directory"):
        load_empad(tmp_path / "a.xml")


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="permissions do not bind this user")
@pytest.mark.parametrize("name", ["acquisition_1.xml", "scan_x1_y1.raw"])
def test_a_file_without_permission_is_refused(name: str, tmp_path: Path) -> None:
    path = write_empad(tmp_path, [make_frames(1)], (1, 1))
    (tmp_path / name).chmod(0)
    with pytest.raises(PermissionError, match=name):
        load_empad(path)


def test_entities_are_not_expanded() -> None:
    lines = ['<!ENTITY a0 "aaaaaaaaaa">']
    lines += [f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10)]
    xml = f"<!DOCTYPE root [{''.join(lines)}]><root>&a9;</root>"
    with pytest.raises(HeaderError, match="not a well-formed XML file"):
        parse_header(xml.encode(), path="a.xml")


def test_a_huge_xml_file_is_not_read(tmp_path: Path) -> None:
    path = write_pair(tmp_path, scan_xml((1, 1)), FRAME_BYTES)
    os.truncate(path, 1 << 40)
    before = io_counts()
    with pytest.raises(HeaderError, match="the XML file is too long: found 1099511627776 bytes"):
        load_empad(path)
    assert (io_counts() - before).read_bytes <= 1 << 20


def test_deep_nesting_is_harmless() -> None:
    depth = 50_000
    xml = "<root>" * depth + "</root>" * depth
    with pytest.raises(HeaderError, match="does not name a raw file"):
        parse_header(xml.encode(), path="a.xml")


@given(
    st.binary(max_size=200)
    | st.lists(
        st.sampled_from(
            [
                "<root>",
                "</root>",
                '<raw_file filename="',
                '"/>',
                "<type>",
                "</type>",
                "scan",
                "<scan_parameters>",
                "</scan_parameters>",
                "<count>7</count>",
                "&amp;",
                "&x;",
                "<!DOCTYPE a>",
                "\0",
                "<?xml version='1.0' encoding='utf-16'?>",
            ]
        )
    ).map(lambda parts: "".join(parts).encode())
)
def test_any_bytes_parse_or_raise_the_family(raw: bytes) -> None:
    try:
        header = parse_header(raw, path="a.xml")
    except HeaderError:
        return
    assert header.candidates


# --- parameters ---


def test_nav_shape_overrides_the_xml_file(tmp_path: Path) -> None:
    frames = make_frames(6)
    path = write_empad(tmp_path, [frames], (2, 3))
    ds = load_empad(path, nav_shape=(2, 2))
    assert ds.meta.image_count == 6
    np.testing.assert_array_equal(read(ds), frames[:4].reshape(2, 2, 128, 128))
    np.testing.assert_array_equal(read(load_empad(path, nav_shape=(8,)))[6:], 0)


@pytest.mark.parametrize("sig_shape", [(16384,), (128, 8, 16), (64, 256)])
def test_frames_can_be_given_another_shape(sig_shape: tuple[int, ...], tmp_path: Path) -> None:
    frames = make_frames(2)
    ds = load_empad(write_empad(tmp_path, [frames], (1, 2)), sig_shape=sig_shape)
    np.testing.assert_array_equal(read(ds), frames.reshape(1, 2, *sig_shape))


@pytest.mark.parametrize("sync_offset", [-2, 1])
def test_the_sync_offset_shifts_the_scan(sync_offset: int, tmp_path: Path) -> None:
    frames = make_frames(4)
    ds = load_empad(write_empad(tmp_path, [frames], (2, 2)), sync_offset=sync_offset)
    blanks = np.zeros((abs(sync_offset), 128, 128), dtype="f4")
    expected = [*frames[1:], *blanks] if sync_offset > 0 else [*blanks, *frames[:-2]]
    np.testing.assert_array_equal(read(ds).reshape(4, 128, 128), expected)


def test_scan_size_is_an_old_name_of_nav_shape(tmp_path: Path) -> None:
    path = write_empad(tmp_path, [make_frames(2)], (1, 2))
    with pytest.warns(FutureWarning, match="scan_size"):
        ds = load_empad(path, scan_size=(2,))
    assert tuple(ds.shape) == (2, 128, 128)
    with pytest.warns(FutureWarning), pytest.raises(ValueError, match="both scan_size and nav_shape"):
        load_empad(path, scan_size=(2,), nav_shape=(2,))


@pytest.mark.parametrize("name", ["a.txt", "a", "xml"])
def test_other_extensions_are_refused_by_the_constructor(name: str) -> None:
    with pytest.raises(DataSetException, match=r"path should either be \.xml or \.raw"):
        EMPADDataSet(name)


def test_wrong_types_of_shapes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        EMPADDataSet("a.raw", nav_shape=4)
    with pytest.raises(TypeError):
        EMPADDataSet(5, nav_shape=(4,))
    with pytest.raises(ShapeError):
        EMPADDataSet("a.raw", nav_shape=())


# --- detection and facts ---


def test_detection_needs_both_files(tmp_path: Path) -> None:
    path = str(write_empad(tmp_path, [make_frames(6)], (2, 3)))
    before = io_counts()
    assert EMPADDataSet.detect_params(path, EXECUTOR) == {
        "parameters": {"path": path, "nav_shape": (2, 3), "sig_shape": (128, 128)},
        "info": {"image_count": 6, "native_sig_shape": (128, 128)},
    }
    assert (io_counts() - before).read_bytes <= PROBE_BYTES
    (tmp_path / "scan_x3_y2.raw").unlink()
    assert EMPADDataSet.detect_params(path, EXECUTOR) is False


def test_detection_of_a_series_gives_one_axis(tmp_path: Path) -> None:
    path = write_pair(tmp_path, SERIES_XML.format(count=4), 4 * FRAME_BYTES, "series_x4.raw")
    params = EMPADDataSet.detect_params(path, EXECUTOR)
    assert isinstance(params, dict)
    assert params["parameters"]["nav_shape"] == (4,)


def test_detection_says_no_to_raw_files(tmp_path: Path) -> None:
    write_empad(tmp_path, [make_frames(1)], (1, 1))
    assert EMPADDataSet.detect_params(str(tmp_path / "scan_x1_y1.raw"), EXECUTOR) is False


@pytest.mark.parametrize("path", ["no.xml", "no.txt", 555, None, "a\0.xml", np.zeros(3)])
def test_detection_says_no_to_what_is_no_file(path: Any) -> None:
    assert EMPADDataSet.detect_params(path, EXECUTOR) is False


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.binary(max_size=300))
def test_detection_says_no_to_noise(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.xml"
    path.write_bytes(content)
    assert EMPADDataSet.detect_params(str(path), EXECUTOR) is False


def test_the_xml_file_alone_gives_path_and_shape(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(SERIES_XML.format(count=1000))
    assert get_params_from_xml(str(path)) == (str(tmp_path / "series_x1000.raw"), (1000,))
    path.write_text(scan_xml((2, 3), (4, 5)))
    assert get_params_from_xml(str(path))[1] == (2, 3)
    assert get_params_from_xml(str(path), "search")[1] == (4, 5)
    path.write_text(scan_xml((2, 3)))
    with pytest.raises(HeaderError, match="expected search"):
        get_params_from_xml(str(path), "search")


def test_facts_of_a_data_set(tmp_path: Path) -> None:
    path = write_empad(tmp_path, [make_frames(2)], (1, 2))
    ds = load_empad(path)
    assert repr(ds) == "<EMPADFileDataSet of float32 shape=(1, 2, 128, 128)>"
    assert json.loads(json.dumps(ds.get_cache_key())) == {
        "path_raw": str(tmp_path / "scan_x2_y1.raw"),
        "shape": [1, 2, 128, 128],
        "sync_offset": 0,
    }
    assert {"name": "Software version", "value": "1.2.2"} in ds.diagnostics
    assert ds.get_supported_extensions() == {"xml", "raw"}
    dumped = pickle.dumps(ds)
    assert len(dumped) < 2048
    np.testing.assert_array_equal(read(pickle.loads(dumped)), read(ds))


def test_json_parameters_become_arguments() -> None:
    converter = EMPADDataSet.get_msg_converter()()
    assert converter.to_python({"type": "EMPAD", "path": "a.xml"}) == {"path": "a.xml"}
