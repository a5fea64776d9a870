"""The command line as a whole: help, errors, exit codes, pipes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import libertem
from libertem.cli import info
from libertem.cli.errors import sentence
from libertem.exceptions import DataSetException, ShapeError

COMMAND = [sys.executable, "-m", "libertem"]
COMMANDS = ["info", "view", "convert", "check"]


def _arguments(command: str, path: Any, tmp_path: Path) -> list[str]:
    more = {"convert": [str(tmp_path / "out.npy")], "view": ["-o", str(tmp_path / "out.png")]}
    return [command, str(path), *more.get(command, [])]


def test_help_and_version(run: Any) -> None:
    shown = run("--help")
    assert shown.status == 0
    for command in COMMANDS:
        assert command in shown.out
    assert "exit status" in shown.out
    assert run("--version").out.strip() == f"libertem {libertem.__version__}"


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(run: Any, command: str) -> None:
    shown = run(command, "--help")
    assert shown.status == 0
    assert "--nav-shape" in shown.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["info"], "the following arguments are required: PATH"),
        (["convert", "x"], "the following arguments are required: OUT"),
        (["info", "x", "--nav-shape", "1,a"], "expected a shape such as 64,128, found '1,a'"),
        (["info", "x", "--sig-shape", "0,4"], "expected a shape of positive numbers, found '0,4'"),
        (["info", "x", "--param", "dtype"], "expected KEY=VALUE, found 'dtype'"),
        (["info", "x", "--param", "no-name=3"], "expected KEY=VALUE"),
        (["view", "x", "--at", "here"], "expected a scan position such as 64,128, found 'here'"),
        (["check", "x", "--overwrite"], "unrecognized arguments: --overwrite"),
    ],
)
def test_a_wrong_command_line_ends_with_2(run: Any, arguments: list[str], message: str) -> None:
    ended = run(*arguments)
    assert ended.status == 2
    assert message in ended.err
    assert ended.out == ""


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.mib", None, "the file does not exist"),
        ("notes.txt", b"no frames here", "could not determine DataSet type"),
        ("empty.npy", b"", "empty.npy"),
        ("cut.npy", b"\x93NUMPY\x01\x00v\x00{'descr'", "cut.npy"),
        ("noise.h5", b"\x89HDF\r\n\x1a\n" + bytes(100), "noise.h5"),
    ],
)
def test_files_that_cannot_be_opened_end_with_1_and_a_sentence(
    run: Any, tmp_path: Path, command: str, name: str, content: bytes | None, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    ended = run(*_arguments(command, path, tmp_path))
    assert ended.status == 1
    assert message in ended.complaint()
    assert ended.out == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == ([] if content is None else [name])


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_is_not_a_data_set(run: Any, tmp_path: Path, command: str) -> None:
    (tmp_path / "folder").mkdir()
    ended = run(*_arguments(command, tmp_path / "folder", tmp_path))
    assert ended.status == 1
    assert "a directory" in ended.complaint()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--type", "nonsense"], "unknown filetype: nonsense"),
        (["--param", "colour=red"], "this type has no parameter 'colour' (given with --param)"),
        (["--sig-shape", "500,500"], "sig_shape"),
        (["--param", "sync_offset=1000"], "sync_offset"),
        (["--param", "io_backend=fast"], "not an I/O backend: found 'fast'"),
    ],
)
def test_parameters_that_do_not_fit_are_explained(
    run: Any, npy: Path, options: list[str], message: str
) -> None:
    ended = run("info", npy, *options)
    assert ended.status == 1
    assert message in ended.complaint()


def test_advice_is_in_the_words_of_the_command_line() -> None:
    unknown = DataSetException(
        "could not determine DataSet type for file 'x'. The types that were tried:\n  mib: no\n",
        path="x",
        hint='name the type yourself, as in ctx.load("raw", ...)',
    )
    assert sentence(unknown) == (
        "could not determine DataSet type for file 'x' (name the type yourself, as in --type raw; "
        "--debug shows what each type says)"
    )
    shape = ShapeError("need to set or detect nav_shape!", hint="pass nav_shape=(height, width)")
    assert sentence(shape) == "need to set or detect nav_shape! (give --nav-shape HEIGHT,WIDTH)"
    missing = TypeError("A.__init__() missing 2 required positional arguments: 'dtype' and 'sig_shape'")
    assert sentence(missing) == (
        "this type needs more to be known: 'dtype' and 'sig_shape' (give --param NAME=VALUE)"
    )
    assert sentence(MemoryError()) == "there is not enough memory"
    assert sentence(KeyError("x")) == "unexpected KeyError: 'x' (--debug shows where it comes from)"
    assert sentence(ValueError("a\n  b")) == "a b"
    assert sentence(OSError()) == "OSError"


def test_debug_shows_where_an_error_comes_from(run: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no frames here")
    with pytest.raises(DataSetException, match="The types that were tried"):
        run("info", tmp_path / "notes.txt", "--debug")


def test_interrupting_ends_with_130(run: Any, npy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(options: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(info, "run", interrupt)
    ended = run("info", npy)
    assert ended.status == 130
    assert ended.complaint() == "interrupted"


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_ends_a_command_that_works(tmp_path: Path) -> None:
    # Reading a named pipe to which nobody writes would last for ever; it is replaced after the command line
    # has been understood, because opening a data set refuses pipes.
    code = (
        "import sys, time, libertem.cli.info as info\n"
        "from libertem.cli import main\n"
        "def run(options):\n"
        "    print('working', flush=True)\n"
        "    time.sleep(60)\n"
        "info.run = run\n"
        "sys.exit(main(['info', 'x']))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "libertem: interrupted\n"


def test_the_distribution_installs_the_command() -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert '\nlibertem = "libertem.cli:main"\n' in project


def test_it_runs_as_a_module(npy: Path) -> None:
    ended = subprocess.run([*COMMAND, "info", str(npy)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0
    assert ended.stderr == ""
    assert "npy (NPYDataSet)" in ended.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
def test_a_closed_pipe_is_no_error(npy: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [*COMMAND, "info", str(npy)], stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert ended.returncode == 141
    assert ended.stderr == ""


def test_help_loads_nothing_but_the_parser() -> None:
    code = (
        "import sys\n"
        "from libertem.cli import main\n"
        "status = main(['--help'])\n"
        "sys.exit(status or any(name in sys.modules for name in ('numpy', 'libertem.api')))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert ended.returncode == 0


def test_info_loads_neither_matplotlib_nor_numba(npy: Path) -> None:
    code = (
        "import sys\n"
        "from libertem.cli import main\n"
        f"status = main(['info', {str(npy)!r}])\n"
        "heavy = {'matplotlib', 'numba', 'scipy', 'dask', 'h5py', 'sparse'} & sys.modules.keys()\n"
        "sys.exit(status or ' '.join(heavy) or 0)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
