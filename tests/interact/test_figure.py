"""``ds.plot()``: what is drawn, in which units, and what is refused."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libertem.api import Context
from libertem.interact.figure import scan_position
from libertem.io.dataset.base.metadata import Axis, Metadata
from libertem.io.dataset.memory import MemoryDataSet
from libertem.viz.figures import rulers

DATA = np.random.default_rng(0).poisson(4, size=(5, 7, 16, 12)).astype(np.uint16)
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def ctx() -> Iterator[Context]:
    with Context.make_with("inline") as ctx:
        yield ctx


@pytest.fixture
def ds(ctx: Context) -> Any:
    return ctx.load("memory", data=DATA, sig_dims=2)


class Calibrated(MemoryDataSet):
    """Tells the scan step and the size of detector pixels."""

    def get_metadata(self) -> Metadata:
        nav = (Axis("y", 5e-10, "m", source="step"), Axis("x", 5e-10, "m", 1e-9, source="step"))
        sig = (Axis("ky", 2e7, "1/m", -16e7, "pixel"), Axis("kx", 2e7, "1/m", -12e7, "pixel"))
        return Metadata(nav_axes=nav, sig_axes=sig)


def _images(figure: Any) -> list[Any]:
    return [image for axes in figure.axes for image in axes.get_images()]


def _labels(figure: Any) -> list[tuple[str, str]]:
    return [(axes.get_ylabel(), axes.get_xlabel()) for axes in figure.axes if axes.get_title()]


def test_mean_frame_and_total_intensity_are_drawn(ds: Any) -> None:
    figure = ds.plot(log=False)
    frame, intensity = _images(figure)
    np.testing.assert_allclose(frame.get_array(), DATA.mean(axis=(0, 1)), rtol=1e-6)
    np.testing.assert_array_equal(intensity.get_array(), DATA.sum(axis=(2, 3)))
    assert [axes.get_title() for axes in figure.axes if axes.get_title()] == ["mean frame", "total intensity"]
    assert _labels(figure) == [("detector y (px)", "detector x (px)"), ("scan y", "scan x")]


def test_a_single_frame_is_drawn_and_no_other_is_read(ctx: Context, ds: Any, monkeypatch: Any) -> None:
    read = []
    real = ctx.run_udf

    def watch(**kwargs: Any) -> Any:
        read.append(np.flatnonzero(kwargs["roi"]).tolist())
        return real(**kwargs)

    monkeypatch.setattr(ctx, "run_udf", watch)
    (image,) = _images(ds.plot((3, -1), log=False))
    np.testing.assert_array_equal(image.get_array(), DATA[3, 6])
    assert read == [[3 * 7 + 6]]


def test_frames_are_drawn_logarithmically_unless_told_otherwise(ds: Any) -> None:
    image, _ = _images(ds.plot())
    # One count differs from none.
    norm = image.norm
    assert type(norm).__name__ == "LogNorm"
    single = _images(ds.plot((0, 0)))[0]
    assert 0 < single.norm.vmin < 1 < single.norm.vmax <= DATA[0, 0].max()
    assert (np.asarray(single.get_array()) >= single.norm.vmin).all()


def test_axes_are_in_the_units_of_the_file(ctx: Context) -> None:
    ds = ctx.load(Calibrated, data=DATA, sig_dims=2)
    figure = ds.plot()
    assert _labels(figure) == [("ky (1/nm)", "kx (1/nm)"), ("y (nm)", "x (nm)")]
    frame, intensity = _images(figure)
    np.testing.assert_allclose(frame.get_extent(), (-0.13, 0.11, 0.15, -0.17))
    # Elements 0 to 6 in steps of 0.5 nm from 1 nm, and half a step more at both ends.
    np.testing.assert_allclose(intensity.get_extent(), (0.75, 4.25, 2.25, -0.25))


@pytest.mark.parametrize(
    ("axes", "shape", "labels"),
    [
        ([Axis("y", 2e-9, "m", source="x")], (1500,), ["y (µm)"]),
        (
            [Axis("y", 2e-9, "m", source="x"), Axis("x", 2e-9, "m", source="x")],
            (10, 1500),
            ["y (µm)", "x (µm)"],
        ),
        ([Axis("y", 2e-9, "m", source="x")], (450,), ["y (nm)"]),
        ([Axis("E", 0.5, "eV", 100.0, source="x")], (1024,), ["E (eV)"]),
        ([Axis("E", 10.0, "eV", 0.0, source="x")], (2048,), ["E (keV)"]),
        ([Axis("ky", 1e-4, "rad", source="x")], (128,), ["ky (mrad)"]),
        ([Axis("t", 1e-6, "s", source="x")], (512,), ["t (µs)"]),
        ([Axis("x", 1e-9, "m", source="x")], (1,), ["x (m)"]),
        ([Axis("y", 1.0), Axis("x", 1e-9, "m", source="x")], (8, 8), ["scan y", "x (nm)"]),
    ],
)
def test_units_get_the_prefix_that_people_would_use(axes: Any, shape: Any, labels: list[str]) -> None:
    assert [ruler.label for ruler in rulers(axes, shape, "scan")] == labels


@pytest.mark.parametrize(
    ("shape", "sig_dims", "n_images", "n_curves"),
    [
        ((9, 16, 12), 2, 1, 1),
        ((1, 9, 16, 12), 2, 1, 1),
        ((1, 16, 12), 2, 1, 0),
        ((1, 1, 16, 12), 2, 1, 0),
        ((4, 5, 200), 1, 1, 1),
        ((30, 200), 1, 0, 2),
        ((2, 3, 4, 8, 8), 2, 1, 1),
        ((4, 5, 2, 8, 8), 3, 1, 1),
        ((4, 5, 1, 1), 2, 2, 0),
    ],
)
@pytest.mark.parametrize("log", [True, False])
def test_what_is_no_image_becomes_a_curve(
    ctx: Context,
    tmp_path: Path,
    shape: tuple[int, ...],
    sig_dims: int,
    n_images: int,
    n_curves: int,
    log: bool,
) -> None:
    data = np.random.default_rng(1).poisson(3, size=shape).astype(np.float32)
    figure = ctx.load("memory", data=data, sig_dims=sig_dims).plot(path=tmp_path / "x.png", log=log)
    assert len(_images(figure)) == n_images
    assert sum(len(axes.get_lines()) for axes in figure.axes) == n_curves
    assert (tmp_path / "x.png").read_bytes().startswith(PNG)


def test_a_curve_is_drawn_over_its_axis(ctx: Context) -> None:
    class Spectrum(MemoryDataSet):
        def get_metadata(self) -> Metadata:
            return Metadata(sig_axes=(Axis("energy", 2.0, "eV", 100.0, "dispersion"),))

    data = np.arange(4 * 5 * 50, dtype=np.float32).reshape(4, 5, 50)
    figure = ctx.load(Spectrum, data=data, sig_dims=1).plot()
    (line,) = (line for axes in figure.axes for line in axes.get_lines())
    np.testing.assert_allclose(line.get_xdata(), 100 + 2 * np.arange(50))
    np.testing.assert_allclose(line.get_ydata(), data.mean(axis=(0, 1)))
    assert _labels(figure)[0][1] == "energy (eV)"


@pytest.mark.parametrize(
    "data",
    [
        np.zeros((3, 4, 8, 8), dtype=np.uint8),
        np.full((3, 4, 8, 8), -1.5, dtype=np.float32),
        np.full((3, 4, 8, 8), np.nan, dtype=np.float32),
        np.where(np.arange(768).reshape(3, 4, 8, 8) % 5, 1.0, np.inf),
        np.ones((3, 4, 8, 8), dtype=bool),
        DATA[:3, :4] * (1 + 2j),
    ],
)
@pytest.mark.parametrize("position", [None, (1, 1)])
def test_any_numbers_are_drawn(ctx: Context, tmp_path: Path, data: Any, position: Any) -> None:
    ds = ctx.load("memory", data=data, sig_dims=2)
    with np.errstate(invalid="ignore"):
        ds.plot(position, path=tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(PNG)


def test_the_modulus_of_complex_numbers_is_drawn(ctx: Context) -> None:
    data = DATA * (3 + 4j)
    image, _ = _images(ctx.load("memory", data=data, sig_dims=2).plot(log=False))
    np.testing.assert_allclose(image.get_array(), 5 * DATA.mean(axis=(0, 1)), rtol=1e-5)


@pytest.mark.parametrize("extension", ["png", "pdf", "svg"])
def test_figures_are_saved_in_the_format_of_the_extension(ds: Any, tmp_path: Path, extension: str) -> None:
    ds.plot((0, 0), path=tmp_path / f"x.{extension}")
    begin = {"png": PNG, "pdf": b"%PDF", "svg": b"<?xml"}[extension]
    assert (tmp_path / f"x.{extension}").read_bytes().startswith(begin)


def test_notebooks_show_a_figure_once_and_pyplot_does_not_keep_it(ds: Any) -> None:
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    figure = ds.plot((0, 0))
    assert figure._repr_png_().startswith(PNG)
    assert plt.get_fignums() == before
    with pytest.raises(RuntimeError, match=r"save it with savefig"):
        figure.show()
    gone = weakref.ref(figure)
    del figure
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    ("position", "kind", "message"),
    [
        (5, IndexError, r"has 2 coordinates, \(y, x\): found 5 for a scan of \(5, 7\)"),
        ((1, 2, 3), IndexError, r"has 2 coordinates, \(y, x\): found \(1, 2, 3\)"),
        ((), IndexError, "has 2 coordinates"),
        ((5, 0), IndexError, r"\(5, 0\) lies outside of the scan: found 5 on axis 0, expected 0 to 4"),
        ((0, -8), IndexError, "found -8 on axis 1, expected 0 to 6"),
        ((0.5, 1), TypeError, r"coordinates of a scan position are integers, found \(0.5, 1\)"),
        ("ab", TypeError, "coordinates of a scan position are integers, found 'ab'"),
    ],
)
def test_a_position_that_does_not_exist_is_explained(
    ds: Any, position: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        ds.plot(position)


def test_positions_of_a_line_are_single_numbers() -> None:
    assert scan_position(3, (9,)) == (3,)
    assert scan_position(np.int64(-1), (9,)) == (8,)
    assert scan_position(np.array([1, 2]), (5, 7)) == (1, 2)
    with pytest.raises(IndexError, match=r"has 1 coordinate, \(x,\): found \(1, 2\)"):
        scan_position((1, 2), (9,))


def test_a_file_that_cannot_be_drawn_into_is_refused_before_reading(
    ctx: Context, ds: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(ctx, "run_udf", None)
    with pytest.raises(ValueError, match=r"x\.npy: cannot draw into such a file: .* expected one of .*png"):
        ds.plot(path=tmp_path / "x.npy")
    with pytest.raises(ValueError, match="found the extension ''"):
        ds.plot(path=tmp_path / "noextension")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_there_is_a_sentence(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import numpy as np, libertem.api as lt\n"
        "ds = lt.Context.make_with('inline').load('memory', data=np.ones((2, 2, 4, 4)), sig_dims=2)\n"
        "assert '<img' in ds._repr_html_()\n"
        "ds.plot()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith("ImportError: drawing needs matplotlib")
