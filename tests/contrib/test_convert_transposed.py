from __future__ import annotations

import errno
import inspect
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from libertem.api import Context
from libertem.common import new_file
from libertem.contrib import convert_transposed as module
from libertem.contrib.convert_transposed import convert_dm4_transposed
from libertem.exceptions import DataSetException, FileAccessError, HeaderError, MissingFileError
from libertem.executor.delayed import DelayedJobExecutor
from libertem.testing.writers.dm import image_tags, text, write_dm

NAV, SIG = (6, 7), (12, 10)


def make_frames(
    dtype: str = "<u2", nav: tuple[int, ...] = NAV, sig: tuple[int, ...] = SIG
) -> npt.NDArray[Any]:
    values = np.random.default_rng(0).integers(0, 200, (*nav, *sig))
    return (values * 1j if np.dtype(dtype).kind == "c" else values).astype(dtype)


def write_hybrid(path: Path, frames: npt.NDArray[Any], sig_dims: int = 2, **kwargs: Any) -> Path:
    nav_dims = frames.ndim - sig_dims
    stored = np.moveaxis(frames, range(nav_dims), range(-nav_dims, 0))
    byte_order: Any = ">" if frames.dtype.str[0] == ">" else "<"
    version = kwargs.pop("version", 4)
    return write_dm(path, image_tags(stored, **kwargs), byte_order=byte_order, version=version)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_hybrid(tmp_path / "scan.dm4", make_frames())


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "scan.npy"


def assert_converted(target: Path, expected: npt.NDArray[Any]) -> None:
    """As NumPy and this library see it, and nothing else in the folder."""
    found = np.load(target)
    assert found.dtype == expected.dtype.newbyteorder("<")
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected)
    assert target.read_bytes()[6:8] == b"\1\0"
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_the_signature_is_the_documented_one() -> None:
    parameters = list(inspect.signature(convert_dm4_transposed).parameters.values())
    assert [(p.name, p.default) for p in parameters[2:6]] == [
        ("ctx", None),
        ("num_cpus", None),
        ("dataset_index", None),
        ("progress", False),
    ]
    assert [p.name for p in parameters] == [
        "dm4_path",
        "out_path",
        *(p.name for p in parameters[2:6]),
        "max_bytes",
    ]


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("dtype", ["<u2", "u1", "<f4", "<c8", "<c16", ">u2", ">f4"])
def test_signal_axes_move_to_the_end(dtype: str, version: int, tmp_path: Path, target: Path) -> None:
    frames = make_frames(dtype)
    source = write_hybrid(tmp_path / "scan.dm", frames, version=version)
    assert convert_dm4_transposed(source, target) is None
    assert_converted(target, frames)
    with Context.make_with("inline") as ctx:
        assert tuple(ctx.load("npy", path=target).shape) == (*NAV, *SIG)


@pytest.mark.parametrize("max_bytes", [1, 500, 2000, 1 << 20])
@pytest.mark.parametrize("in_memory", [True, False])
def test_the_memory_does_not_matter(
    max_bytes: int, in_memory: bool, source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_available_bytes", lambda: 1 << 30 if in_memory else 0)
    convert_dm4_transposed(str(source), str(target), max_bytes=max_bytes, num_cpus=2)
    assert_converted(target, make_frames())


def test_frames_of_any_size_are_converted(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_available_bytes", lambda: 0)
    monkeypatch.setattr(module, "WRITE_BYTES", 1000)
    for nav, sig in (((3, 5), (1, 1)), ((1, 2), (64, 96)), ((2, 3, 4), (3, 2)), ((70, 1), (16, 16))):
        frames = make_frames("<u2", nav, sig)
        source = write_hybrid(tmp_path / "x.dm4", frames)
        convert_dm4_transposed(source, target, max_bytes=700)
        assert_converted(target, frames)


def test_spectra_have_one_signal_axis(tmp_path: Path, target: Path) -> None:
    frames = make_frames("<f4", (4, 5), (9,))
    source = write_hybrid(tmp_path / "x.dm4", frames, sig_dims=1, format="Spectrum image")
    convert_dm4_transposed(source, target)
    assert_converted(target, frames)


def test_one_image_of_several_is_converted(tmp_path: Path, target: Path) -> None:
    images = [image_tags(np.moveaxis(make_frames(dtype), (0, 1), (-2, -1))) for dtype in ("<u2", "<f4")]
    source = write_dm(tmp_path / "x.dm4", *images)
    convert_dm4_transposed(source, target, dataset_index=2)
    assert_converted(target, make_frames("<f4"))
    with pytest.warns(RuntimeWarning, match="several datasets"):
        convert_dm4_transposed(source, target)
    assert_converted(target, make_frames())


@pytest.mark.parametrize("kind", ["inline", "threads"])
def test_the_context_given_is_used_and_stays_open(kind: str, source: Path, target: Path) -> None:
    with Context.make_with(kind) as ctx:
        convert_dm4_transposed(source, target, ctx)
        assert_converted(target, make_frames())
        assert ctx.load("npy", path=target).shape.nav.to_tuple() == NAV


def test_progress_is_shown(source: Path, target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert_dm4_transposed(source, target)
    assert capsys.readouterr().err == ""
    convert_dm4_transposed(source, target, progress=True)
    shown = capsys.readouterr().err
    assert "scan.npy" in shown
    assert "100%" in shown


# --- refusals ---


def test_a_context_and_a_number_of_cpus_contradict_each_other(tmp_path: Path) -> None:
    with Context.make_with("inline") as ctx, pytest.raises(ValueError, match="either ctx or num_cpus"):
        convert_dm4_transposed(tmp_path / "missing.dm4", tmp_path / "x.npy", ctx=ctx, num_cpus=2)


@pytest.mark.parametrize("kwargs", [{"num_cpus": 0}, {"max_bytes": 0}])
def test_numbers_have_to_be_positive(kwargs: dict[str, int], source: Path, target: Path) -> None:
    with pytest.raises(ValueError, match="has to be positive, found 0"):
        convert_dm4_transposed(source, target, **kwargs)


@pytest.mark.parametrize("stored", [(2, 3, 4, 5), (3, 4, 5), (4, 5)])
def test_what_is_not_transposed_is_refused(stored: tuple[int, ...], tmp_path: Path, target: Path) -> None:
    flag = True if len(stored) == 4 else None
    source = write_dm(tmp_path / "x.dm4", image_tags(np.zeros(stored, dtype="u1"), order_flag=flag))
    target.write_bytes(b"old")
    with pytest.raises(DataSetException, match=r"x\.dm4: the data are not stored as transposed"):
        convert_dm4_transposed(source, target)
    assert target.read_bytes() == b"old"


def test_files_that_cannot_be_read_are_refused(tmp_path: Path, target: Path) -> None:
    with pytest.raises(MissingFileError, match=r"missing\.dm4"):
        convert_dm4_transposed(tmp_path / "missing.dm4", target)
    (tmp_path / "x.dm4").write_bytes(b"x" * 100)
    with pytest.raises(HeaderError, match=r"x\.dm4"):
        convert_dm4_transposed(tmp_path / "x.dm4", target)
    assert list(target.parent.iterdir()) == []


def test_executors_that_only_plan_are_refused(source: Path, target: Path) -> None:
    with Context(executor=DelayedJobExecutor()) as ctx, pytest.raises(ValueError, match="does not compute"):
        convert_dm4_transposed(source, target, ctx=ctx)
    assert list(target.parent.iterdir()) == []


# --- the output is complete, or what it was ---


def test_an_output_is_replaced_with_its_permissions(source: Path, target: Path) -> None:
    target.write_bytes(b"old")
    target.chmod(0o640)
    convert_dm4_transposed(source, target)
    assert_converted(target, make_frames())
    assert target.stat().st_mode & 0o777 == 0o640


def test_a_link_stays_a_link(source: Path, target: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.npy"
    link.symlink_to(target)
    convert_dm4_transposed(source, link)
    assert link.is_symlink()
    assert_converted(target, make_frames())


def test_the_input_is_never_the_output(source: Path) -> None:
    before = source.read_bytes()
    with pytest.raises(DataSetException, match="would replace the input"):
        convert_dm4_transposed(source, source)
    assert source.read_bytes() == before


def test_folders_are_no_outputs(source: Path, target: Path) -> None:
    with pytest.raises(DataSetException, match="is no file"):
        convert_dm4_transposed(source, target.parent)
    with pytest.raises(MissingFileError, match="folder of the output does not exist"):
        convert_dm4_transposed(source, target.parent / "missing" / "x.npy")


def fail_after_one_write(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    write, written = os.pwrite, []

    def failing(descriptor: int, data: Any, offset: int) -> int:
        if written:
            raise error
        written.append(offset)
        return write(descriptor, data[: len(data) // 2], offset)

    monkeypatch.setattr(module.os, "pwrite", failing)


@pytest.mark.skipif(not hasattr(os, "pwrite"), reason="writes in another way")
@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), DataSetException, "no space left for the output"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), DataSetException, "no space left .* quota"),
        (PermissionError(errno.EACCES, "Permission denied"), FileAccessError, "no permission to write"),
        (OSError(errno.EIO, "I/O error"), DataSetException, "could not write the output.*I/O error"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
)
def test_failures_leave_the_old_output_and_nothing_else(
    error: BaseException,
    expected: type[BaseException],
    message: str | None,
    in_memory: bool,
    source: Path,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_available_bytes", lambda: 1 << 30 if in_memory else 0)
    target.write_bytes(b"old")
    fail_after_one_write(monkeypatch, error)
    with pytest.raises(expected, match=message):
        convert_dm4_transposed(source, target, max_bytes=2000)
    assert target.read_bytes() == b"old"
    assert [path.name for path in target.parent.iterdir()] == [target.name]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_failures_at_the_end_count_as_well(
    step: str, source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    # Not that of the thread which writes to the disk meanwhile: its errors do not count.
    monkeypatch.setattr(module, "_flush", lambda path, done: None)
    monkeypatch.setattr(new_file.os, step, fail)
    with pytest.raises(DataSetException, match="no space left"):
        convert_dm4_transposed(source, target)
    assert list(target.parent.iterdir()) == []


def test_space_is_checked_before_anything_is_written(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr(new_file.shutil, "disk_usage", lambda folder: Usage)
    with pytest.raises(
        DataSetException, match=r"not enough space.*found 1000 bytes free, expected 14176 bytes"
    ):
        convert_dm4_transposed(source, target)
    assert list(target.parent.iterdir()) == []


def test_outputs_that_must_not_be_written_are_refused(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target.write_bytes(b"old")
    # What the system says to users who are not root.
    monkeypatch.setattr(new_file.os, "access", lambda path, mode: False)
    with pytest.raises(FileAccessError, match=r"scan\.npy: no permission to write"):
        convert_dm4_transposed(source, target)
    assert target.read_bytes() == b"old"


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no such signal here")
def test_a_killed_process_leaves_only_what_is_recognizable(source: Path, target: Path) -> None:
    target.write_bytes(b"old")
    code = f"""
import os, signal
from libertem.contrib import convert_transposed as module
module.os.pwrite = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
module.convert_dm4_transposed({str(source)!r}, {str(target)!r})
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert target.read_bytes() == b"old"
    (left,) = (path.name for path in target.parent.iterdir() if path != target)
    assert left.startswith("scan.npy" + new_file.TEMPORARY)
    convert_dm4_transposed(source, target)
    np.testing.assert_array_equal(np.load(target), make_frames())


def test_tags_around_the_image_do_not_matter(tmp_path: Path, target: Path) -> None:
    stored = np.moveaxis(make_frames(), (0, 1), (-2, -1))
    for n in range(4):  # pixels at odd bytes
        before = {"Comment": text("x"), "y" * n: text("")}
        source = write_dm(tmp_path / "x.dm4", image_tags(stored), before=before)
        convert_dm4_transposed(source, target)
        assert_converted(target, make_frames())
