"""The comparison of executors, and the model of large clusters."""

from __future__ import annotations

import math
import sys
from pathlib import Path

from benchmarks.executor_runs import STEPS
from benchmarks.executors import OURS, as_table, measure_executors, prepare_files
from benchmarks.scaling import Costs, Job, count_batches, n_partitions, predict

COSTS = Costs(message_client=1e-3, byte_client=1e-9, worker_rate=5e9)


def test_an_executor_is_measured_step_by_step(tmp_path: Path) -> None:
    files = prepare_files(tmp_path, 4 << 20)
    (row,) = measure_executors(files, {OURS: sys.executable}, 1, ["ours/inline"])
    assert row.failure is None
    assert list(row.seconds) == list(STEPS)
    assert all(len(samples) == 1 and samples[0] > 0 for samples in row.seconds.values())
    assert row.main_bytes["user-merge"] > 0
    table = as_table([row], {"cores": "2"}, 4 << 20)
    assert "| ours: inline |" in table
    assert "GB/s" in table


def test_there_is_at_least_one_partition_per_worker_and_always_the_same_number() -> None:
    assert n_partitions(Job(1e10, 512)) == 512
    assert n_partitions(Job(1e12, 16)) % 16 == 0
    assert 1e12 / n_partitions(Job(1e12, 16)) <= 256 * 2**20


def test_the_busiest_resource_is_the_limit() -> None:
    assert predict(Job(1e12, 1), COSTS).limit == "workers"
    assert predict(Job(1e12, 1000), COSTS).limit == "main process"
    slow = Costs(worker_rate=5e9, storage_rate=1e9)
    plan = predict(Job(1e12, 16), slow)
    assert plan.limit == "storage"
    assert math.isclose(plan.seconds, 1000, rel_tol=0.01)


def test_twice_the_workers_take_half_the_time_while_they_are_the_limit() -> None:
    one, two = (predict(Job(1e13, n), COSTS).seconds for n in (1, 2))
    assert math.isclose(one, 2 * two, rel_tol=0.01)


def test_batches_cover_all_tasks_with_few_messages() -> None:
    assert count_batches(10, 16, 100) == 10
    assert count_batches(1000, 2, 1) == 1000
    assert count_batches(1000, 2, 100) < 100
    assert count_batches(1000, 2, 100) > 2 * 4
