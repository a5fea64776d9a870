from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from libertem.io.dataset.base.backends.overlap import N_BUFFERS, overlapped

Buffer = npt.NDArray[np.uint8]


def load(plan: int, buffer: Buffer) -> None:
    if plan < 0:
        raise OSError(f"plan {plan} cannot be read")
    buffer[:] = plan


def run(plans: Any) -> Iterator[tuple[int, Buffer]]:
    return overlapped(plans, lambda plan: 100 * abs(plan), load)


def readers() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("libertem-read-ahead")]


def test_plans_come_in_order_with_their_data() -> None:
    sizes = [3, 1, 4, 1, 5, 9, 2, 6]
    seen = []
    for plan, buffer in run(sizes):
        assert (buffer == plan).all()
        assert buffer.size >= 100 * plan
        seen.append(plan)
    assert seen == sizes
    assert readers() == []


def test_memory_is_used_again() -> None:
    addresses = {buffer.ctypes.data for _, buffer in run([5] * 20)}
    assert len(addresses) == N_BUFFERS


def test_no_plans_give_nothing() -> None:
    assert list(run([])) == []


def test_a_failed_read_is_raised_in_its_turn() -> None:
    blocks = run([1, 2, -3, 4])
    assert [next(blocks)[0], next(blocks)[0]] == [1, 2]
    with pytest.raises(OSError, match="plan -3 cannot be read"):
        next(blocks)
    assert readers() == []


def test_a_failed_plan_is_raised() -> None:
    def plans() -> Iterator[int]:
        yield 1
        raise ValueError("no more plans")

    with pytest.raises(ValueError, match="no more plans"):
        list(run(plans()))
    assert readers() == []


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_no_thread_stays_behind_when_the_consumer_leaves(taken: int) -> None:
    blocks = run(range(1, 100))
    for _ in range(taken):
        next(blocks)
    blocks.close()  # type: ignore[attr-defined]  # a generator
    assert readers() == []


def test_no_thread_stays_behind_when_the_consumer_fails() -> None:
    def consume() -> None:
        for _ in run(range(1, 100)):
            raise KeyError("consumer")

    with pytest.raises(KeyError):
        consume()
    assert readers() == []
