"""What notebooks show of data sets, UDFs and results."""

from __future__ import annotations

import pickle
import re
import threading
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libertem.api import Context
from libertem.common.buffers import BufferWrapper
from libertem.common.taskcomm import TaskCommHandler
from libertem.interact import thumbnail
from libertem.interact.description import describe
from libertem.interact.html import html
from libertem.interact.recipe import load_call
from libertem.io.dataset import register_dataset_cls, unregister_dataset_cls
from libertem.io.dataset.base.metadata import Axis, Metadata, Quantity
from libertem.io.dataset.memory import MemoryDataSet
from libertem.udf import UDF
from libertem.udf.com import CoMUDF
from libertem.udf.raw import PickUDF
from libertem.udf.sum import SumUDF
from libertem.udf.sumsigudf import SumSigUDF

DATA = np.random.default_rng(0).poisson(4, size=(5, 7, 16, 12)).astype(np.uint16)


class Balance(HTMLParser):
    """Checks that all that is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(shown: str | None) -> str:
    """What is shown, if it is well-formed."""
    assert shown is not None
    balance = Balance()
    balance.feed(shown)
    assert balance.open == []
    return shown


@pytest.fixture
def ctx() -> Iterator[Context]:
    with Context.make_with("inline") as ctx:
        yield ctx


@pytest.fixture
def ds(ctx: Context, tmp_path: Path) -> Any:
    DATA.tofile(tmp_path / "scan.raw")
    return ctx.load("raw", path=tmp_path / "scan.raw", dtype="uint16", nav_shape=(5, 7), sig_shape=(16, 12))


class Slow(MemoryDataSet):
    """Stands for a disk that answers late."""

    answers = threading.Event()

    def get_partitions(self) -> Any:
        assert self.answers.wait(60)
        return super().get_partitions()


@pytest.fixture
def _registered() -> Iterator[None]:
    Slow.answers = threading.Event()
    register_dataset_cls("slow", Slow)
    yield
    Slow.answers.set()
    unregister_dataset_cls("slow")


def _readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "libertem-thumbnail"]


# --- data sets ---


def test_a_data_set_tells_what_it_is(ds: Any, tmp_path: Path) -> None:
    shown = checked(ds._repr_html_())
    for text in (
        "RawFileDataSet (raw)",
        "5 \N{MULTIPLICATION SIGN} 7 positions",
        "16 \N{MULTIPLICATION SIGN} 12 px",
        "uint16",
        "13.4 kB (35 frames)",
        "not calibrated",
        str(tmp_path / "scan.raw"),
        "sync offset",
    ):
        assert text in shown
    assert shown.count("<img") == 1
    assert "mean of some frames" in shown


def test_what_the_file_says_is_shown_with_its_source(ctx: Context) -> None:
    class Calibrated(MemoryDataSet):
        def get_metadata(self) -> Metadata:
            return Metadata(
                voltage=Quantity(300e3, "V", 'HT <"kV">'),
                detector="<script>camera</script>",
                nav_axes=(Axis("y", 5e-10, "m", source="step"), Axis("x", 5e-10, "m", source="step")),
                header={"a": {"b": 1, "c": [1, 2]}, "long": "x" * 1000},
            )

    shown = checked(ctx.load(Calibrated, data=DATA, sig_dims=2)._repr_html_())
    assert '<span title="HT &lt;&quot;kV&quot;&gt;">300 kV</span>' in shown
    assert "<script>" not in shown
    assert "y, x: 500 pm per element, 2.5 nm \N{MULTIPLICATION SIGN} 3.5 nm in all" in shown
    assert "raw header (3 fields)" in shown
    assert "<th>a.b</th><td>1</td>" in shown
    assert "x" * 200 not in shown


def test_the_sync_offset_is_explained(ctx: Context, ds: Any, tmp_path: Path) -> None:
    kwargs = {"path": tmp_path / "scan.raw", "dtype": "uint16", "nav_shape": (5, 7), "sig_shape": (16, 12)}
    early = ctx.load("raw", **kwargs, sync_offset=-3)
    assert "-3: 3 ignored at the end, 3 blank ones inserted at the start" in early._repr_html_()
    late = ctx.load("raw", **kwargs, sync_offset=4)
    assert "4: 4 skipped at the start, 4 blank ones inserted at the end" in late._repr_html_()


def test_the_line_that_is_shown_opens_the_same_data(ctx: Context, ds: Any) -> None:
    call = load_call(ds)
    assert call is not None
    assert call in ds._repr_html_().replace("&quot;", '"')
    again = eval(f"ctx.{call}", {"ctx": ctx})
    assert (tuple(again.shape), again.dtype) == (tuple(ds.shape), ds.dtype)
    np.testing.assert_array_equal(again[1, 2], DATA[1, 2])


def test_what_no_line_can_open_shows_none(ctx: Context) -> None:
    ds = ctx.load("memory", data=DATA, sig_dims=2)
    assert load_call(ds) is None
    assert "open again" not in ds._repr_html_()


@pytest.mark.parametrize(
    "name", ["it's.raw", 'a "quoted" name.raw', "back\\slash.raw", "ünïcödé \N{SNOWMAN}.raw"]
)
def test_strange_names_are_written_so_that_python_reads_them(ctx: Context, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    DATA.tofile(path)
    ds = ctx.load("raw", path=str(path), dtype=">u2", nav_shape=(35,), sig_shape=(16, 12), sync_offset=2)
    again = eval(f"ctx.{load_call(ds, absolute=True)}", {"ctx": ctx})
    assert again._path == str(path)
    assert again.dtype == np.dtype(">u2")
    assert again._sync_offset == 2
    checked(ds._repr_html_())


@pytest.mark.parametrize("dtype", ["uint8", ">i4", "float32", "float64", "complex64", "bool"])
@pytest.mark.parametrize("sig_dims", [1, 2, 3])
def test_all_kinds_of_frames_are_shown(ctx: Context, dtype: str, sig_dims: int) -> None:
    ds = ctx.load("memory", data=DATA.astype(dtype), sig_dims=sig_dims)
    shown = checked(ds._repr_html_())
    assert ("<img" in shown) == (sig_dims == 2)
    assert ("<svg" in shown) == (sig_dims == 1)


def test_the_picture_is_the_mean_of_frames_spread_over_the_scan(ctx: Context) -> None:
    ds = ctx.load("memory", data=DATA, sig_dims=2, num_partitions=3)
    mean = thumbnail.mean_of_some(ds, seconds=60)
    positions = thumbnail._spread(35, thumbnail.N_FRAMES)
    np.testing.assert_allclose(mean, DATA.reshape(35, 16, 12)[positions].mean(axis=0))
    assert len(set(positions)) == thumbnail.N_FRAMES
    assert positions[0] == 17
    assert max(np.diff(sorted(positions))) <= 5


def test_corrections_that_come_with_the_data_are_in_the_picture(ctx: Context) -> None:
    from libertem.io.corrections.corrset import CorrectionSet

    class WithDark(MemoryDataSet):
        def get_correction_data(self) -> CorrectionSet:
            return CorrectionSet(dark=np.full((16, 12), 2.0))

    register_dataset_cls("dark", WithDark)
    try:
        ds = ctx.load("dark", data=np.full((3, 3, 16, 12), 5, dtype=np.uint8), sig_dims=2)
        np.testing.assert_allclose(thumbnail.mean_of_some(ds, seconds=60), 3.0)
        assert "dark frame" in ds._repr_html_()
    finally:
        unregister_dataset_cls("dark")


@pytest.mark.usefixtures("_registered")
def test_slow_files_are_shown_without_a_picture_and_with_one_later(ctx: Context) -> None:
    ds = ctx.load("slow", data=DATA, sig_dims=2)
    shown = checked(ds._repr_html_())
    assert "Slow (slow)" in shown
    assert "<img" not in shown
    # It did not wait for the disk, which has not answered yet.
    (reader,) = _readers()
    Slow.answers.set()
    reader.join(60)
    assert "<img" in ds._repr_html_()


@pytest.mark.timing
@pytest.mark.usefixtures("_registered")
def test_a_picture_costs_no_more_than_a_fifth_of_a_second(ctx: Context) -> None:
    ds = ctx.load("slow", data=DATA, sig_dims=2)
    ds._repr_html_()
    start = time.perf_counter()
    ds._repr_html_()
    assert time.perf_counter() - start < 0.2


def test_live_data_and_lazy_arrays_are_not_set_in_motion(ctx: Context) -> None:
    import dask.array as da

    computed = []

    def block(block_info: Any = None) -> Any:
        computed.append(block_info)
        return np.ones((2, 2, 8, 8))

    lazy = da.map_blocks(block, chunks=((2,), (2,), (8,), (8,)), dtype=np.float64, meta=np.empty((0,) * 4))
    ds = ctx.load("dask", lazy, sig_dims=2)
    checked(ds._repr_html_())
    assert computed == []

    class Live(MemoryDataSet):
        def get_task_comm_handler(self) -> TaskCommHandler:
            return TaskCommHandler()

        def get_partitions(self) -> Any:
            raise AssertionError("that would start an acquisition")

    register_dataset_cls("live", Live)
    try:
        # check_valid and the like do not ask for partitions.
        assert "<img" not in checked(ctx.load("live", data=DATA, sig_dims=2)._repr_html_())
    finally:
        unregister_dataset_cls("live")


def test_a_closed_context_changes_nothing(tmp_path: Path) -> None:
    DATA.tofile(tmp_path / "scan.raw")
    with Context.make_with("threads", cpus=1) as ctx:
        ds = ctx.load("raw", path=tmp_path / "scan.raw", dtype="uint16", nav_shape=(35,), sig_shape=(16, 12))
    assert "<img" in checked(ds._repr_html_())
    (tmp_path / "scan.raw").unlink()
    checked(html(ctx, ds))


def test_a_data_set_made_by_hand_falls_back_to_the_plain_representation() -> None:
    assert MemoryDataSet(data=DATA, sig_dims=2)._repr_html_() is None


def test_a_data_set_in_which_everything_is_broken_is_shown(ctx: Context) -> None:
    class Broken(MemoryDataSet):
        metadata = "mine"
        axes = 3

        def get_sync_offset_info(self) -> Any:
            if self._meta is None or getattr(self, "_interactive", None) is None:
                return super().get_sync_offset_info()
            raise RuntimeError("broken")

        def get_correction_data(self) -> Any:
            raise RuntimeError("broken")

    ds = ctx.load(Broken, data=DATA, sig_dims=2)
    assert "5 \N{MULTIPLICATION SIGN} 7 positions" in checked(ds._repr_html_())

    class Worse(MemoryDataSet):
        @property
        def shape(self) -> Any:
            if getattr(self, "_interactive", None) is None:
                return super().shape
            raise RuntimeError("broken")

        def __repr__(self) -> str:
            raise RuntimeError("broken")

    assert ctx.load(Worse, data=DATA, sig_dims=2)._repr_html_() == "<pre>Worse</pre>"


def test_the_description_is_plain_data(ds: Any) -> None:
    import json

    known = json.loads(json.dumps(describe(ds).to_dict(), allow_nan=False))
    assert known["nav_shape"] == [5, 7]
    assert known["n_bytes"] == DATA.nbytes
    assert known["dtype"] == "<u2"
    assert [axis["name"] for axis in known["axes"]] == ["y", "x", "ky", "kx"]


# --- UDFs ---


def test_a_udf_tells_its_purpose_and_parameters() -> None:
    class Mine(UDF):
        """Does <one> thing.

        In a way that does not matter.
        """

        def __init__(self, factor: float = 2.0, table: Any = None, f: Any = np.sqrt) -> None:
            super().__init__(factor=factor, table=table, f=f)

        def get_result_buffers(self) -> Any:
            return {}

        def process_frame(self, frame: Any) -> None: ...

    shown = checked(Mine(table=np.zeros((128, 128)))._repr_html_())
    assert "Does &lt;one&gt; thing." in shown
    assert "does not matter" not in shown
    assert "frame by frame" in shown
    assert "<td>factor</td><td><code>2.0</code></td><td>default</td>" in shown
    assert "<td>table</td><td><code>ndarray of float64, (128, 128)</code></td><td></td>" in shown
    assert "<code>sqrt</code>" in shown


def test_a_udf_without_process_method_says_so() -> None:
    class Empty(UDF):
        def get_result_buffers(self) -> Any:
            return {}

    shown = checked(Empty()._repr_html_())
    assert "has to implement process_tile, process_frame or process_partition" in shown
    # That of the base class tells how to write UDFs.
    assert "purpose" not in shown


@pytest.mark.parametrize("udf", [SumUDF(), PickUDF(), CoMUDF.with_params(cy=3, cx=4)])
def test_ready_made_udfs_are_shown(udf: UDF) -> None:
    assert type(udf).__name__ in checked(udf._repr_html_())


def test_a_udf_that_cannot_be_looked_at_falls_back_to_the_plain_representation() -> None:
    class Strange(SumUDF):
        def get_backends(self) -> Any:
            raise RuntimeError("broken")

    assert Strange()._repr_html_() is None


# --- results ---


def test_results_are_shown_as_a_table(ctx: Context, ds: Any) -> None:
    result = ctx.run_udf(dataset=ds, udf=CoMUDF())
    assert isinstance(result, dict)
    shown = checked(result._repr_html_())
    for name in result:
        assert f"<td>{name}</td>" in shown
    assert "<td>nav</td><td>5 \N{MULTIPLICATION SIGN} 7</td><td>float32</td><td>all</td>" in shown
    assert shown.count("<img") >= 6


def test_results_of_several_udfs_are_shown(ctx: Context, ds: Any) -> None:
    results = ctx.run_udf(dataset=ds, udf=[SumUDF(), SumSigUDF()], roi=ds.roi[0])
    assert isinstance(results, tuple)
    shown = checked(results._repr_html_())  # type: ignore[attr-defined]  # of the tuple that a run returns
    assert "Results of 2 UDFs" in shown
    assert "<td>20 %</td>" in shown
    (last,) = (step for step in ctx.run_udf_iter(dataset=ds, udf=SumUDF()))
    assert "scan positions covered</th><td>100 %" in checked(last._repr_html_())


def test_a_result_is_shown(ctx: Context, ds: Any) -> None:
    buffer = ctx.run_udf(dataset=ds, udf=SumSigUDF())["intensity"]
    shown = checked(buffer._repr_html_())
    assert "5 \N{MULTIPLICATION SIGN} 7" in shown
    assert "<img" in shown
    assert "float32" in checked(BufferWrapper("nav")._repr_html_())


def test_a_run_without_results_says_so(ctx: Context, ds: Any) -> None:
    from libertem.udf.base import NoOpUDF

    result = ctx.run_udf(dataset=ds, udf=NoOpUDF())
    assert result == {}
    assert "none" in checked(result._repr_html_())


def test_results_with_strange_values_are_shown(ctx: Context, ds: Any) -> None:
    class Strange(UDF):
        def get_result_buffers(self) -> Any:
            return {
                "<b>": self.buffer("nav", dtype=object),
                "nan": self.buffer("nav"),
                "empty": self.buffer("single", extra_shape=(0,)),
                "many": self.buffer("nav", extra_shape=(2, 3)),
                "one": self.buffer("single", dtype=np.complex64, use="result_only"),
            }

        def process_frame(self, frame: Any) -> None:
            self.results.nan[:] = np.nan

        def merge(self, dest: Any, src: Any) -> None:
            dest.nan[:] = src.nan

        def get_results(self) -> Any:
            return {"nan": self.results.nan, "one": np.array([1 + 2j], dtype=np.complex64)}

    shown = checked(ctx.run_udf(dataset=ds, udf=Strange())._repr_html_())
    assert "&lt;b&gt;" in shown
    assert "(1+2j)" in shown


def test_results_survive_pickling(ctx: Context, ds: Any) -> None:
    result = ctx.run_udf(dataset=ds, udf=SumSigUDF())
    again = pickle.loads(pickle.dumps(result))
    assert again["intensity"].data.tolist() == result["intensity"].data.tolist()
    checked(again._repr_html_())


def test_results_of_analyses_are_shown(ctx: Context, ds: Any) -> None:
    results = ctx.run(ctx.create_com_analysis(dataset=ds))
    shown = checked(results._repr_html_())
    for key in results.keys():  # noqa: SIM118  # it is no dict
        assert f"<td>{key}</td>" in shown
    assert "2 of 5 \N{MULTIPLICATION SIGN} 7" in shown
    one = checked(results.magnitude._repr_html_())
    assert "<img" in one
    assert re.search("<th>dtype</th><td>float", one)
