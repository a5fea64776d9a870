"""Read metadata when somebody asks for them, where the files are."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from libertem.exceptions import FileAccessError, MissingFileError

if TYPE_CHECKING:
    from libertem.common.protocols import ExecutorProtocol
    from libertem.io.dataset.base.metadata import Metadata

__all__ = ["LazyMetadata"]


class LazyMetadata:
    """Metadata of a data set, once they have been read.

    Loading does not wait for them, and data sets do not take them along to workers. Neither do copies have
    them: they read them again.

    Parameters
    ----------
    executor : ExecutorProtocol, optional
        That of the data set; it is not kept alive.
    """

    def __init__(self, executor: ExecutorProtocol | None = None) -> None:
        self._executor = _weakly(executor)
        self._metadata: Metadata | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return LazyMetadata, ()

    def get(self, read: Callable[[], Metadata]) -> Metadata:
        """What `read` gives, which is called once.

        Here, because workers may be busy; on a worker, if the files are not to be found here.

        Raises
        ------
        DataSetException
            If the files are gone.
        """
        if self._metadata is None:
            try:
                self._metadata = read()
            except (MissingFileError, FileAccessError):
                executor = None if self._executor is None else self._executor()
                if executor is None:
                    raise
                self._metadata = executor.run_function(read)
        return self._metadata


def _weakly(executor: ExecutorProtocol | None) -> weakref.ref[ExecutorProtocol] | None:
    try:
        return None if executor is None else weakref.ref(executor)
    except TypeError:
        # Anything with a method `run_function` is an executor, also what cannot be referred to.
        return None
