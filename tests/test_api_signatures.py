"""Signatures of the documented API of data sets: names, order and defaults of all parameters.

The texts below are those of the documentation, without annotations. What is documented never changes;
some constructors have optional parameters behind the documented ones.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from typing import Any

import pytest

BASE = "libertem.io.dataset.base"

FORMATS = {
    "libertem.io.dataset.blo.BloDataSet": (
        "path, tileshape=None, endianess='<', nav_shape=None, sig_shape=None, sync_offset=0, io_backend=None"
    ),
    "libertem.io.dataset.dask.DaskDataSet": (
        "dask_array, *, sig_dims, preserve_dimensions=True, min_size=None, io_backend=None"
    ),
    "libertem.io.dataset.empad.EMPADDataSet": (
        "path, scan_size=None, nav_shape=None, sig_shape=None, sync_offset=0, io_backend=None"
    ),
    "libertem.io.dataset.frms6.FRMS6DataSet": (
        "path, enable_offset_correction=True, gain_map_path=None, dest_dtype=None, nav_shape=None,"
        " sig_shape=None, sync_offset=0, io_backend=None"
    ),
    "libertem.io.dataset.hdf5.H5DataSet": (
        "path, ds_path=None, tileshape=None, nav_shape=None, sig_shape=None, target_size=None,"
        " min_num_partitions=None, sig_dims=2, io_backend=None, sync_offset=0"
    ),
    "libertem.io.dataset.k2is.K2ISDataSet": (
        "path, nav_shape=None, sig_shape=None, sync_offset=None, io_backend=None"
    ),
    "libertem.io.dataset.memory.MemoryDataSet": (
        "tileshape=None, num_partitions=None, data=None, sig_dims=None, check_cast=True, tiledelay=None,"
        " datashape=None, base_shape=None, force_need_decode=False, io_backend=None, nav_shape=None,"
        " sig_shape=None, sync_offset=0, array_backends=None"
    ),
    "libertem.io.dataset.mib.MIBDataSet": (
        "path, tileshape=None, scan_size=None, disable_glob=False, nav_shape=None, sig_shape=None,"
        " sync_offset=0, io_backend=None"
    ),
    "libertem.io.dataset.mrc.MRCDataSet": (
        "path, nav_shape=None, sig_shape=None, sync_offset=0, io_backend=None"
    ),
    "libertem.io.dataset.npy.NPYDataSet": (
        "path, sig_dims=2, nav_shape=None, sig_shape=None, sync_offset=0, io_backend=None"
    ),
    "libertem.io.dataset.raw.RawFileDataSet": (
        "path, dtype, scan_size=None, detector_size=None, enable_direct=False, detector_size_raw=None,"
        " crop_detector_to=None, tileshape=None, nav_shape=None, sig_shape=None, sync_offset=0,"
        " io_backend=None"
    ),
    "libertem.io.dataset.raw_csr.RawCSRDataSet": (
        "path, nav_shape=None, sig_shape=None, sync_offset=0, io_backend=None"
    ),
    "libertem.io.dataset.seq.SEQDataSet": (
        "path, scan_size=None, nav_shape=None, sig_shape=None, sync_offset=0, io_backend=None"
    ),
    "libertem.io.dataset.ser.SERDataSet": (
        "path, emipath=None, nav_shape=None, sig_shape=None, sync_offset=0, io_backend=None"
    ),
    "libertem.io.dataset.tvips.TVIPSDataSet": (
        "path, nav_shape=None, sig_shape=None, sync_offset=None, io_backend=None"
    ),
}

CLASSES = {
    "BasePartition": ("meta, partition_slice, fileset, start_frame, num_frames, io_backend, decoder=None"),
    "BufferedBackend": "max_buffer_size=16777216",
    "DataSet": "io_backend=None",
    "DataSetMeta": (
        "shape, array_backends=None, image_count=0, raw_dtype=None, dtype=None, metadata=None, sync_offset=0"
    ),
    "DataTile": "data, tile_slice, scheme_idx",
    "DirectBackend": "max_buffer_size=16777216",
    "File": (
        "path, start_idx, end_idx, native_dtype, sig_shape, frame_footer=0, frame_header=0, file_header=0"
    ),
    "FileSet": "files, frame_header_bytes=0, frame_footer_bytes=0",
    "FileTree": "low, high, value, idx, left, right",
    "MMapBackend": "enable_readahead_hints=False",
    "Negotiator": "",
    "Partition": "meta, partition_slice, io_backend, decoder",
    "PartitionStructure": "shape, slices, dtype",
    "TilingScheme": "slices, tileshape, dataset_shape, intent=None, debug=None",
}

CALLABLES = {
    "BasePartition.get_tiles": "self, tiling_scheme, dest_dtype='float32', roi=None, array_backend=None",
    "BasePartition.set_corrections": "self, corrections",
    "DataSet.adjust_tileshape": "self, tileshape, roi",
    "DataSet.check_valid": "self",
    "DataSet.detect_params": "path, executor",
    "DataSet.get_base_shape": "self, roi",
    "DataSet.get_cache_key": "self",
    "DataSet.get_correction_data": "self",
    "DataSet.get_diagnostics": "self",
    "DataSet.get_max_io_size": "self",
    "DataSet.get_num_partitions": "self",
    "DataSet.get_partitions": "self",
    "DataSet.get_supported_extensions": "",
    "DataSet.get_supported_io_backends": "",
    "DataSet.get_sync_offset_info": "self",
    "DataSet.initialize": "self, executor",
    "DataSet.need_decode": "self, read_dtype, roi, corrections",
    "DataSet.partition_shape": ("self, dtype, target_size, min_num_partitions=None, containing_shape=None"),
    "File.get_array_from_memview": "self, mem, slicing",
    "Negotiator.get_scheme": (
        "self, udfs, dataset, read_dtype, approx_partition_shape, roi=None, corrections=None"
    ),
    "Partition.get_macrotile": "self, dest_dtype='float32', roi=None, array_backend=None",
    "Partition.get_tiles": "self, tiling_scheme, dest_dtype='float32', roi=None, array_backend=None",
    "Partition.make_slices": "shape, num_partitions, sync_offset=0",
    "Partition.set_corrections": "self, corrections",
    "TilingScheme.adjust_for_partition": "self, partition",
    "TilingScheme.make_for_shape": "tileshape, dataset_shape, intent=None, debug=None",
    "decode_swap_2": "inp, out, idx, native_dtype, rr, origin, shape, ds_shape",
    "decode_swap_4": "inp, out, idx, native_dtype, rr, origin, shape, ds_shape",
    "default_get_read_ranges": (
        "start_at_frame, stop_before_frame, roi_nonzero, depth, slices_arr, fileset_arr, sig_shape, bpp,"
        " sync_offset=0, extra=None, frame_header_bytes=0, frame_footer_bytes=0"
    ),
    "get_coordinates": "slice_, ds_shape, roi=None",
}

PROPERTIES = [
    "DataSet.array_backends",
    "DataSet.diagnostics",
    "DataSet.dtype",
    "DataSet.meta",
    "DataSet.shape",
    "DataTile.c_contiguous",
    "DataTile.data",
    "DataTile.dtype",
    "DataTile.flat_data",
    "DataTile.shape",
    "DataTile.size",
    "Partition.dtype",
    "TilingScheme.dataset_shape",
    "TilingScheme.depth",
    "TilingScheme.shape",
    "TilingScheme.slices",
    "TilingScheme.slices_array",
]

ADDITIONS = {"num_partitions", "transposed", "transposed_bytes"}
"""Optional parameters that may follow the documented ones."""


def parameters(fn: Any) -> list[tuple[str, Any, Any]]:
    signature = inspect.signature(getattr(fn, "py_func", fn))
    return [(p.name, p.kind, p.default) for p in signature.parameters.values()]


def documented(text: str) -> list[tuple[str, Any, Any]]:
    return parameters(eval(f"lambda {text}: None"))


def compare(fn: Any, text: str) -> None:
    expected, found = documented(text), parameters(fn)
    assert found[: len(expected)] == expected
    for name, _, default in found[len(expected) :]:
        assert name in ADDITIONS
        assert default is not inspect.Parameter.empty


def lookup(dotted: str) -> Any:
    found: Any = importlib.import_module(BASE)
    for name in dotted.split("."):
        found = getattr(found, name)
    return found


@pytest.mark.parametrize(("path", "text"), FORMATS.items())
def test_a_format_takes_the_documented_parameters(path: str, text: str) -> None:
    module, name = path.rsplit(".", 1)
    if importlib.util.find_spec(module) is None:
        pytest.skip("this format is not there yet")
    compare(getattr(importlib.import_module(module), name), text)


@pytest.mark.parametrize(("name", "text"), [*CLASSES.items(), *CALLABLES.items()])
def test_the_base_of_data_sets_takes_the_documented_parameters(name: str, text: str) -> None:
    compare(lookup(name), text)


@pytest.mark.parametrize("name", ["DataSet.detect_params", "Partition.make_slices"])
def test_some_methods_belong_to_the_class(name: str) -> None:
    cls, method = name.split(".")
    assert isinstance(inspect.getattr_static(lookup(cls), method), classmethod)


@pytest.mark.parametrize("name", PROPERTIES)
def test_documented_properties_are_properties(name: str) -> None:
    cls, attribute = name.split(".")
    assert isinstance(inspect.getattr_static(lookup(cls), attribute), property)


def test_hooks_of_read_ranges_have_compiled_defaults() -> None:
    found = {
        name: default.py_func.__name__ for name, _, default in parameters(lookup("make_get_read_ranges"))
    }
    assert found == {
        "px_to_bytes": "_default_px_to_bytes",
        "read_ranges_tile_block": "_default_read_ranges_tile_block",
    }


def test_partitions_of_a_data_set_are_limited_to_the_documented_size() -> None:
    assert lookup("DataSet").MAX_PARTITION_SIZE == 536870912
