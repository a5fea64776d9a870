from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest

from libertem import exceptions
from libertem.exceptions import DataSetException, MissingFileError

ALL = [getattr(exceptions, name) for name in exceptions.__all__]
FAMILY = [cls for cls in ALL if issubclass(cls, DataSetException)]

RELATIONS = [
    ("HeaderError", DataSetException),
    ("ShapeError", DataSetException),
    ("MissingFileError", DataSetException),
    ("MissingFileError", FileNotFoundError),
    ("FileAccessError", DataSetException),
    ("FileAccessError", PermissionError),
    ("SizeMismatchError", DataSetException),
    ("SizeMismatchError", ValueError),
    ("UnsupportedBackendError", DataSetException),
    ("UnsupportedBackendError", ValueError),
    ("InvalidMaskError", ValueError),
    ("ResourceError", RuntimeError),
]


class OwnError(DataSetException):
    """An error of a third party, with a constructor of its own."""

    def __init__(self, number: int) -> None:
        super().__init__(f"number {number} does not exist", found=number)
        self.number = number


class Unpicklable:
    def __repr__(self) -> str:
        return "<something>"

    def __reduce__(self) -> Any:
        raise TypeError("cannot be pickled")


def test_all_lists_every_exception_of_the_module() -> None:
    defined = {
        name
        for name, obj in vars(exceptions).items()
        if isinstance(obj, type) and issubclass(obj, BaseException)
    }
    assert defined == set(exceptions.__all__)


@pytest.mark.parametrize(("name", "base"), RELATIONS)
def test_what_belongs_together_is_caught_together(name: str, base: type[Exception]) -> None:
    with pytest.raises(base):
        raise getattr(exceptions, name)("something is wrong")


def test_dataset_exception_is_a_plain_exception() -> None:
    assert DataSetException.__bases__ == (Exception,)


@pytest.mark.parametrize("cls", ALL)
def test_a_plain_sentence_is_enough(cls: type[Exception]) -> None:
    assert str(cls("something is wrong")) == "something is wrong"


@pytest.mark.parametrize("cls", FAMILY)
def test_the_sentence_says_where_what_and_how_to_go_on(cls: type[DataSetException]) -> None:
    err = cls(
        "sig_shape does not fit",
        path=Path("folder") / "scan3.toy",
        found=(128, 128),
        expected="65536 px",
        hint="leave sig_shape out",
    )
    path = str(Path("folder") / "scan3.toy")
    assert str(err) == (
        f"{path}: sig_shape does not fit: found (128, 128), expected 65536 px (leave sig_shape out)"
    )


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        ({}, "bad header"),
        ({"path": "a.toy"}, "a.toy: bad header"),
        ({"found": 0}, "bad header: found 0"),
        ({"expected": "TOY1"}, "bad header: expected TOY1"),
        ({"found": False, "expected": True}, "bad header: found False, expected True"),
        ({"hint": "try again"}, "bad header (try again)"),
    ],
    ids=str,
)
def test_missing_facts_leave_no_trace(facts: dict[str, Any], sentence: str) -> None:
    assert str(DataSetException("bad header", **facts)) == sentence


def test_a_path_that_the_sentence_names_is_not_repeated() -> None:
    assert str(DataSetException("cannot open a.toy", path="a.toy")) == "cannot open a.toy"


def test_the_facts_are_kept_for_programs() -> None:
    err = DataSetException("bad", path=Path("a.toy"), found=1, expected=(2, 3), hint="go on")
    assert (err.problem, err.path, err.found, err.expected, err.hint) == ("bad", "a.toy", 1, (2, 3), "go on")


def test_the_message_is_the_argument() -> None:
    assert DataSetException("bad", found=1).args == ("bad: found 1",)


def test_it_may_be_raised_without_a_sentence() -> None:
    assert str(DataSetException()) == ""


def test_the_cause_is_kept() -> None:
    cause = OSError(2, "gone")
    with pytest.raises(MissingFileError) as caught:
        raise MissingFileError("no such file", path="a.toy") from cause
    assert caught.value.__cause__ is cause


@pytest.mark.parametrize("cls", ALL)
def test_it_survives_pickling(cls: type[Exception]) -> None:
    err = pickle.loads(pickle.dumps(cls("something is wrong")))
    assert type(err) is cls
    assert str(err) == "something is wrong"


@pytest.mark.parametrize("cls", FAMILY)
def test_the_facts_survive_pickling_as_text(cls: type[DataSetException]) -> None:
    err = cls("bad", path="a.toy", found=(1, 2), expected=3, hint="go on")
    other = pickle.loads(pickle.dumps(err))
    assert str(other) == str(err) == "a.toy: bad: found (1, 2), expected 3 (go on)"
    assert other.args == err.args
    assert (other.path, other.found, other.expected, other.hint) == ("a.toy", "(1, 2)", "3", "go on")


def test_facts_that_cannot_be_pickled_do_not_hinder_it() -> None:
    err = pickle.loads(pickle.dumps(DataSetException("bad", found=Unpicklable())))
    assert str(err) == "bad: found <something>"


def test_subclasses_with_another_constructor_survive_pickling() -> None:
    err = pickle.loads(pickle.dumps(OwnError(7)))
    assert type(err) is OwnError
    assert err.number == 7
    assert str(err) == "number 7 does not exist: found 7"


def test_it_can_be_copied() -> None:
    assert str(copy.copy(DataSetException("bad", path="a.toy"))) == "a.toy: bad"
