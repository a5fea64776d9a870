"""UDFs and their results, as notebooks show them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.html import Html, box, facts, folded, look, product, table, text_of

if TYPE_CHECKING:
    from libertem.common.buffers import BufferWrapper

__all__ = ["all_results_html", "buffer_table", "results_html", "udf_html"]

PARAMETERS_AT_ONCE = 12
"""More of them are folded away."""


def udf_html(udf: Any) -> str:
    """Name, purpose, parameters and way of working of a UDF."""
    cls = type(udf)
    # Not the inherited one, which tells how to write a UDF.
    purpose = (cls.__dict__.get("__doc__") or "").strip().partition("\n\n")[0]
    rows: list[tuple[str, Any]] = []
    if purpose:
        rows.append(("purpose", " ".join(purpose.split())))
    rows += [("processes", _method(udf)), ("input dtype", input_dtype(udf)), ("arrays", _backends(udf))]
    given = dict(udf._kwargs)
    parameters = table(
        ("parameter", "value", ""),
        [(name, _code(value), _default_remark(cls, name, value)) for name, value in given.items()],
    )
    parts = [facts(rows)]
    if given:
        short = len(given) <= PARAMETERS_AT_ONCE
        parts.append(parameters if short else folded(f"{len(given)} parameters", parameters))
    return box(cls.__name__, *parts, remark=f"UDF, from {cls.__module__}")


def _method(udf: Any) -> str:
    try:
        method = udf.get_method().value
    except TypeError as err:
        return str(err)
    return {
        "tile": "tiles: stacks of frames, or of parts of frames",
        "frame": "frame by frame",
        "partition": "all frames of a partition at once",
    }[method]


def input_dtype(udf: Any) -> str:
    """What a UDF would like to receive, in a word."""
    dtype = udf.get_preferred_input_dtype()
    return "native" if dtype is udf.USE_NATIVE_DTYPE else str(np.dtype(dtype))


def _backends(udf: Any) -> str:
    """Families of arrays that a UDF can take: there are thirteen kinds."""
    backends = udf.get_backends()
    names = [backends] if isinstance(backends, str) else list(backends)
    # The last part of the name tells members of a family apart.
    return ", ".join(dict.fromkeys(name.rpartition(".")[0] or name for name in names))


def _code(value: Any) -> Html:
    return Html(f"<code>{escape(text_of(value))}</code>")


def _default_remark(cls: type, name: str, value: Any) -> str:
    parameter = inspect.signature(cls).parameters.get(name)
    is_default = parameter is not None and parameter.default is value
    return "default" if is_default else ""


def buffer_table(results: Mapping[str, BufferWrapper]) -> Html:
    """Names, shapes, dtypes, kinds and a look at each result."""
    rows = [
        (
            name,
            buffer.kind,
            product(np.shape(buffer.data)),
            buffer.dtype,
            _validity(buffer),
            look(np.asarray(buffer.data), buffer.valid_mask, alt=name, logarithmic=_like_frame(buffer)),
        )
        for name, buffer in results.items()
    ]
    return table(("result", "kind", "shape", "dtype", "valid", ""), rows)


def _like_frame(buffer: BufferWrapper) -> bool:
    """Whether to show a result like a frame, over some decades."""
    data = buffer.data
    return buffer.kind == "sig" and data.dtype.kind in "uif" and bool(np.nanmin(data) >= 0)


def _validity(buffer: BufferWrapper) -> str:
    valid = np.asarray(buffer.valid_mask)
    if valid.all():
        return "all"
    percent = 100 * float(valid.mean())
    return "nothing" if percent == 0 else f"{min(max(percent, 0.1), 99.9):.3g} %"


def results_html(results: Mapping[str, BufferWrapper]) -> str:
    """Results of one UDF."""
    content = buffer_table(results) if results else facts([("results", "none")])
    return box("Results of a UDF", content, remark='use result["name"].data')


def all_results_html(results: Sequence[Mapping[str, BufferWrapper]], covered: Any = None) -> str:
    """Results of all UDFs of a run."""
    parts: list[str] = []
    if covered is not None:
        share = float(np.mean(np.asarray(covered)))
        parts.append(facts([("scan positions covered", f"{100 * share:.4g} %")]))
    for number, one in enumerate(results):
        parts.append(Html(f'<div style="margin-top:8px">[{number}]</div>') + buffer_table(one))
    return box(f"Results of {len(results)} UDF{'s' if len(results) != 1 else ''}", *parts)
