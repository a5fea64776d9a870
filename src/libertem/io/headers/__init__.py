"""Header parsers that two or more formats need."""
