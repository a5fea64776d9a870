"""Plots that follow a run."""

from __future__ import annotations

import asyncio
import inspect
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from libertem.api import Context, DataSet
from libertem.udf import UDF
from libertem.udf.base import NoOpUDF
from libertem.udf.com import CoMUDF
from libertem.udf.stddev import StdDevUDF
from libertem.udf.sum import SumUDF
from libertem.udf.sumsigudf import SumSigUDF
from libertem.viz import base, get_plottable_2D_channels, libertem_cyclic
from libertem.viz.base import Dummy2DPlot, Live2DPlot
from libertem.viz.bqp import BQLive2DPlot
from libertem.viz.gms import GMSLive2DPlot
from libertem.viz.mpl import MPLLive2DPlot

DATA = np.arange(96, dtype=np.uint16).reshape((2, 3, 4, 4))
SUMS = DATA.sum(axis=(2, 3))
HALF = [[True] * 3, [False] * 3]
ALL = [[True] * 3] * 2


class Log(Dummy2DPlot):
    """Writes down what happens."""

    lines: list[Any] = []

    def display(self) -> None:
        self.lines.append(("display", self.title))

    def new_data(self, udf_results: Any, damage: Any, force: bool = False) -> None:
        self.lines.append(("new", self.title, np.asarray(damage).tolist(), force))
        super().new_data(udf_results, damage, force=force)

    def update(self, damage: Any, force: bool = False) -> None:
        self.lines.append(("update", self.title, damage.shape, damage.tolist(), force))


@pytest.fixture
def lines() -> list[Any]:
    Log.lines = []
    return Log.lines


@pytest.fixture
def ctx() -> Context:
    return Context.make_with("inline", plot_class=Log)


@pytest.fixture
def ds(ctx: Context, tmp_path: Path) -> DataSet:
    DATA.tofile(tmp_path / "data.raw")
    return ctx.load(
        "raw",
        path=tmp_path / "data.raw",
        dtype="u2",
        nav_shape=(2, 3),
        sig_shape=(4, 4),
        num_partitions=2,
    )


# --- what is shown ---


def test_the_first_result_that_is_an_image_is_shown(ds: DataSet) -> None:
    udf = SumSigUDF()
    plot = Dummy2DPlot(ds, udf)
    assert plot.get_udf() is udf
    assert (plot.channel, plot.title) == ("intensity", "SumSigUDF: intensity")
    assert (plot.min_delta, plot.last_update, plot._extract) == (0, 0, None)
    assert plot.data.shape == (2, 3)
    assert plot.data.mask.all()
    assert Dummy2DPlot(ds, CoMUDF()).channel == "field_y"


def test_a_function_of_a_result_is_shown(ds: DataSet) -> None:
    plot = Dummy2DPlot(ds, SumSigUDF(), channel=("intensity", np.sqrt))
    assert (plot.channel, plot.title) == ("intensity", "SumSigUDF: sqrt(intensity)")
    assert plot.data.tolist() == np.zeros((2, 3)).tolist()
    assert Dummy2DPlot(ds, SumSigUDF(), channel=("intensity", np.sqrt), title="Mine").title == "Mine"


def test_a_function_of_all_results_is_shown(ds: DataSet) -> None:
    def relative(udf_results: Any, damage: Any) -> Any:
        return udf_results["std"].data * 2, True

    plot = Dummy2DPlot(ds, StdDevUDF(), channel=relative)
    assert (plot.channel, plot.title) == (None, "StdDevUDF: relative")
    assert plot.extract({"std": types.SimpleNamespace(data=np.ones((4, 4)))}, True)[0][0, 0] == 2


def test_only_images_can_be_shown(ds: DataSet) -> None:
    with pytest.raises(ValueError, match=r"^No plottable 2D channel found for NoOpUDF$"):
        Dummy2DPlot(ds, NoOpUDF())
    message = r"^channel nope not found or not plottable, have: \['intensity'\]$"
    with pytest.raises(ValueError, match=message):
        Dummy2DPlot(ds, SumSigUDF(), channel="nope")
    with pytest.raises(ValueError, match="channel field not found or not plottable"):
        Dummy2DPlot(ds, CoMUDF(), channel="field")
    with pytest.raises(ValueError, match="channel nope not found, have"):
        Dummy2DPlot(ds, SumSigUDF(), channel=("nope", np.sqrt))


def test_results_of_any_shape_and_kind_are_judged(ctx: Context, ds: DataSet) -> None:
    class Many(UDF):
        def get_result_buffers(self) -> dict[str, Any]:
            return {
                "image": self.buffer(kind="single", extra_shape=(3, 5)),
                "thin": self.buffer(kind="nav", extra_shape=(1,)),
                "vectors": self.buffer(kind="nav", extra_shape=(2,)),
                "line": self.buffer(kind="single", extra_shape=(5,)),
                "objects": self.buffer(kind="nav", dtype=object),
            }

        def process_frame(self, frame: Any) -> None: ...

        def merge(self, dest: Any, src: Any) -> None: ...

    buffers = ctx.run_udf(dataset=ds, udf=Many())
    assert get_plottable_2D_channels(buffers) == ["image", "thin"]
    assert Dummy2DPlot(ds, Many(), channel="thin").data.shape == (2, 3)


def test_earlier_results_can_be_shown_first(ctx: Context, ds: DataSet) -> None:
    first = next(ctx.run_udf_iter(dataset=ds, udf=SumSigUDF()))
    plot = Dummy2DPlot(ds, SumSigUDF(), udfresult=first)
    assert plot.data.filled(-1).tolist() == [SUMS[0].tolist(), [-1] * 3]


def test_subclasses_can_replace_the_extraction(ctx: Context, ds: DataSet, lines: list[Any]) -> None:
    class Own(Log):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._extract = lambda udf_results, damage: (udf_results["intensity"].data * 0, damage)

    udf = SumSigUDF()
    plot = Own(ds, udf)
    ctx.run_udf(dataset=ds, udf=udf, plots=[plot])
    assert plot.data.tolist() == np.zeros((2, 3)).tolist()


# --- when ---


def test_every_merge_and_the_end_are_shown(ctx: Context, ds: DataSet, lines: list[Any]) -> None:
    result = ctx.run_udf(dataset=ds, udf=SumSigUDF(), plots=True)
    assert result["intensity"].data.tolist() == SUMS.tolist()
    title = "SumSigUDF: intensity"
    assert lines == [
        ("display", title),
        ("new", title, HALF, False),
        ("update", title, (2, 3), HALF, False),
        ("new", title, ALL, False),
        ("update", title, (2, 3), ALL, False),
        ("new", title, ALL, True),
        ("update", title, (2, 3), ALL, True),
    ]


def test_updates_are_not_more_frequent_than_asked_for(ctx: Context, ds: DataSet, lines: list[Any]) -> None:
    udf = SumSigUDF()
    plot = Log(ds, udf, min_delta=1000)
    ctx.run_udf(dataset=ds, udf=udf, plots=(plot,))
    assert [line[-1] for line in lines if line[0] == "update"] == [False, True]
    assert plot.last_update > 0
    assert plot.data.tolist() == SUMS.tolist()


def test_each_udf_has_its_plots(ctx: Context, ds: DataSet, lines: list[Any]) -> None:
    sig, total = ctx.run_udf(
        dataset=ds,
        udf=[SumSigUDF(), SumUDF()],
        plots=[["intensity", ("intensity", np.sqrt)], [("intensity", np.log)]],
    )
    assert [line[1] for line in lines if line[0] == "display"] == [
        "SumSigUDF: intensity",
        "SumSigUDF: sqrt(intensity)",
        "SumUDF: log(intensity)",
    ]
    assert sig["intensity"].data.tolist() == SUMS.tolist()
    assert total["intensity"].data.tolist() == DATA.sum(axis=(0, 1)).tolist()
    shapes = {line[1]: line[2] for line in lines if line[0] == "update"}
    assert shapes["SumUDF: log(intensity)"] == (4, 4)


def test_a_udf_may_have_no_plots(ctx: Context, ds: DataSet, lines: list[Any]) -> None:
    for plots in ([[], ["intensity"]], [None, ["intensity"]]):
        lines.clear()
        ctx.run_udf(dataset=ds, udf=[SumSigUDF(), SumUDF()], plots=plots)
        assert {line[1] for line in lines} == {"SumUDF: intensity"}
    lines.clear()
    ctx.run_udf(dataset=ds, udf=[SumSigUDF(), SumUDF()], plots=[["intensity"]])
    assert {line[1] for line in lines} == {"SumSigUDF: intensity"}
    lines.clear()
    for nothing in (None, False, [], ()):
        ctx.run_udf(dataset=ds, udf=SumSigUDF(), plots=nothing)
    assert lines == []


def test_nothing_to_plot_is_a_warning(ctx: Context, ds: DataSet) -> None:
    with pytest.warns(UserWarning, match="^No plottable channels found for UDF #0: NoOpUDF, not plotting"):
        assert ctx.run_udf(dataset=ds, udf=NoOpUDF(), plots=True) == {}


@pytest.mark.parametrize(
    ("plots", "message"),
    [
        ([["nope"]], "channel nope not found or not plottable"),
        (["intensity"], r'write plots=\[\["intensity"\]\]'),
        ([["intensity"], ["intensity"]], "channels for 2 UDFs, but there are 1"),
    ],
)
def test_mistakes_in_the_list_of_plots_are_explained(
    ctx: Context, ds: DataSet, plots: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ctx.run_udf(dataset=ds, udf=SumSigUDF(), plots=plots)


def test_a_plot_has_to_show_a_udf_of_the_run(ctx: Context, ds: DataSet) -> None:
    plot = Log(ds, SumSigUDF())
    with pytest.raises(ValueError, match="plot of SumSigUDF shows an instance that is not part of the run"):
        ctx.run_udf(dataset=ds, udf=SumSigUDF(), plots=[plot])


def test_only_the_roi_is_valid(ctx: Context, ds: DataSet, lines: list[Any]) -> None:
    ctx.run_udf(dataset=ds, udf=SumSigUDF(), plots=True, roi=ds.roi[0])
    assert [line[3] for line in lines if line[0] == "update"] == [HALF, HALF]


def test_nothing_selected_still_ends(ctx: Context, ds: DataSet, lines: list[Any]) -> None:
    ctx.run_udf(dataset=ds, udf=SumSigUDF(), plots=True, roi=np.zeros((2, 3), dtype=bool))
    assert lines[-1][-1] is True
    assert not np.any(lines[-1][3])


def test_what_is_not_finite_is_not_valid(ctx: Context, ds: DataSet, lines: list[Any]) -> None:
    def colours(udf_results: Any, damage: Any) -> Any:
        data = np.ones((2, 3, 4))
        data[0, 1, 2] = np.nan
        return data, damage

    udf = SumSigUDF()
    ctx.run_udf(dataset=ds, udf=udf, plots=[Log(ds, udf, channel=colours)])
    assert lines[-1][2:4] == ((2, 3), [[True, False, True], [True] * 3])


def test_iterations_are_followed(ctx: Context, ds: DataSet, lines: list[Any]) -> None:
    seen = []
    for step in ctx.run_udf_iter(dataset=ds, udf=SumSigUDF(), plots=True):
        seen.append(step.damage.data.tolist())
        assert lines[-1][3] == seen[-1]
    assert seen == [HALF, ALL]
    assert lines[-1][-1] is True


def test_coroutines_are_followed(ctx: Context, ds: DataSet, lines: list[Any]) -> None:
    async def main() -> Any:
        return await ctx.run_udf(dataset=ds, udf=SumSigUDF(), plots=True, sync=False)

    assert asyncio.run(main())["intensity"].data.tolist() == SUMS.tolist()
    assert lines[-1] == ("update", "SumSigUDF: intensity", (2, 3), ALL, True)


def test_leaving_an_iteration_ends_the_run(ctx: Context, ds: DataSet, lines: list[Any]) -> None:
    steps = ctx.run_udf_iter(dataset=ds, udf=SumSigUDF(), plots=True)
    next(steps)
    steps.close()
    assert [line[-1] for line in lines if line[0] == "new"] == [False]
    with pytest.raises(StopIteration):
        next(steps)


def test_a_base_class_needs_its_methods(ds: DataSet) -> None:
    plot = Live2DPlot(ds, SumSigUDF())
    with pytest.raises(NotImplementedError, match="Live2DPlot has to implement display"):
        plot.display()
    with pytest.raises(NotImplementedError, match="Live2DPlot has to implement update"):
        plot.update(np.ones((2, 3), dtype=bool))


def test_helpers_are_found_beside_the_base_class() -> None:
    assert {"visualize_simple", "rgb_from_2dvector", "encode_image"} <= set(base.__all__)
    assert base.libertem_cyclic is libertem_cyclic
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = base.nothing


@pytest.mark.parametrize(
    ("cls", "min_delta"),
    [
        (Live2DPlot, 0),
        (Dummy2DPlot, 0),
        (MPLLive2DPlot, 0.5),
        (BQLive2DPlot, 1 / 60),
        (GMSLive2DPlot, 0.2),
    ],
)
def test_signatures_are_the_documented_ones(cls: Any, min_delta: float) -> None:
    found = inspect.signature(cls).parameters
    assert [name for name in found if name != "kwargs"] == (
        ["dataset", "udf", "roi", "channel", "title", "min_delta", "udfresult"]
    )
    assert found["min_delta"].default == min_delta


# --- matplotlib ---


@pytest.fixture
def _without_screen() -> Iterator[None]:
    with mpl.rc_context({"backend": "Agg"}):
        yield
    plt.close("all")


@pytest.mark.usefixtures("_without_screen")
def test_matplotlib_shows_the_data(ctx: Context, ds: DataSet) -> None:
    udf = SumSigUDF()
    plot = MPLLive2DPlot(ds, udf, cmap="gray")
    assert (plot.fig, plot.axes, plot.im_obj) == (None, None, None)
    plot.display()
    ctx.run_udf(dataset=ds, udf=udf, plots=[plot])
    assert plot.im_obj.get_array().tolist() == SUMS.tolist()
    assert plot.im_obj.get_clim() == (120, 1400)
    assert plot.im_obj.get_cmap().name == "gray"
    assert plot.axes.get_title() == "SumSigUDF: intensity"


@pytest.mark.usefixtures("_without_screen")
def test_matplotlib_scales_to_what_is_valid(ctx: Context, ds: DataSet) -> None:
    plot = MPLLive2DPlot(ds, SumSigUDF())
    plot.display()
    results = ctx.run_udf(dataset=ds, udf=SumSigUDF())
    plot.new_data(results, np.array(HALF), force=True)
    # The results are complete, whatever the run says.
    assert plot.im_obj.get_clim() == (120, 1400)
    plot.data = np.ma.array(SUMS, mask=~np.array(HALF))
    plot.update(np.array(HALF))
    assert plot.im_obj.get_clim() == (120, 632)


@pytest.mark.usefixtures("_without_screen")
def test_matplotlib_scales_images_with_an_axis_of_one_element(ctx: Context, ds: DataSet) -> None:
    udf = SumSigUDF()
    plot = MPLLive2DPlot(ds, udf, channel=("intensity", lambda data: data[..., np.newaxis]))
    plot.display()
    ctx.run_udf(dataset=ds, udf=udf, plots=[plot])
    assert plot.im_obj.get_clim() == (120, 1400)


@pytest.mark.usefixtures("_without_screen")
def test_matplotlib_shows_complex_numbers_and_colours(ctx: Context, ds: DataSet) -> None:
    udf = SumSigUDF()
    turned = MPLLive2DPlot(ds, udf, channel=("intensity", lambda data: 1j * data))
    coloured = MPLLive2DPlot(ds, udf, channel=lambda r, d: (np.zeros((2, 3, 3)), d))
    for plot in (turned, coloured):
        plot.display()
    ctx.run_udf(dataset=ds, udf=udf, plots=[turned, coloured])
    assert turned.im_obj.get_array().tolist() == SUMS.tolist()
    assert coloured.im_obj.get_array().shape == (2, 3, 3)


class FakeCell:
    """Stands for the output of a notebook cell."""

    def __init__(self) -> None:
        self.shown: list[bytes] = []

    def display(self, figure: Any, display_id: bool = False) -> FakeCell:
        assert display_id
        self.update(figure)
        return self

    def update(self, figure: Any) -> None:
        self.shown.append(figure._repr_png_())


@pytest.mark.usefixtures("_without_screen")
def test_matplotlib_replaces_the_picture_in_a_notebook_cell(
    ctx: Context, ds: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = FakeCell()
    monkeypatch.setitem(sys.modules, "IPython.display", cell)
    # Its name until version 3.8; since then "inline".
    monkeypatch.setattr(mpl, "get_backend", lambda: "module://matplotlib_inline.backend_inline")
    udf = SumSigUDF()
    plot = MPLLive2DPlot(ds, udf, min_delta=0)
    plot.display()
    assert len(cell.shown) == 1
    ctx.run_udf(dataset=ds, udf=udf, plots=[plot])
    # Two merges and the end; the last two show the same.
    assert len(cell.shown) == 4
    assert len(set(cell.shown)) == 3
    assert all(picture.startswith(b"\x89PNG") for picture in cell.shown)
    assert plot.im_obj.get_array().tolist() == SUMS.tolist()
    # Pyplot does not know the figure: the cell would show it once more at its end.
    assert plt.get_fignums() == []


@pytest.mark.usefixtures("_without_screen")
def test_pixels_on_the_canvas_change_during_a_run(ctx: Context, ds: DataSet) -> None:
    pictures = []

    class Watched(MPLLive2DPlot):
        def update(self, damage: Any, force: bool = False) -> None:
            super().update(damage, force=force)
            self.fig.canvas.draw()
            pictures.append(bytes(self.fig.canvas.buffer_rgba()))

    udf = SumSigUDF()
    plot = Watched(ds, udf, min_delta=0)
    plot.display()
    ctx.run_udf(dataset=ds, udf=udf, plots=[plot])
    assert len(pictures) == 3
    assert pictures[0] != pictures[1] == pictures[2]


def test_a_plot_that_is_not_displayed_says_so(ctx: Context, ds: DataSet) -> None:
    plot = MPLLive2DPlot(ds, SumSigUDF())
    with pytest.warns(UserWarning, match=r"Call display\(\)"):
        plot.update(np.array(ALL))


# --- others, which are not installed everywhere ---


class FakeImage:
    """Stands for an image of Digital Micrograph."""

    def __init__(self, array: Any) -> None:
        self.array, self.calls = array, []  # type: tuple[Any, list[str]]

    def GetNumArray(self) -> Any:
        return self.array

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self.calls.append(name)


def test_digital_micrograph_gets_the_data(ctx: Context, ds: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    images: list[FakeImage] = []

    def create(array: Any) -> FakeImage:
        assert type(array) is np.ndarray
        assert array.flags.owndata
        images.append(FakeImage(array))
        return images[-1]

    monkeypatch.setitem(sys.modules, "DigitalMicrograph", types.SimpleNamespace(CreateImage=create))
    udf = SumSigUDF()
    ctx.run_udf(dataset=ds, udf=udf, plots=[GMSLive2DPlot(ds, udf, min_delta=0)])
    assert images[0].array.tolist() == SUMS.tolist()
    assert images[0].calls == ["SetName"] + ["UpdateImage"] * 3


@pytest.mark.parametrize(("cls", "package"), [(BQLive2DPlot, "bqplot"), (GMSLive2DPlot, "DigitalMicrograph")])
def test_missing_packages_are_noticed_when_a_plot_is_made(
    ds: DataSet, monkeypatch: pytest.MonkeyPatch, cls: Any, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=package):
        cls(ds, SumSigUDF())


def test_bqplot_gets_the_data(ctx: Context, ds: DataSet) -> None:
    pytest.importorskip("bqplot", reason="bqplot is not installed")
    pytest.importorskip("bqplot_image_gl", reason="bqplot-image-gl is not installed")
    udf = SumSigUDF()
    plot = BQLive2DPlot(ds, udf, min_delta=0)
    plot.display()
    ctx.run_udf(dataset=ds, udf=udf, plots=[plot])
    assert plot.image.image.tolist() == SUMS.tolist()
    scale = plot.image.scales["image"]
    assert (scale.min, scale.max) == (120, 1400)
