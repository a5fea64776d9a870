from __future__ import annotations

import math
import struct
import time
import tracemalloc
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from libertem.exceptions import DataSetException, HeaderError
from libertem.io.headers.dm import DMArray, DMTags, parse_tags, parser, tags_to_dict
from libertem.io.headers.dm.images import DMImage, parse_images
from libertem.io.headers.dm.parser import AHEAD_BYTES, WINDOW_BYTES
from libertem.testing.writers.dm import (
    Data,
    Group,
    Tree,
    array,
    image_tags,
    make_dm,
    number,
    string,
    struct_array,
    structure,
    text,
    thumbnail_tags,
)

VERSIONS = pytest.mark.parametrize("version", [3, 4])

# The worked example of the fact sheet, byte by byte.
GOLDEN_DM3 = bytes.fromhex(
    "00000003 0000018d 00000001 010000000001"
    f"140009{b'ImageList'.hex()} 0000 00000001 140000 0100 00000002"
    f"140009{b'ImageData'.hex()} 0100 00000004"
    f"14000c{b'Calibrations'.hex()} 0100 00000001"
    f"140009{b'Dimension'.hex()} 0000 00000001 140000 0100 00000001"
    f"150005{b'Scale'.hex()} 25252525 00000001 00000006 0000803f"
    f"150004{b'Data'.hex()} 25252525 00000003 00000014 0000000a 0000000c 000102030405060708090a0b"
    f"150008{b'DataType'.hex()} 25252525 00000001 00000005 06000000"
    f"14000a{b'Dimensions'.hex()} 0000 00000004"
    + "".join(f"150000 25252525 00000001 00000005 {extent:02x}000000" for extent in (3, 2, 2, 1))
    + f"140009{b'ImageTags'.hex()} 0100 00000001 140009{b'Meta Data'.hex()} 0100 00000002"
    f"150012{b'Data Order Swapped'.hex()} 25252525 00000001 00000008 01"
    f"150006{b'Format'.hex()} 25252525 00000003 00000014 00000004 00000005 49006d00610067006500"
    "0000000000000000"
)
GOLDEN_TREE: Tree = {
    "ImageList": [
        {
            "ImageData": {
                "Calibrations": {"Dimension": [{"Scale": number(6, 1)}]},
                "Data": array(10, np.arange(12)),
                "DataType": number(5, 6),
                "Dimensions": [number(5, extent) for extent in (3, 2, 2, 1)],
            },
            "ImageTags": {"Meta Data": {"Data Order Swapped": number(8, 1), "Format": text("Image")}},
        }
    ]
}
GTG = bytes.fromhex(
    "00000003 0000004e 00000001 000000000001"
    f"14000d{b'SI Dimensions'.hex()} 0000 00000002"
    f"150006{b'Size X'.hex()} 25252525 00000001 00000005 03000000"
    f"150006{b'Size Y'.hex()} 25252525 00000001 00000005 02000000"
    "0000000000000000"
)


def parse(raw: bytes, **kwargs: Any) -> DMTags:
    def read(offset: int, n_bytes: int) -> bytes:
        assert 0 <= offset <= offset + n_bytes <= len(raw)
        return raw[offset : offset + n_bytes]

    return parse_tags(read, len(raw), path="x.dm4", **kwargs)


def images_of(raw: bytes) -> tuple[DMImage, ...]:
    return parse_images(lambda offset, n: raw[offset : offset + n], len(raw), path="x.dm4")


# --- worked examples ---


def test_the_worked_example_of_version_3_is_read() -> None:
    assert len(GOLDEN_DM3) == 413
    tags = parse(GOLDEN_DM3)
    assert (tags.version, tags.byte_order) == (3, "<")
    assert tags.get_array("ImageList.0.ImageData.Data") == DMArray(162, np.dtype("u1"), 12, bytes(range(12)))
    assert [tags.get(f"ImageList.0.ImageData.Dimensions.{i}") for i in range(4)] == [3, 2, 2, 1]
    assert tags.get("ImageList.0.ImageTags.Meta Data.Data Order Swapped") is True
    assert tags.get("ImageList.0.ImageTags.Meta Data.Format") == "Image"
    assert tags.get("ImageList.0.ImageData.Calibrations.Dimension.0.Scale") == 1.0


def test_the_writer_makes_the_worked_example() -> None:
    assert make_dm(GOLDEN_TREE, version=3) == GOLDEN_DM3


def test_the_writer_makes_the_worked_example_of_version_4() -> None:
    raw = make_dm(GOLDEN_TREE, version=4)
    assert len(raw) == 689
    for offset, expected in {
        0: "00000004 0000000000000299 00000001 0100 0000000000000001",
        26: f"140009{b'ImageList'.hex()} 000000000000027b 0000 0000000000000001",
        56: "140000 0000000000000266",
        77: f"140009{b'ImageData'.hex()} 000000000000019b",
        191: f"150005{b'Scale'.hex()} 0000000000000018",
        231: f"150004{b'Data'.hex()} 0000000000000030 25252525",
        250: "0000000000000003 0000000000000014 000000000000000a 000000000000000c",
        282: "000102030405060708090a0b",
        337: f"14000a{b'Dimensions'.hex()} 0000000000000096",
        508: f"140009{b'ImageTags'.hex()} 0000000000000099",
        568: f"150012{b'Data Order Swapped'.hex()} 0000000000000015",
        617: "01",
        681: "0000000000000000",
    }.items():
        wanted = bytes.fromhex(expected)
        assert raw[offset : offset + len(wanted)] == wanted, offset
    assert dict(parse(raw)) == {
        **dict(parse(GOLDEN_DM3)),
        ("ImageList", "0", "ImageData", "Data"): DMArray(282, np.dtype("u1"), 12, bytes(range(12))),
    }


def test_a_gtg_file_tells_the_size_of_the_scan() -> None:
    tags = parse(GTG)
    assert (tags.get("SI Dimensions.Size Y"), tags.get("SI Dimensions.Size X")) == (2, 3)
    assert tags.get("SI Dimensions.Size Z") is None


# --- values ---


@VERSIONS
@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_values_of_all_kinds_are_read(version: int, byte_order: Literal["<", ">"]) -> None:
    numbers: dict[str, tuple[int, float]] = {
        "int16": (2, -2),
        "int32": (3, -70000),
        "uint16": (4, 65535),
        "uint32": (5, 2**32 - 1),
        "float32": (6, math.inf),
        "float64": (7, 0.1),
        "int8": (9, -1),
        "uint8": (10, 255),
        "int64": (11, -(2**40)),
        "uint64": (12, 2**64 - 1),
    }
    tree: dict[str, Tree] = {name: number(*value) for name, value in numbers.items()}
    tree["true"], tree["false"] = number(8, 1), number(8, 0)
    tree["struct"] = structure((2, 7, 8), (-3, 2.5, 1))
    tree["text"], tree["no text"], tree["string"] = text("µm, 5 \u212b"), text(""), string("5 µm")
    tags = parse(make_dm(tree, version=version, byte_order=byte_order))
    assert {name: tags.get(name) for name in numbers} == {name: v for name, (_, v) in numbers.items()}
    assert tags.get("true") is True
    assert tags.get("false") is False
    assert tags.get("struct") == (-3, 2.5, True)
    assert [tags.get(name) for name in ("text", "no text", "string")] == ["µm, 5 \u212b", "", "5 µm"]
    assert tags.byte_order == byte_order


@VERSIONS
@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_arrays_are_located(version: int, byte_order: Literal["<", ">"]) -> None:
    values = np.arange(700, dtype="i2")
    pairs = np.arange(6, dtype="f4")
    table = Data((20, 20, 3, 4, 5), np.arange(20, dtype="i4"))
    names = Data((20, 18, 3, 2), np.frombuffer(b"abcdef", dtype="u1"))
    tree: Tree = {
        "large": array(2, values),
        "small": array(11, [1, 2]),
        "pairs": struct_array((6, 6), pairs),
        "table": table,
        "names": names,
        "end": number(5, 7),
    }
    raw = make_dm(tree, version=version, byte_order=byte_order)
    tags = parse(raw)
    expected = {
        "large": (values, 700, byte_order + "i2"),
        "small": (np.array([1, 2], dtype="i8"), 2, byte_order + "i8"),
        "pairs": (pairs, 3, [("f0", byte_order + "f4"), ("f1", byte_order + "f4")]),
        "table": (table.values, 20, byte_order + "i4"),
        "names": (names.values, 6, "u1"),
    }
    for name, (stored, count, dtype) in expected.items():
        found = tags.get_array(name)
        assert found is not None
        assert (found.count, found.dtype) == (count, np.dtype(dtype))
        content = raw[found.offset : found.offset + found.nbytes]
        assert content == stored.astype(stored.dtype.newbyteorder(byte_order)).tobytes()
        assert found.raw == (None if name == "large" else content)
    assert tags.get("large") == tags.get_array("large")
    assert tags.get("end") == 7


def test_a_small_array_can_be_located_even_if_it_looks_like_text() -> None:
    tags = parse(make_dm({"Data": array(4, [65, 66])}))
    assert tags.get("Data") == "AB"
    found = tags.get_array("Data")
    assert found is not None
    assert (found.dtype, found.count) == (np.dtype("u2"), 2)


# --- paths ---


def test_names_with_dots_are_found_as_tuples() -> None:
    tags = parse(make_dm({"a.b": {"c": number(5, 1)}, "a": {"b.c": number(5, 2)}}))
    assert tags.get(("a.b", "c")) == 1
    assert tags.get(("a", "b.c")) == 2
    assert tags.get("a.b.c") is None


def test_unnamed_entries_are_numbered_in_their_group() -> None:
    numbers = [number(5, i) for i in range(300)]
    tags = parse(make_dm({"list": numbers, "mixed": Group([("x", number(5, 9)), ("", number(5, 8))])}))
    assert [tags.get(f"list.{i}") for i in range(300)] == list(range(300))
    assert tags.get("mixed.0") == 8
    assert tags.names("mixed") == ("x", "0")


def test_the_first_of_two_entries_with_the_same_name_counts() -> None:
    tree = Group([("a", number(5, 1)), ("a", number(5, 2)), ("b", {"c": number(5, 3)}), ("b", number(5, 4))])
    tags = parse(make_dm(tree))
    assert dict(tags) == {("a",): 1, ("b", "c"): 3}


def test_what_is_no_value_is_none() -> None:
    tags = parse(make_dm({"a": {"b": number(5, 1)}}))
    assert tags.get("a") is None
    assert tags.get("a.b.c") is None
    assert tags.get("") is None
    assert tags.get_array("a.b") is None
    assert tags.names("a.b") == tags.names("x") == ()
    assert tags.names() == ("a",)


@VERSIONS
def test_only_groups_of_interest_are_kept(version: int) -> None:
    tree: Tree = {"a": {"b": {"c": number(5, 1)}, "d": number(5, 2)}, "e": {"f": number(5, 3)}}
    tags = parse(make_dm(tree, version=version), keep=lambda names: names == ("a",))
    assert dict(tags) == {("a", "d"): 2}
    assert tags.names("a") == ("b", "d")


# --- cost ---


@VERSIONS
def test_pixels_are_not_read(version: int) -> None:
    raw = make_dm(
        {"ImageList": [image_tags(np.zeros((100, 1000), dtype="i4")) for _ in range(3)]}, version=version
    )
    counts = []

    def read(offset: int, n_bytes: int) -> bytes:
        counts.append(n_bytes)
        return raw[offset : offset + n_bytes]

    images = parse_images(read, len(raw), path="x.dm3")
    assert [image.dims for image in images] == [(1000, 100)] * 3
    assert len(counts) <= 4
    assert sum(counts) <= 4 * WINDOW_BYTES


@VERSIONS
@pytest.mark.parametrize("length", [AHEAD_BYTES - 1, WINDOW_BYTES, 65535])
def test_names_may_be_longer_than_what_is_read_at_a_time(version: int, length: int) -> None:
    tree: Tree = {"x" * length: {"y": number(5, 1)}, "z" * length: number(5, 2)}
    tags = parse(make_dm(tree, version=version))
    assert tags.get(("x" * length, "y")) == 1
    assert tags.get("z" * length) == 2


# --- damage ---


def nested(depth: int) -> Tree:
    tree: Tree = {"value": number(5, 1)}
    for _ in range(depth):
        tree = [tree]
    return tree


@VERSIONS
def test_tags_may_be_nested_but_not_without_end(version: int) -> None:
    assert len(list(parse(make_dm(nested(60), version=version)))) == 1
    with pytest.raises(HeaderError, match=r"x\.dm4: tags are nested too deeply: found 65"):
        parse(make_dm(nested(80), version=version))


def deep_dm3(depth: int) -> bytes:
    return struct.pack(">III", 3, 0, 1) + bytes.fromhex("0000 00000001 140000") * depth + bytes(1000)


HOSTILE = {
    "groups in groups": deep_dm3(100_000),
    "many groups": struct.pack(">IIIHI", 3, 0, 1, 0, 200_000) + bytes.fromhex("140000000000000000") * 200_000,
    "many numbers": make_dm([number(5, 1)] * 101_000, version=3),
    "many arrays": make_dm([array(10, [])] * 101_000, version=3),
    "long names": make_dm(Group([("x" * 65535, number(10, 1))] * 300), version=3),
    "many kinds of structs": make_dm(
        [structure([2 + (i >> j & 1) for j in range(120)], [0] * 120) for i in range(3000)], version=3
    ),
    "large structs": make_dm([structure([7] * 120, [1e9] * 120)] * 8000, version=4),
    "many jumps": make_dm([array(10, np.zeros(2100))] * 17_000, version=4),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_in_a_moment(name: str) -> None:
    start = time.process_time()
    with pytest.raises(HeaderError, match=r"x\.dm4: (tags|there|the tag)"):
        parse(HOSTILE[name])
    # A quarter of this is usual; the rest is for slow machines.
    assert time.process_time() - start < 2


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_take_little_memory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A tenth of everything, because tracing is slow.
    monkeypatch.setattr(parser, "MAX_ENTRIES", parser.MAX_ENTRIES // 10)
    monkeypatch.setattr(parser, "MAX_CONTENT_BYTES", parser.MAX_CONTENT_BYTES // 10)
    tracemalloc.start()
    try:
        with pytest.raises(HeaderError):
            parse(HOSTILE[name])
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def patched(raw: bytes, offset: int, patch: str) -> bytes:
    new = bytes.fromhex(patch)
    return raw[:offset] + new + raw[offset + len(new) :]


@pytest.mark.parametrize(
    ("offset", "patch", "message"),
    [
        (0, "00000002", r"not a DM3 or DM4 file: found b'\\x00\\x00\\x00\\x02'"),
        (0, "00000005", "not a DM3 or DM4 file"),
        (0, "03000000", "not a DM3 or DM4 file"),
        (8, "00000002", "unknown byte order: found 2"),
        (14, "ffffffff", "impossible number of entries in 'the root group': found 4294967295"),
        (32, "7fffffff", "impossible number of entries in 'ImageList'"),
        (18, "13", "neither a group nor a data tag: found kind 19"),
        (119, "25252524", "lost track of the tags: found b'%%%\\$'"),
        (123, "00000000", "impossible description of a value: found 0 words"),
        (123, "ffffffff", "impossible description of a value: found 4294967295 words"),
        (127, "00000001", "unknown type of a value: found \\(1,\\)"),
        (146, "00000005", "unknown type of a value"),
        (150, "00000012", "the file ends|unknown type"),
        (158, "ffffffff", "the file ends inside its tags: found 413 bytes"),
        (154, "00000001", "unknown type of a value"),
        (19, "ffff", "the file ends inside its tags"),
    ],
)
def test_damage_is_described(offset: int, patch: str, message: str) -> None:
    with pytest.raises(HeaderError, match=rf"x\.dm4: ({message})"):
        parse(patched(GOLDEN_DM3, offset, patch))


@pytest.mark.parametrize(
    ("offset", "patch", "message"),
    [
        (38, "ffffffffffffffff", "the entry 'ImageList' is larger than its group"),
        (38, "000000000000027a", "is larger than its group|does not have the size"),
        (199, "0000000000000010", "a value is larger than its tag: found 4 bytes"),
        (199, "0000000000000019", "is larger than its group"),
        (589, "0000000000000016", "a value does not have the size that its tag claims"),
        (274, "ffffffffffffffff", "a value is larger than its tag"),
        (18, "ffffffffffffffff", "impossible number of entries"),
        (348, "0000000000000095", "is larger than its group|larger than its tag"),
        (350, "0000000000000000", "impossible number of entries in 'ImageList.0.ImageData.Dimensions'"),
    ],
)
def test_sizes_that_contradict_each_other_are_described(offset: int, patch: str, message: str) -> None:
    with pytest.raises(HeaderError, match=rf"x\.dm4: .*({message})"):
        parse(patched(make_dm(GOLDEN_TREE), offset, patch))


@VERSIONS
def test_every_truncation_is_noticed(version: int) -> None:
    raw = make_dm(GOLDEN_TREE, version=version)
    for n_bytes in range(len(raw) - 8):
        with pytest.raises(HeaderError, match=r"x\.dm4: "):
            parse(raw[:n_bytes])
    for n_bytes in range(len(raw) - 8, len(raw)):
        assert parse(raw[:n_bytes]).names() == ("ImageList",)


def test_a_file_that_shrinks_while_it_is_read_is_refused() -> None:
    raw = make_dm(GOLDEN_TREE)
    with pytest.raises(HeaderError, match="ends inside its tags"):
        parse_tags(lambda offset, n: raw[offset : offset + n], len(raw) + 100, path="x.dm4")


@settings(max_examples=150)
@given(st.binary(max_size=200), st.sampled_from([3, 4]), st.booleans())
@example(b"", 3, True)
def test_any_bytes_parse_or_raise_the_family(raw: bytes, version: int, with_head: bool) -> None:
    head = struct.pack(">I", version) + bytes(4 if version == 3 else 8) + struct.pack(">I", 1)
    try:
        parse(head + raw if with_head else raw)
    except HeaderError as err:
        assert "x.dm4" in str(err)


@settings(max_examples=200)
@given(st.sampled_from([3, 4]), st.integers(0, 680), st.binary(min_size=1, max_size=9))
def test_damaged_tags_parse_or_raise_the_family(version: int, offset: int, patch: bytes) -> None:
    raw = make_dm(GOLDEN_TREE, version=version)
    damaged = (raw[:offset] + patch + raw[offset + len(patch) :])[: len(raw)]
    try:
        images = images_of(damaged)
        for image in images:
            image.locate(path="x.dm4")
    except DataSetException as err:
        assert "x.dm4" in str(err)


@st.composite
def trees(draw: st.DrawFn, depth: int = 2) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from(["a", "b.c", "d e", "µ"]), max_size=3, unique=True))
    leaves = st.one_of(st.integers(0, 2**32 - 1), st.text(max_size=5).filter(is_utf16), st.booleans())
    values = st.one_of(leaves, trees(depth - 1)) if depth else leaves
    return {name: draw(values) for name in names}


def is_utf16(value: str) -> bool:
    return not any(0xD800 <= ord(letter) < 0xE000 for letter in value)


def as_tree(value: Any) -> Tree:
    if isinstance(value, dict):
        return {name: as_tree(entry) for name, entry in value.items()}
    if isinstance(value, str):
        return text(value)
    return number(8 if isinstance(value, bool) else 5, value)


def flat(tree: dict[str, Any], names: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    out: dict[tuple[str, ...], Any] = {}
    for name, value in tree.items():
        path = (*names, name)
        out.update(flat(value, path) if isinstance(value, dict) else {path: value})
    return out


@settings(max_examples=40)
@given(trees(), st.sampled_from([3, 4]), st.sampled_from(["<", ">"]))
def test_parsing_undoes_writing(tree: dict[str, Any], version: int, byte_order: Literal["<", ">"]) -> None:
    tags = parse(make_dm(as_tree(tree), version=version, byte_order=byte_order))
    assert dict(tags) == flat(tree)
    assert {path: tags.get(path) for path in flat(tree)} == flat(tree)


# --- images ---


def test_images_are_found_among_all_other_tags() -> None:
    decoy: Tree = {
        "ImageData": {"Data": array(10, [1, 2]), "DataType": number(5, 1), "Dimensions": [number(5, 9)] * 2},
        "Meta Data": {"Format": text("Spectrum image")},
        "Data": array(4, np.arange(600)),
        "DataType": number(5, 10),
    }
    image = image_tags(np.zeros((2, 3, 4, 5), dtype="u2"), order_flag=True, tags={"Parent": decoy, **decoy})
    image["ImageTags"] = {**decoy, "Meta Data": {"Data Order Swapped": number(8, 1)}, "Parent": decoy}
    raw = make_dm({"Before": decoy, "ImageList": [thumbnail_tags(), image, image], "After": decoy}, version=3)
    images = images_of(raw)
    assert [found.index for found in images] == [0, 1, 2]
    assert [found.is_thumbnail for found in images] == [True, False, False]
    for found in images[1:]:
        assert found.dims == (5, 4, 3, 2)
        assert (found.data_type, found.format, found.order_flag) == (10, None, True)
        dtype, offset = found.locate(path="x.dm3")
        assert dtype == np.uint16
        assert raw[offset - 12 : offset] == struct.pack(">III", 20, 4, 120)


def test_an_image_without_calibrations_counts() -> None:
    (image,) = images_of(make_dm({"ImageList": [image_tags(np.zeros((2, 3), "i2"), calibrated=False)]}))
    assert image.locate(path="x.dm4")[0] == np.int16
    assert not image.has_tags


def test_what_is_no_image_is_empty() -> None:
    tree: Tree = {
        "ImageList": [
            {},
            number(5, 1),
            {"ImageData": {"DataType": text("float"), "Dimensions": [number(5, 0), number(5, 2)]}},
            {"ImageData": {"Data": number(5, 1), "Dimensions": [text("3")]}},
        ]
    }
    for image in images_of(make_dm(tree)):
        assert (image.data_type, image.dims, image.data, image.format) == (None, (), None, None)
        with pytest.raises(DataSetException, match=r"x\.dm4.*found DataType None"):
            image.locate(path="x.dm4")
    assert images_of(make_dm({})) == ()


@pytest.mark.parametrize(
    ("flag", "expected"),
    [(number(8, 0), False), (number(8, 1), True), (number(3, 0), False), (number(5, 1), True),
     (text("1"), True), (text("0"), False), (string("1"), True)],
)  # fmt: skip
def test_the_order_flag_may_be_a_number_or_a_text(flag: Data, expected: bool) -> None:
    image = image_tags(np.zeros((2, 3), "i2"), tags={"Meta Data": {"Data Order Swapped": flag}})
    assert images_of(make_dm({"ImageList": [image]}))[0].order_flag is expected


@pytest.mark.parametrize("flag", [text("yes"), text(""), number(6, math.nan), number(6, math.inf)])
def test_an_order_flag_that_is_no_truth_value_is_refused(flag: Data) -> None:
    image = image_tags(np.zeros((2, 3), "i2"), tags={"Meta Data": {"Data Order Swapped": flag}})
    with pytest.raises(HeaderError, match="Data Order Swapped is no truth value"):
        images_of(make_dm({"ImageList": [image]}))


# --- tags as plain data ---


def test_tags_become_nested_dicts() -> None:
    tree: Tree = {
        "a.b": {"text": text("µm"), "list": [number(5, 1), number(7, 0.5)]},
        "struct": structure((3, 6), (7, 0.25)),
        "few": array(10, np.arange(3)),
        "structs": struct_array((2, 3), np.array([(1, 2)], dtype="<i2,<i4").view("u1")),
        "many": array(6, np.arange(65)),
        "large": array(6, np.arange(1000)),
        "flag": number(8, 1),
    }
    assert tags_to_dict(parse(make_dm(tree))) == {
        "a.b": {"text": "µm", "list": {"0": 1, "1": 0.5}},
        "struct": [7, 0.25],
        "few": [0, 1, 2],
        "structs": [(1, 2)],
        "many": "array of 65 float32",
        "large": "array of 1000 float32",
        "flag": True,
    }


@pytest.mark.parametrize("path", ["a.b", ("a", "b")])
def test_a_part_of_the_tags_can_be_taken(path: Any) -> None:
    tree: Tree = {
        "a": {"b": {"c": number(5, 1), "d": {"e": number(5, 2), "f": number(5, 3)}}, "g": number(5, 4)}
    }
    tags = parse(make_dm(tree))
    assert tags_to_dict(tags, path) == {"c": 1, "d": {"e": 2, "f": 3}}
    assert tags_to_dict(tags, path, leave_out=("d", "e")) == {"c": 1, "d": {"f": 3}}
    assert tags_to_dict(tags, "nothing") == {}


@pytest.mark.parametrize(
    "entries",
    [{f"tag {i}": number(5, i) for i in range(6000)}, {f"tag {i}": text("x" * 400) for i in range(400)}],
    ids=["tags", "characters"],
)
def test_tags_beyond_the_bounds_are_left_out_with_a_remark(entries: dict[str, Tree]) -> None:
    found = tags_to_dict(parse(make_dm(dict(entries))))
    assert found.pop("(more tags)") is True
    assert 300 < len(found) < len(entries)
    assert list(found) == list(entries)[: len(found)]
