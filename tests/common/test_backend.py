from __future__ import annotations

import pytest

from libertem.common.backend import get_device_class, get_use_cpu, get_use_cuda, set_use_cpu, set_use_cuda


@pytest.fixture(autouse=True)
def _nothing_selected(monkeypatch: pytest.MonkeyPatch) -> None:
    # setenv first, so that monkeypatch also undoes what the tests set.
    for name in ("LIBERTEM_USE_CPU", "LIBERTEM_USE_CUDA"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_a_process_is_cpu_worker_0_by_default() -> None:
    assert (get_use_cpu(), get_use_cuda(), get_device_class()) == (0, None, "cpu")


def test_the_variables_are_read_on_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIBERTEM_USE_CPU", "7")
    assert (get_use_cpu(), get_use_cuda(), get_device_class()) == (7, None, "cpu")
    monkeypatch.delenv("LIBERTEM_USE_CPU")
    monkeypatch.setenv("LIBERTEM_USE_CUDA", "3")
    assert (get_use_cpu(), get_use_cuda(), get_device_class()) == (None, 3, "cuda")


def test_selecting_one_kind_deselects_the_other() -> None:
    set_use_cuda(2)
    assert (get_use_cpu(), get_use_cuda()) == (None, 2)
    set_use_cpu(5)
    assert (get_use_cpu(), get_use_cuda()) == (5, None)


def test_both_kinds_at_once_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIBERTEM_USE_CPU", "0")
    monkeypatch.setenv("LIBERTEM_USE_CUDA", "1")
    for getter in (get_use_cpu, get_use_cuda, get_device_class):
        with pytest.raises(RuntimeError, match="at most one of LIBERTEM_USE_CPU and LIBERTEM_USE_CUDA"):
            getter()
