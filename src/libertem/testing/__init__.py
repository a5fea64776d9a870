"""Test suites and synthetic data for authors of formats and UDFs."""
