"""The benchmarks run, and hide nothing. No test looks at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from benchmarks.cases import CASES, Case, select
from benchmarks.inputs import INPUTS, prepare, prepare_sparse, remove_inputs
from benchmarks.limit import CopyLimit
from benchmarks.measure import Plan, compare, measure_case
from benchmarks.rows import ALL_CORES, LIMIT, REFERENCE, Row, part
from benchmarks.table import as_markdown
from benchmarks.targets import as_fast_as, at_most_of_full_run, at_most_sum, four_times_reference_or_limit
from benchmarks.workloads import WORKLOADS

ROOT = Path(__file__).parents[2]
TINY = 1 << 18
PLAN = Plan(rounds=2, more_rounds=0)


class FakeLibrary:
    """Answers like a worker, with results that a test chooses."""

    pid = os.getpid()

    def __init__(self, result: float) -> None:
        self.result = result

    def open(self, executor: str, filetype: str, io_backend: str | None, arguments: dict[str, Any]) -> None:
        pass

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


def measure_with_fakes(tmp_path: Path, ours: float, theirs: float) -> Row:
    prepared = prepare(INPUTS["u16-64"], TINY, tmp_path)
    case = case_named("sum/u16-64/mmap")
    return measure_case(case, prepared, FakeLibrary(ours), FakeLibrary(theirs), PLAN, tmp_path)


def test_results_that_differ_from_the_reference_are_reported(tmp_path: Path) -> None:
    row = measure_with_fakes(tmp_path, 1.0, 1.1)
    assert not row.is_sound
    assert "RESULTS DISAGREE: intensity (reference)" in as_markdown([row], {}, [])


def test_equal_results_are_not_remarked_upon(tmp_path: Path) -> None:
    row = measure_with_fakes(tmp_path, 1.0, 1.000001)
    assert row.is_sound
    assert "DISAGREE" not in row.verdict
    assert row.speed_against(REFERENCE) == 1


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
    size = prepared.path.stat().st_size
    assert size == prepared.nbytes >= TINY
    marked = b"mark" + prepared.path.read_bytes()[4:]
    prepared.path.write_bytes(marked)
    prepare(INPUTS["u16-64"], TINY, tmp_path)
    assert prepared.path.read_bytes() == marked
    prepared.path.write_bytes(marked[:-1])
    prepare(INPUTS["u16-64"], TINY, tmp_path)
    assert prepared.path.read_bytes() != marked
    assert prepared.path.stat().st_size == size


def test_big_endian_npy_and_mrc_inputs_hold_the_same_numbers_as_raw_ones(tmp_path: Path) -> None:
    name_of = {"raw": "u16-256", "swapped": "u16be-256", "npy": "npy-u16-256", "mrc": "mrc-u16-256"}
    prepared = {kind: prepare(INPUTS[name], 1 << 20, tmp_path) for kind, name in name_of.items()}
    shape = (*prepared["raw"].nav_shape, 256, 256)
    expected = np.fromfile(prepared["raw"].path, dtype="<u2").reshape(shape)
    np.testing.assert_array_equal(np.fromfile(prepared["swapped"].path, dtype=">u2").reshape(shape), expected)
    np.testing.assert_array_equal(np.load(prepared["npy"].path), expected)
    with mrcfile.mmap(prepared["mrc"].path) as file:
        np.testing.assert_array_equal(file.data.reshape(shape), expected)


def test_only_inputs_are_removed(tmp_path: Path) -> None:
    prepare(INPUTS["u16-64"], TINY, tmp_path)
    (tmp_path / "mine").mkdir()
    remove_inputs(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.skipif(sys.platform == "win32", reason="files are not sparse by default")
def test_large_files_take_no_room(tmp_path: Path) -> None:
    prepared = prepare_sparse(INPUTS["u16-256"], 20_000_000_000, TINY, tmp_path)
    assert prepared.path.stat().st_size == 20_000_000_000
    assert prepared.path.stat().st_blocks * 512 < TINY


@pytest.mark.parametrize("size", [1, 1000, (1 << 19) * 3 + 5])
def test_the_limit_reads_whole_rows_of_files_of_any_size(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(size))
    limit = CopyLimit(path, threads=2)
    assert limit.measure() > 0
    assert size - limit.nbytes < min(size, 1 << 19)
    limit.close()
