"""Tools built on top of the library."""
