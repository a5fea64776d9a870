"""The part of a run that happens on workers: one task per partition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.arrays import CPU_BACKENDS, CUDA, CUPY, NUMPY, result_type
from libertem.common.backend import get_device_class
from libertem.common.buffers import to_numpy
from libertem.common.math import flat_nonzero, prod
from libertem.common.slice import Slice
from libertem.executor.base import Environment
from libertem.io.corrections.corrset import CorrectionSet
from libertem.io.dataset.base.blocks import ReadOrder, SparseBlock
from libertem.io.dataset.base.partition import BasePartition, Partition
from libertem.io.dataset.base.scheme import TilingScheme
from libertem.io.dataset.base.tile import DataTile
from libertem.udf.backends import (
    BackendChoice,
    TileConverter,
    allowed_backends,
    choose_backends,
    get_resources_for_backends,
)
from libertem.udf.blocks import takes_blocks
from libertem.udf.contract import UDF
from libertem.udf.data import MergeAttrMapping, UDFData
from libertem.udf.meta import UDFMeta
from libertem.udf.progress import PROGRESS_TOPIC, PartProgress
from libertem.udf.shared import Shared
from libertem.udf.upload import Uploader, select_device, upload_dtype, uploads

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["OneUDF", "UDFParams", "UDFTask", "UDFTaskResult"]


@dataclass(frozen=True)
class OneUDF:
    """Parameters of one UDF of a run."""

    kwargs: dict[str, Any]
    """Arguments for the constructor."""
    shared: Shared = field(default_factory=Shared)
    """What follows from them and is made once per process."""


@dataclass
class UDFParams:
    """What all tasks of a run have in common; distributed once."""

    udfs: list[OneUDF]
    """What concerns each UDF."""
    roi: npt.NDArray[np.bool_] | None
    corrections: CorrectionSet | None
    tiling_scheme: TilingScheme
    input_dtype: np.dtype[Any]
    dataset_dtype: np.dtype[Any]

    def patch(self, changes: Sequence[Mapping[str, Any]]) -> None:
        """Change parameters; tasks that start later see the new ones."""
        # One assignment: a task that starts meanwhile sees the old list or the new one.
        self.udfs = [
            OneUDF({**one.kwargs, **change}) if change else one
            for one, change in zip(self.udfs, changes, strict=True)
        ]


@dataclass
class UDFTaskResult:
    """Arrays of one partition, for each UDF."""

    arrays: list[dict[str, Any]]
    part_slice: Slice
    """Place on the compressed navigation axis."""

    def merge_source(self, idx: int) -> MergeAttrMapping:
        """What `UDF.merge` receives as `src`."""
        return MergeAttrMapping(self.arrays[idx])


@dataclass
class UDFTask:
    """Process one partition with all UDFs of a run."""

    partition: Partition
    idx: int
    udf_classes: list[type[UDF]]
    udf_backends: list[Any]
    """What each UDF accepts."""
    user_backends: Any
    progress: bool
    """Whether somebody listens to the progress within the partition."""
    resources: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.resources = get_resources_for_backends(self.udf_backends, self.user_backends)

    def get_partition(self) -> Partition:
        """The partition."""
        return self.partition

    def get_resources(self) -> Mapping[str, int]:
        """Resources that a worker has to offer."""
        return self.resources

    def runs_python(self, params: UDFParams) -> bool:
        """Whether some UDF takes tiles or frames in Python, rather than whole blocks in compiled code."""
        run = _PartitionRun(self, params, Environment(threads_per_worker=1))
        run.prepare()
        return not run.is_compiled()

    def __call__(self, params: UDFParams, env: Environment) -> UDFTaskResult:
        """Process the partition."""
        run = _PartitionRun(self, params, env)
        with select_device(run.backends):
            run.prepare()
            return run.run()


class _PartitionRun:
    """State of one task while it runs."""

    def __init__(self, task: UDFTask, params: UDFParams, env: Environment) -> None:
        self._partition = task.partition
        self._params = params
        self._env = env
        self._part_slice = task.partition.slice.adjust_for_roi(params.roi)
        self._udfs = []
        for cls, one in zip(task.udf_classes, params.udfs, strict=True):
            udf = cls(**one.kwargs)
            udf._shared = one.shared
            self._udfs.append(udf)
        device_class = get_device_class()
        self._backends = self._choose_backends(device_class, task.user_backends)
        self._dtype = result_type(params.input_dtype, backends=self._backends.udfs)
        send = None
        context = env.worker_context
        if task.progress and context is not None:
            send = partial(context.signal, task.partition.get_ident(), PROGRESS_TOPIC)
        sig_px = prod(task.partition.slice.shape.sig)
        self._progress = PartProgress(send, sig_px, self._part_slice.shape[0], env.report)
        self._device_class = device_class

    @property
    def backends(self) -> tuple[str, ...]:
        """What each UDF receives."""
        return self._backends.udfs

    def prepare(self) -> None:
        """Give the UDFs metadata and empty buffers, on the device where they belong there."""
        for udf, backend in zip(self._udfs, self._backends.udfs, strict=True):
            self._prepare(udf, backend, self._device_class)

    def _choose_backends(self, device_class: str, restriction: Any) -> BackendChoice:
        from libertem.utils.devices import has_cupy

        return choose_backends(
            [allowed_backends(udf, restriction) for udf in self._udfs],
            self._partition.meta.array_backends,
            device_class,
            has_cupy=device_class == "cuda" and has_cupy(),
        )

    def _prepare(self, udf: UDF, backend: str, device_class: str) -> None:
        params = self._params
        udf._backend = backend
        udf.meta = UDFMeta(
            dataset_shape=self._partition.meta.shape,
            dataset_dtype=params.dataset_dtype,
            input_dtype=self._dtype,
            roi=params.roi,
            corrections=params.corrections,
            tiling_scheme=params.tiling_scheme,
            partition_slice=self._part_slice,
            device_class=device_class,
            threads_per_worker=self._env.threads_per_worker,
            array_backend=backend,
        )
        udf.params = UDFData(udf._kwargs)
        if udf.params._has_aux():
            udf.params = udf.params._select_frames(self._frames())
        buffers = udf.get_result_buffers()
        for buffer in buffers.values():
            buffer.set_shape_partition(self._part_slice.shape)
            if buffer.use != "result_only":
                buffer.allocate(lib=udf.xp)
        udf.results = UDFData(buffers)

    def _frames(self) -> npt.NDArray[np.int64] | slice:
        """Scan positions of the partition."""
        start = self._part_slice.origin[0]
        stop = start + self._part_slice.shape[0]
        roi = self._params.roi
        return slice(start, stop) if roi is None else flat_nonzero(roi)[start:stop]

    def run(self) -> UDFTaskResult:
        """All hooks of the UDFs in their order."""
        self._partition.set_corrections(self._params.corrections)
        if self._env.worker_context is not None:
            self._partition.set_worker_context(self._env.worker_context)
        blocks = self._partition.get_sparse_blocks(self._params.roi)
        compiled = self._take_blocks(sparse=blocks is not None)
        # Looking after thread pools takes longer than many runs of compiled UDFs, which have none.
        with nullcontext() if len(compiled) == len(self._udfs) else self._env.enter():
            self._run_hooks(compiled, blocks)
        arrays = [
            {name: to_numpy(buffer.raw_data) for name, buffer in udf.results._buffers()} for udf in self._udfs
        ]
        return UDFTaskResult(arrays=arrays, part_slice=self._part_slice)

    def _take_blocks(self, *, sparse: bool) -> list[int]:
        """UDFs that take frames where they lie, if the partition offers that."""
        stored = self._partition.meta.raw_dtype
        backends = CPU_BACKENDS if sparse else (NUMPY, CUDA)
        return [
            i
            for i, udf in enumerate(self._udfs)
            if self._backends.udfs[i] in backends and takes_blocks(udf, stored, sparse=sparse)
        ]

    def is_compiled(self) -> bool:
        """Whether all UDFs take frames where they lie. Nothing is read."""
        self._partition.set_corrections(self._params.corrections)
        sparse = self._partition.get_sparse_blocks(self._params.roi) is not None
        if len(self._take_blocks(sparse=sparse)) < len(self._udfs):
            return False
        order = ReadOrder.for_kernels(prod(self._partition.slice.shape.sig), whole=False)
        return sparse or self._partition.get_frame_blocks(order, self._params.roi) is not None

    def _run_hooks(self, compiled: list[int], sparse_blocks: Iterator[SparseBlock] | None) -> None:
        for udf in self._udfs:
            udf.task_data = UDFData(udf.get_task_data())
            _call_if_defined(udf, "preprocess")
        others = [i for i in range(len(self._udfs)) if i not in compiled]
        if compiled and sparse_blocks is not None:
            self._process_sparse_blocks(sparse_blocks, compiled)
            if others:
                self._process_tiles(others)
        elif not (compiled and self._process_blocks(compiled, others)):
            self._process_tiles(range(len(self._udfs)))
        for udf in self._udfs:
            udf.results._view_all()
            udf.params._view_all()
            _call_if_defined(udf, "postprocess")
            udf.cleanup()

    def _process_blocks(self, compiled: Sequence[int], others: Sequence[int]) -> bool:
        """Compiled UDFs take frames where they lie; False if the partition cannot offer that."""
        scheme = self._params.tiling_scheme.adjust_for_partition(self._partition)
        sig_px = prod(self._partition.slice.shape.sig)
        if others:
            order = ReadOrder.for_scheme(scheme)
        else:
            corrections = self._params.corrections
            excluding = corrections is not None and corrections.excludes_pixels()
            together = excluding and any(self._udfs[i]._needs_neighbours for i in compiled)
            order = ReadOrder.for_kernels(sig_px, whole=together)
        blocks = self._partition.get_frame_blocks(order, self._params.roi)
        if blocks is None:
            return False
        cutter = None
        if others:
            assert isinstance(self._partition, BasePartition)
            cutter = self._partition.make_tile_cutter(scheme, self._dtype, self._params.roi)
        for i in compiled:
            self._udfs[i]._begin_blocks()
        for block in blocks:
            self._env.check_cancelled()
            for i in compiled:
                self._udfs[i]._process_block(block)
            for tile in () if cutter is None else cutter.cut(block):
                self._feed(tile, others, TileConverter(tile, self._backends.source))
            self._progress.add(block.n_frames * block.n_px)
        for i in compiled:
            self._udfs[i]._finish_blocks()
        return True

    def _process_sparse_blocks(self, blocks: Iterator[SparseBlock], compiled: Sequence[int]) -> None:
        """Compiled UDFs take sparse frames where they lie; others see the files again, as tiles."""
        for block in blocks:
            self._env.check_cancelled()
            for i in compiled:
                self._udfs[i]._process_sparse_block(block)
            if len(compiled) == len(self._udfs):
                self._progress.add(block.n_frames * prod(self._partition.slice.shape.sig))

    def _process_tiles(self, indices: Sequence[int]) -> None:
        if uploads(self._backends.source, [self._backends.udfs[i] for i in indices]):
            dtype = upload_dtype(self._partition.meta.dtype, self._dtype, self._params.corrections)
            for tile, data in Uploader(dtype, self._dtype).upload(self._get_tiles(dtype)):
                self._env.check_cancelled()
                self._feed(tile, indices, TileConverter(tile, CUPY, data))
                self._progress.add(tile.size)
            return
        for tile in self._get_tiles(self._dtype):
            self._env.check_cancelled()
            self._feed(tile, indices, TileConverter(tile, self._backends.source))
            self._progress.add(tile.size)

    def _get_tiles(self, dtype: np.dtype[Any]) -> Iterator[DataTile]:
        return self._partition.get_tiles(
            tiling_scheme=self._params.tiling_scheme,
            roi=self._params.roi,
            dest_dtype=dtype,
            array_backend=self._backends.source,
        )

    def _feed(self, tile: DataTile, indices: Sequence[int], converter: TileConverter) -> None:
        for n_before, i in enumerate(indices):
            udf = self._udfs[i]
            tick = partial(self._tick, tile.size / len(indices), n_before)
            udf._feed(tile, converter.get(self._backends.udfs[i]), udf.get_method(), tick)

    def _tick(self, px_per_udf: float, n_before: int, part: float) -> None:
        """One of the UDFs has come further within a tile."""
        self._env.check_cancelled()
        self._progress.look_ahead(px_per_udf * (n_before + part))


def _call_if_defined(udf: UDF, hook: str) -> None:
    method = getattr(udf, hook, None)
    if method is not None:
        method()
