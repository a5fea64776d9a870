"""All exceptions of the library.

```
Exception
├── DataSetException            anything about files, their content, shapes that do not fit them
│   ├── HeaderError             a header that is damaged, foreign or absurd
│   ├── ShapeError              nav_shape, sig_shape or sync_offset do not fit the data
│   ├── MissingFileError        also a FileNotFoundError
│   ├── FileAccessError         also a PermissionError
│   ├── SizeMismatchError       also a ValueError: file sizes contradict the metadata
│   └── UnsupportedBackendError also a ValueError: this format cannot use that I/O backend
├── UDFException                misuse of the UDF interface
├── UDFRunCancelled             a run was cancelled before it was complete
├── InvalidMaskError            also a ValueError: mask of `UDF.with_mask` does not fit
├── ExecutorSpecException       an executor cannot be made as asked for
├── ExecutorError               an executor failed, not the code it ran
├── JobCancelledError           raised inside a task to end the whole run
└── ResourceError               also a RuntimeError: no worker has what a UDF needs
```
"""

from __future__ import annotations

import os
from typing import Any

__all__ = [
    "DataSetException",
    "ExecutorError",
    "ExecutorSpecException",
    "FileAccessError",
    "HeaderError",
    "InvalidMaskError",
    "JobCancelledError",
    "MissingFileError",
    "ResourceError",
    "ShapeError",
    "SizeMismatchError",
    "UDFException",
    "UDFRunCancelled",
    "UnsupportedBackendError",
]


class DataSetException(Exception):
    """Something is wrong with the data, or with parameters relative to the data.

    Parameters
    ----------
    problem : str
        A plain sentence that says what is wrong. May stand alone.
    path : str or path-like, optional
        The file in question.
    found, expected : object, optional
        What was there, and what should have been there.
    hint : str, optional
        How to go on from here.
    """

    def __init__(
        self,
        problem: object = "",
        *,
        path: str | os.PathLike[str] | None = None,
        found: object = None,
        expected: object = None,
        hint: str | None = None,
    ) -> None:
        self.problem = problem
        self.path = None if path is None else os.fspath(path)
        self.found = found
        self.expected = expected
        self.hint = hint
        super().__init__(self._sentence())

    def _sentence(self) -> str:
        sentence = str(self.problem)
        if self.path is not None and self.path not in sentence:
            sentence = f"{self.path}: {sentence}"
        facts = []
        if self.found is not None:
            facts.append(f"found {self.found}")
        if self.expected is not None:
            facts.append(f"expected {self.expected}")
        if facts:
            sentence = f"{sentence}: {', '.join(facts)}"
        if self.hint is not None:
            sentence = f"{sentence} ({self.hint})"
        return sentence

    def __str__(self) -> str:
        # Not that of OSError, which some subclasses inherit and which prints errno.
        return self._sentence()

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors cross process borders. The default way calls the constructor, whose keyword-only arguments
        # (or those of a subclass) it does not know. Facts may be any object, also one that cannot travel.
        state = self.__dict__.copy()
        for name in ("problem", "found", "expected"):
            if state.get(name) is not None:
                state[name] = str(state[name])
        return _rebuild, (type(self), self.args), state


def _rebuild(cls: type[DataSetException], args: tuple[Any, ...]) -> DataSetException:
    err = cls.__new__(cls)
    err.args = args
    return err


class HeaderError(DataSetException):
    """The header of a file is damaged, foreign or absurd."""


class ShapeError(DataSetException):
    """`nav_shape`, `sig_shape` or `sync_offset` do not fit the data."""


class MissingFileError(DataSetException, FileNotFoundError):
    """A file does not exist."""


class FileAccessError(DataSetException, PermissionError):
    """A file exists but may not be read."""


class SizeMismatchError(DataSetException, ValueError):
    """The size of a file contradicts its metadata."""


class UnsupportedBackendError(DataSetException, ValueError):
    """The format cannot be read with the I/O backend asked for."""


class UDFException(Exception):
    """The UDF interface was used in a way it does not allow."""


class UDFRunCancelled(Exception):
    """A UDF run ended before all partitions were processed."""


class InvalidMaskError(ValueError):
    """The mask given to `UDF.with_mask` has the wrong shape or dtype."""


class ExecutorSpecException(Exception):
    """An executor cannot be created from the specification given."""


class ExecutorError(Exception):
    """The executor itself failed, rather than the code that it ran."""


class JobCancelledError(Exception):
    """Raised inside a task or a task communication handler to end the whole run."""


class ResourceError(RuntimeError):
    """No worker offers the resources that a UDF needs."""
