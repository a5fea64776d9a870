"""XML that comes from anywhere: parsed without entities, and turned into plain data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from libertem.exceptions import HeaderError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

__all__ = ["parse_xml", "xml_to_dict"]

MAX_DEPTH = 16
"""What is nested more deeply is left out; no header needs that much."""


def parse_xml(raw: bytes, *, path: str, hint: str | None = None) -> Element:
    """Root element of an XML file.

    Parameters
    ----------
    raw : bytes
        The whole file.
    path : str
        Where `raw` came from. Named in errors, never opened.
    hint : str, optional
        How to go on from an error.

    Raises
    ------
    HeaderError
        If it is not well-formed or declares a document type or entities.
    """
    # Optional, so that all other formats work without it.
    from xml.etree.ElementTree import ParseError

    from defusedxml.ElementTree import fromstring

    try:
        root: Element = fromstring(raw, forbid_dtd=True)
    except (ParseError, ValueError, LookupError) as err:
        # ValueError and LookupError: entities and document types, unknown encodings.
        raise HeaderError(
            "not a well-formed XML file", path=path, found=f"{raw[:20]!r}, {err}", hint=hint
        ) from err
    return root


def xml_to_dict(element: Element) -> dict[str, Any] | str:
    """Content of an element: its text, or a dict if it has attributes or children.

    Attributes are under their names with ``@`` in front, children under their tags, text beside them under
    ``#text``. Several children with the same tag become a list.

    Examples
    --------
    >>> from xml.etree.ElementTree import fromstring
    >>> xml_to_dict(fromstring('<scan mode="search"><x>2</x><y>3</y><roi/><roi/></scan>'))
    {'@mode': 'search', 'x': '2', 'y': '3', 'roi': ['', '']}
    """
    return _to_dict(element, MAX_DEPTH)


def _to_dict(element: Element, depth: int) -> dict[str, Any] | str:
    text = (element.text or "").strip()
    content: dict[str, Any] = {f"@{name}": value for name, value in element.attrib.items()}
    if depth > 0:
        for child in element:
            # Comments and processing instructions have no name.
            if isinstance(child.tag, str):
                content.setdefault(child.tag, []).append(_to_dict(child, depth - 1))
    if not content:
        return text
    plain = {name: value[0] if _is_single(value) else value for name, value in content.items()}
    return {**plain, "#text": text} if text else plain


def _is_single(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 1
