"""How much memory there is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

__all__ = ["available_bytes", "format_bytes"]


def available_bytes() -> int:
    """Memory that can be had without swapping, as limited by the machine, the container or the batch system.

    Cached pages of files count as available: they are given back when somebody needs the memory.
    """
    import psutil

    available = int(psutil.virtual_memory().available)
    # psutil does not look at these limits.
    with suppress(OSError), open("/proc/self/cgroup", encoding="utf-8") as groups:
        for line in groups:
            for left in _left_in_group(line.strip().split(":", 2)[-1]):
                available = min(available, left)
    return available


def _left_in_group(group: str) -> Iterator[int]:
    """What a control group may still take, by either version of their file system."""
    # Inside a container the group is the root of what can be seen, whatever its name is outside.
    for folder, limit, used in (
        (group, "memory.max", "memory.current"),
        ("", "memory.max", "memory.current"),
        (f"/memory{group}", "memory.limit_in_bytes", "memory.usage_in_bytes"),
        ("/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        # ValueError: there is no limit, which is written as "max".
        with suppress(OSError, ValueError):
            numbers = [int(_read(folder, name)) for name in (limit, used)]
            fields = dict(line.split() for line in _read(folder, "memory.stat").splitlines())
            cached = sum(int(fields.get(name, 0)) for name in ("active_file", "inactive_file"))
            yield max(0, numbers[0] - numbers[1] + cached)


def _read(folder: str, name: str) -> str:
    with open(f"/sys/fs/cgroup{folder}/{name}", encoding="ascii") as file:
        return file.read()


def format_bytes(n_bytes: float) -> str:
    """Size as people read it.

    Examples
    --------
    >>> format_bytes(132), format_bytes(3 << 29)
    ('132 bytes', '1.5 GiB')
    """
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if n_bytes < 1024 or unit == "TiB":
            break
        n_bytes /= 1024
    return f"{n_bytes:.0f} {unit}" if unit == "bytes" else f"{n_bytes:.1f} {unit}"
