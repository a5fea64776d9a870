from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import threadpoolctl
from hypothesis import given
from hypothesis import strategies as st

from libertem.common import threading as tested
from libertem.common.threading import guard_numba_threading_layer, set_num_threads, set_num_threads_env

N_CORES = 8


class FakeNumba:
    """A threading layer of `N_CORES` threads with a limit per thread, as numba has it."""

    def __init__(self, *, layer: str | None = "omp", loadable: tuple[str, ...] = ("omp",)) -> None:
        self.config = SimpleNamespace(NUMBA_NUM_THREADS=N_CORES, THREADING_LAYER="default")
        self._layer = layer
        self._loadable = loadable
        self._local = threading.local()

    def threading_layer(self) -> str:
        if self._layer is None:
            raise ValueError("Threading layer is not initialized.")
        return self._layer

    def _start(self) -> None:
        wanted = self.config.THREADING_LAYER
        choices = {"default": ("tbb", "omp", "workqueue"), "threadsafe": ("tbb", "omp")}.get(
            wanted, (wanted,)
        )
        available = [name for name in choices if name in (*self._loadable, "workqueue")]
        if self._layer is None:
            if not available:
                raise ValueError("No threading layer could be loaded.")
            self._layer = available[0]

    def get_num_threads(self) -> int:
        self._start()
        return int(getattr(self._local, "n", N_CORES))

    def set_num_threads(self, n: int) -> None:
        assert 1 <= n <= N_CORES
        self._start()
        self._local.n = n


class FakeTorch:
    def __init__(self) -> None:
        self.n = N_CORES

    def get_num_threads(self) -> int:
        return self.n

    def set_num_threads(self, n: int) -> None:
        self.n = n


class Libraries:
    """Fakes of the libraries whose limits Python code can set."""

    def __init__(self) -> None:
        self.numba = FakeNumba()
        self.torch = FakeTorch()
        self.pyfftw = SimpleNamespace(config=SimpleNamespace(NUM_THREADS=N_CORES))

    def limits(self) -> tuple[int, int, int]:
        return self.numba.get_num_threads(), self.torch.n, self.pyfftw.config.NUM_THREADS


@contextmanager
def installed(**modules: object) -> Iterator[None]:
    """Replace modules, and let the tested module notice although their number may be the same."""
    with pytest.MonkeyPatch.context() as patch:
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        patch.setattr(tested, "_known_pools", tested._Pools(-1, {}, (), None))
        yield


@pytest.fixture
def libraries() -> Iterator[Libraries]:
    fakes = Libraries()
    with installed(numba=fakes.numba, torch=fakes.torch, pyfftw=fakes.pyfftw):
        yield fakes


def test_all_loaded_libraries_are_limited_and_restored(libraries: Libraries) -> None:
    with set_num_threads(2):
        assert libraries.limits() == (2, 2, 2)
    assert libraries.limits() == (8, 8, 8)


def test_limits_can_be_nested(libraries: Libraries) -> None:
    with set_num_threads(1):
        with set_num_threads(4):
            assert libraries.limits() == (4, 4, 4)
        assert libraries.limits() == (1, 1, 1)
    assert libraries.limits() == (8, 8, 8)


def test_none_leaves_everything_alone(libraries: Libraries) -> None:
    with set_num_threads(2), set_num_threads(None):
        assert libraries.limits() == (2, 2, 2)


def test_limits_end_with_an_exception(libraries: Libraries) -> None:
    with pytest.raises(KeyError), set_num_threads(2):
        raise KeyError
    assert libraries.limits() == (8, 8, 8)


@pytest.mark.parametrize("n", [0, -1])
def test_less_than_one_thread_is_refused(n: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1, found {n}"), set_num_threads(n):
        pass


def test_more_threads_than_numba_has_are_clipped_with_a_warning(libraries: Libraries) -> None:
    with pytest.warns(UserWarning, match="NUMBA_NUM_THREADS = 8") as caught, set_num_threads(9):
        assert libraries.limits() == (8, 9, 9)
    assert [warning.filename for warning in caught] == [__file__]
    assert libraries.limits() == (8, 8, 8)


def test_a_library_loaded_meanwhile_is_limited_next_time(libraries: Libraries) -> None:
    with installed(pyfftw=None), set_num_threads(2):
        late = SimpleNamespace(config=SimpleNamespace(NUM_THREADS=5))
        with installed(pyfftw=late):
            with set_num_threads(3):
                assert late.config.NUM_THREADS == libraries.torch.n == 3
            assert (late.config.NUM_THREADS, libraries.torch.n) == (5, 2)
    assert libraries.limits() == (8, 8, 8)


def test_libraries_are_looked_for_only_after_an_import(monkeypatch: pytest.MonkeyPatch) -> None:
    n_searches = 0
    search = threadpoolctl.ThreadpoolController

    def counting() -> Any:
        nonlocal n_searches
        n_searches += 1
        return search()

    monkeypatch.setattr(threadpoolctl, "ThreadpoolController", counting)
    with installed():
        for _ in range(3):
            with set_num_threads(1):
                pass
        assert n_searches == 1
        monkeypatch.setitem(sys.modules, "a_module_that_was_not_there", SimpleNamespace())
        with set_num_threads(1):
            pass
    assert n_searches == 2


def leave(limit: AbstractContextManager[None]) -> None:
    limit.__exit__(None, None, None)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, N_CORES)), max_size=20))
def test_limits_of_several_threads_may_overlap_in_any_way(steps: list[tuple[int, int]]) -> None:
    """A step is a thread that enters with a limit or, if it is inside already, leaves."""
    fakes = Libraries()
    inside: dict[int, tuple[AbstractContextManager[None], int]] = {}

    def check(threads: list[ThreadPoolExecutor]) -> None:
        latest = next((n for _, n in reversed(inside.values())), N_CORES)
        assert fakes.torch.n == fakes.pyfftw.config.NUM_THREADS == latest
        for i, thread in enumerate(threads):
            own = inside[i][1] if i in inside else N_CORES
            assert thread.submit(fakes.numba.get_num_threads).result() == own

    with ExitStack() as stack:
        threads = [stack.enter_context(ThreadPoolExecutor(1)) for _ in range(3)]
        stack.enter_context(installed(numba=fakes.numba, torch=fakes.torch, pyfftw=fakes.pyfftw))
        for i, n in steps:
            if i in inside:
                threads[i].submit(leave, inside.pop(i)[0]).result()
            else:
                limit = set_num_threads(n)
                threads[i].submit(limit.__enter__).result()
                inside[i] = (limit, n)
            check(threads)
        for i in list(inside):
            threads[i].submit(leave, inside.pop(i)[0]).result()
        check(threads)


REAL_POOLS = """
import json
from concurrent.futures import ThreadPoolExecutor
import numba, numpy, scipy.linalg
from threadpoolctl import threadpool_info
from libertem.common.threading import set_num_threads

def sizes():
    pools = {pool["user_api"]: pool["num_threads"] for pool in threadpool_info()}
    return [pools["blas"], pools.get("openmp"), numba.get_num_threads()]

def limited():
    with set_num_threads(1):
        return sizes()

with set_num_threads(1):
    pass  # numba may bring OpenMP only now
found = {"before": sizes()}
with ThreadPoolExecutor(1) as pool:
    found["fresh thread before"] = pool.submit(sizes).result()
    with set_num_threads(1):
        found["main inside"] = sizes()
        found["thread outside"] = pool.submit(sizes).result()
        found["thread inside"] = pool.submit(limited).result()
        found["thread left"] = pool.submit(sizes).result()
    found["main left"] = sizes()
    found["thread in the end"] = pool.submit(sizes).result()
print(json.dumps(found))
"""


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    return subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, env={**env, **environment}
    )


def test_real_libraries_are_limited_per_process_or_per_thread() -> None:
    two = dict.fromkeys(("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "2")
    done = run_python(REAL_POOLS, **two)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    blas, openmp, numba = found["before"]
    one = [1, None if openmp is None else 1, 1]
    assert numba == 2
    assert found["fresh thread before"] == [blas, openmp, 2]
    assert found["main inside"] == found["thread inside"] == one
    assert found["thread outside"] == found["thread left"] == [1, openmp, 2]
    assert found["main left"] == found["thread in the end"] == [blas, openmp, 2]


BLAS_VARIABLES = ("MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@pytest.fixture
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*BLAS_VARIABLES, "NUMBA_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "6")


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.endswith("_NUM_THREADS")}


@pytest.mark.usefixtures("_clean_environment")
def test_environment_variables_are_set_and_restored() -> None:
    with set_num_threads_env(3, set_numba=True):
        assert environment() == dict.fromkeys((*BLAS_VARIABLES, "NUMBA_NUM_THREADS"), "3")
    assert environment() == {"OMP_NUM_THREADS": "6"}
    with set_num_threads_env(set_numba=False):
        assert environment() == dict.fromkeys(BLAS_VARIABLES, "1")
    assert environment() == {"OMP_NUM_THREADS": "6"}


@pytest.mark.usefixtures("_clean_environment")
def test_environments_of_several_threads_may_overlap() -> None:
    first, second = set_num_threads_env(1, set_numba=False), set_num_threads_env(2, set_numba=False)
    first.__enter__()
    second.__enter__()
    leave(first)
    assert environment() == dict.fromkeys(BLAS_VARIABLES, "2")
    leave(second)
    assert environment() == {"OMP_NUM_THREADS": "6"}


@pytest.mark.usefixtures("_clean_environment")
@pytest.mark.parametrize(("layer", "is_set"), [(None, True), ("omp", False)])
def test_the_variable_of_a_running_numba_stays_as_it_is(layer: str | None, is_set: bool) -> None:
    with installed(numba=FakeNumba(layer=layer)), set_num_threads_env():
        assert ("NUMBA_NUM_THREADS" in os.environ) == is_set


@pytest.mark.parametrize(
    ("chosen", "loadable", "layer", "is_safe"),
    [
        ("default", ("omp",), "omp", True),
        ("default", ("tbb", "omp"), "tbb", True),
        ("default", (), "workqueue", False),
        ("workqueue", ("tbb", "omp"), "workqueue", False),
        ("omp", ("tbb", "omp"), "omp", True),
    ],
)
def test_a_thread_safe_layer_is_preferred_unless_the_user_chose(
    chosen: str, loadable: tuple[str, ...], layer: str, is_safe: bool
) -> None:
    numba = FakeNumba(layer=None, loadable=loadable)
    numba.config.THREADING_LAYER = chosen
    with installed(numba=numba):
        assert guard_numba_threading_layer() == is_safe
    assert numba.threading_layer() == layer


@pytest.mark.parametrize(("layer", "is_safe"), [("tbb", True), ("omp", True), ("workqueue", False)])
def test_a_running_layer_cannot_be_changed(layer: str, is_safe: bool) -> None:
    numba = FakeNumba(layer=layer)
    with installed(numba=numba):
        assert guard_numba_threading_layer() == is_safe
    assert (numba.threading_layer(), numba.config.THREADING_LAYER) == (layer, "default")


def test_without_numba_nothing_can_go_wrong() -> None:
    with installed(numba=None):
        assert guard_numba_threading_layer()


PARALLEL_KERNELS = """
import sys, threading
import numba, numpy as np
from libertem.common.threading import guard_numba_threading_layer, set_num_threads

is_safe = guard_numba_threading_layer()
print(is_safe, numba.threading_layer(), flush=True)

@numba.njit(parallel=True, nogil=True)
def total(a):
    result = 0.0
    for i in numba.prange(a.size):
        result += a[i]
    return result

ones = np.ones(100_000)
total(ones)
together = threading.Barrier(2)

def work():
    together.wait()
    for _ in range(200):
        with set_num_threads(2):
            assert total(ones) == ones.size

if is_safe:
    threads = [threading.Thread(target=work) for _ in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    print("survived")
"""


def test_two_threads_can_run_parallel_kernels_at_once() -> None:
    done = run_python(PARALLEL_KERNELS, NUMBA_NUM_THREADS="2", NUMBA_THREADING_LAYER="default")
    if done.stdout.startswith("False"):
        pytest.skip("numba has no thread-safe layer on this machine")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("survived\n")


def test_a_numba_without_thread_safe_layer_is_recognized() -> None:
    hide = (
        "import sys\nsys.modules['numba.np.ufunc.tbbpool'] = sys.modules['numba.np.ufunc.omppool'] = None\n"
    )
    check = PARALLEL_KERNELS.split("@numba", maxsplit=1)[0]
    done = run_python(hide + check, NUMBA_NUM_THREADS="2", NUMBA_THREADING_LAYER="default")
    assert (done.returncode, done.stdout) == (0, "False workqueue\n"), done.stderr


def test_threadpoolctl_is_loaded_only_when_needed() -> None:
    code = "import sys, libertem.common.threading; sys.exit('threadpoolctl' in sys.modules)"
    assert run_python(code).returncode == 0
