from __future__ import annotations

import pytest

from libertem.common.scheduler import Scheduler, Worker, WorkerSet

CPU = {"CPU": 1, "compute": 1, "ndarray": 1}
CUDA = {"CUDA": 1, "compute": 1}

cpu_0 = Worker("cpu-0", "first", CPU, 1)
cpu_1 = Worker("cpu-1", "second", CPU, 1)
cuda = Worker("cuda-0", "second", CUDA, 3)
service = Worker("service-0", "first", {}, 1)
everyone = WorkerSet([cpu_0, cpu_1, cuda, service])


def test_a_set_keeps_the_order_of_its_workers() -> None:
    assert list(everyone) == [cpu_0, cpu_1, cuda, service]
    assert everyone.names() == ["cpu-0", "cpu-1", "cuda-0", "service-0"]
    assert len(everyone) == 4
    assert everyone.example() == cpu_0


def test_workers_are_found_by_what_they_offer() -> None:
    assert everyone.has_cpu() == WorkerSet([cpu_0, cpu_1])
    assert everyone.has_cuda() == WorkerSet([cuda])
    assert not WorkerSet([service]).has_cpu()
    assert not WorkerSet([cpu_0]).has_cuda()


def test_workers_are_found_by_host() -> None:
    assert everyone.hosts() == {"first", "second"}
    assert everyone.get_by_host("second") == WorkerSet([cpu_1, cuda])
    assert everyone.group_by_host() == [WorkerSet([cpu_0, service]), WorkerSet([cpu_1, cuda])]


def test_filter_and_extend_leave_the_original_alone() -> None:
    one = WorkerSet([service])
    assert one.extend(WorkerSet([cuda])).names() == ["service-0", "cuda-0"]
    assert one.filter(lambda worker: worker.nthreads > 1) == WorkerSet([])
    assert list(one) == [service]


def test_concurrency_is_the_sum_of_threads() -> None:
    assert everyone.concurrency() == 6
    assert everyone.has_threaded_workers()
    assert not everyone.has_cpu().has_threaded_workers()


def test_workers_and_sets_can_be_dictionary_keys() -> None:
    assert {cpu_0: 1}[Worker("cpu-0", "first", dict(CPU), 1)] == 1
    assert {everyone: 1}[WorkerSet(list(everyone))] == 1


@pytest.mark.parametrize(
    ("workers", "count"),
    [
        ([cpu_0, cpu_1, service], 2),
        ([cpu_0, cpu_1, cuda, service], 3),
        ([cuda, service], 3),
        ([Worker("plain", "first", {}, 4)], 4),
        ([Worker("concurrent", "localhost", {"CPU": 1, "compute": 1}, 2)], 2),
        ([], 0),
    ],
)
def test_effective_count_is_that_of_the_larger_kind_without_services(
    workers: list[Worker], count: int
) -> None:
    assert Scheduler(WorkerSet(workers)).effective_worker_count() == count
