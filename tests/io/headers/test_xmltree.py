from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libertem.exceptions import HeaderError
from libertem.io.headers.xmltree import MAX_DEPTH, parse_xml, xml_to_dict


def to_dict(raw: bytes) -> Any:
    return xml_to_dict(parse_xml(raw, path="x.xml"))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"<a/>", ""),
        (b"<a> text </a>", "text"),
        (b"<a b='1'/>", {"@b": "1"}),
        (b"<a b='1'>text</a>", {"@b": "1", "#text": "text"}),
        (b"<a><b>1</b><c.d>2</c.d></a>", {"b": "1", "c.d": "2"}),
        (b"<a><b>1</b><b><c>2</c></b></a>", {"b": ["1", {"c": "2"}]}),
        (b"<a><!-- b --><?c d?><b/></a>", {"b": ""}),
    ],
)
def test_elements_become_plain_data(raw: bytes, expected: Any) -> None:
    assert to_dict(raw) == expected


def test_what_is_nested_too_deeply_is_left_out() -> None:
    depth = 10_000
    found = to_dict(b"<a>" * depth + b"</a>" * depth)
    levels = 0
    while isinstance(found, dict):
        found = found["a"]
        levels += 1
    assert levels == MAX_DEPTH


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"<a>",
        b"<a></b>",
        b"\xff\xfe",
        b"<?xml version='1.0' encoding='nonsense'?><a/>",
        b"<!DOCTYPE a><a/>",
        b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>",
        b"<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>",
    ],
)
def test_what_is_not_well_formed_or_declares_something_is_refused(raw: bytes) -> None:
    with pytest.raises(HeaderError, match=r"x\.xml: not a well-formed XML file.*\(try something else\)"):
        parse_xml(raw, path="x.xml", hint="try something else")


@given(st.binary(max_size=200), st.text(max_size=50))
def test_any_bytes_are_parsed_or_refused(raw: bytes, text: str) -> None:
    for content in (raw, b"<a>" + text.encode("utf-8", "replace") + b"</a>"):
        try:
            json.dumps(to_dict(content))
        except HeaderError as err:
            assert "x.xml" in str(err)
