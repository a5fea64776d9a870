"""What a notebook shows of a data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from libertem.common.html import Html, beside, box, curve, facts, folded, never_failing, picture, text_of
from libertem.interact.description import Description, describe
from libertem.interact.thumbnail import mean_of_some
from libertem.io.dataset.base.metadata import Quantity, Timestamp

if TYPE_CHECKING:
    from libertem.io.dataset.base.dataset import DataSet

__all__ = ["html"]

MOST_FIELDS = 200
"""Of a raw header. The rest is in ``ds.metadata.header``."""


def html(ctx: Any, dataset: DataSet) -> str:
    """A table of facts, with a small picture of the frames if there is one in a moment.

    Parameters
    ----------
    ctx : Context
        Not used, so that data sets can be looked at when it is closed.
    dataset : DataSet
        Any, also one of a third party. Whatever is wrong with it, this does not raise.
    """
    shown = never_failing(lambda: _html(dataset))
    if shown is not None:
        return shown
    plain = never_failing(lambda: repr(dataset))
    return f"<pre>{escape(type(dataset).__name__ if plain is None else plain)}</pre>"


def _html(dataset: DataSet) -> str:
    known = describe(dataset)
    rows: list[tuple[str, Any]] = list(known.summary())
    for name, value in known.metadata.quantities():
        rows.append((name.replace("_", " "), _with_source(value)))
    if known.load is not None:
        rows.append(("open again", Html(f"<code>ds = ctx.{escape(known.load)}</code>")))
    parts: list[str] = [facts(rows)]
    header = known.metadata.header
    if header:
        parts.append(_header(header))
    look = never_failing(lambda: _thumbnail(dataset, known))
    body = "".join(parts)
    title = known.class_name if known.type_name is None else f"{known.class_name} ({known.type_name})"
    return box(title, beside(look, body) if look else body, remark="data set")


def _with_source(value: Quantity | Timestamp | str) -> Html:
    """The field of the file shows when the pointer rests on the value."""
    source = getattr(value, "source", "")
    title = f' title="{escape(source)}"' if source else ""
    return Html(f"<span{title}>{escape(str(value))}</span>")


def _thumbnail(dataset: DataSet, known: Description) -> str:
    if len(known.sig_shape) > 2:
        return ""
    mean = mean_of_some(dataset)
    if mean is None:
        return ""
    text = "the frame" if known.n_frames == 1 else "mean of some frames"
    if mean.ndim == 1:
        drawn = curve(mean, alt=text, width_px=200, height_px=90)
    else:
        drawn = picture(mean, alt=text, logarithmic=True)
        text += ", logarithmic"
    return f"<figure>{drawn}<figcaption>{text}</figcaption></figure>"


def _header(header: Mapping[str, Any]) -> str:
    fields = list(_flat(header))
    rows: list[tuple[str, Any]] = [
        (name, value if isinstance(value, str) and len(value) < 80 else text_of(value))
        for name, value in fields[:MOST_FIELDS]
    ]
    if len(fields) > MOST_FIELDS:
        rows.append(("...", f"{len(fields) - MOST_FIELDS} more in ds.metadata.header"))
    return folded(f"raw header ({len(fields)} fields)", facts(rows))


def _flat(header: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in header.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
