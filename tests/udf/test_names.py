"""Names of UDFs and around them, at all paths where other packages look for them."""

from __future__ import annotations

import importlib
import inspect
import sys
from typing import Any

import pytest

import libertem.common.buffers
import libertem.common.exceptions
import libertem.exceptions
from libertem.common import udf as common_udf
from libertem.udf import UDF, base
from libertem.udf.com import CoMUDF
from libertem.udf.masks import ApplyMasksUDF
from libertem.udf.record import RecordUDF
from libertem.udf.stddev import StdDevUDF, run_stddev
from libertem.udf.sum import SumUDF
from libertem.warnings import UseDiscouragedWarning

NAMES = {
    "libertem.udf": "UDF UDFMeta UDFData UDFFrameMixin UDFTileMixin UDFPartitionMixin UDFPreprocessMixin "
    "UDFPostprocessMixin AutoUDF check_cast UDFRunCancelled",
    "libertem.udf.base": "UDF NoOpUDF UDFResultDict UDFResults BufferWrapper DataTile UDFMeta UDFData "
    "MergeAttrMapping UDFMergeAllMixin UDFFrameMixin UDFTileMixin UDFPartitionMixin UDFPreprocessMixin "
    "UDFPostprocessMixin UDFRunner check_cast AuxBufferWrapper UDFException UDFRunCancelled",
    "libertem.udf.sum": "SumUDF",
    "libertem.udf.sumsigudf": "SumSigUDF run_sumsig",
    "libertem.udf.logsum": "LogsumUDF run_logsum",
    "libertem.udf.stddev": "StdDevUDF run_stddev consolidate_result",
    "libertem.udf.masks": "ApplyMasksUDF",
    "libertem.udf.raw": "PickUDF",
    "libertem.udf.com": "CoMUDF CoMParams RegressionOptions GuessResult guess_corrections apply_correction "
    "divergence curl_2d magnitude center_shifts coordinate_check com_masks_factory com_masks_generic",
    "libertem.udf.auto": "AutoUDF",
    "libertem.udf.record": "RecordUDF",
    "libertem.common.buffers": "BufferWrapper AuxBufferWrapper reshaped_view InvalidMaskError ArrayWithMask "
    "get_inner_slice get_bbox get_bbox_slice",
    "libertem.common.udf": "UDFMethod TilingPreferences",
    "libertem.common.exceptions": "UDFException ExecutorSpecException UDFRunCancelled",
    "libertem.exceptions": "UDFException ExecutorSpecException UDFRunCancelled",
}


@pytest.mark.parametrize("module", NAMES)
def test_names_are_there_and_public(module: str) -> None:
    found = importlib.import_module(module)
    assert set(NAMES[module].split()) <= set(found.__all__)
    assert all(hasattr(found, name) for name in found.__all__)


def test_names_at_several_paths_are_the_same_objects() -> None:
    assert base.UDF is UDF
    assert base.BufferWrapper is libertem.common.buffers.BufferWrapper
    assert base.DataTile is importlib.import_module("libertem.io.dataset.base").DataTile
    for name in ("UDFException", "UDFRunCancelled"):
        assert getattr(base, name) is getattr(libertem.exceptions, name)
    for name in ("UDFException", "ExecutorSpecException", "UDFRunCancelled"):
        assert getattr(libertem.common.exceptions, name) is getattr(libertem.exceptions, name)


def test_methods_are_an_enumeration() -> None:
    assert {m.name: m.value for m in common_udf.UDFMethod} == {
        "TILE": "tile",
        "FRAME": "frame",
        "PARTITION": "partition",
    }
    assert UDF.UDF_METHOD is common_udf.UDFMethod


def test_the_warning_about_discouraged_use_is_for_the_future() -> None:
    assert issubclass(UseDiscouragedWarning, FutureWarning)


def test_holography_names_its_new_home() -> None:
    sys.modules.pop("libertem.udf.holography", None)
    with pytest.raises(ImportError, match=r"^The holography implementation is removed.*LiberTEM-holo"):
        importlib.import_module("libertem.udf.holography")


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (SumUDF, "dtype='float32'"),
        (StdDevUDF, "dtype=None use_numba=True"),
        (
            ApplyMasksUDF,
            (
                "mask_factories use_torch=True use_sparse=None mask_count=None mask_dtype=None "
                "preferred_dtype=None backends=None shifts=None"
            ),
        ),
        (base.NoOpUDF, "preferred_input_dtype=<class 'bool'>"),
        (RecordUDF, "filename"),
        (
            CoMUDF.with_params,
            (
                "cy=None cx=None r=inf ri=0.0 scan_rotation=0.0 flip_y=False "
                "regression=<RegressionOptions.NO_REGRESSION: -1>"
            ),
        ),
        (run_stddev, "ctx dataset roi=None progress=False use_numba=True"),
        (UDF.aux_data, "data kind extra_shape=() dtype='float32'"),
        (UDF.buffer, "kind extra_shape=() dtype='float32' where=None use=None"),
        (UDF.merge, "dest src"),
        (base.UDFRunner, "udfs debug=False progress_reporter=None"),
        (base.UDFRunner.dry_run, "udfs dataset roi=None"),
        (base.UDFRunner.inspect_udf, "udf dataset roi=None"),
    ],
)
def test_signatures_are_the_documented_ones(function: Any, parameters: str) -> None:
    def text(p: inspect.Parameter) -> str:
        return p.name if p.default is p.empty else f"{p.name}={p.default!r}"

    found = inspect.signature(function).parameters.values()
    assert " ".join(text(p) for p in found if p.name not in ("self", "kwargs")) == parameters


def test_submodules_load_when_first_used() -> None:
    udf = importlib.import_module("libertem.udf")
    assert udf.stddev is importlib.import_module("libertem.udf.stddev")
    assert udf.masks.ApplyMasksUDF is ApplyMasksUDF
