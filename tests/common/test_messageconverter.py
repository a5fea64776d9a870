from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonschema
import pytest

from libertem.common.messageconverter import MessageConverter
from libertem.exceptions import UnsupportedBackendError


class Mapped:
    id_ = "mapped"


class ToyConverter(MessageConverter):
    SCHEMA = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {
            "type": {"const": "TOY"},
            "path": {"type": "string"},
            "sigShape": {"type": "array", "items": {"type": "number"}},
            "io_backend": {"type": "string"},
        },
        "required": ["type", "path"],
    }
    io_backends = {"mapped": Mapped}

    def convert_to_python(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        return {"path": raw["path"], "sig_shape": tuple(raw["sigShape"])}

    def convert_from_python(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        return {"type": "TOY", "path": raw["path"], "sigShape": list(raw["sig_shape"])}


class PlainConverter(MessageConverter):
    SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}}


MESSAGE = {"type": "TOY", "path": "a.toy", "sigShape": [2, 3]}
PARAMS = {"path": "a.toy", "sig_shape": (2, 3)}


def test_a_message_becomes_parameters() -> None:
    assert ToyConverter().to_python(MESSAGE) == PARAMS


def test_parameters_become_a_message() -> None:
    assert ToyConverter().from_python(PARAMS) == MESSAGE


def test_without_conversions_values_stay_as_they_are() -> None:
    raw = {"path": "a.toy", "other": 1}
    assert PlainConverter().to_python(raw) == raw
    assert PlainConverter().from_python(raw) == raw
    assert PlainConverter().to_python(raw) is not raw


def test_an_io_backend_is_made_from_its_id() -> None:
    message = {**MESSAGE, "io_backend": "mapped"}
    assert isinstance(ToyConverter().to_python(message)["io_backend"], Mapped)
    assert message["io_backend"] == "mapped"


def test_an_io_backend_is_named_by_its_id() -> None:
    converter = ToyConverter()
    assert converter.from_python({**PARAMS, "io_backend": Mapped()}) == {**MESSAGE, "io_backend": "mapped"}
    assert converter.from_python({**PARAMS, "io_backend": None}) == MESSAGE


def test_an_unknown_io_backend_is_refused() -> None:
    with pytest.raises(UnsupportedBackendError, match=r"found 'tape', expected one of \['mapped'\]"):
        ToyConverter().to_python({**MESSAGE, "io_backend": "tape"})


@pytest.mark.parametrize("raw", [{"type": "TOY"}, {"type": "OTHER", "path": "x"}, 5, None])
def test_a_message_that_does_not_fit_the_schema_is_refused(raw: Any) -> None:
    with pytest.raises(jsonschema.ValidationError):
        ToyConverter().to_python(raw)


def test_parameters_that_make_no_valid_message_are_refused() -> None:
    with pytest.raises(jsonschema.ValidationError):
        PlainConverter().from_python({"path": 5})


def test_a_converter_without_schema_says_so() -> None:
    with pytest.raises(NotImplementedError, match="MessageConverter has no SCHEMA"):
        MessageConverter().validate({})
