"""Save a data set: select, cut, read, convert, write."""

from __future__ import annotations

import dataclasses
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.new_file import as_write_error
from libertem.common.progress import ProgressReporter, ProgressState
from libertem.interact.crop import BYTES_AT_A_TIME, dtype_of, is_cut_anywhere, workers_of
from libertem.interact.memory import check_fits
from libertem.interact.saving.contract import Box, Output, Put, Writer
from libertem.interact.saving.convert import Misfit, check_kinds, convert
from libertem.interact.saving.own_files import check_own_files
from libertem.interact.saving.pieces import Frames, grouped, make_boxes
from libertem.interact.saving.writers import make_writer
from libertem.io.dataset.base.metadata import Axis
from libertem.udf.progress import make_reporter
from libertem.udf.roi import as_roi

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.dataset.base.dataset import DataSet

__all__ = ["save"]

MAX_PARTITION_BYTES = 256 << 20
"""Larger partitions are read in several runs, even if things are then decoded more than once."""


def save(
    ctx: Any,
    dataset: DataSet,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    dtype: npt.DTypeLike | None = None,
    roi: Any = None,
    progress: Any = False,
    **options: Any,
) -> None:
    """Write a data set to a file, see `libertem.io.dataset.base.interactive.UsableDirectly.save`.

    The workers of the context read, this process writes: they need not share a file system. About a
    hundred MiB are in memory at a time, whatever the size of the data set.
    """
    target = os.path.abspath(os.fspath(path))
    frames = Frames.select(dataset, as_roi(roi, dataset.shape))
    source = dtype_of(dataset)
    wanted = source if dtype is None else np.dtype(dtype).newbyteorder("=")
    check_kinds(source, wanted)
    output = _describe(frames, wanted, os.path.splitext(os.path.basename(target))[0])
    writer = make_writer(output, target, options)
    if overwrite:
        check_own_files(frames, target)
    groups = _cut(dataset, writer, output.frame_bytes // wanted.itemsize * source.itemsize)
    n_boxes = sum(len(boxes) for boxes in groups)
    with (
        writer.new_target(target, overwrite=overwrite) as unfinished,
        _reported(make_reporter(progress), frames.positions.size, n_boxes) as done,
        ExitStack() as stack,
    ):
        # Not around everything: errors of the system may come from reading as well.
        with as_write_error(target):
            put = stack.enter_context(writer.open(unfinished))
        transfer = _Transfer(ctx, frames, wanted, put, done, target)
        transfer.run(groups)
        with as_write_error(target):
            stack.close()


def _cut(dataset: DataSet, writer: Writer, frame_bytes: int) -> list[list[Box]]:
    """Boxes that are read one after the other, in groups that are read in one run."""
    limit, n_at_once = _portions(dataset, frame_bytes)
    boxes = make_boxes(writer.output.nav_shape, writer.granularity, frame_bytes, limit)
    largest = frame_bytes * max(int(np.prod([s.stop - s.start for s in box])) for box in boxes)
    if largest > limit:
        # Chunks of the new file, or single frames.
        n_at_once = max(1, n_at_once * limit // largest)
        check_fits(2 * n_at_once * largest, "what is read at a time", "use smaller chunks")
    return list(grouped(boxes, n_at_once))


def _portions(dataset: DataSet, frame_bytes: int) -> tuple[int, int]:
    """How many bytes boxes should have, and how many of them are read in one run."""
    n_workers = workers_of(dataset)
    if is_cut_anywhere(dataset):
        return BYTES_AT_A_TIME // n_workers, n_workers
    largest = frame_bytes * max(partition.shape[0] for partition in dataset.get_partitions())
    limit = min(MAX_PARTITION_BYTES, max(BYTES_AT_A_TIME // n_workers, largest))
    return limit, max(1, min(n_workers, MAX_PARTITION_BYTES // limit))


def _describe(frames: Frames, dtype: np.dtype[Any], title: str) -> Output:
    """What is known about the data, with axes as they are in the part that is saved."""
    dataset = frames.dataset
    n_nav = dataset.shape.nav_dims
    # Not the properties: data sets of other packages may have attributes of these names.
    known = dataset.get_metadata().fitted(dataset.shape)
    axes = known.axes(dataset.shape)
    if frames.origin is None:
        nav = [Axis("index", 1.0)]
    else:
        nav = [
            dataclasses.replace(axis, offset=axis.offset + start * axis.step)
            for axis, start in zip(axes[:n_nav], frames.origin, strict=True)
        ]
    metadata = {k: v for k, v in known.to_dict().items() if k not in ("nav_axes", "sig_axes")}
    return Output(
        title=title,
        nav_shape=frames.positions.shape,
        sig_shape=dataset.shape.sig.to_tuple(),
        dtype=dtype,
        axes=tuple(_with_different_names([*nav, *axes[n_nav:]])),
        metadata=metadata,
        header=known.header,
    )


def _with_different_names(axes: Sequence[Axis]) -> Iterator[Axis]:
    used: set[str] = set()
    for i, axis in enumerate(axes):
        name = axis.name if axis.name and axis.name not in used else f"{axis.name}_{i}"
        used.add(name)
        yield dataclasses.replace(axis, name=name)


@dataclass(frozen=True)
class _Transfer:
    """Moves frames from the data set to the file."""

    ctx: Any
    frames: Frames
    dtype: np.dtype[Any]
    put: Put
    done: Callable[[tuple[int, ...]], None]
    """Is told the navigation shape of each box that has been written."""
    target: str

    def run(self, groups: Sequence[Sequence[Box]]) -> None:
        """Read groups of boxes, one after the other."""
        # Not at the same time: reading and writing slowed each other down to half of their speed.
        for boxes in groups:
            for box, part in zip(boxes, self.frames.read(self.ctx, boxes), strict=True):
                self._write(box, part)

    def _write(self, box: Box, part: npt.NDArray[Any]) -> None:
        try:
            converted = convert(part, self.dtype)
        except Misfit as err:
            place = self.frames.place(box, err.index)
            raise ValueError(
                f"cannot save as {self.dtype}: found {err.value} at {place}, expected {err.reason} "
                "(choose another dtype, or leave it out)"
            ) from err
        with as_write_error(self.target):
            self.put(box, converted)
        self.done(part.shape[: len(box)])


@contextmanager
def _reported(reporter: ProgressReporter | None, n_frames: int, n_boxes: int) -> Iterator[Any]:
    """Function that counts boxes which have been written, given the shape of each."""
    ident = uuid.uuid4().hex
    frames = boxes = 0

    def state() -> ProgressState:
        return ProgressState(
            num_frames_complete=frames,
            num_frames_total=n_frames,
            num_part_complete=boxes,
            num_part_in_progress=0,
            num_part_total=n_boxes,
            progress_id=ident,
        )

    def done(nav_shape: tuple[int, ...]) -> None:
        nonlocal frames, boxes
        frames += int(np.prod(nav_shape, dtype=int))
        boxes += 1
        if reporter is not None:
            reporter.update(state())

    if reporter is not None:
        reporter.start(state())
    try:
        yield done
    finally:
        if reporter is not None:
            reporter.end(state())
