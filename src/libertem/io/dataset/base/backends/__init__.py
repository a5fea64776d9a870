"""I/O backends: memory map, buffered and direct reading."""
