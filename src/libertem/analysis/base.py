"""What analyses and their results have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.analysis.getroi import get_roi
from libertem.common.html import Html, box, facts, look, never_failing, product, table
from libertem.viz.images import encode_image

if TYPE_CHECKING:
    import numpy.typing as npt

    from libertem.io.dataset.base.dataset import DataSet
    from libertem.udf.contract import UDF
    from libertem.udf.results import UDFResultDict

__all__ = ["Analysis", "AnalysisResult", "AnalysisResultSet", "BaseAnalysis"]


class AnalysisResult:
    """One result of an analysis: numbers, and how to show them.

    Parameters
    ----------
    raw_data : array or tuple of array
        The numbers.
    visualized : array of uint8 or callable
        RGB or RGBA image, or a function that makes it when it is first asked for.
    title, desc : str
        For people.
    key : str
        Name in the result set.
    include_in_download : bool, optional
        Whether `raw_data` is a plain array, which can be saved.
    """

    def __init__(
        self,
        raw_data: Any,
        visualized: npt.NDArray[np.uint8] | Callable[[], npt.NDArray[np.uint8]],
        title: str,
        desc: str,
        key: str,
        include_in_download: bool = True,
    ) -> None:
        self.raw_data = raw_data
        self._visualized = visualized
        self.title = title
        self.desc = desc
        self.key = key
        self.include_in_download = include_in_download

    @property
    def visualized(self) -> npt.NDArray[np.uint8]:
        """Image of `raw_data`, uint8: its shape with RGB or RGBA at the end."""
        if callable(self._visualized):
            self._visualized = self._visualized()
        return self._visualized

    def get_image(self, save_kwargs: Mapping[str, Any] | None = None) -> BytesIO:
        """`visualized` as PNG file in memory.

        Parameters
        ----------
        save_kwargs : dict, optional
            For `PIL.Image.Image.save`, for example another format.
        """
        return encode_image(self.visualized, save_kwargs)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy:
            return np.array(self.raw_data, dtype=dtype)
        return np.asarray(self.raw_data, dtype=dtype)

    def __repr__(self) -> str:
        return f"<AnalysisResult: {self.key}>"

    def _repr_html_(self) -> str | None:
        return never_failing(lambda: box(self.title, facts(_description(self)), remark=self.key))


class AnalysisResultSet:
    """Results of an analysis, by name (``results.intensity``, ``results["intensity"]``) or number.

    Parameters
    ----------
    results : sequence of AnalysisResult
        In order.
    raw_results : array, optional
        All numbers in one array, where an analysis has it.
    """

    def __init__(self, results: Sequence[AnalysisResult], raw_results: Any = None) -> None:
        self._results = list(results)
        self.raw_results = raw_results

    @property
    def results(self) -> list[AnalysisResult]:
        """All results."""
        return self._results

    def keys(self) -> list[str]:
        """Names of the results."""
        return [result.key for result in self.results]

    def __getattr__(self, name: str) -> AnalysisResult:
        # A set that is being unpickled has no attributes yet.
        for result in self.__dict__.get("_results", ()):
            if result.key == name:
                found: AnalysisResult = result
                return found
        have = ", ".join(result.key for result in self.__dict__.get("_results", ()))
        raise AttributeError(f"result with key '{name}' not found, have: {have}")

    def __getitem__(self, key: str | int) -> AnalysisResult:
        return self.__getattr__(key) if isinstance(key, str) else self.results[key]

    def __iter__(self) -> Iterator[AnalysisResult]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __repr__(self) -> str:
        return repr(self.results)

    def _repr_html_(self) -> str | None:
        return never_failing(self._html)

    def _html(self) -> str:
        rows = []
        for result in self.results:
            known = dict(_description(result))
            rows.append((result.key, result.title, known["shape"], known["dtype"], known.get("", "")))
        return box("Results of an analysis", table(("key", "result", "shape", "dtype", ""), rows))


def _description(result: AnalysisResult) -> list[tuple[str, Any]]:
    """What notebooks show of a result; the look of it has no name."""
    # Fields of vectors are tuples of arrays.
    parts = [np.asarray(part) for part in result.raw_data] if isinstance(result.raw_data, tuple) else []
    data = parts[0] if parts else np.asarray(result.raw_data)
    shape = product(data.shape)
    rows: list[tuple[str, Any]] = [
        ("description", result.desc),
        ("shape", f"{len(parts)} of {shape}" if parts else shape),
        ("dtype", data.dtype),
    ]
    shown = Html("".join(look(part, True, alt=result.title) for part in parts or [data]))
    return [*rows, ("", shown)] if shown else rows


class BaseAnalysis:
    """A UDF with parameters, and how to present its results. Run it with `libertem.api.Context.run`.

    A subclass gives `get_udf` and `get_udf_results`, and `get_parameters` if it has defaults.

    Parameters
    ----------
    dataset : DataSet
        What to analyze.
    parameters : dict
        See the subclass. What it does not know is ignored. All take ``roi``, see
        `libertem.analysis.getroi.get_roi`.
    """

    def __init__(self, dataset: DataSet, parameters: Mapping[str, Any]) -> None:
        self.dataset = dataset
        self.parameters = self.get_parameters(parameters)
        if parameters.get("roi"):
            self.parameters["roi"] = parameters["roi"]

    def get_parameters(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters of this analysis, with defaults filled in.

        Raises
        ------
        ValueError
            If they do not fit together, or the data set is not of the right kind.
        """
        return {}

    def get_roi(self) -> npt.NDArray[np.bool_] | None:
        """Scan positions to analyze unless `Context.run` is given others; None for all."""
        return get_roi(self.parameters, self.dataset.shape.nav.to_tuple())

    def get_udf(self) -> UDF:
        """What to run."""
        raise NotImplementedError(f"{type(self).__name__} has to implement get_udf")

    def get_udf_results(
        self, udf_results: UDFResultDict, roi: Any, damage: npt.NDArray[np.bool_] | bool
    ) -> AnalysisResultSet:
        """Present what the UDF found.

        Parameters
        ----------
        udf_results : dict
            From the UDF.
        roi : optional
            As it was given to the run.
        damage : array of bool or bool
            Scan positions that have results.
        """
        raise NotImplementedError(f"{type(self).__name__} has to implement get_udf_results")


Analysis = BaseAnalysis
"""The name under which annotations in scripts know the base class."""


def need_dims(dataset: DataSet, *, sig: int | None = None, nav: int | None = None) -> None:
    """Make sure that frames and scan have as many dimensions as an analysis needs.

    Raises
    ------
    ValueError
        If not.
    """
    words = {1: "one", 2: "two"}
    shape = dataset.shape
    if nav is not None and shape.nav.dims != nav:
        raise ValueError(
            f"incompatible dataset: need {words[nav]} navigation dimensions, found {shape.nav.to_tuple()}"
        )
    if sig is not None and shape.sig.dims != sig:
        raise ValueError(
            f"incompatible dataset: need {words[sig]} signal dimensions, found {shape.sig.to_tuple()}"
        )
