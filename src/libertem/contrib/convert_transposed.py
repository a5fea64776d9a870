"""Convert transposed files of Digital Micrograph to NumPy files with whole frames.

If the file fits into the memory that the system has left for files, it is mapped, and a group of frames at a
time is put together and written.

If it does not, a disk should not be asked for the short pieces that such a group consists of. Then there are
two steps, in both of which all that is read or written is long:

1. Some planes at a time, that is, some pixels of all frames, are read and transposed. The pixels of each
   group of frames are written to where these will be, but pixels of the same planes stay together.
2. Each group of frames is read, put in order, and written back to the same place.
"""

from __future__ import annotations

import operator
import os
import threading
import uuid
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.api import Context
from libertem.common.math import prod
from libertem.common.memory import available_bytes as _available_bytes
from libertem.common.new_file import as_write_error, complete_or_nothing
from libertem.common.progress import bar_class
from libertem.common.scheduler import Scheduler
from libertem.common.taskcomm import NoopCommHandler
from libertem.exceptions import DataSetException
from libertem.io.dataset.base import BufferedBackend, DirectBackend, IOBackend, MMapBackend
from libertem.io.dataset.base.backends.rawio import RawFile
from libertem.io.dataset.base.transposed import FrameScratch, TransposedFileSet, TransposedFrames
from libertem.io.dataset.dm_single import DMFacts, inspect_file

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.executor.base import JobExecutor

__all__ = ["convert_dm4_transposed"]

DEFAULT_BYTES = 2 << 30
"""Memory by default, if four times as much is available."""

GROUPS_PER_WORKER = 4
"""At least, so that some workers read while others write."""

WRITE_BYTES = 1 << 20
"""Frames are gathered in the CPU's cache, and written so many bytes at a time."""

MIN_BUFFER_BYTES, MAX_BUFFER_BYTES = 64 << 10, 16 << 20
"""For reading, per worker."""

MAGIC = b"\x93NUMPY\x01\x00"
HEADER_BYTES = 4096
"""More than the header needs: frames then start at a page."""

SECONDS_BETWEEN_FLUSHES = 0.05


def convert_dm4_transposed(
    dm4_path: str | os.PathLike[str],
    out_path: str | os.PathLike[str],
    ctx: Context | None = None,
    num_cpus: int | None = None,
    dataset_index: int | None = None,
    progress: bool = False,
    *,
    max_bytes: int | None = None,
) -> None:
    """Convert a transposed Digital Micrograph file to a NumPy file with whole frames.

    Transposed files are stored in ``(sig, nav)`` order: all values of a detector pixel lie together, so that
    a frame is spread over the whole file. In the output, each frame is stored for itself: signal axes have
    moved to the end, and keep their order.

    The output appears under its name when it is complete. Until then it is beside it, with ``.incomplete-``
    and some digits appended to the name. After an error that is removed, and an existing output remains what
    it was. Only a process that is killed leaves it behind.

    Parameters
    ----------
    dm4_path : str or path-like
        The file, DM3 or DM4.
    out_path : str or path-like
        The NumPy file to write, with this very name. Replaced if it exists.
    ctx : Context, optional
        Where to compute; its workers have to see both files. By default threads of this process.
    num_cpus : int, optional
        Number of threads if no `ctx` is given; by default one per core.
    dataset_index : int, optional
        Which image of the file, see `libertem.io.dataset.dm_single.SingleDMDataSet`.
    progress : bool
        Whether to show a progress bar.
    max_bytes : int, optional
        Memory for pixels, of all workers together; a frame per worker is the least. By default a quarter of
        what is available, but 2 GiB at most. The more there is, the longer are the pieces in which a file
        that does not fit into memory is read.

    Raises
    ------
    ValueError
        If both `ctx` and `num_cpus` are given, or a number is not positive.
    DataSetException
        If the file is not transposed, or cannot be read; if the output cannot be written, for lack of space
        or permission.

    Examples
    --------
    >>> convert_dm4_transposed("scan.dm4", "scan.npy", progress=True)  # doctest: +SKIP
    """
    if ctx is not None and num_cpus is not None:
        raise ValueError("give either ctx or num_cpus, found both")
    for name, number in (("num_cpus", num_cpus), ("max_bytes", max_bytes)):
        if number is not None and operator.index(number) < 1:
            raise ValueError(f"{name} has to be positive, found {number}")
    source, target = os.fspath(dm4_path), os.fspath(out_path)
    if ctx is None:
        facts = inspect_file(source, dataset_index)
    else:
        facts = ctx.executor.run_function(inspect_file, source, dataset_index)
    if facts.c_order:
        raise DataSetException(
            "the data are not stored as transposed: there is nothing to convert",
            path=source,
            found=f"axes {facts.stored_shape} in C order",
            hint='load the file with ctx.load("dm", ...)',
        )
    _refuse_same_file(source, target)
    facts = facts.transposed()
    for notice in facts.notices:
        warnings.warn(notice, RuntimeWarning, stacklevel=2)
    n_bytes = prod(facts.stored_shape) * facts.dtype.itemsize
    with complete_or_nothing(target, HEADER_BYTES + n_bytes) as temporary:
        with as_write_error(target), open(temporary, "r+b") as file:
            file.write(_npy_header(facts))
        with nullcontext(ctx) if ctx is not None else _own_context(num_cpus) as context:
            job = _plan(source, facts, temporary, target, context.executor, max_bytes)
            _run(job, context.executor, progress=progress)


def _own_context(num_cpus: int | None) -> Context:
    return Context() if num_cpus is None else Context.make_with(cpus=num_cpus)


def _refuse_same_file(source: str, target: str) -> None:
    with suppress(OSError):
        if os.path.samefile(source, target):
            raise DataSetException("the output would replace the input", path=target)


def _npy_header(facts: DMFacts) -> bytes:
    """What comes before the array, padded so that this starts at a page of memory."""
    descr, shape = facts.dtype.newbyteorder("<").str, (*facts.nav_shape, *facts.sig_shape)
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode("ascii")
    n_bytes = HEADER_BYTES - len(MAGIC) - 2
    return MAGIC + n_bytes.to_bytes(2, "little") + text.ljust(n_bytes - 1) + b"\n"


# --- what workers do ---


@dataclass(frozen=True)
class _Job:
    """What all tasks have in common; sent to workers once."""

    source: str
    facts: DMFacts
    temporary: str
    target: str
    buffer_bytes: int
    """For reading long pieces; 0 to map the file."""
    frames_per_group: int
    px_per_band: int
    """Pixels that are transposed together. If that is not the whole frame, all frames are transposed."""
    scratches: list[FrameScratch] = field(default_factory=list, compare=False)
    """Those that no task of this process uses at the moment."""

    @property
    def sig_px(self) -> int:
        """Pixels of a frame."""
        return prod(self.facts.sig_shape)

    @property
    def itemsize(self) -> int:
        """Bytes per pixel."""
        return self.facts.dtype.itemsize

    @property
    def groups(self) -> list[range]:
        """All frames, in groups that are put in order for themselves."""
        return _cut(self.facts.image_count, self.frames_per_group)

    @property
    def bands(self) -> list[range]:
        """All pixels."""
        return _cut(self.sig_px, self.px_per_band)

    def transpose(self, groups: list[range], band: range) -> None:
        """Write a band of consecutive groups: each in one piece, at its place within the group."""
        assert self.facts.layout is not None
        frames = range(groups[0].start, groups[-1].stop)
        n_bytes = len(frames) * len(band) * self.itemsize
        wanted = TransposedFrames(
            fileset=TransposedFileSet(self.source, self.facts.layout, n_bytes),
            images=np.arange(frames.start, frames.stop, dtype=np.int64),
            first=frames.start,
            sig_shape=self.facts.sig_shape,
        )
        source = self._io_backend().get_impl().block_source()
        assert source is not None
        try:
            scratch = self.scratches.pop()
        except IndexError:  # asking before would leave time for another thread
            scratch = FrameScratch(self.facts.dtype)
        pixels = wanted.gather(source, band.start, band.stop, scratch)
        with _Output(self.temporary, self.target) as output:
            for group in groups:
                rows = pixels[group.start - frames.start : group.stop - frames.start]
                output.write(rows, self._offset(group) + len(group) * band.start * self.itemsize)
        self.scratches.append(scratch)

    def _io_backend(self) -> IOBackend:
        if self.buffer_bytes == 0:
            # The system fetches what lies around: all of that will be wanted.
            return MMapBackend()
        try:
            # Nothing is read twice, and the cache has no room for it.
            RawFile(self.source, direct=True).close()
        except (DataSetException, RuntimeError):
            return BufferedBackend(self.buffer_bytes)
        return DirectBackend(self.buffer_bytes)

    def arrange(self, group: range) -> None:
        """Turn the bands of a group into frames."""
        self.scratches.clear()
        stored = np.empty(len(group) * self.sig_px, dtype=self.facts.dtype.newbyteorder("<"))
        with RawFile(self.temporary) as file:
            file.read_into(stored.view(np.uint8), self._offset(group))
        bands = [
            stored[len(group) * band.start : len(group) * band.stop].reshape(len(group), len(band))
            for band in self.bands
        ]
        step = max(1, WRITE_BYTES // (self.sig_px * self.itemsize))
        with _Output(self.temporary, self.target) as output:
            for start in range(0, len(group), step):
                rows = np.concatenate([band[start : start + step] for band in bands], axis=1)
                output.write(rows, self._offset(group) + start * self.sig_px * self.itemsize)

    def _offset(self, group: range) -> int:
        return HEADER_BYTES + group.start * self.sig_px * self.itemsize

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "scratches": []}


def _cut(stop: int, step: int) -> list[range]:
    return [range(start, min(stop, start + step)) for start in range(0, stop, step)]


class _Output:
    """A file that several workers write to."""

    def __init__(self, path: str, target: str) -> None:
        self._target = target
        with as_write_error(target):
            self._descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_BINARY", 0))

    def write(self, rows: npt.NDArray[Any], offset: int) -> None:
        """Write a 2D array without gaps, and with the first byte of a number first."""
        little = rows.dtype.newbyteorder("<")
        step = max(1, WRITE_BYTES // (rows.shape[1] * little.itemsize))
        for start in range(0, rows.shape[0], step):
            piece = np.ascontiguousarray(rows[start : start + step], dtype=little)
            rest = piece.reshape(-1).view(np.uint8).data
            with as_write_error(self._target):
                while len(rest):
                    n = self._write_once(rest, offset)
                    rest = rest[n:]
                    offset += n

    def _write_once(self, data: memoryview, offset: int) -> int:
        if hasattr(os, "pwrite"):
            return os.pwrite(self._descriptor, data, offset)
        os.lseek(self._descriptor, offset, os.SEEK_SET)
        return os.write(self._descriptor, data)

    def __enter__(self) -> _Output:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._descriptor)


@dataclass
class _Task:
    """A piece of the work; it is its own partition, as far as executors ask for one."""

    idx: int
    groups: list[range]
    band: range | None
    """Pixels to transpose; None to put the only group in order."""

    def get_partition(self) -> _Task:
        """Itself."""
        return self

    def get_ident(self) -> str:
        """Name for messages."""
        return f"part-{self.idx}"

    def get_locations(self) -> None:
        """Any worker will do."""

    def get_resources(self) -> dict[str, int]:
        """A core."""
        return {"CPU": 1, "compute": 1}

    def __call__(self, params: _Job, env: Any) -> int:
        """Do the work; returns the number of pixels."""
        env.check_cancelled()
        n_frames = sum(len(group) for group in self.groups)
        if self.band is None:
            params.arrange(*self.groups)
            return n_frames * params.sig_px
        params.transpose(self.groups, self.band)
        return n_frames * len(self.band)


# --- who does what ---


def _plan(
    source: str, facts: DMFacts, temporary: str, target: str, executor: JobExecutor, max_bytes: int | None
) -> _Job:
    available = _available_bytes()
    n_workers = max(1, Scheduler(executor.get_available_workers()).effective_worker_count())
    sig_px, item = prod(facts.sig_shape), facts.dtype.itemsize
    n_bytes = sig_px * facts.image_count * item
    per_worker = (min(DEFAULT_BYTES, available // 4) if max_bytes is None else max_bytes) // n_workers
    frames_per_group = max(1, per_worker // (sig_px * item))
    buffer_bytes = min(MAX_BUFFER_BYTES, max(MIN_BUFFER_BYTES, per_worker // 4))
    px_per_band = min(sig_px, max(1, per_worker // (facts.image_count * item)))
    if n_bytes < available // 2 or px_per_band == sig_px:
        buffer_bytes = 0
        px_per_band = sig_px
        enough = max(1, facts.image_count // (GROUPS_PER_WORKER * n_workers))
        frames_per_group = min(frames_per_group, enough)
    return _Job(source, facts, temporary, target, buffer_bytes, frames_per_group, px_per_band)


def _steps(job: _Job) -> list[list[_Task]]:
    """Tasks that may run at the same time, and those that have to wait for them."""
    groups, bands = job.groups, job.bands
    if len(bands) == 1:
        return [[_Task(idx, [group], bands[0]) for idx, group in enumerate(groups)]]
    return [
        [_Task(idx, groups, band) for idx, band in enumerate(bands)],
        [_Task(idx, [group], None) for idx, group in enumerate(groups)],
    ]


def _run(job: _Job, executor: JobExecutor, *, progress: bool) -> None:
    steps = _steps(job)
    n_bytes = job.facts.image_count * job.sig_px * job.itemsize
    with ExitStack() as stack:
        name = os.path.basename(job.target)
        bar = stack.enter_context(
            bar_class()(total=n_bytes, desc=name, unit="B", unit_scale=True, disable=not progress)
        )
        stack.enter_context(_flushed_meanwhile(job.temporary))
        handle = stack.enter_context(executor.scatter(job))
        for tasks in steps:
            results: Any = executor.run_tasks(tasks, handle, uuid.uuid4().hex, NoopCommHandler())
            # Whatever happens, nothing of this goes on when the output is given up.
            stack.callback(results.close)
            for done, _ in results:
                if not isinstance(done, int):
                    raise ValueError(f"{type(executor).__name__} does not compute, use another executor")
                bar.update(done * job.itemsize / len(steps))


@contextmanager
def _flushed_meanwhile(path: str) -> Iterator[None]:
    """Have the system write to the disk all the time, so that little is left to do at the end."""
    done = threading.Event()
    thread = threading.Thread(target=_flush, args=(path, done), name="libertem-flush", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _flush(path: str, done: threading.Event) -> None:
    # Errors show up again when the complete file is synchronized.
    with suppress(OSError), open(path, "r+b") as file:
        while not done.wait(SECONDS_BETWEEN_FLUSHES):
            os.fsync(file.fileno())
