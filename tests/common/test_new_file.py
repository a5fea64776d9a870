"""Files and folders that appear when they are complete."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from libertem.common import new_file
from libertem.common.new_file import (
    TEMPORARY,
    as_write_error,
    check_space,
    complete_folder_or_nothing,
    complete_or_nothing,
)
from libertem.exceptions import DataSetException, FileAccessError, MissingFileError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "a"
    with complete_or_nothing(str(target), 5) as path:
        assert names(tmp_path) == [Path(path).name]
        assert TEMPORARY in path
        assert os.path.getsize(path) == 5
        Path(path).write_bytes(b"12345")
    assert names(tmp_path) == ["a"]
    assert target.read_bytes() == b"12345"


def test_permissions_are_kept(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"old")
    target.chmod(0o640)
    with complete_or_nothing(str(target), 0) as path:
        Path(path).write_bytes(b"new")
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("make", [complete_or_nothing, complete_folder_or_nothing])
def test_what_fails_leaves_nothing(tmp_path: Path, make: Any, overwrite: bool) -> None:
    def break_off() -> None:
        with make(str(tmp_path / "a"), 0, overwrite=overwrite):
            assert len(names(tmp_path)) == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert names(tmp_path) == []


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_came_up_meanwhile_stays(
    tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*args: Any) -> None:
        raise OSError(errno.EPERM, "not here")

    if not links:
        monkeypatch.setattr(new_file.os, "link", no_links)
    target = tmp_path / "a"
    with complete_or_nothing(str(target), 0, overwrite=False):
        pass
    assert names(tmp_path) == ["a"]
    target.unlink()
    with (
        pytest.raises(FileExistsError, match="left as it is"),
        complete_or_nothing(str(target), 0, overwrite=False),
    ):
        target.write_bytes(b"of somebody else")
    assert names(tmp_path) == ["a"]
    assert target.read_bytes() == b"of somebody else"


def test_folders_replace_folders_and_files(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"old")
    for content in ("first", "second"):
        with complete_folder_or_nothing(str(target), 0, overwrite=True) as path:
            Path(path, content).write_bytes(b"")
        assert names(tmp_path) == ["a"]
        assert names(target) == [content]


def test_the_old_folder_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a"
    target.mkdir()
    (target / "precious").write_bytes(b"")
    rename = os.rename

    def fails_once(source: str, destination: str) -> None:
        if destination == str(target) and TEMPORARY in source and "new" in os.listdir(source):
            raise OSError(errno.EIO, "broken")
        rename(source, destination)

    monkeypatch.setattr(new_file.os, "rename", fails_once)
    with (
        pytest.raises(DataSetException, match="could not write"),
        complete_folder_or_nothing(str(target), 0, overwrite=True) as path,
    ):
        Path(path, "new").write_bytes(b"")
    assert names(tmp_path) == ["a"]
    assert names(target) == ["precious"]


def test_space_is_named_without_the_temporary_name(tmp_path: Path) -> None:
    check_space(str(tmp_path / "a"), 1)
    with pytest.raises(DataSetException, match=r"a: not enough space .* expected \d+ bytes") as caught:
        check_space(str(tmp_path / f"a{TEMPORARY}12ab"), 1 << 60)
    assert TEMPORARY not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (PermissionError(errno.EACCES, "x"), FileAccessError, "no permission"),
        (FileNotFoundError(errno.ENOENT, "x"), MissingFileError, "folder of the output"),
        (OSError(errno.ENOSPC, "x"), DataSetException, "no space left .*make room"),
        (OSError(f"Can't write: '{os.strerror(errno.ENOSPC)}'"), DataSetException, "no space left"),
        (OSError(errno.EIO, "x"), DataSetException, "could not write the output"),
        (FileExistsError("x"), FileExistsError, "^x$"),
        (ValueError("x"), ValueError, "^x$"),
    ],
)
def test_errors_of_the_system_are_translated(
    error: Exception, expected: type[Exception], message: str
) -> None:
    with pytest.raises(expected, match=message), as_write_error("target"):
        raise error
