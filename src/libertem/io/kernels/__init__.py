"""Compiled functions on bytes and arrays."""
