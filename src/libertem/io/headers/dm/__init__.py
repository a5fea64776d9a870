"""The tag tree of Digital Micrograph files: parser and result."""

from libertem.io.headers.dm.parser import parse_tags
from libertem.io.headers.dm.tags import DMArray, DMTags, DMValue, Names
from libertem.io.headers.dm.tree import tags_to_dict

__all__ = ["DMArray", "DMTags", "DMValue", "Names", "parse_tags", "tags_to_dict"]
