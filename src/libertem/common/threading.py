"""Hold the thread pools of numerical libraries to a number of threads.

Pools come in two kinds, which must be restored differently when several threads of the process limit them
at the same time:

* *Shared* ones have one size for the process (OpenBLAS, MKL, BLIS, pyFFTW, PyTorch). The latest request
  that is still active counts; the original size returns with the last one.
* *Own* ones have a size for each thread that uses them (OpenMP, numba). Each thread restores what it found.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Generic, TypeVar

__all__ = ["guard_numba_threading_layer", "num_threads_env", "set_num_threads", "set_num_threads_env"]

V = TypeVar("V")

_ENV_VARIABLES = ("MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_ENV_NUMBA = "NUMBA_NUM_THREADS"


@dataclass(frozen=True)
class _Setting(Generic[V]):
    """Something that has a value, and how to read and change it."""

    get: Callable[[], V]
    set: Callable[[V], object]


class _Override(Generic[V]):
    """A setting that at least one user wants to be different."""

    def __init__(self, setting: _Setting[V]) -> None:
        self._setting = setting
        self._original = setting.get()
        self._current = self._original
        self._wanted: dict[object, V] = {}

    def add(self, user: object, value: V) -> None:
        self._wanted[user] = value
        self._apply(value)

    def remove(self, user: object) -> bool:
        """Forget a user; return whether none is left."""
        self._wanted.pop(user, None)
        self._apply(next(reversed(self._wanted.values()), self._original))
        return not self._wanted

    def _apply(self, value: V) -> None:
        # Not touched without need: other threads may be computing in that library right now.
        if value != self._current:
            self._setting.set(value)
            self._current = value


class _SharedSettings(Generic[V]):
    """Settings of the whole process, each overridden by any number of users in any order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._overrides: dict[str, _Override[V]] = {}

    @contextmanager
    def override(self, settings: Mapping[str, _Setting[V]], value: V) -> Iterator[None]:
        user = object()
        try:
            with self._lock:
                for key, setting in settings.items():
                    if key not in self._overrides:
                        self._overrides[key] = _Override(setting)
                    self._overrides[key].add(user, value)
            yield
        finally:
            with self._lock:
                for key in settings:
                    if key in self._overrides and self._overrides[key].remove(user):
                        del self._overrides[key]


@dataclass(frozen=True)
class _Pools:
    """The thread pools that were loaded when the process had `n_modules` modules."""

    n_modules: int
    shared: Mapping[str, _Setting[int]]
    own: Sequence[_Setting[int]]
    numba_max: int | None


_shared_pools: _SharedSettings[int] = _SharedSettings()
_environment: _SharedSettings[str | None] = _SharedSettings()
_known_pools = _Pools(n_modules=-1, shared={}, own=(), numba_max=None)


@contextmanager
def set_num_threads(n: int | None) -> Iterator[None]:
    """Limit numerical libraries to `n` threads, as a context manager.

    Acts on BLAS and OpenMP libraries, numba, pyFFTW and PyTorch, as far as they are loaded on entry. May
    be nested and used by several threads at once; must be left in the thread that entered it.

    Parameters
    ----------
    n : int or None
        Number of threads, at least 1. ``None`` leaves everything alone.

    Warns
    -----
    UserWarning
        If `n` is more than numba can have; numba is then limited to `NUMBA_NUM_THREADS`.
    """
    if n is None:
        yield
        return
    if n < 1:
        raise ValueError(f"the number of threads must be at least 1, found {n}")
    pools = _find_pools()
    if pools.numba_max is not None and n > pools.numba_max:
        # 3: past contextlib, to the with statement
        warnings.warn(
            f"{n} threads are more than NUMBA_NUM_THREADS = {pools.numba_max}, which numba gets instead",
            UserWarning,
            stacklevel=3,
        )
    # The order matters: PyTorch, and OpenBLAS where it is built on OpenMP, read and write the OpenMP
    # setting of the calling thread as well.
    found = [(pool, pool.get()) for pool in pools.own]
    try:
        with _shared_pools.override(pools.shared, n):
            for pool in pools.own:
                pool.set(n)
            yield
    finally:
        for pool, value in found:
            pool.set(value)


@contextmanager
def set_num_threads_env(n: int = 1, set_numba: bool | None = None) -> Iterator[None]:
    """Set the environment variables that limit numerical libraries in child processes.

    A context manager for `MKL_NUM_THREADS`, `OMP_NUM_THREADS`, `OPENBLAS_NUM_THREADS` and, depending on
    `set_numba`, `NUMBA_NUM_THREADS`.

    Parameters
    ----------
    set_numba : bool, optional
        By default, true unless numba has started its threads in this process: it reads its variable again
        later, and refuses to work if that has changed in between.
    """
    if set_numba is None:
        set_numba = _numba_layer(_loaded("numba")) is None
    names = (*_ENV_VARIABLES, _ENV_NUMBA) if set_numba else _ENV_VARIABLES
    with _environment.override({name: _variable(name) for name in names}, str(n)):
        yield


def num_threads_env(n: int) -> dict[str, str]:
    """Environment variables that limit numerical libraries, numba included, in a child process."""
    return dict.fromkeys((*_ENV_VARIABLES, _ENV_NUMBA), str(n))


def guard_numba_threading_layer() -> bool:
    """Keep numba off its "workqueue" layer, which aborts the process if two threads use it at once.

    If numba is loaded, its threads are started, on a thread-safe layer (TBB or OpenMP) where there is one
    and the user has not chosen another. Limits such as `set_num_threads` do not make "workqueue" safe.

    Returns
    -------
    bool
        Whether several threads may run numba-parallel functions at the same time. True without numba.
    """
    numba = _loaded("numba")
    if numba is None:
        return True
    if _numba_layer(numba) is None:
        if numba.config.THREADING_LAYER == "default":
            numba.config.THREADING_LAYER = "threadsafe"
            try:
                numba.get_num_threads()
            # Neither TBB nor OpenMP can be loaded here.
            except ValueError:
                numba.config.THREADING_LAYER = "default"
        # Starts the threads, so that a later change of the configuration cannot undo the choice.
        numba.get_num_threads()
    return _numba_layer(numba) != "workqueue"


def _numba_layer(numba: ModuleType | None) -> str | None:
    """Name of numba's threading layer, ``None`` as long as its threads have not been started."""
    if numba is None:
        return None
    try:
        return str(numba.threading_layer())
    except ValueError:
        return None


def _loaded(name: str) -> ModuleType | None:
    """A module that the process has imported, complete: waits if another thread is just importing it."""
    if sys.modules.get(name) is None:
        return None
    try:
        return import_module(name)
    # The import in the other thread failed.
    except (ImportError, OSError):
        return None


def _find_pools() -> _Pools:
    """The thread pools that are loaded now; looks again only if modules have been imported since."""
    global _known_pools
    if _known_pools.n_modules != len(sys.modules):
        _known_pools = _scan_pools()
    return _known_pools


def _scan_pools() -> _Pools:
    from threadpoolctl import ThreadpoolController

    own: list[_Setting[int]] = []
    shared: dict[str, _Setting[int]] = {}
    numba_max = None
    if (numba := _loaded("numba")) is not None:
        # First, since it loads a library and, with it, may load OpenMP.
        guard_numba_threading_layer()
        numba_max = int(numba.config.NUMBA_NUM_THREADS)
        own.append(_numba_mask(numba, numba_max))
    if (pyfftw := _loaded("pyfftw")) is not None:
        shared["pyfftw"] = _pyfftw_threads(pyfftw.config)
    if (torch := _loaded("torch")) is not None:
        shared["torch"] = _Setting(torch.get_num_threads, torch.set_num_threads)
    # Before looking: what is loaded meanwhile is found next time.
    n_modules = len(sys.modules)
    for library in ThreadpoolController().lib_controllers:
        pool: _Setting[int] = _Setting(library.get_num_threads, library.set_num_threads)
        if library.user_api == "openmp":
            own.append(pool)
        # Some builds lack the functions.
        elif pool.get() is not None:
            shared[library.filepath] = pool
    return _Pools(n_modules, shared, tuple(own), numba_max)


def _numba_mask(numba: ModuleType, maximum: int) -> _Setting[int]:
    return _Setting(numba.get_num_threads, lambda n: numba.set_num_threads(min(n, maximum)))


def _pyfftw_threads(config: ModuleType) -> _Setting[int]:
    return _Setting(lambda: config.NUM_THREADS, lambda n: setattr(config, "NUM_THREADS", n))


def _variable(name: str) -> _Setting[str | None]:
    def change(value: str | None) -> None:
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value

    return _Setting(lambda: os.environ.get(name), change)
