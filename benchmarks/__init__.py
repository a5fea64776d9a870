"""Measure the speed, start-up time and memory of the library: ``python -m benchmarks``."""
