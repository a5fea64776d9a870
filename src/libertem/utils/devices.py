"""Find the processors that this process may compute on."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import TypedDict

__all__ = ["Devices", "detect", "detect_cpus", "detect_cudas", "has_cupy"]

_CPU_TOPOLOGY = Path("/sys/devices/system/cpu")
_CGROUP_MEMBERSHIP = Path("/proc/self/cgroup")
_CGROUP_MOUNT = Path("/sys/fs/cgroup")


class Devices(TypedDict):
    """What `detect` found."""

    cpus: list[int]
    cudas: list[int]
    has_cupy: bool


def detect() -> Devices:
    """Find the devices that this process may use.

    Returns
    -------
    dict
        ``cpus``: one logical CPU per physical core, from those the process may run on, and no more of them
        than a container's CPU quota pays for. ``cudas``: ids of the visible CUDA devices, empty without a
        driver. ``has_cupy``: see `has_cupy`.
    """
    return {"cpus": detect_cpus(), "cudas": detect_cudas(), "has_cupy": has_cupy()}


@functools.cache
def has_cupy() -> bool:
    """Whether CuPy can be imported and can allocate memory. Found out once per process."""
    # Without a device there is nothing to warn about, and the slow import would be for nothing.
    if not detect_cudas():
        return False
    try:
        import_module("cupy").zeros(1)
    except ModuleNotFoundError as err:
        if err.name == "cupy":
            return False
        _warn_about_cupy(err)
        return False
    # Anything at all comes out of a CuPy that does not fit its driver, its CUDA libraries or NumPy, and
    # none of it may stop a computation on the CPU.
    except Exception as err:
        _warn_about_cupy(err)
        return False
    return True


def _warn_about_cupy(err: Exception) -> None:
    # 3: the caller of has_cupy()
    warnings.warn(
        f"CuPy is installed but does not work, computing without it: {err!r}", RuntimeWarning, stacklevel=3
    )


def detect_cpus() -> list[int]:
    """One logical CPU per core that this process may use; a small part of the work of `detect`."""
    allowed = _allowed_cpus()
    cores = _one_cpu_per_core(allowed, _CPU_TOPOLOGY)
    quota = _cgroup_cpu_quota(_CGROUP_MEMBERSHIP, _CGROUP_MOUNT)
    return cores if quota is None else cores[: max(1, int(quota))]


def _allowed_cpus() -> list[int]:
    # Linux only.
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _one_cpu_per_core(cpus: list[int], topology: Path) -> list[int]:
    """Keep the first of the logical CPUs that share a core."""
    try:
        siblings = [(topology / f"cpu{cpu}/topology/thread_siblings_list").read_text() for cpu in cpus]
    except OSError:
        import psutil

        return cpus[: psutil.cpu_count(logical=False) or len(cpus)]
    first_of_core: dict[str, int] = {}
    for cpu, core in zip(cpus, siblings, strict=True):
        first_of_core.setdefault(core, cpu)
    return list(first_of_core.values())


def _cgroup_cpu_quota(membership: Path, mount: Path) -> float | None:
    """CPU time per time that the control groups of this process are allowed, ``None`` for any amount.

    A group is bound by its own quota and by those of all groups around it. Inside a container the paths in
    `membership` may be those of the host, of which only the root is mounted: it is an ancestor too.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    quotas = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # Version 2 has a single hierarchy and names no controllers.
        root = mount / controllers
        read = _read_quota_v1 if controllers else _read_quota_v2
        inner = root / group.lstrip("/")
        for folder in (inner, *inner.parents):
            quota = read(folder)
            if quota is not None:
                quotas.append(quota)
            if folder == root:
                break
    return min(quotas, default=None)


def _read_quota_v2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _read_quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 else None


def detect_cudas() -> list[int]:
    """Ids of the visible CUDA devices."""
    # The driver itself is asked, which takes no package and, without a driver, no time. Its numbering
    # honours CUDA_VISIBLE_DEVICES.
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return []
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return []
    return list(range(count.value))
