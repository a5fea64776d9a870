"""How much memory there is."""

from __future__ import annotations

import pytest

from libertem.common import memory
from libertem.common.memory import format_bytes


def test_limits_of_containers_count(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "memory.max": "1000000",
        "memory.current": "900000",
        "memory.stat": "anon 1\nactive_file 100000\ninactive_file 50000\n",
    }
    assert memory.available_bytes() > 1 << 20

    def read(folder: str, name: str) -> str:
        if folder or name not in files:
            raise FileNotFoundError(name)
        return files[name]

    monkeypatch.setattr(memory, "_read", read)
    assert memory.available_bytes() == 250_000
    files["memory.max"] = "max"
    assert memory.available_bytes() > 1 << 20


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (5 << 40, "5.0 TiB"),
        (9000 << 40, "9000.0 TiB"),
    ],
)
def test_sizes_are_written_as_people_read_them(n_bytes: int, text: str) -> None:
    assert format_bytes(n_bytes) == text
