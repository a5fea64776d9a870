"""What a test class says about its data set, and what all tests share."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pytest

from libertem.api import Context
from libertem.common.math import prod
from libertem.exceptions import DataSetException
from libertem.executor.concurrent import ConcurrentJobExecutor
from libertem.executor.inline import InlineJobExecutor
from libertem.io.dataset.base.backends.rawio import RawFile
from libertem.io.dataset.base.dataset import DataSet
from libertem.io.dataset.registry import get_dataset_cls

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["SuiteSetup"]


class SuiteSetup:
    """Attributes and methods that describe a data set to the suite.

    A test class sets `filetype`, implements `write`, and overrides what is different for its format.
    """

    filetype: ClassVar[Any]
    """Name in the registry, or the class itself."""

    dtypes: ClassVar[tuple[str, ...]] = ("<u2",)
    """Kinds of pixels that the format stores and `write` accepts, byte order included. Most tests use the
    first one, which must not be complex."""

    sig_shape: ClassVar[tuple[int, ...]] = (6, 10)
    """Shape of the frames that `write` receives. Change it if the sensor has a fixed size."""

    nav_shape: ClassVar[tuple[int, ...]] = (3, 4)
    """Scan shape of most tests; a product of at least 8."""

    io_backends: ClassVar[tuple[str, ...]] = ("mmap", "buffered", "direct")
    """I/O backends that can be chosen. Empty for data sets with I/O of their own."""

    executors: ClassVar[tuple[str, ...]] = ("inline", "threads")
    """Where UDFs are run, as for `Context.make_with`."""

    has_nav_shape: ClassVar[bool] = True
    """Whether the data set finds a `nav_shape` by itself, with room for all frames that were written."""

    larger_nav_shape: ClassVar[Literal["blank", "refused"]] = "blank"
    """What happens to a `nav_shape` with more scan positions than there are frames."""

    sig_shape_override: ClassVar[Literal["reshape", "reinterpret", "none"]] = "reshape"
    """Which `sig_shape` may be passed: another shape of as many pixels; any shape, which cuts the file into
    other frames; or the parameter does not exist."""

    detectable: ClassVar[bool] = True
    """Whether files can be recognized. If not, `DataSet.detect_params` is not tested."""

    max_load_bytes: ClassVar[int] = 64 << 10
    """How much may be read to load a large file: headers, but no pixels."""

    max_pickle_bytes: ClassVar[int] = 2048
    """How large a data set, or one of its partitions, may become on its way to a worker."""

    large_file_bytes: ClassVar[int] = 1 << 20
    """Size of the files that show whether cost depends on size. At least ten times `max_load_bytes`."""

    # --- what a format supplies ---

    def write(self, folder: Path, frames: npt.NDArray[Any]) -> dict[str, Any]:
        """Store `frames` and say how to load them.

        Make the file from the specification of the format, not with code of the reader: two mistakes must
        not cancel. It has to have exactly the size that the format asks for.

        Parameters
        ----------
        folder : Path
            An existing, empty folder.
        frames : numpy.ndarray
            ``(n, *sig_shape)``, of one of `dtypes`.

        Returns
        -------
        dict
            Keyword arguments for ``ctx.load(filetype, ...)``. The tests add `nav_shape`, `sync_offset`,
            `io_backend` and others.
        """
        raise NotImplementedError(f"{type(self).__name__} has to implement write()")

    def main_file(self, kwargs: dict[str, Any]) -> Path:
        """The file that holds the pixels, for arguments returned by `write`. Override if it is not `path`."""
        return Path(kwargs["path"])

    def make_frames(self, n: int, dtype: str | None = None, *, seed: int = 0) -> npt.NDArray[Any]:
        """Random frames. Override if the format cannot store the full range of its dtypes.

        Floats should stay within the range of int32, which they are converted to.
        """
        rng = np.random.default_rng(seed)
        stored = np.dtype(self.dtypes[0] if dtype is None else dtype)
        shape = (n, *self.sig_shape)
        if stored.kind in "iu":
            limits = np.iinfo(stored)
            native = stored.newbyteorder("=")
            return rng.integers(limits.min, limits.max, shape, dtype=native, endpoint=True).astype(stored)
        if stored.kind == "b":
            return rng.random(shape) < 0.5
        values = rng.normal(scale=100, size=shape)
        if stored.kind == "c":
            return (values + 1j * rng.normal(scale=100, size=shape)).astype(stored)
        return values.astype(stored)

    # --- what the tests use ---

    def make_large(self) -> npt.NDArray[Any]:
        """Frames for a file of about `large_file_bytes`."""
        frame_bytes = self.make_frames(1).nbytes
        return self.make_frames(-(-self.large_file_bytes // frame_bytes))

    def make_context(self, executor: str) -> Context:
        """Context with an executor of `executors`."""
        if executor == "inline":
            # Debugging: everything is pickled on its way, as if there were other processes.
            return Context(executor=InlineJobExecutor(debug=True))
        if executor == "threads":
            return Context(executor=ConcurrentJobExecutor.make_local(n_threads=2))
        return Context.make_with(executor)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run tests once per dtype, I/O backend and executor of this format; pytest calls it."""
        for argument, values in self.parameters().items():
            if argument in metafunc.fixturenames:
                metafunc.parametrize(argument, values)

    @classmethod
    def parameters(cls) -> dict[str, list[Any]]:
        """Values of the arguments that tests are repeated for. Without a choice of I/O backends: None."""
        return {
            "dtype": list(cls.dtypes),
            "io_backend": list(cls.io_backends) or [None],
            "executor": list(cls.executors),
        }

    @pytest.fixture
    def ctx(self) -> Iterator[Context]:
        """Context that computes in the calling thread."""
        with Context(executor=InlineJobExecutor()) as ctx:
            yield ctx

    @property
    def n_frames(self) -> int:
        """Number of frames in most tests."""
        return prod(self.nav_shape)

    def write_frames(self, folder: Path, frames: npt.NDArray[Any]) -> dict[str, Any]:
        """Call `write` with a folder that exists."""
        folder.mkdir(parents=True, exist_ok=True)
        return self.write(folder, frames)

    def load(
        self, ctx: Context, kwargs: dict[str, Any], *, io_backend: str | None = None, **more: Any
    ) -> DataSet:
        """Load what `write` has written, with `nav_shape` unless the arguments say otherwise."""
        arguments = {**kwargs, "nav_shape": self.nav_shape, **more}
        if io_backend == "direct":
            _skip_without_direct_io(Path(kwargs["path"]))
        if io_backend is not None:
            arguments["io_backend"] = io_backend
        return ctx.load(self.filetype, **arguments)

    def load_quietly(self, ctx: Context, kwargs: dict[str, Any], **more: Any) -> DataSet:
        """Like `load`, for damaged files: warnings are welcome."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.load(ctx, kwargs, **more)

    def dataset_class(self) -> type[DataSet]:
        """The class that loads `filetype`."""
        cls: type[DataSet] = get_dataset_cls(self.filetype)
        return cls


def _skip_without_direct_io(path: Path) -> None:
    """Skip the test if the file system of `path`, which need not exist, refuses direct I/O."""
    folder = next(parent for parent in path.parents if parent.is_dir())
    probe = folder / "direct_io_probe"
    probe.write_bytes(b"")
    try:
        RawFile(os.fspath(probe), direct=True).close()
    except (OSError, RuntimeError, DataSetException) as err:
        pytest.skip(f"no direct I/O for temporary files here: {err}")
    finally:
        probe.unlink()
