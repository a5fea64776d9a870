from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libertem.common.executor import SimpleMPWorkerQueue, WorkerQueueEmpty
from libertem.exceptions import ExecutorError
from libertem.executor.process_queue import _connect

SPAWN = multiprocessing.get_context("spawn")

LONG = 30.0
"""Seconds; a test that waits for so long has failed."""

Start = Callable[..., BaseProcess]


@pytest.fixture
def queue() -> Iterator[SimpleMPWorkerQueue]:
    made = SimpleMPWorkerQueue()
    yield made
    made.close()


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a process that runs some code with `queue` and `sys`; it is gone at the end of the test."""
    started: list[BaseProcess] = []

    def start_one(queue: SimpleMPWorkerQueue, code: str) -> BaseProcess:
        # Can be pickled, which functions of a test module cannot.
        process = SPAWN.Process(target=exec, args=(dedent(code), {"queue": queue, "sys": sys.platform}))
        process.start()
        started.append(process)
        return process

    yield start_one
    for process in started:
        process.kill()
        process.join()
        process.close()


def get(queue: SimpleMPWorkerQueue, timeout: float = LONG) -> tuple[Any, Any]:
    with queue.get(timeout=timeout) as (header, payload):
        return header, payload if payload is None else bytes(payload)


def put_often(queue: SimpleMPWorkerQueue) -> None:
    for _ in range(100):
        queue.put({}, bytes(1 << 20))


def other_end(queue: SimpleMPWorkerQueue) -> SimpleMPWorkerQueue:
    """What another process would have, in this one."""
    return _connect(queue._end.hand_over().dup())


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


# --- alone ---


def test_a_queue_that_nobody_else_has_gives_back_what_was_put(queue: SimpleMPWorkerQueue) -> None:
    queue.put({"n": 1}, b"abc")
    queue.put("no payload")
    with queue.put_nocopy({"n": 2}, 3) as target:
        target[:] = b"xyz"
    assert queue.size() == 3
    with queue.get() as (header, payload):
        assert (header, payload, type(payload)) == ({"n": 1}, b"abc", bytes)
    assert get(queue) == ("no payload", None)
    with queue.get() as (header, payload):
        assert (header, bytes(payload), type(payload)) == ({"n": 2}, b"xyz", memoryview)
    assert queue.size() == 0


def test_an_array_arrives_as_its_bytes(queue: SimpleMPWorkerQueue) -> None:
    pixels = np.arange(12, dtype=np.uint16).reshape(3, 4)[:, ::2]
    queue.put({}, memoryview(pixels))
    pixels[:] = 0
    np.testing.assert_array_equal(np.frombuffer(get(queue)[1], np.uint16), [0, 2, 4, 6, 8, 10])


def test_a_number_is_no_payload(queue: SimpleMPWorkerQueue) -> None:
    with pytest.raises(TypeError, match="bytes-like"):
        queue.put({}, 5)


def test_an_empty_queue_says_so_in_time(queue: SimpleMPWorkerQueue) -> None:
    with pytest.raises(WorkerQueueEmpty), queue.get(block=False):
        pass
    begin = time.monotonic()
    with pytest.raises(WorkerQueueEmpty), queue.get(timeout=0.1):
        pass
    assert time.monotonic() - begin >= 0.1


def test_a_message_that_could_not_be_written_is_not_sent(queue: SimpleMPWorkerQueue) -> None:
    with pytest.raises(ZeroDivisionError), queue.put_nocopy({}, 10):
        _ = 1 // 0
    assert queue.size() == 0


def test_a_closed_queue_is_closed(queue: SimpleMPWorkerQueue) -> None:
    queue.put("lost")
    queue.close()
    queue.close()
    assert queue.size() == 0
    with pytest.raises(ExecutorError, match="has been closed"):
        queue.put("more")
    with pytest.raises(ExecutorError, match="has been closed"), queue.put_nocopy("more", 3):
        pass
    with pytest.raises(ExecutorError, match="has been closed"), queue.get():
        pass


def test_closing_ends_a_get_that_waits(queue: SimpleMPWorkerQueue) -> None:
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            get(queue)
        except ExecutorError as err:
            errors.append(err)

    thread = threading.Thread(target=wait)
    thread.start()
    queue.close()
    thread.join(LONG)
    assert "has been closed" in str(errors[0])


@pytest.mark.parametrize("protocol", [2, 5])
def test_it_is_sent_to_a_process_that_starts_and_nowhere_else(
    queue: SimpleMPWorkerQueue, protocol: int
) -> None:
    with pytest.raises(RuntimeError, match="inheritance"):
        pickle.dumps(queue, protocol)


# --- two ends in one process ---


messages = st.lists(st.tuples(st.integers(), st.none() | st.binary(max_size=100), st.booleans()), max_size=20)


@given(messages, st.integers(0, 20))
def test_all_messages_arrive_once_and_in_order(
    sent: list[tuple[int, bytes | None, bool]], n_before: int
) -> None:
    first = SimpleMPWorkerQueue()
    second = None
    for i, (header, payload, nocopy) in enumerate(sent):
        if i == n_before:
            second = other_end(first)
        if nocopy and payload is not None:
            with first.put_nocopy(header, len(payload)) as target:
                target[:] = payload
        else:
            first.put(header, payload)
    if second is None:
        second = other_end(first)
    assert [get(second) for _ in sent] == [(header, payload) for header, payload, _ in sent]
    first.close()
    with pytest.raises(WorkerQueueEmpty, match="closed the queue"), second.get():
        pass
    second.close()


def test_both_ends_know_how_many_messages_wait(queue: SimpleMPWorkerQueue) -> None:
    second = other_end(queue)
    for i in range(5):
        queue.put(i)
    wait_until(lambda: second.size() == 5)
    assert queue.size() == 5
    assert get(second) == (0, None)
    assert second.size() == 4
    wait_until(lambda: queue.size() == 4)
    second.close()
    wait_until(lambda: queue.size() == 0)


def test_nobody_waits_for_whom_if_both_send_much(queue: SimpleMPWorkerQueue) -> None:
    second = other_end(queue)
    large = bytes(8 << 20)
    sender = threading.Thread(target=lambda: [queue.put(i, large) for i in range(4)])
    sender.start()
    for i in range(4):
        second.put(i, large)
    sender.join(LONG)
    assert [get(queue)[0] for _ in range(4)] == [get(second)[0] for _ in range(4)] == [0, 1, 2, 3]
    second.close()


def test_what_was_sent_can_be_taken_after_the_sender_has_closed(queue: SimpleMPWorkerQueue) -> None:
    second = other_end(queue)
    second.put("last", bytes(1 << 20))
    second.close()
    assert get(queue) == ("last", bytes(1 << 20))
    with pytest.raises(WorkerQueueEmpty, match="closed the queue"), queue.get():
        pass
    with pytest.raises(ExecutorError, match="closed the queue"):
        queue.put("nobody takes this")


def test_closing_by_force_cuts_off_a_message(queue: SimpleMPWorkerQueue) -> None:
    # Nobody receives at the other end, so that the connection is full at some time.
    theirs = queue._end.hand_over().dup()
    queue._end._flush()
    errors: list[BaseException] = []

    def send() -> None:
        try:
            queue.put("large", bytes(16 << 20))
        except ExecutorError as err:
            errors.append(err)

    thread = threading.Thread(target=send)
    thread.start()
    thread.join(0.1)
    assert thread.is_alive()
    queue.close(force=True)
    thread.join(LONG)
    assert "has been closed" in str(errors[0])
    theirs.close()


# --- two processes ---


ECHO = """
    while True:
        try:
            with queue.get() as (header, payload):
                if payload is None:
                    queue.put(header)
                elif header["nocopy"]:
                    with queue.put_nocopy(header, len(payload)) as target:
                        target[:] = payload
                else:
                    queue.put(header, payload)
        except Exception as err:
            assert "closed the queue" in str(err), err
            break
"""


def test_messages_of_any_size_reach_another_process_and_come_back(
    queue: SimpleMPWorkerQueue, start: Start
) -> None:
    rng = np.random.default_rng(1)
    queue.put("before it is there")
    process = start(queue, ECHO)
    payloads = [rng.bytes(n) for n in (0, 1, 1 << 15, (1 << 16) - 7, (64 << 20) + 1)]
    for payload in payloads:
        queue.put({"nocopy": False}, payload)
        with queue.put_nocopy({"nocopy": True}, len(payload)) as target:
            target[:] = payload
    assert get(queue) == ("before it is there", None)
    for payload in payloads:
        assert get(queue) == ({"nocopy": False}, payload)
        assert get(queue) == ({"nocopy": True}, payload)
    queue.close()
    process.join(LONG)
    assert process.exitcode == 0


def test_a_reader_that_was_killed_is_noticed(queue: SimpleMPWorkerQueue, start: Start) -> None:
    process = start(queue, "queue.put('ready', b'12')\nimport time\ntime.sleep(60)")
    wait_until(lambda: queue.size() == 1)
    process.kill()
    process.join()
    with pytest.raises(ExecutorError, match="has ended without closing"):
        put_often(queue)
    # What it has sent before is there, and nobody waits for more.
    assert get(queue) == ("ready", b"12")
    with pytest.raises(ExecutorError, match="has ended without closing"), queue.get():
        pass


def test_a_process_that_ends_as_it_should_closes_its_end(queue: SimpleMPWorkerQueue, start: Start) -> None:
    start(queue, "queue.put('result')")
    assert get(queue) == ("result", None)
    with pytest.raises(WorkerQueueEmpty, match="closed the queue"), queue.get(timeout=LONG):
        pass


def test_closing_without_drain_delivers_to_a_process_that_is_starting(start: Start, tmp_path: Path) -> None:
    queue = SimpleMPWorkerQueue()
    out = tmp_path / "out"
    process = start(queue, f"with queue.get() as (header, payload): open({str(out)!r}, 'wb').write(payload)")
    queue.put("x", b"for you")
    queue.close(drain=False)
    process.join(LONG)
    assert out.read_bytes() == b"for you"


def test_a_second_process_is_refused(queue: SimpleMPWorkerQueue, start: Start) -> None:
    start(queue, "pass")
    with pytest.raises(RuntimeError, match="one for each process"):
        start(queue, "pass")


FORKING = """
import multiprocessing, os, signal, time
from libertem.common.executor import SimpleMPWorkerQueue
from libertem.exceptions import ExecutorError

queue = SimpleMPWorkerQueue()
echo = "while True:\\n with queue.get() as (header, payload): queue.put(header, payload)"
spawn = multiprocessing.get_context("spawn")
process = spawn.Process(target=exec, args=(echo, {"queue": queue}), daemon=True)
process.start()
queue.put("hello")
with queue.get() as (header, _):
    print(header, flush=True)
read, write = os.pipe()
forked = os.fork()
if forked == 0:
    try:
        queue.put("nonsense")
    except ExecutorError as err:
        print(err, flush=True)
    os.write(write, b"tried")
    # Outlives the other process: its copies must not keep the connection up.
    time.sleep(1000)
os.close(write)
os.read(read, 5)
process.kill()
try:
    with queue.get() as _:
        pass
except ExecutorError as err:
    print(err, flush=True)
os.kill(forked, signal.SIGKILL)
os.waitpid(forked, 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_keeps_out_of_it() -> None:
    # In a process of its own: numba ends processes that are forked from one in which it has made threads.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG, check=True)
    hello, refusal, end = done.stdout.splitlines()
    assert hello == "hello"
    assert "this process was forked" in refusal
    assert "has ended without closing" in end


def held() -> tuple[int, int, int, int]:
    """Files, threads, processes and pieces of shared memory."""
    process = psutil.Process()
    n_files = process.num_fds() if hasattr(process, "num_fds") else process.num_handles()
    shm = Path("/dev/shm")
    n_shared = len(list(shm.iterdir())) if shm.is_dir() else 0
    return n_files, threading.active_count(), len(process.children()), n_shared


def test_nothing_is_left_behind(start: Start) -> None:
    # Opened once per process: the resource tracker of `multiprocessing`, for one.
    first = SimpleMPWorkerQueue()
    start(first, ECHO).kill()
    before = held()
    for how in ("close", "collect", "kill"):
        queue = SimpleMPWorkerQueue()
        process = SPAWN.Process(target=exec, args=(dedent(ECHO), {"queue": queue}))
        process.start()
        queue.put({"nocopy": True}, bytes(1 << 20))
        assert get(queue)[1] == bytes(1 << 20)
        queue.put({"nocopy": True}, bytes(1 << 20))
        if how == "close":
            queue.close()
        elif how == "kill":
            process.kill()
        del queue
        process.join(LONG)
        assert (process.exitcode == 0) == (how != "kill")
        process.close()
    for _ in range(20):
        SimpleMPWorkerQueue().put("nobody takes this", bytes(1 << 20))
    first.close()
    wait_until(lambda: all(now <= then for now, then in zip(held(), before, strict=True)))
