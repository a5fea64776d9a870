"""Compiled reductions over frames where they lie in a file."""
