"""What the tasks of one run have in common in one process, such as masks, and need to make only once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

__all__ = ["Shared"]

T = TypeVar("T")


class Shared:
    """Values that are made when first asked for. Not sent to other processes: each makes its own.

    Values must not depend on anything but the parameters of a UDF and the metadata of the run, and must not
    be written to: several tasks use them at the same time.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._values: dict[Hashable, Any] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value for `key`. Others that ask for it meanwhile wait rather than make it again."""
        with self._lock:
            if key not in self._values:
                self._values[key] = make()
            value: T = self._values[key]
            return value

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]  # a new lock, and no values
