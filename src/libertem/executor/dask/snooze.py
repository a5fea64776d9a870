"""Dismiss workers that have nothing to do for some time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Snoozer"]


class Snoozer:
    """Notices when a cluster has not been used for a while.

    Parameters
    ----------
    timeout : float or None
        Seconds without use; None to never fall asleep.
    fall_asleep, wake_up : callable
        Called one at a time; `wake_up` only after `fall_asleep`.
    """

    def __init__(
        self, timeout: float | None, fall_asleep: Callable[[], None], wake_up: Callable[[], None]
    ) -> None:
        self._timeout = timeout
        self._fall_asleep = fall_asleep
        self._wake_up = wake_up
        # A run may be collected, and so end, in any thread at any time, also in one that holds the lock.
        self._lock = threading.RLock()
        self._n_users = 0
        self._asleep = False
        self._timer: threading.Timer | None = None
        self._closed = False
        self._wait()

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Wake up if necessary, and stay awake inside."""
        with self._lock:
            self._n_users += 1
            try:
                self._stop_waiting()
                if self._asleep:
                    self._wake_up()
                    self._asleep = False
            except BaseException:
                self._n_users -= 1
                raise
        try:
            yield
        finally:
            with self._lock:
                self._n_users -= 1
                self._wait()

    def _wait(self) -> None:
        if self._timeout is not None and not self._n_users and not self._closed:
            self._timer = threading.Timer(self._timeout, self._on_timeout)
            self._timer.name = "libertem-snooze"
            self._timer.daemon = True
            self._timer.start()

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timeout(self) -> None:
        with self._lock:
            if not self._n_users and not self._closed and not self._asleep:
                self._fall_asleep()
                self._asleep = True

    def close(self) -> None:
        """Do nothing any more."""
        with self._lock:
            self._closed = True
            timer = self._timer
            self._stop_waiting()
        if timer is not None:
            timer.join()
