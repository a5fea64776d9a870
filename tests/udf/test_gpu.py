"""UDFs on a GPU: with a stand-in for CuPy, and for real where CuPy works.

The stand-in shows that data are uploaded as they should be, and that nothing is mixed up between host and
device. It cannot show that CuPy itself does what is expected.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.lib.mixins import NDArrayOperatorsMixin

from libertem.common.backend import set_use_cpu, set_use_cuda
from libertem.io.corrections import CorrectionSet
from libertem.udf import UDF, upload
from libertem.udf.com import CoMUDF
from libertem.udf.logsum import LogsumUDF
from libertem.udf.masks import ApplyMasksUDF
from libertem.udf.stddev import StdDevUDF
from libertem.udf.sum import SumUDF
from libertem.udf.sumsigudf import SumSigUDF
from libertem.udf.upload import upload_dtype
from libertem.utils import devices

SHAPE = (3, 4, 6, 7)
FRAMES = np.random.default_rng(0).integers(0, 1000, SHAPE).astype("u2")
MASKS = np.random.default_rng(1).random((3, *SHAPE[2:])).astype("f4")
ROI = np.random.default_rng(2).random(SHAPE[:2]) < 0.5
CUPY = UDF.BACKEND_CUPY

UDFS: dict[str, Any] = {
    "sum": SumUDF,
    "sumsig": SumSigUDF,
    "logsum": LogsumUDF,
    "masks": lambda: ApplyMasksUDF(lambda: MASKS, mask_count=3),
    "shifted masks": lambda: ApplyMasksUDF(lambda: MASKS, mask_count=3, shifts=(1, -2)),
    "com": lambda: CoMUDF.with_params(r=3.0),
    # Takes NumPy arrays only, on a GPU worker too.
    "std": StdDevUDF,
}


class Where(UDF):
    """Says what it received."""

    def get_backends(self) -> Any:
        return (CUPY,)

    def get_result_buffers(self) -> dict[str, Any]:
        return {"total": self.buffer(kind="nav", dtype="f8", where="device")}

    def process_tile(self, tile: Any) -> None:
        assert isinstance(tile, self.xp.ndarray)
        assert tile.shape == tuple(self.meta.slice.shape)
        assert tile.dtype == self.meta.input_dtype
        self.results.total[:] += tile.reshape((tile.shape[0], -1)).sum(axis=1)


# --- a stand-in for CuPy that computes with NumPy, and is as strict: arrays of both never mix ---


@dataclass
class Traffic:
    """What has happened."""

    uploads: list[tuple[np.dtype[Any], int, bool]] = field(default_factory=list)
    """Dtype, elements, and whether they came from pinned memory."""
    downloads: int = 0
    conversions: int = 0
    devices: list[int] = field(default_factory=list)
    """Those that were made the current one."""
    current: list[int] = field(default_factory=list)
    pinned: list[Any] = field(default_factory=list)


def make_fake_cupy() -> tuple[types.ModuleType, Traffic]:
    """A module to put at ``sys.modules["cupy"]``, and its book-keeping."""
    traffic = Traffic()

    def unwrap(value: Any) -> Any:
        if isinstance(value, Array):
            return value._a
        if isinstance(value, np.ndarray) and value.ndim:
            raise TypeError("Implicit conversion to a CuPy array is not allowed")
        return tuple(map(unwrap, value)) if isinstance(value, tuple) else value

    def wrap(value: Any) -> Any:
        return Array(value) if isinstance(value, np.ndarray | np.generic) else value

    class Array(NDArrayOperatorsMixin):
        def __init__(self, array: Any) -> None:
            self._a = np.asarray(array)

        def __array__(self, *args: Any, **kwargs: Any) -> Any:
            raise TypeError("Implicit conversion to a NumPy array is not allowed")

        def __array_ufunc__(
            self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **kwargs: Any
        ) -> Any:
            more = {} if out is None else {"out": tuple(unwrap(o) for o in out)}
            assert traffic.current, "computing without a device"
            return wrap(getattr(ufunc, method)(*map(unwrap, inputs), **more, **kwargs))

        def __getitem__(self, key: Any) -> Any:
            return Array(self._a[unwrap(key)])

        def __setitem__(self, key: Any, value: Any) -> None:
            self._a[unwrap(key)] = unwrap(value)

        def __len__(self) -> int:
            return len(self._a)

        def __getattr__(self, name: str) -> Any:
            if name in ("shape", "dtype", "ndim", "size", "nbytes", "itemsize", "flags", "strides"):
                return getattr(self._a, name)
            if name == "T":
                return Array(self._a.T)
            if name in ("reshape", "sum", "min", "max", "view", "copy", "ravel", "mean"):
                return lambda *args, **kwargs: wrap(getattr(self._a, name)(*args, **kwargs))
            raise AttributeError(name)

        def astype(self, dtype: Any, copy: bool = True) -> Any:
            traffic.conversions += self._a.dtype != np.dtype(dtype)
            return Array(self._a.astype(dtype, copy=copy))

        def set(self, array: Any) -> None:
            assert type(array) is np.ndarray
            base = array
            while isinstance(base, np.ndarray):
                base = base.base
            pinned = any(base is memory or getattr(base, "obj", None) is memory for memory in traffic.pinned)
            traffic.uploads.append((array.dtype, array.size, pinned))
            self._a[...] = array

        def get(self) -> Any:
            traffic.downloads += 1
            return self._a.copy()

    class Device:
        def __init__(self, number: int) -> None:
            self.number = number

        def __enter__(self) -> None:
            traffic.devices.append(self.number)
            traffic.current.append(self.number)

        def __exit__(self, *exc: object) -> None:
            traffic.current.pop()

    def alloc_pinned_memory(n_bytes: int) -> Any:
        traffic.pinned.append(bytearray(n_bytes))
        return traffic.pinned[-1]

    def made(function: Any) -> Any:
        def make(*args: Any, **kwargs: Any) -> Any:
            assert traffic.current, "allocating without a device"
            return Array(function(*args, **kwargs))

        return make

    module = types.ModuleType("cupy")
    module.ndarray = Array  # type: ignore[attr-defined]
    module.zeros, module.empty, module.ones = map(made, (np.zeros, np.empty, np.ones))  # type: ignore[attr-defined]
    module.log = np.log  # type: ignore[attr-defined]

    def asarray(array: Any) -> Any:
        if isinstance(array, Array):
            return array
        traffic.uploads.append((np.asarray(array).dtype, np.size(array), False))
        return made(np.array)(array)

    module.asarray = asarray  # type: ignore[attr-defined]
    module.cuda = types.SimpleNamespace(Device=Device, alloc_pinned_memory=alloc_pinned_memory)  # type: ignore[attr-defined]
    return module, traffic


# --- tests ---


@pytest.fixture
def on_gpu() -> Iterator[None]:
    set_use_cuda(0)
    yield
    set_use_cpu(0)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, on_gpu: None) -> Traffic:
    """The stand-in, on device 0."""
    module, traffic = make_fake_cupy()
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setattr(devices, "has_cupy", lambda: True)
    return traffic


def load(inline: Any, frames: Any = FRAMES, **kwargs: Any) -> Any:
    return inline.load("memory", data=frames, num_partitions=2, array_backends=["numpy", "cuda"], **kwargs)


def check_same_as_on_cpu(inline: Any, ds: Any, names: list[str], **kwargs: Any) -> None:
    found = inline.run_udf(ds, [UDFS[name]() for name in names], **kwargs)
    set_use_cpu(0)
    expected = inline.run_udf(ds, [UDFS[name]() for name in names], **kwargs)
    for name, mine, other in zip(names, found, expected, strict=True):
        for key, buffer in other.items():
            assert type(mine[key].raw_data) is np.ndarray
            assert mine[key].data.dtype == buffer.data.dtype
            np.testing.assert_allclose(mine[key].data, buffer.data, rtol=2e-5, err_msg=f"{name}: {key}")


@pytest.mark.parametrize("name", sorted(UDFS))
@pytest.mark.parametrize("roi", [None, ROI], ids=["all", "roi"])
def test_results_equal_those_of_the_cpu_and_are_brought_back(
    inline: Any, gpu: Traffic, name: str, roi: Any
) -> None:
    check_same_as_on_cpu(inline, load(inline), [name], roi=roi)
    assert bool(gpu.uploads) == (name != "std")
    assert bool(gpu.downloads) == (name != "std")


def test_udfs_for_cpu_and_gpu_share_a_run(inline: Any, gpu: Traffic) -> None:
    check_same_as_on_cpu(inline, load(inline), ["std", "sum", "com"])
    assert gpu.uploads


@pytest.mark.filterwarnings("ignore:the data set changed the tile shape")
def test_tiles_go_up_together_in_the_dtype_of_the_files(inline: Any, gpu: Traffic) -> None:
    ds = load(inline, tileshape=(2, 3, 7))
    result = inline.run_udf(ds, Where())
    np.testing.assert_array_equal(result["total"].data, FRAMES.sum(axis=(2, 3)))
    # Six tiles in each partition, one transfer from pinned memory, one conversion on the device.
    assert gpu.uploads == [(np.dtype("u2"), 6 * 42, True)] * 2
    assert gpu.conversions == 2


def test_transfers_have_a_limited_size(inline: Any, gpu: Traffic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "UPLOAD_BYTES", 4 * 42)
    result = inline.run_udf(load(inline, tileshape=(1, 6, 7)), Where())
    np.testing.assert_array_equal(result["total"].data, FRAMES.sum(axis=(2, 3)))
    assert gpu.uploads == [(np.dtype("u2"), 2 * 42, True)] * 6
    # The same memory for all transfers of a partition.
    assert [len(memory) for memory in gpu.pinned] == [4 * 42] * 2
    monkeypatch.setattr(upload, "UPLOAD_BYTES", 1)
    inline.run_udf(load(inline, tileshape=(3, 6, 7)), Where())
    assert gpu.uploads[6:] == [(np.dtype("u2"), 3 * 42, True)] * 4


def test_corrections_are_applied_before(inline: Any, gpu: Traffic) -> None:
    dark = np.full(SHAPE[2:], 2.5)
    result = inline.run_udf(load(inline), Where(), corrections=CorrectionSet(dark=dark))
    np.testing.assert_allclose(result["total"].data, (FRAMES - dark).sum(axis=(2, 3)), rtol=1e-6)
    assert {dtype for dtype, _, _ in gpu.uploads} == {np.dtype("f4")}


@pytest.mark.parametrize(
    ("stored", "wanted", "expected"),
    [
        ("<u2", "f4", "u2"),
        (">u2", "f4", "u2"),
        ("?", "f4", "?"),
        ("f4", "f4", "f4"),
        ("f8", "f4", "f4"),
        ("c8", "c8", "c8"),
        ("u4", "f8", "u4"),
    ],
)
def test_the_smaller_dtype_travels(stored: str, wanted: str, expected: str) -> None:
    assert upload_dtype(np.dtype(stored), np.dtype(wanted), None) == np.dtype(expected)
    dark = CorrectionSet(dark=np.ones((2, 2)))
    assert upload_dtype(np.dtype(stored), np.dtype(wanted), dark) == np.dtype(wanted)


def test_the_device_of_the_worker_is_current_while_it_computes(inline: Any, gpu: Traffic) -> None:
    """The stand-in refuses to allocate or compute otherwise."""
    set_use_cuda(3)
    inline.run_udf(load(inline), Where())
    assert gpu.devices == [3, 3]
    assert gpu.current == []


def test_no_device_is_touched_for_the_cpu(inline: Any, gpu: Traffic) -> None:
    set_use_cpu(0)
    inline.run_udf(load(inline), SumUDF())
    set_use_cuda(0)
    inline.run_udf(load(inline), StdDevUDF())
    assert (gpu.devices, gpu.uploads) == ([], [])


@pytest.mark.skipif(not devices.has_cupy(), reason="needs a GPU and a CuPy that works")
@pytest.mark.parametrize("name", sorted(UDFS))
def test_results_of_a_real_gpu_equal_those_of_the_cpu(inline: Any, on_gpu: None, name: str) -> None:
    check_same_as_on_cpu(inline, load(inline), [name], roi=ROI)
