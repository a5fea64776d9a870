"""The benchmarks run, and hide nothing. No test looks at a time."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from benchmarks.cases import CASES, Case, select
from benchmarks.client import WorkerError
from benchmarks.decode_limit import DecodeLimit
from benchmarks.formats import references
from benchmarks.frames import Frames
from benchmarks.inputs import INPUTS, Prepared, prepare, prepare_sparse
from benchmarks.limit import CopyLimit
from benchmarks.measure import Plan, compare, measure_case
from benchmarks.opening import measure_opening, opening_cases
from benchmarks.rows import ALL_CORES, LIMIT, REFERENCE, Row, part
from benchmarks.storage import remove_inputs
from benchmarks.table import as_markdown
from benchmarks.targets import (
    as_fast_as,
    at_most_of_full_run,
    at_most_sum,
    four_times_reference_or_limit,
    three_times_reference,
)
from benchmarks.worker import Session
from benchmarks.workloads import WORKLOADS

from benchmarks import dask_arrays, decode_limit

ROOT = Path(__file__).parents[2]
TINY = 1 << 18
PLAN = Plan(rounds=2, more_rounds=0)


class FakeLibrary:
    """Answers like a worker, with results that a test chooses."""

    pid = os.getpid()

    def __init__(self, result: float) -> None:
        self.result = result

    def open(
        self,
        executor: str,
        filetype: str,
        io_backend: str | None,
        arguments: dict[str, Any],
        corrections: Path | None = None,
    ) -> float:
        return 0.5

    def forget(self) -> None:
        pass

    def run(self, executor: str, workload: str, save: Path | None = None) -> float:
        if save is not None:
            np.savez(save, intensity=np.full((3, 4), self.result))
        return 0.25


def case_named(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def test_the_command_prints_one_table_and_writes_all_samples(tmp_path: Path) -> None:
    names = ["sum/u16-64/mmap", "com/npy-u16-256/mmap"]
    options = [option for name in names for option in ("--cases", name)]
    command = [sys.executable, "-m", "benchmarks", *options, "--size", "0.001", "--rounds", "2"]
    output = tmp_path / "out.json"
    variables = {name: value for name, value in os.environ.items() if name != "REFERENCE_PYTHON"}
    done = subprocess.run(
        [*command, "--data-dir", tmp_path / "data", "--out", output, "--clean"],
        cwd=ROOT,
        env=variables,
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows[1:]] == [f"| {name}" for name in names]
    assert all(row.count(" | ") == rows[0].count(" | ") for row in rows)
    assert "Not a measurement" in done.stdout
    assert str(tmp_path) not in done.stdout
    data = json.loads(output.read_text())
    assert all(len(row["seconds"]["all_cores"]) >= 2 and row["sound"] for row in data["rows"])
    assert list((tmp_path / "data").iterdir()) == []


def test_the_library_is_not_measured_against_itself() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--cases", "sum/u16-64/mmap"],
        cwd=ROOT,
        env={**os.environ, "REFERENCE_PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "not with the reference" in done.stderr


class BrokenLibrary(FakeLibrary):
    """Refuses all files."""

    def open(self, *args: Any) -> float:
        raise WorkerError("OSError: no")


def measure_with_fakes(
    tmp_path: Path, ours: float, reference: FakeLibrary, name: str = "sum/u16-64/mmap"
) -> Row:
    case = case_named(name)
    prepared = prepare(case.source, TINY, tmp_path)
    return measure_case(case, prepared, FakeLibrary(ours), reference, PLAN, tmp_path)


def test_results_that_differ_from_the_reference_are_reported(tmp_path: Path) -> None:
    row = measure_with_fakes(tmp_path, 1.0, FakeLibrary(1.1))
    assert not row.is_sound
    assert "RESULTS DISAGREE: intensity (reference)" in as_markdown([row], {}, [])


def test_equal_results_are_not_remarked_upon(tmp_path: Path) -> None:
    row = measure_with_fakes(tmp_path, 1.0, FakeLibrary(1.000001))
    assert row.is_sound
    assert "DISAGREE" not in row.verdict
    assert row.speed_against(REFERENCE) == 1


def test_known_defects_of_the_reference_are_remarks(tmp_path: Path) -> None:
    row = measure_with_fakes(tmp_path, 1.0, FakeLibrary(1.1), "sum/mib-r24/mmap")
    assert row.is_sound
    assert row.reference_fails
    assert f"reference is wrong: {INPUTS['mib-r24'].reference_defect}" in row.verdict
    assert row.speed_against(REFERENCE) == 1


def test_a_reference_that_fails_is_a_remark(tmp_path: Path) -> None:
    row = measure_with_fakes(tmp_path, 1.0, BrokenLibrary(0), "sum/mib-r1/mmap")
    assert row.is_sound
    assert row.reference_fails
    assert "reference failed: OSError: no" in row.verdict
    assert row.speed_against(REFERENCE) is None


def test_opening_shares_its_rounds_between_cases(tmp_path: Path) -> None:
    cases = opening_cases(["mib-files"])
    prepared = prepare(INPUTS["mib-files"], TINY, tmp_path)
    libraries = {ALL_CORES: FakeLibrary(1.0), REFERENCE: BrokenLibrary(1.0)}
    load, again = measure_opening(cases, prepared, libraries, 3, tmp_path)
    assert load.seconds == {ALL_CORES: [0.5] * 3}
    assert again.seconds == {ALL_CORES: [0.25] * 3}
    assert load.target == "seconds"
    assert load.verdict == "met; reference failed: OSError: no"
    assert again.verdict == "met; reference failed: OSError: no"


def test_loading_is_measured_even_if_reading_fails(tmp_path: Path) -> None:
    class Unreadable(FakeLibrary):
        def run(self, *args: Any, **kwargs: Any) -> float:
            raise WorkerError("OSError: Too many open files")

    prepared = prepare(INPUTS["mib-files"], TINY, tmp_path)
    libraries = {ALL_CORES: FakeLibrary(1.0), REFERENCE: Unreadable(1.0)}
    load, again = measure_opening(opening_cases(["mib-files"]), prepared, libraries, 2, tmp_path)
    assert load.seconds == {ALL_CORES: [0.5] * 2, REFERENCE: [0.5] * 2}
    assert load.verdict == "met"
    assert again.seconds == {ALL_CORES: [0.25] * 2}
    assert again.verdict == "met; reference failed: OSError: Too many open files"


def test_opening_reports_results_that_differ_from_the_reference(tmp_path: Path) -> None:
    prepared = prepare(INPUTS["dm-stack"], TINY, tmp_path)
    libraries = {ALL_CORES: FakeLibrary(1.0), REFERENCE: FakeLibrary(1.1)}
    (row,) = measure_opening(opening_cases(["dm-stack"]), prepared, libraries, 1, tmp_path)
    assert row.disagreements == ["intensity (reference)"]


@pytest.mark.parametrize("other", [{"x": np.ones(3)}, {"x": np.ones(2), "y": np.ones(1)}, {}])
def test_missing_additional_and_misshapen_results_differ(
    tmp_path: Path, other: dict[str, np.ndarray[Any, Any]]
) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones(2))
    np.savez(tmp_path / "b.npz", **other)
    assert compare(tmp_path / "a.npz", tmp_path / "b.npz", 0.1) != []


def test_missed_targets_are_named() -> None:
    checks = (as_fast_as(LIMIT, 0.8), as_fast_as(REFERENCE, 4))
    row = Row("x", unit="GB/s", checks=checks, seconds={ALL_CORES: [1.0], LIMIT: [0.9], REFERENCE: [2.0]})
    assert row.verdict == "**missed**: ≥ 4 x reference"


def test_what_was_not_measured_is_not_decided() -> None:
    checks = (as_fast_as(LIMIT, 0.8), as_fast_as(REFERENCE, 4))
    row = Row("x", unit="GB/s", checks=checks, seconds={ALL_CORES: [1.0], LIMIT: [0.9]})
    assert row.verdict == "met; not decided: ≥ 4 x reference"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({LIMIT: [1.0]}, True),
        ({LIMIT: [0.9], REFERENCE: [4.0]}, True),
        ({LIMIT: [0.9], REFERENCE: [3.9]}, False),
        ({LIMIT: [0.9]}, None),
    ],
)
def test_four_times_the_reference_is_not_asked_for_at_the_limit(
    seconds: dict[str, list[float]], expected: bool | None
) -> None:
    row = Row("x", unit="GB/s", seconds={ALL_CORES: [1.0], **seconds})
    assert four_times_reference_or_limit.holds(row) is expected


@pytest.mark.parametrize(
    ("seconds", "fails", "expected"),
    [
        ({LIMIT: [0.1], REFERENCE: [3.0]}, False, True),
        ({LIMIT: [1.0], REFERENCE: [2.9]}, False, False),
        ({LIMIT: [1.0]}, False, None),
        ({LIMIT: [0.4]}, True, True),
        ({LIMIT: [0.3], REFERENCE: [9.0]}, True, False),
    ],
)
def test_the_limit_replaces_a_reference_that_fails(
    seconds: dict[str, list[float]], fails: bool, expected: bool | None
) -> None:
    row = Row("x", unit="GB/s", seconds={ALL_CORES: [1.0], **seconds}, reference_fails=fails)
    assert three_times_reference.holds(row) is expected


def test_runs_are_compared_with_their_parts() -> None:
    row = Row("x", unit="ms", seconds={ALL_CORES: [2.0], part("sum"): [1.0], part("std"): [0.95]})
    assert at_most_sum(("sum", "std"), 1.05).holds(row) is True
    assert at_most_sum(("sum", "std"), 1).holds(row) is False
    assert at_most_sum(("sum", "com"), 1).holds(row) is None
    assert at_most_of_full_run("sum", 1.99).holds(row) is False


def test_a_median_and_its_spread_come_from_all_samples() -> None:
    row = Row("x", unit="s", seconds={ALL_CORES: [1.0, 4.0, 2.0]})
    assert (row.median(ALL_CORES), row.spread(ALL_CORES)) == (2.0, 1.5)


def test_names_of_cases_are_unique_and_their_workloads_exist() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert {workload for case in CASES for workload in (case.workload, *case.parts)} <= set(WORKLOADS)


def test_optional_cases_are_measured_only_if_asked_for() -> None:
    assert not any(case.optional for case in select([]))
    assert [case.name for case in select(["sum/u16-256/mmap-cold"])] == ["sum/u16-256/mmap-cold"]


def test_complete_inputs_are_used_again_and_damaged_ones_written_anew(tmp_path: Path) -> None:
    prepared = prepare(INPUTS["u16-64"], TINY, tmp_path)
    (path,) = prepared.paths
    size = path.stat().st_size
    assert size == prepared.nbytes >= TINY
    marked = b"mark" + path.read_bytes()[4:]
    path.write_bytes(marked)
    prepare(INPUTS["u16-64"], TINY, tmp_path)
    assert path.read_bytes() == marked
    path.write_bytes(marked[:-1])
    prepare(INPUTS["u16-64"], TINY, tmp_path)
    assert path.read_bytes() != marked
    assert path.stat().st_size == size


def test_inputs_that_could_not_be_written_leave_nothing_behind(tmp_path: Path) -> None:
    def write(frames: Frames, nav_shape: tuple[int, int], home: Path) -> None:
        (home / "scan.raw").write_bytes(b"begun")
        raise OSError("No space left on device")

    source = INPUTS["u16-64"]
    broken = replace(source, format=replace(source.format, write=write))
    with pytest.raises(OSError, match="No space left"):
        prepare(broken, TINY, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_inputs_that_were_not_used_for_longest_make_room(tmp_path: Path) -> None:
    names = ["u16-64", "u8-256", "npy-u16-256"]
    homes = {name: prepare(INPUTS[name], TINY, tmp_path).paths[0].parent for name in names}
    for age, name in enumerate(["u8-256", "u16-64", "npy-u16-256"]):
        os.utime(homes[name], (10**9 + age, 10**9 + age))
    prepare(INPUTS["u8-256"], TINY, tmp_path)
    prepare(INPUTS["mrc-u16-256"], TINY, tmp_path, disk_bytes=6 * TINY)
    assert [name for name in names if homes[name].exists()] == ["u8-256", "npy-u16-256"]


def test_frames_are_the_same_one_by_one_and_together() -> None:
    frames = Frames((64, 64), "<u2", 2500, 6)
    together = np.concatenate(list(frames.slabs(1 << 20)))
    np.testing.assert_array_equal(np.stack(list(frames)), together)
    assert together.max() < 64
    assert len({frame.tobytes() for frame in together[[0, 1, 2047, 2048, 2049]]}) == 5


@pytest.mark.parametrize("name", INPUTS)
def test_every_input_can_be_prepared_and_processed(name: str, tmp_path: Path) -> None:
    """All workloads of the table run on it, and the sum is that of the frames that were written."""
    source = INPUTS[name]
    prepared = prepare(source, TINY, tmp_path)
    stored = sum(path.stat().st_size for path in prepared.paths)
    assert stored <= 1.1 * prepared.nbytes
    assert stored >= prepared.nbytes or source.kind == "compressed"
    corrections = None if prepared.corrections is None else str(prepared.corrections)
    with closing(Session()) as session:
        session.open("inline", source.filetype, None, prepared.arguments, corrections)
        for workload in {case.workload for case in CASES if case.source is source} | {"sum"}:
            session.run("inline", workload, save=str(tmp_path / f"{workload}.npz"))
    with np.load(tmp_path / "sum.npz") as results:
        np.testing.assert_allclose(results["0.intensity"], expected_sum(prepared), rtol=1e-5, atol=0.05)


def expected_sum(prepared: Prepared) -> np.ndarray[Any, Any]:
    source, n_frames = prepared.source, math.prod(prepared.nav_shape)
    if source.kind == "sparse":
        values, columns = (np.fromfile(prepared.paths[i], dtype=d) for i, d in ((0, "<f4"), (1, "<i4")))
        return np.bincount(columns, values, minlength=math.prod(source.sig_shape)).reshape(source.sig_shape)
    frames = Frames(source.sig_shape, source.dtype, n_frames, source.bits)
    total = np.sum(list(frames), axis=0, dtype=np.float64)
    dark, gain = references(frames)
    if source.filetype == "frms6":
        return total - n_frames * dark
    if source.kind != "corrected":
        return total
    corrected = (total - n_frames * dark) * gain
    if prepared.corrections is not None:
        with np.load(prepared.corrections) as arrays:
            excluded = np.zeros(source.sig_shape, dtype=bool)
            excluded[tuple(arrays["excluded"])] = True
        repair(corrected, excluded)
    return corrected


def repair(image: np.ndarray[Any, Any], excluded: np.ndarray[Any, Any]) -> None:
    for y, x in np.argwhere(excluded):
        window = slice(max(0, y - 1), y + 2), slice(max(0, x - 1), x + 2)
        image[y, x] = image[window][~excluded[window]].mean()


def test_targets_follow_from_what_has_to_be_done_with_the_pixels() -> None:
    expected = {
        "sum/mib-u8/mmap": "≥ 0.5 x limit",
        "com/hdf5-u16-256/mmap": "≥ 0.8 x limit; ≥ min(4 x reference, 1 x limit)",
        "sum/hdf5-gzip-shuffle-sig/mmap": "≥ 3 x reference, or 0.4 x limit where it fails",
        "masks4/hdf5-bslz4/mmap": "≥ 3 x reference, or 0.4 x limit where it fails",
        "sum/arina-u16-192/mmap": "≥ 3 x reference, or 0.4 x limit where it fails",
        "sum/hdf5-lzf/mmap": "",
        "pick/hdf5-bslz4-16/mmap": "≤ 5 ms",
        "sum/mib-u32/mmap": "≥ 0.8 x limit; ≥ min(4 x reference, 1 x limit)",
        "sum/mib-quad-r6/mmap": "≥ 3 x reference, or 0.4 x limit where it fails",
        "sumsig/k2is/mmap": "≥ 3 x reference, or 0.4 x limit where it fails",
        "com/frms6/mmap": "≥ 3 x reference, or 0.4 x limit where it fails",
        "com/seq-u16-256/mmap": "≥ 0.5 x limit",
        "masks4/corrected-u16-256/mmap": "≥ 0.5 x limit",
        "sum/blo-u8-256/mmap": "≥ 0.5 x limit",
        "masks100/csr-1pct/mmap": "≥ 4 x reference",
    }
    assert {name: Row("x", unit="", checks=case_named(name).checks).target for name in expected} == expected


def test_big_endian_npy_and_mrc_inputs_hold_the_same_numbers_as_raw_ones(tmp_path: Path) -> None:
    name_of = {"raw": "u16-256", "swapped": "u16be-256", "npy": "npy-u16-256", "mrc": "mrc-u16-256"}
    prepared = {kind: prepare(INPUTS[name], 1 << 20, tmp_path) for kind, name in name_of.items()}
    shape = (*prepared["raw"].nav_shape, 256, 256)
    paths = {kind: one.paths[0] for kind, one in prepared.items()}
    expected = np.fromfile(paths["raw"], dtype="<u2").reshape(shape)
    np.testing.assert_array_equal(np.fromfile(paths["swapped"], dtype=">u2").reshape(shape), expected)
    np.testing.assert_array_equal(np.load(paths["npy"]), expected)
    with mrcfile.mmap(paths["mrc"]) as file:
        np.testing.assert_array_equal(file.data.reshape(shape), expected)


def test_only_inputs_are_removed(tmp_path: Path) -> None:
    prepare(INPUTS["u16-64"], TINY, tmp_path)
    (tmp_path / "mine").mkdir()
    remove_inputs(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.skipif(sys.platform == "win32", reason="files are not sparse by default")
def test_large_files_take_no_room(tmp_path: Path) -> None:
    prepared = prepare_sparse(INPUTS["u16-256"], 20_000_000_000, TINY, tmp_path)
    (path,) = prepared.paths
    assert path.stat().st_size == 20_000_000_000
    assert path.stat().st_blocks * 512 < TINY


@pytest.mark.parametrize("name", [name for name in INPUTS if INPUTS[name].kind == "compressed"])
def test_the_limit_decodes_all_chunks(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare(INPUTS[name], TINY, tmp_path)
    sizes = []
    undo = decode_limit._undo

    def count(*args: Any) -> Any:
        sizes.append(undo(*args).size)

    monkeypatch.setattr(decode_limit, "_undo", count)
    limit = DecodeLimit(prepared.paths, threads=2)
    assert limit.measure() > 0
    limit.close()
    assert sum(sizes) == limit.nbytes >= prepared.nbytes


@pytest.mark.parametrize("sizes", [[1], [1000], [(1 << 19) * 3 + 5], [1, 1 << 19, 70_000]])
def test_the_limit_reads_all_of_files_of_any_size(tmp_path: Path, sizes: list[int]) -> None:
    paths = [tmp_path / f"file{number}" for number in range(len(sizes))]
    for path, size in zip(paths, sizes, strict=True):
        path.write_bytes(bytes(size))
    limit = CopyLimit(paths, threads=2)
    assert limit.measure() > 0
    assert limit.nbytes == sum(sizes)
    limit.close()


def test_dask_arrays_are_compared_with_plain_dask(capsys: pytest.CaptureFixture[str]) -> None:
    dask_arrays.main(["--rounds", "1", "--size", "0.01"])
    rows = [line for line in capsys.readouterr().out.splitlines() if "GB/s" in line]
    assert [row.split(":")[0] for row in rows[1:]] == ["| in", "| out"]
