"""Building blocks for what notebooks show: tables of facts, small pictures and curves.

Colours are those of the page, so that light and dark themes both work. Without the style, which some pages
remove, plain tables remain.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from libertem.common.png import encode_png, grey_image, shrink

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = [
    "Html",
    "beside",
    "box",
    "byte_count",
    "curve",
    "dtype_text",
    "facts",
    "folded",
    "look",
    "never_failing",
    "picture",
    "product",
    "table",
    "text_of",
]

PICTURE_PX = 144
"""Longer side of pictures on the page, before zooming."""

LONGEST_TEXT = 160
"""Longer values are cut: a representation is there for an overview."""

FEW_NUMBERS = 8
"""So many are written rather than drawn."""

FOREIGN_TEXT = 10_000
"""Longer representations of foreign objects are not even escaped."""

_STYLE = """<style>
div.lt-box {color: inherit; font-size: 0.92em; line-height: 1.45; max-width: 64em; overflow-x: auto;
 padding: 2px 0}
div.lt-box div.lt-title {font-weight: 600; margin: 0 0 5px}
div.lt-box div.lt-title small {font-weight: normal; opacity: 0.7; font-size: 0.92em; margin-left: 0.5em}
div.lt-box table {border-collapse: collapse; border: none; margin: 0 0 6px; font-size: inherit; width: auto;
 table-layout: auto}
div.lt-box table tr, div.lt-box table tr:nth-child(odd), div.lt-box table tr:nth-child(even),
div.lt-box table tr:hover {background: transparent; border: none}
div.lt-box table th, div.lt-box table td {text-align: left !important; vertical-align: top;
 padding: 1px 16px 1px 0; border: none; white-space: normal; max-width: none; color: inherit;
 background: transparent}
div.lt-box table.lt-facts th {font-weight: normal; opacity: 0.7; white-space: nowrap}
div.lt-box table.lt-facts td {overflow-wrap: anywhere}
div.lt-box table.lt-table th {font-weight: normal; opacity: 0.7;
 border-bottom: 1px solid rgba(128,128,128,.5)}
div.lt-box table.lt-table td {vertical-align: middle; padding-top: 3px; padding-bottom: 3px}
div.lt-box code {font-size: 0.95em; color: inherit; background: rgba(128,128,128,.14); padding: 1px 4px;
 border-radius: 3px; white-space: pre-wrap; overflow-wrap: anywhere}
div.lt-box details {margin: 3px 0 0}
div.lt-box summary {cursor: pointer; opacity: 0.8}
div.lt-box div.lt-beside {display: flex; flex-wrap: wrap; gap: 4px 20px; align-items: flex-start}
div.lt-box div.lt-beside > div {flex: 0 0 auto; max-width: 100%}
div.lt-box div.lt-beside > div:last-child {flex: 1 1 24em; min-width: 0}
div.lt-box img {image-rendering: pixelated; display: inline-block; max-width: none; vertical-align: middle;
 margin: 0 4px 0 0; border: 1px solid rgba(128,128,128,.5)}
div.lt-box figure {margin: 0}
div.lt-box figcaption {opacity: 0.7; font-size: 0.88em; max-width: 150px; line-height: 1.25; margin-top: 3px}
div.lt-box svg {vertical-align: middle; overflow: visible; margin: 3px 0}
</style>"""


class Html(str):
    """Text that is markup already and must not be escaped again."""

    __slots__ = ()


def _cell(value: Any) -> str:
    return value if isinstance(value, Html) else escape(str(value))


def box(title: str, *parts: str, remark: str = "") -> str:
    """The whole: a title and what belongs to it.

    Parameters
    ----------
    title, remark : str
        Plain text; the remark stands beside the title.
    *parts : str
        Markup from the other functions.
    """
    small = f" <small>{escape(remark)}</small>" if remark else ""
    head = f'<div class="lt-title">{escape(title)}{small}</div>'
    return f'{_STYLE}<div class="lt-box">{head}{"".join(parts)}</div>'


def facts(rows: Iterable[tuple[str, Any]]) -> Html:
    """Names with values."""
    body = "".join(f"<tr><th>{escape(name)}</th><td>{_cell(value)}</td></tr>" for name, value in rows)
    return Html(f'<table class="lt-facts"><tbody>{body}</tbody></table>')


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> Html:
    """Columns with heads."""
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>" for row in rows)
    return Html(f'<table class="lt-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>')


def folded(summary: str, *parts: str) -> Html:
    """What is shown after a click."""
    return Html(f"<details><summary>{escape(summary)}</summary>{''.join(parts)}</details>")


def beside(*parts: str) -> Html:
    """Side by side where there is room."""
    return Html('<div class="lt-beside">' + "".join(f"<div>{part}</div>" for part in parts) + "</div>")


def picture(
    values: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_] | bool = True,
    *,
    alt: str,
    logarithmic: bool = False,
    size_px: int = PICTURE_PX,
) -> Html:
    """A small grey picture.

    Parameters
    ----------
    values : array
        ``(height, width)``, numbers.
    valid : array of bool, optional
        The others are transparent.
    alt : str
        What it shows, for those who do not see it.
    logarithmic : bool, optional
        Show four decades.
    size_px : int, optional
        Longer side on the page.
    """
    values = np.abs(values) if np.iscomplexobj(values) else np.asarray(values, dtype=np.float64)
    # Twice as many as on the page, for screens with small pixels.
    small = shrink(np.where(valid, values, np.nan), 2 * size_px)
    data = base64.b64encode(encode_png(grey_image(small, logarithmic=logarithmic))).decode("ascii")
    height, width = values.shape
    # Narrow ones are made wide enough to be seen.
    shown = [max(6, round(size_px * extent / max(height, width))) for extent in (height, width)]
    return Html(
        f'<img src="data:image/png;base64,{data}" alt="{escape(alt)}" height="{shown[0]}" width="{shown[1]}" '
        f'style="height:{shown[0]}px;width:{shown[1]}px">'
    )


def curve(values: npt.NDArray[Any], *, alt: str, width_px: int = 200, height_px: int = 44) -> Html:
    """A small curve over the number of the element.

    Parameters
    ----------
    values : array
        One dimension, numbers. What is not finite is left out.
    alt : str
        What it shows.
    width_px, height_px : int, optional
        On the page.
    """
    values = np.abs(values) if np.iscomplexobj(values) else np.asarray(values, dtype=np.float64)
    places = np.flatnonzero(np.isfinite(values))
    if places.size > 4 * width_px:
        # The lowest and the highest of each stretch: peaks stay.
        stretches = np.array_split(places, width_px)
        ends = (np.argmin, np.argmax)
        places = np.unique([part[pick(values[part])] for part in stretches for pick in ends])
    heights = values[places]
    span = float(np.ptp(heights)) if places.size else 0.0
    x = places * (width_px / max(1, values.size - 1))
    y = np.full(places.size, height_px / 2)
    if span > 0:
        y = (1 - (heights - heights.min()) / span) * height_px
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return Html(
        f'<svg width="{width_px}" height="{height_px}" role="img" aria-label="{escape(alt)}">'
        f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="1"/></svg>'
    )


def look(
    values: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_] | bool,
    *,
    alt: str,
    logarithmic: bool = False,
    size_px: int = 96,
) -> Html:
    """What can be shown of a result: a picture, up to four of them, a curve, some numbers; or nothing."""
    if values.dtype.kind not in "biufc" or not values.size:
        return Html("")
    flat = np.squeeze(values)
    covered = np.broadcast_to(valid, values.shape).reshape(flat.shape)
    if flat.size <= FEW_NUMBERS:
        with np.printoptions(precision=4, suppress=True):
            return Html(f'<span style="white-space:pre">{escape(str(flat))}</span>')
    if flat.ndim == 1:
        return curve(np.where(covered, flat, np.nan), alt=alt)
    if flat.ndim == 2:
        return picture(flat, covered, alt=alt, logarithmic=logarithmic, size_px=size_px)
    if flat.ndim == 3 and flat.shape[-1] <= 4:
        return Html(
            "".join(
                picture(
                    flat[..., i],
                    covered[..., i],
                    alt=f"{alt}, number {i}",
                    logarithmic=logarithmic,
                    size_px=size_px,
                )
                for i in range(flat.shape[-1])
            )
        )
    return Html("")


def product(shape: Iterable[Any]) -> str:
    r"""A shape as people write it.

    Examples
    --------
    >>> product((64, 128)) == "64 \N{MULTIPLICATION SIGN} 128"
    True
    """
    return " \N{MULTIPLICATION SIGN} ".join(str(extent) for extent in shape) or "1"


def dtype_text(dtype: Any) -> str:
    """A dtype in words.

    Examples
    --------
    >>> dtype_text(">u2")
    'uint16, big-endian'
    """
    dtype = np.dtype(dtype)
    if dtype.names is not None or dtype.byteorder != ">":
        return str(dtype) if dtype.isnative else f"{dtype.name}, little-endian"
    return f"{dtype.name}, big-endian"


def byte_count(n_bytes: float) -> str:
    """Number of bytes in words, with powers of 1000 as files are given.

    Examples
    --------
    >>> byte_count(1_073_741_824)
    '1.07 GB'
    >>> byte_count(96)
    '96 bytes'
    """
    if n_bytes < 1000:
        return f"{n_bytes:.0f} bytes"
    for unit in ("kB", "MB", "GB"):
        n_bytes /= 1000
        if n_bytes < 999.5:
            return f"{n_bytes:.3g} {unit}"
    return f"{n_bytes / 1000:.4g} TB"


def text_of(value: Any) -> str:
    """A value in short, whatever it is."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is not None and dtype is not None and shape != ():
        return f"{type(value).__name__} of {dtype}, {tuple(shape)}"
    if callable(value) and hasattr(value, "__qualname__"):
        return str(value.__qualname__).replace("<locals>.", "")
    if isinstance(value, list | tuple) and len(value) > 16:
        return f"{type(value).__name__} of {len(value)}"
    text = repr(value)[:FOREIGN_TEXT]
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + " ..."


def never_failing(make: Callable[[], str]) -> str | None:
    """Result of a function; None, for which notebooks show the plain representation, if it fails."""
    try:
        return make()
    except Exception:  # whatever is wrong with an object, looking at it must not end in a traceback
        return None
