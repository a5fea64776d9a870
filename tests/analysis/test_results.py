"""Result objects, analyses of other people, and regions given as parameters."""

from __future__ import annotations

import importlib
import inspect
import pickle
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

import libertem.analysis
from libertem.analysis.base import AnalysisResult, AnalysisResultSet, BaseAnalysis
from libertem.analysis.getroi import get_roi
from libertem.analysis.views import lin_view, log_view, map_result, views
from libertem.api import Context
from libertem.io.dataset.base.dataset import DataSet
from libertem.udf.sumsigudf import SumSigUDF

Array = np.ndarray[Any, Any]
Load = Callable[..., DataSet]

DATA = np.arange(96, dtype=np.uint16).reshape((2, 3, 4, 4))


@pytest.fixture
def results() -> AnalysisResultSet:
    numbers = np.arange(6.0).reshape((2, 3))
    return AnalysisResultSet(
        [map_result(numbers, "one", "One", "first"), map_result(-numbers, "two", "Two", "second")],
        raw_results=numbers,
    )


# --- names ---

MODULES = {
    "disk": "DiskMaskAnalysis",
    "ring": "RingMaskAnalysis",
    "point": "PointMaskAnalysis",
    "masks": "MasksAnalysis MasksResultSet SingleMaskResultSet",
    "com": "COMAnalysis COMResultSet",
    "sum": "SumAnalysis SumResultSet",
    "raw": "PickFrameAnalysis PickResultSet",
    "radialfourier": "RadialFourierAnalysis RadialFourierResultSet",
    "base": "AnalysisResult AnalysisResultSet",
    "getroi": "get_roi",
}


@pytest.mark.parametrize(("module", "names"), MODULES.items())
def test_names_are_found_where_scripts_look_for_them(module: str, names: str) -> None:
    found = importlib.import_module(f"libertem.analysis.{module}")
    assert set(names.split()) <= set(found.__all__)


def test_the_package_shows_all_analyses() -> None:
    for name in libertem.analysis.__all__:
        cls = getattr(libertem.analysis, name)
        assert issubclass(cls, BaseAnalysis)
        assert list(inspect.signature(cls).parameters) == ["dataset", "parameters"]


@pytest.mark.parametrize(
    ("method", "names"),
    [
        ("sum", "dataset"),
        ("pick", "dataset x y z"),
        ("mask", "factories dataset use_sparse mask_count mask_dtype dtype"),
        ("disk", "dataset cx cy r"),
        ("ring", "dataset cx cy ri ro"),
        ("point", "dataset x y"),
        ("com", "dataset cx cy mask_radius flip_y mask_radius_inner scan_rotation"),
        ("radial_fourier", "dataset cx cy ri ro n_bins max_order use_sparse"),
    ],
)
def test_signatures_are_the_documented_ones(method: str, names: str) -> None:
    found = inspect.signature(getattr(Context, f"create_{method}_analysis")).parameters
    assert " ".join(list(found)[1:]) == names


# --- a set of results ---


def test_results_are_found_by_name_or_number(results: AnalysisResultSet) -> None:
    assert results.one is results["one"] is results[0] is results.results[0]
    assert results[-1] is results.two
    assert results.keys() == [result.key for result in results] == ["one", "two"]
    assert len(results) == 2
    assert results.raw_results.shape == (2, 3)
    assert repr(results) == "[<AnalysisResult: one>, <AnalysisResult: two>]"
    assert AnalysisResultSet([]).raw_results is None


def test_other_names_are_errors_that_list_what_there_is(results: AnalysisResultSet) -> None:
    for access in (lambda: results.nope, lambda: results["nope"]):
        with pytest.raises(AttributeError, match=r"^result with key 'nope' not found, have: one, two$"):
            access()
    with pytest.raises(IndexError):
        results[2]


def test_names_of_results_do_not_break_copies() -> None:
    plain = AnalysisResult(np.zeros(2), np.zeros((2, 4), dtype="u1"), "t", "d", "k")
    copy = pickle.loads(pickle.dumps(AnalysisResultSet([plain])))
    assert copy.k.title == "t"


# --- one result ---


def test_a_result_is_an_array(results: AnalysisResultSet) -> None:
    assert np.asarray(results.one) is results.one.raw_data
    assert np.array(results.one, dtype="i4").tolist() == [[0, 1, 2], [3, 4, 5]]
    copy = np.array(results.one, copy=True)
    copy[:] = 0
    assert results.one.raw_data.any()
    assert np.sum(results.two) == -15
    assert (results.one.title, results.one.desc, results.one.include_in_download) == ("One", "first", True)


def test_pictures_are_made_once_when_somebody_looks() -> None:
    made: list[int] = []

    def draw() -> Array:
        made.append(1)
        return np.zeros((2, 2, 4), dtype=np.uint8)

    result = AnalysisResult(np.zeros((2, 2)), draw, "t", "d", "k")
    assert made == []
    assert result.visualized is result.visualized
    assert made == [1]


def test_pictures_can_be_saved(results: AnalysisResultSet) -> None:
    file = results.one.get_image()
    assert isinstance(file, BytesIO)
    assert np.asarray(Image.open(file)).tolist() == results.one.visualized.tolist()
    with Image.open(results.one.get_image({"format": "jpeg"})) as image:
        assert (image.format, image.size) == ("JPEG", (3, 2))


# --- views ---


def test_linear_and_logarithmic_views_hold_the_same_numbers() -> None:
    data = np.array([[1.0, 10.0], [100.0, np.nan]])
    for default, keys in (
        (log_view, ["intensity", "intensity_lin"]),
        (lin_view, ["intensity", "intensity_log"]),
    ):
        found = views(data, "what", True, default=default)
        assert [result.key for result in found] == keys
        assert all(result.raw_data is data for result in found)
        scales = {result.key: result.title[-4:-1] for result in found}
        assert scales["intensity"] == default.__name__[:3]
        assert found[0].visualized.tolist() != found[1].visualized.tolist()
        assert found[0].visualized[1, 1].tolist() == [0, 0, 0, 0]


def test_complex_numbers_are_shown_in_colours() -> None:
    data = np.array([1, 1j, 0, -1])
    found = views(data, "what", True, default=lin_view)
    assert found[-1].key == "intensity_complex"
    assert found[-1].visualized.shape == (4, 3)
    assert len({tuple(colour) for colour in found[-1].visualized.tolist()}) == 4


# --- regions ---


def test_regions_are_disks_or_rectangles() -> None:
    disk = get_roi({"roi": {"shape": "disk", "cx": 1, "cy": 2, "r": 1.5}}, (4, 6))
    y, x = np.mgrid[:4, :6]
    assert disk is not None
    assert disk.tolist() == ((y - 2) ** 2 + (x - 1) ** 2 <= 2.25).tolist()
    rect = get_roi({"roi": {"shape": "rect", "x": 1, "y": 0, "width": 2, "height": 1}}, (4, 6))
    assert rect is not None
    assert rect.tolist() == ((y <= 1) & (x >= 1) & (x <= 3)).tolist()
    assert get_roi({}, (4, 6)) is get_roi({"roi": {}}, (4, 6)) is get_roi({"roi": None}, (4, 6)) is None


def test_other_regions_are_refused() -> None:
    with pytest.raises(NotImplementedError, match="unknown shape 'oval'"):
        get_roi({"roi": {"shape": "oval"}}, (4, 6))
    with pytest.raises(ValueError, match=r"disk needs two navigation dimensions, found \(24,\)"):
        get_roi({"roi": {"shape": "disk", "cx": 1, "cy": 1, "r": 1}}, (24,))


# --- running ---


class Recorder(BaseAnalysis):
    """An analysis as other people might write it: it keeps what it is given."""

    def get_udf(self) -> SumSigUDF:
        return SumSigUDF()

    def get_udf_results(self, udf_results: Any, roi: Any, damage: Any) -> Any:
        return udf_results, roi, damage


def test_an_analysis_gets_the_results_and_what_is_valid(ctx: Context, load: Load) -> None:
    ds = load(DATA)
    buffers, roi, damage = ctx.run(Recorder(ds, {}))  # type: ignore[misc]  # it returns what it likes
    assert buffers["intensity"].data.tolist() == DATA.sum(axis=(2, 3)).tolist()
    assert (roi, damage) == (None, True)
    _, roi, damage = ctx.run(Recorder(ds, {}), roi=[((1, 2), True)])  # type: ignore[misc]  # likewise
    assert roi == [((1, 2), True)]
    assert damage.tolist() == [[False] * 3, [False, False, True]]


def test_arguments_of_run_are_those_of_run_udf(load: Load) -> None:
    class Own(Context):
        def run_udf(self, *args: Any, **kwargs: Any) -> Any:
            assert not args
            calls.append(kwargs)
            return super().run_udf(**kwargs)

    calls: list[dict[str, Any]] = []
    own = Own.make_with("inline")
    analysis = own.create_sum_analysis(load(DATA))
    own.run(analysis, None, False, None)
    assert set(calls[0]) == {"dataset", "udf", "roi", "progress", "corrections"}


def test_the_base_class_does_nothing_by_itself(load: Load) -> None:
    analysis = BaseAnalysis(load(DATA), {"unknown": 1})
    assert analysis.parameters == {}
    with pytest.raises(NotImplementedError, match=r"BaseAnalysis has to implement get_udf$"):
        analysis.get_udf()
    with pytest.raises(NotImplementedError, match="get_udf_results"):
        analysis.get_udf_results({}, None, True)


def test_the_examples_of_the_documentation(ctx: Context, load: Load) -> None:
    ds = load(DATA)
    disk = ctx.create_disk_analysis(ds)
    assert ctx.run(disk).intensity.raw_data.tolist() == [[10, 26, 42], [58, 74, 90]]
    part = ctx.run(disk, roi=ds.roi[0]).intensity.raw_data
    np.testing.assert_array_equal(part, [[10, 26, 42], [np.nan] * 3])
    point = ctx.run(ctx.create_point_analysis(ds, x=1, y=2)).intensity.raw_data
    assert point.tolist() == [[9, 25, 41], [57, 73, 89]]
    pick = ctx.run(ctx.create_pick_analysis(ds, x=1, y=0)).intensity
    assert pick.raw_data[0].tolist() == [16, 17, 18, 19]
    assert pick.desc == "the frame at x=1 y=0 log-scaled"
