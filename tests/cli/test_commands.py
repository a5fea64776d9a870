"""What the commands do: info, view, convert, check."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libertem.api import Context
from libertem.interact.checking import runs_of
from libertem.testing.writers.blo import write_blo

from .conftest import RAW_OPTIONS

PNG = b"\x89PNG\r\n\x1a\n"


# --- info ---


def test_info_tells_what_a_file_is(run: Any, npy: Path) -> None:
    ended = run("info", npy)
    assert ended.status == 0
    assert ended.err == ""
    facts = dict(line.split("  ", 1) for line in ended.out.splitlines() if "  " in line.strip())
    assert facts["type"].strip() == "npy (NPYDataSet)"
    assert facts["scan"].strip() == "5 \N{MULTIPLICATION SIGN} 7 positions"
    assert facts["dtype"].strip() == "uint16"
    assert "13.4 kB (35 frames)" in ended.out


def test_the_line_for_python_can_be_pasted(run: Any, raw: Path, data: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(raw.parent)
    line = run("info", raw.name, *RAW_OPTIONS).out.splitlines()[-1].strip()
    monkeypatch.chdir("/")
    names: dict[str, Any] = {}
    exec(line, names)
    np.testing.assert_array_equal(names["ds"][2, 3], data[2, 3])


def test_info_in_json(run: Any, npy: Path) -> None:
    known = run("info", npy, "--json").json()
    assert (known["type"], known["nav_shape"], known["sig_shape"]) == ("npy", [5, 7], [16, 12])
    assert known["dtype"] == "<u2"
    assert known["load"].startswith("import libertem.api as lt; ds = lt.Context().load(")
    assert known["notices"] == []
    assert "header" not in known
    assert "header" in run("info", npy, "--json", "--header").json()
    assert "raw header" in run("info", npy, "--header").out


def test_info_of_a_file_that_does_not_say_what_it_is(run: Any, raw: Path) -> None:
    assert run("info", raw).status == 1
    assert run("info", raw, *RAW_OPTIONS).status == 0
    ended = run("info", raw, "--type", "raw", "--nav-shape", "5,7", "--sig-shape", "16,12")
    assert ended.status == 1
    assert "this type needs more to be known: 'dtype'" in ended.complaint()


def test_values_of_parameters_are_python_if_possible(run: Any, npy: Path) -> None:
    assert run("info", npy, "--json", "--param", "sync_offset=3").json()["sync_offset"] == 3
    shape = run("info", npy, "--json", "--param", "nav_shape=(35,)").json()["nav_shape"]
    assert shape == [35]


def test_letters_that_the_terminal_does_not_know_are_replaced(
    run: Any, npy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # capsys gives the standard output an encoding; a terminal of last century has this one.
    monkeypatch.setattr(type(sys.stdout), "encoding", "ascii", raising=False)
    ended = run("info", npy)
    assert ended.status == 0
    assert "5 ? 7 positions" in ended.out


# --- view ---


def test_view_draws_a_picture(run: Any, npy: Path, tmp_path: Path) -> None:
    ended = run("view", npy, "-o", tmp_path / "x.png")
    assert ended.status == 0
    assert (tmp_path / "x.png").read_bytes().startswith(PNG)
    assert f"picture: {tmp_path / 'x.png'}" in ended.out


def test_view_chooses_a_name_and_does_not_overwrite(
    run: Any, npy: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    known = run("view", npy, "--json").json()
    assert known["output"] == "scan.npy.png"
    assert known["maps"] == ["bright field", "annular dark field"]
    assert known["centre_of_mass"] is True
    assert set(known["direct_beam"]) == {"cy", "cx", "radius"}
    before = Path("scan.npy.png").read_bytes()
    ended = run("view", npy)
    assert ended.status == 1
    assert ended.complaint() == "scan.npy.png: exists already (use --overwrite to replace it)"
    assert Path("scan.npy.png").read_bytes() == before
    assert run("view", npy, "--at", "1,2", "--overwrite").status == 0
    assert Path("scan.npy.png").read_bytes() != before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "x.npy"], "cannot draw into such a file"),
        (["-o", "none/x.png"], "there is no folder none"),
        (["-o", "x.png", "--at", "9,9"], "lies outside of the scan: found 9 on axis 0, expected 0 to 4"),
        (["-o", "x.png", "--at", "9"], "has 2 coordinates"),
    ],
)
def test_view_says_what_it_cannot_draw(
    run: Any, npy: Path, tmp_path: Path, monkeypatch: Any, options: list[str], message: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    ended = run("view", npy, *options)
    assert ended.status == 1
    assert message in ended.complaint()
    assert list(Path().iterdir()) == []


def test_view_never_replaces_the_data(run: Any, tmp_path: Path, data: Any) -> None:
    path = tmp_path / "scan.png"
    data.tofile(path)
    ended = run("view", path, *RAW_OPTIONS, "-o", path, "--overwrite")
    assert ended.status == 1
    assert "this is the file that is to be read" in ended.complaint()
    assert path.read_bytes() == data.tobytes()


# --- convert ---


def test_convert_writes_the_same_data(run: Any, raw: Path, tmp_path: Path, data: Any) -> None:
    ended = run("convert", raw, tmp_path / "out.npy", *RAW_OPTIONS)
    assert ended.status == 0
    assert "wrote" in ended.out
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), data)
    known = run(
        "convert", raw, tmp_path / "out.h5", *RAW_OPTIONS, "--option", "compression=gzip", "--json"
    ).json()
    assert known["n_bytes"] == (tmp_path / "out.h5").stat().st_size
    with Context.make_with("inline") as ctx:
        again = ctx.load("auto", path=tmp_path / "out.h5")
        assert tuple(again.shape) == data.shape
        np.testing.assert_array_equal(again[4, 6], data[4, 6])


def test_convert_changes_the_dtype(run: Any, npy: Path, tmp_path: Path, data: Any) -> None:
    assert run("convert", npy, tmp_path / "out.npy", "--dtype", "float32").status == 0
    assert np.load(tmp_path / "out.npy").dtype == np.float32


def test_convert_does_not_overwrite_unless_told(run: Any, npy: Path, tmp_path: Path, data: Any) -> None:
    (tmp_path / "out.npy").write_bytes(b"precious")
    ended = run("convert", npy, tmp_path / "out.npy")
    assert ended.status == 1
    assert "exists already (use --overwrite to replace it)" in ended.complaint()
    assert (tmp_path / "out.npy").read_bytes() == b"precious"
    assert run("convert", npy, tmp_path / "out.npy", "--overwrite").status == 0
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), data)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("out.xyz", [], "xyz"),
        ("out", [], "out"),
        ("none/out.npy", [], "none"),
        ("out.npy", ["--dtype", "colour"], "colour"),
        ("out.npy", ["--option", "colour=red"], "colour"),
    ],
)
def test_convert_says_what_it_cannot_write(
    run: Any, npy: Path, tmp_path: Path, name: str, options: list[str], message: str
) -> None:
    ended = run("convert", npy, tmp_path / name, *options)
    assert ended.status == 1
    assert message in ended.complaint()
    assert [p.name for p in tmp_path.iterdir()] == ["scan.npy"]


def test_convert_never_replaces_the_data(run: Any, npy: Path) -> None:
    before = npy.read_bytes()
    ended = run("convert", npy, npy, "--overwrite")
    assert ended.status == 1
    assert "this is the file that is to be read" in ended.complaint()
    assert npy.read_bytes() == before


# --- check ---


def test_check_finds_no_damage_where_there_is_none(run: Any, npy: Path) -> None:
    ended = run("check", npy)
    assert ended.status == 0
    assert "read 35 of 35 frames" in ended.out
    assert ended.out.splitlines()[-1] == "no damage found"
    assert run("check", npy, "--json").json()["findings"] == []


def test_check_finds_what_is_no_number(run: Any, tmp_path: Path, data: Any) -> None:
    values = data.astype(np.float32)
    values[1, 2, 3, 4] = np.nan
    values[1, 3, :2, 4] = np.inf
    values[4, 6] = -np.inf
    np.save(tmp_path / "x.npy", values)
    ended = run("check", tmp_path / "x.npy")
    assert ended.status == 1
    assert (
        "DAMAGE   195 pixels NaN or infinite, in 3 frames: 9-10, 34; the first at scan position (1, 2)"
        in ended.out
    )
    assert ended.out.splitlines()[-1] == "damaged"
    (finding,) = run("check", tmp_path / "x.npy", "--json").json()["findings"]
    assert (finding["kind"], finding["frames"]) == ("not finite", [[9, 11], [34, 35]])


def test_check_tells_blank_and_saturated_frames(run: Any, tmp_path: Path, data: Any) -> None:
    data[0, :3] = 0
    data[3, 1, :2, 0] = 4095
    np.save(tmp_path / "x.npy", data)
    ended = run("check", tmp_path / "x.npy")
    assert ended.status == 0
    assert "note     3 frames blank: all pixels are zero: 0-2; the first at scan position (0, 0)" in ended.out
    assert "2 pixels may be saturated: their value, 4095, looks like a limit; in 1 frame: 22" in ended.out
    data[3, 1, :2, 0] = 65535
    np.save(tmp_path / "x.npy", data)
    assert "65535, is the largest that uint16 can hold" in run("check", tmp_path / "x.npy").out


def test_check_tells_frames_that_the_files_lack(run: Any, npy: Path) -> None:
    ended = run("check", npy, "--param", "sync_offset=-3")
    assert ended.status == 0
    assert "note     3 frames not in the files: 0-2" in ended.out
    assert "note     3 frames at the end of the files not part of the data set" in ended.out
    assert "read 32 of 35 frames" in ended.out


def test_frames_that_the_header_promises_and_the_file_lacks_are_damage(run: Any, tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(1, 200, size=(4, 16, 16), dtype=np.uint8)
    path = write_blo(tmp_path / "x.blo", [frames], (2, 3))
    ended = run("check", path)
    assert ended.status == 1
    assert "DAMAGE   2 frames not in the files: 4-5; the first at scan position (1, 1)" in ended.out
    assert run("check", path, "--nav-shape", "2,3").out.count("note     2 frames not in the files") == 1


def test_check_names_the_frames_of_a_broken_chunk_and_reads_the_others(
    run: Any, tmp_path: Path, data: Any
) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("data", data=data, chunks=(1, 2, 16, 12), compression="gzip")
        place = dataset.id.get_chunk_info_by_coord((2, 4, 0, 0))
    with open(path, "r+b") as file:
        file.seek(place.byte_offset)
        file.write(bytes(place.size))
    ended = run("check", path)
    assert ended.status == 1
    assert "DAMAGE   2 frames cannot be read: 18-19; the first at scan position (2, 4)" in ended.out
    assert "read 33 of 35 frames" in ended.out
    (finding,) = run("check", path, "--json").json()["findings"]
    assert (finding["kind"], finding["frames"]) == ("unreadable", [[18, 20]])
    assert len(finding["details"]) >= 1


def test_warnings_of_loading_are_shown_and_make_check_fail(
    run: Any, npy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import warnings

    from libertem.io.dataset.npy import NPYDataSet

    real = NPYDataSet.initialize

    def initialize(self: Any, executor: Any) -> Any:
        for _ in range(2):
            warnings.warn("frames 3-4 are missing", RuntimeWarning, stacklevel=2)
        return real(self, executor)

    monkeypatch.setattr(NPYDataSet, "initialize", initialize)
    ended = run("info", npy)
    assert (ended.status, ended.err) == (0, "libertem: warning: frames 3-4 are missing\n")
    assert run("info", npy, "--quiet").err == ""
    assert run("info", npy, "--json").json()["notices"] == ["frames 3-4 are missing"]
    ended = run("check", npy)
    assert (ended.status, ended.err) == (1, "")
    assert "WARNING  frames 3-4 are missing" in ended.out


@pytest.mark.filterwarnings("ignore:the data set changed the tile shape")
@pytest.mark.parametrize("dtype", ["uint8", "int32", "float64", "complex64", "bool", ">u2"])
@pytest.mark.parametrize("sig_dims", [1, 2, 3])
def test_extremes_are_those_of_numpy_whatever_the_tiles(dtype: str, sig_dims: int) -> None:
    from libertem.interact.checking import CheckUDF

    values = np.random.default_rng(1).integers(0, 9, size=(3, 4, 16, 12)).astype(dtype)
    moduli = np.abs(values) if values.dtype.kind == "c" else values
    axes = tuple(range(4 - sig_dims, 4))
    tileshape = {1: (3, 5), 2: (3, 5, 12), 3: (1, 1, 5, 12)}[sig_dims]
    with Context.make_with("inline") as ctx:
        ds = ctx.load("memory", data=values, sig_dims=sig_dims, tileshape=tileshape, num_partitions=2)
        found = ctx.run_udf(dataset=ds, udf=CheckUDF())
    np.testing.assert_array_equal(found["low"].data, moduli.min(axis=axes))
    np.testing.assert_array_equal(found["high"].data, moduli.max(axis=axes))
    counts = (moduli == moduli.max(axis=axes, keepdims=True)).sum(axis=axes)
    np.testing.assert_array_equal(found["n_high"].data, counts)
    assert found["was_read"].data.all()


def test_a_disk_that_is_broken_everywhere_does_not_take_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    from libertem.interact import checking

    attempts = []

    class Broken:
        """A context in which every run fails."""

        def run_udf(self, **kwargs: Any) -> Any:
            attempts.append(kwargs["roi"])
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(checking, "MOST_ATTEMPTS", 20)
    with Context.make_with("inline") as ctx:
        ds = ctx.load("memory", data=np.zeros((100, 100, 2, 2), dtype=np.uint8), sig_dims=2)
        report = checking.check(Broken(), ds)
    assert len(attempts) < 60
    (finding,) = report.findings
    assert finding.frames == ((0, 10_000),)
    assert finding.text == "10000 frames cannot be read"
    assert report.worst == "damage"
    assert "Input/output error" in finding.details[0]


def test_runs_are_half_open() -> None:
    assert runs_of(np.array([True, True, False, True])) == ((0, 2), (3, 4))
    assert runs_of(np.zeros(3, dtype=bool)) == ()


def test_json_has_no_numbers_that_json_does_not_know() -> None:
    from libertem.cli.opening import _plain

    assert json.loads(json.dumps(_plain({"a": [float("nan"), (1, float("inf"))]}), allow_nan=False)) == {
        "a": [None, [1, None]]
    }
