"""Historic import paths: scripts and packages that were written for earlier releases find all names there.

A *face* is a module that only hands on names. Nothing inside the library imports one. The table below is
the list of all of them; a new face needs a row here, and, if it looks upwards, a line under `ignore_imports`
in the project file.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libertem.common.progress import TQDMProgressReporter
from libertem.common.shape import Shape
from libertem.io.dataset.base import TilingScheme
from libertem.io.dataset.memory import MemoryDataSet
from libertem.udf.sum import SumUDF
from libertem.viz.base import Dummy2DPlot

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"

BASE = "libertem.io.dataset.base"

FACES: dict[str, dict[str, str]] = {
    "libertem.common.container": {"libertem.masks.container": "MaskContainer"},
    "libertem.common.exceptions": {
        "libertem.exceptions": "ExecutorSpecException UDFException UDFRunCancelled",
    },
    "libertem.common.executor": {
        "libertem.common.protocols": "TaskProtocol TaskProtocol:GenericTaskProtocol",
        "libertem.common.taskcomm": (
            "NoopCommHandler SimpleWorkerQueue TaskCommHandler WorkerContext WorkerQueue WorkerQueueEmpty"
        ),
        "libertem.exceptions": "ExecutorError JobCancelledError",
        "libertem.executor.base": "AsyncJobExecutor Environment JobExecutor",
        "libertem.executor.process_queue": "SimpleMPWorkerQueue",
    },
    "libertem.common.sparse": {
        "libertem.common.arrays": "is_sparse sparse_to_coo to_dense to_sparse",
    },
    "libertem.common.udf": {"libertem.common.protocols": "TilingPreferences UDFMethod"},
    "libertem.corrections": {"libertem.io.corrections.corrset": "CorrectionSet"},
    "libertem.corrections.coordinates": {
        "libertem.common.transforms": ("flip_x flip_y identity rotate rotate_deg scale scale_rotate_flip_y"),
    },
    "libertem.corrections.corrset": {"libertem.io.corrections.corrset": "CorrectionSet"},
    "libertem.corrections.detector": {
        "libertem.io.corrections.detector": "CorrectError correct correct_dot_masks",
        "libertem.io.corrections.repair": "RepairDescriptor RepairValueError environments",
    },
    f"{BASE}.backend": {f"{BASE}.backends.contract": "IOBackend IOBackendImpl"},
    f"{BASE}.backend_buffered": {
        f"{BASE}.backends.buffered": "BufferedBackend BufferedBackendImpl BufferedFile DirectBufferedFile",
    },
    f"{BASE}.backend_direct": {f"{BASE}.backends.direct": "DirectBackend"},
    f"{BASE}.backend_mmap": {
        f"{BASE}.backends.mmap": "MMapBackend MMapBackendImpl MMapFile MMapFileBase",
    },
    f"{BASE}.exceptions": {"libertem.exceptions": "DataSetException"},
    f"{BASE}.file": {f"{BASE}.files": "File OffsetsSizes"},
    f"{BASE}.fileset": {f"{BASE}.files": "FileSet"},
    f"{BASE}.roi": {f"{BASE}.coordinates": "_roi_to_nd_indices roi_for_partition"},
    f"{BASE}.tiling": {
        f"{BASE}.tile": "DataTile",
        f"{BASE}.ranges": "default_get_read_ranges",
        f"{BASE}.range_hooks": "make_get_read_ranges",
    },
    f"{BASE}.tiling_scheme": {f"{BASE}.negotiation": "Negotiator", f"{BASE}.scheme": "TilingScheme"},
    f"{BASE}.utils": {f"{BASE}.files": "FileTree"},
    "libertem.io.utils": {f"{BASE}.scan": "fit_partition_shape:get_partition_shape"},
    "libertem.udf.base": {
        "libertem.common.buffers": "AuxBufferWrapper BufferWrapper",
        "libertem.exceptions": "UDFException UDFRunCancelled",
        f"{BASE}.tile": "DataTile",
        "libertem.udf.backends": "TileConverter get_resources_for_backends",
        "libertem.udf.contract": (
            "UDF UDFFrameMixin UDFMergeAllMixin UDFPartitionMixin UDFPostprocessMixin UDFPreprocessMixin"
            " UDFTileMixin"
        ),
        "libertem.udf.data": "MergeAttrMapping UDFData check_cast",
        "libertem.udf.meta": "UDFMeta",
        "libertem.udf.noop": "NoOpUDF",
        "libertem.udf.results": "UDFResultDict UDFResults",
        "libertem.udf.runner": "UDFRunner",
        "libertem.udf.task": "UDFParams UDFTask",
    },
}
"""Path of each face: where its names are defined. ``old:new`` if a face uses another name."""

PACKAGES: dict[str, dict[str, str]] = {
    "libertem.common": {"libertem.common.shape": "Shape", "libertem.common.slice": "Slice SliceUsageError"},
    "libertem.io.corrections": {"libertem.io.corrections.corrset": "CorrectionSet"},
    BASE: {
        "libertem.exceptions": "DataSetException",
        f"{BASE}.backends.buffered": "BufferedBackend",
        f"{BASE}.backends.contract": "IOBackend",
        f"{BASE}.backends.direct": "DirectBackend",
        f"{BASE}.backends.mmap": "MMapBackend",
        f"{BASE}.coordinates": "_roi_to_nd_indices get_coordinates",
        f"{BASE}.dataset": "DataSet WritableDataSet",
        f"{BASE}.decode": "Decoder DtypeConversionDecoder",
        f"{BASE}.files": "File FileSet FileTree",
        f"{BASE}.meta": "DataSetMeta PartitionStructure",
        f"{BASE}.negotiation": "Negotiator",
        f"{BASE}.packing": "PackedDecoder Packing",
        f"{BASE}.partition": "BasePartition Partition WritablePartition",
        f"{BASE}.range_hooks": "make_get_read_ranges",
        f"{BASE}.ranges": "default_get_read_ranges",
        f"{BASE}.scheme": "TilingScheme",
        f"{BASE}.tile": "DataTile",
        "libertem.io.kernels.swap": "decode_swap_2 decode_swap_4 decode_swap_8",
    },
    "libertem.udf": {
        "libertem.exceptions": "UDFRunCancelled",
        "libertem.udf.auto": "AutoUDF",
        "libertem.udf.contract": (
            "UDF UDFFrameMixin UDFPartitionMixin UDFPostprocessMixin UDFPreprocessMixin UDFTileMixin"
        ),
        "libertem.udf.data": "UDFData check_cast",
        "libertem.udf.meta": "UDFMeta",
    },
}
"""Packages that show names of their modules. They may be imported inside the library."""

DOCUMENTED: dict[str, str] = {
    "libertem": "__version__ revision udf masks",
    "libertem.analysis": (
        "ApplyFFTMask COMAnalysis ClusterAnalysis DiskMaskAnalysis FEMAnalysis MasksAnalysis "
        "PickFFTFrameAnalysis PickFrameAnalysis PointMaskAnalysis RadialFourierAnalysis RingMaskAnalysis "
        "SDAnalysis SumAnalysis SumSigAnalysis SumfftAnalysis"
    ),
    "libertem.analysis.base": "AnalysisResultSet",
    "libertem.analysis.com": "COMResultSet apply_correction curl_2d divergence",
    "libertem.analysis.disk": "DiskMaskAnalysis",
    "libertem.analysis.getroi": "get_roi",
    "libertem.analysis.masks": "MasksResultSet SingleMaskResultSet",
    "libertem.analysis.point": "PointMaskAnalysis",
    "libertem.analysis.radialfourier": "RadialFourierResultSet",
    "libertem.analysis.raw": "PickResultSet",
    "libertem.analysis.ring": "RingMaskAnalysis",
    "libertem.analysis.sum": "SumResultSet",
    "libertem.api": "Context DataSet",
    "libertem.common.async_utils": "sync_to_async",
    "libertem.contrib.daskadapter": "make_dask_array",
    "libertem.common.backend": "get_use_cpu get_use_cuda set_use_cpu set_use_cuda",
    "libertem.common.buffers": (
        "ArrayWithMask AuxBufferWrapper BufferWrapper InvalidMaskError get_bbox get_bbox_slice"
        " get_inner_slice reshaped_view"
    ),
    "libertem.common.math": "count_nonzero flat_nonzero make_2D_square prod",
    "libertem.common.messageconverter": "MessageConverter",
    "libertem.common.progress": "TQDMProgressReporter",
    "libertem.common.scheduler": "Scheduler Worker WorkerSet",
    "libertem.common.shape": "Shape",
    "libertem.common.slice": "Slice SliceUsageError",
    "libertem.common.threading": "set_num_threads",
    "libertem.common.tracing": "maybe_setup_tracing",
    "libertem.exceptions": "ExecutorSpecException UDFException UDFRunCancelled",
    "libertem.executor.base": "ResourceError make_canonical",
    "libertem.executor.concurrent": "ConcurrentJobExecutor",
    "libertem.executor.inline": "InlineJobExecutor",
    "libertem.io.corrections.corrset": "CorrectionSet",
    "libertem.io.corrections.detector": (
        "CorrectError RepairDescriptor RepairValueError correct correct_dot_masks environments"
    ),
    "libertem.io.dataset": (
        "build_extension_map detect filetypes get_dataset_cls get_extensions get_search_order load"
        " register_dataset_cls unregister_dataset_cls"
    ),
    f"{BASE}.coordinates": "get_coordinates",
    f"{BASE}.dataset": "DataSet WritableDataSet",
    f"{BASE}.decode": (
        "Decoder DtypeConversionDecoder decode_swap_2 decode_swap_4 decode_swap_8 default_decode"
    ),
    f"{BASE}.meta": "DataSetMeta PartitionStructure",
    f"{BASE}.partition": "BasePartition Partition WritablePartition",
    "libertem.io.dataset.empad": "EMPADDataSet",
    "libertem.io.dataset.memory": (
        "MemBackend MemBackendImpl MemDatasetParams MemPartition MemoryDataSet MemoryFile"
    ),
    "libertem.io.dataset.mrc": "MRCDataSet",
    "libertem.io.dataset.npy": "NPYDataSet",
    "libertem.io.dataset.raw": "RAWDatasetParams RawFile RawFileDataSet RawFileSet RawPartition",
    "libertem.masks": (
        "_make_circular_mask background_subtraction balance bounding_radius circular gradient_x gradient_y"
        " is_sparse polar_map radial_bins radial_gradient radial_gradient_background_subtraction"
        " rectangular ring sparse_circular_multi_stack sparse_template_multi_stack to_dense to_sparse"
    ),
    "libertem.executor.dask": "DaskJobExecutor cluster_spec",
    "libertem.executor.delayed": "DelayedJobExecutor",
    "libertem.executor.integration": "get_dask_integration_executor",
    "libertem.executor.pipelined": "PipelinedExecutor",
    "libertem.io.dataset.mib": "MIBDataSet is_valid_hdr",
    "libertem.udf.auto": "AutoUDF",
    "libertem.udf.com": (
        "CoMParams CoMUDF RegressionOptions apply_correction curl_2d divergence guess_corrections"
    ),
    "libertem.udf.logsum": "LogsumUDF run_logsum",
    "libertem.udf.masks": "ApplyMasksUDF",
    "libertem.udf.raw": "PickUDF",
    "libertem.udf.record": "RecordUDF",
    "libertem.udf.stddev": "StdDevUDF consolidate_result run_stddev",
    "libertem.udf.sum": "SumUDF",
    "libertem.udf.sumsigudf": "SumSigUDF run_sumsig",
    "libertem.utils.devices": "detect has_cupy",
    "libertem.warnings": "UseDiscouragedWarning",
    "libertem.viz.base": "Dummy2DPlot Live2DPlot",
    "libertem.viz.bqp": "BQLive2DPlot",
    "libertem.viz.gms": "GMSLive2DPlot",
    "libertem.viz.mpl": "MPLLive2DPlot",
}
"""Paths of the documentation that are also the places where the names are defined."""

CALLS = """
libertem.api.Context executor plot_class
libertem.api.Context._create_local_executor self
libertem.api.Context._run_sync self dataset udf roi corrections progress backends plots iterate
libertem.api.Context.close self
libertem.api.Context.create_sum_analysis self dataset
libertem.api.Context.load self .filetype .path nav_shape
libertem.api.Context.run self .job roi
libertem.api.Context.run_udf self dataset udf roi progress plots
libertem.api.Context.run_udf_iter self dataset udf roi plots progress sync
libertem.common.Shape .shape sig_dims
libertem.common.Slice origin shape
libertem.common.async_utils.sync_to_async .fn
libertem.common.buffers.reshaped_view .a .shape
libertem.common.container.MaskContainer mask_factories dtype use_sparse count backend
libertem.common.container.MaskContainer.get self .key transpose backend sparse_backend
libertem.common.executor.SimpleMPWorkerQueue
libertem.common.executor.SimpleWorkerQueue
libertem.common.executor.TaskCommHandler.done self
libertem.common.executor.TaskCommHandler.handle_task self .task .queue
libertem.common.executor.TaskCommHandler.monitor self queue
libertem.common.executor.TaskCommHandler.start self
libertem.common.executor.TaskCommHandler.subscribe self topic callback
libertem.common.executor.WorkerContext.get_worker_queue self
libertem.common.executor.WorkerContext.signal self ident topic msg_dict
libertem.common.executor.WorkerQueue.close self drain force
libertem.common.executor.WorkerQueue.get self block timeout
libertem.common.executor.WorkerQueue.put self header payload
libertem.common.executor.WorkerQueue.put_nocopy self header size
libertem.common.executor.WorkerQueue.size self
libertem.common.math.prod .iterable
libertem.common.tracing.maybe_setup_tracing service_name service_id otlp_endpoint
libertem.contrib.daskadapter.make_dask_array .dataset
libertem.corrections.coordinates.identity
libertem.corrections.corrset.CorrectionSet excluded_pixels
libertem.corrections.corrset.CorrectionSet.apply self .data .tile_slice
libertem.corrections.detector.correct buffer excluded_pixels sig_shape
libertem.executor.base.make_canonical .main_gpu
libertem.executor.inline.InlineJobExecutor debug inline_threads
libertem.executor.pipelined.PipelinedExecutor spec pin_workers startup_timeout cleanup_timeout
libertem.executor.pipelined.PipelinedExecutor.make_local
libertem.executor.pipelined.PipelinedExecutor.make_spec cpus cudas has_cupy
libertem.io.dataset.base.BasePartition.make_slices shape num_partitions
libertem.io.dataset.base.DataSet
libertem.io.dataset.base.DataSet.adjust_tileshape self tileshape roi
libertem.io.dataset.base.DataSet.check_valid self
libertem.io.dataset.base.DataSet.get_base_shape self roi
libertem.io.dataset.base.DataSet.get_correction_data self
libertem.io.dataset.base.DataSet.get_max_io_size self
libertem.io.dataset.base.DataSet.get_min_sig_size self
libertem.io.dataset.base.DataSet.get_partitions self
libertem.io.dataset.base.DataSet.get_task_comm_handler self
libertem.io.dataset.base.DataSet.initialize self .executor
libertem.io.dataset.base.DataSet.need_decode self read_dtype roi corrections
libertem.io.dataset.base.DataSetMeta shape array_backends raw_dtype dtype
libertem.io.dataset.base.DataTile .data tile_slice scheme_idx
libertem.io.dataset.base.DataTile data tile_slice scheme_idx
libertem.io.dataset.base.FileSet.get_read_ranges self start_at_frame stop_before_frame dtype tiling_scheme roi
libertem.io.dataset.base.Partition meta partition_slice io_backend decoder
libertem.io.dataset.base.Partition.get_frame_count self .roi
libertem.io.dataset.base.Partition.get_ident self
libertem.io.dataset.base.Partition.get_tiles self tiling_scheme dest_dtype roi array_backend
libertem.io.dataset.base.Partition.set_corrections self corrections
libertem.io.dataset.base.Partition.set_idx self idx
libertem.io.dataset.base.Partition.set_worker_context self worker_context
libertem.io.dataset.base.Partition.shape_for_roi self roi
libertem.io.dataset.base.TilingScheme.adjust_for_partition self .partition
libertem.io.dataset.base.TilingScheme.make_for_shape tileshape dataset_shape
libertem.io.dataset.memory.MemoryDataSet data nav_shape datashape
libertem.io.dataset.memory.MemoryDataSet data tileshape num_partitions sig_dims array_backends
libertem.io.dataset.mib.MIBDataSet path nav_shape
libertem.io.dataset.mib.is_valid_hdr .path
libertem.masks.circular centerX centerY imageSizeX imageSizeY radius antialiased
libertem.masks.radial_bins centerX centerY imageSizeX imageSizeY radius n_bins use_sparse
libertem.udf.UDF.aux_data data kind dtype extra_shape
libertem.udf.UDF.buffer self kind extra_shape dtype where use
libertem.udf.UDF.forbuf self .arr .target
libertem.udf.base.UDFRunner.dry_run .udfs .dataset .roi
libertem.udf.com.apply_correction .y_centers .x_centers scan_rotation flip_y
libertem.udf.com.curl_2d .y_centers .x_centers
libertem.udf.com.divergence .y_centers .x_centers
libertem.udf.com.guess_corrections .y_centers .x_centers
libertem.udf.logsum.run_logsum .ctx .dataset
libertem.udf.masks.ApplyMasksUDF .mask_factories mask_count mask_dtype
libertem.udf.stddev.run_stddev .ctx .dataset
libertem.utils.devices.detect
libertem.viz.base.Dummy2DPlot .dataset .udf roi channel title min_delta udfresult
""".strip().splitlines()
"""How packages by others call it: names of arguments, those with a dot are given by their place."""

MEMBERS = {
    "data set": "array_backends dtype meta shape",
    "meta": "dtype raw_dtype shape",
    "partition": "dtype meta shape slice",
    "progress": "_get_description _update",
    "plot": "_extract channel last_update min_delta",
    "tiling scheme": "__getitem__ __len__ depth intent",
    "udf": (
        "BACKEND_ALL BACKEND_CUDA BACKEND_CUPY BACKEND_NUMPY TILE_DEPTH_MAX TILE_SIZE_MAX USE_NATIVE_DTYPE"
        " _kwargs get_backends get_method get_preferred_input_dtype get_result_buffers get_results"
        " get_task_data get_tiling_preferences merge params xp"
    ),
}
"""Which attributes of objects packages by others use, private ones included."""

EXEMPT = {"libertem.io.dataset.dm", "libertem.masks.**", "libertem.udf.**"}
"""Who else may have a line under `ignore_imports`: a format made of others, and who knows the base only."""


def rows(table: dict[str, dict[str, str]]) -> list[tuple[str, str, str, str]]:
    """(path, name there, where it is defined, name there)"""
    return [
        (path, name.split(":")[-1], origin, name.split(":")[0])
        for path, origins in table.items()
        for origin, names in origins.items()
        for name in names.split()
    ]


@pytest.mark.parametrize(("path", "name", "origin", "defined_as"), rows(FACES) + rows(PACKAGES))
def test_a_name_is_the_same_object_wherever_it_is_imported_from(
    path: str, name: str, origin: str, defined_as: str
) -> None:
    handed_on = getattr(importlib.import_module(path), name)
    assert handed_on is getattr(importlib.import_module(origin), defined_as)
    if isinstance(handed_on, type):
        assert handed_on.__module__ == origin


@pytest.mark.parametrize(
    ("path", "name"), [(path, name) for path, names in DOCUMENTED.items() for name in names.split()]
)
def test_a_documented_name_exists(path: str, name: str) -> None:
    assert getattr(importlib.import_module(path), name) is not None


def look_up(dotted: str) -> Any:
    """The object, which may be a member of a class."""
    path = dotted
    while not source_of(path).exists():
        path = path.rpartition(".")[0]
    return functools.reduce(
        getattr, dotted.removeprefix(path).lstrip(".").split("."), importlib.import_module(path)
    )


@pytest.mark.parametrize("line", CALLS)
def test_a_call_by_another_package_fits_the_signature(line: str) -> None:
    dotted, *names = line.split()
    fn = look_up(dotted)
    # For `self`, too: functions of a class are looked at from outside.
    places = [name for name in names if name.startswith(".") or name == "self"]
    keywords = [name for name in names if name not in places]
    inspect.signature(fn).bind(*places, **dict.fromkeys(keywords))


@pytest.mark.parametrize("kind", MEMBERS)
def test_an_object_has_the_attributes_that_another_package_uses(kind: str) -> None:
    data_set = MemoryDataSet(data=np.zeros((2, 2, 4, 4)), num_partitions=1)
    made: dict[str, Any] = {
        "data set": data_set,
        "meta": data_set.meta,
        "partition": next(data_set.get_partitions()),
        "plot": Dummy2DPlot(data_set, SumUDF()),
        "progress": TQDMProgressReporter(),
        "tiling scheme": TilingScheme.make_for_shape(Shape((1, 4, 4), 2), data_set.shape),
        "udf": SumUDF(),
    }
    assert [name for name in MEMBERS[kind].split() if not hasattr(made[kind], name)] == []


@pytest.mark.parametrize("path", [*FACES, *PACKAGES])
def test_a_face_shows_exactly_the_names_of_the_table(path: str) -> None:
    table = FACES.get(path) or PACKAGES[path]
    assert set(importlib.import_module(path).__all__) == {name for _, name, _, _ in rows({path: table})}


def source_of(path: str) -> Path:
    file = SOURCE / Path(*path.split("."))
    return file / "__init__.py" if file.is_dir() else file.with_suffix(".py")


def modules() -> Iterator[tuple[str, ast.Module]]:
    """All modules of the library by their import path."""
    for file in sorted(SOURCE.rglob("*.py")):
        parts = list(file.relative_to(SOURCE).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        yield ".".join(parts), ast.parse(file.read_text(encoding="utf-8"))


def imports(tree: ast.Module) -> Iterator[str]:
    """Paths of all modules, and perhaps of names in them, that a module imports anywhere."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports inside the library are absolute"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_the_table_lists_all_faces() -> None:
    found = {path for path, tree in modules() if (ast.get_docstring(tree) or "").startswith("Face:")}
    assert found == FACES.keys()


def only_hands_on(node: ast.stmt) -> bool:
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    if isinstance(node, ast.FunctionDef):
        return node.name == "__getattr__"
    return isinstance(node, ast.Import | ast.ImportFrom | ast.Assign | ast.Expr)


@pytest.mark.parametrize("path", FACES)
def test_a_face_is_short_and_only_hands_on_names(path: str) -> None:
    tree = ast.parse(source_of(path).read_text(encoding="utf-8"))
    assert all(only_hands_on(node) for node in tree.body)
    # Statements, as names stand on lines of their own.
    assert sum(isinstance(node, ast.stmt) for node in ast.walk(tree)) < 30


def test_nothing_inside_the_library_imports_a_face() -> None:
    found = [(path, target) for path, tree in modules() for target in imports(tree) if target in FACES]
    assert found == []


def test_only_faces_are_exempt_from_the_floors() -> None:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lines = [
        line
        for contract in project["tool"]["importlinter"]["contracts"]
        for line in contract.get("ignore_imports", [])
    ]
    importers = {line.split(" -> ")[0] for line in lines}
    assert importers - FACES.keys() <= EXEMPT


def test_the_base_of_data_sets_needs_nothing_heavy() -> None:
    script = (
        "import sys, libertem.io.dataset.base as base\n"
        "heavy = {'numba', 'scipy', 'sparse', 'sparseconverter', 'h5py', 'dask', 'jsonschema'}\n"
        "print(*heavy & sys.modules.keys())\n"
        "base.make_get_read_ranges\n"
        "print('numba' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["", "True"]


@pytest.mark.parametrize("path", [BASE, f"{BASE}.tiling", f"{BASE}.decode"])
def test_compiled_names_are_no_excuse_for_unknown_ones(path: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{path}' has no attribute 'decode_swap_3'"):
        _ = importlib.import_module(path).decode_swap_3


def test_compiled_names_are_listed_with_the_others() -> None:
    assert {"make_get_read_ranges", "decode_swap_2", "DataSet"} <= set(dir(importlib.import_module(BASE)))
