from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from libertem.utils import devices
from libertem.utils.devices import detect, has_cupy


@pytest.fixture(autouse=True)
def _forget_cupy() -> Iterator[None]:
    has_cupy.cache_clear()
    yield
    has_cupy.cache_clear()


def pretend_driver(monkeypatch: pytest.MonkeyPatch, n_devices: int, error: int = 0) -> None:
    """Install a CUDA driver that knows the two functions needed."""

    def count_devices(pointer: Any) -> int:
        pointer._obj.value = n_devices
        return 0

    driver = SimpleNamespace(cuInit=lambda flags: error, cuDeviceGetCount=count_devices)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)


def pretend_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", refuse)


def test_this_machine_has_the_documented_facts() -> None:
    found = detect()
    assert set(found) == {"cpus", "cudas", "has_cupy"}
    assert len(set(found["cpus"])) == len(found["cpus"]) >= 1
    assert all(type(cpu) is int for cpu in found["cpus"])
    assert isinstance(found["has_cupy"], bool)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no CPU affinity")
def test_cpus_are_those_the_process_may_run_on() -> None:
    last = max(os.sched_getaffinity(0))
    code = (
        f"import os; os.sched_setaffinity(0, [{last}]);"
        "from libertem.utils.devices import detect; print(detect()['cpus'])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == f"[{last}]"


def test_siblings_on_a_core_count_once(tmp_path: Path) -> None:
    for cpu, siblings in enumerate(["0,2", "1,3", "0,2", "1,3"]):
        folder = tmp_path / f"cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings + "\n")
    assert devices._one_cpu_per_core([0, 1, 2, 3], tmp_path) == [0, 1]
    assert devices._one_cpu_per_core([2, 3], tmp_path) == [2, 3]
    assert devices._one_cpu_per_core([0, 2, 3], tmp_path) == [0, 3]


@pytest.mark.parametrize(("physical", "cores"), [(2, [3, 5]), (8, [3, 5, 7]), (None, [3, 5, 7])])
def test_without_topology_the_number_of_cores_is_a_limit(
    physical: int | None, cores: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: physical)
    assert devices._one_cpu_per_core([3, 5, 7], tmp_path / "missing") == cores


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/", {}, None),
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("0::/", {"cpu.max": "150000 100000"}, 1.5),
        # A group is bound by the groups around it.
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000"}, 2),
        ("0::/a/b", {"a/b/cpu.max": "100000 100000", "a/cpu.max": "200000 100000"}, 1),
        # In a container: the path of the host, of which only the root is mounted.
        ("0::/docker/123", {"cpu.max": "300000 100000"}, 3),
        # Version 1, with its own folder per controller.
        (
            "3:memory:/m\n2:cpu,cpuacct:/a",
            {"cpu,cpuacct/a/cpu.cfs_quota_us": "400000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000"},
            4,
        ),
        ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("5:cpuset:/\n0::/", {"cpuset/cpu.cfs_quota_us": "1", "cpuset/cpu.cfs_period_us": "1"}, None),
        ("0::/", {"cpu.max": "nonsense"}, None),
    ],
)
def test_cpu_quotas_of_control_groups(
    membership: str, files: dict[str, str], quota: float | None, tmp_path: Path
) -> None:
    (tmp_path / "cgroup").write_text(membership + "\n")
    mount = tmp_path / "mount"
    for name, content in files.items():
        (mount / name).parent.mkdir(parents=True, exist_ok=True)
        (mount / name).write_text(content + "\n")
    assert devices._cgroup_cpu_quota(tmp_path / "cgroup", mount) == quota


def test_systems_without_control_groups_have_no_quota(tmp_path: Path) -> None:
    assert devices._cgroup_cpu_quota(tmp_path / "missing", tmp_path) is None


@pytest.mark.parametrize(("quota", "n_cpus"), [(None, 3), (2.9, 2), (0.5, 1), (64.0, 3)])
def test_no_more_cpus_than_the_quota_pays_for(
    quota: float | None, n_cpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "_one_cpu_per_core", lambda cpus, topology: [4, 5, 6])
    monkeypatch.setattr(devices, "_cgroup_cpu_quota", lambda membership, mount: quota)
    assert detect()["cpus"] == [4, 5, 6][:n_cpus]


def test_without_a_driver_there_are_no_cuda_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_no_driver(monkeypatch)
    found = detect()
    assert (found["cudas"], found["has_cupy"]) == ([], False)


def test_cuda_devices_are_counted_by_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    pretend_driver(monkeypatch, n_devices=2)
    assert detect()["cudas"] == [0, 1]


def test_a_driver_that_does_not_start_offers_no_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_driver(monkeypatch, n_devices=2, error=100)
    assert detect()["cudas"] == []


def test_a_working_cupy_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_driver(monkeypatch, n_devices=1)
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(zeros=lambda shape: [0.0] * shape))
    assert has_cupy()


def test_cupy_is_not_even_imported_without_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_no_driver(monkeypatch)
    # Would warn if it was touched.
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace())
    assert not has_cupy()


@pytest.mark.filterwarnings("error")
def test_a_machine_without_cupy_is_nothing_to_warn_about(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretend_driver(monkeypatch, n_devices=1)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert not has_cupy()


@pytest.mark.parametrize(
    "source",
    [
        "raise ImportError('libnvrtc.so.12: cannot open shared object file')",
        "import a_module_that_does_not_exist",
        "raise ValueError('numpy.dtype size changed')",
        "def zeros(shape): raise MemoryError('out of device memory')",
        "",
    ],
)
def test_a_broken_cupy_only_warns(source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cupy.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    pretend_driver(monkeypatch, n_devices=1)
    with pytest.warns(RuntimeWarning, match="CuPy is installed but does not work"):
        found = detect()
    sys.modules.pop("cupy", None)
    assert (found["cudas"], found["has_cupy"]) == ([0], False)
